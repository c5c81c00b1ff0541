"""The opening handshake (RFC 6455 section 4, RFC 7692 section 5): requests judged and made, answers made and judged.

Pure. A server asks `read_opening` whether a request opens a WebSocket, and the `Opening` for the fields of its 101;
a client makes an `Offer` and asks it what the answer has settled. What has been settled is an `Agreement`, which is
all that a `WebSocket` needs to know of it.

- *Another site's page* opens a WebSocket to ours, and the browser sends our cookies along: cross-site WebSocket
  hijacking. A request that says where it comes from (Origin; all browsers do) has to come from the same host, unless
  the application names others.
- *Splitting the answer* by a subprotocol or a header: a server can choose only among what the client has offered and
  the grammar has let pass, and `Headers` refuses controls.
- *An answer that promises more than was asked for* fails the handshake: an extension that was not offered would change
  what the bytes mean.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.http.messages import HeaderItems, Headers, Request
from asyncnet.http.websocket.deflate import (
    DeflateAgreement,
    DeflateSettings,
    Extension,
    accept_offer,
    make_offer,
    read_answer,
)
from asyncnet.http.wire import RequestError

VERSION = "13"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

SAME_ORIGIN: Collection[str] = frozenset({"same-origin"})
"""Only pages of the host that is asked may open a WebSocket, and programs, which name no origin. It may stand beside
others: `{*SAME_ORIGIN, "https://app.example"}`."""

ANY_ORIGIN: Collection[str] = frozenset({"*"})
"""Pages of every site may open a WebSocket: for services that use no cookies and trust no network."""

DEFAULT_DEFLATE = DeflateSettings()

_UPGRADE = {"connection": "upgrade", "upgrade": "websocket"}


class OpeningError(RequestError):
    """A request that opens no WebSocket. `status` and `headers` are what to answer."""

    def __init__(self, status: int, problem: str, headers: HeaderItems = ()) -> None:
        self.headers = Headers(headers)
        super().__init__(status, problem)


class HandshakeRefused(RemoteProtocolError):
    """The server did not open a WebSocket: it answered with `status`, `headers` and `body`, of which the beginning.

    A redirect (3xx) is not followed, since it would take cookies and passwords elsewhere: its "location" is here.
    """

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        super().__init__(f"the server refused the WebSocket: it answered {status}")


@dataclass(frozen=True, slots=True)
class Agreement:
    """What an opening handshake has settled."""

    subprotocol: str | None = None
    deflate: DeflateAgreement | None = None


_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_is_token = re.compile(_TOKEN).fullmatch
# RFC 6455 section 9.1; a quoted value has to be a token when its quotes are off. No group is captured within a
# possessive repeat: Python 3.11's `re` loses its place there, and raises SystemError for some fields.
_PARAMETER = rf"[ \t]*+;[ \t]*+(?:{_TOKEN})(?:[ \t]*+=[ \t]*+(?:{_TOKEN}|\"{_TOKEN}\"))?+"
_match_extension = re.compile(rf"[ \t]*+({_TOKEN})((?:{_PARAMETER})*+)[ \t]*+(?:,|\Z)").match
_find_parameters = re.compile(rf";[ \t]*+({_TOKEN})(?:[ \t]*+=[ \t]*+\"?({_TOKEN}))?").finditer
_is_empty_element = re.compile(r"[ \t]*+(?:,|\Z)").match

_split_origin = re.compile(r"(https?)://([A-Za-z0-9\-._~]++|\[[0-9A-Fa-f:.]++\])(?::([0-9]{1,5}))?").fullmatch
_split_host = re.compile(r"([A-Za-z0-9\-._~]++|\[[0-9A-Fa-f:.]++\])(?::([0-9]{0,5}))?").fullmatch
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def read_tokens(value: str) -> list[str] | None:
    """A comma-separated list of tokens, empty elements passed over (RFC 9110 section 5.6.1); None if it is none."""
    tokens = [token for item in value.split(",") if (token := item.strip(" \t"))]
    return tokens if all(map(_is_token, tokens)) else None


def read_extensions(value: str) -> list[Extension] | None:
    """The field Sec-WebSocket-Extensions (RFC 6455 section 9.1); None if it does not follow the grammar."""
    extensions: list[Extension] = []
    at = 0
    while at < len(value):
        if empty := _is_empty_element(value, at):
            at = empty.end()
            continue
        match = _match_extension(value, at)
        if match is None:
            return None
        parameters = tuple((found[1], found[2]) for found in _find_parameters(match[2]))
        extensions.append(Extension(match[1], parameters))
        at = match.end()
    return extensions


def accept_key(key: str) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 section 4.2.2): it shows that the key was read."""
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def is_upgrade(request: Request) -> bool:
    """Whether `request` asks for a WebSocket at all: for applications that answer both kinds at one place."""
    return "websocket" in _options(request.headers, "upgrade") and "upgrade" in _options(request.headers, "connection")


