"""`SMTPClient`: mail to servers, by SMTP (RFC 5321) and LMTP (RFC 2033), on the same wire as the server.

    async with SMTPClient.connect("smtps://mail.example.org", user="anna", password=password) as smtp:
        await smtp.send_message(message)

RFC 1870 (SIZE), 2920 (PIPELINING), 3030 (CHUNKING, BINARYMIME), 3207 (STARTTLS), 3461 (DSN), 4954 (AUTH), 6152
(8BITMIME), 6531 (SMTPUTF8), 9422 (LIMITS). The connection is in `client_control.py`, what is said besides messages in
`client_session.py`, one message on its way in `client_transaction.py`, what is sent in `client_content.py`, messages of
the standard library's in `message.py`.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from functools import cache, partial
from typing import TYPE_CHECKING, Self, TypeVar

import trio

from asyncnet.auth.sasl import MECHANISMS, client_mechanisms
from asyncnet.endpoints import Endpoint, Scheme, connect
from asyncnet.errors import LocalProtocolError
from asyncnet.limits import Timeouts
from asyncnet.replies import PermanentReplyError, ReplyError, ServiceClosing, TransientReplyError
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.client_content import Content, Source
from asyncnet.smtp.client_control import NotSupported
from asyncnet.smtp.client_limits import SMTPClientTimeouts
from asyncnet.smtp.client_session import ClientSession, checked_name
from asyncnet.smtp.client_transaction import (
    MessageRefused,
    Outcome,
    OutcomeUnknown,
    Progress,
    Rules,
    Sent,
    Transaction,
    adapted,
)
from asyncnet.smtp.content import with_line_ends
from asyncnet.smtp.envelope import Body, Envelope, Recipient
from asyncnet.smtp.message import (
    checked,
    is_utf8,
    needs_international,
    parse_header,
    parse_message,
    recipients_of,
    sender_of,
    serialize,
    split,
    without_bcc,
)
from asyncnet.smtp.url import SMTPURL, parse_url
from asyncnet.transports.authority import format_authority, percent_encode
from asyncnet.transports.certificates import client_context
from asyncnet.urls import URLError

if TYPE_CHECKING:
    import ssl

__all__ = [
    "SMTPURL",
    "MessageRefused",
    "NotSupported",
    "Outcome",
    "OutcomeUnknown",
    "PermanentReplyError",
    "Progress",
    "ReplyError",
    "SMTPClient",
    "SMTPClientTimeouts",
    "Sent",
    "ServiceClosing",
    "StartTLS",
    "TransientReplyError",
    "URLError",
    "check_way",
    "parse_url",
]


ClientT = TypeVar("ClientT", bound="SMTPClient")


class StartTLS(enum.Enum):
    """Whether a connection that begins in the clear goes on in TLS."""

    NEVER = "never"
    OPPORTUNISTIC = "opportunistic"
    """Where the server offers it. Nobody's certificate is verified, and where the handshake fails the message goes in
    the clear: it keeps out those who only listen (RFC 7435)."""
    REQUIRED = "required"
    """Or not at all; the server's certificate is verified."""


