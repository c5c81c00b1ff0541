"""What an idle connection costs: 10,000 of them, each with one echo behind it, none dropped."""

from __future__ import annotations

from functools import partial

from benchmarks.harness import (
    Benchmark,
    Candidate,
    Column,
    Sample,
    Settings,
    Target,
    allow_descriptors,
    figure,
    load,
    server,
    settled_bytes,
)

CONNECTIONS = 10_000
DESCRIPTORS = CONNECTIONS + 256
"""What a server with that many connections needs, with room for its own."""
FIRST = 8
"""Connections made and closed before the base is taken, so that what a server keeps for its first client is in it."""


def measure(settings: Settings, *, module: str) -> Sample:
    """Opens the connections, waits until the server's memory rests, and proves by an echo that all are alive."""
    allow_descriptors(DESCRIPTORS)
    with server(settings, module) as target:
        with load(settings, "idle", target.port, FIRST) as first:
            first.result()
        base = settled_bytes(target)
        with load(settings, "idle", target.port, CONNECTIONS) as running:
            running.wait_until_open()
            grown = settled_bytes(target) - base
            alive = running.result()["alive"]
    return {"each": grown / CONNECTIONS / 1024, "base": base / 2**20, "dropped": CONNECTIONS - alive}


IDLE = Benchmark(
    "idle",
    f"Memory of {CONNECTIONS:,} idle connections: less is better",
    (
        Column("each", "KiB each", "{:.2f}"),
        Column("base", "base MiB", "{:.1f}"),
        Column("dropped", "dropped"),
    ),
    (
        Candidate("asyncnet", partial(measure, module="asyncnet_echo")),
        Candidate("trio.serve_tcp", partial(measure, module="trio_echo")),
        Candidate("asyncio streams", partial(measure, module="asyncio_streams")),
    ),
    (
        Target("4.5 KiB each at most", figure("each"), at_most=4.5),
        Target("none dropped", figure("dropped"), at_most=0),
    ),
    "Resident memory of the server above what it holds after its first clients; the kernel's own share is not in it.",
)
