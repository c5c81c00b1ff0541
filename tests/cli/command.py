"""The command as a real process, with a deadline on everything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "asyncnet"]
DEADLINE = 30


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", **more}


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `asyncnet ARGUMENTS` to its end."""
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        **options,
    )


class Running:
    """A process that serves."""

    def __init__(self, process: subprocess.Popen[str], lines: list[str]) -> None:
        self.process = process
        self.lines = lines
        """What it has printed, a line for each endpoint."""

    @property
    def ports(self) -> list[int]:
        return [int(re.findall(r":(\d+) ", line)[-1]) for line in self.lines]

    def end(self, *signals: int) -> tuple[int, str]:
        """Send `signals`, wait for the end, and return exit status and standard error."""
        for number in signals:
            self.process.send_signal(number)
        _, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, err


@contextmanager
def serving(*arguments: object, endpoints: int = 1, **variables: str) -> Iterator[Running]:
    """Run `asyncnet serve ARGUMENTS`; listening on so many `endpoints` when the block begins, and gone after it."""
    with subprocess.Popen(
        [*COMMAND, "serve", *map(str, arguments)],
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield Running(process, [process.stdout.readline() for _ in range(endpoints)])
        finally:
            process.kill()
