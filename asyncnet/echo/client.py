"""The clients of the echo family: RFC 862, 863, 864, 867 and 868.

Each raises what `asyncnet.connect` raises; then `trio.BrokenResourceError` when the connection breaks, `ReceiveTimeout`
when the server is too slow and `RemoteProtocolError` when it does not speak the protocol. Cancelled, each closes its
connection. `tls` and `proxy` are those of `asyncnet.connect`; times are seconds.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

import trio

from asyncnet.echo.wire import CHARGEN_LINES, MAX_DAYTIME, TIME_LENGTH, parse_chargen_line, parse_daytime, parse_time
from asyncnet.endpoints import connect
from asyncnet.errors import EndOfStream, RemoteProtocolError
from asyncnet.stream import Stream

if TYPE_CHECKING:
    import ssl

TIMEOUT = 30.0
"""How long a client waits unless told otherwise: for the connection, and then for each answer."""


class _Client:
    """A connection over `stream` that stays; `timeout` is for each answer."""

    def __init__(self, stream: trio.abc.Stream, *, timeout: float = TIMEOUT) -> None:
        self.stream = Stream.of(stream)
        self.timeout = timeout

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, endpoint: str, *, tls: ssl.SSLContext | None = None, proxy: str | None = None, timeout: float = TIMEOUT
    ) -> AsyncIterator[Self]:
        """Connect, and close at the end: `async with EchoClient.connect("tcp://127.0.0.1:7") as client: …`."""
        async with await connect(endpoint, tls=tls, proxy=proxy, timeout=timeout) as stream:
            yield cls(stream, timeout=timeout)

    def _start_waiting(self) -> None:
        self.stream.deadline = trio.current_time() + self.timeout


class EchoClient(_Client):
    """Hears its own words (RFC 862)."""

    async def echo(self, data: bytes) -> bytes:
        """Send `data` and return what comes back, which is the same: else `RemoteProtocolError`.

        It receives while it sends, so that neither side waits for the other for ever. When it has raised, the
        connection is of no more use.
        """
        self._start_waiting()
        self.stream.write(data)
        answer = await self.stream.receive_exactly(len(data))
        if answer != data:
            raise RemoteProtocolError("what came back is not what was sent")
        return answer


class ChargenClient(_Client):
    """The lines of a chargen server (RFC 864), without their ends: `async for line in client`.

    Each line is checked to be the one behind the last, so that a single lost or changed byte is found. The lines end
    when the server ends.
    """

    _expected: int | None = None

    def __aiter__(self) -> ChargenClient:
        return self

    async def __anext__(self) -> bytes:
        self._start_waiting()
        try:
            line = await self.stream.receive_until(b"\r\n", limit=len(CHARGEN_LINES[0]))
        except EndOfStream:
            raise StopAsyncIteration from None
        number = parse_chargen_line(line)
        if self._expected not in (None, number):
            raise RemoteProtocolError(f"a line of chargen is out of its order: {line!r}")
        self._expected = (number + 1) % len(CHARGEN_LINES)
        return line[:-2]


async def discard(
    endpoint: str,
    data: bytes,
    *,
    tls: ssl.SSLContext | None = None,
    proxy: str | None = None,
    timeout: float = TIMEOUT,
) -> None:
    """Send `data` to a discard server (RFC 863), and return when it has ended too, having taken all.

    Over TLS, which has no half-close, it returns when all has been sent.
    """
    async with await connect(endpoint, tls=tls, proxy=proxy, timeout=timeout) as stream:
        await stream.send_all(data)
        if stream.can_half_close:
            await stream.send_eof()
            stream.deadline = trio.current_time() + timeout
            if await stream.receive_some():
                raise RemoteProtocolError("a discard server has answered")


async def daytime(
    endpoint: str, *, tls: ssl.SSLContext | None = None, proxy: str | None = None, timeout: float = TIMEOUT
) -> str:
    """What a daytime server says the time is (RFC 867): a line for people, in a form that every server chooses."""
    async with await connect(endpoint, tls=tls, proxy=proxy, timeout=timeout) as stream:
        stream.deadline = trio.current_time() + timeout
        data = b""
        while len(data) <= MAX_DAYTIME and (more := await stream.receive_some()):
            data += more
        return parse_daytime(data)


async def network_time(
    endpoint: str, *, tls: ssl.SSLContext | None = None, proxy: str | None = None, timeout: float = TIMEOUT
) -> datetime.datetime:
    """The time by a time server (RFC 868), in UTC, to the second.

    The 32 bits of an answer begin again at 0 in 2036; they are understood as a moment from 1968 to 2104. A server
    that does not know the time ends without an answer: `EndOfStream`.
    """
    async with await connect(endpoint, tls=tls, proxy=proxy, timeout=timeout) as stream:
        stream.deadline = trio.current_time() + timeout
        return parse_time(await stream.receive_exactly(TIME_LENGTH))
