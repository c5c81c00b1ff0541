"""The README's short programs, as they stand there, but on a free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
DEADLINE = 30

HANDLER, CLIENT, WEB, FETCH, FTP, LIST = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@contextmanager
def running(program: str) -> Iterator[str]:
    """Run the program for the length of the block, which gets its port."""
    program = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:0", program)
    with subprocess.Popen(
        [sys.executable, "-c", program], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            found = re.search(r"127\.0\.0\.1:(\d+); Ctrl-C ends it", server.stdout.readline())
            assert found
            yield found[1]
            server.send_signal(signal.SIGINT)
            assert server.wait(DEADLINE) == 0
        finally:
            server.kill()


def test_the_handler_answers_the_client() -> None:
    with running(HANDLER) as port:
        client = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", CLIENT)
        done = subprocess.run(
            [sys.executable, "-c", client],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=True,
        )
    assert done.stdout == "b'HELLO\\n'\n"


def test_the_web_server_answers() -> None:
    with running(WEB) as port, urllib.request.urlopen(f"http://127.0.0.1:{port}/world", timeout=DEADLINE) as answer:
        assert answer.read() == b"Hello, /world\n"


def test_the_folder_is_listed() -> None:
    with running(FTP) as port:
        done = subprocess.run(
            [sys.executable, "-c", re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", LIST)],
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=True,
        )
    assert f"README.md {(ROOT / 'README.md').stat().st_size}\n" in done.stdout


def test_the_page_is_fetched() -> None:
    with running(WEB) as port:
        fetch = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", FETCH)
        done = subprocess.run(
            [sys.executable, "-c", fetch],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=True,
        )
    assert done.stdout == "200 Hello, /\n\n"
