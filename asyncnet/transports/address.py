"""Where an end of a connection is: one type for TCP and Unix sockets, normalised before any rule looks at it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from asyncnet.printable import printable

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX = "unix"
"""The keyword that stands for every Unix-socket peer in a list of networks."""


@dataclass(frozen=True, slots=True)
class Address:
    """One end of a connection.

    Over TCP: `host` (a numeric address, IPv4-mapped IPv6 already turned into IPv4), `port` and, for link-local
    IPv6, `scope` (the interface). Over a Unix socket: `path` ("" when unnamed) and, for a peer, its `uid`.
    All are None where there is no network at all (a memory pair).
    """

    host: str | None = None
    port: int | None = None
    scope: str | None = None
    path: str | None = None
    uid: int | None = None

    @classmethod
    def of_ip(cls, host: str, port: int) -> Address:
        """The normalised address of a numeric `host`, which may carry a `%scope`."""
        if ":" not in host:
            return cls(host, port)
        host, _, scope = host.partition("%")
        ip = ipaddress.IPv6Address(host)
        if ip.ipv4_mapped is not None:
            return cls(str(ip.ipv4_mapped), port)
        return cls(str(ip), port, scope or None)

    @property
    def is_unix(self) -> bool:
        return self.path is not None

    @property
    def is_loopback(self) -> bool:
        """Whether this is 127.0.0.0/8 or ::1. A Unix socket is not: ask `is_unix`."""
        return self.host is not None and ipaddress.ip_address(self.host).is_loopback

    @property
    def key(self) -> str | None:
        """What counts as one client: an IPv4 address, an IPv6 /64; None where peers are not told apart (Unix)."""
        if self.host is None or ":" not in self.host:
            return self.host
        prefix = int(ipaddress.IPv6Address(self.host)) >> 64
        return f"{ipaddress.IPv6Address(prefix << 64)}/64"

    def socket_name(self, port: int | None = None) -> tuple[str, int]:
        """What `bind` and `connect` take for an address of TCP, with another `port` if one is given."""
        assert self.host is not None, "only TCP has hosts and ports"
        host = self.host if self.scope is None else f"{self.host}%{self.scope}"
        return host, (self.port or 0) if port is None else port

    def __str__(self) -> str:
        """For logs and messages: a client chooses the path that it binds, so that is escaped."""
        if self.path is not None:
            name = f"unix:{printable(self.path)}"
            return name if self.uid is None else f"{name} (uid {self.uid})"
        if self.host is None:
            return "memory"
        host = self.host if self.scope is None else f"{self.host}%{self.scope}"
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


NOWHERE = Address()


class Networks:
    """A set of networks, read from strings: "192.0.2.0/24", "2001:db8::/32", a single address, or "unix".

    A network of IPv4-mapped addresses is the IPv4 one. Raises ValueError for anything else, and for host bits behind
    the prefix.
    """

    __slots__ = ("_networks", "_unix")

    def __init__(self, networks: Iterable[str] = ()) -> None:
        if isinstance(networks, str):
            raise TypeError(f"networks are a list of strings, not one string: [{networks!r}]")
        self._unix = False
        self._networks: list[Network] = []
        for text in networks:
            if text == UNIX:
                self._unix = True
            else:
                self._networks.append(_unmapped(ipaddress.ip_network(text)))

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __contains__(self, address: Address) -> bool:
        if address.is_unix:
            return self._unix
        if address.host is None:
            return False
        ip = ipaddress.ip_address(address.host)
        return any(ip in network for network in self._networks)


def _unmapped(network: Network) -> Network:
    """The IPv4 network that an IPv4-mapped one stands for: addresses are normalised, so that it would match none."""
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        first = network.network_address.ipv4_mapped
        if first is not None:
            return ipaddress.IPv4Network((first, network.prefixlen - 96))
    return network
