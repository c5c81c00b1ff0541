"""Other hosts: a parcel goes to the first of a destination's that takes it. RFC 5321 section 5, RFC 2033.

What could go wrong, and why it does not:

- *A connection that was kept for the next message has died meanwhile*, or the host says goodbye on it: a new one is
  made at once.
- *A host takes connections and breaks them off, or says "not now"* to all or some. The next one is tried in the same
  attempt, for those who were put off: else the worst of a domain's hosts would keep its mail from the others (RFC 5321
  section 5.1). What is refused for ever is not asked elsewhere.
- *It breaks behind the final dot.* Whether the message was taken is unknown, so it is sent again later (RFC 5321
  section 6.1): twice is better than never.
- *Our own mistake bounces everybody's mail*: a wrong password, a certificate that has expired. What a host refuses
  before it has heard of a message is a failure for now, unless it says that it takes no mail from anybody (RFC 7504).
- *More recipients than the host takes.* Those that it puts off for that go in another transaction at once (RFC 5321
  section 4.5.3.1.10). What is known of the others stays, whatever becomes of these.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from asyncnet.errors import AsyncnetError, LocalProtocolError
from asyncnet.relay.conversion import Inconvertible, to_seven_bits
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

MOST_ASKED = 3
"""How many hosts hear of a message in one attempt: RFC 5321 section 5.1 asks for two at least, and those who greylist
would be asked in vain."""

PATIENCE = 600.0
"""How long, in seconds, one attempt goes on to other hosts and other transactions: each may keep us for minutes."""

LONGEST_HELLO = 600.0
"""How long, in seconds, a host may take before it can be given a message: connection, greeting, TLS and login have
minutes each."""

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


@dataclass(slots=True)
class _Way:
    """Where one attempt leads."""

    until: float
    """When it goes on to nobody else."""
    doors: list[Door] | None = None
    """Those that are left, the best first; None: nobody has looked for them yet, since a kept connection may do."""
    asked: set[str] = field(default_factory=set)
    """The hosts that have heard of the message, and said of each recipient what they have to say."""
    is_begun: bool = False

    def next(self) -> Door | None:
        """The next one to try; None if there is none, or no time."""
        while self.doors and not (self.is_begun and trio.current_time() >= self.until):
            door = self.doors.pop(0)
            if door.url.host not in self.asked:
                self.is_begun = True
                return door
        return None

    def go_back(self, door: Door) -> None:
        """Have that one tried again, on another connection."""
        if self.doors is not None:
            self.doors.insert(0, door)


class _BrokenOff(Exception):
    """A host has not decided, and has taken nothing."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(str(verdict.reply))
        self.verdict = verdict


