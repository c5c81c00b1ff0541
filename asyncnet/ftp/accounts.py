"""Who may log in to an FTP server, and what is theirs then: files, permissions, bandwidth, a number of connections.

The keys of a user's entry in the users file that belong to FTP (docs/ftp.md):

    root = "anna"             their folder, relative to the server's root, or absolute
    permissions = ["read", "list", "write", "append", "delete", "rename", "mkdir", "chmod"]     all, if not given
    quota = "10G"             for everything below their root
    bandwidth = "1M"          bytes a second in each direction, over all their connections
    connections = 4           at the same moment
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from asyncnet.auth.identity import Identity
from asyncnet.errors import ConfigurationError
from asyncnet.ftp.declarations import EVERYTHING, READ_ONLY, Permission
from asyncnet.ftp.limited_files import LimitedFiles
from asyncnet.ftp.local_files import LocalFiles
from asyncnet.ftp.storage import Storage
from asyncnet.middleware import Bandwidth

logger = logging.getLogger("asyncnet.ftp")

KEYS = frozenset({"root", "permissions", "quota", "bandwidth", "connections"})
"""The keys of an entry that are FTP's. Others may belong to other protocols, and are left to them."""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True, slots=True)
class Account:
    """What is a user's after the login."""

    name: str
    files: Storage
    permissions: Permission
    bandwidth: Bandwidth | None = None
    connections: int | None = None
    is_anonymous: bool = False


class Accounts:
    """Makes accounts of identities; what connections of one user share is made once.

    `files` are those of users whose entry names no root, and of anonymous ones; `folder` is what relative roots are
    relative to. `anonymous_writes`: whether anonymous users may do everything, and not only read.
    """

    def __init__(self, files: Storage | None, folder: str | None, *, anonymous_writes: bool, fsync: bool) -> None:
        self._files = files
        self._folder = folder
        self._fsync = fsync
        permissions = EVERYTHING if anonymous_writes else READ_ONLY
        self.anonymous = None if files is None else Account("anonymous", files, permissions, is_anonymous=True)
        """What anonymous users get."""
        self._roots: dict[str, LocalFiles] = {}
        self._limited: dict[tuple[str, int], LimitedFiles] = {}
        self._bandwidths: dict[tuple[str, int], Bandwidth] = {}
        self._open: Counter[str] = Counter()

    async def account(self, identity: Identity) -> Account:
        """What is this user's. Raises ConfigurationError, with the user's name and the key that is wrong."""
        try:
            return await self._account(identity.name, identity.settings)
        except ConfigurationError as error:
            raise ConfigurationError(f"user {identity.name!r}: {error}") from error

    async def _account(self, name: str, settings: Mapping[str, Any]) -> Account:
        root = settings.get("root")
        if root is not None and not isinstance(root, str):
            raise ConfigurationError("root is a path in quotes")
        files: Storage
        if root is not None:
            place = os.path.join(self._folder or os.curdir, root)
            if place not in self._roots:
                self._roots[place] = await trio.to_thread.run_sync(lambda: LocalFiles(place, fsync=self._fsync))
            files = self._roots[place]
        elif self._files is not None:
            place, files = "", self._files
        else:
            raise ConfigurationError("root is missing: the server has none for all users")
        quota, rate = _size(settings, "quota"), _size(settings, "bandwidth")
        if quota is not None:
            files = self._limited.setdefault((place, quota), LimitedFiles(files, quota))
        bandwidth = None
        if rate is not None:
            key = (name, rate)
            bandwidth = self._bandwidths.get(key) or self._bandwidths.setdefault(key, Bandwidth(total=rate))
        connections = settings.get("connections")
        if connections is not None and (type(connections) is not int or connections < 1):
            raise ConfigurationError("connections is a number of at least 1")
        return Account(name, files, _permissions(settings), bandwidth, connections)

    def enter(self, account: Account) -> bool:
        """Count a login of `account`; false if it has as many connections as it may. `leave` takes it back."""
        if account.connections is not None and self._open[account.name] >= account.connections:
            return False
        self._open[account.name] += 1
        return True

    def leave(self, account: Account) -> None:
        """The login is over."""
        self._open[account.name] -= 1
        if not self._open[account.name]:
            del self._open[account.name]


def _permissions(settings: Mapping[str, Any]) -> Permission:
    given = settings.get("permissions")
    if given is None:
        return EVERYTHING
    words = re.split(r"[\s,]+", given.strip()) if isinstance(given, str) else given
    permissions = Permission(0)
    names = {one.name.lower(): one for one in Permission if one.name}
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ConfigurationError(f"permissions is a list of {', '.join(names)}")
    for word in words:
        if word not in names:
            raise ConfigurationError(f"{word!r} is no permission: they are {', '.join(names)}")
        permissions |= names[word]
    return permissions


def _size(settings: Mapping[str, Any], key: str) -> int | None:
    value = settings.get(key)
    if value is None:
        return None
    if type(value) is int and value > 0:
        return value
    match = re.fullmatch(r"([1-9][0-9]{0,11})([KMGT]?)", value) if isinstance(value, str) else None
    if match is None:
        raise ConfigurationError(f'{key} is a number of bytes, or such as "500M" or "10G"')
    return int(match[1]) * _UNITS[match[2]]
