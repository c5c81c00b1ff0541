"""The receiving half of `Stream`: the read buffer, limits, deadlines, and receives that send what is pending.

Theory of operation
===================

Bytes that were received too early are in `_buffer`, and nowhere else. What could go wrong, and why it does not:

- *A parser took too much.* It gives it back by `unread`.
- *An endless item.* Every call that waits for a delimiter or a length has a limit, checked before a byte beyond it is
  returned. `_searched` remembers how far a delimiter was looked for: a line that comes byte by byte costs no more.
- *Two peers that both write lock each other.* A receive that has to wait sends what is pending, and goes on receiving
  while it cannot. Whichever is possible first happens first.
- *A handler answers all that it receives, and its peer does not read.* With much pending, a receive first sends and
  only then returns, though it takes some bytes into the buffer meanwhile: the handler is slowed down.
- *A cancelled receive loses no bytes*: they go to the buffer before anything can be cancelled.
- *A wait that is to end early* (a deadline, a drain) is woken, not cancelled; a wake that comes between two waits is
  found by the check before the next.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine
from typing import Any

import trio

from asyncnet.alarms import set_alarm
from asyncnet.errors import Draining, EndOfStream, IncompleteRead, LimitExceeded, ReceiveTimeout
from asyncnet.limits import Timeouts
from asyncnet.sending import FAIR_TURNS, MUCH_PENDING, SendingHalf, SideFlush
from asyncnet.transports.base import RECEIVE_SIZE, Transport, TruncatedError, checked_size

READ_AHEAD = 128 * 1024
"""How much a receive takes into the buffer, in bytes, while it waits for what is queued to leave."""


class ReceivingHalf(SendingHalf):
    """What `Stream` has for receiving; the public methods are its own."""

    __slots__ = (
        "__weakref__",
        "_alarm",
        "_buffer",
        "_deadline",
        "_draining",
        "_holding",
        "_later_alarms",
        "_overdue",
        "_receiving",
        "_searched",
        "_sought",
        "bytes_in",
        "end_unannounced",
    )

    def __init__(self, transport: Transport, timeouts: Timeouts) -> None:
        super().__init__(transport, timeouts)
        self._buffer = bytearray()
        self._searched = 0  # from where on the buffer may hold _sought
        self._sought = b""
        self._receiving = False
        self._deadline = math.inf
        self._alarm = math.inf  # the first that will ring; those behind it are in _later_alarms
        self._later_alarms: tuple[float, ...] = ()
        self._overdue = False  # the deadline has passed: whoever receives asks this, and not the clock
        self._draining = False
        self._holding: trio.CancelScope | None = None  # a receive that a tap holds back
        self.end_unannounced = False
        """Whether an end without TLS's closing message counts as an end: only where the protocol has its own."""
        self.bytes_in = 0
        """Bytes received so far, above TLS."""

    @property
    def buffered(self) -> int:
        """How many bytes wait in the read buffer."""
        return len(self._buffer)

    # Deadlines and drains

    @property
    def deadline(self) -> float:
        """When a receive that still waits gives up by `ReceiveTimeout`, in `trio.current_time()`; infinity at first.

        It stays until it is set again, however many receives there are: an absolute limit for a header, a command or
        a handshake. Moving it costs next to nothing.
        """
        return self._deadline

    @deadline.setter
    def deadline(self, when: float) -> None:
        self._deadline = when
        self._overdue = False
        if when < self._alarm:
            if self._alarm < math.inf:
                self._later_alarms = (self._alarm, *self._later_alarms)
            self._alarm = when
            self._overdue = when <= trio.current_time()
            set_alarm(when, self)

    def ring(self, now: float) -> None:
        """For the alarm of `deadline` alone: wakes the receive that waits, or sees to it that it is woken later."""
        if self._later_alarms:
            self._alarm, *later = self._later_alarms
            self._later_alarms = tuple(later)
        else:
            self._alarm = math.inf
        if self._deadline <= now:
            self._overdue = True
            self._wake()
        else:
            self.deadline = self._deadline

    def forget_alarms(self) -> None:
        """For the alarm of `deadline` alone: the run has ended, and the next one knows nothing of it."""
        self._alarm = math.inf
        self._later_alarms = ()

    def interrupt(self, on: bool = True) -> None:
        """End receives that wait, now and from now on, by `Draining`; with `on` false, no longer.

        Receives that the buffer can satisfy go on. `connection.idle` uses it; handlers use that.
        """
        self._draining = on
        if on:
            self._wake()

    def _wake(self) -> None:
        if self._receiving:
            if self._holding is not None:
                self._holding.cancel()
            if self._side_flush is not None and self._side_flush.is_of_receive:
                self._side_flush.scope.cancel()
            self._transport.wake()

    # Receiving

    def receive_some(self, max_bytes: int | None = None) -> Coroutine[Any, Any, bytes]:
        """Wait for some bytes and return them, at most `max_bytes`; b"" is the end. Always a checkpoint."""
        # Not itself a coroutine: one less on the way of every message.
        size = RECEIVE_SIZE if max_bytes is None else checked_size(max_bytes)
        return self._receive_buffered(size) if self._buffer else self._receive(size)

    async def _receive_buffered(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._pending > MUCH_PENDING:
            await self._send_before_taking()
        return self.take(min(max_bytes, len(self._buffer)))

    async def _receive(self, max_bytes: int = RECEIVE_SIZE) -> bytes:
        """Wait for bytes from the transport, b"" at the end, sending first what is pending.

        They belong behind what the buffer holds at the call; what it holds beyond that at the return comes after them.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        if self._outgoing and not self._batched:
            if self._side_flush is not None:
                await self._stop_sending_rest(self._side_flush)
            elif self._joins_batch(self._pending):
                self._send_with_batch()
            elif not self._sending:
                self._send_pending_quietly()
        if (self._outgoing and not self._batched) or self._taps:
            return await self._receive_with_care(max_bytes)
        if self._draining or self._overdue:
            self._check_interrupted()
        transport = self._transport
        self._receiving = True
        self._turns = 0
        try:
            while True:
                await transport.wait_receivable(max_bytes)
                data = transport.receive_now(max_bytes)
                if data is not None:
                    self.bytes_in += len(data)
                    return data
                self._check_interrupted()  # a wake may have come between
        except (trio.ClosedResourceError, TruncatedError) as exc:
            end = self._end_of(exc)
        finally:
            self._receiving = False
        return b"" if end else await self._receive(max_bytes)

    async def _stop_sending_rest(self, flush: SideFlush) -> None:
        """Have the task that sends what a batch left over leave that to the caller."""
        flush.scope.cancel()
        with trio.CancelScope(shield=True):  # it is over in the next turn; given up here, nobody would send the rest
            await flush.over.wait()

    async def _receive_with_care(self, max_bytes: int) -> bytes:
        """The same on a stream with taps or with something still to send."""
        self._receiving = True
        self._turns = 0
        had = len(self._buffer)
        try:
            if self._taps:
                await self._ask_taps()
            self._check_interrupted()
            if self._outgoing and not self._sending:
                ended = await self._flush_while_receiving(max(READ_AHEAD, self._pending))
                if ended or len(self._buffer) > had:
                    data = bytes(self._buffer[had : had + max_bytes])
                    del self._buffer[had : had + max_bytes]
                    return data
                self._check_interrupted()
            while True:
                await self._transport.wait_receivable(max_bytes)
                received = self._transport.receive_now(max_bytes)
                if received is not None:
                    self._count(received)
                    return received
                self._check_interrupted()
        except (trio.ClosedResourceError, TruncatedError) as exc:
            end = self._end_of(exc)
        finally:
            self._receiving = False
            if self._stuck:
                self.go_on_after_batch()  # the receive has sent meanwhile, and does so no longer
        return b"" if end else await self._receive(max_bytes)

    async def _ask_taps(self) -> None:
        """Wait until the taps let a receive begin, or until it is woken."""
        with trio.CancelScope() as self._holding:
            for tap in self._taps:
                await tap.receiving()
        self._holding = None

    def _count(self, data: bytes) -> None:
        self.bytes_in += len(data)
        for tap in self._taps:
            tap.received(data, secret=self._secret)

    def _end_of(self, exc: Exception) -> bool:
        """What ended a receive: true if that counts as the stream's end, false if it was only woken; else raises."""
        if isinstance(exc, TruncatedError):
            if self.end_unannounced:
                self._count(b"")
                return True
            raise exc
        if not self._transport.is_open:
            raise exc
        self._check_interrupted()
        return False

    @property
    def _is_interrupted(self) -> bool:
        return self._draining or self._overdue

    def _check_interrupted(self) -> None:
        if self._draining:
            raise Draining("the service is draining")
        if self._overdue:
            raise ReceiveTimeout("the peer took too long")

    async def _flush_while_receiving(self, room: int, *, satisfied: bool = False) -> bool:
        """Send what is queued, and receive up to `room` bytes into the buffer meanwhile; true at the end.

        It returns when there is something to return (`satisfied`: that is so from the beginning) and not much is
        pending: so two peers that both write do not lock each other, and whoever answers all that it receives is
        slowed down by a peer that does not read.

        Given up (by a wake, by cancelling, for another task that sends), it leaves queued what has not left. A foreign
        stream's send can't be interrupted: another task waits for its end; else sending is over then.
        """
        flush = self._side_flush = SideFlush(satisfied=satisfied)
        receiving = trio.CancelScope()
        before = self.bytes_in
        ended = False
        failure: Exception | None = None

        async def receive() -> None:
            nonlocal room, ended, failure
            try:
                with receiving:
                    while room > 0 and not ended and not flush.over.is_set() and not self._is_interrupted:
                        data = await self._receive_once(min(room, RECEIVE_SIZE))
                        if data is not None:
                            room -= len(data)
                            ended = not data
                            self._buffer.extend(data)
                            self._count(data)
                            flush.satisfied = True
                            if self._pending <= MUCH_PENDING and self._transport.can_cancel_send:
                                flush.scope.cancel()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                failure = exc
            if failure is not None or self._is_interrupted:
                flush.scope.cancel()

        async def send() -> None:
            try:
                with flush.scope:
                    await self._send_pending(flush)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the next send says so
            finally:
                self._side_flush = None
                flush.over.set()
            if flush.satisfied:
                receiving.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(send)
        if failure is not None and self.bytes_in == before:
            raise failure
        return ended

    async def _receive_once(self, size: int) -> bytes | None:
        """Wait for bytes from the transport once; None: there were none, or it was woken."""
        try:
            await self._transport.wait_receivable(size)
        except trio.ClosedResourceError:
            if self._transport.is_open:
                return None
            raise
        return self._transport.receive_now(size)

    async def _send_before_taking(self) -> None:
        """Send what is queued before more is taken from the buffer, since there is much of it."""
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        if self._sending:
            return
        if self._side_flush is not None:
            await self._stop_sending_rest(self._side_flush)
        self._send_pending_quietly()
        if self._pending > MUCH_PENDING:
            room = max(READ_AHEAD, self._pending) - len(self._buffer)
            self._receiving = True
            try:
                await self._flush_while_receiving(room, satisfied=True)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # what the buffer holds can still be taken
            finally:
                self._receiving = False
                if self._stuck:
                    self.go_on_after_batch()

    async def receive_exactly(self, count: int) -> bytes:
        """Receive `count` bytes.

        Raises `EndOfStream` if the stream ends before the first and `IncompleteRead` if it ends before the last.
        A checkpoint only if it must wait. Asking for what does not fit in memory is the caller's mistake.
        """
        self._turns += 1
        if self._turns >= FAIR_TURNS or self._pending > MUCH_PENDING:
            await self._give_turn()
        while len(self._buffer) < count:
            await self._fill(expected=count)
        return self.take(count)

    async def receive_until(self, delimiter: bytes, *, limit: int) -> bytes:
        """Receive up to and including `delimiter`, `limit` bytes at most, the delimiter counted.

        Raises `LimitExceeded` with the buffer untouched (see `skip_until`), `EndOfStream` if the stream ends where
        nothing had come, and `IncompleteRead` if it ends elsewhere. A checkpoint only if it must wait.
        """
        self._turns += 1
        if self._turns >= FAIR_TURNS or self._pending > MUCH_PENDING:
            await self._give_turn()
        while (item := self.take_until(delimiter, limit=limit)) is None:
            await self._fill()
        return item

    async def skip_until(self, delimiter: bytes, *, limit: int) -> None:
        """Drop everything up to and including `delimiter`, to find where the next item begins after `LimitExceeded`.

        Raises `LimitExceeded` after `limit` bytes without one, the delimiter counted; else like `receive_until`.
        """
        if not delimiter:
            raise ValueError("an empty delimiter")
        self._turns += 1
        if self._turns >= FAIR_TURNS or self._pending > MUCH_PENDING:
            await self._give_turn()
        left = limit
        while (found := self._buffer.find(delimiter, 0, left)) < 0:
            if len(self._buffer) >= left:
                raise LimitExceeded(limit)
            useless = len(self._buffer) - len(delimiter) + 1
            if useless > 0:
                self._drop(useless)
                left -= useless
            try:
                await self._fill()
            except EndOfStream:
                if left < limit:
                    raise IncompleteRead(b"") from None
                raise
        self._drop(found + len(delimiter))

    async def _fill(self, expected: int | None = None) -> None:
        """Receive some bytes into the buffer; what the end means depends on whether there were any."""
        had = len(self._buffer)
        data = await self._receive()
        if data:
            self._buffer[had:had] = data
        elif self._buffer:
            raise IncompleteRead(bytes(self._buffer), expected)
        else:
            raise EndOfStream("the peer has ended its side")

    # Watching for the peer's end while the buffer's owner is at work

    def read_ahead_now(self, limit: int) -> bool:
        """Take into the buffer what has arrived, as long as it holds less than `limit` bytes, without waiting.

        True if the peer is known to have ended its side. False says nothing: over a foreign stream, or while another
        task receives, nothing is taken. Raises `trio.BrokenResourceError` when the connection is known to be broken.
        """
        while not self._receiving and len(self._buffer) < limit:
            try:
                data = self._transport.receive_now(RECEIVE_SIZE)
            except TruncatedError:
                if self.end_unannounced:
                    return True
                raise
            if data is None:
                return False
            if not data:
                return True
            self._buffer.extend(data)
            self._count(data)
        return False

    async def wait_for_end(self, limit: int) -> None:
        """Wait until the peer has ended its side, and read ahead meanwhile, `limit` bytes in the buffer at most.

        With so many there it waits for ever: what comes behind them is not looked at. Raises and is cancelled like
        every receive; what it read stays in the buffer.
        """
        while (had := len(self._buffer)) < limit:
            data = await self._receive(min(limit - had, RECEIVE_SIZE))
            if not data:
                return
            self._buffer[had:had] = data
        await trio.sleep_forever()

    async def _give_turn(self) -> None:
        """Let the others have their turn after FAIR_TURNS operations that did not wait; let queued bytes leave."""
        self._turns = 0
        await trio.lowlevel.checkpoint()
        if self._pending > MUCH_PENDING:
            await self._send_before_taking()

    def take(self, count: int) -> bytes:
        """Take `count` bytes that are buffered already. Raises ValueError if there are fewer: see `buffered`."""
        if count == len(self._buffer):
            data = bytes(self._buffer)
            self._buffer.clear()
            self._searched = 0
            return data
        if not 0 <= count < len(self._buffer):
            raise ValueError(f"{count} bytes asked for, {len(self._buffer)} are buffered")
        data = bytes(self._buffer[:count])
        self._drop(count)
        return data

    def take_until(self, delimiter: bytes, *, limit: int) -> bytes | None:
        """Take up to and including `delimiter` if that is buffered already, else return None.

        Raises `LimitExceeded` as soon as it is certain that the item is longer than `limit` bytes.
        """
        if not delimiter:
            raise ValueError("an empty delimiter")
        found = self._buffer.find(delimiter, self._searched if delimiter == self._sought else 0, limit)
        if found >= 0:
            return self.take(found + len(delimiter))
        if len(self._buffer) >= limit:
            raise LimitExceeded(limit)
        # A part of the delimiter may stand at the end.
        self._sought = delimiter
        self._searched = max(0, len(self._buffer) - len(delimiter) + 1)
        return None

    def unread(self, data: bytes) -> None:
        """Put `data` back in front of the buffer: what a parser took and did not need."""
        if data:
            self._buffer[:0] = data
            self._searched = 0

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._searched = 0
