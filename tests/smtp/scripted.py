"""SMTP servers that follow a script, in memory, for the tests of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from asyncnet.smtp.client import SMTPClient
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
