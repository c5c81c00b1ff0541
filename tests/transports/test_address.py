"""Addresses and networks: normalised before any rule looks at them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.transports.address import NOWHERE, Address, Networks


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", Address("192.0.2.1", 7)),
        ("::ffff:192.0.2.1", Address("192.0.2.1", 7)),
        ("::FFFF:c000:0201", Address("192.0.2.1", 7)),
        ("2001:DB8:0:0::1", Address("2001:db8::1", 7)),
        ("fe80::1%eth0", Address("fe80::1", 7, scope="eth0")),
    ],
)
def test_one_host_has_one_address(text: str, address: Address) -> None:
    assert Address.of_ip(text, 7) == address


@given(st.ip_addresses(v=4), st.integers(0, 65535))
def test_mapped_addresses_are_the_ipv4_addresses_that_they_map(ip: ipaddress.IPv4Address, port: int) -> None:
    assert Address.of_ip(f"::ffff:{ip}", port) == Address.of_ip(str(ip), port)


@given(st.ip_addresses(v=6), st.ip_addresses(v=6))
def test_ipv6_clients_count_per_64(one: ipaddress.IPv6Address, other: ipaddress.IPv6Address) -> None:
    first, second = Address.of_ip(str(one), 1), Address.of_ip(str(other), 2)
    if one.ipv4_mapped is None and other.ipv4_mapped is None:
        assert (first.key == second.key) == (int(one) >> 64 == int(other) >> 64)
    neighbour = ipaddress.IPv6Address(int(one) ^ 1)
    assert one.ipv4_mapped is not None or Address.of_ip(str(neighbour), 1).key == first.key


def test_the_key_of_an_ipv4_address_is_itself_and_unix_peers_have_none() -> None:
    assert Address("192.0.2.1", 1).key == "192.0.2.1"
    assert Address("2001:db8:1:2:3::4", 1).key == "2001:db8:1:2::/64"
    assert Address(path="/run/x", uid=1).key is None
    assert NOWHERE.key is None


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (Address("192.0.2.1", 80), "192.0.2.1:80"),
        (Address("2001:db8::1", 80), "[2001:db8::1]:80"),
        (Address("fe80::1", 80, scope="eth0"), "[fe80::1%eth0]:80"),
        (Address(path="/run/x"), "unix:/run/x"),
        (Address(path="", uid=1000), "unix: (uid 1000)"),
        (NOWHERE, "memory"),
    ],
)
def test_an_address_reads_as_people_write_it(address: Address, text: str) -> None:
    assert str(address) == text


def test_loopback_is_loopback_however_it_is_written() -> None:
    for text in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"):
        assert Address.of_ip(text, 1).is_loopback
    for address in (Address("192.0.2.1", 1), Address(path="/run/x"), NOWHERE):
        assert not address.is_loopback


def test_networks_hold_addresses_networks_and_unix_peers() -> None:
    networks = Networks(["192.0.2.0/24", "2001:db8::/32", "198.51.100.7", "unix"])
    inside = ("192.0.2.255", "2001:db8:ffff::1", "198.51.100.7", "::ffff:192.0.2.9")
    assert all(Address.of_ip(text, 1) in networks for text in inside)
    assert not any(Address.of_ip(text, 1) in networks for text in ("192.0.3.0", "2001:db9::1", "198.51.100.8"))
    assert Address(path="/run/x") in networks
    assert NOWHERE not in networks


def test_a_network_written_in_mapped_form_holds_its_ipv4_addresses() -> None:
    networks = Networks(["::ffff:192.0.2.0/120", "::ffff:198.51.100.7"])
    assert Address.of_ip("192.0.2.77", 1) in networks
    assert Address.of_ip("::ffff:198.51.100.7", 1) in networks
    assert Address.of_ip("192.0.3.1", 1) not in networks


def test_no_networks_hold_nobody() -> None:
    assert not Networks()
    assert Address("127.0.0.1", 1) not in Networks()
    assert Address(path="") not in Networks(["127.0.0.0/8"])
    assert Networks(["unix"])


@pytest.mark.parametrize("text", ["192.0.2.1/24", "192.0.2.0/33", "example.org", "", "Unix"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Networks([text])


def test_a_single_string_is_refused() -> None:
    with pytest.raises(TypeError, match="list of strings"):
        Networks("192.0.2.0/24")


def test_the_path_of_a_unix_peer_cannot_write_lines_into_the_log() -> None:
    assert str(Address(path="/run/a\nERROR all is lost\x1b[31m\udcff")).isprintable()
    assert str(Address(path="/run/übung")) == "unix:/run/übung"
