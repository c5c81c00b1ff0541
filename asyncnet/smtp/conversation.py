"""One connection's conversation: its commands one after the other, and what they share.

Replies are queued, and leave when the next command has to be waited for: commands that came together are answered
together (RFC 2920). There is one task. A transaction that is open when the conversation ends, however it does, is
aborted.
"""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext
from typing import TYPE_CHECKING

import trio

from asyncnet.auth.guard import Logins, passwords_allowed
from asyncnet.auth.sasl import offered_mechanisms
from asyncnet.connection import idle
from asyncnet.errors import EndOfStream, LimitExceeded, ReceiveTimeout, RemoteProtocolError
from asyncnet.printable import printable
from asyncnet.replies import Reply
from asyncnet.smtp.declarations import Argument
from asyncnet.smtp.delivery import Refused
from asyncnet.smtp.extensions import Extensions
from asyncnet.smtp.incoming import Incoming
from asyncnet.smtp.session import Session
from asyncnet.smtp.wire import Command, CommandError, coded, parse_command
from asyncnet.stream import Stream

if TYPE_CHECKING:
    from asyncnet.smtp.server import SMTPHandler

logger = logging.getLogger("asyncnet.smtp")

_MUCH = 32 * 1024
"""How many bytes of replies may wait while more are said without a command in between (LMTP's)."""

_NOTHING = nullcontext()

_OTHER_PROTOCOLS = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT"})
"""A browser was made to talk to us: the rest of what it sends is not a person's either."""


