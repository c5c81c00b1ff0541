"""The grammar of a Maildir's file names, and line ends piece by piece."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.mailbox.folders import unique_name
from asyncnet.mailbox.lines import ToFile, ToWire, WireSize
from asyncnet.mailbox.names import MaildirName, said_size
from asyncnet.mailbox.storage import Flag

FILE_NAMES = st.text(min_size=1, max_size=100).filter(lambda text: "/" not in text and "\0" not in text)
FLAGS = st.frozensets(st.sampled_from(Flag))


@pytest.mark.parametrize(
    ("text", "uid", "flags"),
    [
        ("1.M2P3.host", "1.M2P3.host", set()),
        ("1.M2P3.host,S=5,W=6", "1.M2P3.host", set()),
        ("1.M2P3.host,S=5,W=6:2,FRS", "1.M2P3.host", {Flag.FLAGGED, Flag.ANSWERED, Flag.SEEN}),
        ("1.host:2,", "1.host", set()),
        ("1.host:2,DT", "1.host", {Flag.DRAFT, Flag.DELETED}),
        ("1.host:2,abPS", "1.host", {Flag.SEEN}),
        ("1.host:1,S", "1.host", set()),
        ("1.host:", "1.host", set()),
        ("1.host:2,S:2,F", "1.host", {Flag.SEEN, Flag.FLAGGED}),
    ],
)
def test_a_name_says_who_it_is_and_what_is_known(text: str, uid: str, flags: set[Flag]) -> None:
    name = MaildirName.parse(text)
    assert (name.uid, name.flags) == (uid, flags)


@pytest.mark.parametrize(
    ("text", "size", "wire_size"),
    [
        ("1.host,S=5,W=6", 5, 6),
        ("1.host,W=6", 5, 6),
        ("1.host,W=6,S=5,x=7", 5, 6),
        ("1.host,S=5", 5, None),
        ("1.host,S=5,W=6", 4, None),  # the file has changed
        ("1.host,S=5,W=4", 5, None),  # no file can have that
        ("1.host,S=5,W=11", 5, None),
        ("1.host,S=5,W=x", 5, None),
        ("1.host,S=5,W=" + "9" * 30, 5, None),
        ("1.host:2,S=5,W=6", 5, None),
    ],
)
def test_sizes_are_believed_where_they_can_be(text: str, size: int, wire_size: int | None) -> None:
    assert MaildirName.parse(text).wire_size(size) == wire_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1.host,S=5,W=6", 5),
        ("1.host,W=6,S=5:2,S", 5),
        ("1.host,S=5", 5),
        ("1.host", None),
        ("1.host,S=x", None),
        ("1.host,S=" + "9" * 30, None),
        ("1.host,S=5x", None),
        ("1.host:2,S=5", None),
    ],
)
def test_a_size_is_read_where_a_name_has_one(text: str, size: int | None) -> None:
    assert said_size(text) == size


@pytest.mark.parametrize("text", ["", ":2,S", "ä", "a b", "x" * 71, "\udc80", ",S=5"])
def test_a_name_that_can_be_no_uid_gets_one(text: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", MaildirName.parse(text).uid)


@given(FILE_NAMES, FLAGS)
def test_flags_change_nothing_else(text: str, flags: frozenset[Flag]) -> None:
    name = MaildirName.parse(text)
    changed = MaildirName.parse(str(name.with_flags(flags)))
    assert (changed.uid, changed.base, changed.flags) == (name.uid, name.base, flags)
    assert changed.with_flags(name.flags) == name
    assert re.fullmatch(r"[!-~]{1,70}", name.uid)


@given(st.integers(0, 10**17), st.integers(0, 10**17))
def test_what_is_made_is_read(size: int, lines: int) -> None:
    wire_size = size + min(size, lines)
    name = MaildirName.make("1.host", size=size, wire_size=wire_size)
    assert MaildirName.parse(name.base) == name
    assert name.wire_size(size) == wire_size


def test_unique_names_are_uids_and_unique() -> None:
    names = {unique_name() for _ in range(1000)}
    assert len(names) == 1000
    assert all(MaildirName.parse(name).uid == name for name in names)


def fed(lines: ToFile | ToWire, pieces: list[bytes]) -> bytes:
    return b"".join(map(lines.feed, pieces)) + lines.end()


PIECES = st.lists(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n"]), max_size=4).map(b"".join))


@given(PIECES)
def test_line_ends_do_not_depend_on_pieces(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    stored = fed(ToFile(), pieces)
    assert stored == whole.replace(b"\r\n", b"\n")
    given_out = fed(ToWire(), pieces)
    assert given_out == re.sub(rb"\r?\n", b"\r\n", whole)
    size = WireSize()
    for piece in pieces:
        size.feed(piece)
    assert size.size == len(given_out)
