"""What a person sees of a message: RFC 5322, MIME (RFC 2045 to 2047, 2231), and HTML without its tags. Pure.

Anybody can send anything. So everything has a limit, parts within parts are looked for in a loop and not by recursion
without an end, no step takes longer than the message is long, and what comes out holds line feeds and printable
characters, and no others.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import email.header
import email.utils
import html
import quopri
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from typing import Final

from asyncnet.printable import printable

MOST_PARTS: Final = 200
DEEPEST: Final = 10
"""How many parts are looked at, and how deep in each other."""

LONGEST_FIELD: Final = 4000
"""How much of a header field is read, in characters."""

LONGEST_HEAD: Final = 256 * 1024
"""How much of a head is read, in bytes."""

LONGEST_TEXT: Final = 1 << 20
"""How much text is shown, in characters; of HTML so much is read."""

_SHOWN: Final = ("From", "Reply-To", "To", "Cc", "Date", "Subject")

_HARMLESS: Final[dict[int, str]] = {
    **dict.fromkeys([0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " "),
    **dict.fromkeys([0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF], ""),
}
"""Blanks of all widths, and what has none: not printable to Python, and in every other mail."""

_UNWANTED_CODECS: Final = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})
"""What Python takes for charsets and nobody else does; some of them take long."""

_find_head_end = re.compile(rb"(?:\A|\n)\r?\n").search
_replace_endless_numbers = re.compile(r"&#[0-9]{20,};?").sub
"""Numbers of characters that Python would not even read."""
_find_tag = re.compile(r"<([!/?a-zA-Z][^<>]*)>").finditer
_split_lines = re.compile(r"\r\n|\r|\n").split
_find_boundary_line = re.compile(rb"^--([^\r\n]{1,200})\r?$", re.MULTILINE)
_BREAKS: Final = frozenset({"br", "p", "div", "tr", "li", "h1", "h2", "h3", "h4", "table", "ul", "ol", "blockquote"})


# Header fields


class Head:
    """A header: its fields by their names in small letters; of several of one name the first."""

    def __init__(self, data: bytes) -> None:
        self._fields: dict[str, str] = {}
        name = ""
        for line in _split_lines(_text(data[:LONGEST_HEAD])):
            if line[:1] in (" ", "\t") and name:
                self._fields[name] = f"{self._fields[name]} {line.strip()}"[:LONGEST_FIELD]
                continue
            name, colon, value = line.partition(":")
            name = name.strip().lower() if colon else ""
            if name in self._fields:
                name = ""
            elif name:
                self._fields[name] = value.strip()[:LONGEST_FIELD]

    def raw(self, name: str) -> str:
        """As it stands there; "" if it is not there."""
        return self._fields.get(name.lower(), "")

    def text(self, name: str) -> str:
        """Decoded, in one line, printable."""
        return shown_line(_decode_words(self.raw(name)).strip())


def _text(data: bytes) -> str:
    """Bytes that ought to be ASCII and are UTF-8 perhaps."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _decode_words(value: str) -> str:
    """RFC 2047: =?charset?q?text?=; what is none stays as it is."""
    if "=?" not in value:
        return value
    try:
        words = email.header.decode_header(value)
    except (ValueError, email.errors.HeaderParseError, binascii.Error):
        return value
    return "".join(word if isinstance(word, str) else decode(word, charset or "utf-8") for word, charset in words)


def decode(data: bytes, charset: str) -> str:
    """`data` in a charset that the sender has named, whatever that is."""
    try:
        name = codecs.lookup(charset).name
        if name.replace("-", "_") not in _UNWANTED_CODECS:
            return data.decode(name, "replace")
    except (LookupError, ValueError, UnicodeError):
        pass
    return _text(data)


def shown_line(text: str) -> str:
    """One line, of which every character is printable."""
    text = text.translate(_HARMLESS).expandtabs()
    return printable(" ".join(_split_lines(text)))


@dataclass(frozen=True, slots=True)
class Heading:
    """What a list tells of a message."""

    sender: str = ""
    subject: str = ""
    date: datetime | None = None

    @classmethod
    def parse(cls, content: bytes) -> Heading:
        """That of a message, or of its top."""
        head = Head(_split(content)[0])
        name, address = _mailbox(head.raw("From"))  # decoded, a name might look like an address
        sender = _decode_words(name) or (address if "@" in address else _decode_words(head.raw("From")))
        return cls(shown_line(sender), head.text("Subject"), _date(head.raw("Date")))

    def as_line(self) -> str:
        date = "-" if self.date is None else f"{self.date:%Y-%m-%d %H:%M}"
        return f"{date:<16} {_cut(self.sender or '-', 24):<24} {_cut(self.subject, 200)}"

    def as_json(self) -> dict[str, str]:
        date = {} if self.date is None else {"date": f"{self.date:%Y-%m-%dT%H:%M:%SZ}"}
        return {"from": self.sender, "subject": self.subject, **date}


def _mailbox(value: str) -> tuple[str, str]:
    """Name and address; both "" where there is none."""
    try:
        return email.utils.parseaddr(value)
    except RecursionError:  # comments within comments
        return "", ""


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _date(value: str) -> datetime | None:
    try:
        date = email.utils.parsedate_to_datetime(value)
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


# Parts


