"""What FTP servers list: facts (MLSD and MLST, RFC 3659 section 7), and LIST as Unix and DOS servers write it. Pure.

LIST is for people, and no RFC says how it looks. Two forms are left in the field:

    drwxr-xr-x   2 ftp      ftp          4096 Jan 31 12:00 folder name
    lrwxrwxrwx   1 0        0               7 Jan 31  2020 link -> target
    11-25-26  09:41PM       <DIR>          folder name
    11-25-2026  21:41                1,234 file name

The times are the server's own, to the minute or to the day; here they are read as UTC.
"""

from __future__ import annotations

import calendar
import datetime
import enum
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from asyncnet.errors import RemoteProtocolError
from asyncnet.ftp.wire import parse_time


class EntryKind(enum.Enum):
    """What stands in a folder."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    OTHER = "other"
    """A device, a socket, a pipe, or what the server has no word for."""


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """A file or folder on a server, as far as the server tells; None where it does not."""

    name: str
    """As the server says it. It may hold anything: see `is_safe_name`."""
    kind: EntryKind
    size: int | None = None
    """In bytes."""
    modified: float | None = None
    """Seconds since 1970."""
    is_exact: bool = False
    """Whether `modified` is to the second and in UTC, which of LIST it is not."""
    mode: int | None = None
    """Permission bits."""
    target: str | None = None
    """What a symlink leads to."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """The facts of MLSD and MLST, their names in small letters; empty with LIST."""

    @property
    def is_folder(self) -> bool:
        return self.kind is EntryKind.FOLDER


_find_control = re.compile(r"[\x00-\x1f\x7f-\x9f]").search


def is_safe_name(name: str) -> bool:
    """Whether a name that a server chose can be a name in a folder here: no slash, no `..`, no control character.

    On Windows no backslash and no colon either. Surrogates pass (PEP 383).
    """
    return name not in ("", ".", "..") and not any(mark in name for mark in _SEPARATORS) and _find_control(name) is None


_SEPARATORS = "/\\:" if os.name == "nt" else "/"


# Facts: RFC 3659 section 7.2. entry = [ facts ] SP pathname; facts = 1*( fact ";" ); fact = name "=" value


def parse_facts(line: str) -> RemoteEntry:
    """Read an entry of MLSD or MLST. Raises `RemoteProtocolError`.

    A server may leave any fact out; of one that it sends twice the first counts.
    """
    text, end, name = line.partition("; ")  # some have blanks in the facts, for what a link leads to
    if line.startswith(" "):
        text, end, name = "", "", line[1:]
    if not name or (text and not end):
        raise RemoteProtocolError(f"no entry of facts: {line[:200]!a}")
    facts: dict[str, str] = {}
    for fact in text.split(";") if text else ():
        key, equals, value = fact.partition("=")
        if not equals:
            raise RemoteProtocolError(f"a fact without a value: {line[:200]!a}")
        facts.setdefault(key.lower(), value)
    kind, target = _kind_of(facts.get("type", ""))
    modified = facts.get("modify")
    return RemoteEntry(
        name,
        kind,
        size=_number(facts.get("size")) if kind is not EntryKind.FOLDER else None,
        modified=None if modified is None else parse_time(modified),
        is_exact=modified is not None,
        mode=_mode_of(facts.get("unix.mode")),
        target=target,
        facts=facts,
    )


def is_self_or_parent(entry: RemoteEntry) -> bool:
    """Whether an entry of a listing is the listed folder itself, or the one above it."""
    return entry.name in (".", "..") or entry.facts.get("type", "").lower() in ("cdir", "pdir")


def _kind_of(text: str) -> tuple[EntryKind, str | None]:
    """The kind that the fact `type` tells, and what a link leads to (OS.unix=slink:TARGET, as servers write it)."""
    word, colon, rest = text.partition(":")
    match word.lower():
        case "file":
            return EntryKind.FILE, None
        case "dir" | "cdir" | "pdir":
            return EntryKind.FOLDER, None
        case "os.unix=slink" | "os.unix=symlink":
            return EntryKind.LINK, rest if colon and rest else None
        case _:
            return EntryKind.OTHER, None


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,19}", text):
        raise RemoteProtocolError(f"a size is a number: {text[:40]!a}")
    return int(text)


def _mode_of(text: str | None) -> int | None:
    return int(text, 8) & 0o7777 if text is not None and re.fullmatch("[0-7]{1,7}", text) else None


# LIST, the form of `ls -l`. The name begins exactly one blank behind the time, so that its own blanks are kept.

# Repetitions are bounded: a hostile server would have an unbounded one tried in as many ways as its line is long.

_match_letters = re.compile(r"([-bcdlpsDM])([-rwxsStTlL]{9})[.+@]?(?=\s)").match
_find_time = re.compile(
    r"(?<=\s)(?P<size>[0-9]{1,19}|[0-9]{1,9},\s{0,9}[0-9]{1,9})\s{1,20}"
    r"(?:(?P<month>[A-Za-z]{3})\s{1,9}(?P<day>[0-9]{1,2})\s{1,9}"
    r"(?:(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})|(?P<year>[0-9]{4}))"
    r"|(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2}) (?P<iso_hour>[0-9]{2}):(?P<iso_minute>[0-9]{2})) "
).search
_match_dos = re.compile(
    r"(?P<month>[0-9]{2})-(?P<day>[0-9]{2})-(?P<year>[0-9]{2,4})\s+"
    r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})\s*(?P<half>[AaPp][Mm])?\s+"
    r"(?:(?P<folder><(?:DIR|JUNCTION|SYMLINKD?)>)\s{1,10}|(?P<size>[0-9][0-9,.]*) )(?P<name>.+)",
    re.DOTALL,
).fullmatch
_is_total = re.compile(r"total [0-9,. ]+[KMGTB]*", re.IGNORECASE).fullmatch
_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_NAMES, start=1)}
_LONGEST_LINE = 8192


def parse_list_line(line: str, now: float) -> RemoteEntry | None:
    """Read a line of LIST, without its end; None where it is none of an entry (`total 12`, nothing at all).

    A time without a year is the last such one before `now`, in seconds since 1970; a day more is let pass, since the
    server's clock and zone are its own. Raises `RemoteProtocolError` for what cannot be understood.
    """
    if not line.strip() or _is_total(line.strip()):
        return None
    if len(line) > _LONGEST_LINE:
        raise RemoteProtocolError("a line of a listing is too long")
    letters = _match_letters(line)
    if letters is not None:
        time = _find_time(line, letters.end())
        if time is not None and time.end() < len(line):
            return _unix_entry(letters[1], letters[2], time, line[time.end() :], now)
    match = _match_dos(line)
    if match is not None:
        return _dos_entry(match)
    raise RemoteProtocolError(f"a line of a listing that cannot be understood: {line[:200]!a}")


def _unix_entry(letter: str, mode: str, time: re.Match[str], name: str, now: float) -> RemoteEntry:
    kind = {"-": EntryKind.FILE, "d": EntryKind.FOLDER, "l": EntryKind.LINK}.get(letter, EntryKind.OTHER)
    target = None
    if kind is EntryKind.LINK:
        name, arrow, rest = name.partition(" -> ")
        target = rest if arrow else None
    if not name:
        raise RemoteProtocolError("a line of a listing without a name")
    is_file = kind is EntryKind.FILE
    return RemoteEntry(
        name,
        kind,
        size=_number(time["size"]) if is_file else None,
        modified=_unix_time(time, now),
        mode=_mode_of_letters(mode),
        target=target,
    )


def _unix_time(time: re.Match[str], now: float) -> float:
    if time["date"] is not None:
        year, month, day = (int(part) for part in time["date"].split("-"))
        return _seconds(year, month, day, int(time["iso_hour"]), int(time["iso_minute"]))
    month, day = _MONTHS.get(time["month"].lower(), 0), int(time["day"])
    if time["year"] is not None:
        return _seconds(int(time["year"]), month, day, 0, 0)
    hour, minute = int(time["hour"]), int(time["minute"])
    latest = now + 86400
    this_year = _year_of(latest)
    for year in range(this_year, this_year - 9, -1):  # 29 February may be some years ago
        try:
            moment = _seconds(year, month, day, hour, minute)
        except RemoteProtocolError:
            continue
        if moment <= latest:
            return moment
    raise RemoteProtocolError("no such time in a listing")


def _year_of(seconds: float) -> int:
    try:
        return (_EPOCH + datetime.timedelta(seconds=seconds)).year
    except OverflowError:
        return 1970


_EPOCH = datetime.datetime(1970, 1, 1)


def _seconds(year: int, month: int, day: int, hour: int, minute: int) -> float:
    try:
        moment = datetime.datetime(year, month, day, hour, minute)
    except ValueError:
        raise RemoteProtocolError("no such time in a listing") from None
    return float(calendar.timegm(moment.timetuple()))


def _mode_of_letters(letters: str) -> int:
    """Permission bits of `rwxr-sr-t` and the like."""
    mode = 0
    for index, letter in enumerate(letters):
        if letter in "rwxst":
            mode |= 0o400 >> index
        if letter in "sSlLtT" and index % 3 == 2:
            mode |= 0o4000 >> index // 3
    return mode


def _dos_entry(match: re.Match[str]) -> RemoteEntry:
    year, hour = int(match["year"]), int(match["hour"])
    if year < 100:
        year += 1900 if year >= 70 else 2000
    if match["half"] is not None:
        hour = hour % 12 + (12 if match["half"].lower() == "pm" else 0)
    modified = _seconds(year, int(match["month"]), int(match["day"]), hour, int(match["minute"]))
    name = match["name"]
    if match["folder"] is None:
        digits = re.sub("[,.]", "", match["size"])
        if len(digits) > 19:
            raise RemoteProtocolError("a size in a listing is too long")
        return RemoteEntry(name, EntryKind.FILE, size=int(digits), modified=modified)
    if match["folder"] == "<DIR>":
        return RemoteEntry(name, EntryKind.FOLDER, modified=modified)
    name, _, target = name.partition(" [")
    return RemoteEntry(name, EntryKind.LINK, modified=modified, target=target.removesuffix("]") or None)
