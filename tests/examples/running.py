"""The examples as real processes, with a deadline on everything."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
ANYWHERE = "tcp://127.0.0.1:0"
DEADLINE = 30


def example(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]


@contextmanager
def serving(name: str, *arguments: object) -> Iterator[str]:
    """Run an example for the length of the block, which gets its URL; then Ctrl-C ends it well, with nothing to say."""
    with subprocess.Popen(
        example(name, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.match(r"(?:\w+ on|open) (\w+://127\.0\.0\.1:\d+)\b", line)
            assert found, line or (process.stderr is not None and process.stderr.read())
            yield found[1]
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=DEADLINE)
            assert (process.returncode, err) == (0, "")
        finally:
            process.kill()


def run(name: str, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run an example to its end."""
    return subprocess.run(
        example(name, *arguments), input=stdin, capture_output=True, text=True, timeout=DEADLINE, env=ENVIRONMENT
    )
