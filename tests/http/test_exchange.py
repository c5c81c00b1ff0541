"""One request and its answer, when the application, the client or both do something odd: what the client sees."""

from __future__ import annotations

import gc
import logging
import warnings
import weakref
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from trio.abc import Clock

from asyncnet.http import ASGI, ClientGone, HTTPHandler, Request, Response, Upgrade
from asyncnet.http.lifespan import Receive, Scope, Send
from asyncnet.http.server import Answered
from asyncnet.stream import Stream
from asyncnet.testing import stream_pair
from tests.http.client import GET, Client, echo, hello, served
from tests.http.test_asgi_failures import begins, piece

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
OFFER = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"


def complaints(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


class TestClientsThatLeave:
    async def test_an_application_that_was_told_so_need_not_respond(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As those do that wait for events, and end when nobody is there to hear of them."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async with served(ASGI(app)) as client:
            await client.send(GET)
            await trio.testing.wait_all_tasks_blocked()
            await client.stream.send_eof()
            assert await client.rest() == b""
        assert not complaints(caplog)

    async def test_several_tasks_may_wait_for_it_and_the_response_ends_all_waits(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            async with trio.open_nursery() as nursery:
                giving_up = trio.CancelScope()

                @nursery.start_soon
                async def give_up() -> None:
                    with giving_up:
                        await receive()

                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(receive)
                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                giving_up.cancel()
                await trio.sleep(1)
                with trio.CancelScope() as cancelled:  # as Starlette asks whether somebody is there
                    cancelled.cancel()
                    await receive()
                await send(begins())
                await send(piece(b"hello"))

        async with served(ASGI(app)) as client:
            with trio.fail_after(10):
                assert [(await client.ask(GET))[2] for _ in range(2)] == [b"hello"] * 2

    async def test_all_who_wait_for_it_are_told(self, autojump_clock: Clock) -> None:
        told = 0

        async def app(request: Request) -> Response:
            async def wait() -> None:
                nonlocal told
                await request.wait_gone()
                told += 1

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(wait)
            return Response()

        async with served(app) as client:
            await client.send(GET)
            await trio.sleep(1)
        await trio.testing.wait_all_tasks_blocked()
        assert told == 3

    @pytest.mark.parametrize("size", [100_000, 1_000_000])
    async def test_one_that_never_reads_is_cut_off_and_that_is_no_failure_of_the_application(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture, size: int
    ) -> None:
        async def app(request: Request) -> Response:
            return Response(body=bytes(size))

        ours, theirs = stream_pair(capacity=1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HTTPHandler(app), theirs)
            await ours.send_all(GET)
            await trio.sleep(theirs.timeouts.send + 1)
            assert theirs.is_closed
            with pytest.raises(trio.BrokenResourceError):
                await Client(ours).rest()
        assert not complaints(caplog)

    async def test_a_send_that_the_application_gave_up_breaks_the_connection_at_once(
        self, autojump_clock: Clock
    ) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(begins())
            with trio.move_on_after(1):
                await send(piece(bytes(1_000_000)))

        for headers in ([], [(b"content-length", b"1000000")]):
            async with served(ASGI(app)) as client:
                await client.send(GET)
                await trio.sleep(2)
                began = trio.current_time()
                with pytest.raises(trio.BrokenResourceError):
                    await client.rest()
                assert trio.current_time() - began < 5, headers

    async def test_nothing_is_left_of_a_request_on_a_connection_that_waits(self, autojump_clock: Clock) -> None:
        """Idle connections are many: no exchange, request, body or response stays, and no cycle for the collector."""
        seen: list[weakref.ref[object]] = []

        async def app(request: Request) -> Response:
            response = Response.text((await request.read()).decode())
            assert request._exchange is not None
            seen.append(weakref.ref(request._exchange))
            return response

        gc.disable()
        try:
            async with served(app) as client:
                for data, count in (
                    (GET, 1),
                    (GET + GET, 2),
                    (POST + b"Content-Length: 5\r\n\r\nhello", 1),
                    (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 1),
                ):
                    await client.send(data)
                    for _ in range(count):
                        await client.response()
                    await trio.testing.wait_all_tasks_blocked()
                    assert [ref() for ref in seen] == [None] * len(seen)
        finally:
            gc.enable()
        assert len(seen) == 5


class TestFailuresBehindTheResponse:
    async def test_the_response_still_arrives(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        """Closing at once, with bytes of the client's unread, would destroy it on its way."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(begins())
            await send(piece(b"hello"))
            raise ValueError("in the background")

        async with served(ASGI(app)) as client:
            await client.send(POST + b"Content-Length: 100000\r\n\r\n" + bytes(60_000))
            assert (await client.response())[2] == b"hello"
            await client.send(bytes(40_000))
            assert await client.rest() == b""
        assert "in the background" in caplog.text


class TestBodiesOfResponses:
    async def test_an_iterable_whose_iterator_is_a_generator_has_that_closed(self, autojump_clock: Clock) -> None:
        """Trio warns of those that are left to the garbage collector."""
        closed = trio.Event()

        class Pieces:
            async def __aiter__(self) -> AsyncIterator[bytes]:
                try:
                    while True:
                        yield bytes(100_000)  # nobody reads this
                finally:
                    with trio.move_on_after(1, shield=True):
                        await trio.sleep(0.5)
                        closed.set()

        async def app(request: Request) -> Response:
            return Response(body=Pieces())

        ours, theirs = stream_pair()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(HTTPHandler(app), theirs)
                await ours.send_all(GET)
                await trio.sleep(1)
                nursery.cancel_scope.cancel()
            gc.collect()
        assert closed.is_set()
        assert not warned


class TestUpgrades:
    @staticmethod
    async def app(request: Request) -> Response:
        async def shout(stream: Stream) -> None:
            while data := await stream.receive_some():
                await stream.send_all(data.upper())

        return Upgrade("x", shout)

    async def test_what_was_sent_behind_the_request_is_the_other_protocols(self, autojump_clock: Clock) -> None:
        async with served(self.app) as client:
            await client.send(OFFER + b"hello")
            status, headers = await client.head()
            assert (status, headers["upgrade"], headers["connection"]) == (101, "x", "upgrade")
            assert await client.stream.receive_exactly(5) == b"HELLO"
            await client.stream.send_eof()
            assert await client.rest() == b""

    @pytest.mark.parametrize(
        "head",
        [
            GET,
            GET.replace(b"1.1", b"1.0"),
            OFFER.replace(b"1.1", b"1.0"),
            OFFER.replace(b"Connection: Upgrade", b"Connection: keep-alive"),
        ],
    )
    async def test_nobody_who_has_not_offered_it_is_answered_101(
        self, autojump_clock: Clock, head: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with served(self.app) as client:
            assert (await client.ask(head))[0] == 500

    @pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n0"])
    async def test_an_unread_body_is_never_taken_for_the_other_protocol(
        self, autojump_clock: Clock, framing: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with served(self.app) as client:
            assert (await client.ask(OFFER[:-2] + framing))[0] == 500

    @pytest.mark.parametrize("cancelled", [False, True])
    async def test_one_that_fails_breaks_the_connection(
        self, autojump_clock: Clock, cancelled: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(request: Request) -> Response:
            async def fail(stream: Stream) -> None:
                await stream.send_all(b"part")
                await trio.sleep(1)
                raise ValueError("half way")

            return Upgrade("x", fail)

        ours, theirs = stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HTTPHandler(app), theirs)
            client = Client(ours)
            await client.send(OFFER)
            assert (await client.head())[0] == 101
            assert await ours.receive_some() == b"part"
            if cancelled:
                nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), pytest.raises(trio.BrokenResourceError):
                await client.rest()
        assert ("half way" in caplog.text) == (not cancelled)


class TestOddHeads:
    async def test_an_absolute_targets_host_is_the_only_one(self, autojump_clock: Clock) -> None:
        """RFC 9112 section 3.2.2: what the Host field says is ignored, by whoever looks at it."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(begins())
            await send(piece(b"|".join(value for name, value in scope["headers"] if name == b"host")))

        for target, host in (("http://b:81/x", b"b:81"), ("HTTPS://[::1]?y=http://c/", b"[::1]"), ("/http://b", b"a")):
            async with served(ASGI(app)) as client:
                assert (await client.ask(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()))[2] == host

    async def test_all_expectations_count(self, autojump_clock: Clock) -> None:
        for fields in (b"Expect: tea\r\nExpect: 100-continue\r\n", b"Expect: 100-continue\r\nExpect: tea\r\n"):
            async with served(hello) as client:
                assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"))[0] == 417

    async def test_a_body_that_is_announced_too_large_is_logged_with_its_request(self, autojump_clock: Clock) -> None:
        log: list[Answered] = []
        async with served(echo, access_log=log.append) as client:
            await client.send(b"HEAD /x HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n")
            assert (await client.head())[0] == 413
            assert await client.rest() == b""
        (answered,) = log
        assert answered.exchange is not None
        assert (answered.exchange.method, answered.exchange.target, answered.status) == ("HEAD", b"/x", 413)


async def test_an_application_that_sends_to_a_client_that_is_gone_gets_an_oserror(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(begins())
        try:
            await send(piece(bytes(10_000_000)))
        except OSError as error:
            raised.append(error)
            raise

    async with served(ASGI(app)) as client:
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.abort()
    await trio.testing.wait_all_tasks_blocked()
    assert isinstance(raised[0], ClientGone)
    assert not complaints(caplog)
