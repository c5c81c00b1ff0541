"""Final delivery: a parcel is copied into the mailbox of each recipient. RFC 5321 section 4.4 (Return-Path).

What goes wrong with one mailbox is that recipient's alone. The content is read for a few of them at a time: each is a
Maildir whose folders are open, and a message to everybody would have more files open than a process may.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from contextlib import aclosing

import trio

from asyncnet.mailbox.storage import Incoming, Mailboxes
from asyncnet.per_run import once_per_run
from asyncnet.printable import printable
from asyncnet.relay.targets import Parcel, Verdict
from asyncnet.replies import Reply
from asyncnet.smtp.envelope import Recipient
from asyncnet.smtp.wire import coded

logger = logging.getLogger("asyncnet.relay")

AT_ONCE = 2
"""How many mailboxes a message is written into at once."""

PARCELS = 16
"""How many parcels are being written at a time, in one run of Trio, each with five files for each mailbox: as many as
there are threads that work for mailboxes."""

_limiter = once_per_run(lambda: trio.CapacityLimiter(PARCELS))


class MailboxTarget:
    """The mailboxes of one domain, whose users are the local parts of its addresses. A `Target`, and its `Courier`."""

    def __init__(self, mailboxes: Mailboxes) -> None:
        self._mailboxes = mailboxes

    def courier(self) -> MailboxTarget:
        return self

    async def aclose(self) -> None:
        """There is nothing to close."""
        await trio.lowlevel.checkpoint()

    async def hand_over(self, parcel: Parcel, verdicts: dict[int, Verdict]) -> None:
        for begin in range(0, len(parcel.recipients), AT_ONCE):
            async with _limiter():
                await self._deliver(parcel, range(begin, min(begin + AT_ONCE, len(parcel.recipients))), verdicts)

    async def _deliver(self, parcel: Parcel, indexes: Iterable[int], verdicts: dict[int, Verdict]) -> None:
        """Copy it into the mailboxes of these recipients."""
        begun: dict[int, Incoming] = {}
        try:
            for index in indexes:
                try:
                    begun[index] = await self._begin(parcel.recipients[index])
                except (LookupError, OSError) as exc:
                    verdicts[index] = _failed(parcel.recipients[index], exc)
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
    logger.warning("mail for %s cannot be delivered: %s", printable(str(recipient.address)), exc)
    return coded(451, "4.3.0", "The mailbox cannot be written to.")
