"""The pair in memory behaves like a pair of sockets on a quiet machine."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from asyncnet.testing import cancel_at_each_checkpoint
from asyncnet.transports.address import NOWHERE, Address
from asyncnet.transports.memory import memory_transports


async def test_the_ends_are_where_they_were_said_to_be() -> None:
    left, right = memory_transports(left=Address("192.0.2.1", 1))
    assert (left.local, left.peer) == (Address("192.0.2.1", 1), NOWHERE)
    assert (right.local, right.peer) == (NOWHERE, Address("192.0.2.1", 1))
    left.stand_in(Address("198.51.100.1", 2), Address("203.0.113.1", 3))
    assert (left.local, left.peer) == (Address("198.51.100.1", 2), Address("203.0.113.1", 3))


async def test_a_send_takes_what_there_is_room_for() -> None:
    left, right = memory_transports(capacity=4)
    assert left.send_now(b"123456") == 4
    assert left.send_now(b"56") == 0
    assert await right.receive_some(3) == b"123"
    assert left.send_now(b"56") == 2
    assert await right.receive_some() == b"456"


async def test_a_send_that_waits_is_woken_by_room() -> None:
    left, right = memory_transports(capacity=4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.send_all, b"123456789")
        received = b""
        while len(received) < 9:
            received += await right.receive_some()
    assert received == b"123456789"


async def test_bytes_in_flight_arrive_before_the_end_and_before_the_reset() -> None:
    for close, ends_cleanly in (("aclose", True), ("abort", False)):
        left, right = memory_transports()
        await left.send_all(b"last words")
        await getattr(left, close)()
        assert await right.receive_some() == b"last words"
        if ends_cleanly:
            assert await right.receive_some() == b""
            assert await right.receive_some() == b""
        else:
            with pytest.raises(trio.BrokenResourceError):
                await right.receive_some()


async def test_closing_with_unread_bytes_is_a_reset() -> None:
    left, right = memory_transports()
    await left.send_all(b"nobody reads this")
    await right.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await left.receive_some()


async def test_sending_to_a_peer_that_has_gone_breaks() -> None:
    for close in ("aclose", "abort"):
        left, right = memory_transports()
        await getattr(right, close)()
        for send in (left.send_all(b"x"), left.send_some(b"x")):
            with pytest.raises(trio.BrokenResourceError):
                await send


async def test_a_peer_that_leaves_ends_both_waits() -> None:
    left, right = memory_transports(capacity=1)
    left.send_now(b"x")

    async def send() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await left.send_all(b"y")

    async def receive() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await left.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await right.abort()


async def test_a_cancelled_operation_has_moved_nothing() -> None:
    for attempt in cancel_at_each_checkpoint():
        left, right = memory_transports(capacity=4)
        sent = 0
        with attempt:
            sent = await left.send_some(b"1234")
        assert right.receive_now(10) == (b"1234" if sent else None)
    for attempt in cancel_at_each_checkpoint():
        left, right = memory_transports(capacity=4)
        await left.send_all(b"1234")
        data = b""
        with attempt:
            data = await right.receive_some()
        assert data + (right.receive_now(10) or b"") == b"1234"


async def test_a_wake_ends_one_wait_and_no_later_one() -> None:
    left, right = memory_transports()

    async def wait() -> None:
        begun.set()
        with pytest.raises(trio.ClosedResourceError):
            await right.wait_receivable(1)
        assert right.is_open

    right.wake()
    for schedules in range(3):
        begun = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await begun.wait()
            for _ in range(schedules):
                await trio.lowlevel.checkpoint()
            right.wake()
    await left.send_all(b"x")
    await right.wait_receivable(1)
    assert right.receive_now(1) == b"x"
