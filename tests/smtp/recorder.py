"""A delivery that remembers what it was given, and a client that does what a test says: a peer of `SMTPHandler`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from asyncnet.auth.identity import Identity
from asyncnet.auth.scram import ScramKeys
from asyncnet.replies import Reply, ReplyParser
from asyncnet.smtp.delivery import Client, Refused, Transaction
from asyncnet.smtp.envelope import Envelope, Recipient
from asyncnet.smtp.server import SMTPHandler
from asyncnet.testing import run_handler
from asyncnet.transports.address import Address

HERE = Address("192.0.2.1", 25)
THERE = Address("203.0.113.9", 40000)


@dataclass
class Taken:
    """A transaction: what came, and each end that it was given. A transaction has one end."""

    recorder: Recorder
    envelope: Envelope
    client: Client
    recipients: list[Recipient] = field(default_factory=list)
    content: bytes = b""
    pieces: int = 0
    ends: list[str] = field(default_factory=list)

    async def add(self, recipient: Recipient) -> None:
        assert not self.ends
        await self.recorder.pass_step("add", recipient.address.local)
        self.recipients.append(recipient)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ends
        await self.recorder.pass_step("write")
        self.content += data
        self.pieces += 1

    async def commit(self) -> str:
        self.ends.append("begun to commit")
        await self.recorder.pass_step("commit")
        self.ends[-1] = "commit"
        return f"queued as {len(self.recorder.taken)}"

    async def abort(self) -> None:
        self.ends.append("abort")
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        if "abort" in self.recorder.fails:
            raise self.recorder.fails["abort"]


class TakenByEach(Taken):
    """The same with an outcome for each recipient: those whose name begins with "full" are refused."""

    async def commit_each(self) -> Sequence[str | Refused]:
        self.ends.append("commit each")
        await self.recorder.pass_step("commit")
        full = Refused(452, "4.2.2", "The mailbox is full.")
        return [full if one.address.local.startswith("full") else "" for one in self.recipients]


class Recorder:
    """A delivery in memory. `fails`: what a step ("start", "add", "write", "commit", "abort", or the local part of a
    recipient) raises."""

    def __init__(self, *, each: bool = False, **fails: Exception) -> None:
        self.taken: list[Taken] = []
        self.fails = fails
        self._kind = TakenByEach if each else Taken

    async def pass_step(self, *names: str) -> None:
        await trio.lowlevel.checkpoint()
        for name in names:
            if name in self.fails:
                raise self.fails[name]

    async def start(self, envelope: Envelope, client: Client) -> Transaction:
        await self.pass_step("start")
        self.taken.append(self._kind(self, envelope, client))
        return self.taken[-1]

    @property
    def ends(self) -> list[list[str]]:
        """How each transaction ended."""
        return [one.ends for one in self.taken]


class Users:
    """Users whose password is their name; `scram`: with keys for SCRAM."""

    def __init__(self, *names: str, scram: bool = False, **settings: Any) -> None:
        self._names = names
        self._settings = settings
        self._keys = ScramKeys.of_password("anna") if scram else None

    async def verify(self, name: str, password: str, *, peer: object) -> Identity | None:
        await trio.lowlevel.checkpoint()
        return Identity(name, self._settings) if name in self._names and password == name else None

    async def scram_keys(self, name: str) -> ScramKeys | None:
        await trio.lowlevel.checkpoint()
        if self._keys is None:
            return None
        identity = Identity("anna") if name == "anna" else None
        keys = self._keys
        return ScramKeys(
            keys.mechanism, keys.salt, keys.iterations, keys.stored_key, keys.server_key, identity=identity
        )


class Peer:
    """The client's end of a connection."""

    def __init__(self, scripted: Any) -> None:
        self.scripted = scripted
        self.stream = scripted.stream

    async def reply(self) -> Reply:
        """The next reply."""
        parser = ReplyParser(every_line_coded=True)
        while True:
            reply = parser.feed(await self.scripted.expect_until(b"\r\n"))
            if reply is not None:
                return reply

    async def raw(self, data: bytes) -> Reply:
        """Send bytes, and return the reply."""
        await self.scripted.send(data)
        return await self.reply()

    async def do(self, command: str) -> Reply:
        """Send a command, and return the reply."""
        return await self.raw(command.encode() + b"\r\n")

    async def expect(self, reply: str, command: str) -> Reply:
        """The same, where the reply is to begin with this: "250 2.1.0"."""
        said = await self.do(command)
        assert str(said).startswith(reply), f"{command}: {said}"
        return said

    async def expect_all(self, *steps: tuple[str, str]) -> None:
        for reply, command in steps:
            await self.expect(reply, command)

    async def begin(self, *recipients: str, mail: str = "MAIL FROM:<anna@example.org>") -> None:
        """MAIL and RCPT."""
        await self.expect("250 2.1.0", mail)
        for recipient in recipients or ("carl@example.net",):
            await self.expect("250 2.1.5", f"RCPT TO:<{recipient}>")

    async def send(self, content: bytes, *recipients: str) -> Reply:
        """A whole message by DATA; `content` is as it is sent, without the end."""
        await self.begin(*recipients)
        await self.expect("354", "DATA")
        return await self.raw(content + b"\r\n.\r\n")


@asynccontextmanager
async def connected(delivery: Any = None, *, hello: str = "EHLO client.example", **options: Any) -> AsyncIterator[Peer]:
    """A peer of a handler of `delivery`, greeted. `peer`, `local`: the addresses of the two ends."""
    ends = {"client": options.pop("peer", THERE), "server": options.pop("local", HERE)}
    options.setdefault("hostname", "mx.example")
    async with run_handler(SMTPHandler(delivery or Recorder(), **options), timeout=1000, **ends) as scripted:
        peer = Peer(scripted)
        assert (await peer.reply()).code == 220
        if hello:
            await peer.expect("250", hello)
        yield peer
