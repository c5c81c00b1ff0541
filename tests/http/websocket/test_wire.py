"""Frames and messages: RFC 6455 section 5, byte by byte."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import LocalProtocolError
from asyncnet.http.websocket.limits import WebSocketLimits
from asyncnet.http.websocket.masking import apply_mask, apply_mask_in_python
from asyncnet.http.websocket.wire import Close, CloseCode, Decoder, Encoder, Ping, Pong, may_be_sent
from tests.http.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    close,
    events,
    frame,
    server_decoder,
)


def three_ways(data: bytes, **limits: int) -> list[object]:
    """What `data` decodes to, which is the same fed whole, byte by byte, and with bytes trailing."""
    whole = events(server_decoder(**limits), data)
    assert events(server_decoder(**limits), *(data[at : at + 1] for at in range(len(data)))) == whole
    if not (whole and isinstance(whole[-1], int)):
        trailing = events(server_decoder(**limits), data + frame(TEXT, b"next"))
        assert trailing[: len(whole)] == whole
    return list(whole)


class TestExamplesOfTheRFC:
    """RFC 6455 section 5.7."""

    def test_a_masked_text(self) -> None:
        assert three_ways(bytes.fromhex("818537fa213d7f9f4d5158")) == ["Hello"]

    def test_an_unmasked_text(self) -> None:
        decoder = Decoder(WebSocketLimits(), from_client=False)
        assert events(decoder, bytes.fromhex("810548656c6c6f")) == ["Hello"]
        assert Encoder().message("Hello") == bytes.fromhex("810548656c6c6f")
        assert Encoder(mask_key=lambda: KEY).message("Hello") == bytes.fromhex("818537fa213d7f9f4d5158")

    def test_a_text_in_fragments(self) -> None:
        decoder = Decoder(WebSocketLimits(), from_client=False)
        assert events(decoder, bytes.fromhex("010348656c 80026c6f")) == ["Hello"]

    def test_ping_and_pong(self) -> None:
        decoder = Decoder(WebSocketLimits(), from_client=False)
        assert events(decoder, bytes.fromhex("890548656c6c6f")) == [Ping(b"Hello")]
        assert three_ways(bytes.fromhex("8a8537fa213d7f9f4d5158")) == [Pong(b"Hello")]
        assert Encoder().ping(b"Hello") == bytes.fromhex("890548656c6c6f")

    def test_256_bytes_and_64_kib(self) -> None:
        assert Encoder().message(bytes(256)) == bytes.fromhex("827e0100") + bytes(256)
        assert Encoder().message(bytes(65536)) == bytes.fromhex("827f0000000000010000") + bytes(65536)
        assert three_ways(frame(BINARY, bytes(256))) == [bytes(256)]
        assert events(server_decoder(), frame(BINARY, bytes(65536))) == [bytes(65536)]


LEGAL = [
    (frame(TEXT), [""]),
    (frame(BINARY), [b""]),
    (frame(TEXT, "Grüße 🌍".encode()), ["Grüße 🌍"]),
    (frame(BINARY, bytes(125)), [bytes(125)]),
    (frame(BINARY, bytes(126)), [bytes(126)]),
    (frame(BINARY, bytes(range(256)) * 200), [bytes(range(256)) * 200]),
    (frame(TEXT, b"a") + frame(BINARY, b"b"), ["a", b"b"]),
    (frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", fin=False) + frame(CONTINUATION, b"c"), ["abc"]),
    (frame(BINARY, b"", fin=False) + frame(CONTINUATION), [b""]),
    # control frames between the fragments of a message
    (frame(TEXT, b"a", fin=False) + frame(PING, b"?") + frame(CONTINUATION, b"b"), [Ping(b"?"), "ab"]),
    (frame(TEXT, b"a", fin=False) + close(1001), [Close(1001, "")]),
    # a character cut by the edge of a fragment
    (frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONTINUATION, b"\x8c\x8d"), ["🌍"]),
    (frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONTINUATION) + frame(PING), [1007]),
    (frame(PING, bytes(125)), [Ping(bytes(125))]),
    (frame(PONG), [Pong(b"")]),
    (close(), [Close(1005, "")]),
    (close(1000, "Tschüß".encode()), [Close(1000, "Tschüß")]),
    (close(4999, b"x" * 123), [Close(4999, "x" * 123)]),
]


@pytest.mark.parametrize(("data", "expected"), LEGAL)
def test_what_is_legal_decodes_however_it_was_cut(data: bytes, expected: list[object]) -> None:
    assert three_ways(data) == expected


ILLEGAL = [
    # masks: RFC 6455 section 5.1
    ("a frame without a mask", frame(TEXT, b"x", key=None), 1002),
    ("a ping without a mask", frame(PING, key=None), 1002),
    # reserved bits and opcodes: section 5.2
    *((f"reserved bits {bits}", frame(TEXT, b"x", rsv=bits), 1002) for bits in range(1, 8)),
    *((f"reserved bits {bits} on a ping", frame(PING, rsv=bits), 1002) for bits in (1, 2, 4)),
    ("a reserved bit on a continuation", frame(TEXT, fin=False) + frame(CONTINUATION, rsv=4), 1002),
    *((f"reserved opcode {opcode}", frame(opcode, b"x"), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    # lengths: section 5.2
    ("2 bytes for a length of 125", frame(BINARY, bytes(125), form=2), 1002),
    ("8 bytes for a length of 65535", frame(BINARY, bytes(65535), form=8), 1002),
    ("8 bytes for a length of 5", frame(BINARY, bytes(5), form=8), 1002),
    ("a length of 2**63", b"\x82\xff" + (1 << 63).to_bytes(8, "big"), 1002),
    ("a length of 2**64 - 1", b"\x82\xff" + b"\xff" * 8, 1002),
    ("a length of 2**63 - 1", b"\x82\xff" + ((1 << 63) - 1).to_bytes(8, "big"), 1009),
    ("a length just past the limit", b"\x82\xff" + ((1 << 20) + 1).to_bytes(8, "big"), 1009),
    # control frames: section 5.5
    ("a ping of 126 bytes", frame(PING, bytes(126)), 1002),
    ("a ping with a length of 8 bytes", frame(PING, bytes(5), form=8), 1002),
    ("a ping in fragments", frame(PING, b"x", fin=False), 1002),
    ("a Close in fragments", frame(CLOSE, b"", fin=False), 1002),
    # fragments: section 5.4
    ("a continuation of nothing", frame(CONTINUATION, b"x"), 1002),
    ("a first fragment that is a continuation", frame(CONTINUATION, b"x", fin=False), 1002),
    ("a continuation behind the end", frame(TEXT, fin=False) + frame(CONTINUATION) + frame(CONTINUATION), 1002),
    ("a message within a message", frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
    ("a fragment of another message", frame(TEXT, b"a", fin=False) + frame(BINARY, b"b", fin=False), 1002),
    # Close: sections 5.5.1 and 7.4
    ("a Close of one byte", frame(CLOSE, b"\x03"), 1002),
    *(
        (f"close code {code}", close(code), 1002)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    ),
    ("a reason that is not UTF-8", close(1000, b"\xff"), 1007),
    # UTF-8: section 8.1
    *(
        (f"a text that is {bad!r}", frame(TEXT, bad), 1007)
        for bad in (
            b"\xff",
            b"\xc0\x80",  # an overlong NUL
            b"\xed\xa0\x80",  # a surrogate
            b"\xf4\x90\x80\x80",  # beyond U+10FFFF
            b"\xe2\x82",  # not finished
            b"abc\x80",
        )
    ),
    ("bad UTF-8 in a later fragment", frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"\xff"), 1007),
    ("half a character at the end", frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x82"), 1007),
]


@pytest.mark.parametrize(("data", "code"), [row[1:] for row in ILLEGAL], ids=[row[0] for row in ILLEGAL])
def test_what_is_illegal_ends_with_its_code_however_it_was_cut(data: bytes, code: int) -> None:
    assert three_ways(frame(TEXT, b"before") + data)[-1] == code


def test_what_came_before_an_error_is_decoded() -> None:
    assert events(server_decoder(), frame(TEXT, b"a") + frame(3) + frame(TEXT, b"b")) == ["a", 1002]


def test_bad_utf_8_is_refused_before_the_message_ends() -> None:
    assert events(server_decoder(), frame(TEXT, b"\xff", fin=False)) == [1007]


def test_a_server_may_not_mask() -> None:
    assert events(Decoder(WebSocketLimits(), from_client=False), frame(TEXT, b"x")) == [1002]


class TestLimits:
    def test_a_message_of_just_the_limit_passes(self) -> None:
        assert three_ways(frame(TEXT, b"x" * 10), message=10) == ["x" * 10]
        data = frame(TEXT, b"x" * 6, fin=False) + frame(CONTINUATION, b"x" * 4)
        assert three_ways(data * 2, message=10) == ["x" * 10] * 2

    def test_a_byte_more_is_refused_by_the_head_alone(self) -> None:
        assert three_ways(frame(TEXT, b"x" * 11)[:2], message=10) == [1009]
        data = frame(TEXT, b"x" * 6, fin=False) + frame(CONTINUATION, b"x" * 5)[:2]
        assert three_ways(data, message=10) == [1009]

    def test_control_frames_do_not_count_as_the_message(self) -> None:
        data = frame(TEXT, b"x" * 10, fin=False) + frame(PING, bytes(20)) + frame(CONTINUATION)
        assert three_ways(data, message=10) == [Ping(bytes(20)), "x" * 10]

    def test_fragments_are_counted(self) -> None:
        def pieces(count: int) -> bytes:
            return frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * (count - 2) + frame(CONTINUATION)

        assert three_ways(pieces(5) * 2, fragments=5) == ["", ""]
        assert three_ways(pieces(6), fragments=5) == [1008]

    def test_a_flood_of_100_000_empty_fragments_is_cut_short(self) -> None:
        decoder = server_decoder()
        flood = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 100_000
        assert events(decoder, flood) == [1008]

    def test_what_is_held_is_what_has_arrived(self) -> None:
        decoder = server_decoder()
        decoder.feed(frame(BINARY, bytes(1 << 20))[:14])
        assert decoder.next_event() is None
        assert len(decoder._data) == 14

    def test_a_frame_byte_by_byte_costs_no_more_than_whole(self) -> None:
        """Each byte would otherwise copy all before it: 2**39 bytes for this frame."""
        decoder = server_decoder()
        data = frame(BINARY, bytes(1 << 20))
        fed = 0
        for at in range(len(data)):
            decoder.feed(data[at : at + 1])
            if (event := decoder.next_event()) is not None:
                fed = at + 1
        assert (fed, event) == (len(data), bytes(1 << 20))

    @pytest.mark.parametrize("name", ["message", "fragments", "control_frames"])
    def test_a_limit_of_nothing_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=name):
            WebSocketLimits(**{name: 0})


class TestEncoder:
    def test_kinds_of_messages(self) -> None:
        encoder = Encoder()
        assert encoder.message(b"ab") == encoder.message(bytearray(b"ab")) == encoder.message(memoryview(b"ab"))
        with pytest.raises(TypeError, match="str or bytes"):
            encoder.message(5)  # type: ignore[arg-type]

    def test_what_utf_8_cannot_hold_is_refused(self) -> None:
        with pytest.raises(LocalProtocolError, match="UTF-8"):
            Encoder().message("\ud800")

    def test_control_frames_are_at_most_125_bytes(self) -> None:
        assert Encoder().pong(bytes(125)) == bytes.fromhex("8a7d") + bytes(125)
        with pytest.raises(LocalProtocolError, match="126 bytes"):
            Encoder().ping(bytes(126))

    def test_close_codes_that_may_not_be_sent_are_refused(self) -> None:
        for code in (0, 999, 1004, 1006, 1015, 2999, 5000, 1 << 20, -1):
            with pytest.raises(LocalProtocolError, match="may not be sent"):
                Encoder().close(code)
        with pytest.raises(LocalProtocolError, match="may not be sent"):
            Encoder().close(CloseCode.NO_CODE, "a reason")
        with pytest.raises(LocalProtocolError, match="124 bytes"):
            Encoder().close(1000, "ü" * 62)


# Properties

codes = st.one_of(st.sampled_from([1000, 1001, 1002, 1003, *range(1007, 1015)]), st.integers(3000, 4999))
reasons = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)  # four bytes at most for each
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
messages = st.one_of(texts, st.binary(max_size=300), st.integers(65530, 65540).map(bytes))


@given(messages, st.booleans(), st.binary(min_size=4, max_size=4))
def test_what_is_encoded_decodes_to_the_same(message: str | bytes, from_client: bool, key: bytes) -> None:
    encoder = Encoder(mask_key=(lambda: key) if from_client else None)
    decoder = Decoder(WebSocketLimits(), from_client=from_client)
    assert events(decoder, encoder.message(message)) == [message]


@given(codes, reasons)
def test_a_close_decodes_to_the_same(code: int, reason: str) -> None:
    decoder = Decoder(WebSocketLimits(), from_client=False)
    assert events(decoder, Encoder().close(code, reason)) == [Close(code, reason)]


frames = st.builds(
    frame,
    st.sampled_from([0, 0, 0, 1, 1, 2, 2, 8, 9, 10, 3]),
    st.one_of(st.just(b""), st.binary(max_size=140), texts.map(str.encode)),
    fin=st.booleans(),
    rsv=st.sampled_from([0] * 20 + [1, 2, 4]),
    key=st.sampled_from([KEY] * 20 + [None]),
    form=st.sampled_from([0] * 20 + [2, 8]),
)


@given(st.lists(frames, max_size=12).map(b"".join), st.lists(st.integers(1, 200), max_size=40))
def test_any_chunking_gives_the_same_events(data: bytes, cuts: list[int]) -> None:
    places = [0, *itertools.takewhile(lambda at: at < len(data), itertools.accumulate(cuts)), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    assert events(server_decoder(), *pieces) == events(server_decoder(), data)


@given(st.binary(max_size=400), st.booleans())
def test_no_input_raises_anything_but_a_protocol_error(data: bytes, from_client: bool) -> None:
    found = events(Decoder(WebSocketLimits(), from_client=from_client), data)
    assert all(may_be_sent(code) for code in found if isinstance(code, int))


@given(st.binary(max_size=5000), st.binary(min_size=4, max_size=4))
def test_every_way_of_masking_does_the_same(data: bytes, key: bytes) -> None:
    expected = bytes(byte ^ key[place % 4] for place, byte in enumerate(data))
    assert apply_mask(data, key) == expected
    assert apply_mask_in_python(data, key) == expected
    assert apply_mask_in_python(bytearray(expected), key) == data


def test_long_payloads_are_masked_in_python_too() -> None:
    data = bytes(range(256)) * 20
    assert apply_mask_in_python(apply_mask_in_python(data, KEY), KEY) == data
    assert apply_mask_in_python(data, KEY) == apply_mask(data, KEY)
