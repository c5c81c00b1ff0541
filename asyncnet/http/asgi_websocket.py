"""WebSockets of ASGI applications: `receive` and `send` for one of them.

The application decides after it has seen the request: the handshake is answered when it says `websocket.accept`, and
until then it may refuse, by `websocket.close` (403) or a response of its own (`websocket.http.response`). Pages of
every site may open one: which may not, is for the framework to say, as under every ASGI server.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from asyncnet.errors import LocalProtocolError
from asyncnet.http.application import request_of, send_response
from asyncnet.http.exchange import ClientGone, Exchange
from asyncnet.http.lifespan import ASGIApp, Message, Scope
from asyncnet.http.messages import Response
from asyncnet.http.websocket import (
    ANY_ORIGIN,
    Opening,
    OpeningError,
    WebSocket,
    WebSocketClosed,
    attended,
    read_opening,
)


async def respond_to_websocket(app: ASGIApp, scope: Scope, exchange: Exchange) -> None:
    """Run `app` for a request that asks for a WebSocket; `scope` is that of an HTTP request."""
    try:
        opening = read_opening(request_of(exchange), origins=ANY_ORIGIN)
    except OpeningError as error:
        await send_response(exchange, Response.problem(error.status, error.headers))
        return
    scope["type"] = "websocket"
    scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
    scope["subprotocols"] = list(opening.subprotocols)
    extensions = {name: value for name, value in scope["extensions"].items() if name == "tls"}
    scope["extensions"] = {**extensions, "websocket.http.response": {}}
    del scope["method"]
    async with AsyncExitStack() as stack:
        cycle = WebSocketCycle(exchange, opening, stack)
        await app(scope, cycle.receive, cycle.send)
        if not exchange.ended:
            raise LocalProtocolError("the application returned before it accepted or refused the WebSocket")


class WebSocketCycle:
    """`receive` and `send` for one WebSocket. What `stack` is given, it closes when the application is done."""

    def __init__(self, exchange: Exchange, opening: Opening, stack: AsyncExitStack) -> None:
        self._exchange = exchange
        self._opening = opening
        self._stack = stack
        self._connected = False
        self._websocket: WebSocket | None = None
        self._refusal: Message | None = None  # the start of a response that refuses

    async def receive(self) -> Message:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        if self._websocket is None:
            if not self._exchange.ended:
                await self._exchange.wait_gone()
            if self._websocket is None:  # else another task has accepted it meanwhile
                return {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        try:
            message = await self._websocket.receive()
        except WebSocketClosed as closed:
            return {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason}
        if isinstance(message, str):
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": message}

    async def send(self, message: Message) -> None:
        try:
            if self._websocket is None:
                await self._answer(message)
            elif message["type"] == "websocket.send":
                data = message.get("bytes")
                await self._websocket.send(message["text"] if data is None else data)
            elif message["type"] == "websocket.close":
                await self._websocket.close(message.get("code", 1000), message.get("reason") or "")
            else:
                raise LocalProtocolError(f"no message of an open WebSocket: {message['type']!r}")
        except (WebSocketClosed, trio.BrokenResourceError) as error:
            self._exchange.fail(error)
            raise ClientGone(str(error)) from error

    async def _answer(self, message: Message) -> None:
        """What the application says to the handshake."""
        exchange = self._exchange
        match message["type"]:
            case "websocket.accept" if self._refusal is None:
                headers, agreed = self._opening.accept(message.get("subprotocol"), headers=message.get("headers", ()))
                headers.add("connection", "upgrade")
                headers.add("upgrade", "websocket")
                stream = exchange.switch(headers.raw)
                websocket = WebSocket(stream, agreed, request=request_of(exchange))
                self._websocket = await self._stack.enter_async_context(attended(websocket))
                await stream.flush()
            case "websocket.close" if self._refusal is None:
                await send_response(exchange, Response.problem(403))
            case "websocket.http.response.start" if self._refusal is None:
                self._refusal = message
            case "websocket.http.response.body" if self._refusal is not None:
                data, more = message.get("body", b""), message.get("more_body", False)
                if exchange.status == 0:
                    length = None if more else len(data)
                    exchange.begin(self._refusal["status"], self._refusal.get("headers", ()), length=length)
                if more:
                    await exchange.send(data)
                else:
                    await exchange.end(data)
            case kind:
                raise LocalProtocolError(f"no answer to a WebSocket's handshake: {kind!r}")
