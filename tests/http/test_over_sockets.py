"""The server over TCP, where responses leave in batches: what holds over memory streams holds there as well."""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from asyncnet.http import ASGI, BasicAuth, HTTPHandler, Request, Response
from asyncnet.http.engine import Engine
from asyncnet.limits import Timeouts
from asyncnet.stream import Stream
from asyncnet.testing import cancel_at_each_checkpoint
from asyncnet.transports.socket import SocketTransport
from tests.http.attacks import CHUNKS, FRAMING, HEADS, SMUGGLED
from tests.http.client import GET, Client
from tests.http.test_attacks import ENGINES, responses_in
from tests.http.test_cancellations import CHUNKED, LARGE, POST, Seen, echo, echo_asgi, large
from tests.pairs import close_sockets, sockets_over_tcp

pytestmark = pytest.mark.usefixtures("crowd")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_sockets()


def pair(timeouts: Timeouts = Timeouts()) -> tuple[Stream, Stream]:
    """A client's end and a server's, over TCP with little room, so that large responses take several sends."""
    ours, theirs = sockets_over_tcp()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    return Stream(SocketTransport(ours)), Stream(SocketTransport(theirs), timeouts)


@asynccontextmanager
async def serving(app: Any, timeouts: Timeouts = Timeouts(), **options: Any) -> AsyncIterator[tuple[Client, Stream]]:
    ours, theirs = pair(timeouts)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, ours:
            nursery.start_soon(HTTPHandler(app, **options), theirs)
            yield Client(ours), theirs
            nursery.cancel_scope.cancel()


MEDIUM = LARGE[:60_000]
"""As much as leaves in one batch. What the kernel leaves over of one is for `test_batching.py`."""


async def medium(request: Request) -> Response:
    return Response(body=MEDIUM)


async def streamed(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(LARGE), 10_000):
            yield LARGE[at : at + 10_000]
            await trio.lowlevel.checkpoint()

    return Response(body=pieces())


@pytest.mark.parametrize(
    ("app", "request_", "body", "count"),
    [
        (echo, POST, b"hello" * 100, 3),
        (echo, CHUNKED, b"hello" * 100, 3),
        (ASGI(echo_asgi), POST, b"hello" * 100, 3),
        (medium, GET, MEDIUM, 3),
        (large, GET, LARGE, 2),
        (large, GET.replace(b"1.1", b"1.0"), LARGE, 1),
        (streamed, GET, LARGE, 1),
        (streamed, GET.replace(b"1.1", b"1.0"), LARGE, 1),
        (echo, b"GET / HTTP/1.1\r\n\r\n", b"400 Bad Request\n", 1),
    ],
)
async def test_cancelled_anywhere_no_part_passes_for_the_whole(
    app: Any, request_: bytes, body: bytes, count: int
) -> None:
    wholes = 0
    for attempt in cancel_at_each_checkpoint():
        ours, theirs = pair()
        seen = Seen()
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery, ours:
                nursery.start_soon(seen.watch, ours)
                await ours.send_all(request_ * count)
                await ours.send_eof()
                with attempt:
                    await HTTPHandler(app)(theirs)
                # The client has seen the end when its task is done; only then it closes.
                while nursery.child_tasks:
                    await trio.lowlevel.checkpoint()
        bodies = seen.whole_bodies(count)
        assert bodies == [body] * len(bodies)
        assert seen.was_reset or len(bodies) == seen.output.count(b"HTTP/1.1 ")
        assert attempt.cancelled or len(bodies) == count
        assert theirs.is_closed
        wholes += len(bodies)
    assert wholes >= count


@pytest.mark.parametrize("make_engine", ENGINES)
async def test_every_refusal_arrives_and_nothing_behind_it_is_answered(make_engine: Callable[[], Engine]) -> None:
    """A reset would destroy it: what is left unread when the connection closes is taken first."""
    served: list[str] = []

    async def app(request: Request) -> Response:
        await request.read()
        served.append(request.path)
        return Response.text("served")

    for row in FRAMING + CHUNKS + HEADS:
        async with serving(app, engine=make_engine()) as (client, _):
            await client.send(row.data + SMUGGLED * 5000)  # more than the server takes in at once
            await client.stream.send_eof()
            assert responses_in(await client.rest()) == [(row.status, True)], row.name
    assert served == []


async def test_nothing_is_left_of_a_request_on_a_connection_that_waits() -> None:
    seen: list[weakref.ref[object]] = []

    async def app(request: Request) -> Response:
        assert request._exchange is not None
        seen.append(weakref.ref(request._exchange))
        return Response.text((await request.read()).decode())

    gc.disable()
    try:
        async with serving(app) as (client, theirs):
            for data, count in ((GET, 1), (GET + GET, 2), (POST, 1)):
                await client.send(data)
                for _ in range(count):
                    await client.response()
                await trio.testing.wait_all_tasks_blocked()
                assert [ref() for ref in seen] == [None] * len(seen)
                assert (theirs.pending, theirs.buffered) == (0, 0)
    finally:
        gc.enable()
    assert len(seen) == 4


async def test_a_client_that_sends_and_never_reads_is_not_served_on_and_is_cut_off() -> None:
    answered = 0
    closed = trio.Event()

    async def app(request: Request) -> Response:
        nonlocal answered
        answered += 1
        return Response.text("x" * 100_000)

    ours, theirs = pair(Timeouts(send=0.2))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, ours:

            @nursery.start_soon
            async def serve() -> None:
                await HTTPHandler(app)(theirs)
                closed.set()

            await ours.send_all(GET * 1000)
            await closed.wait()
    assert theirs.is_closed
    assert 0 < answered < 500  # the kernel holds some megabytes


@pytest.mark.parametrize("method", ["POST", "HEAD"])
async def test_who_is_not_let_in_smuggles_nothing_in_the_body_that_nobody_reads(method: str) -> None:
    class Nobody:
        async def verify(self, name: str, password: str, *, peer: object) -> None:
            raise AssertionError("nobody has given a password")

        async def scram_keys(self, name: str) -> None:
            return None

    reached: list[str] = []

    async def app(request: Request) -> Response:
        reached.append(request.path)
        return Response()

    users: Any = Nobody()
    for size, ends in ((len(SMUGGLED), False), (1_000_000, True)):
        body = (SMUGGLED * (size // len(SMUGGLED) + 1))[:size]
        head = f"{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()
        async with serving(BasicAuth(app, users)) as (client, _):
            await client.send(head)
            status, headers, _ = await client.response(to_head=method == "HEAD")
            assert (status, headers.get("connection")) == (401, "close" if ends else None)
            if not ends:
                await client.send(body + GET)
                await client.stream.send_eof()
                assert responses_in(await client.rest()) == [(401, False)]  # to the one behind the body, and no more
    assert reached == []
