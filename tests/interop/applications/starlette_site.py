"""A Starlette application with what such applications do."""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


async def hello(request: Request) -> Response:
    visits = int(request.cookies.get("visits", "0")) + 1
    response = PlainTextResponse(f"Hello {request.path_params['name']}, {request.query_params['q']} {request.url}")
    response.set_cookie("visits", str(visits))
    return response


async def add(request: Request) -> Response:
    numbers = await request.json()
    return JSONResponse({"sum": sum(numbers), "started": request.state.started})


async def upload(request: Request) -> Response:
    async with request.form() as form:
        file: Any = form["file"]
        digest = hashlib.sha256(await file.read()).hexdigest()
        return JSONResponse({"text": form["text"], "filename": file.filename, "digest": digest})


async def digest(request: Request) -> Response:
    total = hashlib.sha256()
    async for piece in request.stream():
        total.update(piece)
    return PlainTextResponse(total.hexdigest())


async def stream(request: Request) -> Response:
    async def lines() -> AsyncIterator[str]:
        try:
            for number in range(int(request.query_params["lines"])):
                yield f"line {number}\n"
                await trio.lowlevel.checkpoint()
        finally:
            print("the stream has ended", flush=True)

    return StreamingResponse(lines(), media_type="text/plain")


async def file(request: Request) -> Response:
    return FileResponse(os.environ["LARGE"], filename="large.bin")


async def error(request: Request) -> Response:
    raise ValueError("the application's")


async def chat(websocket: WebSocket) -> None:
    await websocket.accept(subprotocol=(websocket.scope["subprotocols"] or [None])[0])
    try:
        while True:
            await websocket.send_text((await websocket.receive_text()).upper())
    except WebSocketDisconnect as gone:
        print(f"the socket has closed: {gone.code}", flush=True)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    yield {"started": True}
    print("stopped", flush=True)


app = Starlette(
    routes=[
        Route("/hello/{name}", hello),
        Route("/add", add, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/digest", digest, methods=["POST"]),
        Route("/stream", stream),
        Route("/file", file),
        Route("/error", error),
        WebSocketRoute("/chat", chat),
    ],
    middleware=[Middleware(GZipMiddleware)],
    lifespan=lifespan,
)
