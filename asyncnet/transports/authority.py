"""What endpoint strings and proxy strings share: `host:port` and percent-encoding (RFC 3986 sections 2.1 and 3.2).

Pure, and stricter than `urllib.parse`: each fault is an `EndpointError` whose position is the character at fault.
The functions take the whole string and a range in it, so that the caret of a message stands in the right place.
Used by `asyncnet.endpoints` and `asyncnet.transports.tunnels`.
"""

from __future__ import annotations

import ipaddress
import re

from asyncnet.errors import EndpointError

_NOT_IN_NAME = re.compile(r"[^0-9A-Za-z._-]")
_NOT_IN_SCOPE = re.compile(r"[^0-9A-Za-z._~-]")
_LIKE_A_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_PORT = re.compile(r"[0-9]{1,5}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def refuse_unprintable(text: str) -> None:
    """Raise EndpointError for a control character, a lone surrogate or a separator other than the space."""
    for position, character in enumerate(text):
        if _CONTROL.match(character):
            raise EndpointError(text, position, f"a control character, {character!a}, may not stand here")
        if not character.isprintable():
            raise EndpointError(text, position, f"{character!a} is not printable: a path or value has it in % notation")


def parse_authority(text: str, start: int, end: int, *, wildcard: bool = False) -> tuple[str, int]:
    """Read `host:port` or `[address%scope]:port` from text[start:end]; IPv6 comes back compressed, without brackets.

    With `wildcard` the host may be "*".
    """
    slash = text.find("/", start, end)
    if slash >= 0:
        raise EndpointError(text, slash, "nothing may follow the port but options behind a question mark")
    if text.startswith("[", start, end):
        host, colon = _bracketed(text, start, end)
    else:
        if text.count(":", start, end) > 1:
            raise EndpointError(text, start, f"IPv6 stands in brackets: {_in_brackets(text[start:end])}")
        colon = text.find(":", start, end)
        host = text[start:colon] if colon >= 0 else text[start:end]
        if not host:
            hint = "* for every interface, localhost for this machine only" if wildcard else "a name or an address"
            raise EndpointError(text, start, f"the host is missing: {hint}")
        if not (wildcard and host == "*"):
            _check_name(text, start, host)
    if colon < 0 or colon + 1 == end:
        raise EndpointError(text, end, "the port is missing: write HOST:PORT")
    port = text[colon + 1 : end]
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise EndpointError(text, colon + 1, "a port is a number from 0 to 65535")
    return host, int(port)


def format_authority(host: str, port: int) -> str:
    """The reverse of `parse_authority`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bracketed(text: str, start: int, end: int) -> tuple[str, int]:
    """The IPv6 address in the brackets at `start`, and where the colon behind them is (-1: there is none)."""
    close = text.find("]", start, end)
    if close < 0:
        raise EndpointError(text, start, "this bracket is never closed")
    digits, percent, scope = text[start + 1 : close].partition("%")
    try:
        host = str(ipaddress.IPv6Address(digits))
    except ValueError:
        raise EndpointError(text, start + 1, "brackets hold an IPv6 address") from None
    if percent:
        wrong = _NOT_IN_SCOPE.search(scope)
        if wrong or not scope:
            at = text.index("%", start) + 1 + (wrong.start() if wrong else 0)
            raise EndpointError(text, at, "an interface stands behind the %, as in [fe80::1%eth0]")
        host = f"{host}%{scope}"
    if close + 1 == end:
        return host, -1
    if text[close + 1] != ":":
        raise EndpointError(text, close + 1, "a colon and the port follow the bracket")
    return host, close + 1


def _in_brackets(unbracketed: str) -> str:
    """What the user probably meant by an address with colons and no brackets."""
    for host, port in (unbracketed.rpartition(":")[::2], (unbracketed, "PORT")):
        try:
            return f"[{ipaddress.IPv6Address(host)}]:{port}"
        except ValueError:
            continue
    return "[ADDRESS]:PORT"


def _check_name(text: str, start: int, host: str) -> None:
    problem = name_problem(host)
    if problem is not None:
        wrong = _NOT_IN_NAME.search(host)
        raise EndpointError(text, start + (wrong.start() if wrong else 0), problem)


def name_problem(host: str) -> str | None:
    """Why `host` is neither a DNS name in ASCII nor a dotted IPv4 address; None if it is one of them.

    Underscores pass, since names inside container networks have them. "127.1" and "0x7f.1", which C libraries read
    as addresses, do not.
    """
    wrong = _NOT_IN_NAME.search(host)
    if wrong:
        if not wrong[0].isascii():
            return "a name with letters beyond ASCII is written in its xn-- form"
        return f"{wrong[0]!r} may not stand in a host name"
    labels = host.removesuffix(".").split(".")
    if any(not 1 <= len(label) <= 63 for label in labels) or len(host) > 253:
        return "a host name has 1 to 63 characters between its dots and at most 253 in all"
    if _LIKE_A_NUMBER.fullmatch(labels[-1]):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return "an IPv4 address is four numbers from 0 to 255 with no leading zeros"
    return None


def percent_decode(text: str, start: int, end: int) -> str:
    """Decode text[start:end]. The result holds no control character: none has a place in a path or a password."""
    raw = text[start:end]
    bad = _BAD_ESCAPE.search(raw)
    if bad:
        raise EndpointError(text, start + bad.start(), "two hexadecimal digits follow a %; the % itself is %25")
    encoded = re.sub(rb"%(..)", lambda match: bytes.fromhex(match[1].decode()), raw.encode())
    try:
        value = encoded.decode()
    except UnicodeDecodeError:
        raise EndpointError(text, start + raw.index("%"), "what is percent-encoded here is not UTF-8") from None
    if _CONTROL.search(value):
        raise EndpointError(text, start + raw.index("%"), "a control character is encoded here")
    return value


def percent_encode(value: str) -> str:
    """The reverse of `percent_decode`: what stays readable stays as it is."""
    return "".join(
        character
        if character.isprintable() and character not in "%?&"
        else "".join(f"%{byte:02X}" for byte in character.encode())
        for character in value
    )
