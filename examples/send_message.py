"""A message with an attachment, and a subject in Greek: sent to a mail server.

    python examples/send_message.py smtp://127.0.0.1:2525 anna@example.org carl@example.net FILE

A password goes into the URL, as in smtps://anna:secret@mail.example.org. `asyncnet send` does the same from a shell.
"""

from __future__ import annotations

import mimetypes
import sys
from email.message import EmailMessage
from pathlib import Path

import trio

from asyncnet.smtp import SMTPClient


async def main(*arguments: str) -> None:
    url, sender, recipient, file = arguments
    message = EmailMessage()
    message["From"] = sender
    message["To"] = recipient
    message["Subject"] = "Καλημέρα"
    message.set_content("The file that you wanted.\n")
    kind, _, subtype = (mimetypes.guess_type(file)[0] or "application/octet-stream").partition("/")
    data = await trio.Path(file).read_bytes()
    message.add_attachment(data, maintype=kind, subtype=subtype, filename=Path(file).name)

    async with SMTPClient.connect(url) as smtp:
        sent = await smtp.send_message(message)
    print(sent.reply)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    trio.run(main, *sys.argv[1:])
