"""`HTTPHandler`: HTTP/1.1 and 1.0 on a stream, for an application (RFC 9112).

Theory of operation
===================

One task serves a connection, and the application runs in it: a request is read, answered to its end, and only then the
next one is looked at, so that pipelined requests are answered in order. There is no task, queue or event per request.

- *A peer that is slow on purpose.* The head has one absolute deadline from its first byte, the body a minimum rate
  over the time spent waiting for it, the pause between requests a limit. All of them are the stream's own deadline.
- *A request that is not to be trusted* (`RequestError`) gets a small answer with `connection: close`; then this side
  ends and what still arrives is dropped for a while, because a reset would destroy the answer on its way.
- *An application that fails.* Before the head has left it becomes a 500. After it the connection is broken, never
  ended: the peer must not take a part for the whole.
- *A body that the application left unread* is read and dropped if little is missing; otherwise the connection closes.
  A client that waits for `100 Continue` is told so when the application first reads the body, and if it never does,
  nobody can know whether the body comes: the connection closes.
- *A peer that vanishes* while its request is at work does not interrupt the application: it is told by the next thing
  that it receives or sends, or when it asks. The connection ends without a word.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from asyncnet.connection import current_connection, idle
from asyncnet.errors import LocalProtocolError, ReceiveTimeout
from asyncnet.http.application import AnyApplication, Enclosing, as_application
from asyncnet.http.engine import Engine, default_engine
from asyncnet.http.exchange import Exchange, RequestBody
from asyncnet.http.framing import reason
from asyncnet.http.limits import HTTPLimits, HTTPTimeouts
from asyncnet.http.wire import CRLF, Head, HeadReader, RequestError, body_decoder, ordinary_head
from asyncnet.stream import Stream

if TYPE_CHECKING:
    from asyncnet.service import Service

HEAD_PIECE = 8192
"""How much is looked at at once for a head: what it leaves has to be put back."""

logger = logging.getLogger(__name__)

_LIMITS = HTTPLimits()
_TIMEOUTS = HTTPTimeouts()


@dataclass(frozen=True, slots=True)
class Answered:
    """What the access log is told of a request, once it has been answered or refused."""

    exchange: Exchange | None
    """None for what never became a request."""
    peer_host: str
    """The client's address, without its port."""
    status: int
    body_bytes: int
    """Of the response's body, those that were given to the stream."""
    seconds: float
    """From the end of the request's head to the end of the response."""


AccessLogger: TypeAlias = Callable[[Answered], object]


def _error_answer(status: int, date: bytes = b"", *, with_body: bool = True) -> bytes:
    """A whole error response, made without an exchange: it has to work when there is none, or its state is lost."""
    body = f"{status} {reason(status)}\n"
    lines = [
        f"HTTP/1.1 {status} {reason(status)}",
        f"{date.decode('ascii')}content-type: text/plain; charset=utf-8",
        f"content-length: {len(body)}",
        "connection: close",
        "",
        "",
    ]
    return ("\r\n".join(lines) + (body if with_body else "")).encode("ascii")


