"""permessage-deflate (RFC 7692): its negotiation, and messages compressed and inflated under a limit.

Pure. Used by `websocket.handshake` and `websocket.wire`.

The window of zlib's deflate costs 256 KiB for each connection at its largest, so that it is 4 KiB here, which costs
32 KiB and the first time that something is compressed; chat and JSON lose a few per cent by it. zlib cannot compress
with a window of 256 bytes: an offer that insists on that is declined, and where a server's answer does, we send
uncompressed, which is always allowed.

What is inflated never grows past the room for it: zlib is told to stop one byte after it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

NAME = "permessage-deflate"

_TAIL = b"\x00\x00\xff\xff"
"""What a flush ends with; it is not sent (RFC 7692 section 7.2.1)."""


class TooLarge(Exception):
    """A message that inflates to more than there is room for."""


@dataclass(frozen=True, slots=True)
class DeflateSettings:
    """How this side wants to compress."""

    window_bits: int = 12
    """The window of a compressor, as a power of two, and as far as the peer lets itself be asked, of the peer's."""
    memory_level: int = 5
    """zlib's `memLevel` for compressing: 5 fits a window of 12 bits."""
    context_takeover: bool = True
    """Whether a message may refer to those before it. Without, no memory is held between messages."""
    least: int = 64
    """The shortest message that is compressed, in bytes."""

    def __post_init__(self) -> None:
        if not 9 <= self.window_bits <= 15:
            raise ValueError(f"DeflateSettings.window_bits is 9 to 15, not {self.window_bits!r}")
        if not 1 <= self.memory_level <= 9:
            raise ValueError(f"DeflateSettings.memory_level is 1 to 9, not {self.memory_level!r}")
        if self.least < 1:
            raise ValueError(f"DeflateSettings.least is at least 1, not {self.least!r}")


class Extension(NamedTuple):
    """An element of Sec-WebSocket-Extensions (RFC 6455 section 9.1); a parameter without a value has None."""

    name: str
    parameters: tuple[tuple[str, str | None], ...]


class DeflateAgreement(NamedTuple):
    """What both sides agreed on, from this side's point of view. `header` is what the server answers."""

    own_bits: int
    own_takeover: bool
    peer_bits: int
    peer_takeover: bool
    settings: DeflateSettings
    header: str = ""

    def deflater(self) -> Deflater | None:
        """A compressor; None where zlib has none for such a window."""
        return Deflater(self) if self.own_bits >= 9 else None

    def inflater(self) -> Inflater:
        return Inflater(self)


_is_window_bits = re.compile(r"8|9|1[0-5]").fullmatch


class _Parameters(NamedTuple):
    """The four parameters of RFC 7692 section 7.1; 0 for client_max_window_bits without a value."""

    server_no_takeover: bool
    client_no_takeover: bool
    server_bits: int | None
    client_bits: int | None


def _read_parameters(extension: Extension, *, is_offer: bool) -> _Parameters | None:
    """None for what RFC 7692 section 7.1 does not allow: unknown, twice, a wrong value, a value where none belongs."""
    found = dict(extension.parameters)
    if len(found) < len(extension.parameters):
        return None
    flags = [name in found for name in ("server_no_context_takeover", "client_no_context_takeover")]
    for name, value in found.items():
        match name:
            case "server_no_context_takeover" | "client_no_context_takeover":
                if value is not None:
                    return None
            case "client_max_window_bits" if value is None and is_offer:
                pass
            case "server_max_window_bits" | "client_max_window_bits":
                if value is None or _is_window_bits(value) is None:
                    return None
            case _:
                return None
    bits = [
        int(found[name] or 0) if name in found else None
        for name in ("server_max_window_bits", "client_max_window_bits")
    ]
    return _Parameters(*flags, *bits)


def accept_offer(offers: Sequence[Extension], settings: DeflateSettings) -> DeflateAgreement | None:
    """A server's choice among a client's offers, in the client's order; None if none will do (section 5.1)."""
    for offer in offers:
        if offer.name == NAME and (parameters := _read_parameters(offer, is_offer=True)) is not None:
            agreement = _accept(parameters, settings)
            if agreement is not None:
                return agreement
    return None


