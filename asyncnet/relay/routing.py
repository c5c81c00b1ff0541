"""Where mail for a domain goes: the hosts to try, in their order. RFC 5321 section 5, RFC 7505.

What could go wrong, and why it does not:

- *The mail comes back to ourselves.* Who stands in the list of a domain's mail exchangers takes mail only to pass it on
  to better ones: we strike ourselves out, and all that are not better (section 5.1). Where nothing is left, that is
  a loop, and the mail bounces. We are known by name, and by address.
- *A domain's owner has us talk to machines that they cannot reach*: an exchanger at 127.0.0.1 or 169.254.169.254. Such
  addresses are nobody's exchanger; a route that the administrator has written may lead there.
- *A domain lists a thousand exchangers, and each of them thousands of addresses.* Only the best ones, and some of their
  addresses, are looked at: whether one is ours the kernel is asked, and meanwhile everybody waits.
- *A failure of the DNS is taken for an answer.* Only the domain's own word (there is no such name; it takes no mail) is
  final. All else may be better later.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, zip_longest
from typing import Protocol

import trio

from asyncnet.smtp.address import IPAddress, ascii_domain, parse_literal
from asyncnet.transports.own import is_own

SMTP_PORT = 25

MAX_EXCHANGERS = 20
"""How many exchangers of one domain are looked at: more than any has that wants its mail."""

MOST_LOOKED_AT = 20
"""How many addresses of one host are looked at: an answer of the DNS has room for thousands."""

MAX_ADDRESSES = 4
"""How many of them are tried."""


class NoRoute(Exception):
    """There is no host for a domain, now or ever. `enhanced` is the code of RFC 3463 that a report gives."""

    def __init__(self, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.enhanced = enhanced

    @property
    def is_permanent(self) -> bool:
        """Whether trying again later is of no use."""
        return self.enhanced.startswith("5")


@dataclass(frozen=True, slots=True)
class Exchanger:
    """What an MX record says. The smaller `preference` comes first; `host` is "." where no mail is taken at all."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class Host:
    """A host to which mail may go."""

    name: str
    """For the certificate and for logs."""
    addresses: tuple[str, ...] = ()
    """Numeric, in the order in which to try them; empty: the system looks the name up when it connects."""
    port: int = SMTP_PORT


class DNSFailure(Exception):
    """The DNS has given no answer, which says nothing about the name."""


class NoSuchName(Exception):
    """The name does not exist: NXDOMAIN."""


class Resolver(Protocol):
    """What is asked of the DNS. Names are in ASCII. Both raise `NoSuchName` and `DNSFailure`."""

    async def exchangers(self, domain: str) -> Sequence[Exchanger]:
        """The MX records of a domain; empty if it has none."""
        ...

    async def addresses(self, host: str) -> Sequence[IPAddress]:
        """The addresses of a host, A and AAAA; empty if it has none. A failure of one kind alone does not matter."""
        ...


class Finder(Protocol):
    """Who knows the way: `Router`."""

    async def hosts(self, domain: str) -> Sequence[Host]:
        """The hosts for `domain`, as `MailAddress.domain` has it, the best first; at least one. Raises `NoRoute`."""
        ...


class Ourselves:
    """Who we are, so that mail is not sent in circles.

    `names` are the hosts under which others know us, `addresses` those at which we take mail; `everywhere` says that we
    take it at every address of this machine.
    """

    def __init__(
        self, names: Iterable[str] = (), addresses: Iterable[str | IPAddress] = (), *, everywhere: bool = False
    ) -> None:
        self._names = frozenset(name.lower().rstrip(".") for name in names)
        self._addresses = frozenset(_unmapped(ipaddress.ip_address(address)) for address in addresses)
        self._everywhere = everywhere

    def is_name(self, host: str) -> bool:
        return host in self._names

    def is_any(self, addresses: Collection[IPAddress]) -> bool:
        if not self._addresses.isdisjoint(addresses):
            return True
        return self._everywhere and any(is_own(str(address)) for address in addresses)


def is_public(address: IPAddress) -> bool:
    """Whether it may be an exchanger's: not this machine, not its link, nobody in particular. A private network may."""
    return not (address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast)


