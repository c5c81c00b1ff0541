"""Rules that stand in front of any delivery: who may send to whom, which recipients there are, how fast mail may come.

    delivery = Guarded(
        Queue("spool"),
        NoOpenRelay(["example.org"], trusted=["192.0.2.0/24"]),
        Aliases({"info@example.org": ["anna@example.org"]}),
        KnownRecipients(["anna@example.org", "carl@example.org"]),
    )

Rules are asked in their order, each of them about what those before it have left. All of them look at parsed addresses,
never at text, so that no spelling slips past.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import TypeAlias

import trio

from asyncnet.printable import printable
from asyncnet.smtp.address import MailAddress, ascii_domain, parse_domain
from asyncnet.smtp.delivery import Client, CommitsEach, Delivery, Refused, Transaction
from asyncnet.smtp.envelope import Envelope, Notify, Recipient
from asyncnet.transports.address import Networks

logger = logging.getLogger("asyncnet.smtp")


class Rule:
    """The base of every rule: it allows everything, until a subclass says otherwise. Both may raise `Refused`."""

    async def sender(self, envelope: Envelope, client: Client) -> Envelope:
        """Asked at MAIL. Returns the envelope that goes on."""
        return envelope

    async def recipient(self, recipient: Recipient, envelope: Envelope, client: Client) -> Sequence[Recipient]:
        """Asked at RCPT. Returns who gets it in the end: nearly always the recipient alone."""
        return (recipient,)


class Guarded:
    """A delivery with rules in front of it."""

    def __init__(self, delivery: Delivery, *rules: Rule) -> None:
        self._delivery = delivery
        self._rules = rules

    async def start(self, envelope: Envelope, client: Client) -> Transaction:
        for rule in self._rules:
            envelope = await rule.sender(envelope, client)
        transaction = await self._delivery.start(envelope, client)
        kind = _GuardedEach if isinstance(transaction, CommitsEach) else _GuardedTransaction
        return kind(transaction, self._rules, envelope, client)


class _GuardedTransaction:
    """Passes on what the rules let pass."""

    def __init__(self, inner: Transaction, rules: Sequence[Rule], envelope: Envelope, client: Client) -> None:
        self._inner = inner
        self._rules = rules
        self._envelope = envelope
        self._client = client
        self._added: dict[MailAddress, int] = {}  # whom the delivery has, and in which place
        self._places: list[list[int]] = []  # for each recipient of the client's, where its mail goes

    async def add(self, recipient: Recipient) -> None:
        found: Sequence[Recipient] = (recipient,)
        for rule in self._rules:
            found = [one for each in found for one in await rule.recipient(each, self._envelope, self._client)]
        places = []
        for one in found:
            if one.address not in self._added:  # two aliases of one mailbox are one copy
                # If the second of several is refused, so is the alias: the first may get it twice, nobody loses it.
                await self._inner.add(one)
                self._added[one.address] = len(self._added)
            places.append(self._added[one.address])
        self._places.append(places)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.write(data)

    async def commit(self) -> str:
        if not self._added:  # aliases of nobody
            await self._inner.abort()
            return ""
        return await self._inner.commit()

    async def abort(self) -> None:
        await self._inner.abort()


class _GuardedEach(_GuardedTransaction):
    """The same where each recipient has an outcome."""

    async def commit_each(self) -> Sequence[str | Refused]:
        assert isinstance(self._inner, CommitsEach), "it was when it began"
        outcomes: Sequence[str | Refused] = ()
        if self._added:
            outcomes = await self._inner.commit_each()
        else:
            await self._inner.abort()
        return [_worst([outcomes[place] for place in places]) for places in self._places]


def _worst(outcomes: Sequence[str | Refused]) -> str | Refused:
    """What a recipient hears for whom several stand: a refusal if there is one. Who has it already gets it twice."""
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    return refused[0] if refused else outcomes[0] if outcomes else ""


def _domains(domains: Iterable[str]) -> frozenset[str]:
    if isinstance(domains, str):
        raise TypeError(f"domains are a list of strings, not one string: [{domains!r}]")
    return frozenset(ascii_domain(parse_domain(domain)) for domain in domains)


class NoOpenRelay(Rule):
    """Mail for `domains` is taken from everybody, mail for others only from users who have logged in and from clients
    in the networks of `trusted`. Without this rule, a server that passes mail on is open to everybody.

    What stands alone as "postmaster" is ours (RFC 5321 section 4.5.1), where any domain is. A local part with "%", "!"
    or "@" in it was once a route to somewhere else; nobody but a trusted client may write one, whatever stands behind
    the last "@".
    """

    def __init__(self, domains: Iterable[str], *, trusted: Iterable[str] = ()) -> None:
        self._domains = _domains(domains)
        self._trusted = Networks(trusted)

    async def recipient(self, recipient: Recipient, envelope: Envelope, client: Client) -> Sequence[Recipient]:
        address = recipient.address
        if client.identity is not None or client.peer in self._trusted:
            return (recipient,)
        if address.ascii_domain not in self._domains and (address.domain or not self._domains):
            raise Refused(550, "5.7.1", "Mail for others is not taken from here.")
        if not _ROUTES.isdisjoint(address.local):
            raise Refused(550, "5.7.1", "Routes in an address are not followed.")
        return (recipient,)


_ROUTES = frozenset("%!@")


class Postmaster(Rule):
    """Who is "postmaster" alone (RFC 5321 section 4.1.1.3) is the postmaster of `domain`, to all rules behind this one:
    an alias of the one is one of the other.
    """

    def __init__(self, domain: str) -> None:
        self._domain = parse_domain(domain)

    async def recipient(self, recipient: Recipient, envelope: Envelope, client: Client) -> Sequence[Recipient]:
        if not recipient.address.domain:
            recipient = replace(recipient, address=MailAddress(recipient.address.local, self._domain))
        return (recipient,)


class KnownRecipients(Rule):
    """Who has a mailbox here: a collection of addresses, or a coroutine that is asked about each.

    It is for the addresses of `domains`, if they are given, and for all if not. In a collection, capital letters count
    for nothing; what is asked about has them. "postmaster" is known everywhere: RFC 5321 section 4.5.1 demands it.
    """

    def __init__(
        self,
        known: _Known,
        *,
        domains: Iterable[str] | None = None,
    ) -> None:
        self._is_known = _asked(known)
        self._domains = None if domains is None else _domains(domains)

    async def recipient(self, recipient: Recipient, envelope: Envelope, client: Client) -> Sequence[Recipient]:
        address = recipient.address
        is_ours = self._domains is None or address.ascii_domain in self._domains
        if is_ours and address.local.lower() != "postmaster" and not await self._is_known(address):
            raise Refused(550, "5.1.1", "Nobody here has this address.")
        return (recipient,)


_Known: TypeAlias = Collection[str] | Callable[[MailAddress], Awaitable[bool]]


def _asked(known: _Known) -> Callable[[MailAddress], Awaitable[bool]]:
    """What is asked whether an address is known: a collection answers for itself. Raises ValueError."""
    if callable(known):
        return known
    keys = frozenset(_key(MailAddress.parse(one)) for one in known)

    async def is_known(address: MailAddress) -> bool:
        return _key(address) in keys

    return is_known


def _key(address: MailAddress) -> tuple[str, str]:
    return address.local.lower(), address.ascii_domain


class Aliases(Rule):
    """Other names of mailboxes: `aliases` maps an address to those that get its mail, which may be aliases themselves.

    An alias of no address throws its mail away. "@example.org" catches all of a domain that is found nowhere else;
    `known` says what is found where that is not the aliases alone, as in `KnownRecipients`. With `separator` "+", what
    is for anna+lists@example.org and found nowhere goes to anna@example.org. Each address is followed once, however
    many lead to it, and one that leads to nobody but itself is itself. Raises ValueError for an address that is none,
    and for aliases that go in circles.
    """

    def __init__(
        self,
        aliases: Mapping[str, Iterable[str]],
        *,
        known: _Known = (),
        separator: str | None = None,
    ) -> None:
        self._aliases: dict[tuple[str, str], list[MailAddress]] = {}
        self._catch_all: dict[str, list[MailAddress]] = {}
        self._is_known = _asked(known)
        self._separator = separator
        for name, targets in aliases.items():
            if isinstance(targets, str):
                raise TypeError(f"the addresses behind an alias are a list, not one string: [{targets!r}]")
            try:
                self._add(name, [MailAddress.parse(target) for target in targets])
            except ValueError as exc:
                raise ValueError(f"{name}: {exc}") from exc
        self._check_circles()

    def _add(self, name: str, targets: list[MailAddress]) -> None:
        if name.startswith("@"):
            self._catch_all[ascii_domain(parse_domain(name[1:]))] = targets
        else:
            self._aliases[_key(MailAddress.parse(name))] = targets

    def _check_circles(self) -> None:
        others = {  # an alias may name itself: anna, and somebody else as well
            key: {_key(target) for target in targets} - {key} for key, targets in self._aliases.items()
        }
        try:
            TopologicalSorter(others).prepare()
        except CycleError as exc:
            raise ValueError(f"the alias {'@'.join(exc.args[1][0])} leads back to itself") from None

    async def recipient(self, recipient: Recipient, envelope: Envelope, client: Client) -> Sequence[Recipient]:
        found = await self._resolve(recipient.address)
        wished = of_others = recipient.notify
        if Notify.SUCCESS in wished:  # it is told of one alone: RFC 3461 section 5.2.7.3 (c)
            of_others = wished - {Notify.SUCCESS} or frozenset({Notify.NEVER})
        return [
            replace(recipient, address=address, notify=of_others if place else wished)
            for place, address in enumerate(found)
        ]

    async def _resolve(self, address: MailAddress) -> Collection[MailAddress]:
        found: dict[MailAddress, None] = {}
        followed = set()
        waiting = [address]
        is_for_nobody = False
        while waiting:
            one = waiting.pop()
            if one in followed:
                continue
            followed.add(one)
            targets = await self._follow(one)
            is_for_nobody = is_for_nobody or not targets
            for target in reversed(targets):
                if _key(target) == _key(one):
                    found[target] = None
                else:
                    waiting.append(target)
        return found if found or is_for_nobody else [address]

    async def _follow(self, address: MailAddress) -> Sequence[MailAddress]:
        """The next step: whom mail for `address` goes to, itself if that is all."""
        targets = self._aliases.get(_key(address))
        if targets is not None:
            return targets
        if not address.domain or await self._knows(address):
            return [address]
        base = address.local.partition(self._separator)[0] if self._separator else ""
        if base and base != address.local:
            return [MailAddress(base, address.domain)]
        return self._catch_all.get(address.ascii_domain, [address])

    async def _knows(self, address: MailAddress) -> bool:
        return (self._separator is not None or bool(self._catch_all)) and await self._is_known(address)


class QualifiedDomains(Rule):
    """For submission: the domains of the envelope have a dot, as RFC 6409 section 4.2 demands, or are one of `domains`,
    which are known here. Address literals may stand, and so may "postmaster" alone.
    """

    def __init__(self, *, domains: Iterable[str] = ()) -> None:
        self._domains = _domains(domains)

    async def sender(self, envelope: Envelope, client: Client) -> Envelope:
        if envelope.sender is not None and not self._is_qualified(envelope.sender):
            raise Refused(554, "5.1.8", "The sender's domain is no whole one: it has no dot.")
        return envelope

    async def recipient(self, recipient: Recipient, envelope: Envelope, client: Client) -> Sequence[Recipient]:
        if not self._is_qualified(recipient.address):
            raise Refused(554, "5.1.2", "The recipient's domain is no whole one: it has no dot.")
        return (recipient,)

    def _is_qualified(self, address: MailAddress) -> bool:
        domain = address.ascii_domain
        return not domain or "." in domain or domain.startswith("[") or domain in self._domains


class SendersOfUsers(Rule):
    """Who has logged in sends in their own name: by the addresses that `addresses` of their entry lists (where
    "@example.org" is all of a domain), else by the user's name where it is an address. The null reverse-path is
    everybody's.
    """

    async def sender(self, envelope: Envelope, client: Client) -> Envelope:
        identity, sender = client.identity, envelope.sender
        if identity is None or sender is None:
            return envelope
        allowed = identity.settings.get("addresses", identity.name)
        try:
            is_theirs = any(_covers(text, sender) for text in ([allowed] if isinstance(allowed, str) else allowed))
        except (TypeError, AttributeError, ValueError) as exc:  # no list, no texts, an address that is none
            who = printable(identity.name)
            logger.error('user %s: write addresses = ["anna@example.org", "@example.net"] (%s)', who, exc)
            raise Refused(451, "4.3.0", "Which addresses are yours cannot be told at the moment.") from exc
        if not is_theirs:
            raise Refused(553, "5.7.1", "This address is not yours.")
        return envelope


def _covers(text: str, sender: MailAddress) -> bool:
    if text.startswith("@"):
        return ascii_domain(parse_domain(text[1:])) == sender.ascii_domain
    return "@" in text and _key(MailAddress.parse(text)) == _key(sender)


class RateLimit(Rule):
    """So many messages and recipients an hour, for each client and each user who has logged in: a token bucket each.

    A client is an IPv4 address or an IPv6 /64; a user counts instead of the address that they come from. Peers on Unix
    sockets are not limited. `burst` is how many may come at once (None: an hour's). Past a limit the answer is 451: the
    client comes again. Of the `most` who came last a bucket is remembered, and whoever was forgotten has a full one.
    """

    def __init__(
        self,
        *,
        messages: float = math.inf,
        recipients: float = math.inf,
        burst: float | None = None,
        most: int = 10_000,
    ) -> None:
        self._messages = _Buckets(messages, burst, most)
        self._recipients = _Buckets(recipients, burst, most)

    async def sender(self, envelope: Envelope, client: Client) -> Envelope:
        self._take(self._messages, client)
        return envelope

    async def recipient(self, recipient: Recipient, envelope: Envelope, client: Client) -> Sequence[Recipient]:
        self._take(self._recipients, client)
        return (recipient,)

    def _take(self, buckets: _Buckets, client: Client) -> None:
        key = f"user {client.identity.name}" if client.identity is not None else client.peer.key
        if key is not None and not buckets.take(key):
            raise Refused(451, "4.7.1", "Too much mail in too short a time: please come again.")


class _Buckets:
    """Token buckets by key, as many as are remembered; each fills by `rate` an hour."""

    def __init__(self, rate: float, burst: float | None, most: int) -> None:
        self._rate = rate
        self._burst = rate if burst is None else burst
        self._most = most
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, key: str) -> bool:
        """Take a token, if there is one."""
        if self._rate == math.inf:
            return True
        now = trio.current_time()
        tokens, since = self._buckets.get(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate / 3600)
        has_one = tokens >= 1
        self._buckets[key] = (tokens - 1 if has_one else tokens, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return has_one
