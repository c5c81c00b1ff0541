"""Deadlines by alarms: they ring when they hold, and cost little when they move."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from asyncnet.alarms import SWEEP_FROM, alarms_of_this_run
from asyncnet.errors import ReceiveTimeout
from asyncnet.testing import stream_pair


async def time_of_timeout(stream: trio.abc.Stream) -> float:
    with pytest.raises(ReceiveTimeout):
        await stream.receive_some()
    return trio.current_time()


async def test_a_receive_gives_up_at_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    _client, server = stream_pair()
    server.deadline = trio.current_time() + 7
    assert await time_of_timeout(server) == pytest.approx(7)


@pytest.mark.parametrize("times", [(7, 3), (3, 7), (3, math.inf, 7), (9, 3, 7), (3, 9, 5, 7), (9, 5, 1, 7)])
async def test_the_deadline_that_was_set_last_holds(
    autojump_clock: trio.testing.MockClock, times: tuple[float, ...]
) -> None:
    _client, server = stream_pair()
    for time in times:
        server.deadline = time
    assert await time_of_timeout(server) == pytest.approx(times[-1])


async def test_a_deadline_moved_while_a_receive_waits_holds(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    async def move() -> None:
        for when, to in ((2, 20), (8, 10), (9, 30), (15, math.inf), (50, 60), (59, 70)):
            await trio.sleep_until(when)
            server.deadline = to

    _client, server = stream_pair()
    server.deadline = 5
    nursery.start_soon(move)
    assert await time_of_timeout(server) == pytest.approx(70)


def test_a_deadline_holds_also_on_a_stream_that_has_outlived_its_run() -> None:
    async def wait() -> float:
        server.deadline = trio.current_time() + 7
        with trio.fail_after(100):
            return await time_of_timeout(server)

    async def leave_an_alarm() -> None:
        for seconds in (5, 3):
            server.deadline = trio.current_time() + seconds

    _client, server = stream_pair()
    trio.run(leave_an_alarm, clock=trio.testing.MockClock(autojump_threshold=0))
    assert trio.run(wait, clock=trio.testing.MockClock(autojump_threshold=0)) == pytest.approx(7)


async def test_without_a_deadline_a_receive_waits_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    _client, server = stream_pair()
    server.deadline = 5
    server.deadline = math.inf
    with trio.move_on_after(1e6) as scope:
        await server.receive_some()
    assert scope.cancelled_caught


async def test_a_deadline_in_the_past_ends_a_receive_that_waits_already(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    _client, server = stream_pair()

    async def move() -> None:
        await trio.sleep(3)
        server.deadline = 1

    nursery.start_soon(move)
    assert await time_of_timeout(server) == pytest.approx(3)
    assert await time_of_timeout(server) == pytest.approx(3)


async def test_many_streams_ring_each_at_its_time(autojump_clock: trio.testing.MockClock) -> None:
    ended = []

    async def wait(seconds: int) -> None:
        _client, server = stream_pair()
        server.deadline = seconds
        ended.append((seconds, round(await time_of_timeout(server), 3)))

    async with trio.open_nursery() as nursery:
        for seconds in (5, 1, 4, 2, 3):
            nursery.start_soon(wait, seconds)
    assert ended == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]


async def test_a_stream_that_moves_its_deadline_for_ever_has_few_alarms(mock_clock: trio.testing.MockClock) -> None:
    """A short limit for each request and a long one between them, as a server sets them."""
    _client, server = stream_pair()
    most = 0
    for _ in range(200):
        server.deadline = trio.current_time() + 5
        mock_clock.jump(1)
        await trio.testing.wait_all_tasks_blocked()
        server.deadline = trio.current_time() + 300
        mock_clock.jump(7)
        await trio.testing.wait_all_tasks_blocked()
        most = max(most, len(alarms_of_this_run()))
    assert most <= 2


async def test_setting_the_same_deadline_later_and_later_sets_one_alarm(mock_clock: trio.testing.MockClock) -> None:
    _client, server = stream_pair()
    for i in range(1000):
        server.deadline = trio.current_time() + 60 + i
    assert len(alarms_of_this_run()) == 1


async def test_alarms_of_streams_that_are_gone_are_forgotten(mock_clock: trio.testing.MockClock) -> None:
    for _ in range(20 * SWEEP_FROM):
        _client, server = stream_pair()
        server.deadline = trio.current_time() + 3600
    assert len(alarms_of_this_run()) <= SWEEP_FROM


async def test_an_alarm_of_a_stream_that_is_gone_or_closed_rings_nobody(mock_clock: trio.testing.MockClock) -> None:
    client, server = stream_pair()
    client.deadline = server.deadline = trio.current_time() + 1
    await server.aclose()
    assert server.deadline == math.inf
    del client
    mock_clock.jump(2)
    await trio.testing.wait_all_tasks_blocked()
    assert len(alarms_of_this_run()) == 0
