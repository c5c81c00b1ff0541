"""Messages of `email` on their way to a server: whom they go to, and what of them is sent."""

from __future__ import annotations

import email.policy
from email.headerregistry import Address, Group
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import LocalProtocolError
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.client import MessageRefused, NotSupported
from asyncnet.smtp.content import with_line_ends
from asyncnet.smtp.message import (
    needs_international,
    parse_header,
    parse_message,
    recipients_of,
    sender_of,
    serialize,
    split,
    without_bcc,
)
from tests.smtp.scripted import PLAIN, answering, greeted, offering

OK = b"250 ok\r\n"


def header(text: str) -> EmailMessage:
    return parse_header(text.replace("\n", "\r\n").encode())


def made(subject: str = "hello", body: str = "hello\n", **headers: object) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "anna@example.org"
    message["To"] = "carl@example.net"
    message["Subject"] = subject
    for name, value in headers.items():
        del message[name]
        message[name] = value
    message.set_content(body)
    return message


# Whom it goes to


@pytest.mark.parametrize(
    ("text", "sender", "recipients"),
    [
        ("From: a@x.example\nTo: b@x.example\n", "a@x.example", ["b@x.example"]),
        ("From: Anna <a@x.example>\nSender: s@x.example\nTo: b@x.example\n", "s@x.example", ["b@x.example"]),
        (
            "From: a@x.example, a2@x.example\nTo: b@x.example, C <c@x.example>\nCc: d@x.example\nBcc: e@x.example\n",
            "a@x.example",
            ["b@x.example", "c@x.example", "d@x.example", "e@x.example"],
        ),
        (
            "From: a@x.example\nTo: b@x.example\nTo: c@x.example, b@x.example\n",
            "a@x.example",
            ["b@x.example", "c@x.example"],
        ),
        ("From: a@x.example\nTo: friends: b@x.example, c@x.example;\n", "a@x.example", ["b@x.example", "c@x.example"]),
        ("From: a@x.example\nTo: undisclosed-recipients:;\nBcc: b@x.example\n", "a@x.example", ["b@x.example"]),
        ('From: "a b"@x.example\nTo: "Doe, Jane" <b@x.example>\n', '"a b"@x.example', ["b@x.example"]),
        ("From: =?utf-8?q?J=C3=BCrgen?= <a@x.example>\nTo: b@x.example (Bert)\n", "a@x.example", ["b@x.example"]),
        # RFC 5322 section 3.6.6: who sends it on now, and to whom
        (
            "Resent-Date: x\nResent-From: r@x.example\nResent-To: t@x.example\nFrom: a@x.example\nTo: b@x.example\n",
            "r@x.example",
            ["t@x.example"],
        ),
        (
            "Resent-Date: x\nResent-From: r@x.ex\nResent-Sender: s@x.example\nResent-Bcc: t@x.example\nBcc: b@x.ex\n",
            "s@x.example",
            ["t@x.example"],
        ),
        ("Resent-From: r@x.example\nFrom: a@x.example\nTo: b@x.example\n", "a@x.example", ["b@x.example"]),
    ],
)
def test_sender_and_recipients_come_from_the_header(text: str, sender: str, recipients: list[str]) -> None:
    message = header(text)
    assert sender_of(message) == MailAddress.parse(sender)
    assert recipients_of(message) == tuple(map(MailAddress.parse, recipients))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("To: b@x.example\n", "no From"),
        ("From: anna\nTo: b@x.example\n", "'anna', which is no address"),
        ("From: a@x.example\n", "no To, Cc or Bcc"),
        ("From: a@x.example\nTo: everybody\n", "'everybody', which is no address"),
        ("From: a@x.example\nTo: b@x.example\nResent-Date: x\n", "no Resent-From"),
        ("From: a@x.example\nTo: b@x.example\nResent-Date: x\nResent-Date: y\n", "more than once"),
    ],
)
def test_a_header_that_does_not_say_it_is_refused(text: str, problem: str) -> None:
    with pytest.raises(LocalProtocolError, match=problem):
        message = header(text)
        sender_of(message)
        recipients_of(message)


