"""The durable queue of a relay: what has got its 250 is in it until it has been delivered, or its sender told why not.

    async with open_queue("/var/spool/asyncnet") as queue:
        await serve(SMTPHandler(queue), "tcp://127.0.0.1:2525")

To a server it is a `smtp.delivery.Delivery`. The relay that sends the mail on takes `Claim`s from it, reads their
contents, and records what became of them.

Theory of operation
===================

- *Nothing acknowledged is lost.* `commit` returns when an fsync has put the message on the disk: short contents and all
  facts with the database's transaction (`relay.database`), long contents before it (`relay.spool`). All messages that
  wait at the same moment share one transaction (`relay.writer`).
- *Nothing is delivered twice without need.* A message is claimed by one task at a time, and crossed off, recipient by
  recipient, in the transaction that also holds the reports about it. What is not recorded because the process was
  killed, or the connection died before the reply, is delivered again, as RFC 5321 section 6.1 has it.
- *Claims are in memory*, as one relay alone works in a folder, which a lock makes sure. So a relay that is killed holds
  none.
- *A disk that is full* refuses messages (452 4.3.1), from `QueueLimits.reserve` on before they have begun. Nothing
  else changes, so that it goes on when there is room.
- *What is damaged* is noticed when it is read: a checksum tells. The last piece of a content is handed out only after
  the checksum was right, so that nobody takes a damaged message for whole. The message is set aside, with file and
  row, and the log says so; `asyncnet queue` shows it, has it tried again or removes it.
- *Somebody works on the queue meanwhile*, with the commands, in another process: `wait` looks once a second whether the
  database has been changed by others. A message that is removed or held while an attempt is under way is delivered
  nevertheless, if that succeeds.
- *The clock is wrong, or jumps.* While it runs, a queue goes by the wall clock of its start and the time that has
  passed since, also in suspension: steps of the wall clock change nothing. At a start the wall clock is believed. If it
  is ahead, all is due at once, as many at a time as the relay has room for, and nothing is given up before
  `RetryPolicy.least_attempts`. If it is behind, what is planned farther away than any pause leads is due now.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from os import PathLike
from typing import TypeAlias, TypeVar

import trio

from asyncnet.errors import ConfigurationError
from asyncnet.relay.claiming import Claiming, correct_plans, find_due
from asyncnet.relay.database import Database
from asyncnet.relay.incoming import QueueTransaction, in_thread, no_room
from asyncnet.relay.limits import QueueLimits
from asyncnet.relay.messages import Arrival, Claim, DamagedContent, Gone, Outcome, State, UnreadableContent
from asyncnet.relay.retry import RetryPolicy
from asyncnet.relay.schedule import Schedule
from asyncnet.relay.spool import Spool, checksum_of, new_checksum
from asyncnet.relay.statements import (
    Insertion,
    Recording,
    SettingAside,
    Watching,
    correct_arrivals,
    first_key,
    greatest_key,
    insert_arrivals,
    known,
    record_outcomes,
    set_aside,
)
from asyncnet.relay.writer import Writer
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.delivery import Client
from asyncnet.smtp.envelope import Envelope

logger = logging.getLogger(__name__)

WATCH_EVERY = 1.0
"""How often, in seconds, `wait` looks whether others have changed something, and `start` how much room there is."""

Request: TypeAlias = Insertion | Recording | SettingAside | Claiming | Watching

T = TypeVar("T")


def by_domain(address: MailAddress) -> str:
    """The destination of an address where each domain is one."""
    return address.ascii_domain


def _time_that_passes() -> float:
    """Seconds since some moment, counted on in suspension where the platform can."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def queue_clock() -> Callable[[], float]:
    """A clock that shows the wall clock's time of now and does not follow its steps."""
    offset = time.time() - _time_that_passes()
    return lambda: offset + _time_that_passes()


async def _read_in_thread(claim: Claim, function: Callable[..., T], *args: object) -> T:
    try:
        return await in_thread(function, *args)
    except FileNotFoundError:
        raise
    except OSError as error:
        logger.error("message %s cannot be read: %s", claim.message.id, error)
        raise UnreadableContent(f"{claim.message.id}: {error.strerror}") from error


