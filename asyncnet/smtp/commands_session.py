"""The commands about the session itself: greeting, TLS, login, and what the server tells about itself.

RFC 5321 sections 4.1.1.1 and 4.1.1.5 to 4.1.1.10, RFC 2033 (LHLO), RFC 3207 (STARTTLS), RFC 4954 (AUTH).
"""

from __future__ import annotations

from asyncnet.auth.sasl import (
    MECHANISMS,
    ExchangeCancelled,
    LoginUnavailable,
    decode_initial,
    decode_response,
    encode_response,
    log_in,
)
from asyncnet.errors import EndOfStream, IncompleteRead, LimitExceeded, RemoteProtocolError
from asyncnet.replies import Reply
from asyncnet.smtp.conversation import Conversation, logger
from asyncnet.smtp.declarations import LMTP, SMTP, Argument, command
from asyncnet.smtp.wire import CommandError, coded, parse_auth, parse_hello

_GOODBYE = coded(221, "2.0.0", "Goodbye.")


@command("EHLO", argument=Argument.REQUIRED, help="name", roles=SMTP)
async def ehlo(talk: Conversation, argument: str) -> Reply:
    return await _greet(talk, argument, is_extended=True)


@command("LHLO", argument=Argument.REQUIRED, help="name", roles=LMTP)
async def lhlo(talk: Conversation, argument: str) -> Reply:
    return await _greet(talk, argument, is_extended=True)


@command("HELO", argument=Argument.REQUIRED, help="name", roles=SMTP)
async def helo(talk: Conversation, argument: str) -> Reply:
    return await _greet(talk, argument, is_extended=False)


async def _greet(talk: Conversation, argument: str, *, is_extended: bool) -> Reply:
    name = parse_hello(argument)
    await talk.drop_message()
    talk.session.greet(name, is_extended=is_extended)
    return await talk.hello() if is_extended else Reply.of(250, talk.server.hostname)


@command("STARTTLS", argument=Argument.NONE, help="(begin TLS)")
async def starttls(talk: Conversation, argument: str) -> Reply | None:
    if talk.server.tls is None:
        return coded(502, "5.5.1", "There is no TLS here.")
    talk.say(coded(220, "2.0.0", "TLS begins now."))
    await talk.start_tls()
    return None


@command("AUTH", argument=Argument.REQUIRED, help="mechanism [initial response]")
async def auth(talk: Conversation, argument: str) -> Reply:
    users, stream = talk.server.users, talk.stream
    mechanism, initial = parse_auth(argument)
    if users is None:
        return coded(502, "5.5.1", "Nobody logs in here.")
    if mechanism not in await talk.mechanisms():
        if mechanism in MECHANISMS and not talk.may_log_in:
            return coded(538, "5.7.11", "A password may not pass in the clear: STARTTLS comes first.")
        return coded(504, "5.5.4", f"The mechanisms are {', '.join(await talk.mechanisms())}.")

    async def challenge(data: bytes) -> bytes:
        talk.say(Reply.of(334, encode_response(data).decode()))
        return decode_response(await talk.read_line())

    try:
        with stream.secret():
            identity = await log_in(
                mechanism,
                users=users,
                logins=talk.logins,
                peer=stream.peer,
                challenge=challenge,
                initial=None if initial is None else decode_initial(initial),
            )
    except ExchangeCancelled:
        return coded(501, "5.7.0", "The login was cancelled.")
    except LoginUnavailable:
        return coded(454, "4.7.0", "Logins cannot be checked at the moment: try later.")
    except (CommandError, EndOfStream, IncompleteRead, LimitExceeded):
        raise
    except RemoteProtocolError as exc:
        return coded(501, "5.5.2", f"The login is malformed: {exc}.")
    if identity is None:
        if talk.logins.exhausted:
            return coded(421, "4.7.0", "Too many logins have failed.")
        return coded(535, "5.7.8", "The login failed.")
    talk.session.identity = identity
    logger.info("%s logged in from %s", identity.name, stream.peer)
    return coded(235, "2.7.0", "Logged in.")


@command("RSET", argument=Argument.NONE, help="(give the message up)")
async def rset(talk: Conversation, argument: str) -> Reply:
    await talk.drop_message()
    return coded(250, "2.0.0", "Done.")


@command("NOOP", argument=Argument.OPTIONAL, help="(nothing)")
async def noop(talk: Conversation, argument: str) -> Reply:
    return coded(250, "2.0.0", "Still here.")


@command("QUIT", argument=Argument.NONE, help="(end)")
async def quit(talk: Conversation, argument: str) -> Reply:
    talk.is_ending = True
    return _GOODBYE


@command("VRFY", argument=Argument.REQUIRED, help="(nothing is told)")
async def vrfy(talk: Conversation, argument: str) -> Reply:
    return coded(252, "2.5.0", "Who is here is not told: mail will be tried.")


@command("EXPN", argument=Argument.REQUIRED, help="(not here)")
async def expn(talk: Conversation, argument: str) -> Reply:
    return coded(502, "5.5.1", "Lists are not told.")


@command("HELP", argument=Argument.OPTIONAL, help="[command]")
async def help(talk: Conversation, argument: str) -> Reply:
    known = talk.server.commands
    if argument:
        declaration = known.get(argument.upper())
        if declaration is None:
            return coded(504, "5.5.4", "No such command: HELP lists those that there are.")
        return coded(214, "2.0.0", f"{declaration.verb} {declaration.help}")
    return coded(214, "2.0.0", "The commands are:", " ".join(sorted(known)), "HELP COMMAND tells more.")
