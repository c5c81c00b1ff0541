"""Which addresses are this machine's."""

from __future__ import annotations

import socket

import pytest

from asyncnet.transports.own import is_own


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1"])
def test_those_that_a_socket_can_have_are(host: str) -> None:
    assert is_own(host) or (":" in host and not socket.has_ipv6)


@pytest.mark.parametrize("host", ["192.0.2.1", "240.0.0.1", "2001:db8::1", "100::1"])
def test_others_are_not(host: str) -> None:
    assert not is_own(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"])
def test_nor_are_those_of_several(host: str) -> None:
    assert not is_own(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "2001:db8::1"])
def test_where_a_socket_can_have_any_nobody_knows(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """net.ipv4.ip_nonlocal_bind, as machines have it that take over others' addresses."""
    monkeypatch.setattr("asyncnet.transports.own._can_bind", lambda family, host: True)
    assert not is_own(host)
