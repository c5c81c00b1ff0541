"""The handlers of the echo family, as their peers see them."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from asyncnet import Handler, Timeouts, connect, serve
from asyncnet.echo import ChargenHandler, DaytimeHandler, DiscardHandler, EchoHandler, TimeHandler
from asyncnet.echo.wire import CHARGEN_LINES
from asyncnet.service import Service
from asyncnet.stream import Stream
from asyncnet.testing import run_handler, stream_pair


@asynccontextmanager
async def peer_of(handler: Handler, *, capacity: int = 65536) -> AsyncIterator[Stream]:
    async with run_handler(handler, capacity=capacity) as peer:
        yield peer.stream


@asynccontextmanager
async def service_of(handler: Handler) -> AsyncIterator[Service]:
    async with trio.open_nursery() as nursery:
        service: Service = await nursery.start(serve, handler, "tcp://127.0.0.1:0")
        yield service
        nursery.cancel_scope.cancel()


async def receive_all(stream: Stream) -> bytes:
    received = bytearray()
    while data := await stream.receive_some():
        received += data
    return bytes(received)


def at(*when: int):
    return lambda: datetime.datetime(*when, tzinfo=datetime.UTC)


async def test_echo_sends_back_what_arrives_and_ends_with_its_peer() -> None:
    async with peer_of(EchoHandler()) as peer:
        for data in (b"a", b"\r\n\0\xff", b"x" * 200_000):
            peer.write(data)
            assert await peer.receive_exactly(len(data)) == data
        await peer.send_all(b"the last")
        await peer.send_eof()
        assert await receive_all(peer) == b"the last"


async def test_echo_holds_back_a_peer_that_sends_and_does_not_read() -> None:
    async with service_of(EchoHandler()) as service, await connect(service.endpoints[0]) as peer:
        size = 20_000_000
        with trio.move_on_after(60), trio.CancelScope() as sending:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.send_all, bytes(size))
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert peer.bytes_out < size
                await peer.receive_exactly(size)
        assert not sending.cancelled_caught
        assert service.counters.failed == 0


async def test_echo_runs_under_plain_trio_too() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, EchoHandler(), 0)
        async with await trio.testing.open_stream_to_socket_listener(listeners[0]) as peer:
            await peer.send_all(b"x" * 300_000)
            await peer.send_eof()
            assert len(b"".join([data async for data in peer])) == 300_000
        nursery.cancel_scope.cancel()


async def test_discard_takes_everything_and_answers_nothing() -> None:
    async with peer_of(DiscardHandler()) as peer:
        await peer.send_all(b"x" * 500_000)
        await peer.send_eof()
        assert await receive_all(peer) == b""


async def test_chargen_sends_the_lines_in_their_order_and_begins_again() -> None:
    async with peer_of(ChargenHandler(), capacity=1000) as peer:
        for line in CHARGEN_LINES * 2 + CHARGEN_LINES[:1]:
            assert await peer.receive_until(b"\n", limit=100) == line
        await peer.send_eof()
        await receive_all(peer)


async def test_chargen_stops_behind_a_whole_line_when_its_peer_ends() -> None:
    async with peer_of(ChargenHandler(), capacity=1000) as peer:
        await peer.send_all(b"what the peer sends does not matter" * 1000)
        await peer.receive_exactly(10_000)
        await peer.send_eof()
        assert (await receive_all(peer)).endswith(b"\r\n")


async def test_chargen_sends_no_more_than_its_peer_reads() -> None:
    left, right = stream_pair(capacity=20_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ChargenHandler(), right)
        await trio.testing.wait_all_tasks_blocked()
        assert right.bytes_out == 20_000
        await left.receive_some(1000)
        await trio.testing.wait_all_tasks_blocked()
        assert right.bytes_out == 21_000
        nursery.cancel_scope.cancel()


async def test_chargen_gives_up_a_peer_that_reads_nothing(autojump_clock: trio.testing.MockClock) -> None:
    left, right = stream_pair(timeouts=Timeouts(send=60))
    with pytest.RaisesGroup(pytest.RaisesExc(trio.BrokenResourceError, match="read nothing for 60 seconds")):
        await ChargenHandler()(right)
    assert trio.current_time() == 60
    await left.aclose()


async def test_chargen_leaves_the_others_their_turns() -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery, peer_of(ChargenHandler()) as peer:
        nursery.start_soon(take_turns)
        await peer.receive_exactly(2_000_000)
        assert turns > 30
        nursery.cancel_scope.cancel()


async def test_chargen_ends_when_its_peer_has_closed() -> None:
    async with peer_of(ChargenHandler()) as peer:
        await peer.receive_some(100)


async def test_daytime_tells_the_time_and_ends() -> None:
    async with peer_of(DaytimeHandler(at(2026, 7, 1, 12, 30, 15))) as peer:
        assert await receive_all(peer) == b"2026-07-01T12:30:15+00:00\r\n"


async def test_time_tells_the_seconds_and_ends() -> None:
    async with peer_of(TimeHandler(at(1970, 1, 1))) as peer:
        assert await receive_all(peer) == b"\x83\xaa\x7e\x80"


async def test_time_begins_again_at_0_in_2036() -> None:
    async with peer_of(TimeHandler(at(2036, 2, 7, 6, 28, 16))) as peer:
        assert await receive_all(peer) == b"\0\0\0\0"


@pytest.mark.parametrize("handler", [DaytimeHandler(), TimeHandler()])
async def test_without_a_clock_the_system_tells_the_time(handler: Handler) -> None:
    async with peer_of(handler) as peer:
        assert await receive_all(peer) != b""


async def test_what_a_peer_sends_along_does_not_destroy_the_answer() -> None:
    async with service_of(TimeHandler(at(1970, 1, 1))) as service, await connect(service.endpoints[0]) as peer:
        await peer.send_all(b"x" * 100_000)
        await peer.send_eof()
        assert await receive_all(peer) == b"\x83\xaa\x7e\x80"


@pytest.mark.parametrize("handler", [EchoHandler(), DiscardHandler()])
async def test_a_drain_ends_a_connection_that_waits_for_its_peer(handler: Handler) -> None:
    async with service_of(handler) as service, await connect(service.endpoints[0]) as peer:
        await peer.send_all(b"x")
        await trio.testing.wait_all_tasks_blocked()
        await service.drain()
        assert (await receive_all(peer)).strip(b"x") == b""
        assert service.open == 0


async def test_a_drain_ends_chargen_behind_a_whole_line() -> None:
    async with service_of(ChargenHandler()) as service, await connect(service.endpoints[0]) as peer:
        await peer.receive_some()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.drain)
            assert (await receive_all(peer)).endswith(b"\r\n")


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (EchoHandler(), "echo"),
        (DiscardHandler(), "discard"),
        (ChargenHandler(), "chargen"),
        (DaytimeHandler(), "daytime"),
        (TimeHandler(), "time"),
    ],
)
async def test_the_log_calls_a_service_by_its_protocol(handler: Handler, name: str) -> None:
    async with service_of(handler) as service:
        assert service.name == name
