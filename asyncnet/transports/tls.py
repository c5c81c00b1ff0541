"""TLS: as an `ssl.SSLSocket` straight on the non-blocking socket, and over any other stream by `trio.SSLStream`.

Theory of operation
===================

`trio.SSLStream` moves every record through two memory buffers and a second stream. On a socket that is not needed:
OpenSSL reads and writes the descriptor itself, and says by an exception what it waits for. That is twice as fast.

What could go wrong, and why it does not:

- *Bytes that OpenSSL holds never make the descriptor readable.* OpenSSL takes one record at a time from the socket
  (`read_ahead` is off), so `pending()` tells all that it holds; only when that is 0 is the descriptor waited for. It is
  0 behind a receive that got less than it asked for.
- *A write that wanted to wait has to be tried again with the same bytes, never fewer.* `Stream` comes back
  with the same bytes in front, and maybe more behind them, or never again.
- *Either call may want either direction.* A read that wants to write waits for that. A write wants to read only while
  the handshake is made anew, and that is switched off in every context.
- *Truncation.* `suppress_ragged_eofs` is off: an end without close_notify is `TruncatedError`, not an end.
- *Closing.* `unwrap` sends close_notify and is called once; whatever it says is ignored, and nothing is read through
  TLS after it. There is no half-close: `unwrap` while data still arrives would destroy the connection.
- *A client that offers only protocols that are not ours* (ALPACA). The `ssl` module does not tell "none offered" from
  "none in common", so the ClientHello is looked at before the handshake, in the kernel's buffer (`MSG_PEEK`).
  Peeking leaves the descriptor readable: `SO_RCVLOWAT` keeps the wait from spinning until the rest is there. Unix
  sockets do not heed it: there a short sleep does, and a peer that leaves within its hello is noticed by the timeout.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
from trio.lowlevel import checkpoint

from asyncnet.errors import EndOfStream, LocalProtocolError, RemoteProtocolError
from asyncnet.transports.base import Data, TLSInfo, TruncatedError
from asyncnet.transports.certificates import ServerTLS
from asyncnet.transports.client_hello import MAX_CLIENT_HELLO, ClientHello, parse_client_hello
from asyncnet.transports.foreign import ForeignTransport
from asyncnet.transports.socket import DescriptorTransport, SocketTransport

if TYPE_CHECKING:
    from asyncnet.stream import Stream

TLSContext: TypeAlias = ssl.SSLContext | ServerTLS

PEEK_PAUSE = 0.01
"""How long, in seconds, the rest of a hello is waited for over a Unix socket before it is looked at again."""

PIECE = 65536
"""How much goes to OpenSSL in one write, in bytes: of more it may report that nothing was sent."""


class TLSTransport(DescriptorTransport):
    """TLS on a connected, non-blocking socket."""

    __slots__ = ("_at_end", "_may_hold", "_wants_to_write")

    can_half_close = False
    _socket: ssl.SSLSocket

    def __init__(self, beneath: SocketTransport, sock: ssl.SSLSocket) -> None:
        super().__init__(sock, beneath._local, beneath._peer)
        self._hop = beneath._hop
        self._wants_to_write = False  # what the last read waits for
        self._at_end = False  # the peer's closing message was found behind what was received last
        self._may_hold = True  # OpenSSL may have more than the last receive has asked for

    async def handshake(self, server_name: str | None) -> None:
        """Shake hands. Raises `ssl.SSLError` and its kin; the transport is of no use then."""
        while True:
            try:
                self._socket.do_handshake()
            except ssl.SSLWantReadError:
                await self._wait_readable()
            except ssl.SSLWantWriteError:
                await self._wait_writable()
            else:
                self.tls = TLSInfo(self._socket, server_name)
                return

    def wait_receivable(self, max_bytes: int) -> Coroutine[Any, Any, None]:
        if self._descriptor == -1:
            raise trio.ClosedResourceError("this connection was closed")
        if self._may_hold and (self._at_end or self._socket.pending()):
            return checkpoint()
        if self._wants_to_write:
            return self._wait_writable()
        return super().wait_receivable(max_bytes)

    def receive_now(self, max_bytes: int) -> bytes | None:
        self._wants_to_write = self._may_hold = False
        try:
            data = self._socket.recv(max_bytes)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLWantWriteError:
            self._wants_to_write = True
            return None
        except ssl.SSLEOFError as exc:
            raise TruncatedError("the connection ended without TLS's closing message") from exc
        except OSError as exc:
            raise self._failure(exc) from exc
        self._may_hold = len(data) == max_bytes
        return data

    def receive_into_now(self, buffer: memoryview) -> int | None:
        """As in `Transport`: record after record, of 16 KiB at most, without a turn of the event loop for each."""
        done = 0
        while done < len(buffer):
            self._wants_to_write = False
            try:
                count = self._socket.recv_into(buffer[done:])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as exc:
                self._may_hold = False
                self._wants_to_write = isinstance(exc, ssl.SSLWantWriteError)
                return done or None
            except OSError as exc:
                if done:
                    return done  # OpenSSL fails again at the next call
                if isinstance(exc, ssl.SSLEOFError):
                    raise TruncatedError("the connection ended without TLS's closing message") from exc
                raise self._failure(exc) from exc
            if not count:
                self._at_end = True  # it comes again, but nothing more makes the descriptor readable
                break
            done += count
        self._may_hold = True
        return done

    def send_now(self, data: Data) -> int:
        if self._descriptor == -1:
            return self._refuse()
        done = 0
        try:
            if len(data) <= PIECE:
                return self._socket.send(data)
            # Piece after piece in here: a turn through `Stream` for each cost a third of a long transfer.
            with memoryview(data) as view:
                while done < len(view):
                    done += self._socket.send(view[done : done + PIECE])
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as exc:
            if not done:  # else the next send fails alike
                raise self._failure(exc) from exc
        return done

    def _refuse(self) -> int:
        raise trio.ClosedResourceError("this connection was closed")

    async def send_some(self, data: Data) -> int:
        while True:
            await self._wait_writable()
            sent = self.send_now(data)
            if sent:
                return sent

    async def send_eof(self) -> None:
        raise LocalProtocolError("TLS has no half-close: the whole connection ends by aclose()")

    async def aclose(self) -> None:
        self._say_goodbye()
        await super().aclose()

    def finish_sending(self) -> None:
        self._say_goodbye()
        super().finish_sending()

    def _say_goodbye(self) -> None:
        """Send close_notify if there is room for it: see "Closing" above."""
        if self._descriptor != -1:
            try:
                self._socket.unwrap()
            except (OSError, ValueError):
                pass


async def tls_on_socket(
    transport: SocketTransport,
    context: TLSContext,
    *,
    server_side: bool,
    server_hostname: str | None,
    session: ssl.SSLSession | None,
    tickets: bool = True,
) -> TLSTransport:
    """Shake hands over `transport`, which must not be used again, and return what takes its place.

    Raises `ssl.SSLError`, `RemoteProtocolError` (a hello that is none, or that we refuse) or, when the connection
    breaks, `OSError`. Cancelled or failed, the connection is closed.
    """
    server_name = server_hostname
    wrapped: TLSTransport | None = None
    try:
        if isinstance(context, ServerTLS):
            server_name = await _inspect_hello(transport, context)
            context = context.context
        context.options |= ssl.OP_NO_RENEGOTIATION
        with _tickets(context, wanted=tickets):
            secured = context.wrap_socket(
                transport.release(),
                server_side=server_side,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
                server_hostname=server_hostname,
                session=session,
            )
        wrapped = TLSTransport(transport, secured)
        await wrapped.handshake(server_name)
    except BaseException:
        await (wrapped or transport).abort()
        raise
    return wrapped


@contextlib.contextmanager
def _tickets(context: ssl.SSLContext, *, wanted: bool) -> Iterator[None]:
    """Whether connections that are made within send tickets (TLS 1.3), which OpenSSL lets only a context say."""
    usual = context.num_tickets
    if wanted or not usual:
        yield
        return
    context.num_tickets = 0
    try:
        yield
    finally:
        context.num_tickets = usual


async def _inspect_hello(transport: SocketTransport, tls: ServerTLS) -> str | None:
    """Read the client's hello without taking it, refuse what `tls` refuses, and return the name asked for."""
    sock = transport._socket
    needed, seen = 1, -1
    lowered = False
    try:
        while True:
            await transport.wait_receivable(1)
            data = sock.recv(MAX_CLIENT_HELLO, socket.MSG_PEEK)
            if not data:
                raise EndOfStream("the client left without a hello")
            if len(data) < needed and len(data) <= seen:
                if sock.family == getattr(socket, "AF_UNIX", None):
                    await trio.sleep(PEEK_PAUSE)
                    continue
                raise EndOfStream("the client left before its hello was complete")
            seen = len(data)
            result = parse_client_hello(data)
            if isinstance(result, ClientHello):
                break
            needed = result
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, needed)
            lowered = True
    finally:
        if lowered:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    alert = tls.refusal(result)
    if alert is not None:
        transport.send_now(alert.record)
        transport.finish_sending()
        with trio.move_on_after(1), contextlib.suppress(trio.BrokenResourceError):
            await transport.discard(MAX_CLIENT_HELLO)
        raise RemoteProtocolError(f"TLS refused: {alert.reason}")
    return result.server_name


