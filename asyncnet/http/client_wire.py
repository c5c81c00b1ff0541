"""HTTP/1.1 on the client's side, without I/O: requests are written, responses read and framed (RFC 9112).

Theory of operation
===================

A client that reads a response differently from the proxy before it takes a part of one answer for the next: an
attacker who can make a server send odd bytes answers other people's requests. A server can refuse whatever is odd; a
client that did so would lose pages that every browser shows. So there are two readers of a head:

- An ordinary head, every byte of it as RFC 9112 wants it, is accepted by one regular expression and then split.
- Every other head goes to h11, which forgives what real servers do: bare LF, folded lines, blanks. What h11 does not
  forgive is `ResponseError`. A connection that has shown such a head is never used again: `is_plain` is False.

How long the body is, is decided here for both (`read_framing`), and so is whether the connection may carry another
request. It may only if all was plain: HTTP/1.1, at most one Content-Length or one `chunked`, no word of closing. What
comes behind a response's end before a request was sent is nobody's answer; the pool closes such a connection.

Used by `http.client`.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple, Protocol

import h11

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.http.client_limits import ClientLimits
from asyncnet.http.messages import Headers
from asyncnet.printable import printable

MAX_LENGTH = (1 << 63) - 1


class ResponseError(RemoteProtocolError):
    """The response breaks the rules of HTTP, or exceeds a limit. Its connection is closed."""


# Requests

_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_is_target = re.compile(r"[\x21-\x7e]+").fullmatch


def request_head(method: str, target: str, fields: list[tuple[bytes, bytes]]) -> bytes:
    """The bytes of a request's head; `fields` are the `raw` ones of `Headers`, which has checked them.

    Raises LocalProtocolError for a method that is no token and a target with blanks, controls or beyond ASCII.
    """
    if _is_token(method) is None:
        raise LocalProtocolError(f"not a method: {method!a}")
    if _is_target(target) is None:
        raise LocalProtocolError(f"not a request target: {target!a}")
    lines = [b"%b: %b\r\n" % field for field in fields]
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method.encode(), target.encode(), b"".join(lines))


# Heads of responses


class ResponseHead(NamedTuple):
    """A response without its body."""

    status: int
    reason: str
    http_version: str
    headers: Headers
    is_plain: bool
    """Whether every byte of it was as RFC 9112 wants it."""


# RFC 9112 section 4: status-line = HTTP-version SP status-code SP [ reason-phrase ]. The second SP is often missing.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"
_is_plain_head = re.compile(
    rb"HTTP/1\.[01] [1-5][0-9]{2}(?: " + _VALUE + rb")?\r\n(?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*+\r\n"
).fullmatch
_find_end = re.compile(rb"\n\r?\n").search
_BEGINNING = b"HTTP/1."


class ResponseReader:
    """Collects one head and reads it. Make a new one for the next, `without_shortcut` to read all of them by h11."""

    __slots__ = ("_buffer", "_limits", "_searched", "_shortcut")

    def __init__(self, limits: ClientLimits, *, without_shortcut: bool = False) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._searched = 0
        self._shortcut = not without_shortcut

    def feed(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """Take what arrived: a head and what lies behind it, or None while more is needed. Raises ResponseError."""
        limits = self._limits
        if not self._buffer:
            end = data.find(b"\r\n\r\n") + 4
            if 4 <= end <= limits.head and self._shortcut and _is_plain_head(data, 0, end) is not None:
                return _split(data, end, limits), data[end:]
        buffer = self._buffer
        buffer += data
        beginning = bytes(buffer[: len(_BEGINNING)])
        if not _BEGINNING.startswith(beginning) and buffer:
            shown = printable(bytes(buffer[:40]).decode("latin-1"))
            raise ResponseError(f"this is no HTTP/1 server: it answered {shown!r}")
        found = _find_end(buffer, max(0, self._searched - 2), limits.head)
        self._searched = len(buffer)
        if found is None:
            if len(buffer) >= limits.head:
                raise ResponseError(f"a response head of more than {limits.head} bytes")
            return None
        raw, rest = bytes(buffer[: found.end()]), bytes(buffer[found.end() :])
        is_plain = _is_plain_head(raw) is not None
        if is_plain and self._shortcut:
            return _split(raw, len(raw), limits), rest
        return _read_by_h11(raw, is_plain, limits), rest


def _split(data: bytes, end: int, limits: ClientLimits) -> ResponseHead:
    """The parts of a plain head."""
    first, *lines = data[: end - 4].split(b"\r\n")
    if len(lines) > limits.fields:
        raise ResponseError(f"more than {limits.fields} header lines")
    fields = []
    for line in lines:
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip(b" \t")))
    return ResponseHead(
        int(first[9:12]), first[13:].decode("latin-1"), first[5:8].decode(), Headers.checked(fields), True
    )


def _read_by_h11(raw: bytes, is_plain: bool, limits: ClientLimits) -> ResponseHead:
    if raw.count(b"\n") - 2 > limits.fields:
        raise ResponseError(f"more than {limits.fields} header lines")
    parser = h11.Connection(h11.CLIENT, limits.head)
    # The method matters for the body alone, which h11 never sees; the Upgrade is for it to let a 101 pass.
    parser.send(h11.Request(method="GET", target="/", headers=[("host", "-"), ("upgrade", "-")]))
    try:
        parser.receive_data(raw)
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise ResponseError(str(error)[:200]) from None  # it quotes the whole line
    if not isinstance(event, (h11.Response, h11.InformationalResponse)):
        raise ResponseError("the head of the response cannot be read")
    return ResponseHead(
        event.status_code,
        event.reason.decode("latin-1"),
        event.http_version.decode(),
        Headers.checked(list(event.headers)),
        is_plain,
    )


# Bodies


class BodyReader(Protocol):
    """Takes the framing off a body."""

    ended: bool
    """Whether the whole body, with its trailers, has been taken."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take what arrived: the content in it, and what lies behind the body. Raises ResponseError."""

    def feed_eof(self) -> None:
        """The connection has ended. Raises ResponseError if the body has not."""


