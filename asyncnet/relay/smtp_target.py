"""Other hosts: a parcel goes to the first of a destination's that takes connections. RFC 5321 section 5, RFC 2033.

What could go wrong, and why it does not:

- *A connection that was kept for the next message has died meanwhile*, or the host says goodbye on it: a new one is
  made at once.
- *A host takes connections and breaks them off, or says 421.* The next one is tried in the same attempt: else the worst
  of a domain's hosts would keep its mail from the others (RFC 5321 section 5.1).
- *It breaks behind the final dot.* Whether the message was taken is unknown, so it is sent again later (RFC 5321
  section 6.1): twice is better than never.
- *Our own mistake bounces everybody's mail*: a wrong password, a certificate that has expired. What a host refuses
  before it has heard of a message is a failure for now, unless it says that it takes no mail from anybody (RFC 7504).
- *More recipients than the host takes.* Those that it puts off for that go in another transaction at once (RFC 5321
  section 4.5.3.1.10). What is known of the others stays, whatever becomes of these.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from asyncnet.errors import AsyncnetError, LocalProtocolError
from asyncnet.relay.conversion import Inconvertible, to_seven_bits
from asyncnet.relay.messages import DamagedContent, Gone
from asyncnet.relay.routing import Finder, NoRoute
from asyncnet.relay.targets import Parcel, Unreachable, Verdict
from asyncnet.replies import Reply
from asyncnet.smtp.client import (
    SMTPURL,
    MessageRefused,
    NotSupported,
    Outcome,
    OutcomeUnknown,
    PermanentReplyError,
    ReplyError,
    SMTPClient,
    StartTLS,
    TransientReplyError,
)
from asyncnet.smtp.client_content import Source
from asyncnet.smtp.client_limits import SMTPClientTimeouts
from asyncnet.smtp.envelope import Body, Envelope, Recipient
from asyncnet.smtp.extensions import Extensions
from asyncnet.smtp.wire import coded

if TYPE_CHECKING:
    import ssl

logger = logging.getLogger("asyncnet.relay")

SMALL = 64 * 1024
"""What is read before it is sent, in bytes: a short message is looked at for what it needs of the host."""

PER_CONNECTION = 100
"""How many messages go over one connection: others want their turn at a host that gives each connection a long one."""

MOST_HOSTS = 10
"""How many addresses are tried for one attempt, so that a long list of dead ones does not hold a worker for an hour."""

PATIENCE = 600.0
"""How long, in seconds, one attempt goes on to other hosts and other transactions: each may keep us for minutes."""

LONGEST = 3600.0
"""How long, in seconds, a transaction may take, whatever comes from the host meanwhile: it could take its five minutes
for each of a hundred recipients."""

MOST_SAID = 1000
"""How many characters of a host's reply are kept."""

_NO_MAIL = frozenset({521, 554, 556})
"""How a host says that it takes no mail at all: RFC 5321 section 3.1, RFC 7504."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where to connect: the URL's host is who it has to be, `address` where that is (None: the system looks it up)."""

    url: SMTPURL
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Manners:
    """How we behave towards other hosts."""

    name: str | None = None
    """What we call ourselves; None: the connection's own address."""
    starttls: StartTLS | None = None
    """None: TLS is required where a password is told, and opportunistic elsewhere."""
    tls: ssl.SSLContext | None = None
    """What certificates are verified by, where TLS is required; None: the system's trust store."""
    timeouts: SMTPClientTimeouts = SMTPClientTimeouts()


class SMTPTarget:
    """A destination that `doors` finds; they are asked anew for each connection. A `Target`.

    `doors` raises `NoRoute`.
    """

    def __init__(self, doors: Callable[[], Awaitable[Sequence[Door]]], manners: Manners = Manners()) -> None:
        self._doors = doors
        self._manners = manners

    def courier(self) -> SMTPCourier:
        return SMTPCourier(self._doors, self._manners)


def to_host(url: SMTPURL, manners: Manners = Manners()) -> SMTPTarget:
    """A host that somebody has named, with the user and the password in its URL: a smarthost, or one that has LMTP."""

    async def doors() -> Sequence[Door]:
        return [Door(url)]

    return SMTPTarget(doors, manners)


def to_domain(domain: str, router: Finder, manners: Manners = Manners()) -> SMTPTarget:
    """The mail exchangers of a domain."""

    async def doors() -> Sequence[Door]:
        return [
            Door(SMTPURL("smtp", _name_of(host.name, address), host.port), address)
            for host in await router.hosts(domain)
            for address in host.addresses
        ]

    return SMTPTarget(doors, manners)


def _name_of(host: str, address: str) -> str:
    """Who a certificate has to name: the address itself, where an address literal has led there."""
    return address if host.startswith("[") else host