class Router:
    """Finds the hosts for a domain, by the DNS. A `Finder`.

    `ourselves`: who we are. `accepts` tells which addresses may be those of an exchanger (`is_public`). `port` is that
    of SMTP, but for tests. `shuffle` puts hosts of equal preference in random order, so that each gets its share.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        ourselves: Ourselves | None = None,
        accepts: Callable[[IPAddress], bool] = is_public,
        port: int = SMTP_PORT,
        shuffle: Callable[[list[str]], object] = random.shuffle,
    ) -> None:
        self._resolver = resolver
        self._ourselves = ourselves or Ourselves()
        self._accepts = accepts
        self._port = port
        self._shuffle = shuffle

    async def hosts(self, domain: str) -> Sequence[Host]:
        if domain.startswith("["):
            return [self._host_of_literal(domain)]
        if not domain:
            raise NoRoute("5.1.2", "an address without a domain leads nowhere")
        name = ascii_domain(domain)
        found: list[Host] = []
        failures, leads_back = 0, False
        for group in await self._exchangers_of(name):
            looked_up = await self._look_up_all(group)
            leads_back = any(self._ourselves.is_any(addresses or ()) for addresses in looked_up.values())
            if leads_back:
                break  # whoever comes now is not better than we are
            failures += sum(addresses is None for addresses in looked_up.values())
            for host, addresses in looked_up.items():
                accepted = list(filter(self._accepts, addresses or ()))
                if accepted:
                    found.append(Host(host, tuple(map(str, accepted[:MAX_ADDRESSES])), self._port))
        if found:
            return found
        if failures:
            raise NoRoute("4.4.3", f"the DNS does not tell the addresses of the hosts for {domain}")
        if leads_back:
            raise self._leads_back(domain)
        raise NoRoute("5.4.4", f"no host for {domain} has an address that mail can be sent to")

    def _leads_back(self, domain: str) -> NoRoute:
        return NoRoute("5.4.6", f"mail for {domain} leads back to this host, which does not take it")

    def _host_of_literal(self, literal: str) -> Host:
        address = parse_literal(literal)
        if address is None:
            raise NoRoute("5.1.2", f"nobody knows where {literal} is")
        address = _unmapped(address)
        if self._ourselves.is_any([address]):
            raise self._leads_back(literal)
        if not self._accepts(address):
            raise NoRoute("5.4.4", f"no mail is sent to {literal}")
        return Host(literal, (str(address),), self._port)

    async def _exchangers_of(self, domain: str) -> Sequence[list[str]]:
        """The hosts that may be better than we are, in groups of one preference, each in random order."""
        try:
            records = await self._resolver.exchangers(domain)
        except NoSuchName:
            raise NoRoute("5.1.2", f"there is no domain {domain}") from None
        except DNSFailure as exc:
            raise NoRoute("4.4.3", f"the DNS does not tell who takes mail for {domain}: {exc}") from exc
        if not records:
            records = [Exchanger(0, domain)]  # RFC 5321 section 5.1: the domain is its own exchanger
        named = [record for record in records if record.host.rstrip(".")]
        if not named:
            raise NoRoute("5.1.10", f"{domain} takes no mail")  # RFC 7505
        ours = min((each.preference for each in named if self._ourselves.is_name(_plain(each.host))), default=None)
        if ours is not None:
            named = [record for record in named if record.preference < ours]
            if not named:
                raise self._leads_back(domain)
        return list(self._in_groups(named))

    def _in_groups(self, records: Iterable[Exchanger]) -> Iterable[list[str]]:
        left = MAX_EXCHANGERS
        for _, equals in groupby(sorted(records, key=lambda record: record.preference), lambda each: each.preference):
            group = list(dict.fromkeys(_plain(record.host) for record in equals))
            self._shuffle(group)
            if left > 0:
                yield group[:left]
            left -= len(group)

    async def _look_up_all(self, hosts: Iterable[str]) -> Mapping[str, Sequence[IPAddress] | None]:
        """The addresses of each, in the order in which to try them; None where the DNS has failed."""
        found: dict[str, Sequence[IPAddress] | None] = dict.fromkeys(hosts)

        async def look_up(host: str) -> None:
            try:
                found[host] = _in_turn(map(_unmapped, await self._resolver.addresses(host)))[:MOST_LOOKED_AT]
            except NoSuchName:
                found[host] = ()
            except DNSFailure:
                pass

        async with trio.open_nursery() as nursery:
            for host in found:
                nursery.start_soon(look_up, host)
        return found


def _unmapped(address: IPAddress) -> IPAddress:
    """An IPv4 address that is written as one of IPv6, as what it is: so that no rule is led past."""
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _plain(host: str) -> str:
    return host.lower().rstrip(".")


def _in_turn(addresses: Iterable[IPAddress]) -> list[IPAddress]:
    """IPv6 and IPv4 in turn, so that one of them that does not work costs one attempt alone."""
    by_version: dict[int, list[IPAddress]] = {6: [], 4: []}
    for address in addresses:
        by_version[address.version].append(address)
    return [address for address in chain.from_iterable(zip_longest(*by_version.values())) if address is not None]
