"""The content behind DATA: its dots, its end, and what is none. The names of the attacks are SMTP smuggling's."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import LocalProtocolError
from asyncnet.smtp.content import DataDecoder, DataEncoder, Fault, LineCheck

CUTS = st.lists(st.integers(0, 60), max_size=5)
# Whatever can be confused with an end is made of these.
TRICKY = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"a", b"\0", b"MAIL"]), max_size=40).map(
    b"".join
)
LINES = st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a", b"a.", b"\xff\0"]), max_size=20)
CONTENTS = LINES.map(lambda lines: b"\r\n".join(lines))


def cut_up(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in pieces, none of which is empty."""
    places = [0, *sorted(cuts), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(places) if data[begin:end]]


def has_bare(data: bytes) -> bool:
    """Whether a CR or LF in it stands alone."""
    return bool(set(data.replace(b"\r\n", b"")) & set(b"\r\n"))


def decoded(pieces: list[bytes], **options: int) -> tuple[bytes, bytes | None, Fault | None]:
    """The content, what came behind its end (None: it has not come), and what is wrong."""
    decoder, content = DataDecoder(**options), b""
    for index, piece in enumerate(pieces):
        content += decoder.feed(piece)
        if decoder.is_complete:
            return content, decoder.rest + b"".join(pieces[index + 1 :]), decoder.fault
    return content, None, decoder.fault


def in_all_ways(data: bytes, **options: int) -> tuple[bytes, bytes | None, Fault | None]:
    """The same, checked to be the same whole, byte by byte, and cut in two anywhere."""
    whole = decoded([data], **options)
    assert decoded([data[i : i + 1] for i in range(len(data))], **options) == whole
    for cut in range(1, len(data)):
        assert decoded([data[:cut], data[cut:]], **options) == whole
    return whole


@pytest.mark.parametrize(
    ("sent", "content"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"a\r\n..\r\n.\r\n", b"a\r\n.\r\n"),
        (b"a\r\n..b\r\n...c\r\n.\r\n", b"a\r\n.b\r\n..c\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),  # a dot in front of something else is no end (RFC 5321 section 4.5.2)
        (b"a.\r\n.b\r\nc\r\n.\r\n", b"a.\r\nb\r\nc\r\n"),
    ],
)
def test_dots_are_taken_away_and_the_end_is_found(sent: bytes, content: bytes) -> None:
    assert in_all_ways(sent) == (content, b"", None)
    assert in_all_ways(sent + b"QUIT\r\n") == (content, b"QUIT\r\n", None)


@pytest.mark.parametrize(
    "fake",
    [
        *(b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\n.\r", b"\r.\n", b"\r\n.\n", b"\r\n.\r", b"\r\n.\r\r\n"),
        *(b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\0\n.\r\n", b"\n\n.\r\n", b"\r\r\n.\n"),
    ],
)
def test_what_looks_like_an_end_is_none(fake: bytes) -> None:
    smuggled = b"MAIL FROM:<admin@example.org>\r\n"
    content, rest, fault = in_all_ways(b"a" + fake + smuggled + b"b\r\n.\r\nQUIT\r\n")
    assert rest == b"QUIT\r\n"  # the true end is found, so that the reply comes in step
    assert smuggled in content
    assert fault is Fault.BARE_LINE_END or b"\0" in fake


@pytest.mark.parametrize("fake", [b"\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n"])
def test_and_not_for_those_either_whose_line_ends_are_normalised(fake: bytes) -> None:
    content, rest, fault = in_all_ways(b"a" + fake + b"b\n..c\rd\r\n.\r\nQUIT\r\n", normalises=True)
    assert (rest, fault) == (b"QUIT\r\n", None)
    assert content == b"a\r\n\r\nb\r\n.c\r\nd\r\n"


@given(TRICKY, st.booleans(), CUTS)
def test_any_chunking_gives_the_same(data: bytes, normalises: bool, cuts: list[int]) -> None:
    sent = data + b"\r\n.\r\n"
    content, rest, fault = in_all_ways(sent, normalises=normalises)
    assert decoded(cut_up(sent, cuts), normalises=normalises) == (content, rest, fault)
    before, _, behind = (b"\r\n" + sent).partition(b"\r\n.\r\n")
    assert rest == behind
    if normalises or not has_bare(before):
        assert fault is None
        assert not has_bare(content)
    else:
        assert fault is Fault.BARE_LINE_END


@given(CONTENTS, CUTS)
def test_what_is_sent_is_received(content: bytes, cuts: list[int]) -> None:
    encoder = DataEncoder()
    sent = b"".join(encoder.feed(piece) for piece in cut_up(content, cuts))
    sent += encoder.finish()
    expected = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    assert in_all_ways(sent + b"RSET\r\n") == (expected, b"RSET\r\n", None)
    assert sent.count(b"\r\n.\r\n") == (0 if sent == b".\r\n" else 1)


@given(TRICKY, CUTS)
def test_a_bare_line_end_is_never_sent(content: bytes, cuts: list[int]) -> None:
    encoder = DataEncoder()
    is_clean = not has_bare(content)
    sent = b""
    try:
        for piece in cut_up(content, cuts):
            sent += encoder.feed(piece)
        sent += encoder.finish()
        assert is_clean
    except LocalProtocolError:
        assert not is_clean
    assert not has_bare(sent)


class TestLines:
    def test_a_line_has_a_bound_however_it_comes(self) -> None:
        for length, fault in ((8, None), (9, Fault.LONG_LINE)):
            line = b"a" * length + b"\r\n"
            for data in (line, b"b\r\n" + line, line + b"b\r\n", b"bbbbbbbb\r\n" * 5 + line):
                assert in_all_ways(data + b".\r\n", line_limit=10) == (data, b"", fault)

    def test_a_line_without_an_end_is_told_of_when_it_is_too_long(self) -> None:
        check = LineCheck(10)
        check.feed(b"b\r\naaaaa")
        check.feed(b"aaaaa")
        assert check.fault is None
        check.feed(b"a")
        assert check.fault is Fault.LONG_LINE

    @given(TRICKY, CUTS)
    def test_bare_line_ends_are_seen_however_they_come(self, data: bytes, cuts: list[int]) -> None:
        check = LineCheck()
        for piece in cut_up(data, cuts):
            check.feed(piece)
        check.finish()
        assert (check.fault is not None) == has_bare(data)
