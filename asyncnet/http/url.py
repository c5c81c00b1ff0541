"""URLs of http and https, read strictly (RFC 3986, RFC 9110 section 4.2). Pure; used by the client and its transports.

Two programs that read one URL differently are how requests reach hosts that a filter had refused. So what is unclear
is refused (`asyncnet.urls`). Letters beyond ASCII are for people: in a path they are percent-encoded as UTF-8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple
from urllib.parse import unquote, urljoin

from asyncnet.errors import RemoteProtocolError
from asyncnet.printable import printable
from asyncnet.transports.authority import format_authority
from asyncnet.urls import URLError, authority, check_characters, check_escapes, host_and_port, shown, split_url

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

# What neither a path nor a query may hold as it is (RFC 3986 section 3.3); brackets and | pass, as in browsers.
_to_encode = re.compile(r"[^!$%&\'()*+,\-./0-9:;=?@A-Z\[\]_a-z|~]")
_has_control = re.compile(r"[\x00-\x1f\x7f-\x9f]").search


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
        return authority(self.host, self.port, DEFAULT_PORTS[self.scheme])

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
    parts = split_url(text)
    if parts is None:
        raise URLError(f"{shown(text)}: a URL begins with http:// or https://")
    scheme, place, rest = parts
    if scheme not in DEFAULT_PORTS:
        raise URLError(f"{shown(text)}: the scheme {scheme} is not known here, but http and https")
    check_characters(text)
    userinfo, at, place = place.rpartition("@")
    host, port = host_and_port(text, place, DEFAULT_PORTS[scheme])
    target = rest if rest.startswith("/") else f"/{rest}"
    check_escapes(text, target, userinfo)
    target = _to_encode.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), target)
    if not at:
        return URL(scheme, host, port, target)
    try:
        user, password = (unquote(part, errors="strict") for part in userinfo.partition(":")[::2])
    except UnicodeDecodeError:
        raise URLError(f"{shown(text)}: user or password is not UTF-8") from None
    if ":" in user or _has_control(user + password):
        raise URLError(f"{shown(text)}: a colon in the user, or a control character in user or password")
    return URL(scheme, host, port, target, user, password)
