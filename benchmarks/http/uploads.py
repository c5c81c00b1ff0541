"""Request bodies: 1 GB streamed through an application that counts its bytes, and bodies in chunks of one byte."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import repeat
from pathlib import Path

from benchmarks.harness import (
    Benchmark,
    BenchmarkError,
    Candidate,
    Column,
    Sample,
    Server,
    Settings,
    Target,
    figure,
    pinned,
    server,
)
from benchmarks.http.requests import connection_to

GIGABYTE = 10**9
FIRST = 10**6
"""The size of the upload before the one that counts, so that what a server keeps for its first is in the base."""
PIECE = 10**6
CHUNK = 50_000
FLAT = 4.0
"""MiB that a server's memory may grow by while a gigabyte passes."""
SHORT, LONG = 10**6, 4 * 10**6
LINEAR = 1.1
"""How much more a byte may cost in the long body than in the short one; the clocks are that good."""


def upload(target: Server, size: int, *, chunk: int = 0) -> None:
    """Sends a body of `size` bytes, by its length or in chunks of so many; BenchmarkError unless all are counted."""
    with connection_to(target) as client:
        client.putrequest("POST", "/")
        client.putheader(*(("Transfer-Encoding", "chunked") if chunk else ("Content-Length", str(size))))
        client.endheaders()
        for piece in in_chunks(size, chunk) if chunk else repeat(bytes(PIECE), size // PIECE):
            client.send(piece)
        response = client.getresponse()
        status, body = response.status, response.read()
    if status != 200 or body != b"%d" % size:
        raise BenchmarkError(f"{size} bytes were answered by {status} and {body[:80]!r}")


def in_chunks(size: int, chunk: int) -> Iterable[bytes]:
    """The body, so many chunks in one piece that the sender is not what is measured."""
    framed = b"%x\r\n%s\r\n" % (chunk, bytes(chunk))
    together = PIECE // 10 // chunk or 1
    yield from repeat(framed * together, size // chunk // together)
    yield b"0\r\n\r\n"


def measure_memory(settings: Settings, *, module: str, arguments: tuple[str, ...], chunk: int = 0) -> Sample:
    with server(settings, module, *arguments) as target, pinned(settings.load_core):
        upload(target, FIRST, chunk=chunk)
        base = target.resident_bytes()
        forget_peak(target)
        began, busy = time.monotonic(), target.processor_seconds()
        upload(target, GIGABYTE, chunk=chunk)
        passed, busy = time.monotonic() - began, target.processor_seconds() - busy
        peak, after = peak_bytes(target), target.resident_bytes()
    return {
        "peak": peak / 2**20,
        "base": base / 2**20,
        "growth": (peak - base) / 2**20,
        "after": (after - base) / 2**20,
        "rate": GIGABYTE / passed / 1e6,
        "cost": 1e3 * busy,
    }


def forget_peak(target: Server) -> None:
    """The peak of the resident memory begins anew (proc(5), clear_refs)."""
    Path(f"/proc/{target.pid}/clear_refs").write_text("5")


def peak_bytes(target: Server) -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{target.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def measure_chunks(settings: Settings, *, module: str, arguments: tuple[str, ...]) -> Sample:
    with server(settings, module, *arguments) as target, pinned(settings.load_core):
        upload(target, SHORT // 10, chunk=1)
        short, long = (seconds_for(target, size) for size in (SHORT, LONG))
    return {"cost": 1e6 * long / LONG, "short": 1e6 * short / SHORT, "growth": long / LONG / (short / SHORT)}


def seconds_for(target: Server, size: int) -> float:
    """The server's processor time for a body of this size in chunks of one byte."""
    before = target.processor_seconds()
    upload(target, size, chunk=1)
    return target.processor_seconds() - before


UVICORN = ("uvicorn", "uvloop", "httptools")
SERVERS = (
    ("asyncnet", "asyncnet_asgi", ("count", "default"), ()),
    ("asyncnet on h11", "asyncnet_asgi", ("count", "h11"), ()),
    ("asyncnet, native handler", "asyncnet_native", ("count",), ()),
    ("uvicorn on httptools", "uvicorn_asgi", ("count", "httptools", "auto"), UVICORN),
)
OWN = [name for name, _, _, requires in SERVERS if not requires]


def uploading() -> Iterator[Candidate]:
    for name, module, arguments, requires in SERVERS:
        measuring = partial(measure_memory, module=module, arguments=arguments)
        yield Candidate(name, measuring, requires)
        yield Candidate(f"{name}, chunked", partial(measuring, chunk=CHUNK), requires)


UPLOAD = Benchmark(
    "http_upload",
    "A body of 1 GB through an application that counts its bytes: memory has to stay flat",
    (
        Column("peak", "MiB at the peak", "{:.1f}"),
        Column("base", "MiB before", "{:.1f}"),
        Column("growth", "growth", "{:.1f}"),
        Column("after", "growth left", "{:.1f}"),
        Column("rate", "MB/s"),
        Column("cost", "server's ms in all"),
    ),
    tuple(uploading()),
    tuple(
        Target(f"{name}: grows by {FLAT:.0f} MiB at most", figure("growth", name), at_most=FLAT)
        for own in OWN
        for name in (own, f"{own}, chunked")
    ),
    f"By Content-Length, or in chunks of {CHUNK:,} bytes. Resident memory; before is after a body of 1 MB.",
)

CHUNKS = Benchmark(
    "http_chunks",
    "Bodies of 1 MB and 4 MB in chunks of one byte: less is better, and a byte has to cost the same in both",
    (
        Column("cost", "server's µs a byte, of 4 MB", "{:.2f}"),
        Column("short", "of 1 MB", "{:.2f}"),
        Column("growth", "ratio", "{:.2f}"),
    ),
    tuple(
        Candidate(name, partial(measure_chunks, module=module, arguments=arguments), requires)
        for name, module, arguments, requires in SERVERS
    ),
    tuple(
        Target(f"{name}: a byte costs the same, within {LINEAR - 1:.0%}", figure("growth", name), at_most=LINEAR)
        for name in OWN
    ),
)
