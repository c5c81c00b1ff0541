"""The strict check of an HTTP/1.1 request's framing, and the decoders of its body (RFC 9112, RFC 9110 section 5).

Request smuggling lives on two parsers that read one message differently. So whatever parser an engine wraps, it is
given a head only after `HeadReader` has accepted every byte of it, and it never sees a body: `LengthDecoder` and
`ChunkedDecoder` frame those for all engines alike. What RFC 9112 lets a recipient forgive (bare LF, obs-fold, odd
whitespace, lists of lengths) is refused here, and the connection closes.

The verdict does not depend on how the bytes were cut: a head is checked line by line as it arrives, and a head that
arrives whole is checked by one regular expression built from the same pieces. Used by `http.connection`; what leaves is
framed in `http.framing`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn, Protocol

from asyncnet.errors import RemoteProtocolError
from asyncnet.http.limits import HTTPLimits

CRLF = b"\r\n"
MAX_LENGTH = (1 << 63) - 1


class RequestError(RemoteProtocolError):
    """The request cannot be served. `status` is what to answer with; the message is for the log and the answer."""

    def __init__(self, status: int, problem: str) -> None:
        self.status = status
        super().__init__(problem)


class Head(NamedTuple):
    """A head that passed: from the request line through the blank line, and how its body is framed."""

    raw: bytes
    length: int | None
    """The body's length in bytes; None for a chunked body."""


# RFC 9110 section 5.6.2: token = 1*tchar
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# RFC 9110 section 5.5: field-vchar and the blanks between them; no control but HTAB.
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"
# RFC 9112 section 5: no space before the colon. A folded line (obs-fold) begins with a blank, which is no token.
_FIELD = _TOKEN + rb":" + _VALUE + rb"\r\n"

# RFC 3986 section 3.3, and the [ ] | ^ that browsers leave in a path (URL Standard, path percent-encode set).
_PATH = rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/\[\]|^]++|%[0-9A-Fa-f]{2})*+"
# The URL Standard's query percent-encode set leaves every visible character but " # < >.
_QUERY = rb"(?:\?[!$-;=?-~]*+)?"
# RFC 3986 section 3.2.2, without the sub-delimiters and escapes of reg-name: no host has them, and a comma is the
# mark of two Host fields joined into one.
_HOST = rb"(?:[A-Za-z0-9\-._~]++|\[[0-9A-Fa-f:.]++\])"
# RFC 9112 section 3.2: origin-form, absolute-form, authority-form, asterisk-form.
_RESOURCES = (
    rb"(?!CONNECT )[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}+ (?:/" + _PATH + _QUERY + rb"|"
    rb"(?i:https?)://" + _HOST + rb"(?::[0-9]{0,5})?(?:/" + _PATH + rb")?" + _QUERY + rb")"
)  # fmt: skip
_TARGETS = rb"(?:" + _RESOURCES + rb"|CONNECT " + _HOST + rb":[0-9]{1,5}|OPTIONS \*)"
_REQUEST_LINE = _TARGETS + rb" HTTP/1\.[01]\r\n"

# A head that says nothing but what to do with which resource: HTTP/1.1, one well-formed Host, no body, no expectation,
# no upgrade, no word about the connection but keep-alive. Nearly all heads are of this kind, and need no second look.
_ORDINARY = (
    rb"(?:(?!(?i:host|content-length|transfer-encoding|expect|upgrade:|connection:(?![ \t]*keep-alive[ \t]*\r)))"
    + _FIELD
    + rb")*+"
)
_match_ordinary_head = re.compile(
    _RESOURCES
    + rb" HTTP/1\.1\r\n"
    + _ORDINARY
    + rb"(?i:host):[ \t]*+"
    + _HOST
    + rb"(?::[0-9]{0,5})?[ \t]*+\r\n"
    + _ORDINARY
    + rb"\r\n"
).match

_is_request_line = re.compile(_REQUEST_LINE).fullmatch
_is_field = re.compile(_FIELD).fullmatch
_is_head = re.compile(_REQUEST_LINE + rb"(?:" + _FIELD + rb")*+\r\n").fullmatch
_is_version = re.compile(rb"[^ ]+ [^ ]+ HTTP/[0-9]\.[0-9]\r\n").fullmatch
_is_long_method = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{33}").match
# What no line may hold, whatever comes later: so a TLS handshake on a plain port is answered at its first bytes.
_find_control = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)").search

