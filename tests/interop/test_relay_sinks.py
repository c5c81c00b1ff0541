"""The relay meets hosts that know less than others, or do not behave: smtp-sinks, each with a fault of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.cli.test_serve_smtp import until
from tests.interop.mail_servers import Peer, smtp_sink
from tests.interop.relaying import Relay, letter, relaying

TAKE = {
    "no ESMTP": ["-e"],
    "no ESMTP, behind a wall": ["-P"],
    "no extensions": ["-p", "-8", "-E", "-N"],
    "no EHLO": ["-f", "EHLO"],
    "LMTP": ["-L"],
    "no goodbye": ["-q", "QUIT"],
}
REFUSE = {
    "the sender": ["-f", "MAIL"],
    "the recipient": ["-f", "RCPT"],
    "DATA": ["-f", "DATA"],
    "the content": ["-f", "."],
    "what it has not read": ["-A", "0"],
}
PUT_OFF = {
    "a refused connection": (["-f", "CONNECT"], "4.4.1"),
    "a connection that ends at once": (["-q", "CONNECT"], "4.4.1"),
    "no hello": (["-q", "EHLO"], "4.4.1"),
    "closing at the sender": (["-Q", "MAIL"], "421"),
    "closing at the recipient": (["-Q", "RCPT"], "421"),
    "closing behind the content": (["-Q", "."], "421"),
    "an end at the sender": (["-q", "MAIL"], "4.4.2"),
    "an end at DATA": (["-q", "DATA"], "4.4.2"),
    "an end behind the content": (["-q", "."], "4.4.2"),
    "the sender for now": (["-r", "MAIL"], "4.3.0"),
    "the recipient for now": (["-r", "RCPT"], "4.3.0"),
    "the content for now": (["-r", "."], "4.3.0"),
}
SINKS = {**TAKE, **REFUSE, **{name: options for name, (options, _) in PUT_OFF.items()}}


def domain_of(name: str) -> str:
    return f"{''.join(letter for letter in name if letter.isalpha()).lower()}.test"


@pytest.fixture(scope="module")
def sinks() -> Iterator[dict[str, Peer]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(smtp_sink(*options)) for name, options in SINKS.items()}


@pytest.fixture(scope="module")
def relay(sinks: dict[str, Peer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One for all tests: each sink has the mail of a domain."""
    options = []
    for name, sink in sinks.items():
        scheme = "lmtp" if "-L" in SINKS[name] else "smtp"
        options += ["--relay-domain", f"{domain_of(name)}={sink.url(scheme=scheme)}"]
    with relaying(tmp_path_factory.mktemp("relay"), *options) as relay:
        yield relay


@pytest.mark.parametrize("name", TAKE)
def test_mail_goes_to_hosts_with(name: str, relay: Relay, sinks: dict[str, Peer]) -> None:
    recipient = f"carl@{domain_of(name)}"
    for subject in ("one", "two"):
        relay.send([recipient], letter(subject))
    until(lambda: relay.reply_for(recipient) is None)
    assert relay.told_of(recipient) == []
    arrived = sorted(content.partition(b"From: ")[2] for content in sinks[name].contents())
    assert arrived == [letter(subject).replace(b"\r\n", b"\n").removeprefix(b"From: ") for subject in ("one", "two")]


@pytest.mark.parametrize("name", REFUSE)
def test_mail_comes_back_from_hosts_that_refuse(name: str, relay: Relay) -> None:
    recipient = f"carl@{domain_of(name)}"
    relay.send([recipient], letter("hello") + b"x" * 70 + b"\r\n")
    until(lambda: bool(relay.told_of(recipient)))
    (fate,) = relay.told_of(recipient)
    assert (fate["Action"], fate["Status"][0], fate["Remote-MTA"]) == ("failed", "5", "dns; localhost")


@pytest.mark.parametrize("name", PUT_OFF)
def test_mail_waits_after(name: str, relay: Relay) -> None:
    recipient = f"carl@{domain_of(name)}"
    relay.send([recipient], letter("hello"))
    until(lambda: bool(relay.reply_for(recipient)))
    assert PUT_OFF[name][1] in str(relay.reply_for(recipient))
    assert relay.told_of(recipient) == []
