"""A message whose sender goes is in the queue, whole and known, or it has left nothing: at every checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from asyncnet.relay.queue import Queue, open_queue
from asyncnet.testing import cancel_at_each_checkpoint
from tests.relay.use import BOB, CLIENT, ENVELOPE, LONG, content, deferred, delivered, files, put


async def ids(queue: Queue) -> list[str]:
    claims = await queue.claim(1000, per_destination=1000)
    for claim in claims:
        queue.release(claim)
    return [claim.message.id for claim in claims]


@pytest.mark.parametrize("size", [100, LONG])
async def test_a_commit(tmp_path: Path, size: int) -> None:
    async with open_queue(tmp_path) as queue:
        acknowledged: list[str] = []
        for attempt in cancel_at_each_checkpoint():
            others: list[str] = []

            async def other(others: list[str] = others) -> None:
                others.append(await put(queue))

            transaction = await queue.start(ENVELOPE, CLIENT)
            await transaction.add(BOB)
            await transaction.write(b"x" * size)
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(other)
                with attempt:
                    await transaction.commit()
                    others.append(transaction.id)
            acknowledged += others
            assert sorted(await ids(queue)) == sorted(acknowledged)
            assert len(others) >= 3
            assert set(files(tmp_path)) <= set(acknowledged)
    async with open_queue(tmp_path) as queue:
        assert sorted(await ids(queue)) == sorted(acknowledged)


async def test_a_write(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        for attempt in cancel_at_each_checkpoint():
            transaction = await queue.start(ENVELOPE, CLIENT)
            with attempt:
                for _ in range(3):
                    await transaction.write(b"x" * LONG)
            await transaction.abort()
            assert files(tmp_path) == []


@pytest.mark.parametrize("done", [True, False])
async def test_a_record(tmp_path: Path, done: bool) -> None:
    async with open_queue(tmp_path) as queue:
        for attempt in cancel_at_each_checkpoint():
            id = await put(queue)
            [claim] = await queue.claim(10)
            recorded = False
            with attempt:
                await (delivered if done else deferred)(queue, claim)
                recorded = True
            if not recorded:
                queue.release(claim)
            assert await ids(queue) == ([] if recorded else [id])
            if not recorded:
                [claim] = await queue.claim(10)
                await delivered(queue, claim)


async def test_a_claim(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        id = await put(queue)
        for attempt in cancel_at_each_checkpoint():
            with attempt:
                for claim in await queue.claim(10):
                    queue.release(claim)
            assert await ids(queue) == [id]


async def test_a_read(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        await put(queue, b"x" * 600_000)
        [claim] = await queue.claim(10)
        for attempt in cancel_at_each_checkpoint():
            with attempt:
                assert await content(queue, claim) == b"x" * 600_000


async def test_a_wait(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        for attempt in cancel_at_each_checkpoint():
            await queue.claim(10)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(put, queue)
                with attempt:
                    await queue.wait()
            for claim in await queue.claim(10):
                await delivered(queue, claim)
