"""HTTP as a service, over sockets: files by a real client, draining, the refusal."""

from __future__ import annotations

import http.client
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import trio.testing

from asyncnet.http import Files, HTTPHandler, Request, Response
from asyncnet.limits import Limits, Timeouts
from asyncnet.service import Service, serve
from asyncnet.stream import Stream

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@asynccontextmanager
async def running(handler: HTTPHandler, **options: Any) -> AsyncIterator[tuple[Service, int]]:
    """The service of `handler` and its port."""
    async with trio.open_nursery() as nursery:
        service: Service = await nursery.start(
            lambda task_status: serve(handler, "tcp://127.0.0.1:0", task_status=task_status, **options)
        )
        yield service, int(str(service.endpoints[0]).rpartition(":")[2])
        nursery.cancel_scope.cancel()


async def connect(port: int) -> Stream:
    return Stream.of(await trio.open_tcp_stream("127.0.0.1", port))


async def test_files_reach_a_client_whole_or_in_part(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "large.bin").write_bytes(content)

    def fetch(port: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for headers, expected in (({}, content), ({"Range": "bytes=1000-500000"}, content[1000:500001])):
            client.request("GET", "/large.bin", headers=headers)
            assert client.getresponse().read() == expected
        client.request("HEAD", "/large.bin")
        response = client.getresponse()
        assert (response.read(), response.headers["content-length"]) == (b"", str(len(content)))
        client.request("GET", "/")
        assert b'href="./large.bin"' in client.getresponse().read()
        client.close()

    async with running(HTTPHandler(Files(tmp_path))) as (_, port):
        await trio.to_thread.run_sync(fetch, port)


async def test_a_file_that_shrinks_breaks_the_connection(tmp_path: Path) -> None:
    path = tmp_path / "shrinking.bin"
    path.write_bytes(bytes(1 << 24))

    async def app(request: Request) -> Response:
        response = await Files(tmp_path)(request)
        path.write_bytes(b"")
        return response

    async with running(HTTPHandler(app)) as (_, port), await connect(port) as stream:
        await stream.send_all(b"GET /shrinking.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            return
        raise AssertionError("the end looked like a clean one")


async def test_a_drain_closes_idle_connections_at_once() -> None:
    async def app(request: Request) -> Response:
        return Response.text("hello")

    async with running(HTTPHandler(app)) as (service, port), await connect(port) as fresh, await connect(port) as used:
        await used.send_all(GET)
        await used.receive_until(b"hello", limit=1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.drain)
            assert await fresh.receive_some() == b""
            assert await used.receive_some() == b""


async def test_a_drain_closes_a_connection_at_once_that_has_seen_a_stray_line_end() -> None:
    async def app(request: Request) -> Response:
        return Response.text("hello")

    options = {"timeouts": Timeouts(drain=60)}
    async with running(HTTPHandler(app), **options) as (service, port), await connect(port) as stream:
        await stream.send_all(GET + b"\r\n")
        await stream.receive_until(b"hello", limit=1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.drain)
            assert await stream.receive_some() == b"", "no 408 after a while"


async def test_an_answer_in_flight_at_a_drain_is_the_last_and_says_so() -> None:
    begun, go_on = trio.Event(), trio.Event()

    async def app(request: Request) -> Response:
        begun.set()
        await go_on.wait()
        return Response.text("hello")

    async with running(HTTPHandler(app)) as (service, port), await connect(port) as stream:
        await stream.send_all(GET)
        await begun.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.drain)
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()
            answer = await stream.receive_until(b"hello", limit=1000)
            assert b"\r\nconnection: close\r\n" in answer.lower()
            assert await stream.receive_some() == b""
            await stream.aclose()


async def test_a_service_over_its_cap_answers_503() -> None:
    async def app(request: Request) -> Response:
        return Response.text("hello")

    async with running(HTTPHandler(app), limits=Limits(connections=1)) as (_, port), await connect(port) as first:
        await first.send_all(GET)
        await first.receive_until(b"hello", limit=1000)
        async with await connect(port) as second:
            assert (await second.receive_until(b"\r\n", limit=100)) == b"HTTP/1.1 503 Service Unavailable\r\n"
