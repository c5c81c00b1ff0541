from __future__ import annotations

import argparse
import io
import os
import stat
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import argon2
import pytest
from argon2.profiles import CHEAPEST

from asyncnet.auth import ScramKeys, UserFile
from asyncnet.auth.passwords import check_password
from asyncnet.cli import passwd
from asyncnet.transports.address import NOWHERE


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwd, "hash_password", argon2.PasswordHasher.from_parameters(CHEAPEST).hash)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users.toml"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """Run the command with `line` on standard input; its exit status."""

    def run_with(line: bytes, *arguments: object) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line)))
        args = parser().parse_args(["passwd", *map(str, arguments)])
        return args.run(args)

    return run_with


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("asyncnet")
    passwd.add_parser(parser.add_subparsers(required=True))
    return parser


def entry(path: Path, name: str) -> dict[str, str]:
    return tomllib.loads(path.read_text())["users"][name]


async def test_a_new_file_lets_its_user_in(run, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(b"secret\n", path, "anna") == 0
    assert capsys.readouterr() == (f"{path}: user 'anna' added\n", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await UserFile(path).verify("anna", "secret", peer=NOWHERE) is not None
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("line", "password"), [(b"a b \r\n", "a b "), (b"one\ntwo\n", "one"), (b"\xc3\xa9", "é")])
def test_the_password_is_the_first_line_without_its_end(run, path: Path, line: bytes, password: str) -> None:
    assert run(line, path, "anna") == 0
    assert check_password(entry(path, "anna")["password"], password)


def test_changing_an_entry_leaves_the_rest_of_the_file_as_it_was(
    run, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '# mine\n[users."anna b"] # x\npassword = "OLD" # may\nroot = "/"\n\n\n# end\n'
    path.write_text(text)
    path.chmod(0o644)
    assert run(b"secret\n", path, "anna b") == 0
    assert capsys.readouterr().out == f"{path}: user 'anna b' changed\n"
    assert path.read_text() == text.replace("OLD", entry(path, "anna b")["password"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_scram_keeps_keys_of_the_same_password(run, path: Path) -> None:
    assert run(b"secret\n", path, "anna", "--scram") == 0
    first = entry(path, "anna")["scram"]
    assert ScramKeys.parse(first).mechanism == "SCRAM-SHA-256"
    assert run(b"secret\n", path, "bert") == 0
    assert "scram" not in entry(path, "bert")


def test_keys_that_are_there_change_with_the_password_so_that_the_old_one_lets_nobody_in(run, path: Path) -> None:
    run(b"old\n", path, "anna", "--scram")
    old = entry(path, "anna")["scram"]
    assert run(b"new\n", path, "anna") == 0
    new = entry(path, "anna")["scram"]
    assert new != old
    ScramKeys.parse(new)


def test_a_symlink_stays_and_its_target_is_replaced(run, path: Path) -> None:
    target = path.parent / "real" / "users.toml"
    target.parent.mkdir()
    target.write_text("# mine\n")
    path.symlink_to(target)
    assert run(b"secret\n", path, "anna") == 0
    assert path.is_symlink()
    assert target.read_text().startswith("# mine\n")
    assert "password" in entry(target, "anna")


def test_the_file_is_replaced_in_one_step_after_it_is_on_the_disk(
    run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("# mine\n")
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        steps.append("fsync folder" if folder else f"fsync {os.fstat(descriptor).st_size > 0}")
        fsync(descriptor)

    def recorded_replace(source: str, target: str) -> None:
        assert Path(source).parent == Path(target).parent
        assert path.read_text() == "# mine\n"
        steps.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    assert run(b"secret\n", path, "anna") == 0
    assert steps == ["fsync True", "replace", "fsync folder"]


def test_root_leaves_the_file_to_its_owner(run, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("")
    owned: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _, uid, gid: owned.append((uid, gid)))
    assert run(b"secret\n", path, "anna") == 0
    assert owned == [(path.stat().st_uid, path.stat().st_gid)]


def test_a_failure_to_write_leaves_the_old_file_and_nothing_else(
    run, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text("# mine\n")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert run(b"secret\n", path, "anna") == 2
    assert capsys.readouterr().err == f"asyncnet passwd: {path}: cannot be written: No space left on device\n"
    assert path.read_text() == "# mine\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("line", "arguments", "problem"),
    [
        (b"", ("anna",), "a password has 1 to 1024 bytes"),
        (b"\n", ("anna",), "a password has 1 to 1024 bytes"),
        (b"x" * 1025 + b"\n", ("anna",), "a password has 1 to 1024 bytes"),
        (b"a\0b\n", ("anna",), "no NUL"),
        (b"\xff\n", ("anna",), "the password is not UTF-8"),
        (b"bell\x07\n", ("anna", "--scram"), "SCRAM forbids a character"),
        (b"secret\n", ("",), "a name has 1 to 1024 bytes"),
        (b"secret\n", ("a" * 1025,), "a name has 1 to 1024 bytes"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_and_nothing_is_written(
    run, path: Path, capsys: pytest.CaptureFixture[str], line: bytes, arguments: tuple[str, ...], problem: str
) -> None:
    assert run(line, path, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("asyncnet passwd: ")
    assert problem in err
    assert err.count("\n") == 1
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[users.anna\n", "at line 1, column 12"),
        ("users = 5\n", "users are tables"),
        ("[users]\nanna = { }\n", "not written as a table [users.anna]"),
    ],
)
def test_a_file_that_cannot_be_changed_is_left_as_it_was(
    run, path: Path, capsys: pytest.CaptureFixture[str], text: str, problem: str
) -> None:
    path.write_text(text)
    assert run(b"secret\n", path, "anna") == 2
    err = capsys.readouterr().err
    assert err.startswith(f"asyncnet passwd: {path}: ")
    assert problem in err
    assert path.read_text() == text


def test_a_closed_standard_input_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    args = parser().parse_args(["passwd", str(path), "anna"])
    assert args.run(args) == 2
    assert "standard input is closed" in capsys.readouterr().err
    assert not path.exists()


def test_what_is_no_file_is_neither_read_nor_replaced(run, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe would be waited for; a device, for root, would be gone."""
    os.mkfifo(path)
    assert run(b"secret\n", path, "anna") == 2
    assert capsys.readouterr().err == f"asyncnet passwd: {path}: not a file\n"
    assert path.is_fifo()


