"""asyncnet: the folder that the command line names."""

from __future__ import annotations

import trio

from asyncnet import serve
from asyncnet.http import Files, HTTPHandler
from benchmarks.servers import announce, command_line


async def main() -> None:
    async with trio.open_nursery() as nursery:
        service = await nursery.start(serve, HTTPHandler(Files(command_line("root").root)), "tcp://127.0.0.1:0")
        announce(int(service.endpoints[0].rpartition(":")[2]))


if __name__ == "__main__":
    trio.run(main)
