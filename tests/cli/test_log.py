"""The command's log: what a person sees of it, and that nobody has to read it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
from pathlib import Path

from asyncnet.cli.log import QueuedLog
from tests.cli.command import COMMAND, DEADLINE, environment


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("asyncnet", logging.INFO, __file__, 1, text, None, None)


def test_records_arrive_in_order_and_before_the_end(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        log = QueuedLog(file.fileno())
        for number in range(1000):
            log.emit(record(f"record {number}"))
        log.close()
    assert (tmp_path / "log").read_text() == "".join(f"record {number}\n" for number in range(1000))


def test_it_goes_on_though_somebody_has_closed_it(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        log = QueuedLog(file.fileno())
        for text in ("one", "two", "three"):
            log.emit(record(text))
            log.close()
            assert (tmp_path / "log").read_text().endswith(f"{text}\n")


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    reader, writer = os.pipe()
    log = QueuedLog(writer)
    while not log._dropped:
        log.emit(record("x" * 1000))
    os.set_blocking(reader, True)
    seen = b""
    while b"records were dropped, since nobody reads this quickly enough\n" not in seen:
        seen += os.read(reader, 1 << 20)
    while not log._queue.empty():  # the thread would write the rest to whatever has the descriptor's number next
        os.read(reader, 1 << 20)
    log.close()
    os.close(reader)
    os.close(writer)


def test_a_service_goes_on_and_ends_though_nobody_reads_its_log() -> None:
    """Each connection leaves a record of some 90 bytes; a pipe holds 64 KiB, and 200 connections fill a smaller one."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with subprocess.Popen(
        [*COMMAND, "serve", "echo", "tcp://127.0.0.1:0"], env=environment(), stdout=subprocess.PIPE, stderr=writer
    ) as process:
        try:
            try:
                while True:
                    os.write(writer, b"x" * 4096)
            except BlockingIOError:
                pass  # it is full
            os.set_blocking(writer, True)
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(b":")[2].partition(b" ")[0])
            for _ in range(200):
                with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
                    sock.sendall(b"hello")
                    assert sock.recv(5, socket.MSG_WAITALL) == b"hello"
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
            os.close(reader)
            os.close(writer)
