"""The grammar of FTP's control connection: commands, paths, addresses, times. RFC 959, 2428, 2640, 3659. No I/O.

Server and client use it. Listings have a file of their own, `listing.py`.
"""

from __future__ import annotations

import calendar
import datetime
import ipaddress
import re
from dataclasses import dataclass

from asyncnet.errors import LocalProtocolError, RemoteProtocolError

# Commands: RFC 959 section 5.3. A verb of letters (and digits, as in XSHA256), then the end or one space and the
# argument, which may begin and end with spaces (RFC 3659 section 2.2). The Telnet of RFC 854 lies beneath: byte 255 is
# IAC.

MAX_LINE = 8192
"""The longest line of the control connection, in bytes: a path of 4096, each byte of it doubled by Telnet at worst."""

_IAC, _WILL, _DONT = 0xFF, 0xFB, 0xFE
_match_command = re.compile(rb"([A-Za-z][A-Za-z0-9]{2,7})(?: (.*))?", re.DOTALL).fullmatch


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its verb in capitals, and its argument; bytes that are no UTF-8 are surrogates (PEP 383)."""

    verb: str
    argument: str = ""


def parse_command(line: bytes) -> Command:
    """Read a line, with its end or without. Raises `RemoteProtocolError` for what is no command.

    A line ends with CR LF; people at a terminal send LF alone. A NUL, CR or LF within is refused: RFC 3659 would have a
    CR in a name sent as CR NUL and an LF as it is, which no client does and which an attacker would.
    """
    line = strip_telnet(line.removesuffix(b"\n").removesuffix(b"\r"))
    match = _match_command(line)
    if match is None:
        raise RemoteProtocolError("no command")
    argument = match[2] or b""
    if b"\0" in argument or b"\r" in argument or b"\n" in argument:
        raise RemoteProtocolError("a line end or NUL within an argument")
    return Command(match[1].decode("ascii").upper(), argument.decode("utf-8", "surrogateescape"))


def format_command(verb: str, argument: str | None = None) -> bytes:
    """A command as it is sent. Raises `LocalProtocolError` if a line end or NUL is in it, or the line is too long."""
    text = verb if argument is None else f"{verb} {argument}"
    if not _UNSENDABLE.isdisjoint(text):
        raise LocalProtocolError(f"a line end or NUL cannot be sent within a command: {text!r}")
    try:
        line = text.encode("utf-8", "surrogateescape").replace(b"\xff", b"\xff\xff") + b"\r\n"
    except UnicodeEncodeError:
        raise LocalProtocolError(f"this has characters that cannot be encoded: {text!r}") from None
    if len(line) > MAX_LINE:
        raise LocalProtocolError(f"a command of more than {MAX_LINE} bytes")
    return line


_UNSENDABLE = frozenset("\r\n\0")


def strip_telnet(line: bytes) -> bytes:
    """`line` without Telnet's own commands (RFC 854), of which ABOR has IP and DM in front; IAC IAC is byte 255."""
    if _IAC not in line:
        return line
    kept = bytearray()
    place = 0
    while place < len(line):
        byte = line[place]
        if byte != _IAC:
            kept.append(byte)
            place += 1
            continue
        following = line[place + 1] if place + 1 < len(line) else None
        if following == _IAC:
            kept.append(_IAC)
            place += 2
        elif following is not None and _WILL <= following <= _DONT:
            place += 3  # WILL, WONT, DO, DONT and their option
        elif following is not None and following >= 0xF0:
            place += 2
        else:
            kept.append(_IAC)  # a client that knows no Telnet, and a name that is no UTF-8
            place += 1
    return bytes(kept)


# Paths: slash-separated, relative to the working folder unless the first character is a slash (TVFS, RFC 3659
# section 6). The components are what `storage.Path` is.


def resolve(folder: tuple[str, ...], path: str) -> tuple[str, ...]:
    """The names from the root that `path` means in the working folder `folder`. `..` of the root is the root.

    `..` goes by the names, not by what they lead to: what a client sees as `a/..` is where it was (as with TVFS).
    """
    names = [] if path.startswith("/") else list(folder)
    for name in path.split("/"):
        if name == "..":
            if names:
                names.pop()
        elif name not in ("", "."):
            names.append(name)
    return tuple(names)


def show(path: tuple[str, ...]) -> str:
    """The absolute path, for replies."""
    return "/" + "/".join(path)


def quote(text: str) -> str:
    """`text` in the quotes of a 257 reply, those within doubled (RFC 959 appendix II)."""
    return '"' + text.replace('"', '""') + '"'


