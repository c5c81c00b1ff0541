"""The lines of LIST, NLST and MLSD, the lines of TYPE A, and the transfer log."""

from __future__ import annotations

import calendar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.ftp.ascii import FromNetwork, network_size, to_network
from asyncnet.ftp.listing import fact_line, long_line, name_line
from asyncnet.ftp.storage import Entry, Status
from asyncnet.ftp.transfer_log import xferlog_line

NOW = calendar.timegm((2026, 11, 25, 12, 0, 0))


@pytest.mark.parametrize(
    ("modified", "shown"),
    [
        (NOW, "Nov 25 12:00"),
        (NOW - 100 * 86400, "Aug 17 12:00"),
        (NOW - 200 * 86400, "May  9  2026"),
        (NOW + 86400, "Nov 26  2026"),
        (0, "Jan  1  1970"),
        (-1.5, "Dec 31  1969"),
        (1e18, "Jan  1  1970"),
        (981173106.9, "Feb  3  2001"),
    ],
)
def test_a_long_line_has_the_time_or_the_year(modified: float, shown: str) -> None:
    line = long_line(Entry("a b", Status(False, 5, modified)), NOW)
    assert line == f"-rw-r--r--   1 ftp      ftp                 5 {shown} a b\r\n".encode()


def test_a_folder_has_its_letter() -> None:
    assert long_line(Entry("f", Status(True, 0, NOW, 0o750)), NOW).startswith(b"drwxr-x--- ")


@given(st.text())
def test_whatever_the_name_a_line_is_one_line(name: str) -> None:
    entry = Entry(name.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"), Status(False, 1, NOW))
    for line in (long_line(entry, NOW), name_line(entry.name), fact_line(entry, ["type"], "")):
        assert line.endswith(b"\r\n")
        assert not {b"\r"[0], b"\n"[0], 0} & set(line[:-2])


@given(st.binary(), st.lists(st.integers(0, 50)))
def test_lines_of_type_a_come_back_as_they_were_however_they_are_cut(content: bytes, cuts: list[int]) -> None:
    sent = to_network(content)
    assert len(sent) == network_size(content)
    lines = FromNetwork()
    received = b""
    for cut in cuts:
        received += lines.feed(sent[:cut])
        sent = sent[cut:]
    assert received + lines.feed(sent) + lines.end() == content


def test_a_name_forges_no_line_of_the_transfer_log() -> None:
    line = xferlog_line(
        now=NOW,
        seconds=0.2,
        host="192.0.2.1",
        size=7,
        path="/a b\nforged\x1b[31m",
        is_ascii=False,
        direction="i",
        user="an na",
        is_anonymous=False,
        is_complete=False,
    )
    assert line.split(" ", 5)[5] == "1 192.0.2.1 7 /a_b_forged_[31m b _ i r an_na ftp 0 * i"
