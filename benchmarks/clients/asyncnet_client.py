"""asyncnet: an `HTTPClient`."""

from __future__ import annotations

import trio

from asyncnet.http.client import HTTPClient
from benchmarks.clients import in_nursery, measure


async def main() -> None:
    async with HTTPClient() as client:

        async def ask(url: str) -> tuple[int, bytes]:
            response = await client.get(url)
            return response.status, response.content

        await measure(ask, in_nursery)


if __name__ == "__main__":
    trio.run(main)
