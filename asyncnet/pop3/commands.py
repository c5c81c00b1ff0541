"""The commands of POP3, each a function of the conversation and the command's argument. It returns the reply.

RFC 1939 sections 5 to 7, RFC 2449 (CAPA), RFC 2595 (STLS), RFC 5034 (AUTH). What is not here: APOP, which needs the
passwords themselves on the server and MD5 on both sides; LAST, which RFC 1939 has dropped.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from asyncnet.auth.sasl import asked, decode_initial, log_in, offered_mechanisms
from asyncnet.errors import RemoteProtocolError
from asyncnet.mailbox.storage import Message
from asyncnet.pop3.session import Phase, Session
from asyncnet.pop3.wire import END, Reply, Top, err, ok, parse_number

if TYPE_CHECKING:
    from asyncnet.pop3.conversation import Conversation

logger = logging.getLogger("asyncnet.pop3")

LINES: Final = 500
"""How many lines of a listing leave at a time, before others have their turn."""

Run: TypeAlias = "Callable[[Conversation, str], Awaitable[Reply | None]]"
"""Does the command and returns its reply; None: it has been sent, with all that follows it."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A command, and how many words it takes: the fewest and the most."""

    run: Run
    fewest: int
    most: int


COMMANDS: dict[str, Declaration] = {}
"""Every command by its verb."""

_ANY: Final = 1 << 30


def command(verb: str, fewest: int = 0, most: int = 0) -> Callable[[Run], Run]:
    """Declare the function beneath to be the command `verb`."""

    def declare(run: Run) -> Run:
        COMMANDS[verb] = Declaration(run, fewest, most)
        return run

    return declare


# Logins


@command("USER", 1, _ANY)
async def user(conversation: Conversation, argument: str) -> Reply:
    if not conversation.takes_passwords:
        return _not_in_the_clear(conversation)
    conversation.session.name = argument
    return ok("The password, please.")  # whoever it is


@command("PASS", 0, _ANY)
async def password(conversation: Conversation, argument: str) -> Reply:
    users, peer = conversation.server.users, conversation.stream.peer
    name, conversation.session.name = conversation.session.name, None
    if name is None or not conversation.takes_passwords:
        return _not_in_the_clear(conversation)
    with trio.fail_at(conversation.login_by):  # others of its address may be waiting, too
        identity = await conversation.logins.attempt(lambda: asked(users.verify(name, argument, peer=peer)))
    return await conversation.log_in(identity)


def _not_in_the_clear(conversation: Conversation) -> Reply:
    what = "STLS comes first" if conversation.can_begin_tls else "there is no TLS here"
    return err(f"A password may not pass in the clear: {what}.")


@command("AUTH", 1, 2)
async def auth(conversation: Conversation, argument: str) -> Reply:
    server, stream = conversation.server, conversation.stream
    mechanism, _, initial = argument.partition(" ")
    offered = await _mechanisms(conversation)
    if mechanism.upper() not in offered:
        if not conversation.takes_passwords:
            return _not_in_the_clear(conversation)
        return err(f"The mechanisms are {', '.join(offered)}.")
    with trio.fail_at(conversation.login_by):
        identity = await log_in(
            mechanism.upper(),
            users=server.users,
            logins=conversation.logins,
            peer=stream.peer,
            challenge=conversation.challenge,
            initial=decode_initial(initial) if initial else None,
        )
    return await conversation.log_in(identity)


async def _mechanisms(conversation: Conversation) -> tuple[str, ...]:
    """How AUTH may log in here: not where others listen, who could try passwords on what SCRAM tells them, too."""
    if not conversation.takes_passwords:
        return ()
    return await offered_mechanisms(conversation.server.users, passwords=True)


@command("STLS")
async def start_tls(conversation: Conversation, argument: str) -> Reply | None:
    server, stream = conversation.server, conversation.stream
    if server.tls is None or stream.tls is not None:
        return err("TLS has begun already." if stream.tls is not None else "There is no TLS here.")
    conversation.say(ok("TLS begins now."))
    try:
        await stream.start_tls(server.tls, server_side=True)
    except OSError as exc:
        raise trio.BrokenResourceError(f"the TLS handshake failed: {exc}") from exc
    conversation.session = Session()
    return None