def test_a_folder_that_is_not_there_is_told(run, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(b"secret\n", path / "none" / "users.toml", "anna") == 2
    assert "No such file or directory" in capsys.readouterr().err


SCRIPT = """
import argparse, argon2
from argon2.profiles import CHEAPEST
from asyncnet.cli import passwd
passwd.hash_password = argon2.PasswordHasher.from_parameters(CHEAPEST).hash
parser = argparse.ArgumentParser()
passwd.add_parser(parser.add_subparsers())
args = parser.parse_args()
raise SystemExit(args.run(args))
"""


def on_a_terminal(path: Path, typed: bytes) -> tuple[int, str]:
    """The command with a pseudo-terminal for a user: its exit status, and what the terminal showed."""
    user, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "passwd", str(path), "anna"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,  # without the terminal of whoever runs the tests, getpass uses standard input
    ) as process:
        os.close(terminal)
        shown = b""
        for line in typed.splitlines(keepends=True):
            while not shown.endswith(b": "):
                shown += os.read(user, 1024)
            os.write(user, line)
            shown += os.read(user, 1024)
        with suppress(OSError):  # how a pseudo-terminal says that nobody is at its other end any more
            while True:
                shown += os.read(user, 1024)
        status = process.wait()
    os.close(user)
    return status, shown.decode()


def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(path: Path) -> None:
    status, shown = on_a_terminal(path, b"secret\nsecret\n")
    assert status == 0
    assert "Password for anna: " in shown
    assert "The same again: " in shown
    assert "secret" not in shown
    assert check_password(entry(path, "anna")["password"], "secret")


def test_on_a_terminal_two_different_passwords_change_nothing(path: Path) -> None:
    status, shown = on_a_terminal(path, b"secret\nsecert\n")
    assert status == 2
    assert shown.endswith("asyncnet passwd: the two passwords differ; nothing was changed\r\n")
    assert not path.exists()


def test_the_end_of_input_on_a_terminal_changes_nothing(path: Path) -> None:
    status, shown = on_a_terminal(path, b"\x04")
    assert status == 2
    assert shown.endswith("asyncnet passwd: no password was given; nothing was changed\r\n")
    assert not path.exists()
