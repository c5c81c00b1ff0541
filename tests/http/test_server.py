"""HTTPHandler over memory streams, in virtual time: what a client sends, and what it sees."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from trio.abc import Clock

from asyncnet.http.limits import HTTPLimits, HTTPTimeouts
from asyncnet.http.messages import Request, Response
from asyncnet.http.server import HTTPHandler
from asyncnet.stream import Stream
from tests.http.client import GET, Client, echo, hello, say_target, served

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


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

    async def test_http_1_0_is_kept_alive_only_where_it_is_asked_for(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            for _ in range(2):
                _, headers, body = await client.ask(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
                assert (headers["connection"], body) == ("keep-alive", b"hello")
            _, headers, _ = await client.ask(b"GET / HTTP/1.0\r\n\r\n")
            assert headers["connection"] == "close"
            assert await client.rest() == b""

    async def test_a_stream_of_unknown_length_ends_an_http_1_0_connection(self, autojump_clock: Clock) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"hello"

        async def app(request: Request) -> Response:
            return Response(body=pieces())

        async with served(app) as client:
            _, headers, body = await client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (headers["connection"], body) == ("close", b"hello")
            assert "transfer-encoding" not in headers

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

    @pytest.mark.parametrize("pieces", [(POST + b"\r\n",), (POST, b"\r\n"), (GET, b"\r\n")])
    async def test_a_line_end_behind_a_request_begins_no_other(
        self, autojump_clock: Clock, pieces: tuple[bytes, ...]
    ) -> None:
        """RFC 9112 section 2.2: old clients send one."""
        async with served(hello) as client:
            for piece in pieces:
                await client.send(piece)
                await trio.testing.wait_all_tasks_blocked()
            await client.response()
            await trio.sleep(HTTPTimeouts().keep_alive - 1)
            assert (await client.ask(GET))[0] == 200
            await client.send(b"\r\n")
            started = trio.current_time()
            assert await client.rest() == b""
            assert trio.current_time() - started == pytest.approx(HTTPTimeouts().keep_alive)

    async def test_line_ends_keep_no_connection_open(self, autojump_clock: Clock) -> None:
        async with served(hello) as client:
            await client.ask(GET)
            await client.send(b"\r\n")
            await trio.sleep(HTTPTimeouts().keep_alive - 1)
            assert (await client.ask(b"\r\n"))[0] == 400
            assert await client.rest() == b""

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


def test_the_refusal_is_a_whole_answer() -> None:
    assert HTTPHandler.refusal.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nconnection: close\r\n" in HTTPHandler.refusal
    assert HTTPHandler.refusal.endswith(b"\r\n\r\n503 Service Unavailable\n")