class SMTPCourier:
    """Hands over parcels on one connection after the other."""

    def __init__(self, doors: Callable[[], Awaitable[Sequence[Door]]], manners: Manners) -> None:
        self._doors = doors
        self._manners = manners
        self._stack = AsyncExitStack()  # holds the connection
        self._client: SMTPClient | None = None
        self._door: Door  # where it leads, or the last one did

    async def aclose(self) -> None:
        self._client = None
        await self._stack.aclose()

    # Connections

    @property
    def _is_connected(self) -> bool:
        """Whether there is a connection that is fit for another message."""
        client = self._client
        return client is not None and client.is_usable and client.messages < PER_CONNECTION

    @property
    def _host(self) -> str:
        """What the host is called that the connection leads to."""
        return self._door.url.host or _HERE

    async def _find_doors(self) -> list[Door]:
        """Where an attempt may lead, the best first. Raises `Unreachable`."""
        try:
            return list(await self._doors())[:MOST_HOSTS]
        except NoRoute as exc:
            raise Unreachable(coded(_code_for(exc), exc.enhanced, f"{exc}.")) from exc

    async def _connect(self, way: _Way) -> None:
        """Have a connection to a host that was not asked yet: the one that there is, or to the first that takes one.

        Raises `Unreachable`.
        """
        if self._is_connected and self._door.url.host not in way.asked:
            way.is_begun = True
            return
        if way.doors is None:
            way.doors = await self._find_doors()
        failures: list[tuple[Door, BaseException]] = []
        while (door := way.next()) is not None:
            await self.aclose()
            try:
                with trio.fail_after(LONGEST_HELLO):
                    self._client = await self._stack.enter_async_context(self._connection(door))
            except (AsyncnetError, OSError, *_BROKEN) as exc:
                logger.info("%s: no connection: %s", _shown(door), _why(exc))
                failures.append((door, exc))
            else:
                self._door = door
                return
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

    async def hand_over(self, parcel: Parcel, verdicts: dict[int, Verdict]) -> None:
        # What the message has now, and not what its client has announced: a host goes by it.
        parcel = replace(parcel, envelope=replace(parcel.envelope, size=parcel.size))
        way, left = _Way(trio.current_time() + PATIENCE), list(range(len(parcel.recipients)))
        try:
            for _ in range(MOST_ASKED):
                if left:
                    await self._connect(way)
                    left = await self._ask(parcel, left, way, verdicts)
        except Unreachable:
            if not verdicts:
                raise  # else there is a host, and it may do better the next time

    async def _ask(self, parcel: Parcel, left: list[int], way: _Way, verdicts: dict[int, Verdict]) -> list[int]:
        """Hand it to the host that there is a connection to, in as many transactions as that wants.

        Returns who was put off, and may be asked for elsewhere. Raises `Unreachable`.
        """
        put_off: list[int] = []
        while left:
            assert self._client is not None
            is_kept = self._client.messages > 0
            try:
                some = tuple(parcel.recipients[index] for index in left)
                found = await self._transaction(self._client, replace(parcel, recipients=some))
            except _BrokenOff as exc:
                await self.aclose()
                if not is_kept or trio.current_time() >= way.until:
                    verdicts.update({index: exc.verdict for index in left if index not in verdicts})
                    return [*put_off, *left]
            else:
                verdicts.update(zip(left, found, strict=True))
                put_off += [index for index in left if _may_go_elsewhere(verdicts[index])]
                # Whoever was put off because there were too many is tried again as long as others are decided on.
                is_progress = any(not verdict.reply.is_transient_failure for verdict in found)
                if is_progress and trio.current_time() < way.until:
                    left = [index for index in left if _is_one_too_many(verdicts[index].reply)]
                    put_off = [index for index in put_off if index not in left]
                else:
                    left = []
            if left and not self._is_connected:
                way.go_back(self._door)
                await self._connect(way)
        way.asked.add(self._door.url.host)
        return put_off

    async def _transaction(self, client: SMTPClient, parcel: Parcel) -> list[Verdict]:
        """What the host has decided. Raises `_BrokenOff`."""
        most = _how_many(client.extensions, parcel.recipients)
        first, others = parcel.recipients[:most], parcel.recipients[most:]
        try:
            with trio.fail_after(LONGEST):
                verdicts = await self._send(client, replace(parcel, recipients=first))
        except (AsyncnetError, OSError, *_BROKEN) as exc:
            # Nothing of the message was taken, or it took too long: `OutcomeUnknown` is a verdict.
            logger.info("%s: a message did not get through: %s", self._host, _why(exc))
            reply = coded(451, "4.4.2", f"The conversation with the host broke off: {_why(exc)}")
            raise _BrokenOff(Verdict(reply)) from exc
        if all(verdict.reply.code == 421 for verdict in verdicts):
            raise _BrokenOff(verdicts[0])
        return [*verdicts, *(Verdict(_TOO_MANY) for _ in others)]

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


def _may_go_elsewhere(verdict: Verdict) -> bool:
    """Whether another host may have a message that this one has put off: not where it may have it all the same."""
    is_said = verdict.host is not None or _is_one_too_many(verdict.reply)
    return verdict.reply.is_transient_failure and is_said


async def _source(parcel: Parcel) -> Source:
    """The content: all of it where it is short, so that it is known what is in it."""
    if parcel.size > SMALL:
        return parcel.read()
    async with aclosing(parcel.read()) as pieces:
        return b"".join([piece async for piece in pieces])


_HERE = "localhost"
"""What a host at a Unix socket is called: its path is not for those who read reports."""


def _shown(door: Door) -> str:
    """Where it leads, for logs; with nothing of whom we log in as."""
    url = replace(door.url, user=None, password=None)
    return f"{url}" if door.address is None else f"{url} at {door.address}"


def _unreachable(failures: Sequence[tuple[Door, BaseException]]) -> Unreachable:
    """What is to be said where no host takes a connection. The last one that was tried speaks for all."""
    if not failures:
        return Unreachable(coded(451, "4.4.1", "There is no other host."))
    door, exc = failures[-1]
    if all(isinstance(each, PermanentReplyError) and _takes_no_mail(each) for _, each in failures):
        assert isinstance(exc, ReplyError), "all of them are"
        return Unreachable(_shortened(exc.reply), door.url.host)
    if isinstance(exc, ReplyError):
        return Unreachable(coded(451, "4.4.1", f"The host does not want to talk: {exc}"))
    if isinstance(exc, NotSupported):
        return Unreachable(coded(451, "4.7.5", f"There is no connection that is safe enough: {exc}"))
    where = _shown(door) if door.url.host else _HERE
    return Unreachable(coded(451, "4.4.1", f"No host can be reached: {where}: {_why(exc)}"))


def _why(exc: BaseException) -> str:
    unverified = getattr(exc, "verify_message", None)  # ssl.SSLCertVerificationError
    if unverified:
        return f"its certificate does not verify: {unverified}"
    if isinstance(exc, ConnectionError | FileNotFoundError | PermissionError) and exc.errno:
        return os.strerror(exc.errno)  # the exception's own text says where, too
    return str(exc) or "it took too long"  # which is all that Trio says by it


def _takes_no_mail(exc: ReplyError) -> bool:
    return exc.command == "the connection" and exc.code in _NO_MAIL
