"""What `asyncnet serve smtp --spool` serves: a relay that works as long as its server does, and users' mailboxes."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from asyncnet.auth import UserFile
from asyncnet.mailbox.maildir import Maildirs
from asyncnet.mailbox.storage import Mailbox
from asyncnet.relay.runner import Relay
from asyncnet.smtp.delivery import Delivery
from asyncnet.smtp.server import SMTPHandler


class RelayingHandler(SMTPHandler):
    """A server whose mail goes to `relay` in the end, which begins before it and ends behind it."""

    def __init__(self, relay: Relay, delivery: Delivery, **options: Any) -> None:
        super().__init__(delivery, **options)
        self._relay = relay

    async def __aenter__(self) -> Self:
        await self._relay.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._relay.__aexit__(kind, exc, traceback)


class UsersMailboxes:
    """Mailboxes in `folder`: of those who have one there, and of those in `users`, who get one, as does postmaster.

    Each holds up to `quota` bytes (None: as many as the disk).
    """

    def __init__(self, folder: str, users: UserFile | None, quota: int | None = None) -> None:
        self._there = Maildirs(folder, quota_bytes=quota)
        self._made = Maildirs(folder, create=True, quota_bytes=quota)
        self._users = users

    async def of(self, user: str) -> Mailbox:
        try:
            return await self._there.of(user)
        except LookupError:
            if user != "postmaster" and not (self._users is not None and await self._users.knows(user)):
                raise
        return await self._made.of(user)
