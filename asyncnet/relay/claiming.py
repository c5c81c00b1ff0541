"""What is due: how a relay finds it in the queue's database.

Two indexes lead there: `destinations` tells where something is due, and of each of these the earliest recipients are
read, no more than there is room for. So neither the length of the queue matters, nor that one destination, which is
down, has most of it. What is in the relay's hands is known to it alone (`Schedule`), and passed over.

The time of a destination is that of its earliest recipient, or earlier: whoever plans an attempt lowers it, and it is
raised here alone, when nothing was found.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from asyncnet.relay.database import lower_destinations
from asyncnet.relay.messages import Claim, format_id
from asyncnet.relay.rows import NONSENSE, UNREADABLE, is_utf8, message_of, recipient_of
from asyncnet.relay.schedule import Schedule
from asyncnet.relay.schema import contents, destinations, messages, recipients
from asyncnet.relay.sql import (
    Connection,
    Row,
    Select,
    Text,
    cast,
    delete,
    func,
    literal,
    null,
    select,
    update,
)
from asyncnet.relay.statements import stop_damaged
from asyncnet.smtp.address import ascii_domain

logger = logging.getLogger(__name__)

LOOKED_AT = 200
"""At how many destinations one look looks: where others have removed or held much, nothing is due at most of them after
all, and the writer has more to do."""


@dataclass(slots=True)
class Claiming:
    """A relay asks for work."""

    schedule: Schedule
    now: float
    farthest: float
    """No pause leads beyond that time, unless a clock was wrong."""
    limit: int
    """How many claims are wanted at most."""
    per_destination: int
    """How many one destination may have, with those that are out already."""
    per_claim: int
    """How many recipients of a message go into one claim."""
    only: Collection[str] | None = None
    """Where to look; None: everywhere."""
    changes_of_others: int = 0
    """Set: a number that is another one when others have changed the database."""
    found: list[Claim] = field(default_factory=list)
    drained: dict[str, float] = field(default_factory=dict)
    """Set: where all that is due is claimed now, and when there will be more."""
    next_due: float = math.inf
    """Set: when something is due elsewhere; `now` if there was more than was wanted."""


def find_due(connection: Connection, request: Claiming) -> None:
    """Find what is due."""
    request.found, request.drained, request.next_due = [], {}, math.inf  # it may be tried again
    passed_over = request.schedule.passed_over(request.now, request.per_destination)
    looked = 0
    while len(request.found) < request.limit and looked < LOOKED_AT:
        room = request.limit - len(request.found)
        names = list(connection.scalars(due_destinations(request.now, passed_over, room, request.only)))
        if not names:
            break
        looked += len(names)
        for name in _sound(connection, names):
            if len(request.found) == request.limit:
                break
            if _claim_at(connection, request, name):
                passed_over.add(name)
    if len(request.found) < request.limit and looked < LOOKED_AT:
        later = select(func.min(destinations.c.next_attempt)).where(destinations.c.next_attempt > request.now)
        found = connection.scalar(later)
        request.next_due = min(request.next_due, math.inf if found is None else found)
    else:
        request.next_due = request.now


def due_destinations(
    now: float, passed_over: Iterable[str], limit: int, only: Collection[str] | None = None
) -> Select[Any]:
    """Where something is due, the longest overdue first."""
    names = select(destinations.c.name)
    return (
        (names if only is None else names.where(destinations.c.name.in_(only)))
        .where(destinations.c.next_attempt <= now, destinations.c.name.not_in(passed_over))
        .order_by(destinations.c.next_attempt, destinations.c.name)
        .limit(limit)
    )


def due_recipients(name: str, now: float, limit: int) -> Select[Any]:
    """Who is due at a destination, the longest overdue first, those of one message together."""
    return (
        select(recipients)
        .where(recipients.c.destination == name, recipients.c.next_attempt <= now)
        .order_by(recipients.c.next_attempt, recipients.c.message, recipients.c.position)
        .limit(limit)
    )


def _claim_at(connection: Connection, request: Claiming, name: str) -> bool:
    """Claim what is due at a destination. Whether more looks would find it, in this transaction."""
    claimed = request.schedule.claimed_at(name)
    room = min(
        request.limit - len(request.found),
        request.schedule.room_at(name, request.per_destination),
    )
    limit = room + request.per_claim + len(claimed)
    rows = connection.execute(due_recipients(name, request.now, limit)).all()
    groups = _groups(rows, claimed, request.per_claim)
    if groups:
        request.found.extend(_claims(connection, name, groups[:room]))
    if len(rows) == limit or len(groups) > room:
        return True  # there is more
    if groups or claimed:
        request.drained[name] = _next_attempt(connection, name, request.now)
        return True
    return _settle(connection, request, name)


_Group: TypeAlias = tuple[Any, list[Row[Any]]]
"""A message's key, or what the disk has made of it, and the rows of some of its recipients."""


def _groups(rows: Sequence[Row[Any]], claimed: Collection[tuple[int, int]], size: int) -> list[_Group]:
    """Recipients that are not claimed yet, those of each message together, up to `size` of them."""
    groups: list[_Group] = []
    for row in rows:
        if (row.message, row.position) in claimed:
            continue
        if not groups or groups[-1][0] != row.message or len(groups[-1][1]) == size:
            groups.append((row.message, []))
        groups[-1][1].append(row)
    return groups


