"""URLs of http and https, read strictly (RFC 3986, RFC 9110 section 4.2). Pure; used by the client and its transports.

Two programs that read one URL differently are how requests reach hosts that a filter had refused. So what is unclear
is refused: backslashes, blanks, controls, escapes in the host, numbers that only C libraries take for an address.
Letters beyond ASCII are for people: a host goes through IDNA (UTS 46), a path is percent-encoded as UTF-8.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple
from urllib.parse import unquote, urljoin

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.printable import printable
from asyncnet.transports.authority import format_authority, name_problem

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

# RFC 3986 appendix B, for the kind that has an authority.
_split = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.DOTALL).fullmatch
_find_unsafe = re.compile(r"[\x00-\x20\x7f-\x9f\\\ud800-\udfff\u2028\u2029]").search
_find_bad_escape = re.compile(r"%(?![0-9A-Fa-f]{2})").search
# What neither a path nor a query may hold as it is (RFC 3986 section 3.3); brackets and | pass, as in browsers.
_to_encode = re.compile(r"[^!$%&\'()*+,\-./0-9:;=?@A-Z\[\]_a-z|~]")
_has_control = re.compile(r"[\x00-\x1f\x7f-\x9f]").search
_is_port = re.compile(r"[0-9]{1,5}").fullmatch


class URLError(LocalProtocolError, ValueError):
    """A URL is wrong, or of a scheme that is not ours. The message shows no password."""


class Origin(NamedTuple):
    """What a connection leads to, and what credentials belong to (RFC 6454)."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{format_authority(self.host, self.port)}"


@dataclass(frozen=True)
class URL:
    """A URL of http, https, ws or wss, as `parse_url` makes it; its text holds no credentials and no fragment."""

    scheme: str
    host: str
    """A name in small ASCII letters, or a numeric address without brackets."""
    port: int
    target: str
    """Path and query, percent-encoded: what stands in the request line."""
    user: str | None = None
    password: str = field(default="", repr=False)

    @cached_property
    def origin(self) -> Origin:
        """Scheme, host and port; ws counts as http and wss as https, which they are until the upgrade."""
        return Origin({"ws": "http", "wss": "https"}.get(self.scheme, self.scheme), self.host, self.port)

    @cached_property
    def authority(self) -> str:
        """The Host field (RFC 9110 section 7.2): the port only where it is not the scheme's own."""
        if self.port == DEFAULT_PORTS[self.scheme]:
            return f"[{self.host}]" if ":" in self.host else self.host
        return format_authority(self.host, self.port)

    @cached_property
    def path(self) -> str:
        """The path, percent-encoded."""
        return self.target.partition("?")[0]

    def join(self, reference: str) -> URL:
        """Where `reference`, the value of a Location field, leads from here (RFC 3986 section 5).

        Credentials in it are left out: a server does not choose as whom we come. Blanks and bytes beyond ASCII,
        which servers do send, are percent-encoded. Raises RemoteProtocolError where it leads nowhere.
        """
        try:
            reference = reference.encode("latin-1").decode("utf-8")
        except ValueError:
            pass
        try:
            url = parse_url(urljoin(str(self), reference.strip().replace(" ", "%20")))
        except ValueError as error:
            raise RemoteProtocolError(f"{self} redirects to nowhere: {printable(str(error))}") from None
        return URL(url.scheme, url.host, url.port, url.target)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


@lru_cache(maxsize=1024)
def parse_url(text: str) -> URL:
    """Read a URL with a scheme and a host. Raises URLError, which says what is wrong with it."""
    match = _split(text)
    if match is None:
        raise URLError(f"{_shown(text)}: a URL begins with http:// or https://")
    scheme, authority, path, query = match[1].lower(), match[2], match[3], match[4] or ""
    if scheme not in DEFAULT_PORTS:
        raise URLError(f"{_shown(text)}: the scheme {scheme} is not known here, but http and https")
    unsafe = _find_unsafe(text)
    if unsafe is not None:
        hint = ": a blank is %20" if unsafe[0] == " " else ""
        raise URLError(f"{_shown(text)}: {unsafe[0]!a} may not stand in a URL{hint}")
    userinfo, at, place = authority.rpartition("@")
    host, port = _host_and_port(place, text, DEFAULT_PORTS[scheme])
    target = (path or "/") + query
    if _find_bad_escape(target) or _find_bad_escape(userinfo):
        raise URLError(f"{_shown(text)}: two hexadecimal digits follow a %; the % itself is %25")
    target = _to_encode.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), target)
    if not at:
        return URL(scheme, host, port, target)
    try:
        user, password = (unquote(part, errors="strict") for part in userinfo.partition(":")[::2])
    except UnicodeDecodeError:
        raise URLError(f"{_shown(text)}: user or password is not UTF-8") from None
    if ":" in user or _has_control(user + password):
        raise URLError(f"{_shown(text)}: a colon in the user, or a control character in user or password")
    return URL(scheme, host, port, target, user, password)


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
    """`text` for a message: printable, of bounded length, and without what stands before an @."""
    scheme, slashes, rest = text.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        rest = "***@" + rest[authority.rindex("@") + 1 :]
    return ascii(f"{scheme}{slashes}{rest}"[:200])[1:-1]
