"""Files: one of 1 KiB for 64 connections, and one of 1 GiB for one."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from benchmarks.echo import CONNECTIONS
from benchmarks.harness import Benchmark, Candidate, Sample, Settings, Target, load, ratio, server
from benchmarks.http import requests
from benchmarks.send_file import COLUMNS, SIZE, TRANSFERS, compare, rate_of, the_file

SMALL = 1024


def small_file(folder: Path) -> Path:
    """The small file, alone in its folder, made once a run."""
    path = folder / "small" / "file"
    if not path.exists():
        path.parent.mkdir()
        path.write_bytes(os.urandom(SMALL))
    return path


def measure_small(settings: Settings, *, module: str) -> Sample:
    path = small_file(settings.scratch)
    return requests.measure(
        settings,
        module=module,
        arguments=arguments(settings, module, path),
        path=f"/{path.name}",
        expected=path.read_bytes(),
    )


def measure_large(settings: Settings, *, module: str) -> Sample:
    """The first transfer is compared and warms the file; the others are timed."""
    path = the_file(settings.scratch)
    transfers = []
    with server(settings, module, *arguments(settings, module, path)) as target:
        with requests.connection_to(target) as client:
            client.request("GET", f"/{path.name}")
            compare(client.getresponse(), path)
        for _ in range(TRANSFERS):
            with load(settings, "fetch", target.port, target.pid, SIZE, f"/{path.name}") as running:
                transfers.append(running.result())
    return rate_of(transfers)


def arguments(settings: Settings, module: str, path: Path) -> tuple[str, ...]:
    """What a server of files has on its command line: the folder, and nginx one to write in."""
    return (str(path.parent), *[str(settings.scratch)] * (module == "nginx"))


def small(name: str, module: str, *, requires: tuple[str, ...] = (), programs: tuple[str, ...] = ()) -> Candidate:
    return Candidate(name, partial(measure_small, module=module), requires, ("wrk", *programs))


def large(name: str, module: str, *, requires: tuple[str, ...] = (), programs: tuple[str, ...] = ()) -> Candidate:
    return Candidate(name, partial(measure_large, module=module), requires, programs)


STATIC_FILES = ("starlette", "uvicorn", "httptools", "uvloop")

FILES = Benchmark(
    "http_files",
    f"A file of 1 KiB over HTTP/1.1, {CONNECTIONS} connections: more is better",
    requests.COLUMNS,
    (
        small("asyncnet", "asyncnet_files"),
        small("Starlette's StaticFiles", "uvicorn_static_files", requires=STATIC_FILES),
        small("aiohttp", "aiohttp_static", requires=("aiohttp",)),
        small("nginx", "nginx", programs=("nginx",)),
    ),
    (Target("5 times Starlette's StaticFiles", ratio("rate", "Starlette's StaticFiles"), at_least=5),),
    "StaticFiles runs on uvicorn with httptools and uvloop, as the application itself. nginx is there for orientation.",
)

FILE_1G = Benchmark(
    "http_file_1g",
    "A warm file of 1 GiB over HTTP/1.1, one connection: more is better",
    COLUMNS,
    (
        large("asyncnet", "asyncnet_files"),
        large("nginx", "nginx", programs=("nginx",)),
        large("Starlette's StaticFiles", "uvicorn_static_files", requires=STATIC_FILES),
    ),
    (Target("0.9 times nginx", ratio("rate", "nginx"), at_least=0.9),),
    "nginx sends by `sendfile`. The receiver discards inside the kernel (MSG_TRUNC), as in `send_file`.",
)
