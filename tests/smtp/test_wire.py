"""SMTP's grammar: commands, their parameters, replies, and what a server offers."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.smtp import wire
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.envelope import Body, Envelope, Notify, Recipient, Returned
from asyncnet.smtp.extensions import Extensions
from asyncnet.smtp.wire import Chunk, Command, CommandError
from asyncnet.smtp.xtext import decode_unitext, decode_xtext, encode_unitext, encode_xtext

ANNA = MailAddress("anna", "example.org")
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30)
UNICODE = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1, max_size=20)
LOCAL_PARTS = PRINTABLE | st.sampled_from(["anna", 'a"b', "a\\b", "a@b", "a>b", "a b", "üb", "a..b"])
DOMAINS = st.sampled_from(["example.org", "[192.0.2.1]", "[IPv6:2001:db8::1]", "büro.example", "a-b.example"])
ADDRESSES = st.builds(MailAddress, LOCAL_PARTS, DOMAINS)
ENVELOPES = st.builds(
    lambda sender, **rest: Envelope(sender, international=True, **rest),
    sender=st.none() | ADDRESSES,
    body=st.sampled_from(Body),
    size=st.none() | st.integers(0, 10**19),
    returned=st.none() | st.sampled_from(Returned),
    envelope_id=st.none() | PRINTABLE,
)
NOTIFIES = st.just(frozenset({Notify.NEVER})) | st.frozensets(
    st.sampled_from([Notify.SUCCESS, Notify.FAILURE, Notify.DELAY])
)
ORIGINALS = st.none() | PRINTABLE.map(lambda text: f"rfc822;{text}") | UNICODE.map(lambda text: f"utf-8;{text}")
RECIPIENTS = st.builds(Recipient, ADDRESSES, NOTIFIES, ORIGINALS)
ANYTHING = (
    st.text(max_size=80)
    | st.from_regex(r'(FROM|TO):<["\\@a-z.,:> ]{0,20}>( [A-Z]{2,8}=[!-~]{0,10}){0,3}', fullmatch=True)
    | st.from_regex(r"(FROM|TO):<a@b>( (SIZE|BODY|RET|ENVID|ORCPT|NOTIFY|AUTH)=[!-~é]{0,12}){0,3}", fullmatch=True)
)


class TestCommands:
    @pytest.mark.parametrize(
        ("line", "command"),
        [
            (b"NOOP\r\n", Command("NOOP")),
            (b"noop \t \r\n", Command("NOOP")),
            (b"ehlo a.example\r\n", Command("EHLO", "a.example")),
            (b"VRFY a b\t\r\n", Command("VRFY", "a b")),
            (b"VRFY \xc3\xbc\r\n", Command("VRFY", "ü")),
            (b"VRFY \xff\r\n", Command("VRFY", "\udcff")),
        ],
    )
    def test_a_command_is_a_verb_and_an_argument(self, line: bytes, command: Command) -> None:
        assert wire.parse_command(line) == command

    @pytest.mark.parametrize(
        "line",
        [
            *(
                b"\r\n",
                b"A\r\n",
                b" NOOP\r\n",
                b"NOOP\n",
                b"NOOP\r",
                b"NOOP",
                b"NOOP\r\r\n",
                b"NOOP\0\r\n",
                b"NO-OP\r\n",
            ),
            *(b"VRFY a\nDATA\r\n", b"VRFY a\rDATA\r\n", b"VRFY a\0\r\n", b"NOOP\tx\r\n", b"\xffNOOP\r\n"),
        ],
    )
    def test_what_is_no_command_is_refused(self, line: bytes) -> None:
        with pytest.raises(CommandError) as caught:
            wire.parse_command(line)
        assert caught.value.reply.code == 500

    def test_only_those_who_know_no_better_may_end_a_line_with_lf(self) -> None:
        assert wire.parse_command(b"VRFY a\n", bare_lf=True) == Command("VRFY", "a")
        assert wire.parse_command(b"VRFY a\r\n", bare_lf=True) == Command("VRFY", "a")
        with pytest.raises(CommandError):
            wire.parse_command(b"VRFY a\rb\n", bare_lf=True)

    def test_a_reply_does_not_repeat_much_of_a_command(self) -> None:
        with pytest.raises(CommandError) as caught:
            wire.parse_mail("FROM:<> " + "X" * 5000)
        assert len(caught.value.reply.text) < 300

    @pytest.mark.parametrize("argument", ["a\r\nDATA", "a\nb", "a\rb", "a\0b", "\ud800", "x" * wire.MAX_LINE])
    def test_what_cannot_be_sent_is_refused_before_it_is(self, argument: str) -> None:
        with pytest.raises(LocalProtocolError):
            wire.format_command("VRFY", argument)

    @given(st.binary(max_size=80))
    def test_nothing_but_a_protocol_error_comes_of_any_line(self, line: bytes) -> None:
        for data in (line, line + b"\r\n", b"MAIL " + line + b"\r\n"):
            try:
                command = wire.parse_command(data)
            except RemoteProtocolError:
                continue
            assert not set("\r\n\0") & set(command.argument)

    @pytest.mark.parametrize(
        "parse",
        [
            wire.parse_mail,
            wire.parse_rcpt,
            lambda text: wire.parse_rcpt(text, international=True),
            wire.parse_hello,
            wire.parse_bdat,
            wire.parse_auth,
            decode_xtext,
            decode_unitext,
        ],
    )
    @given(text=ANYTHING)
    def test_nothing_but_a_protocol_error_comes_of_any_argument(self, parse, text: str) -> None:  # type: ignore[no-untyped-def]
        try:
            parse(text)
        except RemoteProtocolError:
            pass


class TestMail:
    @pytest.mark.parametrize(
        ("argument", "envelope"),
        [
            ("FROM:<anna@example.org>", Envelope(ANNA)),
            ("from:<anna@EXAMPLE.org>", Envelope(ANNA)),
            ("FROM: <anna@example.org>", Envelope(ANNA)),
            ("FROM:<>", Envelope(None)),
            ("FROM:<@a.example,@[192.0.2.1]:anna@example.org>", Envelope(ANNA)),
            ('FROM:<"an\\na"@example.org>', Envelope(ANNA)),
            ('FROM:<"a> SIZE=1"@example.org> SIZE=2', Envelope(MailAddress("a> SIZE=1", "example.org"), size=2)),
            (
                "FROM:<> SIZE=10 BODY=8bitmime ret=hdrs ENVID=a+3Db AUTH=<>",
                Envelope(None, Body.EIGHT_BIT, False, 10, Returned.HEADERS, "a=b"),
            ),
            ("FROM:<> body=7BIT AUTH=anna+40example.org", Envelope(None)),
            ("FROM:<ü@example.org>  SMTPUTF8", Envelope(MailAddress("ü", "example.org"), international=True)),
        ],
    )
    def test_mail_tells_the_envelope(self, argument: str, envelope: Envelope) -> None:
        assert wire.parse_mail(argument) == envelope

    @pytest.mark.parametrize(
        ("argument", "code", "enhanced"),
        [
            ("", 501, "5.1.7"),
            ("anna@example.org", 501, "5.1.7"),
            ("FROM:anna@example.org", 501, "5.1.7"),
            ("TO:<anna@example.org>", 501, "5.1.7"),
            ("FROM:<anna@example.org", 501, "5.1.7"),
            ("FROM:<anna>", 501, "5.1.7"),
            ("FROM:<postmaster>", 501, "5.1.7"),
            ("FROM:<anna@example.org>x", 501, "5.1.7"),
            ("FROM:<an na@example.org>", 501, "5.1.7"),
            ("FROM:<@a.example:>", 501, "5.1.7"),
            ("FROM:<a@b@c>", 501, "5.1.7"),
            ("FROM:<a@\udcff.example>", 501, "5.1.7"),
            ("FROM:<> FOO", 555, "5.5.4"),
            ("FROM:<> FOO=1", 555, "5.5.4"),
            ("FROM:<> SIZE", 501, "5.5.4"),
            ("FROM:<> SIZE=-1", 501, "5.5.4"),
            ("FROM:<> SIZE=1 SIZE=2", 501, "5.5.4"),
            ("FROM:<> SIZE=" + "9" * 21, 501, "5.5.4"),
            ("FROM:<> BODY=7BIT\x0bSIZE=1", 501, "5.5.4"),
            ("FROM:<> BODY=7BIT\u00a0SIZE=1", 501, "5.5.4"),
            ("FROM:<> BODY=9BIT", 501, "5.5.4"),
            ("FROM:<> BODY", 501, "5.5.4"),
            ("FROM:<> SMTPUTF8=1", 501, "5.5.4"),
            ("FROM:<> RET=ALL", 501, "5.5.4"),
            ("FROM:<> ENVID=", 501, "5.5.4"),
            ("FROM:<> ENVID=a+3db", 501, "5.5.4"),
            ("FROM:<> ENVID=a+0D+0Ab", 501, "5.5.4"),
            ("FROM:<> ENVID=" + "a" * 101, 501, "5.5.4"),
            ("FROM:<> AUTH=a=b", 501, "5.5.4"),
            ("FROM:<> =1", 501, "5.5.4"),
            ("FROM:<ü@example.org>", 550, "5.6.7"),
            ("FROM:<a@bücher.example>", 550, "5.6.7"),
        ],
    )
    def test_what_mail_cannot_say_is_refused(self, argument: str, code: int, enhanced: str) -> None:
        with pytest.raises(CommandError) as caught:
            wire.parse_mail(argument)
        assert (caught.value.code, caught.value.enhanced) == (code, enhanced)

    @given(ENVELOPES)
    def test_an_envelope_that_is_written_is_read_again(self, envelope: Envelope) -> None:
        try:
            line = wire.format_mail(envelope)
        except LocalProtocolError:  # an ENVID that grew too long, a local part that is none
            return
        command = wire.parse_command(line)
        assert command.verb == "MAIL"
        assert wire.parse_mail(command.argument) == envelope

    @pytest.mark.parametrize(
        "envelope",
        [
            Envelope(MailAddress("ü", "example.org")),
            Envelope(MailAddress("a\r\nDATA", "example.org")),
            Envelope(MailAddress("a", "b> SIZE=1")),
            Envelope(MailAddress("anna", "")),
            Envelope(ANNA, envelope_id="a\nb"),
            Envelope(ANNA, envelope_id="ü"),
            Envelope(ANNA, envelope_id="a" * 101),
        ],
    )
    def test_an_envelope_that_cannot_be_said_is_not_sent(self, envelope: Envelope) -> None:
        with pytest.raises(LocalProtocolError):
            wire.format_mail(envelope)


class TestRcpt:
    @pytest.mark.parametrize(
        ("argument", "recipient"),
        [
            ("TO:<anna@example.org>", Recipient(ANNA)),
            ("to:<@gate.example:anna@example.org>", Recipient(ANNA)),
            ("TO:<Postmaster>", Recipient(MailAddress("postmaster", ""))),
            ("TO:<a%b@example.org>", Recipient(MailAddress("a%b", "example.org"))),
            ('TO:<"a@b"@example.org>', Recipient(MailAddress("a@b", "example.org"))),
            ("TO:<anna@example.org> NOTIFY=NEVER", Recipient(ANNA, frozenset({Notify.NEVER}))),
            (
                "TO:<anna@example.org> notify=success,Delay ORCPT=rfc822;a+2Bb@c",
                Recipient(ANNA, frozenset({Notify.SUCCESS, Notify.DELAY}), "rfc822;a+b@c"),
            ),
            (r"TO:<anna@example.org> ORCPT=utf-8;\x{FC}@c", Recipient(ANNA, frozenset(), "utf-8;ü@c")),
            ("TO:<anna@example.org> ORCPT=x400;/c+3Dde/", Recipient(ANNA, frozenset(), "x400;/c=de/")),
        ],
    )
    def test_rcpt_tells_a_recipient(self, argument: str, recipient: Recipient) -> None:
        assert wire.parse_rcpt(argument) == recipient

    @pytest.mark.parametrize(
        ("argument", "code", "enhanced"),
        [
            ("TO:<>", 501, "5.1.3"),
            ("FROM:<anna@example.org>", 501, "5.1.3"),
            ("TO:<@a.example:>", 501, "5.1.3"),
            ("TO:<anna@example.org> SIZE=1", 555, "5.5.4"),
            ("TO:<anna@example.org> NOTIFY=NEVER,DELAY", 501, "5.5.4"),
            ("TO:<anna@example.org> NOTIFY", 501, "5.5.4"),
            ("TO:<anna@example.org> NOTIFY=ALWAYS", 501, "5.5.4"),
            ("TO:<anna@example.org> ORCPT", 501, "5.5.4"),
            ("TO:<anna@example.org> ORCPT=anna@example.org", 501, "5.5.4"),
            ("TO:<anna@example.org> ORCPT=rfc822;a+0Ab", 501, "5.5.4"),
            ("TO:<anna@example.org> ORCPT=rfc822;ü", 501, "5.5.4"),
            ("TO:<anna@example.org> ORCPT=utf-8;ü", 501, "5.5.4"),
            (r"TO:<anna@example.org> ORCPT=utf-8;\x{0A}", 501, "5.5.4"),
            (r"TO:<anna@example.org> ORCPT=utf-8;\x{D800}", 501, "5.5.4"),
            (r"TO:<anna@example.org> ORCPT=utf-8;\n", 501, "5.5.4"),
            ("TO:<anna@example.org> ORCPT=rfc822;" + "a" * 500, 501, "5.5.4"),
            ("TO:<ü@example.org>", 553, "5.6.7"),
        ],
    )
    def test_what_rcpt_cannot_say_is_refused(self, argument: str, code: int, enhanced: str) -> None:
        with pytest.raises(CommandError) as caught:
            wire.parse_rcpt(argument)
        assert (caught.value.code, caught.value.enhanced) == (code, enhanced)

    @given(RECIPIENTS)
    def test_a_recipient_that_is_written_is_read_again(self, recipient: Recipient) -> None:
        for international in (True, False):
            try:
                line = wire.format_rcpt(recipient, international=international)
            except LocalProtocolError:
                continue
            argument = wire.parse_command(line).argument
            assert wire.parse_rcpt(argument, international=international) == recipient
            assert international or line.isascii()

    def test_an_original_recipient_is_said_in_ascii_where_it_has_to_be(self) -> None:
        recipient = Recipient(ANNA, original="utf-8;ü \\=@c")
        assert wire.format_rcpt(recipient).endswith(rb"ORCPT=utf-8;\x{FC}\x{20}\x{5C}\x{3D}@c" + b"\r\n")
        assert "ORCPT=utf-8;ü" in wire.format_rcpt(recipient, international=True).decode()

    @pytest.mark.parametrize(
        "recipient",
        [
            Recipient(MailAddress("ü", "example.org")),
            Recipient(MailAddress("a\nb", "example.org")),
            Recipient(ANNA, original="anna@example.org"),
            Recipient(ANNA, original="rfc822;a\nb"),
            Recipient(ANNA, original="rfc822 x;a"),
            Recipient(ANNA, original="rfc822;ü"),
            Recipient(ANNA, original="utf-8;a\nb"),
            Recipient(ANNA, frozenset({Notify.NEVER, Notify.SUCCESS})),
        ],
    )
    def test_a_recipient_that_cannot_be_said_is_not_sent(self, recipient: Recipient) -> None:
        with pytest.raises(LocalProtocolError):
            wire.format_rcpt(recipient)


class TestXtext:
    @given(PRINTABLE)
    def test_xtext_that_is_written_is_read_again(self, text: str) -> None:
        assert decode_xtext(encode_xtext(text)) == text

    @given(UNICODE, st.booleans())
    def test_unitext_that_is_written_is_read_again(self, text: str, international: bool) -> None:
        encoded = encode_unitext(text, international=international)
        assert decode_unitext(encoded) == text
        assert international or encoded.isascii()


class TestOtherCommands:
    @pytest.mark.parametrize(
        ("argument", "chunk"), [("0 LAST", Chunk(0, True)), ("86 last", Chunk(86, True)), ("86", Chunk(86))]
    )
    def test_bdat_tells_a_size(self, argument: str, chunk: Chunk) -> None:
        assert wire.parse_bdat(argument) == chunk
        assert wire.parse_bdat(wire.parse_command(wire.format_bdat(chunk)).argument) == chunk

    @pytest.mark.parametrize("argument", ["", "LAST", "-1", "1 LST", "1LAST", "9" * 21, "1 LAST x", "٣"])
    def test_a_bdat_without_a_size_is_refused(self, argument: str) -> None:
        with pytest.raises(CommandError):
            wire.parse_bdat(argument)

    def test_auth_names_a_mechanism(self) -> None:
        assert wire.parse_auth("plain") == ("PLAIN", None)
        assert wire.parse_auth("SCRAM-SHA-256 biws") == ("SCRAM-SHA-256", "biws")
        assert wire.parse_auth("PLAIN =") == ("PLAIN", "=")

    @pytest.mark.parametrize("text", ["PLAIN a b", "", "PLAIN *", "PL/AIN", "PLAIN ä"])
    def test_an_auth_that_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(CommandError):
            wire.parse_auth(text)

    @pytest.mark.parametrize("argument", ["", "a b", "ü.example", "a\tb", "x" * 256])
    def test_hello_needs_a_name(self, argument: str) -> None:
        with pytest.raises(CommandError):
            wire.parse_hello(argument)

    @pytest.mark.parametrize("argument", ["a.example", "[192.0.2.1]", "host_1", "192.0.2.1"])
    def test_and_takes_what_clients_say(self, argument: str) -> None:
        assert wire.parse_hello(argument) == argument


class TestReplies:
    def test_every_line_has_its_enhanced_code(self) -> None:
        reply = wire.coded(250, "2.1.5", "a", "b")
        assert reply.encode(every_line_coded=True) == b"250-2.1.5 a\r\n250 2.1.5 b\r\n"
        assert reply.enhanced == "2.1.5"


class TestExtensions:
    NUMBERS = st.none() | st.integers(1, 999_999)

    @given(
        st.builds(
            Extensions,
            **{field.name: st.booleans() for field in dataclasses.fields(Extensions) if field.type == "bool"},
            size=st.none() | st.integers(0, 10**19),
            auth=st.lists(st.sampled_from(["PLAIN", "LOGIN", "SCRAM-SHA-256"]), unique=True).map(tuple),
            most_mails=NUMBERS,
            most_recipients=NUMBERS,
            most_domains=NUMBERS,
            others=st.lists(st.sampled_from(["HELP", "DELIVERBY 240"]), unique=True).map(tuple),
        )
    )
    def test_what_is_offered_is_read_again(self, extensions: Extensions) -> None:
        assert Extensions.parse(extensions.format()) == extensions

    def test_what_servers_say_is_understood(self) -> None:
        lines = [
            "size",
            "pipelining",
            "AUTH=LOGIN",
            "AUTH plain LOGIN",
            "XFOO  a",
            "LIMITS rcptmax=5 X=1 MAILMAX=0",
            "?",
        ]
        assert Extensions.parse(lines) == Extensions(
            size=0, pipelining=True, auth=("LOGIN", "PLAIN"), others=("XFOO  a",), most_recipients=5
        )

    def test_a_limit_of_more_than_six_digits_is_none(self) -> None:
        assert Extensions(most_mails=1_000_000, most_recipients=999_999).format() == ["LIMITS RCPTMAX=999999"]

    @given(st.lists(st.text(max_size=30)))
    def test_whatever_is_said_is_read(self, lines: list[str]) -> None:
        Extensions.parse(lines)
