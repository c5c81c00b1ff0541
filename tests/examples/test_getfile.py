"""The file server and its client of the examples, as a person runs them: two processes on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 30


def example(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "big").write_bytes(bytes(range(256)) * 20_000)
    (folder / "empty").touch()
    (folder / os.fsdecode(b"caf\xe9")).write_text("no UTF-8")
    (folder / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("secret")
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """The endpoint of a running server, which ends by Ctrl-C with exit status 0."""
    command = example("getfile_server.py", folder, "tcp://127.0.0.1:0")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            assert words[:2] == ["getfile", "on"]
            yield words[2].removesuffix(";")
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


def get(name: str | bytes, endpoint: str) -> subprocess.CompletedProcess[bytes]:
    command = [*example("getfile_client.py"), name, endpoint]
    return subprocess.run(command, capture_output=True, timeout=SECONDS, env=ENVIRONMENT)


def test_files_are_got_whole_and_nothing_outside_of_the_folder(server: str, folder: Path) -> None:
    for name in (b"below/big", b"empty", b"caf\xe9"):
        result = get(name, server)
        assert (result.returncode, result.stdout) == (0, (folder / os.fsdecode(name)).read_bytes())
    for name in ("none", "../secret", "link", "/etc/passwd", "below", "", "below/../empty"):
        result = get(name, server)
        assert (result.returncode, result.stdout) == (1, b"")
        assert result.stderr.decode().strip() == f"{name}: the server has no such file, or has broken off in the middle"


def test_a_client_without_a_server_says_so_in_one_line() -> None:
    result = get("name", "tcp://127.0.0.1:1")
    assert result.returncode == 1
    assert result.stderr.count(b"\n") == 1
    assert b"cannot connect to 127.0.0.1:1" in result.stderr


def test_a_name_of_two_lines_is_not_sent() -> None:
    result = get("a\nb", "tcp://127.0.0.1:1")
    assert result.returncode == 1
    assert result.stderr == b"a name that is sent on a line has no line end in it\n"
