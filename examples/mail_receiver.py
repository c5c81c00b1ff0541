"""Mail as the input of a program: what is attached to messages for one address is saved in a folder.

    python examples/mail_receiver.py ADDRESS FOLDER [ENDPOINT]

The sender's server hears that the message was taken when the coroutine returns; what the coroutine raises, it hears as
well, and tries again. Try it with `python examples/send_message.py smtp://127.0.0.1:2525 me@example.org ADDRESS FILE`.
Ctrl-C ends it.
"""

from __future__ import annotations

import re
import secrets
import sys
from functools import partial

import trio

from asyncnet import Service, run
from asyncnet.smtp import Guarded, Inbox, KnownRecipients, Message, SMTPHandler


async def save(folder: str, message: Message) -> str:
    mail = await message.parse()
    parts = list(mail.iter_attachments())
    for part in parts:
        # The name is the sender's idea: nothing of it leads out of the folder, or hides in it.
        name = re.sub(r"[^\w.-]", "_", part.get_filename() or "nameless").lstrip(".")[:100]
        data = part.get_payload(decode=True)
        if isinstance(data, bytes):
            await (trio.Path(folder) / f"{secrets.token_hex(4)}-{name}").write_bytes(data)
    print(f"{mail['Subject']!a} from {message.envelope.sender}: {len(parts)} saved", flush=True)
    return f"{len(parts)} attachments saved"


def tell(service: Service) -> None:
    print(f"mail on {service.urls[0]}; Ctrl-C ends it", flush=True)


def main(address: str, folder: str, endpoint: str = "tcp://127.0.0.1:2525") -> None:
    delivery = Guarded(Inbox(partial(save, folder)), KnownRecipients([address]))
    run(SMTPHandler(delivery), endpoint, ready=tell)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
