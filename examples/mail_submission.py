"""A submission server: people with passwords send, over TLS alone, and a smarthost gets their mail to the world.

    asyncnet passwd users.toml anna
    python examples/mail_submission.py users.toml cert.pem smtp://user:password@mail.example.net:587 SPOOL [ENDPOINT]

What was taken is in the queue in SPOOL until the smarthost has it: `asyncnet queue list --spool SPOOL` shows it.
`asyncnet send message.eml smtp://anna@127.0.0.1:2587` sends. Ctrl-C ends it.

Whoever lists this machine's processes sees the smarthost's password: a program of yours reads the URL from where it
keeps its secrets, and `asyncnet serve smtp --role submission` from ~/.netrc.
"""

from __future__ import annotations

import sys

import trio

from asyncnet import ServerTLS, drain_on_signal, serve
from asyncnet.auth import UserFile
from asyncnet.relay import Relay, Routes
from asyncnet.smtp import Guarded, RateLimit, Role, SMTPHandler


async def main(*arguments: str) -> None:
    users, certificate, smarthost, spool, *more = arguments
    routes = Routes(default=smarthost)
    tls = ServerTLS(certificate, alpn=("smtp",))
    async with Relay(spool, routes, host="mail.example.org") as relay, trio.open_nursery() as nursery:
        delivery = Guarded(relay, RateLimit(messages=600, recipients=2000))
        handler = SMTPHandler(delivery, role=Role.SUBMISSION, users=UserFile(users), tls=tls, tls_required=True)
        service = await nursery.start(serve, handler, more[0] if more else "tcp://127.0.0.1:2587")
        print(f"mail on {service.urls[0]}; Ctrl-C ends it", flush=True)
        await drain_on_signal(service)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    trio.run(main, *sys.argv[1:])
