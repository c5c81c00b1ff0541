"""Mail as the input of a program: what is attached to messages for one address is saved in a folder.

    python examples/mail_receiver.py ADDRESS FOLDER [ENDPOINT]

The sender's server hears that the message was taken when the coroutine returns; what the coroutine raises, it hears as
well: `Refused` for good, all else for now, and it tries again. Try it with
`python examples/send_message.py smtp://127.0.0.1:2525 me@example.org ADDRESS FILE`. Ctrl-C ends it.
"""

from __future__ import annotations

import re
import secrets
import sys
from email.errors import MessageError
from email.message import EmailMessage
from functools import partial

import trio

from asyncnet import Service, run
from asyncnet.errors import RemoteProtocolError
from asyncnet.smtp import Guarded, Inbox, KnownRecipients, Message, Refused, SMTPHandler

# What the standard library raises for mail that was made for that, and we for what would take it too long.
UNREADABLE = (RemoteProtocolError, MessageError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


def attachments(mail: EmailMessage) -> list[tuple[str, bytes]]:
    """What is attached, under names of the sender's idea: nothing of them leads out of a folder, or hides in it."""
    found = []
    for part in mail.iter_attachments():
        name = re.sub(r"[^\w.-]", "_", part.get_filename() or "nameless").lstrip(".")[:60]
        data = part.get_payload(decode=True)
        if isinstance(data, bytes):
            found.append((name, data))
    return found


async def save(folder: str, message: Message) -> str:
    try:
        mail = await message.parse()
        found = await trio.to_thread.run_sync(attachments, mail)  # a field is parsed when it is asked for
        subject = await trio.to_thread.run_sync(mail.get, "Subject")
    except UNREADABLE as exc:
        raise Refused(554, "5.6.0", "Nobody can read this message.") from exc
    for name, data in found:
        await (trio.Path(folder) / f"{secrets.token_hex(4)}-{name}").write_bytes(data)
    print(f"{subject!a} from {message.envelope.sender}: {len(found)} saved", flush=True)
    return f"{len(found)} attachments saved"


def tell(service: Service) -> None:
    print(f"mail on {service.urls[0]}; Ctrl-C ends it", flush=True)


def main(address: str, folder: str, endpoint: str = "tcp://127.0.0.1:2525") -> None:
    delivery = Guarded(Inbox(partial(save, folder)), KnownRecipients([address]))
    run(SMTPHandler(delivery), endpoint, ready=tell)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