class SMTPClient(ClientSession):
    """One connection to a mail server: `async with SMTPClient.connect(url) as smtp`.

    One task uses it at a time (else `trio.BusyResourceError`), for one message after another. A refusal (`ReplyError`,
    `MessageRefused`) leaves it usable: `is_usable` tells. Whatever breaks off in the middle closes it, cancelling too:
    no half of a message is taken for the whole, no reply for another one's. A line end or NUL in an argument is refused
    by `LocalProtocolError` before a byte is sent.

    Every method raises `ReplyError` (`TransientReplyError`, `PermanentReplyError`) where the server refuses,
    `ServiceClosing` where it closes the connection, `RemoteProtocolError` where it breaks the rules,
    `trio.BrokenResourceError`, `trio.ClosedResourceError`, and `TimeoutError` behind the `timeouts`.

    Made of a stream, `SMTPClient(stream)` has heard nothing yet: `greet` and `hello` come first. `lmtp` has it speak
    LMTP; `name` is what this host calls itself, a domain, or an address in brackets, which is its own without it;
    `proxied` says that the peer's address is but a proxy's.
    """

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str | SMTPURL,
        *,
        user: str | None = None,
        password: str | None = None,
        starttls: StartTLS | None = None,
        tls: ssl.SSLContext | None = None,
        address: str | None = None,
        name: str | None = None,
        insecure_auth: bool = False,
        proxy: str | None = None,
        timeouts: SMTPClientTimeouts = SMTPClientTimeouts(),
    ) -> AsyncIterator[Self]:
        """Connect, secure, log in; at the end of the block QUIT, or at an exception close.

        `url` is `smtp://` (port 25 unless it names another, such as 587 for submission), `smtps://` (TLS from the first
        byte, port 465), `lmtp://` (port 24) or `lmtp+unix:PATH`. `user` and `password` go before those of the URL,
        whose password is for its own user alone; without a user nobody logs in.

        `starttls` is for `smtp://` and `lmtp://`; without it TLS is required where a password is to go to another
        machine or `tls` is given, and opportunistic elsewhere. `tls` is a context of the caller's; without it a server
        that has to have TLS is verified against the system's trust store. `insecure_auth` has passwords told to a
        server that was not verified, and in the clear.

        `address` is where to connect, for who knows it already; the URL's host is still who the server has to be.
        `proxy` is as in `asyncnet.connect`, `name` as in `SMTPClient`.

        Raises URLError, NotSupported where the server lacks what was asked for, what `asyncnet.connect` and
        `Stream.start_tls` raise, and what every method raises.
        """
        where = parse_url(url) if isinstance(url, str) else url
        if user is None or user == where.user:
            user, password = where.user, where.password if password is None else password
        way = _Way(where, _checked_login(user, password), insecure_auth, starttls, tls, address, name, proxy, timeouts)
        way.check()
        smtp = await _open(cls, way)
        try:
            yield smtp
            await smtp.quit()
        finally:
            if not smtp.is_closed:
                await smtp.aclose()

    async def send(
        self,
        envelope: Envelope | MailAddress | str | None,
        recipients: Iterable[Recipient | MailAddress | str],
        content: Source,
        *,
        progress: Progress | None = None,
    ) -> Sent:
        """Send a message to those of the `recipients` whom the server accepts; the result says who they are.

        `envelope` may be no more than the sender (None: the null reverse-path, of bounces). `content` is bytes, a file
        opened for reading in binary mode, from where it stands, or an asynchronous iterator of bytes; line ends that
        are none become CR LF, unless the envelope says BINARYMIME. What a message needs is found by looking at it, but
        for an iterator: there the envelope says whether it has bytes above 127, and how many bytes it has.

        Raises MessageRefused if nobody gets it, OutcomeUnknown if the connection broke where nobody can know, and
        NotSupported, before anything is sent, for what the server cannot take: too large, bytes above 127 (5.6.3),
        addresses beyond ASCII (5.6.7).
        """
        wanted = [_recipient(recipient) for recipient in recipients]
        if not wanted:
            raise LocalProtocolError("a message needs a recipient")
        asked = _envelope(envelope)
        body = await Content.of(content, is_binary=asked.body is Body.BINARY)
        return await self._send(asked, wanted, body, progress)

    async def _send(
        self, envelope: Envelope, recipients: list[Recipient], content: Content, progress: Progress | None
    ) -> Sent:
        async with self._control.turn():
            rules = Rules(self.extensions, self._is_lmtp)
            envelope = adapted(envelope, recipients, content, rules)
            transaction = Transaction(self._control, rules, envelope, recipients, content, progress)
            if self._has_envelope:
                await self._reset()
            self.messages += 1
            try:
                return await transaction.run()
            finally:
                self._has_envelope = transaction.needs_reset

    async def send_message(
        self,
        message: EmailMessage | bytes,
        *,
        sender: MailAddress | str | None = None,
        recipients: Iterable[Recipient | MailAddress | str] | None = None,
        progress: Progress | None = None,
    ) -> Sent:
        """Send a message to those whom its header names, unless `sender` and `recipients` say otherwise.

        From the header come Sender or From, and To, Cc and Bcc, or their Resent- kin (RFC 5322 section 3.6.6). Bcc is
        taken out. An EmailMessage is serialized as the server can take it: in UTF-8 where a local part needs it and
        SMTPUTF8 is offered, with bytes above 127 only behind 8BITMIME. Bytes stay as they are, but for their line ends,
        wherever the server can take them; else they are parsed and serialized.

        Raises what `send` raises, and LocalProtocolError for a header without an address that is needed.
        """
        data: bytes | None = None
        if isinstance(message, EmailMessage):
            header = message
        else:
            data = checked(with_line_ends(bytes(message)))
            header = parse_header(data)
        envelope = Envelope(sender_of(header) if sender is None else _address(sender))
        wanted = [_recipient(recipient) for recipient in (recipients_of(header) if recipients is None else recipients)]
        if not wanted:
            raise LocalProtocolError("a message needs a recipient")
        if data is None:
            return await self._send_email(header, envelope, wanted, progress)
        data = without_bcc(data)
        if not self._can_take(data):
            return await self._send_email(parse_message(data), envelope, wanted, progress)
        envelope = replace(envelope, international=not split(data)[0].isascii())
        return await self._send(envelope, wanted, await Content.of(data), progress)

    def _can_take(self, data: bytes) -> bool:
        """Whether the server can take a message as it is."""
        header = split(data)[0]
        if header.isascii():
            return self.extensions.eight_bit_mime or data.isascii()
        return self.extensions.smtputf8 and is_utf8(header)

    async def _send_email(
        self, message: EmailMessage, envelope: Envelope, recipients: list[Recipient], progress: Progress | None
    ) -> Sent:
        """Send what is serialized here, as the server can take it. Raises NotSupported where that is impossible."""
        addresses = [recipient.address for recipient in recipients]
        if envelope.sender is not None:
            addresses.append(envelope.sender)
        is_international = needs_international(message, addresses)
        if is_international and not self.extensions.smtputf8:
            raise NotSupported("the server takes no addresses beyond ASCII (SMTPUTF8)", "5.6.7")
        eight_bit = self.extensions.eight_bit_mime or is_international
        data = await trio.to_thread.run_sync(serialize, message, is_international, eight_bit)
        envelope = replace(envelope, international=is_international)
        return await self._send(envelope, recipients, await Content.of(data), progress)


