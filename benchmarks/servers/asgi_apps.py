"""The ASGI applications that every ASGI server of the benchmarks runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

Scope: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]


async def answer(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await answer(send, b"Hello, world!")


async def count(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with how many bytes the request's body had."""
    assert scope["type"] == "http"
    total, more = 0, True
    while more:
        event = await receive()
        total += len(event.get("body", b""))
        more = event.get("more_body", False)
    await answer(send, b"%d" % total)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends every WebSocket message back."""
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": event["bytes"]})


APPS: dict[str, Any] = {"hello": hello, "count": count, "echo": echo}
"""By the name that a server's command line gives. Every server has a type of its own for them."""
