"""One request and the head of its response, over one connection: what the client does between `take` and the body.

Theory of operation
===================

A small request leaves in one send, and the receive that follows sends it: no task, no cancel scope, one write, one
read. A larger one is sent while another task looks out for a response: a server that refuses the upload says so
before its end, and then often closes. What could go wrong, and why it does not:

- *The server has closed the connection meanwhile.* If it had carried a request before and not a byte of an answer
  came, that is `Stale`, and the client may send the request again (RFC 9110 section 9.2.2): if the method is
  idempotent, or if it is certain that not a byte had left. A connection of its own is not tried twice.
- *The connection breaks while a body is sent.* The answer may have come before the break: it is read first.
- *A response comes before the request has ended.* If it is an error or a redirect, the rest is not sent; any other
  is kept until all has left. Either way nothing of it is lost, since one `ResponseReader` reads all of it.
- *A body that is not wanted.* With `Expect: 100-continue` in the request it waits for the server's word, but not for
  ever: many servers do not know the field (RFC 9110 section 10.1.1).
- *Interim responses for ever.* They are counted, and the head's deadline does not move for them.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from typing import TypeAlias

import trio

from asyncnet.errors import LocalProtocolError, ReceiveTimeout
from asyncnet.http.client_limits import ClientLimits, ClientTimeouts, Phase, PhaseTimeout
from asyncnet.http.client_wire import ResponseError, ResponseHead, ResponseReader
from asyncnet.http.messages import FileBody, Headers
from asyncnet.http.url import URL
from asyncnet.stream import Stream

SMALL = 64 * 1024
"""Up to this size, in bytes, a body leaves together with its head."""

CONTINUE_TIME = 1.0
"""How long a body waits for 100 (Continue), in seconds, where the request asks for it."""

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that mean the same when they arrive twice (RFC 9110 section 9.2.2)."""

RequestBody: TypeAlias = bytes | FileBody | AsyncIterable[bytes] | Callable[[], AsyncIterable[bytes]]


class Stale(Exception):
    """The connection ended before a byte of the answer came; the request may be sent again if `is_harmless`."""

    def __init__(self, *, is_harmless: bool) -> None:
        self.is_harmless = is_harmless


class ClientRequest:
    """A request, ready to be sent, maybe several times."""

    __slots__ = ("body", "body_begun", "head", "headers", "length", "limits", "method", "timeouts", "url")

    def __init__(
        self,
        method: str,
        url: URL,
        headers: Headers,
        body: RequestBody,
        head: bytes,
        length: int | None,
        timeouts: ClientTimeouts,
        limits: ClientLimits,
    ) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.head = head
        """Request line and fields as they leave."""
        self.length = length
        """The body's length; None where it leaves in chunks."""
        self.timeouts = timeouts
        self.limits = limits
        self.body_begun = False

    @property
    def expects_continue(self) -> bool:
        """Whether the body waits for 100 (Continue)."""
        expect = self.headers.get("expect") if self.body else None
        return expect is not None and expect.lower() == "100-continue"

    @property
    def is_replayable(self) -> bool:
        """Whether the body can be sent once more: an iterator that was begun cannot."""
        return not self.body_begun or isinstance(self.body, (bytes, FileBody)) or callable(self.body)


async def exchange(stream: Stream, request: ClientRequest, *, is_used: bool) -> tuple[ResponseHead, bytes, bool]:
    """Send `request` and receive the head of the final response (or a 101), with what had come behind it.

    The third item tells whether the connection may live on: whether all of the request was sent.

    Raises Stale (only if `is_used`: the connection has carried a request before), ResponseError, PhaseTimeout,
    LocalProtocolError for a body that is not as long as announced, and `trio.BrokenResourceError`. Whatever is raised
    and when it is cancelled, the connection is good for nothing more.
    """
    before = stream.bytes_out, stream.bytes_in
    waiting = _HeadWait(request)
    body = request.body
    whole = True
    try:
        if isinstance(body, bytes) and len(body) <= SMALL and not request.expects_continue:
            stream.write(request.head + body if body else request.head)
        else:
            whole = await _send_large(stream, request, waiting)
        stream.deadline = trio.current_time() + request.timeouts.head
        head, rest = waiting.result or await waiting.receive(stream)
    except (_Ended, trio.BrokenResourceError) as exc:
        if stream.bytes_in != before[1]:
            raise ResponseError(f"{request.url.origin} closed the connection within the head of its response") from exc
        if is_used:
            nothing_left = stream.bytes_out == before[0]
            raise Stale(is_harmless=request.method in IDEMPOTENT or nothing_left) from exc
        if isinstance(exc, trio.BrokenResourceError):
            raise
        raise ResponseError(f"{request.url.origin} closed the connection without an answer") from None
    except ReceiveTimeout:
        raise PhaseTimeout(
            Phase.HEAD, f"{request.url.origin}: no response within {request.timeouts.head:g} seconds after the request"
        ) from None
    return head, rest, whole


