"""What a client sends as a message: bytes, a file, or pieces as they come, with CR LF at the end of each line.

Line ends that are none, CR or LF alone, become one: on the wire they would let a server see another end of the message
than we do (SMTP smuggling). Binary content (BINARYMIME) has no lines, and stays as it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

import trio

from asyncnet.smtp.content import with_line_ends

PIECE = 64 * 1024
"""How much is given on at once, in bytes."""

FILE_PIECE = 1024 * 1024
"""How much is read from a file at once: each read is a thread's."""

Source: TypeAlias = bytes | bytearray | memoryview | BinaryIO | AsyncIterable[bytes]
"""What a message may be. A file is read from where it stands, to its end."""


class LineEnds:
    """Makes every CR, LF and CR LF of a content that comes in pieces a CR LF."""

    def __init__(self) -> None:
        self._held = b""  # a CR, whose LF may have yet to come

    def feed(self, data: bytes) -> bytes:
        """The next piece; returns what is certain."""
        data = self._held + data
        self._held = b"\r" if data.endswith(b"\r") else b""
        if self._held:
            data = data[:-1]
        return with_line_ends(data)

    def finish(self) -> bytes:
        """That was all: the rest."""
        return b"\r\n" if self._held else b""


@dataclass(frozen=True, slots=True)
class Content:
    """A message that can be sent, once."""

    source: Source
    is_binary: bool = False
    size: int | None = None
    """In bytes, line ends counted as CR LF; None: nobody knows before the end."""
    is_ascii: bool | None = None
    """Whether no byte is above 127; None: nobody knows."""

    @classmethod
    async def of(cls, source: Source, *, is_binary: bool = False) -> Content:
        """Find out what there is to know. A file that can be read twice is, in a thread."""
        if isinstance(source, (bytes, bytearray, memoryview)):
            data = bytes(source) if is_binary else with_line_ends(bytes(source))
            return cls(data, is_binary, len(data), data.isascii())
        if isinstance(source, AsyncIterable):
            return cls(source, is_binary)
        measured = await trio.to_thread.run_sync(_measure, source, is_binary)
        return cls(source, is_binary) if measured is None else cls(source, is_binary, *measured)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The content as it goes onto the wire, but for what DATA puts into it."""
        if isinstance(self.source, bytes):
            for begin in range(0, len(self.source), PIECE):
                yield self.source[begin : begin + PIECE]
            return
        ends = LineEnds()
        async with aclosing(self._raw()) as raw:
            async for data in raw:
                whole = data if self.is_binary else ends.feed(data)
                for begin in range(0, len(whole), PIECE):
                    yield whole[begin : begin + PIECE]
        if rest := ends.finish():
            yield rest

    async def _raw(self) -> AsyncGenerator[bytes, None]:
        if isinstance(self.source, AsyncIterable):
            async for data in self.source:
                yield bytes(data)
            return
        assert not isinstance(self.source, (bytes, bytearray, memoryview)), "bytes are cut by `pieces`"
        while data := await trio.to_thread.run_sync(self.source.read, FILE_PIECE):
            yield data


def _measure(file: BinaryIO, is_binary: bool) -> tuple[int, bool] | None:
    """Size and whether it is ASCII, of the rest of a file, which is left as it was; None: it comes but once."""
    if not file.seekable():
        return None
    begin = file.tell()
    size, is_ascii, ends = 0, True, LineEnds()
    while data := file.read(FILE_PIECE):
        is_ascii = is_ascii and data.isascii()
        size += len(data if is_binary else ends.feed(data))
    file.seek(begin)
    return size + len(ends.finish()), is_ascii


async def chunked(pieces: AsyncIterator[bytes], size: int) -> AsyncGenerator[tuple[bytes, bool], None]:
    """What comes in pieces, in chunks of `size` bytes, for BDAT; with each, whether it is the last."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        while len(held) > size:  # what is as long as a chunk may be the last one
            yield bytes(memoryview(held)[:size]), False
            del held[:size]
    yield bytes(held), True