# These look into a head in small letters, where every line end is a CRLF.
_find_host = re.compile(rb"\r\nhost:[ \t]*" + _HOST + rb"(?::[0-9]{0,5})?[ \t]*\r\n").search
_find_codings = re.compile(rb"\r\ntransfer-encoding:([^\r]*)").findall
_find_lengths = re.compile(rb"\r\ncontent-length:([^\r]*)").findall
_is_length = re.compile(rb"[0-9]{1,19}").fullmatch
_is_token = re.compile(_TOKEN).fullmatch


def ordinary_head(data: bytes, limits: HTTPLimits) -> int:
    """Where the head at the start of `data` ends, if it is whole and an ordinary one, without a body; else 0.

    0 says nothing about the request: `HeadReader` finds out.
    """
    match = _match_ordinary_head(data)
    if match is None:
        return 0
    end = match.end()
    if end > limits.head or (end > limits.request_line and data.find(CRLF) + 2 > limits.request_line):
        return 0
    if end > 4 * limits.fields and data.count(CRLF, 0, end) - 2 > limits.fields:  # no line is shorter than 4 bytes
        return 0
    return end


class HeadReader:
    """Collects one request's head and checks it, byte for byte. Make a new one for the next request."""

    __slots__ = ("_buffer", "_fields", "_limits", "_line", "_scanned", "_start")

    def __init__(self, limits: HTTPLimits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._start: int | None = None  # where the request line begins, once a line has been seen whole
        self._line = 0  # where the line begins that has not ended yet
        self._scanned = 0  # up to where that line holds no LF
        self._fields = 0

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """Take what arrived. The head and what lies behind it, or None while more is needed.

        Raises RequestError; the connection's framing is lost then.
        """
        if not self._buffer:
            # One empty line before the request line is forgiven (RFC 9112 section 2.2).
            start = 2 if data.startswith(CRLF) else 0
            end = data.find(b"\r\n\r\n", start) + 4
            if end > 3 and self._is_plain(data, start, end):
                return _judge(data[start:end]), data[end:]
        self._buffer += data
        end = self._check_lines()
        if end < 0:
            return None
        return _judge(bytes(self._buffer[self._start : end])), bytes(self._buffer[end:])

    def _is_plain(self, data: bytes, start: int, end: int) -> bool:
        """The quick answer for a head that arrived whole; where it says no, the slow way finds out why."""
        limits = self._limits
        if end > limits.head:
            return False
        if end > limits.request_line and data.find(CRLF, start) + 2 - start > limits.request_line:
            return False
        return data.count(CRLF, start, end) - 2 <= limits.fields and _is_head(data, start, end) is not None

    def _check_lines(self) -> int:
        """Check the lines that have come in. The place where the head ends, or -1."""
        buffer = self._buffer
        while (end := buffer.find(b"\n", self._scanned) + 1) > 0:
            line = self._line
            self._line = self._scanned = end
            self._check_length(line, end, line)
            if end - line == 2 and buffer[line] == 0x0D:
                if self._start is not None:
                    return end
                if line > 0:
                    raise RequestError(400, "more than one empty line before the request line")
                continue
            if self._start is None:
                self._start = line
                _check_request_line(bytes(buffer[line:end]))
            else:
                self._check_field(bytes(buffer[line:end]))
        self._check_length(self._line, len(buffer), max(self._line, self._scanned - 1))
        self._scanned = len(buffer)
        return -1

    def _check_length(self, line: int, end: int, unsearched: int) -> None:
        """Controls first, up to the limit, then the limit: the same verdict however the line was cut."""
        limit = self._limits.head
        if self._start is None:
            limit = min(limit, line + self._limits.request_line)
        if found := _find_control(self._buffer, unsearched, min(end, limit)):
            raise RequestError(400, f"a control character in the head: {found.group()!r}")
        if end > limit:
            raise RequestError(414 if self._start is None else 431, f"more than {limit} bytes of head")

    def _check_field(self, line: bytes) -> None:
        self._fields += 1
        if self._fields > self._limits.fields:
            raise RequestError(431, f"more than {self._limits.fields} header lines")
        if _is_field(line) is None:
            _refuse_field(line)


def _check_request_line(line: bytes) -> None:
    if _is_request_line(line) is not None:
        return
    if not line.endswith(CRLF):
        raise RequestError(400, "the request line ends in a bare LF")
    if _is_long_method(line) is not None:
        raise RequestError(501, "a method of more than 32 characters")
    if _is_version(line) is not None and line[-5:-2] not in (b"1.0", b"1.1"):
        raise RequestError(505, f"version {line[-10:-2].decode('latin-1')}")
    raise RequestError(400, "malformed request line")


def _refuse_field(line: bytes) -> NoReturn:
    if not line.endswith(CRLF):
        raise RequestError(400, "a header line ends in a bare LF")
    if line[:1] in (b" ", b"\t"):
        raise RequestError(400, "a folded header line")
    raise RequestError(400, "malformed header line")


def _judge(raw: bytes) -> Head:
    """What the lines say together: Host (RFC 9112 section 3.2) and the body's framing (section 6)."""
    small = raw.lower()
    is_1_0 = small[small.find(CRLF) - 1] == 0x30
    hosts = small.count(b"\r\nhost:")
    if hosts > 1 or (hosts == 0 and not is_1_0):
        raise RequestError(400, f"{hosts} Host fields")
    if hosts and _find_host(small) is None:
        raise RequestError(400, "malformed Host")
    is_chunked = b"\r\ntransfer-encoding:" in small
    has_length = b"\r\ncontent-length:" in small
    if not is_chunked and not has_length:
        return Head(raw, 0)
    if is_chunked and has_length:
        raise RequestError(400, "both Content-Length and Transfer-Encoding")
    if is_chunked:
        _check_codings(_find_codings(small), is_1_0)
        return Head(raw, None)
    return Head(raw, _length(_find_lengths(small)))


def _check_codings(values: list[bytes], is_1_0: bool) -> None:
    """RFC 9112 sections 6.1 and 7: `chunked`, once, is the only coding there is here."""
    value = values[0].strip(b" \t")
    if is_1_0:
        raise RequestError(400, "Transfer-Encoding in HTTP/1.0")
    if len(values) > 1:
        raise RequestError(400, "more than one Transfer-Encoding field")
    if value == b"chunked":
        return
    *others, last = [coding.strip(b" \t") for coding in value.split(b",")]
    if others and last == b"chunked" and last not in others and all(map(_is_token, others)):
        raise RequestError(501, "a transfer coding besides chunked")  # honest about a coding that we do not have
    raise RequestError(400, "a malformed Transfer-Encoding")


def _length(values: list[bytes]) -> int:
    """RFC 9112 section 6.3: one field, digits alone."""
    if len(values) > 1:
        raise RequestError(400, "more than one Content-Length field")
    value = values[0].strip(b" \t")
    if _is_length(value) is None or int(value) > MAX_LENGTH:
        raise RequestError(400, "malformed Content-Length")
    return int(value)


class BodyDecoder(Protocol):
    """Takes the framing off a request's body."""

    ended: bool
    """Whether the whole body, with its trailers, has been taken."""

    @property
    def trailers(self) -> Sequence[tuple[bytes, bytes]]:
        """The fields behind a chunked body, names in small letters, once it has ended."""

    @property
    def remaining(self) -> int | None:
        """How many bytes of content are still to come; None where nobody knows."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take what arrived: the content in it, and what lies behind the body. Raises RequestError."""


def body_decoder(head: Head, limits: HTTPLimits) -> BodyDecoder:
    """The decoder for the body that `head` announces. Raises RequestError(413) when it is announced too large."""
    if head.length is None:
        return ChunkedDecoder(limits)
    if head.length > limits.body:
        raise RequestError(413, f"a body of {head.length} bytes")
    return LengthDecoder(head.length)


class LengthDecoder:
    """A body of a known length (RFC 9112 section 6.2)."""

    __slots__ = ("ended", "remaining")
    trailers: Sequence[tuple[bytes, bytes]] = ()

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.ended = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        content = data[: self.remaining]
        self.remaining -= len(content)
        self.ended = self.remaining == 0
        return content, data[len(content) :]


# RFC 9112 section 7.1.1, without the "bad whitespace" that it tells recipients to expect: nobody sends it honestly.
_QUOTED = rb"\"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+\""
_is_chunk_line = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*+)\r\n"
).fullmatch
_match_plain_size = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n").match
# RFC 9110 section 6.5.1: framing, routing, modifiers, authentication and content format have no place behind a body.
is_forbidden_trailer = re.compile(
    rb"(?i:transfer-encoding|content-(?:length|encoding|type|range|language|location)|host|trailer|te|connection|"
    rb"keep-alive|upgrade|expect|max-forwards|cache-control|pragma|range|if-[a-z-]+|authorization|"
    rb"proxy-[a-z-]+|www-authenticate|cookie|set-cookie|age|date|expires|location|retry-after|vary|warning):"
).match


