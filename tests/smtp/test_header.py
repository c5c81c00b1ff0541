"""Where a header ends, what is in it, and the fields that a server writes."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.delivery import Client, Role
from asyncnet.smtp.envelope import Envelope, Recipient
from asyncnet.smtp.header import HeaderTooLong, HeaderWatch
from asyncnet.smtp.trace import date, protocol_name, received_field
from asyncnet.transports.address import NOWHERE, Address

PIECES = st.lists(
    st.sampled_from([b"A: b\r\n", b"Received:\r\n", b" folded\r\n", b"\r\n", b"no field\r\n", b":\r\n", b"x", b"a: "]),
    max_size=20,
).map(b"".join)


def watched(content: bytes, size: int, limit: int = 10_000) -> tuple[bytes, list[bytes], bool]:
    """What passes, the names, and whether there is no header, when it comes in pieces of `size` bytes."""
    watch, passed = HeaderWatch(limit), b""
    for begin in range(0, len(content), size):
        piece = content[begin : begin + size]
        passed += piece if watch.is_whole else watch.feed(piece)
    return passed if watch.is_whole else watch.finish(), watch.names, watch.is_missing


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", []),
        (b"\r\nA: b\r\n", []),
        (b"A: b\r\n\r\nC: d\r\n", [b"a"]),
        (b"A: b\r\nReceived :x\r\n C: d\r\n\tE: f\r\nG:\r\n\r\nH: i", [b"a", b"received", b"g"]),
        (b"A: b\r\nno field\r\nC: d\r\n", [b"a"]),
        (b"A: b\r\nC: d", [b"a", b"c"]),
        (b"A: b", [b"a"]),
        (b"A b: c\r\n", []),
        (b" A: b\r\nC: d\r\n", []),
        (b"\xc3: d\r\n", []),
    ],
)
def test_a_header_ends_at_the_first_line_that_is_no_field(content: bytes, names: list[bytes]) -> None:
    for size in (1, 2, 7, 1000):
        assert watched(content, size)[:2] == (content, names)


@pytest.mark.parametrize(
    ("content", "is_missing"),
    [
        *((b"", False), (b"\r\n", False), (b"\r\nbody", False), (b"A: b\r\n", False), (b"A: b\r\nbody\r\n", False)),
        *((b"body\r\n", True), (b"body", True), (b" folded\r\n", True), (b"\tx", True), (b"a b: c\r\n\r\n", True)),
        *((b" folded\r\nA: b\r\n\r\n", True), (b"A: b", False)),
    ],
)
def test_a_content_may_begin_with_its_body(content: bytes, is_missing: bool) -> None:
    for size in (1, 2, 1000):
        assert watched(content, size)[2] == is_missing


@given(PIECES, st.integers(1, 30))
def test_any_chunking_gives_the_same(content: bytes, size: int) -> None:
    assert watched(content, size) == watched(content, 10_000)
    assert watched(content, size)[0] == content


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_header_has_a_limit_and_a_body_none(size: int) -> None:
    assert watched(b"A: b\r\n" * 10 + b"\r\n" + b"x" * 500, size, limit=62)[1] == [b"a"] * 10
    with pytest.raises(HeaderTooLong):
        watched(b"A: b\r\n" * 10 + b"C:\r\n\r\n", size, limit=60)
    with pytest.raises(HeaderTooLong):
        watched(b"x" * 61, size, limit=60)


@pytest.mark.parametrize(
    ("role", "flags", "name"),
    [
        (Role.MX, "", "SMTP"),
        (Role.MX, "sl", "SMTP"),
        (Role.MX, "e", "ESMTP"),
        (Role.MX, "es", "ESMTPS"),
        (Role.SUBMISSION, "el", "ESMTPA"),
        (Role.SUBMISSION, "esl", "ESMTPSA"),
        (Role.MX, "ei", "UTF8SMTP"),
        (Role.SUBMISSION, "esli", "UTF8SMTPSA"),
        (Role.LMTP, "e", "LMTP"),
        (Role.LMTP, "esli", "UTF8LMTPSA"),
    ],
)
def test_protocols_have_their_names(role: Role, flags: str, name: str) -> None:
    said = protocol_name(
        role, is_extended="e" in flags, secure="s" in flags, logged_in="l" in flags, international="i" in flags
    )
    assert said == name


@pytest.mark.parametrize(
    ("name", "peer", "said"),
    [
        ("a.example", Address("192.0.2.1", 1), "a.example ([192.0.2.1])"),
        ("[192.0.2.1]", Address("2001:db8::1", 1), "[192.0.2.1] ([IPv6:2001:db8::1])"),
        ("a b", Address("192.0.2.1", 1), "a?b ([192.0.2.1])"),
        ("[a:(10.0.0.1);]", Address("192.0.2.1", 1), "?a:?10.0.0.1??? ([192.0.2.1])"),
        ("[IPv6:::1%(x)]", Address("192.0.2.1", 1), "?IPv6:::1??x?? ([192.0.2.1])"),
        ("", Address("192.0.2.1", 1), "unknown ([192.0.2.1])"),
        ("a.example", NOWHERE, "a.example"),
        ("a.example", Address(path="/run/x"), "a.example"),
    ],
)
def test_the_trace_names_who_sent_it(name: str, peer: Address, said: str) -> None:
    to = [Recipient(MailAddress("carl", "example.org"))]
    field = received_field(
        Client(peer, name), Envelope(None), to, hostname="mx.example", message_id="1", now=0, tls="using X with Y"
    )
    assert field.endswith(b"\r\n")
    message = email.message_from_bytes(field + b"\r\n", policy=email.policy.SMTP)
    assert not message.defects
    assert message["Received"].replace("\t", " ") == (
        f"from {said} (using X with Y) by mx.example with SMTP id 1 for <carl@example.org>; "
        "Thu, 01 Jan 1970 00:00:00 +0000"
    )


def test_an_international_recipient_stands_only_in_an_international_message() -> None:
    to = [Recipient(MailAddress("jörg", "example.org"))]
    for international in (True, False):
        field = received_field(
            Client(NOWHERE, "a"), Envelope(None, international=international), to, hostname="a", message_id="1", now=0
        )
        assert ("jörg" in field.decode()) == international
    assert date(86400) == "Fri, 02 Jan 1970 00:00:00 +0000"
