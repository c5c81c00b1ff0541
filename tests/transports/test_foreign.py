"""Any other stream as a transport."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from asyncnet.errors import LocalProtocolError
from asyncnet.stream import Stream
from asyncnet.testing import FailingStream, ScriptedPeer, StallingStream, stream_pair
from asyncnet.transports.address import Address
from asyncnet.transports.foreign import PIECE, ForeignTransport
from tests.pairs import close_sockets, sockets_over_tcp


@pytest.fixture(autouse=True)
def _no_socket_stays_open() -> Iterator[None]:
    yield
    close_sockets()


def trio_sockets() -> tuple[trio.SocketStream, socket.socket]:
    left, right = sockets_over_tcp()
    return trio.SocketStream(trio.socket.from_stdlib_socket(left)), right


async def test_a_trio_socket_stream_shows_its_addresses_and_resets_on_abort() -> None:
    stream, other = trio_sockets()
    wrapped = Stream.of(stream)
    assert wrapped.peer == Address("127.0.0.1", other.getsockname()[1])
    assert wrapped.can_half_close
    await wrapped.abort()
    with pytest.raises(ConnectionResetError):
        other.recv(1)


class OneWayless(trio.abc.Stream):
    """A stream without half-close."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.largest = max(getattr(self, "largest", 0), len(data))
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_half_close_is_known_by_the_type() -> None:
    client, server = stream_pair()
    stream = Stream.of(OneWayless(server))
    assert not stream.can_half_close
    with pytest.raises(LocalProtocolError, match="OneWayless has no half-close"):
        await stream.send_eof()
    await stream.send_all(b"still works")
    assert await client.receive_some() == b"still works"


async def test_a_big_send_goes_out_in_pieces_so_that_progress_is_seen() -> None:
    client, server = stream_pair()
    carrier = OneWayless(server)
    stream = Stream.of(carrier)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, bytes(5 * PIECE + 1))
        await client.receive_exactly(5 * PIECE + 1)
    assert carrier.largest == PIECE
    assert stream.bytes_out == 5 * PIECE + 1


async def test_what_breaks_beneath_breaks_the_stream() -> None:
    _client, server = stream_pair()
    stream = Stream.of(FailingStream(server, at=1))
    with pytest.raises(trio.BrokenResourceError, match="operation 1"):
        await stream.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError):
        stream.write(b"y")
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()


async def test_a_wake_ends_a_receive_beneath_and_loses_nothing() -> None:
    client, server = stream_pair()
    transport = ForeignTransport(server)

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await transport.wait_receivable(10)
        assert transport.is_open

    transport.wake()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        transport.wake()
    await client.send_all(b"later")
    assert await transport.receive_some() == b"later"


async def test_a_second_receive_gets_the_inner_streams_busy_error() -> None:
    left, _right = trio.testing.memory_stream_pair()
    transport = ForeignTransport(left)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await transport.receive_some()
        nursery.cancel_scope.cancel()


async def test_a_cancelled_send_leaves_nobody_knowing_and_breaks_the_sending_side(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, server = stream_pair()
    stream = Stream.of(StallingStream(server, at=2))
    await client.send_all(b"in")
    assert await stream.receive_some() == b"in"
    with trio.move_on_after(1):
        await stream.send_all(b"out")
    with pytest.raises(trio.BrokenResourceError, match="cancelled"):
        stream.write(b"more")
    await stream.aclose()
    await ScriptedPeer(client).expect_end()
