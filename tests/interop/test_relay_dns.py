"""The relay finds its way by the DNS, at port 25: what dnsmasq says leads to smtp-sinks, or back to the sender.

All of it is in a network of its own, where 192.0.2.0/24 is real.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.test_serve_smtp import until
from tests.interop.mail_servers import Peer, smtp_sink
from tests.interop.network import dnsmasq, own_network
from tests.interop.relaying import Relay, letter, relaying

pytest.importorskip("dns", reason="dnspython is not installed")

NAME_SERVER, RELAY = "192.0.2.53", "192.0.2.25"
NOBODY, FIRST, SECOND, BUSY, STRICT = (f"192.0.2.{number}" for number in (10, 11, 12, 13, 14))
SINKS = {
    FIRST: [],
    SECOND: [],
    BUSY: ["-r", "connect"],
    STRICT: ["-f", "RCPT"],
    "127.0.0.1": [],
}
"""Where an smtp-sink listens, and what it has against its clients. Nobody listens at NOBODY."""

RECORDS = (
    f"--host-record=nobody.test,{NOBODY}",
    f"--host-record=first.test,{FIRST},2001:db8::11",  # there is no way to it by IPv6
    f"--host-record=second.test,{SECOND}",
    f"--host-record=busy.test,{BUSY}",
    f"--host-record=strict.test,{STRICT}",
    f"--host-record=us.test,{RELAY}",
    "--host-record=far.test,198.51.100.1",
    "--host-record=inside.test,127.0.0.1",
    "--txt-record=text.test,no host",
    "--cname=alias.test,first.test",
    "--mx-host=down.test,nobody.test,10",
    "--mx-host=down.test,far.test,10",
    "--mx-host=down.test,first.test,20",
    "--mx-host=down.test,second.test,30",
    "--mx-host=full.test,busy.test,10",
    "--mx-host=full.test,second.test,20",
    "--mx-host=final.test,strict.test,10",
    "--mx-host=final.test,second.test,20",
    "--mx-host=null.test,.,0",
    "--mx-host=loop.test,relay.example.org,10",
    "--mx-host=loop.test,second.test,20",  # not better than we are
    "--mx-host=circle.test,us.test,10",
    "--mx-host=backup.test,nobody.test,10",
    "--mx-host=backup.test,us.test,20",
    "--mx-host=private.test,inside.test,10",
)


@pytest.fixture(scope="module")
def sinks() -> Iterator[dict[str, Peer]]:
    """The network, with all but the relay in it."""
    networks = ("192.0.2.10/24", *(f"{host}/24" for host in (NAME_SERVER, RELAY, *SINKS) if host != "127.0.0.1"))
    with own_network(*networks), dnsmasq(RECORDS, NAME_SERVER), ExitStack() as stack:
        yield {host: stack.enter_context(smtp_sink(*options, host=host, port=25)) for host, options in SINKS.items()}


@pytest.fixture(scope="module")
def relay(sinks: dict[str, Peer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One for all tests; their mail is told apart by its recipients."""
    options = ("--trust", "192.0.2.0/24", "--name-server", NAME_SERVER)
    with relaying(tmp_path_factory.mktemp("relay"), *options, host=RELAY, port=25) as relay:
        yield relay


def send(relay: Relay, recipient: str) -> None:
    relay.send([recipient], letter(_subject(recipient)))


def who_has(recipient: str, sinks: dict[str, Peer]) -> list[str]:
    """Where the mail for a recipient has come to."""
    wanted = f"Subject: {_subject(recipient)}\n".encode()
    return [host for host, sink in sinks.items() for content in sink.contents() if wanted in content]


def _subject(recipient: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in recipient)


