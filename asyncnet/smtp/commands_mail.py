"""The commands of a mail transaction: RFC 5321 sections 4.1.1.2 to 4.1.1.4, RFC 3030, RFC 2033 (LMTP's replies)."""

from __future__ import annotations

import logging
import time

import trio

from asyncnet.connection import busy
from asyncnet.errors import EndOfStream, LimitExceeded, ReceiveTimeout
from asyncnet.printable import printable
from asyncnet.replies import Reply
from asyncnet.smtp.content import DataDecoder, Fault, LineCheck
from asyncnet.smtp.conversation import Conversation, logger, refusal_reply, words
from asyncnet.smtp.declarations import Argument, command
from asyncnet.smtp.delivery import Client, Refused, Role
from asyncnet.smtp.envelope import Body
from asyncnet.smtp.header import HeaderWatch
from asyncnet.smtp.incoming import Incoming, start
from asyncnet.smtp.trace import missing_fields, protocol_name, received_field
from asyncnet.smtp.wire import CommandError, coded, parse_bdat, parse_mail, parse_rcpt
from asyncnet.transports.base import RECEIVE_SIZE

_SENDER_OK = coded(250, "2.1.0", "Sender ok.")
_RECIPIENT_OK = coded(250, "2.1.5", "Recipient ok.")
_GO_ON = Reply.of(354, "Go on, and end with a dot in a line of its own.")


@command("MAIL", argument=Argument.REQUIRED, help="FROM:<address> [parameters]", brings_mail=True)
async def mail(talk: Conversation, argument: str) -> Reply:
    envelope = parse_mail(argument)
    server, session, stream = talk.server, talk.session, talk.stream
    if session.messages >= server.smtp_limits.messages:
        return coded(421, "4.7.0", "That were many messages: please connect again.")
    protocol = protocol_name(
        server.role,
        is_extended=session.is_extended,
        secure=session.secured,
        logged_in=session.identity is not None,
        international=envelope.international,
    )
    client = Client(stream.peer, session.client_name, server.role, protocol, session.identity, session.secured)
    talk.incoming = await start(server.delivery, envelope, client, server.smtp_limits)
    session.begin(envelope)
    return _SENDER_OK


@command("RCPT", argument=Argument.REQUIRED, help="TO:<address> [parameters]", brings_mail=True)
async def rcpt(talk: Conversation, argument: str) -> Reply:
    incoming = _incoming(talk)
    recipient = parse_rcpt(argument, international=incoming.envelope.international)
    if len(incoming.recipients) >= talk.server.smtp_limits.recipients:
        return coded(452, "4.5.3", "Too many recipients: send it again to the others.")
    await incoming.add(recipient)
    talk.session.recipient_accepted()
    return _RECIPIENT_OK


@command("DATA", argument=Argument.NONE, help="(the message, up to a dot in a line of its own)", brings_mail=True)
async def data(talk: Conversation, argument: str) -> Reply:
    incoming = _incoming(talk)
    talk.say(_GO_ON)
    _begin(talk, incoming)
    decoder = DataDecoder(normalises=talk.knows_no_better, line_limit=talk.server.smtp_limits.text_line)
    pace = _Pace(talk, incoming)
    while not decoder.is_complete:
        content = decoder.feed(await pace.receive(RECEIVE_SIZE))
        if decoder.fault is not None:
            await incoming.refuse(_fault(decoder.fault))
        await incoming.write(content)
    talk.stream.unread(decoder.rest)
    return await _complete(talk, incoming)


@command("BDAT", argument=Argument.OPTIONAL, help="size [LAST]", checks_itself=True, brings_mail=True)
async def bdat(talk: Conversation, argument: str) -> Reply:
    try:
        chunk = parse_bdat(argument)
    except CommandError:
        talk.is_ending = True  # nobody knows where the next command begins
        raise
    refusal = talk.session.check("BDAT")
    if refusal is not None:
        await _Pace(talk).skip(chunk.size)
        return refusal
    incoming = _incoming(talk)
    if incoming.lines is None:
        incoming.lines = LineCheck(talk.server.smtp_limits.text_line)
        _begin(talk, incoming)
    pace = _Pace(talk, incoming)
    pace.check()
    left = chunk.size
    while left:
        content = await pace.receive(min(left, RECEIVE_SIZE))
        left -= len(content)
        await _check_lines(incoming, incoming.lines, content)
        await incoming.write(content)
    if chunk.is_last:
        await _check_lines(incoming, incoming.lines)
        return await _complete(talk, incoming)
    if incoming.refusal is not None:
        await talk.drop_message()
        return refusal_reply(incoming.refusal)
    talk.session.chunk_accepted()
    return coded(250, "2.0.0", f"{chunk.size} bytes have come.")


