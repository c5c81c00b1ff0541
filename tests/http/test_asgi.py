"""ASGI applications over HTTP: what the application is told, and what the client sees."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from asyncnet.errors import ConfigurationError
from asyncnet.http import ASGI, ClientGone, HTTPHandler
from asyncnet.http.lifespan import Message, Receive, Scope, Send
from asyncnet.http.limits import HTTPLimits
from asyncnet.testing import stream_pair
from asyncnet.transports.address import Address
from tests.http.client import GET, Client, served

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def say(send: Send, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def scopes_of(head: bytes, **options: Any) -> AsyncIterator[Scope]:
    """The scope that an application gets for `head`."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await say(send, b"")

    async with served(ASGI(app), **options) as client:
        assert (await client.ask(head))[0] == 200
        yield seen[0]


class TestScope:
    async def test_it_says_what_was_asked(self, autojump_clock: Clock) -> None:
        head = b"GET /a%20b/%C3%A4?x=%20&y HTTP/1.1\r\nHost: example.com\r\nX-A: 1\r\nx-a: 2\r\n\r\n"
        async with scopes_of(head) as scope:
            assert scope["type"] == "http"
            assert scope["asgi"]["version"] == "3.0"
            assert (scope["http_version"], scope["method"], scope["scheme"]) == ("1.1", "GET", "http")
            assert (scope["path"], scope["raw_path"]) == ("/a b/ä", b"/a%20b/%C3%A4")
            assert (scope["query_string"], scope["root_path"]) == (b"x=%20&y", "")
            assert scope["headers"] == [(b"host", b"example.com"), (b"x-a", b"1"), (b"x-a", b"2")]
            assert "state" not in scope

    @pytest.mark.parametrize(
        ("target", "path", "query"),
        [
            (b"http://example.com/x?y", "/x", b"y"),
            (b"http://example.com?y=/z", "/", b"y=/z"),
            (b"http://example.com", "/", b""),
            (b"/%FF", "/\ufffd", b""),
            (b"//x//y", "//x//y", b""),
        ],
    )
    async def test_each_form_of_target(self, autojump_clock: Clock, target: bytes, path: str, query: bytes) -> None:
        async with scopes_of(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n") as scope:
            assert (scope["path"], scope["query_string"]) == (path, query)

    async def test_it_says_http_1_0(self, autojump_clock: Clock) -> None:
        async with scopes_of(b"GET / HTTP/1.0\r\n\r\n") as scope:
            assert scope["http_version"] == "1.0"

    async def test_it_names_both_ends(self, autojump_clock: Clock) -> None:
        seen: list[Scope] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope)
            await say(send, b"")

        for client_end, server_end in (
            (Address("192.0.2.1", 40000), Address("192.0.2.2", 80)),
            (Address(path=""), Address(path="/run/app.sock")),
        ):
            ours, theirs = stream_pair(client=client_end, server=server_end)
            async with trio.open_nursery() as nursery, ours:
                nursery.start_soon(HTTPHandler(ASGI(app)), theirs)
                await Client(ours).ask(GET)
                await ours.aclose()
        assert (seen[0]["client"], seen[0]["server"]) == (("192.0.2.1", 40000), ("192.0.2.2", 80))
        assert (seen[1]["client"], seen[1]["server"]) == (None, ("/run/app.sock", None))

    async def test_one_requests_changes_to_its_scope_do_not_reach_the_next(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert "mine" not in scope
            assert "mine" not in scope["extensions"]
            scope["mine"] = scope["extensions"]["mine"] = True
            scope["headers"].append((b"x", b"y"))
            await say(send, str(len(scope["headers"])).encode())

        async with served(ASGI(app)) as client:
            assert [(await client.ask(GET))[2] for _ in range(2)] == [b"2", b"2"]


class TestRequestBody:
    @pytest.mark.parametrize(
        ("head", "body"),
        [(GET, b""), (POST, b"hello"), (CHUNKED, b"5\r\nhello\r\n0\r\n\r\n")],
    )
    async def test_it_comes_in_pieces_that_end(self, autojump_clock: Clock, head: bytes, body: bytes) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            whole = b""
            while (message := await receive())["type"] == "http.request":
                whole += message["body"]
                if not message["more_body"]:
                    break
            await say(send, whole)

        async with served(ASGI(app)) as client:
            for size in (1, 3, 100):
                await client.send(head)
                for at in range(0, len(body), size):
                    await client.send(body[at : at + size])
                    await trio.testing.wait_all_tasks_blocked()
                assert (await client.response())[2] == (b"hello" if body else b"")

    async def test_nobody_who_does_not_read_it_is_made_to(self, autojump_clock: Clock) -> None:
        async with served(ASGI(hello)) as client:
            assert (await client.ask(POST + b"hello"))[2] == b"hello"
            assert (await client.ask(GET))[2] == b"hello"

    async def test_a_body_that_breaks_the_rules_looks_like_a_disconnect_and_is_answered_400(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            message = await receive()
            assert message == {"type": "http.disconnect"}
            await say(send, b"too late")

        async with served(ASGI(app)) as client:
            assert (await client.ask(CHUNKED + b"x\r\n"))[0] == 400
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    async def test_a_body_past_the_limit_is_answered_413(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async with served(ASGI(app), limits=HTTPLimits(body=4)) as client:
            assert (await client.ask(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"))[0] == 413


class TestResponse:
    async def test_one_message_has_a_length(self, autojump_clock: Clock) -> None:
        async with served(ASGI(hello)) as client:
            status, headers, body = await client.ask(GET)
            assert (status, headers["content-length"], body) == (200, "5", b"hello")
            assert "transfer-encoding" not in headers
            assert headers["date"].endswith("GMT")

    async def test_several_go_in_chunks(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 201, "headers": []})
            for piece in (b"one", b"", b"two"):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body"})

        async with served(ASGI(app)) as client:
            for _ in range(2):
                status, headers, body = await client.ask(GET)
                assert (status, headers["transfer-encoding"], body) == (201, "chunked", b"onetwo")

    async def test_a_piece_leaves_when_it_is_sent(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [[b"content-length", b"6"]]})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            await trio.sleep(5)
            await send({"type": "http.response.body", "body": b"two"})

        async with served(ASGI(app)) as client:
            began = trio.current_time()
            await client.send(GET)
            await client.head()
            assert await client.stream.receive_exactly(3) == b"one"
            assert trio.current_time() == began
            assert await client.stream.receive_exactly(3) == b"two"

    async def test_background_work_after_the_response_does_not_hold_it_back(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await say(send, b"done")
            await trio.sleep(60)

        async with served(ASGI(app)) as client:
            began = trio.current_time()
            assert (await client.ask(GET))[2] == b"done"
            assert trio.current_time() == began

    @pytest.mark.parametrize("status", [204, 304])
    async def test_a_status_without_content_has_none(self, autojump_clock: Clock, status: int) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b"nothing of this"})

        async with served(ASGI(app)) as client:
            _, headers, _ = await client.ask(GET)
            assert ("content-length" in headers) == (status == 304)
            assert (await client.ask(GET))[0] == status

    async def test_head_has_the_headers_and_no_body(self, autojump_clock: Clock) -> None:
        async with served(ASGI(hello)) as client:
            _, headers, _ = await client.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", to_head=True)
            assert headers["content-length"] == "5"
            assert (await client.ask(GET))[2] == b"hello"

    async def test_trailers_follow_the_body(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert "http.response.trailers" in scope["extensions"]
            await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
            await send({"type": "http.response.body", "body": b"hello"})
            await send({"type": "http.response.trailers", "headers": [(b"X-A", b"1")], "more_trailers": True})
            await send({"type": "http.response.trailers", "headers": [(b"x-b", b"2")]})

        async with served(ASGI(app)) as client:
            await client.send(GET)
            await client.head()
            expected = b"5\r\nhello\r\n0\r\nx-a: 1\r\nx-b: 2\r\n\r\n"
            assert await client.stream.receive_exactly(len(expected)) == expected

    async def test_early_hints_come_first(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
            await say(send, b"page")

        async with served(ASGI(app)) as client:
            await client.send(GET)
            status, headers = await client.head()
            assert (status, headers["link"]) == (103, "</a.css>; rel=preload")
            assert (await client.response())[2] == b"page"

    async def test_a_file_is_sent_by_its_path(self, autojump_clock: None, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(bytes(range(256)) * 1000)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.pathsend", "path": str(path)})

        async with served(ASGI(app)) as client:
            _, headers, body = await client.ask(GET)
            assert (headers["content-length"], body) == ("256000", path.read_bytes())


class TestFailing:
    @pytest.mark.parametrize(
        "messages",
        [
            [],
            [{"type": "http.response.start", "status": 200}],
            [{"type": "http.response.body", "body": b"x"}],
            [{"type": "http.response.start", "status": 200}, {"type": "http.response.start", "status": 200}],
            [{"type": "http.response.odd"}],
            [{"type": "http.response.start", "status": 99}, {"type": "http.response.body"}],
            [
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]},
                {"type": "http.response.body", "body": b"four"},
            ],
            [
                {"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\r\nset-cookie: b")]},
                {"type": "http.response.body"},
            ],
            [
                {"type": "http.response.start", "status": 200, "headers": [(b"x: y\r\nz", b"a")]},
                {"type": "http.response.body"},
            ],
            [
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1\r\nx: y")]},
                {"type": "http.response.body"},
            ],
        ],
    )
    async def test_what_breaks_the_protocol_is_500(
        self, autojump_clock: Clock, messages: list[Message], caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for message in messages:
                await send(message)

        async with served(ASGI(app)) as client:
            status, headers, _ = await client.ask(GET)
            assert status == 500
            assert "set-cookie" not in headers
        assert "failed on GET /" in caplog.text

    async def test_a_response_that_stops_in_the_middle_breaks_the_connection(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})

        async with served(ASGI(app)) as client:
            await client.send(GET)
            await client.head()
            with pytest.raises(trio.BrokenResourceError):
                await client.rest()
        assert "before the response had ended" in caplog.text

    async def test_more_bytes_than_promised_break_the_connection(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
            await send({"type": "http.response.body", "body": b"on", "more_body": True})
            await send({"type": "http.response.body", "body": b"etwo"})

        async with served(ASGI(app)) as client:
            await client.send(GET)
            await client.head()
            with pytest.raises(trio.BrokenResourceError):
                await client.rest()


class TestClientsThatLeave:
    async def test_receive_says_so_once_the_body_has_been_received(self, autojump_clock: Clock) -> None:
        told = trio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert (await receive())["type"] == "http.request"
            assert (await receive())["type"] == "http.disconnect"
            told.set()

        async with served(ASGI(app)) as client:
            await client.send(GET)
            await trio.testing.wait_all_tasks_blocked()
            await client.stream.aclose()
            await told.wait()

    async def test_a_receive_whose_scope_is_cancelled_already_still_tells(self, autojump_clock: Clock) -> None:
        """As Starlette's `Request.is_disconnected` asks."""
        answers: list[Message | None] = []
        asked = trio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for _ in range(3):
                message = None
                with trio.CancelScope() as cancelled:
                    cancelled.cancel()
                    message = await receive()
                answers.append(message)
                await trio.sleep(1)
            asked.set()

        async with served(ASGI(app)) as client:
            await client.send(GET)
            await trio.sleep(1.5)
            await client.stream.aclose()
            await asked.wait()
        assert answers == [
            {"type": "http.request", "body": b"", "more_body": False},
            None,
            {"type": "http.disconnect"},
        ]

    async def test_send_raises_an_oserror_and_the_log_keeps_quiet(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        raised: list[BaseException] = []
        ended = trio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await send({"type": "http.response.start", "status": 200})
                while True:
                    await send({"type": "http.response.body", "body": bytes(1000), "more_body": True})
                    await trio.sleep(1)
            except OSError as error:
                raised.append(error)
                raise
            finally:
                ended.set()

        async with served(ASGI(app)) as client:
            await client.send(GET)
            await client.head()
            await client.stream.aclose()
            await ended.wait()
        assert isinstance(raised[0], ClientGone)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    async def test_the_end_of_the_response_ends_a_receive_that_waits(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def watch() -> None:
                assert (await receive())["type"] == "http.request"
                assert (await receive())["type"] == "http.disconnect"

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                await trio.sleep(1)
                await say(send, b"done")

        async with served(ASGI(app)) as client:
            for _ in range(2):
                assert (await client.ask(GET))[2] == b"done"

    async def test_what_comes_while_it_is_watched_for_is_the_next_request(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            with trio.move_on_after(1):
                await receive()
            await say(send, scope["path"].encode())

        async with served(ASGI(app)) as client:
            await client.send(GET)
            await trio.sleep(0.5)
            await client.send(GET.replace(b"/", b"/2", 1) + GET.replace(b"/", b"/3", 1))
            assert [(await client.response())[2] for _ in range(3)] == [b"/", b"/2", b"/3"]

    async def test_a_flood_behind_the_request_is_not_taken_in(self, autojump_clock: Clock) -> None:
        held: list[int] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            with trio.move_on_after(10):
                await receive()
            held.append(theirs.buffered)

        ours, theirs = stream_pair(capacity=10_000)
        async with trio.open_nursery() as nursery, ours:
            nursery.start_soon(HTTPHandler(ASGI(app)), theirs)
            await ours.send_all(GET)
            with trio.move_on_after(5):
                await ours.send_all(bytes(10_000_000))
            await trio.sleep(10)
            await ours.abort()
        assert 0 < held[0] <= 2 * 65536

    async def test_a_slow_reader_holds_the_application_back(self, autojump_clock: Clock) -> None:
        sent = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal sent
            await send({"type": "http.response.start", "status": 200})
            while True:
                await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
                sent += 10_000

        ours, theirs = stream_pair(capacity=10_000)
        async with trio.open_nursery() as nursery, ours:
            nursery.start_soon(HTTPHandler(ASGI(app)), theirs)
            await ours.send_all(GET)
            await trio.sleep(30)
            assert sent <= 100_000
            await ours.abort()

    async def test_what_it_had_is_let_go_as_soon_as_its_client_has_gone(self, autojump_clock: Clock) -> None:
        """Starlette closes no stream whose client has gone: it ends when nobody holds it any more."""
        ended: list[bool] = []

        class Held:
            def __del__(self) -> None:
                ended.append(True)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            held = Held()
            await send({"type": "http.response.start", "status": 200})
            try:
                while held:
                    await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
            except OSError:
                raise ValueError("an error of its own") from None

        ours, theirs = stream_pair(capacity=10_000)
        gc.collect()
        gc.disable()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(HTTPHandler(ASGI(app)), theirs)
                await ours.send_all(GET)
                await trio.sleep(1)
                assert not ended
                await ours.abort()
            assert ended
        finally:
            gc.enable()


class TestLifespan:
    async def test_it_starts_before_and_ends_after_and_its_state_reaches_requests(self, autojump_clock: Clock) -> None:
        events: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                assert (await receive())["type"] == "lifespan.startup"
                scope["state"]["db"] = "open"
                events.append("started")
                await send({"type": "lifespan.startup.complete"})
                assert (await receive())["type"] == "lifespan.shutdown"
                await trio.sleep(5)
                events.append("stopped")
                await send({"type": "lifespan.shutdown.complete"})
            else:
                assert scope["state"] == {"db": "open"}
                scope["state"]["mine"] = 1
                events.append("request")
                await say(send, b"")

        handler = HTTPHandler(ASGI(app))
        ours, theirs = stream_pair()
        async with handler, trio.open_nursery() as nursery:
            nursery.start_soon(handler, theirs)
            async with ours:
                for _ in range(2):
                    await Client(ours).ask(GET)
        assert events == ["started", "request", "request", "stopped"]

    async def test_an_application_without_one_is_served(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["type"] == "http"
            assert "state" not in scope
            await say(send, b"")

        handler = HTTPHandler(ASGI(app))
        ours, theirs = stream_pair()
        async with handler, trio.open_nursery() as nursery:
            nursery.start_soon(handler, theirs)
            async with ours:
                assert (await Client(ours).ask(GET))[0] == 200

    async def test_an_application_that_cannot_start_says_why(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

        with pytest.raises(ConfigurationError, match="no database"):
            async with ASGI(app):
                pass

    async def test_a_traceback_for_a_reason_is_logged_and_its_last_line_is_the_reason(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            try:
                raise ValueError("no database")
            except ValueError:  # as Starlette does it
                await send({"type": "lifespan.startup.failed", "message": traceback.format_exc()})
                raise

        with pytest.raises(ConfigurationError) as caught:
            async with ASGI(app):
                pass
        assert str(caught.value) == "the application did not start: ValueError: no database"
        (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert record.getMessage().startswith("the application did not start:\nTraceback")

    async def test_one_that_must_have_a_lifespan_and_has_none_does_not_start(self, autojump_clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raise ValueError("what is that")

        with pytest.raises(ConfigurationError, match="what is that"):
            async with ASGI(app, lifespan="on"):
                pass

    async def test_one_that_fails_later_is_logged_and_served_on(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            raise ValueError("later")

        async with ASGI(app):
            await trio.sleep(1)
        assert "later" in caplog.text


# Starlette closes no stream whose client has gone: it is dropped, and Trio warns of that.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator", "ignore:Async generator:ResourceWarning")
async def test_starlette_tells_a_client_that_has_gone(autojump_clock: Clock) -> None:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    async def poll(request: Request) -> Response:
        while not await request.is_disconnected():
            await trio.sleep(1)
        return PlainTextResponse("nobody reads this")

    async def stream(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await trio.sleep(1)

        return StreamingResponse(pieces())

    app = ASGI(Starlette(routes=[Route("/poll", poll), Route("/stream", stream)]))
    for path in (b"/poll", b"/stream"):
        ours, theirs = stream_pair()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(HTTPHandler(app), theirs)
                await ours.send_all(GET.replace(b"/", path, 1))
                await trio.sleep(2.5)
                await ours.aclose()
