"""A POP3 connection: its commands one after the other.

What could go wrong, and why it does not:

- *A client vanishes.* What it has marked is not removed: QUIT alone does that, and not before all that was said to it
  has left. Its lock is free when its connection is over.
- *A message cannot be read to its end.* It was promised, and lines without the dot are no end: the connection breaks.
- *A fast client, and a slow one.* Each piece that is sent gives others their turn; a message is read as it leaves.
"""

from __future__ import annotations

import errno
import logging
import math
from contextlib import AsyncExitStack, aclosing, nullcontext
from typing import TYPE_CHECKING

import trio

from asyncnet.auth.guard import Logins, passwords_allowed
from asyncnet.auth.identity import Identity
from asyncnet.auth.sasl import LoginUnavailable, decode_response, encode_response
from asyncnet.connection import busy, idle
from asyncnet.errors import LimitExceeded, ReceiveTimeout, RemoteProtocolError
from asyncnet.mailbox.storage import Flag, Mailbox, Message
from asyncnet.pop3.commands import COMMANDS, failure
from asyncnet.pop3.session import Phase, Session
from asyncnet.pop3.wire import DotStuffer, Reply, Top, err, ok, parse_command, strip_end
from asyncnet.sending import MAX_PENDING
from asyncnet.stream import Stream

if TYPE_CHECKING:
    from asyncnet.pop3.server import POP3Handler

logger = logging.getLogger("asyncnet.pop3")


