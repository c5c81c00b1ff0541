"""URLs of FTP: ftp, ftps (TLS from the first byte) and ftpes (AUTH TLS demanded). RFC 1738 section 3.2, RFC 3986. Pure.

    ftp://[user[:password]@]host[:port][/path][;type=a|i]

The path is relative to the folder that the login leads to; one that begins with %2F, or with a second slash, is
absolute. What is unclear is refused (`asyncnet.urls`). CR, LF and NUL are refused however they are written, since they
would end a command.
"""

from __future__ import annotations

import re
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

DEFAULT_PORTS = {"ftp": 21, "ftps": 990, "ftpes": 21}

_match_type = re.compile(r"(.*);type=([^;/]*)", re.DOTALL | re.IGNORECASE).fullmatch


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
        return authority(self.host, self.port, DEFAULT_PORTS[self.scheme])

    def __str__(self) -> str:
        path = quote(self.path, safe="/!$&'()*+,:=@~", errors="surrogateescape")
        path = f"%2F{path[1:]}" if path.startswith("/") else path
        user = "" if self.user is None else f"{quote(self.user, safe='')}@"
        kind = "" if self.type is None else f";type={self.type}"
        return f"{self.scheme}://{user}{self.authority}/{path}{kind}"


def parse_url(text: str) -> FTPURL:
    """Read a URL. Raises URLError, which says what is wrong with it."""
    parts = split_url(text)
    if parts is None or parts[0] not in DEFAULT_PORTS:
        raise URLError(f"{shown(text)}: a URL begins with ftp://, ftps:// or ftpes://")
    scheme, place, path = parts
    check_characters(text)
    check_escapes(text, path, place)
    user, password, place = split_userinfo(text, place)
    host, port = host_and_port(text, place, DEFAULT_PORTS[scheme])
    path, kind = _path_and_type(path, text)
    user = None if user is None else decoded(text, user, errors="surrogateescape")
    password = None if password is None else decoded(text, password, errors="surrogateescape")
    return FTPURL(scheme, host, port, decoded(text, path, errors="surrogateescape"), user, password, kind)


def _path_and_type(path: str, text: str) -> tuple[str, str | None]:
    kind = None
    match = _match_type(path)
    if match is not None:
        path, kind = match[1], match[2].lower()
        if kind not in ("a", "i"):
            raise URLError(f"{shown(text)}: ;type= is a (text) or i (bytes as they are)")
    return path.removeprefix("/"), kind