class Conversation:
    """The conversation on one connection. Commands are functions of it and their argument."""

    def __init__(self, server: SMTPHandler, stream: Stream) -> None:
        self.server = server
        self.stream = stream
        self.session = Session(
            secured=stream.tls is not None, tls_required=server.tls_required, login_required=server.login_required
        )
        self.incoming: Incoming | None = None
        """The message that comes, since MAIL."""
        self.is_ending = False
        """Whether the connection ends behind the next reply."""
        self.knows_no_better = bool(server.normalise_from) and stream.peer in server.normalise_from
        """Whether the client's line ends are put right."""
        self._logins: Logins | None = None
        self._mechanisms: tuple[str, ...] | None = None
        self._errors = 0
        self._chatter = 0  # both since the last message
        self._said_goodbye = False
        self._turn = idle()

    # What commands use

    @property
    def logins(self) -> Logins:
        """What attempts to log in pass through."""
        if self._logins is None:
            self._logins = self.server.guard.connection(self.stream.peer)
        return self._logins

    async def mechanisms(self) -> tuple[str, ...]:
        """How one can log in here and now: none over what others may listen to, unless that was asked for."""
        if self._mechanisms is None:
            users = self.server.users
            if users is None or not self.may_log_in:
                self._mechanisms = ()  # no SCRAM either: whoever listens could try passwords on what it tells
            else:
                self._mechanisms = await offered_mechanisms(users, passwords=True)
        return self._mechanisms

    @property
    def may_log_in(self) -> bool:
        """Whether a password may pass over this connection."""
        return passwords_allowed(self.stream, insecure_auth=self.server.insecure_auth)

    async def hello(self) -> Reply:
        """The answer to EHLO and LHLO."""
        server, session = self.server, self.session
        starttls = server.tls is not None and not session.secured
        auth = await self.mechanisms() if session.identity is None else ()
        reply = server.hellos.get((starttls, auth))
        if reply is None:
            offered = Extensions(
                pipelining=True,
                size=server.smtp_limits.message,
                eight_bit_mime=True,
                smtputf8=True,
                enhanced_status_codes=True,
                starttls=starttls,
                auth=auth,
                chunking=True,
                binarymime=True,
                dsn=True,
                most_mails=server.smtp_limits.messages,
                most_recipients=server.smtp_limits.recipients,
                others=("HELP",),
            )
            reply = server.hellos[starttls, auth] = Reply.of(250, server.hostname, *offered.format())
        return reply

    def say(self, reply: Reply) -> None:
        """Queue a reply. It leaves when the next command is waited for."""
        self._said_goodbye = reply.code == 221
        self.stream.write(reply.encode(every_line_coded=True))

    async def say_each(self, replies: list[Reply]) -> None:
        """Queue many replies, and send them where they are too many to wait."""
        for reply in replies:
            if self.stream.pending > _MUCH:
                await self.stream.flush()
            self.say(reply)

    def mail_has_come(self) -> None:
        """A message was taken: what was wrong before it is forgiven."""
        self._errors = self._chatter = 0

    async def drop_message(self) -> None:
        """The transaction is over. Aborts it, unless it was completed."""
        incoming, self.incoming = self.incoming, None
        self.session.reset()
        if incoming is not None:
            await incoming.abort()

    async def start_tls(self) -> None:
        """Begin TLS and begin anew. Raises `trio.BrokenResourceError` if the handshake fails."""
        assert self.server.tls is not None, "STARTTLS was offered"
        await self.drop_message()
        try:
            await self.stream.start_tls(self.server.tls, server_side=True)
        except OSError as exc:
            raise trio.BrokenResourceError(f"the TLS handshake failed: {exc}") from exc
        self.session = self.session.secured_anew()
        self._mechanisms = None

    async def read_line(self) -> bytes:
        """A line that is no command, but an answer to a challenge; without its end. Raises `CommandError` for one that
        is too long, or does not end with CR LF."""
        self.stream.deadline = trio.current_time() + self.server.smtp_timeouts.command
        limits = self.server.smtp_limits
        try:
            line = await self.stream.receive_until(b"\n", limit=limits.line)
        except LimitExceeded:
            await self._skip_line()
            raise CommandError("a line that is too long", 500, "5.5.6") from None
        self._check_end(line)
        return line.removesuffix(b"\n").removesuffix(b"\r")

    def _check_end(self, line: bytes) -> None:
        """Raises `CommandError` for a line that ends with LF alone, and ends the connection then: to other servers it
        goes on, and what follows could be a command to us that is none to them."""
        if not line.endswith(b"\r\n") and not self.knows_no_better:
            self.is_ending = True
            raise CommandError("a line that does not end with CR LF", 500, "5.5.2")

    async def _skip_line(self) -> None:
        """Find the end of a line that is too long. Raises `LimitExceeded` where it has none."""
        end = b"\n" if self.knows_no_better else b"\r\n"
        await self.stream.skip_until(end, limit=self.server.smtp_limits.skipped)

    # Commands

    async def run(self) -> None:
        """Greet, and answer commands until the client or the service has had enough."""
        self.say(self.server.greeting)
        try:
            try:
                while not self.is_ending and (line := await self._next_line()) is not None:
                    reply = await self._obey(line)
                    if reply is not None:
                        self.say(reply)
                        self._count(reply)
            except ReceiveTimeout:
                self.say(coded(421, "4.4.2", "Nothing came for too long."))
            except LimitExceeded:
                self.say(coded(421, "4.7.0", "This does not end."))
            await self.drop_message()
            if self._said_goodbye:
                await self.stream.flush()
            else:
                await self.stream.linger()  # what the client still says must not destroy what it is told
        except (RemoteProtocolError, trio.BrokenResourceError):
            if self.stream.is_closed:
                raise  # plaintext behind STARTTLS: the log has to know
        finally:
            self.stream.deadline = math.inf
            await self.drop_message()

    async def _next_line(self) -> bytes | None:
        """The next command's line; None: there will be none, and what there is to say about that was said."""
        stream, limits = self.stream, self.server.smtp_limits
        stream.deadline = trio.current_time() + self.server.smtp_timeouts.command
        while not self.is_ending:
            hides = self._may_hear_password
            if hides and not stream.buffered:
                await stream.flush()  # what we say is no secret
            try:
                with stream.secret() if hides else _NOTHING:
                    if self.incoming is not None:  # a message has begun: a drain lets it come
                        return await self._receive_line()
                    with self._turn:
                        return await self._receive_line()
                self.say(coded(421, "4.3.2", "The service is going down: please come again."))
                return None
            except LimitExceeded:
                refusal = coded(500, "5.5.2", f"A command has at most {limits.line} bytes.")
                self.say(refusal)
                self._count(refusal)
                await self._skip_line()
        return None

    @property
    def _may_hear_password(self) -> bool:
        """Whether the next line may hold a password: AUTH has one in its own line, and may come behind others."""
        return self.server.users is not None and self.session.identity is None

    async def _receive_line(self) -> bytes:
        """A line with its LF. Raises as `Stream.receive_until`."""
        stream, limit = self.stream, self.server.smtp_limits.line
        if not stream.buffered:
            data = await stream.receive_some(limit)
            if data and data.find(b"\n") == len(data) - 1:
                return data  # what most clients send: a command, and then they wait
            stream.unread(data)
            if not data:
                raise EndOfStream("the client has left")
        return await stream.receive_until(b"\n", limit=limit)

    async def _obey(self, line: bytes) -> Reply | None:
        """Do what a line says, and return the reply that is still to be said."""
        try:
            self._check_end(line)
            command = parse_command(line, bare_lf=self.knows_no_better)
            declaration = self.server.commands.get(command.verb)
            if declaration is None:
                self.is_ending = command.verb in _OTHER_PROTOCOLS
                return coded(500, "5.5.1", "No such command: HELP lists those that there are.")
            if not declaration.checks_itself:
                refusal = self.session.check(command.verb)
                if refusal is not None:
                    return refusal
            if not declaration.brings_mail:
                self._chatter += 1
            if command.argument and declaration.argument is Argument.NONE:
                return coded(501, "5.5.4", f"{command.verb} takes no argument.")
            if not command.argument and declaration.argument is Argument.REQUIRED:
                return coded(501, "5.5.4", f"Something is missing: {command.verb} {declaration.help}")
            return await declaration.run(self, command.argument)
        except CommandError as exc:
            return exc.reply
        except Refused as exc:
            reply = refusal_reply(exc)
            self._log_refusal(command, reply)
            return reply

    def _log_refusal(self, command: Command, reply: Reply) -> None:
        """Who was refused: whoever misses their mail asks for it."""
        envelope = self.session.envelope
        sender = "" if envelope is None else f"from <{envelope.sender or ''}> "
        said = printable(f"{sender}{command.verb} {command.argument[:400]}")
        logger.info("%s: %s: %s", self.stream.peer, said, reply)

    def _count(self, reply: Reply) -> None:
        """End a connection that brings no mail: one that guesses, or is only kept alive."""
        limits = self.server.smtp_limits
        if reply.is_permanent_failure:
            self._errors += 1
        elif not reply.is_success:
            self._chatter += 1
        elif self._chatter <= limits.chatter:
            return  # as nearly always
        if reply.code == 421:  # maybe a delivery has said so
            self.is_ending = True
        elif not self.is_ending and (self._errors > limits.errors or self._chatter > limits.chatter):
            what = "errors" if self._errors > limits.errors else "commands without a message"
            self.say(coded(421, "4.7.0", f"Too many {what}."))
            logger.info("%s: too many %s", self.stream.peer, what)
            self.is_ending = True


def words(text: str) -> str:
    """What a delivery says, as it may stand in a reply (RFC 5321 section 4.2): printable ASCII, and not too much."""
    return (text if text.isascii() and text.isprintable() else ascii(text)[1:-1])[:400]


def refusal_reply(refusal: Refused) -> Reply:
    """The reply that tells a refusal."""
    return coded(refusal.code, refusal.enhanced, *map(words, refusal.lines))
