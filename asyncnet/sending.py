"""The sending half of `Stream`: what is queued, how it leaves, and what becomes of it when it cannot.

Theory of operation
===================

Bytes that were written but have not left are in `_outgoing`, and nowhere else: the transport says how many it took.
What could go wrong, and why it does not:

- *A cancelled send* may have sent a part: from then on every send raises, and the close is a reset, so that the peer
  never takes what arrived for the whole. What `write` has queued is different: its place is known, so that ending the
  wait of a receive (by a deadline, by a drain, by cancelling) leaves it queued.
- *A peer that never reads.* Each send waits `timeouts.send` at most for progress; then the stream is broken.
- *A receive sends meanwhile*, and another task wants to: the receive leaves it to that task (`SideFlush`).
- *A batched send* (`write_soon`, a receive) is queued like every other, and whoever sends meanwhile sends it.
- *A schedule for each small operation.* `write` and `flush` are no checkpoints unless they have to wait; now and then
  one is, so that a fast peer cannot keep the others from their turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import trio

from asyncnet.batching import Batch, batch_of_this_run
from asyncnet.limits import Timeouts
from asyncnet.transports.base import Data, Transport

MAX_PENDING = 128 * 1024
"""How much `write` queues, in bytes, before it asks for a flush."""

MUCH_PENDING = MAX_PENDING // 2
"""With more than that queued a receive returns nothing; the other half is for what answers one receive."""

FAIR_TURNS = 64
"""How many operations in a row may go without a checkpoint because nothing had to be waited for."""

_NOTHING = cast("list[Data]", ())  # what all streams have that have nothing to send: none of them pays for a list


class Tap(Protocol):
    """What a stream shows its bytes to, above TLS: a throttle, a log of the conversation."""

    async def receiving(self) -> None:
        """Called before a receive waits."""

    def received(self, data: Data, *, secret: bool) -> None:
        """`data` has arrived; b"" is the end."""

    async def sending(self, count: int) -> int:
        """Called before a send of `count` bytes; returns how many may go at once, at least 1."""

    def sent(self, data: Data, *, secret: bool) -> None:
        """`data` has left."""

    def note(self, event: str) -> None:
        """Something that is no data: TLS has begun, an end was sent, a file's bytes have left."""


class SideFlush:
    """A receive that sends what is queued while it waits, or a task that sends what a batch has left over."""

    __slots__ = ("is_of_receive", "over", "satisfied", "scope", "yields")

    def __init__(self, *, satisfied: bool, is_of_receive: bool = True) -> None:
        self.scope = trio.CancelScope()
        self.is_of_receive = is_of_receive  # and ends with it
        self.satisfied = satisfied  # there is something to return, once not much is pending
        self.yields = False  # it stops after the piece under way: a task wants to send
        self.over = trio.Event()


