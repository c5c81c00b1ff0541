"""Frames and messages of the WebSocket protocol (RFC 6455 section 5): `Decoder`, `Encoder`.

Pure: bytes in, events out; messages in, bytes out. Used by `websocket.connection` on both sides. Which first byte of a
frame is legal when is a table, so that every illegal one is refused in one place.

What could go wrong, and why it does not:

- *A length that is never sent* (2**63, or just more than the limit) is refused by the frame's head; nothing is
  reserved for what is announced, and what is held are bytes that did arrive, one message at most.
- *A frame that comes byte by byte* costs no more than one that comes whole: `_need` tells how many bytes are missing,
  and the bytes collect in one bytearray.
- *A buffer full of bombs.* Events are made one at a time, when they are asked for: however many compressed messages
  have arrived, one is inflated, and `Inflater` stops at the limit.
- *A million fragments.* They are counted, and what they carry is joined at once.
- *A text that is no text.* UTF-8 is checked when a message ends, and in one of several frames at each frame, so that
  a bad one is refused before its end.
"""

from __future__ import annotations

import codecs
import enum
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.http.websocket.deflate import Deflater, Inflater, TooLarge
from asyncnet.http.websocket.limits import WebSocketLimits
from asyncnet.http.websocket.masking import apply_mask

Message: TypeAlias = str | bytes
Data: TypeAlias = bytes | bytearray | memoryview

MAX_CONTROL = 125
"""The payload of a control frame (RFC 6455 section 5.5)."""

MAX_REASON = MAX_CONTROL - 2
"""A reason for closing, in bytes of UTF-8."""


class Opcode(enum.IntEnum):
    """What a frame is (RFC 6455 section 5.2)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(enum.IntEnum):
    """Why a WebSocket closes (RFC 6455 section 7.4.1, and the registry that it founded)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_CODE = 1005
    """A Close frame without a code. Never sent."""
    ABNORMAL = 1006
    """The connection ended without a Close frame. Never sent."""
    INVALID_DATA = 1007
    POLICY = 1008
    TOO_BIG = 1009
    EXTENSION_MISSING = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014


_NEVER_SENT = (CloseCode.NO_CODE, CloseCode.ABNORMAL)
_CODES = frozenset(code for code in CloseCode if code not in _NEVER_SENT)


def may_be_sent(code: int) -> bool:
    """Whether a Close frame may carry `code`: registered, or of a library or an application (RFC 6455 7.4.2)."""
    return code in _CODES or 3000 <= code <= 4999


class WebSocketError(RemoteProtocolError):
    """The peer broke the rules. `code` is what the WebSocket closes with; the message is the reason that it gives."""

    def __init__(self, code: CloseCode, problem: str) -> None:
        self.code = code
        super().__init__(problem)


class Ping(NamedTuple):
    """To be answered by a pong with the same payload (RFC 6455 section 5.5.2)."""

    payload: bytes


class Pong(NamedTuple):
    """The answer to a ping, or unasked for (RFC 6455 section 5.5.3)."""

    payload: bytes


class Close(NamedTuple):
    """The peer closes, or agrees to close (RFC 6455 section 5.5.1). A frame without a code is `CloseCode.NO_CODE`."""

    code: int
    reason: str


Event: TypeAlias = str | bytes | Ping | Pong | Close

FIN: Final = 0x80
RSV1: Final = 0x40
"""On the first frame of a message: it is compressed (RFC 7692 section 6)."""
_RESERVED: Final = 0x70
_MASKED: Final = 0x80

_CONTROLS = frozenset({FIN | Opcode.CLOSE, FIN | Opcode.PING, FIN | Opcode.PONG})
_BEGINNINGS = frozenset({Opcode.TEXT, Opcode.BINARY, FIN | Opcode.TEXT, FIN | Opcode.BINARY})

# The first bytes of a frame that are legal, by the state: between messages, without and with compression; and within
# a message, where control frames may come between the fragments (RFC 6455 section 5.4).
_BETWEEN = frozenset(map(int, _BEGINNINGS | _CONTROLS))
_BETWEEN_DEFLATED = _BETWEEN | {RSV1 | first for first in _BEGINNINGS}
_WITHIN = frozenset(map(int, {Opcode.CONTINUATION, FIN | Opcode.CONTINUATION} | _CONTROLS))

