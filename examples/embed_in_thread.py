"""A service in a synchronous program: Trio runs in a thread, which ends with the `with` block.

python examples/embed_in_thread.py [ENDPOINT]
"""

from __future__ import annotations

import sys

from asyncnet import serve
from asyncnet.echo import EchoHandler
from asyncnet.embed import in_thread


def main(endpoint: str) -> None:
    with in_thread() as portal:
        service = portal.start(serve, EchoHandler(), endpoint)
        try:
            print(f"echo on {service.endpoints[0]}; try it with: asyncnet connect {service.endpoints[0]}", flush=True)
            input("Enter ends it.\n")  # and whatever else this program does, without async
        except (EOFError, KeyboardInterrupt):
            pass
        portal.run(service.drain)
    print(f"served {service.counters.accepted} connections")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:7007")
