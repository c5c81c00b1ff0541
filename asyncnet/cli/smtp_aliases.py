"""The file of `asyncnet serve smtp --aliases`, which is read again when it has changed, as the users' file is."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import trio

from asyncnet.errors import ConfigurationError
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.delivery import Client
from asyncnet.smtp.envelope import Envelope, Recipient
from asyncnet.smtp.policies import Aliases, Rule

logger = logging.getLogger("asyncnet.smtp")

LOOK_EVERY = 1.0
"""How long, in seconds, what was read is taken for what is there."""

_Signature: TypeAlias = tuple[int, int, int] | None
"""What another version of a file has another one of; None: it cannot be looked at."""


class AliasFile(Rule):
    """Aliases in a TOML file; `known` as for `Aliases`.

    The constructor reads the file, and raises ConfigurationError if it is missing or wrong. A later version that is
    leaves the aliases as they were, and is told once in the log.
    """

    def __init__(self, path: str, *, known: Callable[[MailAddress], Awaitable[bool]]) -> None:
        self._path = path
        self._known = known
        self._signature = _signature(path)  # before the content: what changes meanwhile is seen at the next look
        self._aliases = self._read()
        self._looked = -LOOK_EVERY

    async def recipient(self, recipient: Recipient, envelope: Envelope, client: Client) -> Sequence[Recipient]:
        now = trio.current_time()
        if now >= self._looked + LOOK_EVERY:
            self._looked = now
            await trio.to_thread.run_sync(self._look, abandon_on_cancel=True)
        return await self._aliases.recipient(recipient, envelope, client)

    def _look(self) -> None:
        signature = _signature(self._path)
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._aliases = self._read()
        except ConfigurationError as error:
            logger.error("%s; the aliases stay as they were", error)
        else:
            logger.info("%s: read again", self._path)

    def _read(self) -> Aliases:
        try:
            with open(self._path, "rb") as file:
                found = tomllib.load(file)
            for name, targets in found.items():
                if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
                    raise ValueError(f'{name}: write "{name}" = ["anna@example.org"]')
            return Aliases(found, known=self._known)
        except OSError as exc:
            raise ConfigurationError(f"--aliases {self._path}: {exc.strerror}") from exc
        except ValueError as exc:  # no TOML, no UTF-8, an address that is none, a circle
            raise ConfigurationError(f"--aliases {self._path}: {exc}") from exc


def _signature(path: str) -> _Signature:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
