"""Sends that are made together at the end of a turn: nothing is lost, nothing waits for ever, nobody spins."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from asyncnet import batching
from asyncnet.errors import Draining
from asyncnet.stream import Stream
from asyncnet.testing import stream_pair
from asyncnet.transports.base import Data
from asyncnet.transports.socket import SocketTransport


class Counting(SocketTransport):
    """Counts how often the kernel was asked to take something."""

    __slots__ = ("sends",)

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.sends = 0

    def send_now(self, data: Data) -> int:
        self.sends += 1
        return super().send_now(data)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Stream, Counting, Stream]]:
    """A stream with its transport, and its peer, over a socket that holds little."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    transport = Counting(ours)
    async with Stream(transport) as stream, Stream(SocketTransport(theirs)) as peer:
        yield stream, transport, peer


async def fill(stream: Stream) -> int:
    """Send until the kernel takes no more, and return how many bytes that were; nothing is pending then."""
    sent = 0
    while (count := stream._transport.send_now(bytes(1000))) > 0:
        sent += count
    return sent


@pytest.fixture
def company(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if other streams sent in every turn."""
    monkeypatch.setattr(batching.Batch, "has_company", lambda self: True)


class TestCompany:
    async def test_who_sends_alone_sends_at_once(self) -> None:
        async with connected() as (stream, transport, peer):
            for count in (1, 2, 3):
                assert stream.write_soon(b"hello")
                assert transport.sends == count
                assert await peer.receive_exactly(5) == b"hello"

    async def test_the_second_of_a_turn_is_batched_and_in_the_next_turn_the_first_as_well(self) -> None:
        async with connected() as (one, first, _), connected() as (two, second, _):
            await trio.testing.wait_all_tasks_blocked()
            one.write_soon(b"x")
            two.write_soon(b"x")
            assert (first.sends, second.sends) == (1, 0)
            await trio.lowlevel.checkpoint()
            assert (first.sends, second.sends) == (1, 1)
            one.write_soon(b"x")
            assert first.sends == 1
            await trio.lowlevel.checkpoint()
            assert first.sends == 2
            one.write_soon(b"x")  # the last turn had this one alone
            assert first.sends == 3

    async def test_a_receive_sends_at_once_what_has_no_company(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with connected() as (stream, _, peer), trio.open_nursery() as nursery:
            await trio.testing.wait_all_tasks_blocked()
            monkeypatch.setattr(batching.Batch, "add", lambda self, stream: pytest.fail("it was batched"))
            stream.write(b"question")
            nursery.start_soon(stream.receive_exactly, 6)
            assert await peer.receive_exactly(8) == b"question"
            await peer.send_all(b"answer")


@pytest.mark.usefixtures("company")
class TestWritingSoon:
    async def test_it_leaves_at_the_end_of_the_turn(self) -> None:
        async with connected() as (stream, transport, peer):
            assert stream.write_soon(b"hello")
            assert (transport.sends, stream.pending) == (0, 5)
            assert await peer.receive_exactly(5) == b"hello"
            assert (transport.sends, stream.pending) == (1, 0)

    async def test_whatever_is_sent_after_it_comes_after_it(self) -> None:
        async with connected() as (stream, _, peer):
            stream.write_soon(b"1")
            assert not stream.write_soon(b"2")
            await stream.flush()
            stream.write_soon(b"3")
            await stream.send_all(b"4")
            stream.write_soon(b"5")
            stream.write(b"6")
            await stream.flush()
            stream.write_soon(b"7")
            await stream.send_eof()
            received = b""
            while data := await peer.receive_some():
                received += data
            assert received == b"1234567"

    async def test_a_close_sends_it_first(self) -> None:
        async with connected() as (stream, _, peer):
            stream.write_soon(b"bye")
            await stream.aclose()
            assert await peer.receive_exactly(3) == b"bye"
            assert await peer.receive_some() == b""

    async def test_an_abort_drops_it(self) -> None:
        async with connected() as (stream, transport, _):
            stream.write_soon(b"never")
            await stream.abort()
            await trio.testing.wait_all_tasks_blocked()
            assert transport.sends == 0
            with pytest.raises(trio.ClosedResourceError):
                stream.write_soon(b"x")

    async def test_over_memory_it_leaves_at_once(self) -> None:
        ours, theirs = stream_pair()
        assert ours.write_soon(b"hello")
        assert ours.pending == 0
        assert await theirs.receive_exactly(5) == b"hello"

    async def test_the_first_waits_so_long_and_no_longer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 0.0
        monkeypatch.setattr(batching.time, "perf_counter", lambda: now)
        async with connected() as (one, first, _), connected() as (two, _, _), connected() as (three, _, _):
            one.write_soon(b"x")
            two.write_soon(b"x")
            assert first.sends == 0
            now += 2 * batching.PATIENCE
            three.write_soon(b"x")
            assert first.sends == 1
            assert one.pending == two.pending == three.pending == 0

    async def test_a_broken_connection_tells_the_next_send_and_harms_no_other(self) -> None:
        async with connected() as (broken, _, peer), connected() as (whole, _, other):
            await peer.abort()
            broken.write_soon(b"x")
            whole.write_soon(b"hello")
            assert await other.receive_exactly(5) == b"hello"
            with pytest.raises(trio.BrokenResourceError):
                await broken.send_all(b"y")

    async def test_a_failure_that_nobody_expects_ends_no_batch(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with connected() as (odd, transport, _), connected() as (whole, _, other):

            def fail(data: Any) -> int:
                raise ValueError("out of the blue")

            odd.write_soon(b"x")
            whole.write_soon(b"hello")
            monkeypatch.setattr(Counting, "send_now", lambda self, data: fail(data) if self is transport else 5)
            await trio.testing.wait_all_tasks_blocked()
            assert "out of the blue" in caplog.text
            monkeypatch.undo()
            whole.write_soon(b"again")
            assert await other.receive_exactly(5) == b"again"
            await odd.abort()


@pytest.mark.usefixtures("company")
class TestAFullKernel:
    @pytest.mark.parametrize("receives", [True, False])
    async def test_the_rest_leaves_when_the_peer_reads_and_meanwhile_nobody_spins(self, receives: bool) -> None:
        async with connected() as (stream, transport, peer), trio.open_nursery() as nursery:
            filled = await fill(stream)
            if receives:
                nursery.start_soon(stream.receive_some)
                await trio.testing.wait_all_tasks_blocked()
            stream.write_soon(bytes(20_000))
            for _ in range(20):
                await trio.testing.wait_all_tasks_blocked()
            assert transport.sends - filled // 1000 < 10
            assert len(await peer.receive_exactly(filled + 20_000)) == filled + 20_000
            await peer.send_all(b"x")

    async def test_the_rest_leaves_though_the_receive_has_returned(self) -> None:
        for _ in range(10):  # Trio runs the tasks of a turn in any order
            async with connected() as (stream, _, peer), trio.open_nursery() as nursery:
                filled = await fill(stream)
                arrived = trio.Event()

                @nursery.start_soon
                async def answer_and_go_to_work(stream: Stream = stream, arrived: trio.Event = arrived) -> None:
                    stream.write_soon(bytes(20_000))
                    assert await stream.receive_some() == b"the next request"
                    arrived.set()
                    await trio.sleep_forever()

                await peer.send_all(b"the next request")
                await arrived.wait()
                await self.read_now(peer, filled + 20_000)
                nursery.cancel_scope.cancel()

    async def test_the_rest_leaves_though_a_receive_has_sent_some_of_it_and_returned(self) -> None:
        async with connected() as (stream, _, peer), trio.open_nursery() as nursery:
            filled = await fill(stream)
            stream.write_soon(bytes(20_000))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(stream.receive_exactly, 16)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_all(b"the next request")
            await trio.testing.wait_all_tasks_blocked()
            await self.read_now(peer, filled + 20_000)

    @pytest.mark.parametrize("turns", [0, 1, 2])
    async def test_the_rest_leaves_though_a_receive_was_given_up(self, turns: int) -> None:
        async with connected() as (stream, _, peer):
            filled = await fill(stream)
            stream.write_soon(bytes(20_000))
            for _ in range(turns):
                await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0):
                await stream.receive_some()
            await self.read_now(peer, filled + 20_000)

    async def test_the_rest_leaves_though_the_receive_was_woken(self) -> None:
        async with connected() as (stream, _, peer), trio.open_nursery() as nursery:
            filled = await fill(stream)

            @nursery.start_soon
            async def receive() -> None:
                with pytest.raises(Draining):
                    await stream.receive_some()

            await trio.testing.wait_all_tasks_blocked()
            stream.write_soon(bytes(20_000))
            await trio.testing.wait_all_tasks_blocked()
            stream.interrupt()
            await self.read_now(peer, filled + 20_000)

    async def read_now(self, peer: Stream, count: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.receive_exactly, count)
            await trio.testing.wait_all_tasks_blocked()
            assert peer.bytes_in == count
            nursery.cancel_scope.cancel()

    async def test_with_much_pending_behind_the_rest_a_receive_returns_what_is_buffered(self) -> None:
        async with connected() as (stream, _, peer), trio.open_nursery() as nursery:
            filled = await fill(stream)
            stream.write_soon(bytes(20_000))
            await trio.testing.wait_all_tasks_blocked()
            stream.write(bytes(60_000))
            stream.unread(b"buffered")
            nursery.start_soon(peer.receive_exactly, filled + 80_000)
            assert await stream.receive_some() == b"buffered"

    async def test_a_send_that_comes_takes_over(self) -> None:
        async with connected() as (stream, _, peer), trio.open_nursery() as nursery:
            filled = await fill(stream)
            stream.write_soon(b"a" * 20_000)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(stream.send_all, b"b" * 20_000)
            await trio.testing.wait_all_tasks_blocked()
            received = await peer.receive_exactly(filled + 40_000)
            assert received[filled:] == b"a" * 20_000 + b"b" * 20_000

    async def test_a_receive_that_comes_takes_over(self) -> None:
        async with connected() as (stream, _, peer), trio.open_nursery() as nursery:
            filled = await fill(stream)
            stream.write_soon(b"a" * 20_000)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(stream.receive_exactly, 1)
            await trio.testing.wait_all_tasks_blocked()
            assert len(await peer.receive_exactly(filled + 20_000)) == filled + 20_000
            await peer.send_all(b"x")

    @pytest.mark.parametrize("receives", [True, False])
    async def test_a_peer_that_never_reads_is_cut_off(self, receives: bool, mock_clock: MockClock) -> None:
        async with connected() as (stream, _, _), trio.open_nursery() as nursery:
            await fill(stream)
            stream.write_soon(bytes(20_000))
            if receives:
                nursery.start_soon(stream.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(stream.timeouts.send + 1)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BrokenResourceError, match="read nothing"):
                await stream.send_all(b"x")
            nursery.cancel_scope.cancel()

    async def test_afterwards_sends_are_batched_again(self) -> None:
        async with connected() as (stream, transport, peer):
            filled = await fill(stream)
            stream.write_soon(bytes(20_000))
            await peer.receive_exactly(filled + 20_000)
            before = transport.sends
            assert stream.write_soon(b"hello")
            assert transport.sends in (before, before + 1)
            assert await peer.receive_exactly(5) == b"hello"
            before = transport.sends
            assert stream.write_soon(b"hello")
            assert transport.sends == before
            assert await peer.receive_exactly(5) == b"hello"


@pytest.mark.usefixtures("company")
async def test_what_a_receive_finds_pending_leaves_at_the_end_of_its_turn() -> None:
    async with connected() as (stream, transport, peer), trio.open_nursery() as nursery:
        stream.write(b"question")
        nursery.start_soon(stream.receive_exactly, 6)
        assert await peer.receive_exactly(8) == b"question"
        assert transport.sends == 1
        await peer.send_all(b"answer")


def test_what_a_stream_sends_that_outlives_its_run_leaves_in_the_next_one() -> None:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    stream = Stream(SocketTransport(ours))

    async def send() -> None:
        for _ in range(3):
            assert stream.write_soon(b"hello")
            await trio.testing.wait_all_tasks_blocked()
            assert theirs.recv(100) == b"hello"

    try:
        trio.run(send)
        trio.run(send)
    finally:
        ours.close()
        theirs.close()
