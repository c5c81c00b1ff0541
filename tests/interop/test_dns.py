"""Mail exchangers and addresses as a real name server tells them: dnsmasq, on a port of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
import trio

from asyncnet.relay.dns import DNSResolver
from asyncnet.relay.routing import DNSFailure, Exchanger, Host, NoRoute, NoSuchName, Router
from tests.interop.network import dnsmasq

pytest.importorskip("dns", reason="dnspython is not installed")

RECORDS = (
    "--mx-host=mail.test,mx1.mail.test,10",
    "--mx-host=mail.test,mx2.mail.test,20",
    "--mx-host=null.test,.,0",
    "--host-record=mx1.mail.test,192.0.2.1,2001:db8::1",
    "--host-record=mx2.mail.test,192.0.2.2",
    "--host-record=bare.test,192.0.2.3",
    "--cname=alias.test,bare.test",
    "--txt-record=text.test,no host",
)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        free = int(probe.getsockname()[1])
    with dnsmasq(RECORDS, "127.0.0.1", free):
        yield free


@pytest.fixture
def resolver(port: int) -> DNSResolver:
    return DNSResolver(["127.0.0.1"], port=port)


async def test_exchangers_have_their_preferences(resolver: DNSResolver) -> None:
    found = await resolver.exchangers("mail.test")
    assert sorted(found, key=lambda each: each.preference) == [
        Exchanger(10, "mx1.mail.test."),
        Exchanger(20, "mx2.mail.test."),
    ]


async def test_addresses_are_of_both_kinds(resolver: DNSResolver) -> None:
    assert set(await resolver.addresses("mx1.mail.test")) == {ip_address("192.0.2.1"), ip_address("2001:db8::1")}
    assert await resolver.addresses("alias.test") == [ip_address("192.0.2.3")]


async def test_no_records_are_something_else_than_no_name_and_no_answer(resolver: DNSResolver) -> None:
    assert await resolver.exchangers("bare.test") == []
    assert await resolver.addresses("text.test") == []
    for name in ("nowhere.test", "a..test", "x" * 64 + ".test"):
        with pytest.raises(NoSuchName):
            await resolver.exchangers(name)
    with pytest.raises(DNSFailure):
        await resolver.exchangers("elsewhere.example")  # dnsmasq refuses
    with pytest.raises(DNSFailure):
        await resolver.addresses("elsewhere.example")


async def test_a_name_server_that_is_not_there_is_a_failure() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        resolver = DNSResolver(["127.0.0.1"], port=mute.getsockname()[1], timeout=0.05)
        with trio.fail_after(10), pytest.raises(DNSFailure):
            await resolver.exchangers("mail.test")


async def test_a_route_is_found(resolver: DNSResolver) -> None:
    router = Router(resolver)
    assert await router.hosts("mail.test") == [
        Host("mx1.mail.test", ("2001:db8::1", "192.0.2.1")),
        Host("mx2.mail.test", ("192.0.2.2",)),
    ]
    assert await router.hosts("bare.test") == [Host("bare.test", ("192.0.2.3",))]
    for domain, enhanced in (("null.test", "5.1.10"), ("nowhere.test", "5.1.2"), ("elsewhere.example", "4.4.3")):
        with pytest.raises(NoRoute) as caught:
            await router.hosts(domain)
        assert caught.value.enhanced == enhanced
