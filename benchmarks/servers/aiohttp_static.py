"""aiohttp: static files from the folder that the command line names."""

from __future__ import annotations

from aiohttp import web

from benchmarks.servers import command_line
from benchmarks.servers.aiohttp_hello import run

if __name__ == "__main__":
    app = web.Application()
    app.router.add_static("/", command_line("root").root)
    run(app)
