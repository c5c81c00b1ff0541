"""Clients: requests a second over kept-alive connections to nginx. Client and nginx have a core each."""

from __future__ import annotations

import os
import sys
from functools import partial

from benchmarks.clients import TASKS
from benchmarks.harness import Benchmark, Candidate, Column, Sample, Settings, Target, measured_by, ratio, server


def measure(settings: Settings, *, module: str) -> Sample:
    """Runs `benchmarks.clients.MODULE` on the servers' core against nginx on the other one."""
    scratch = str(settings.scratch)
    direct = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with server(settings, "nginx", scratch, scratch, core=settings.load_core) as target:
        address = f"http://127.0.0.1:{target.port}/"
        command = [sys.executable, "-m", f"benchmarks.clients.{module}", address, str(settings.seconds)]
        return measured_by(command, settings.server_core, 2 * settings.seconds, direct)


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
