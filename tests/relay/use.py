"""Messages into a queue, and out of it, as tests want them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asyncnet.auth.identity import Identity
from asyncnet.relay.messages import Claim, Outcome, State
from asyncnet.relay.queue import Queue
from asyncnet.replies import Reply
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.delivery import Client, Role
from asyncnet.smtp.envelope import Body, Envelope, Notify, Recipient, Returned
from asyncnet.transports.address import Address

LONG = 70_000
"""Bytes that do not stay in memory."""

OK = Reply.of(250, "2.0.0 ok")
LATER = Reply.of(451, "4.3.0 later")
NEVER = Reply.of(550, "5.1.1 nobody")

ENVELOPE = Envelope(
    MailAddress.parse('"ann a"@example.org'),
    Body.EIGHT_BIT,
    international=True,
    size=123,
    returned=Returned.HEADERS,
    envelope_id="QQ\ud800314159",
)
CLIENT = Client(
    Address("192.0.2.7", 4711),
    "mail.example.net\n\udc80",
    Role.SUBMISSION,
    "ESMTPSA",
    Identity("anna"),
    secure=True,
)
BOB = Recipient(
    MailAddress.parse("bob@bücher.example"), frozenset({Notify.SUCCESS, Notify.DELAY}), "rfc822;Bob@example.com"
)


class Clock:
    """A queue's clock that stands still."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def to(*addresses: str) -> list[Recipient]:
    return [Recipient(MailAddress.parse(address)) for address in addresses]


async def put(
    queue: Queue,
    content: bytes = b"Subject: x\r\n\r\nx\r\n",
    recipients: Sequence[Recipient] = (BOB,),
    envelope: Envelope = ENVELOPE,
    piece: int = 30_000,
) -> str:
    """Have a message in the queue; its id."""
    transaction = await queue.start(envelope, CLIENT)
    for recipient in recipients:
        await transaction.add(recipient)
    for start in range(0, len(content), piece):
        await transaction.write(content[start : start + piece])
    said = await transaction.commit()
    return said.removeprefix("queued as ")


async def content(queue: Queue, claim: Claim) -> bytes:
    return b"".join([piece async for piece in queue.read(claim)])


def all_of(claim: Claim, state: State, reply: Reply) -> list[Outcome]:
    return [Outcome(recipient.position, state, reply, "mx.example.net") for recipient in claim.recipients]


async def delivered(queue: Queue, claim: Claim) -> bool:
    return await queue.record(claim, all_of(claim, State.DELIVERED, OK))


async def deferred(queue: Queue, claim: Claim) -> bool:
    return await queue.record(claim, all_of(claim, State.PENDING, LATER))


def files(folder: Path) -> list[str]:
    """The contents that are files."""
    return sorted(path.name for path in (folder / "content").iterdir())
