"""Stream: the one buffered byte stream that servers, clients and handlers speak through.

It owns the bytes that were received too early and the bytes that were written but have not left; its transport holds
neither. How it receives is in `receiving.py`, how it sends in `sending.py`, each with what could go wrong, files and
other large amounts in `bulk.py`; here is what a stream is, how it begins and ends, and how TLS comes between. That
nobody else keeps bytes lets `start_tls` tell for certain whether plaintext waits behind the command that starts TLS,
and refuse then.
"""

from __future__ import annotations

import math
from typing import IO, TYPE_CHECKING, Any

import trio

from asyncnet.bulk import BulkHalf
from asyncnet.errors import EndOfStream, LocalProtocolError, PlaintextAfterUpgrade
from asyncnet.limits import Timeouts
from asyncnet.transports import proxy_header
from asyncnet.transports.address import Address
from asyncnet.transports.base import TLSInfo, Transport
from asyncnet.transports.foreign import ForeignTransport
from asyncnet.transports.proxy_header import ProxyHeader
from asyncnet.transports.socket import DescriptorTransport, SocketTransport

if TYPE_CHECKING:
    import ssl

    from asyncnet.transports.tls import TLSContext

LINGER_LIMIT = 256 * 1024
LINGER_TIME = 2.0
"""How much, in bytes and seconds, a lingering close takes from a peer that does not stop."""

_DEFAULTS = Timeouts()


class Stream(BulkHalf):
    """A byte stream with a buffer, over a socket, TLS, memory or any `trio.abc.Stream`.

    `Stream.of(anything)` is the first line of every handler and client. A stream is used by one receiving and one
    sending task at a time; a second one gets `trio.BusyResourceError`. `unread`, `take` and `take_until` belong to
    the receiving task, `write` and `flush` to the sending one.

    Every method that receives raises `trio.BrokenResourceError` when the connection breaks (`TruncatedError` when
    it ends without TLS's closing message), `trio.ClosedResourceError` after `aclose`, `ReceiveTimeout` at the
    `deadline`, and loses no bytes when it is cancelled or fails. Every method that sends raises the first two; when
    one is cancelled in the middle, the sending side is broken for good, the receiving side is not.
    """

    __slots__ = ()

    def __init__(self, transport: Transport, timeouts: Timeouts = _DEFAULTS) -> None:
        super().__init__(transport, timeouts)

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
    def hop(self) -> tuple[Address, Address]:
        """This end and the other one as the network sees them: behind a proxy, the other one is the proxy."""
        return self._transport.hop

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

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.bytes_in} in, {self.bytes_out} out"
        return f"<Stream {self.local} <- {self.peer}{', TLS' if self.tls else ''}: {state}>"

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
        tickets: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Send what is queued, shake hands, and go on through TLS.

        `context` is an `ssl.SSLContext`, or on the server's side a `ServerTLS`, which also refuses clients by ALPN
        and name. Renegotiation is switched off in it. `timeout` in seconds is for the whole handshake (None:
        `timeouts.handshake`). Everything that the protocol learnt before the upgrade is to be forgotten.

        A client that only writes never reads the `tickets` of TLS 1.3, by which it could resume the session, and then
        its close is a reset: over a socket, a server can do without them.

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
                        tickets=tickets,
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
            if whole and isinstance(self._transport, DescriptorTransport):
                await self._transport.aclose()  # which waits for nobody: a scope would cost more than all of it
            elif whole:
                with trio.move_on_after(self.timeouts.close):  # TLS over a foreign stream waits for the peer's word
                    await self._transport.aclose()
            else:
                await self._transport.abort()
                await trio.lowlevel.checkpoint()

    def close_now(self) -> bool:
        """`aclose` without a checkpoint, for the service: whether it has closed, as where nothing is to be sent.

        The task ends with it, and the turn of the loop that a checkpoint takes is a hundredth of a short connection.
        """
        if self._outgoing or self._sending or self._send_failure is not None:
            return False
        if not isinstance(self._transport, SocketTransport):
            return False
        self._shut()
        self._transport.close_now()
        return True

    async def abort(self) -> None:
        """Close at once, so that the peer sees a reset where the transport can say so. What is queued is dropped."""
        self._shut()
        await self._transport.abort()

    def drop(self) -> None:
        """`abort`, for those who cannot wait even for nothing; over a socket alone."""
        assert isinstance(self._transport, DescriptorTransport), "only a descriptor can be closed at once"
        self._shut()
        self._transport.drop()

    def _shut(self) -> None:
        self._closed = self._cannot_send = True
        self._deadline = math.inf
        self._drop_queue()
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
            except trio.BrokenResourceError:
                pass

    async def deliver(self) -> None:
        """Send what is queued and close, but return only when the peer's side has confirmed all of it.

        For connections that carry one thing and then end (FTP's data), so that whoever tells of it elsewhere knows
        that it has arrived. What the peer sends meanwhile is dropped. As far as the system knows what was confirmed:
        Linux does, for plain sockets and TLS on them. A checkpoint only if it must wait.

        Raises `trio.BrokenResourceError` if the connection breaks before, or `timeouts.send` passes without progress;
        then, and when it is cancelled, it is not closed yet.
        """
        await self.flush()
        transport = self._transport
        if not isinstance(transport, DescriptorTransport):
            await self.aclose()
            return
        self._eof_sent = self._cannot_send = True
        transport.finish_sending()
        left, since, pause = transport.undelivered(), trio.current_time(), 0.001
        while left > 1:  # the end itself counts one, and may be confirmed late
            with trio.move_on_after(pause):
                await transport.discard(LINGER_LIMIT)
                await trio.sleep_forever()
            pause = min(pause * 2, 0.25)
            before, left = left, transport.undelivered()
            if left != before:
                since = trio.current_time()
            elif trio.current_time() > since + self.timeouts.send:
                raise trio.BrokenResourceError(f"the peer has read nothing for {self.timeouts.send:g} seconds")
        transport.check_unbroken()
        self._shut()
        transport.close_now()

    def take_urgent_inline(self) -> None:
        """Receive TCP's urgent data in its place among the others: for protocols on Telnet's ground."""
        self._transport.take_urgent_inline()

    def as_file(self, mode: str = "rwb", **options: Any) -> IO[Any]:
        """A blocking file over this stream, for code in a thread: see `asyncnet.blocking.open_file`."""
        from asyncnet.blocking import open_file

        return open_file(self, mode, **options)
