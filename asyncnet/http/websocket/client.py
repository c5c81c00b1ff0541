"""The client's side of WebSocket: `connect_websocket`, and `open_websocket` over a stream that is there already.

    async with connect_websocket("wss://example.com/chat") as ws:
        await ws.send("hello")
        async for message in ws:
            print(message)

The answer to the opening handshake is read strictly and under a limit: a server is no more to be trusted than a
client.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import trio

from asyncnet.endpoints import connect
from asyncnet.errors import EndOfStream, IncompleteRead, LimitExceeded, LocalProtocolError, RemoteProtocolError
from asyncnet.http import url as url_grammar
from asyncnet.http.client_limits import ClientLimits
from asyncnet.http.client_wire import ResponseReader
from asyncnet.http.limits import HTTPLimits
from asyncnet.http.messages import HeaderItems, Headers
from asyncnet.http.websocket.connection import WebSocket
from asyncnet.http.websocket.deflate import DeflateSettings
from asyncnet.http.websocket.handshake import DEFAULT_DEFLATE, Agreement, HandshakeRefused, Offer
from asyncnet.http.websocket.limits import WebSocketLimits, WebSocketTimeouts
from asyncnet.http.wire import ChunkedDecoder
from asyncnet.stream import Stream
from asyncnet.transports.authority import format_authority

if TYPE_CHECKING:
    import ssl

HEAD_LIMIT = 32 * 1024
"""How large the head of a server's answer may be, in bytes."""

BODY_LIMIT = 64 * 1024
"""How much of the body of a refusal is kept, in bytes."""

INTERIM_LIMIT = 8
"""How many interim answers (1xx) may come before the answer."""

_LIMITS = WebSocketLimits()
_TIMEOUTS = WebSocketTimeouts()


@asynccontextmanager
async def connect_websocket(
    url: str,
    *,
    subprotocols: Sequence[str] = (),
    headers: HeaderItems = (),
    origin: str | None = None,
    compression: DeflateSettings | None = DEFAULT_DEFLATE,
    limits: WebSocketLimits = _LIMITS,
    timeouts: WebSocketTimeouts = _TIMEOUTS,
    tls: ssl.SSLContext | None = None,
    proxy: str | None = None,
    endpoint: str | None = None,
    timeout: float = 30.0,
) -> AsyncIterator[WebSocket]:
    """Connect to a "ws://…" or "wss://…" URL (RFC 6455 section 3), and close at the end.

    `subprotocols` are offered, best first; `ws.subprotocol` is what the server chose. `headers` go into the request,
    for cookies and passwords. `compression` None offers no permessage-deflate. `endpoint` connects elsewhere than the
    URL says, such as "unix:/run/app.sock". `tls` and `proxy` are as for `asyncnet.connect`. `timeout` in seconds is
    for everything up to the server's answer.

    Raises `LocalProtocolError` for a wrong URL, header or subprotocol, `HandshakeRefused` for an answer other than
    101, `RemoteProtocolError` for one that breaks the rules, `TimeoutError`, and what `asyncnet.connect` raises.
    """
    where = parse_url(url)
    offer = Offer(
        os.urandom(16),
        host=where.host_field,
        subprotocols=subprotocols,
        deflate=compression,
        origin=origin,
        headers=headers,
    )
    deadline = trio.current_time() + timeout
    stream = await connect(endpoint or where.endpoint, tls=tls, proxy=proxy, timeout=timeout)
    try:
        agreed = await _shake_hands(stream, where.target, offer, deadline)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    async with WebSocket(stream, agreed, is_client=True, limits=limits, timeouts=timeouts) as ws:
        yield ws


async def open_websocket(
    stream: trio.abc.Stream,
    url: str,
    *,
    subprotocols: Sequence[str] = (),
    headers: HeaderItems = (),
    origin: str | None = None,
    compression: DeflateSettings | None = DEFAULT_DEFLATE,
    limits: WebSocketLimits = _LIMITS,
    timeouts: WebSocketTimeouts = _TIMEOUTS,
    timeout: float = 30.0,
) -> WebSocket:
    """The same over `stream`, which is connected already, in whatever way: it becomes the WebSocket's.

    Where it raises, the stream is still the caller's, to close. The WebSocket is a context manager.
    """
    where = parse_url(url)
    offer = Offer(
        os.urandom(16),
        host=where.host_field,
        subprotocols=subprotocols,
        deflate=compression,
        origin=origin,
        headers=headers,
    )
    stream = Stream.of(stream)
    agreed = await _shake_hands(stream, where.target, offer, trio.current_time() + timeout)
    return WebSocket(stream, agreed, is_client=True, limits=limits, timeouts=timeouts)


