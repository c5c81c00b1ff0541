"""What a user's entry in the users file means to FTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asyncnet.auth.identity import Identity
from asyncnet.errors import ConfigurationError
from asyncnet.ftp.accounts import Account, Accounts
from asyncnet.ftp.declarations import EVERYTHING, READ_ONLY, Permission
from asyncnet.ftp.limited_files import LimitedFiles
from asyncnet.ftp.local_files import LocalFiles
from asyncnet.ftp.memory_files import MemoryFiles


def accounts(folder: Path | None = None) -> Accounts:
    files = MemoryFiles() if folder is None else LocalFiles(folder)
    return Accounts(files, None if folder is None else str(folder), anonymous_writes=False, fsync=False)


async def account(settings: dict[str, Any], folder: Path | None = None) -> Account:
    return await accounts(folder).account(Identity("anna", settings))


async def test_nothing_given_means_all_permissions_and_the_servers_files() -> None:
    made = await account({})
    assert (made.permissions, made.bandwidth, made.connections) == (EVERYTHING, None, None)
    assert isinstance(made.files, MemoryFiles)


@pytest.mark.parametrize("given", [["read", "list"], "read list", "read,list", " read, list "])
async def test_permissions_are_a_list_or_words(given: Any) -> None:
    assert (await account({"permissions": given})).permissions == READ_ONLY
    assert (await account({"permissions": []})).permissions == Permission(0)


async def test_a_root_is_relative_to_the_servers_or_absolute(tmp_path: Path) -> None:
    (tmp_path / "home" / "anna").mkdir(parents=True)
    for root in ("anna", str(tmp_path / "home" / "anna")):
        files = (await account({"root": root}, tmp_path / "home")).files
        assert isinstance(files, LocalFiles)
        assert files.root == str(tmp_path / "home" / "anna")


async def test_what_a_users_connections_share_is_made_once(tmp_path: Path) -> None:
    made = accounts(tmp_path)
    one, two = [await made.account(Identity("anna", {"quota": "1M", "bandwidth": "10K"})) for _ in range(2)]
    assert isinstance(one.files, LimitedFiles)
    assert one.files is two.files
    assert one.bandwidth is two.bandwidth


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"permissions": ["raed"]}, "'raed' is no permission"),
        ({"permissions": 7}, "permissions is a list"),
        ({"permissions": [7]}, "permissions is a list"),
        ({"quota": "lots"}, "quota is a number of bytes"),
        ({"quota": 0}, "quota is a number of bytes"),
        ({"bandwidth": True}, "bandwidth is a number of bytes"),
        ({"connections": 0}, "connections is a number"),
        ({"connections": True}, "connections is a number"),
        ({"root": 7}, "root is a path"),
        ({"root": "/nowhere/at/all"}, "not a folder"),
    ],
)
async def test_a_wrong_entry_says_what_is_wrong_and_whose(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        await account(settings)
    assert "user 'anna': " in str(caught.value)


async def test_logins_are_counted_by_user() -> None:
    made = accounts()
    anna = await made.account(Identity("anna", {"connections": 2}))
    assert made.enter(anna)
    assert made.enter(anna)
    assert not made.enter(anna)
    made.leave(anna)
    assert made.enter(anna)
