"""WebSocket against the `websockets` package, which has passed the Autobahn suite: as a client, and as a server."""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from asyncnet import Service, serve
from asyncnet.http import HTTPHandler, Request, Response
from asyncnet.http.websocket import (
    ANY_ORIGIN,
    HandshakeRefused,
    WebSocket,
    WebSocketClosed,
    WebSocketTimeouts,
    connect_websocket,
    websocket,
)

pytest.importorskip("websockets", reason="websockets is not installed")
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync import client, server

MESSAGES: list[str | bytes] = [
    "",
    b"",
    "hello",
    "Grüße 🌍" * 100,
    bytes(range(256)) * 100,
    "x" * 65_535,
    b"y" * 65_536,
    os.urandom(1 << 20),
    *(f"message {number}" for number in range(100)),
]


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def app(request: Request) -> Response:
    if request.path == "/close":
        return websocket(request, lambda ws: ws.close(4001, "as you like"))
    if request.path == "/fail":
        return websocket(request, _fail)
    if request.path == "/ping":
        return websocket(request, echo, timeouts=WebSocketTimeouts(ping=0.05, pong=30))
    return websocket(request, echo, subprotocols=["v2", "v1"])


async def _fail(ws: WebSocket) -> None:
    raise ValueError("secret")


@asynccontextmanager
async def serving(endpoint: str = "tcp://127.0.0.1:0", **options: Any) -> AsyncIterator[tuple[Service, str]]:
    async with trio.open_nursery() as nursery:
        service = await nursery.start(partial(serve, HTTPHandler(app), endpoint, **options))
        port = service.endpoints[0].rpartition(":")[2]
        yield service, f"ws://127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


async def in_thread(function: Callable[[], Any]) -> Any:
    with trio.fail_after(50):
        return await trio.to_thread.run_sync(function)


class TestTheirClient:
    @pytest.mark.parametrize("compression", ["deflate", None])
    async def test_echoes_every_kind_of_message(self, compression: str | None) -> None:
        def talk() -> None:
            with client.connect(url, compression=compression, max_size=1 << 21, proxy=None) as ws:
                for message in MESSAGES:
                    ws.send(message)
                    assert ws.recv() == message
                for message in MESSAGES[-100:]:
                    ws.send(message)
                assert [ws.recv() for _ in range(100)] == MESSAGES[-100:]

        async with serving() as (_, url):
            await in_thread(talk)

    async def test_sends_fragments(self) -> None:
        def talk() -> None:
            with client.connect(url, proxy=None) as ws:
                ws.send(iter(["Grü", "", "ße"] * 50))
                assert ws.recv() == "Grüße" * 50
                ws.send(iter([b"a" * 1000, b"b"]))
                assert ws.recv() == b"a" * 1000 + b"b"

        async with serving() as (_, url):
            await in_thread(talk)

    async def test_agrees_on_a_subprotocol_and_pings(self) -> None:
        def talk() -> None:
            with client.connect(url, subprotocols=["v1", "v2"], proxy=None) as ws:  # type: ignore[list-item]
                assert ws.subprotocol == "v2"
                assert ws.ping(b"there?").wait(30)

        async with serving() as (_, url):
            await in_thread(talk)

    async def test_answers_our_pings(self) -> None:
        def talk() -> None:
            with client.connect(f"{url}/ping", proxy=None) as ws:
                with pytest.raises(TimeoutError):
                    ws.recv(timeout=0.5)
                ws.send("still here")
                assert ws.recv() == "still here"

        async with serving() as (_, url):
            await in_thread(talk)

    @pytest.mark.parametrize(("path", "code", "reason"), [("/close", 4001, "as you like"), ("/fail", 1011, "")])
    async def test_is_told_why_a_websocket_closes(self, path: str, code: int, reason: str) -> None:
        def talk() -> None:
            with client.connect(f"{url}{path}", proxy=None) as ws:
                with pytest.raises(ConnectionClosed) as caught:
                    ws.recv()
                assert caught.value.rcvd is not None
                assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (code, reason)

        async with serving() as (_, url):
            await in_thread(talk)

    async def test_is_told_when_a_message_is_too_large(self) -> None:
        def talk() -> None:
            with client.connect(url, proxy=None) as ws, pytest.raises(ConnectionClosed) as caught:
                ws.send(bytes(1 << 22))  # 4 MiB that compress to 4 KiB
                ws.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1009

        async with serving() as (_, url):
            await in_thread(talk)

    async def test_is_sent_away_from_another_site(self) -> None:
        def talk() -> None:
            with pytest.raises(InvalidStatus, match="403"):
                client.connect(url, origin="https://evil.example", proxy=None)  # type: ignore[arg-type]

        async with serving() as (_, url):
            await in_thread(talk)

    async def test_leaves_with_1001_when_the_service_drains(self) -> None:
        opened = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def talk() -> None:
            with client.connect(url, proxy=None) as ws:
                token.run_sync_soon(opened.set)
                with pytest.raises(ConnectionClosed) as caught:
                    ws.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1001

        async with serving() as (service, url), trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, talk)
            await opened.wait()
            await service.drain()

    async def test_speaks_over_tls(self, tmp_path: Path) -> None:
        authority = trustme.CA()
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
        context = ssl.create_default_context()
        authority.configure_trust(context)

        def talk() -> None:
            with client.connect(
                url.replace("ws://127.0.0.1", "wss://localhost"), ssl=context, max_size=1 << 21, proxy=None
            ) as ws:
                for message in MESSAGES:
                    ws.send(message)
                    assert ws.recv() == message

        async with serving(f"tls://127.0.0.1:0?cert={tmp_path / 'server.pem'}") as (_, url):
            await in_thread(talk)


