"""One request and the answer to it, as the adapters of all kinds of applications see them.

`Exchange` stands between `http.server`, which owns the connection, and `http.application`, `http.asgi` and whatever
else calls an application. It reads the request's body, puts the response on the wire, and knows how far both have come.

What could go wrong, and why it does not:

- *A part of a response passes for the whole.* Whoever leaves an exchange that has begun and not ended, breaks the
  connection: the server looks.
- *The client vanishes.* Nobody watches for that while the application works: it is told by the next thing that it does
  with the connection, or when it asks (`wait_gone`). What it raises then is not its failure: `failure` tells.
- *A body that nobody reads.* If it is small it is read and dropped, so that the connection can go on; else the response
  says `connection: close`.
- *An application keeps the exchange for later.* After the end nothing can be received or sent through it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from asyncnet.errors import LocalProtocolError, ReceiveTimeout
from asyncnet.http.framing import Fields, ResponseFraming
from asyncnet.http.wire import BodyDecoder, RequestError

if TYPE_CHECKING:
    from asyncnet.http.engine import RequestHead
    from asyncnet.http.messages import FileBody
    from asyncnet.http.server import HTTPConnection
    from asyncnet.stream import Stream

LARGE = 64 * 1024
"""Pieces of a body above this size, in bytes, are not copied together with what leaves in front of them."""

READ_AHEAD = 64 * 1024
"""How much of the next requests, in bytes, is taken in while somebody waits for the client to vanish."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientGone(OSError):
    """The client is not there any more: what an application gets that goes on sending to it."""


