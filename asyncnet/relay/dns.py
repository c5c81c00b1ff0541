"""`DNSResolver`: what `asyncnet.relay.routing` asks of the DNS, by dnspython. Answers are kept while they hold."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from asyncnet.errors import ConfigurationError
from asyncnet.relay.routing import DNSFailure, Exchanger, NoSuchName
from asyncnet.smtp.address import IPAddress

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver as StubResolver
    from dns.resolver import Answer

TIMEOUT = 15.0
"""How long one question may take, in seconds, with all that is tried again for it."""

CACHED = 10_000
"""How many answers are kept."""


class DNSResolver:
    """Asks the name servers of the system, or those at `servers` (addresses, at `port`). A `routing.Resolver`."""

    def __init__(self, servers: Sequence[str] = (), *, port: int = 53, timeout: float = TIMEOUT) -> None:
        self._servers = list(servers)
        self._port = port
        self._timeout = timeout
        self._stub: StubResolver | None = None

    async def _resolver(self) -> StubResolver:
        if self._stub is None:
            self._stub = await trio.to_thread.run_sync(self._make)
        return self._stub

    def _make(self) -> StubResolver:
        """Reads the system's configuration."""
        try:
            import dns.asyncresolver
            import dns.resolver
        except ImportError as exc:
            raise ConfigurationError('mail exchangers are found by dnspython: pip install "asyncnet[relay]"') from exc
        try:
            stub = dns.asyncresolver.Resolver(configure=not self._servers)
        except dns.resolver.NoResolverConfiguration as exc:
            raise ConfigurationError("this machine has no name servers: name some, or a host to relay to") from exc
        if self._servers:
            stub.nameservers = self._servers
            stub.port = self._port
        stub.cache = dns.resolver.LRUCache(CACHED)
        return stub

    async def exchangers(self, domain: str) -> Sequence[Exchanger]:
        answer = await self._ask(domain, "MX")
        return [Exchanger(record.preference, record.exchange.to_text()) for record in answer or ()]

    async def addresses(self, host: str) -> Sequence[IPAddress]:
        found: list[IPAddress] = []
        failures: list[DNSFailure | NoSuchName] = []

        async def look_up(kind: str) -> None:
            try:
                answer = await self._ask(host, kind)
            except (DNSFailure, NoSuchName) as exc:
                failures.append(exc)
            else:
                found.extend(ipaddress.ip_address(record.address) for record in answer or ())

        async with trio.open_nursery() as nursery:
            for kind in ("A", "AAAA"):
                nursery.start_soon(look_up, kind)
        if failures and not found:
            # One that says nothing goes first: the name may be there all the same.
            raise min(failures, key=lambda failure: isinstance(failure, NoSuchName))
        return found

    async def _ask(self, name: str, kind: str) -> Answer | None:
        """The records of one kind; None if the name has none."""
        import dns.exception
        import dns.name
        import dns.resolver

        stub = await self._resolver()
        try:
            absolute = dns.name.from_text(name)
            return await stub.resolve(absolute, kind, lifetime=self._timeout, search=False)
        except dns.resolver.NoAnswer:
            return None
        except dns.resolver.NXDOMAIN:
            raise NoSuchName(name) from None
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, UnicodeError):
            raise NoSuchName(name) from None  # no name that could exist
        except dns.exception.Timeout:
            raise DNSFailure("no name server answers") from None
        except (dns.exception.DNSException, OSError) as exc:
            raise DNSFailure(str(exc)) from exc
