"""The formats of the echo family, byte by byte."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.echo.wire import (
    CHARGEN_LINES,
    MAX_DAYTIME,
    format_daytime,
    format_time,
    parse_chargen_line,
    parse_daytime,
    parse_time,
)
from asyncnet.errors import LocalProtocolError, RemoteProtocolError

UTC = datetime.UTC


def test_chargen_begins_as_in_the_rfc_and_turns_by_one_character_a_line() -> None:
    assert CHARGEN_LINES[0] == b" !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefg\r\n"
    assert CHARGEN_LINES[1] == b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefgh\r\n"
    assert CHARGEN_LINES[94] == b"~ !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdef\r\n"
    assert {len(line) for line in CHARGEN_LINES} == {74}
    assert len(CHARGEN_LINES) == 95


def test_every_line_of_chargen_is_known_by_its_number() -> None:
    assert [parse_chargen_line(line) for line in CHARGEN_LINES] == list(range(95))


@given(st.binary(max_size=100) | st.sampled_from(CHARGEN_LINES).map(lambda line: line[:-2]))
def test_what_is_no_line_of_chargen_is_refused(data: bytes) -> None:
    if data not in CHARGEN_LINES:
        with pytest.raises(RemoteProtocolError):
            parse_chargen_line(data)


def test_a_daytime_is_a_date_and_time_of_rfc_3339_with_its_zone() -> None:
    moment = datetime.datetime(1982, 2, 22, 17, 37, 43, 999_999, tzinfo=UTC)
    assert format_daytime(moment) == b"1982-02-22T17:37:43+00:00\r\n"
    pst = moment.astimezone(datetime.timezone(datetime.timedelta(hours=-8)))
    assert format_daytime(pst) == b"1982-02-22T09:37:43-08:00\r\n"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"Tuesday, February 22, 1982 17:37:43-PST\r\n", "Tuesday, February 22, 1982 17:37:43-PST"),
        (b"\n59999 23-02-24 01:02:03 00 0 0 700.0 UTC(NIST) * \n", "59999 23-02-24 01:02:03 00 0 0 700.0 UTC(NIST) * "),
        (b"noon", "noon"),
    ],
)
def test_a_daytime_is_taken_in_the_form_that_a_server_chooses(data: bytes, text: str) -> None:
    assert parse_daytime(data) == text


@pytest.mark.parametrize("data", [b"", b"\r\n", b"a\r\nb\r\n", b"\x1b[2J", b"caf\xc3\xa9", b"x" * (MAX_DAYTIME + 1)])
def test_what_is_no_line_of_printable_ascii_is_no_daytime(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_daytime(data)


# RFC 868, page 2: the examples of the RFC itself.
@pytest.mark.parametrize(
    ("year", "month", "day", "seconds"),
    [
        (1970, 1, 1, 2_208_988_800),
        (1976, 1, 1, 2_398_291_200),
        (1980, 1, 1, 2_524_521_600),
        (1983, 5, 1, 2_629_584_000),
    ],
)
def test_a_time_is_the_seconds_since_1900(year: int, month: int, day: int, seconds: int) -> None:
    moment = datetime.datetime(year, month, day, tzinfo=UTC)
    assert format_time(moment) == seconds.to_bytes(4, "big")
    assert parse_time(seconds.to_bytes(4, "big")) == moment


def test_the_seconds_begin_again_in_2036_and_are_still_understood() -> None:
    last = datetime.datetime(2036, 2, 7, 6, 28, 15, tzinfo=UTC)
    first = datetime.datetime(2036, 2, 7, 6, 28, 16, tzinfo=UTC)
    assert (format_time(last), format_time(first)) == (b"\xff\xff\xff\xff", b"\0\0\0\0")
    assert (parse_time(b"\xff\xff\xff\xff"), parse_time(b"\0\0\0\0")) == (last, first)


@given(
    st.datetimes(datetime.datetime(1968, 1, 20, 3, 14, 8), datetime.datetime(2104, 2, 26, 9, 42, 23)).map(
        lambda moment: moment.replace(tzinfo=UTC)
    )
)
def test_a_time_from_1968_to_2104_comes_back_to_the_second(moment: datetime.datetime) -> None:
    assert parse_time(format_time(moment)) == moment.replace(microsecond=0)


@given(st.binary(max_size=8).filter(lambda data: len(data) != 4))
def test_a_time_has_four_bytes(data: bytes) -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        parse_time(data)


def test_a_moment_without_a_zone_is_not_sent() -> None:
    for send in (format_time, format_daytime):
        with pytest.raises(LocalProtocolError, match="no time zone"):
            send(datetime.datetime(2026, 7, 1))
