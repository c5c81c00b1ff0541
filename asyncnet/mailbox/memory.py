"""`MemoryMailbox`: mail that is kept nowhere, for tests and for programs that need no more."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from asyncnet.mailbox.lines import ToWire
from asyncnet.mailbox.storage import Flag, Message

PIECE = 1 << 16
"""How much is read at a time, in bytes."""


class MemoryMailbox:
    """A `Mailbox` in memory. `quota_bytes` and `quota_messages` are how much it may hold."""

    def __init__(self, *, quota_bytes: int | None = None, quota_messages: int | None = None) -> None:
        self._quota_bytes = quota_bytes
        self._quota_messages = quota_messages
        self._messages: dict[str, tuple[Message, bytes]] = {}
        self._numbers = itertools.count(1)
        self._is_locked = False

    async def deliver(self) -> MemoryIncoming:
        await trio.lowlevel.checkpoint()
        self.check_room(1)
        return MemoryIncoming(self)

    def check_room(self, size: int) -> None:
        """Raise OSError with EDQUOT if there is no room for another message of `size` bytes."""
        held = sum(message.size for message, _ in self._messages.values())
        if self._quota_messages is not None and len(self._messages) >= self._quota_messages:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        if self._quota_bytes is not None and held + size > self._quota_bytes:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def add(self, content: bytes) -> Message:
        """Have a message at once: for tests, and at the end of a delivery."""
        lines = ToWire()
        content = lines.feed(content) + lines.end()
        self.check_room(len(content))
        message = Message(f"{next(self._numbers)}", len(content), time.time())
        self._messages[message.uid] = message, content
        return message

    async def messages(self) -> Sequence[Message]:
        await trio.lowlevel.checkpoint()
        return [message for message, _ in self._messages.values()]

    async def read(self, uid: str) -> AsyncGenerator[bytes, None]:
        _, content = self._find(uid)
        for start in range(0, len(content), PIECE):
            await trio.lowlevel.checkpoint()
            yield content[start : start + PIECE]

    async def set_flags(self, uid: str, flags: Iterable[Flag]) -> None:
        await trio.lowlevel.checkpoint()
        message, content = self._find(uid)
        self._messages[uid] = replace(message, flags=frozenset(flags)), content

    def _find(self, uid: str) -> tuple[Message, bytes]:
        try:
            return self._messages[uid]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such message", uid) from None

    async def remove(self, uids: Iterable[str]) -> None:
        await trio.lowlevel.checkpoint()
        for uid in uids:
            self._messages.pop(uid, None)

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        if self._is_locked:
            raise OSError(errno.EBUSY, "somebody else has this mailbox open")
        self._is_locked = True
        try:
            yield
        finally:
            self._is_locked = False


class MemoryIncoming:
    """An `Incoming` of a `MemoryMailbox`."""

    def __init__(self, mailbox: MemoryMailbox) -> None:
        self._mailbox = mailbox
        self._content = bytearray()
        self._is_open = True

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        self._check_open()
        await trio.lowlevel.checkpoint()
        self._mailbox.check_room(len(self._content) + len(data))
        self._content += data

    async def commit(self) -> Message:
        self._check_open()
        self._is_open = False
        await trio.lowlevel.checkpoint()
        return self._mailbox.add(bytes(self._content))

    async def abort(self) -> None:
        self._check_open()
        self._is_open = False

    def _check_open(self) -> None:
        if not self._is_open:
            raise trio.ClosedResourceError("this delivery was committed or aborted")


class MemoryMailboxes:
    """Mailboxes in memory, by their users' names: those of `boxes`, and with `create` whoever else is asked for."""

    def __init__(self, *users: str, create: bool = False) -> None:
        self.boxes = {user: MemoryMailbox() for user in users}
        self._create = create

    async def of(self, user: str) -> MemoryMailbox:
        await trio.lowlevel.checkpoint()
        if self._create:
            return self.boxes.setdefault(user, MemoryMailbox())
        return self.boxes[user]
