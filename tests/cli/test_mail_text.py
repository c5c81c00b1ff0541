"""What a person sees of a message, whoever has made it."""

from __future__ import annotations

import base64
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP, compat32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncnet.cli.mail_text import (
    DEEPEST,
    LONGEST_TEXT,
    MOST_PARTS,
    Heading,
    decode,
    parts_of,
    read_message,
    shown_line,
)


def message(text: str = "Hello.\n", **fields: str) -> EmailMessage:
    made = EmailMessage(policy=SMTP)
    for name, value in fields.items():
        made[name] = value
    made.set_content(text)
    return made


def test_what_matters_of_the_header_and_the_text() -> None:
    mail = message("Grüße,\nanna\n", From="Änne <anna@example.org>", To="bert@example.net")
    # EmailMessage's own folding loses blanks between words of this length.
    mail.policy = compat32
    mail["Subject"] = Header("Füße " * 30, "utf-8")
    mail["X-Spam"] = "no"
    mail["Message-ID"] = "<1@example.org>"
    assert read_message(bytes(mail)) == (
        f"From: Änne <anna@example.org>\nTo: bert@example.net\nSubject: {('Füße ' * 30).strip()}\n\nGrüße,\nanna\n"
    )


@pytest.mark.parametrize("encoding", ["7bit", "8bit", "base64", "quoted-printable"])
@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1"])
def test_encodings_are_decoded(encoding: str, charset: str) -> None:
    text = "naïve\n" if encoding != "7bit" else "naive\n"
    mail = EmailMessage(policy=SMTP)
    mail.set_content(text, charset=charset, cte=encoding)
    assert read_message(bytes(mail)) == f"\n{text}"


def test_plain_text_is_preferred_and_the_rest_is_named() -> None:
    mail = message("plain\n", Subject="x")
    mail.add_alternative("<p>html</p>", subtype="html")
    mail.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="bild ü.png")
    mail.add_attachment("notes\n", filename="notes.txt")
    shown = read_message(bytes(mail)).splitlines()
    assert shown[:3] == ["Subject: x", "", "plain"]
    assert shown[4].startswith("[text/html, ")
    assert [line.rpartition(": ")[2] for line in shown[5:]] == ["bild ü.png]", "notes.txt]"]


def test_html_is_read_without_its_tags() -> None:
    mail = EmailMessage(policy=SMTP)
    mail.set_content(
        "<html><head><title>t</title><style>p { color: red }</style></head><body><h1>One &amp; two</h1>"
        "<p>a\n b<br/>c</p><script>if (a < b) alert('x')</script>d &#27;[31m<!-- e -->f 1 < 2</body></html>",
        subtype="html",
    )
    assert read_message(bytes(mail)).split("\n") == ["", "One & two", "", "a b", "c", "d [31mf 1 < 2", ""]


HOSTILE = "\x1b[31mred\x07\x9b2J\u202eevil\u2066\x00\x08\x7f"


@pytest.mark.parametrize("number", [b"9" * 5000, b"0" * 5000 + b"65", b"x" + b"f" * 5000])
def test_a_character_whose_number_has_no_end_is_none(number: bytes) -> None:
    shown = read_message(b"Content-Type: text/html\r\n\r\n<p>before &#" + number + b"; after</p>\r\n")
    assert shown == "\nbefore \ufffd after\n"


def test_no_control_character_gets_through() -> None:
    encoded = base64.b64encode(HOSTILE.encode()).decode()
    content = (
        f"From: =?utf-8?b?{encoded}?= <x@example.org>\r\nSubject: {HOSTILE}\r\nDate: {HOSTILE}\r\n"
        f'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
        f"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{HOSTILE}\r\n"
        f'--b\r\nContent-Type: text/\x1b[31m; name="{HOSTILE}"\r\n\r\nx\r\n'
        f"--b\r\nContent-Type: image/png; name*=utf-8''%1b%5b31m\r\n\r\nx\r\n--b--\r\n"
    ).encode()
    shown = read_message(content)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "\\x1b[31mred\\x07\\x9b2J\\u202eevil\\u2066" in shown
    heading = Heading.parse(content)
    assert heading.as_line().isprintable()
    assert "\\x1b[31mred" in heading.sender


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\u00a0b", "a b"),
        ("soft\u00adhyphen", "softhyphen"),
        ("a\tb", "a       b"),
        ("a\rb\nc", "a b c"),
        ("\ufeffx", "x"),
    ],
)
def test_what_is_harmless_is_not_escaped(text: str, line: str) -> None:
    assert shown_line(text) == line


@pytest.mark.parametrize(
    "charset", ["zlib", "hex", "idna", "punycode", "undefined", "unicode_escape", "nonsense", "\0", "", "x" * 5000]
)
def test_a_charset_that_is_none_harms_nobody(charset: str) -> None:
    assert decode(b"abc \\x41", charset) == "abc \\x41"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            "From: Anna <a@example.org>\r\nDate: Thu, 26 Nov 2026 12:00:00 +0100\r\nSubject: x\r\n",
            "2026-11-26 11:00 Anna                     x",
        ),
        ("From: a@example.org\r\n", "-                a@example.org            "),
        ("", "-                -                        "),
        ("Date: nonsense\r\nDate: Thu, 26 Nov 2026 12:00:00 +0100\r\n", "-                -                        "),
        ("Date: Thu, 26 Nov 99999 12:00:00 +9999\r\n", "-                -                        "),
        ("From: =?utf-8?q?boss=40example=2Eorg?= <x@evil.example>\r\n", "-                boss@example.org         "),
    ],
)
def test_a_list_has_a_line_for_each_message(fields: str, line: str) -> None:
    assert Heading.parse(fields.encode() + b"\r\nbody").as_line() == line


