"""multipart/form-data on its way in, without I/O: bytes go in, parts come out (RFC 7578, RFC 2046 section 5.1).

python-multipart finds the boundaries; what it leaves open is decided here. Used by `http.forms`.

- It skips what stands before the first boundary, or does not, as the pieces fall: here nothing may, except line ends.
- It takes header lines as they come: here they are those of RFC 9110, and are counted.
- It does not say that the last boundary never came: `end` does.
- It logs what is wrong with a form as a warning: here it is a `RequestError`, of which one is logged at most.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from asyncnet.errors import ConfigurationError
from asyncnet.http.wire import RequestError

if TYPE_CHECKING:
    from asyncnet.http.forms import FormLimits

# RFC 2046 section 5.1.1: boundary := 0*69<bchars> bcharsnospace
is_boundary = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]").fullmatch

_is_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch

# RFC 9110 sections 5.6.2, 5.6.4 and 5.6.6, over text of UTF-8: parameters = *( OWS ";" OWS [ parameter ] )
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = rf'[ \t]*;[ \t]*(?:({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\]|\\.)*+)"))?'
_find_parameter = re.compile(_PARAMETER, re.DOTALL).match
_find_kind = re.compile(rf"[ \t]*({_TOKEN}(?:/{_TOKEN})?)").match
# Browsers write %22 for a quotation mark (WHATWG HTML, section 4.10.22.8), others \"; a backslash before anything else
# is a backslash, for the sake of those that send names of Windows as they are.
_unescape = re.compile(r'\\(["\\])').sub

_silent = logging.Logger("python_multipart", logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class PartBegin:
    """The head of a part. `filename` is None for a field that is no file; both names are as they were sent."""

    name: str
    filename: str | None
    content_type: str


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The end of the part that began last."""


Event: TypeAlias = "PartBegin | bytes | PartEnd"


class MultipartDecoder:
    """Takes a form apart: `feed` it in pieces as they come, then call `end`.

    The same form gives the same parts however it is cut, or is refused however it is cut. Between calls it holds one
    part's head at most, and that is bounded. Raises RequestError(400) for what is malformed, RequestError(413) for
    too many or too long heads, and ConfigurationError without python-multipart.
    """

    def __init__(self, boundary: str, limits: FormLimits) -> None:
        try:
            from python_multipart.multipart import MultipartParser
        except ImportError:
            raise ConfigurationError(
                "forms with files need python-multipart: pip install 'asyncnet[http]' brings it"
            ) from None
        self._limits = limits
        self._started = False
        self._ended = False
        self._parts = 0
        self._events: list[Event] = []
        self._fields: dict[bytes, bytes] = {}
        self._name = b""
        self._value = b""
        self._head_size = 0
        self._parser = MultipartParser(
            boundary.encode("ascii"),
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
            max_header_count=limits.headers,
            max_header_size=limits.head_size,  # of a line, with the blanks that it skips
        )
        self._parser.logger = _silent

    def feed(self, data: bytes) -> list[Event]:
        """What `data` brings. The pieces of a part's content are never empty."""
        from python_multipart.exceptions import ParseError

        if not self._started:
            data = data.lstrip(b"\r\n")
            self._started = bool(data)
        try:
            self._parser.write(data)
        except ParseError as error:
            # The parser has one class for both.
            status = 413 if str(error).startswith("Maximum header") else 400
            raise RequestError(status, f"a malformed form: {error}") from None
        events, self._events = self._events, []
        return events

    def end(self) -> None:
        """There is no more. Raises RequestError(400) unless the last boundary has come."""
        if not self._ended:
            raise RequestError(400, "a form without its last boundary")

    # Called by the parser

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > self._limits.fields + self._limits.files:
            raise RequestError(413, f"a form of more than {self._parts - 1} parts")
        self._fields = {}
        self._head_size = 0

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > self._limits.head_size:
            raise RequestError(413, f"a part's head of more than {self._limits.head_size} bytes")

    def _on_header_end(self) -> None:
        name, value = self._name.lower(), self._value
        self._name = self._value = b""
        if _is_value(value) is None:
            raise RequestError(400, f"a control character in a part's {name.decode('ascii')}")
        if name in self._fields:
            raise RequestError(400, f"two fields {name.decode('ascii')} in a part's head")
        self._fields[name] = value

    def _on_headers_finished(self) -> None:
        disposition = utf8(self._fields.get(b"content-disposition", b""), "a part's Content-Disposition")
        kind, parameters = parse_parameters(disposition)
        name = parameters.get("name")
        if kind != "form-data" or name is None:
            raise RequestError(400, "a part whose Content-Disposition is not form-data with a name")
        # RFC 7578 section 4.7: nobody sends it, and who does, would have it decoded.
        encoding = self._fields.get(b"content-transfer-encoding", b"binary")
        if encoding.strip(b" \t").lower() not in (b"7bit", b"8bit", b"binary"):
            raise RequestError(400, "a part with a Content-Transfer-Encoding")
        if len(name.encode()) > self._limits.name_size:
            raise RequestError(413, f"a field's name of more than {self._limits.name_size} bytes")
        content_type = self._fields.get(b"content-type", b"").decode("latin-1").strip(" \t")
        self._events.append(PartBegin(name, parameters.get("filename"), content_type))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(data[start:end])

    def _on_part_end(self) -> None:
        self._events.append(PartEnd())

    def _on_end(self) -> None:
        self._ended = True


def parse_parameters(field: str) -> tuple[str, dict[str, str]]:
    """The kind that a field begins with, in small letters, and its parameters, their names in small letters.

    Raises RequestError(400) for what is malformed, and for a parameter that comes twice.
    """
    match = _find_kind(field)
    if match is None:
        return "", {}
    kind, parameters, at = match[1].lower(), {}, match.end()
    while match := _find_parameter(field, at):
        at = match.end()
        name, token, quoted = match.groups()
        if name is None:
            continue
        if name.lower() in parameters:
            raise RequestError(400, f"two parameters {name} in a field")
        parameters[name.lower()] = token if token is not None else _unescape(r"\1", quoted)
    if field[at:].strip(" \t"):
        raise RequestError(400, "malformed parameters of a field")
    return kind, parameters


def utf8(data: bytes, what: str) -> str:
    """The text that `data` is. Raises RequestError(400)."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise RequestError(400, f"{what} is not UTF-8") from None
