"""`ClientResponse`: what a request gives, its body still to come, or read. Made by `http.client`.

The connection goes back to the pool when the last byte of the body has been taken, if nothing stands against another
request on it; in every other case it is closed. A receive that is cancelled loses nothing, so that
reading can go on within the `async with` block of the request; what is not read at its end is given up.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import trio

from asyncnet.errors import AsyncnetError, ReceiveTimeout
from asyncnet.http.client_exchange import ClientRequest
from asyncnet.http.client_limits import Phase, PhaseTimeout
from asyncnet.http.client_wire import ChunkedReader, Framing, LengthReader, ResponseError, ResponseHead
from asyncnet.http.decoding import Decoder, decode, decoders_for
from asyncnet.http.messages import Headers
from asyncnet.http.pool import Connection, Pool
from asyncnet.http.url import URL
from asyncnet.printable import printable

FAIR_TURNS = 16
"""How many decoded pieces, of 64 KiB mostly, may come of one receive without a checkpoint."""

SKIP_TIME = 1.0
"""How long a redirect's body is waited for, in seconds, to keep the connection: another costs less."""

_find_charset = re.compile(r";\s*charset\s*=\s*\"?([^\s\";]+)", re.IGNORECASE).search

_NO_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
"""Codecs of Python's for text that are no charsets; punycode takes quadratic time."""


