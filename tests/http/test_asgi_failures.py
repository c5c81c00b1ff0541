"""ASGI applications that break the rules and go on: the client sees a whole response, a 500 or a broken connection."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.abc import Clock

from asyncnet.http import ASGI
from asyncnet.http.lifespan import Message, Receive, Scope, Send
from tests.http.client import GET, served


def begins(headers: Any = (), **more: Any) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": headers, **more}


def piece(data: Any, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


class Sends:
    """An application that sends one message after the other, whatever `send` says."""

    def __init__(self, *messages: Message) -> None:
        self.messages = messages
        self.raised: list[Exception | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for message in self.messages:
            try:
                await send(message)
            except Exception as error:
                self.raised.append(error)
            else:
                self.raised.append(None)


async def test_headers_may_be_had_only_once(autojump_clock: Clock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        fields = [(b"content-type", b"text/x"), (b"connection", b"x")]
        await send(begins(field for field in fields))
        await send(piece(b"hello"))

    async with served(ASGI(app)) as client:
        for request in (GET, GET.replace(b"1.1", b"1.0")):
            _, headers, body = await client.ask(request)
            assert (headers["content-type"], body) == ("text/x", b"hello")


@pytest.mark.parametrize("body", ["text", None, 5])
async def test_a_body_that_is_no_bytes_is_500(
    autojump_clock: Clock, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(begins())
        await send(piece(body))

    async with served(ASGI(app)) as client:
        assert (await client.ask(GET))[0] == 500


async def test_after_a_body_that_was_none_an_application_may_still_answer(autojump_clock: Clock) -> None:
    async with served(ASGI(Sends(begins(), piece("text"), piece(b"hello")))) as client:
        for _ in range(2):
            assert (await client.ask(GET))[2] == b"hello"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"10")]])
async def test_whatever_holds_bytes_is_a_body(autojump_clock: Clock, kind: Any, headers: Any) -> None:
    for messages in ([piece(kind(b"helloworld"))], [piece(kind(b"hello"), True), piece(kind(b"world"))]):
        async with served(ASGI(Sends(begins(headers), *messages))) as client:
            assert [(await client.ask(GET))[2] for _ in range(2)] == [b"helloworld"] * 2


@pytest.mark.parametrize(
    "messages",
    [
        # Trailers that would split the message, and no others.
        [
            begins(trailers=True),
            piece(b"x"),
            {"type": "http.response.trailers", "headers": [(b"x", b"a\r\nb")]},
        ],
        # Trailers that a client may take for another framing.
        [
            begins(trailers=True),
            piece(b"x"),
            {"type": "http.response.trailers", "headers": [(b"Content-Length", b"5")]},
        ],
        # Fewer bytes than promised.
        [begins([(b"content-length", b"10")]), piece(b"", True), piece(b"12345")],
        # Chunks, and no end.
        [begins(), piece(b"one", True)],
        # A piece that is none.
        [begins(), piece(b"one", True), piece("two")],
    ],
)
async def test_who_goes_on_after_an_error_leaves_no_half_response_behind(
    autojump_clock: Clock, messages: list[Message], caplog: pytest.LogCaptureFixture
) -> None:
    """Else the answer to the next request is taken for the rest of this one."""
    async with served(ASGI(Sends(*messages))) as client:
        await client.send(GET + GET)
        with pytest.raises(trio.BrokenResourceError):
            await client.rest()


async def test_a_piece_that_was_refused_can_be_sent_again(autojump_clock: Clock) -> None:
    app = Sends(begins([(b"content-length", b"10")]), piece(b"", True), piece(b"12345"), piece(b"1234567890"))
    async with served(ASGI(app)) as client:
        assert [(await client.ask(GET))[2] for _ in range(2)] == [b"1234567890"] * 2
    assert "fewer" in str(app.raised[2])
