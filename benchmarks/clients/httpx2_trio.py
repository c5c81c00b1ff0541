"""HTTPX2 on trio: an `AsyncClient`."""

from __future__ import annotations

import httpx2
import trio

from benchmarks.clients import in_nursery, measure


async def main() -> None:
    async with httpx2.AsyncClient() as client:

        async def ask(url: str) -> tuple[int, bytes]:
            response = await client.get(url)
            return response.status_code, response.content

        await measure(ask, in_nursery)


if __name__ == "__main__":
    trio.run(main)
