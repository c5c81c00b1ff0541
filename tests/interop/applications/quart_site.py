"""A Quart-Trio application."""

import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any

import trio
from quart import make_response, request, send_file, websocket
from quart_trio import QuartTrio

app = QuartTrio(__name__)
app.config["MAX_CONTENT_LENGTH"] = 64 << 20
started = False


@app.before_serving
async def start() -> None:
    global started
    started = True


@app.after_serving
async def stop() -> None:
    print("stopped", flush=True)


@app.get("/hello/<name>")
async def hello(name: str) -> Any:
    visits = int(request.cookies.get("visits", "0")) + 1
    response = await make_response(f"Hello {name}, {request.args['q']} {request.url}")
    response.set_cookie("visits", str(visits))
    return response


@app.post("/add")
async def add() -> Any:
    return {"sum": sum(await request.get_json()), "started": started}


@app.post("/upload")
async def upload() -> Any:
    file = (await request.files)["file"]
    digest = hashlib.sha256(file.read()).hexdigest()
    return {"text": (await request.form)["text"], "filename": file.filename, "digest": digest}


@app.post("/digest")
async def digest() -> str:
    total = hashlib.sha256()
    async for piece in request.body:
        total.update(piece)
    return total.hexdigest()


@app.get("/stream")
async def stream() -> Any:
    count = int(request.args["lines"])

    async def lines() -> AsyncIterator[str]:
        try:
            for number in range(count):
                yield f"line {number}\n"
                await trio.lowlevel.checkpoint()
        finally:
            print("the stream has ended", flush=True)

    return lines(), {"Content-Type": "text/plain"}


@app.get("/file")
async def file() -> Any:
    return await send_file(os.environ["LARGE"], conditional=True)


@app.get("/error")
async def error() -> Any:
    raise ValueError("the application's")


@app.websocket("/chat")
async def chat() -> None:
    try:
        await websocket.accept(subprotocol=next(iter(websocket.requested_subprotocols), None))
        while True:
            await websocket.send((await websocket.receive()).upper())
    finally:
        print("the socket has closed", flush=True)
