from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import argon2
import pytest
import trio
from argon2.profiles import CHEAPEST
from trio.testing import wait_all_tasks_blocked

from asyncnet.auth import Authenticator, Identity, UserFile, userfile
from asyncnet.errors import ConfigurationError
from asyncnet.transports.address import NOWHERE

CHEAP = argon2.PasswordHasher.from_parameters(CHEAPEST)
ANNAS = CHEAP.hash("annas")
SCRAM = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
    "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)

FILE = f"""
[users.anna]
password = "{ANNAS}"
root = "/srv/anna"
permissions = ["read", "write"]
limits = {{ rate = 10 }}

[users.bert]
scram = "{SCRAM}"

[users."carla@example.org"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "users.toml", FILE)


def write(path: Path, text: str) -> Path:
    """Replace the file as `asyncnet passwd` does: another inode, so that the change never hides in a coarse clock."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_text(text)
    new.replace(path)
    return path


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that passwords were compared with."""
    hashes: list[str] = []
    check: Callable[[str, str], bool] = userfile.check_password

    def spy(encoded: str, password: str) -> bool:
        hashes.append(encoded)
        return check(encoded, password)

    monkeypatch.setattr(userfile, "check_password", spy)
    return hashes


async def verify(users: Authenticator, name: str, password: str) -> Identity | None:
    return await users.verify(name, password, peer=NOWHERE)


async def test_the_right_password_gives_the_identity_with_the_other_keys_untouched(path: Path) -> None:
    assert await verify(UserFile(path), "anna", "annas") == Identity(
        "anna", {"root": "/srv/anna", "permissions": ["read", "write"], "limits": {"rate": 10}}
    )


@pytest.mark.parametrize(
    ("name", "password"),
    [("anna", "wrong"), ("anna", ANNAS), ("Anna", "annas"), ("eve", "annas"), ("bert", "annas")],
    ids=["a wrong password", "the hash itself", "another name", "an unknown name", "no password"],
)
async def test_anything_else_gives_none_for_the_cost_of_one_hash(
    path: Path, checked: list[str], name: str, password: str
) -> None:
    assert await verify(UserFile(path), name, password) is None
    [encoded] = checked
    assert argon2.extract_parameters(encoded) == argon2.extract_parameters(ANNAS)


@pytest.mark.parametrize("text", ["", "a" * 1025, "annas\0", "\udcff"])
async def test_what_cannot_be_a_name_or_a_password_is_refused_without_a_hash(
    path: Path, checked: list[str], text: str
) -> None:
    users = UserFile(path)
    assert await verify(users, "anna", text) is None
    assert await verify(users, text, "annas") is None
    assert checked == []


async def test_passwords_are_checked_a_few_at_a_time_and_the_loop_runs_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = UserFile(path)
    running = most = 0
    four_are_in, go_on = trio.Event(), False

    def check(encoded: str, password: str) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == userfile.HASHES_AT_ONCE:
            trio.from_thread.run_sync(four_are_in.set)
        if not go_on:
            trio.from_thread.run(released.wait)
        running -= 1
        return True

    released = trio.Event()
    monkeypatch.setattr(userfile, "check_password", check)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(verify, users, "anna", "annas")
        await four_are_in.wait()
        await wait_all_tasks_blocked()
        go_on = True
        released.set()
    assert most == userfile.HASHES_AT_ONCE


async def test_cancelling_does_not_wait_for_the_hash(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = UserFile(path)
    begun, ended = trio.Event(), trio.Event()

    def check(encoded: str, password: str) -> bool:
        trio.from_thread.run_sync(begun.set)
        trio.from_thread.run(ended.wait)
        return True

    # The thread outlives the call, so `ended` is set after the cancelled call has returned.
    monkeypatch.setattr(userfile, "check_password", check)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(verify, users, "anna", "annas")
            await begun.wait()
            scope.cancel()
    assert scope.cancelled_caught
    ended.set()


async def test_a_changed_file_counts_from_the_next_call_on(path: Path) -> None:
    users = UserFile(path)
    write(path, f'[users.dora]\npassword = "{CHEAP.hash("doras")}"\n')
    assert await verify(users, "dora", "doras") == Identity("dora")
    assert await verify(users, "anna", "annas") is None


async def test_a_file_that_is_written_in_place_is_read_again_too(path: Path) -> None:
    users = UserFile(path)
    with path.open("a") as file:
        file.write(f'password = "{CHEAP.hash("carlas")}"\n')
    assert await verify(users, "carla@example.org", "carlas") is not None


async def test_a_broken_new_file_keeps_the_users_and_is_told_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    users = UserFile(path)
    write(path, "[users.anna]\npassword = \n")
    for _ in range(3):
        assert await verify(users, "anna", "annas") is not None
    assert len(caplog.messages) == 1
    assert f"{path}: " in caplog.text
    assert "at line 2" in caplog.text
    assert "the users stay as they were" in caplog.text
    write(path, "[users.anna]\n")
    assert await verify(users, "anna", "annas") is None


async def test_a_file_that_went_away_keeps_the_users_and_counts_again_when_it_is_back(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    users = UserFile(path)
    aside = path.rename(path.with_suffix(".aside"))
    for _ in range(3):
        assert await verify(users, "anna", "annas") is not None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "No such file" in caplog.text
    aside.rename(path)
    write(path, "[users.bert]\n")
    assert await verify(users, "anna", "annas") is None


async def test_many_calls_at_once_read_a_new_file_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = UserFile(path)
    write(path, FILE + "# new\n")
    parsed = []
    parse = userfile._parse
    monkeypatch.setattr(userfile, "_parse", lambda data, source: parsed.append(source) or parse(data, source))
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(verify, users, "anna", "annas")
    assert parsed == [str(path)]


def test_a_missing_file_at_the_start_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"none\.toml: No such file or directory: `asyncnet passwd .*none\.toml NAME` makes it$",
    ):
        UserFile(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[users.anna\n", r"at line 1, column 12"),
        ("[users.anna]\na = '\udcff'\n", r"not UTF-8 \(at line 2\)"),
        ("[user.anna]\n", r"'user' does not belong here"),
        ("users = 5\n", r"users are tables \[users.NAME\]"),
        ("[users]\nanna = 5\n", r"user 'anna': a user is a table"),
        ('\n[users."anna b"] # x\npassword = "secret"\n', r"user 'anna b' \(at line 2\): password is not an argon2id"),
        ("[users.anna]\npassword = 5\n", r"user 'anna' \(at line 1\): password is not an argon2id"),
        ("[users.anna]\nscram = 5\n", r"user 'anna' \(at line 1\): scram is not a string"),
        ('[users.anna]\nscram = "secret"\n', r"user 'anna' \(at line 1\): scram is not of the form"),
        ('[users.""]\n', r"a name has 1 to 1024 bytes"),
    ],
)
def test_a_wrong_file_at_the_start_is_a_configuration_error_that_tells_where(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "users.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigurationError, match=problem) as caught:
        UserFile(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_others_can_read_is_warned_about(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for mode, warned in ((0o600, 0), (0o640, 1), (0o604, 1)):
        caplog.clear()
        path.chmod(mode)
        UserFile(path)
        assert len(caplog.messages) == warned
    assert f"chmod 600 {path}" in caplog.text


def test_a_missing_library_is_told_with_the_command_that_installs_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, "")
    monkeypatch.setitem(sys.modules, "argon2", None)
    with pytest.raises(ConfigurationError, match=r'pip install "asyncnet\[auth\]"'):
        UserFile(path)


WITH_KEYS = f"""
[users.anna]
password = "{ANNAS}"
scram = "{SCRAM}"