class _Expects(enum.Enum):
    SIZE = enum.auto()
    CHUNK_END = enum.auto()
    TRAILER = enum.auto()


class ChunkedDecoder:
    """A body in chunks (RFC 9112 section 7.1). Extensions are checked and dropped, trailers checked and kept.

    What was fed and neither returned nor finished is at most one line, and that is bounded.
    """

    __slots__ = ("_chunk", "_expects", "_extensions", "_held", "_limits", "_total", "_trailers", "ended", "trailers")
    remaining = None

    def __init__(self, limits: HTTPLimits) -> None:
        self._limits = limits
        self._held = b""  # an item that has not arrived whole
        self._expects = _Expects.SIZE
        self._chunk = 0  # what is missing of the chunk at hand
        self._total = 0
        self._extensions = 0
        self._trailers = 0
        self.trailers: list[tuple[bytes, bytes]] = []
        self.ended = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.ended:
            if self._expects is _Expects.SIZE:
                at = self._whole_chunks(data, at, pieces)
            if self._chunk:
                piece = data[at : at + self._chunk]
                self._chunk -= len(piece)
                at += len(piece)
                pieces.append(piece)
                continue
            match self._expects:
                case _Expects.SIZE:
                    taken = self._size_line(data, at)
                case _Expects.CHUNK_END:
                    taken = self._chunk_end(data, at)
                case _Expects.TRAILER:
                    taken = self._trailer_line(data, at)
            if not taken:
                self._held = data[at:]
                return b"".join(pieces), b""
            at += taken
        return b"".join(pieces), data[at:]

    def _whole_chunks(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Take chunks from `at` on as long as each is there to its end and says nothing beside its size.

        That is what nearly all are: without the steps below, a body in small chunks costs a third. Whatever is not so
        is left to them. Returns where the first such chunk begins.
        """
        left = self._limits.body - self._total
        while (line := _match_plain_size(data, at)) is not None:
            size = int(line[1], 16)
            begin = line.end()
            end = begin + size
            if not size or size > left or data[end : end + 2] != CRLF:
                break
            pieces.append(data[begin:end])
            left -= size
            at = end + 2
        self._total = self._limits.body - left
        return at

    def _size_line(self, data: bytes, at: int) -> int:
        line = self._line(data, at, self._limits.chunk_line, 400, "a chunk-size line")
        if not line:
            return 0
        match = _is_chunk_line(line)
        if match is None:
            raise RequestError(400, "malformed chunk-size line")
        self._extensions += len(match[2])
        if self._extensions > self._limits.chunk_extensions:
            raise RequestError(400, f"more than {self._limits.chunk_extensions} bytes of chunk extensions")
        self._chunk = int(match[1], 16)
        self._total += self._chunk
        if self._total > MAX_LENGTH:
            raise RequestError(400, "a chunk larger than any number we know")
        if self._total > self._limits.body:
            raise RequestError(413, f"a body of more than {self._limits.body} bytes")
        self._expects = _Expects.CHUNK_END if self._chunk else _Expects.TRAILER
        return len(line)

    def _chunk_end(self, data: bytes, at: int) -> int:
        end = data[at : at + 2]
        if not CRLF.startswith(end):
            raise RequestError(400, "a chunk does not end with CRLF")
        if len(end) < 2:
            return 0
        self._expects = _Expects.SIZE
        return 2

    def _trailer_line(self, data: bytes, at: int) -> int:
        line = self._line(data, at, self._limits.trailers - self._trailers, 431, "a trailer section")
        self._trailers += len(line)
        if line == CRLF:
            self.ended = True
        elif line:
            if len(self.trailers) >= self._limits.fields:
                raise RequestError(431, f"more than {self._limits.fields} trailer lines")
            if _is_field(line) is None:
                _refuse_field(line)
            if is_forbidden_trailer(line) is not None:
                raise RequestError(400, "a field that is forbidden in trailers")
            name, _, value = line.partition(b":")
            self.trailers.append((name.lower(), value.strip(b" \t\r\n")))
        return len(line)

    def _line(self, data: bytes, at: int, limit: int, status: int, what: str) -> bytes:
        """The line at `at` with its LF, or nothing while it has not ended."""
        end = data.find(b"\n", at, at + limit) + 1
        if not end:
            if len(data) - at >= limit:
                raise RequestError(status, f"{what} of more than {limit} bytes")
            return b""
        return data[at:end]
