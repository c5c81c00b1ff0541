"""Which addresses are this machine's own. Addresses come and go, so the kernel is asked each time."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, ip_address

_EVERYBODYS = IPv4Address("255.255.255.255")
_NOBODYS = {socket.AF_INET: "240.0.0.1", socket.AF_INET6: "100::1"}
"""Addresses that no machine has: reserved (RFC 1112 section 4), and for what is to be thrown away (RFC 6666)."""


def is_own(host: str) -> bool:
    """Whether a numeric address belongs to this machine. Nothing is sent.

    A socket can be bound to own addresses alone, unless the kernel lets it have any (net.ipv4.ip_nonlocal_bind): there
    nobody knows, and this says no. It can also be bound to what stands for several: that is no machine's own.
    """
    address = ip_address(host)
    if address.is_unspecified or address.is_multicast or address == _EVERYBODYS:
        return False
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return _can_bind(family, host) and not _can_bind(family, _NOBODYS[family])


def _can_bind(family: socket.AddressFamily, host: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
    except OSError:  # no such family here, either
        return False
    return True
