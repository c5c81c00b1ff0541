"""`HTTPHandler`: HTTP/1.1 and 1.0 on a stream, for an application `async def app(request) -> Response` (RFC 9112).

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
- *A peer that vanishes* ends the connection without a word.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from typing import TypeAlias

import trio

from asyncnet.connection import idle, is_draining
from asyncnet.errors import FileShrankError, LocalProtocolError, ReceiveTimeout
from asyncnet.http.engine import CONTINUE, Engine, H11Engine, RequestHead
from asyncnet.http.limits import HTTPLimits, HTTPTimeouts
from asyncnet.http.messages import FileBody, Headers, Request, Response, reason
from asyncnet.http.wire import RequestError
from asyncnet.stream import Stream

App: TypeAlias = Callable[[Request], Awaitable[Response]]

HEAD_PIECE = 8192
"""How much is given to the engine at once while it looks for a head: what it leaves has to be put back."""

logger = logging.getLogger(__name__)

_LIMITS = HTTPLimits()
_TIMEOUTS = HTTPTimeouts()


def _error_answer(status: int, date: str | None = None, *, with_body: bool = True) -> bytes:
    """A whole error response, made without an engine: it has to work when the engine's state is lost."""
    body = f"{status} {reason(status)}\n"
    lines = [f"HTTP/1.1 {status} {reason(status)}"]
    if date is not None:
        lines.append(f"date: {date}")
    lines += ["content-type: text/plain; charset=utf-8", f"content-length: {len(body)}", "connection: close", "", ""]
    return ("\r\n".join(lines) + (body if with_body else "")).encode("ascii")