def test_addresses_of_old_fashioned_messages_are_found_too() -> None:
    message = EmailMessage(policy=email.policy.compat32)  # type: ignore[arg-type]
    message["From"] = "Anna <a@x.example>"
    message["To"] = "b@x.example, Carl <c@x.example>"
    assert sender_of(message) == MailAddress.parse("a@x.example")
    assert len(recipients_of(message)) == 2
    assert b"To: b@x.example, Carl <c@x.example>\r\n" in serialize(message)


# Bcc


@pytest.mark.parametrize(
    ("data", "without"),
    [
        (b"Bcc: x\r\nTo: y\r\n\r\nBcc: z\r\n", b"To: y\r\n\r\nBcc: z\r\n"),
        (b"To: y\r\nBCC : x,\r\n\ty\r\n z\r\nCc: y\r\n\r\n", b"To: y\r\nCc: y\r\n\r\n"),
        (b"To: y\r\nresent-bcc:x\r\n\r\nz", b"To: y\r\n\r\nz"),
        (b"X-Bcc: x\r\nSubject: a\r\n bcc: x\r\n\r\n", b"X-Bcc: x\r\nSubject: a\r\n bcc: x\r\n\r\n"),
        (b"To: y\r\nBcc: x", b"To: y\r\n"),
        (b"Bcc: x\r\n\r\nz", b"\r\nz"),
        (b"\r\nBcc: x\r\n", b"\r\nBcc: x\r\n"),
        (b"Bcc: a\r\nBcc: b\r\n\r\n", b"\r\n"),
        (b"", b""),
    ],
)
def test_bcc_is_taken_out_of_the_header_and_nothing_else_is_changed(data: bytes, without: bytes) -> None:
    assert without_bcc(data) == without


@given(
    st.lists(st.sampled_from([b"Bcc:", b"bcc", b":", b" ", b"\t", b"\r\n", b"a", b"To: x"]), max_size=20).map(b"".join)
)
def test_no_bcc_is_left_and_the_body_stays(data: bytes) -> None:
    without = without_bcc(data)
    assert not parse_header(without).get_all("Bcc")
    assert split(without)[1] in (split(data)[1], b"") or without.endswith(split(data)[1])


def test_a_message_is_sent_without_bcc_and_keeps_it() -> None:
    message = made(Bcc="eve@example.net")
    data = serialize(message)
    assert b"eve" not in data
    assert message["Bcc"] == "eve@example.net"
    assert recipients_of(message)[1] == MailAddress.parse("eve@example.net")


# Its bytes


def test_lines_end_in_cr_lf_and_the_message_stays_as_it_is() -> None:
    message = made(body="a\n.\nb\n")
    before = message.as_bytes()
    data = serialize(message)
    assert data.replace(b"\r\n", b"\n") == before == message.as_bytes()
    assert b"\r\n.\r\n" in data


@pytest.mark.parametrize("eight_bit", [True, False])
def test_text_beyond_ascii_is_encoded_where_it_has_to_be(eight_bit: bool) -> None:
    message = made("gr\u00fc\u00dfe", "gr\u00fc\u00dfe\n")
    message.add_attachment(bytes(range(256)), maintype="application", subtype="octet-stream", filename="b\u00fcro.bin")
    data = serialize(message, eight_bit=eight_bit)
    assert data.isascii() is not eight_bit
    assert split(data)[0].isascii()
    back = parse_message(data)
    assert back["Subject"] == "gr\u00fc\u00dfe"
    body = back.get_body()
    assert body is not None
    assert body.get_content().split() == ["gr\u00fc\u00dfe"]
    [attachment] = back.iter_attachments()
    assert (attachment.get_filename(), attachment.get_content()) == ("b\u00fcro.bin", bytes(range(256)))


