"""Mail for programs: a delivery that hands each whole message to a coroutine.

async def on_message(message: Message) -> None:
    mail = await message.parse()
    print(ascii(mail["Subject"]), "for", *message.recipients)

await serve(SMTPHandler(Inbox(on_message)), "tcp://127.0.0.1:2525")
"""

from __future__ import annotations

import email.parser
import email.policy
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.message import EmailMessage
from typing import TypeAlias, cast

import trio

from asyncnet.errors import RemoteProtocolError
from asyncnet.smtp.delivery import Client
from asyncnet.smtp.envelope import Envelope, Recipient
from asyncnet.smtp.message import DAMAGED
from asyncnet.smtp.spool import IN_MEMORY, Spool

MAX_PARTS = 200
"""How many parts of a MIME message are parsed, however they are nested: no honest mail has so many, and the standard
library's parser pays for each level of nesting at each line."""

MAX_WORK = 50_000_000
"""Parts times lines: so much of that takes some seconds."""

_LONGEST_FIELD = 16 * 1024
"""The parser takes time for a Content-Type that grows with the square of its length: some seconds for one of these, and
as much again for a Content-Disposition when it is asked for. All of a message together may take as long."""

_find_fields = re.compile(
    rb"(?:\A|[\r\n])content-[a-z-]{1,40}:(?:[^\r\n]|\r?\n[ \t]|\r[ \t]){0,%d}" % _LONGEST_FIELD, re.IGNORECASE
).finditer
"""Those that say what a part is: a header within a message has no other limit."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that has come, whole. It is there until the coroutine that was given it returns."""

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    client: Client
    content: Spool
    """CR LF at the ends of its lines, with a Received field in front."""

    async def parse(self, *, max_parts: int = MAX_PARTS) -> EmailMessage:
        """The content as the standard library has it, which then holds it in memory; parsed in a thread.

        Raises `RemoteProtocolError` if it has more parts than that, takes too long to parse, or cannot be. Its other
        fields are parsed when they are asked for, which may raise anything, and takes time: seconds for a field of
        16 KiB that somebody has made for that. Where they may come from strangers, ask for them in a thread, or let no
        header be so long (`SMTPLimits.header`).
        """
        content = await self.content.read()
        return await trio.to_thread.run_sync(_parse, content, max_parts, abandon_on_cancel=True)


def _parse(content: bytes, max_parts: int) -> EmailMessage:
    parts, lines = 0, content.count(b"\n")
    if sum(len(field[0]) ** 2 for field in _find_fields(content)) > _LONGEST_FIELD**2:
        raise RemoteProtocolError("a message with a Content-Type or its like that is too long, or too many of them")

    def new_part(policy: email.policy.Policy | None = None) -> EmailMessage:
        nonlocal parts
        parts += 1
        if parts > max_parts:
            raise RemoteProtocolError(f"a message of more than {max_parts} parts")
        if parts * lines > MAX_WORK:
            raise RemoteProtocolError(f"a message of {parts} parts and {lines} lines")
        return EmailMessage(cast(email.policy.EmailPolicy, policy))

    policy = email.policy.default.clone(message_factory=new_part)
    try:
        return email.parser.BytesParser(policy=policy).parsebytes(content)
    except DAMAGED as exc:
        raise RemoteProtocolError(f"a message that cannot be read: {exc}") from exc


OnMessage: TypeAlias = Callable[[Message], Awaitable[str | None]]
"""What is done with a message. Its client gets the 250 when this returns, with the words that it returns; whatever it
raises refuses the message: a `Refused` says why, all else is 451, and the client comes again."""


class Inbox:
    """Gathers each message and awaits `on_message` with it, before its client hears that it was taken.

    Up to `memory` bytes of a message are held in memory, more of it in a file without a name in `folder` (None: where
    temporary files are).
    """

    def __init__(
        self, on_message: OnMessage, *, memory: int = IN_MEMORY, folder: str | os.PathLike[str] | None = None
    ) -> None:
        self._on_message = on_message
        self._memory = memory
        self._folder = folder

    async def start(self, envelope: Envelope, client: Client) -> _Gathering:
        return _Gathering(self._on_message, envelope, client, Spool(memory=self._memory, folder=self._folder))


class _Gathering:
    def __init__(self, on_message: OnMessage, envelope: Envelope, client: Client, spool: Spool) -> None:
        self._on_message = on_message
        self._envelope = envelope
        self._client = client
        self._recipients: list[Recipient] = []
        self._spool = spool

    async def add(self, recipient: Recipient) -> None:
        self._recipients.append(recipient)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        await self._spool.write(data)

    async def commit(self) -> str:
        try:
            message = Message(self._envelope, tuple(self._recipients), self._client, self._spool)
            return await self._on_message(message) or ""
        finally:
            await self._spool.aclose()

    async def abort(self) -> None:
        await self._spool.aclose()
