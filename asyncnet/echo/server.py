"""The handlers of the echo family: RFC 862, 863, 864, 867 and 868."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TypeAlias

import trio

from asyncnet.connection import idle
from asyncnet.echo.wire import CHARGEN_LINES, format_daytime, format_time
from asyncnet.stream import Stream

Clock: TypeAlias = Callable[[], datetime.datetime]
"""Tells the time, with its zone."""


def utc_now() -> datetime.datetime:
    """The system's clock."""
    return datetime.datetime.now(datetime.UTC)


class EchoHandler:
    """Sends back whatever arrives, until the peer ends its side (RFC 862)."""

    name = "echo"

    async def __call__(self, stream: trio.abc.Stream) -> None:
        stream = Stream.of(stream)
        async with idle():
            while data := await stream.receive_some():
                # Leaves with the next receive, which holds back as long as the peer sends and does not read.
                stream.write(data)
                del data  # an idle connection must not hold what was said last
        await stream.flush()


class DiscardHandler:
    """Takes whatever arrives and answers nothing, until the peer ends its side (RFC 863)."""

    name = "discard"

    async def __call__(self, stream: trio.abc.Stream) -> None:
        stream = Stream.of(stream)
        async with idle():
            while await stream.receive_some():
                pass


class ChargenHandler:
    """Sends lines of characters as fast as the peer takes them, until it ends its side (RFC 864).

    What the peer sends is dropped. The last line is a whole one.
    """

    name = "chargen"
    _round = b"".join(CHARGEN_LINES)

    async def __call__(self, stream: trio.abc.Stream) -> None:
        stream = Stream.of(stream)
        wanted = True

        async def generate() -> None:
            while wanted:
                await stream.send_all(self._round)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(generate)
            async with idle():
                while await stream.receive_some():
                    pass
            wanted = False


class DaytimeHandler:
    """Tells the time of day in one line, as RFC 3339 writes it, and ends (RFC 867).

    `clock` says what the time is, and in which zone.
    """

    name = "daytime"

    def __init__(self, clock: Clock = utc_now) -> None:
        self._clock = clock

    async def __call__(self, stream: trio.abc.Stream) -> None:
        await _tell(Stream.of(stream), format_daytime(self._clock()))


class TimeHandler:
    """Tells the seconds since 1900 in 32 bits, and ends (RFC 868). In 2036 they begin again at 0, as with NTP."""

    name = "time"

    def __init__(self, clock: Clock = utc_now) -> None:
        self._clock = clock

    async def __call__(self, stream: trio.abc.Stream) -> None:
        await _tell(Stream.of(stream), format_time(self._clock()))


async def _tell(stream: Stream, answer: bytes) -> None:
    """Send `answer`; both RFCs have the server throw away what the peer sends."""
    stream.write(answer)
    await stream.linger()
