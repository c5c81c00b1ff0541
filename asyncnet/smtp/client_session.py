"""What an SMTP client says besides messages: greeting, EHLO, STARTTLS, AUTH, RSET, NOOP, QUIT.

`ClientSession` is the half of `smtp.client.SMTPClient` that knows no messages; the public methods are that one's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from asyncnet.auth.guard import stays_here
from asyncnet.auth.sasl import PLAIN, ClientMechanism, client_mechanisms, decode_base64, encode_initial, encode_response
from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.replies import PermanentReplyError, Reply, ReplyError, error_for
from asyncnet.smtp.client_control import Control, NotSupported
from asyncnet.smtp.client_limits import SMTPClientTimeouts
from asyncnet.smtp.extensions import Extensions
from asyncnet.smtp.wire import CommandError, format_command, parse_hello
from asyncnet.stream import Stream
from asyncnet.transports.base import TLSInfo

if TYPE_CHECKING:
    import ssl

_UNKNOWN = frozenset({500, 501, 502, 504})
"""How servers say that they know no EHLO."""

_LONGEST_COMMAND = 512
"""RFC 5321 section 4.5.3.1.4. An initial response that does not fit waits for its challenge (RFC 4954 section 4)."""


class ClientSession:
    """See `SMTPClient`."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        lmtp: bool = False,
        name: str | None = None,
        proxied: bool = False,
        timeouts: SMTPClientTimeouts = SMTPClientTimeouts(),
    ) -> None:
        self._control = Control(Stream.of(stream), timeouts)
        self._is_lmtp = lmtp
        self._name = _own_name(self.stream, name)
        self._is_proxied = proxied
        self._has_envelope = False  # the server does, which RSET takes from it
        self.greeting = Reply(220)
        """The server's first words."""
        self.extensions = Extensions()
        """What the server offers, since the last `hello`."""
        self.server_name = ""
        """What the server calls itself."""
        self.messages = 0
        """How many messages have gone over this connection, those that were refused too."""

    @property
    def stream(self) -> Stream:
        """The connection: its addresses, and `stream.tls`."""
        return self._control.stream

    @property
    def tls(self) -> TLSInfo | None:
        """What the TLS handshake settled, or None in the clear."""
        return self.stream.tls

    @property
    def timeouts(self) -> SMTPClientTimeouts:
        """How long it waits. May be set at any time."""
        return self._control.timeouts

    @timeouts.setter
    def timeouts(self, timeouts: SMTPClientTimeouts) -> None:
        self._control.timeouts = timeouts

    @property
    def is_closed(self) -> bool:
        """Whether it is of no more use."""
        return self.stream.is_closed

    @property
    def is_usable(self) -> bool:
        """Whether it can be tried with another message.

        It is open and idle, the server has neither spoken nor left since, and has not had as many messages as it takes
        (RFC 9422). It may leave at any time all the same.
        """
        most = self.extensions.most_mails
        return self._control.is_idle and (most is None or self.messages < most)

    def __repr__(self) -> str:
        return f"<SMTPClient of {self.stream!r}>"

    async def greet(self) -> Reply:
        """Hear the server's greeting: the first step on a stream of the caller's; `connect` does it."""
        async with self._control.turn():
            self._control.owe(1)
            self.greeting = await self._control.receive("the connection", self.timeouts.greeting)
            if self.greeting.code != 220:
                await self._control.abort()
                raise error_for(self.greeting, "the connection")
            return self.greeting

    async def hello(self) -> Extensions:
        """Say who we are, and hear what the server offers: EHLO, or HELO where it knows none; in LMTP, LHLO."""
        async with self._control.turn():
            verb = "LHLO" if self._is_lmtp else "EHLO"
            reply = await self._control.ask(format_command(verb, self._name), verb)
            if reply.code in _UNKNOWN and not self._is_lmtp:
                verb = "HELO"
                reply = await self._control.ask(format_command(verb, self._name), verb)
            if not reply.is_success:
                raise error_for(reply, verb)
            self.extensions = Extensions() if verb == "HELO" else Extensions.parse(reply.lines[1:])
            self.server_name = reply.lines[0].partition(" ")[0]
            self._has_envelope = False  # RFC 5321 section 4.1.4
            return self.extensions

    async def start_tls(self, context: ssl.SSLContext, *, server_hostname: str | None) -> None:
        """Go on in TLS, and say `hello` anew; `connect` does it. All that was known of the server is forgotten.

        Raises NotSupported where it is not offered and `ReplyError` where it is refused, which leave the client as it
        was. What `Stream.start_tls` raises closes it. `PlaintextAfterUpgrade` is among that: behind the reply to
        STARTTLS somebody has put others, to be taken for the server's.
        """
        if not self.extensions.starttls:
            raise NotSupported("the server does not offer TLS (STARTTLS)", "5.7.10")
        async with self._control.turn():
            reply = await self._control.ask(format_command("STARTTLS"), "STARTTLS")
            if reply.code != 220:
                raise error_for(reply, "STARTTLS")
            self.extensions, self.server_name = Extensions(), ""
            await self.stream.start_tls(context, server_hostname=server_hostname, timeout=self.timeouts.handshake)
        await self.hello()

    async def login(self, user: str, password: str, *, insecure_auth: bool = False) -> None:
        """Log in by the best mechanism that the server has too: SCRAM-SHA-256, else PLAIN, else LOGIN.

        Where one is refused the next one is tried: a server may have keys for some users alone. But a password that is
        wrong for PLAIN (535) is wrong for LOGIN, and servers count what fails. Both tell the password, and are used
        over TLS with a server that was verified, on this machine, or with `insecure_auth`.
        Raises NotSupported where no mechanism is left.
        """
        may_tell = insecure_auth or self._is_secure
        ways = client_mechanisms(self.extensions.auth, user, password, passwords=may_tell)
        refusal: PermanentReplyError | None = None
        for way in ways:
            try:
                return await self._log_in(way)
            except PermanentReplyError as exc:
                refusal = exc
                if way.name == PLAIN and exc.reply.code == 535:
                    break
        if refusal is not None:
            raise refusal
        if not may_tell and client_mechanisms(self.extensions.auth, user, password, passwords=True):
            raise NotSupported("a login would tell the password over a connection that is not secure", "5.7.11")
        offered = ", ".join(self.extensions.auth) or "no login at all"
        raise NotSupported(f"no way to log in that the server has, too: it offers {offered}", "5.7.4")

    @property
    def _is_secure(self) -> bool:
        """Whether nobody but the right server hears what is said."""
        return (self.tls is not None and bool(self.tls.context.verify_mode)) or self.stays_here

    @property
    def stays_here(self) -> bool:
        """Whether the server is on this machine."""
        return not self._is_proxied and stays_here(self.stream)

    async def _log_in(self, way: ClientMechanism) -> None:
        """One exchange: RFC 4954 section 4."""
        async with self._control.turn():
            try:
                initial = await way.respond(b"") if way.is_client_first else None
                line = format_command("AUTH", way.name)
                if initial is not None and len(line) + 1 + len(encode_initial(initial)) <= _LONGEST_COMMAND:
                    line, initial = format_command("AUTH", f"{way.name} {encode_initial(initial)}"), None
                reply = await self._control.ask(line, "AUTH", secret=True)
                while reply.code == 334:
                    challenge = decode_base64(reply.text)
                    answer = await way.respond(challenge) if initial is None else initial
                    initial = None
                    reply = await self._control.ask(encode_response(answer) + b"\r\n", "AUTH", secret=True)
                if reply.is_success:
                    way.finish()
            except BaseException as exc:
                if not isinstance(exc, ReplyError):
                    await self._control.abort()  # the server waits for an answer that it will not get
                raise
        if not reply.is_success:
            raise error_for(reply, f"AUTH {way.name}")

    async def reset(self) -> None:
        """RSET: have the server forget an envelope that was begun. `send` does it where it is needed."""
        async with self._control.turn():
            await self._reset()

    async def _reset(self) -> None:
        await self._control.expect(format_command("RSET"), "RSET")
        self._has_envelope = False

    async def noop(self) -> None:
        """Hear whether the server is still there."""
        async with self._control.turn():
            await self._control.expect(format_command("NOOP"), "NOOP")

    async def quit(self) -> None:
        """Say goodbye and close. Never raises for what the server says to it."""
        if self.is_closed:
            return
        async with self._control.turn():
            try:
                await self._control.ask(format_command("QUIT"), "QUIT", seconds=self.timeouts.quit)
                await self.stream.aclose()
            except (ReplyError, RemoteProtocolError, trio.BrokenResourceError, TimeoutError):
                pass
            finally:
                await self._control.abort()

    async def aclose(self) -> None:
        """Close at once, without a goodbye."""
        await self._control.abort()


def _own_name(stream: Stream, name: str | None) -> str:
    """What EHLO says. Without a name it is the address: nobody has to ask the DNS (RFC 5321 section 4.1.4)."""
    if name is not None:
        return checked_name(name)
    host = stream.local.host
    if not host:
        return "localhost"
    return f"[IPv6:{host}]" if ":" in host else f"[{host}]"


def checked_name(name: str) -> str:
    """What EHLO can say. Raises LocalProtocolError for what it cannot."""
    try:
        return parse_hello(name)
    except CommandError:
        raise LocalProtocolError(f"no name for EHLO: {name!a}") from None
