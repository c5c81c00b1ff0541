"""What stands in a POP3 conversation, both sides: RFC 1939, RFC 2449 (response codes, CAPA). No I/O.

    command  = keyword *(SP argument) CRLF
    response = ("+OK" / "-ERR") [SP [ "[" code "]" SP ] text] CRLF

Behind some responses lines follow, to one that is a dot alone; a dot at the beginning of any other is doubled. What
comes piece by piece is treated piece by piece: no line is ever put together, so that its length does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from asyncnet.errors import LocalProtocolError, RemoteProtocolError

MAX_RESPONSE: Final = 512
"""The first line of a response, in bytes: RFC 1939 section 3."""

END: Final = b".\r\n"
"""The line behind the last."""

_match_command = re.compile(rb"([!-~]{3,40})(?: ([^\0\r\n]*))?\r?\n?", re.DOTALL).fullmatch
_match_reply = re.compile(rb"(\+OK|-ERR)(?: ([^\0]*))?", re.DOTALL).fullmatch
_match_code = re.compile(r"\[([!-Z\\^-~]{1,60})\] ?(.*)", re.DOTALL).fullmatch
_match_scan = re.compile(rb"([1-9][0-9]{0,9}) ([0-9]{1,18})(?: .*)?", re.DOTALL).fullmatch
_match_maildrop = re.compile(r"([0-9]{1,10}) ([0-9]{1,18})(?: .*)?", re.DOTALL).fullmatch
_match_unique = re.compile(rb"([1-9][0-9]{0,9}) ([!-~]{1,70})").fullmatch
_is_number = re.compile(r"[1-9][0-9]{0,9}").fullmatch
_is_keyword = re.compile(r"[!-~]{3,40}").fullmatch
_UNSENDABLE = frozenset("\r\n\0")


# Commands


@dataclass(frozen=True, slots=True)
class Command:
    """A client's command."""

    verb: str
    """In capital letters."""
    argument: str = ""
    """What stands behind the first blank; bytes that are no UTF-8 are surrogates (PEP 383)."""


def parse_command(line: bytes) -> Command:
    """Read a line, with or without its end. Raises `RemoteProtocolError`."""
    match = _match_command(line)
    if match is None:
        raise RemoteProtocolError("no command")
    return Command(match[1].decode("ascii").upper(), (match[2] or b"").decode("utf-8", "surrogateescape"))


def format_command(verb: str, argument: str | None = None) -> bytes:
    """A command's line. Raises LocalProtocolError for what would be more than one, or none."""
    if not _is_keyword(verb):
        raise LocalProtocolError(f"{verb!a} is no command")
    if argument is None:
        return f"{verb}\r\n".encode("ascii")
    if not _UNSENDABLE.isdisjoint(argument):
        raise LocalProtocolError("a line end or NUL cannot be sent")
    return f"{verb} {argument}\r\n".encode("utf-8", "surrogateescape")


def parse_number(text: str) -> int | None:
    """A message's number, in its one spelling; None for anything else, such as 0, 01, +1 and what has eleven digits."""
    return int(text) if _is_number(text) else None


# Responses


@dataclass(frozen=True, slots=True)
class Reply:
    """The first line of a response."""

    is_positive: bool
    text: str = ""
    code: str = ""
    """IN-USE, SYS/TEMP and their kin (RFC 2449 section 8, RFC 3206), in capital letters; "" if there is none. Only with
    -ERR do we look for one."""

    def encode(self) -> bytes:
        """As it is sent. What would not fit, or is more than a line, is the caller's mistake."""
        words = ["+OK" if self.is_positive else "-ERR", f"[{self.code}]" if self.code else "", self.text]
        line = " ".join(filter(None, words))
        if not _UNSENDABLE.isdisjoint(line):
            raise LocalProtocolError("a response of more than one line")
        data = f"{line}\r\n".encode("utf-8", "surrogateescape")
        if len(data) > MAX_RESPONSE:
            raise LocalProtocolError(f"a response of more than {MAX_RESPONSE} bytes")
        return data

    def __str__(self) -> str:
        return " ".join(filter(None, [f"[{self.code}]" if self.code else "", self.text]))


def ok(text: str = "") -> Reply:
    return Reply(True, text)


def err(text: str, code: str = "") -> Reply:
    return Reply(False, text, code)


