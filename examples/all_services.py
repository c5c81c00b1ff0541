"""Every service at once, in one Trio program on loopback: what `make run` runs. Ctrl-C drains them.

python examples/all_services.py [FOLDER]      (what the web and FTP servers show; by default the one you are in)
"""

from __future__ import annotations

import os
import sys
import tempfile

import trio

from asyncnet import Address, ConfigurationError, Handler, Service, drain_on_signal, serve
from asyncnet.auth import Identity
from asyncnet.echo import ChargenHandler, DaytimeHandler, DiscardHandler, EchoHandler, TimeHandler
from asyncnet.ftp import FTPHandler
from asyncnet.http import Files, HTTPHandler, Mounts, Request, Response
from asyncnet.http.websocket import WebSocket, is_upgrade, websocket
from asyncnet.mailbox import MemoryMailboxes
from asyncnet.pop3 import POP3Handler
from asyncnet.relay import Relay, Routes
from asyncnet.smtp import Guarded, NoOpenRelay, SMTPHandler

ASYNCNET = os.path.join(os.path.relpath(os.path.dirname(sys.executable)), "asyncnet")
PAGE = """<!DOCTYPE html>
<html lang="en"><meta name="viewport" content="width=device-width"><title>Shout</title>
<input id="line" autofocus placeholder="type something"> <output id="reply"></output>
<script>
const socket = new WebSocket(location.href.replace(/^http/, "ws"))
socket.onmessage = message => reply.value = message.data
line.oninput = () => socket.send(line.value)
</script>
"""


async def shout(request: Request) -> Response:
    """A page, and the WebSocket that it opens."""

    async def answer(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message.upper())

    return websocket(request, answer) if is_upgrade(request) else Response.html(PAGE)


async def start(nursery: trio.Nursery, handler: Handler, port: int) -> Service:
    """Serve on `port`, or on a free one if somebody has it."""
    try:
        service: Service = await nursery.start(serve, handler, f"tcp://127.0.0.1:{port}")
    except ConfigurationError:
        service = await nursery.start(serve, handler, "tcp://127.0.0.1:0")
    return service


class Anna:
    """The only user: anna, whose password is anna."""

    async def verify(self, name: str, password: str, *, peer: Address) -> Identity | None:
        return Identity(name) if (name, password) == ("anna", "anna") else None

    async def scram_keys(self, name: str) -> None:
        """She has none."""


async def main(folder: str) -> None:
    boxes = MemoryMailboxes("anna")
    routes = Routes(local={"example.org": boxes})  # and nowhere else
    with tempfile.TemporaryDirectory() as spool:
        async with Relay(spool, routes, host="localhost") as relay:
            await serve_all(folder, relay, boxes)


async def serve_all(folder: str, relay: Relay, boxes: MemoryMailboxes) -> None:
    site = HTTPHandler(Mounts({"/": Files(folder), "/shout": shout}))
    smtp = SMTPHandler(Guarded(relay, NoOpenRelay(["example.org"])))
    send = f"echo Subject: Hello | {ASYNCNET} send --from me@example.net --to anna@example.org - {{}}"
    services: list[tuple[Handler, int, str]] = [
        (EchoHandler(), 7007, f"{ASYNCNET} connect {{}}"),
        (DiscardHandler(), 7009, f"date | {ASYNCNET} connect {{}}"),
        (DaytimeHandler(), 7013, f"{ASYNCNET} connect {{}} </dev/null"),
        (ChargenHandler(), 7019, f"{ASYNCNET} connect {{}} | head"),
        (FTPHandler(folder, anonymous=True), 7021, f"{ASYNCNET} ls {{0}}    (or curl {{0}}/)"),
        (smtp, 7025, send),
        (TimeHandler(), 7037, f"{ASYNCNET} connect {{}} </dev/null | od -t u4 --endian=big"),
        (POP3Handler(boxes, Anna()), 7110, f"{ASYNCNET} mail list {{}}"),
        (site, 7080, f"{ASYNCNET} fetch -o - {{}}    (or open it in a browser)"),
    ]
    async with trio.open_nursery() as nursery:
        started = []
        for handler, port, command in services:
            service = await start(nursery, handler, port)
            started.append(service)
            where = service.urls[0].replace("pop3://", "pop3://anna:anna@")
            print(f"{service.name:8} {where:32} {command.format(where)}", flush=True)
        page = f"{where}/shout/"  # the web server is the last one
        print(f"{'shout':8} {page:32} {ASYNCNET} fetch -o - {page}    (in a browser, type: a WebSocket answers)")
        print("Ctrl-C ends them.", flush=True)
        await drain_on_signal(*started)


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else ".")
