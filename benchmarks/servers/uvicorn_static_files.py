"""Starlette: `StaticFiles` over the folder that the command line names, on uvicorn with httptools and uvloop.

It is the application itself here. In a Starlette application it would also pay for the routing.
"""

from __future__ import annotations

from starlette.staticfiles import StaticFiles

from benchmarks.servers import command_line
from benchmarks.servers.uvicorn_asgi import run

if __name__ == "__main__":
    run(StaticFiles(directory=command_line("root").root), http="httptools")