class _Place(NamedTuple):
    endpoint: str
    host_field: str
    target: str


def parse_url(text: str) -> _Place:
    """Where a WebSocket URL leads. Raises `LocalProtocolError` for what is none (RFC 6455 section 3)."""
    url = url_grammar.parse_url(text)
    if url.scheme not in ("ws", "wss"):
        raise LocalProtocolError(f"a WebSocket URL begins with ws:// or wss://, unlike {url}")
    if url.user is not None:
        raise LocalProtocolError("a name and a password go into headers={'authorization': …}, not into the URL")
    if "#" in text:
        raise LocalProtocolError(f"a WebSocket URL has no fragment: {url}")
    if not text.isascii():
        raise LocalProtocolError(f"percent-encode what is not ASCII: {url}")
    transport = "tcp" if url.scheme == "ws" else "tls"
    return _Place(f"{transport}://{format_authority(url.host, url.port)}", url.authority, url.target)


# The handshake


async def _shake_hands(stream: Stream, target: str, offer: Offer, deadline: float) -> Agreement:
    """Send the request, read the answer. Raises as `connect_websocket` does."""
    lines = [f"GET {target} HTTP/1.1".encode("ascii")]
    lines += [name + b": " + value for name, value in offer.headers.raw]
    with trio.CancelScope(deadline=deadline) as scope:
        await stream.send_all(b"\r\n".join((*lines, b"", b"")))
        status, headers = await _receive_head(stream)
        if status == 101:
            return offer.read_answer(headers)
        body = await _receive_body(stream, headers)
        raise HandshakeRefused(status, headers, body)
    assert scope.cancelled_caught
    raise TimeoutError("the server has not answered the opening handshake in time")


async def _receive_head(stream: Stream) -> tuple[int, Headers]:
    """The status and the fields of the answer, interim ones passed over (RFC 9110 section 15.2)."""
    for _ in range(INTERIM_LIMIT):
        try:
            status, headers = parse_head(await stream.receive_until(b"\r\n\r\n", limit=HEAD_LIMIT))
        except (EndOfStream, IncompleteRead):
            raise RemoteProtocolError("the server ended the connection instead of answering") from None
        except LimitExceeded:
            raise RemoteProtocolError(f"a head of more than {HEAD_LIMIT} bytes") from None
        if status >= 200 or status == 101:
            return status, headers
    raise RemoteProtocolError(f"more than {INTERIM_LIMIT} interim answers")


def parse_head(head: bytes) -> tuple[int, Headers]:
    """The status and the fields of a response's head, blank line included: as RFC 9112 wants it, or not at all."""
    result = ResponseReader(ClientLimits(head=HEAD_LIMIT)).feed(head)
    if result is None or not result[0].is_plain or result[0].http_version != "1.1":
        raise RemoteProtocolError(f"not an HTTP/1.1 answer, or a malformed header line: {head[:80]!r}")
    return result[0].status, result[0].headers


async def _receive_body(stream: Stream, headers: Headers) -> bytes:
    """The beginning of a refusal's body. What is wrong with it does not matter any more."""
    length = headers.get("content-length", "")
    left = min(int(length), BODY_LIMIT) if re.fullmatch("[0-9]{1,15}", length) else BODY_LIMIT
    chunks = ChunkedDecoder(HTTPLimits()) if headers.get("transfer-encoding", "").lower() == "chunked" else None
    body = b""
    try:
        while len(body) < left and not (chunks is not None and chunks.ended):
            data = await stream.receive_some()
            if not data:
                break
            body += data if chunks is None else chunks.feed(data)[0]
    except (RemoteProtocolError, trio.BrokenResourceError):
        pass
    return body[:left]
