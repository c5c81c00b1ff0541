"""What the queue holds and what is said of it: values, without I/O.

Times are seconds since 1970 by the queue's clock (see `relay.queue`).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from asyncnet.replies import Reply
from asyncnet.smtp.delivery import Client
from asyncnet.smtp.envelope import Envelope, Recipient

_match_id = re.compile(r"[0-9A-Fa-f]{1,15}").fullmatch


def format_id(key: int) -> str:
    """What a message is called: in "queued as ...", in logs and by the commands."""
    return f"{key:X}"


def parse_id(text: str) -> int:
    """The key of the message that is called so. Raises ValueError for what no message could be called."""
    if _match_id(text) is None:
        raise ValueError("a message's id is up to 15 hexadecimal digits")
    return int(text, 16)


class State(enum.Enum):
    """How a recipient fares."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """For good: no, or too late."""


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    """One recipient of a message that is queued."""

    position: int
    """The place among the message's recipients, from 0."""
    recipient: Recipient
    destination: str
    """Where it goes, as far as scheduling is concerned: a domain in A-labels, or what the relay's routing says."""
    state: State = State.PENDING
    attempts: int = 0
    next_attempt: float | None = None
    """None: no attempt is due, ever, as the message is held, or damaged, or this recipient is done with. 0: at once."""
    last_attempt: float | None = None
    reply: Reply | None = None
    """What was said at the last attempt, or what we would have said in the place of a host that said nothing."""
    remote: str | None = None
    """Who said it: the host's name, for reports."""
    warned: bool = False
    """Whether the sender has been told that it takes long."""


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message that is queued, without recipients and content."""

    key: int
    """Its key in the database: those that came later have greater ones."""
    envelope: Envelope
    client: Client
    """Who brought it. Of an identity the name is kept, not the settings."""
    arrived: float
    expires: float
    size: int
    """Bytes of content, whatever the envelope says."""
    checksum: str
    """Of the content: see `spool.new_checksum`."""
    in_file: bool
    """Whether the content is a file of its own."""
    held: bool = False
    """Whether somebody has said that it has to wait."""
    damage: str | None = None
    """Why it is set aside, if it is: what is wrong with its content."""

    @property
    def id(self) -> str:
        return format_id(self.key)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that is to enter the queue. Its content is `data`, or on the disk already."""

    message: QueuedMessage
    recipients: tuple[QueuedRecipient, ...]
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Claim:
    """Recipients of one message at one destination, to whom somebody has undertaken to send it now."""

    message: QueuedMessage
    destination: str
    recipients: tuple[QueuedRecipient, ...]
    data: bytes | None
    """The content if it was in the database. `Queue.read` gives all content, and looks whether it is whole."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt, for one recipient."""

    position: int
    state: State
    """PENDING: it failed for now, and is tried again when the queue's `RetryPolicy` says."""
    reply: Reply
    remote: str | None = None
    warned: bool = False
    """Whether a warning of the delay is among the reports that are recorded with this."""


class DamagedContent(Exception):
    """A message's content is not what came in. The queue has set it aside."""


class UnreadableContent(Exception):
    """A message's content cannot be read now: the disk fails, or somebody has taken the right to. It stays queued."""


class Gone(Exception):
    """A message that was claimed has been removed from the queue meanwhile, by its administrator."""
