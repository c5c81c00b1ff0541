"""`examples/all_services.py`, which `make run` runs: each line that it prints can be tried, and Ctrl-C ends it well."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from asyncnet.http.websocket import connect_websocket

ROOT = Path(__file__).parents[2]
DEADLINE = 30

EXPECTED = {
    "echo": b"hello\n",
    "discard": b"",
    "daytime": re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*\r\n"),
    "chargen": re.compile(rb"([ -~]{72}\r\n){10}"),
    "time": re.compile(rb"0000000 +\d{10}\n0000004\n"),
    "ftp": re.compile(rb"-rw-r--r-- +5 \S+ \S+ a page & its folder\.txt\n"),
    "http": re.compile(rb"(?s)<!DOCTYPE html>.*a page &amp; its folder\.txt.*"),
    "shout": re.compile(rb"(?s)<!DOCTYPE html>.*new WebSocket.*"),
}


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("shown")
    (folder / "a page & its folder.txt").write_text("hello")
    with subprocess.Popen(
        [sys.executable, ROOT / "examples" / "all_services.py", folder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        while "Ctrl-C" not in (line := process.stdout.readline()):
            assert line, "it ended early"
            lines.append(line)
        yield {(parts := line.split(maxsplit=2))[0]: parts[2] for line in lines}
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
        assert err == ""
        assert process.returncode == 0


def shown(command: str) -> bytes:
    """What the command prints that the example shows for a service."""
    # The example names it as it lies beside the interpreter; here it need not be installed.
    command = re.sub(r"\S*asyncnet (connect|fetch|ls|send|mail)", rf"{sys.executable} -m asyncnet \1", command)
    return subprocess.run(
        command.partition("(")[0],
        shell=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=b"hello\n",
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    ).stdout


@pytest.mark.parametrize("service", EXPECTED)
def test_the_command_that_is_shown_for_a_service_works(service: str, commands: dict[str, str]) -> None:
    found, expected = shown(commands[service]), EXPECTED[service]
    if isinstance(expected, bytes):
        assert found == expected
    else:
        assert expected.fullmatch(found)


def test_the_mail_that_is_sent_is_there_to_be_read(commands: dict[str, str]) -> None:
    shown(commands["smtp"])
    deadline = time.monotonic() + DEADLINE
    while not (found := shown(commands["pop3"])):
        assert time.monotonic() < deadline
    assert b"Hello" in found


async def test_the_page_s_websocket_shouts_back(commands: dict[str, str]) -> None:
    found = re.search(r"http(://\S+/shout/)", commands["shout"])
    assert found
    with trio.fail_after(DEADLINE):
        async with connect_websocket(f"ws{found[1]}", origin=found[0].removesuffix("/shout/")) as ws:
            await ws.send("hello")
            assert await ws.receive() == "HELLO"