@dataclass(frozen=True, slots=True)
class _Way:
    """How to get to a server, and into it."""

    where: SMTPURL
    login: tuple[str, str] | None = field(repr=False)
    insecure_auth: bool
    starttls: StartTLS | None
    tls: ssl.SSLContext | None
    address: str | None
    name: str | None
    proxy: str | None
    timeouts: SMTPClientTimeouts

    def check(self) -> None:
        """Raise LocalProtocolError for what does not go together, or could not be said."""
        if self.name is not None:
            checked_name(self.name)
        if self.where.scheme == "smtps" and self.starttls is not None:
            raise LocalProtocolError("smtps:// begins with TLS: starttls is for smtp:// and lmtp://")
        if self.tls is not None and self.starttls is StartTLS.NEVER:
            raise LocalProtocolError("tls, and starttls never: leave one of them out")
        if self.where.path is not None:
            if self.address is not None or self.proxy is not None:
                raise LocalProtocolError("neither address nor proxy go with a Unix socket")
            if self.tls is not None or self.starttls is StartTLS.REQUIRED:
                raise LocalProtocolError("a Unix socket has no name that TLS could verify, and leads to nobody else")

    @property
    def endpoint(self) -> str:
        if self.where.path is not None:
            return f"unix:{percent_encode(self.where.path)}"
        return f"tcp://{format_authority(self.address or self.where.host, self.where.port)}"


