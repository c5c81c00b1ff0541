"""permessage-deflate: RFC 7692."""

from __future__ import annotations

import os
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.http.websocket.deflate import (
    NAME,
    DeflateAgreement,
    DeflateSettings,
    Extension,
    Inflater,
    TooLarge,
    accept_offer,
    make_offer,
    read_answer,
)
from asyncnet.http.websocket.handshake import read_extensions
from asyncnet.http.websocket.limits import WebSocketLimits
from asyncnet.http.websocket.wire import RSV1, Decoder, Encoder, Ping
from tests.http.websocket.frames import BINARY, CONTINUATION, PING, TEXT, events, frame

SETTINGS = DeflateSettings()
BOTH = DeflateAgreement(15, True, 15, True, SETTINGS)


def decoder(agreement: DeflateAgreement = BOTH, **limits: int) -> Decoder:
    return Decoder(WebSocketLimits(**limits), from_client=True, inflater=agreement.inflater())


def deflated(data: bytes, *, tail: int = 4) -> bytes:
    compressor = zlib.compressobj(9, wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-tail]


def agree(header: str, settings: DeflateSettings = SETTINGS) -> str | None:
    """What a server answers to an offer."""
    offers = read_extensions(header)
    assert offers is not None
    agreement = accept_offer(offers, settings)
    return None if agreement is None else agreement.header


class TestNegotiation:
    @pytest.mark.parametrize(
        ("offer", "answer"),
        [
            ("permessage-deflate", "permessage-deflate; server_max_window_bits=12"),
            # as Chrome and Firefox have it
            (
                "permessage-deflate; client_max_window_bits",
                "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
            ),
            (
                "permessage-deflate; client_max_window_bits=10; server_max_window_bits=9",
                "permessage-deflate; server_max_window_bits=9; client_max_window_bits=10",
            ),
            (
                'permessage-deflate; client_max_window_bits="10"',
                "permessage-deflate; server_max_window_bits=12; client_max_window_bits=10",
            ),
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12",
            ),
            ("permessage-deflate; client_max_window_bits=8", None),
        ],
    )
    def test_offers_are_answered(self, offer: str, answer: str | None) -> None:
        if answer is None:
            assert (agree(offer) or "").endswith("client_max_window_bits=8")  # zlib inflates that
        else:
            assert agree(offer) == answer

    def test_a_window_that_zlib_cannot_make_is_declined_and_the_next_offer_taken(self) -> None:
        assert agree("permessage-deflate; server_max_window_bits=8") is None
        both = "permessage-deflate; server_max_window_bits=8, permessage-deflate"
        assert agree(both) == "permessage-deflate; server_max_window_bits=12"

    @pytest.mark.parametrize(
        "offer",
        [
            "x-webkit-deflate-frame",
            "permessage-bzip2",
            "permessage-deflate; unknown",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=9",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; client_max_window_bits=0",
            "permessage-deflate; client_max_window_bits=99999999999999999999",
        ],
    )
    def test_offers_that_no_rule_allows_are_declined(self, offer: str) -> None:
        assert agree(offer) is None
        assert agree(f"{offer}, permessage-deflate") is not None

    @pytest.mark.parametrize(
        ("answer", "own_bits", "peer_bits"),
        [
            ("permessage-deflate", 12, 15),
            ("permessage-deflate; client_max_window_bits=10; server_max_window_bits=11", 10, 11),
            ("permessage-deflate; client_max_window_bits=15", 12, 15),
        ],
    )
    def test_a_client_reads_the_answer(self, answer: str, own_bits: int, peer_bits: int) -> None:
        (extension,) = read_extensions(answer) or ()
        agreement = read_answer(extension, SETTINGS)
        assert agreement is not None
        assert (agreement.own_bits, agreement.peer_bits) == (own_bits, peer_bits)

    def test_a_client_sends_uncompressed_where_zlib_has_no_such_window(self) -> None:
        agreement = read_answer(Extension(NAME, (("client_max_window_bits", "8"),)), SETTINGS)
        assert agreement is not None
        assert agreement.deflater() is None

    @pytest.mark.parametrize(
        "answer",
        [
            "permessage-bzip2",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; nonsense",
        ],
    )
    def test_a_client_refuses_an_answer_that_fits_no_offer(self, answer: str) -> None:
        (extension,) = read_extensions(answer) or ()
        assert read_answer(extension, SETTINGS) is None

    def test_a_client_that_asked_for_no_takeover_insists(self) -> None:
        settings = DeflateSettings(context_takeover=False)
        assert "server_no_context_takeover" in make_offer(settings)
        assert read_answer(Extension(NAME, ()), settings) is None
        answer = agree(make_offer(settings))
        assert answer is not None
        (extension,) = read_extensions(answer) or ()
        assert read_answer(extension, settings) is not None

    @pytest.mark.parametrize("options", [{"window_bits": 8}, {"window_bits": 16}, {"memory_level": 0}, {"least": 0}])
    def test_settings_that_zlib_has_not_are_refused(self, options: dict[str, int]) -> None:
        with pytest.raises(ValueError, match=next(iter(options))):
            DeflateSettings(**options)


