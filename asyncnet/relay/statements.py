"""What a relay changes in the queue's database, as statements within a transaction: see also `relay.claiming`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from asyncnet.relay.database import lower_destinations
from asyncnet.relay.messages import Arrival, Claim, Outcome, State
from asyncnet.relay.rows import encode_reply, encode_text, message_row, recipient_rows
from asyncnet.relay.schema import contents, messages, recipients
from asyncnet.relay.sql import Connection, bindparam, delete, func, null, select, update

PENDING = State.PENDING.value
DONE = (State.DELIVERED.value, State.FAILED.value)


@dataclass(slots=True)
class Insertion:
    """A message enters the queue."""

    arrival: Arrival


@dataclass(slots=True)
class Recording:
    """An attempt has come to its end. What the senders are told of it enters the queue in the same moment."""

    claim: Claim
    outcomes: Sequence[Outcome]
    now: float
    next_attempts: Mapping[int, float]
    """When those who are still pending are tried again, by their position."""
    reports: Sequence[Arrival] = ()
    is_finished: bool = False
    """Set: no recipient is pending any more, and the message is gone."""


@dataclass(slots=True)
class SettingAside:
    """A message whose content is damaged waits for somebody to look at it."""

    claim: Claim
    reason: str
    was_there: bool = True
    """Set: whether it is still in the queue."""


@dataclass(slots=True)
class Watching:
    """Somebody asks whether others have changed the database."""

    changes_of_others: int = 0
    """Set: a number that is another one then."""


def insert_arrivals(connection: Connection, arrivals: Sequence[Arrival]) -> None:
    """Have messages in the queue."""
    if not arrivals:
        return
    connection.execute(messages.insert(), [message_row(arrival.message) for arrival in arrivals])
    blobs = [{"message": one.message.key, "data": one.data} for one in arrivals if one.data is not None]
    if blobs:
        connection.execute(contents.insert(), blobs)
    connection.execute(recipients.insert(), [row for arrival in arrivals for row in recipient_rows(arrival)])
    earliest: dict[str, float] = {}
    for arrival in arrivals:
        for recipient in arrival.recipients:
            if recipient.next_attempt is not None:
                before = earliest.get(recipient.destination, math.inf)
                earliest[recipient.destination] = min(before, recipient.next_attempt)
    lower_destinations(connection, earliest)


_record_outcome = (
    update(recipients)
    .where(recipients.c.message == bindparam("of_message"))
    .where(recipients.c.position == bindparam("of_position"))
    .where(recipients.c.state == PENDING)
    .values(
        state=bindparam("new_state"),
        attempts=recipients.c.attempts + 1,
        next_attempt=bindparam("new_next"),
        last_attempt=bindparam("new_last"),
        reply=bindparam("new_reply"),
        remote=bindparam("new_remote"),
        warned=recipients.c.warned | bindparam("new_warned"),
    )
)


def record_outcomes(connection: Connection, recordings: Sequence[Recording]) -> list[int]:
    """Note what became of attempts, and remove the messages that are done with. Returns the keys of those whose files
    are to be removed after the transaction."""
    if not recordings:
        return []
    rows = [_outcome_row(recording, outcome) for recording in recordings for outcome in recording.outcomes]
    if rows:
        connection.execute(_record_outcome, rows)
    keys = {recording.claim.message.key for recording in recordings}
    _stop_held(connection, keys)
    # Whatever a disk has made of a state: who is not done with keeps the message.
    open_ones = recipients.c.message.in_(keys) & recipients.c.state.not_in(DONE)
    unfinished = set(connection.scalars(select(recipients.c.message).where(open_ones).distinct()))
    for recording in recordings:
        recording.is_finished = recording.claim.message.key not in unfinished
    return remove_messages(connection, keys - unfinished)


def _outcome_row(recording: Recording, outcome: Outcome) -> dict[str, object]:
    return {
        "of_message": recording.claim.message.key,
        "of_position": outcome.position,
        "new_state": outcome.state.value,
        "new_next": recording.next_attempts.get(outcome.position),
        "new_last": recording.now,
        "new_reply": encode_reply(outcome.reply),
        "new_remote": encode_text(outcome.remote),
        "new_warned": outcome.warned,
    }


def _stop_held(connection: Connection, keys: Iterable[int]) -> None:
    """Messages that were held or set aside while an attempt was made have no next one."""
    stopped = select(messages.c.key).where(messages.c.key.in_(keys), messages.c.held | messages.c.damage.is_not(null()))
    connection.execute(update(recipients).where(recipients.c.message.in_(stopped)).values(next_attempt=None))


def remove_messages(connection: Connection, keys: Iterable[int]) -> list[int]:
    """Forget messages. Returns the keys of those that have files, to be removed after the transaction."""
    keys = list(keys)
    if not keys:
        return []
    files = list(connection.scalars(select(messages.c.key).where(messages.c.key.in_(keys), messages.c.in_file)))
    connection.execute(delete(contents).where(contents.c.message.in_(keys)))
    connection.execute(delete(recipients).where(recipients.c.message.in_(keys)))
    connection.execute(delete(messages).where(messages.c.key.in_(keys)))
    return files


def set_aside(connection: Connection, request: SettingAside) -> None:
    """Note what is wrong with a message, and plan no more attempts."""
    request.was_there = stop_damaged(connection, request.claim.message.key, request.reason)


def stop_damaged(connection: Connection, key: int, reason: str) -> bool:
    """Note why a message has no attempts any more. Whether there is such a message."""
    noted = connection.execute(update(messages).where(messages.c.key == key).values(damage=reason))
    connection.execute(update(recipients).where(recipients.c.message == key).values(next_attempt=None))
    return noted.rowcount > 0


def known(connection: Connection, keys: Sequence[int]) -> list[int]:
    """Those of `keys` that are messages whose content is a file."""
    return list(connection.scalars(select(messages.c.key).where(messages.c.key.in_(keys), messages.c.in_file)))


def greatest_key(connection: Connection) -> int:
    """The key of the message that came last; 0 in an empty queue."""
    return connection.scalar(select(func.max(messages.c.key))) or 0


def first_key(now: float) -> int:
    """The least key of a message that begins at that time: 45 bits of milliseconds, and 18 that are drawn by lot."""
    return int(now * 1000) << 18


def correct_arrivals(connection: Connection, now: float, first: int, expires: float) -> None:
    """Have what came in the future have come now: the clock was ahead, and it would never expire. The keys from `first`
    on are those of then, and of what has come since."""
    ahead = (messages.c.key >= first) & (messages.c.arrived > now)
    connection.execute(update(messages).where(ahead).values(arrived=now, expires=expires))