[users.bert]
scram = "{SCRAM}"

[users."carla@example.org"]
"""


async def test_scram_keys_come_with_the_identity(path: Path) -> None:
    keys = await UserFile(write(path, WITH_KEYS)).scram_keys("bert")
    assert keys is not None
    assert keys.format() == SCRAM
    assert keys.identity == Identity("bert")


@pytest.mark.parametrize("name", ["carla@example.org", "eve", "", "a" * 5000])
async def test_a_name_without_scram_keys_gets_keys_of_nobody_that_stay_the_same(path: Path, name: str) -> None:
    users = UserFile(write(path, WITH_KEYS))
    keys = await users.scram_keys(name)
    assert keys is not None
    assert keys.identity is None
    assert (keys.mechanism, keys.iterations, len(keys.salt)) == ("SCRAM-SHA-256", 4096, 16)
    write(path, WITH_KEYS + "# read again\n")
    assert await users.scram_keys(name) == keys


@pytest.mark.parametrize("scram", ["", f'scram = "SCRAM-SHA-1$4096:{"c2Fs" * 4}${"A" * 27}=:{"A" * 27}="\n'])
async def test_where_somebody_needs_a_password_nobody_is_offered_scram(
    path: Path, caplog: pytest.LogCaptureFixture, scram: str
) -> None:
    """A client that is offered SCRAM tries nothing else, and a right password would be refused."""
    caplog.set_level("INFO")
    users = UserFile(write(path, f'{WITH_KEYS}[users.dora]\npassword = "{ANNAS}"\n{scram}'))
    assert (
        f"nobody is offered SCRAM-SHA-256, since 1 have no keys for it: asyncnet passwd --scram {path} dora"
        in caplog.text
    )
    for name in ("anna", "bert", "dora", "eve"):
        assert await users.scram_keys(name) is None
    write(path, WITH_KEYS)
    assert await users.scram_keys("anna") is not None


async def test_where_nobody_has_scram_keys_there_are_none(path: Path) -> None:
    users = UserFile(write(path, "[users.anna]\n"))
    assert await users.scram_keys("anna") is None
    assert await users.scram_keys("eve") is None


def test_the_path_may_be_a_string(path: Path) -> None:
    assert repr(UserFile(os.fspath(path))) == f"UserFile({str(path)!r})"
