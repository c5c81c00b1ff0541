"""Read a mailbox: python examples/read_mail.py pop3s://anna@mail.example.org

Prints who has written and what about, the newest message first, and leaves everything where it is. The password comes
from the variable PASSWORD; `asyncnet serve pop3` serves a mailbox to try it with.
"""

import os
import sys
from email.parser import BytesHeaderParser
from email.policy import default

import trio

from asyncnet.pop3 import POP3Client


async def main(url: str) -> None:
    async with POP3Client.connect(url, password=os.environ.get("PASSWORD")) as pop3:
        count, size = await pop3.stat()
        print(f"{count} messages, {size} bytes")
        for number in sorted(await pop3.list(), reverse=True):
            head = BytesHeaderParser(policy=default).parsebytes(await pop3.top(number))
            # A header may hold anything: ascii() lets nothing through that a terminal would obey.
            print(number, *(ascii(str(head.get(name, "-"))) for name in ("From", "Subject")))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1])