@command("CAPA")
async def capabilities(conversation: Conversation, argument: str) -> None:
    server = conversation.server
    lines = ["TOP", "UIDL", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE", "EXPIRE NEVER", "IMPLEMENTATION asyncnet"]
    if server.login_delay:
        lines.append(f"LOGIN-DELAY {server.login_delay}")
    if conversation.can_begin_tls:
        lines.append("STLS")
    if mechanisms := await _mechanisms(conversation):
        lines += ["USER", f"SASL {' '.join(mechanisms)}"]
    await _list(conversation, ok("What there is:"), lines)


async def _list(conversation: Conversation, reply: Reply, lines: Iterable[str]) -> None:
    """A response of many lines, none of which begins with a dot."""
    gathered = [reply.encode()]
    for line in lines:
        gathered.append(f"{line}\r\n".encode("ascii"))
        if len(gathered) >= LINES:
            await conversation.put(b"".join(gathered))
            await trio.lowlevel.checkpoint()
            gathered = []
    await conversation.put(b"".join([*gathered, END]))


# The mailbox


@command("STAT")
async def stat(conversation: Conversation, argument: str) -> Reply:
    return ok(f"{conversation.session.count} {conversation.session.size}")


@command("LIST", 0, 1)
async def list_sizes(conversation: Conversation, argument: str) -> Reply | None:
    return await _tell(conversation, argument, lambda message: str(message.size))


@command("UIDL", 0, 1)
async def list_uids(conversation: Conversation, argument: str) -> Reply | None:
    return await _tell(conversation, argument, lambda message: message.uid)


async def _tell(conversation: Conversation, argument: str, what: Callable[[Message], str]) -> Reply | None:
    session = conversation.session
    if argument:
        number = session.number(argument)
        return ok(f"{number} {what(session.message(number))}")
    lines = (f"{number} {what(message)}" for number, message in session.left())
    await _list(conversation, ok(f"{session.count} messages ({session.size} octets)"), lines)
    return None


@command("RETR", 1, 1)
async def retrieve(conversation: Conversation, argument: str) -> None:
    number = conversation.session.number(argument)
    message = conversation.session.message(number)
    await conversation.send_message(message, ok(f"{message.size} octets"))
    conversation.session.retrieved.add(number)


@command("TOP", 2, 2)
async def top(conversation: Conversation, argument: str) -> None:
    number, lines = argument.split()
    message = conversation.session.message(conversation.session.number(number))
    count = 0 if lines == "0" else parse_number(lines)
    if count is None:
        raise RemoteProtocolError("TOP takes a number of lines as well")
    await conversation.send_message(message, ok("The top of it:"), Top(count))


@command("DELE", 1, 1)
async def delete(conversation: Conversation, argument: str) -> Reply:
    number = conversation.session.number(argument)
    conversation.session.delete(number)
    return ok(f"Message {number} goes with QUIT.")


@command("RSET")
async def reset(conversation: Conversation, argument: str) -> Reply:
    conversation.session.reset()
    return ok(f"{conversation.session.count} messages ({conversation.session.size} octets)")


@command("NOOP")
async def noop(conversation: Conversation, argument: str) -> Reply:
    return ok("Still here.")


@command("QUIT")
async def quit(conversation: Conversation, argument: str) -> Reply:
    conversation.is_ending = True
    if conversation.session.phase is Phase.AUTHORIZATION:
        return ok("Goodbye.")
    await conversation.stream.flush()  # who is not there any more to get an answer deletes nothing
    try:
        await conversation.update()
    except OSError as exc:
        logger.warning("messages of %s could not be removed: %s", conversation.user, exc)
        return err("Some of the deleted messages were not removed.", "SYS/TEMP")
    finally:
        await conversation.leave()  # before the answer: who has it may log in again
    return ok("Goodbye.")


def failure(exc: OSError, *, has_mailbox: bool) -> Reply:
    """The reply that tells a mailbox's failure; what nobody has foreseen goes to the log, not to the client."""
    match exc.errno:
        case errno.EBUSY:
            return err("Somebody else has this mailbox open.", "IN-USE")
        case errno.ENOENT if has_mailbox:
            return err("Another program has removed that message.")
    logger.warning("a mailbox failed: %s", exc)
    return err("The mailbox cannot be read at the moment.", "SYS/TEMP")
