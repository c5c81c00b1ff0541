"""URLs of mailboxes: pop3, and pop3s (TLS from the first byte, RFC 8314). RFC 2384, RFC 3986. Pure.

    pop3://[user[:password]@]host[:port]

RFC 2384's name of the scheme, pop, is understood; its ;AUTH= is refused, since we log in in the best way that there is.
Nothing stands behind the host. What is unclear is refused (`asyncnet.urls`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote

from asyncnet.urls import (
    URLError,
    authority,
    check_characters,
    check_escapes,
    decoded,
    host_and_port,
    shown,
    split_url,
    split_userinfo,
)

DEFAULT_PORTS = {"pop3": 110, "pop3s": 995}

_ALIASES = {"pop": "pop3", "pops": "pop3s"}


@dataclass(frozen=True, slots=True)
class POP3URL:
    """A URL, as `parse_url` makes it; its text and its repr keep the password out."""

    scheme: str
    """pop3 or pop3s."""
    host: str
    """A name in small ASCII letters, or a numeric address without brackets."""
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def authority(self) -> str:
        """Host and port; the port only where it is not the scheme's own."""
        return authority(self.host, self.port, DEFAULT_PORTS[self.scheme])

    def __str__(self) -> str:
        user = "" if self.user is None else f"{quote(self.user, safe='')}@"
        return f"{self.scheme}://{user}{self.authority}"


def parse_url(text: str) -> POP3URL:
    """Read a URL. Raises URLError, which says what is wrong with it."""
    parts = split_url(text)
    scheme = "" if parts is None else _ALIASES.get(parts[0], parts[0])
    if parts is None or scheme not in DEFAULT_PORTS:
        raise URLError(f"{shown(text)}: a URL begins with pop3:// or pop3s://")
    _, place, rest = parts
    check_characters(text)
    check_escapes(text, place)
    if rest not in ("", "/"):
        raise URLError(f"{shown(text)}: nothing stands behind the host")
    user, password, place = split_userinfo(text, place)
    if user is not None and ";auth=" in user.lower():
        raise URLError(f"{shown(text)}: leave ;AUTH= out: the best way to log in is chosen")
    host, port = host_and_port(text, place, DEFAULT_PORTS[scheme])
    user = None if user is None else decoded(text, user)
    password = None if password is None else decoded(text, password)
    return POP3URL(scheme, host, port, user, password)
