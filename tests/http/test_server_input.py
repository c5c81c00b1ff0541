"""HTTPHandler and what clients send: bodies read and unread, and the rows of the attacks page."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing
from trio.abc import Clock

from asyncnet.http.limits import HTTPLimits, HTTPTimeouts
from asyncnet.http.messages import Request, Response
from tests.http.client import GET, echo, hello, served


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
            await client.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
            with pytest.raises(Exception, match="has been answered"):
                await kept[0].read()


class TestTrailers:
    async def test_the_application_finds_them_behind_the_body(self, autojump_clock: Clock) -> None:
        async def app(request: Request) -> Response:
            assert len(request.trailers) == 0
            await request.read()
            return Response.json(list(request.trailers))

        async with served(app) as client:
            data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            _, _, body = await client.ask(data + b"1\r\nx\r\n0\r\nX-Check: 1 \r\nx-more:2\r\n\r\n")
        assert json.loads(body) == [["x-check", "1"], ["x-more", "2"]]

    async def test_what_an_application_adds_to_them_no_other_request_finds(self, autojump_clock: Clock) -> None:
        async def app(request: Request) -> Response:
            await request.read()
            trailers = request.trailers
            trailers.add("x-mine", "1")
            return Response.text(str(len(trailers)))

        async with served(app) as client:
            for _ in range(2):
                head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
                assert (await client.ask(head + b"x"))[2] == b"1"


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
