"""aiosmtpd: SMTP that throws away what it takes."""

from __future__ import annotations

import asyncio
import logging

from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP

from benchmarks.servers import announce


async def main() -> None:
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    handler = Sink()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(handler, hostname="mx.example"), "127.0.0.1", 0)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
