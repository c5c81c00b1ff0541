"""A pair of connected transports in memory, with bounded buffers: for tests, and for services inside one program.

It behaves like a pair of sockets on a quiet machine: a send that finds room does not wait, a full buffer makes the
sender wait, closing is seen as an end, `abort` as a broken connection. Sockets and threads are not involved, so that
virtual time works.
"""

from __future__ import annotations

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from asyncnet.transports.address import NOWHERE, Address
from asyncnet.transports.base import Data, Transport

CAPACITY = 65536
"""How many bytes one direction holds before its sender has to wait."""


class _Pipe:
    """One direction: what was sent and not received yet."""

    __slots__ = ("capacity", "data", "ended", "reader", "receiver_gone", "reset", "writer")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.data = bytearray()
        self.ended = False
        self.reset = False
        self.receiver_gone = False
        self.reader: trio.Event | None = None
        self.writer: trio.Event | None = None

    def changed(self) -> None:
        """Let both ends look again."""
        for event in (self.reader, self.writer):
            if event is not None:
                event.set()
        self.reader = self.writer = None

    @property
    def readable(self) -> bool:
        return bool(self.data) or self.ended or self.reset

    @property
    def writable(self) -> bool:
        return len(self.data) < self.capacity or self.receiver_gone or self.reset


class MemoryTransport(Transport):
    """One end of a pair: see `memory_transports`."""

    __slots__ = ("_closed", "_incoming", "_outgoing", "_sending", "_woken")

    can_half_close = True
    can_cancel_send = True

    def __init__(self, incoming: _Pipe, outgoing: _Pipe, local: Address, peer: Address) -> None:
        super().__init__(local, peer)
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False
        self._sending = False
        self._woken = False

    @property
    def is_open(self) -> bool:
        return not self._closed

    async def wait_receivable(self, max_bytes: int) -> None:
        self._woken = False
        await checkpoint()
        pipe = self._incoming
        self._check_open()
        while not pipe.readable:
            if self._woken:
                raise trio.ClosedResourceError("woken")
            if pipe.reader is not None:
                raise trio.BusyResourceError("another task is receiving from this connection")
            event = pipe.reader = trio.Event()
            try:
                await event.wait()
            finally:
                if pipe.reader is event:
                    pipe.reader = None
            self._check_open()

    def receive_now(self, max_bytes: int) -> bytes | None:
        pipe = self._incoming
        self._check_open()
        if not pipe.readable:
            return None
        if pipe.reset and not pipe.data:
            raise trio.BrokenResourceError("the peer has reset the connection")
        data = bytes(pipe.data[:max_bytes])
        del pipe.data[:max_bytes]
        if data:
            pipe.changed()
        return data

    def wake(self) -> None:
        self._woken = True
        if self._incoming.reader is not None:
            self._incoming.reader.set()

    def send_now(self, data: Data) -> int:
        pipe = self._outgoing
        self._check_open()
        if pipe.ended:
            raise trio.ClosedResourceError("this side has ended already")
        if pipe.receiver_gone or pipe.reset or self._incoming.reset:
            raise trio.BrokenResourceError("the peer has closed the connection")
        count = min(len(data), pipe.capacity - len(pipe.data))
        if count > 0:
            pipe.data += memoryview(data)[:count]
            pipe.changed()
        return max(count, 0)

    async def send_some(self, data: Data) -> int:
        while True:
            await self._wait_writable()
            sent = self.send_now(data)
            if sent:
                return sent

    async def send_all(self, data: Data) -> None:
        with self._exclusively():
            await checkpoint_if_cancelled()
            view = memoryview(data)
            sent = self.send_now(view)
            while sent < len(view):
                sent += await self.send_some(view[sent:])
            await cancel_shielded_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        with self._exclusively():
            await self._wait_writable()

    async def _wait_writable(self) -> None:
        pipe = self._outgoing
        await checkpoint()
        self._check_open()
        while not pipe.writable:
            event = pipe.writer = trio.Event()
            await event.wait()
            self._check_open()

    def _exclusively(self) -> _Exclusive:
        self._check_open()
        return _Exclusive(self)

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this connection was closed")

    async def send_eof(self) -> None:
        with self._exclusively():
            await checkpoint()
            self._outgoing.ended = True
            self._outgoing.changed()

    async def aclose(self) -> None:
        self._close(reset=bool(self._incoming.data))  # as the kernel does when unread bytes are thrown away
        await checkpoint()

    async def abort(self) -> None:
        self._close(reset=True)

    def _close(self, *, reset: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self._outgoing.ended = True
        self._outgoing.reset = self._outgoing.reset or reset
        self._incoming.receiver_gone = True
        self._incoming.data.clear()
        self._outgoing.changed()
        self._incoming.changed()


class _Exclusive:
    """Marks that a task is sending; a second one gets BusyResourceError."""

    __slots__ = ("_transport",)

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    def __enter__(self) -> None:
        if self._transport._sending:
            raise trio.BusyResourceError("another task is sending on this connection")
        self._transport._sending = True

    def __exit__(self, *exc_info: object) -> None:
        self._transport._sending = False


def memory_transports(
    *, capacity: int = CAPACITY, left: Address = NOWHERE, right: Address = NOWHERE
) -> tuple[MemoryTransport, MemoryTransport]:
    """Two connected transports, at the addresses `left` and `right`; each direction holds `capacity` bytes."""
    one, other = _Pipe(capacity), _Pipe(capacity)
    return MemoryTransport(one, other, left, right), MemoryTransport(other, one, right, left)
