"""asyncnet: anonymous FTP over the folder that the command line names, where everybody may do everything."""

from __future__ import annotations

import trio

from asyncnet import serve
from asyncnet.ftp.server import FTPHandler
from asyncnet.transports.certificates import ServerTLS
from benchmarks.servers import announce, command_line


async def main() -> None:
    options = command_line("root")
    tls = None if options.certificate is None else ServerTLS(options.certificate)
    handler = FTPHandler(options.root, anonymous=True, anonymous_writes=True, tls=tls)
    async with trio.open_nursery() as nursery:
        service = await nursery.start(serve, handler, "tcp://127.0.0.1:0")
        announce(int(service.endpoints[0].rpartition(":")[2]))


if __name__ == "__main__":
    trio.run(main)
