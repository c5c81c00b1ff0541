"""The HTTP/1.1 rows of the attacks page, as a peer sees them: raw bytes, over both engines, cut in every way.

The tables are in `attacks.py`. What is refused is answered once, with `connection: close`; nothing behind it is ever
looked at.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from asyncnet import serve
from asyncnet.http import ASGI, HTTPHandler, Request, Response
from asyncnet.http.engine import Engine, H11Engine
from asyncnet.http.httptools_engine import HttptoolsEngine
from asyncnet.http.lifespan import Receive, Scope, Send
from asyncnet.http.limits import HTTPTimeouts
from asyncnet.testing import MemoryListener, stream_pair
from tests.http.attacks import CHUNKED, CHUNKS, CL, FRAMING, HARMLESS, HEADS, SMUGGLED, Row
from tests.http.client import GET, Client, echo, served

ENGINES: list[Callable[[], Engine]] = [H11Engine, HttptoolsEngine]


async def serve_all(
    engine: Engine, data: bytes, *, piece: int | None = None
) -> tuple[list[tuple[int, bool]], list[tuple[str, bytes]]]:
    """Send `data` in pieces and end: the responses (status, and whether it announced the end), and what was served."""
    served_requests: list[tuple[str, bytes]] = []

    async def app(request: Request) -> Response:
        body = await request.read()
        served_requests.append((request.path, body))
        return Response.text("served")

    ours, theirs = stream_pair(capacity=1 << 20)
    async with trio.open_nursery() as nursery, ours:
        nursery.start_soon(HTTPHandler(app, engine=engine), theirs)
        for at in range(0, len(data), piece or len(data)):
            await ours.send_all(data[at : at + (piece or len(data))])
            if piece is not None:
                await trio.testing.wait_all_tasks_blocked()
        await ours.send_eof()
        output = await Client(ours).rest()  # raises if the connection is reset: the answer would be lost
    return responses_in(output), served_requests


def responses_in(output: bytes) -> list[tuple[int, bool]]:
    """Every byte of it belongs to a whole response."""
    found = []
    while output:
        head, _, output = output.partition(b"\r\n\r\n")
        status = re.match(rb"HTTP/1\.1 ([0-9]{3}) ", head)
        length = re.search(rb"\r\ncontent-length: ([0-9]+)", head)
        assert status is not None, output
        assert length is not None, output
        assert len(output) >= int(length[1])
        output = output[int(length[1]) :]
        found.append((int(status[1]), b"\r\nconnection: close" in head))
    return found


def rows(*tables: list[Row]) -> Any:
    return pytest.mark.parametrize(
        ("data", "status"), [pytest.param(row.data, row.status, id=row.name) for table in tables for row in table]
    )


@pytest.mark.parametrize("make_engine", ENGINES)
class TestSmuggling:
    @rows(FRAMING, CHUNKS, HEADS)
    async def test_it_is_refused_and_what_follows_is_never_looked_at(
        self, autojump_clock: Clock, make_engine: Callable[[], Engine], data: bytes, status: int
    ) -> None:
        for behind in (b"", SMUGGLED, b"\r\n" + SMUGGLED * 3):
            responses, requests = await serve_all(make_engine(), data + behind)
            assert responses == [(status, True)]
            assert requests == []

    @rows([row for row in FRAMING + CHUNKS + HEADS if len(row.data) < 1000])
    async def test_it_is_refused_however_it_is_cut(
        self, autojump_clock: Clock, make_engine: Callable[[], Engine], data: bytes, status: int
    ) -> None:
        for piece in (1, 7):
            assert await serve_all(make_engine(), data + SMUGGLED, piece=piece) == ([(status, True)], [])

    @rows(FRAMING, CHUNKS, HEADS)
    async def test_it_is_refused_as_the_second_request_as_well(
        self, autojump_clock: Clock, make_engine: Callable[[], Engine], data: bytes, status: int
    ) -> None:
        first = b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n"
        if data.startswith(b"\r\n"):
            first = first[:-2]  # the first line of these would be the end of it
            data = b"\r\n" + data
        responses, requests = await serve_all(make_engine(), first + data + SMUGGLED)
        assert responses == [(200, False), (status, True)]
        assert requests == [("/first", b"")]

    @rows(HARMLESS)
    async def test_what_is_no_attack_is_served_and_so_is_what_follows(
        self, autojump_clock: Clock, make_engine: Callable[[], Engine], data: bytes, status: int
    ) -> None:
        behind = b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n"
        for piece in (None, 1, 7):
            responses, requests = await serve_all(make_engine(), data + behind, piece=piece)
            assert responses == [(status, False), (200, False)]
            assert [path for path, _ in requests] == ["/", "/behind"]
            assert requests[0][1] in (b"", b"hello", SMUGGLED)


class TestResponseSplitting:
    @pytest.mark.parametrize(
        "field",
        [
            (b"x", b"a\r\nset-cookie: evil"),
            (b"x", b"a\nset-cookie: evil"),
            (b"x", b"a\rset-cookie: evil"),
            (b"x", b"a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
            (b"x", b"a\x00"),
            (b"x\r\nset-cookie", b"evil"),
            (b"set-cookie: evil\r\nx", b"a"),
            (b"set-cookie: evil; x", b"a"),
            (b"content-length: 0", b""),
            (b"x y", b"a"),
            (b"location", b"/\r\n\r\n<script>"),
            (b"date", b"a\r\nset-cookie: evil"),
            (b"connection", b"x\r\nset-cookie: evil"),
            (b"content-length", b"0\r\n\r\n"),
        ],
    )
    async def test_neither_kind_of_application_can_be_made_to_split_its_response(
        self, autojump_clock: Clock, field: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
    ) -> None:
        async def native(request: Request) -> Response:
            return Response.text("x", headers=[field])

        async def unchecked(request: Request) -> Response:
            response = Response.text("x")
            response.headers.raw.append(field)
            return response

        async def streamed(request: Request) -> Response:
            async def pieces() -> AsyncIterator[bytes]:
                yield b"x"

            response = Response(body=pieces())
            response.headers.raw.append(field)
            return response

        async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [field]})
            await send({"type": "http.response.body", "body": b"x"})

        apps: list[Any] = [native, unchecked, streamed, ASGI(asgi)]
        for app in apps:
            for request in (GET, GET.replace(b"1.1", b"1.0"), GET.replace(b"GET", b"HEAD")):
                async with served(app) as client:
                    await client.send(request + GET)
                    output = await client.rest()
                assert output.startswith(b"HTTP/1.1 500 ")
                assert output.count(b"HTTP/1.1") == 1
                assert b"evil" not in output
                assert b"script" not in output
        assert "failed on GET /" in caplog.text

    async def test_interim_responses_and_trailers_neither(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def hints(request: Request) -> Response:
            await request.inform(103, [("link", "</a>\r\n\r\nHTTP/1.1 200 OK")])
            return Response()

        async with served(hints) as client:
            await client.send(GET)
            assert (await client.rest()).startswith(b"HTTP/1.1 500 ")


class TestPipelines:
    async def test_ten_thousand_requests_in_one_go_are_answered_in_order_and_no_more(
        self, autojump_clock: Clock
    ) -> None:
        async def app(request: Request) -> Response:
            return Response.text(request.path)

        count = 10_100
        async with served(app) as client, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def flood() -> None:
                try:
                    for n in range(count):
                        await client.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n)
                except trio.BrokenResourceError:
                    pass

            for n in range(10_000):
                _, headers, body = await client.response()
                assert body == b"/%d" % n
            assert headers["connection"] == "close"
            assert await client.rest() == b""

    async def test_a_client_that_sends_and_never_reads_is_not_served_on(self, autojump_clock: Clock) -> None:
        """Its answers are not heaped up: the next request is not looked at before they have left."""
        answered = 0

        async def app(request: Request) -> Response:
            nonlocal answered
            answered += 1
            return Response.text("x" * 1000)

        ours, theirs = stream_pair(capacity=10_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HTTPHandler(app), theirs)
            with trio.move_on_after(theirs.timeouts.send - 1):
                await ours.send_all(GET * 10_000)
            assert answered < 100
            assert theirs.pending < 10_000
            await trio.sleep(5)
            assert theirs.is_closed
            await ours.abort()


class TestSlowPeers:
    @pytest.mark.parametrize(
        ("first", "drip", "seconds"),
        [
            (b"", b"", 10),
            (b"G", b"E", 10),
            (b"\r\n", b"", 10),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n", 10),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", b"x", 10.2),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 11),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"0", 10.2),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X:y\r\n", 11),
        ],
    )
    async def test_a_slow_loris_is_cut_off(
        self, autojump_clock: Clock, first: bytes, drip: bytes, seconds: float
    ) -> None:
        began = trio.current_time()
        async with served(echo) as client, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def send() -> None:
                if first:
                    await client.send(first)
                while drip:
                    await trio.sleep(1)
                    await client.send(drip)

            output = await client.rest()
            assert trio.current_time() - began == pytest.approx(seconds, abs=2.1)
            nursery.cancel_scope.cancel()
        assert (output == b"") if not first.strip() else output.startswith(b"HTTP/1.1 408 ")

    async def test_a_pause_between_requests_has_an_end_that_no_pipelined_request_moves(
        self, autojump_clock: Clock
    ) -> None:
        async with served(echo, timeouts=HTTPTimeouts(keep_alive=20)) as client:
            for requests in (1, 3):
                await client.send(GET * requests)
                for _ in range(requests):
                    await client.response()
                await trio.sleep(19)
            await client.ask(GET)
            began = trio.current_time()
            assert await client.rest() == b""
            assert trio.current_time() - began == 20


class TestExpectations:
    async def test_a_body_that_was_never_asked_for_does_not_become_a_request(self, autojump_clock: Clock) -> None:
        async def refuse(request: Request) -> Response:
            return Response.problem(403)

        async with served(refuse) as client:
            await client.send(CL + b" %d\r\nExpect: 100-continue\r\n\r\n" % len(SMUGGLED) + SMUGGLED)
            output = await client.rest()
        assert responses_in(output) == [(403, True)]

    async def test_nobody_waits_long_for_a_body_that_never_comes(self, autojump_clock: Clock) -> None:
        async with served(echo) as client:
            began = trio.current_time()
            await client.send(CL + b" 5\r\nExpect: 100-continue\r\n\r\n")
            assert (await client.head())[0] == 100
            assert (await client.response())[0] == 408
            assert trio.current_time() - began == HTTPTimeouts().body_grace

    async def test_the_interim_answer_never_comes_behind_the_final_one(self, autojump_clock: Clock) -> None:
        async def late(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            with trio.move_on_after(1):
                await receive()
            await send({"type": "http.response.body", "body": b"y"})

        async with served(ASGI(late)) as client:
            await client.send(CL + b" 5\r\nExpect: 100-continue\r\n\r\n")
            output = await client.rest()
        assert responses_in(output) == [(200, True)]
        assert output.endswith(b"\r\n\r\nxy")


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("HEAD", 404), ("GET", 204), ("GET", 304), ("HEAD", 204), ("HEAD", 304)]
)
async def test_no_body_leaves_where_none_may_be(autojump_clock: Clock, method: str, status: int) -> None:
    """Else the client takes it for the answer to its next request."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    async def native(request: Request) -> Response:
        return Response(status, body=b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def streamed(request: Request) -> Response:
        return Response(status, body=pieces())

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": b"HTTP/1.1 200 OK", "more_body": True})
        await send({"type": "http.response.body", "body": b"\r\n\r\n"})

    apps: list[Any] = [native, streamed, ASGI(asgi)]
    for app in apps:
        async with served(app) as client:
            await client.send(GET.replace(b"GET", method.encode()) * 3)
            await client.stream.send_eof()
            output = await client.rest()
        assert output.count(b"HTTP/1.1") == 3
        assert output.count(b"\r\n\r\n") == 3


class TestDrains:
    @pytest.mark.parametrize("warm", [False, True])  # the first request of a connection, and a later one
    @pytest.mark.parametrize(
        ("sent", "more", "status"),
        [
            (b"", b"", None),
            (b"GET / HT", b"TP/1.1\r\nHost: a\r\n\r\n", 200),
            (CL + b" 5\r\n\r\nhe", b"llo", 200),
            (CHUNKED + b"5\r\nhe", b"llo\r\n0\r\n\r\n", 200),
            (CHUNKED + b"5\r\nhe", b"llo\r\n0\r\nHost: a\r\n\r\n", 400),
            (GET, b"", 200),
            (GET + GET, GET, 200),
        ],
    )
    async def test_it_ends_what_waits_and_lets_finish_what_has_begun(
        self, autojump_clock: Clock, warm: bool, sent: bytes, more: bytes, status: int | None
    ) -> None:
        async def app(request: Request) -> Response:
            body = await request.read()
            await trio.sleep(2)
            return Response.text(body.decode())

        listener = MemoryListener()
        async with trio.open_nursery() as nursery:
            service = await nursery.start(serve, HTTPHandler(app), listener)
            client = Client(await listener.connect())
            if warm:
                await client.ask(GET)
            if sent:
                await client.send(sent)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(service.drain)
            await trio.testing.wait_all_tasks_blocked()
            if more:
                await client.send(more)
            if status is not None:
                got, headers, _ = await client.response()
                assert (got, headers["connection"]) == (status, "close")
            assert await client.rest() == b""
            await client.stream.aclose()

    async def test_a_response_under_way_gets_to_its_end_and_then_the_connection_closes(
        self, autojump_clock: Clock
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"x"
                await trio.sleep(1)

        async def app(request: Request) -> Response:
            return Response(body=pieces())

        listener = MemoryListener()
        async with trio.open_nursery() as nursery:
            service = await nursery.start(serve, HTTPHandler(app), listener)
            client = Client(await listener.connect())
            await client.send(GET)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(service.drain)
            assert (await client.response())[2] == b"xxx"
            assert await client.rest() == b""
            await client.stream.aclose()
