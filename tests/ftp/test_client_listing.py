"""Listings of servers, as the client reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import RemoteProtocolError
from asyncnet.ftp.client_listing import (
    EntryKind,
    RemoteEntry,
    is_safe_name,
    is_self_or_parent,
    parse_facts,
    parse_list_line,
)
from asyncnet.ftp.wire import parse_time

NOW = parse_time("20261125120000")
FILE, FOLDER, LINK, OTHER = EntryKind


def read(line: str) -> RemoteEntry:
    entry = parse_list_line(line, NOW)
    assert entry is not None
    return entry


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        # vsftpd, proftpd, pure-ftpd, pyftpdlib, and what others send
        (
            "-rw-r--r--    1 1000     1000         6000 Sep 13 12:26 a file.txt",
            RemoteEntry("a file.txt", FILE, 6000, parse_time("20260913122600"), mode=0o644),
        ),
        (
            "drwxr-xr-x   2 ftp      ftp          4096 Sep 13  2020 sub folder",
            RemoteEntry("sub folder", FOLDER, None, parse_time("20200913000000"), mode=0o755),
        ),
        (
            "lrwxrwxrwx   1 0        0               5 Nov 25 00:05 link -> large",
            RemoteEntry("link", LINK, None, parse_time("20261125000500"), mode=0o777, target="large"),
        ),
        (
            "lrwxrwxrwx   1 0        0               5 Nov 25 00:05 nowhere",
            RemoteEntry("nowhere", LINK, None, parse_time("20261125000500"), mode=0o777),
        ),
        (
            "-rwsr-sr-t+  1 domain users staff with blanks 12 Feb 29  2024  a -> b",
            RemoteEntry(" a -> b", FILE, 12, parse_time("20240229000000"), mode=0o7755),
        ),
        (
            "-rwSr-Sr-T.  1 0 0 99999999999 Jan  1 00:00 big",
            RemoteEntry("big", FILE, 99999999999, parse_time("20260101000000"), mode=0o7644),
        ),
        (
            "crw-rw-rw-   1 root root       1,   3 Nov 25 00:05 null",
            RemoteEntry("null", OTHER, None, parse_time("20261125000500"), mode=0o666),
        ),
        (
            "srwxrwxrwx   1 root root            0 Nov 25 00:05 socket",
            RemoteEntry("socket", OTHER, None, parse_time("20261125000500"), mode=0o777),
        ),
        (
            "-rw-r--r--   1 user 100 Dec 24 18:00 last year",  # no group
            RemoteEntry("last year", FILE, 100, parse_time("20251224180000"), mode=0o644),
        ),
        (
            "-rw-r--r-- 1 owner group 15 2020-09-13 12:26 iso",
            RemoteEntry("iso", FILE, 15, parse_time("20200913122600"), mode=0o644),
        ),
        (
            "-rw-r--r--   1 u g 3 Nov 26 11:00 a clock that is ahead",
            RemoteEntry("a clock that is ahead", FILE, 3, parse_time("20261126110000"), mode=0o644),
        ),
        # IIS, and others on Windows
        (
            "11-25-26  09:41PM       <DIR>          a folder",
            RemoteEntry("a folder", FOLDER, None, parse_time("20261125214100")),
        ),
        ("11-25-26  12:01AM                 1234 file", RemoteEntry("file", FILE, 1234, parse_time("20261125000100"))),
        ("11-25-2026  21:41                1,234 file", RemoteEntry("file", FILE, 1234, parse_time("20261125214100"))),
        ("01-02-99  12:30PM                    0  x ", RemoteEntry(" x ", FILE, 0, parse_time("19990102123000"))),
        (
            "01-02-20  12:30PM       <JUNCTION>     x [c:\\y]",
            RemoteEntry("x", LINK, None, parse_time("20200102123000"), target="c:\\y"),
        ),
    ],
)
def test_a_line_of_list_is_read(line: str, entry: RemoteEntry) -> None:
    assert read(line) == entry


def test_29_february_without_a_year_is_that_of_a_leap_year() -> None:
    assert read("-rw-r--r-- 1 u g 3 Feb 29 11:00 a").modified == parse_time("20240229110000")


@pytest.mark.parametrize("line", ["", "   ", "total 0", "total 12", "total 1,2", "Total 4.0K"])
def test_what_stands_between_entries_is_left_out(line: str) -> None:
    assert parse_list_line(line, NOW) is None


@pytest.mark.parametrize(
    "line",
    [
        "ls: cannot open directory: Permission denied",
        "-rw-r--r-- 1 u g 3 Feb 30 2024 a",
        "-rw-r--r-- 1 u g 3 Foo 20 2024 a",
        "-rw-r--r-- 1 u g 3 Jan 20 25:00 a",
        "-rw-r--r-- 1 u g 3 Jan 20 2024 ",
        "lrwxrwxrwx 1 u g 3 Jan 20 2024  -> x",
        "-rw-r--r-- 1 u g x Jan 20 2024 a",
        "-rw-r--r-- 1 u g 12345678901234567890 Jan 20 2024 a",
        "13-25-26  09:41PM       <DIR>          a",
        "11-25-26  09:41PM                 99999999999999999999 a",
        "x" * 10_000,
    ],
)
def test_a_line_that_cannot_be_understood_is_no_silence(line: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_list_line(line, NOW)


@pytest.mark.parametrize(
    "line", ["-rw-r--r-- " + "1 " * 4000, "-rw-r--r-- " + " " * 8000, "-rw-r--r-- " + "1" * 8000, "1" * 8000]
)
def test_a_hostile_line_costs_no_more_than_its_length(line: str) -> None:
    for _ in range(200):  # were it the square of the length, this would last minutes
        with pytest.raises(RemoteProtocolError):
            parse_list_line(line, NOW)


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        (
            "type=file;size=12;modify=20200913122640;UNIX.mode=0644; a file",
            RemoteEntry("a file", FILE, 12, 1_600_000_000.0, is_exact=True, mode=0o644),
        ),
        ("Type=dir;Modify=20200913122640.250;  x", RemoteEntry(" x", FOLDER, None, 1_600_000_000.25, is_exact=True)),
        ("type=OS.unix=slink:/a b; link", RemoteEntry("link", LINK, target="/a b")),
        ("type=OS.unix=slink:/a;b; link", None),
        ("type=OS.unix=symlink; link", RemoteEntry("link", LINK)),
        ("type=OS.unix=chr-1/3; null", RemoteEntry("null", OTHER)),
        ("size=5; x", RemoteEntry("x", OTHER, 5)),
        ("type=file;size=1;size=2; x", RemoteEntry("x", FILE, 1)),
        (" only a name", RemoteEntry("only a name", OTHER)),
        ("type=file; ", None),
        ("type=file;", None),
        ("type=file x", None),
        ("type; x", None),
        ("type=file;size=-1; x", None),
        ("type=file;size=99999999999999999999; x", None),
        ("type=file;modify=2020; x", None),
        ("", None),
    ],
)
def test_an_entry_of_facts_is_read_or_refused(line: str, entry: RemoteEntry | None) -> None:
    if entry is None:
        with pytest.raises(RemoteProtocolError):
            parse_facts(line)
        return
    found = parse_facts(line)
    assert (
        RemoteEntry(found.name, found.kind, found.size, found.modified, found.is_exact, found.mode, found.target)
        == entry
    )


def test_the_folder_itself_and_the_one_above_are_known() -> None:
    assert is_self_or_parent(parse_facts("type=cdir; /pub"))
    assert is_self_or_parent(parse_facts("type=pdir; /"))
    assert is_self_or_parent(read("drwxr-xr-x   2 ftp      ftp          4096 Sep 13  2020 .."))
    assert not is_self_or_parent(parse_facts("type=dir; x"))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/etc/passwd", "a/b", "../x", "a\nb", "a\0", "\x1b[2J", "a\x7f", "\x85"]
)
def test_a_name_that_could_lead_elsewhere_is_not_safe(name: str) -> None:
    assert not is_safe_name(name)


@pytest.mark.parametrize("name", ["a", "...", "a b", "-x", "ü", "\udcff", "~", "a:b"])
def test_other_names_are_safe(name: str) -> None:
    assert is_safe_name(name)


@given(
    st.text(max_size=120) | st.from_regex(r"[-dlc][rwxsStT-]{9} [0-9A-Za-z ,:<>.-]{0,80}", fullmatch=True),
    st.floats(0, 1e11),
)
def test_nothing_but_a_protocol_error_comes_of_any_line_of_list(line: str, now: float) -> None:
    try:
        entry = parse_list_line(line, now)
    except RemoteProtocolError:
        return
    assert entry is None or entry.name


@given(st.text(max_size=80) | st.from_regex(r"(?:type|size|modify|unix\.mode)=[a-z0-9.:;=]{0,30}; .*", fullmatch=True))
def test_nothing_but_a_protocol_error_comes_of_any_facts(line: str) -> None:
    try:
        assert parse_facts(line).name
    except RemoteProtocolError:
        pass
