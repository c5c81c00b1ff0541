"""WSGI: what a client sees of an application, and what the application sees of its client.

Threads are at work here, so time is the real one; what has to happen first is waited for, never slept for.
"""

from __future__ import annotations

import io
import logging
import math
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from wsgiref.validate import validator

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncnet.http import wsgi_thread
from asyncnet.http.messages import FileBody, Headers, Request, Response
from asyncnet.http.wsgi import WSGI, ErrorLog, make_environ
from asyncnet.http.wsgi_interface import Input
from asyncnet.transports.address import Address
from tests.http.client import GET, Client, served

TEXT = [("Content-Type", "text/plain")]
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HEAD = GET.replace(b"GET", b"HEAD")

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], object]]


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[Client]:
    """A client of a WSGI application, with 30 seconds for everything."""
    with trio.fail_after(30):
        async with served(WSGI(app, **options)) as client:
            yield client


async def wait(event: threading.Event) -> None:
    """Wait for what a thread of the application does."""
    with trio.fail_after(30):
        assert await trio.to_thread.run_sync(event.wait, 30, abandon_on_cancel=True)


def hello(environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", TEXT)
    return [b"hello"]


def echo(environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", TEXT)
    return [environ["wsgi.input"].read()]


class Closing:
    """An iterable over `pieces` that says when it was closed, and in which thread."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = iter(pieces)
        self.closed = threading.Event()
        self.threads: list[int] = []

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.threads.append(threading.get_ident())
        return next(self.pieces)

    def close(self) -> None:
        self.threads.append(threading.get_ident())
        self.closed.set()


class TestResponses:
    async def test_an_answer_of_one_piece_has_its_length(self) -> None:
        async with serving(hello) as client:
            for _ in range(2):
                status, headers, body = await client.ask(GET)
                assert (status, headers["content-length"], body) == (200, "5", b"hello")

    async def test_a_list_has_its_length_too(self) -> None:
        def app(environ: Environ, start: Start) -> list[bytes]:
            start("200 OK", TEXT)
            return [b"hello", b"", b", world"]

        async with serving(app) as client:
            _, headers, body = await client.ask(GET)
            assert (headers["content-length"], body) == ("12", b"hello, world")

    @pytest.mark.parametrize("pieces", [[], [b""], [b"", b""]])
    async def test_an_answer_may_be_empty(self, pieces: list[bytes]) -> None:
        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("404 Nothing here", TEXT)
            return iter(pieces) if environ["PATH_INFO"] == "/iterator" else pieces

        async with serving(app) as client:
            for path in (b"/", b"/iterator"):
                status, headers, body = await client.ask(GET.replace(b"/", path, 1))
                assert (status, headers["content-length"], body) == (404, "0", b"")

    async def test_pieces_reach_the_client_while_the_application_waits_for_more(self) -> None:
        go = threading.Event()

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b""  # sends nothing
            yield b"first"
            go.wait(30)
            yield b"second"

        async with serving(app) as client:
            await client.send(GET)
            assert (await client.head())[0] == 200
            assert await client.stream.receive_exactly(10) == b"5\r\nfirst\r\n"
            go.set()
            assert await client.stream.receive_until(b"0\r\n\r\n", limit=99) == b"6\r\nsecond\r\n0\r\n\r\n"

    async def test_the_head_waits_for_the_first_piece_that_is_not_empty(self) -> None:
        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b""
            start("500 Changed my mind", TEXT, exc())
            yield b"sorry"

        async with serving(app) as client:
            status, _, body = await client.ask(GET)
            assert (status, body) == (500, b"sorry")

    async def test_what_was_written_comes_before_what_was_returned(self) -> None:
        def app(environ: Environ, start: Start) -> list[bytes]:
            write = start("200 OK", TEXT)
            write(b"one ")
            write(b"two ")
            return [b"three"]

        async with serving(app) as client:
            status, headers, body = await client.ask(GET)
            assert (status, body) == (200, b"one two three")
            assert headers.get("content-length") in (None, "13")

    async def test_the_first_write_sends_the_head_even_if_empty(self) -> None:
        go = threading.Event()

        def app(environ: Environ, start: Start) -> list[bytes]:
            write = start("200 OK", TEXT)
            write(b"")
            go.wait(30)
            return []

        async with serving(app) as client:
            await client.send(GET)
            assert (await client.head())[0] == 200
            go.set()
            assert await client.stream.receive_exactly(5) == b"0\r\n\r\n"

    async def test_a_large_answer_arrives_whole(self) -> None:
        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            for number in range(100):
                yield bytes([number]) * 10_000

        async with serving(app) as client:
            _, _, body = await client.ask(GET)
            assert body == b"".join(bytes([number]) * 10_000 for number in range(100))

    async def test_start_response_may_come_with_the_first_piece(self) -> None:
        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            yield b""
            start("201 Created", [*TEXT, ("Content-Length", "2")])
            yield b"ok"

        async with serving(app) as client:
            assert (await client.ask(GET))[::2] == (201, b"ok")

    @pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
    async def test_a_status_without_content_has_none(self, status: str) -> None:
        body = Closing([b"ignored", b"too"])

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start(status, [("ETag", '"1"')])
            return body

        async with serving(app) as client:
            for _ in range(2):
                code, headers, _ = await client.ask(GET)
                assert code == int(status[:3])
                assert "content-length" not in headers
            await wait(body.closed)

    async def test_reset_content_has_none_whatever_the_application_gives(self) -> None:
        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("205 Reset Content", [("Content-Length", "5")])
            yield b"hello"

        async with serving(app) as client:
            for _ in range(2):
                status, headers, body = await client.ask(GET)
                assert (status, headers["content-length"], body) == (205, "0", b"")

    async def test_cookies_stay_apart(self) -> None:
        def app(environ: Environ, start: Start) -> list[bytes]:
            start("200 OK", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
            return []

        async with serving(app) as client:
            assert (await client.ask(GET))[1].get_all("set-cookie") == ["a=1", "b=2"]

    async def test_http_1_0_gets_a_stream_that_ends_with_the_connection(self) -> None:
        go = threading.Event()

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"one "
            go.wait(30)
            yield b"two"

        async with serving(app) as client:
            await client.send(b"GET / HTTP/1.0\r\n\r\n")
            _, headers = await client.head()
            assert "transfer-encoding" not in headers
            go.set()
            assert await client.rest() == b"one two"


class TestHead:
    async def test_head_gets_the_head_alone_and_the_length_of_a_single_piece(self) -> None:
        async with serving(hello) as client:
            for _ in range(2):
                status, headers, _ = await client.ask(HEAD, to_head=True)
                assert (status, headers["content-length"]) == (200, "5")

    async def test_a_length_that_nobody_knows_is_not_claimed(self) -> None:
        def empty(environ: Environ, start: Start) -> list[bytes]:
            start("200 OK", TEXT)
            return []  # as many do for HEAD, whatever GET would have brought

        def endless(environ: Environ, start: Start) -> Iterator[bytes]:
            write = start("200 OK", TEXT)
            write(b"x")
            write(b"y")
            while True:
                yield b"more"

        for app in (empty, endless):
            async with serving(app) as client:
                for _ in range(2):
                    assert "content-length" not in (await client.ask(HEAD, to_head=True))[1]

    async def test_the_length_that_the_application_names_is_passed_on(self) -> None:
        def app(environ: Environ, start: Start) -> list[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "1000")])
            return []

        async with serving(app) as client:
            assert (await client.ask(HEAD, to_head=True))[1]["content-length"] == "1000"

    async def test_the_iterable_is_closed(self) -> None:
        body = Closing(iter(lambda: b"endless", b""))

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return body

        async with serving(app) as client:
            await client.ask(HEAD, to_head=True)
            await wait(body.closed)


class TestInput:
    @pytest.mark.parametrize("options", [{}, {"read_ahead": 0}, {"read_ahead": 3}])
    async def test_a_body_arrives_whole_by_length_and_in_chunks(self, options: dict[str, int]) -> None:
        async with serving(echo, **options) as client:
            assert (await client.ask(POST + b"Content-Length: 11\r\n\r\nhello there"))[2] == b"hello there"
            assert (await client.ask(CHUNKED + b"5\r\nhello\r\n6\r\n there\r\n0\r\n\r\n"))[2] == b"hello there"
            assert (await client.ask(GET))[2] == b""

    async def test_it_is_streamed_as_it_is_asked_for(self) -> None:
        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            while line := environ["wsgi.input"].readline():
                yield line.upper()

        async with serving(app, read_ahead=0) as client:
            await client.send(CHUNKED)
            await client.send(b"4\r\none\n\r\n")
            await client.head()
            assert await client.stream.receive_exactly(9) == b"4\r\nONE\n\r\n"
            await client.send(b"4\r\ntwo\n\r\n0\r\n\r\n")
            assert await client.stream.receive_until(b"0\r\n\r\n", limit=99) == b"4\r\nTWO\n\r\n0\r\n\r\n"

    async def test_a_slow_sender_of_a_little_costs_no_thread(self) -> None:
        called = threading.Event()

        def app(environ: Environ, start: Start) -> list[bytes]:
            called.set()
            return echo(environ, start)

        async with serving(app) as client:
            await client.send(POST + b"Content-Length: 5\r\n\r\nhell")
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not called.is_set()
            await client.send(b"o")
            assert (await client.response())[2] == b"hello"

    async def test_tiny_pieces_cost_no_more_memory_than_what_is_read_ahead(self) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(30_000):
                yield number.to_bytes(2, "big")

        request = Request("POST", "/", Headers({"content-length": "60000"}), body=pieces())
        tracemalloc.start()
        try:
            response = await WSGI(echo)(request)
            assert isinstance(response.body, bytes)
            assert len(response.body) == 60_000
            assert tracemalloc.get_traced_memory()[1] < 500_000
        finally:
            tracemalloc.stop()

    async def test_continue_is_said_when_the_application_reads(self) -> None:
        def app(environ: Environ, start: Start) -> list[bytes]:
            start("200 OK", TEXT)
            return [environ["wsgi.input"].read()] if environ["PATH_INFO"] == "/read" else [b"refused"]

        expecting = b" HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        async with serving(app, read_ahead=4) as client:
            await client.send(b"POST /read" + expecting)
            assert await client.stream.receive_until(b"\r\n\r\n", limit=99) == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert (await client.ask(b"hello"))[2] == b"hello"
            status, headers, body = await client.ask(b"POST /" + expecting)
            assert (status, headers["connection"], body) == (200, "close", b"refused")

    async def test_for_a_small_body_continue_is_said_at_once(self) -> None:
        async with serving(echo) as client:
            for framing in (b"Content-Length: 5", b"Transfer-Encoding: chunked"):
                await client.send(POST + b"Expect: 100-continue\r\n" + framing + b"\r\n\r\n")
                assert await client.stream.receive_until(b"\r\n\r\n", limit=99) == b"HTTP/1.1 100 Continue\r\n\r\n"
                body = b"hello" if framing.endswith(b"5") else b"5\r\nhello\r\n0\r\n\r\n"
                assert (await client.ask(body))[2] == b"hello"

    async def test_the_length_of_a_small_body_in_chunks_is_told(self) -> None:
        def app(environ: Environ, start: Start) -> list[bytes]:
            start("200 OK", TEXT)
            assert environ["wsgi.input_terminated"] is True
            return [f"{environ.get('CONTENT_LENGTH')} {environ.get('HTTP_TRANSFER_ENCODING')}".encode()]

        async with serving(app) as client:
            assert (await client.ask(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"))[2] == b"5 None"
        async with serving(app, read_ahead=1) as client:
            assert (await client.ask(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"))[2] == b"None chunked"

    async def test_no_more_is_received_than_was_read_ahead(self) -> None:
        go = threading.Event()

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"x"
            go.wait(30)
            yield str(len(environ["wsgi.input"].read())).encode()

        async with serving(app, read_ahead=1000) as client:
            await client.send(POST + b"Content-Length: 9000000\r\n\r\n" + bytes(1000))
            await client.head()  # the application runs, and does not read
            sent = 0
            with trio.move_on_after(0.2):
                while sent < 8_999_000:
                    await client.stream.wait_send_all_might_not_block()
                    await client.send(bytes(1000))
                    sent += 1000
            assert sent < 2_000_000
            go.set()

    @pytest.mark.parametrize("catches", [False, True])
    async def test_a_body_that_breaks_off_is_an_oserror_and_answered_by_its_status(
        self, catches: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        def app(environ: Environ, start: Start) -> list[bytes]:
            try:
                environ["wsgi.input"].read()
            except OSError:
                if not catches:
                    raise
                start("422 Half a body", TEXT)
                return [b"half"]
            raise AssertionError

        async with serving(app, read_ahead=0) as client:
            status, headers, _ = await client.ask(CHUNKED + b"5\r\nhello\r\nnonsense\r\n")
            assert (status, headers["connection"]) == ((422 if catches else 400), "close")
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]

    @settings(deadline=None)
    @given(
        st.binary(max_size=200),
        st.integers(0, 20),
        st.integers(1, 30),
        st.lists(st.tuples(st.sampled_from(["read", "readline", "readlines", "next"]), st.integers(-1, 20))),
    )
    def test_it_reads_like_a_file(self, data: bytes, ahead: int, piece: int, calls: list[tuple[str, int]]) -> None:
        rest = iter([data[at : at + piece] for at in range(ahead, len(data), piece)])
        ours = io.BufferedReader(Input(data[:ahead], lambda: next(rest, b"")))
        model = io.BufferedReader(io.BytesIO(data))  # type: ignore[arg-type]  # by itself it counts readlines otherwise
        for name, size in [*calls, ("read", -1), ("read", 5), ("readline", -1)]:
            if name == "next":
                assert next(ours, b"") == next(model, b"")
            else:
                assert getattr(ours, name)(size) == getattr(model, name)(size)


def exc() -> tuple[type[BaseException], BaseException, TracebackType]:
    try:
        raise ValueError("the application's")
    except ValueError:
        kind, value, trace = sys.exc_info()
        assert kind is not None
        assert value is not None
        assert trace is not None
        return kind, value, trace


def fails_at_once(environ: Environ, start: Start) -> list[bytes]:
    raise ValueError("the application's")


def fails_before_its_first_piece(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", TEXT)
    yield b""
    raise ValueError("the application's")


def never_starts(environ: Environ, start: Start) -> list[bytes]:
    return [b"hello"]


def never_starts_nor_yields(environ: Environ, start: Start) -> list[bytes]:
    return []


def starts_twice(environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", TEXT)
    start("200 OK", TEXT)
    return []


def ends_the_process(environ: Environ, start: Start) -> list[bytes]:
    sys.exit("bye")


def returns_text(environ: Environ, start: Start) -> Any:
    start("200 OK", TEXT)
    return "hello"


def yields_text(environ: Environ, start: Start) -> Iterator[Any]:
    start("200 OK", TEXT)
    yield "hello"


def returns_nothing(environ: Environ, start: Start) -> Any:
    start("200 OK", TEXT)


def promises_too_much(environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", [("Content-Length", "6")])
    return [b"hello"]


def gives_too_much(environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", [("Content-Length", "4")])
    return [b"hello"]


def errors_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


class TestFailures:
    @pytest.mark.parametrize(
        "app",
        [
            fails_at_once,
            fails_before_its_first_piece,
            never_starts,
            never_starts_nor_yields,
            starts_twice,
            ends_the_process,
            returns_text,
            yields_text,
            returns_nothing,
            promises_too_much,
            gives_too_much,
        ],
    )
    async def test_a_failure_before_the_head_is_a_500_and_logged(
        self, app: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(app) as client:
            status, _, body = await client.ask(GET)
            assert (status, body) == (500, b"500 Internal Server Error\n")
        (record,) = errors_of(caplog)
        assert record.exc_info is not None

    async def test_a_failure_behind_the_head_breaks_the_connection(self, caplog: pytest.LogCaptureFixture) -> None:
        go = threading.Event()

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"part"
            go.wait(30)
            raise ValueError("the application's")

        async with serving(app) as client:
            await client.send(GET)
            await client.head()
            assert await client.stream.receive_exactly(9) == b"4\r\npart\r\n"
            go.set()
            with pytest.raises(trio.BrokenResourceError):
                assert await client.rest() == b"", "a part must not pass for the whole"
                raise trio.BrokenResourceError
        assert len(errors_of(caplog)) == 1

    async def test_too_little_behind_the_head_breaks_the_connection(self) -> None:
        go = threading.Event()

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", [("Content-Length", "10")])
            yield b"part"
            go.wait(30)

        async with serving(app) as client:
            await client.send(GET)
            await client.head()
            assert await client.stream.receive_exactly(4) == b"part"
            go.set()
            try:
                assert await client.rest() == b""
            except trio.BrokenResourceError:
                pass

    async def test_an_error_answer_replaces_a_head_that_has_not_left(self) -> None:
        def app(environ: Environ, start: Start) -> list[bytes]:
            start("200 OK", TEXT)
            start("503 Later", [("Retry-After", "1")], exc())
            return [b"later"]

        async with serving(app) as client:
            status, headers, body = await client.ask(GET)
            assert (status, headers["retry-after"], body) == (503, "1", b"later")
            assert "content-type" not in headers

    async def test_an_error_answer_behind_the_head_raises_the_error(self) -> None:
        raised: list[BaseException] = []
        done = threading.Event()

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"part"
            try:
                start("500 Oh", TEXT, exc())
            except ValueError as error:
                raised.append(error)
            done.set()

        async with serving(app) as client:
            assert (await client.ask(GET))[0] == 200
            await wait(done)
        assert str(raised[0]) == "the application's"

    async def test_a_close_that_fails_harms_nobody_and_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        class Failing(Closing):
            def close(self) -> None:
                super().close()
                raise ValueError("close")

        body = Failing([b"hello"])

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "5")])
            return body

        async with serving(app) as client:
            assert (await client.ask(GET))[2] == b"hello"
            await wait(body.closed)
            while not errors_of(caplog):
                await trio.sleep(0.001)
        assert "behind its response" in errors_of(caplog)[0].getMessage()

    @pytest.mark.parametrize(
        ("status", "headers"),
        [
            ("200 OK", [("X", "a\r\nSet-Cookie: b=1")]),
            ("200 OK", [("X", "a\nb")]),
            ("200 OK", [("X", "a\x00b")]),
            ("200 OK", [("X\r\nY", "a")]),
            ("200 OK", [("X Y", "a")]),
            ("200 OK", [("X", "\N{EURO SIGN}")]),
            ("200 OK\r\nX: y", []),
            ("200 \x00", []),
            ("200 \x7f", []),
            ("200OK", []),
            ("OK", []),
            ("", []),
            ("100 Continue", []),
            ("101 Switching Protocols", []),
            ("600 Odd", []),
            ("\u0662\u0660\u0660 OK", []),
            ("200 OK", [("Content-Length", "5"), ("Content-Length", "5")]),
            ("200 OK", [("Content-Length", "+5")]),
            ("200 OK", [("Content-Length", "5, 5")]),
            ("200 OK", [("Content-Length", "")]),
            ("200 OK", [("Connection", "close")]),
            ("200 OK", [("Keep-Alive", "timeout=5")]),
            ("200 OK", [("Transfer-Encoding", "chunked")]),
            ("200 OK", [("Upgrade", "websocket")]),
            ("200 OK", [("TE", "trailers")]),
            ("200 OK", [("Trailer", "x")]),
            ("200 OK", [("Proxy-Authenticate", "x")]),
            ("200 OK", [("Proxy-Connection", "x")]),
        ],
    )
    async def test_a_head_that_would_split_the_response_or_frame_it_is_refused(
        self, status: str, headers: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
    ) -> None:
        def app(environ: Environ, start: Start) -> list[bytes]:
            start(status, headers)
            return [b"hello"]

        async with serving(app) as client:
            await client.send(GET)
            got, fields = await client.head()
            assert got == 500
            assert not {"x", "y", "set-cookie", "transfer-encoding", "upgrade"} & {name for name, _ in fields}
        assert len(errors_of(caplog)) == 1


class TestLeaving:
    async def test_a_client_that_vanishes_ends_the_iteration_and_close_is_called_in_the_same_thread(self) -> None:
        body = Closing(iter(lambda: bytes(10_000), b""))

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            body.threads.append(threading.get_ident())
            start("200 OK", TEXT)
            return body

        async with serving(app) as client:
            await client.send(GET)
            await client.head()
        await wait(body.closed)
        assert len(set(body.threads)) == 1
        assert body.threads[0] != threading.get_ident()

    async def test_write_raises_when_the_client_has_vanished(self, caplog: pytest.LogCaptureFixture) -> None:
        ended = threading.Event()

        def app(environ: Environ, start: Start) -> list[bytes]:
            write = start("200 OK", TEXT)
            try:
                while True:
                    write(bytes(10_000))
            finally:
                ended.set()

        async with serving(app) as client:
            await client.send(GET)
            await client.head()
        await wait(ended)
        assert not errors_of(caplog)

    async def test_reading_raises_when_the_client_has_vanished(self) -> None:
        errors: list[BaseException] = []
        ended = threading.Event()

        def app(environ: Environ, start: Start) -> list[bytes]:
            try:
                environ["wsgi.input"].read()
            except OSError as error:
                errors.append(error)
                raise
            finally:
                ended.set()
            return []

        async with serving(app, read_ahead=0) as client:
            await client.send(POST + b"Content-Length: 10\r\n\r\nhello")
        await wait(ended)
        assert isinstance(errors[0], ConnectionError)

    async def test_a_cancelled_connection_ends_at_once_and_its_thread_when_it_can(self) -> None:
        running, go, closed = threading.Event(), threading.Event(), threading.Event()
        seen: list[str] = []

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            running.set()
            try:
                go.wait(30)
                try:
                    environ["wsgi.input"].read()
                except ConnectionAbortedError:
                    seen.append("read")
                try:
                    start("200 OK", TEXT)(b"x")
                except ConnectionAbortedError:
                    seen.append("write")
                yield b"piece"
                seen.append("another piece was wanted")
            finally:
                closed.set()

        wsgi = WSGI(app, read_ahead=0, threads=1)
        request = Request("POST", "/", Headers({"content-length": "5"}))
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wsgi, request)
                await wait(running)
                nursery.cancel_scope.cancel()
            assert not closed.is_set()
            # The thread keeps its place: another request has to wait for it.
            with trio.move_on_after(0.05) as scope:
                await wsgi(Request("GET", "/", Headers()))
            assert scope.cancelled_caught
            go.set()
            await wait(closed)
            assert seen == ["read", "write"]
            await wsgi(Request("GET", "/", Headers()))

    async def test_a_thread_that_waits_for_a_slow_client_is_woken_by_the_cancellation(self) -> None:
        body = Closing(iter(lambda: bytes(100_000), b""))

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return body

        wsgi = WSGI(app, threads=1)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:

                async def use() -> None:
                    response = await wsgi(Request("GET", "/", Headers()))
                    assert not isinstance(response.body, (bytes, FileBody))
                    async for _ in response.body:
                        nursery.cancel_scope.cancel()
                        await trio.sleep_forever()

                nursery.start_soon(use)
            await wait(body.closed)

    async def test_a_response_that_is_dropped_lets_its_thread_go(self) -> None:
        body = Closing(iter(lambda: bytes(10_000), b""))

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return body

        wsgi = WSGI(app)

        async def replaced(request: Request) -> Response:
            await wsgi(request)
            return Response.text("another")

        async with served(replaced) as client:
            assert (await client.ask(GET))[2] == b"another"
            await wait(body.closed)

    async def test_a_slow_reader_holds_back_the_application_but_no_thread_for_what_fits(self) -> None:
        body = Closing(iter([bytes(30_000)] * 1000))
        small = Closing([bytes(1000)] * 20)

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return small if environ["PATH_INFO"] == "/small" else body

        wsgi = WSGI(app)
        with trio.fail_after(30):
            response = await wsgi(Request("GET", "/", Headers()))
            assert not isinstance(response.body, (bytes, FileBody))
            pieces = aiter(response.body)
            await anext(pieces)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(body.threads) <= 8  # of 1000: twice what may be ahead, and the piece that went past it
            small_response = await wsgi(Request("GET", "/small", Headers()))
            await wait(small.closed)  # though nobody has read a byte
            del response, small_response, pieces
            await wait(body.closed)

    async def test_behind_its_response_an_application_may_work_on_but_read_no_more(self) -> None:
        seen: list[BaseException] = []
        done = threading.Event()

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "5")])
            yield b"hello"
            try:
                environ["wsgi.input"].read()
            except ConnectionAbortedError as error:
                seen.append(error)
            done.set()

        async with serving(app, read_ahead=0) as client:
            await client.send(POST + b"Content-Length: 3\r\n\r\nabc")
            assert (await client.response())[2] == b"hello"
            await wait(done)
            assert len(seen) == 1
            assert (await client.ask(GET))[2] == b"hello"

    async def test_no_more_threads_run_than_were_asked_for(self) -> None:
        lock, running, most = threading.Lock(), 0, 0
        enough = threading.Barrier(3)

        def app(environ: Environ, start: Start) -> list[bytes]:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            enough.wait(30)
            with lock:
                running -= 1
            return hello(environ, start)

        wsgi = WSGI(app, threads=3)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(9):
                    nursery.start_soon(wsgi, Request("GET", "/", Headers()))
        assert most == 3

    async def test_who_finds_no_thread_for_too_long_is_told_to_come_again(self) -> None:
        running, go = threading.Event(), threading.Event()

        def app(environ: Environ, start: Start) -> list[bytes]:
            running.set()
            go.wait(30)
            return hello(environ, start)

        wsgi = WSGI(app, threads=1, max_wait=0.01)
        with trio.fail_after(30):
            async with served(wsgi) as first, served(wsgi) as second:
                await first.send(GET)
                await wait(running)
                status, headers, _ = await second.ask(GET)
                assert (status, headers["retry-after"]) == (503, "10")
                go.set()
                assert (await first.response())[0] == 200
                wsgi.max_wait = 30
                assert (await second.ask(GET))[0] == 200


class TestSlowClients:
    """Of all threads (there is one), when nobody has any patience."""

    @pytest.fixture(autouse=True)
    def _impatience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wsgi_thread, "PATIENCE", 0)
        monkeypatch.setattr(wsgi_thread, "FAIR_RATE", math.inf)
        monkeypatch.setattr(wsgi_thread, "LOOK", 0.001)

    @asynccontextmanager
    async def two_clients(self, app: Any, **options: Any) -> AsyncIterator[tuple[Client, Client]]:
        wsgi = WSGI(app, threads=1, **options)
        with trio.fail_after(30):
            async with served(wsgi) as slow, served(wsgi) as other:
                yield slow, other

    @pytest.mark.parametrize("catches", [False, True])
    async def test_a_slow_sender_makes_room_for_who_waits_and_gets_408(
        self, catches: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        reading = threading.Event()

        def app(environ: Environ, start: Start) -> list[bytes]:
            if environ["REQUEST_METHOD"] == "POST":
                reading.set()
                try:
                    environ["wsgi.input"].read()
                except ConnectionAbortedError:
                    if not catches:
                        raise
            return hello(environ, start)

        async with self.two_clients(app, read_ahead=0) as (slow, other):
            await slow.send(POST + b"Content-Length: 10\r\n\r\nhell")
            await wait(reading)
            assert (await other.ask(GET))[2] == b"hello"
            await slow.send(b"o")
            status, headers, _ = await slow.response()
            assert (status, headers["connection"]) == (408, "close")
        assert not errors_of(caplog)

    async def test_a_slow_reader_makes_room_for_who_waits_and_is_broken_off(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        body = Closing([bytes(30_000)] * 1000)

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return body if environ["PATH_INFO"] == "/large" else [b"hello"]

        async with self.two_clients(app) as (slow, other):
            await slow.send(GET.replace(b"/", b"/large", 1))
            await slow.head()
            assert (await other.ask(GET))[2] == b"hello"
            assert body.closed.is_set()
            with pytest.raises(trio.BrokenResourceError):
                await slow.rest()
        assert not errors_of(caplog)

    async def test_a_slow_sender_keeps_its_thread_while_nobody_else_wants_it(self) -> None:
        reading = threading.Event()

        def app(environ: Environ, start: Start) -> list[bytes]:
            reading.set()
            return echo(environ, start)

        async with self.two_clients(app, read_ahead=0) as (slow, _):
            await slow.send(POST + b"Content-Length: 5\r\n\r\nhell")
            await wait(reading)
            await trio.testing.wait_all_tasks_blocked(0.02)
            await slow.send(b"o")
            assert (await slow.response())[2] == b"hello"

    async def test_a_sender_that_is_fast_enough_keeps_its_thread_though_others_wait(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wsgi_thread, "FAIR_RATE", 0.1)
        reading = threading.Event()

        def app(environ: Environ, start: Start) -> list[bytes]:
            if environ["REQUEST_METHOD"] == "GET":
                return hello(environ, start)
            first = environ["wsgi.input"].read(4)
            reading.set()
            start("200 OK", TEXT)
            return [first + environ["wsgi.input"].read()]

        async with self.two_clients(app, read_ahead=0) as (slow, other):
            await slow.send(POST + b"Content-Length: 5\r\n\r\nhell")
            await wait(reading)
            await other.send(GET)
            await trio.testing.wait_all_tasks_blocked(0.02)
            await slow.send(b"o")
            assert (await slow.response())[2] == b"hello"
            assert (await other.response())[2] == b"hello"


class TestFiles:
    @pytest.mark.parametrize("how", ["plain", "unbuffered", "from a place on", "temporary", "with a length"])
    async def test_a_regular_file_goes_by_itself(self, tmp_path: Path, how: str) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"0123456789")
        files: list[Any] = []

        def app(environ: Environ, start: Start) -> Any:
            start("200 OK", [("Content-Length", "4")] if how == "with a length" else [])
            file: Any
            if how == "temporary":
                file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
                file.write(b"0123456789")
                file.seek(0)
            else:
                file = path.open("rb", buffering=0 if how == "unbuffered" else -1)
            if how == "from a place on":
                file.read(3)
            files.append(file)
            return environ["wsgi.file_wrapper"](file, 3)

        expected = {"from a place on": b"3456789", "with a length": b"0123"}.get(how, b"0123456789")
        async with serving(app) as client:
            for method in (GET, HEAD, GET):
                _, headers, body = await client.ask(method, to_head=method == HEAD)
                assert headers["content-length"] == str(len(expected))
                assert body == (b"" if method == HEAD else expected)
        wsgi = WSGI(app)
        response = await wsgi(Request("GET", "/", Headers()))
        assert isinstance(response.body, FileBody)
        response.close()
        with trio.fail_after(30):
            while not all(file.closed for file in files):
                await trio.sleep(0.001)

    async def test_what_is_no_regular_file_is_read(self, tmp_path: Path) -> None:
        import gzip

        (tmp_path / "packed").write_bytes(gzip.compress(b"unpacked"))

        def app(environ: Environ, start: Start) -> Any:
            start("200 OK", [])
            kind = environ["PATH_INFO"]
            file: Any = io.BytesIO(b"memory") if kind == "/memory" else gzip.GzipFile(tmp_path / "packed")
            return environ["wsgi.file_wrapper"](file)

        async with serving(app) as client:
            assert (await client.ask(GET.replace(b"/", b"/memory", 1)))[2] == b"memory"
            assert (await client.ask(GET.replace(b"/", b"/packed", 1)))[2] == b"unpacked"

    async def test_a_file_that_is_shorter_than_promised_is_a_500(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"0123456789")

        def app(environ: Environ, start: Start) -> Any:
            start("200 OK", [("Content-Length", "11")])
            return environ["wsgi.file_wrapper"]((tmp_path / "file").open("rb"))

        async with serving(app) as client:
            assert (await client.ask(GET))[0] == 500


def environ_of(target: str = "/", headers: Any = (), **options: Any) -> Environ:
    mounted_at = options.pop("mounted_at", "")
    request = Request("GET", target, Headers(headers), **options)
    request.mounted_at = mounted_at
    return make_environ(request)


class TestEnviron:
    async def test_paths_are_bytes_in_disguise(self) -> None:
        environ = environ_of("/caf%C3%A9/%2F%00?q=%20&r", mounted_at="/%E2%82%AC")
        assert environ["PATH_INFO"].encode("latin-1").decode() == "/café//\x00"
        assert environ["SCRIPT_NAME"].encode("latin-1").decode() == "/€"
        assert environ["QUERY_STRING"] == "q=%20&r"
        assert environ["REQUEST_URI"] == "/caf%C3%A9/%2F%00?q=%20&r"

    async def test_a_header_with_an_underscore_cannot_pass_for_another(self) -> None:
        environ = environ_of("/", [("X-Forwarded-For", "1.2.3.4"), ("X_Forwarded_For", "6.6.6.6"), ("X_Y-Z", "1")])
        assert environ["HTTP_X_FORWARDED_FOR"] == "1.2.3.4"
        assert "HTTP_X_Y_Z" not in environ
        assert "HTTP_CONTENT_LENGTH" not in environ_of("/", [("Content_Length", "7")])
        assert "CONTENT_LENGTH" not in environ_of("/", [("Content_Length", "7")])

    async def test_a_proxy_header_does_not_become_a_setting(self) -> None:
        assert "HTTP_PROXY" not in environ_of("/", [("Proxy", "http://evil/")])
        assert "HTTP_PROXY" not in environ_of("/", [("PROXY", "http://evil/")])

    async def test_repeated_headers_are_joined(self) -> None:
        environ = environ_of("/", [("Accept", "a"), ("Cookie", "a=1"), ("Accept", "b"), ("Cookie", "b=2")])
        assert environ["HTTP_ACCEPT"] == "a,b"
        assert environ["HTTP_COOKIE"] == "a=1; b=2"

    async def test_type_and_length_have_names_of_their_own(self) -> None:
        environ = environ_of("/", [("Content-Type", "text/plain"), ("Content-Length", "3")])
        assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/plain", "3")
        assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & environ.keys()

    @pytest.mark.parametrize(
        ("host", "name", "port"),
        [
            ("example.com", "example.com", "80"),
            ("example.com:8080", "example.com", "8080"),
            ("[::1]:8080", "[::1]", "8080"),
            ("[::1]", "[::1]", "80"),
        ],
    )
    async def test_the_server_goes_by_the_name_it_was_called(self, host: str, name: str, port: str) -> None:
        environ = environ_of("/", {"Host": host})
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["HTTP_HOST"]) == (name, port, host)

    async def test_without_a_host_there_is_a_name_still(self) -> None:
        environ = environ_of(http_version="1.0")
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", "80")
        assert "HTTP_HOST" not in environ
        assert environ["SERVER_PROTOCOL"] == "HTTP/1.0"

    async def test_an_absolute_target_overrides_host(self) -> None:
        environ = environ_of("http://other:1/x?y", {"Host": "a"})
        assert (environ["HTTP_HOST"], environ["PATH_INFO"], environ["QUERY_STRING"]) == ("other:1", "/x", "y")

    async def test_peers_have_an_address_or_none(self) -> None:
        environ = environ_of(peer=Address.of_ip("::1", 4711))
        assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("::1", "4711")
        environ = environ_of(peer=Address(path="", uid=0))
        assert environ["REMOTE_ADDR"] == ""
        assert "REMOTE_PORT" not in environ

    async def test_tls_is_told(self) -> None:
        assert environ_of()["wsgi.url_scheme"] == "http"
        assert "HTTPS" not in environ_of()
        environ = environ_of("/", {"Host": "a"}, tls=object())
        assert (environ["wsgi.url_scheme"], environ["HTTPS"], environ["SERVER_PORT"]) == ("https", "on", "443")

    async def test_errors_go_to_the_log_line_by_line(self, caplog: pytest.LogCaptureFixture) -> None:
        log = ErrorLog()
        log.write("one\ntw")
        log.write("o\n")
        print("\x1b[31mthree", file=log, end="")
        log.flush()
        log.write("x" * 10_000)
        assert [record.getMessage() for record in caplog.records] == ["one", "two", "\\x1b[31mthree", "x" * 10_000]


@pytest.mark.filterwarnings("error")
class TestValidator:
    @pytest.mark.parametrize("request_bytes", [GET, HEAD, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"])
    @pytest.mark.parametrize("options", [{}, {"read_ahead": 0}])
    async def test_the_validator_has_nothing_to_say(self, request_bytes: bytes, options: dict[str, int]) -> None:
        @validator
        def app(environ: Any, start: Any) -> Iterator[bytes]:
            environ["wsgi.errors"].write("")
            body = environ["wsgi.input"].read(5) + environ["wsgi.input"].readline() + environ["wsgi.input"].read(1)
            start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
            return iter([body, b""])

        async with serving(app, **options) as client:
            for _ in range(2):
                status, _, body = await client.ask(request_bytes, to_head=request_bytes == HEAD)
                assert status == 200
                assert body == (b"hello" if request_bytes.startswith(b"POST") else b"")

    async def test_what_is_written_passes_too(self) -> None:
        @validator
        def app(environ: Any, start: Any) -> list[bytes]:
            write = start("200 OK", [("Content-Type", "text/plain")])
            write(b"hello")
            return []

        async with serving(app) as client:
            assert (await client.ask(GET))[::2] == (200, b"hello")


@pytest.mark.parametrize("options", [{"threads": 0}, {"read_ahead": -1}, {"write_ahead": 0}, {"max_wait": 0}])
def test_limits_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|at least"):
        WSGI(hello, **options)
