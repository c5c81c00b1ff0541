"""SMTP: accepting messages and throwing them away, one for each connection and many over each."""

from __future__ import annotations

import subprocess
import time
from functools import partial

from benchmarks.harness import (
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

MESSAGES = 10_000
SESSIONS = 20
SIZE = 4096

RATE = Column("rate", "messages/s")
COST = Column("cost", "server's µs each")
BUSY = Column("busy", "server busy", "{:.0%}")


def measure(settings: Settings, *, module: str, options: tuple[str, ...]) -> Sample:
    """How fast Postfix's smtp-source gets rid of its messages. It ends with an error for any reply that it dislikes."""
    with server(settings, module) as target:
        envelope = ("-f", "anna@example.org", "-t", "carl@example.net", f"127.0.0.1:{target.port}")
        command = ["smtp-source", *options, "-s", str(SESSIONS), "-l", str(SIZE)]
        for count in (MESSAGES // 10, MESSAGES):  # the first ones do not count
            busy, began = target.processor_seconds(), time.monotonic()
            with pinned(settings.load_core):
                ended = subprocess.run(
                    [*command, "-m", str(count), *envelope], capture_output=True, text=True, timeout=120
                )
            seconds, busy = time.monotonic() - began, target.processor_seconds() - busy
            if ended.returncode != 0:
                raise BenchmarkError(last_line(ended.stderr) or f"smtp-source ended with status {ended.returncode}")
    return {"rate": count / seconds, "cost": busy / count * 1e6, "busy": busy / seconds}


def table(name: str, title: str, *options: str) -> Benchmark:
    def one(name: str, module: str, **needs: tuple[str, ...]) -> Candidate:
        return Candidate(name, partial(measure, module=module, options=options), **needs)

    return Benchmark(
        name,
        f"SMTP, {MESSAGES:,} messages of {SIZE} bytes from {SESSIONS} sessions, {title}",
        (RATE, COST, BUSY),
        (
            one("asyncnet", "asyncnet_smtp"),
            one("aiosmtpd", "aiosmtpd_discard", requires=("aiosmtpd",)),
            one("smtp-sink", "smtp_sink", programs=("smtp-source", "smtp-sink")),
        ),
        (Target("3 times aiosmtpd", ratio("rate", "aiosmtpd"), at_least=3.0),),
        "The load is Postfix's smtp-source, which waits for each reply before it sends the next command.",
    )


CONNECTIONS = table("smtp_connections", "a connection for each")
REUSED = table("smtp_reused", "over connections that stay", "-d")
TABLES = (CONNECTIONS, REUSED)