_WHOLE_BINARY = FIN | Opcode.BINARY
_WHOLE_TEXT = FIN | Opcode.TEXT
_START = 2
"""How many bytes of a frame have to be there before anything can be said about it."""


class Decoder:
    """What the peer sends: bytes go in by `feed`, events come out of `next_event`, one at a time.

    `from_client` tells which side the peer is: a client masks each frame, a server none (RFC 6455 section 5.1).
    `inflater` is there if compression was agreed. After an error nothing more can be decoded.
    """

    __slots__ = (
        "_at",
        "_between",
        "_data",
        "_deflated",
        "_fragments",
        "_inflater",
        "_legal",
        "_limits",
        "_mask_bit",
        "_message",
        "_need",
        "_opcode",
        "_room",
        "_utf8",
        "messages",
    )

    def __init__(self, limits: WebSocketLimits, *, from_client: bool, inflater: Inflater | None = None) -> None:
        self._limits = limits
        self._mask_bit = _MASKED if from_client else 0
        self._inflater = inflater
        self._data: bytes | bytearray = b""
        self._at = 0  # where in it the next frame begins
        self._need = _START  # how many bytes from there on are worth looking at
        self._between = _BETWEEN if inflater is None else _BETWEEN_DEFLATED
        self._legal = self._between
        # The message at hand
        self._opcode = 0
        self._deflated = False
        self._fragments = 0
        self._message = bytearray()
        self._utf8: codecs.IncrementalDecoder | None = None
        self._room = limits.message  # how many bytes may still come
        self.messages = 0
        """How many messages have been decoded."""

    @property
    def is_within_message(self) -> bool:
        """Whether a part of a message or of a frame has arrived, but not all of it."""
        return self._legal is _WITHIN or self._at < len(self._data)

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        held = self._data
        if self._at == len(held):
            self._data = data
            self._at = 0
        elif isinstance(held, bytearray):
            del held[: self._at]
            self._at = 0
            held += data
        else:
            self._data = bytearray(memoryview(held)[self._at :])
            self._data += data
            self._at = 0

    def next_event(self) -> Event | None:
        """The next event in what has arrived, or None while more is needed. Raises `WebSocketError`."""
        while True:
            data, at = self._data, self._at
            have = len(data) - at
            if have < self._need:
                return None
            first, second = data[at], data[at + 1]
            if first not in self._legal or (second ^ self._mask_bit) & _MASKED:
                raise self._refusal(first, second)
            length = second & 0x7F
            body = at + 2
            if length > MAX_CONTROL:
                body += 2 if length == 126 else 8
                if first & 0x08:
                    raise WebSocketError(CloseCode.PROTOCOL_ERROR, "a control frame of more than 125 bytes")
                if len(data) < body:
                    self._need = body - at
                    return None
                length = _long_length(data[at + 2 : body])
            if length > self._room and not first & 0x08:
                self._check_length(length, first)
            if self._mask_bit:
                body += 4
            end = body + length
            if len(data) < end:
                self._need = end - at
                return None
            payload = bytes(data[body:end]) if not self._mask_bit else apply_mask(data[body:end], data[body - 4 : body])
            self._need = _START
            if end == len(data):
                self._data = b""
                self._at = 0
            else:
                self._at = end
            if first == _WHOLE_BINARY:
                self.messages += 1
                return payload
            if first == _WHOLE_TEXT:
                self.messages += 1
                return _text(payload)
            event = _control(first, payload) if first & 0x08 else self._data_frame(first, payload)
            if event is not None:
                return event

    def _check_length(self, length: int, first: int) -> None:
        """A frame that is longer than the room for it is refused, unless inflating may make it shorter.

        What can't be compressed grows by five bytes for each block (RFC 1951 section 3.2.4).
        """
        deflated = first & RSV1 or (self._deflated and not first & 0x0F)
        if not deflated or length > self._room + (self._room >> 8) + 64:
            raise self._too_big()

    def _too_big(self) -> WebSocketError:
        return WebSocketError(CloseCode.TOO_BIG, f"a message of more than {self._limits.message} bytes")

    def _refusal(self, first: int, second: int) -> WebSocketError:
        """Why a frame that begins like this is not legal now."""
        opcode = first & 0x0F
        if (second ^ self._mask_bit) & _MASKED:
            problem = "a frame without a mask" if self._mask_bit else "a frame with a mask"
        elif first & _RESERVED and (self._between is _BETWEEN or first & _RESERVED != RSV1 or opcode not in (1, 2)):
            problem = "a reserved bit is set"
        elif opcode not in Opcode.__members__.values():
            problem = f"a reserved opcode: {opcode}"
        elif opcode & 0x08:
            problem = "a control frame in fragments"
        elif opcode == Opcode.CONTINUATION:
            problem = "a continuation of no message"
        else:
            problem = "a new message before the end of the last"
        return WebSocketError(CloseCode.PROTOCOL_ERROR, problem)

    def _data_frame(self, first: int, payload: bytes) -> Message | None:
        """A compressed message, or a fragment of one: the message if this was its end."""
        final = bool(first & FIN)
        begins = bool(first & 0x0F)
        if begins:
            self._opcode = first & 0x0F
            self._deflated = bool(first & RSV1)
            self._room = self._limits.message
            self._fragments = 0
        self._fragments += 1
        if self._fragments > self._limits.fragments:
            raise WebSocketError(CloseCode.POLICY, f"a message of more than {self._limits.fragments} fragments")
        if self._deflated:
            payload = self._inflate(payload, final)
        if begins and final:
            self.messages += 1
            return payload if self._opcode == Opcode.BINARY else _text(payload)
        self._room -= len(payload)
        if begins:
            self._legal = _WITHIN
            self._utf8 = codecs.getincrementaldecoder("utf-8")() if self._opcode == Opcode.TEXT else None
        self._message += payload
        if self._utf8 is not None:
            try:
                self._utf8.decode(payload, final)
            except UnicodeDecodeError:
                raise _no_text() from None
        return self._finish_message() if final else None

    def _inflate(self, payload: bytes, final: bool) -> bytes:
        assert self._inflater is not None, "RSV1 is legal only with compression"
        try:
            return self._inflater.inflate(payload, final=final, room=self._room)
        except TooLarge:
            raise self._too_big() from None
        except ValueError as error:
            raise WebSocketError(CloseCode.INVALID_DATA, f"compressed data that is none: {error}") from None

    def _finish_message(self) -> Message:
        message = str(self._message, "utf-8") if self._opcode == Opcode.TEXT else bytes(self._message)
        self._message = bytearray()
        self._utf8 = None
        self._deflated = False
        self._room = self._limits.message
        self._legal = self._between
        self.messages += 1
        return message


