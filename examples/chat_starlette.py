"""A chat room: a Starlette application with a page and a WebSocket, served under ASGI.

python examples/chat_starlette.py [ENDPOINT]      (or: asyncnet serve http ENDPOINT --asgi examples.chat_starlette:app)
"""

from __future__ import annotations

import sys

import trio

from asyncnet import Service, run
from asyncnet.http import ASGI, HTTPHandler

try:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect
except ImportError:
    sys.exit("this example needs Starlette: pip install starlette")

PAGE = """<!DOCTYPE html>
<html lang="en"><meta name="viewport" content="width=device-width"><title>Chat</title>
<style>body, input, button { font: 16px/1.5 sans-serif } li { overflow-wrap: anywhere }</style>
<h1>Chat</h1>
<form><input id="line" autocomplete="off" autofocus placeholder="your words"> <button>Say</button></form>
<ul id="said"></ul>
<script>
const socket = new WebSocket(location.href.replace(/^http/, "ws").replace(/[?#].*/, "") + "room" + location.search)
const show = text => { const item = document.createElement("li"); item.textContent = text; said.prepend(item) }
socket.onmessage = message => show(message.data)
socket.onclose = () => show("(the chat has ended)")
onpagehide = () => socket.close()  // a browser may keep it open with the page, for "back"
document.querySelector("form").onsubmit = () => { socket.send(line.value); line.value = ""; return false }
</script></html>
"""
people: set[trio.MemorySendChannel[str]] = set()


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


async def room(websocket: WebSocket) -> None:
    name = websocket.query_params.get("name", f"guest {len(people) + 1}")[:40]
    me, inbox = trio.open_memory_channel[str](100)
    await websocket.accept()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, websocket, inbox)
        people.add(me)
        try:
            say(f"{name} has come")
            async for text in websocket.iter_text():
                say(f"{name}: {text[:2000]}")
        finally:
            people.discard(me)
            say(f"{name} has gone")
            nursery.cancel_scope.cancel()


async def write(websocket: WebSocket, inbox: trio.MemoryReceiveChannel[str]) -> None:
    try:
        async for line in inbox:
            await websocket.send_text(line)
        await websocket.close(1008, "you read too slowly")
    except WebSocketDisconnect:
        pass  # the one who reads tells the others


def say(line: str) -> None:
    for person in list(people):
        try:
            person.send_nowait(line)
        except trio.WouldBlock:  # 100 lines behind: nobody waits for them
            people.discard(person)
            person.close()


app = Starlette(routes=[Route("/", page), WebSocketRoute("/room", room)])


def tell(service: Service) -> None:
    where = service.urls[0]
    print(f"open {where}/?name=Anna in one window and {where}/?name=Ben in another; Ctrl-C ends it", flush=True)


if __name__ == "__main__":
    run(HTTPHandler(ASGI(app)), *(sys.argv[1:] or ["tcp://127.0.0.1:8082"]), ready=tell)
