"""For hosts that take no bytes above 127 (8BITMIME): the content in quoted-printable and base64. RFC 6152 section 3.

The standard library's parser and generator do it. A signature over the old form does not survive, which RFC 6376
section 5.3 has warned of; the message does.

That parser takes time that grows with the square of a field's length, and with the lines times the depth of a message;
and it holds the interpreter meanwhile. So what would take more than some seconds is not given to it.
"""

from __future__ import annotations

import base64
import email
import email.policy
import quopri
import re
from collections.abc import Iterator
from contextlib import aclosing
from email.errors import MessageError
from email.generator import BytesGenerator
from email.message import Message
from io import BytesIO
from typing import cast

import trio

from asyncnet.per_run import once_per_run
from asyncnet.relay.targets import Parcel

MOST = 16 << 20
"""How long a message may be that is converted, in bytes: all of it is in memory, several times."""

DEEPEST = 50
"""How many parts within parts a message may have."""

_MOST_LINES = 500_000
_MOST_BOUNDARIES = 10_000
"""Lines that may be boundaries: each makes a part, with objects of its own."""
_MOST_CONTAINERS = 100
"""Words that may make a part hold others."""
_LONGEST_FIELD = 32 * 1024

_find_containers = re.compile(rb"multipart/|message/", re.IGNORECASE).finditer
_find_long_field = re.compile(
    rb"(?:\A|[\r\n])[!-9;-~]{1,100}:(?:[^\r\n]|\r?\n[ \t]|\r[ \t]){%d}" % _LONGEST_FIELD
).search

THREADS = 2
"""How many messages are converted at a time, in one run of Trio."""

_limiter = once_per_run(lambda: trio.CapacityLimiter(THREADS))


class Inconvertible(Exception):
    """The message cannot be had in seven bits."""


async def to_seven_bits(parcel: Parcel) -> bytes:
    """The content of `parcel` without bytes above 127. Raises `Inconvertible`."""
    if parcel.size > MOST:
        raise Inconvertible(f"a message of {parcel.size} bytes")
    async with aclosing(parcel.read()) as pieces:
        content = b"".join([piece async for piece in pieces])
    return await trio.to_thread.run_sync(convert, content, limiter=_limiter())


def convert(content: bytes) -> bytes:
    """The same, of the content itself; takes its time. Raises `Inconvertible`."""
    _check_cost(content)
    try:
        message = email.message_from_bytes(content, policy=_POLICY)
        for part in _parts(message):
            _encode(part)
        if message["MIME-Version"] is None:
            message["MIME-Version"] = "1.0"
        sent = BytesIO()
        BytesGenerator(sent, mangle_from_=False, policy=_POLICY).flatten(message)
    except (MessageError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise Inconvertible(f"a message that nobody can read: {exc}") from exc
    converted = sent.getvalue()
    if not converted.isascii():
        raise Inconvertible("bytes above 127 in places where none can stand")
    return converted


def _check_cost(content: bytes) -> None:
    """Raise `Inconvertible` for what takes too long to read."""
    if (
        content.count(b"\n") + content.count(b"\r") > 2 * _MOST_LINES
        or content.count(b"\n--") > _MOST_BOUNDARIES
        or sum(1 for _ in _find_containers(content)) > _MOST_CONTAINERS
        or _find_long_field(content)
    ):
        raise Inconvertible("too many lines or parts, or fields that are too long")


_CRLF = "\r\n"

_LINE = 76
"""How long a line may be that holds encoded words: RFC 2047 section 2."""

_TEXT = ("subject", "comments", "content-description", "x-")
"""What fields begin with whose body is text: encoded words may stand anywhere in it (RFC 2047 section 5)."""


class _Policy(email.policy.Compat32):
    """Encodes text alone. The standard library would take any field for text, an address with its name for one word."""

    def fold_binary(self, name: str, value: str) -> bytes:
        if value.isascii():
            return super().fold_binary(name, value)
        if not name.lower().startswith(_TEXT):
            raise Inconvertible(f"bytes above 127 in {name}, which is no text")
        try:
            text = value.encode("ascii", "surrogateescape").decode()
        except UnicodeDecodeError:
            return super().fold_binary(name, value)  # as of an unknown charset: RFC 1428 section 3
        unfolded = text.replace("\r", "").replace("\n", "")
        return f"{name}: {f'{_CRLF} '.join(_words(unfolded, _LINE - len(name) - 2))}{_CRLF}".encode()


def _words(text: str, room: int) -> Iterator[str]:
    """Encoded words of whole characters, for a line each: RFC 2047. `room` is what the first line has for its own.

    The standard library's `Header` would lose what Unicode has for line ends.
    """
    begun = b""
    for letter in text:
        if begun and len(_word(begun + letter.encode())) > room:
            yield _word(begun)
            begun, room = b"", _LINE - 1
        begun += letter.encode()
    yield _word(begun)


def _word(text: bytes) -> str:
    return f"=?utf-8?b?{base64.b64encode(text).decode()}?="


_POLICY = _Policy(cte_type="7bit", linesep=_CRLF, max_line_length=998)


def _parts(message: Message, depth: int = 0) -> Iterator[Message]:
    if depth > DEEPEST:
        raise Inconvertible("parts within parts within parts")
    yield message
    if message.is_multipart():
        for part in cast("list[Message]", message.get_payload()):
            yield from _parts(part, depth + 1)


def _encode(part: Message) -> None:
    """Have one part, without those in it, in seven bits."""
    if part.is_multipart():
        if part["Content-Transfer-Encoding"] is not None:
            part.replace_header("Content-Transfer-Encoding", "7bit")
        return
    if cast("str", part.get_payload()).isascii():
        return
    if str(part.get("Content-Transfer-Encoding", "7bit")).strip().lower() not in ("7bit", "8bit", "binary"):
        raise Inconvertible("an encoded part that has bytes above 127 all the same")
    content = cast("bytes", part.get_payload(decode=True))
    is_text = part.get_content_maintype() == "text" and b"\r" not in content.replace(b"\r\n", b"\n")
    if is_text:
        encoded, name = quopri.encodestring(content.replace(b"\r\n", b"\n")), "quoted-printable"
    else:
        encoded, name = base64.encodebytes(content), "base64"
    del part["Content-Transfer-Encoding"]
    part["Content-Transfer-Encoding"] = name
    part.set_payload(encoded.decode("ascii"))
