"""A client for handler tests: sends bytes, reads what comes back; and a few applications to talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from asyncnet.http.messages import Headers, Request, Response
from asyncnet.http.server import HTTPHandler
from asyncnet.stream import Stream
from asyncnet.transports.memory import memory_transports

App = Callable[[Request], Awaitable[Response]]
GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"


async def hello(request: Request) -> Response:
    return Response.text("hello")


async def echo(request: Request) -> Response:
    return Response.text((await request.read()).decode())


async def say_target(request: Request) -> Response:
    return Response.text(request.target)


class Client:
    """The other end: sends bytes, reads responses one after the other."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def head(self) -> tuple[int, Headers]:
        raw = await self.stream.receive_until(b"\r\n\r\n", limit=65536)
        line, *fields = raw[:-4].split(b"\r\n")
        version, status, _ = line.split(b" ", 2)
        assert version == b"HTTP/1.1"
        pairs = [field.split(b": ", 1) for field in fields]
        return int(status), Headers([(name, value) for name, value in pairs])

    async def response(self, *, to_head: bool = False) -> tuple[int, Headers, bytes]:
        status, headers = await self.head()
        if to_head or status in (204, 304) or status < 200:
            return status, headers, b""
        if "content-length" in headers:
            return status, headers, await self.stream.receive_exactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.stream.receive_until(b"\r\n", limit=100), 16):
                body += await self.stream.receive_exactly(size)
                assert await self.stream.receive_exactly(2) == b"\r\n"
            assert await self.stream.receive_exactly(2) == b"\r\n"
            return status, headers, body
        return status, headers, await self.rest()

    async def rest(self) -> bytes:
        """Everything up to the end."""
        data = b""
        while piece := await self.stream.receive_some():
            data += piece
        return data

    async def ask(self, data: bytes, **options: Any) -> tuple[int, Headers, bytes]:
        await self.send(data)
        return await self.response(**options)


@asynccontextmanager
async def served(app: App, **options: Any) -> AsyncIterator[Client]:
    """A client of a handler for `app`. Leaving it, the client closes, and the handler has to return."""
    ours, theirs = memory_transports()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(HTTPHandler(app, **options), theirs)
        async with Stream.of(ours) as stream:
            yield Client(stream)