async def _check_lines(incoming: Incoming, lines: LineCheck, content: bytes | None = None) -> None:
    """Refuse a content that is to be lines, and is none: others could be led to see an end in it. None: it is over."""
    if incoming.envelope.body is Body.BINARY:
        return
    if content is None:
        lines.finish()
    else:
        lines.feed(content)
    if lines.fault is not None:
        await incoming.refuse(_fault(lines.fault))


def _fault(fault: Fault) -> Refused:
    return Refused(554, "5.6.0", f"The message has {fault.value}.")


class _Pace:
    """Receives a content, and gives one up that comes slower than it may: all of its chunks together, if it comes in
    such. Without `incoming` it is one that nobody wants."""

    def __init__(self, talk: Conversation, incoming: Incoming | None = None) -> None:
        self._stream = talk.stream
        self._limits = talk.server.smtp_limits
        begun, self._received = (trio.current_time(), 0) if incoming is None else (incoming.begun, incoming.size)
        self._until = begun + talk.server.smtp_timeouts.content

    @property
    def _deadline(self) -> float:
        return self._until + self._received / self._limits.rate

    def check(self) -> None:
        """Raises `ReceiveTimeout` where it is too late, though the next bytes may be here already."""
        if trio.current_time() > self._deadline:
            raise ReceiveTimeout("the content took too long")

    async def receive(self, most: int) -> bytes:
        """Some bytes, at least one. Raises `EndOfStream`, `ReceiveTimeout`."""
        stream = self._stream
        if stream.buffered:
            data = await stream.receive_exactly(min(most, stream.buffered))
        else:
            stream.deadline = self._deadline
            data = await stream.receive_some(most)
            if not data:
                raise EndOfStream("the client has left within a message")
        self._received += len(data)
        return data

    async def skip(self, count: int) -> None:
        """Read `count` bytes that nobody wants. Raises `LimitExceeded` if they are more than are read of such."""
        while self._received < count:
            await self.receive(min(count - self._received, RECEIVE_SIZE))
            if self._received > self._limits.refused_content:
                raise LimitExceeded(self._limits.refused_content)


def _incoming(talk: Conversation) -> Incoming:
    assert talk.incoming is not None, "the session has let the command pass"
    return talk.incoming


def _begin(talk: Conversation, incoming: Incoming) -> None:
    """The content comes next: tell what is to stand in front of it."""
    server, tls = talk.server, talk.stream.tls

    def added(header: HeaderWatch) -> bytes:
        now = int(time.time())
        field = received_field(
            incoming.client,
            incoming.envelope,
            incoming.recipients,
            hostname=server.hostname,
            message_id=incoming.id,
            now=now,
            tls="" if tls is None else f"using {tls.version} with {tls.cipher}",
        )
        if server.role is Role.SUBMISSION:
            field += missing_fields(header.names, hostname=server.hostname, message_id=incoming.id, now=now)
        # A body without a header would be taken for one with ours, or for a part of our own field.
        return field + b"\r\n" if header.is_missing else field

    incoming.begin(added)


async def _complete(talk: Conversation, incoming: Incoming) -> Reply:
    """All of it has come: hand it over, and tell what has become of it. Returns the last of the replies."""
    try:
        with busy():  # it may take a disk, or another server, some minutes: the client waits ten (section 4.5.3.2.6)
            if talk.server.role is Role.LMTP:
                replies = [_outcome(outcome) for outcome in await incoming.commit_each()]
            else:
                replies = [_outcome(await incoming.commit())]
    except Refused as refusal:
        replies = [_outcome(refusal)]
    finally:
        await talk.drop_message()
    _log(incoming, *replies)
    last = replies.pop()
    if last.is_success or any(reply.is_success for reply in replies):
        talk.mail_has_come()
    if replies:
        await talk.say_each(replies)
    return last


def _outcome(outcome: str | Refused) -> Reply:
    if isinstance(outcome, Refused):
        return refusal_reply(outcome)
    return coded(250, "2.0.0", words(outcome) or "Taken.")


def _log(incoming: Incoming, *replies: Reply) -> None:
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "%s: %s from <%s> to %d recipients, %d bytes: %s",
            incoming.client.peer,
            incoming.id,
            printable(str(incoming.envelope.sender or "")),
            len(incoming.recipients),
            incoming.size,
            ", ".join(map(str, replies)),
        )
