"""aiohttp: a `ClientSession`, on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from benchmarks.clients import measure


async def gathered(function: Callable[[], Awaitable[None]], tasks: int) -> None:
    await asyncio.gather(*(function() for _ in range(tasks)))


async def main() -> None:
    async with aiohttp.ClientSession() as session:

        async def ask(url: str) -> tuple[int, bytes]:
            async with session.get(url) as response:
                return response.status, await response.read()

        await measure(ask, gathered)


if __name__ == "__main__":
    asyncio.run(main())