def test_a_message_that_was_read_with_bytes_above_127_is_encoded_where_it_has_to_be() -> None:
    data = b"From: a@x.example\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\ngr\xfc\xdfe\r\n"
    encoded = serialize(parse_message(data))
    assert encoded.isascii()
    assert parse_message(encoded).get_content().strip() == "gr\u00fc\u00dfe"


def test_domains_in_the_header_go_as_the_dns_knows_them() -> None:
    message = made(
        To=(
            Group("friends", (Address("J\u00fcrgen", "juergen", "b\u00fccher.example"),)),
            Address("", "dora", "example.net"),
        )
    )
    before = message.as_bytes(policy=email.policy.SMTPUTF8)
    head = split(serialize(message))[0]
    assert b"juergen@xn--bcher-kva.example" in head
    assert b"friends: " in head
    assert b"dora@example.net" in head
    assert message.as_bytes(policy=email.policy.SMTPUTF8) == before


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Content-Type: text/plain\r\n",
        b"MIME-Version: 1.0\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: 8bit\r\n",
        b"Subject: gr\xfc\xdfe\r\n",
    ],
)
def test_bytes_above_127_of_no_charset_are_encoded_where_they_have_to_be(fields: bytes) -> None:
    message = parse_message(b"From: a@x.example\r\n" + fields + b"\r\ngr\xfc\xdfe\r\n")
    before = message.as_bytes()
    sent = serialize(message)
    assert sent.isascii()
    read = parse_message(sent)
    assert (read["MIME-Version"], read["Content-Transfer-Encoding"]) == ("1.0", "base64")
    assert read.get_payload(decode=True).replace(b"\r\n", b"\n") == b"gr\xfc\xdfe\n"  # type: ignore[union-attr]
    assert message.as_bytes() == before
    assert (b"gr\xfc\xdfe" in serialize(message, eight_bit=True)) == (b"Subject" not in fields)


def test_and_what_stands_twice_in_the_header_beside_them_stays() -> None:
    text = "From: a@x.example\nTo: b@b\u00fccher.example\nSubject: one\nSubject: two\n\nhello\n"
    sent = serialize(email.message_from_string(text, policy=email.policy.default))
    assert sent == (
        b"From: a@x.example\r\nTo: b@xn--bcher-kva.example\r\nSubject: one\r\nSubject: two\r\n\r\nhello\r\n"
    )


@pytest.mark.parametrize("eight_bit", [True, False])
def test_binary_content_keeps_each_byte(eight_bit: bool) -> None:
    data = bytes(range(256)) + b"\r\n\n\r\r\n.\r\n"
    message = made()
    message.add_attachment(data, maintype="application", subtype="x", cte="binary")
    message["Content-Transfer-Encoding"] = "binary"
    before = message.as_bytes()
    read = parse_message(serialize(message, eight_bit=eight_bit))
    assert [part.get_content() for part in read.iter_attachments()] == [data]
    assert [part["Content-Transfer-Encoding"] for part in read.walk()] == ["8bit", "7bit", "base64"]
    assert message.as_bytes() == before


@pytest.mark.parametrize("text", ["a\r\nBcc: eve@example.net", "a\nBcc: eve@example.net", "a\r\n\r\nbody"])
@pytest.mark.parametrize("in_part", [True, False])
def test_a_header_that_would_become_two_is_refused(text: str, in_part: bool) -> None:
    message = EmailMessage(policy=email.policy.compat32)  # type: ignore[arg-type]
    message["From"] = "anna@example.org"
    if in_part:
        part = EmailMessage(policy=email.policy.compat32)  # type: ignore[arg-type]
        part["Content-Description"] = text
        message["Content-Type"] = "multipart/mixed"
        message.set_payload([part])
    else:
        message["Subject"] = text
    with pytest.raises(LocalProtocolError, match="would become two"):
        serialize(message)


