"""Who is watched, and what a receive finds: nothing is overlooked, and nobody spins."""

from __future__ import annotations

import errno
import gc
import os
import select
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from asyncnet.stream import Stream
from asyncnet.transports.readiness import CROWD, HAS_EPOLL, Readiness, readiness_of_this_run
from asyncnet.transports.socket import SocketTransport
from tests.pairs import close_sockets, over, sockets_over_tcp, tcp_pair

pytestmark = pytest.mark.skipif(not HAS_EPOLL, reason="there is no epoll here")


@pytest.fixture(autouse=True)
def _no_socket_stays_open() -> Iterator[None]:
    yield
    close_sockets()


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if many waited in every turn."""
    always = property(lambda self: True, lambda self, value: None)
    monkeypatch.setattr(Readiness, "is_crowded", always, raising=False)


def pair() -> tuple[SocketTransport, SocketTransport]:
    left, right = sockets_over_tcp()
    return SocketTransport(left), SocketTransport(right)


def watched() -> int:
    return len(readiness_of_this_run()._watched)


class TestWhoIsWatched:
    async def exchange(self, pairs: list[tuple[Stream, Stream]]) -> None:
        """Each pair's right end receives once, all in the same turns."""
        async with trio.open_nursery() as nursery:
            for _, right in pairs:
                nursery.start_soon(right.receive_exactly, 1)
            await trio.testing.wait_all_tasks_blocked()
            for left, _ in pairs:
                await left.send_all(b"x")

    async def test_a_crowd_is_from_its_second_turn_on_and_few_are_not(self) -> None:
        async with AsyncExitStack() as stack:
            pairs = [await over(tcp_pair)() for _ in range(CROWD)]
            for pair in pairs:
                for end in pair:
                    await stack.enter_async_context(end)
            await self.exchange(pairs[:2])
            await self.exchange(pairs[:2])
            assert watched() == 0
            await self.exchange(pairs)
            await self.exchange(pairs)
            assert watched() == CROWD
            await self.exchange(pairs[:1])  # in the first turn of a few it still counts as one of many
            await self.exchange(pairs[:1])
            assert watched() == CROWD - 1
        assert watched() == 0

    @pytest.mark.usefixtures("crowded")
    async def test_a_connection_is_until_it_closes(self) -> None:
        for _ in range(3):
            left, right = pair()
            async with Stream(left) as near, Stream(right) as far:
                await near.send_all(b"hello")
                assert await far.receive_exactly(5) == b"hello"
                assert watched() == 1, "the one that has received"
            assert watched() == 0

    @pytest.mark.usefixtures("crowded")
    async def test_a_connection_is_until_it_closes_even_if_another_process_has_a_copy_of_it(self) -> None:
        left, right = pair()
        await left.send_all(b"x")
        await right.receive_some()
        copy = os.dup(right._descriptor)
        try:
            await right.aclose()
            await left.send_all(b"for nobody")
            await trio.testing.wait_all_tasks_blocked()
            other, another = pair()
            await other.send_all(b"x")
            assert await another.receive_some() == b"x"
        finally:
            os.close(copy)

    @pytest.mark.usefixtures("crowded")
    async def test_a_socket_that_somebody_else_has_closed_can_be_closed(self) -> None:
        left, right = pair()
        await left.send_all(b"x")
        await right.receive_some()
        right._socket.close()
        await right.aclose()
        assert watched() == 0

    @pytest.mark.usefixtures("crowded")
    async def test_nobody_is_where_the_system_has_no_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def full() -> None:
            raise OSError(errno.EMFILE, "too many open files")

        left, right = pair()
        with monkeypatch.context() as patch:
            patch.setattr(select, "epoll", full)
            await left.send_all(b"x")
            assert await right.receive_some() == b"x"
            assert watched() == 0
        await left.send_all(b"y")
        assert await right.receive_some() == b"y"
        assert watched() == 1

    @pytest.mark.usefixtures("crowded")
    async def test_a_socket_that_goes_to_tls_is_no_longer(self) -> None:
        left, right = pair()
        await left.send_all(b"x")
        await right.receive_some()
        assert watched() == 1
        assert right.release()
        assert watched() == 0