class Framing(NamedTuple):
    """How the body of a response is read, and whether its connection may carry another request afterwards."""

    body: BodyReader
    is_reusable: bool


def read_framing(head: ResponseHead, method: str, limits: ClientLimits) -> Framing:
    """How long the body is, by RFC 9112 section 6.3. Raises ResponseError where nobody can know."""
    codings: list[bytes] = []
    lengths: list[bytes] = []
    is_reusable = head.is_plain and head.http_version == "1.1"
    for name, value in head.headers.raw:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"connection" and is_reusable:
            is_reusable = b"close" not in [option.strip(b" \t") for option in value.lower().split(b",")]
    if method == "HEAD" or head.status in (204, 304) or head.status < 200:
        return Framing(LengthReader(0), is_reusable)
    if codings:
        if b",".join(codings).strip(b" \t").lower() != b"chunked":
            shown = printable(b", ".join(codings).decode("latin-1"))
            raise ResponseError(f"a transfer coding that nobody asked for: {shown[:100]!r}")
        # With a length beside it, or in HTTP/1.0, somebody on the way may have understood another thing.
        return Framing(ChunkedReader(limits), is_reusable and not lengths)
    if not lengths:
        return Framing(UntilEndReader(), False)
    if len(lengths) == 1 and _is_length(lengths[0]) is not None:
        return Framing(LengthReader(_length(lengths[0])), is_reusable)
    # The same number several times is forgiven, and remembered.
    values = {value.strip(b" \t") for field in lengths for value in field.split(b",")}
    if len(values) != 1:
        raise ResponseError("several Content-Lengths that differ")
    return Framing(LengthReader(_length(values.pop())), False)


_is_length = re.compile(rb"[0-9]{1,19}").fullmatch


def _length(value: bytes) -> int:
    if _is_length(value) is None or int(value) > MAX_LENGTH:
        raise ResponseError(f"a malformed Content-Length: {printable(value.decode('latin-1'))[:100]!r}")
    return int(value)


