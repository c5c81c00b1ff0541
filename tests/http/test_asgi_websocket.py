"""WebSockets of ASGI applications: what the application is told, and what the client sees."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from trio.abc import Clock

from asyncnet.http import ASGI, HTTPHandler
from asyncnet.http.lifespan import Receive, Scope, Send
from asyncnet.http.websocket import HandshakeRefused, WebSocket, WebSocketClosed, open_websocket
from asyncnet.service import Service, serve
from asyncnet.testing import MemoryListener, stream_pair
from tests.http.client import served

OPENING = (
    b"GET /chat?x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes, and closes when it is told to."""
    assert scope["type"] == "websocket"
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 4000, "reason": "as you wish"})
        else:
            await send({"type": "websocket.send", **{k: v for k, v in message.items() if k != "type"}})


@asynccontextmanager
async def opened(app: object, **options: object) -> AsyncIterator[WebSocket]:
    ours, theirs = stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(HTTPHandler(ASGI(app, lifespan="off")), theirs)  # type: ignore[arg-type]
        async with ours:
            async with await open_websocket(ours, "ws://a/chat?x", **options) as ws:  # type: ignore[arg-type]
                yield ws


class TestTalking:
    async def test_text_and_bytes_go_both_ways(self, autojump_clock: Clock) -> None:
        async with opened(echo) as ws:
            for message in ("grüß dich", b"\x00\xff", "", b"", "x" * 200_000):
                await ws.send(message)
                assert await ws.receive() == message

    async def test_the_application_closes(self, autojump_clock: Clock) -> None:
        async with opened(echo) as ws:
            await ws.send("close")
            with pytest.raises(WebSocketClosed) as caught:
                await ws.receive()
            assert (caught.value.code, caught.value.reason) == (4000, "as you wish")

    async def test_the_application_learns_how_the_client_closed(self, autojump_clock: Clock) -> None:
        told: list[object] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            told.append(await receive())
            told.append(await receive())  # and again, however often it asks
            with pytest.raises(OSError, match="closed"):
                await send({"type": "websocket.send", "text": "too late"})

        async with opened(app) as ws:
            await ws.close(4001, "enough")
        assert told == [{"type": "websocket.disconnect", "code": 4001, "reason": "enough"}] * 2

    async def test_one_that_receives_in_another_task_before_it_accepts_misses_nothing(
        self, autojump_clock: Clock
    ) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:  # as Quart does it
            async def echo_all() -> None:
                while (message := await receive())["type"] == "websocket.receive":
                    await send({"type": "websocket.send", "text": message["text"]})
                left.set()

            left = trio.Event()
            await receive()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(echo_all)
                await trio.sleep(1)
                assert not left.is_set()
                await send({"type": "websocket.accept"})

        async with opened(app) as ws:
            for message in ("hello", "x" * 200_000):
                await ws.send(message)
                assert await ws.receive() == message

    async def test_one_that_returns_closes_normally(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})

        async with opened(app) as ws:
            with pytest.raises(WebSocketClosed) as caught:
                await ws.receive()
            assert caught.value.code == 1000

    async def test_one_that_fails_closes_with_1011_and_is_logged(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            raise ValueError("inner detail")

        async with opened(app) as ws:
            with pytest.raises(WebSocketClosed) as caught:
                await ws.receive()
            assert (caught.value.code, caught.value.reason) == (1011, "")
        assert "inner detail" in caplog.text

    async def test_a_client_that_vanishes_is_no_error(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await trio.sleep(1)

        ours, theirs = stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HTTPHandler(ASGI(app)), theirs)
            ws = await open_websocket(ours, "ws://a/")
            assert await ws.receive() == "tick"
            await ours.abort()
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    async def test_a_drain_says_1001(self) -> None:
        listener = MemoryListener()
        async with trio.open_nursery() as nursery:
            service: Service = await nursery.start(partial(serve, HTTPHandler(ASGI(echo, lifespan="off")), listener))
            async with await listener.connect() as stream:
                ws = await open_websocket(stream, "ws://a/")
                nursery.start_soon(service.drain)
                with pytest.raises(WebSocketClosed) as caught:
                    await ws.receive()
                assert caught.value.code == 1001
                await ws.close()


class TestTheHandshake:
    async def test_the_scope_says_what_is_asked_for(self, autojump_clock: Clock) -> None:
        seen: list[Scope] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope)
            await receive()
            headers = [(b"x-mine", b"1")]
            await send({"type": "websocket.accept", "subprotocol": "b", "headers": headers})

        async with served(ASGI(app)) as client:
            await client.send(OPENING + b"Sec-WebSocket-Protocol: a, b\r\n\r\n")
            status, headers = await client.head()
        assert status == 101
        assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert (headers["sec-websocket-protocol"], headers["x-mine"]) == ("b", "1")
        assert (headers["upgrade"], headers["connection"]) == ("websocket", "upgrade")
        scope = seen[0]
        assert (scope["scheme"], scope["path"], scope["query_string"]) == ("ws", "/chat", b"x")
        assert scope["subprotocols"] == ["a", "b"]
        assert "method" not in scope

    async def test_closing_first_is_403(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.close"})
            assert (await receive())["type"] == "websocket.disconnect"

        with pytest.raises(HandshakeRefused) as caught:
            await refused(app)
        assert caught.value.status == 403

    @pytest.mark.parametrize("pieces", [[b"no, thanks"], [b"no, ", b"thanks"]])
    async def test_it_may_be_refused_by_a_response(self, autojump_clock: Clock, pieces: list[bytes]) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert "websocket.http.response" in scope["extensions"]
            await receive()
            await send({"type": "websocket.http.response.start", "status": 451, "headers": [(b"x-a", b"1")]})
            for piece in pieces[:-1]:
                await send({"type": "websocket.http.response.body", "body": piece, "more_body": True})
            await send({"type": "websocket.http.response.body", "body": pieces[-1]})

        with pytest.raises(HandshakeRefused) as caught:
            await refused(app)
        assert (caught.value.status, caught.value.headers["x-a"]) == (451, "1")
        assert caught.value.body == b"no, thanks"

    @pytest.mark.parametrize("kind", ["websocket.send", "http.response.start", "websocket.http.response.body", None])
    async def test_anything_else_is_500(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture, kind: str | None
    ) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if kind is not None:
                await send({"type": kind, "text": "x", "status": 200})

        with pytest.raises(HandshakeRefused) as caught:
            await refused(app)
        assert caught.value.status == 500
        assert "failed" in caplog.text

    async def test_headers_that_would_split_the_answer_are_500(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept", "headers": [(b"x", b"a\r\nset-cookie: b")]})

        with pytest.raises(HandshakeRefused) as caught:
            await refused(app)
        assert caught.value.status == 500
        assert "set-cookie" not in caught.value.headers

    async def test_a_malformed_request_never_reaches_the_application(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raise AssertionError

        async with served(ASGI(app)) as client:
            status, headers, _ = await client.ask(OPENING.replace(b": 13", b": 8") + b"\r\n")
            assert (status, headers["sec-websocket-version"]) == (426, "13")

    async def test_other_upgrades_are_passed_over(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})

        async with served(ASGI(app)) as client:
            for fields in (b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Upgrade: websocket\r\n"):
                assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"))[0] == 200

    async def test_a_client_that_leaves_before_the_answer(self, autojump_clock: Clock) -> None:
        told: list[object] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            told.append(await receive())

        ours, theirs = stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HTTPHandler(ASGI(app)), theirs)
            await ours.send_all(OPENING + b"\r\n")
            await trio.testing.wait_all_tasks_blocked()
            await ours.aclose()
        assert told == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]

    async def test_frames_right_behind_the_handshake_are_not_lost(self, autojump_clock: Clock) -> None:
        async with served(ASGI(echo, lifespan="off")) as client:
            await client.send(OPENING + b"\r\n" + b"\x81\x85\x00\x00\x00\x00hello")
            assert (await client.head())[0] == 101
            assert await client.stream.receive_exactly(7) == b"\x81\x05hello"


async def refused(app: object) -> None:
    ours, theirs = stream_pair()
    async with ours, trio.open_nursery() as nursery:
        nursery.start_soon(HTTPHandler(ASGI(app, lifespan="off")), theirs)  # type: ignore[arg-type]
        try:
            await open_websocket(ours, "ws://a/")
        except HandshakeRefused as error:
            await ours.aclose()
            failure = error
    raise failure
