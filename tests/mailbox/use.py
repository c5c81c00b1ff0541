"""What tests do with a mailbox again and again."""

from __future__ import annotations

from asyncnet.mailbox.storage import Mailbox, Message
from tests.ftp.use import fails

__all__ = ["MAIL", "deliver", "fails", "get"]

MAIL = b"Subject: hello\r\n\r\nHello.\r\n.\r\n..dots\r\n"


async def deliver(mailbox: Mailbox, content: bytes = MAIL) -> Message:
    incoming = await mailbox.deliver()
    await incoming.write(content)
    return await incoming.commit()


async def get(mailbox: Mailbox, message: Message | str) -> bytes:
    uid = message if isinstance(message, str) else message.uid
    return b"".join([piece async for piece in mailbox.read(uid)])
