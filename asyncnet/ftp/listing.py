"""Listings as a server writes them: the lines of LIST, as `ls -l` does, and of MLSD (RFC 3659 section 7). No I/O.

Names with line ends or NUL cannot be said in a listing, and cannot be asked for: those characters become question
marks, so that nobody's name is another entry in a client's eyes.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable

from asyncnet.ftp.storage import Entry, Status
from asyncnet.ftp.wire import format_time

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HALF_A_YEAR = 182 * 24 * 3600
_EPOCH = datetime.datetime(1970, 1, 1)
_unsayable = re.compile(r"[\r\n\0]")


def sayable(name: str) -> str:
    """`name` with what cannot be said replaced."""
    return _unsayable.sub("?", name)


def long_line(entry: Entry, now: float) -> bytes:
    """The line of LIST, times in UTC: the time of day for the last half year, else the year.

    `-rw-r--r--   1 ftp      ftp          1234 Nov 25 23:59 name`
    """
    status = entry.status
    columns = (
        f"{mode_letters(status)} {status.links:>3} {status.owner:<8} {status.group:<8} "
        f"{status.size:>12} {_date(status.modified, now)} {sayable(entry.name)}\r\n"
    )
    return columns.encode("utf-8", "surrogateescape")


def mode_letters(status: Status) -> str:
    """`drwxr-xr-x`."""
    letters = "".join("rwx"[2 - bit % 3] if status.mode >> bit & 1 else "-" for bit in range(8, -1, -1))
    return ("d" if status.is_folder else "-") + letters


def _date(modified: float, now: float) -> str:
    try:
        moment = _EPOCH + datetime.timedelta(seconds=int(modified // 1))
    except OverflowError:
        moment = _EPOCH
    last = f"{moment.hour:02}:{moment.minute:02}" if now - _HALF_A_YEAR < modified <= now + 3600 else f" {moment.year}"
    return f"{_MONTHS[moment.month - 1]} {moment.day:>2} {last}"


def name_line(name: str) -> bytes:
    """The line of NLST."""
    return f"{sayable(name)}\r\n".encode("utf-8", "surrogateescape")


def fact_line(entry: Entry, wanted: Iterable[str], permissions: str) -> bytes:
    """The line of MLSD."""
    return f"{facts(entry.status, wanted, permissions)} {sayable(entry.name)}\r\n".encode("utf-8", "surrogateescape")


def facts(status: Status, wanted: Iterable[str], permissions: str) -> str:
    """The facts `wanted` (in lower case), as `type=file;size=1;`. `permissions` is the value of perm."""
    return "".join([f"{name}={value};" for name in wanted if (value := _fact(status, name, permissions)) is not None])


def _fact(status: Status, name: str, permissions: str) -> object:
    match name:
        case "type":
            return "dir" if status.is_folder else "file"
        case "size":
            return None if status.is_folder else status.size
        case "modify":
            return format_time(status.modified)
        case "perm":
            return permissions
        case "unique":
            return status.unique or None
        case "unix.mode":
            return f"{status.mode:04o}"
    return None
