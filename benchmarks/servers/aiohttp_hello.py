"""aiohttp: a handler of its own."""

from __future__ import annotations

from aiohttp import web

from benchmarks.servers import announce, command_line, free_port, tls_context


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="Hello, world!")


def run(app: web.Application, certificate: str | None = None) -> None:
    port = free_port()
    announce(port)
    web.run_app(app, host="127.0.0.1", port=port, ssl_context=tls_context(certificate), access_log=None, print=None)


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/", hello)
    run(app, command_line().certificate)
