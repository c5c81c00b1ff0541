"""What URLs of every scheme share: how they are cut, which characters they hold, host and port (RFC 3986). Pure.

What is unclear is refused: backslashes, blanks, controls, escapes in the host, numbers that only C libraries take for
an address. A host in other letters than ASCII goes through IDNA (UTS 46). Used by the `url` of each protocol.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote

from asyncnet.errors import LocalProtocolError
from asyncnet.transports.authority import format_authority, name_problem

# RFC 3986 appendix B, for the kind that has an authority: scheme, authority, path with query.
_split = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)(?:#.*)?", re.DOTALL).fullmatch
_find_unsafe = re.compile(r"[\x00-\x20\x7f-\x9f\\\ud800-\udfff\u2028\u2029]").search
_find_bad_escape = re.compile(r"%(?![0-9A-Fa-f]{2})").search
_UNSENDABLE = frozenset("\r\n\0")
_is_port = re.compile(r"[0-9]{1,5}").fullmatch


class URLError(LocalProtocolError, ValueError):
    """A URL is wrong, or of a scheme that is not ours. The message shows no password."""


def split_url(text: str) -> tuple[str, str, str] | None:
    """Scheme in small letters, authority, and path with query; None for what is not cut like that."""
    match = _split(text)
    return None if match is None else (match[1].lower(), match[2], match[3])


def check_characters(text: str) -> None:
    """Raise URLError for what may not stand anywhere in a URL."""
    unsafe = _find_unsafe(text)
    if unsafe is not None:
        hint = ": a blank is %20" if unsafe[0] == " " else ""
        raise URLError(f"{shown(text)}: {unsafe[0]!a} may not stand in a URL{hint}")


def check_escapes(text: str, *parts: str) -> None:
    """Raise URLError where one of the `parts` of `text` has a % that begins no escape."""
    if any(map(_find_bad_escape, parts)):
        raise URLError(f"{shown(text)}: two hexadecimal digits follow a %; the % itself is %25")


def split_userinfo(text: str, place: str) -> tuple[str | None, str | None, str]:
    """User and password of `place`, an authority, as they are written, and what stands behind them.

    None: there is none. Raises URLError for a password without a user. HTTP's URLs have no users.
    """
    userinfo, at, rest = place.rpartition("@")
    if not at:
        return None, None, place
    user, colon, password = userinfo.partition(":")
    if not user:
        raise URLError(f"{shown(text)}: the user before the @ is missing")
    return user, password if colon else None, rest


def decoded(text: str, part: str, *, errors: str = "strict") -> str:
    """A `part` of `text` without its escapes, which are UTF-8 unless `errors` says what becomes of others.

    Raises URLError for a line end or NUL: it would be in a command that is a line.
    """
    try:
        found = unquote(part, errors=errors)
    except UnicodeDecodeError:
        raise URLError(f"{shown(text)}: user and password are UTF-8") from None
    if not _UNSENDABLE.isdisjoint(found):
        raise URLError(f"{shown(text)}: a line end or NUL cannot be sent")
    return found


def host_and_port(text: str, place: str, default: int) -> tuple[str, int]:
    """What `place`, an authority without its user, leads to; IPv6 comes back compressed, without brackets."""
    if place.startswith("["):
        literal, bracket, rest = place[1:].partition("]")
        try:
            host = str(ipaddress.IPv6Address(literal))
        except ValueError:
            raise URLError(f"{shown(text)}: brackets hold an IPv6 address") from None
        if "%" in host or not bracket or (rest and not rest.startswith(":")):
            raise URLError(f"{shown(text)}: brackets hold an IPv6 address, and a colon and the port may follow")
        port = rest[1:]
    else:
        host, _, port = place.partition(":")
        host = _name(text, host)
    if not port:
        return host, default
    if _is_port(port) is None or not 1 <= int(port) <= 65535:
        raise URLError(f"{shown(text)}: a port is a number from 1 to 65535")
    return host, int(port)


def authority(host: str, port: int, default: int) -> str:
    """The reverse of `host_and_port`: the port only where it is not the `default`."""
    if port == default:
        return f"[{host}]" if ":" in host else host
    return format_authority(host, port)


def shown(text: str) -> str:
    """`text` for a message: printable, of bounded length, and without what stands before an @.

    Wherever that is: a slash or # in a password that should have been escaped ends the authority before its time.
    """
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        scheme, rest = "", text
    if "@" in rest:
        rest = f"***{rest[rest.rindex('@') :]}"
    return ascii(f"{scheme}{slashes}{rest}"[:200])[1:-1]


def _name(text: str, host: str) -> str:
    if not host:
        raise URLError(f"{shown(text)}: the host is missing")
    if not host.isascii():
        import idna  # It comes with Trio, and few hosts need it.

        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise URLError(f"{shown(text)}: the host cannot be encoded: {error}") from None
    problem = name_problem(host)
    if problem is not None:
        raise URLError(f"{shown(text)}: {problem}")
    return host.lower()
