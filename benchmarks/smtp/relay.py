"""SMTP: taking messages durably and passing them on, until the host that they go to has them all."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.harness import (
    Benchmark,
    BenchmarkError,
    Candidate,
    Column,
    Sample,
    Settings,
    Target,
    last_line,
    listens,
    pinned,
    ratio,
    server,
)
from benchmarks.servers import free_port

MESSAGES = 3000
MORE = 100
"""So many more are sent: what is open when the sink has had enough is nobody's loss."""
SESSIONS = 20
SIZE = 4096
PATIENCE = 120

TAKEN = Column("taken", "taken/s")
RELAYED = Column("rate", "relayed/s")


def measure(settings: Settings, *, module: str) -> Sample:
    """Postfix's smtp-source sends to a relay, and its smtp-sink ends when it has had all of it."""
    spool = Path(tempfile.mkdtemp(prefix="asyncnet-bench-smtp-", dir=settings.scratch.parent))
    spool.chmod(0o755)
    port = free_port()
    sink = ["smtp-sink", "-u", "nobody", "-M", str(MESSAGES), f"127.0.0.1:{port}", "100"]
    try:
        with pinned(settings.load_core), subprocess.Popen(sink, stderr=subprocess.DEVNULL) as receiver:
            try:
                while not listens(port):
                    time.sleep(0.01)
                with server(settings, module, str(spool), f"smtp://127.0.0.1:{port}") as target:
                    return _send(settings, target.port, receiver)
            finally:
                receiver.kill()
    finally:
        _remove(spool)


def _remove(folder: Path) -> None:
    """Postfix's processes see only after a moment that their master is gone, and go on writing until then."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _send(settings: Settings, port: int, receiver: subprocess.Popen[bytes]) -> Sample:
    load = ["-s", str(SESSIONS), "-l", str(SIZE), "-m", str(MESSAGES + MORE)]
    command = ["smtp-source", *load, "-f", "anna@example.org", "-t", "carl@example.net", f"127.0.0.1:{port}"]
    began = time.monotonic()
    with pinned(settings.load_core):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if ended.returncode != 0:
        raise BenchmarkError(last_line(ended.stderr) or f"smtp-source ended with status {ended.returncode}")
    taken = time.monotonic() - began
    try:
        receiver.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        raise BenchmarkError("the sink has not had all messages") from None
    return {"taken": (MESSAGES + MORE) / taken, "rate": MESSAGES / (time.monotonic() - began)}


def _candidate(name: str, module: str, **needs: tuple[str, ...]) -> Candidate:
    return Candidate(name, partial(measure, module=module), **needs)


RELAY = Benchmark(
    "smtp_relay",
    f"SMTP, {MESSAGES:,} messages of {SIZE} bytes from {SESSIONS} sessions, taken durably and passed on",
    (RELAYED, TAKEN),
    (
        _candidate("asyncnet", "asyncnet_relay", programs=("smtp-source", "smtp-sink")),
        _candidate("Postfix", "postfix_relay", programs=("postfix", "smtp-source", "smtp-sink")),
    ),
    (Target("as fast as Postfix", ratio("rate", "Postfix"), at_least=1.0),),
    "Queues on the same disk. Postfix is many processes, and as Debian configures it, on one core like the others.",
)
