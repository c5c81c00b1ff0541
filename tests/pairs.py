"""Connected pairs over every transport, for tests that are to hold on all of them."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import trio
import trio.testing

from asyncnet.stream import Stream
from asyncnet.testing import OneByteStream
from asyncnet.transports.base import Transport
from asyncnet.transports.foreign import ForeignTransport
from asyncnet.transports.memory import memory_transports
from asyncnet.transports.socket import SocketTransport

Pair = tuple[Transport, Transport]
Maker = Callable[[], Awaitable[Pair]]


_made: list[socket.socket] = []


def close_sockets() -> None:
    """Close what a test has left open, whatever it failed at."""
    while _made:
        _made.pop().close()


def sockets_over_unix() -> tuple[socket.socket, socket.socket]:
    left, right = socket.socketpair()
    _made.extend((left, right))
    for one in (left, right):
        one.setblocking(False)
    return left, right


def sockets_over_tcp() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    _made.extend((left, right))
    for one in (left, right):
        one.setblocking(False)
    return left, right


async def socket_pair() -> Pair:
    left, right = sockets_over_unix()
    return SocketTransport(left), SocketTransport(right)


async def tcp_pair() -> Pair:
    left, right = sockets_over_tcp()
    return SocketTransport(left), SocketTransport(right)


async def memory_pair() -> Pair:
    return memory_transports(capacity=4096)


async def foreign_pair() -> Pair:
    left, right = trio.testing.memory_stream_pair()
    return ForeignTransport(left), ForeignTransport(right)


async def foreign_socket_pair() -> Pair:
    left, right = (trio.SocketStream(trio.socket.from_stdlib_socket(one)) for one in sockets_over_unix())
    return ForeignTransport(left), ForeignTransport(right)


async def one_byte_pair() -> Pair:
    left, right = memory_transports(capacity=4096)
    return ForeignTransport(OneByteStream(left)), ForeignTransport(OneByteStream(right))


MAKERS: list[Maker] = [socket_pair, tcp_pair, memory_pair, foreign_pair, foreign_socket_pair]


def over(maker: Maker) -> Callable[[], Awaitable[tuple[Stream, Stream]]]:
    """Makes the same pairs as streams."""

    async def streams() -> tuple[Stream, Stream]:
        left, right = await maker()
        return Stream(left), Stream(right)

    return streams