class Exchange(ResponseFraming):
    """See the module's docstring. Adapters use it in the connection's task; receiving and sending may be two tasks'."""

    # Defaults of the class, and no slots: an exchange sets only what is not so.
    user: str | None = None
    """Who the client has proved to be, for the application and the access log."""
    upgrade = b""
    """The protocol that the client offers to change to, in small letters: "websocket" (RFC 9110 section 7.8)."""
    mounted_at = b""
    """What has been taken off the front of the path, percent-encoded as sent."""
    began: float | None = None
    """When the application was called, where somebody logs how long it took."""
    failure: Exception | None = None
    """Why the connection is of no use any more: it matters more than what the application made of it."""
    _head = b""  # the response's head, until it leaves with what comes behind it
    _watch: _Watch | None = None  # of somebody who waits for the client to vanish
    said_gone = False
    """Whether the application has been told that the client has gone: then it need not respond."""

    def __init__(
        self, connection: HTTPConnection, request: RequestHead, body: RequestBody | None, keeps_alive: bool
    ) -> None:
        self.connection = connection
        self.stream: Stream = connection.stream
        self.method, target, self.http_version, self.headers = request
        self.target = target
        self.body = body
        """The request's body; None where there is none."""
        self.keeps_alive = keeps_alive
        self.raw_path: bytes
        """The path behind `mounted_at`, percent-encoded as sent; "*" for `OPTIONS *`."""
        self.query: bytes
        if target[:1] != b"/":
            authority, target = _split_target(target)
            if authority:  # RFC 9112 section 3.2.2: the field is ignored, so that nobody reads another host than we do
                self.headers = [(b"host", authority), *(field for field in self.headers if field[0] != b"host")]
        self.raw_path, _, self.query = target.partition(b"?")

    def fail(self, error: Exception) -> None:
        """The connection is of no use any more; the first reason counts."""
        self.failure = self.failure or error

    # The request

    @property
    def host(self) -> str:
        """The host that is asked for, in small letters, without port and final dot; "" where none was named."""
        authority = next((value for name, value in self.headers if name == b"host"), b"")
        if not authority.endswith(b"]"):
            host, colon, port = authority.rpartition(b":")
            authority = host if colon else port
        return authority.decode("ascii").lower().rstrip(".")

    async def receive(self) -> bytes:
        """Some bytes of the request's body, b"" at its end. A checkpoint only if it must wait.

        Raises RequestError for a body that breaks the rules and trio.BrokenResourceError when the connection does.
        """
        return b"" if self.body is None else await self.body.receive()

    # The response

    @property
    def has_left(self) -> bool:
        """Whether a part of the final response may have left."""
        return self.status > 0 and not self._head

    async def inform(self, status: int, fields: Fields) -> None:
        """Send an interim response: 103 Early Hints (RFC 8297), 102 Processing."""
        data = self.frame_informational(status, fields)
        if data:
            await self._send(data)

    def begin(self, status: int, fields: Fields, *, length: int | None = None) -> None:
        """Make the head; it leaves with the first piece of the body, or with the end.

        `length` is that of the body, where it is known and `fields` does not tell. Raises LocalProtocolError for what
        would break the protocol.
        """
        connection = self.connection
        if connection.must_end(self.body):
            self.keeps_alive = False
        self._head = self.frame_head(status, fields, connection.date_line(), length=length)

    async def send(self, data: bytes) -> None:
        """Send a piece of the body, and the head if it has not left: an empty first piece sends just that."""
        if self.ended:
            raise LocalProtocolError("the response has ended")
        piece = self.frame_data(data)
        if self._head or piece:
            await self._send(piece)

    async def end(self, data: bytes = b"", trailers: Fields = ()) -> None:
        """Send the last piece of the body, and end the response."""
        if self.ended:
            raise LocalProtocolError("the response has ended")
        piece = self.frame_last(data, trailers)
        if self._head or piece:
            await self._send(piece)
        if self._watch is not None:
            self._watch.scope.cancel()

    def respond_now(self, status: int, fields: Fields, body: bytes) -> bool:
        """Send a whole response, at the end of this turn of the event loop. No checkpoint.

        False if that is not certain: then `flush` comes next. The hot path of small responses.
        """
        connection = self.connection
        if self.body is not None or connection.is_last or connection.service.is_draining:  # `must_end` only rarely
            self.keeps_alive = self.keeps_alive and not connection.must_end(self.body)
        data = self.frame_whole(status, fields, connection.date_line(), body)
        if self._watch is not None:
            self._watch.scope.cancel()
        try:
            return self.stream.write_soon(data)
        except trio.BrokenResourceError as error:
            self.fail(error)
            raise

    async def flush(self) -> None:
        """Send what is left. A checkpoint only if it must wait."""
        with self._sending():
            await self.stream.flush()

    @contextmanager
    def _sending(self) -> Iterator[None]:
        """Around what may wait for the client: whether it went wrong, the connection has to know."""
        try:
            yield
        except trio.BrokenResourceError as error:
            self.fail(error)
            raise
        except trio.Cancelled:
            self.keeps_alive = False  # a part may have left, and the rest never will
            raise

    async def send_file(self, file: FileBody) -> None:
        """Send a piece of the body from a file, by `sendfile` where that is possible."""
        if not self.has_body or not file.count:
            await self.send(b"")
            return
        before, behind = self.frame_passing(file.count)
        head, self._head = self._head, b""
        with self._sending():
            self.stream.write(head + before)
            await self.stream.send_file(file.file, file.offset, file.count)
            self.stream.write(behind)

    async def _send(self, data: bytes) -> None:
        stream = self.stream
        head, self._head = self._head, b""
        with self._sending():
            if len(data) > LARGE:
                stream.write(head)
                await stream.send_all(data)
            elif not stream.write_through(head + data):
                await stream.flush()

    def switch(self, fields: Fields) -> Stream:
        """Queue a 101 response; from then on the connection speaks another protocol, through the stream returned.

        Raises LocalProtocolError if the client has not offered that, or if a part of the request is still to come: the
        other protocol would take it for its own.
        """
        if not self.upgrade:
            raise LocalProtocolError("the client has not offered to change the protocol")
        if self.body is not None and not self.body.ended:
            raise LocalProtocolError("the protocol cannot change before the request's body has been received")
        self.stream.write(self.frame_switching(fields))
        if self._watch is not None:
            self._watch.scope.cancel()  # else it would take what belongs to the other protocol
        self.stream.deadline = math.inf
        return self.stream

    # The client

    def is_gone(self) -> bool:
        """Whether it is known by now that the client has gone or has ended its side. No checkpoint.

        Of what a client sends behind the request little is taken in; whether it leaves behind more, nobody sees.
        """
        if self.said_gone or self.failure is not None:
            self.said_gone = True
            return True
        try:
            self.said_gone = self.stream.read_ahead_now(READ_AHEAD)
        except trio.BrokenResourceError as error:
            self.fail(error)
            self.said_gone = True
        return self.said_gone

    async def wait_gone(self) -> None:
        """Wait until the client has gone, has ended its side, or the response has ended.

        The request's body has to be received before. Several tasks may wait.
        """
        while not self.ended and not self.is_gone():
            if self._watch is not None:  # if that one gives up, this one takes over
                await self._watch.over.wait()
                continue
            self.stream.deadline = math.inf
            watch = self._watch = _Watch()
            try:
                with watch.scope:
                    await self.stream.wait_for_end(READ_AHEAD)
                    self.said_gone = True
            except trio.BrokenResourceError as error:
                self.fail(error)
                self.said_gone = True
            finally:
                self._watch = None
                watch.over.set()
            return
        await trio.lowlevel.checkpoint()


