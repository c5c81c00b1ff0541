"""Content codings taken off as they come: gzip, deflate, br and zstd (RFC 9110 section 8.4.1, RFC 7932, RFC 8878).

A few bytes can stand for gigabytes. So a decoder never makes more than a piece at a time, which the reader takes before
the next is made: memory is flat whatever comes. How much all of it may be is the caller's limit. Neither may a body go
on for ever that stands for nothing: empty members, empty blocks, and a coding around gigabytes of them. Pure; used by
`http.client`.
"""

from __future__ import annotations

import importlib
import importlib.util
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from typing import Any

from asyncnet.http.client_wire import ResponseError

PIECE = 64 * 1024
"""How much a decoder makes at once, in bytes."""

ZSTD_STEP = 64
"""How much a zstd decoder is given at once, in bytes: it cannot be told to stop, and four can stand for 128 KiB."""

ZSTD_WINDOW = 8 << 20
"""The memory that a zstd frame may ask for; RFC 8878 section 3.1.1.1.2 has decoders support this much, and more need
not be supported (RFC 9659)."""

IDLE = 64 * 1024
"""How much coded data may stand for nothing, in bytes; beyond it, `IDLE_RATIO` bytes for each that it stands for."""

IDLE_RATIO = 32
"""A stream that is flushed behind each byte needs 8 for it."""


class Decoder(ABC):
    """Takes one coding off. `taken` is how much `decode` has given it, `made` what came of that."""

    taken = made = 0

    @abstractmethod
    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` stands for, in pieces made as they are asked for. Raises ResponseError for malformed data."""

    @abstractmethod
    def finish(self) -> None:
        """Nothing more comes. Raises ResponseError if the end of the coded data is missing."""


@cache
def accepted_codings() -> str:
    """The value of Accept-Encoding: what can be decoded here with the packages that are installed."""
    names = ["gzip", "deflate"]
    if importlib.util.find_spec("brotli") is not None and _brotli_can_stop():
        names.append("br")
    if importlib.util.find_spec("zstandard") is not None:
        names.append("zstd")
    return ", ".join(names)


def _brotli_can_stop() -> bool:
    """Whether brotli can be told how much to make at once, which it can from version 1.2 on."""
    return hasattr(importlib.import_module("brotli").Decompressor, "can_accept_more_data")


def decoders_for(value: str, most: int) -> list[Decoder] | None:
    """What takes the codings of a Content-Encoding field off, in the order to use them; None: one is not known here.

    Raises ResponseError for more than `most` of them.
    """
    names = [name for part in value.lower().split(",") if (name := part.strip(" \t")) not in ("", "identity")]
    if len(names) > most:
        raise ResponseError(f"more than {most} content codings on top of each other")
    known: dict[str, Any] = {"gzip": _Gzip, "x-gzip": _Gzip, "deflate": _Deflate}
    if "br" in accepted_codings():
        known["br"] = _Brotli
    if "zstd" in accepted_codings():
        known["zstd"] = _Zstd
    if any(name not in known for name in names):
        return None
    return [known[name]() for name in reversed(names)]


def decode(decoders: list[Decoder], data: bytes) -> Iterator[bytes]:
    """`data` through all of `decoders`; b"" is a step that has made nothing yet, for the caller to rest after."""
    first, *others = decoders
    first.taken += len(data)
    for piece in first.feed(data):
        first.made += len(piece)
        if others:
            yield from decode(others, piece)
            yield b""
        else:
            yield piece
    if first.taken > IDLE + IDLE_RATIO * first.made:
        raise ResponseError(f"more than {IDLE} bytes of coded data that stand for nothing")


class _Gzip(Decoder):
    """RFC 1952: members, one behind the other. Zeros behind the last are padding."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._member.eof:
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
            self._begun = True
            try:
                piece = self._member.decompress(data, PIECE)
            except zlib.error as error:
                raise ResponseError(f"the body is no gzip: {error}") from None
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if piece:
                yield piece
            if not data and (self._member.eof or len(piece) < PIECE):
                return

    def finish(self) -> None:
        if self._begun and not self._member.eof:
            raise ResponseError("the gzip body ends too early")


class _Deflate(Decoder):
    """zlib's format (RFC 1950), and the bare one (RFC 1951) that some servers send under this name."""

    def __init__(self) -> None:
        self._stream: Any = None
        self._held = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            data = self._held + data
            if len(data) < 2:
                self._held = data
                return
            is_zlib = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._stream = zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)
        while True:
            try:
                piece = self._stream.decompress(data, PIECE)
            except zlib.error as error:
                raise ResponseError(f"the body is no deflate: {error}") from None
            data = self._stream.unconsumed_tail
            if piece:
                yield piece
            if self._stream.eof or (not data and len(piece) < PIECE):
                return

    def finish(self) -> None:
        if self._held if self._stream is None else not self._stream.eof:
            raise ResponseError("the deflate body ends too early")


class _Brotli(Decoder):
    def __init__(self) -> None:
        brotli = importlib.import_module("brotli")
        self._error: type[Exception] = brotli.error
        self._stream = brotli.Decompressor()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._begun = True
        while True:
            try:
                piece = self._stream.process(data, output_buffer_limit=PIECE)
            except self._error:
                raise ResponseError("the body is no brotli") from None
            data = b""
            if piece:
                yield piece
            elif self._stream.is_finished() or self._stream.can_accept_more_data():
                return  # it says so also while it holds output back

    def finish(self) -> None:
        if self._begun and not self._stream.is_finished():
            raise ResponseError("the brotli body ends too early")


class _Zstd(Decoder):
    """Frames, one behind the other."""

    def __init__(self) -> None:
        zstandard = importlib.import_module("zstandard")
        self._error: type[Exception] = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        self._frame = self._decompressor.decompressobj()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        at = 0
        pieces: list[bytes] = []
        made = 0
        while at < len(data):
            if self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            self._begun = True
            step = data[at : at + ZSTD_STEP]
            at += len(step)
            try:
                piece = self._frame.decompress(step)
            except self._error as error:
                raise ResponseError(f"the body is no zstd: {error}") from None
            if self._frame.eof:
                at -= len(self._frame.unused_data)
            if piece:
                pieces.append(piece)
                made += len(piece)
                if made >= PIECE:
                    yield b"".join(pieces)
                    pieces, made = [], 0
        if pieces:
            yield b"".join(pieces)

    def finish(self) -> None:
        if self._begun and not self._frame.eof:
            raise ResponseError("the zstd body ends too early")
