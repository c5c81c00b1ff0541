"""The relay passes mail on to smtp-sink, aiosmtpd, Exim, OpenSMTPD and Dovecot: what arrives, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from email import message_from_bytes
from email.header import decode_header
from pathlib import Path

import pytest

from tests.interop.mail_servers import (
    PASSWORD,
    USER,
    Peer,
    Printing,
    aiosmtpd,
    dovecot_lmtp,
    exim,
    opensmtpd,
    smtp_sink,
)
from tests.interop.relaying import CARL, fates, letter, relaying

LOGIN = f"{USER}:{PASSWORD}@"
EIGHT_BIT = (
    letter("eight bit").replace(
        b"\r\n\r\n", b"\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n", 1
    )
    + "grüße\r\n.\r\n..\r\n.end\r\n".encode()
)
LARGE = letter("large") + (b"." * 70 + b"\r\n") * (5_000_000 // 72)

Makes = Callable[[], AbstractContextManager[Peer]]


@pytest.fixture(params=[smtp_sink, aiosmtpd, exim, opensmtpd], ids=lambda make: str(make.__name__))
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    make: Makes = request.param
    with make() as peer:
        yield peer


def stored(content: bytes) -> bytes:
    """What a client has sent, as servers store it."""
    return content.replace(b"\r\n", b"\n")


def test_every_server_gets_what_was_sent(peer: Peer, tmp_path: Path) -> None:
    sent = [letter("short"), EIGHT_BIT, LARGE]
    with relaying(tmp_path, "--relay-to", peer.url()) as relay:
        for content in sent:
            relay.send([CARL], content, [] if content.isascii() else ["BODY=8BITMIME"])
        relay.wait_until_empty()
        assert relay.returned == []
    for content, wanted in zip(sorted(peer.wait_for(len(sent)), key=len), sent, strict=True):
        assert content.endswith(stored(wanted))
        assert b"by relay.example.org" in content


@pytest.mark.parametrize(
    ("make", "said"),
    [(aiosmtpd, "550 5.1.1 There is nobody"), (exim, "550 5.1.1 There is nobody"), (opensmtpd, "524 5.2.4 ")],
)
def test_a_recipient_whom_the_server_refuses_comes_back_and_no_other(make: Makes, said: str, tmp_path: Path) -> None:
    with make() as peer, relaying(tmp_path, "--relay-to", peer.url()) as relay:
        relay.send([CARL, "nobody@example.com", "carl+lists@example.com"], letter("hello"))
        report = relay.wait_for_report()
        relay.wait_until_empty()
        for content in peer.wait_for(1 if make is aiosmtpd else 2):  # the others store it for each recipient
            assert content.endswith(stored(letter("hello")))
    ((recipient, fate),) = fates(report).items()
    assert recipient == "nobody@example.com"
    assert (fate["Action"], fate["Remote-MTA"]) == ("failed", "dns; localhost")
    assert fate["Diagnostic-Code"].startswith(f"smtp; {said}")
    assert "Subject: hello" in report.as_string()


# TLS and passwords


def test_it_logs_in_over_tls(tmp_path: Path) -> None:
    with exim() as peer:
        options = ("--relay-to", peer.url(LOGIN), "--tls-out", "required", "--relay-ca", peer.ca)
        with relaying(tmp_path, *options) as relay:
            relay.send(["members@example.com"], letter("hello"))  # refused to whom has not logged in
            relay.wait_until_empty()
            assert relay.returned == []
            (content,) = peer.wait_for(1)
    assert b"with esmtpsa " in content
    assert b"TLS1." in content


def test_who_has_to_log_in_and_has_not_is_refused(tmp_path: Path) -> None:
    with exim() as peer, relaying(tmp_path, "--relay-to", peer.url()) as relay:
        relay.send(["members@example.com"], letter("hello"))
        assert fates(relay.wait_for_report())["members@example.com"]["Action"] == "failed"
        assert peer.files() == []


def test_mail_waits_for_tls_that_is_offered_and_does_not_work(tmp_path: Path) -> None:
    with opensmtpd() as peer:
        options = ("--relay-to", peer.url(LOGIN), "--relay-ca", peer.ca)
        with relaying(tmp_path, *options) as relay:
            relay.send([CARL], letter("hello"))
            assert " 4." in relay.wait_until_put_off()
            assert peer.files() == []


def test_a_password_is_told_over_tls_alone_without_being_asked(tmp_path: Path) -> None:
    with aiosmtpd() as peer:
        with relaying(tmp_path, "--relay-to", peer.url(LOGIN), "--relay-ca", peer.ca) as relay:
            relay.send([CARL], letter("hello"))
            relay.wait_until_empty()
        (told,) = peer.told
    assert (told["user"], told["tls"]) == (USER, True)


@pytest.mark.parametrize(
    ("login", "is_trusted", "reason"),
    [
        (f"{USER}:wrong@", True, "535"),
        ("", False, "4.4.1"),
    ],
    ids=["a wrong password", "a certificate of nobody's"],
)
def test_mail_waits_where_our_own_settings_keep_it(login: str, is_trusted: bool, reason: str, tmp_path: Path) -> None:
    with exim() as peer:
        options = ["--relay-to", peer.url(login), "--tls-out", "required"]
        with relaying(tmp_path, *options, *(["--relay-ca", peer.ca] if is_trusted else [])) as relay:
            relay.send([CARL], letter("hello"))
            assert reason in relay.wait_until_put_off()
            assert relay.returned == []
            assert peer.files() == []


def test_mail_waits_for_tls_that_the_host_does_not_have(tmp_path: Path) -> None:
    with smtp_sink() as peer, relaying(tmp_path, "--relay-to", peer.url(), "--tls-out", "required") as relay:
        relay.send([CARL], letter("hello"))
        assert "4.7.5" in relay.wait_until_put_off()
        assert peer.files() == []


OLD_TLS = "tls_require_ciphers = NORMAL:-VERS-ALL:+VERS-TLS1.0"


def test_mail_goes_in_the_clear_where_tls_fails_that_nobody_requires(tmp_path: Path) -> None:
    with exim(OLD_TLS) as peer, relaying(tmp_path, "--relay-to", peer.url()) as relay:
        relay.send([CARL], letter("hello"))
        relay.wait_until_empty()
        (content,) = peer.wait_for(1)
    assert b" with esmtp " in content


def test_mail_waits_where_tls_fails_that_is_required(tmp_path: Path) -> None:
    with exim(OLD_TLS) as peer:
        with relaying(tmp_path, "--relay-to", peer.url(), "--tls-out", "required", "--relay-ca", peer.ca) as relay:
            relay.send([CARL], letter("hello"))
            assert " 4." in relay.wait_until_put_off()
            assert peer.files() == []


# Limits of the host


def test_more_recipients_than_the_host_takes_go_in_several_messages(tmp_path: Path) -> None:
    recipients = [f"carl+{number}@example.com" for number in range(10)]
    with exim("recipients_max = 4") as peer, relaying(tmp_path, "--relay-to", peer.url()) as relay:
        relay.send(recipients, letter("hello"))
        relay.wait_until_empty()
        assert relay.returned == []
        contents = peer.wait_for(len(recipients))
    assert {str(message_from_bytes(content)["Envelope-to"]) for content in contents} == set(recipients)


def test_a_message_that_is_too_large_for_the_host_comes_back(tmp_path: Path) -> None:
    with exim("message_size_limit = 1M") as peer, relaying(tmp_path, "--relay-to", peer.url()) as relay:
        relay.send([CARL], LARGE)
        report = relay.wait_for_report()
        assert "rejected MAIL FROM" in (peer.mail.parent / "spool/log-mainlog").read_text()  # not behind 5 MB
    assert fates(report)[CARL]["Diagnostic-Code"].startswith("smtp; 552 ")
    assert len(report.as_bytes()) < 10_000


def test_who_is_told_to_come_later_does(tmp_path: Path) -> None:
    with exim() as peer:
        options = ("--retry-after", "0.2s", "--warn-after", "0.1s")
        with relaying(tmp_path, "--relay-to", peer.url(), *options) as relay:
            relay.send(["later@example.com"], letter("later"))
            report = relay.wait_for_report()
            assert peer.files() == []
            relay.send([CARL], letter("now"))
            relay.wait_until_empty()
            assert len(relay.returned) == 1
            assert sorted(content.partition(b"Subject: ")[2] for content in peer.wait_for(2)) == [
                b"later\n\nhow are you?\n",
                b"now\n\nhow are you?\n",
            ]
    fate = fates(report)["later@example.com"]
    assert (fate["Action"], fate["Status"]) == ("delayed", "4.2.0")
    assert fate["Diagnostic-Code"] == "smtp; 451 4.2.0 Come back later"


# What not every host can carry


def test_a_host_for_seven_bits_gets_the_text_in_them(tmp_path: Path) -> None:
    with exim("accept_8bitmime = false") as peer, relaying(tmp_path, "--relay-to", peer.url()) as relay:
        relay.send([CARL], EIGHT_BIT.replace(b"eight bit\r\n", "süß\r\n".encode()), ["BODY=8BITMIME"])
        relay.wait_until_empty()
        assert relay.returned == []
        (content,) = peer.wait_for(1)
    assert content.isascii()
    message = message_from_bytes(content)
    assert decode_header(message["Subject"]) == [("süß".encode(), "utf-8")]
    assert message["Content-Transfer-Encoding"] == "quoted-printable"
    assert message.get_payload(decode=True) == stored(EIGHT_BIT).partition(b"\n\n")[2]


@pytest.mark.parametrize(
    ("field", "instead"),
    [
        (b"MIME-Version: 1.0", b"Content-Transfer-Encoding: base64"),  # which it is not
        (b"From: anna@example.org", "From: Änna <anna@example.org>".encode()),
    ],
)
def test_what_cannot_be_had_in_seven_bits_comes_back(field: bytes, instead: bytes, tmp_path: Path) -> None:
    content = EIGHT_BIT.replace(field, instead)
    with exim("accept_8bitmime = false") as peer, relaying(tmp_path, "--relay-to", peer.url()) as relay:
        relay.send([CARL], content, ["BODY=8BITMIME"])
        report = relay.wait_for_report()
        assert peer.files() == []
    assert fates(report)[CARL]["Status"] == "5.6.3"


@pytest.mark.parametrize("make", [exim, aiosmtpd])
def test_an_international_address_goes_where_it_is_known(make: Makes, tmp_path: Path) -> None:
    with make() as peer, relaying(tmp_path, "--relay-to", peer.url()) as relay:
        content = letter("hello").replace(b"Subject: hello", "Subject: grüße".encode())
        relay.send(["jürgen@example.com"], content, ["SMTPUTF8", "BODY=8BITMIME"])
        relay.wait_until_empty()
        assert relay.returned == []
        (arrived,) = peer.wait_for(1)
        if isinstance(peer, Printing):
            assert "SMTPUTF8" in peer.told[0]["options"]
            assert peer.told[0]["recipients"] == ["jürgen@example.com"]
        else:
            assert "Envelope-to: jürgen@example.com".encode() in arrived
    assert arrived.endswith(stored(content))


def test_an_international_address_comes_back_where_it_is_not_known(tmp_path: Path) -> None:
    with exim("smtputf8_advertise_hosts =") as peer, relaying(tmp_path, "--relay-to", peer.url()) as relay:
        relay.send(["jürgen@example.com"], letter("hello"), ["SMTPUTF8"])
        report = relay.wait_for_report()
        assert peer.files() == []
    assert fates(report)["jürgen@example.com"]["Status"] == "5.6.7"


# Notifications


def test_a_host_that_knows_notifications_is_told_that_one_is_wanted(tmp_path: Path) -> None:
    wishes = ["NOTIFY=SUCCESS", "ORCPT=rfc822;charles@example.com"]
    with exim() as peer, relaying(tmp_path, "--relay-to", peer.url()) as relay:
        relay.send([CARL], letter("hello"), ["ENVID=the-one", "RET=HDRS"], wishes)
        relay.wait_until_empty()
        contents = peer.wait_for(2)
        assert relay.returned == []  # since Exim reports, and keeps what it sends
    (report,) = (content for content in contents if b"Envelope-to: anna@example.org" in content)
    for said in (b"Original-Envelope-ID: the-one", b"Original-Recipient: rfc822;charles@example.com", b"delivered"):
        assert said in report


def test_the_relay_reports_itself_where_the_host_knows_no_notifications(tmp_path: Path) -> None:
    with aiosmtpd() as peer, relaying(tmp_path, "--relay-to", peer.url()) as relay:
        relay.send([CARL], letter("hello"), ["ENVID=the-one"], ["NOTIFY=SUCCESS"])
        report = relay.wait_for_report()
        assert len(peer.told) == 1
    assert fates(report)[CARL]["Action"] == "relayed"
    assert "Original-Envelope-Id: the-one" in report.as_string()


@pytest.mark.parametrize("make", [exim, aiosmtpd])
def test_nothing_comes_back_to_whom_wants_nothing(make: Makes, tmp_path: Path) -> None:
    with make() as peer, relaying(tmp_path, "--relay-to", peer.url()) as relay:
        relay.send(["nobody@example.com"], letter("hello"), [], ["NOTIFY=NEVER"])
        relay.wait_until_empty()
        assert relay.returned == []


@pytest.mark.parametrize("sender", ["dora@example.com", "jürgen@example.com"])
def test_a_report_travels_like_other_mail(sender: str, tmp_path: Path) -> None:
    with exim() as peer, relaying(tmp_path, "--relay-to", peer.url()) as relay:
        relay.send(["nobody@example.com"], letter("hello"), ["SMTPUTF8"], sender=sender)
        relay.wait_until_empty()
        (content,) = peer.wait_for(1)
    assert content.startswith(f"Return-path: <>\nEnvelope-to: {sender}\n".encode())
    assert fates(message_from_bytes(content))["nobody@example.com"]["Status"] == "5.1.1"


def test_a_report_that_nobody_takes_is_the_end_of_it(tmp_path: Path) -> None:
    with exim() as peer, relaying(tmp_path, "--relay-to", peer.url()) as relay:
        relay.send(["nobody@example.com"], letter("hello"), sender="nobody@example.net")
        relay.wait_until_empty()
        assert relay.returned == []
        assert peer.files() == []


# LMTP


def test_lmtp_fails_for_each_recipient_alone(tmp_path: Path) -> None:
    with dovecot_lmtp() as peer, relaying(tmp_path, "--relay-domain", f"example.com={peer.url('', 'lmtp')}") as relay:
        relay.send(["full@example.com", CARL, "nobody@example.com"], letter("hello"))
        report = relay.wait_for_report()
        relay.wait_until_empty()
        (content,) = peer.wait_for(1, within="carl")
        assert content.endswith(stored(letter("hello")))
        assert peer.files("full") == []
    told = fates(report)
    assert {recipient: fate["Status"] for recipient, fate in told.items()} == {
        "full@example.com": "5.2.2",
        "nobody@example.com": "5.1.1",
    }