@dataclass(slots=True)
class Part:
    """A part of a message that has none itself."""

    head: Head
    body: bytes
    kind: str
    """text/plain, say, in small letters."""
    parameters: Message = field(repr=False)

    @property
    def file_name(self) -> str:
        """ "" if it has none."""
        return shown_line(_decode_words(_read(self.parameters.get_filename)))

    @property
    def is_text(self) -> bool:
        """Whether it is there to be read where it stands."""
        return self.parameters.get_content_disposition() != "attachment" and not self.file_name

    def content(self) -> bytes:
        """Without its transfer encoding."""
        match self.head.raw("Content-Transfer-Encoding").lower():
            case "base64":
                letters = re.sub(rb"[^A-Za-z0-9+/]", b"", self.body)
                return base64.b64decode(letters[: len(letters) // 4 * 4] + _padded(letters[len(letters) // 4 * 4 :]))
            case "quoted-printable":
                return quopri.decodestring(self.body)
        return self.body

    def text(self) -> str:
        return decode(self.content(), _read(self.parameters.get_content_charset) or "utf-8")


def _read(parameter: Callable[[], str | None]) -> str:
    """A parameter as `email` reads it, which raises for some charsets and numbers (RFC 2231); "" if there is none."""
    try:
        return parameter() or ""
    except (ValueError, LookupError, TypeError):  # UnicodeError is one
        return ""


def _padded(rest: bytes) -> bytes:
    return rest + b"=" * (4 - len(rest)) if len(rest) > 1 else b""


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Head and body."""
    end = _find_head_end(content)
    return (content, b"") if end is None else (content[: end.start() + 1], content[end.end() :])


def parts_of(content: bytes) -> Iterator[Part]:
    """The parts that have none themselves, in their order. Past the limits what is left of them is one part."""
    ahead = [(content, 0)]  # the next one is the last of them
    seen = 0
    while ahead:
        data, depth = ahead.pop()
        seen += 1
        head_bytes, body = _split(data)
        head = Head(head_bytes)
        parameters = Message()
        for name in ("Content-Type", "Content-Disposition"):
            if head.raw(name):
                parameters[name] = head.raw(name).encode("ascii", "replace").decode()
        boundary = _read(parameters.get_boundary) if parameters.get_content_maintype() == "multipart" else ""
        found = []
        if boundary and depth < DEEPEST and seen + len(ahead) < MOST_PARTS:
            found = _divide(body, boundary.encode("ascii", "replace"), MOST_PARTS - seen - len(ahead))
        ahead += [(one, depth + 1) for one in reversed(found)]
        if not found:  # also where its boundary stands nowhere: nothing is to vanish
            yield Part(head, body, parameters.get_content_type(), parameters)


def _divide(body: bytes, boundary: bytes, most: int) -> list[bytes]:
    """What is between the lines of a boundary (RFC 2046 section 5.1.1): `most` parts, the last with all the rest."""
    found: list[bytes] = []
    start = None
    for match in _find_boundary_line.finditer(body):
        line = match[1].rstrip(b" \t")
        if line not in (boundary, boundary + b"--"):
            continue
        if start is not None:
            if len(found) == most - 1:
                break
            found.append(body[start : match.start()].removesuffix(b"\n").removesuffix(b"\r"))
        start = None if line.endswith(b"--") and line != boundary else match.end() + 1
        if start is None:
            break
    if start is not None:
        found.append(body[start:])
    return found


# The whole


def read_message(content: bytes) -> str:
    """A message as it is shown: what matters of its header, its text, and what else is in it."""
    head = Head(_split(content)[0])
    lines = [f"{name}: {head.text(name)}" for name in _SHOWN if head.raw(name)]
    parts = list(parts_of(content))
    chosen = next(
        (part for kind in ("text/plain", "text/html") for part in parts if part.kind == kind and part.is_text), None
    )
    if chosen is not None:
        lines += ["", *_shown_text(chosen)]
    others = [_describe(part) for part in parts if part is not chosen]
    if others:
        lines += ["", *others]
    return "".join(f"{line}\n" for line in lines)


def _shown_text(part: Part) -> list[str]:
    text = part.text()
    text = _without_tags(text[:LONGEST_TEXT]) if part.kind == "text/html" else text
    lines = [shown_line(line) for line in _split_lines(text[:LONGEST_TEXT])]
    while lines and not lines[-1]:
        lines.pop()
    return lines if len(text) <= LONGEST_TEXT else [*lines, "[and more]"]


def _describe(part: Part) -> str:
    name = f": {part.file_name}" if part.file_name else ""
    return _cut(f"[{shown_line(part.kind)}, {len(part.body)} bytes{name}]", 300)


def _without_tags(text: str) -> str:
    """HTML as text: no layout, but what it says."""
    pieces: list[str] = []
    place = 0
    skipped = ""  # within <style> and <script> nothing is text
    for match in _find_tag(text):
        if not skipped:
            pieces.append(re.sub(r"\s+", " ", text[place : match.start()]))
        place = match.end()
        name = re.split(r"[\s/]", match[1].removeprefix("/").lower(), maxsplit=1)[0]
        if skipped:
            skipped = "" if match[1].startswith("/") and name == skipped else skipped
        elif name in ("style", "script", "head", "title") and not match[1].startswith("/"):
            skipped = name
        elif name in _BREAKS:
            pieces.append("\n")
    if not skipped:
        pieces.append(re.sub(r"\s+", " ", text[place:]))
    joined = html.unescape(_replace_endless_numbers("\ufffd", "".join(pieces)))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.strip() for line in joined.split("\n"))).strip()