@pytest.mark.parametrize(
    ("domain", "host"),
    [
        ("down.test", FIRST),
        ("full.test", SECOND),
        ("first.test", FIRST),
        ("alias.test", FIRST),
        (f"[{SECOND}]", SECOND),
    ],
    ids=["two exchangers down", "one that is busy", "no exchanger", "an alias of that", "an address"],
)
def test_mail_gets_where_the_domain_wants_it(domain: str, host: str, relay: Relay, sinks: dict[str, Peer]) -> None:
    recipient = f"carl@{domain}"
    send(relay, recipient)
    until(lambda: relay.reply_for(recipient) is None)
    assert who_has(recipient, sinks) == [host]
    assert relay.told_of(recipient) == []


@pytest.mark.parametrize(
    ("domain", "status"),
    [
        ("null.test", "5.1.10"),
        ("nowhere.test", "5.1.2"),
        ("text.test", "5.4.4"),
        ("loop.test", "5.4.6"),
        ("circle.test", "5.4.6"),
        (f"[{RELAY}]", "5.4.6"),
        ("private.test", "5.4.4"),
        ("inside.test", "5.4.4"),
        ("[127.0.0.1]", "5.4.4"),
        ("final.test", "5.3.0"),  # what smtp-sink says
    ],
)
def test_mail_that_leads_nowhere_comes_back(domain: str, status: str, relay: Relay, sinks: dict[str, Peer]) -> None:
    recipient = f"carl@{domain}"
    send(relay, recipient)
    until(lambda: bool(relay.told_of(recipient)))
    (fate,) = relay.told_of(recipient)
    assert (fate["Action"], fate["Status"]) == ("failed", status)
    assert who_has(recipient, sinks) == []


@pytest.mark.parametrize(
    ("domain", "status"),
    [("nobody.test", "4.4.1"), ("backup.test", "4.4.1"), ("elsewhere.example", "4.4.3")],
    ids=["a host that is down", "we are its backup", "a failure of the DNS"],
)
def test_mail_waits_for_what_may_come_back(domain: str, status: str, relay: Relay, sinks: dict[str, Peer]) -> None:
    recipient = f"carl@{domain}"
    send(relay, recipient)
    until(lambda: bool(relay.reply_for(recipient)))
    assert f" {status} " in str(relay.reply_for(recipient))
    assert relay.told_of(recipient) == []
    assert who_has(recipient, sinks) == []


def test_a_relay_that_listens_everywhere_knows_all_of_its_addresses(tmp_path: Path) -> None:
    records = ("--host-record=one.test,192.0.2.25", "--host-record=other.test,192.0.2.26,2001:db8::26")
    addresses = ("192.0.2.25/24", "192.0.2.26/24", "2001:db8::26/64", f"{NAME_SERVER}/24")
    with own_network(*addresses), dnsmasq(records, NAME_SERVER):
        options = ("--trust", "192.0.2.0/24", "--name-server", NAME_SERVER)
        with relaying(tmp_path, *options, host="192.0.2.25", port=25, listens_on="*") as relay:
            for recipient in ("carl@one.test", "carl@other.test", "carl@[IPv6:2001:db8::26]"):
                send(relay, recipient)
                until(lambda recipient=recipient: bool(relay.told_of(recipient)))  # type: ignore[misc]
                assert [fate["Status"] for fate in relay.told_of(recipient)] == ["5.4.6"]


def test_another_server_at_port_25_of_the_same_machine_is_somebody_else(tmp_path: Path) -> None:
    records = ("--host-record=other.test,192.0.2.25",)
    with own_network("192.0.2.25/24", f"{NAME_SERVER}/24"), dnsmasq(records, NAME_SERVER):
        with smtp_sink(host="192.0.2.25", port=25) as sink:
            options = ("--trust", "192.0.2.0/24", "--name-server", NAME_SERVER)
            with relaying(tmp_path, *options, host="192.0.2.25", port=2525) as relay:
                send(relay, "carl@other.test")
                relay.wait_until_empty()
                assert relay.returned == []
                assert len(sink.wait_for(1)) == 1