def _accept(offered: _Parameters, settings: DeflateSettings) -> DeflateAgreement | None:
    own_bits = min(settings.window_bits, offered.server_bits or 15)
    if own_bits < 9:
        return None
    peer_bits = 15 if offered.client_bits is None else min(settings.window_bits, offered.client_bits or 15)
    own_takeover = settings.context_takeover and not offered.server_no_takeover
    peer_takeover = settings.context_takeover and not offered.client_no_takeover
    answer = [NAME]
    if not own_takeover:
        answer.append("server_no_context_takeover")
    if not peer_takeover:
        answer.append("client_no_context_takeover")
    if own_bits < 15:
        answer.append(f"server_max_window_bits={own_bits}")
    if offered.client_bits is not None and peer_bits < 15:
        answer.append(f"client_max_window_bits={peer_bits}")
    return DeflateAgreement(own_bits, own_takeover, peer_bits, peer_takeover, settings, "; ".join(answer))


def make_offer(settings: DeflateSettings) -> str:
    """A client's offer, as browsers make it: what a server knows of the parameters, it may use."""
    offer = f"{NAME}; client_max_window_bits"
    return offer if settings.context_takeover else f"{offer}; client_no_context_takeover; server_no_context_takeover"


def read_answer(answer: Extension, settings: DeflateSettings) -> DeflateAgreement | None:
    """What a server made of `make_offer`; None if it is not an answer to that (RFC 7692 section 5.1)."""
    parameters = _read_parameters(answer, is_offer=False)
    if answer.name != NAME or parameters is None:
        return None
    if not settings.context_takeover and not parameters.server_no_takeover:
        return None
    return DeflateAgreement(
        own_bits=min(settings.window_bits, parameters.client_bits or 15),
        own_takeover=settings.context_takeover and not parameters.client_no_takeover,
        peer_bits=parameters.server_bits or 15,
        peer_takeover=not parameters.server_no_takeover,
        settings=settings,
    )


class Deflater:
    """Compresses messages (RFC 7692 section 7.2.1)."""

    __slots__ = ("_bits", "_compressor", "_level", "_takeover", "least")

    def __init__(self, agreement: DeflateAgreement) -> None:
        self._bits = agreement.own_bits
        self._takeover = agreement.own_takeover
        self._level = agreement.settings.memory_level
        self._compressor: zlib._Compress | None = None
        self.least = agreement.settings.least
        """The shortest message that is worth it, in bytes."""

    def deflate(self, payload: bytes) -> bytes:
        """A whole message that is not empty."""
        compressor = self._compressor
        if compressor is None:
            compressor = zlib.compressobj(wbits=-self._bits, memLevel=self._level)
            if self._takeover:
                self._compressor = compressor
        data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return data[: -len(_TAIL)]


class Inflater:
    """Inflates messages (RFC 7692 section 7.2.2), frame by frame."""

    __slots__ = ("_bits", "_decompressor", "_takeover")

    def __init__(self, agreement: DeflateAgreement) -> None:
        self._bits = agreement.peer_bits
        self._takeover = agreement.peer_takeover
        self._decompressor: zlib._Decompress | None = None

    def inflate(self, payload: bytes, *, final: bool, room: int) -> bytes:
        """The next frame of a message; `final` for its last.

        Raises `TooLarge` if it inflates to more than `room` bytes, before it has inflated more than one beyond, and
        ValueError for what is no compressed data.
        """
        decompressor = self._decompressor
        if decompressor is None:
            decompressor = self._decompressor = zlib.decompressobj(wbits=-self._bits)
        if final:
            payload += _TAIL
        try:
            data = decompressor.decompress(payload, room + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if len(data) > room:
            raise TooLarge
        if decompressor.eof and not (final and decompressor.unused_data in (_TAIL, b"\x00" + _TAIL)):
            # A sender may end a message by a final block (section 7.2.3.4), and nothing comes behind one.
            raise ValueError("data behind the final block")
        if final and (decompressor.eof or not self._takeover):
            self._decompressor = None
        return data
