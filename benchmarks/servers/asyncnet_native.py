"""asyncnet: a handler of its own, of those that the command line can name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from asyncnet import serve
from asyncnet.http import HTTPHandler, Request, Response
from benchmarks.servers import announce, command_line


async def hello(request: Request) -> Response:
    return Response.text("Hello, world!")


async def count(request: Request) -> Response:
    """Answers with how many bytes the request's body had."""
    total = 0
    async for data in request.body:
        total += len(data)
    return Response.text(str(total))


APPS: dict[str, Callable[[Request], Awaitable[Response]]] = {"hello": hello, "count": count}


async def main() -> None:
    async with trio.open_nursery() as nursery:
        service = await nursery.start(serve, HTTPHandler(APPS[command_line("app").app]), "tcp://127.0.0.1:0")
        announce(int(service.endpoints[0].rpartition(":")[2]))


if __name__ == "__main__":
    trio.run(main)