@contextlib.contextmanager
def their_server(handler: Callable[[server.ServerConnection], None], **options: Any) -> Iterator[str]:
    with server.serve(handler, "127.0.0.1", 0, max_size=1 << 21, **options) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{running.socket.getsockname()[1]}"
        finally:
            running.shutdown()
            thread.join()


def their_echo(ws: server.ServerConnection) -> None:
    for message in ws:
        ws.send(message)


class TestTheirServer:
    @pytest.mark.parametrize("compression", ["deflate", None])
    async def test_echoes_every_kind_of_message(self, compression: str | None) -> None:
        with their_server(their_echo, compression=compression) as url, trio.fail_after(50):
            async with connect_websocket(url) as ws:
                assert ws.is_compressed is (compression is not None)
                for message in MESSAGES:
                    await ws.send(message)
                    assert await ws.receive() == message
            assert ws.close_code == 1000

    async def test_agrees_on_a_subprotocol(self) -> None:
        with their_server(their_echo, subprotocols=["b"]) as url, trio.fail_after(50):
            async with connect_websocket(url, subprotocols=["a", "b"]) as ws:
                assert ws.subprotocol == "b"
                await ws.ping(b"there?")
                await ws.send("x")
                assert await ws.receive() == "x"

    async def test_sends_fragments_and_closes_as_it_likes(self) -> None:
        def talk(ws: server.ServerConnection) -> None:
            ws.send(iter(["Grü", "ße"]))
            ws.close(4002, "enough")

        with their_server(talk) as url, trio.fail_after(50):
            async with connect_websocket(url) as ws:
                assert await ws.receive() == "Grüße"
                with pytest.raises(WebSocketClosed, match="enough") as caught:
                    await ws.receive()
            assert caught.value.code == 4002

    async def test_refuses_with_its_status(self) -> None:
        def refuse(ws: server.ServerConnection, request: Any) -> Any:
            return ws.respond(401, "who are you?\n")

        with their_server(their_echo, process_request=refuse) as url, trio.fail_after(50):
            with pytest.raises(HandshakeRefused) as caught:
                async with connect_websocket(url):
                    raise AssertionError("it was refused")
            assert (caught.value.status, caught.value.body) == (401, b"who are you?\n")


async def test_our_client_and_our_server_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with serving(f"tls://127.0.0.1:0?cert={tmp_path / 'server.pem'}") as (_, url):
        with trio.fail_after(50):
            async with connect_websocket(url.replace("ws://127.0.0.1", "wss://localhost"), tls=context) as ws:
                for message in MESSAGES:
                    await ws.send(message)
                    assert await ws.receive() == message
            assert ws.close_code == 1000


async def test_our_client_over_a_unix_socket(tmp_path: Path) -> None:
    endpoint = f"unix:{tmp_path / 'socket'}"
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, HTTPHandler(_anywhere), endpoint))
        async with connect_websocket("ws://app.example/", endpoint=endpoint, origin="https://elsewhere.example") as ws:
            await ws.send("x")
            assert await ws.receive() == "x"
        nursery.cancel_scope.cancel()


async def _anywhere(request: Request) -> Response:
    return websocket(request, echo, origins=ANY_ORIGIN)
