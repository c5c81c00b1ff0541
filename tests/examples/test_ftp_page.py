"""docs/ftp.md: each of its programs runs, on a free port, and each of its commands is one."""

from __future__ import annotations

import ftplib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asyncnet import limits
from asyncnet.cli import _parser
from asyncnet.ftp import FTPHandler, FTPLimits, FTPTimeouts
from asyncnet.ftp.accounts import KEYS
from tests.examples.test_readme import DEADLINE, ENVIRONMENT

PAGE = (Path(__file__).parents[2] / "docs" / "ftp.md").read_text()
USERS, STORAGE, EVENTS, CLIENT, MIRROR = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@contextmanager
def serving(text: str, folder: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The port of the server that this program is."""
    text = text.replace("127.0.0.1:2121", "127.0.0.1:0").replace("/srv/ftp", str(folder))
    with subprocess.Popen(
        [sys.executable, "-c", text], env=ENVIRONMENT, cwd=folder, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            found = re.match(r"ftp on ftp://127\.0\.0\.1:(\d+);", server.stdout.readline())
            assert found
            yield int(found[1]), server
        finally:
            server.kill()


@contextmanager
def client(port: int, user: str = "", password: str = "") -> Iterator[ftplib.FTP]:
    with ftplib.FTP() as ftp:
        ftp.connect("127.0.0.1", port, timeout=DEADLINE)
        ftp.login(user, password)
        yield ftp


def output(text: str, port: int, folder: Path) -> str:
    """What the client that this program is prints."""
    done = subprocess.run(
        [sys.executable, "-c", text.replace("127.0.0.1:2121", f"127.0.0.1:{port}")],
        env=ENVIRONMENT,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("pub", "incoming"):
        (tmp_path / name).mkdir()
    (tmp_path / "pub" / "hello.txt").write_bytes(b"hello")
    return tmp_path


def test_users_and_everybody_else(folder: Path) -> None:
    pytest.importorskip("argon2")
    command = [sys.executable, "-m", "asyncnet", "passwd", folder / "users.toml", "anna"]
    subprocess.run(command, env=ENVIRONMENT, input=b"secret\n", check=True, timeout=DEADLINE)
    with serving(USERS, folder) as (port, _):
        with client(port, "anna", "secret") as ftp:
            ftp.storbinary("STOR new", io.BytesIO(b"new"))
        with client(port) as ftp:
            assert "pub" in ftp.nlst()
            with pytest.raises(ftplib.error_perm):
                ftp.delete("new")


def test_several_storages(folder: Path) -> None:
    with serving(STORAGE, folder) as (port, _), client(port) as ftp:
        assert sorted(ftp.nlst()) == ["README", "incoming", "pub"]
        ftp.storbinary("STOR incoming/new", io.BytesIO(b"new"))
    assert (folder / "incoming" / "new").read_bytes() == b"new"


def test_events(folder: Path) -> None:
    with serving(EVENTS, folder) as (port, server), client(port) as ftp:
        ftp.storbinary("STOR new", io.BytesIO(b"new"))
        assert server.stdout is not None
        assert [server.stdout.readline() for _ in range(2)] == ["anonymous from 127.0.0.1\n", "new b'new'\n"]


def test_the_client(folder: Path) -> None:
    (folder / "report.txt").write_bytes(b"abc")
    with serving(STORAGE, folder) as (port, _):
        assert output(CLIENT, port, folder).splitlines() == [
            "hello.txt 5",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "b'hello'",
        ]
        assert (folder / "hello.txt").read_bytes() == b"hello"
        assert (folder / "incoming" / "now.txt").read_bytes() == b"made in the program\n"
        assert output(MIRROR, port, folder) == "1 0 5\n"
        assert (folder / "copy" / "hello.txt").read_bytes() == b"hello"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_options_that_there_are(command: str) -> None:
    name, *words = shlex.split(command)
    assert name == "asyncnet"
    _parser(words).parse_args(words)


def test_the_defaults_are_those_of_the_code() -> None:
    ftp, times, all_, waits = FTPLimits(), FTPTimeouts(), limits.Limits(), limits.Timeouts()
    rows = {
        "FTPLimits.line": f"{ftp.line >> 10} KiB",
        "`.errors`": f"{ftp.errors}",
        "`.reply_entries`": f"{ftp.reply_entries:,}",
        "`.ascii_size`": f"{ftp.ascii_size >> 20} MiB",
        "FTPTimeouts.login": f"{times.login:g} s",
        "`.command`": f"{times.command:g} s",
        "`.data_connection`": f"{times.data_connection:g} s",
        "`.data`": f"{times.data:g} s",
        "Limits.connections": f"{all_.connections:,}",
        "Limits.per_address": f"{all_.per_address}",
        "Timeouts.drain": f"{waits.drain:g} s",
    }
    for name, value in rows.items():
        assert re.search(rf"^\| `?{re.escape(name)}[^|]*\| {re.escape(value)}", PAGE, re.MULTILINE), name


def test_every_key_of_the_users_file_and_every_argument_of_the_handler_is_told() -> None:
    assert all(f"\n| `{key}` |" in PAGE for key in KEYS)
    arguments = {*FTPHandler.__init__.__kwdefaults__} - {"guard"}
    assert [name for name in arguments if not re.search(rf"\b{name}\b", PAGE)] == []
