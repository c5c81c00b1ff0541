"""The HTTP clients that the benchmarks compare, one file each, written as each library's documentation writes them.

Each gets a URL and a number of seconds, asks for that long one request after the other and then by 32 tasks at once,
and prints what it found. None is tuned. Every answer is checked.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

TASKS = 32
WARMUP = 0.5
"""Seconds of requests that are not counted."""

Ask: TypeAlias = Callable[[str], Awaitable[tuple[int, bytes]]]
"""Fetches a URL: status and body."""
AtOnce: TypeAlias = Callable[[Callable[[], Awaitable[None]], int], Awaitable[None]]
"""Runs a function in so many tasks, to the end of all of them."""


async def measure(ask: Ask, at_once: AtOnce) -> None:
    """Asks as the command line says, and prints a line of JSON."""
    url, seconds = sys.argv[1], float(sys.argv[2])
    found = {}
    for key, tasks in (("rate", 1), ("concurrent", TASKS)):
        await rate(ask, url, WARMUP, tasks, at_once)
        busy = time.process_time()
        found[key] = await rate(ask, url, seconds, tasks, at_once)
        found[f"{key}_busy"] = (time.process_time() - busy) / seconds
    print(json.dumps(found))


async def rate(ask: Ask, url: str, seconds: float, tasks: int, at_once: AtOnce) -> float:
    """How many answers a second so many tasks get."""
    began = time.monotonic()
    answered = 0

    async def one_after_the_other() -> None:
        nonlocal answered
        while time.monotonic() < began + seconds:
            status, body = await ask(url)
            if status != 200 or body != b"Hello, world!":
                raise ValueError(f"the answer was {status} and {body[:80]!r}")
            answered += 1

    await at_once(one_after_the_other, tasks)
    return answered / (time.monotonic() - began)


async def in_nursery(function: Callable[[], Awaitable[None]], tasks: int) -> None:
    """`AtOnce` on trio."""
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(function)
