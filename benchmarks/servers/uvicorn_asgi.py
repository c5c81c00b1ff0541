"""uvicorn on uvloop: one of the ASGI applications, with the protocols' libraries that the command line names."""

from __future__ import annotations

from typing import Any

import uvicorn

from benchmarks.servers import announce, command_line, free_port
from benchmarks.servers.asgi_apps import APPS


def run(app: Any, *, http: str, ws: str = "auto", certificate: str | None = None) -> None:
    port = free_port()
    announce(port)
    uvicorn.run(
        app,
        port=port,
        loop="uvloop",
        http=http,
        ws=ws,
        access_log=False,
        ssl_certfile=certificate,
        ssl_keyfile=certificate,
    )


if __name__ == "__main__":
    options = command_line("app", "http", "ws")
    run(APPS[options.app], http=options.http, ws=options.ws, certificate=options.certificate)
