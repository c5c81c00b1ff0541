"""What the echo family sends: the lines of chargen (RFC 864), a daytime (RFC 867), a time (RFC 868). No I/O.

Its handlers and its clients use it.
"""

from __future__ import annotations

import datetime

from asyncnet.errors import LocalProtocolError, RemoteProtocolError

# RFC 864, page 2: lines of 72 out of the 95 printable characters of ASCII; each begins one character later in the ring.

_RING = bytes(range(0x20, 0x7F))
LINE_LENGTH = 72
"""Characters in a line of chargen, without its end."""

CHARGEN_LINES = tuple((_RING + _RING)[start : start + LINE_LENGTH] + b"\r\n" for start in range(len(_RING)))
"""The lines in their order, with their ends; behind the last one the first comes again."""


def parse_chargen_line(line: bytes) -> int:
    """Which of `CHARGEN_LINES` this is. Raises `RemoteProtocolError` if it is none."""
    number = _RING.find(line[:1]) if line else -1
    if number < 0 or line != CHARGEN_LINES[number]:
        raise RemoteProtocolError(f"no line of chargen: {line[:100]!r}")
    return number


# RFC 867, page 1: one line of printable ASCII, with no syntax of its own.

MAX_DAYTIME = 512
"""How long a daytime may be, in bytes, line end included."""


def format_daytime(moment: datetime.datetime) -> bytes:
    """The line for `moment`, which knows its time zone: a date and time of RFC 3339, such as 2036-02-07T06:28:16+00:00.

    RFC 867 leaves the form open; this one can be read by people of every country and by programs.
    """
    return _aware(moment).isoformat(timespec="seconds").encode("ascii") + b"\r\n"


def parse_daytime(data: bytes) -> str:
    """The text of a daytime, whatever its form. Line ends around it do not count.

    Raises `RemoteProtocolError` if it is longer than `MAX_DAYTIME`, empty, several lines or not printable ASCII.
    """
    line = data.strip(b"\r\n")
    if not line or len(data) > MAX_DAYTIME or not all(byte in _RING for byte in line):
        raise RemoteProtocolError(f"no line of printable ASCII: {data[:100]!r}")
    return line.decode("ascii")


# RFC 868, page 1: the seconds since 1900-01-01 00:00 UTC, 32 bits, big-endian. They begin again at 0 on 2036-02-07 at
# 06:28:16 UTC. RFC 4330 section 3 tells the two rounds apart: with the highest bit set it is one of 1968 to 2036.

TIME_LENGTH = 4
"""Bytes of a time."""

_EPOCH = datetime.datetime(1900, 1, 1, tzinfo=datetime.UTC)
_ROUND = 2**32


def format_time(moment: datetime.datetime) -> bytes:
    """The four bytes for `moment`, which knows its time zone; from 2036 on those of the second round."""
    seconds = (_aware(moment) - _EPOCH) // datetime.timedelta(seconds=1)
    return (seconds % _ROUND).to_bytes(TIME_LENGTH, "big")


def parse_time(data: bytes) -> datetime.datetime:
    """The moment in UTC, from 1968-01-20 to 2104-02-26, that four bytes stand for. ValueError if they are not four."""
    if len(data) != TIME_LENGTH:
        raise ValueError(f"a time has {TIME_LENGTH} bytes, not {len(data)}")
    seconds = int.from_bytes(data, "big")
    if seconds < _ROUND // 2:
        seconds += _ROUND
    return _EPOCH + datetime.timedelta(seconds=seconds)


def _aware(moment: datetime.datetime) -> datetime.datetime:
    if moment.tzinfo is None:
        raise LocalProtocolError(f"{moment} has no time zone: nobody could tell which moment it is")
    return moment
