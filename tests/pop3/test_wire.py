"""The grammar of POP3, both sides of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.pop3.wire import (
    Command,
    DotStuffer,
    DotUnstuffer,
    Reply,
    Top,
    format_command,
    parse_capabilities,
    parse_command,
    parse_number,
    parse_reply,
    parse_scan,
    parse_unique,
)

TEXT = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=40)
KEYWORDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=3, max_size=10)


class TestCommands:
    @pytest.mark.parametrize(
        ("line", "command"),
        [
            (b"STAT\r\n", Command("STAT")),
            (b"stat\n", Command("STAT")),
            (b"RETR 1\r\n", Command("RETR", "1")),
            (b"PASS  two  blanks \r\n", Command("PASS", " two  blanks ")),
            (b"USER \xc3\xa4\xff\r\n", Command("USER", "ä\udcff")),
            (b"LIST \r\n", Command("LIST")),
        ],
    )
    def test_a_line_is_a_verb_and_the_rest(self, line: bytes, command: Command) -> None:
        assert parse_command(line) == command

    @pytest.mark.parametrize(
        "line",
        [
            b"",
            b"\r\n",
            b" STAT\r\n",
            b"AB\r\n",
            b"STAT\0\r\n",
            b"USER a\rb\r\n",
            b"S\xc3\x84T\r\n",
            b"x" * 50,
            b"a\tb c",
        ],
    )
    def test_anything_else_is_none(self, line: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            parse_command(line)

    @given(KEYWORDS, TEXT)
    def test_what_is_formatted_is_parsed(self, verb: str, argument: str) -> None:
        assert parse_command(format_command(verb, argument)) == Command(verb.upper(), argument)
        assert parse_command(format_command(verb)) == Command(verb.upper())

    @pytest.mark.parametrize("argument", ["a\r\nDELE 1", "a\nb", "a\rb", "a\0b"])
    def test_no_argument_holds_another_command(self, argument: str) -> None:
        with pytest.raises(LocalProtocolError):
            format_command("USER", argument)
        with pytest.raises(LocalProtocolError):
            format_command(argument)

    @given(st.binary())
    def test_any_line_is_a_command_or_refused(self, line: bytes) -> None:
        try:
            command = parse_command(line)
        except RemoteProtocolError:
            return
        assert not {"\r", "\n", "\0"} & set(command.argument)

    @pytest.mark.parametrize(
        ("text", "number"),
        [("1", 1), ("4294967295", 4294967295), ("4294967296", 4294967296)]
        + [
            (text, None)
            for text in ("", "0", "01", "-1", "+1", "1 ", " 1", "1e3", "0x1", "٣", "²", "12345678901", "1" * 5000)
        ],
    )
    def test_a_number_has_one_spelling_and_an_end(self, text: str, number: int | None) -> None:
        assert parse_number(text) == number


class TestReplies:
    @pytest.mark.parametrize(
        ("line", "reply"),
        [
            (b"+OK\r\n", Reply(True)),
            (b"+OK ready\r\n", Reply(True, "ready")),
            (b"+OK [IN-USE] no code\n", Reply(True, "[IN-USE] no code")),
            (b"-ERR\r\n", Reply(False)),
            (b"-ERR no\r\n", Reply(False, "no")),
            (b"-ERR [in-use] locked\r\n", Reply(False, "locked", "IN-USE")),
            (b"-ERR [SYS/TEMP]\r\n", Reply(False, "", "SYS/TEMP")),
            (b"-ERR [two words] x\r\n", Reply(False, "[two words] x")),
            (b"-ERR [x\r\n", Reply(False, "[x")),
            (b"-ERR \xff\r\n", Reply(False, "\udcff")),
        ],
    )
    def test_a_line_says_yes_or_no(self, line: bytes, reply: Reply) -> None:
        assert parse_reply(line) == reply

    @pytest.mark.parametrize(
        "line", [b"", b"+ok\r\n", b"+OKAY\r\n", b"* OK\r\n", b"220 ready\r\n", b"+ \r\n", b"-ERR a\0b\r\n"]
    )
    def test_anything_else_is_none(self, line: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            parse_reply(line)

    @given(st.booleans(), TEXT.map(lambda text: text.replace("[", "(")), st.sampled_from(["", "AUTH", "SYS/PERM"]))
    def test_what_is_encoded_is_parsed(self, is_positive: bool, text: str, code: str) -> None:
        reply = Reply(is_positive, text, "" if is_positive else code)
        assert parse_reply(reply.encode()) == reply

    @pytest.mark.parametrize("text", ["a\r\nb", "a\nb", "\0", "x" * 600])
    def test_what_is_more_than_a_line_is_not_sent(self, text: str) -> None:
        with pytest.raises(LocalProtocolError):
            Reply(True, text).encode()

    @given(st.binary())
    def test_any_line_is_a_reply_or_refused(self, line: bytes) -> None:
        for parse in (parse_reply, parse_scan, parse_unique):
            try:
                parse(line)
            except RemoteProtocolError:
                pass
        parse_capabilities([line])


class TestListings:
    def test_sizes_and_ids(self) -> None:
        assert parse_scan(b"1 120") == (1, 120)
        assert parse_scan(b"2 0 and more") == (2, 0)
        assert parse_unique(b"3 whqtswO00WBw418f9t5JxYwZ") == (3, "whqtswO00WBw418f9t5JxYwZ")

    @pytest.mark.parametrize(
        "line", [b"", b"1", b"0 5", b"01 5", b"-1 5", b"1 -5", b"1  5", b"99999999999 1", b"1 " + b"9" * 19]
    )
    def test_what_is_no_size_is_refused(self, line: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            parse_scan(line)

    @pytest.mark.parametrize("line", [b"1", b"1 ", b"1 a b", b"1 a\0", b"1 \xff", b"1 " + b"x" * 71])
    def test_what_is_no_id_is_refused(self, line: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            parse_unique(line)

    def test_capabilities_are_words(self) -> None:
        lines = [b"TOP", b"sasl PLAIN  LOGIN", b"", b" ", b"X-\xff"]
        assert parse_capabilities(lines) == {"TOP": (), "SASL": ("PLAIN", "LOGIN"), "X-\N{REPLACEMENT CHARACTER}": ()}


def lines_of(*lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)


PARTS = st.lists(st.sampled_from([b".", b"\r\n", b"a", b"\r", b"..", b"\r\n.\r\n"]), max_size=20).map(b"".join)


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


class TestDots:
    @pytest.mark.parametrize(
        ("content", "sent"),
        [
            (b"", b".\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"..a\r\n.b\r\n", b"...a\r\n..b\r\n.\r\n"),
            (b"a.\r\n\r\n.\r\n", b"a.\r\n\r\n..\r\n.\r\n"),
            (b"no end", b"no end\r\n.\r\n"),
            (b"a\r", b"a\r\r\n.\r\n"),
        ],
    )
    def test_a_dot_at_a_lines_beginning_is_doubled(self, content: bytes, sent: bytes) -> None:
        stuffer = DotStuffer()
        assert stuffer.feed(content) + stuffer.end() == sent

    @given(PARTS, PARTS, st.integers(1, 7), st.integers(1, 7))
    def test_what_is_stuffed_comes_out_again_whatever_the_pieces(
        self, content: bytes, behind: bytes, size: int, other_size: int
    ) -> None:
        stuffer = DotStuffer()
        sent = b"".join(map(stuffer.feed, pieces_of(content, size))) + stuffer.end()
        assert sent.endswith(b".\r\n")
        # Whoever looks for the end line by line, at CR LF alone, finds it at the end.
        assert sent.split(b"\r\n").index(b".") == sent.count(b"\r\n") - 1
        unstuffer, received, rest = DotUnstuffer(), b"", b""
        for piece in pieces_of(sent + behind, other_size):
            if unstuffer.is_over:
                rest += piece
                continue
            received += unstuffer.feed(piece)
            rest += unstuffer.rest
        assert unstuffer.is_over
        assert received == (content if content.endswith(b"\r\n") or not content else content + b"\r\n")
        assert rest == behind

    @pytest.mark.parametrize(
        "data", [b"a\n.\nb\r\n", b"a\r\n.\nb", b"a\n.\r\nb", b"a\r.\rb", b"", b".", b"\r\n.", b"a\r\n.\r"]
    )
    def test_nothing_else_is_an_end(self, data: bytes) -> None:
        unstuffer = DotUnstuffer()
        unstuffer.feed(data)
        assert not unstuffer.is_over

    def test_a_message_without_lines_is_empty(self) -> None:
        unstuffer = DotUnstuffer()
        assert unstuffer.feed(b".\r\n+OK") == b""
        assert (unstuffer.is_over, unstuffer.rest) == (True, b"+OK")


MAIL = lines_of(b"Subject: x", b"To: y", b"", b"one", b"", b"three")


class TestTop:
    @pytest.mark.parametrize(
        ("lines", "wanted"),
        [
            (0, lines_of(b"Subject: x", b"To: y", b"")),
            (1, lines_of(b"Subject: x", b"To: y", b"", b"one")),
            (3, MAIL),
            (4294967295, MAIL),
        ],
    )
    @pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
    def test_it_is_the_head_and_some_lines(self, lines: int, wanted: bytes, size: int) -> None:
        assert top_of(MAIL, lines, size) == wanted

    @pytest.mark.parametrize(
        ("mail", "wanted"),
        [
            (lines_of(b"", b"body", b"more"), lines_of(b"", b"body")),
            (lines_of(b"Subject: no body"), lines_of(b"Subject: no body")),
            (b"", b""),
            (lines_of(b"a", b"") + b"no end", lines_of(b"a", b"") + b"no end"),
        ],
    )
    def test_odd_messages_have_one_too(self, mail: bytes, wanted: bytes) -> None:
        assert top_of(mail, 1, 100) == top_of(mail, 1, 1) == wanted

    @given(st.lists(st.sampled_from([b"", b"a", b".", b"a: b"])).map(lambda lines: lines_of(*lines)), st.integers(0, 5))
    def test_pieces_do_not_matter(self, mail: bytes, lines: int) -> None:
        head, empty, body = (
            re.split(rb"((?:^|(?<=\n))\r\n)", mail, maxsplit=1) if b"\n\r\n" in b"\n" + mail else (mail, b"", b"")
        )
        wanted = head + empty + b"".join(body.splitlines(keepends=True)[:lines])
        assert {top_of(mail, lines, size) for size in (1, 2, 3, 7, 1000)} == {wanted}


def top_of(mail: bytes, lines: int, size: int) -> bytes:
    top, found = Top(lines), b""
    for piece in pieces_of(mail, size):
        if not top.is_over:
            found += top.feed(piece)
    return found
