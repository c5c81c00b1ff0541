"""What an application reads and returns: `Headers`, `Request`, `Response` (RFC 9110 sections 5, 6, 7 and 15).

Pure, apart from the body of a request, which comes while it is read. Used by applications, `http.files` and
`http.server`.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, overload
from urllib.parse import unquote_to_bytes

from asyncnet.errors import LocalProtocolError
from asyncnet.http.framing import reason
from asyncnet.http.wire import RequestError

if TYPE_CHECKING:
    from asyncnet.http.exchange import Exchange
    from asyncnet.stream import Stream
    from asyncnet.transports.address import Address
    from asyncnet.transports.base import TLSInfo

_is_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_is_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch

HeaderItems: TypeAlias = "Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]"


class Headers:
    """Header fields in their order; names in any case, a name as often as one likes (RFC 9110 section 5).

    On the wire they are bytes, for people `str`, one character a byte (ISO 8859-1). Names are kept in small letters.
    A name that is no token, or a value with CR, LF, NUL or another control, raises `LocalProtocolError`: it would
    split the message.
    """

    __slots__ = ("raw",)

    def __init__(self, items: HeaderItems = ()) -> None:
        self.raw: list[tuple[bytes, bytes]] = []
        """The fields as they go over the wire."""
        for name, value in items.items() if isinstance(items, Mapping) else items:
            self.add(name, value)

    @classmethod
    def checked(cls, raw: list[tuple[bytes, bytes]]) -> Headers:
        """Headers of what a parser has checked already, names in small letters."""
        headers = cls.__new__(cls)
        headers.raw = raw
        return headers

    def add(self, name: str | bytes, value: str | bytes) -> None:
        """Append a field, beside those of the same name."""
        self.raw.append(_field(name, value))

    def get_all(self, name: str) -> list[str]:
        """The values of every field of that name, in order."""
        key = name.lower().encode("latin-1")
        return [value.decode("latin-1") for field, value in self.raw if field == key]

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """The field's value; several are joined by commas, which means the same (RFC 9110 section 5.3).

        For Set-Cookie it does not: use `get_all`.
        """
        values = self.get_all(name)
        return ", ".join(values) if values else default

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: str | bytes) -> None:
        """Replace every field of that name by one."""
        field = _field(name, value)
        self.raw = [item for item in self.raw if item[0] != field[0]]
        self.raw.append(field)

    def setdefault(self, name: str, value: str | bytes) -> None:
        """Add the field unless there is one of that name."""
        if name not in self:
            self.add(name, value)

    def __delitem__(self, name: str) -> None:
        """Remove every field of that name; there need not be one."""
        key = name.lower().encode("latin-1")
        self.raw = [item for item in self.raw if item[0] != key]

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        key = name.lower().encode("latin-1")
        return any(field == key for field, _ in self.raw)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """The fields as pairs of strings, in order."""
        return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.raw == other.raw

    def __repr__(self) -> str:
        return f"Headers({list(self)!r})"


def _field(name: str | bytes, value: str | bytes) -> tuple[bytes, bytes]:
    name, value = _encode(name), _encode(value).strip(b" \t")
    if _is_name(name) is None:
        raise LocalProtocolError(f"not a header name: {name!r}")
    if _is_value(value) is None:
        raise LocalProtocolError(f"a control character in the value of {name.decode('ascii')}: {value!r}")
    return name.lower(), value


def _encode(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise LocalProtocolError(f"a header holds ISO 8859-1 alone, not {text!r}") from None


class _NoBody:
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration


_NO_BODY = _NoBody()

_split_absolute = re.compile(r"[a-zA-Z]+://([^/?]*)(.*)", re.DOTALL).fullmatch


class Request:
    """A request, its body still to come.

    `target` is as it was sent. `raw_path` is percent-encoded as sent, `path` decoded once ("*" for `OPTIONS *`, the
    authority for CONNECT); bytes that are no UTF-8 are surrogates in it (PEP 383). `query` is what followed the "?",
    undecoded. `mounted_at` is what `Mounts` has taken off the front of `raw_path`, "" at the top.
    """

    __slots__ = (
        "_exchange",
        "_peer",
        "_tls",
        "body",
        "headers",
        "http_version",
        "method",
        "mounted_at",
        "query",
        "raw_path",
        "target",
    )

    def __init__(
        self,
        method: str,
        target: str,
        headers: Headers,
        *,
        http_version: str = "1.1",
        peer: Address | None = None,
        tls: TLSInfo | None = None,
        body: AsyncIterable[bytes] | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        self._exchange = exchange
        self._peer = peer
        self._tls = tls
        self.method = method
        self.target = target
        self.headers = headers
        self.http_version = http_version
        self.body: AsyncIterable[bytes] = _NO_BODY if body is None else body
        self.mounted_at = ""
        if target[:1] == "/":
            self.raw_path, _, self.query = target.partition("?")
        elif absolute := _split_absolute(target):
            path, _, self.query = absolute[2].partition("?")
            self.raw_path = path or "/"
        else:
            self.raw_path, self.query = target, ""

    @property
    def host(self) -> str:
        """The authority in the target, or the Host field (RFC 9112 section 3.3), or "" where neither is."""
        absolute = None if self.target[:1] == "/" else _split_absolute(self.target)
        return absolute[1] if absolute else self.headers.get("host", "")

    @property
    def peer(self) -> Address | None:
        """The client's end of the connection."""
        return self._peer if self._exchange is None else self._exchange.stream.peer

    @property
    def tls(self) -> TLSInfo | None:
        """What the connection's TLS handshake settled; None in the clear."""
        return self._tls if self._exchange is None else self._exchange.stream.tls

    @property
    def path(self) -> str:
        """The path, percent-decoded once. A "%2F" has become "/": who maps paths to files, uses `raw_path`."""
        return unquote_to_bytes(self.raw_path).decode("utf-8", "surrogateescape")

    async def read(self, *, limit: int = 1 << 20) -> bytes:
        """The whole body, or what is left of it, in memory: `limit` bytes at most.

        Raises `RequestError` for more, which the server answers by 413 if the application lets it pass.
        """
        data = bytearray()  # no list of pieces, which of two bytes each would hold thirty times as much
        async for piece in self.body:
            if len(data) + len(piece) > limit:
                raise RequestError(413, f"a body of more than {limit} bytes")
            data += piece
        return bytes(data)

    @property
    def user(self) -> str | None:
        """Who the client has proved to be, as `BasicAuth` found."""
        return None if self._exchange is None else self._exchange.user

    @property
    def local(self) -> Address | None:
        """This end of the connection; None for a request that came over none."""
        return None if self._exchange is None else self._exchange.stream.local

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that the client sent, by name: see `read_cookies`."""
        from asyncnet.http.cookies import read_cookies

        return read_cookies(self.headers)

    @property
    def trailers(self) -> Headers:
        """The fields behind a chunked body, once it has been read to its end (RFC 9110 section 6.5)."""
        body = None if self._exchange is None else self._exchange.body
        return Headers.checked([] if body is None else list(body.trailers))

    async def inform(self, status: int, headers: HeaderItems = ()) -> None:
        """Send an interim response before the final one: 103 with Link fields for early hints (RFC 8297).

        Raises LocalProtocolError for a status that is none of these, or once the final response has begun.
        """
        if self._exchange is not None:
            await self._exchange.inform(status, Headers(headers).raw)

    async def wait_gone(self) -> None:
        """Wait until the client has gone or has ended its side: for applications that wait long for something else.

        The body has to be read before. Of what the client sends meanwhile little is taken in.
        """
        if self._exchange is not None:
            await self._exchange.wait_gone()

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target} HTTP/{self.http_version} from {self.peer}>"


@dataclass(frozen=True, slots=True)
class FileBody:
    """`count` bytes of a regular file from `offset` on. As a whole body the response owns it: the server closes it.

    Among the pieces of a stream, whoever yields it closes it.
    """

    file: BinaryIO
    offset: int
    count: int


Body: TypeAlias = bytes | AsyncIterable[bytes | FileBody] | FileBody


class Response:
    """An answer: status, headers and a body.

    The body is bytes, `str` (sent as UTF-8), an async iterable of bytes, or a `FileBody`. Its length and `Date` are
    added to the headers. A stream of unknown length goes out in chunks; its head leaves with its first piece, until
    which an exception still becomes a 500; an empty piece sends the head at once. `trailers`, which may be set and
    filled until the body has ended, leave behind a body in chunks (RFC 9110 section 6.5).
    """

    __slots__ = ("body", "headers", "status", "trailers")

    def __init__(self, status: int = 200, headers: Headers | HeaderItems = (), body: str | Body = b"") -> None:
        if not 200 <= status <= 599:
            raise LocalProtocolError(f"not the status of a final response: {status}")
        self.status = int(status)
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        if isinstance(body, str):
            body = body.encode()
        if not isinstance(body, (bytes, FileBody, AsyncIterable)):
            raise TypeError(f"not a body: {body!r}")
        self.body: Body = body
        self.trailers: Headers | None = None

    @classmethod
    def text(cls, text: str, status: int = 200, headers: Headers | HeaderItems = ()) -> Response:
        """Plain text."""
        return cls(status, _with_type(headers, b"text/plain; charset=utf-8"), text)

    @classmethod
    def html(cls, text: str, status: int = 200, headers: Headers | HeaderItems = ()) -> Response:
        """A page. Whoever puts foreign text into it escapes it first (`html.escape`)."""
        return cls(status, _with_type(headers, b"text/html; charset=utf-8"), text)

    @classmethod
    def json(cls, value: object, status: int = 200, headers: Headers | HeaderItems = ()) -> Response:
        """`value` as JSON (RFC 8259)."""
        return cls(status, _with_type(headers, b"application/json"), json.dumps(value, ensure_ascii=False))

    @classmethod
    def redirect(cls, location: str, status: int = 307, headers: Headers | HeaderItems = ()) -> Response:
        """Send the client elsewhere: 307 and 308 keep the method, 303 makes it GET (RFC 9110 section 15.4)."""
        response = cls.problem(status, headers)
        response.headers["location"] = location
        return response

    @classmethod
    def problem(cls, status: int, headers: Headers | HeaderItems = ()) -> Response:
        """The status in words, as plain text: for errors, and where nobody reads the body."""
        return cls.text(f"{status} {reason(status)}\n", status, headers)

    def close(self) -> None:
        """Close what the body holds open. The server does it, sent or not; closing twice is fine."""
        if isinstance(self.body, FileBody):
            self.body.file.close()

    def __repr__(self) -> str:
        return f"<Response {self.status} {reason(self.status)}>"


def _with_type(headers: Headers | HeaderItems, content_type: bytes) -> Headers:
    """`headers`, and a Content-Type unless there is one."""
    if headers == ():
        return Headers.checked([(b"content-type", content_type)])
    if not isinstance(headers, Headers):
        headers = Headers(headers)
    headers.setdefault("content-type", content_type)
    return headers


class Upgrade(Response):
    """101 Switching Protocols (RFC 9110 section 7.8): the connection is `handler`'s once the head has left.

    `protocol` is what goes into the Upgrade field, `handler` is called with the connection's stream in the task of
    the connection; bytes that the client sent behind its request are in the stream's buffer. When `handler` returns,
    the stream is closed.
    """

    __slots__ = ("handler",)

    def __init__(
        self, protocol: str, handler: Callable[[Stream], Awaitable[object]], headers: Headers | HeaderItems = ()
    ) -> None:
        super().__init__(200, headers)
        self.status = 101
        self.headers["connection"] = "upgrade"
        self.headers["upgrade"] = protocol
        self.handler = handler
