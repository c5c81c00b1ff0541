"""What a sender is told of a message's fate, as a program that files mail reads it."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.relay.bounces import (
    MAX_HEADERS,
    MAX_WHOLE,
    Action,
    Fate,
    Report,
    Subject,
    headers_of,
    is_wanted,
    make_report,
    returned_part,
)
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.envelope import Body, Envelope, Notify, Recipient, Returned

ANNA = MailAddress("anna", "example.org")
CARL = Recipient(MailAddress("carl", "example.com"))
HEADERS = b"From: anna@example.org\r\nMessage-ID: <1@example.org>\r\nSubject: hello\r\n"
MESSAGE = HEADERS + b"\r\nMessage-ID: <2@example.org>\r\nhow are you?\r\n"
FROM_ANNA = Envelope(ANNA)
NOW = 1_700_000_000.0


def report(*fates: Fate, envelope: Envelope = FROM_ANNA, content: bytes = MESSAGE, is_whole: bool = False) -> Report:
    subject = Subject(envelope, NOW - 60, content, is_whole)
    made = make_report(subject, fates, host="mail.example.net", now=NOW, token="0123456789abcdefghij")
    assert made.content.endswith(b"\r\n")
    assert made.content.count(b"\n") == made.content.count(b"\r\n") == made.content.count(b"\r")
    assert max(map(len, made.content.split(b"\r\n"))) <= 998
    return made


def parsed(made: Report) -> EmailMessage:
    message = email.message_from_bytes(made.content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    for part in message.walk():
        assert not part.defects
    return message


def parts(made: Report) -> tuple[str, list[dict[str, str]], str]:
    """The words, the groups of fields, and what goes back."""
    words, status, returned = parsed(made).iter_parts()
    groups = [dict(group.items()) for group in status.iter_parts()] if status.is_multipart() else []
    groups = groups or [dict(group.items()) for group in status.get_payload()]  # type: ignore[union-attr]
    whole = returned.get_payload()
    text = whole if isinstance(whole, str) else whole[0].as_bytes().decode("utf-8", "surrogateescape")  # type: ignore[index, union-attr]
    return words.get_content(), groups, text


FAILED = Fate(CARL, Action.FAILED, "5.1.1", "550 5.1.1 No such user here", "mx.example.com", attempted=NOW - 5)


def test_a_failure_is_told_to_people_and_to_programs() -> None:
    made = report(FAILED)
    assert made.envelope == Envelope(None, size=len(made.content))
    assert made.recipient == Recipient(ANNA)
    message = parsed(made)
    assert message["To"] == "anna@example.org"
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@mail.example.net>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == message["References"] == "<1@example.org>"
    assert message["Message-ID"] == "<0123456789abcdefghij@mail.example.net>"
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in message.iter_parts()] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    words, (about, carl), returned = parts(made)
    assert "could not be delivered" in words
    assert "<carl@example.com>: host mx.example.com said: 550 5.1.1 No such user" in words
    assert about == {
        "Reporting-MTA": "dns; mail.example.net",
        "Arrival-Date": "Tue, 14 Nov 2023 22:12:20 -0000",
    }
    assert carl == {
        "Final-Recipient": "rfc822; carl@example.com",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.example.com",
        "Diagnostic-Code": "smtp; 550 5.1.1 No such user here",
        "Last-Attempt-Date": "Tue, 14 Nov 2023 22:13:15 -0000",
    }
    assert returned.encode() == HEADERS


def test_what_the_sender_has_said_comes_back() -> None:
    carl = Recipient(CARL.address, frozenset({Notify.FAILURE}), "rfc822;Carl+x@example.com")
    envelope = Envelope(ANNA, envelope_id="id 1+1=2")
    _, (about, fields), _ = parts(report(Fate(carl, Action.FAILED, "5.0.0"), envelope=envelope))
    assert about["Original-Envelope-Id"] == "id 1+1=2"
    assert fields["Original-Recipient"] == "rfc822; Carl+x@example.com"


def test_a_delay_says_until_when_it_is_tried() -> None:
    made = report(Fate(CARL, Action.DELAYED, "4.4.1", "connection refused", retried_until=NOW + 3600))
    words, (_, fields), _ = parts(made)
    assert "need not do anything" in words
    assert parsed(made)["Subject"] == "Delayed mail: no need to send it again"
    assert fields["Will-Retry-Until"] == "Tue, 14 Nov 2023 23:13:20 -0000"
    assert fields["Diagnostic-Code"] == "x-asyncnet; connection refused"
    assert "Remote-MTA" not in fields


def test_several_fates_are_one_report() -> None:
    dora = Recipient(MailAddress("dora", "example.com"))
    made = report(FAILED, Fate(dora, Action.DELIVERED, "2.0.0"), Fate(ANNA_HERSELF, Action.RELAYED, "2.0.0"))
    words, (_, *fields), _ = parts(made)
    assert [group["Action"] for group in fields] == ["failed", "delivered", "relayed"]
    assert words.index("carl") < words.index("dora") < words.index("anna@example.org")


ANNA_HERSELF = Recipient(ANNA)


def test_all_of_the_message_comes_back_where_that_was_asked_for() -> None:
    made = report(FAILED, is_whole=True)
    *_, returned = parsed(made).iter_parts()
    assert returned.get_content_type() == "message/rfc822"
    assert "how are you?" in parts(made)[2]


def test_how_much_comes_back() -> None:
    asked = Envelope(ANNA, returned=Returned.FULL)
    delayed = Fate(CARL, Action.DELAYED, "4.0.0")
    assert returned_part(Envelope(ANNA), 10, [FAILED]) is Returned.HEADERS
    assert returned_part(Envelope(ANNA, returned=Returned.HEADERS), 10, [FAILED]) is Returned.HEADERS
    assert returned_part(asked, MAX_WHOLE, [delayed, FAILED]) is Returned.FULL
    assert returned_part(asked, MAX_WHOLE + 1, [FAILED]) is Returned.HEADERS
    assert returned_part(asked, 10, [delayed]) is Returned.HEADERS
    assert returned_part(Envelope(ANNA, Body.BINARY, returned=Returned.FULL), 10, [FAILED]) is Returned.HEADERS


ALL = frozenset(Notify) - {Notify.NEVER}


@pytest.mark.parametrize(
    ("notify", "told"),
    [
        (frozenset[Notify](), {Action.FAILED, Action.DELAYED}),
        (frozenset({Notify.NEVER}), set[Action]()),
        (frozenset({Notify.FAILURE}), {Action.FAILED}),
        (frozenset({Notify.DELAY}), {Action.DELAYED}),
        (frozenset({Notify.SUCCESS}), {Action.DELIVERED, Action.RELAYED}),
        (ALL, set(Action)),
    ],
)
def test_senders_hear_what_they_want_to_hear(notify: frozenset[Notify], told: set[Action]) -> None:
    recipient = Recipient(CARL.address, notify)
    assert {action for action in Action if is_wanted(Envelope(ANNA), recipient, action)} == told


def test_nobody_hears_of_a_message_without_a_sender() -> None:
    assert not any(is_wanted(Envelope(None), Recipient(CARL.address, ALL), action) for action in Action)


def test_words_of_others_are_one_line_of_printable_characters() -> None:
    fate = Fate(CARL, Action.FAILED, "5.0.0", "550 no\r\nBcc: all\x00\x1b[2J ünd " + "x" * 3000, "mx\r\n.example")
    _, (_, fields), _ = parts(report(fate))
    assert fields["Remote-MTA"] == "dns; mx .example"
    assert fields["Diagnostic-Code"].startswith("smtp; 550 no Bcc: all??[2J ?nd x")
    assert set(fields) == {"Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code"}


def test_headers_end_where_the_message_begins() -> None:
    assert headers_of(b"A: b\r\nC: d\r\n\r\nE: f\r\n") == b"A: b\r\nC: d\r\n"
    assert headers_of(b"A: b\r\nC: d\r\n") == b"A: b\r\nC: d\r\n"
    assert headers_of(b"A: b\r\nC: d") == b"A: b\r\n"
    assert headers_of(b"\r\nno headers\r\n\r\n") == b""
    assert headers_of(b"") == b""
    many = headers_of(b"X: y\r\n" * MAX_HEADERS)
    assert len(many) <= MAX_HEADERS
    assert many.endswith(b"X: y\r\n")


def test_what_is_beyond_ascii_goes_as_such() -> None:
    joerg = Recipient(MailAddress("jörg", "münchen.example"), original="utf-8;jörg@münchen.example")
    envelope = Envelope(MailAddress("änna", "example.org"), Body.EIGHT_BIT, international=True)
    content = "From: änna@example.org\r\nSubject: grüße\r\n\r\n".encode()
    made = report(Fate(joerg, Action.FAILED, "5.1.1", "no jörg", "mx.example"), envelope=envelope, content=content)
    assert made.envelope.international
    assert made.envelope.body is Body.EIGHT_BIT
    assert [part.get_content_type() for part in parsed(made).iter_parts()] == [
        "text/plain",
        "message/global-delivery-status",
        "message/global-headers",
    ]
    text = made.content.decode()
    assert "Original-Recipient: utf-8; jörg@münchen.example\r\n" in text
    assert "Final-Recipient: utf-8; jörg@münchen.example\r\n" in text
    assert "Diagnostic-Code: smtp; no jörg\r\n" in text
    assert "Subject: grüße\r\n" in text


def test_an_international_message_of_nothing_but_ascii_needs_nothing_special() -> None:
    carl = Recipient(CARL.address, original="utf-8;jörg@example.com")
    made = report(Fate(carl, Action.FAILED, "5.1.1"), envelope=Envelope(ANNA, international=True))
    assert made.content.isascii()
    assert not made.envelope.international
    assert parts(made)[1][1]["Original-Recipient"] == "utf-8; j\\x{F6}rg@example.com"


def test_eight_bits_in_headers_are_declared() -> None:
    made = report(FAILED, content=b"Subject: gr\xfc\xdfe\r\n\r\n")
    assert made.envelope.body is Body.EIGHT_BIT
    assert not made.envelope.international
    *_, returned = parsed(made).iter_parts()
    assert returned["Content-Transfer-Encoding"] == "8bit"


def test_words_beyond_ascii_are_declared() -> None:
    made = report(Fate(CARL, Action.FAILED, "5.1.1", "550 5.1.1 kein Empfänger", "mx.example"))
    assert made.envelope.body is Body.EIGHT_BIT
    assert not made.envelope.international
    message = parsed(made)
    words, status, _ = message.iter_parts()
    assert message["Content-Transfer-Encoding"] == words["Content-Transfer-Encoding"] == "8bit"
    assert "kein Empfänger" in words.get_content()
    assert status.as_bytes().isascii()


@given(st.text(), st.text(max_size=50), st.binary(max_size=300))
def test_no_words_break_a_report(text: str, host: str, content: bytes) -> None:
    content = content.replace(b"\n", b"").replace(b"\r", b"\r\n")
    made = report(Fate(CARL, Action.FAILED, "5.0.0", text, host), content=content)
    status = list(parsed(made).iter_parts())[1]
    assert len(status.get_payload()) == 2


def test_a_message_that_had_no_lines_comes_back_in_lines() -> None:
    """As `report` checks."""
    made = report(FAILED, envelope=Envelope(ANNA, Body.BINARY), content=b"Subject: a\rb\nX: c\n\r\nd")
    assert b"Subject: a\r\nb\r\nX: c\r\n" in made.content