@pytest.mark.usefixtures("crowded")
def test_a_run_may_end_with_connections_open(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> int:
        left, right = pair()
        await left.send_all(b"x")
        await right.receive_some()
        assert watched() == 1
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    descriptors = trio.run(main)
    close_sockets()
    gc.collect()
    assert descriptors > before == len(os.listdir("/proc/self/fd"))
    assert not caplog.records


def test_what_outlives_its_run_is_told_in_the_next_one() -> None:
    async def exchange(pairs: list[tuple[SocketTransport, SocketTransport]]) -> int:
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for _, right in pairs:
                    nursery.start_soon(right.receive_some)
                await trio.testing.wait_all_tasks_blocked()
                for left, _ in pairs:
                    await left.send_all(b"x")
                await trio.testing.wait_all_tasks_blocked()
                assert not nursery.child_tasks
        return watched()

    pairs = [pair() for _ in range(CROWD)]
    assert trio.run(exchange, pairs) == CROWD
    others = [pair() for _ in range(CROWD)]
    assert trio.run(exchange, pairs + others) == CROWD, "the new ones"


@pytest.mark.usefixtures("crowded")
class TestWhatIsTold:
    async def test_what_came_before_the_first_wait(self) -> None:
        left, right = pair()
        await left.send_all(b"early")
        assert await right.receive_some() == b"early"

    async def test_what_a_small_receive_has_left(self) -> None:
        left, right = pair()
        await left.send_all(b"abcdef")
        assert [await right.receive_some(2) for _ in range(3)] == [b"ab", b"cd", b"ef"]
        with trio.testing.assert_checkpoints():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.send_all, b"g")
                assert await right.receive_some(2) == b"g"

    async def test_an_end_that_came_together_with_data(self) -> None:
        left, right = pair()
        await left.send_all(b"last words")
        await left.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        assert await right.receive_some(4) == b"last"
        assert await right.receive_some() == b" words"
        for _ in range(3):
            assert await right.receive_some() == b""

    async def test_an_end_that_came_while_nobody_waited(self) -> None:
        left, right = pair()
        await left.send_all(b"words")
        assert await right.receive_some() == b"words"
        await left.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        assert await right.receive_some() == b""

    async def test_a_reset(self) -> None:
        left, right = pair()
        await left.send_all(b"words")
        assert await right.receive_some() == b"words"
        await left.abort()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await right.receive_some()

    async def test_what_came_while_the_reader_was_at_work(self) -> None:
        left, right = pair()
        await left.send_all(b"one")
        assert await right.receive_some() == b"one"
        await left.send_all(b"two")
        await trio.testing.wait_all_tasks_blocked()
        assert right.receive_now(100) == b"two"  # it is told although somebody has taken it: that costs a try
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.send_all, b"three")
            assert await right.receive_some() == b"three"

    async def test_what_came_after_a_wait_was_cancelled(self) -> None:
        left, right = pair()
        with trio.move_on_after(0) as scope:
            await right.receive_some()
        assert scope.cancelled_caught
        await left.send_all(b"still here")
        assert await right.receive_some() == b"still here"

    async def test_a_wait_that_is_ended_by_a_drain_and_begins_anew(self) -> None:
        left, right = pair()
        stream = Stream(right)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def receive() -> None:
                assert await stream.receive_some() == b"now"

            await trio.testing.wait_all_tasks_blocked()
            right.wake()
            await trio.testing.wait_all_tasks_blocked()
            await left.send_all(b"now")

    async def test_once_in_vain_and_then_no_more_so_that_nobody_spins(self) -> None:
        left, right = pair()
        await left.send_all(b"x")
        assert await right.receive_some() == b"x"
        assert watched() == 1
        await left.send_all(b"who takes this?")
        await left.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert watched() == 0
        assert await right.receive_some() == b"who takes this?"

    async def test_who_receives_is_alone(self) -> None:
        _, right = pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(right.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await right.receive_some()
            nursery.cancel_scope.cancel()
