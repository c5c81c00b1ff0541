"""Run by a test with the recorder: so many messages at the same moment. Prints how many syncs that took.

grouping.py FOLDER COUNT SIZE
"""

from __future__ import annotations

import sys

import trio

from asyncnet.relay.queue import open_queue
from tests.faults.recorder_control import syncs
from tests.relay.use import BOB, CLIENT, ENVELOPE, put


async def main(folder: str, count: int, size: int) -> None:
    async with open_queue(folder) as queue:
        await put(queue)  # the database's log is begun
        transactions = []
        for _ in range(count):
            transaction = await queue.start(ENVELOPE, CLIENT)
            await transaction.add(BOB)
            await transaction.write(b"x" * size)
            transactions.append(transaction)
        before = syncs()
        async with trio.open_nursery() as nursery:
            for transaction in transactions:
                nursery.start_soon(transaction.commit)
        print(syncs() - before)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