class StatusError(AsyncnetError):
    """The server has answered by an error: see `ClientResponse.raise_for_status`. `response` is the answer."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response
        super().__init__(f"{response.url}: {response.status} {printable(response.reason)}".rstrip())


class ClientResponse:
    """A response: its head, and its body as a stream or, once read, in `content`."""

    __slots__ = (
        "_connection",
        "_content",
        "_decoded",
        "_decoders",
        "_framing",
        "_inflated",
        "_pool",
        "_request",
        "_rest",
        "_turns",
        "headers",
        "history",
        "http_version",
        "method",
        "reason",
        "status",
        "url",
    )

    def __init__(
        self,
        head: ResponseHead,
        framing: Framing,
        rest: bytes,
        request: ClientRequest,
        connection: Connection,
        pool: Pool,
    ) -> None:
        self.status = head.status
        self.reason = head.reason
        """The reason phrase: the server's own words, as they came."""
        self.http_version = head.http_version
        self.headers = head.headers
        self.method = request.method
        self.url: URL = request.url
        """Where this came from, after redirects; without credentials and fragment in its text."""
        self.history: tuple[ClientResponse, ...] = ()
        """The redirects that led here, oldest first; their bodies are gone."""
        self._request = request
        self._framing = framing
        self._rest = rest  # what has arrived and is not unframed yet
        self._connection: Connection | None = connection
        self._pool = pool
        self._content: bytes | None = None
        self._decoders: list[Decoder] | None = None
        self._decoded: Iterator[bytes] | None = None
        self._inflated = 0
        self._turns = 0  # pieces decoded since the last checkpoint

    @property
    def is_success(self) -> bool:
        """Whether the status is one of 200 to 299."""
        return 200 <= self.status <= 299

    def raise_for_status(self) -> ClientResponse:
        """Raise StatusError for 400 and above; else return the response."""
        if self.status >= 400:
            raise StatusError(self)
        return self

    # The body as a stream

    @property
    def body(self) -> AsyncIterator[bytes]:
        """The body's pieces as they come, content codings taken off; it can be gone through once.

        Raises ResponseError where the body is malformed, ends early or inflates past `ClientLimits.inflated`,
        PhaseTimeout when `ClientTimeouts.body` passes without a piece, and `trio.BrokenResourceError`.
        """
        return _Pieces(self)

    @property
    def trailers(self) -> Headers:
        """The fields behind a chunked body (RFC 9110 section 6.5), once it has been read; never part of `headers`."""
        body = self._framing.body
        return Headers.checked(body.trailers if isinstance(body, ChunkedReader) else [])

    def decode_body(self) -> None:
        """Take the content codings off while the body is read, if they are all known."""
        value = self.headers.get("content-encoding")
        if value and not (self._framing.body.ended and not self._rest):
            self._decoders = decoders_for(value, self._request.limits.codings) or None

    async def receive_piece(self) -> bytes:
        """The next piece of the body; b"" at its end."""
        while True:
            if self._decoded is not None:
                if self._turns >= FAIR_TURNS:
                    self._turns = 0
                    await trio.lowlevel.checkpoint()
                    continue  # it may have been closed meanwhile
                piece = next(self._decoded, None)
                if piece:
                    self._turns += 1
                    self._inflated += len(piece)
                    if self._inflated > self._request.limits.inflated:
                        raise ResponseError(f"the body inflates to more than {self._request.limits.inflated} bytes")
                    return piece
                if piece is not None:
                    self._turns = FAIR_TURNS
                    continue
                self._decoded = None
            piece = await self._receive_framed()
            if not piece:
                for decoder in self._decoders or ():
                    decoder.finish()
                return b""
            if self._decoders is None:
                return piece
            self._decoded = decode(self._decoders, piece)

    async def _receive_framed(self) -> bytes:
        """The next piece with the framing taken off; b"" at the end, when the connection has been given back."""
        body = self._framing.body
        while self._connection is not None:
            data, self._rest = self._rest, b""
            if not data and not body.ended:
                data = await self._receive()
                if not data:
                    body.feed_eof()
            piece, rest = body.feed(data) if data else (b"", b"")
            if body.ended:
                await self._release(rest)
            if piece:
                return piece
        if not body.ended:
            raise trio.ClosedResourceError("the response was closed before its end")
        return b""

    async def _receive(self) -> bytes:
        assert self._connection is not None
        stream = self._connection.stream
        seconds = self._request.timeouts.body
        stream.deadline = trio.current_time() + seconds
        try:
            return await stream.receive_some()
        except ReceiveTimeout:
            raise PhaseTimeout(
                Phase.BODY, f"{self.url.origin}: nothing more of the body came for {seconds:g} seconds"
            ) from None

    async def _release(self, rest: bytes) -> None:
        """The response has ended: the connection goes back to the pool, or is closed if anything stands against it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        stream = connection.stream
        is_clean = not rest and not stream.buffered and not stream.pending  # an answer may come before all was sent
        if self._framing.is_reusable and is_clean and not self._pool.is_closed:
            self._pool.put(connection)
        else:
            await self._pool.discard(connection)

    # The body in memory

    async def read(self, *, limit: int | None = None) -> bytes:
        """The whole body, or what is left of it, in memory and in `content`: `limit` bytes at most, decoded.

        Without `limit` it is `ClientLimits.content`. Raises ResponseError for more, and what `body` raises.
        """
        if self._content is not None:
            return self._content
        if limit is None:
            limit = self._request.limits.content
        pieces: list[bytes] = []
        left = limit
        body = self._framing.body
        if isinstance(body, LengthReader) and body.remaining > limit and self._decoders is None:
            left = -1
        while left >= 0 and (piece := await self.receive_piece()):
            left -= len(piece)
            pieces.append(piece)
        if left < 0:
            raise ResponseError(f"{self.url} has a body of more than {limit} bytes: stream it, or give a larger limit")
        self._content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return self._content

    @property
    def content(self) -> bytes:
        """The body after `read`; `client.get` and its like have read it."""
        if self._content is None:
            raise RuntimeError("the body has not been read: await response.read() first")
        return self._content

    def text(self) -> str:
        """`content` as text, by the charset of Content-Type, else UTF-8; what is malformed is U+FFFD."""
        found = _find_charset(self.headers.get("content-type", ""))
        try:
            if found and codecs.lookup(found[1]).name not in _NO_CHARSETS:
                return self.content.decode(found[1], "replace")
        except (LookupError, UnicodeError):
            pass
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """`content` as JSON (RFC 8259). Raises ValueError if it is none."""
        try:
            return json.loads(self.content)
        except RecursionError:
            raise ValueError("the JSON is nested too deeply") from None

    # The end

    async def skip(self) -> None:
        """Give up what is left of the body; read a little of it first, if that saves the connection."""
        body = self._framing.body
        is_short = isinstance(body, LengthReader) and body.remaining <= self._request.limits.unread
        if is_short and self._framing.is_reusable:
            with trio.move_on_after(SKIP_TIME):
                try:
                    while await self._receive_framed():
                        pass
                except (AsyncnetError, trio.BrokenResourceError):
                    pass  # what is wrong with it does not matter any more
        await self.aclose()

    async def aclose(self) -> None:
        """Give up what is left of the body. Closing twice is fine; so it is after the whole has been read."""
        rest, self._rest = self._rest, b""
        self._decoded = None
        connection = self._connection
        if connection is None:
            return
        body = self._framing.body
        if body.ended:
            await self._release(rest)
        elif rest and self._ends_with(rest):
            await self._release(b"")
        else:
            self._connection = None
            await self._pool.discard(connection)

    def _ends_with(self, rest: bytes) -> bool:
        """Whether the body ends exactly with what has arrived already."""
        try:
            _, behind = self._framing.body.feed(rest)
        except ResponseError:
            return False
        return self._framing.body.ended and not behind

    def __repr__(self) -> str:
        return f"<ClientResponse {self.status} {self.url}>"


class _Pieces:
    """The body of a response, for `async for`."""

    __slots__ = ("_response",)

    def __init__(self, response: ClientResponse) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._response.receive_piece()
        if not piece:
            raise StopAsyncIteration
        return piece
