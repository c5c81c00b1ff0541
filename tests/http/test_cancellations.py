"""The server cancelled at each checkpoint: a client never takes a part for the whole, and nothing stays open."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO

import h11
import pytest
import trio
import trio.testing
from trio.abc import Clock

from asyncnet.http import ASGI, FileBody, HTTPHandler, Request, Response, Upgrade
from asyncnet.http.lifespan import Receive, Scope, Send
from asyncnet.stream import Stream
from asyncnet.testing import cancel_at_each_checkpoint, stream_pair
from tests.http.client import GET, Client

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
LARGE = bytes(range(256)) * 400


class Seen:
    """What a client sees up to the end of its connection."""

    def __init__(self) -> None:
        self.output = b""
        self.was_reset = False

    async def watch(self, stream: Stream) -> None:
        try:
            while data := await stream.receive_some():
                self.output += data
        except trio.BrokenResourceError:
            self.was_reset = True

    def whole_bodies(self, requests: int) -> list[bytes]:
        """The bodies of the responses that h11, as the client, believes to be whole."""
        bodies = []
        output = self.output
        for _ in range(requests):
            client = h11.Connection(h11.CLIENT)
            client.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
            client.send(h11.EndOfMessage())
            client.receive_data(output)
            if not self.was_reset:
                client.receive_data(b"")
            body = b""
            while True:
                try:
                    event = client.next_event()
                except h11.RemoteProtocolError:  # it ended too early
                    return bodies
                if isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    bodies.append(body)
                    break
                elif event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                    return bodies
            output = client.trailing_data[0]
        return bodies


async def echo(request: Request) -> Response:
    return Response(body=(await request.read()) * 100)


async def large(request: Request) -> Response:
    return Response(body=LARGE)


async def echo_asgi(scope: Scope, receive: Receive, send: Send) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200})
    for _ in range(99):
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": body})


class Streamed:
    """Streams `LARGE` in pieces, and knows whether its generators are closed."""

    def __init__(self, **headers: str) -> None:
        self.headers = headers
        self.open = 0

    async def __call__(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            self.open += 1
            try:
                for at in range(0, len(LARGE), 10_000):
                    yield LARGE[at : at + 10_000]
                    await trio.sleep(0.1)
            finally:
                self.open -= 1

        return Response(
            headers=[(name.replace("_", "-"), value) for name, value in self.headers.items()], body=pieces()
        )


async def cancel_everywhere(
    make_app: Callable[[], Any],
    request: bytes,
    body: bytes,
    *,
    count: int = 1,
    check: Callable[[Any], None] | None = None,
) -> None:
    """Serve `count` times `request` again and again, cancelled one checkpoint later each time."""
    rounds = wholes = 0
    for attempt in cancel_at_each_checkpoint():
        ours, theirs = stream_pair(capacity=5000)
        seen = Seen()
        app = make_app()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(seen.watch, ours)
            await ours.send_all(request * count)
            await ours.send_eof()
            with attempt:
                await HTTPHandler(app)(theirs)
        bodies = seen.whole_bodies(count)
        assert bodies == [body] * len(bodies)
        assert seen.was_reset or not seen.output or len(bodies) == seen.output.count(b"HTTP/1.1 ")
        if not attempt.cancelled:
            assert len(bodies) == count
        assert theirs.is_closed
        if check is not None:
            check(app)
        rounds += 1
        wholes += len(bodies)
    assert rounds > 2
    assert wholes >= count


@pytest.mark.parametrize("request_", [POST, CHUNKED])
@pytest.mark.parametrize("make_app", [lambda: echo, lambda: ASGI(echo_asgi)])
async def test_requests_with_bodies(autojump_clock: Clock, make_app: Callable[[], Any], request_: bytes) -> None:
    await cancel_everywhere(make_app, request_, b"hello" * 100, count=3)


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_response_that_does_not_fit_in_one_send(autojump_clock: Clock, version: bytes) -> None:
    await cancel_everywhere(lambda: large, GET.replace(b"1.1", version), LARGE)


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("headers", [{}, {"content_length": str(len(LARGE))}])
async def test_streamed_responses(autojump_clock: Clock, version: bytes, headers: dict[str, str]) -> None:
    """HTTP/1.0 without a length ends with the connection: only a reset tells that it is not whole."""

    def check(app: Streamed) -> None:
        assert app.open == 0

    await cancel_everywhere(lambda: Streamed(**headers), GET.replace(b"1.1", version), LARGE, check=check)


async def test_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    opened: list[BinaryIO] = []

    async def app(request: Request) -> Response:
        file = path.open("rb", buffering=0)
        opened.append(file)
        return Response(body=FileBody(file, 0, len(LARGE)))

    def check(_: object) -> None:
        assert all(file.closed for file in opened)

    await cancel_everywhere(lambda: app, GET, LARGE, check=check)
    assert opened


async def test_files_of_asgi_applications(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.pathsend", "path": str(path)})

    await cancel_everywhere(lambda: ASGI(app), GET, LARGE)


async def test_a_client_that_is_watched(autojump_clock: Clock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": LARGE[:4000], "more_body": True})
            await trio.sleep(1)
            await send({"type": "http.response.body", "body": LARGE[4000:]})

    await cancel_everywhere(lambda: ASGI(app), GET, LARGE)


async def test_a_request_that_is_refused(autojump_clock: Clock) -> None:
    await cancel_everywhere(lambda: echo, b"GET / HTTP/1.1\r\n\r\n", b"400 Bad Request\n")


async def test_another_protocol_behind_an_upgrade(autojump_clock: Clock) -> None:
    """What it said is whole only if its handler returned: else the client sees a reset."""
    offer = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"

    async def app(request: Request) -> Response:
        async def handler(stream: Stream) -> None:
            for _ in range(3):
                await stream.send_all(b"line\n")
                await trio.sleep(1)

        return Upgrade("x", handler)

    for attempt in cancel_at_each_checkpoint():
        ours, theirs = stream_pair()
        seen = Seen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(seen.watch, ours)
            await ours.send_all(offer)
            with attempt:
                await HTTPHandler(app)(theirs)
        assert seen.was_reset or not seen.output or seen.output.endswith(b"\r\n\r\nline\nline\nline\n")
        assert theirs.is_closed


async def test_a_websocket_of_an_asgi_application(autojump_clock: Clock) -> None:
    """It says goodbye (1001) where there is time for that, and its frames are whole."""
    offer = (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    ended = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal ended
        try:
            await receive()
            await send({"type": "websocket.accept"})
            for text in ("one", "two"):
                await send({"type": "websocket.send", "text": text})
                await trio.sleep(1)
        finally:
            ended += 1

    rounds = 0
    for attempt in cancel_at_each_checkpoint():
        ours, theirs = stream_pair()
        seen = Seen()
        rounds += 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(seen.watch, ours)
            await ours.send_all(offer + b"\x88\x82\0\0\0\0\x03\xe8")
            with attempt:
                await HTTPHandler(ASGI(app, lifespan="off"))(theirs)
        assert theirs.is_closed
        _, _, frames = seen.output.partition(b"\r\n\r\n")
        whole = b"\x81\x03one\x81\x03two"
        assert whole.startswith(frames.partition(b"\x88")[0])
    assert ended <= rounds
    assert ended > 2


async def test_nothing_is_left_to_the_garbage_collector(
    autojump_clock: Clock, recwarn: pytest.WarningsRecorder
) -> None:
    for attempt in cancel_at_each_checkpoint():
        ours, theirs = stream_pair(capacity=5000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Seen().watch, ours)
            await ours.send_all(GET)
            await ours.send_eof()
            with attempt:
                await HTTPHandler(Streamed())(theirs)
    gc.collect()
    assert not list(recwarn)


async def test_a_wait_for_the_next_request_that_is_cancelled_is_an_ordinary_end(autojump_clock: Clock) -> None:
    ours, theirs = stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(HTTPHandler(large), theirs)
        assert (await Client(ours).ask(GET))[2] == LARGE
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            assert await Client(ours).rest() == b""
