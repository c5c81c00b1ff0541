"""A service in a Trio program: a nursery runs it beside everything else, and Ctrl-C drains it.

python examples/embed_in_trio.py [ENDPOINT]
"""

from __future__ import annotations

import sys

import trio

from asyncnet import drain_on_signal, serve
from asyncnet.echo import EchoHandler


async def rest_of_the_program() -> None:
    await trio.sleep_forever()


async def main(endpoint: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rest_of_the_program)
        service = await nursery.start(serve, EchoHandler(), endpoint)
        print(f"echo on {service.endpoints[0]}; try it with: asyncnet connect {service.endpoints[0]}", flush=True)
        await drain_on_signal(service)
        print(f"served {service.counters.accepted} connections")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:7007")
