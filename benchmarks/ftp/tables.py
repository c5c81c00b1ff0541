"""FTP: a gigabyte each way, in the clear and in TLS; many small files; logins; sessions at once; a long list."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.harness import (
    Benchmark,
    Candidate,
    Column,
    Sample,
    Settings,
    Target,
    figure,
    measured_by,
    ratio,
    server,
)

GIGABYTE = 1 << 30
TRANSFERS = 3
SMALL_FILES = 2000
LOGINS = 2000
SESSIONS = 200
ENTRIES = 100_000
MEMORY = Path("/dev/shm")

FILES = "files in memory (tmpfs). Each file up is a new one: memory that nobody has touched is slow, and not measured."
"""A server that keeps the old file until the new one is whole needs twice as much of it for one that is replaced."""

RATE = Column("rate", "GB/s", "{:.2f}")
EACH = Column("rate", "per second")
BUSY = Column("busy", "server busy", "{:.0%}")
COST = Column("cost", "µs of processor each", "{:,.0f}")

PEERS = {"vsftpd": "vsftpd", "pyftpdlib": "pyftpdlib_ftp"}


@contextmanager
def folder() -> Iterator[Path]:
    """A new folder with one in it for everybody; in memory where that is possible: the disk is not what is measured."""
    place = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 3 * GIGABYTE else None
    with tempfile.TemporaryDirectory(prefix="asyncnet-bench-ftp-", dir=place) as made:
        root = Path(made)
        root.chmod(0o755)  # vsftpd serves no root that everybody may write to
        (root / "all").mkdir()
        (root / "all").chmod(0o777)
        yield root


def measure(
    settings: Settings, *, module: str, kind: str, count: int, tls: bool = False, before: str | None = None
) -> Sample:
    """One load on one server; `before` is another load that comes first."""
    arguments = []
    with folder() as root:
        fill(root / "all", kind, count)
        if tls:
            from benchmarks.echo import certificate

            arguments = ["--certificate", str(certificate(settings.scratch))]
        with server(settings, module, str(root), *arguments) as target:
            for each in (before, kind):
                if each is not None:
                    command = [sys.executable, "-m", "benchmarks.ftp.client", each, str(target.port), str(target.pid)]
                    sample = measured_by([*command, str(count)], settings.load_core, 120)
    return sample


def fill(root: Path, kind: str, count: int) -> None:
    if kind.startswith("retr"):
        with (root / "file").open("wb") as file:
            for _ in range(GIGABYTE >> 20):
                file.write(os.urandom(1 << 20))
    elif kind == "sessions":
        (root / "ten").write_bytes(os.urandom(10**7))
    elif kind == "list":
        (root / "many").mkdir()
        for number in range(count):
            (root / "many" / f"entry {number}").touch()


def candidates(
    kind: str, count: int, *peers: str, tls: bool = False, before: str | None = None
) -> tuple[Candidate, ...]:
    def one(name: str, module: str, **needs: tuple[str, ...]) -> Candidate:
        return Candidate(name, partial(measure, module=module, kind=kind, count=count, tls=tls, before=before), **needs)

    made = [one("asyncnet", "asyncnet_ftp")]
    for peer in peers:
        needs: dict[str, tuple[str, ...]]
        needs = {"programs": ("vsftpd",)} if peer == "vsftpd" else {"requires": ("pyftpdlib",)}
        made.append(one(peer, PEERS[peer], **needs))
    return tuple(made)


def bulk(kind: str, title: str) -> Benchmark:
    return Benchmark(
        f"ftp_{kind}",
        f"FTP {title}, 1 GiB: more is better",
        (RATE, BUSY),
        candidates(kind, TRANSFERS, "vsftpd", "pyftpdlib"),
        (
            Target("as fast as vsftpd", ratio("rate", "vsftpd"), at_least=1.0),
            Target("as fast as pyftpdlib", ratio("rate", "pyftpdlib"), at_least=1.0),
        ),
        f"A client of blocking sockets; {FILES}",
    )


def bulk_tls(kind: str, title: str) -> Benchmark:
    return Benchmark(
        f"ftp_{kind.replace('-', '_')}",
        f"FTP {title} in TLS, 1 GiB: more is better",
        (RATE, BUSY),
        candidates(kind, TRANSFERS, "pyftpdlib", tls=True),
        (Target("1.5 times pyftpdlib's TLS handler", ratio("rate", "pyftpdlib"), at_least=1.5),),
        f"A client of blocking sockets, Python's ssl; {FILES}",
    )


def small(kind: str, title: str, count: int, before: str | None = None) -> Benchmark:
    return Benchmark(
        f"ftp_{kind.replace('-', '_')}",
        title,
        (EACH, COST, BUSY),
        candidates(kind, count, "vsftpd", "pyftpdlib", before=before),
        (Target("1.3 times pyftpdlib", ratio("rate", "pyftpdlib"), at_least=1.3),),
        "A client of blocking sockets; files in memory (tmpfs). The figures are the client's, who is part of the time.",
    )


RETR = bulk("retr", "RETR")
STOR = bulk("stor", "STOR")
RETR_TLS = bulk_tls("retr-tls", "RETR")
STOR_TLS = bulk_tls("stor-tls", "STOR")
SMALL_UP = small("small-up", f"FTP, {SMALL_FILES} files of 4 KiB up over one control connection", SMALL_FILES)
SMALL_DOWN = small(
    "small-down", f"FTP, {SMALL_FILES} files of 4 KiB down over one control connection", SMALL_FILES, "small-up"
)
LOGIN = small("login", "FTP logins, 8 at a time: connect, USER, PASS, TYPE, QUIT", LOGINS)
SESSIONS_TABLE = Benchmark(
    "ftp_sessions",
    f"FTP, {SESSIONS} sessions that fetch 10 MB each at the same moment",
    (
        Column("spread", "slowest / fastest", "{:.2f}"),
        Column("rate", "GB/s", "{:.2f}"),
        Column("peak", "peak MiB", "{:.1f}"),
    ),
    candidates("sessions", SESSIONS, "pyftpdlib"),
    (Target("the slowest takes at most 3 times the fastest", figure("spread"), at_most=3.0),),
    "One client reads all of them in turn, 64 KiB at a time.",
)
LIST = Benchmark(
    "ftp_list",
    f"FTP, MLSD of {ENTRIES:,} entries, and NOOPs of another session meanwhile",
    (
        Column("first", "first entry, ms", "{:.1f}"),
        Column("held", "longest NOOP, ms", "{:.1f}"),
        EACH,
        Column("peak", "peak MiB", "{:.1f}"),
    ),
    candidates("list", ENTRIES, "pyftpdlib"),
    (
        Target("the first entry within 100 ms", figure("first"), at_most=100.0),
        Target("the loop is never held for more than 50 ms", figure("held"), at_most=50.0),
    ),
    "The NOOPs come from a thread of the same client, whose own turns are in their times.",
)
TABLES = (RETR, STOR, RETR_TLS, STOR_TLS, SMALL_UP, SMALL_DOWN, LOGIN, SESSIONS_TABLE, LIST)