def _claims(connection: Connection, name: str, groups: Sequence[_Group]) -> Iterator[Claim]:
    """The claims on these recipients. A message that makes no sense is set aside: it is not to keep others from us."""
    keys = {key for key, _ in groups if isinstance(key, int)}
    statement = select(messages, contents.c.data).outerjoin(contents, contents.c.message == messages.c.key)
    rows = {row.key: row for row in connection.execute(statement.where(messages.c.key.in_(keys)))}
    for key, found in groups:
        try:
            yield _claim(name, rows[key], found)
        except NONSENSE as error:
            logger.error("message %s was set aside: %s (%r)", _shown(key), UNREADABLE, error)
            stop_damaged(connection, key, UNREADABLE)


def _claim(name: str, row: Row[Any], found: Iterable[Row[Any]]) -> Claim:
    """Raises one of `NONSENSE`."""
    message = message_of(row._mapping)
    wanted = tuple(recipient_of(each._mapping) for each in found)
    addresses = (message.envelope.sender, *(each.recipient.address for each in wanted))
    for address in addresses:
        if address is not None:
            ascii_domain(address.domain)  # raises for what leads nowhere: whoever routes mail relies on it
    if not isinstance(row.data, bytes | None):
        raise TypeError(f"a content that is {row.data!r}")
    return Claim(message, name, wanted, row.data)


def _shown(key: object) -> str:
    """A message's id, or what there is in its place."""
    return format_id(key) if isinstance(key, int) else repr(key)


def _next_attempt(connection: Connection, name: str, now: float) -> float:
    """When a destination has something due that is not due yet."""
    later = (recipients.c.destination == name) & (recipients.c.next_attempt > now)
    found = connection.scalar(select(func.min(recipients.c.next_attempt)).where(later))
    if not isinstance(found, float | int | None):
        return _NONSENSE
    return math.inf if found is None else found


_NONSENSE = sys.float_info.max
"""A time that is no number, which SQLite finds greater than all: farther away than any pause leads."""


def _settle(connection: Connection, request: Claiming, name: str) -> bool:
    """Nothing is due at a destination, and nothing is claimed: say when there will be. Whether that is now."""
    when = _next_attempt(connection, name, request.now)
    here = destinations.c.name == name
    if request.farthest < when < math.inf:
        _bring_forward(connection, name, request.now, request.farthest)
        request.next_due = request.now
        return True
    if when == math.inf:
        found = connection.execute(delete(destinations).where(here)).rowcount
    else:
        found = connection.execute(update(destinations).where(here).values(next_attempt=when)).rowcount
    if not found:
        _rebuild(connection)
    return not found


def _rebuild(connection: Connection) -> None:
    """By one index a destination is there, and by another one it is not: have `destinations` made of what there is. All
    that is in it can be found out again."""
    logger.error("the list of destinations is damaged: it is made anew")
    connection.execute(delete(destinations))
    _complete(connection)


def correct_plans(connection: Connection, now: float, farthest: float) -> None:
    """Have due now what is planned farther away than any pause leads: the clock was ahead when that was done.

    A destination that has something due earlier, too, is corrected when that is done with. And one that `destinations`
    does not know, because the disk has changed its name, is looked at: mail that nobody looks for is lost.
    """
    _complete(connection)
    late = select(destinations.c.name).where(destinations.c.next_attempt > farthest)
    for name in _sound(connection, list(connection.scalars(late))):
        _bring_forward(connection, name, now, farthest)


def _complete(connection: Connection) -> None:
    """Have `destinations` know all of them."""
    unknown = list(connection.scalars(_unknown()))
    lower_destinations(connection, dict.fromkeys(_sound(connection, unknown, are_listed=False), 0.0))


def _unknown() -> Select[Any]:
    """Where recipients are, and `destinations` does not say so: by a seek for each, however many are there."""
    there = select(func.min(recipients.c.destination).label("name")).cte("there", recursive=True)
    following = select(func.min(recipients.c.destination)).where(recipients.c.destination > there.c.name)
    there = there.union_all(select(following.scalar_subquery()).where(there.c.name.is_not(null())))
    return select(there.c.name).where(there.c.name.is_not(null()), there.c.name.not_in(select(destinations.c.name)))


def _sound(connection: Connection, names: Iterable[object], *, are_listed: bool = True) -> Iterator[str]:
    """Those of the names that are text. What is planned at another one is looked for at the destination "" from now on:
    where it goes is known by its address. `are_listed`: they are those of `destinations`."""
    for name in names:
        if isinstance(name, str) and is_utf8(name):
            yield name
            continue
        damaged = cast(name.encode(errors="surrogateescape"), Text) if isinstance(name, str) else literal(name)
        connection.execute(update(recipients).where(recipients.c.destination == damaged).values(destination=""))
        found = connection.execute(delete(destinations).where(destinations.c.name == damaged)).rowcount
        lower_destinations(connection, {"": 0.0})
        if are_listed and not found:
            _rebuild(connection)


def _bring_forward(connection: Connection, name: str, now: float, farthest: float) -> None:
    too_late = (recipients.c.destination == name) & (recipients.c.next_attempt > farthest)
    connection.execute(update(recipients).where(too_late).values(next_attempt=now))
    connection.execute(update(destinations).where(destinations.c.name == name).values(next_attempt=now))
