"""A FastAPI application: types, dependencies, synchronous functions in threads."""

import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Cookie, Depends, FastAPI, File, Form, Request, Response, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel


class Sum(BaseModel):
    sum: int
    started: bool


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    yield {"started": True}
    print("stopped", flush=True)


app = FastAPI(lifespan=lifespan)


def visits(visits: Annotated[int, Cookie()] = 0) -> int:
    return visits + 1


@app.get("/hello/{name}", response_class=PlainTextResponse)
async def hello(name: str, q: str, request: Request, response: Response, count: Annotated[int, Depends(visits)]) -> str:
    response.set_cookie("visits", str(count))
    return f"Hello {name}, {q} {request.url}"


@app.post("/add")
def add(numbers: list[int], request: Request) -> Sum:
    return Sum(sum=sum(numbers), started=request.state.started)


@app.post("/upload")
def upload(text: Annotated[str, Form()], file: Annotated[UploadFile, File()]) -> dict[str, Any]:
    digest = hashlib.sha256(file.file.read()).hexdigest()
    return {"text": text, "filename": file.filename, "digest": digest}


@app.post("/digest", response_class=PlainTextResponse)
async def digest(request: Request) -> str:
    total = hashlib.sha256()
    async for piece in request.stream():
        total.update(piece)
    return total.hexdigest()


@app.get("/stream")
def stream(lines: int) -> StreamingResponse:
    def pieces() -> Iterator[str]:
        try:
            for number in range(lines):
                yield f"line {number}\n"
        finally:
            print("the stream has ended", flush=True)

    return StreamingResponse(pieces(), media_type="text/plain")


@app.get("/file")
def file() -> FileResponse:
    return FileResponse(os.environ["LARGE"])


@app.get("/error")
async def error() -> None:
    raise ValueError("the application's")


@app.websocket("/chat")
async def chat(websocket: WebSocket) -> None:
    await websocket.accept(subprotocol=(websocket.scope["subprotocols"] or [None])[0])
    try:
        while True:
            await websocket.send_text((await websocket.receive_text()).upper())
    except WebSocketDisconnect as gone:
        print(f"the socket has closed: {gone.code}", flush=True)