class TestMessages:
    def test_the_examples_of_the_rfc(self) -> None:
        """RFC 7692 section 7.2.3."""
        hello = bytes.fromhex("f248cdc9c90700")
        for data in (
            frame(TEXT, hello, rsv=4),
            frame(TEXT, hello[:3], rsv=4, fin=False) + frame(CONTINUATION, hello[3:]),
            frame(TEXT, bytes.fromhex("000500faff48656c6c6f00"), rsv=4),  # a block without compression
            frame(TEXT, bytes.fromhex("f348cdc9c9070000"), rsv=4),  # a final block
            frame(TEXT, bytes.fromhex("f248050000 00ffff cac9c90700"), rsv=4),  # two blocks
        ):
            assert events(decoder(), data) == ["Hello"]
        # with context takeover the second message refers to the first
        again = bytes.fromhex("f200110000")
        assert events(decoder(), frame(TEXT, hello, rsv=4), frame(TEXT, again, rsv=4)) == ["Hello", "Hello"]
        # after a final block a new stream begins
        final = frame(TEXT, bytes.fromhex("f348cdc9c9070000"), rsv=4)
        assert events(decoder(), final, final) == ["Hello", "Hello"]

    def test_without_takeover_a_message_cannot_refer_to_the_last(self) -> None:
        agreement = BOTH._replace(peer_takeover=False)
        hello, again = bytes.fromhex("f248cdc9c90700"), bytes.fromhex("f200110000")
        found = events(decoder(agreement), frame(TEXT, hello, rsv=4), frame(TEXT, again, rsv=4))
        assert found == ["Hello", 1007]

    def test_uncompressed_messages_may_come_between(self) -> None:
        data = frame(TEXT, b"a") + frame(TEXT, deflated(b"bb"), rsv=4) + frame(BINARY, b"c")
        assert events(decoder(), data) == ["a", "bb", b"c"]

    def test_control_frames_are_never_compressed(self) -> None:
        assert events(decoder(), frame(PING, deflated(b"x"), rsv=4)) == [1002]
        compressed = deflated(b"hello hello hello")
        data = frame(TEXT, compressed[:4], rsv=4, fin=False) + frame(PING, b"?") + frame(CONTINUATION, compressed[4:])
        assert events(decoder(), data) == [Ping(b"?"), "hello hello hello"]

    def test_only_the_first_frame_is_marked(self) -> None:
        data = frame(TEXT, b"", rsv=4, fin=False) + frame(CONTINUATION, deflated(b"x"), rsv=4)
        assert events(decoder(), data) == [1002]

    def test_the_mark_is_refused_where_nothing_was_agreed(self) -> None:
        plain = Decoder(WebSocketLimits(), from_client=True)
        assert events(plain, frame(TEXT, deflated(b"x"), rsv=4)) == [1002]

    @pytest.mark.parametrize(
        "payload", [b"\xff\xff\xff", b"\x06\x00", bytes.fromhex("f348cdc9c9070000") + b"more", deflated(b"x")[1:]]
    )
    def test_what_is_no_compressed_data_is_refused(self, payload: bytes) -> None:
        assert events(decoder(), frame(BINARY, payload, rsv=4)) == [1007]

    def test_nothing_comes_behind_a_final_block(self) -> None:
        """A final block for each two bytes would mean a new decompressor for each."""
        assert events(decoder(), frame(BINARY, b"\x03\x00" * 50_000, rsv=4)) == [1007]
        data = frame(BINARY, b"\x03\x00", rsv=4, fin=False) + frame(CONTINUATION, b"\x03\x00")
        assert events(decoder(), data) == [1007]

    def test_a_window_of_8_bits_inflates_what_zlib_makes_of_it(self) -> None:
        """A zlib that is told 8 bits takes 9, and yet refers back by 250 bytes at most: by less than was agreed."""
        data = os.urandom(250)
        compressor = zlib.compressobj(9, wbits=-9)
        compressed = compressor.compress(data * 4) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert len(compressed) < 500
        agreement = BOTH._replace(peer_bits=8)
        assert events(decoder(agreement), frame(BINARY, compressed[:-4], rsv=4)) == [data * 4]

    def test_compressed_text_is_checked_after_inflating(self) -> None:
        assert events(decoder(), frame(TEXT, deflated(b"\xff"), rsv=4)) == [1007]

    def test_short_messages_are_not_compressed(self) -> None:
        encoder = Encoder(deflater=BOTH.deflater())
        assert not encoder.message(b"x" * 63)[0] & RSV1
        assert encoder.message(b"x" * 64)[0] & RSV1

    def test_incompressible_data_of_just_the_limit_passes(self) -> None:
        data = os.urandom(100_000)
        encoder = Encoder(mask_key=lambda: b"abcd", deflater=BOTH.deflater())
        assert events(decoder(message=100_000), encoder.message(data)) == [data]
        assert events(decoder(message=99_999), encoder.message(data)) == [1009]