class _Watch:
    """Of a task that waits for the client to vanish."""

    __slots__ = ("over", "scope")

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.over = trio.Event()


def _split_target(target: bytes) -> tuple[bytes, bytes]:
    """Authority, and path with query, of an absolute-form target (RFC 9112 section 3.2.2); others have no authority."""
    _, mark, rest = target.partition(b"://")
    if not mark:
        return b"", target
    end = len(rest) - len(rest.lstrip(_AUTHORITY))
    path = rest[end:]
    return rest[:end], path if path.startswith(b"/") else b"/" + path


_AUTHORITY = bytes(set(range(0x21, 0x7F)) - set(b"/?"))
"""The characters of an authority, and all others but those that end it."""


class RequestBody:
    """The body of one request, received from the stream as the application asks for it, under a minimum rate."""

    __slots__ = ("_closed", "_connection", "_decoder", "_promised", "_received", "_waited", "failure")

    def __init__(self, connection: HTTPConnection, decoder: BodyDecoder, *, expected: bool) -> None:
        """`expected`: the client waits for 100 Continue before it sends the body."""
        self._connection = connection
        self._decoder = decoder
        self._received = 0
        self._waited = 0.0
        self._closed = False
        self._promised = not expected or decoder.ended
        self.failure: Exception | None = None

    @property
    def ended(self) -> bool:
        return self._decoder.ended

    @property
    def trailers(self) -> Sequence[tuple[bytes, bytes]]:
        """The fields behind a chunked body, once it has ended."""
        return self._decoder.trailers

    @property
    def ends_connection(self) -> bool:
        """Whether it is certain that what is left of the body cannot be waited for."""
        if self._decoder.ended:
            return False
        left = self._decoder.remaining
        unread = self._connection.handler.limits.unread
        return not self._promised or self.failure is not None or (left is not None and left > unread)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self.receive()
        if not data:
            raise StopAsyncIteration
        return data

    async def receive(self) -> bytes:
        """Some bytes, b"" at the end."""
        if self._closed:
            raise LocalProtocolError("this request has been answered: its body is gone")
        return await self._take()

    async def _take(self) -> bytes:
        if self.failure is not None:
            raise self.failure
        stream, decoder = self._connection.stream, self._decoder
        try:
            while not decoder.ended:
                data = stream.take(stream.buffered) or await self._wait()
                content, rest = decoder.feed(data)
                if rest:
                    stream.unread(rest)
                if content:
                    return content
        except (RequestError, trio.BrokenResourceError) as error:
            self.failure = error
            self._connection.request_failed(error)
            raise
        return b""

    async def _wait(self) -> bytes:
        """Wait for more, under the minimum rate."""
        stream = self._connection.stream
        if not self._promised:
            self._promised = True
            if not self._connection.response_has_left:
                stream.write(CONTINUE)
                await stream.flush()
        timeouts = self._connection.handler.timeouts
        began = trio.current_time()
        stream.deadline = began + timeouts.body_grace + self._received / timeouts.body_rate - self._waited
        try:
            data = await stream.receive_some()
        except ReceiveTimeout:
            raise RequestError(408, f"a body slower than {timeouts.body_rate:g} bytes a second") from None
        if not data:
            raise RequestError(400, "the connection ended within a body")
        self._waited += trio.current_time() - began
        self._received += len(data)
        return data

    async def discard(self) -> bool:
        """Receive what the application left, if it is little. Whether the body's end was reached."""
        if self.ends_connection:
            return False
        left = self._connection.handler.limits.unread
        try:
            while data := await self._take():
                left -= len(data)
                if left < 0:
                    return False
        except RequestError:
            return False
        return True

    def close(self) -> None:
        """The request is over."""
        self._closed = True
