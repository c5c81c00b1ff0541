"""Run by a test in a process of its own: a delivery that writes, says so, and waits to be killed."""

from __future__ import annotations

import sys

import trio

from asyncnet.mailbox.maildir import Maildir
from asyncnet.mailbox.maildir_delivery import BUFFER


async def main(path: str) -> None:
    mailbox = Maildir(path)
    async with mailbox.lock():
        incoming = await mailbox.deliver()
        await incoming.write(b"x" * BUFFER)
        print("written", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
