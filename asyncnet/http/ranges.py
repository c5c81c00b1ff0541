"""Byte ranges (RFC 9110 section 14), one or several, and the body that several of them make (section 14.6).

What could go wrong, and why it does not: a Range field is a short way to ask for much. Overlapping ranges could
multiply a file (CVE-2011-3192), many small ones make many reads and part heads. So ranges that overlap, or lie so
close that another part head would cost more than what is between them, become one; a field with more than
`MAX_RANGES` is ignored, and the whole file sent, once. What is sent is therefore never more than the file and
`MAX_RANGES` part heads.

Pure, but for the file that a body holds. Used by `http.files`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO

from asyncnet.http.messages import FileBody

MAX_RANGES = 100
"""How many ranges a request may name: more than any viewer of documents asks for at once."""

CLOSE = 128
"""Ranges with less than this between them, in bytes, become one: about what another part's head costs."""


@dataclass(frozen=True, slots=True)
class Span:
    """`count` bytes, at least one, from `offset` on."""

    offset: int
    count: int

    @property
    def end(self) -> int:
        return self.offset + self.count

    def content_range(self, size: int) -> str:
        """As Content-Range has it (section 14.4), of a whole of `size` bytes."""
        return f"bytes {self.offset}-{self.end - 1}/{size}"


_is_ranges = re.compile(r"bytes=(.*)", re.IGNORECASE).fullmatch
_is_range = re.compile(r"(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII).fullmatch


def parse_ranges(field: str, size: int) -> list[Span] | None:
    """What a Range field asks of `size` bytes, coalesced, in the order asked for; empty if nothing can be satisfied.

    None where the field is to be ignored: another unit, a fault anywhere in it, too many ranges, or what only the
    whole can answer (the last bytes of an empty file).
    """
    match = _is_ranges(field)
    if match is None:
        return None
    specs = [spec for item in match[1].split(",") if (spec := item.strip(" \t"))]
    if not 0 < len(specs) <= MAX_RANGES:
        return None
    spans = []
    for spec in specs:
        parsed = _is_range(spec)
        if parsed is None:
            return None
        first, last, suffix = parsed.groups()
        if suffix is not None:
            count = min(int(suffix), size)
            start, end = size - count, size
            if not size and int(suffix):
                return None  # satisfied by all there is, which no Content-Range can express
        else:
            start, end = int(first), min(int(last) + 1, size) if last else size
            if last and int(last) < start:
                return None
        if start < end:
            spans.append(Span(start, end - start))
    return coalesce(spans)


def coalesce(spans: Sequence[Span]) -> list[Span]:
    """The same bytes by spans that are apart from each other, each in the place of the first that went into it."""
    if len(spans) < 2:
        return list(spans)
    merged: list[tuple[int, Span]] = []
    for place, span in sorted(enumerate(spans), key=lambda item: item[1].offset):
        if merged and span.offset <= merged[-1][1].end + CLOSE:
            before, last = merged[-1]
            end = max(last.end, span.end)
            merged[-1] = (min(before, place), Span(last.offset, end - last.offset))
        else:
            merged.append((place, span))
    return [span for _, span in sorted(merged, key=lambda item: item[0])]


class ByteRanges(AsyncGenerator[bytes | FileBody, None]):
    """The body of a 206 with several parts: heads as bytes, contents as pieces of the file.

    It owns the file: `aclose` closes it, begun or not, as the end of the iteration does. `content_type` and `length`
    are what the response's head has to say of it.
    """

    def __init__(self, file: BinaryIO, spans: Sequence[Span], size: int, content_type: str) -> None:
        boundary = secrets.token_hex(16)  # nobody who wrote the file could know it
        self.content_type = f"multipart/byteranges; boundary={boundary}"
        self._file = file
        before = f"\r\n--{boundary}\r\ncontent-type: {content_type}\r\ncontent-range: "
        self._parts = [(f"{before}{span.content_range(size)}\r\n\r\n", span) for span in spans]
        self._last = f"\r\n--{boundary}--\r\n"
        self.length = sum(len(head) + span.count for head, span in self._parts) + len(self._last)
        self._pieces = self._each()

    def _each(self) -> Iterator[bytes | FileBody]:
        for head, span in self._parts:
            yield head.encode("latin-1")
            yield FileBody(self._file, span.offset, span.count)
        yield self._last.encode("latin-1")

    async def asend(self, value: None) -> bytes | FileBody:
        for piece in self._pieces:
            return piece
        self._file.close()
        raise StopAsyncIteration

    async def athrow(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> bytes | FileBody:
        await self.aclose()
        raise typ

    async def aclose(self) -> None:
        self._pieces = iter(())
        self._file.close()