@pytest.mark.parametrize("text", ["=?utf-8?q?a=0D=0ABcc:_x?=", "=?utf-8?q?a=0ABcc:_x?="])
async def test_an_encoded_line_end_in_a_header_that_was_read_never_becomes_a_header(text: str) -> None:
    for name in ("Subject", "To"):
        value = f"{text} <b@x.example>"
        message = parse_message(f"From: a@x.example\r\n{name}: {value}\r\n\r\n".encode())
        try:
            sent = serialize(message)
        except LocalProtocolError:
            continue
        assert not parse_header(sent).get_all("Bcc")
    async with greeted(answering(), PLAIN) as smtp:
        with pytest.raises(LocalProtocolError, match="To cannot be read"):
            await smtp.send_message(f"From: a@x.example\r\nTo: {value}\r\n\r\n".encode())


WORDS = st.sampled_from([*'<>@,;:"()[]\\ .=?\n\t\0', "=?utf-8?q?=0A?=", "a", "\u00fc", "\r\n", "=?x?b?!?="])


@given(st.lists(WORDS, max_size=12).map("".join))
def test_whatever_a_header_holds_nothing_unforeseen_is_raised(value: str) -> None:
    for name in ("From", "To", "Sender", "Subject", "Resent-Date", "Content-Type", "Content-Disposition"):
        data = f"From: a@x.example\r\n{name}: {value}\r\n\r\nx\xff".encode(errors="surrogateescape")
        message = parse_message(with_line_ends(data))
        for step in (sender_of, recipients_of, serialize, lambda one: needs_international(one, ())):
            try:
                step(message)
            except LocalProtocolError:
                pass


class Sneaky(str):
    """A value that no policy looks at."""

    name = "Subject"

    def fold(self, *, policy: object) -> str:
        return "Subject: a\r\nBcc: eve@example.net\r\n"


def test_a_header_that_folds_into_two_is_refused() -> None:
    message = made()
    del message["Subject"]
    message["Subject"] = Sneaky("a")
    with pytest.raises(LocalProtocolError, match="would become two"):
        serialize(message)


@pytest.mark.parametrize("charset", ["no-such-charset", "utf-8"])
def test_what_cannot_be_encoded_is_told(charset: str) -> None:
    message = EmailMessage()
    message["From"] = "a@x.example"
    message["Content-Type"] = f"text/plain; charset={charset}"
    message.set_payload("\ud83d")
    with pytest.raises(LocalProtocolError, match="cannot be encoded"):
        serialize(message)


# Sent


async def test_a_message_goes_to_those_in_its_header() -> None:
    message = made(Cc="dora@example.net", Bcc="eve@example.net")
    data = serialize(message)
    script = answering(
        (b"MAIL FROM:<anna@example.org>\r\n", OK),
        (b"RCPT TO:<carl@example.net>\r\n", OK),
        (b"RCPT TO:<dora@example.net>\r\n", OK),
        (b"RCPT TO:<eve@example.net>\r\n", OK),
        (b"DATA\r\n", b"354 go\r\n"),
        (data + b".\r\n", OK),
    )
    async with greeted(script, PLAIN) as smtp:
        assert len((await smtp.send_message(message)).outcomes) == 3


async def test_an_envelope_of_ones_own_goes_before_the_header() -> None:
    script = answering((b"MAIL FROM:<bounces@example.org>\r\n", OK), (b"RCPT TO:<dora@example.net>\r\n", b"550 no\r\n"))
    async with greeted(script, PLAIN) as smtp:
        with pytest.raises(MessageRefused):
            await smtp.send_message(made(), sender="bounces@example.org", recipients=["dora@example.net"])


@pytest.mark.parametrize(
    ("offered", "parameters", "eight_bit"), [(["8BITMIME"], b" BODY=8BITMIME", True), ([], b"", False)]
)
async def test_text_beyond_ascii_goes_as_the_server_can_take_it(
    offered: list[str], parameters: bytes, eight_bit: bool
) -> None:
    message = made(body="gr\u00fc\u00dfe\n")
    script = answering(
        (b"MAIL FROM:<anna@example.org>" + parameters + b"\r\n", OK),
        (b"RCPT TO:<carl@example.net>\r\n", OK),
        (b"DATA\r\n", b"354 go\r\n"),
        (serialize(message, eight_bit=eight_bit) + b".\r\n", OK),
    )
    async with greeted(script, offering(*offered)) as smtp:
        await smtp.send_message(message)