def _options(headers: Headers, name: str) -> list[str]:
    return [option.strip(" \t").lower() for option in headers.get(name, "").split(",")]


# The server's side


@dataclass(frozen=True, slots=True)
class Opening:
    """A request that opens a WebSocket, checked."""

    key: str
    subprotocols: tuple[str, ...]
    """What the client speaks, as it prefers it."""
    extensions: tuple[Extension, ...]

    def choose(self, supported: Iterable[str]) -> str | None:
        """The first of `supported`, which are in the server's order, that the client speaks."""
        if isinstance(supported, str):
            raise TypeError(f"subprotocols is a list of names: [{supported!r}]")
        return next((name for name in supported if name in self.subprotocols), None)

    def accept(
        self,
        subprotocol: str | None = None,
        *,
        deflate: DeflateSettings | None = DEFAULT_DEFLATE,
        headers: HeaderItems = (),
    ) -> tuple[Headers, Agreement]:
        """The fields of the 101, Connection and Upgrade apart, and what is settled by it; `headers` come on top.

        Raises `LocalProtocolError` for a subprotocol that the client has not offered, and for headers that are
        the handshake's own or would split the answer.
        """
        if subprotocol is not None and subprotocol not in self.subprotocols:
            raise LocalProtocolError(f"the client does not speak the subprotocol {subprotocol!r}")
        fields = Headers(headers)
        for name, _ in fields:
            if name in _OURS:
                raise LocalProtocolError(f"{name} is for the handshake itself to send")
        fields.add("sec-websocket-accept", accept_key(self.key))
        if subprotocol is not None:
            fields.add("sec-websocket-protocol", subprotocol)
        agreed = None if deflate is None else accept_offer(self.extensions, deflate)
        if agreed is not None:
            fields.add("sec-websocket-extensions", agreed.header)
        return fields, Agreement(subprotocol, agreed)


_OURS = frozenset(
    {
        "connection",
        "upgrade",
        "content-length",
        "transfer-encoding",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "sec-websocket-version",
    }
)


def read_opening(request: Request, *, origins: Collection[str] = SAME_ORIGIN) -> Opening:
    """Judge a request that is to open a WebSocket (RFC 6455 section 4.2.1). Raises `OpeningError`.

    `origins` are those of which pages may open it, such as "https://example.com"; `SAME_ORIGIN` lets in those of the
    host that is asked, `ANY_ORIGIN` all, an empty list none. A request without Origin does not come from a browser, and
    passes.
    """
    headers = request.headers
    if not is_upgrade(request):
        raise OpeningError(426, "not a WebSocket's opening handshake", _UPGRADE)
    if request.method != "GET":
        raise OpeningError(405, f"{request.method} opens no WebSocket", {"allow": "GET"})
    if request.http_version != "1.1":
        raise OpeningError(400, f"HTTP/{request.http_version} opens no WebSocket")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise OpeningError(400, "a body before a WebSocket")
    if headers.get("sec-websocket-version") != VERSION:
        raise OpeningError(426, "another version of WebSocket", {**_UPGRADE, "sec-websocket-version": VERSION})
    key = headers.get("sec-websocket-key", "")
    if not _is_key(key):
        raise OpeningError(400, "a malformed Sec-WebSocket-Key")
    subprotocols = read_tokens(headers.get("sec-websocket-protocol", ""))
    if subprotocols is None or len(set(subprotocols)) < len(subprotocols):
        raise OpeningError(400, "a malformed Sec-WebSocket-Protocol")
    extensions = read_extensions(headers.get("sec-websocket-extensions", ""))
    if extensions is None:
        raise OpeningError(400, "a malformed Sec-WebSocket-Extensions")
    if "origin" in headers and not _is_welcome(headers["origin"], request.host, origins):
        raise OpeningError(403, f"a page of another site: {headers['origin']}")
    return Opening(key, tuple(subprotocols), tuple(extensions))


