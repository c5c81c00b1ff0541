"""asyncnet: a WebSocket handler of its own, which sends every message back."""

from __future__ import annotations

import trio

from asyncnet import serve
from asyncnet.http import HTTPHandler, Request, Response
from asyncnet.http.websocket import WebSocket, websocket
from benchmarks.servers import announce


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def app(request: Request) -> Response:
    return websocket(request, echo)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        service = await nursery.start(serve, HTTPHandler(app), "tcp://127.0.0.1:0")
        announce(int(service.endpoints[0].rpartition(":")[2]))


if __name__ == "__main__":
    trio.run(main)
