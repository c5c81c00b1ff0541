"""A mail server for finding faults: it takes all mail, prints it, and forgets it.

    python examples/mail_print.py [ENDPOINT]

Try it with `asyncnet send message.eml smtp://127.0.0.1:2525`. Ctrl-C ends it.
"""

from __future__ import annotations

import sys

from asyncnet import Service, run
from asyncnet.smtp import Inbox, Message, SMTPHandler


async def show(message: Message) -> None:
    print(f"From <{message.envelope.sender or ''}>, at {message.client.peer}")
    print("To", *(f"<{recipient.address}>" for recipient in message.recipients))
    content = (await message.content.read()).decode("utf-8", "replace")
    # A terminal obeys control characters: whoever sends mail is not to command ours.
    print("".join(letter if letter.isprintable() or letter == "\n" else "" for letter in content), flush=True)


def tell(service: Service) -> None:
    print(f"mail on {service.urls[0]}; Ctrl-C ends it", flush=True)


def main(endpoint: str = "tcp://127.0.0.1:2525") -> None:
    run(SMTPHandler(Inbox(show)), endpoint, ready=tell)


if __name__ == "__main__":
    main(*sys.argv[1:])