def _is_key(key: str) -> bool:
    """16 bytes in base64 (RFC 6455 section 4.1)."""
    try:
        return len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _is_welcome(origin: str, host: str, origins: Collection[str]) -> bool:
    if isinstance(origins, str):
        raise TypeError(f"origins is a list: [{origins!r}]")
    if "*" in origins or ("same-origin" in origins and _is_same_host(origin, host)):
        return True
    return origin.lower() in [each.lower().rstrip("/") for each in origins if each not in SAME_ORIGIN]


def _is_same_host(origin: str, host: str) -> bool:
    """Whether the Origin is that of the host that was asked. The schemes may differ: a proxy may have taken TLS off."""
    theirs, ours = _split_origin(origin.lower()), _split_host(host.lower())
    if theirs is None or ours is None or theirs[2] != ours[1]:
        return False
    default = _DEFAULT_PORTS[theirs[1]]
    return (theirs[3] or default) == (ours[2] or default)


# The client's side


class Offer:
    """What a client asks for, and how it judges the answer. `nonce` is 16 random bytes, new for each handshake.

    Raises `LocalProtocolError` for a subprotocol that is no token or comes twice, and for `headers` that are the
    handshake's own.
    """

    __slots__ = ("_deflate", "_key", "_subprotocols", "headers")

    def __init__(
        self,
        nonce: bytes,
        *,
        host: str,
        subprotocols: Sequence[str] = (),
        deflate: DeflateSettings | None = DEFAULT_DEFLATE,
        origin: str | None = None,
        headers: HeaderItems = (),
    ) -> None:
        if isinstance(subprotocols, str):
            raise TypeError(f"subprotocols is a list of names: [{subprotocols!r}]")
        for name in subprotocols:
            if _is_token(name) is None or subprotocols.count(name) > 1:
                raise LocalProtocolError(f"not a subprotocol, or one twice: {name!r}")
        self._key = base64.b64encode(nonce).decode("ascii")
        self._subprotocols = tuple(subprotocols)
        self._deflate = deflate
        self.headers = Headers({"host": host})
        """The request's fields."""
        for field, value in Headers(headers):
            if field in _OURS or field in ("host", "sec-websocket-key"):
                raise LocalProtocolError(f"{field} is for the handshake itself to send")
            self.headers.add(field, value)
        self.headers.add("upgrade", "websocket")
        self.headers.add("connection", "Upgrade")
        self.headers.add("sec-websocket-key", self._key)
        self.headers.add("sec-websocket-version", VERSION)
        if subprotocols:
            self.headers.add("sec-websocket-protocol", ", ".join(subprotocols))
        if deflate is not None:
            self.headers.add("sec-websocket-extensions", make_offer(deflate))
        if origin is not None:
            self.headers.add("origin", origin)

    def read_answer(self, headers: Headers) -> Agreement:
        """What a 101 with these fields has settled (RFC 6455 section 4.1). Raises `RemoteProtocolError`."""
        if _options(headers, "upgrade") != ["websocket"] or "upgrade" not in _options(headers, "connection"):
            raise RemoteProtocolError("the server switched to something else than WebSocket")
        if headers.get("sec-websocket-accept") != accept_key(self._key):
            raise RemoteProtocolError("the server has not read our key: Sec-WebSocket-Accept is wrong")
        subprotocol = headers.get("sec-websocket-protocol")
        if subprotocol is not None and subprotocol not in self._subprotocols:
            raise RemoteProtocolError(f"the server chose a subprotocol that was not offered: {subprotocol!r}")
        extensions = read_extensions(headers.get("sec-websocket-extensions", ""))
        if extensions is None:
            raise RemoteProtocolError("a malformed Sec-WebSocket-Extensions")
        if not extensions:
            return Agreement(subprotocol)
        agreed = read_answer(extensions[0], self._deflate) if self._deflate is not None else None
        if agreed is None or len(extensions) > 1:
            raise RemoteProtocolError("the server chose an extension that was not offered")
        return Agreement(subprotocol, agreed)
