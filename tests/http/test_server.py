"""HTTPHandler over memory streams, in virtual time: what a client sends, and what it sees."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from asyncnet.http.limits import HTTPLimits, HTTPTimeouts
from asyncnet.http.messages import FileBody, Headers, Request, Response
from asyncnet.http.server import HTTPHandler
from asyncnet.http.wire import RequestError
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


class TestAnswering:
    async def test_an_answer_has_its_length_and_a_date(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            status, headers, body = await client.ask(GET)
        assert (status, body) == (200, b"hello")
        assert headers["content-type"] == "text/plain; charset=utf-8"
        assert headers["content-length"] == "5"
        assert headers["date"].endswith(" GMT")

    async def test_head_and_body_leave_in_one_send(self, autojump_clock: Clock) -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        sends = 0
        pump = theirs.send_stream.send_all_hook
        assert pump is not None

        async def count() -> None:
            nonlocal sends
            sends += 1
            await pump()

        theirs.send_stream.send_all_hook = count
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HTTPHandler(hello), theirs)
            async with Stream.of(ours) as stream:
                assert (await Client(stream).ask(GET))[0] == 200
                assert sends == 1

    async def test_a_connection_serves_one_request_after_the_other(self, autojump_clock: Clock) -> None:
        async with served(say_target) as client:
            for target in (b"/1", b"/2", b"/3"):
                assert (await client.ask(GET.replace(b"/", target, 1)))[2] == target

    async def test_pipelined_requests_are_answered_in_order(self, autojump_clock: Clock) -> None:
        running = 0

        async def slow(request: Request) -> Response:
            nonlocal running
            running += 1
            assert running == 1
            await trio.sleep(10 - int(request.path[1:]))
            running -= 1
            return Response.text(request.path + (await request.read()).decode())

        async with served(slow) as client:
            await client.send(
                b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
                b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
                b"POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
                b"\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n"
            )
            assert [(await client.response())[2] for _ in range(4)] == [b"/1abc", b"/2", b"/3x", b"/4"]

    async def test_a_request_may_come_byte_by_byte(self, autojump_clock: Clock) -> None:
        async with served(echo) as client:
            for byte in b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n":
                await client.send(bytes([byte]))
            assert (await client.response())[2] == b"hello"
            assert (await client.ask(GET))[2] == b""

    async def test_head_gets_the_head_alone(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            status, headers, _ = await client.ask(GET.replace(b"GET", b"HEAD"), to_head=True)
            assert (status, headers["content-length"]) == (200, "5")
            assert (await client.ask(GET))[2] == b"hello"

    @pytest.mark.parametrize("status", [204, 304])
    async def test_a_status_without_content_has_none(self, autojump_clock: Clock, status: int) -> None:
        async def app(request: Request) -> Response:
            return Response(status, body="ignored")

        async with served(app) as client:
            for _ in range(2):
                got, headers, _ = await client.ask(GET)
                assert got == status
                assert "content-length" not in headers
                assert "transfer-encoding" not in headers

    async def test_options_for_the_server_itself_is_answered_by_the_server(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            assert (await client.ask(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 204
            assert (await client.ask(b"OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 200

    async def test_connect_is_not_implemented(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            status, headers, _ = await client.ask(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (status, headers["connection"]) == (501, "close")

    async def test_an_absolute_target_overrides_host(self, autojump_clock: Clock) -> None:
        async def app(request: Request) -> Response:
            return Response.text(f"{request.host} {request.path}")

        async with served(app) as client:
            assert (await client.ask(b"GET http://other/x HTTP/1.1\r\nHost: a\r\n\r\n"))[2] == b"other /x"

    async def test_a_response_may_serve_many_times(self, autojump_clock: Clock) -> None:
        constant = Response.text("constant")

        async def app(request: Request) -> Response:
            return constant

        async with served(app) as client:
            assert [len((await client.ask(GET))[1]) for _ in range(3)] == [3, 3, 3]

    async def test_a_large_body_arrives_whole(self, autojump_clock: Clock) -> None:
        async def app(request: Request) -> Response:
            return Response(body=bytes(300_000))

        async with served(app) as client:
            assert len((await client.ask(GET))[2]) == 300_000


class TestStreaming:
    async def test_a_stream_goes_in_chunks(self, autojump_clock: Clock) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"hello"
            yield b""
            yield b", world"

        async def app(request: Request) -> Response:
            return Response(body=pieces())

        async with served(app) as client:
            for _ in range(2):
                _, headers, body = await client.ask(GET)
                assert (headers["transfer-encoding"], body) == ("chunked", b"hello, world")

    async def test_to_http_1_0_a_stream_ends_with_the_connection(self, autojump_clock: Clock) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"hello"

        async def app(request: Request) -> Response:
            return Response(body=pieces())

        async with served(app) as client:
            _, headers, body = await client.ask(b"GET / HTTP/1.0\r\n\r\n")
            assert (headers["connection"], body) == ("close", b"hello")

    async def test_an_empty_piece_sends_the_head(self, autojump_clock: Clock) -> None:
        go = trio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            yield b""
            await go.wait()
            yield b"later"

        async def app(request: Request) -> Response:
            return Response(body=pieces())

        async with served(app) as client:
            await client.send(GET)
            assert (await client.head())[0] == 200
            go.set()
            assert await client.stream.receive_until(b"0\r\n\r\n", limit=100) == b"5\r\nlater\r\n0\r\n\r\n"

    async def test_a_request_is_streamed_back_while_it_comes(self, autojump_clock: Clock) -> None:
        async def app(request: Request) -> Response:
            return Response(body=request.body)

        async with served(app) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            await client.send(b"3\r\nabc\r\n")
            await client.head()
            assert await client.stream.receive_exactly(8) == b"3\r\nabc\r\n"
            await client.send(b"2\r\nde\r\n0\r\n\r\n")
            assert await client.stream.receive_exactly(12) == b"2\r\nde\r\n0\r\n\r\n"

    async def test_the_generator_is_closed_when_the_client_vanishes(self, autojump_clock: Clock) -> None:
        closed = trio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(10_000)
                    await trio.sleep(1)
            finally:
                closed.set()

        async def app(request: Request) -> Response:
            return Response(body=pieces())

        async with served(app) as client:
            await client.send(GET)
            await client.head()
        assert closed.is_set()


class TestClosing:
    @pytest.mark.parametrize(
        "request_head",
        [
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
        ],
    )
    async def test_the_connection_closes_when_the_client_wants_it(
        self, autojump_clock: Clock, request_head: bytes
    ) -> None:
        async with served(hello) as client:
            status, headers, _ = await client.ask(request_head)
            assert (status, headers["connection"]) == (200, "close")
            assert await client.rest() == b""

    async def test_the_connection_closes_when_the_application_wants_it(self, autojump_clock: Clock) -> None:
        async def app(request: Request) -> Response:
            return Response.text("bye", headers={"Connection": "close"})

        async with served(app) as client:
            assert (await client.ask(GET))[1]["connection"] == "close"
            assert await client.rest() == b""

    async def test_a_connection_has_so_many_requests(self, autojump_clock: Clock) -> None:
        async with served(hello, limits=HTTPLimits(requests=2)) as client:
            await client.send(GET * 3)
            assert "connection" not in (await client.response())[1]
            assert (await client.response())[1]["connection"] == "close"
            assert await client.rest() == b""

    async def test_an_idle_connection_is_closed_without_a_word(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            await client.ask(GET)
            started = trio.current_time()
            assert await client.rest() == b""
            assert trio.current_time() - started == pytest.approx(HTTPTimeouts().keep_alive)

    async def test_a_client_that_says_nothing_is_not_answered(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            started = trio.current_time()
            assert await client.rest() == b""
            assert trio.current_time() - started == pytest.approx(HTTPTimeouts().head)

    async def test_a_client_that_leaves_at_once_is_no_error(self, autojump_clock: Clock) -> None:
        async with served(hello):
            pass

    async def test_a_client_that_leaves_within_a_head_is_told_so(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            await client.send(GET[:10])
            await client.stream.send_eof()
            assert (await client.response())[0] == 400


class TestBodies:
    async def test_a_small_unread_body_is_skipped(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            for framing, body in (
                (b"Content-Length: 5", b"hello"),
                (b"Transfer-Encoding: chunked", b"1\r\nx\r\n0\r\n\r\n"),
            ):
                await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
                assert (await client.response())[0] == 200
                await client.send(body)
                assert (await client.ask(GET))[2] == b"hello"

    async def test_a_large_unread_body_closes_the_connection(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + bytes(1000)
            _, headers, body = await client.ask(data)
            assert (headers["connection"], body) == ("close", b"hello")
            await client.send(bytes(50_000))  # what was on its way is taken, and the answer survives
            assert await client.rest() == b""

    async def test_endless_unread_chunks_close_the_connection(self, autojump_clock: Clock) -> None:
        async with served(hello, limits=HTTPLimits(unread=1000)) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            assert (await client.response())[0] == 200
            await client.send(b"400\r\n" + bytes(1024) + b"\r\n")
            assert await client.rest() == b""

    async def test_continue_is_sent_when_the_application_reads(self, autojump_clock: Clock) -> None:
        async with served(echo) as client:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n"
            await client.send(head)
            assert (await client.head())[0] == 100
            await client.send(b"hello")
            assert (await client.response())[2] == b"hello"
            assert (await client.ask(head + b"hello"))[2] == b"hello"  # it did not wait, and is not told

    async def test_no_continue_where_the_application_does_not_read(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            status, headers, _ = await client.ask(
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
            )
            assert (status, headers["connection"]) == (200, "close")
            assert await client.rest() == b""

    async def test_another_expectation_fails(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n"))[0] == 417

    async def test_an_expectation_of_http_1_0_is_passed_over(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            assert (await client.ask(b"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n"))[0] == 200

    async def test_a_body_past_the_servers_limit_is_refused(self, autojump_clock: Clock) -> None:
        async with served(echo, limits=HTTPLimits(body=4)) as client:
            assert (await client.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"))[0] == 413
        async with served(echo, limits=HTTPLimits(body=4)) as client:
            data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            assert (await client.ask(data))[0] == 413

    async def test_a_body_past_the_applications_limit_is_refused(self, autojump_clock: Clock) -> None:
        async def app(request: Request) -> Response:
            await request.read(limit=4)
            return Response()

        async with served(app) as client:
            assert (await client.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"))[0] == 413

    async def test_a_body_cannot_be_read_after_the_answer(self, autojump_clock: Clock) -> None:
        kept: list[Request] = []

        async def app(request: Request) -> Response:
            kept.append(request)
            return Response()

        async with served(app) as client:
            await client.ask(GET)
            with pytest.raises(Exception, match="has been answered"):
                await kept[0].read()


class TestAttacks:
    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
        ],
    )
    async def test_a_smuggler_is_answered_400_and_cut_off(self, autojump_clock: Clock, data: bytes) -> None:
        async with served(echo) as client:
            status, headers, body = await client.ask(data + GET)
            assert (status, headers["connection"], body) == (400, "close", b"400 Bad Request\n")
            assert await client.rest() == b""

    async def test_the_next_request_on_a_connection_is_checked_as_well(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            await client.send(GET + b"GET / HTTP/9.9\r\nHost: a\r\n\r\n" + GET)
            assert (await client.response())[0] == 200
            assert (await client.response())[0] == 505
            assert await client.rest() == b""

    async def test_an_endless_head_is_answered(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 33_000))[0] == 431
        async with served(hello) as client:
            assert (await client.ask(b"GET /" + b"x" * 9000))[0] == 414

    async def test_a_head_has_one_deadline_that_no_byte_moves(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            await client.ask(GET)
            started = trio.current_time()
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def drip() -> None:
                    await client.send(b"GET / HTTP/1.1\r\nX: ")
                    while True:
                        await trio.sleep(1)
                        await client.send(b"x")

                status, headers, _ = await client.response()
                nursery.cancel_scope.cancel()
            assert (status, headers["connection"]) == (408, "close")
            assert trio.current_time() - started == pytest.approx(HTTPTimeouts().head)

    async def test_a_body_has_a_minimum_rate(self, autojump_clock: Clock) -> None:
        async with served(echo) as client:
            started = trio.current_time()
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def drip() -> None:
                    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n")
                    while True:
                        await trio.sleep(0.5)
                        await client.send(b"x")

                assert (await client.response())[0] == 408
                nursery.cancel_scope.cancel()
            assert 10 <= trio.current_time() - started < 11

    async def test_a_slow_application_does_not_count_against_the_body(self, autojump_clock: Clock) -> None:
        async def app(request: Request) -> Response:
            total = 0
            async for piece in request.body:
                total += len(piece)
                await trio.sleep(60)
            return Response.text(str(total))

        async with served(app) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
            for byte in b"hello":
                await client.send(bytes([byte]))
                await trio.sleep(61)
            assert (await client.response())[2] == b"5"

    async def test_an_error_answer_to_head_has_no_body(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            await client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n")
            assert (await client.head())[0] == 417
            assert await client.rest() == b""

    async def test_nothing_of_the_request_is_in_the_error(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            await client.send(b"GET /<script> HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"script" not in await client.rest()


class TestFailing:
    async def test_an_exception_becomes_500_and_a_record_with_its_traceback(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(request: Request) -> Response:
            raise ValueError("inner detail")

        async with served(app) as client:
            status, headers, body = await client.ask(GET)
            assert (status, headers["connection"]) == (500, "close")
            assert b"inner" not in body
            assert await client.rest() == b""
        (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert record.name == "asyncnet.http.server"
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError)

    @pytest.mark.parametrize("result", [None, "text"])
    async def test_what_is_no_response_becomes_500(
        self, autojump_clock: Clock, result: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(request: Request) -> Any:
            return result

        async with served(app) as client:
            assert (await client.ask(GET))[0] == 500
        assert "failed on GET /" in caplog.text

    async def test_a_header_that_would_split_the_response_becomes_500(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(request: Request) -> Response:
            return Response.text("x", headers={"X": "a\r\nSet-Cookie: b"})

        async with served(app) as client:
            status, headers, _ = await client.ask(GET)
            assert status == 500
            assert "set-cookie" not in headers
        assert "control character" in caplog.text

    async def test_a_header_slipped_past_the_check_becomes_500(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(request: Request) -> Response:
            response = Response.text("x")
            response.headers.raw.append((b"x", b"a\r\nset-cookie: b"))
            return response

        async with served(app) as client:
            status, headers, _ = await client.ask(GET)
            assert status == 500
            assert "set-cookie" not in headers

    async def test_a_wrong_length_becomes_500_or_breaks(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(request: Request) -> Response:
            return Response.text("hello", headers={"Content-Length": "6"})

        async with served(app) as client:
            assert (await client.ask(GET))[0] == 500

    async def test_a_stream_that_fails_before_its_first_piece_becomes_500(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            raise ValueError
            yield b""

        async def app(request: Request) -> Response:
            return Response(body=pieces())

        async with served(app) as client:
            assert (await client.ask(GET))[0] == 500

    async def test_a_stream_that_fails_later_breaks_the_connection(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"hello"
            raise ValueError("later")

        async def app(request: Request) -> Response:
            return Response(body=pieces())

        async with served(app) as client:
            await client.send(GET)
            await client.head()
            with pytest.raises(trio.BrokenResourceError):
                await client.rest()
        assert "later" in caplog.text

    async def test_a_piece_that_is_no_bytes_breaks_the_connection(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def pieces() -> AsyncIterator[Any]:
            yield b"hello"
            yield 5

        async def app(request: Request) -> Response:
            return Response(body=pieces())

        async with served(app) as client:
            await client.send(GET)
            await client.head()
            with pytest.raises(trio.BrokenResourceError):
                await client.rest()

    async def test_a_request_error_of_the_application_is_answered_by_its_status(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(request: Request) -> Response:
            raise RequestError(422, "no such thing")

        async with served(app) as client:
            assert (await client.ask(GET))[0] == 422
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    async def test_a_client_that_vanishes_within_a_body_leaves_no_error(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(request: Request) -> Response:
            async with trio.open_nursery() as nursery:  # wraps what happens in a group
                nursery.start_soon(request.read)
            return Response()

        async with served(app) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
            await client.stream.send_eof()
            assert (await client.response())[0] == 400
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    async def test_cancelled_between_two_pieces_it_is_no_clean_end(self, autojump_clock: Clock) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"hello"
            await trio.sleep_forever()

        async def app(request: Request) -> Response:
            return Response(body=pieces())

        ours, theirs = memory_transports()
        serving = trio.CancelScope()

        async def serve() -> None:
            with serving:
                await HTTPHandler(app)(theirs)

        async with trio.open_nursery() as nursery, Stream.of(ours) as stream:
            nursery.start_soon(serve)
            client = Client(stream)
            await client.send(b"GET / HTTP/1.0\r\n\r\n")
            await client.head()
            serving.cancel()
            with pytest.raises(trio.BrokenResourceError):
                await client.rest()

    async def test_the_file_of_a_response_is_closed_sent_or_not(self, autojump_clock: Clock) -> None:
        file = io.BytesIO(b"hello")

        async def app(request: Request) -> Response:
            return Response(headers={"Content-Length": "7"}, body=FileBody(file, 0, 5))

        async with served(app) as client:
            assert (await client.ask(GET))[0] == 500
        assert file.closed


def test_the_refusal_is_a_whole_answer() -> None:
    assert HTTPHandler.refusal.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nconnection: close\r\n" in HTTPHandler.refusal
    assert HTTPHandler.refusal.endswith(b"\r\n\r\n503 Service Unavailable\n")
