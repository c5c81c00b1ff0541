"""A second connection beside one that is there."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from asyncnet.beside import accept_beside, accept_beside_now, connect_beside, listen_beside
from asyncnet.endpoints import connect
from asyncnet.service import serve
from asyncnet.stream import Stream
from asyncnet.testing import stream_pair
from asyncnet.transports.address import Address
from asyncnet.transports.proxy_header import format_v1


@asynccontextmanager
async def pair(*, told: bytes = b"") -> AsyncIterator[tuple[Stream, Stream]]:
    """A client's end and a server's; `told` is what a proxy tells the server first."""
    ends: list[Stream] = []
    there = trio.Event()

    async def handler(stream: trio.abc.Stream) -> None:
        ends.append(Stream.of(stream))
        there.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:

        async def start(task_status: trio.TaskStatus[object]) -> None:
            trusted = ["127.0.0.0/8"] if told else []
            await serve(handler, "tcp://127.0.0.1:0", proxy_from=trusted, task_status=task_status)

        service = await nursery.start(start)
        async with await connect(service.endpoints[0]) as client:
            await client.send_all(told)
            await there.wait()
            yield client, ends[0]
        nursery.cancel_scope.cancel()


async def test_the_other_end_comes_in() -> None:
    async with pair() as (client, server):
        async with listen_beside(server) as listener:
            assert accept_beside_now(server, listener) is None
            async with await connect_beside(client, listener.address.port or 0) as near:
                async with await accept_beside(server, listener) as far:
                    await near.send_all(b"hello")
                    assert await far.receive_some() == b"hello"


async def test_it_goes_out_from_the_same_address() -> None:
    async with pair() as (client, server):
        async with listen_beside(client) as listener:
            async with await connect_beside(server, listener.address.port or 0) as near:
                assert near.local.host == server.local.host
                assert near.peer.host == client.local.host


async def test_strangers_are_sent_away_and_the_wait_goes_on() -> None:
    async with pair() as (client, server):
        async with listen_beside(server) as listener:
            with socket.socket() as stranger:
                stranger.bind(("127.0.0.2", 0))
                stranger.connect(("127.0.0.1", listener.address.port))
                async with await connect_beside(client, listener.address.port or 0) as near:
                    async with await accept_beside(server, listener) as far:
                        assert far.peer.port == near.local.port
                with pytest.raises(ConnectionResetError):
                    stranger.recv(1)


async def test_behind_a_proxy_it_is_the_proxy_that_comes() -> None:
    told = format_v1(Address("192.0.2.1", 4711), Address("198.51.100.7", 21))
    async with pair(told=told) as (client, server):
        assert server.peer.host == "192.0.2.1"
        assert [end.host for end in server.hop] == ["127.0.0.1", "127.0.0.1"]
        async with listen_beside(server) as listener:
            assert listener.address.host == "127.0.0.1"
            async with await connect_beside(client, listener.address.port or 0):
                await trio.aclose_forcefully(await accept_beside(server, listener))


async def test_only_the_ports_that_are_named_are_taken() -> None:
    async with pair() as (_, server):
        async with listen_beside(server) as first:
            port = first.address.port or 0
            with pytest.raises(OSError, match="all ports") as caught:
                listen_beside(server, [port])
            assert caught.value.errno == errno.EADDRINUSE


async def test_a_refused_connection_is_told() -> None:
    async with pair() as (client, server):
        async with listen_beside(server) as listener:
            port = listener.address.port or 0
        with pytest.raises(ConnectionRefusedError):
            await connect_beside(client, port)


async def test_without_a_network_there_is_nothing_beside() -> None:
    near, _ = stream_pair()
    with pytest.raises(OSError, match="no network") as caught:
        listen_beside(near)
    assert caught.value.errno == errno.EAFNOSUPPORT
