"""Every transport, and Stream over every transport, is a stream as Trio understands it."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from asyncnet.stream import Stream
from asyncnet.transports.base import Transport
from asyncnet.transports.foreign import ForeignTransport
from asyncnet.transports.memory import memory_transports
from asyncnet.transports.socket import SocketTransport

Pair = tuple[Transport, Transport]
Maker = Callable[[], Awaitable[Pair]]


async def socket_pair() -> Pair:
    left, right = socket.socketpair()
    for one in (left, right):
        one.setblocking(False)
    return SocketTransport(left), SocketTransport(right)


async def tcp_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    for one in (left, right):
        one.setblocking(False)
    return SocketTransport(left), SocketTransport(right)


async def memory_pair() -> Pair:
    return memory_transports(capacity=4096)


async def foreign_pair() -> Pair:
    left, right = trio.testing.memory_stream_pair()
    return ForeignTransport(left), ForeignTransport(right)


async def foreign_socket_pair() -> Pair:
    left, right = (trio.SocketStream(trio.socket.from_stdlib_socket(one)) for one in socket.socketpair())
    return ForeignTransport(left), ForeignTransport(right)


def over(maker: Maker) -> Callable[[], Awaitable[tuple[Stream, Stream]]]:
    async def streams() -> tuple[Stream, Stream]:
        left, right = await maker()
        return Stream(left), Stream(right)

    return streams


def clogged(maker: Callable[[], Awaitable[tuple[trio.abc.Stream, trio.abc.Stream]]]):
    async def make() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        left, right = await maker()
        for end in (left, right):
            transport = end._transport if isinstance(end, Stream) else end
            assert isinstance(transport, Transport)
            for size in (65536, 1):
                while transport.send_now(b"x" * size):
                    pass
        return left, right

    return make


MAKERS = [socket_pair, tcp_pair, memory_pair, foreign_pair, foreign_socket_pair]
CLOGGABLE = [socket_pair, memory_pair]  # over TCP the kernel goes on moving bytes: nothing stays clogged


@pytest.mark.parametrize("maker", MAKERS)
async def test_a_transport_passes_trios_stream_checks(maker: Maker) -> None:
    clog = clogged(maker) if maker in CLOGGABLE else None
    await trio.testing.check_half_closeable_stream(maker, clog)


@pytest.mark.parametrize("maker", MAKERS)
async def test_a_stream_passes_trios_stream_checks(maker: Maker) -> None:
    clog = clogged(over(maker)) if maker in CLOGGABLE else None
    await trio.testing.check_half_closeable_stream(over(maker), clog)
