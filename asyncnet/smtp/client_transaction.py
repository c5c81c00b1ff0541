"""One message from a client to a server: MAIL, RCPT for each recipient, then DATA or BDAT. RFC 5321 section 3.3.

With PIPELINING (RFC 2920) the commands before the content leave together. LMTP (RFC 2033) answers the content once for
each recipient that it has accepted. Every recipient has an outcome of their own: who was refused by RCPT stays refused
whatever becomes of the message.

Until its end is sent, a message is certainly not taken; from then on the server may have it although its reply never
comes, which is `OutcomeUnknown` (RFC 5321 section 6.1 has such a message sent again).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

import trio

from asyncnet.errors import AsyncnetError, LocalProtocolError, RemoteProtocolError
from asyncnet.replies import PermanentReplyError, Reply, ReplyError, TransientReplyError, error_for
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.client_content import Content, chunked
from asyncnet.smtp.client_control import CORK, Control, NotSupported
from asyncnet.smtp.content import DataEncoder
from asyncnet.smtp.envelope import Body, Envelope, Recipient
from asyncnet.smtp.extensions import Extensions
from asyncnet.smtp.wire import Chunk, format_bdat, format_command, format_mail, format_rcpt

CHUNK = 1024 * 1024
"""How long the chunks of BDAT are, in bytes. A message that is longer goes in chunks where it can: a server that does
not want it says so behind the first."""

Progress: TypeAlias = Callable[[int, int | None], object]
"""Is told how many bytes of the content were sent, and of how many, where that is known."""

_END = "the message"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message for one recipient."""

    recipient: Recipient
    reply: Reply | None
    """What decided it: the reply to the whole message, or the one that refused it; None: nobody knows."""
    command: str
    """What that reply answers: "MAIL", "RCPT", "DATA", "BDAT" or "the message"."""

    @property
    def is_accepted(self) -> bool:
        """Whether the server has taken the message for this recipient: it is its own now to deliver."""
        return self.reply is not None and self.reply.is_success

    @property
    def error(self) -> ReplyError | None:
        """The refusal as an exception, with `code` and `enhanced`; None if it was accepted, or nobody knows.

        Too many recipients are a transient failure also where the server says 552 (RFC 5321 section 4.5.3.1.10).
        """
        if self.reply is None or self.is_accepted:
            return None
        place = f"{self.command} <{self.recipient.address}>" if self.command == "RCPT" else self.command
        if self.command == "RCPT" and self.reply.code == 552 and self.enhanced in (None, "5.5.3"):
            return TransientReplyError(self.reply, place)
        return error_for(self.reply, place)

    @property
    def enhanced(self) -> str | None:
        """The enhanced code of the reply (RFC 3463), where it has one."""
        return None if self.reply is None else self.reply.enhanced


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a message that the server has taken for one recipient at least."""

    outcomes: tuple[Outcome, ...]
    """One for each recipient, in their order."""

    @property
    def refused(self) -> tuple[Outcome, ...]:
        """Those that do not get it."""
        return tuple(outcome for outcome in self.outcomes if not outcome.is_accepted)

    @property
    def reply(self) -> Reply:
        """What the server says of the message, such as the name that it has in its queue (in LMTP, the first)."""
        return next(outcome.reply for outcome in self.outcomes if outcome.is_accepted and outcome.reply is not None)


class MessageRefused(AsyncnetError):
    """Nobody gets the message. `outcomes` says why, for each recipient: some may be refused for ever, some for now."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = tuple(outcomes)
        self._errors = [outcome.error for outcome in outcomes]
        super().__init__("; ".join(dict.fromkeys(map(str, self._errors))))

    @property
    def is_permanent(self) -> bool:
        """Whether the same will be refused again, for each recipient."""
        return all(isinstance(error, PermanentReplyError) for error in self._errors)


class OutcomeUnknown(AsyncnetError):
    """The message was sent to its end, and then the connection broke: it may have been taken or not.

    Whoever sends it again may send it twice, whoever does not may lose it. Some of the `outcomes` may be known: those
    that RCPT has refused, and in LMTP those that were answered before.
    """

    def __init__(self, outcomes: Sequence[Outcome], reason: BaseException) -> None:
        self.outcomes = tuple(outcomes)
        super().__init__(f"nobody knows whether the server has taken the message: {reason}")


@dataclass(frozen=True, slots=True)
class Rules:
    """What a server can do, and which protocol it speaks."""

    extensions: Extensions
    is_lmtp: bool = False


def adapted(envelope: Envelope, recipients: Sequence[Recipient], content: Content, rules: Rules) -> Envelope:
    """The envelope as the server can take it. Raises NotSupported if it cannot.

    Wishes for reports (RFC 3461) are left out where the server knows none; that is for whoever relays to report.
    """
    offered = rules.extensions
    if offered.size and content.size is not None and content.size > offered.size:
        raise NotSupported(f"the server takes messages of {offered.size} bytes, and this has {content.size}", "5.3.4")
    size = envelope.size if content.size is None else content.size
    return Envelope(
        sender=None if envelope.sender is None else _on_the_wire(envelope.sender),
        body=_body(envelope, content, offered),
        international=_is_international(envelope, recipients, content, offered),
        size=None if offered.size is None else size,
        returned=envelope.returned if offered.dsn else None,
        envelope_id=envelope.envelope_id if offered.dsn else None,
    )


