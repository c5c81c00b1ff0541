"""`websocket()` within `HTTPHandler`, in a service and without."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from asyncnet import serve
from asyncnet.connection import draining
from asyncnet.http import HTTPHandler, Request, Response
from asyncnet.http.engine import Engine, H11Engine
from asyncnet.http.httptools_engine import HttptoolsEngine
from asyncnet.http.websocket import WebSocket, websocket
from asyncnet.limits import Timeouts
from asyncnet.service import Service
from asyncnet.testing import MemoryListener
from tests.http.client import Client, served
from tests.http.websocket.frames import TEXT, close, frame
from tests.http.websocket.test_connection import echo, sent, sent_close

ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def opening(*fields: bytes, line: bytes = b"GET /chat HTTP/1.1", version: bytes = b"13") -> bytes:
    return b"\r\n".join(
        (
            line,
            b"Host: example.com",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"Sec-WebSocket-Version: " + version,
            *fields,
            b"",
            b"",
        )
    )


async def app(request: Request) -> Response:
    return websocket(request, echo, subprotocols=["v2", "v1"], headers={"set-cookie": "a=1"})


ENGINES = {"h11": H11Engine, "httptools": HttptoolsEngine}


@pytest.fixture(params=ENGINES.values(), ids=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each of the parsers that read the opening request."""
    made: Engine = request.param()
    return made