class _Ended(Exception):
    """The connection has ended before a head."""


class _HeadWait:
    """Receives heads until a final one; it can be interrupted and goes on where it was."""

    __slots__ = ("_interim", "_is_plain", "_limits", "_reader", "go_on", "result")

    def __init__(self, request: ClientRequest) -> None:
        self._limits = request.limits
        self._reader = ResponseReader(request.limits)
        self._interim = 0
        self._is_plain = True  # so far; the connection is not used again otherwise
        self.go_on = trio.Event()  # the server has answered something: it wants the body, or never will
        self.result: tuple[ResponseHead, bytes] | None = None

    async def receive(self, stream: Stream) -> tuple[ResponseHead, bytes]:
        while True:
            data = await stream.receive_some()
            if not data:
                raise _Ended
            result = self._reader.feed(data)
            while result is not None:
                head, rest = result
                self.go_on.set()
                self._is_plain = self._is_plain and head.is_plain
                if head.status >= 200 or head.status == 101:
                    self.result = head._replace(is_plain=self._is_plain), rest
                    return self.result
                self._interim += 1
                if self._interim > self._limits.interim:
                    raise ResponseError(f"more than {self._limits.interim} interim responses")
                self._reader = ResponseReader(self._limits)
                result = self._reader.feed(rest) if rest else None


async def _send_large(stream: Stream, request: ClientRequest, waiting: _HeadWait) -> bool:
    """Send a request whose body is large or a stream, looking out for the response meanwhile; false: not all of it."""
    stream.deadline = math.inf  # a body takes as long as its source; sends have their own limit
    sending = trio.CancelScope()
    complete = False

    async def look_out() -> None:
        try:
            head, _ = await waiting.receive(stream)
        except (_Ended, trio.BrokenResourceError):
            sending.cancel()
        else:
            if head.status >= 300:
                sending.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look_out)
            with sending:
                try:
                    await _send_body(stream, request, waiting)
                    complete = True
                except trio.BrokenResourceError:
                    pass  # the answer may have come before the break
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # One of the two has failed: the nursery is nobody's business.
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from group.exceptions[0].__cause__
        raise
    return complete


async def _send_body(stream: Stream, request: ClientRequest, waiting: _HeadWait) -> None:
    body = request.body
    stream.write(request.head)
    if request.expects_continue:
        await stream.flush()
        with trio.move_on_after(CONTINUE_TIME):
            await waiting.go_on.wait()
    if isinstance(body, bytes):
        await stream.send_all(body)
    elif isinstance(body, FileBody):
        await stream.send_file(body.file, body.offset, body.count)
    else:
        request.body_begun = True
        pieces = (body() if callable(body) else body).__aiter__()
        try:
            await stream.flush()
            if request.length is None:
                await _send_chunks(stream, pieces)
            else:
                await _send_counted(stream, pieces, request.length)
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()  # here, not when the collector finds it


async def _send_chunks(stream: Stream, pieces: AsyncIterator[bytes]) -> None:
    """RFC 9112 section 7.1."""
    async for piece in pieces:
        if piece:
            await stream.send_all(b"%x\r\n%b\r\n" % (len(piece), piece))
    await stream.send_all(b"0\r\n\r\n")


async def _send_counted(stream: Stream, pieces: AsyncIterator[bytes], length: int) -> None:
    left = length
    async for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise LocalProtocolError(f"the body is longer than its Content-Length, {length}")
        if piece:
            await stream.send_all(piece)
    if left:
        raise LocalProtocolError(f"the body ended {left} bytes before its Content-Length, {length}")