def _body(envelope: Envelope, content: Content, offered: Extensions) -> Body:
    if envelope.body is Body.BINARY:
        if not (offered.chunking and offered.binarymime):
            raise NotSupported("the server takes no binary content (BINARYMIME)", "5.6.3")
        return Body.BINARY
    is_ascii = envelope.body is Body.SEVEN_BIT if content.is_ascii is None else content.is_ascii
    if is_ascii:
        return Body.SEVEN_BIT
    if not (offered.eight_bit_mime or offered.smtputf8):
        raise NotSupported("the server takes no bytes above 127 (8BITMIME)", "5.6.3")
    return Body.EIGHT_BIT


def _is_international(
    envelope: Envelope, recipients: Sequence[Recipient], content: Content, offered: Extensions
) -> bool:
    addresses = [envelope.sender, *(recipient.address for recipient in recipients)]
    needed = any(address is not None and not address.local.isascii() for address in addresses)
    if not needed and not (envelope.international and content.is_ascii is not True):
        return False
    if not offered.smtputf8:
        raise NotSupported("the server takes no addresses and headers beyond ASCII (SMTPUTF8)", "5.6.7")
    return True


def _on_the_wire(address: MailAddress) -> MailAddress:
    """An address with its domain in A-labels, which means the same and needs no SMTPUTF8, where that is possible."""
    try:
        return address.downgraded() or address
    except ValueError as exc:  # who makes an address by hand can put anything into it
        raise LocalProtocolError(f"no address of mail: {str(address)!a}: {exc}") from exc


def _said(recipient: Recipient, offered: Extensions) -> Recipient:
    address = _on_the_wire(recipient.address)
    return Recipient(address, recipient.notify, recipient.original) if offered.dsn else Recipient(address)


