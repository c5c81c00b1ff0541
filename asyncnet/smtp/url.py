"""URLs of mail servers: smtp, smtps (TLS from the first byte, RFC 8314) and lmtp (RFC 2033). RFC 3986. Pure.

    smtp://[user[:password]@]host[:port]      lmtp://host[:port]      lmtp+unix:path

Nothing stands behind the host: to whom a message goes, its envelope says. What is unclear is refused (`asyncnet.urls`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, unquote

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

DEFAULT_PORTS = {"smtp": 25, "smtps": 465, "lmtp": 24}

_UNIX = "lmtp+unix:"


@dataclass(frozen=True, slots=True)
class SMTPURL:
    """A URL, as `parse_url` makes it; its text and its repr keep the password out."""

    scheme: str
    """smtp, smtps or lmtp."""
    host: str
    """A name in small ASCII letters, or a numeric address without brackets; "" for a Unix socket."""
    port: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    path: str | None = None
    """Where the Unix socket is."""

    @property
    def authority(self) -> str:
        """Host and port; the port only where it is not the scheme's own."""
        return authority(self.host, self.port, DEFAULT_PORTS[self.scheme])

    def __str__(self) -> str:
        if self.path is not None:
            return f"{_UNIX}{quote(self.path, safe='/', errors='surrogateescape')}"
        user = "" if self.user is None else f"{quote(self.user, safe='')}@"
        return f"{self.scheme}://{user}{self.authority}"


def parse_url(text: str) -> SMTPURL:
    """Read a URL. Raises URLError, which says what is wrong with it."""
    check_characters(text)
    if text[: len(_UNIX)].lower() == _UNIX:
        return _parse_unix(text)
    parts = split_url(text)
    if parts is None or parts[0] not in DEFAULT_PORTS:
        raise URLError(f"{shown(text)}: a URL begins with smtp://, smtps://, lmtp:// or {_UNIX}")
    scheme, place, rest = parts
    check_escapes(text, place)
    if rest not in ("", "/"):
        raise URLError(f"{shown(text)}: nothing stands behind the host")
    user, password, place = split_userinfo(text, place)
    host, port = host_and_port(text, place, DEFAULT_PORTS[scheme])
    user = None if user is None else decoded(text, user)
    password = None if password is None else decoded(text, password)
    return SMTPURL(scheme, host, port, user, password)


def _parse_unix(text: str) -> SMTPURL:
    place = text[len(_UNIX) :]
    check_escapes(text, place)
    path = unquote(place, errors="surrogateescape")
    if not path or path.startswith("//") or "\0" in path:
        raise URLError(f"{shown(text)}: the path of a socket is missing: {_UNIX}/run/lmtp.sock")
    return SMTPURL("lmtp", "", path=path)
