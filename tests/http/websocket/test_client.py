"""The client's opening handshake, against servers that follow a script."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.abc import Clock

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.http import HTTPHandler, Request, Response
from asyncnet.http.websocket import HandshakeRefused, connect_websocket, open_websocket, websocket
from asyncnet.http.websocket.client import parse_head, parse_url
from asyncnet.http.websocket.handshake import accept_key
from asyncnet.stream import Stream
from asyncnet.testing import cancel_at_each_checkpoint, stream_pair
from tests.http.websocket.frames import TEXT, close, frame
from tests.http.websocket.test_connection import echo

OPEN = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n"


async def app(request: Request) -> Response:
    return websocket(request, echo, subprotocols=["chat"])


async def answered(answer: bytes | None, **options: object) -> bytes:
    """Ask a server that answers `answer`, "%b" in it being the right key, and ends. Returns the request."""
    left, right = stream_pair()
    request = b""

    async def server() -> None:
        nonlocal request
        async with right:
            request = await right.receive_until(b"\r\n\r\n", limit=10_000)
            key = re.search(rb"sec-websocket-key: (.*)\r\n", request)
            assert key is not None
            if answer is None:
                await trio.sleep_forever()
            else:
                await right.send_all(answer.replace(b"%b", accept_key(key[1].decode()).encode()))

    async with left, trio.open_nursery() as nursery:
        nursery.start_soon(server)
        try:
            await open_websocket(left, "ws://example.com:8080/chat?x=1", **options)  # type: ignore[arg-type]
        finally:
            nursery.cancel_scope.cancel()
    return request


async def one(operation: Callable[[], Awaitable[object]], kind: type[Exception]) -> Exception:
    """The one exception that `operation` raises, out of its group."""
    with pytest.raises(ExceptionGroup) as caught:
        await operation()
    (error,) = caught.value.exceptions
    assert isinstance(error, kind), error
    return error


class TestRequest:
    async def test_what_is_asked(self, autojump_clock: Clock) -> None:
        request = await answered(
            OPEN + b"\r\n", subprotocols=["a", "b"], headers={"cookie": "x=1"}, origin="http://example.com"
        )
        line, *fields = request[:-4].split(b"\r\n")
        assert line == b"GET /chat?x=1 HTTP/1.1"
        assert fields[0] == b"host: example.com:8080"
        for field in (
            b"upgrade: websocket",
            b"connection: Upgrade",
            b"sec-websocket-version: 13",
            b"sec-websocket-protocol: a, b",
            b"sec-websocket-extensions: permessage-deflate; client_max_window_bits",
            b"origin: http://example.com",
            b"cookie: x=1",
        ):
            assert field in fields

    async def test_each_handshake_has_a_key_of_its_own(self, autojump_clock: Clock) -> None:
        assert await answered(OPEN + b"\r\n") != await answered(OPEN + b"\r\n")

    @pytest.mark.parametrize(
        ("url", "endpoint", "host", "target"),
        [
            ("ws://example.com", "tcp://example.com:80", "example.com", "/"),
            ("WSS://Example.com/a%20b?c=d", "tls://example.com:443", "example.com", "/a%20b?c=d"),
            ("ws://example.com:8080?x", "tcp://example.com:8080", "example.com:8080", "/?x"),
            ("ws://[::1]:8080/", "tcp://[::1]:8080", "[::1]:8080", "/"),
            ("wss://127.0.0.1:443/", "tls://127.0.0.1:443", "127.0.0.1", "/"),
        ],
    )
    def test_urls(self, url: str, endpoint: str, host: str, target: str) -> None:
        assert parse_url(url) == (endpoint, host, target)

    @pytest.mark.parametrize(
        "url",
        [
            "http://example.com/",
            "example.com",
            "ws://",
            "ws:///path",
            "ws://user:password@example.com/",
            "ws://example.com/#fragment",
            "ws://example.com:port/",
            "ws://example.com:99999/",
            "ws://example.com/a b",
            "ws://example.com/a\r\nx: y",
            "ws://exam\nple.com/",
            "ws://example.com/\t",
            " ws://example.com/",
            "ws://example.com/ü",
            "ws://exa mple.com/",
            "ws://[::1/",
        ],
    )
    def test_what_is_no_url_of_a_websocket(self, url: str) -> None:
        with pytest.raises(LocalProtocolError):
            parse_url(url)


class TestAnswer:
    async def test_interim_answers_are_passed_over(self, autojump_clock: Clock) -> None:
        await answered(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 3 + OPEN + b"\r\n")

    async def test_messages_right_behind_the_answer_are_not_lost(self, autojump_clock: Clock) -> None:
        left, right = stream_pair()

        async def server() -> None:
            request = await right.receive_until(b"\r\n\r\n", limit=10_000)
            key = re.search(rb"sec-websocket-key: (.*)\r\n", request)
            assert key is not None
            answer = OPEN.replace(b"%b", accept_key(key[1].decode()).encode()) + b"\r\n"
            await right.send_all(answer + frame(TEXT, b"hello", key=None) + close(1000, key=None))
            await right.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(server)
            async with await open_websocket(left, "ws://example.com/") as ws:
                assert [message async for message in ws] == ["hello"]

    @pytest.mark.parametrize(
        ("answer", "status", "body"),
        [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, world", 200, b"hello"),
            (b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n", 401, b""),
            (b"HTTP/1.1 302 Found\r\nLocation: https://other.example/\r\n\r\ngone", 302, b"gone"),
            (b"HTTP/1.1 403\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 403, b"no"),
            (b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\nnonsense", 500, b""),
            (b"HTTP/1.1 503 Busy\r\n\r\n" + bytes(100_000), 503, bytes(65536)),
        ],
    )
    async def test_any_other_answer_is_a_refusal_with_its_status(
        self, autojump_clock: Clock, answer: bytes, status: int, body: bytes
    ) -> None:
        error = await one(partial(answered, answer), HandshakeRefused)
        assert isinstance(error, HandshakeRefused)
        assert (error.status, error.body) == (status, body)
        if status == 302:
            assert error.headers["location"] == "https://other.example/"

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"HTTP/1.1 101 Switching",
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.0 101 Switching Protocols\r\n\r\n",
            b"HTTP/2 101 \r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            OPEN + b"Sec-WebSocket-Protocol: unasked\r\n\r\n",
            OPEN + b"Sec-WebSocket-Extensions: unasked\r\n\r\n",
            OPEN.replace(b"%b", b"AAAA") + b"\r\n",
            OPEN + b"bad header\r\n\r\n",
            OPEN + b" folded: x\r\n\r\n",
            OPEN + b"space : x\r\n\r\n",
            OPEN + b"nul: \0\r\n\r\n",
            OPEN + b"lf: a\nb: c\r\n\r\n",
            OPEN + b"x: " + b"a" * 40_000 + b"\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 8,
        ],
    )
    async def test_an_answer_that_breaks_the_rules_is_refused(self, autojump_clock: Clock, answer: bytes) -> None:
        error = await one(partial(answered, answer), RemoteProtocolError)
        assert not isinstance(error, HandshakeRefused)

    async def test_a_server_that_does_not_answer_is_left_in_time(self, autojump_clock: Clock) -> None:
        await one(partial(answered, None, timeout=10), TimeoutError)
        assert trio.current_time() <= 11

    async def test_a_refusal_whose_body_never_ends_is_left_in_time(self, autojump_clock: Clock) -> None:
        left, right = stream_pair()
        await right.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 50\r\n\r\n")
        with pytest.raises(TimeoutError):
            await open_websocket(left, "ws://example.com/", timeout=10)

    @given(st.binary(max_size=200))
    def test_no_head_raises_anything_but_a_protocol_error(self, data: bytes) -> None:
        for head in (data + b"\r\n\r\n", b"HTTP/1.1 101 \r\n" + data + b"\r\n\r\n"):
            try:
                parse_head(head)
            except RemoteProtocolError:
                pass


async def test_opening_can_be_cancelled_everywhere(autojump_clock: Clock) -> None:
    for attempt in cancel_at_each_checkpoint():
        left, right = stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HTTPHandler(app), right)
            async with left:
                with attempt:
                    async with await open_websocket(left, "ws://example.com/chat", subprotocols=["chat"]) as ws:
                        await ws.send("hello")
                        assert await ws.receive() == "hello"
                        assert ws.subprotocol == "chat"


async def test_client_and_server_echo_with_and_without_compression(autojump_clock: Clock) -> None:
    for options in ({}, {"compression": None}):
        left, right = stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HTTPHandler(app), right)
            async with await open_websocket(left, "ws://example.com/", **options) as ws:  # type: ignore[arg-type]
                assert ws.is_compressed is not bool(options)
                for message in ("", "x" * 1000, b"y" * 200_000, "Grüße"):
                    await ws.send(message)
                    assert await ws.receive() == message
        assert ws.close_code == 1000


async def test_a_connection_is_closed_when_the_handshake_fails() -> None:
    ended = trio.Event()

    async def refuse(stream: trio.SocketStream) -> None:
        connection = Stream.of(stream)
        async with connection:
            await connection.receive_until(b"\r\n\r\n", limit=10_000)
            await connection.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            assert await connection.receive_some() == b""
            ended.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, refuse, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(HandshakeRefused):
            async with connect_websocket(f"ws://127.0.0.1:{port}/"):
                raise AssertionError("it was refused")
        await ended.wait()
        nursery.cancel_scope.cancel()