def unquote(text: str) -> str:
    """The path in the quotes of a 257 reply. Raises `RemoteProtocolError` if there are none."""
    match = re.search(r'"((?:[^"]|"")*)"', text, re.DOTALL)
    if match is None:
        raise RemoteProtocolError(f"no path in quotes: {text[:100]!r}")
    return match[1].replace('""', '"')


# Data addresses: PORT and 227 (RFC 959 section 4.1.2), EPRT and 229 (RFC 2428 sections 2 and 3).

_find_six = re.compile(
    r"(?<![0-9])([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3})(?![0-9])"
)


def parse_port(argument: str) -> tuple[str, int]:
    """Host and port of PORT. Raises `RemoteProtocolError`."""
    match = _find_six.fullmatch(argument.strip())
    if match is None:
        raise RemoteProtocolError("PORT takes six numbers with commas between them")
    return _from_six(match)


def _from_six(match: re.Match[str]) -> tuple[str, int]:
    numbers = [int(number) for number in match.groups()]
    if max(numbers) > 255:
        raise RemoteProtocolError("each of the six numbers is at most 255")
    return ".".join(map(str, numbers[:4])), numbers[4] * 256 + numbers[5]


def format_port(host: str, port: int) -> str:
    """The six numbers for an IPv4 `host`."""
    return f"{host.replace('.', ',')},{port // 256},{port % 256}"


def parse_passive(text: str) -> tuple[str, int]:
    """Host and port in the text of a 227, with parentheses or without (RFC 1123 section 4.1.2.6). The host is the
    server's word alone: see CVE-2020-8284. Raises `RemoteProtocolError`."""
    match = _find_six.search(text)
    if match is None:
        raise RemoteProtocolError(f"no address in a reply to PASV: {text[:100]!r}")
    return _from_six(match)


def parse_extended_port(argument: str) -> tuple[str, int]:
    """Host and port of EPRT, such as |1|192.0.2.1|4711| or |2|2001:db8::1|4711|.

    Raises `RemoteProtocolError`; `UnknownNetworkProtocol`, which is one, if the first field is neither 1 nor 2.
    """
    delimiter = argument[:1]
    if not ("!" <= delimiter <= "~") or delimiter.isalnum():
        raise RemoteProtocolError("EPRT takes |1|address|port| or |2|address|port|")
    fields = argument.split(delimiter)
    if len(fields) != 5 or fields[4]:
        raise RemoteProtocolError("EPRT takes |1|address|port| or |2|address|port|")
    _, protocol, host, port, _ = fields
    if protocol not in ("1", "2"):
        raise UnknownNetworkProtocol("network protocol not supported, use (1,2)")
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address
        address = ipaddress.IPv4Address(host) if protocol == "1" else ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        raise RemoteProtocolError("EPRT takes a numeric address of the protocol that it names") from None
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise RemoteProtocolError("EPRT takes a port from 1 to 65535")
    return str(address), int(port)


class UnknownNetworkProtocol(RemoteProtocolError):
    """EPRT or EPSV named something else than IPv4 or IPv6: reply 522 (RFC 2428 section 2)."""


def format_extended_port(host: str, port: int) -> str:
    """The argument of EPRT."""
    return f"|{2 if ':' in host else 1}|{host}|{port}|"


def parse_extended_passive(text: str) -> int:
    """The port in the text of a 229. Raises `RemoteProtocolError`."""
    match = re.search(r"\(([!-/:-~])\1\1([0-9]{1,5})\1\)", text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise RemoteProtocolError(f"no port in a reply to EPSV: {text[:100]!r}")
    return int(match[2])


# Times: RFC 3659 section 2.3, in UTC; a fraction of a second may follow a dot.

_match_time = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})(\.[0-9]{1,9})?").fullmatch


def parse_time(text: str) -> float:
    """Seconds since 1970. Raises `RemoteProtocolError`."""
    match = _match_time(text)
    if match is None:
        raise RemoteProtocolError("a time is YYYYMMDDHHMMSS")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        datetime.datetime(year, month, day, hour, minute, min(second, 59))
    except ValueError:
        raise RemoteProtocolError("no such time") from None
    if second > 60:
        raise RemoteProtocolError("no such time")
    return calendar.timegm((year, month, day, hour, minute, second)) + float(match[7] or 0)


def format_time(seconds: float) -> str:
    """The time of so many seconds since 1970, to the second, rounded down: what HTTP and file systems of old have."""
    try:
        moment = _EPOCH + datetime.timedelta(seconds=int(seconds // 1))
    except OverflowError:
        moment = _EPOCH
    return moment.strftime("%Y%m%d%H%M%S") if moment.year >= 1000 else "19700101000000"


_EPOCH = datetime.datetime(1970, 1, 1)
