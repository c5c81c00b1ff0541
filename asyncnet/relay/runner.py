"""`Relay`: keeps mail in a queue and hands it over where it belongs, as many messages at a time as may be.

    async with Relay("/var/spool/asyncnet", routes, host="mail.example.org") as relay:
        await serve(SMTPHandler(relay), "tcp://0.0.0.0:25")

Theory of operation
===================

One task claims, some hundred hand over. Each destination has a *lane*: the claims that wait there, and the workers that
are busy there. A worker has a courier of its own, which keeps its connection as long as there is more to take over.
What could go wrong, and why it does not:

- *A host that is down* holds up its own lane alone. Nobody else tries it again for a while: what comes is put off with
  the reason that is known, and the queue's patience grows as if each message had been tried. Where an administrator has
  changed the queue since, one does: `asyncnet queue retry` is for hosts that have come back.
- *A host that has enough* takes no further connection, and goes on with those that it has. So a worker that gets none
  leaves its claim to the others of its lane, and no further one begins for a while. Only the last one calls a host
  down.
- *Many hosts keep us waiting*: whoever asks for a report, or is told of a failure, chooses the host that we wait for.
  So only a part of what can be handed over at once goes to such hosts, and mailboxes are not kept from their mail. Of
  that, only a part are reports, which strangers can have us send, and mail for who has kept us waiting before.
- *The queue holds more than memory.* No more claims are out than `RelayLimits.deliveries`, and of one destination only
  a part of them.
- *An outcome is known and cannot be noted*, because the disk is full: the worker waits until it can. Forgetting it
  would deliver the message twice. For the same reason an attempt that is cut off when the relay ends leaves what it
  knows already, which is noted behind it.
- *The queue cannot be read*, because the disk is full or somebody holds the database: later it can. The server goes on
  meanwhile, and says 452 or 451 itself.
- *A mistake of ours in one message* is logged and puts that message off. The others go on.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Self

import trio
from trio.lowlevel import ParkingLot

from asyncnet.errors import ConfigurationError
from asyncnet.limits import check_sizes, check_times
from asyncnet.relay.limits import QueueLimits
from asyncnet.relay.messages import Claim, DamagedContent, Gone, QueuedRecipient, UnreadableContent
from asyncnet.relay.queue import Queue, open_queue
from asyncnet.relay.reporter import Reporter
from asyncnet.relay.retry import RetryPolicy
from asyncnet.relay.routes import Routes
from asyncnet.relay.targets import Courier, Parcel, Unreachable, Verdict
from asyncnet.smtp.address import ascii_domain, parse_domain
from asyncnet.smtp.delivery import Client, Refused, Transaction
from asyncnet.smtp.envelope import Envelope
from asyncnet.smtp.wire import coded

logger = logging.getLogger("asyncnet.relay")

NOTING = 10.0
"""How long, in seconds, it may take to note what became of an attempt that was under way when the relay has ended."""

REMEMBERED = 10_000
"""How many destinations that keep us waiting are remembered."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """How much a relay does at once."""

    deliveries: int = 200
    """Messages that are being handed over, or wait for their turn at a host. Each holds 64 KiB of content at most."""
    elsewhere: int = 150
    """How many of them go to hosts that the DNS names, where anybody can have us wait: the others are for mailboxes and
    for hosts that the administrator has named."""
    doubtful: int = 50
    """How many of these are for hosts that kept us waiting in vain the last time, or are reports: anybody can have us
    send one to any host, by mail for a mailbox here. What is one too many is tried again later."""
    per_destination: int = 20
    """How many of them go to one destination, each on a connection of its own: other hosts count connections, too."""

    def __post_init__(self) -> None:
        check_sizes(self)


@dataclass(frozen=True, slots=True)
class RelayTimes:
    """How long a relay waits, in seconds."""

    idle: float = 2.0
    """For another message, before a connection is given up: others want it, and it costs them memory."""
    down: float = 60.0
    """Before a host that took nothing is tried again, whatever is due there."""
    slow: float = 60.0
    """Whoever has taken nothing after so long has kept us waiting."""
    again: float = 10.0
    """Before an outcome that could not be noted is noted again."""
    end: float = 10.0
    """For what is being handed over when the relay ends, and for goodbyes."""

    def __post_init__(self) -> None:
        check_times(self)


@dataclass(slots=True, eq=False)
class _Lane:
    """The mail that is on its way to one destination."""

    destination: str
    waiting: deque[Claim] = field(default_factory=deque)
    workers: int = 0
    busy: int = 0
    """How many of them have a claim in hand."""
    idle: ParkingLot = field(default_factory=ParkingLot)
    """Workers that wait for something to do."""
    is_closed: bool = False
    down: Unreachable | None = None
    down_until: float = -math.inf
    asked: int = 0
    """What `Queue.changes_of_others` was when the last attempt began."""
    full_until: float = -math.inf
    """Until when no further worker is of use."""

    def put(self, claim: Claim) -> bool:
        """Have a claim handed over; whether that takes another worker."""
        self.waiting.append(claim)
        self.idle.unpark()
        return len(self.waiting) > self.workers - self.busy

    def put_back(self, claim: Claim, full_until: float) -> None:
        """Leave a claim to the other workers, since the host takes no more of them."""
        self.waiting.appendleft(claim)
        self.idle.unpark()
        self.full_until = full_until

    async def next(self, seconds: float) -> Claim | None:
        """The next claim; None if none comes within so many seconds, or ever again."""
        with trio.move_on_after(seconds):
            while not self.waiting and not self.is_closed:
                await self.idle.park()
        return self.waiting.popleft() if self.waiting else None

    def close(self) -> list[Claim]:
        """Nothing more is handed over; returns what nobody has begun with."""
        self.is_closed = True
        self.idle.unpark_all()
        left = list(self.waiting)
        self.waiting.clear()
        return left

    @property
    def is_of_use(self) -> bool:
        """Whether there is anything about it to be known."""
        return bool(self.workers or self.waiting or max(self.down_until, self.full_until) > trio.current_time())


class Relay:
    """A relay whose queue is in the folder `spool`; its mail goes where `routes` lead. `host` is what reports call us.

    It is a `smtp.delivery.Delivery`, and works within `async with`, once. What is being handed over at the end of the
    block has `RelayTimes.end` to come to its end; the rest is there for the next relay.

    Raises ConfigurationError for a `host` that is no name; entering it raises what `open_queue` raises.
    """

    def __init__(
        self,
        spool: str | PathLike[str],
        routes: Routes,
        *,
        host: str,
        retry: RetryPolicy = RetryPolicy(),
        queue_limits: QueueLimits = QueueLimits(),
        limits: RelayLimits = RelayLimits(),
        times: RelayTimes = RelayTimes(),
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock` is for tests."""
        self._open = partial(
            open_queue, spool, retry=retry, limits=queue_limits, destination_of=routes.destination_of, clock=clock
        )
        self._routes = routes
        try:
            self._host = ascii_domain(parse_domain(host))
        except ValueError as exc:  # reports would say so when the first is made
            raise ConfigurationError(f"a relay's host is a domain, or an address in brackets, not {host!r}") from exc
        self._limits = limits
        self._times = times
        self._lanes: dict[str, _Lane] = {}
        self._named = routes.named
        self._out = 0  # claims
        self._elsewhere = 0  # those of them that are for hosts that nobody has named
        self._doubtful: set[tuple[int, int]] = set()  # those of these that may keep us waiting
        self._slow: dict[str, float] = {}  # destinations that have, and until when that is remembered
        self._has_room = trio.Event()
        self._waiting = trio.CancelScope()
        self._attempts: set[trio.CancelScope] = set()
        self._noting: set[trio.CancelScope] = set()  # those who note afterwards what has become of their attempt
        self._stack = AsyncExitStack()
        self._queue: Queue | None = None

    @property
    def queue(self) -> Queue:
        """Its queue. Only within `async with`."""
        assert self._queue is not None, "a relay works within `async with`"
        return self._queue

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._queue = await stack.enter_async_context(self._open())
            nursery = await stack.enter_async_context(trio.open_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            nursery.start_soon(self._run)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, exc, traceback)

    async def start(self, envelope: Envelope, client: Client) -> Transaction:
        """As `smtp.delivery` has it: what is committed is in the queue."""
        return await self.queue.start(envelope, client)

    async def _run(self) -> None:
        """Hand over until cancelled."""
        queue = self.queue
        async with trio.open_nursery() as nursery:
            try:
                while True:
                    self._has_room = trio.Event()
                    room = self._limits.deliveries - self._out
                    if room <= 0:
                        await self._has_room.wait()
                        continue
                    try:
                        elsewhere = self._limits.elsewhere - self._elsewhere if self._named else room
                        claims = await queue.claim(
                            min(room, elsewhere) if elsewhere > 0 else room,
                            per_destination=self._limits.per_destination,
                            only=None if elsewhere > 0 else self._named,
                        )
                        for claim in claims:
                            self._send_out(claim, nursery)
                        self._forget_lanes(at_leisure=not claims)
                        if not claims:
                            await self._wait()
                    except OSError as exc:  # a full disk, or a program that does not let go of the database
                        logger.error("what is due cannot be found out: %s", exc)
                        await trio.sleep(self._times.again)
            finally:
                self._end()

    async def _wait(self) -> None:
        """Until there may be something due, or room for what was not looked for."""
        with trio.CancelScope() as self._waiting:
            if not self._has_room.is_set():
                await self.queue.wait()

    def _forget_lanes(self, *, at_leisure: bool) -> None:
        """Those of which there is nothing to be known, or a relay that never rests would remember every destination."""
        if at_leisure or len(self._lanes) > 2 * self._limits.deliveries:
            self._lanes = {name: lane for name, lane in self._lanes.items() if lane.is_of_use}

    def _end(self) -> None:
        """What nobody has begun with stays in the queue; what somebody has, comes to its end."""
        for lane in self._lanes.values():
            for claim in lane.close():
                self.queue.release(claim)
        now = trio.current_time()
        for scope in self._attempts:
            scope.deadline = now + self._times.end
        for scope in self._noting:
            scope.deadline = now + self._times.end + NOTING

    def _send_out(self, claim: Claim, nursery: trio.Nursery) -> None:
        # Not the claim's destination: the routes may have become others since the message came.
        destination = self._routes.destination_of(claim.recipients[0].recipient.address)
        lane = self._lanes.setdefault(destination, _Lane(destination))
        self._out += 1
        self._elsewhere += destination not in self._named
        if self._is_doubtful(claim, destination):
            if len(self._doubtful) >= self._limits.doubtful:
                nursery.start_soon(self._put_off, claim, destination)
                return
            self._doubtful.add(_place(claim))
        most = self._limits.per_destination if lane.full_until <= trio.current_time() else 1
        if lane.put(claim) and lane.workers < most:
            lane.workers += 1
            nursery.start_soon(self._work, lane)

    def _is_doubtful(self, claim: Claim, destination: str) -> bool:
        if destination in self._named:
            return False
        is_report = claim.message.envelope.sender is None  # for a host that whoever has caused it has chosen
        return is_report or self._slow.get(destination, -math.inf) > trio.current_time()

    def _note_pace(self, destination: str, *, is_slow: bool) -> None:
        """Remember who keeps us waiting: past the longest pause, and not too many of them."""
        self._slow.pop(destination, None)
        if is_slow:
            self._slow[destination] = trio.current_time() + 2 * self.queue.retry.longest
            if len(self._slow) > REMEMBERED:
                del self._slow[next(iter(self._slow))]

    async def _work(self, lane: _Lane) -> None:
        courier = self._routes.target(lane.destination).courier()
        with self._until_end(self._noting):
            try:
                while (claim := await lane.next(self._times.idle)) is not None:
                    lane.busy += 1
                    try:
                        is_over = await self._attend(lane, courier, claim)
                    finally:
                        lane.busy -= 1
                    if not is_over:
                        lane.put_back(claim, trio.current_time() + self._times.down)
                        break
                    self._is_over(claim, lane.destination)
            finally:
                lane.workers -= 1
                with trio.CancelScope(deadline=trio.current_time() + self._times.end, shield=True):
                    await courier.aclose()

    @contextmanager
    def _until_end(self, scopes: set[trio.CancelScope]) -> Iterator[None]:
        """What is in the block goes on when the relay ends, until the deadline that `_end` gives it."""
        with trio.CancelScope(shield=True) as scope:
            scopes.add(scope)
            try:
                yield
            finally:
                scopes.discard(scope)

    async def _attend(self, lane: _Lane, courier: Courier, claim: Claim) -> bool:
        """Hand over one claim, and note what came of it. False: nothing was done, and others of the lane can do it."""
        mine = [each for each in claim.recipients if self._is_of(lane, each)]
        parcel = Parcel(
            claim.message.envelope,
            tuple(each.recipient for each in mine),
            claim.message.size,
            partial(self.queue.read, claim),
        )
        verdicts: dict[int, Verdict] = {}
        is_settled = False
        try:
            try:
                if not await self._hand_over(lane, courier, parcel, verdicts, claim.message.id):
                    is_settled = True
                    return False
            except (DamagedContent, Gone):
                is_settled = not verdicts  # the queue has noted that, and said so
            if verdicts:
                await self._note(claim, [mine[index] for index in verdicts], list(verdicts.values()))
                is_settled = True
        finally:
            if not is_settled:
                self.queue.release(claim)
        return True

    async def _note(self, claim: Claim, recipients: Sequence[QueuedRecipient], verdicts: Sequence[Verdict]) -> None:
        """Have the queue know of it, however long that takes."""
        reporter = Reporter(self.queue, self._host)
        note = reporter.note
        while True:
            try:
                await note(claim, recipients, verdicts)
                return
            except (Refused, OSError) as exc:
                logger.error("%s: what became of it cannot be noted: %s", claim.message.id, exc)
                await trio.sleep(self._times.again)
            except (DamagedContent, Gone, UnreadableContent):
                note = reporter.note_only  # the queue has said so; who has the message is crossed off all the same
            except Exception:
                logger.exception("%s: what became of it cannot be reported", claim.message.id)
                if note == reporter.note_only:
                    await trio.sleep(self._times.again)
                note = reporter.note_only

    def _is_of(self, lane: _Lane, queued: QueuedRecipient) -> bool:
        return self._routes.destination_of(queued.recipient.address) == lane.destination

    async def _hand_over(
        self, lane: _Lane, courier: Courier, parcel: Parcel, verdicts: dict[int, Verdict], id: str
    ) -> bool:
        """Find out what becomes of a parcel, as far as the relay's end leaves time for that.

        False: this worker does not get to the host, and others of the lane may.
        """
        failure = _FAILURE
        if lane.down is None or lane.down_until <= trio.current_time() or lane.asked != self.queue.changes_of_others:
            lane.down, lane.asked = None, self.queue.changes_of_others
            begun = trio.current_time()
            try:
                with self._until_end(self._attempts):
                    await courier.hand_over(parcel, verdicts)
                return True
            except Unreachable as exc:
                if lane.workers > 1 and not lane.is_closed:
                    return False
                lane.down, lane.down_until = exc, trio.current_time() + self._times.down
            except (DamagedContent, Gone):
                raise
            except UnreadableContent:
                failure = _UNREADABLE  # the queue has said so
            except Exception:
                # As in a service's guard: a mistake of ours is one message's misfortune, and the log's.
                logger.exception("%s: it could not be handed over to %s", id, lane.destination)
            finally:
                is_slow = trio.current_time() >= begun + self._times.slow
                has_taken = any(verdict.reply.is_success for verdict in verdicts.values())
                self._note_pace(lane.destination, is_slow=is_slow and not has_taken)
        if lane.down is not None:
            failure = Verdict(lane.down.reply, lane.down.host)
        for index in range(len(parcel.recipients)):
            verdicts.setdefault(index, failure)
        return True

    async def _put_off(self, claim: Claim, destination: str) -> None:
        """Have wait what is one too many. Cancelled, it is due at once."""
        is_noted = False
        try:
            await self._note(claim, claim.recipients, [_ONE_TOO_MANY] * len(claim.recipients))
            is_noted = True
        finally:
            if not is_noted:
                self.queue.release(claim)
        self._is_over(claim, destination)

    def _is_over(self, claim: Claim, destination: str) -> None:
        """There is room for another one."""
        self._doubtful.discard(_place(claim))
        self._out -= 1
        self._elsewhere -= destination not in self._named
        self._has_room.set()
        self._waiting.cancel()


_FAILURE = Verdict(coded(451, "4.3.0", "An internal error."))
_UNREADABLE = Verdict(coded(451, "4.3.0", "The message cannot be read from the queue."))
_ONE_TOO_MANY = Verdict(coded(451, "4.3.2", "Mail goes first for hosts that do not keep us waiting."))


def _place(claim: Claim) -> tuple[int, int]:
    """What tells a claim from all others that are out."""
    return claim.message.key, claim.recipients[0].position