async def test_a_local_part_beyond_ascii_needs_smtputf8() -> None:
    message = made(To=Address("J\u00fcrgen", "j\u00fcrgen", "example.net"))
    async with greeted(answering(), offering("8BITMIME")) as smtp:
        with pytest.raises(NotSupported) as caught:
            await smtp.send_message(message)
        assert caught.value.enhanced == "5.6.7"
        assert smtp.is_usable
    script = answering(
        (b"MAIL FROM:<anna@example.org> BODY=8BITMIME SMTPUTF8\r\n", OK),
        ("RCPT TO:<j\u00fcrgen@example.net>\r\n".encode(), OK),
        (b"DATA\r\n", b"354 go\r\n"),
        (serialize(message, international=True, eight_bit=True) + b".\r\n", OK),
    )
    async with greeted(script, offering("8BITMIME", "SMTPUTF8")) as smtp:
        await smtp.send_message(message)


async def test_a_local_part_in_the_header_alone_needs_smtputf8_too() -> None:
    message = made(**{"Reply-To": Address("", "j\u00fcrgen", "example.net")})
    async with greeted(answering(), PLAIN) as smtp:
        with pytest.raises(NotSupported):
            await smtp.send_message(message)


async def test_bytes_go_as_they_are_but_for_line_ends_and_bcc() -> None:
    data = b"From: a@x.example\nX-Odd:   spaced\nTo: b@x.example\nBcc: c@x.example\nSubject: \xc3\xbc\n\n.\rx"
    script = answering(
        (b"MAIL FROM:<a@x.example> BODY=8BITMIME SMTPUTF8\r\n", OK),
        (b"RCPT TO:<b@x.example>\r\n", OK),
        (b"RCPT TO:<c@x.example>\r\n", OK),
        (b"DATA\r\n", b"354 go\r\n"),
        (b"From: a@x.example\r\nX-Odd:   spaced\r\nTo: b@x.example\r\n", b""),
        (b"Subject: \xc3\xbc\r\n\r\n..\r\nx\r\n.\r\n", OK),
    )
    async with greeted(script, offering("8BITMIME", "SMTPUTF8")) as smtp:
        await smtp.send_message(data)


@pytest.mark.parametrize("line", [b"From a@x.example Thu Nov 26 2026\n", b"From 12ab Mon Sep 17 2001\n", b""])
async def test_the_line_that_mailboxes_put_in_front_is_none_of_the_message(line: bytes) -> None:
    data = b"From: a@x.example\r\nTo: b@x.example\r\n\r\nhi\r\n"
    script = answering(
        (b"MAIL FROM:<a@x.example>\r\n", OK),
        (b"RCPT TO:<b@x.example>\r\n", OK),
        (b"DATA\r\n", b"354 go\r\n"),
        (data + b".\r\n", OK),
    )
    async with greeted(script, PLAIN) as smtp:
        await smtp.send_message(line + data)


@pytest.mark.parametrize("data", [b"", b"hello\r\n", b" : x\r\n", b"\xff: x\r\n", b"From x\r\nhello\r\n", b":\r\n"])
async def test_what_does_not_begin_with_a_header_is_no_message(data: bytes) -> None:
    async with greeted(answering(), PLAIN) as smtp:
        with pytest.raises(LocalProtocolError, match="does not begin with a header"):
            await smtp.send_message(data, sender="a@x.example", recipients=["b@x.example"])


async def test_a_header_that_is_no_utf_8_is_encoded_anew_before_smtputf8_is_said() -> None:
    data = b"From: a@x.example\r\nTo: b@x.example\r\nSubject: gr\xfc\xdfe\r\n\r\nhi\r\n"
    script = answering(
        (b"MAIL FROM:<a@x.example>\r\n", OK),
        (b"RCPT TO:<b@x.example>\r\n", OK),
        (b"DATA\r\n", b"354 go\r\n"),
        (serialize(parse_message(data)) + b".\r\n", OK),
    )
    async with greeted(script, offering("8BITMIME", "SMTPUTF8")) as smtp:
        await smtp.send_message(data)
    assert b"=?unknown-8bit?" in serialize(parse_message(data))


