"""Stream: the one buffered byte stream that servers, clients and handlers speak through.

Theory of operation
===================

A Stream owns the bytes that were received too early (`_buffer`) and the bytes that were written but have not left
(`_outgoing`); its transport holds neither. What could go wrong, and why it does not:

- *A parser took too much.* It gives it back by `unread`. Nobody else keeps bytes, so `start_tls` can tell for certain
  whether plaintext waits behind the command that starts TLS, and refuses then.
- *An endless item.* Every call that waits for a delimiter or a length has a limit, checked before a byte beyond it is
  returned. `_searched` remembers how far a delimiter was looked for: a line that comes byte by byte costs no more.
- *Two peers that both write lock each other.* A receive that has to wait sends what is pending, and goes on receiving
  while it cannot. Whichever is possible first happens first.
- *A handler answers all that it receives, and its peer does not read.* With much pending, a receive first sends and
  only then returns, though it takes some bytes into the buffer meanwhile: the handler is slowed down.
- *A cancelled receive loses no bytes*: they go to the buffer before anything can be cancelled. *A cancelled send* may
  have sent a part: from then on every send raises, and the close is a reset, so that the peer never takes what
  arrived for the whole. What `write` has queued is different: its place is known, so that ending the wait of a
  receive (by a deadline, by a drain, by cancelling) leaves it queued.
- *A peer that never reads.* Each send waits `send_timeout` at most for progress; then the stream is broken.
- *A schedule for each small operation.* `write`, `flush` and the `take…` methods are no checkpoints unless they have
  to wait; the methods that Trio's stream contract names always are one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias, cast

import trio

from asyncnet.alarms import set_alarm
from asyncnet.errors import (
    Draining,
    EndOfStream,
    IncompleteRead,
    LimitExceeded,
    LocalProtocolError,
    PlaintextAfterUpgrade,
    ReceiveTimeout,
)
from asyncnet.limits import Timeouts
from asyncnet.transports import proxy_header
from asyncnet.transports.address import Address
from asyncnet.transports.base import RECEIVE_SIZE, Data, TLSInfo, Transport, TruncatedError, Woken, checked_size
from asyncnet.transports.files import WINDOW, is_cached, load_into_cache, read_at
from asyncnet.transports.foreign import ForeignTransport
from asyncnet.transports.proxy_header import ProxyHeader
from asyncnet.transports.socket import HAS_SENDFILE, DescriptorTransport, SocketTransport

if TYPE_CHECKING:
    import ssl

    from asyncnet.transports.tls import TLSContext

Progress: TypeAlias = Callable[[int], object]

MAX_PENDING = 128 * 1024
"""How much `write` queues, in bytes, before it asks for a flush."""

LINGER_LIMIT = 256 * 1024
LINGER_TIME = 2.0
"""How much, in bytes and seconds, a lingering close takes from a peer that does not stop."""

MUCH_PENDING = MAX_PENDING // 2
"""With more than that queued a receive returns nothing; the other half is for what answers one receive."""

READ_AHEAD = 128 * 1024
"""How much a receive takes into the buffer, in bytes, while it waits for what is queued to leave."""

FAIR_TURNS = 64
"""How many operations in a row may go without a checkpoint because nothing had to be waited for."""

_DEFAULTS = Timeouts()
_NEVER = math.inf
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


class _SideFlush:
    """A receive that sends what is queued while it waits."""

    __slots__ = ("over", "satisfied", "scope", "yields")

    def __init__(self, *, satisfied: bool) -> None:
        self.scope = trio.CancelScope()
        self.satisfied = satisfied  # there is something to return, once not much is pending
        self.yields = False  # it stops after the piece under way: a task wants to send
        self.over = trio.Event()


class Stream(trio.abc.HalfCloseableStream):
    """A byte stream with a buffer, over a socket, TLS, memory or any `trio.abc.Stream`.

    `Stream.of(anything)` is the first line of every handler and client. A stream is used by one receiving and one
    sending task at a time; a second one gets `trio.BusyResourceError`. `unread`, `take` and `take_until` belong to
    the receiving task, `write` and `flush` to the sending one.

    Every method that receives raises `trio.BrokenResourceError` when the connection breaks (`TruncatedError` when
    it ends without TLS's closing message), `trio.ClosedResourceError` after `aclose`, `ReceiveTimeout` at the
    `deadline`, and loses no bytes when it is cancelled or fails. Every method that sends raises the first two; when
    one is cancelled in the middle, the sending side is broken for good, the receiving side is not.
    """

    __slots__ = (
        "__weakref__",
        "_alarm",
        "_buffer",
        "_cannot_send",
        "_closed",
        "_deadline",
        "_draining",
        "_eof_sent",
        "_granted",
        "_holding",
        "_later_alarms",
        "_outgoing",
        "_pending",
        "_receiving",
        "_searched",
        "_secret",
        "_secret_pending",
        "_send_failure",
        "_sending",
        "_side_flush",
        "_sought",
        "_taps",
        "_transport",
        "_turns",
        "bytes_in",
        "bytes_out",
        "end_unannounced",
        "timeouts",
    )

    def __init__(self, transport: Transport, timeouts: Timeouts = _DEFAULTS) -> None:
        self._transport = transport
        self._buffer = bytearray()
        self._searched = 0  # from where on the buffer may hold _sought
        self._sought = b""
        self._outgoing = _NOTHING
        self._pending = 0
        self._sending = False
        self._side_flush: _SideFlush | None = None
        self._receiving = False
        self._send_failure: str | None = None
        self._eof_sent = False
        self._closed = False
        self._cannot_send = False  # one of the three above, or whatever else `_check_can_send` raises for
        self._deadline = math.inf
        self._alarm = math.inf  # the first that will ring; those behind it are in _later_alarms
        self._later_alarms: tuple[float, ...] = ()
        self._draining = False
        self._taps: tuple[Tap, ...] = ()
        self._granted = 0
        self._holding: trio.CancelScope | None = None  # a receive that a tap holds back
        self._secret = False
        self._secret_pending = False  # some of what is queued was written within `secret`
        self._turns = 0
        self.timeouts = timeouts
        """How long sends and the close wait."""
        self.end_unannounced = False
        """Whether an end without TLS's closing message counts as an end: only where the protocol has its own."""
        self.bytes_in = 0
        """Bytes received so far, above TLS."""
        self.bytes_out = 0
        """Bytes sent so far, above TLS."""

    @classmethod
    def of(cls, stream: trio.abc.Stream) -> Stream:
        """`stream` itself if it is a Stream; otherwise a Stream over it, which then owns it."""
        if isinstance(stream, Stream):
            return stream
        return cls(stream if isinstance(stream, Transport) else ForeignTransport(stream))

    # What it is

    @property
    def local(self) -> Address:
        """This end."""
        return self._transport.local

    @property
    def peer(self) -> Address:
        """The other end; behind a trusted proxy the client's."""
        return self._transport.peer

    @property
    def tls(self) -> TLSInfo | None:
        """What the TLS handshake settled, or None in the clear."""
        return self._transport.tls

    @property
    def can_half_close(self) -> bool:
        """Whether `send_eof` works: not over TLS."""
        return self._transport.can_half_close

    @property
    def is_closed(self) -> bool:
        """Whether `aclose` or `abort` was called."""
        return self._closed

    @property
    def buffered(self) -> int:
        """How many bytes wait in the read buffer."""
        return len(self._buffer)

    @property
    def pending(self) -> int:
        """How many bytes `write` has queued that have not left."""
        return self._pending

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.bytes_in} in, {self.bytes_out} out"
        return f"<Stream {self.local} <- {self.peer}{', TLS' if self.tls else ''}: {state}>"

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
        if when < self._alarm:
            if self._alarm < math.inf:
                self._later_alarms = (self._alarm, *self._later_alarms)
            self._alarm = when
            set_alarm(when, self)

    def ring(self, now: float) -> None:
        """For the alarm of `deadline` alone: wakes the receive that waits, or sees to it that it is woken later."""
        if self._later_alarms:
            self._alarm, *later = self._later_alarms
            self._later_alarms = tuple(later)
        else:
            self._alarm = math.inf
        if self._deadline <= now:
            self._wake()
        else:
            self.deadline = self._deadline

    def interrupt(self, on: bool = True) -> None:
        """End receives that wait, now and from now on, by `Draining`; with `on` false, no longer.

        Receives that the buffer can satisfy go on. `service.idle` uses it; handlers use that.
        """
        self._draining = on
        if on:
            self._wake()

    def _wake(self) -> None:
        if self._receiving:
            if self._holding is not None:
                self._holding.cancel()
            if self._side_flush is not None:
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
        if self._outgoing and not self._sending:
            self._send_pending_quietly()
        if self._outgoing or self._taps or self._draining or self._deadline != _NEVER:
            return await self._receive_with_care(max_bytes)
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

    async def _receive_with_care(self, max_bytes: int) -> bytes:
        """The same on a stream with a deadline, with taps, while draining, or with something still to send."""
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
        return self._draining or self._deadline <= trio.current_time()

    def _check_interrupted(self) -> None:
        if self._draining:
            raise Draining("the service is draining")
        if self._deadline <= trio.current_time():
            raise ReceiveTimeout("the peer took too long")

    async def _flush_while_receiving(self, room: int, *, satisfied: bool = False) -> bool:
        """Send what is queued, and receive up to `room` bytes into the buffer meanwhile; true at the end.

        It returns when there is something to return (`satisfied`: that is so from the beginning) and not much is
        pending: so two peers that both write do not lock each other, and whoever answers all that it receives is
        slowed down by a peer that does not read.

        Given up (by a wake, by cancelling, for another task that sends), it leaves queued what has not left. A foreign
        stream's send can't be interrupted: another task waits for its end; else sending is over then.
        """
        flush = self._side_flush = _SideFlush(satisfied=satisfied)
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

    # Sending

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
            self._queue(data)

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

    async def _take_over(self, flush: _SideFlush) -> None:
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

    async def _send_pending(self, side: _SideFlush | None = None) -> None:
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

    async def send_file(
        self, file: BinaryIO, offset: int = 0, count: int | None = None, *, progress: Progress | None = None
    ) -> int:
        """Send `count` bytes of `file` from `offset` on (None: to its end), and return how many that were.

        Over a plain socket the kernel sends them straight from its cache; elsewhere they are read in a thread and
        sent. Either way the event loop never waits for a disk. `file` is a regular file opened for reading; its
        position does not matter and stays. `progress` is called with the number of bytes of each step.

        Raises `IncompleteRead` if the file ends early (somebody has shortened it): the peer was promised more, so
        that the sending side is broken then.
        """
        if count is None:
            count = max(0, os.fstat(file.fileno()).st_size - offset)
        report = progress or (lambda sent: None)
        await self.flush()
        self._sending = True
        try:
            if HAS_SENDFILE and isinstance(self._transport, SocketTransport) and not self._taps:
                done = await self._send_file_directly(self._transport, file, offset, count, report)
            else:
                done = await self._send_file_by_reading(file, offset, count, report)
        except BaseException:
            self._give_up(self._send_failure or "a file was not sent to its end")
            raise
        finally:
            self._sending = False
        if done < count:
            self._give_up("the file that was being sent has become shorter")
            raise IncompleteRead(b"", count)
        return done

    async def _send_file_directly(
        self, transport: SocketTransport, file: BinaryIO, offset: int, count: int, report: Progress
    ) -> int:
        """By `sendfile`, window by window; returns how many bytes, fewer than `count` if the file ends before."""
        done = cached = 0
        while done < count:
            if done == cached:
                window = min(count - done, WINDOW)
                if not is_cached(file, offset + done, window):
                    await trio.to_thread.run_sync(load_into_cache, file, offset + done, window)
                cached += window
                await trio.lowlevel.checkpoint()
            sent = transport.send_file_now(file, offset + done, cached - done)
            if sent is None:
                with self._progress_deadline():
                    sent = await transport.send_file_some(file, offset + done, cached - done)
            if not sent:
                break
            done += sent
            self.bytes_out += sent
            report(sent)
        return done

    async def _send_file_by_reading(self, file: BinaryIO, offset: int, count: int, report: Progress) -> int:
        """By reading pieces in a thread, where the kernel cannot do it."""
        done = 0
        while done < count:
            data = await trio.to_thread.run_sync(read_at, file, offset + done, min(count - done, WINDOW))
            if not data:
                break
            self._queue(data)
            await self._send_pending()
            done += len(data)
            report(len(data))
        return done

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

    # What comes before the protocol

    async def receive_proxy_header(self, *, timeout: float | None = None) -> None:
        """Receive a PROXY header, not a byte more; `local` and `peer` are from then on the ends that it tells.

        Only for a peer that is trusted to tell the truth, and only as the first thing on a connection. `timeout` in
        seconds is for the whole header (None: `timeouts.proxy_header`). Raises `RemoteProtocolError` if it is
        malformed, `EndOfStream` if the peer leaves before its end, `TimeoutError`.
        """
        seconds = self.timeouts.proxy_header if timeout is None else timeout
        with trio.move_on_after(seconds):
            header = await self._read_proxy_header()
            if header.source is not None and header.destination is not None:
                self._transport.stand_in(header.destination, header.source)
            return
        raise TimeoutError(f"the PROXY header took longer than {seconds:g} seconds")

    async def _read_proxy_header(self) -> ProxyHeader:
        data, needed = b"", proxy_header.FIRST_READ
        while True:
            more = await self.receive_some(needed - len(data))
            if not more:
                raise EndOfStream("the peer has ended its side")
            data += more
            if len(data) == needed:
                result = proxy_header.parse_proxy_header(data)
                if isinstance(result, ProxyHeader):
                    return result
                needed = result

    # TLS

    async def start_tls(
        self,
        context: TLSContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send what is queued, shake hands, and go on through TLS.

        `context` is an `ssl.SSLContext`, or on the server's side a `ServerTLS`, which also refuses clients by ALPN
        and name. `timeout` in seconds is for the whole handshake (None: `timeouts.handshake`). Everything that the
        protocol learnt before the upgrade is to be forgotten.

        Raises `PlaintextAfterUpgrade` if bytes wait in the buffer: they came in the clear and pretend to come
        later; `ssl.SSLError` if the handshake fails, `TimeoutError` if it takes too long. Whatever is raised, and
        when it is cancelled, the connection is closed.
        """
        from asyncnet.transports.tls import tls_on_socket, tls_over_stream

        if self.tls is not None:
            raise LocalProtocolError("this connection has TLS already")
        if self._buffer:
            waiting = len(self._buffer)
            await self.abort()
            raise PlaintextAfterUpgrade(f"{waiting} bytes had come in the clear before the TLS handshake")
        if timeout is None:
            timeout = self.timeouts.handshake
        try:
            with trio.fail_after(timeout):
                await self.flush()
                if isinstance(self._transport, SocketTransport):
                    self._transport = await tls_on_socket(
                        self._transport,
                        context,
                        server_side=server_side,
                        server_hostname=server_hostname,
                        session=session,
                    )
                else:
                    self._transport = await tls_over_stream(
                        Stream(self._transport, self.timeouts),
                        context,
                        server_side=server_side,
                        server_hostname=server_hostname,
                        session=session,
                    )
        except trio.TooSlowError:
            await self.abort()
            raise TimeoutError(f"the TLS handshake took longer than {timeout:g} seconds") from None
        except BaseException:
            await self.abort()
            raise
        for tap in self._taps:
            tap.note("began TLS")

    # The end

    async def aclose(self) -> None:
        """Send what is queued, `timeouts.close` seconds at most, and close.

        If something has not left then, or a send failed or was cancelled before, the peer sees a reset instead of an
        end: it must not take what it got for the whole. Closing twice is fine.
        """
        try:
            if self._outgoing and not self._closed and not self._sending:
                with trio.move_on_after(self.timeouts.close):
                    await self.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            whole = self._send_failure is None and not self._outgoing and not self._sending
            self._shut()
            if whole:
                with trio.move_on_after(self.timeouts.close):  # TLS over a foreign stream waits for the peer's word
                    await self._transport.aclose()
            else:
                await self._transport.abort()
                await trio.lowlevel.checkpoint()

    async def abort(self) -> None:
        """Close at once, so that the peer sees a reset where the transport can say so. What is queued is dropped."""
        self._shut()
        await self._transport.abort()

    def _shut(self) -> None:
        self._closed = self._cannot_send = True
        self._deadline = math.inf
        self._outgoing = _NOTHING
        self._pending = 0
        self._buffer.clear()

    async def linger(self) -> None:
        """End this side and drop what still arrives, to 256 KiB or 2 seconds; `aclose` comes next.

        For use after an answer to a request that was not read to its end: closing at once would make the kernel
        send a reset, which destroys the answer on its way.
        """
        with trio.move_on_after(LINGER_TIME):
            try:
                if not self._eof_sent:
                    await self.flush()
                self._buffer.clear()
                self._eof_sent = self._cannot_send = True
                if isinstance(self._transport, DescriptorTransport):
                    self._transport.finish_sending()
                    await self._transport.discard(LINGER_LIMIT)
                    return
                if self.can_half_close:
                    await self._transport.send_eof()
                limit = LINGER_LIMIT
                while limit > 0 and (data := await self._transport.receive_some()):
                    limit -= len(data)
            except (trio.BrokenResourceError, Woken):
                pass

    # What else it wears

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

    def as_file(self, mode: str = "rwb", **options: Any) -> IO[Any]:
        """A blocking file over this stream, for code in a thread: see `asyncnet.blocking.open_file`."""
        from asyncnet.blocking import open_file

        return open_file(self, mode, **options)