def _long_length(field: bytes | bytearray) -> int:
    """The length in 2 or 8 bytes; the shortest form is the only one (RFC 6455 section 5.2)."""
    length = int.from_bytes(field, "big")
    if length < (126 if len(field) == 2 else 65536):
        raise WebSocketError(CloseCode.PROTOCOL_ERROR, "a length that is not in its shortest form")
    if length >> 63:
        raise WebSocketError(CloseCode.PROTOCOL_ERROR, "a length of 2**63 bytes or more")
    return length


def _text(payload: bytes) -> str:
    try:
        return str(payload, "utf-8")
    except UnicodeDecodeError:
        raise _no_text() from None


def _no_text() -> WebSocketError:
    return WebSocketError(CloseCode.INVALID_DATA, "a text that is not UTF-8")


def _control(first: int, payload: bytes) -> Event:
    match first & 0x0F:
        case Opcode.PING:
            return Ping(payload)
        case Opcode.PONG:
            return Pong(payload)
        case _:
            return _close(payload)


def _close(payload: bytes) -> Close:
    """RFC 6455 section 5.5.1: nothing, or two bytes of code and a reason in UTF-8."""
    if not payload:
        return Close(CloseCode.NO_CODE, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not may_be_sent(code):
        raise WebSocketError(CloseCode.PROTOCOL_ERROR, f"a close code that may not be sent: {code}")
    try:
        return Close(code, str(payload[2:], "utf-8"))
    except UnicodeDecodeError:
        raise WebSocketError(CloseCode.INVALID_DATA, "a reason for closing that is not UTF-8") from None


_SHORT_HEADS = {
    first: tuple(bytes((first, length)) for length in range(MAX_CONTROL + 1))
    for first in (FIN | opcode for opcode in Opcode)
}
"""The heads of short frames without a mask, made once."""


class Encoder:
    """What is sent: each method returns the bytes of one whole frame.

    `mask_key` makes a client's four random bytes for each frame; a server has none (RFC 6455 section 5.3). `deflater`
    is there if compression was agreed. Messages have to leave in the order in which they were encoded: compression
    remembers the last ones.
    """

    __slots__ = ("_deflater", "_mask_key")

    def __init__(self, *, mask_key: Callable[[], bytes] | None = None, deflater: Deflater | None = None) -> None:
        self._mask_key = mask_key
        self._deflater = deflater

    def message(self, message: str | Data) -> bytes:
        """A message: `str` goes as text, bytes as binary. Raises `LocalProtocolError` for what no UTF-8 can hold."""
        payload: bytes
        if type(message) is bytes:  # the quickest way for what is most common
            payload = message
            first = _WHOLE_BINARY
        elif isinstance(message, str):
            try:
                payload = message.encode()
            except UnicodeEncodeError as error:
                raise LocalProtocolError(f"a text that UTF-8 cannot hold: {error}") from None
            first = _WHOLE_TEXT
        elif isinstance(message, (bytes, bytearray, memoryview)):
            payload = bytes(message)
            first = _WHOLE_BINARY
        else:
            raise TypeError(f"a message is str or bytes, not {type(message).__name__}")
        if self._deflater is not None and len(payload) >= self._deflater.least:
            payload = self._deflater.deflate(payload)
            first |= RSV1
        return self._frame(first, payload)

    def ping(self, payload: bytes = b"") -> bytes:
        return self._control(Opcode.PING, payload)

    def pong(self, payload: bytes = b"") -> bytes:
        return self._control(Opcode.PONG, payload)

    def close(self, code: int = CloseCode.NO_CODE, reason: str = "") -> bytes:
        """A Close frame; with `CloseCode.NO_CODE` one without a code, and then there is no reason either.

        Raises `LocalProtocolError` for a code that may not be sent, and a reason of more than 123 bytes.
        """
        if code == CloseCode.NO_CODE and not reason:
            return self._control(Opcode.CLOSE, b"")
        if not may_be_sent(code):
            raise LocalProtocolError(f"a close code that may not be sent: {code}")
        text = reason.encode("utf-8", "replace")
        if len(text) > MAX_REASON:
            raise LocalProtocolError(f"a reason of {len(text)} bytes for closing: {MAX_REASON} are the most")
        return self._control(Opcode.CLOSE, code.to_bytes(2, "big") + text)

    def _control(self, opcode: Opcode, payload: bytes) -> bytes:
        if len(payload) > MAX_CONTROL:
            raise LocalProtocolError(f"a control frame of {len(payload)} bytes: {MAX_CONTROL} are the most")
        return self._frame(FIN | opcode, payload)

    def _frame(self, first: int, payload: bytes) -> bytes:
        length = len(payload)
        if self._mask_key is None:
            if length <= MAX_CONTROL and not first & RSV1:
                return _SHORT_HEADS[first][length] + payload
            return _head(first, length, 0) + payload
        key = self._mask_key()
        return b"".join((_head(first, length, _MASKED), key, apply_mask(payload, key)))


def _head(first: int, length: int, mask_bit: int) -> bytes:
    if length <= MAX_CONTROL:
        return bytes((first, mask_bit | length))
    if length < 65536:
        return bytes((first, mask_bit | 126, length >> 8, length & 0xFF))
    return bytes((first, mask_bit | 127)) + length.to_bytes(8, "big")
