"""Run by a test with the recorder: a disk that is full from the n-th write on, for each n. Prints what came of it.

filling.py FOLDER SIZE ERRNO
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from asyncnet.relay.queue import Queue, open_queue
from asyncnet.smtp.delivery import Refused
from tests.faults.checking import what_is_in
from tests.faults.recorder_control import fail_after, stop_failing
from tests.relay.use import delivered, put, to


def check(refused: Refused) -> None:
    assert (refused.code, refused.enhanced) == (452, "4.3.1")


async def put_with(queue: Queue, writes: int, size: int, error: int) -> str | None:
    """A message that comes in while so many writes still go; its id, or None if it was refused."""
    fail_after(writes, error)
    try:
        return await put(queue, b"x" * size, to("bob@x.example"))
    except Refused as refused:
        check(refused)
        return None
    finally:
        stop_failing()


async def record_with(queue: Queue, writes: int, error: int) -> bool:
    """The same for the outcome of a delivery; whether it was recorded."""
    [claim] = await queue.claim(1)
    fail_after(writes, error)
    try:
        await delivered(queue, claim)
    except OSError:
        queue.release(claim)
        return False
    finally:
        stop_failing()
    return True


async def main(folder: str, size: int, error: int) -> None:
    accepted: list[str] = []
    refused = unrecorded = 0
    async with open_queue(folder) as queue:
        writes = 0
        while True:
            id = await put_with(queue, writes, size, error)
            if id is not None:
                accepted.append(id)
                break
            refused += 1
            accepted.append(await put(queue, b"y" * size, to("bob@x.example")))  # there is room again
            writes += 1
        while not await record_with(queue, unrecorded, error):
            unrecorded += 1
        accepted.pop(0)
    assert sorted(await what_is_in(Path(folder))) == sorted(accepted)
    print(refused, unrecorded)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
