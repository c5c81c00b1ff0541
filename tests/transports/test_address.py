"""Addresses and networks: one form for each, safe to print, before any rule looks at them."""

from __future__ import annotations

import pytest

from asyncnet.transports.address import Address, Networks


def test_the_path_of_a_unix_peer_cannot_write_lines_into_the_log() -> None:
    assert str(Address(path="/tmp/a\nERROR all is lost\x1b[31m\udcff")).isprintable()
    assert str(Address(path="/tmp/übung")) == "unix:/tmp/übung"


@pytest.mark.parametrize("network", ["::ffff:192.0.2.1", "::ffff:192.0.2.0/120", "::ffff:0:0/96"])
def test_a_network_of_mapped_addresses_means_the_ipv4_one(network: str) -> None:
    """The addresses that it is asked about have been turned into IPv4: else it would silently match nobody."""
    assert Address.of_ip("::ffff:192.0.2.1", 1) in Networks([network])
    assert Address.of_ip("192.0.2.1", 1) in Networks([network])
    assert Address.of_ip("2001:db8::1", 1) not in Networks([network])