class SendingHalf(trio.abc.HalfCloseableStream):
    """What `Stream` has for sending; the public methods are its own."""

    __slots__ = (
        "_batch",
        "_batched",
        "_cannot_send",
        "_closed",
        "_eof_sent",
        "_granted",
        "_outgoing",
        "_pending",
        "_secret",
        "_secret_pending",
        "_send_failure",
        "_sending",
        "_side_flush",
        "_stuck",
        "_taps",
        "_transport",
        "_turns",
        "bytes_out",
        "timeouts",
    )

    def __init__(self, transport: Transport, timeouts: Timeouts) -> None:
        self._transport = transport
        self._outgoing = _NOTHING
        self._pending = 0
        self._sending = False
        self._batch: Batch | None = None  # of this run, once one was needed
        self._batched = False  # what is pending leaves at the end of this turn
        self._stuck = False  # the last batch left something over
        self._side_flush: SideFlush | None = None
        self._send_failure: str | None = None
        self._eof_sent = False
        self._closed = False
        self._cannot_send = False  # one of the three above, or whatever else `_check_can_send` raises for
        self._taps: tuple[Tap, ...] = ()
        self._granted = 0  # what the taps have let pass and has not left
        self._secret = False
        self._secret_pending = False  # some of what is queued was written within `secret`
        self._turns = 0
        self.timeouts = timeouts
        """How long sends and the close wait."""
        self.bytes_out = 0
        """Bytes sent so far, above TLS."""

    @property
    def pending(self) -> int:
        """How many bytes `write` has queued that have not left."""
        return self._pending

    def write(self, data: Data) -> None:
        """Queue `data` for the next `flush`, or for the next receive that has to wait. No checkpoint.

        A bytearray or memoryview is copied: it may change afterwards. Raises BufferError when more than 128 KiB would
        wait, unless `data` would wait alone: flush first. A receive leaves room for 64 KiB, as much as it returns.
        """
        if self._cannot_send:
            self._check_can_send()
        if self._pending and self._pending + len(data) > MAX_PENDING:
            raise BufferError(f"{self._pending} bytes wait to be sent: flush() before writing more")
        if type(data) is not bytes:
            data = bytes(data)
        if self._secret:
            self._secret_pending = True
        if data:
            # `_queue`, written out for the sake of every message.
            if self._outgoing:
                self._outgoing.append(data)
            else:
                self._outgoing = [data]
            self._pending += len(data)

    def write_through(self, data: bytes) -> bool:
        """`write` and then send what goes without waiting: whether all has left. If not, `flush` comes next.

        No checkpoint: now and then it sends nothing, so that the `flush` is one. Raises what both raise.
        """
        if self._outgoing or self._taps or self._side_flush is not None or self._sending or self._cannot_send:
            self.write(data)
            return False
        self._turns += 1
        if self._turns >= FAIR_TURNS:
            self.write(data)
            return False
        try:
            sent = self._transport.send_now(data)
        except trio.BrokenResourceError as exc:
            self._give_up(str(exc))
            raise
        self.bytes_out += sent
        if sent == len(data):
            return True
        if self._secret:
            self._secret_pending = True
        self._queue(memoryview(data)[sent:])
        return False

    def write_soon(self, data: bytes) -> bool:
        """`write`, to leave at the end of this turn of the event loop: whether it will. If not, `flush` comes next.

        Together with what other streams send then, which costs each of them less (`asyncnet.batching`); where no other
        sends, at once. No checkpoint. Raises what `write_through` raises; that sending fails later is told by the next
        send.
        """
        if self._cannot_send:
            self._check_can_send()
        if self._outgoing or self._side_flush is not None or not self._joins_batch(len(data)):
            return self.write_through(data)
        self._outgoing = [data]
        self._pending = len(data)
        self._send_with_batch()
        return True

    def _joins_batch(self, count: int) -> bool:
        """Whether a send of `count` bytes is to be batched: whether it may be, and has company."""
        if not self._transport.can_batch or self._stuck or self._taps or self._sending or count > MUCH_PENDING:
            return False
        if self._batch is None:
            self._batch = batch_of_this_run()
        return self._batch.has_company()

    def _send_with_batch(self) -> None:
        assert self._batch is not None, "it joins one first"
        self._batched = True
        self._batch.add(self)

    def send_batched(self) -> bool:
        """For the batch alone: send what is pending without waiting; whether all has left, or nothing ever will."""
        self._batched = False
        if not self._outgoing or self._sending or self._side_flush is not None or self._taps:
            return True  # it has left already, or somebody sees to it
        try:
            self._send_pending_now()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self._stuck = bool(self._outgoing)
        return not self._stuck

    def go_on_after_batch(self) -> None:
        """A batch has left something over: a task of its own sends it, as whoever receives may not come back soon."""
        if self._outgoing and not self._sending and self._side_flush is None:
            self._side_flush = SideFlush(satisfied=False, is_of_receive=False)
            trio.lowlevel.spawn_system_task(self._send_rest, self._side_flush)

    async def _send_rest(self, flush: SideFlush) -> None:
        try:
            with flush.scope:
                await self._send_pending(flush)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the next send says so
        finally:
            self._side_flush = None
            flush.over.set()

    def _queue(self, data: Data) -> None:
        if self._outgoing:
            self._outgoing.append(data)
        else:
            self._outgoing = [data]
        self._pending += len(data)

    async def flush(self) -> None:
        """Send what `write` has queued. A checkpoint only if it must wait."""
        if self._sending or self._cannot_send:
            self._check_can_send()
        if self._side_flush is not None:
            await self._take_over(self._side_flush)
        if self._outgoing:
            self._turns += 1
            if self._turns >= FAIR_TURNS:
                await trio.lowlevel.checkpoint_if_cancelled()
            self._send_pending_now()
            if self._outgoing:
                await self._send_pending_exclusively()
            elif self._turns >= FAIR_TURNS:
                self._turns = 0
                await trio.lowlevel.cancel_shielded_checkpoint()

    async def send_all(self, data: Data) -> None:
        """Send what is queued, then `data`. Always a checkpoint."""
        if self._sending or self._cannot_send:
            self._check_can_send()
        if self._side_flush is not None:
            await self._take_over(self._side_flush)
        await trio.lowlevel.checkpoint_if_cancelled()
        self._queue(data)
        self._send_pending_now()
        if self._outgoing:
            await self._send_pending_exclusively()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def _take_over(self, flush: SideFlush) -> None:
        """Have a receive that sends what is queued leave that to the caller."""
        self._sending = True
        try:
            if self._transport.can_cancel_send:
                flush.scope.cancel()
            flush.yields = True
            await flush.over.wait()
        finally:
            self._sending = False
        self._check_can_send()

    def _check_can_send(self) -> None:
        """Raise what stands in the way of sending; `_cannot_send` tells whether it is worth asking."""
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self._send_failure is not None:
            raise trio.BrokenResourceError(self._send_failure)
        if self._eof_sent:
            raise trio.ClosedResourceError("this side has ended already")
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")

    def _send_pending_quietly(self) -> None:
        """Send what goes without waiting; if sending fails, the next send says so."""
        try:
            self._send_pending_now()
        except trio.BrokenResourceError:
            pass  # what the peer sent before can still be received

    def _send_pending_now(self) -> None:
        """Send what goes without waiting."""
        if self._taps:
            return  # they may want to wait
        data = self._outgoing[0] if len(self._outgoing) == 1 else self._joined()
        try:
            sent = self._transport.send_now(data)
        except trio.BrokenResourceError as exc:
            self._give_up(str(exc))
            raise
        self.bytes_out += sent
        if sent == self._pending:
            self._outgoing = _NOTHING
            self._pending = 0
            self._stuck = False
        elif sent:
            self._keep_rest(data, sent)

    def _joined(self) -> Data:
        if len(self._outgoing) > 1:
            self._outgoing[:] = [b"".join(self._outgoing)]
        return self._outgoing[0]

    def _keep_rest(self, data: Data, sent: int) -> None:
        self._outgoing[0] = memoryview(data)[sent:]
        self._pending -= sent
        if not self._pending:
            self._outgoing = _NOTHING
            self._stuck = False

    async def _send_pending_exclusively(self) -> None:
        """Send the rest; whoever cancels it breaks the sending side, since nobody will send what is left."""
        self._sending = True
        try:
            await self._send_pending()
        except trio.Cancelled:
            self._give_up("a send was cancelled before all of it had left")
            raise
        finally:
            self._sending = False

    async def _send_pending(self, side: SideFlush | None = None) -> None:
        """Send all that is pending, or for `side` enough, waiting `timeouts.send` at most for each bit of progress."""
        with self._progress_deadline() as scope:
            while self._outgoing:
                if side is not None and (side.yields or (side.satisfied and self._pending <= MUCH_PENDING)):
                    break
                data = self._joined()
                if not data:
                    self._outgoing = _NOTHING
                    break
                await self._send_piece(data, scope)
                scope.deadline = trio.current_time() + self.timeouts.send

    @contextmanager
    def _progress_deadline(self) -> Iterator[trio.CancelScope]:
        """Break the sending side when `timeouts.send` passes without progress, which moves the deadline."""
        timeout = self.timeouts.send
        with trio.CancelScope(deadline=trio.current_time() + timeout) as scope:
            yield scope
        if scope.cancelled_caught:
            self._give_up(f"the peer has read nothing for {timeout:g} seconds")
            raise trio.BrokenResourceError(self._send_failure)

    async def _send_piece(self, data: Data, scope: trio.CancelScope) -> None:
        """Send some of `data`, as much as the taps grant."""
        if self._taps:
            if not self._granted:
                scope.deadline = math.inf  # a throttle's own wait is not the peer's fault
                self._granted = len(data)
                for tap in self._taps:
                    self._granted = await tap.sending(self._granted)
                scope.deadline = trio.current_time() + self.timeouts.send
            # What was granted and did not leave is offered again, never less: TLS insists on it.
            data = memoryview(data)[: self._granted]
        try:
            # It tries before it waits: TLS takes 64 KiB at a time, and a wait for each was half of a long transfer.
            self._turns += 1
            sent = self._transport.send_now(data) if self._turns < FAIR_TURNS and not self._closed else 0
            if not sent:
                self._turns = 0
                sent = await self._transport.send_some(data)
        except trio.BrokenResourceError as exc:
            self._give_up(str(exc))
            raise
        except trio.Cancelled:
            if not self._transport.can_cancel_send:
                self._give_up("a send was cancelled before all of it had left")
            raise
        self.bytes_out += sent
        if self._taps:
            self._granted -= sent
            for tap in self._taps:
                tap.sent(memoryview(data)[:sent], secret=self._secret or self._secret_pending)
        if self._outgoing:  # unless the stream was closed meanwhile
            self._keep_rest(self._outgoing[0], sent)
        if not self._outgoing:
            self._secret_pending = False

    def _give_up(self, reason: str) -> None:
        """Sending is over; the receiving side is not."""
        self._send_failure = reason
        self._cannot_send = True
        self._drop_queue()

    def _drop_queue(self) -> None:
        self._outgoing = _NOTHING
        self._pending = 0

    async def wait_send_all_might_not_block(self) -> None:
        """As in `trio.abc.SendStream`."""
        self._check_can_send()
        if self._side_flush is not None:
            await self._take_over(self._side_flush)
        self._sending = True
        try:
            await self._transport.wait_send_all_might_not_block()
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """Send what is queued, then end this side; the other goes on. Raises `LocalProtocolError` over TLS."""
        if self._eof_sent and not self._closed:
            await trio.lowlevel.checkpoint()
            return
        await self.flush()
        self._sending = True
        try:
            await self._transport.send_eof()
            self._eof_sent = self._cannot_send = True
        finally:
            self._sending = False
        for tap in self._taps:
            tap.note("ended this side")

    def add_tap(self, tap: Tap) -> None:
        """Show all bytes to `tap` from now on: see `middleware.Throttle` and `middleware.ConversationLog`."""
        self._taps = (*self._taps, tap)

    @contextmanager
    def secret(self) -> Iterator[None]:
        """Within it, the log of the conversation shows that bytes pass, but not which.

        What is written within it stays hidden when it leaves later, with all that leaves together with it.
        """
        before, self._secret = self._secret, True
        try:
            yield
        finally:
            self._secret = before
