"""Fetches many pages at once, and says what came of each: status, size, time. Exit status 1 if one did not come.

python examples/fetch_many.py URL...          (or URLs on standard input, one a line)
"""

from __future__ import annotations

import sys

import trio

from asyncnet import AsyncnetError
from asyncnet.http import HTTPClient
from asyncnet.printable import printable

AT_ONCE = 20


async def fetch(client: HTTPClient, url: str) -> bool:
    """Read a page piece by piece, of whatever size, print a line about it, and tell whether it came."""
    began, size = trio.current_time(), 0
    try:
        async with client.request("GET", url) as response:
            async for piece in response.body:
                size += len(piece)
    except (OSError, AsyncnetError, trio.BrokenResourceError) as error:
        print(printable(f"--- {url}: {error}"))
        return False
    print(printable(f"{response.status} {size:10} B {trio.current_time() - began:7.3f} s  {url}"))
    return response.is_success


async def main(urls: list[str]) -> int:
    limit = trio.CapacityLimiter(AT_ONCE)
    fetched: list[bool] = []

    async def fetch_in_turn(url: str) -> None:
        async with limit:
            fetched.append(await fetch(client, url))

    async with HTTPClient() as client, trio.open_nursery() as nursery:
        for url in urls:
            nursery.start_soon(fetch_in_turn, url)
    return 0 if all(fetched) else 1


if __name__ == "__main__":
    sys.exit(trio.run(main, sys.argv[1:] or sys.stdin.read().split()))
