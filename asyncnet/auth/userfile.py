"""`UserFile`: the embedded `Authenticator`, a TOML file with a table `[users.NAME]` for each user.

`password` (an argon2id hash) and `scram` (RFC 5803) belong to this module; every other key goes into
`Identity.settings` as it is. The file is read again when it changes. docs/users.md tells an administrator about it.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import trio

from asyncnet.auth.identity import Identity
from asyncnet.auth.passwords import check_password, dummy_hash, is_acceptable, is_hash
from asyncnet.auth.scram import MECHANISM, NobodysKeys, ScramKeys
from asyncnet.auth.usertext import decode, find_entry
from asyncnet.errors import ConfigurationError
from asyncnet.per_run import once_per_run
from asyncnet.printable import printable
from asyncnet.transports.address import Address

logger = logging.getLogger(__name__)

HASHES_AT_ONCE: Final = 4
"""Passwords that are checked at the same moment, in all of a Trio run. Each check holds 64 MiB and several cores, so
more of them would be slower, not faster; the others wait."""


class UserFile:
    """Users in a TOML file at `path`.

    The constructor reads the file, and raises ConfigurationError if it is missing or wrong: call it before the service
    starts. From then on each call looks whether the file was changed or replaced. A new version that is wrong, or
    gone, leaves the users as they were and is told once in the log, until a good one comes.

    Several services of one Trio run can share it. Cancelling a call loses nothing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._secret = secrets.token_bytes(32)
        self._refreshing = trio.Lock()
        self._signature, users = _load(self._path, self._secret)
        if isinstance(users, ConfigurationError):
            raise users
        self._users = users

    def __repr__(self) -> str:
        return f"UserFile({self._path!r})"

    async def verify(self, name: str, password: str, *, peer: Address) -> Identity | None:
        """Who this is, or None. An unknown name, or one without a password, costs the same hash as a wrong password.

        What cannot be a name or a password (empty, beyond 1024 bytes, with a NUL) is refused without a hash.
        """
        users = await self._current()
        if not (is_acceptable(name) and is_acceptable(password)):
            return None
        entry = users.entries.get(name, _NOBODY)
        encoded = entry.password or users.dummy_hash
        right = await trio.to_thread.run_sync(
            check_password, encoded, password, abandon_on_cancel=True, limiter=_hashing_limiter()
        )
        return entry.identity if right and entry.password else None

    async def scram_keys(self, name: str) -> ScramKeys | None:
        """The keys in the entry, or made-up ones (see `Authenticator`).

        None while somebody in the file can log in by password alone: a client that is offered SCRAM tries nothing else.

        What is made up for a name stays the same as long as the process lives.
        """
        users = await self._current()
        made_up = users.nobodys_keys(name)  # always computed: it must not show in the time that it was needed
        if not users.have_scram or users.without_scram:
            return None
        return users.entries.get(name, _NOBODY).scram or made_up

    async def knows(self, name: str) -> bool:
        """Whether there is an entry of that name, for whoever has to know it besides logins: it shows in the time."""
        return name in (await self._current()).entries

    async def _current(self) -> _Users:
        """The users, read again first if the file changed."""
        async with self._refreshing:
            version = await trio.to_thread.run_sync(_load_if_changed, self._path, self._signature, self._secret)
            if version is not None:
                self._signature, users = version
                if isinstance(users, ConfigurationError):
                    logger.error("%s; the users stay as they were", users)
                else:
                    self._users = users
                    logger.info("%s: read again, %d users", self._path, len(users.entries))
        return self._users


_Signature: TypeAlias = tuple[int, int, int]
_UNREADABLE: Final[_Signature] = (0, 0, 0)
"""Stands for every file that is not there or may not be read."""


@dataclass(frozen=True, slots=True)
class _Entry:
    identity: Identity | None
    password: str | None = None
    scram: ScramKeys | None = None

    @property
    def needs_password(self) -> bool:
        """Whether it lets somebody in, and not by the SCRAM that we offer."""
        if self.scram is None:
            return self.password is not None
        return self.scram.mechanism != MECHANISM


