"""Who waits together is written together; who is cancelled is in or out."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from asyncnet.relay import writer as writer_module
from asyncnet.relay.writer import Writer
from asyncnet.testing import cancel_at_each_checkpoint


class Log:
    """Commits by noting what would be committed; waits with each until it is let go."""

    def __init__(self, *, free: bool = True) -> None:
        self.batches: list[list[str]] = []
        self.known: list[str] = []
        self.gate = threading.Semaphore(1_000_000 if free else 0)
        self.begun = threading.Semaphore(0)
        self.at_work = 0
        self.writer: Writer[str] = Writer(self.commit, self.committed)

    def commit(self, requests: Sequence[str]) -> None:
        assert not self.at_work
        self.at_work += 1
        try:
            self.begun.release()
            self.gate.acquire()
            if "full" in requests:
                raise OSError(errno.ENOSPC, "full")
            if "bad" in requests:
                raise ValueError("bad")
            self.batches.append(sorted(requests))
        finally:
            self.at_work -= 1

    def committed(self, requests: Sequence[str]) -> None:
        self.known.extend(requests)

    async def in_thread(self) -> None:
        """Until a batch has begun."""
        await trio.to_thread.run_sync(self.begun.acquire)

    @property
    def written(self) -> list[str]:
        return sorted(request for batch in self.batches for request in batch)


async def test_who_asks_at_the_same_moment_shares_a_transaction() -> None:
    log = Log()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(log.writer.submit, f"{number:02}")
    assert log.batches == [[f"{number:02}" for number in range(20)]]


async def test_who_asks_while_a_batch_is_written_shares_the_next() -> None:
    log = Log(free=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.writer.submit, "a")
        await log.in_thread()
        for name in "bcd":
            nursery.start_soon(log.writer.submit, name)
        await trio.testing.wait_all_tasks_blocked()
        log.gate.release(2)
    assert log.batches == [["a"], ["b", "c", "d"]]


async def test_a_batch_has_a_size() -> None:
    log = Log()
    async with trio.open_nursery() as nursery:
        for number in range(writer_module.BATCH + 1):
            nursery.start_soon(log.writer.submit, str(number))
    assert [len(batch) for batch in log.batches] == [writer_module.BATCH, 1]


async def test_a_request_that_fails_takes_no_other_with_it() -> None:
    log = Log()
    raised: dict[str, BaseException] = {}

    async def submit(name: str) -> None:
        try:
            await log.writer.submit(name)
        except ValueError as error:
            raised[name] = error

    async with trio.open_nursery() as nursery:
        for name in ("a", "bad", "c"):
            nursery.start_soon(submit, name)
    assert list(raised) == ["bad"]
    assert log.written == sorted(log.known) == ["a", "c"]


async def test_where_there_is_no_room_all_fail_and_then_all_goes_on() -> None:
    log = Log()
    raised: list[tuple[str, int | None]] = []

    async def submit(name: str) -> None:
        try:
            await log.writer.submit(name)
        except OSError as error:
            raised.append((name, error.errno))

    async with trio.open_nursery() as nursery:
        for name in ("a", "full", "c"):
            nursery.start_soon(submit, name)
    assert sorted(raised) == [(name, errno.ENOSPC) for name in ("a", "c", "full")]
    await log.writer.submit("d")
    assert log.written == log.known == ["d"]


async def test_a_waiter_who_is_cancelled_before_its_batch_is_withdrawn() -> None:
    log = Log(free=False)
    scope = trio.CancelScope()

    async def submit_cancelled() -> None:
        with scope:
            await log.writer.submit("b")
            raise AssertionError("it was withdrawn")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.writer.submit, "a")
        await log.in_thread()
        nursery.start_soon(submit_cancelled)
        nursery.start_soon(log.writer.submit, "c")
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert scope.cancelled_caught
        log.gate.release(2)
    assert log.batches == [["a"], ["c"]]


@pytest.mark.parametrize("cancelled", ["a", "b", "c"])
async def test_one_who_is_cancelled_within_its_batch_is_in_and_so_are_the_others(cancelled: str) -> None:
    log = Log(free=False)
    scopes = {name: trio.CancelScope() for name in "abc"}
    returned: list[str] = []

    async def submit(name: str) -> None:
        with scopes[name]:
            await log.writer.submit(name)
            returned.append(name)

    async with trio.open_nursery() as nursery:
        for name in scopes:
            nursery.start_soon(submit, name)
        await log.in_thread()
        scopes[cancelled].cancel()
        await trio.testing.wait_all_tasks_blocked()
        log.gate.release()
    assert sorted(returned) == ["a", "b", "c"]
    assert log.batches == [["a", "b", "c"]]


async def test_the_lead_is_passed_on_to_one_who_is_then_cancelled() -> None:
    log = Log(free=False)
    scope = trio.CancelScope()

    async def submit_cancelled() -> None:
        with scope:
            await log.writer.submit("b")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.writer.submit, "a")
        await log.in_thread()
        nursery.start_soon(submit_cancelled)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(log.writer.submit, "c")
        await trio.testing.wait_all_tasks_blocked()
        log.gate.release()
        await log.in_thread()  # now "b" leads
        scope.cancel()
        log.gate.release()
    assert log.written == ["a", "b", "c"]


async def test_whoever_returns_is_in_and_whoever_is_cancelled_is_not_at_every_checkpoint() -> None:
    for attempt in cancel_at_each_checkpoint():
        log = Log()
        returned: list[str] = []

        async def submit(name: str, log: Log = log, returned: list[str] = returned) -> None:
            await log.writer.submit(name)
            returned.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit, "other")
            with attempt:
                async with trio.open_nursery() as inner:
                    for name in ("a", "b", "c"):
                        inner.start_soon(submit, name)
            await log.writer.submit("last")
        assert sorted([*returned, "last"]) == log.written == sorted(log.known)
        assert "other" in log.written
