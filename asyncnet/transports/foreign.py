"""Any other `trio.abc.Stream` as a transport: Trio's own, TLS by `trio.SSLStream`, a test's, another library's.

Such a stream cannot be asked for what goes without waiting, so each of its sends waits, and a receive that may
have to be woken runs in a cancel scope of its own.
"""

from __future__ import annotations

import ssl

import trio

from asyncnet.errors import LocalProtocolError
from asyncnet.transports.address import NOWHERE, Address
from asyncnet.transports.base import Data, TLSInfo, Transport, TruncatedError
from asyncnet.transports.socket import local_address, peer_address, reset_on_close

PIECE = 65536
"""How many bytes go to the stream at once: the progress of a send is seen at this grain."""


class ForeignTransport(Transport):
    """`stream`, any `trio.abc.Stream`. Its half-close is known by its type, never tried out."""

    __slots__ = ("_closed", "_received", "_receiving", "_stream", "can_half_close")

    def __init__(
        self, stream: trio.abc.Stream, *, local: Address = NOWHERE, peer: Address = NOWHERE, tls: TLSInfo | None = None
    ) -> None:
        if isinstance(stream, trio.SocketStream):
            local, peer = local_address(stream.socket), peer_address(stream.socket)
        super().__init__(local, peer, tls)
        self._stream = stream
        self._closed = False
        self._receiving: trio.CancelScope | None = None
        self._received: bytes | None = None
        self.can_half_close = isinstance(stream, trio.abc.HalfCloseableStream)

    @property
    def is_open(self) -> bool:
        return not self._closed

    async def wait_receivable(self, max_bytes: int) -> None:
        # Such a stream has no other way to wait than to receive; `receive_now`, which comes next, hands it on.
        with trio.CancelScope() as scope:
            if self._receiving is None:
                self._receiving = scope
            try:
                self._received = bytes(await self._stream.receive_some(max_bytes))
            except trio.ClosedResourceError:
                self._closed = True  # behind our back
                raise
            except trio.BrokenResourceError as exc:
                if isinstance(exc.__cause__, ssl.SSLEOFError):
                    raise TruncatedError("the connection ended without TLS's closing message") from exc
                raise
            finally:
                if self._receiving is scope:
                    self._receiving = None
            return
        raise trio.ClosedResourceError("woken")

    def receive_now(self, max_bytes: int) -> bytes | None:
        data, self._received = self._received, None
        return data

    def wake(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()

    def send_now(self, data: Data) -> int:
        return 0

    async def send_some(self, data: Data) -> int:
        with memoryview(data)[:PIECE] as piece:
            await self._stream.send_all(piece)
            return len(piece)

    async def send_all(self, data: Data) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        if not isinstance(self._stream, trio.abc.HalfCloseableStream):
            raise LocalProtocolError(f"{type(self._stream).__name__} has no half-close")
        await self._stream.send_eof()

    async def aclose(self) -> None:
        self._closed = True
        await self._stream.aclose()

    async def abort(self) -> None:
        self._closed = True
        innermost = self._stream
        while isinstance(innermost, trio.SSLStream):
            innermost = innermost.transport_stream
        if isinstance(innermost, trio.SocketStream):
            reset_on_close(innermost.socket)
        await trio.aclose_forcefully(self._stream)