class HTTPHandler(Enclosing):
    """Serves `app` over HTTP/1.1 and 1.0.

    `app` is `async def app(request: Request) -> Response`, an object with such a call (`Files`), or an `Application`
    (`ASGI`, `Mounts`). It runs in the connection's own task and is cancelled with it. What it raises is logged with its
    traceback and answered by 500; a `RequestError` that it raises or lets pass is answered by its status.

    `engine` parses heads: httptools where it is installed, else h11. `access_log` is called after each answer:
    see `AccessLog`. If `app` is an async context manager, it is entered before the service listens and left after the
    drain.
    """

    name = "http"
    alpn = ("http/1.1",)
    url_schemes = ("http", "https")
    refusal = _error_answer(503)
    """What a service over its cap sends instead of serving."""

    def __init__(
        self,
        app: AnyApplication,
        *,
        limits: HTTPLimits = _LIMITS,
        timeouts: HTTPTimeouts = _TIMEOUTS,
        engine: Engine | None = None,
        access_log: AccessLogger | None = None,
    ) -> None:
        super().__init__([app])
        self.app = app
        self.limits = limits
        self.timeouts = timeouts
        self.engine = engine or default_engine()
        self.access_log = access_log
        self.logs_requests = access_log is not None
        self.respond = as_application(app).respond
        """What answers an exchange, whatever kind of application `app` is."""
        self._second = 0
        self._date_line = b""

    async def __call__(self, stream: trio.abc.Stream) -> None:
        """Serve one connection to its end and close it."""
        stream = Stream.of(stream)
        async with stream:
            try:
                await HTTPConnection(self, stream).serve()
            except trio.BrokenResourceError as error:
                logger.debug("%s: the connection broke: %s", stream.peer, error)

    def date_line(self) -> bytes:
        """The Date field for this moment, a whole line (RFC 9110 section 6.6.1), formatted once a second."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._date_line = f"date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")
        return self._date_line


class _Broken(Exception):
    """The response could not be finished: the connection has been broken, and the reason logged."""


class _NoService:
    """Stands for the service of a connection that has none."""

    is_draining = False


_NO_SERVICE = _NoService()


class HTTPConnection:
    """One connection: reads a request, answers it, and so on."""

    __slots__ = ("_exchange", "date_line", "handler", "is_last", "kept", "service", "stream")

    def __init__(self, handler: HTTPHandler, stream: Stream) -> None:
        self.handler = handler
        self.stream = stream
        self.date_line = handler.date_line
        self.kept: tuple[object, Any] | None = None
        """Where an adapter keeps what is the same for all requests of a connection, with itself in front."""
        self._exchange: Exchange | None = None
        self.is_last = False
        """Whether the request at hand is the last that this connection may have."""
        connection = current_connection.get()
        self.service: Service | _NoService = _NO_SERVICE if connection is None else connection.service

    @property
    def response_has_left(self) -> bool:
        """Whether a part of the response to the request at hand may have left."""
        return self._exchange is not None and self._exchange.has_left

    def must_end(self, body: RequestBody | None) -> bool:
        """Whether the connection may not serve another request after the one at hand, whose body is `body`."""
        return self.is_last or self.service.is_draining or (body is not None and body.ends_connection)

    def request_failed(self, error: Exception) -> None:
        """The body of the request at hand could not be received."""
        if self._exchange is not None:
            self._exchange.fail(error)

    async def serve(self) -> None:
        stream = self.stream
        try:
            if not await self._serve_requests():
                return
        except RequestError as error:
            logger.debug("%s: refused with %d: %s", stream.peer, error.status, error)
            refused = self._exchange
            if refused is None or not refused.has_left:
                is_head = refused is not None and refused.method == "HEAD"
                answer = _error_answer(error.status, self.handler.date_line(), with_body=not is_head)
                stream.write(answer)
                self._log(refused, error.status, len(answer.partition(b"\r\n\r\n")[2]))
        except _Broken:
            pass  # what is not whole has been reset; what is whole must still arrive
        if stream.is_closed:
            return
        # The peer may be sending still: closing at once would destroy the last answer on its way.
        await stream.linger()

    async def _serve_requests(self) -> bool:
        """The hot loop, until the connection has to end. Whether the last answer may still be on its way."""
        handler, stream = self.handler, self.stream
        limits, parse = handler.limits, handler.engine.parse_ordinary_head
        now = trio.lowlevel.current_clock().current_time
        wait = handler.timeouts.head
        has_more = False
        for left in range(limits.requests - 1, -1, -1):
            data = b""
            if has_more and stream.buffered:
                # The next request may take its time: its predecessor's client need not wait for that.
                await stream.flush()
                data = stream.take(min(stream.buffered, HEAD_PIECE))
            if not data or data == CRLF:
                stream.deadline = now() + wait
                received = b""
                try:
                    with idle():
                        received = await stream.receive_some()
                        if received == CRLF and not data:  # no request: old clients send one behind a body
                            data, received = received, b""
                            received = await stream.receive_some()
                except ReceiveTimeout:
                    return False
                if not received:  # the peer, or a drain, has ended the connection
                    return False
                data += received
            self.is_last = not left
            end = ordinary_head(data, limits)
            has_more = end != len(data)
            if not has_more:
                exchange = Exchange(self, parse(data), None, True)
            elif end:
                stream.unread(data[end:])
                exchange = Exchange(self, parse(data[:end]), None, True)
            else:
                exchange = self._judge(await self._collect_head(data))
            self._exchange = exchange
            if not await self._answer(exchange):
                return exchange.status != 101
            del exchange, data  # idle connections are many, and hold nothing
            self._exchange = None
            wait = handler.timeouts.keep_alive
        return True

    async def _collect_head(self, data: bytes) -> Head:
        """The slow way: a head in pieces, an odd one, or one that is to be refused."""
        stream, timeouts = self.stream, self.handler.timeouts
        reader = HeadReader(self.handler.limits)
        result = reader.feed(data)
        if result is None:
            stream.deadline = trio.current_time() + timeouts.head
            try:
                while result is None:
                    data = await stream.receive_some(HEAD_PIECE)
                    if not data:
                        raise RequestError(400, "the connection ended within a head")
                    result = reader.feed(data)
            except ReceiveTimeout:
                raise RequestError(408, f"a head that took longer than {timeouts.head:g} seconds") from None
        head, rest = result
        stream.unread(rest)
        return head

    def _judge(self, head: Head) -> Exchange:
        """What an odd head asks for, beside its target: a body, 100 Continue, an end of the connection."""
        request = self.handler.engine.parse_head(head.raw)
        _, _, http_version, headers = request
        self._exchange = exchange = Exchange(self, request, None, True)  # refused or not, it goes to the access log
        expectation = upgrade = b""
        options: list[bytes] = []
        for name, value in headers:
            if name == b"connection":
                options += [option.strip(b" \t") for option in value.lower().split(b",")]
            elif name == b"expect" and http_version == "1.1":  # RFC 9110 section 10.1.1
                expectation += value.lower()
            elif name == b"upgrade" and http_version == "1.1":
                upgrade = value.lower()
        exchange.keeps_alive = b"close" not in options and (http_version == "1.1" or b"keep-alive" in options)
        if head.length != 0:
            decoder = body_decoder(head, self.handler.limits)
            exchange.body = RequestBody(self, decoder, expected=expectation == b"100-continue")
        if upgrade and b"upgrade" in options:
            exchange.upgrade = upgrade
        if expectation not in (b"", b"100-continue"):
            raise RequestError(417, f"an expectation of {expectation!r}")
        return exchange

    # The answer

    async def _answer(self, exchange: Exchange) -> bool:
        """Answer one request. Whether the connection goes on."""
        handler = self.handler
        if handler.access_log is not None:
            exchange.began = trio.current_time()
        done = False
        try:
            if exchange.raw_path == b"*" or exchange.method == "CONNECT":
                await _answer_for_the_server(exchange)
            else:
                await handler.respond(exchange)
            if not exchange.ended:
                raise _unfinished(exchange)
            done = True
        except _Broken:
            raise
        except Exception as error:
            raise self._failed(error, exchange) from None
        finally:
            if exchange.body is not None:
                exchange.body.close()
            if not done:
                await self._break_off(exchange)
            if handler.access_log is not None and exchange.has_left:
                self._log(exchange, exchange.status, exchange.body_bytes)
        if not exchange.keeps_alive:
            return False
        return exchange.body is None or await exchange.body.discard()

    async def _break_off(self, exchange: Exchange) -> None:
        """A part of a response must not pass for the whole, nor what another protocol has said before it failed."""
        is_whole = exchange.ended and exchange.status != 101
        if exchange.has_left and not is_whole and not self.stream.is_closed:
            await self.stream.abort()

    def _failed(self, error: Exception, exchange: Exchange) -> Exception:
        """What an exception of the application means for the connection, logged if it is the application's own."""
        if exchange.failure is not None:
            # It is let go, and not raised once more: a ring of exceptions would hold all that the application had.
            failure, exchange.failure = exchange.failure, _Broken()
            if isinstance(failure, RequestError):
                return RequestError(failure.status, str(failure))
            logger.debug("%s: the connection broke: %s", self.stream.peer, failure)
            return _Broken()
        if isinstance(error, RequestError):
            return error
        logger.error(
            "%s: the application failed on %s %s",
            self.stream.peer,
            exchange.method,
            exchange.target.decode("ascii"),
            exc_info=error,
        )
        return _Broken() if exchange.has_left else RequestError(500, "the application failed")

    def _log(self, exchange: Exchange | None, status: int, sent: int) -> None:
        access_log = self.handler.access_log
        if access_log is not None:
            now = trio.current_time()
            began = now if exchange is None or exchange.began is None else exchange.began
            access_log(Answered(exchange, self.stream.peer.host or str(self.stream.peer), status, sent, now - began))


def _unfinished(exchange: Exchange) -> Exception:
    """What it means that the application returned before the response had ended."""
    if exchange.said_gone:
        return _Broken()  # it has been told that its client has gone, and has nothing to say to nobody
    return LocalProtocolError("the application returned before the response had ended")


async def _answer_for_the_server(exchange: Exchange) -> None:
    """Requests that mean the server and not a resource (RFC 9110 sections 9.3.6 and 9.3.7)."""
    if exchange.method == "CONNECT":
        raise RequestError(501, "CONNECT is for proxies")
    exchange.begin(204, ())
    await exchange.end()
