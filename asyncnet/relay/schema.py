"""The tables of the queue's database, and how older ones become these.

Who changes the tables raises `VERSION` and adds a step, so that a queue full of mail outlives an update of asyncnet. A
queue that a newer asyncnet has written is refused: it may hold what this one would overlook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from asyncnet.relay.sql import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

VERSION = 1

STEPS: Mapping[int, Callable[[Connection], object]] = {}
"""What makes tables of version n those of version n + 1."""

metadata = MetaData()


class Key(BigInteger):
    """The key of a message, 63 bits. A type of its own, as databases differ in what they make rows quick to find by."""


messages = Table(
    "messages",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=False),
    Column("sender_local", Text),  # both None: the null reverse-path
    Column("sender_domain", Text),
    Column("envelope", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("arrived", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("checksum", String(64), nullable=False),
    Column("in_file", Boolean, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("damage", Text),
)

contents = Table(
    "contents",
    metadata,
    Column("message", Key, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)
"""Apart from the messages, so that whoever lists those does not wade through what they hold."""

recipients = Table(
    "recipients",
    metadata,
    Column("message", Key, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("local", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("notify", Text, nullable=False),
    Column("original", Text),
    Column("destination", Text, nullable=False),
    Column("state", String(10), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt", Float),
    Column("last_attempt", Float),
    Column("reply", Text),
    Column("remote", Text),
    Column("warned", Boolean, nullable=False),
    Index("recipients_due", "destination", "next_attempt", "message", "position"),
)

destinations = Table(
    "destinations",
    metadata,
    Column("name", Text, primary_key=True),
    Column("next_attempt", Float, nullable=False),
    Index("destinations_due", "next_attempt", "name"),
)
"""Where pending recipients are: `next_attempt` is the earliest of theirs, or earlier. So one look finds who has
something due, however much of it a single destination has."""