class HTTPHandler:
    """Serves `app` over HTTP/1.1 and 1.0.

    `app` is `async def app(request: Request) -> Response`, or an object with such a call (`Files`). It runs in the
    connection's own task and is cancelled with it. What it raises is logged with its traceback and answered by 500;
    a `RequestError` that it raises or lets pass is answered by its status.
    """

    name = "http"
    alpn = ("http/1.1",)
    refusal = _error_answer(503)
    """What a service over its cap sends instead of serving."""

    def __init__(
        self,
        app: App,
        *,
        limits: HTTPLimits = _LIMITS,
        timeouts: HTTPTimeouts = _TIMEOUTS,
        engine: Callable[[HTTPLimits], Engine] = H11Engine,
    ) -> None:
        self.app = app
        self.limits = limits
        self.timeouts = timeouts
        self.engine = engine
        self._second = 0
        self._date = ""

    async def __call__(self, stream: trio.abc.Stream) -> None:
        """Serve one connection to its end and close it."""
        stream = Stream.of(stream)
        async with stream:
            try:
                await _Connection(self, stream).serve()
            except trio.BrokenResourceError as error:
                logger.debug("%s: the connection broke: %s", stream.peer, error)

    def date(self) -> str:
        """The time as `Date` has it (RFC 9110 section 5.6.7), formatted once a second."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._date = formatdate(second, usegmt=True)
        return self._date


class _Broken(Exception):
    """The response could not be finished: the connection has been broken, and the reason logged."""


class _Connection:
    """One connection: reads a request, answers it, and so on."""

    __slots__ = ("_engine", "_handler", "_served", "_stream", "head_sent")

    def __init__(self, handler: HTTPHandler, stream: Stream) -> None:
        self._handler = handler
        self._stream = stream
        self._engine = handler.engine(handler.limits)
        self._served = 0
        self.head_sent = False
        """Whether a part of a response may have left, but not all of it."""

    async def serve(self) -> None:
        try:
            while True:
                method = ""
                head = await self._receive_head()
                if head is None:
                    return
                method = head.method
                self._served += 1
                if not await self._answer(head):
                    break
        except RequestError as error:
            logger.debug("%s: refused with %d: %s", self._stream.peer, error.status, error)
            if self.head_sent:
                return
            self._stream.write(_error_answer(error.status, self._handler.date(), with_body=method != "HEAD"))
        except _Broken:
            return
        # The peer may be sending still: closing at once would destroy the last answer on its way.
        await self._stream.linger()

    # The request

    async def _receive_head(self) -> RequestHead | None:
        """The next request's head, or None if there will be none."""
        stream, timeouts = self._stream, self._handler.timeouts
        data = stream.take(min(stream.buffered, HEAD_PIECE)) or await self._wait_for_request()
        if not data:
            return None
        result = self._engine.receive_head(data)
        if result is None:
            stream.deadline = trio.current_time() + timeouts.head
            try:
                while result is None:
                    data = await stream.receive_some(HEAD_PIECE)
                    if not data:
                        raise RequestError(400, "the connection ended within a head")
                    result = self._engine.receive_head(data)
            except ReceiveTimeout:
                raise RequestError(408, f"a head that took longer than {timeouts.head:g} seconds") from None
        head, rest = result
        stream.unread(rest)
        return head

    async def _wait_for_request(self) -> bytes:
        """Wait for the first bytes of a request; none if the peer, the time or the service ends the connection."""
        stream, timeouts = self._stream, self._handler.timeouts
        stream.deadline = trio.current_time() + (timeouts.keep_alive if self._served else timeouts.head)
        data = b""
        try:
            async with idle():
                data = await stream.receive_some()
        except ReceiveTimeout:
            pass
        return data

    # The answer

    async def _answer(self, head: RequestHead) -> bool:
        """Answer one request. Whether the connection goes on."""
        stream = self._stream
        body = _RequestBody(self, stream, self._engine, self._handler, head)
        request = Request(
            head.method,
            head.target,
            head.headers,
            http_version=head.http_version,
            peer=stream.peer,
            tls=stream.tls,
            body=body,
        )
        try:
            response = await self._call(request, body)
            try:
                await self._send(request, response, body)
                self.head_sent = False
            finally:
                if self.head_sent:
                    await stream.abort()  # a part of a response must not pass for the whole
                await _close(response)
            return await body.discard() and self._engine.next_message()
        finally:
            body.close()

    async def _call(self, request: Request, body: _RequestBody) -> Response:
        """What the application answers, or the server in its place."""
        if request.method == "CONNECT":
            raise RequestError(501, "CONNECT is for proxies")
        if body.expectation not in ("", "100-continue"):
            raise RequestError(417, f"an expectation of {body.expectation!r}")
        if request.target == "*":
            return Response(204)
        try:
            response = await self._handler.app(request)
            if not isinstance(response, Response):
                raise TypeError(f"the application returned {response!r} instead of a Response")
        except Exception as error:
            raise self._failed(error, request, body) from None
        return response

    def _failed(self, error: Exception, request: Request, body: _RequestBody) -> Exception:
        """What an exception of the application means for the connection, logged if it is the application's own."""
        if body.failure is not None:
            return body.failure
        if isinstance(error, RequestError):
            return error
        logger.error(
            "%s: the application failed on %s %s",
            request.peer,
            request.method,
            request.target,
            exc_info=error,
        )
        return _Broken() if self.head_sent else RequestError(500, "the application failed")

    async def _send(self, request: Request, response: Response, body: _RequestBody) -> None:
        try:
            head = self._engine.send_head(response.status, self._fields(response, body))
            if request.method == "HEAD" or response.status in (204, 304):
                await self._send_piece(head + self._engine.send_end())
            elif isinstance(response.body, bytes):
                await self._send_piece(head + self._engine.send_data(response.body) + self._engine.send_end())
            elif isinstance(response.body, FileBody):
                await self._send_file(head, response.body, request)
                self._engine.send_end()
            else:
                await self._send_stream(head, aiter(response.body), request, body)
        except LocalProtocolError as error:
            raise self._failed(error, request, body) from None

    def _fields(self, response: Response, body: _RequestBody) -> Headers:
        """The response's headers, with what the server adds. The response is left as it is: it may serve again."""
        fields = Headers.checked(response.headers.raw.copy())
        fields.setdefault("date", self._handler.date())
        del fields["transfer-encoding"]  # framing is the engine's
        if response.status not in (204, 304):
            if isinstance(response.body, bytes):
                fields.setdefault("content-length", str(len(response.body)))
            elif isinstance(response.body, FileBody):
                fields.setdefault("content-length", str(response.body.count))
        if self._served >= self._handler.limits.requests or body.ends_connection or is_draining():
            fields["connection"] = "close"
        return fields

    async def _send_piece(self, data: bytes) -> None:
        self.head_sent = True
        self._stream.write(data)
        await self._stream.flush()

    async def _send_file(self, head: bytes, file: FileBody, request: Request) -> None:
        self._engine.pass_data(file.count)
        self.head_sent = True
        self._stream.write(head)
        try:
            await self._stream.send_file(file.file, file.offset, file.count)
        except FileShrankError as error:
            logger.warning("%s: the file behind %s became shorter while it was sent", request.peer, request.target)
            raise _Broken from error

    async def _send_stream(
        self, head: bytes, pieces: AsyncIterator[bytes | FileBody], request: Request, body: _RequestBody
    ) -> None:
        """Piece by piece; the head waits for the first."""
        while True:
            try:
                piece = await anext(pieces)
            except StopAsyncIteration:
                break
            except Exception as error:
                raise self._failed(error, request, body) from None
            if isinstance(piece, FileBody):
                await self._send_file(head, piece, request)
            else:
                await self._send_piece(head + self._engine.send_data(piece))
            head = b""
        await self._send_piece(head + self._engine.send_end())