class SMTPCourier:
    """Hands over parcels on one connection after the other."""

    def __init__(self, doors: Callable[[], Awaitable[Sequence[Door]]], manners: Manners) -> None:
        self._doors = doors
        self._manners = manners
        self._stack = AsyncExitStack()  # holds the connection
        self._client: SMTPClient | None = None
        self._host = ""

    async def aclose(self) -> None:
        self._client = None
        await self._stack.aclose()

    # Connections

    @property
    def _is_connected(self) -> bool:
        """Whether there is a connection that is fit for another message."""
        client = self._client
        return client is not None and client.is_usable and client.messages < PER_CONNECTION

    async def _find_doors(self) -> list[Door]:
        """Where an attempt may lead, the best first. Raises `Unreachable`."""
        try:
            return list(await self._doors())[:MOST_HOSTS]
        except NoRoute as exc:
            raise Unreachable(coded(_code_for(exc), exc.enhanced, f"{exc}.")) from exc

    async def _connect(self, doors: list[Door]) -> SMTPClient:
        """A new connection to the first that takes one; it and those before it leave `doors`. Raises `Unreachable`."""
        await self.aclose()
        failures: list[tuple[Door, BaseException]] = []
        until = trio.current_time() + PATIENCE
        while doors and (not failures or trio.current_time() < until):
            door = doors.pop(0)
            try:
                client = await self._stack.enter_async_context(self._connection(door))
            except (AsyncnetError, OSError, trio.BrokenResourceError) as exc:
                logger.info("%s: no connection: %s", _shown(door), exc)
                failures.append((door, exc))
            else:
                self._client, self._host = client, door.url.host or str(door.url)
                return client
        raise _unreachable(failures)

    def _connection(self, door: Door) -> AbstractAsyncContextManager[SMTPClient]:
        manners = self._manners
        return SMTPClient.connect(
            door.url,
            address=door.address,
            starttls=None if door.url.scheme == "smtps" else manners.starttls,
            tls=manners.tls,
            name=manners.name,
            timeouts=manners.timeouts,
        )

    # Parcels

    async def hand_over(self, parcel: Parcel) -> Sequence[Verdict]:
        # What the message has now, and not what its client has announced: a host goes by it.
        parcel = replace(parcel, envelope=replace(parcel.envelope, size=parcel.size))
        verdicts: dict[int, Verdict] = {}
        until = trio.current_time() + PATIENCE
        while left := [index for index in range(len(parcel.recipients)) if index not in verdicts]:
            try:
                found = await self._try(replace(parcel, recipients=tuple(parcel.recipients[index] for index in left)))
            except (Unreachable, DamagedContent, Gone):
                if not verdicts:
                    raise
                found = [Verdict(_TOO_MANY) for _ in left]  # of the others it is known what became of them
            # Whoever was put off because there were too many is tried again as long as others are decided on.
            is_progress = any(not verdict.reply.is_transient_failure for verdict in found)
            is_progress = is_progress and trio.current_time() < until
            verdicts |= {
                index: verdict
                for index, verdict in zip(left, found, strict=True)
                if not (is_progress and _is_one_too_many(verdict.reply))
            }
        return [verdicts[index] for index in range(len(parcel.recipients))]

    async def _try(self, parcel: Parcel) -> Sequence[Verdict]:
        """One transaction, with the first host that hears it to its end. Raises `Unreachable`."""
        doors: list[Door] | None = None
        broken: Sequence[Verdict] | None = None
        until = trio.current_time() + PATIENCE
        while True:
            client, was_kept = self._client, self._is_connected
            if client is None or not was_kept:
                doors = await self._find_doors() if doors is None else doors
                try:
                    client = await self._connect(doors)
                except Unreachable:
                    if broken is None:
                        raise
                    return broken  # there is a host, and it may do better the next time
            verdicts, is_over = await self._transaction(client, parcel)
            if is_over:
                return verdicts
            await self.aclose()
            if not was_kept:
                broken = verdicts
                if not doors or trio.current_time() >= until:
                    return broken

    async def _transaction(self, client: SMTPClient, parcel: Parcel) -> tuple[Sequence[Verdict], bool]:
        """Verdicts, and whether the host has decided; if it has not, it has taken nothing."""
        most = _how_many(client.extensions, parcel.recipients)
        first, others = parcel.recipients[:most], parcel.recipients[most:]
        try:
            with trio.fail_after(LONGEST):
                verdicts = await self._send(client, replace(parcel, recipients=first))
            is_over = not all(verdict.reply.code == 421 for verdict in verdicts)
        except (AsyncnetError, OSError, *_BROKEN) as exc:
            # Nothing of the message was taken, or it took too long: `OutcomeUnknown` is a verdict.
            why = str(exc) or "it took too long"
            logger.info("%s: a message did not get through: %s", self._host, why)
            reply = coded(451, "4.4.2", f"The conversation with the host broke off: {why}")
            verdicts, is_over = [Verdict(reply) for _ in first], False
        return [*verdicts, *(Verdict(_TOO_MANY) for _ in others)], is_over

    async def _send(self, client: SMTPClient, parcel: Parcel) -> list[Verdict]:
        try:
            outcomes = await self._outcomes(client, parcel.envelope, parcel.recipients, await _source(parcel), parcel)
        except NotSupported as exc:
            return [
                Verdict(coded(554, exc.enhanced, f"The message cannot go there: {exc}.")) for _ in parcel.recipients
            ]
        except LocalProtocolError as exc:
            logger.error("%s: a message that cannot be said in SMTP: %s", self._host, exc)
            return [Verdict(coded(451, "4.3.5", "This host cannot say that in SMTP.")) for _ in parcel.recipients]
        tells_success = client.extensions.dsn
        return [self._verdict(outcome, tells_success) for outcome in outcomes]

    async def _outcomes(
        self,
        client: SMTPClient,
        envelope: Envelope,
        recipients: Sequence[Recipient],
        source: Source,
        parcel: Parcel,
    ) -> Sequence[Outcome]:
        """Send it, converted if the host cannot take it as it is."""
        try:
            return (await client.send(envelope, recipients, source)).outcomes
        except (MessageRefused, OutcomeUnknown) as exc:
            return exc.outcomes
        except NotSupported as exc:
            if exc.enhanced != "5.6.3":
                raise
            try:
                converted = await to_seven_bits(parcel)
            except Inconvertible:
                raise exc from None
            plain = replace(envelope, body=Body.SEVEN_BIT, size=None)
            return await self._outcomes(client, plain, recipients, converted, parcel)

    def _verdict(self, outcome: Outcome, tells_success: bool) -> Verdict:
        if outcome.reply is None:
            reply = coded(451, "4.4.2", "The connection broke before the host had said whether it takes the message.")
            return Verdict(reply)
        if outcome.reply.is_permanent_failure and isinstance(outcome.error, TransientReplyError):
            return Verdict(coded(452, "4.5.3", f"The host takes no more recipients: {_shortened(outcome.reply)}"))
        return Verdict(_shortened(outcome.reply), self._host, tells_success=tells_success)


