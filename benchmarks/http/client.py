"""Clients: requests a second over kept-alive connections to nginx. Client and nginx have a core each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

from benchmarks.clients import TASKS
from benchmarks.harness import (
    CHECKOUT,
    LOAD_MARGIN,
    Benchmark,
    BenchmarkError,
    Candidate,
    Column,
    Sample,
    Settings,
    Target,
    last_line,
    pinned,
    ratio,
    server,
)


def measure(settings: Settings, *, module: str) -> Sample:
    """Runs `benchmarks.clients.MODULE` on the servers' core against nginx on the other one."""
    scratch = str(settings.scratch)
    direct = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with server(settings, "nginx", scratch, scratch, core=settings.load_core) as target:
        command = [sys.executable, "-m", f"benchmarks.clients.{module}", f"http://127.0.0.1:{target.port}/"]
        with pinned(settings.server_core):
            ended = subprocess.run(
                [*command, str(settings.seconds)],
                cwd=CHECKOUT,
                env=direct,
                capture_output=True,
                text=True,
                timeout=2 * settings.seconds + LOAD_MARGIN,
            )
    if ended.returncode != 0:
        raise BenchmarkError(last_line(ended.stderr))
    sample: Sample = json.loads(last_line(ended.stdout))
    return sample


def candidate(name: str, module: str, *requires: str) -> Candidate:
    return Candidate(name, partial(measure, module=module), requires, ("nginx",))


CLIENT = Benchmark(
    "http_client",
    "HTTP client, requests over kept-alive connections to nginx: more is better",
    (
        Column("rate", "requests/s, one by one"),
        Column("concurrent", f"requests/s, {TASKS} tasks"),
        Column("rate_busy", "client busy, one by one", "{:.0%}"),
        Column("concurrent_busy", f"client busy, {TASKS} tasks", "{:.0%}"),
    ),
    (
        candidate("asyncnet", "asyncnet_client"),
        candidate("HTTPX on trio", "httpx_trio", "httpx"),
        candidate("HTTPX2 on trio", "httpx2_trio", "httpx2"),
        candidate("aiohttp", "aiohttp_session", "aiohttp"),
    ),
    (
        Target("3 times HTTPX on trio, one by one", ratio("rate", "HTTPX on trio"), at_least=3),
        Target(f"3 times HTTPX on trio, {TASKS} tasks", ratio("concurrent", "HTTPX on trio"), at_least=3),
    ),
    "aiohttp runs on asyncio. It is there for orientation.",
)
