"""Messages in seven bits: the same for who reads them, or not at all."""

from __future__ import annotations

import email
import email.header
import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncnet.relay.conversion import DEEPEST, Inconvertible, convert


def read(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def converted(content: bytes) -> EmailMessage:
    found = convert(content)
    assert found.isascii()
    assert found.count(b"\r") == found.count(b"\n") == found.count(b"\r\n")
    return read(found)


def test_text_says_what_it_said() -> None:
    content = "Subject: hello\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ngrüße\r\n.\r\nFrom me\r\n".encode()
    message = converted(content)
    assert message["Content-Transfer-Encoding"] == "quoted-printable"
    assert message["MIME-Version"] == "1.0"
    assert message.get_content() == read(content).get_content()
    assert message.get_content().split() == ["grüße", ".", "From", "me"]


def test_other_parts_have_their_bytes() -> None:
    content = (
        b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        b"--b\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\xff\xfe\r\n"
        b"--b\r\nContent-Type: text/plain; charset=latin-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngr\xfc\xdfe\r\n"
        b"--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        b"Subject: inner\r\nContent-Type: text/plain; charset=latin-1\r\n\r\n\xfc\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nonly ASCII\r\n--b--\r\n"
    )
    message = converted(content)
    assert message["Content-Transfer-Encoding"] == "7bit"
    image, text, inner, plain = message.iter_parts()
    assert image.get_content() == b"\xff\xfe"
    assert text.get_content() == "grüße"
    assert inner.get_content().get_content() == "ü"
    assert inner["Content-Transfer-Encoding"] == "7bit"
    assert plain.get_content() == "only ASCII"
    assert plain["Content-Transfer-Encoding"] is None


def test_what_is_encoded_already_stays_as_it_is() -> None:
    content = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n"
    assert b"aGVsbG8=" in convert(content)


@pytest.mark.parametrize("folded", ["grüße an alle", "grüße\r\n an\r\n\talle"])
@pytest.mark.parametrize("name", ["Subject", "Comments", "X-Greeting"])
def test_text_in_a_header_says_what_it_said(name: str, folded: str) -> None:
    content = f"{name}: {folded}\r\nFrom: anna@example.org\r\n\r\n".encode()
    assert b"=?utf-8?" in convert(content)
    message = converted(content)
    assert message[name].split() == ["grüße", "an", "alle"]
    assert message["From"] == "anna@example.org"


@example("\x85=")
@given(st.text(st.characters(min_codepoint=0x80, max_codepoint=0x3000) | st.sampled_from("ab ,="), min_size=1))
def test_any_text_in_a_header_has_short_lines(text: str) -> None:
    content = f"Subject: {text}\r\n\r\n".encode()
    found = convert(content)
    assert max(map(len, found.split(b"\r\n"))) <= 76 or content.isascii()  # RFC 2047 section 2
    pieces = email.header.decode_header(email.message_from_bytes(found)["Subject"])
    said = "".join(piece if isinstance(piece, str) else piece.decode(charset or "ascii") for piece, charset in pieces)
    assert said.strip(" ") == text.strip(" ")


def test_a_text_of_which_nobody_knows_the_charset_keeps_its_bytes() -> None:
    found = convert(b"Subject: gr\xfc\xdfe\r\n\r\n")
    ((raw, charset),) = email.header.decode_header(email.message_from_bytes(found)["Subject"])
    assert (raw, charset) == (b"gr\xfc\xdfe", "unknown-8bit")  # RFC 1428 section 3


@pytest.mark.parametrize(
    "field", ["From: Jürgen <j@example.org>", "To: (ü) j@example.org", "Content-Type: text/plain; name=ü"]
)
@pytest.mark.parametrize("before", ["", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"])
def test_no_address_and_no_type_is_taken_for_text(before: str, field: str) -> None:
    with pytest.raises(Inconvertible, match=field.partition(":")[0]):
        convert(f"{before}{field}\r\n\r\nhello\r\n".encode())


@pytest.mark.parametrize(
    "content",
    [
        b"Content-Transfer-Encoding: base64\r\n\r\n\xff\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n\xff\r\n--b\r\n\r\n\xff\r\n--b--\r\n",
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(DEEPEST + 2))
        + b"\r\n\xff\r\n",
    ],
)
def test_what_cannot_be_converted_is_not(content: bytes) -> None:
    with pytest.raises(Inconvertible):
        convert(content)


@pytest.mark.parametrize(
    "content",
    [
        b"\r\n" * 600_000,
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n\r\n" * 20_000,
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(300)),
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain;" + b'";' * 20_000,
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: y\r\n" + b" =?utf-8?q?x?=\r\n" * 5_000,
    ],
)
def test_what_would_take_long_is_not_even_read(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("email.message_from_bytes", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(Inconvertible):
        convert(content + b"\r\n\xff\r\n")


def test_a_long_list_of_recipients_is_none_of_that() -> None:
    content = b"To: " + b"anna@example.org,\r\n\t" * 1_000 + b"anna@example.org\r\n\r\ngr\xfc\xdfe\r\n"
    assert converted(content)["To"].count("anna") == 1_001


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"MIME-Version: 1.0\r\n", b"Content-Type: multipart/x; boundary=b\r\n\r\n--b\r\n"]),
)
def test_any_content_is_converted_or_not(content: bytes, before: bytes) -> None:
    try:
        found = convert(before + content)
    except Inconvertible:
        return
    assert found.isascii()
