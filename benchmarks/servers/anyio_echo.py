"""AnyIO: a TCP listener with an echo function, on the backend that the command line names: trio or asyncio."""

from __future__ import annotations

import sys

import anyio
from anyio.abc import SocketAttribute, SocketStream

from benchmarks.servers import announce


async def echo(stream: SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send(data)


async def main() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    announce(listener.extra(SocketAttribute.local_port))
    await listener.serve(echo)


if __name__ == "__main__":
    anyio.run(main, backend=sys.argv[1])
