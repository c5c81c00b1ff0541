"""A mail server for finding faults: it takes all mail, prints it, and forgets it.

    python examples/mail_print.py [ENDPOINT]

Try it with `asyncnet send message.eml smtp://127.0.0.1:2525`. Ctrl-C ends it.
"""

from __future__ import annotations

import sys

from asyncnet import Service, run
from asyncnet.printable import printable
from asyncnet.smtp import Inbox, Message, SMTPHandler


async def show(message: Message) -> None:
    lines = [f"From <{message.envelope.sender or ''}>, at {message.client.peer}"]
    lines.append(f"To {' '.join(f'<{recipient.address}>' for recipient in message.recipients)}")
    lines += (await message.content.read()).decode("utf-8", "replace").splitlines()
    # A terminal obeys control characters: whoever sends mail is not to command ours.
    print(*map(printable, lines), sep="\n", flush=True)


def tell(service: Service) -> None:
    print(f"mail on {service.urls[0]}; Ctrl-C ends it", flush=True)


def main(endpoint: str = "tcp://127.0.0.1:2525") -> None:
    run(SMTPHandler(Inbox(show)), endpoint, ready=tell)


if __name__ == "__main__":
    main(*sys.argv[1:])
