"""WebSockets in a server: what an application returns for a request that opens one, and how a handler is attended.

async def app(request: Request) -> Response:
    return websocket(request, chat, subprotocols=["chat.v2"])

async def chat(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import TypeAlias

from asyncnet.connection import idle
from asyncnet.http.messages import HeaderItems, Request, Response, Upgrade
from asyncnet.http.websocket.connection import WebSocket, WebSocketClosed
from asyncnet.http.websocket.deflate import DeflateSettings
from asyncnet.http.websocket.handshake import DEFAULT_DEFLATE, SAME_ORIGIN, OpeningError, read_opening
from asyncnet.http.websocket.limits import WebSocketLimits, WebSocketTimeouts
from asyncnet.stream import Stream

WebSocketHandler: TypeAlias = Callable[[WebSocket], Awaitable[object]]

logger = logging.getLogger(__name__)

_LIMITS = WebSocketLimits()
_TIMEOUTS = WebSocketTimeouts()


def websocket(
    request: Request,
    handler: WebSocketHandler,
    *,
    subprotocols: Iterable[str] = (),
    origins: Collection[str] = SAME_ORIGIN,
    compression: DeflateSettings | None = DEFAULT_DEFLATE,
    headers: HeaderItems = (),
    limits: WebSocketLimits = _LIMITS,
    timeouts: WebSocketTimeouts = _TIMEOUTS,
) -> Response:
    """The answer to a request that is to open a WebSocket for `handler` (RFC 6455 section 4.2).

    `handler` is called with the `WebSocket` in the connection's own task. When it returns, the WebSocket closes with
    1000; what it raises is logged by the service, and closes it with 1011. When the service drains, the receive that
    waits closes it with 1001; handlers that only send have until the drain's deadline.

    `subprotocols` are what the handler speaks, best first; the first that the client offers is chosen, and without
    one there is none: `ws.subprotocol` tells. `origins` are the sites of which pages may open it: by default those of
    the host that is asked, so that a page elsewhere cannot use its visitors' cookies here. Behind a proxy that
    changes Host, name them: `origins=["https://example.com"]`. `compression` None switches permessage-deflate off.
    `headers` go into the answer.

    Whatever is wrong with the request becomes the answer: 400, 403, 405, or 426 with what would be right.
    """
    try:
        opening = read_opening(request, origins=origins)
    except OpeningError as error:
        logger.debug("%s: no WebSocket for %s: %s", request.peer, request.target, error)
        return Response.problem(error.status, error.headers)
    fields, agreed = opening.accept(opening.choose(subprotocols), deflate=compression, headers=headers)

    async def serve(stream: Stream) -> None:
        ws = WebSocket(stream, agreed, request=request, limits=limits, timeouts=timeouts)
        async with attended(ws):
            await handler(ws)

    return Upgrade("websocket", serve, fields)


@asynccontextmanager
async def attended(ws: WebSocket) -> AsyncIterator[WebSocket]:
    """A server's WebSocket while its handler runs: it closes at the end, and with 1001 when the service drains.

    That the WebSocket has closed is no error here: `WebSocketClosed` that comes through ends it quietly.
    """
    try:
        async with idle(), ws:
            yield ws
    except WebSocketClosed as closed:
        logger.debug("%r: %s", ws, closed)
    except ExceptionGroup as group:
        _, others = group.split(WebSocketClosed)
        if others is not None:
            raise others from None