def nested(depth: int) -> bytes:
    content = b"Content-Type: text/plain\r\n\r\nat the bottom\r\n"
    for level in range(depth):
        boundary = b"b%d" % level
        content = (
            b"Content-Type: multipart/mixed; boundary="
            + boundary
            + b"\r\n\r\n--"
            + boundary
            + b"\r\n"
            + content
            + b"\r\n--"
            + boundary
            + b"--\r\n"
        )
    return content


def test_parts_within_parts_have_an_end() -> None:
    assert "at the bottom" in read_message(nested(DEEPEST))
    shown = read_message(nested(5000))
    assert "at the bottom" not in shown
    assert len(shown) < 1000


def test_parts_beside_each_other_have_an_end() -> None:
    part = b"--b\r\n\r\nx\r\n"
    content = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 100_000
    parts = list(parts_of(content))
    assert len(parts) <= MOST_PARTS
    inner = b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n" + b"--c\r\n\r\nx\r\n" * 1000
    assert len(list(parts_of(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + inner * 1000))) <= 2 * MOST_PARTS


@pytest.mark.parametrize(
    "content",
    [
        b"Subject: " + b"x" * 3_000_000,
        b"Subject: x\r\n" * 300_000,
        b"Subject: x\r\n" + b" y\r\n" * 500_000,
        b"Subject: " + b"=?utf-8?q?x?= " * 100_000,
        b"Subject: =?" * 300_000,
        b'Content-Type: multipart/mixed; boundary="' + b'\\"' * 500_000 + b'"\r\n\r\n',
        b"Content-Type: text/html\r\n\r\n" + b"<" * 3_000_000,
        b"Content-Type: text/html\r\n\r\n" + b"<style>" * 300_000,
        b"Content-Type: text/html\r\n\r\n" + b"<a " * 1_000_000,
        b"Content-Type: text/html\r\n\r\n" + b"&#" * 1_000_000,
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--" * 2_000_000,
        b"\r\n" + b"\r" * 3_000_000,
        b"\n" * 1_000_000,
        b"From: " + b"(" * 1_000_000 + b"\r\n\r\nx",
        b"Content-Transfer-Encoding: base64\r\n\r\n" + b"=" * 3_000_000,
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=" * 3_000_000,
    ],
)
def test_bombs_are_no_work(content: bytes) -> None:
    shown = read_message(content)  # what grows with the square takes hours, and ends in the runner's own timeout
    assert len(shown) < 5 * LONGEST_TEXT
    Heading.parse(content)


@pytest.mark.parametrize(
    "value",
    [
        b"*0*=idna''x",
        b"*0*=\x00''x",
        b"*=\x00''x",
        b"*=nowhere''x",
        b"*" + b"9" * 5000 + b"=x",
        b"*=a; name*0=b; charset*0=b; boundary*0=b",
    ],
)
@pytest.mark.parametrize("parameter", [b"text/plain; name", b"text/plain; charset", b"multipart/mixed; boundary"])
def test_parameters_that_nobody_can_read_harm_nobody(parameter: bytes, value: bytes) -> None:
    shown = read_message(b"Subject: hello\r\nContent-Type: " + parameter + value + b"\r\n\r\nx\r\n")
    assert shown.startswith("Subject: hello\n")


WORDS = st.sampled_from(
    [
        b"Content-Type: multipart/mixed; boundary=b\r\n",
        b"Content-Type: text/html\r\n",
        b"--b\r\n",
        b"--b--\r\n",
        b"\r\n",
        b"Subject: =?utf-8?b?w?=\r\n",
        b"From: <\r\n",
        b'Content-Type: text/plain; charset="',
        b"; name*0*=idna''%ff",
        b"; name*=x",
        b"&#" + b"9" * 5000,
        b" x\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n",
        b"=3D=\r\n",
        b"<p>",
        b"&lt;",
        b"Date: Mon, 1 Jan 0001 00:00:00 +2359\r\n",
        b"Content-Disposition: attachment; filename*=x'y'%zz\r\n",
        b"\x1b",
        b"\xff",
    ]
)


@pytest.mark.parametrize("charset", ["\0", "undefined", "punycode", "idna", "rot13", "utf-16", "nobody"])
@pytest.mark.parametrize("name", ["name", "charset", "boundary"])
def test_a_parameter_in_a_charset_that_is_none_is_left_out(name: str, charset: str) -> None:
    for kind in ("text/plain", "multipart/mixed"):
        assert read_message(f"Content-Type: {kind}; {name}*={charset}''%ff\r\n\r\nhello\r\n".encode())


@settings(max_examples=500)
@given(st.one_of(st.binary(), st.lists(WORDS, max_size=25).map(b"".join)))
def test_anything_is_shown_and_nothing_drives_a_terminal(content: bytes) -> None:
    assert all(line.isprintable() for line in read_message(content).split("\n"))
    assert Heading.parse(content).as_line().isprintable()
