"""URLs of FTP: ftp, ftps (TLS from the first byte) and ftpes (AUTH TLS demanded). RFC 1738 section 3.2, RFC 3986. Pure.

    ftp://[user[:password]@]host[:port][/path][;type=a|i]

The path is relative to the folder that the login leads to; one that begins with %2F, or with a second slash, is
absolute. What is unclear is refused: backslashes, blanks, controls, broken escapes. CR, LF and NUL are refused however
they are written, since they would end a command.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from asyncnet.errors import LocalProtocolError
from asyncnet.transports.authority import format_authority, name_problem

DEFAULT_PORTS = {"ftp": 21, "ftps": 990, "ftpes": 21}

_split = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)(?:#.*)?", re.DOTALL).fullmatch
_find_unsafe = re.compile(r"[\x00-\x20\x7f-\x9f\\\ud800-\udfff\u2028\u2029]").search
_find_bad_escape = re.compile(r"%(?![0-9A-Fa-f]{2})").search
_is_port = re.compile(r"[0-9]{1,5}").fullmatch
_match_type = re.compile(r"(.*);type=([^;/]*)", re.DOTALL | re.IGNORECASE).fullmatch
_UNSENDABLE = frozenset("\r\n\0")


class URLError(LocalProtocolError, ValueError):
    """A URL is wrong, or of a scheme that is not ours. The message shows no password."""


@dataclass(frozen=True, slots=True)
class FTPURL:
    """A URL, as `parse_url` makes it; its text and its repr keep the password out."""

    scheme: str
    """ftp, ftps or ftpes."""
    host: str
    """A name in small ASCII letters, or a numeric address without brackets."""
    port: int
    path: str = ""
    """As the server gets it: relative to the login's folder ("" is that folder), or absolute with a slash in front.
    Bytes that are no UTF-8 are surrogates (PEP 383)."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    type: str | None = None
    """"a" or "i", where the URL says so."""

    @property
    def authority(self) -> str:
        """Host and port; the port only where it is not the scheme's own."""
        if self.port == DEFAULT_PORTS[self.scheme]:
            return f"[{self.host}]" if ":" in self.host else self.host
        return format_authority(self.host, self.port)

    def __str__(self) -> str:
        path = quote(self.path, safe="/!$&'()*+,:=@~", errors="surrogateescape")
        path = f"%2F{path[1:]}" if path.startswith("/") else path
        user = "" if self.user is None else f"{quote(self.user, safe='')}@"
        kind = "" if self.type is None else f";type={self.type}"
        return f"{self.scheme}://{user}{self.authority}/{path}{kind}"


def parse_url(text: str) -> FTPURL:
    """Read a URL. Raises URLError, which says what is wrong with it."""
    match = _split(text)
    if match is None or match[1].lower() not in DEFAULT_PORTS:
        raise URLError(f"{_shown(text)}: a URL begins with ftp://, ftps:// or ftpes://")
    scheme, authority, path = match[1].lower(), match[2], match[3]
    unsafe = _find_unsafe(text)
    if unsafe is not None:
        hint = ": a blank is %20" if unsafe[0] == " " else ""
        raise URLError(f"{_shown(text)}: {unsafe[0]!a} may not stand in a URL{hint}")
    if _find_bad_escape(path) or _find_bad_escape(authority):
        raise URLError(f"{_shown(text)}: two hexadecimal digits follow a %; the % itself is %25")
    userinfo, at, place = authority.rpartition("@")
    host, port = _host_and_port(place, text, DEFAULT_PORTS[scheme])
    user = password = None
    if at:
        name, colon, secret = userinfo.partition(":")
        user, password = _decoded(name, text), _decoded(secret, text) if colon else None
        if not user:
            raise URLError(f"{_shown(text)}: the user before the @ is missing")
    path, kind = _path_and_type(path, text)
    return FTPURL(scheme, host, port, _decoded(path, text), user, password, kind)


def _path_and_type(path: str, text: str) -> tuple[str, str | None]:
    kind = None
    match = _match_type(path)
    if match is not None:
        path, kind = match[1], match[2].lower()
        if kind not in ("a", "i"):
            raise URLError(f"{_shown(text)}: ;type= is a (text) or i (bytes as they are)")
    return path.removeprefix("/"), kind


def _decoded(part: str, text: str) -> str:
    decoded = unquote(part, errors="surrogateescape")
    if not _UNSENDABLE.isdisjoint(decoded):
        raise URLError(f"{_shown(text)}: a line end or NUL cannot be sent")
    return decoded


def _host_and_port(place: str, text: str, default: int) -> tuple[str, int]:
    if place.startswith("["):
        literal, bracket, rest = place[1:].partition("]")
        try:
            host = str(ipaddress.IPv6Address(literal))
        except ValueError:
            raise URLError(f"{_shown(text)}: brackets hold an IPv6 address") from None
        if "%" in host or not bracket or (rest and not rest.startswith(":")):
            raise URLError(f"{_shown(text)}: brackets hold an IPv6 address, and a colon and the port may follow")
        port = rest[1:]
    else:
        host, _, port = place.partition(":")
        host = _name(host, text)
    if not port:
        return host, default
    if _is_port(port) is None or not 1 <= int(port) <= 65535:
        raise URLError(f"{_shown(text)}: a port is a number from 1 to 65535")
    return host, int(port)


def _name(host: str, text: str) -> str:
    if not host:
        raise URLError(f"{_shown(text)}: the host is missing")
    if not host.isascii():
        import idna  # It comes with Trio, and few hosts need it.

        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise URLError(f"{_shown(text)}: the host cannot be encoded: {error}") from None
    problem = name_problem(host)
    if problem is not None:
        raise URLError(f"{_shown(text)}: {problem}")
    return host.lower()


def _shown(text: str) -> str:
    """`text` for a message: printable, of bounded length, and without what stands before an @.

    Wherever that is: a slash or # in a password that should have been escaped ends the authority before its time.
    """
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        scheme, rest = "", text
    if "@" in rest:
        rest = f"***{rest[rest.rindex('@') :]}"
    return ascii(f"{scheme}{slashes}{rest}"[:200])[1:-1]
