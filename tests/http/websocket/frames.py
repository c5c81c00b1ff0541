"""Frames written by hand, for tests: not by the code that they test."""

from __future__ import annotations

from asyncnet.http.websocket.limits import WebSocketLimits
from asyncnet.http.websocket.wire import Decoder, Event, WebSocketError

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = b"\x37\xfa\x21\x3d"  # of the examples in RFC 6455 section 5.7


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, key: bytes | None = KEY, form: int = 0
) -> bytes:
    """A frame. `rsv` is 4 for RSV1, 2, 1; `form` forces a length of 2 or 8 bytes; without `key` there is no mask."""
    first = fin << 7 | rsv << 4 | opcode
    mask_bit = 0 if key is None else 0x80
    length = len(payload)
    if form == 8 or length > 65535:
        head = bytes([first, mask_bit | 127]) + length.to_bytes(8, "big")
    elif form == 2 or length > 125:
        head = bytes([first, mask_bit | 126]) + length.to_bytes(2, "big")
    else:
        head = bytes([first, mask_bit | length])
    if key is None:
        return head + payload
    return head + key + bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


def close(code: int | None = None, reason: bytes = b"", **options: bytes | None) -> bytes:
    payload = b"" if code is None else code.to_bytes(2, "big") + reason
    return frame(CLOSE, payload, key=options.get("key", KEY))


def events(decoder: Decoder, *pieces: bytes) -> list[Event | int]:
    """What `pieces` decode to, fed one after the other; the code of the error last, if there is one."""
    found: list[Event | int] = []
    try:
        for piece in pieces:
            decoder.feed(piece)
            while (event := decoder.next_event()) is not None:
                found.append(event)
    except WebSocketError as error:
        found.append(int(error.code))
    return found


def server_decoder(**limits: int) -> Decoder:
    return Decoder(WebSocketLimits(**limits), from_client=True)
