"""`ASGI`: applications of the Asynchronous Server Gateway Interface, version 3 (Starlette, FastAPI, Quart-Trio, …).

HTTP, WebSocket and lifespan with state, and the extensions for TLS, files (`http.response.pathsend`), trailers, early
hints, and refusals of WebSockets (`websocket.http.response`).

Theory of operation
===================

The application runs in the connection's own task. `receive` and `send` touch the stream themselves: there is no queue,
no event and no task beside it. What could go wrong, and why it does not:

- *`receive` under a scope that is cancelled already.* Starlette asks in this way whether the client has gone. Whatever
  can be told without waiting is told without a checkpoint.
- *The client vanishes.* The application is not interrupted. `receive` says `http.disconnect` once the body has been
  received; `send` raises `ClientGone`, an OSError, as the specification has it. What the application makes of that is
  no failure of its own, and not logged.
- *A task that waits in `receive` while another responds.* The end of the response ends the wait.
- *A response without a length.* If the application sends it in one message, the length is known; else it is chunked.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote_to_bytes

import trio

from asyncnet.errors import ConfigurationError, LocalProtocolError
from asyncnet.http.asgi_websocket import respond_to_websocket
from asyncnet.http.exchange import ClientGone, Exchange
from asyncnet.http.lifespan import ASGIApp, Lifespan, Message
from asyncnet.http.messages import FileBody
from asyncnet.http.wire import RequestError

if TYPE_CHECKING:
    from asyncnet.stream import Stream
    from asyncnet.transports.base import TLSInfo


class ASGI:
    """Serves an ASGI application: `HTTPHandler(ASGI(app))`.

    It is an async context manager, which the service enters before it listens and leaves after the drain: the
    application's lifespan. `lifespan` is "auto" (an application that raises has none), "on" (it must have one) or
    "off". Raises ConfigurationError when the application says that it cannot start.
    """

    def __init__(self, app: ASGIApp, *, lifespan: str = "auto") -> None:
        if lifespan not in ("auto", "on", "off"):
            raise ConfigurationError(f"lifespan is auto, on or off, not {lifespan!r}")
        self.app = app
        self._kind = lifespan
        self._lifespan: Lifespan | None = None
        self._state: dict[str, Any] | None = None

    async def __aenter__(self) -> ASGI:
        if self._lifespan is not None:
            raise LocalProtocolError("this application has been started already: make an ASGI for each service")
        if self._kind != "off":
            self._lifespan = Lifespan(self.app, required=self._kind == "on")
            self._state = await self._lifespan.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        lifespan, self._lifespan, self._state = self._lifespan, None, None
        if lifespan is not None:
            await lifespan.stop()

    async def respond(self, exchange: Exchange) -> None:
        connection = exchange.connection
        kept = connection.kept
        if kept is None or kept[0] is not self:
            kept = connection.kept = (self, _scope_of_connection(exchange.stream))
        scope: dict[str, Any] = kept[1].copy()
        scope["extensions"] = scope["extensions"].copy()
        scope["method"] = exchange.method
        scope["headers"] = exchange.headers
        scope["query_string"] = exchange.query
        scope["raw_path"] = raw_path = exchange.raw_path
        if exchange.mounted_at:
            scope["root_path"] = decode_path(exchange.mounted_at)
            scope["raw_path"] = raw_path = exchange.mounted_at + raw_path
        scope["path"] = decode_path(raw_path) if b"%" in raw_path else raw_path.decode("ascii")
        if exchange.http_version != "1.1":
            scope["http_version"] = exchange.http_version
        if self._state is not None:
            scope["state"] = self._state.copy()
        if exchange.upgrade == b"websocket":
            await respond_to_websocket(self.app, scope, exchange)
            return
        cycle = HTTPCycle(exchange)
        await self.app(scope, cycle.receive, cycle.send)


def _scope_of_connection(stream: Stream) -> dict[str, Any]:
    """What all scopes of a connection have in common."""
    peer, local, tls = stream.peer, stream.local, stream.tls
    extensions: dict[str, Any] = {
        "http.response.pathsend": {},
        "http.response.trailers": {},
        "http.response.early_hint": {},
    }
    if tls is not None:
        extensions["tls"] = tls_extension(tls)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "http" if tls is None else "https",
        "root_path": "",
        "client": (peer.host, peer.port) if peer.host else None,
        "server": (local.host, local.port) if local.host else (local.path, None),
        "extensions": extensions,
    }


def decode_path(raw: bytes) -> str:
    """A path percent-decoded, as UTF-8; bytes that are none are shown as U+FFFD: scopes hold real strings."""
    if b"%" in raw:
        raw = unquote_to_bytes(raw)
    return raw.decode("utf-8", "replace")


class HTTPCycle:
    """`receive` and `send` for one request."""

    _body_received = False
    _start: Message | None = None  # the response's start, until it is known how its body is framed
    _trailers: list[tuple[bytes, bytes]] | None = None

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def receive(self) -> Message:
        exchange = self._exchange
        if not self._body_received:
            if exchange.body is None:
                self._body_received = True
                return {"type": "http.request", "body": b"", "more_body": False}
            if not exchange.ended:
                try:
                    data = await exchange.body.receive()
                except (RequestError, trio.BrokenResourceError):
                    return {"type": "http.disconnect"}
                self._body_received = exchange.body.ended
                return {"type": "http.request", "body": data, "more_body": not self._body_received}
        if not exchange.ended and not exchange.is_gone():
            await exchange.wait_gone()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        kind = message["type"]
        start = self._start
        if start is None and kind == "http.response.start":
            self._start = message
            if message.get("trailers"):
                self._trailers = []
            return
        exchange = self._exchange
        if exchange.failure is not None:
            raise ClientGone(str(exchange.failure)) from exchange.failure
        try:
            if kind != "http.response.body":
                await self._send_other(kind, message)
            elif start is None:
                raise LocalProtocolError("a body before http.response.start")
            elif exchange.status or self._trailers is not None or message.get("more_body"):
                await self._send_piece(message.get("body", b""), message.get("more_body", False))
            elif not exchange.respond_now(start["status"], start.get("headers", ()), message.get("body", b"")):
                await exchange.flush()
        except trio.BrokenResourceError as error:
            exchange.fail(error)
            raise ClientGone(str(error)) from error

    def _begin(self, length: int | None = None) -> None:
        """Make the head, unless that is done, with the body's length if it is known."""
        if self._start is None:
            raise LocalProtocolError("the response has no http.response.start yet")
        if self._exchange.status == 0:
            self._exchange.begin(self._start["status"], self._start.get("headers", ()), length=length)

    async def _send_piece(self, data: bytes, more: bool) -> None:
        self._begin()
        if more or self._trailers is not None:
            await self._exchange.send(data)
        else:
            await self._exchange.end(data)

    async def _send_other(self, kind: str, message: Message) -> None:
        match kind:
            case "http.response.pathsend":
                await self._send_path(message["path"], message.get("more_body", False))
            case "http.response.trailers":
                self._begin()
                if self._trailers is None:
                    raise LocalProtocolError("trailers that http.response.start did not announce")
                self._trailers += [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
                if not message.get("more_trailers", False):
                    await self._exchange.end(trailers=self._trailers)
            case "http.response.early_hint":
                await self._exchange.inform(103, [(b"link", link) for link in message.get("links", ())])
            case "http.response.start":
                raise LocalProtocolError("http.response.start for the second time")
            case _:
                raise LocalProtocolError(f"no message of an HTTP response: {kind!r}")

    async def _send_path(self, path: str, more: bool) -> None:
        file, size = await trio.to_thread.run_sync(_open, path)
        try:
            self._begin(None if more or self._trailers is not None else size)
            await self._exchange.send_file(FileBody(file, 0, size))
        finally:
            file.close()
        if not more:
            await self._send_piece(b"", False)


def _open(path: str) -> tuple[BinaryIO, int]:
    file = open(path, "rb", buffering=0)  # noqa: SIM115  the caller closes it
    return file, os.fstat(file.fileno()).st_size


_TLS_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


def tls_extension(tls: TLSInfo) -> dict[str, Any]:
    """The `tls` extension: what the standard library tells of the connection."""
    certificate = tls.peer_certificate_pem
    return {
        "server_cert": None,
        "client_cert_chain": () if certificate is None else (certificate,),
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": _TLS_VERSIONS.get(tls.version),
        "cipher_suite": None,
    }