async def tls_over_stream(
    stream: Stream,
    context: TLSContext,
    *,
    server_side: bool,
    server_hostname: str | None,
    session: ssl.SSLSession | None,
) -> ForeignTransport:
    """The same over any `Stream`, by `trio.SSLStream`."""
    if session is not None:
        raise LocalProtocolError("a session can be resumed over a socket only")
    server_name = server_hostname
    try:
        if isinstance(context, ServerTLS):
            server_name = await _inspect_buffered_hello(stream, context)
            context = context.context
        context.options |= ssl.OP_NO_RENEGOTIATION
        secured = trio.SSLStream(stream, context, server_hostname=server_hostname, server_side=server_side)
        await secured.do_handshake()
    except trio.BrokenResourceError as exc:
        await stream.abort()
        if isinstance(exc.__cause__, ssl.SSLError):
            raise exc.__cause__ from None
        raise
    except BaseException:
        await stream.abort()
        raise
    return ForeignTransport(secured, local=stream.local, peer=stream.peer, tls=TLSInfo(secured, server_name))


async def _inspect_buffered_hello(stream: Stream, tls: ServerTLS) -> str | None:
    data = b""
    while True:
        more = await stream.receive_some()
        if not more:
            raise EndOfStream("the client left before its hello was complete")
        data += more
        result = parse_client_hello(data)
        if isinstance(result, ClientHello):
            break
    alert = tls.refusal(result)
    if alert is not None:
        await stream.send_all(alert.record)
        raise RemoteProtocolError(f"TLS refused: {alert.reason}")
    stream.unread(data)
    return result.server_name