class TestBombs:
    def test_a_gigabyte_of_zeros_never_inflates_past_the_limit(self) -> None:
        compressor = zlib.compressobj(9, wbits=-15)
        block = compressor.compress(bytes(1 << 20))
        block += compressor.flush(zlib.Z_FULL_FLUSH)
        second = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
        bomb = block + second * 1023
        assert len(bomb) < 1_200_000
        tracemalloc.start()
        try:
            found = events(decoder(message=1 << 21), frame(BINARY, bomb, rsv=4))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert found == [1009]
        assert peak < 16 << 20

    def test_a_bomb_in_fragments_is_counted_as_a_whole(self) -> None:
        data = frame(BINARY, deflated(bytes(600))[:-1], rsv=4, fin=False)
        assert events(decoder(message=1000), data) == []
        bomb = deflated(bytes(100_000))
        data = b"".join(
            frame(CONTINUATION if at else BINARY, bomb[at : at + 1], rsv=0 if at else 4, fin=False)
            for at in range(len(bomb))
        )
        assert events(decoder(message=1000), data) == [1009]

    def test_bombs_behind_each_other_are_inflated_one_at_a_time(self) -> None:
        one = frame(BINARY, deflated(bytes(1 << 20)), rsv=4)
        target = decoder(BOTH._replace(peer_takeover=False))
        target.feed(one * 40)
        tracemalloc.start()
        try:
            for _ in range(40):
                assert len(target.next_event() or b"") == 1 << 20
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 8 << 20

    def test_the_limit_holds_to_the_byte(self) -> None:
        for size in (999, 1000):
            assert Inflater(BOTH).inflate(deflated(bytes(size)), final=True, room=1000) == bytes(size)
        with pytest.raises(TooLarge):
            Inflater(BOTH).inflate(deflated(bytes(1001)), final=True, room=1000)


messages = st.lists(
    st.one_of(st.text(max_size=400), st.binary(max_size=400)).map(
        lambda message: message.encode("utf-8", "replace").decode() if isinstance(message, str) else message
    ),
    max_size=6,
)


@given(messages, st.integers(9, 15), st.booleans(), st.integers(1, 9), st.integers(1, 100))
def test_what_is_compressed_inflates_to_the_same(
    messages: list[str | bytes], bits: int, takeover: bool, level: int, least: int
) -> None:
    settings = DeflateSettings(window_bits=bits, memory_level=level, least=least)
    agreement = DeflateAgreement(bits, takeover, bits, takeover, settings)
    encoder = Encoder(mask_key=lambda: b"abcd", deflater=agreement.deflater())
    data = b"".join(map(encoder.message, messages))
    assert events(decoder(agreement), data) == messages
    assert events(decoder(agreement), *(data[at : at + 1] for at in range(len(data)))) == messages


@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_compressed_input_raises_anything_but_a_protocol_error(payload: bytes, cut: int) -> None:
    events(decoder(), frame(BINARY, payload[:cut], rsv=4, fin=False) + frame(CONTINUATION, payload[cut:]))
