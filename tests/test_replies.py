"""Replies of three digits: how they are written, and how lines become replies again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.replies import (
    PermanentReplyError,
    Reply,
    ReplyError,
    ReplyParser,
    ServiceClosing,
    TransientReplyError,
    error_for,
)

TEXTS = st.text(st.characters(exclude_categories=(), exclude_characters="\r\n\0"), max_size=40).filter(
    lambda text: text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape") == text
)


def feed(data: bytes, *, coded: bool = False) -> list[Reply]:
    parser = ReplyParser(every_line_coded=coded)
    found = [parser.feed(line) for line in data.splitlines(keepends=True)]
    assert parser.is_between
    return [reply for reply in found if reply is not None]


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"220 ready\r\n", Reply.of(220, "ready")),
        (b"220 ready\n", Reply.of(220, "ready")),
        (b"220\r\n", Reply.of(220)),
        (b"220 \r\n", Reply.of(220)),
        (b"631 protected\r\n", Reply.of(631, "protected")),
        (b"211-Features:\r\n SIZE\r\n211 End\r\n", Reply.of(211, "Features:", " SIZE", "End")),
        (b"230-a\r\n230-b\r\n230 c\r\n", Reply.of(230, "a", "b", "c")),
        (b"230-a\r\n226 b\r\n\r\n230 c\r\n", Reply.of(230, "a", "226 b", "", "c")),
        (b"230-a\r\n2300 b\r\n230 c\r\n", Reply.of(230, "a", "2300 b", "c")),
        (b"230 \xff\r\n", Reply.of(230, "\udcff")),
    ],
)
def test_a_reply_of_ftp_ends_with_its_code_and_a_space(data: bytes, reply: Reply) -> None:
    assert feed(data) == [reply]
    assert feed(data + data) == [reply, reply]


def test_in_smtp_every_line_has_the_code() -> None:
    assert feed(b"250-a\r\n250 b\r\n", coded=True) == [Reply.of(250, "a", "b")]
    with pytest.raises(RemoteProtocolError, match="another reply"):
        feed(b"250-a\r\n b\r\n250 c\r\n", coded=True)
    with pytest.raises(RemoteProtocolError, match="another reply"):
        feed(b"250-a\r\n251 b\r\n", coded=True)


@pytest.mark.parametrize("line", [b"", b"\r\n", b"22 x", b"2200 x", b"x220 x", b"020 x", b"720 x", b"220_x", b" 220 x"])
def test_what_does_not_begin_with_a_code_is_no_reply(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="no reply"):
        ReplyParser(every_line_coded=False).feed(line)


def test_a_reply_without_end_is_refused_at_the_limit() -> None:
    parser = ReplyParser(every_line_coded=False, limit=1000)
    with pytest.raises(RemoteProtocolError, match="more than 1000 bytes"):
        parser.feed(b"220-hello\r\n")
        for _ in range(1000):
            parser.feed(b"and\r\n")
    parser = ReplyParser(every_line_coded=False, limit=1000)
    for _ in range(100):
        assert parser.feed(b"220 " + b"x" * 900) is not None


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\0b"])
def test_a_line_end_in_a_reply_is_refused_before_it_is_sent(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        Reply.of(220, text).encode(every_line_coded=False)


@pytest.mark.parametrize("code", [0, 99, 600, 1000])
def test_what_is_no_code_is_not_sent(code: int) -> None:
    with pytest.raises(LocalProtocolError):
        Reply.of(code).encode(every_line_coded=False)


@given(code=st.integers(100, 599), lines=st.lists(TEXTS, min_size=1, max_size=5), coded=st.booleans())
def test_what_is_written_is_read_again(code: int, lines: list[str], coded: bool) -> None:
    reply = Reply(code, tuple(lines))
    parser = ReplyParser(every_line_coded=coded)
    sent = reply.encode(every_line_coded=coded).split(b"\r\n")[:-1]
    found = [parser.feed(line) for line in sent]
    assert found[:-1] == [None] * (len(lines) - 1)
    last = found[-1]
    assert last is not None
    assert last.code == code
    got = [
        line.removeprefix(" ") if not coded and 0 < at < len(lines) - 1 else line for at, line in enumerate(last.lines)
    ]
    assert got == lines


@given(st.lists(st.binary(max_size=40)), st.booleans())
def test_nothing_but_a_protocol_error_comes_of_any_line(lines: list[bytes], coded: bool) -> None:
    parser = ReplyParser(every_line_coded=coded)
    try:
        for line in lines:
            parser.feed(line)
    except RemoteProtocolError:
        pass


def test_a_reply_says_what_it_means() -> None:
    assert Reply(150).is_preliminary
    assert Reply(226).is_success
    assert Reply(331).asks_for_more
    assert Reply(451).is_transient_failure
    assert Reply(550).is_permanent_failure
    assert str(Reply.of(220, "a ", " b")) == "220 a / b"
    assert str(Reply.of(220)) == "220"
    assert Reply.of(220, "a", "b").text == "a\nb"


@pytest.mark.parametrize(
    ("reply", "enhanced"),
    [
        (Reply.of(250, "fine"), None),
        (Reply.of(250, "2.0.0"), "2.0.0"),
        (Reply.of(250, "5.0.0 what"), None),
        (Reply.of(250, "192.0.2.1 is you"), None),
        (Reply.of(250, "2.0.0.1 is you"), None),
        (Reply.of(550, "5.1.1 a", "b"), "5.1.1"),
        (Reply.of(354, "go on"), None),
    ],
)
def test_an_enhanced_code_is_told_from_words(reply: Reply, enhanced: str | None) -> None:
    assert reply.enhanced == enhanced


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (250, ReplyError),
        (354, ReplyError),
        (421, ServiceClosing),
        (450, TransientReplyError),
        (550, PermanentReplyError),
    ],
)
def test_a_client_raises_what_fits(code: int, kind: type[ReplyError]) -> None:
    error = error_for(Reply.of(code, "so it is"), "RCPT \x1b[2J")
    assert (type(error), error.code, str(error)) == (kind, code, f"RCPT \\x1b[2J: the server says {code} so it is")


def test_what_it_raises_is_short_and_drives_no_terminal() -> None:
    said = str(error_for(Reply.of(550, "\x1b[2J" + "x" * 1000, "y" * 1000)))
    assert said.startswith("the server says 550 \\x1b[2Jxxx")
    assert said.isprintable()
    assert len(said) < 400