class TestOpening:
    async def test_a_websocket_opens_echoes_and_closes(self, autojump_clock: Clock, engine: Engine) -> None:
        async with served(app, engine=engine) as client:
            await client.send(opening(b"Sec-WebSocket-Protocol: v1, v2"))
            status, headers = await client.head()
            assert status == 101
            assert headers["upgrade"] == "websocket"
            assert headers["connection"].lower() == "upgrade"
            assert headers["sec-websocket-accept"] == ACCEPT
            assert headers["sec-websocket-protocol"] == "v2"
            assert headers["set-cookie"] == "a=1"
            assert "sec-websocket-extensions" not in headers
            assert "content-length" not in headers
            await client.send(frame(TEXT, b"hello"))
            assert await client.stream.receive_exactly(7) == sent(TEXT, b"hello")
            await client.send(close(1000))
            assert await client.rest() == sent_close(1000)

    async def test_frames_that_came_with_the_request_are_not_lost(self, autojump_clock: Clock, engine: Engine) -> None:
        async with served(app, engine=engine) as client:
            await client.send(opening() + frame(TEXT, b"early") + frame(TEXT, b"bird") + close(1000))
            assert (await client.head())[0] == 101
            assert await client.rest() == sent(TEXT, b"early") + sent(TEXT, b"bird") + sent_close(1000)

    async def test_a_websocket_opens_after_other_requests(self, autojump_clock: Clock, engine: Engine) -> None:
        async def both(request: Request) -> Response:
            return await app(request) if request.path == "/chat" else Response.text("page")

        async with served(both, engine=engine) as client:
            assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))[2] == b"page"
            await client.send(opening() + close(1000))
            assert (await client.head())[0] == 101
            assert await client.rest() == sent_close(1000)

    async def test_the_request_is_there_for_the_handler(self, autojump_clock: Clock, engine: Engine) -> None:
        async def greet(ws: WebSocket) -> None:
            assert ws.request is not None
            await ws.send(f"{ws.request.path} {ws.subprotocol}")

        async def app(request: Request) -> Response:
            return websocket(request, greet)

        async with served(app, engine=engine) as client:
            await client.send(opening(b"Sec-WebSocket-Protocol: v9"))
            assert "sec-websocket-protocol" not in (await client.head())[1]
            await client.send(close(1000))
            assert await client.rest() == sent(TEXT, b"/chat None") + sent_close(1000)

    async def test_compression_is_agreed(self, autojump_clock: Clock, engine: Engine) -> None:
        async with served(app, engine=engine) as client:
            await client.send(opening(b"Sec-WebSocket-Extensions: permessage-deflate"))
            assert (await client.head())[1]["sec-websocket-extensions"].startswith("permessage-deflate")
            await client.send(frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=4) + close(1000))
            assert await client.rest() == sent(TEXT, b"Hello") + sent_close(1000)

    @pytest.mark.parametrize(
        ("request_bytes", "status", "field"),
        [
            (b"GET /chat HTTP/1.1\r\nHost: example.com\r\n\r\n", 426, ("upgrade", "websocket")),
            (opening(version=b"8"), 426, ("sec-websocket-version", "13")),
            (opening(line=b"DELETE /chat HTTP/1.1"), 405, ("allow", "GET")),
            (opening(b"Origin: https://evil.example"), 403, None),
            (opening(b"Sec-WebSocket-Extensions: ;"), 400, None),
            (opening(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400, None),
        ],
    )
    async def test_a_refusal_is_an_ordinary_answer_and_the_connection_goes_on(
        self, autojump_clock: Clock, engine: Engine, request_bytes: bytes, status: int, field: tuple[str, str] | None
    ) -> None:
        async with served(app, engine=engine) as client:
            answer, headers, body = await client.ask(request_bytes)
            assert answer == status
            assert body.startswith(b"%d " % status)
            if field is not None:
                assert headers[field[0]] == field[1]
            await client.send(opening() + close(1000))
            assert (await client.head())[0] == 101
            assert await client.rest() == sent_close(1000)

    async def test_a_request_with_a_body_opens_none(self, autojump_clock: Clock, engine: Engine) -> None:
        async with served(app, engine=engine) as client:
            assert (await client.ask(opening(b"Content-Length: 5") + b"hello"))[0] == 400


async def test_an_error_of_the_handler_is_logged_with_its_traceback_and_closes_with_1011(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(ws: WebSocket) -> None:
        raise ValueError("the secret")

    async def app(request: Request) -> Response:
        return websocket(request, fail)

    async with served(app) as client:
        await client.send(opening())
        assert (await client.head())[0] == 101
        await client.send(close(1011))
        assert await client.rest() == sent_close(1011)
    assert "the secret" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_client_that_breaks_the_rules_or_vanishes_is_no_error(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for data in (b"", frame(TEXT, b"\xff"), close(4000), frame(3)):
        async with served(app) as client:
            await client.send(opening() + data)
            assert (await client.head())[0] == 101
            await client.stream.send_eof()
            await client.rest()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


# Draining


@asynccontextmanager
async def running(app: Any, **options: Any) -> AsyncIterator[tuple[Service, MemoryListener]]:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        service = await nursery.start(
            lambda task_status: serve(HTTPHandler(app), listener, task_status=task_status, **options)
        )
        yield service, listener
        nursery.cancel_scope.cancel()


async def opened(listener: MemoryListener) -> Client:
    client = Client(await listener.connect())
    await client.send(opening())
    assert (await client.head())[0] == 101
    return client


class TestDraining:
    async def test_a_waiting_websocket_closes_with_1001_and_awaits_the_answer(self, autojump_clock: Clock) -> None:
        async with running(app) as (service, listener):
            client = await opened(listener)
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(service.drain)
                goodbye = sent_close(1001, b"the service is going down")
                assert await client.stream.receive_exactly(len(goodbye)) == goodbye
                await trio.sleep(1)
                assert service.open == 1
                await client.send(frame(TEXT, b"on its way") + close(1001))
                assert await client.rest() == b""
                await client.stream.aclose()
            assert service.open == 0
            assert trio.current_time() < 5

    async def test_a_peer_that_does_not_answer_is_left_in_time(self, autojump_clock: Clock) -> None:
        async with running(app, timeouts=Timeouts(drain=30)) as (service, listener):
            client = await opened(listener)
            await trio.testing.wait_all_tasks_blocked()
            await service.drain()
            assert 5 <= trio.current_time() < 10
            assert (await client.rest()).startswith(b"\x88")

    async def test_a_handler_at_work_answers_before_it_is_drained(self, autojump_clock: Clock) -> None:
        async def work(ws: WebSocket) -> None:
            async for message in ws:
                await trio.sleep(3)
                await ws.send(message)

        async def app(request: Request) -> Response:
            return websocket(request, work)

        async with running(app) as (service, listener):
            client = await opened(listener)
            await client.send(frame(TEXT, b"x"))
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(service.drain)
                assert await client.stream.receive_exactly(3) == sent(TEXT, b"x")
                goodbye = sent_close(1001, b"the service is going down")
                assert await client.stream.receive_exactly(len(goodbye)) == goodbye
                await client.send(close(1001))
                assert await client.rest() == b""
                await client.stream.aclose()

    async def test_a_websocket_that_opens_during_a_drain_is_closed(self, autojump_clock: Clock) -> None:
        async def slow(request: Request) -> Response:
            await trio.sleep(2)
            return websocket(request, echo)

        async with running(slow) as (service, listener):
            client = Client(await listener.connect())
            await client.send(opening())
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(service.drain)
                assert (await client.head())[0] == 101
                assert (await client.stream.receive_exactly(4))[2:] == (1001).to_bytes(2, "big")
                await client.send(close(1001))
                await client.rest()
                await client.stream.aclose()

    async def test_a_handler_of_several_tasks_can_say_goodbye_itself(self, autojump_clock: Clock) -> None:
        async def ticker(ws: WebSocket) -> None:
            await draining()
            await ws.close(1012, "back in a minute")

        async def app(request: Request) -> Response:
            return websocket(request, ticker)

        async with running(app) as (service, listener):
            client = await opened(listener)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(service.drain)
                goodbye = sent_close(1012, b"back in a minute")
                assert await client.stream.receive_exactly(len(goodbye)) == goodbye
                await client.send(close(1012))
                assert await client.rest() == b""
                await client.stream.aclose()