class Transaction:
    """One message on its way out. `run` it within the control's turn."""

    def __init__(
        self,
        control: Control,
        rules: Rules,
        envelope: Envelope,
        recipients: Sequence[Recipient],
        content: Content,
        progress: Progress | None = None,
    ) -> None:
        self._control = control
        self._rules = rules
        self._recipients = recipients
        self._content = content
        self._progress = progress
        self._chunks = envelope.body is Body.BINARY or (
            rules.extensions.chunking and content.size is not None and content.size > CHUNK
        )
        # Whatever cannot be said is found here, before a byte is sent.
        self._mail = format_mail(envelope)
        self._rcpts = [
            format_rcpt(_said(recipient, rules.extensions), international=envelope.international)
            for recipient in recipients
        ]
        self._outcomes: list[Outcome | None] = [None] * len(recipients)
        self.needs_reset = False
        """Whether the server still has an envelope, which RSET takes from it."""

    async def run(self) -> Sent:
        """Send it. Raises MessageRefused, OutcomeUnknown, and what breaks the connection before the end was sent."""
        begun = await self._open()
        accepted = [index for index, outcome in enumerate(self._outcomes) if outcome is None]
        if begun and not self._control.stream.is_closed:
            if accepted:
                await (self._send_chunks if self._chunks else self._send_data)(accepted)
            else:
                await self._send_nothing()
        outcomes = [outcome for outcome in self._outcomes if outcome is not None]
        if not any(outcome.is_accepted for outcome in outcomes):
            raise MessageRefused(outcomes)
        return Sent(tuple(outcomes))

    # The envelope

    async def _open(self) -> bool:
        """Send all that comes before the content; whether content is what the server waits for."""
        commands = [("MAIL", self._mail), *(("RCPT", rcpt) for rcpt in self._rcpts)]
        if not self._chunks:
            commands.append(("DATA", format_command("DATA")))
        index = 0
        for group in self._groups(commands):
            if None not in self._outcomes:
                return False  # nobody is left to send it to
            for _, line in group:
                await self._control.write(line)
            for command, _ in group:
                reply = await self._control.receive(command, self._time(command))
                if reply.code == 421:
                    self._settle_rest(reply, command)
                    return False
                if command == "RCPT":
                    self._hear_rcpt(index, reply)
                    index += 1
                elif command == "MAIL":
                    self._hear_mail(reply)
                elif command == "DATA":
                    return self._hear_data(reply)
        return None in self._outcomes

    def _groups(self, commands: list[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
        """What is sent before it is answered: with PIPELINING as much as fits in the buffer, else one by one."""
        group: list[tuple[str, bytes]] = []
        size = 0
        for command, line in commands:
            if group and (not self._rules.extensions.pipelining or size + len(line) > CORK // 2):
                yield group
                group, size = [], 0
            group.append((command, line))
            size += len(line)
        yield group

    def _time(self, command: str) -> float:
        times = self._control.timeouts
        return {"MAIL": times.mail, "RCPT": times.recipient, "DATA": times.data}[command]

    def _hear_mail(self, reply: Reply) -> None:
        if reply.is_success:
            self.needs_reset = True
        else:
            self._settle_rest(self._refusal(reply, "MAIL"), "MAIL")

    def _hear_rcpt(self, index: int, reply: Reply) -> None:
        if self._outcomes[index] is None and not reply.is_success:
            refusal = self._refusal(reply, "RCPT")
            self._outcomes[index] = Outcome(self._recipients[index], refusal, "RCPT")

    def _hear_data(self, reply: Reply) -> bool:
        if reply.code == 354:
            return True
        self._settle_rest(self._refusal(reply, "DATA"), "DATA")
        return False

    def _refusal(self, reply: Reply, command: str) -> Reply:
        """A reply that is 4yz or 5yz. Raises `RemoteProtocolError` for others: nobody knows what the server means."""
        if not (reply.is_transient_failure or reply.is_permanent_failure):
            raise RemoteProtocolError(f"{reply.code} is no answer to {command}")
        return reply

    def _settle_rest(self, reply: Reply | None, command: str) -> None:
        """Those who have no outcome yet have this one."""
        for index, outcome in enumerate(self._outcomes):
            if outcome is None:
                self._outcomes[index] = Outcome(self._recipients[index], reply, command)

    # The content

    async def _send_nothing(self) -> None:
        """The server waits for content though it has refused everybody: RFC 2920 section 3.1 has a dot end that."""
        if self._rules.is_lmtp:
            raise RemoteProtocolError("354 to DATA without recipients (RFC 2033 section 4.2)")
        self._control.owe(1)
        self._control.stream.write(DataEncoder().finish())
        await self._control.receive(_END, self._control.timeouts.end)
        self.needs_reset = False

    async def _send_data(self, accepted: Sequence[int]) -> None:
        answers = len(accepted) if self._rules.is_lmtp else 1
        self._control.owe(answers)
        encoder = DataEncoder()
        early = await self._send_lines(encoder) or await self._control.hear_early()
        if early is not None:
            await self._break_off(early)
        else:
            self._control.stream.write(encoder.finish())
            await self._hear_end(accepted, answers)

    async def _send_lines(self, encoder: DataEncoder) -> Reply | None:
        """Send all of the content; returns what the server has said before that was done."""
        sent = 0
        async with aclosing(self._content.pieces()) as pieces:
            async for piece in pieces:
                early = await self._control.send_content(encoder.feed(piece))
                if early is not None:
                    return early
                sent += len(piece)
                self._tell(sent)
        return None

    def _tell(self, sent: int) -> None:
        if self._progress is not None:
            self._progress(sent, self._content.size)

    async def _break_off(self, reply: Reply) -> None:
        """The server has answered before the end: there is no way to take back the rest but to close."""
        await self._control.abort()
        self._settle_rest(self._refusal(reply, "the message, before its end"), _END)

    async def _send_chunks(self, accepted: Sequence[int]) -> None:
        """BDAT: RFC 3030 section 2. Each chunk is answered before the next one is sent."""
        sent = 0
        async with aclosing(self._content.pieces()) as pieces, aclosing(chunked(pieces, CHUNK)) as chunks:
            async for data, is_last in chunks:
                answers = len(accepted) if is_last and self._rules.is_lmtp else 1
                await self._control.write(format_bdat(Chunk(len(data), is_last)))
                self._control.owe(answers - 1)
                early = await self._send_chunk(data)
                if early is not None:
                    return await self._break_off(early)
                sent += len(data)
                if is_last:
                    self._tell(sent)
                    return await self._hear_end(accepted, answers)
                reply = await self._control.receive("BDAT", self._control.timeouts.data)
                if not reply.is_success:
                    return self._settle_rest(self._refusal(reply, "BDAT"), "BDAT")
                self._tell(sent)
        return None

    async def _send_chunk(self, data: bytes) -> Reply | None:
        for begin in range(0, len(data), CORK):
            early = await self._control.send_content(data[begin : begin + CORK])
            if early is not None:
                return early
        return None

    async def _hear_end(self, accepted: Sequence[int], answers: int) -> None:
        """Receive what is said to the whole message. Raises OutcomeUnknown when that does not come."""
        try:
            for place in range(answers):
                reply = await self._control.receive(_END, self._control.timeouts.end)
                reply = reply if reply.is_success else self._refusal(reply, _END)
                for index in accepted if answers == 1 else accepted[place : place + 1]:
                    self._outcomes[index] = Outcome(self._recipients[index], reply, _END)
        except (RemoteProtocolError, TimeoutError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            await self._control.abort()
            self._settle_rest(None, _END)
            raise OutcomeUnknown([outcome for outcome in self._outcomes if outcome is not None], exc) from exc
        self.needs_reset = self._chunks and not reply.is_success
