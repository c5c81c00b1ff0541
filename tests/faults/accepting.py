"""Run by tests in a process of its own: takes messages into a queue, and says which it has taken.

    accepting.py FOLDER SEED [COUNT]

Several tasks put messages of all sizes into the queue, withdraw some, and deliver some. Each line of standard output is
something that the world knows from then on:

    opened                         the queue was opened
    accepted ID DIGEST RECIPIENTS  a message has got its 250
    delivered ID DIGEST PLACES     it was handed on for these recipients, who may be gone from now on
    recorded ID PLACES             and now they are
    failed ID PLACES REPORT        it will be for these recipients, in the same moment in which this report is there

Without a COUNT it goes on until it is killed.
"""

from __future__ import annotations

import ctypes
import os
import random
import sys
from collections.abc import Callable

import trio

from asyncnet.relay.messages import Claim, Outcome, State
from asyncnet.relay.queue import Queue, open_queue
from asyncnet.relay.spool import checksum_of
from asyncnet.replies import Reply
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.delivery import Client
from asyncnet.smtp.envelope import Envelope, Recipient
from asyncnet.transports.address import NOWHERE

TASKS = 6
SIZES = [0, 300, 5_000, 5_000, 60_000, 70_000, 150_000]

Tell = Callable[[str], None]


def teller() -> Tell:
    """Says a line to the test that reads our standard output, and to the recorder if there is one."""
    recorder = getattr(ctypes.CDLL(None), "recorder_reply", None)

    def tell(line: str) -> None:
        data = line.encode()
        if recorder is not None:
            recorder(data, len(data))
        os.write(1, data + b"\n")

    return tell


async def accept(queue: Queue, chance: random.Random, tell: Tell) -> None:
    """One message, or the begin of one."""
    data = chance.randbytes(chance.choice(SIZES))
    transaction = await queue.start(Envelope(MailAddress("ann", "example.org")), Client(NOWHERE, "test"))
    count = chance.randrange(1, 4)
    for number in range(count):
        await transaction.add(Recipient(MailAddress("bob", f"x{number % 2}.example")))
    for start in range(0, len(data), 40_000):
        await transaction.write(data[start : start + 40_000])
    if chance.random() < 0.1:
        await transaction.abort()
        return
    said = await transaction.commit()
    tell(f"accepted {said.removeprefix('queued as ')} {checksum_of(data)} {count}")


async def deliver(queue: Queue, chance: random.Random, tell: Tell) -> None:
    for claim in await queue.claim(2):
        data = b"".join([piece async for piece in queue.read(claim)])
        places = ",".join(str(one.position) for one in claim.recipients)
        if claim.message.envelope.sender is not None and chance.random() < 0.3:
            await fail(queue, claim, places, tell)
            continue
        tell(f"delivered {claim.message.id} {checksum_of(data)} {places}")
        outcomes = [Outcome(one.position, State.DELIVERED, Reply.of(250, "ok")) for one in claim.recipients]
        await queue.record(claim, outcomes)
        tell(f"recorded {claim.message.id} {places}")


async def fail(queue: Queue, claim: Claim, places: str, tell: Tell) -> None:
    """Give recipients up: their sender gets a report."""
    report = await queue.report(Envelope(None), claim.message.client)
    await report.add(Recipient(MailAddress("ann", "example.org")))
    data = claim.message.id.encode() * 8000
    await report.write(data)
    tell(f"failed {claim.message.id} {places} {report.id}")
    outcomes = [Outcome(one.position, State.FAILED, Reply.of(550, "no")) for one in claim.recipients]
    await queue.record(claim, outcomes, reports=[report])
    tell(f"recorded {claim.message.id} {places}")
    tell(f"accepted {report.id} {checksum_of(data)} 1")


async def main(folder: str, seed: str, count: str = "") -> None:
    chance = random.Random(seed)
    tell = teller()
    left = int(count) if count else -1
    async with open_queue(folder) as queue:
        tell("opened")

        async def work() -> None:
            nonlocal left
            while left:
                left -= 1
                if chance.random() < 0.35:
                    await deliver(queue, chance, tell)
                else:
                    await accept(queue, chance, tell)

        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(work)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