def _shortened(reply: Reply) -> Reply:
    """A reply as it is noted, logged and reported, for each recipient: a host could say 64 KiB to each."""
    lines, left = [], MOST_SAID
    for line in reply.lines:
        lines.append(line[:left])
        left -= len(line)
        if left <= 0:
            break
    return Reply(reply.code, tuple(lines))


def _code_for(error: NoRoute) -> int:
    """556 says of a domain that it takes no mail: RFC 7505 section 4."""
    if error.enhanced == "5.1.10":
        return 556
    return 550 if error.is_permanent else 451


def _how_many(offered: Extensions, recipients: Sequence[Recipient]) -> int:
    """How many of the recipients, from the first on, may be in one transaction: RFC 9422."""
    most = offered.most_recipients or len(recipients)
    domains: set[str] = set()
    for index, recipient in enumerate(recipients[:most]):
        domains.add(recipient.address.ascii_domain)
        if offered.most_domains is not None and len(domains) > offered.most_domains:
            return index
    return most


_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)

_TOO_MANY = coded(452, "4.5.3", "The host takes fewer recipients at once.")


def _is_one_too_many(reply: Reply) -> bool:
    return reply.code == 452 and reply.enhanced in (None, "4.5.3")


async def _source(parcel: Parcel) -> Source:
    """The content: all of it where it is short, so that it is known what is in it."""
    if parcel.size > SMALL:
        return parcel.read()
    async with aclosing(parcel.read()) as pieces:
        return b"".join([piece async for piece in pieces])


def _shown(door: Door) -> str:
    return f"{door.url}" if door.address is None else f"{door.url} at {door.address}"


def _unreachable(failures: Sequence[tuple[Door, BaseException]]) -> Unreachable:
    """What is to be said where no host takes a connection. The last one that was tried speaks for all."""
    door, exc = failures[-1]
    if all(isinstance(each, PermanentReplyError) and _takes_no_mail(each) for _, each in failures):
        assert isinstance(exc, ReplyError), "all of them are"
        return Unreachable(_shortened(exc.reply), door.url.host)
    if isinstance(exc, ReplyError):
        return Unreachable(coded(451, "4.4.1", f"The host does not want to talk: {exc}"))
    if isinstance(exc, NotSupported):
        return Unreachable(coded(451, "4.7.5", f"There is no connection that is safe enough: {exc}"))
    return Unreachable(coded(451, "4.4.1", f"No host can be reached: {_shown(door)}: {exc}"))


def _takes_no_mail(exc: ReplyError) -> bool:
    return exc.command == "the connection" and exc.code in _NO_MAIL
