"""asyncnet's own applications, `async def app(request: Request) -> Response`, called for an exchange."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from asyncnet.errors import FileShrankError
from asyncnet.http.exchange import Exchange
from asyncnet.http.messages import FileBody, Headers, Request, Response, Upgrade

App: TypeAlias = Callable[[Request], Awaitable[Response]]

logger = logging.getLogger(__name__)


class NativeApplication:
    """`App` as the server calls it."""

    __slots__ = ("app",)

    def __init__(self, app: App) -> None:
        self.app = app

    async def respond(self, exchange: Exchange) -> None:
        request = request_of(exchange)
        response = await self.app(request)
        if not isinstance(response, Response):
            raise TypeError(f"the application returned {response!r} instead of a Response")
        try:
            body = response.body
            if isinstance(response, Upgrade):
                stream = exchange.switch(response.headers.raw)
                await stream.flush()
                await response.handler(stream)
            elif isinstance(body, bytes):
                if not exchange.respond_now(response.status, response.headers.raw, body):
                    await exchange.stream.flush()
            elif isinstance(body, FileBody):
                exchange.begin(response.status, response.headers.raw, length=body.count)
                await _send_file(exchange, body)
                await exchange.end()
            else:
                exchange.begin(response.status, response.headers.raw)
                if exchange.has_body:
                    await _send_pieces(exchange, aiter(body))
                await exchange.end(trailers=response.trailers.raw if response.trailers is not None else ())
        finally:
            response.close()
            if isinstance(response.body, AsyncGenerator):
                await response.body.aclose()


def request_of(exchange: Exchange) -> Request:
    """The request of an exchange as an application reads it."""
    stream = exchange.stream
    request = Request(
        exchange.method,
        exchange.target.decode("ascii"),
        Headers.checked(exchange.headers),
        http_version=exchange.http_version,
        peer=stream.peer,
        tls=stream.tls,
        body=exchange.body,
        exchange=exchange,
    )
    if exchange.mounted_at:
        request.mounted_at = exchange.mounted_at.decode("ascii")
        request.raw_path = exchange.raw_path.decode("ascii")
    return request


async def _send_pieces(exchange: Exchange, pieces: AsyncIterator[bytes | FileBody]) -> None:
    async for piece in pieces:
        if isinstance(piece, FileBody):
            await _send_file(exchange, piece)
        else:
            await exchange.send(piece)


async def _send_file(exchange: Exchange, file: FileBody) -> None:
    try:
        await exchange.send_file(file)
    except FileShrankError as error:
        logger.warning(
            "%s: the file behind %s became shorter while it was sent",
            exchange.stream.peer,
            exchange.target.decode("ascii"),
        )
        exchange.fail(error)
        raise