class LengthReader:
    """A body of a known length."""

    __slots__ = ("ended", "remaining")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.ended = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        if len(data) <= self.remaining:
            self.remaining -= len(data)
            self.ended = self.remaining == 0
            return data, b""
        content, rest = data[: self.remaining], data[self.remaining :]
        self.remaining = 0
        self.ended = True
        return content, rest

    def feed_eof(self) -> None:
        if not self.ended:
            raise ResponseError(f"the connection ended {self.remaining} bytes before the end of the response")


class UntilEndReader:
    """A body that ends with its connection: nobody can tell whether it is whole."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        self.ended = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        return data, b""

    def feed_eof(self) -> None:
        self.ended = True


class _Expects(enum.Enum):
    SIZE = enum.auto()
    DATA_END = enum.auto()
    TRAILER = enum.auto()


# RFC 9112 section 7.1; blanks behind the size are what old servers pad it with: a few, since nothing counts them.
_is_chunk_line = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]{0,16}+(;[\t\x20-\x7e\x80-\xff]*+)?\r\n").fullmatch
_is_field = re.compile(rb"(" + _TOKEN + rb"):(" + _VALUE + rb")\r\n").fullmatch


class ChunkedReader:
    """A body in chunks (RFC 9112 section 7.1). Extensions are checked and dropped; trailers are kept apart."""

    __slots__ = ("_chunk", "_expects", "_extensions", "_held", "_limits", "_trailer_bytes", "ended", "trailers")

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._held = b""  # a line that has not arrived whole
        self._expects = _Expects.SIZE
        self._chunk = 0  # what is missing of the chunk at hand
        self._extensions = 0
        self._trailer_bytes = 0
        self.ended = False
        self.trailers: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        at, size = 0, len(data)
        while at < size and not self.ended:
            if self._chunk:
                piece = data[at : at + self._chunk]
                self._chunk -= len(piece)
                at += len(piece)
                pieces.append(piece)
                continue
            match self._expects:
                case _Expects.SIZE:
                    taken = self._size_line(data, at)
                case _Expects.DATA_END:
                    taken = self._data_end(data, at)
                case _Expects.TRAILER:
                    taken = self._trailer_line(data, at)
            if not taken:
                self._held = data[at:]
                return b"".join(pieces), b""
            at += taken
        return b"".join(pieces), data[at:]

    def feed_eof(self) -> None:
        if not self.ended:
            raise ResponseError("the connection ended before the last chunk of the response")

    def _size_line(self, data: bytes, at: int) -> int:
        line = self._line(data, at, self._limits.chunk_line, "a chunk-size line")
        if not line:
            return 0
        match = _is_chunk_line(line)
        if match is None:
            raise ResponseError("a malformed chunk-size line")
        if match[2]:
            self._extensions += len(match[2])
            if self._extensions > self._limits.chunk_extensions:
                raise ResponseError(f"more than {self._limits.chunk_extensions} bytes of chunk extensions")
        self._chunk = int(match[1], 16)
        if self._chunk > MAX_LENGTH:
            raise ResponseError("a chunk larger than any number we know")
        self._expects = _Expects.DATA_END if self._chunk else _Expects.TRAILER
        return len(line)

    def _data_end(self, data: bytes, at: int) -> int:
        end = data[at : at + 2]
        if not b"\r\n".startswith(end):
            raise ResponseError("a chunk does not end with CRLF")
        if len(end) < 2:
            return 0
        self._expects = _Expects.SIZE
        return 2

    def _trailer_line(self, data: bytes, at: int) -> int:
        line = self._line(data, at, self._limits.trailers - self._trailer_bytes, "a trailer section")
        self._trailer_bytes += len(line)
        if line == b"\r\n":
            self.ended = True
        elif line:
            match = _is_field(line)
            if match is None:
                raise ResponseError("a malformed trailer line")
            if len(self.trailers) >= self._limits.fields:
                raise ResponseError(f"more than {self._limits.fields} trailer lines")
            self.trailers.append((match[1].lower(), match[2].strip(b" \t")))
        return len(line)

    def _line(self, data: bytes, at: int, limit: int, what: str) -> bytes:
        """The line at `at` with its LF, or nothing while it has not ended."""
        end = data.find(b"\n", at, at + max(limit, 0)) + 1
        if not end:
            if len(data) - at >= limit:
                raise ResponseError(f"{what} that is too long")
            return b""
        return data[at:end]