class Conversation:
    """The conversation on one connection. Commands are functions of it and their argument."""

    def __init__(self, server: POP3Handler, stream: Stream) -> None:
        self.server = server
        self.stream = stream
        self.session = Session()
        self.user = ""
        """Who has logged in, for logs."""
        self.is_ending = False
        """Whether the connection ends behind the next reply."""
        self._logins: Logins | None = None
        self._mailbox: Mailbox | None = None
        self._held = AsyncExitStack()  # the mailbox's lock
        self.login_by = trio.current_time() + server.pop3_timeouts.login
        """When who is here is to be known, at the latest."""
        self._errors = 0

    # What commands use

    @property
    def logins(self) -> Logins:
        """What attempts to log in pass through."""
        if self._logins is None:
            self._logins = self.server.guard.connection(self.stream.peer)
        return self._logins

    @property
    def takes_passwords(self) -> bool:
        """Whether a password may pass here."""
        return passwords_allowed(self.stream, insecure_auth=self.server.insecure_auth)

    @property
    def can_begin_tls(self) -> bool:
        return self.server.tls is not None and self.stream.tls is None

    @property
    def mailbox(self) -> Mailbox:
        """Of whoever has logged in."""
        assert self._mailbox is not None, "the command needs a login"
        return self._mailbox

    def say(self, reply: Reply) -> None:
        """Queue a reply. It leaves when the next command is waited for."""
        self.stream.write(reply.encode())

    async def put(self, data: bytes) -> None:
        """Queue what is sent behind a reply, and wait where there is no room for it."""
        if self.stream.pending + len(data) > MAX_PENDING:
            await self.stream.flush()
        self.stream.write(data)

    async def challenge(self, challenge: bytes) -> bytes:
        """Send a challenge of a login, and return the response. Raises `RemoteProtocolError`."""
        stream, limits = self.stream, self.server.pop3_limits
        stream.write(b"+ " + encode_response(challenge) + b"\r\n")
        stream.deadline = self.login_by
        try:
            with stream.secret():
                async with idle():
                    try:
                        line = await stream.receive_until(b"\n", limit=limits.response)
                    except LimitExceeded:
                        await stream.skip_until(b"\n", limit=limits.skipped)  # the rest of it is no command
                        raise RemoteProtocolError(f"A response has at most {limits.response} bytes") from None
                    return decode_response(strip_end(line))
        finally:
            stream.deadline = math.inf
        raise RemoteProtocolError("The service is going down")

    async def log_in(self, identity: Identity | None) -> Reply:
        """Open the mailbox of whoever has shown who they are; None: nobody has."""
        if identity is None:
            self.is_ending = self.logins.exhausted
            return err("The login failed.", "AUTH")
        delays = self.server.delays
        if delays.is_too_early(identity.name):
            return err(f"There are {self.server.login_delay} seconds from login to login.", "LOGIN-DELAY")
        try:
            mailbox = await self.server.mailboxes.of(identity.name)
        except LookupError:
            logger.error("user %r has a password and no mailbox", identity.name)
            return err("There is no mailbox of that name.", "SYS/PERM")
        async with AsyncExitStack() as held:
            await held.enter_async_context(mailbox.lock())
            self.session.log_in(await mailbox.messages())
            self._held = held.pop_all()
        self._mailbox, self.user = mailbox, identity.name
        delays.note(identity.name)
        logger.info("%s logged in from %s", identity.name, self.stream.peer)
        return ok(f"{self.session.count} messages ({self.session.size} octets)")

    async def leave(self) -> None:
        """Let go of the mailbox."""
        await self._held.aclose()

    async def send_message(self, message: Message, reply: Reply, top: Top | None = None) -> None:
        """Send a message behind `reply`, or what of it `top` lets through."""
        stuffer = DotStuffer()
        head = reply.encode()
        try:
            async with aclosing(self.mailbox.read(message.uid)) as pieces:
                async for piece in pieces:
                    await self.put(head + stuffer.feed(piece if top is None else top.feed(piece)))
                    head = b""
                    if top is not None and top.is_over:
                        break
        except OSError as exc:
            if head:
                raise
            await self.stream.abort()
            raise trio.BrokenResourceError(f"a message could not be read to its end: {exc}") from exc
        await self.put(head + stuffer.end())

    async def update(self) -> None:
        """Remove what is marked; what was retrieved has been seen. Raises OSError if not all could be removed."""
        session, mailbox = self.session, self.mailbox
        await mailbox.remove([session.message(number).uid for number in session.deleted])
        for number in sorted(session.retrieved - session.deleted):
            message = session.message(number)
            try:
                await mailbox.set_flags(message.uid, message.flags | {Flag.SEEN})
            except OSError as exc:
                if exc.errno != errno.ENOENT:
                    logger.warning("a message of %s could not be marked as seen: %s", self.user, exc)

    # Commands

    async def run(self) -> None:
        """Greet, and answer commands until the client or the service has had enough."""
        self.say(ok(self.server.greeting))
        try:
            with busy():  # it is still for ten minutes if it likes, which our own deadline sees to
                while not self.is_ending and (line := await self._next_line()) is not None:
                    reply = await self._obey(line)
                    if reply is not None:
                        self.say(reply)
                    self._count_errors(reply)
        finally:
            await self.leave()
        await self.stream.linger()  # what the client still says must not destroy what it is told

    async def _next_line(self) -> bytes | None:
        """The next command's line; None: there will be none, and what there is to say about that was said."""
        stream, limits, timeouts = self.stream, self.server.pop3_limits, self.server.pop3_timeouts
        waits_for_login = self.session.phase is Phase.AUTHORIZATION
        stream.deadline = self.login_by if waits_for_login else trio.current_time() + timeouts.command
        try:
            if waits_for_login:
                await stream.flush()  # what we say is no secret
            # What comes may be one: a password with AUTH, or all at once with USER.
            with stream.secret() if waits_for_login else nullcontext():
                async with idle():
                    while not self.is_ending:
                        try:
                            return await stream.receive_until(b"\n", limit=limits.line)
                        except LimitExceeded:
                            refusal = err(f"A command has at most {limits.line} bytes.")
                            self.say(refusal)
                            self._count_errors(refusal)
                            await stream.skip_until(b"\n", limit=limits.skipped)
                    return None
            self.say(err("The service is going down: please come again.", "SYS/TEMP"))
        except (RemoteProtocolError, trio.BrokenResourceError):
            pass  # it has left, or does not find the end of a line
        except ReceiveTimeout:
            pass  # and nothing is said: RFC 1939 section 3
        finally:
            stream.deadline = math.inf
        return None

    async def _obey(self, line: bytes) -> Reply | None:
        """Do what a line says, and return the reply that is still to be said."""
        try:
            command = parse_command(line)
        except RemoteProtocolError:
            return err("This is no command.")
        declaration = COMMANDS.get(command.verb)
        if declaration is None:
            return err("There is no such command.")
        refusal = self.session.check(command.verb)
        if refusal is not None:
            return refusal
        if not declaration.fewest <= len(command.argument.split()) <= declaration.most:
            return err(f"{command.verb} takes {_words(declaration.fewest, declaration.most)}.")
        argument = command.argument if declaration.most > 2 else " ".join(command.argument.split())
        try:
            return await declaration.run(self, argument)
        except LimitExceeded:
            self.is_ending = True  # nobody finds the end of that line
            return None
        except RemoteProtocolError as exc:
            if self.stream.is_closed:
                raise
            return err(f"{exc}.")
        except ReceiveTimeout:
            return None  # the next receive says so as well
        except trio.TooSlowError:
            self.is_ending = True  # it is as if nothing had come in time
            return None
        except LoginUnavailable:
            return err("Logins cannot be checked at the moment: try later.", "SYS/TEMP")
        except OSError as exc:
            return failure(exc, has_mailbox=self.session.phase is Phase.TRANSACTION)

    def _count_errors(self, reply: Reply | None) -> None:
        """End a connection on which there is nothing but nonsense."""
        self._errors = self._errors + 1 if reply is not None and not reply.is_positive else 0
        if self._errors > self.server.pop3_limits.errors:
            self.say(err("Too many errors in a row.", "SYS/PERM"))
            self.is_ending = True


def _words(fewest: int, most: int) -> str:
    match fewest, most:
        case 0, 0:
            return "no argument"
        case 0, 1:
            return "one argument at most"
        case 1, 1:
            return "one argument"
        case 2, 2:
            return "two arguments"
    return "an argument"