def check_way(
    url: SMTPURL, *, starttls: StartTLS | None = None, tls: ssl.SSLContext | None = None, name: str | None = None
) -> None:
    """Raise LocalProtocolError for what `SMTPClient.connect` would refuse before it does anything: for who connects
    much later."""
    login = _checked_login(url.user, url.password)
    _Way(url, login, False, starttls, tls, None, name, None, SMTPClientTimeouts()).check()


class _HandshakeFailed(Exception):
    """An opportunistic handshake did."""


async def _open(kind: type[ClientT], way: _Way) -> ClientT:
    """A client that can be given messages; without TLS where an opportunistic handshake fails."""
    try:
        return await _open_once(kind, way)
    except _HandshakeFailed:
        return await _open_once(kind, replace(way, starttls=StartTLS.NEVER, tls=None))


async def _open_once(kind: type[ClientT], way: _Way) -> ClientT:
    times = way.timeouts
    stream = await connect(
        way.endpoint,
        proxy=way.proxy,
        timeout=times.connect,
        timeouts=Timeouts(send=times.block, close=min(times.block, times.quit)),
    )
    smtp = kind(stream, lmtp=way.where.scheme == "lmtp", name=way.name, proxied=way.proxy is not None, timeouts=times)
    try:
        if way.where.scheme == "smtps":
            await stream.start_tls(
                way.tls or await _context(verify=True), server_hostname=way.where.host, timeout=times.handshake
            )
        await smtp.greet()
        await smtp.hello()
        if way.where.scheme != "smtps":
            await _secure(smtp, way)
        if way.login is not None:
            await smtp.login(*way.login, insecure_auth=way.insecure_auth)
        return smtp
    except BaseException:
        await smtp.aclose()
        raise


async def _secure(smtp: SMTPClient, way: _Way) -> None:
    policy, host = way.starttls, way.where.host or None
    if policy is None:
        tells = way.login is not None and not way.insecure_auth and not smtp.stays_here
        policy = StartTLS.REQUIRED if tells or way.tls is not None else StartTLS.OPPORTUNISTIC
    if policy is StartTLS.REQUIRED:
        await smtp.start_tls(way.tls or await _context(verify=True), server_hostname=host)
    elif policy is StartTLS.OPPORTUNISTIC and smtp.extensions.starttls:
        try:
            await smtp.start_tls(way.tls or await _context(verify=False), server_hostname=host)
        except (TransientReplyError, PermanentReplyError):
            if smtp.is_closed:
                raise
        except (OSError, trio.BrokenResourceError) as exc:
            if smtp.tls is None:
                raise _HandshakeFailed from exc
            raise


async def _context(*, verify: bool) -> ssl.SSLContext:
    """A context with the system's trust store, which is read in a thread; or one that takes anybody."""
    if not verify:
        return await trio.to_thread.run_sync(_anybody)
    return await trio.to_thread.run_sync(partial(client_context, Endpoint(Scheme.TCP, tls=True)))


@cache
def _anybody() -> ssl.SSLContext:
    """Made once, as nothing in it is ever out of date: a relay makes many connections."""
    return client_context(Endpoint(Scheme.TCP, tls=True), verify=False)


def _checked_login(user: str | None, password: str | None) -> tuple[str, str] | None:
    if user is None:
        return None
    if password is None:
        raise LocalProtocolError("a user, and no password")
    client_mechanisms(MECHANISMS, user, password, passwords=True)  # raises for what could not be sent
    return user, password


def _address(address: MailAddress | str) -> MailAddress:
    if isinstance(address, MailAddress):
        return address
    try:
        return MailAddress.parse(address)
    except ValueError as exc:
        raise LocalProtocolError(f"{address!a} is no address: {exc}") from exc


def _envelope(envelope: Envelope | MailAddress | str | None) -> Envelope:
    if isinstance(envelope, Envelope):
        return envelope
    return Envelope(None if envelope is None else _address(envelope))


def _recipient(recipient: Recipient | MailAddress | str) -> Recipient:
    return recipient if isinstance(recipient, Recipient) else Recipient(_address(recipient))
