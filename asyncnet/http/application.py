"""What an application is, and asyncnet's own kind: `async def app(request: Request) -> Response`."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Protocol, Self, TypeAlias, cast

from asyncnet.errors import FileShrankError
from asyncnet.http.exchange import Exchange
from asyncnet.http.messages import FileBody, Headers, Request, Response, Upgrade

App: TypeAlias = Callable[[Request], Awaitable[Response]]

logger = logging.getLogger(__name__)


class Application(Protocol):
    """What `HTTPHandler` serves in the end: `ASGI`, `Mounts`, `BasicAuth` and the like are such."""

    async def respond(self, exchange: Exchange) -> None:
        """Answer to the end. What it raises becomes a 500, or breaks the connection if a part has left."""


AnyApplication: TypeAlias = App | Application


def as_application(app: AnyApplication) -> Application:
    """`app` itself if it answers exchanges; else it is one of our own kind."""
    return cast("Application", app) if hasattr(app, "respond") else NativeApplication(app)


class Enclosing:
    """What holds applications: an async context manager that enters and leaves those that are such themselves.

    The service does it for a handler, before it listens and after the drain.
    """

    _entered: AsyncExitStack | None = None

    def __init__(self, apps: Iterable[AnyApplication]) -> None:
        self._enclosed: dict[int, object] = {id(app): app for app in apps}  # one may be mounted at several places

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for app in self._enclosed.values():
                if isinstance(app, AbstractAsyncContextManager):
                    await stack.enter_async_context(app)
            self._entered = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        stack, self._entered = self._entered, None
        return None if stack is None else await stack.__aexit__(*exc_info)


class NativeApplication:
    """`App` as the server calls it."""

    __slots__ = ("app",)

    def __init__(self, app: App) -> None:
        self.app = app

    async def respond(self, exchange: Exchange) -> None:
        response = await self.app(request_of(exchange))
        if type(response) is Response and type(response.body) is bytes:
            if not exchange.respond_now(response.status, response.headers.raw, response.body):
                await exchange.flush()
            return
        if not isinstance(response, Response):
            raise TypeError(f"the application returned {response!r} instead of a Response")
        await send_response(exchange, response)


async def send_response(exchange: Exchange, response: Response) -> None:
    """Send a whole response, and close what its body holds open, sent or not."""
    fields = response.headers.raw
    body = response.body
    pieces: object = body
    try:
        if isinstance(response, Upgrade):
            stream = exchange.switch(fields)
            await stream.flush()
            await response.handler(stream)
        elif isinstance(body, bytes):
            if not exchange.respond_now(response.status, fields, body):
                await exchange.flush()
        elif isinstance(body, FileBody):
            exchange.begin(response.status, fields, length=body.count)
            await _send_file(exchange, body)
            await exchange.end()
        else:
            exchange.begin(response.status, fields)
            if exchange.has_body:
                pieces = aiter(body)
                await _send_pieces(exchange, pieces)
            await exchange.end(trailers=() if response.trailers is None else response.trailers.raw)
    finally:
        response.close()
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


def request_of(exchange: Exchange) -> Request:
    """The request of an exchange as an application reads it."""
    request = Request(
        exchange.method,
        exchange.target.decode("ascii"),
        Headers.checked(exchange.headers),
        http_version=exchange.http_version,
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
