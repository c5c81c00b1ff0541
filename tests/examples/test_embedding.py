"""The examples of docs/embedding.md, as a person runs them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
DEADLINE = 30


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def press_enter(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("embed_in_trio", press_ctrl_c),
        ("embed_in_asyncio", press_ctrl_c),
        ("embed_in_thread", press_enter),
        ("embed_in_thread", press_ctrl_c),
    ],
)
def test_an_example_serves_and_ends_cleanly(name: str, end: Callable[[subprocess.Popen[str]], None]) -> None:
    with subprocess.Popen(
        [sys.executable, EXAMPLES / f"{name}.py", "tcp://127.0.0.1:0"],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"echo on tcp://127\.0\.0\.1:(\d+);", process.stdout.readline())
            assert found
            with socket.create_connection(("127.0.0.1", int(found[1])), timeout=DEADLINE) as sock:
                sock.sendall(b"hello")
                assert sock.recv(5, socket.MSG_WAITALL) == b"hello"
                sock.shutdown(socket.SHUT_WR)
                assert sock.recv(1) == b""
            end(process)
            out, err = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert out.endswith("served 1 connections\n")