async def _close(response: Response) -> None:
    """Close what the response holds open, sent or not."""
    response.close()
    if isinstance(response.body, AsyncGenerator):
        await response.body.aclose()


class _RequestBody:
    """The body of one request, read from the stream as the application asks for it."""

    __slots__ = (
        "_closed",
        "_connection",
        "_engine",
        "_handler",
        "_promised",
        "_received",
        "_stream",
        "_waited",
        "expectation",
        "failure",
    )

    def __init__(
        self, connection: _Connection, stream: Stream, engine: Engine, handler: HTTPHandler, head: RequestHead
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._engine = engine
        self._handler = handler
        self._received = 0
        self._waited = 0.0
        self._closed = False
        self.failure: Exception | None = None
        """Why the body could not be read: it matters more than what the application made of it."""
        # RFC 9110 section 10.1.1: an HTTP/1.0 client's expectation is ignored.
        self.expectation = (head.headers.get("expect") or "").lower() if head.http_version == "1.1" else ""
        self._promised = not self.expectation or engine.body_ended

    @property
    def ends_connection(self) -> bool:
        """Whether it is certain that what is left of the body cannot be waited for."""
        left = self._engine.body_left
        return not self._engine.body_ended and (
            not self._promised or self.failure is not None or (left is not None and left > self._handler.limits.unread)
        )

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise LocalProtocolError("this request has been answered: its body is gone")
        if self.failure is not None:
            raise self.failure
        try:
            while not self._engine.body_ended:
                data = self._stream.take(self._stream.buffered) or await self._receive()
                content, rest = self._engine.receive_body(data)
                self._stream.unread(rest)
                if content:
                    return content
        except (RequestError, trio.BrokenResourceError) as error:
            self.failure = error
            raise
        raise StopAsyncIteration

    async def _receive(self) -> bytes:
        """Wait for more, under the minimum rate."""
        if not self._promised:
            self._promised = True
            if not self._connection.head_sent:
                self._stream.write(CONTINUE)
                await self._stream.flush()
        timeouts = self._handler.timeouts
        began = trio.current_time()
        self._stream.deadline = began + timeouts.body_grace + self._received / timeouts.body_rate - self._waited
        try:
            data = await self._stream.receive_some()
        except ReceiveTimeout:
            raise RequestError(408, f"a body slower than {timeouts.body_rate:g} bytes a second") from None
        if not data:
            raise RequestError(400, "the connection ended within a body")
        self._waited += trio.current_time() - began
        self._received += len(data)
        return data

    async def discard(self) -> bool:
        """Read what the application left, if it is little. Whether the body's end was reached."""
        if self.ends_connection:
            return False
        left = self._handler.limits.unread
        try:
            async for piece in self:
                left -= len(piece)
                if left < 0:
                    return False
        except RequestError:
            return False
        return True

    def close(self) -> None:
        """The request is over."""
        self._closed = True