@pytest.mark.parametrize("value", [b"text/plain; a*", b"text/plain; boundary*", b"(" * 5000])
async def test_what_cannot_be_read_is_not_sent(value: bytes) -> None:
    data = b"From: a@x.example\r\nTo: b@x.example\r\nContent-Type: " + value + b"\r\n\r\nhi\r\n"
    async with greeted(answering(), PLAIN) as smtp:
        with pytest.raises(LocalProtocolError, match="cannot be read"):
            await smtp.send_message(data)
    with pytest.raises(LocalProtocolError, match="cannot be read"):
        parse_message(data)


async def test_addresses_in_utf_8_are_those_that_they_are() -> None:
    data = "From: a@x.example\r\nTo: \u00dc <\u00fc@x.example>\r\nCc: b@b\u00fccher.example\r\n\r\nhi\r\n".encode()
    script = answering(
        (b"MAIL FROM:<a@x.example> BODY=8BITMIME SMTPUTF8\r\n", OK),
        ("RCPT TO:<\u00fc@x.example>\r\n".encode(), OK),
        (b"RCPT TO:<b@xn--bcher-kva.example>\r\n", OK),
        (b"DATA\r\n", b"354 go\r\n"),
        (data + b".\r\n", OK),
    )
    async with greeted(script, offering("8BITMIME", "SMTPUTF8")) as smtp:
        await smtp.send_message(data)
    async with greeted(answering(), PLAIN) as smtp:
        with pytest.raises(NotSupported):
            await smtp.send_message(data)


async def test_and_where_the_server_knows_no_utf_8_a_domain_has_its_other_form() -> None:
    data = "From: a@x.example\r\nTo: \u00dc <b@b\u00fccher.example>\r\n\r\nhi\r\n".encode()
    script = answering(
        (b"MAIL FROM:<a@x.example>\r\n", OK),
        (b"RCPT TO:<b@xn--bcher-kva.example>\r\n", OK),
        (b"DATA\r\n", b"354 go\r\n"),
        (b"From: a@x.example\r\nTo: =?utf-8?q?=C3=9C?= <b@xn--bcher-kva.example>\r\n\r\nhi\r\n.\r\n", OK),
    )
    async with greeted(script, PLAIN) as smtp:
        await smtp.send_message(data)


async def test_bytes_that_the_server_cannot_take_are_encoded_anew() -> None:
    data = (
        "From: a@x.example\nTo: b@x.example\nSubject: gr\u00fc\u00dfe\nMIME-Version: 1.0\n"
        "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\ngr\u00fc\u00dfe\n"
    ).encode()
    got = b""

    async def script(peer):  # type: ignore[no-untyped-def]
        nonlocal got
        await answering(
            (b"MAIL FROM:<a@x.example>\r\n", OK), (b"RCPT TO:<b@x.example>\r\n", OK), (b"DATA\r\n", b"354 go\r\n")
        )(peer)
        got = await peer.expect_until(b"\r\n.\r\n")
        await peer.send(OK)

    async with greeted(script, PLAIN) as smtp:
        await smtp.send_message(data)
    assert got.isascii()
    back = parse_message(got.removesuffix(b".\r\n"))
    assert (back["Subject"], back.get_content().split()) == ("gr\u00fc\u00dfe", ["gr\u00fc\u00dfe"])


@pytest.mark.parametrize("policy", [email.policy.default, email.policy.compat32])
def test_comments_within_comments_are_no_address(policy: email.policy.Policy[EmailMessage]) -> None:
    message = email.message_from_bytes(b"From: a@x.example\r\nTo: " + b"(" * 5000 + b"\r\n\r\n", policy=policy)
    with pytest.raises(LocalProtocolError, match="To cannot be read"):
        recipients_of(message)
