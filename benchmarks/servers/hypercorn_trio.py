"""Hypercorn on trio: one of the ASGI applications."""

from __future__ import annotations

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from benchmarks.servers import announce, command_line, free_port
from benchmarks.servers.asgi_apps import APPS

if __name__ == "__main__":
    options = command_line("app")
    port = free_port()
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.certfile = config.keyfile = options.certificate
    announce(port)
    trio.run(serve, APPS[options.app], config)
