"""What `import asyncnet` costs beside `import trio`: the wall time of a fresh interpreter."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from benchmarks.harness import (
    CHECKOUT,
    Benchmark,
    BenchmarkError,
    Candidate,
    Column,
    Sample,
    Settings,
    Target,
    last_line,
    pinned,
)

STARTS = 10
"""Interpreters started for one sample, after one that writes the byte code."""


def measure(settings: Settings, *, statement: str) -> Sample:
    """The median time from starting an interpreter with this statement to its end."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", statement]
    times = []
    for _ in range(1 + STARTS):
        begun = time.perf_counter()
        with pinned(settings.server_core):
            ended = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
        times.append(time.perf_counter() - begun)
        if ended.returncode != 0:
            raise BenchmarkError(last_line(ended.stderr))
    return {"wall": 1000 * statistics.median(times[1:])}


def above_trio(own: str) -> Callable[[dict[str, Sample]], float]:
    return lambda medians: medians[own]["wall"] - medians["import trio"]["wall"]


IMPORT_TIME = Benchmark(
    "import_time",
    "A fresh interpreter: less is better",
    (Column("wall", "ms", "{:.1f}"),),
    (
        Candidate("import asyncnet", partial(measure, statement="import asyncnet")),
        Candidate("import trio", partial(measure, statement="import trio")),
        Candidate("asyncnet with its names", partial(measure, statement="from asyncnet import Stream, connect, serve")),
        Candidate("the bare interpreter", partial(measure, statement="pass")),
    ),
    (
        Target("ms above import trio: 40 at most", above_trio("import asyncnet"), at_most=40.0),
        Target("ms above import trio, with its names: 40 at most", above_trio("asyncnet with its names"), at_most=40.0),
    ),
)
