"""A client that does what a test says, right or wrong: what a peer of `POP3Handler` sees, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import trio

from asyncnet.auth.identity import Identity
from asyncnet.auth.scram import ScramKeys
from asyncnet.mailbox.memory import MemoryMailboxes
from asyncnet.pop3.server import POP3Handler
from asyncnet.testing import ScriptedPeer, run_handler
from asyncnet.transports.address import Address

HERE = Address("127.0.0.1", 110)
LOCAL = Address("127.0.0.1", 40_000)
FAR = Address("192.0.2.1", 40_000)

MAILS = (
    b"Subject: one\r\n\r\nHello.\r\n",
    b"Subject: two\r\n\r\n.\r\n..\r\nend\r\n",
    b"Subject: three\r\n\r\n" + b"x\r\n" * 20,
)


class Users:
    """Users whose password is their name, and keys for SCRAM if there are `keys`."""

    def __init__(self, *names: str, keys: bool = False) -> None:
        self.names = names or ("anna", "bert")
        self._keys = keys
        self.asked = 0

    async def verify(self, name: str, password: str, *, peer: object) -> Identity | None:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        return Identity(name) if name in self.names and password == name else None

    async def scram_keys(self, name: str) -> ScramKeys | None:
        if not self._keys:
            return None
        return replace(keys_of(name), identity=Identity(name) if name in self.names else None)


@cache
def keys_of(password: str) -> ScramKeys:
    return ScramKeys.of_password(password)


class Peer:
    """The client's end."""

    def __init__(self, script: ScriptedPeer) -> None:
        self.script = script
        self.stream = script.stream

    async def line(self) -> str:
        return (await self.script.expect_until(b"\r\n")).decode().removesuffix("\r\n")

    async def do(self, command: str) -> str:
        """Send a command, and return the first line of the response."""
        await self.script.send(command.encode("utf-8", "surrogateescape") + b"\r\n")
        return await self.line()

    async def ok(self, command: str) -> str:
        """The same where the answer is to be +OK; returns the text."""
        answer = await self.do(command)
        assert answer.startswith("+OK"), f"{command}: {answer}"
        return answer[4:]

    async def err(self, command: str, says: str = "") -> str:
        """The same where it is to be -ERR, and `says` is in it."""
        answer = await self.do(command)
        assert answer.startswith("-ERR"), f"{command}: {answer}"
        assert says in answer, f"{command}: {answer}"
        return answer[5:]

    async def lines(self, command: str) -> bytes:
        """What stands behind a +OK, as it was sent, without the dot."""
        await self.ok(command)
        found = b""
        while (line := await self.script.expect_until(b"\r\n")) != b".\r\n":
            found += line
        return found

    async def log_in(self, name: str = "anna") -> None:
        await self.ok(f"USER {name}")
        await self.ok(f"PASS {name}")


@asynccontextmanager
async def connected(
    handler: POP3Handler, *, client: Address = LOCAL, server: Address = HERE, **options: Any
) -> AsyncIterator[Peer]:
    """A peer of `handler` that has heard the greeting."""
    async with run_handler(handler, client=client, server=server, **options) as script:
        peer = Peer(script)
        assert (await peer.line()).startswith("+OK ")
        yield peer


def boxes(*mails: bytes) -> MemoryMailboxes:
    """The mailboxes of anna, who has these mails, and bert."""
    made = MemoryMailboxes("anna", "bert")
    for mail in mails:
        made.boxes["anna"].add(mail)
    return made


@asynccontextmanager
async def logged_in(*mails: bytes, mailboxes: Any = None, **options: Any) -> AsyncIterator[Peer]:
    """Anna, who has these mails (or else `MAILS`)."""
    async with connected(POP3Handler(mailboxes or boxes(*(mails or MAILS)), Users(), **options)) as peer:
        await peer.log_in()
        yield peer
