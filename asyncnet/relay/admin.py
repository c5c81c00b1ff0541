"""What an administrator does to a queue, from another process than the relay's, whether that runs or not.

Each change is a transaction of its own, and large ones are made in steps, so that the relay waits for milliseconds. It
notices within a second (`Queue.wait`). Everything here waits for the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from os import PathLike
from typing import TypeAlias

from asyncnet.relay.database import Database, lower_destinations
from asyncnet.relay.messages import QueuedMessage, QueuedRecipient, State
from asyncnet.relay.rows import NONSENSE, message_of, recipient_of, stand_in
from asyncnet.relay.schema import messages, recipients
from asyncnet.relay.spool import Spool
from asyncnet.relay.sql import Connection, exists, func, select, update
from asyncnet.relay.statements import remove_messages

STEP = 500
"""How many messages are read or changed at a time."""

AT_ONCE = 0.0
"""A time that has come by every clock: the relay's may differ from ours."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages are meant: all, or those with these keys, or with a recipient at a destination, which is a domain,
    or a host that was named."""

    keys: Sequence[int] | None = None
    destination: str | None = None


Listed: TypeAlias = tuple[QueuedMessage, list[QueuedRecipient]]
"""A message and its recipients, in their order; only those whose rows make sense."""

_Change: TypeAlias = Callable[[Connection, list[int]], list[int]]
"""Changes messages; returns the keys of those that it was of use for."""


class QueueAdmin:
    """A queue as its administrator has it: made by `open_admin`."""

    def __init__(self, spool: Spool, database: Database) -> None:
        self._spool = spool
        self._database = database

    def find(self, selection: Selection = Selection()) -> Iterator[Listed]:
        """The messages, the oldest first, as long as the queue may be: they are read in steps."""
        for keys in self._steps(selection):
            with self._database.transaction(reads=True) as connection:
                found = _read(connection, keys)
            yield from found

    def retry(self, selection: Selection) -> list[int]:
        """Have messages tried at once, unless they are held; those that were set aside, too. Returns the keys of those
        that this was done to, as the other methods do."""
        return self._change(selection, _retry)

    def hold(self, selection: Selection) -> list[int]:
        """Have messages wait until they are released. An attempt that is under way goes on."""
        return self._change(selection, _hold)

    def release(self, selection: Selection) -> list[int]:
        """End the waiting of held messages: they are due at once."""
        return self._change(selection, _release)

    def remove(self, selection: Selection) -> list[int]:
        """Remove messages for ever. Nobody is told. An attempt that is under way goes on."""
        removed: list[int] = []
        for keys in self._steps(selection):
            with self._database.transaction() as connection:
                keys = _those(connection, keys)
                files = remove_messages(connection, keys)
            self._spool.remove(files)
            removed.extend(keys)
        return removed

    def _change(self, selection: Selection, change: _Change) -> list[int]:
        changed: list[int] = []
        for keys in self._steps(selection):
            with self._database.transaction() as connection:
                changed.extend(change(connection, _those(connection, keys)))
        return changed

    def _steps(self, selection: Selection) -> Iterator[list[int]]:
        """The keys of what is selected, some at a time; those that come meanwhile may be among them or not."""
        statement = select(messages.c.key).order_by(messages.c.key).limit(STEP)
        if selection.keys is not None:
            keys = sorted(set(selection.keys))
            yield from (keys[start : start + STEP] for start in range(0, len(keys), STEP))
            return
        if selection.destination is not None:
            # Asked of one message after the other: the list of all that are there would be made anew for each step.
            name = selection.destination
            is_there = (recipients.c.destination == name) | (func.lower(recipients.c.domain) == name.lower())
            statement = statement.where(exists().where((recipients.c.message == messages.c.key) & is_there))
        last = -1
        while True:
            with self._database.transaction(reads=True) as connection:
                found = connection.scalars(statement.where(messages.c.key > last)).all()
            keys = [key for key in found if key > last]  # a damaged database may find others, and for ever
            if not keys:
                return
            yield keys
            last = max(keys)


@contextmanager
def open_admin(folder: str | PathLike[str]) -> Iterator[QueueAdmin]:
    """Open the queue in `folder`. Raises ConfigurationError if none is there, or it is none of this version."""
    spool = Spool(folder)
    database = Database(spool.database)
    try:
        yield QueueAdmin(spool, database)
    finally:
        database.close()


def _read(connection: Connection, keys: list[int]) -> list[Listed]:
    found: dict[int, Listed] = {}
    for row in connection.execute(select(messages).where(messages.c.key.in_(keys)).order_by(messages.c.key)):
        try:
            found[row.key] = message_of(row._mapping), []
        except NONSENSE:
            found[row.key] = stand_in(row._mapping), []
    statement = select(recipients).where(recipients.c.message.in_(found))
    for row in connection.execute(statement.order_by(recipients.c.message, recipients.c.position)):
        with suppress(*NONSENSE):
            found[row.message][1].append(recipient_of(row._mapping))
    return list(found.values())


def _those(connection: Connection, keys: list[int], *, held: bool | None = None) -> list[int]:
    """Which of these are there; only those that are held, or not."""
    statement = select(messages.c.key).where(messages.c.key.in_(keys)).order_by(messages.c.key)
    return list(connection.scalars(statement if held is None else statement.where(messages.c.held == held)))


def _retry(connection: Connection, keys: list[int]) -> list[int]:
    connection.execute(update(messages).where(messages.c.key.in_(keys)).values(damage=None))
    _plan_at_once(connection, keys)
    return _those(connection, keys, held=False)


def _hold(connection: Connection, keys: list[int]) -> list[int]:
    connection.execute(update(messages).where(messages.c.key.in_(keys)).values(held=True))
    connection.execute(update(recipients).where(recipients.c.message.in_(keys)).values(next_attempt=None))
    return keys


def _release(connection: Connection, keys: list[int]) -> list[int]:
    held = _those(connection, keys, held=True)
    connection.execute(update(messages).where(messages.c.key.in_(held)).values(held=False))
    _plan_at_once(connection, held)
    return held


def _plan_at_once(connection: Connection, keys: list[int]) -> None:
    """Have what is pending of messages due now, except where it is to wait."""
    ready = select(messages.c.key).where(messages.c.key.in_(keys), ~messages.c.held, messages.c.damage.is_(None))
    pending = recipients.c.message.in_(ready) & (recipients.c.state == State.PENDING.value)
    connection.execute(update(recipients).where(pending).values(next_attempt=AT_ONCE))
    names = connection.scalars(select(recipients.c.destination).where(pending).distinct())
    lower_destinations(connection, dict.fromkeys(names, AT_ONCE))
