"""asyncnet: a relay whose queue is in the folder that the command line names, and whose mail goes to one host."""

from __future__ import annotations

import trio

from asyncnet import serve
from asyncnet.relay import Relay, Routes
from asyncnet.smtp import SMTPHandler
from benchmarks.servers import announce, command_line


async def main() -> None:
    options = command_line("spool", "host")
    relay = Relay(options.spool, Routes(default=options.host), host="bench.example")
    async with relay, trio.open_nursery() as nursery:
        service = await nursery.start(serve, SMTPHandler(relay), "tcp://127.0.0.1:0")
        announce(int(service.endpoints[0].rpartition(":")[2]))


if __name__ == "__main__":
    trio.run(main)