def parse_reply(line: bytes) -> Reply:
    """Read a line, with or without its end. Raises `RemoteProtocolError` for what is no response."""
    match = _match_reply(strip_end(line))
    if match is None:
        raise RemoteProtocolError(f"no response: {line[:100]!r}")
    is_positive, text = match[1] == b"+OK", (match[2] or b"").decode("utf-8", "surrogateescape")
    coded = None if is_positive else _match_code(text)
    return Reply(is_positive, text) if coded is None else Reply(False, coded[2], coded[1].upper())


def strip_end(line: bytes) -> bytes:
    """A line without its end."""
    return line.removesuffix(b"\n").removesuffix(b"\r")


def parse_scan(line: bytes) -> tuple[int, int]:
    """A line of LIST: a message's number, and its size in bytes. Raises `RemoteProtocolError`."""
    match = _match_scan(line)
    if match is None:
        raise RemoteProtocolError(f"no number and size of a message: {line[:100]!r}")
    return int(match[1]), int(match[2])


def parse_maildrop(text: str) -> tuple[int, int]:
    """What STAT says behind +OK: how many messages there are, and how many bytes. Raises `RemoteProtocolError`."""
    match = _match_maildrop(text)
    if match is None:
        raise RemoteProtocolError(f"no numbers in the response to STAT: {text[:100]!a}")
    return int(match[1]), int(match[2])


def parse_unique(line: bytes) -> tuple[int, str]:
    """A line of UIDL: a message's number, and its unique id. Raises `RemoteProtocolError`."""
    match = _match_unique(line)
    if match is None:
        raise RemoteProtocolError(f"no number and unique id of a message: {line[:100]!r}")
    return int(match[1]), match[2].decode("ascii")


def parse_capabilities(lines: Iterable[bytes]) -> dict[str, tuple[str, ...]]:
    """What a server can do (RFC 2449 section 5): names in capital letters, each with its parameters."""
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        name, *parameters = line.decode("ascii", "replace").split() or [""]
        if name:
            found[name.upper()] = tuple(parameters)
    return found


# Lines behind a response


class DotStuffer:
    """Makes a message ready to be sent, piece by piece: dots at the beginning of a line are doubled."""

    def __init__(self) -> None:
        self._before = b"\r\n"  # the last two bytes: whether a line begins behind them

    def feed(self, data: bytes) -> bytes:
        joined = self._before + data
        stuffed = joined.replace(b"\r\n.", b"\r\n..")
        start = len(self._before)
        self._before = joined[-2:]
        return stuffed[start:]

    def end(self) -> bytes:
        """What comes behind the last piece: an end for the last line, where it has none, and the dot."""
        return END if self._before == b"\r\n" else b"\r\n" + END


class DotUnstuffer:
    """Takes a message out of what was received, piece by piece. Only CR LF ends a line, and CR LF . CR LF the message.

    `rest` is then what came behind it.
    """

    def __init__(self) -> None:
        self.is_over = False
        self.rest = b""
        # A line's end that was not received, so that the first line begins like all others. It is not given out.
        self._held = b"\r\n"
        self._surplus = 2

    def feed(self, data: bytes) -> bytes:
        """What the piece adds to the message."""
        data = self._held + data
        end = data.find(b"\r\n.\r\n")
        if end >= 0:
            self.is_over = True
            self.rest = data[end + 5 :]
            found = data[: end + 2]
        else:
            keep = _length_of_beginning(data)
            self._held = data[len(data) - keep :]
            found = data[: len(data) - keep]
        found = found.replace(b"\r\n.", b"\r\n")
        surplus = min(self._surplus, len(found))
        self._surplus -= surplus
        return found[surplus:]


def _length_of_beginning(data: bytes) -> int:
    """How many bytes at the end of `data` may be the beginning of the message's end."""
    return next((length for length in (4, 3, 2, 1) if data.endswith(b"\r\n.\r"[:length])), 0)


class Top:
    """Cuts a message behind its head and so many lines of its body, piece by piece (TOP, RFC 1939 section 7)."""

    def __init__(self, lines: int) -> None:
        self.is_over = False
        self._lines = lines
        self._in_head = True
        self._before = b"\n"  # the last two bytes, as far as the head goes

    def feed(self, data: bytes) -> bytes:
        """What of the piece belongs to it."""
        start = 0
        if self._in_head:
            joined = self._before + data
            end = joined.find(b"\n\r\n")
            self._before = joined[-2:]
            if end < 0:
                return data
            self._in_head = False
            start = end + 3 - (len(joined) - len(data))
        place = start
        lines = data.count(b"\n", start)
        if lines < self._lines:
            self._lines -= lines
            return data
        for _ in range(self._lines):
            place = data.index(b"\n", place) + 1
        self.is_over = True
        return data[:place]
