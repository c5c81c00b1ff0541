"""Final delivery: a parcel is copied into the mailbox of each recipient. RFC 5321 section 4.4 (Return-Path).

The content is read once, however many mailboxes there are. What goes wrong with one of them is that recipient's alone.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from contextlib import aclosing

import trio

from asyncnet.mailbox.storage import Incoming, Mailboxes
from asyncnet.relay.targets import Parcel, Verdict
from asyncnet.replies import Reply
from asyncnet.smtp.envelope import Recipient
from asyncnet.smtp.wire import coded

logger = logging.getLogger("asyncnet.relay")


class MailboxTarget:
    """The mailboxes of one domain, whose users are the local parts of its addresses. A `Target`, and its `Courier`."""

    def __init__(self, mailboxes: Mailboxes) -> None:
        self._mailboxes = mailboxes

    def courier(self) -> MailboxTarget:
        return self

    async def aclose(self) -> None:
        """There is nothing to close."""
        await trio.lowlevel.checkpoint()

    async def hand_over(self, parcel: Parcel) -> Sequence[Verdict]:
        verdicts: dict[int, Verdict] = {}
        begun: dict[int, Incoming] = {}
        try:
            for index, recipient in enumerate(parcel.recipients):
                try:
                    begun[index] = await self._begin(recipient)
                except (LookupError, OSError) as exc:
                    verdicts[index] = _failed(recipient, exc)
            await self._write(parcel, begun, verdicts)
            for index in list(begun):
                incoming = begun.pop(index)
                try:
                    await incoming.commit()
                except OSError as exc:
                    verdicts[index] = _failed(parcel.recipients[index], exc)
                else:
                    verdicts[index] = Verdict(coded(250, "2.1.5", "Delivered."), is_delivered=True)
        finally:
            for incoming in begun.values():
                await incoming.abort()
        return [verdicts[index] for index in range(len(parcel.recipients))]

    async def _begin(self, recipient: Recipient) -> Incoming:
        mailbox = await self._mailboxes.of(recipient.address.local)
        return await mailbox.deliver()

    async def _write(self, parcel: Parcel, begun: dict[int, Incoming], verdicts: dict[int, Verdict]) -> None:
        """Write the content into all that were begun; those that fail leave `begun`."""
        sender = parcel.envelope.sender
        await self._write_piece(f"Return-Path: <{sender or ''}>\r\n".encode(), parcel, begun, verdicts)
        async with aclosing(parcel.read()) as pieces:
            async for piece in pieces:
                await self._write_piece(piece, parcel, begun, verdicts)

    async def _write_piece(
        self, piece: bytes, parcel: Parcel, begun: dict[int, Incoming], verdicts: dict[int, Verdict]
    ) -> None:
        for index, incoming in list(begun.items()):
            try:
                await incoming.write(piece)
            except OSError as exc:
                verdicts[index] = _failed(parcel.recipients[index], exc)
                await begun.pop(index).abort()


def _failed(recipient: Recipient, exc: LookupError | OSError) -> Verdict:
    return Verdict(_reply_for(recipient, exc))


def _reply_for(recipient: Recipient, exc: LookupError | OSError) -> Reply:
    if isinstance(exc, LookupError):
        return coded(550, "5.1.1", "Nobody here has this address.")
    match exc.errno:
        case errno.EDQUOT:
            return coded(452, "4.2.2", "The mailbox is full.")
        case errno.ENOSPC:
            return coded(452, "4.3.1", "There is no space left.")
    logger.warning("mail for %s cannot be delivered: %s", recipient.address, exc)
    return coded(451, "4.3.0", "The mailbox cannot be written to.")
