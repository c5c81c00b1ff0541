"""Read a mailbox: python examples/read_mail.py pop3s://anna@mail.example.org

Prints who has written and what about, the newest message first, and leaves everything where it is. The password comes
from the variable PASSWORD; `asyncnet serve pop3` serves a mailbox to try it with.
"""

import os
import sys
from email.errors import MessageError
from email.header import decode_header, make_header
from email.parser import BytesHeaderParser

import trio

from asyncnet.pop3 import POP3Client


def shown(field: object) -> str:
    """A header's field, which may hold anything: of any length, and what no charset has."""
    text = str(field)[:200]
    try:
        text = str(make_header(decode_header(text)))
    except (MessageError, ValueError, LookupError):
        pass  # it stays as it is
    return ascii(text)  # which lets nothing through that a terminal would obey


async def main(url: str) -> None:
    async with POP3Client.connect(url, password=os.environ.get("PASSWORD")) as pop3:
        count, size = await pop3.stat()
        print(f"{count} messages, {size} bytes")
        for number in sorted(await pop3.list(), reverse=True):
            head = BytesHeaderParser().parsebytes(await pop3.top(number))
            print(number, *(shown(head.get(name, "-")) for name in ("From", "Subject")))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1])