_NOBODY: Final = _Entry(None)


class _Users:
    """All that one version of the file says, and what is answered for names that are not in it."""

    def __init__(self, entries: Mapping[str, _Entry], secret: bytes) -> None:
        scram = [entry.scram for entry in entries.values() if entry.scram is not None]
        self.entries = entries
        self.without_scram = [name for name, entry in entries.items() if entry.needs_password]
        self.have_scram = bool(scram)
        self.nobodys_keys = NobodysKeys(secret, like=scram)
        self.dummy_hash = dummy_hash(entry.password for entry in entries.values() if entry.password is not None)


def _load(path: str, secret: bytes) -> tuple[_Signature, _Users | ConfigurationError]:
    """What the file says now, or what is wrong with it. Blocks: reads, parses and may compute a hash."""
    try:
        with open(path, "rb") as file:
            # Taken before the content: a file that grows meanwhile has another signature at the next look.
            status = os.fstat(file.fileno())
            data = file.read()
    except FileNotFoundError as error:
        return _UNREADABLE, ConfigurationError(f"{path}: {error.strerror}: `asyncnet passwd {path} NAME` makes it")
    except OSError as error:
        return _UNREADABLE, ConfigurationError(f"{path}: {error.strerror}")
    if os.name == "posix" and status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        logger.warning("%s: others than its owner can read the password hashes: chmod 600 %s", path, path)
    try:
        users = _Users(_parse(data, path), secret)
        if users.have_scram and users.without_scram:
            logger.info(
                "%s: nobody is offered %s, since %d have no keys for it: asyncnet passwd --scram %s %s",
                path,
                MECHANISM,
                len(users.without_scram),
                path,
                printable(users.without_scram[0]),
            )
        return _signature(status), users
    except ConfigurationError as error:
        return _signature(status), error


def _load_if_changed(
    path: str, known: _Signature, secret: bytes
) -> tuple[_Signature, _Users | ConfigurationError] | None:
    try:
        signature = _signature(os.stat(path))
    except OSError:
        signature = _UNREADABLE
    if signature == known:
        return None
    version = _load(path, secret)
    return None if version[0] == known else version


def _signature(status: os.stat_result) -> _Signature:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _parse(data: bytes, source: str) -> dict[str, _Entry]:
    text, document = decode(data, source)
    users = document.pop("users", {})
    for key in document:
        raise ConfigurationError(f"{source}: {key!r} does not belong here; users are tables [users.NAME]")
    if not isinstance(users, dict):
        raise ConfigurationError(f"{source}: users are tables [users.NAME]")
    entries = {}
    for name, table in users.items():
        try:
            entries[name] = _entry(name, table)
        except ValueError as error:
            index = find_entry(text, name)
            place = "" if index is None else f" (at line {index + 1})"
            raise ConfigurationError(f"{source}: user {name!r}{place}: {error}") from error
    return entries


def _entry(name: str, table: Any) -> _Entry:
    """One user. Raises ValueError that says what to do and repeats no secret."""
    if not is_acceptable(name):
        raise ValueError("a name has 1 to 1024 bytes and no NUL")
    if not isinstance(table, dict):
        raise ValueError("a user is a table [users.NAME]")
    settings = dict(table)
    password, scram = settings.pop("password", None), settings.pop("scram", None)
    if password is not None and not (isinstance(password, str) and is_hash(password)):
        raise ValueError("password is not an argon2id hash: set it with `asyncnet passwd`")
    identity = Identity(name, MappingProxyType(settings))
    if scram is None:
        return _Entry(identity, password)
    if not isinstance(scram, str):
        raise ValueError("scram is not a string: set it with `asyncnet passwd --scram`")
    try:
        keys = ScramKeys.parse(scram)
    except ValueError as error:
        raise ValueError(f"scram is {error}: set it with `asyncnet passwd --scram`") from error
    return _Entry(identity, password, replace(keys, identity=identity))


@once_per_run
def _hashing_limiter() -> trio.CapacityLimiter:
    return trio.CapacityLimiter(HASHES_AT_ONCE)
