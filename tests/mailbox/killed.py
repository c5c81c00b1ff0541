"""Run by a test in a process of its own: a delivery that is killed, by the test or by itself at a system call."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import trio

from asyncnet.mailbox.maildir import Maildir
from asyncnet.mailbox.maildir_delivery import BUFFER

CONTENT = b"x" * 998 + b"\r\n"


def die_at(call: str, number: int) -> None:
    """Have this process die in place of the system call `call`, when it is made for the `number`th time."""
    function = getattr(os, call)
    left = number

    def called(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    setattr(os, call, called)


async def wait_in_the_middle(path: str) -> None:
    mailbox = Maildir(path)
    async with mailbox.lock():
        incoming = await mailbox.deliver()
        await incoming.write(b"x" * BUFFER)
        print("written", flush=True)
        await trio.sleep_forever()


async def deliver(path: str, call: str, number: str) -> None:
    incoming = await Maildir(path).deliver()
    die_at(call, int(number))
    for _ in range(2):
        await incoming.write(CONTENT * 500)
    await incoming.commit()


if __name__ == "__main__":
    trio.run(deliver if len(sys.argv) > 2 else wait_in_the_middle, *sys.argv[1:])
