"""Granian: one of the ASGI applications, with the one worker that is its default."""

from __future__ import annotations

from granian import Granian
from granian.constants import Interfaces

from benchmarks.servers import announce, command_line, free_port

if __name__ == "__main__":
    port = free_port()
    app = f"benchmarks.servers.asgi_apps:{command_line('app').app}"
    announce(port)
    Granian(app, port=port, interface=Interfaces.ASGI).serve()
