"""A service in an asyncio program: Trio runs in the same thread, and ends with the `async with` block.

python examples/embed_in_asyncio.py [ENDPOINT]
"""

from __future__ import annotations

import asyncio
import signal
import sys

from asyncnet import serve
from asyncnet.echo import EchoHandler
from asyncnet.embed import in_asyncio


async def main(endpoint: str) -> None:
    asked_to_end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked_to_end.set)
    async with in_asyncio() as portal:
        service = await portal.start(serve, EchoHandler(), endpoint)
        print(f"echo on {service.endpoints[0]}; try it with: asyncnet connect {service.endpoints[0]}", flush=True)
        await asked_to_end.wait()  # and whatever else this program does, in asyncio
        await portal.run(service.drain)
    print(f"served {service.counters.accepted} connections")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:7007"))
