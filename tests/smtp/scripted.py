"""SMTP servers that follow a script, in memory, and what is said to them, for the tests of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.client import Outcome, SMTPClient
from asyncnet.testing import ScriptedPeer, stream_pair
from asyncnet.transports.address import Address

Script = Callable[[ScriptedPeer], Awaitable[object]]

OUTSIDE = Address("192.0.2.1", 40000)
SERVER = Address("198.51.100.1", 25)
LOOPBACK = Address("127.0.0.1", 25)

GREETING = b"220 mx.example.org ready\r\n"
EHLO = b"EHLO [192.0.2.1]\r\n"
ALL = (
    b"250-mx.example.org greets you\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
    b"250-ENHANCEDSTATUSCODES\r\n250 DSN\r\n"
)
"""What a server of today offers."""
PLAIN = b"250 mx.example.org\r\n"
"""What one offers that knows EHLO and no more."""


def offering(*lines: str) -> bytes:
    """A reply to EHLO."""
    return "".join(f"250{' ' if i == len(lines) else '-'}{line}\r\n" for i, line in enumerate(("mx", *lines))).encode()


def answering(*pairs: tuple[bytes, bytes]) -> Script:
    """A script of what comes and what is said to each."""

    async def script(peer: ScriptedPeer) -> None:
        for command, answer in pairs:
            await peer.expect(command)
            await peer.send(answer)

    return script


@asynccontextmanager
async def client_of(
    script: Script, *, client: Address = OUTSIDE, server: Address = SERVER, capacity: int = 65536, **options: Any
) -> AsyncIterator[SMTPClient]:
    """A client that has heard no greeting yet, and a server that follows `script`, which has to be through."""
    ours, its = stream_pair(client=client, server=server, capacity=capacity)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, ScriptedPeer(its, timeout=10_000))
        yield SMTPClient(ours, **options)
    await ours.abort()


@asynccontextmanager
async def greeted(script: Script, offered: bytes = ALL, **options: Any) -> AsyncIterator[SMTPClient]:
    """The same behind greeting and EHLO, or LHLO."""
    hello = EHLO.replace(b"EHLO", b"LHLO") if options.get("lmtp") else EHLO

    async def whole(peer: ScriptedPeer) -> None:
        await peer.send(GREETING)
        await peer.expect(hello)
        await peer.send(offered)
        await script(peer)

    async with client_of(whole, **options) as smtp:
        await smtp.greet()
        await smtp.hello()
        yield smtp


# What is said

ANNA = MailAddress.parse("anna@example.org")
CARL = "carl@example.net"
DORA = "dora@example.net"

MAIL = b"MAIL FROM:<anna@example.org>\r\n"
TO_CARL = b"RCPT TO:<carl@example.net>\r\n"
TO_DORA = b"RCPT TO:<dora@example.net>\r\n"
OK = b"250 ok\r\n"
GO_ON = b"354 go on\r\n"
PIPELINING = offering("PIPELINING")
HELLO = b"Subject: hello\r\n\r\nhello\r\n"


def replies(outcomes: tuple[Outcome, ...]) -> list[tuple[str, str]]:
    """What has decided for each recipient: a command, and the reply to it."""
    return [(outcome.command, str(outcome.reply)) for outcome in outcomes]


def ordinary(offered: bytes) -> list[tuple[bytes, bytes]]:
    """A message to Carl."""
    if offered == PIPELINING:
        return [(MAIL + TO_CARL + b"DATA\r\n", OK + OK + GO_ON), (HELLO + b".\r\n", OK)]
    return [(MAIL, OK), (TO_CARL, OK), (b"DATA\r\n", GO_ON), (HELLO + b".\r\n", OK)]


async def pieces_of(data: bytes, size: int = 1) -> AsyncIterator[bytes]:
    """A content that comes in pieces."""
    for begin in range(0, len(data), size):
        yield data[begin : begin + size]
