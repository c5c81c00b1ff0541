"""HTTPHandler when the application or the connection fails: what the client sees and what the log says."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from asyncnet.http.messages import FileBody, Request, Response
from asyncnet.http.server import HTTPHandler
from asyncnet.http.wire import RequestError
from asyncnet.stream import Stream
from asyncnet.transports.memory import memory_transports
from tests.http.client import GET, Client, served


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
