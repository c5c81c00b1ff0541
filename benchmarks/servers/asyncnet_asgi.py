"""asyncnet: one of the ASGI applications, on the default engine or on h11."""

from __future__ import annotations

from functools import partial

import trio

from asyncnet import serve
from asyncnet.http import ASGI, HTTPHandler
from asyncnet.http.engine import H11Engine
from benchmarks.servers import announce, command_line, tls_context
from benchmarks.servers.asgi_apps import APPS


async def main() -> None:
    options = command_line("app", "engine")
    app = ASGI(APPS[options.app])
    handler = HTTPHandler(app, engine=H11Engine()) if options.engine == "h11" else HTTPHandler(app)
    tls = tls_context(options.certificate)
    async with trio.open_nursery() as nursery:
        service = await nursery.start(partial(serve, handler, "tcp://127.0.0.1:0", tls=tls))
        announce(int(service.endpoints[0].rpartition(":")[2]))


if __name__ == "__main__":
    trio.run(main)
