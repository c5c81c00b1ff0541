"""asyncnet: a handler that sends one file to whoever connects."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from asyncnet import Stream, serve
from benchmarks.servers import announce


async def main(path: Path) -> None:
    async def send(connection: trio.abc.Stream) -> None:
        stream = Stream.of(connection)
        with path.open("rb") as file:
            await stream.send_file(file)

    async with trio.open_nursery() as nursery:
        service = await nursery.start(serve, send, "tcp://127.0.0.1:0")
        announce(int(service.endpoints[0].rpartition(":")[2]))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
