"""Sending 1 GiB from a warm file: `Stream.send_file` in a handler, and the RETR of pyftpdlib."""

from __future__ import annotations

import ftplib
import os
import socket
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from benchmarks.harness import (
    Benchmark,
    BenchmarkError,
    Candidate,
    Column,
    Sample,
    Settings,
    Target,
    load,
    ratio,
    server,
)

SIZE = 1 << 30
PIECE = 1 << 20
TRANSFERS = 4
"""Timed transfers from each server. The one before them is compared byte by byte, and warms the file."""

COLUMNS = (
    Column("rate", "GB/s", "{:.2f}"),
    Column("server_busy", "server busy", "{:.0%}"),
    Column("load_busy", "load busy", "{:.0%}"),
)


def the_file(folder: Path) -> Path:
    """The file to send, alone in its folder and on real blocks, made once a run."""
    path = folder / "files" / "file"
    if not path.exists():
        path.parent.mkdir()
        with path.open("wb") as file:
            for _ in range(SIZE // PIECE):
                file.write(os.urandom(PIECE))
            file.flush()
            os.fsync(file.fileno())
    return path


def compare(received: BinaryIO, path: Path) -> None:
    with path.open("rb") as file:
        while expected := file.read(PIECE):
            if received.read(PIECE) != expected:
                raise BenchmarkError("what arrived is not what the file holds")
        if received.read(1):
            raise BenchmarkError("more arrived than the file holds")


def rate_of(transfers: list[Sample]) -> Sample:
    return {
        "rate": len(transfers) * SIZE / sum(transfer["seconds"] for transfer in transfers) / 1e9,
        "server_busy": statistics.fmean(transfer["server_busy"] for transfer in transfers),
        "load_busy": statistics.fmean(transfer["load_busy"] for transfer in transfers),
    }


def measure_asyncnet(settings: Settings) -> Sample:
    """A connection is the request."""
    path = the_file(settings.scratch)
    transfers = []
    with server(settings, "asyncnet_send_file", str(path)) as target:
        with socket.create_connection(("127.0.0.1", target.port)) as connection, connection.makefile("rb") as received:
            compare(received, path)
        for _ in range(TRANSFERS):
            with load(settings, "fetch", target.port, target.pid, SIZE) as running:
                transfers.append(running.result())
    return rate_of(transfers)


def measure_pyftpdlib(settings: Settings) -> Sample:
    """The load is the data connection; the control connection is made here."""
    path = the_file(settings.scratch)
    transfers = []
    with server(settings, "pyftpdlib_retr", str(path.parent)) as target, anonymous(target.port) as ftp:
        with ftp.transfercmd(f"RETR {path.name}") as connection, connection.makefile("rb") as received:
            compare(received, path)
        ftp.voidresp()
        for _ in range(TRANSFERS):
            with load(settings, "fetch", ftp.makepasv()[1], target.pid, SIZE) as running:
                ftp.sendcmd(f"RETR {path.name}")
                transfers.append(running.result())
            ftp.voidresp()
    return rate_of(transfers)


@contextmanager
def anonymous(port: int) -> Iterator[ftplib.FTP]:
    """A logged-in control connection, in binary type."""
    try:
        with ftplib.FTP() as ftp:
            ftp.connect("127.0.0.1", port, timeout=30)
            ftp.login()
            ftp.voidcmd("TYPE I")
            yield ftp
    except ftplib.all_errors as error:
        raise BenchmarkError(f"FTP: {error}") from error


SEND_FILE = Benchmark(
    "send_file",
    "Sending a warm file of 1 GiB: more is better",
    COLUMNS,
    (
        Candidate("asyncnet", measure_asyncnet),
        Candidate("pyftpdlib RETR", measure_pyftpdlib, requires=("pyftpdlib",)),
    ),
    (Target("as fast as pyftpdlib's RETR", ratio("rate", "pyftpdlib RETR"), at_least=1.0),),
    "The receiver discards inside the kernel (MSG_TRUNC), so that its copying does not hide the sender's cost.",
)