@asynccontextmanager
async def open_queue(
    folder: str | PathLike[str],
    *,
    retry: RetryPolicy = RetryPolicy(),
    limits: QueueLimits = QueueLimits(),
    destination_of: Callable[[MailAddress], str] = by_domain,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[Queue]:
    """Open the queue in `folder`, which is made if it is not there.

    `destination_of` says what counts as one destination: where a host that is down holds up its own mail only, and
    what the relay connects to. `clock` is for tests.

    Raises ConfigurationError if another relay is at work there, if a newer asyncnet was, or if it is damaged.
    """
    clock = clock or queue_clock()
    spool = Spool(folder)
    try:
        database, last_key, opened = await in_thread(_open, spool, clock(), retry)
    except OSError as error:
        raise ConfigurationError(f"{spool.folder}: the queue cannot be opened: {error.strerror}") from error
    try:
        yield Queue(spool, database, clock, last_key, retry, limits, destination_of)
    finally:
        with trio.CancelScope(shield=True):  # without a deadline: the disk alone is waited for
            await in_thread(opened.close)


def _open(spool: Spool, now: float, retry: RetryPolicy) -> tuple[Database, int, ExitStack]:
    """The database, the last key in it, and what is to be closed at the end."""
    with ExitStack() as stack:
        spool.make()
        stack.enter_context(spool.locked())
        database = Database(spool.database, create=True)
        stack.callback(database.close)
        spool.sync()
        with database.transaction() as connection:
            correct_plans(connection, now, now + retry.longest)
            correct_arrivals(connection, now, first_key(now), now + retry.expiry)
            last_key = greatest_key(connection)
            orphans = spool.remove_orphans(lambda keys: known(connection, keys))
        if orphans:
            logger.info("%s: removed %d contents that belong to no message", spool.folder, orphans)
        return database, last_key, stack.pop_all()


class Queue:
    """A queue that is open: made by `open_queue`. Everything may be called by many tasks at once."""

    def __init__(
        self,
        spool: Spool,
        database: Database,
        clock: Callable[[], float],
        last_key: int,
        retry: RetryPolicy,
        limits: QueueLimits,
        destination_of: Callable[[MailAddress], str],
    ) -> None:
        self.retry = retry
        self.limits = limits
        self.clock = clock
        """Shows the queue's time, in seconds since 1970."""
        self._spool = spool
        self._database = database
        self._destination_of = destination_of
        self._writer: Writer[Request] = Writer(self._commit, self._committed)
        self._last_key = last_key
        self._free = math.inf
        self._looked_at_free = -math.inf
        self._schedule = Schedule()
        self._claiming = trio.Lock()
        self._changed = trio.Event()
        self._next_due = -math.inf
        self._changes_of_others = database.changes_of_others()

    @property
    def changes_of_others(self) -> int:
        """Another number whenever somebody else, with the commands, has changed the queue and `claim` knows of it."""
        return self._changes_of_others

    # What a server does: `smtp.delivery.Delivery`

    async def start(self, envelope: Envelope, client: Client) -> QueueTransaction:
        """As `smtp.delivery` has it. Refuses with 452 4.3.1 what would not leave `QueueLimits.reserve` free."""
        now = trio.current_time()
        if now >= self._looked_at_free + WATCH_EVERY:
            self._looked_at_free = now  # others need not look, too
            before, self._free = self._free, await in_thread(self._spool.free_space)
            reserve = self.limits.reserve
            if self._free < reserve <= before:
                logger.error(
                    "%s: no mail is taken: %d bytes are free there, and %d are to stay so",
                    self._spool.folder,
                    self._free,
                    reserve,
                )
            elif before < reserve <= self._free:
                logger.warning("%s: mail is taken again: %d bytes are free there", self._spool.folder, self._free)
        if self._free - (envelope.size or 0) < self.limits.reserve:
            raise no_room()
        return self._begin(envelope, client)

    def _begin(self, envelope: Envelope, client: Client) -> QueueTransaction:
        async def accept(arrival: Arrival) -> None:
            await self._writer.submit(Insertion(arrival))

        return QueueTransaction(
            self._new_key(),
            envelope,
            client,
            spool=self._spool,
            limits=self.limits,
            retry=self.retry,
            destination_of=self._destination_of,
            clock=self.clock,
            accept=accept,
        )

    def _new_key(self) -> int:
        """Greater than all before: the time, and chance, so that nobody guesses how many there are."""
        drawn = first_key(self.clock()) | random.getrandbits(18)
        self._last_key = max(drawn, self._last_key + 1)
        return self._last_key

    # What a relay does

    async def claim(self, limit: int, *, per_destination: int = 20, only: Collection[str] | None = None) -> list[Claim]:
        """Undertake up to `limit` of the sendings that are due, the longest overdue first; none if there are none.

        A destination has `per_destination` at most, with those that are out already; `only` is where to look. Each
        claim ends by `record` or `release`, and holds up to `QueueLimits.memory` bytes of content.
        """
        async with self._claiming:
            now = self.clock()
            self._changed = trio.Event()
            farthest = now + self.retry.longest
            self._schedule.begin_look(now)
            request = Claiming(self._schedule, now, farthest, limit, per_destination, self.limits.recipients, only)
            await self._writer.submit(request)
            return request.found

    async def wait(self) -> None:
        """Until there may be something that the last `claim` has not found. Cancel-safe."""
        while not self._changed.is_set():
            left = min(self._next_due, self._schedule.next_due) - self.clock()
            if left <= 0:
                break
            with trio.move_on_after(min(left, WATCH_EVERY)):
                await self._changed.wait()
            await self._writer.submit(Watching())
        await trio.lowlevel.checkpoint()

    async def read(self, claim: Claim) -> AsyncGenerator[bytes, None]:
        """The content, piece by piece; whoever does not take all of it closes the generator.

        Raises `DamagedContent`, always before the last piece, if it is not what came in: the message has been set aside
        then, and the claim is over. Raises `Gone`, before any piece, if the message was removed meanwhile, and
        `UnreadableContent` where the disk does not give it.
        """
        if not claim.message.in_file:
            data = claim.data or b""
            if checksum_of(data) != claim.message.checksum:
                raise await self._set_aside(claim, "its content in the database has changed")
            if data:
                yield data
            return
        try:
            reader = await _read_in_thread(claim, self._spool.open, claim.message.key)
        except FileNotFoundError:
            raise await self._set_aside(claim, "its content file is missing") from None
        try:
            checksum = new_checksum()
            piece = await _read_in_thread(claim, reader.read)
            while True:
                checksum.update(piece)
                following = await _read_in_thread(claim, reader.read)
                if not following and checksum.hexdigest() != claim.message.checksum:
                    raise await self._set_aside(claim, "its content file has changed")
                yield piece
                if not following:
                    return
                piece = following
        finally:
            reader.close()

    async def record(
        self, claim: Claim, outcomes: Sequence[Outcome], *, reports: Iterable[QueueTransaction] = ()
    ) -> bool:
        """Note what became of a claim, and give it back; whether the message is done with, and so removed.

        Who is not among `outcomes` is due again at once. `reports` are transactions of this queue that are complete but
        for their `commit`: bounces and the like, which are in the queue exactly if the outcomes are noted. When this
        raises (OSError, if the disk is full or fails), they are gone, and the claim is still out: so it does when it is
        cancelled, or it returns and everything is noted.
        """
        reports = list(reports)
        now = self.clock()
        chance = random.random()  # one for all: what failed together may go together next time
        attempts = {recipient.position: recipient.attempts + 1 for recipient in claim.recipients}
        next_attempts = {
            outcome.position: self.retry.next_attempt(
                now=now, expires=claim.message.expires, attempts=attempts[outcome.position], chance=chance
            )
            for outcome in outcomes
            if outcome.state is State.PENDING
        }
        try:
            arrivals = [await report.finish() for report in reports]
            request = Recording(claim, outcomes, now, next_attempts, arrivals)
            await self._writer.submit(request)
        except BaseException:
            for report in reports:
                await report.discard()
            raise
        return request.is_finished

    def release(self, claim: Claim) -> None:
        """Give a claim back of which nothing is to be noted: it is due again at once."""
        self._over(claim)

    async def report(self, envelope: Envelope, client: Client) -> QueueTransaction:
        """Begin a report for `record`. The reserve of the disk is there for it."""
        await trio.lowlevel.checkpoint()
        return self._begin(envelope, client)

    async def _set_aside(self, claim: Claim, reason: str) -> DamagedContent | Gone:
        """What is to be raised of a content that is not as it was: it may have been removed."""
        request = SettingAside(claim, reason)
        try:
            await self._writer.submit(request)
        except OSError as error:
            raise UnreadableContent(f"{claim.message.id}: {reason}, and that cannot be noted: {error}") from error
        message = claim.message
        if not request.was_there:
            return Gone(f"{message.id} was removed from the queue")
        logger.error("%s: message %s was set aside: %s", self._spool.folder, message.id, reason)
        return DamagedContent(f"{message.id}: {reason}")

    # Transactions

    def _commit(self, requests: Sequence[Request]) -> None:
        """Put requests into one transaction, in a thread. Long contents are on the disk before it, or removed after."""
        recordings = [request for request in requests if isinstance(request, Recording)]
        arrivals = [request.arrival for request in requests if isinstance(request, Insertion)]
        arrivals.extend(report for recording in recordings for report in recording.reports)
        if any(arrival.message.in_file for arrival in arrivals):
            self._spool.sync_contents()
        with self._database.transaction() as connection:
            insert_arrivals(connection, arrivals)
            files = record_outcomes(connection, recordings)
            for request in requests:
                if isinstance(request, SettingAside):
                    set_aside(connection, request)
                elif isinstance(request, Claiming | Watching):
                    request.changes_of_others = self._database.changes_of_others()
                    if isinstance(request, Claiming):
                        find_due(connection, request)
        try:
            self._spool.remove(files)
        except OSError as error:  # it is an orphan, which the next start removes
            logger.warning("%s: a content that is done with cannot be removed: %s", self._spool.folder, error)

    def _committed(self, requests: Sequence[Request]) -> None:
        """They are in: what follows from it for the schedule, in Trio's thread."""
        for request in requests:
            if isinstance(request, Claiming):
                self._schedule.end_look(request.found, request.drained)
                self._next_due = request.next_due
        for request in requests:
            if isinstance(request, Insertion):
                self._arrived(request.arrival)
            elif isinstance(request, Recording):
                self._over(request.claim)
                for report in request.reports:
                    self._arrived(report)
            elif isinstance(request, SettingAside):
                self._over(request.claim)
            elif request.changes_of_others != self._changes_of_others:
                self._changes_of_others = request.changes_of_others
                self._schedule.changed()
                self._changed.set()

    def _arrived(self, arrival: Arrival) -> None:
        self._schedule.changed_at({recipient.destination for recipient in arrival.recipients})
        self._changed.set()

    def _over(self, claim: Claim) -> None:
        self._schedule.remove(claim)
        self._changed.set()
