"""asyncnet: SMTP that throws away what it takes."""

from __future__ import annotations

import trio

from asyncnet import serve
from asyncnet.smtp.discard import Discard
from asyncnet.smtp.server import SMTPHandler
from benchmarks.servers import announce


async def main() -> None:
    async with trio.open_nursery() as nursery:
        service = await nursery.start(serve, SMTPHandler(Discard()), "tcp://127.0.0.1:0")
        announce(int(service.endpoints[0].rpartition(":")[2]))


if __name__ == "__main__":
    trio.run(main)
