"""asyncnet: the echo handler as a user serves it."""

from __future__ import annotations

from functools import partial

import trio

from asyncnet import serve
from asyncnet.echo import EchoHandler
from benchmarks.servers import announce, tls_from_command_line


async def main() -> None:
    tls = tls_from_command_line()
    async with trio.open_nursery() as nursery:
        service = await nursery.start(partial(serve, EchoHandler(), "tcp://127.0.0.1:0", tls=tls))
        announce(int(service.endpoints[0].rpartition(":")[2]))


if __name__ == "__main__":
    trio.run(main)
