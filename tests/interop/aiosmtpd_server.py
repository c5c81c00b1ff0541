"""aiosmtpd as a process of its own: prints its port, and each message as a line of JSON.

    python -m tests.interop.aiosmtpd_server [smtp|lmtp] [CERTIFICATE.pem]

With a certificate it has STARTTLS, and anna may log in over it, whose password is "secret".
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, AuthResult


class Printing:
    """Who is called "nobody" is refused, and LMTP's "full" behind the message."""

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address.startswith("nobody@"):
            return "550 5.1.1 There is nobody"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.append(options)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        told = {
            "sender": envelope.mail_from,
            "options": envelope.mail_options,
            "recipients": envelope.rcpt_tos,
            "content": envelope.original_content.decode("latin-1"),
            "tls": session.ssl is not None,
            "user": None if session.auth_data is None else session.auth_data.login.decode(),
        }
        print(json.dumps(told), flush=True)
        if not isinstance(server, LMTP):
            return "250 2.0.0 printed"
        return "\r\n".join(
            "452 4.2.2 full" if address.startswith("full@") else "250 2.0.0 printed" for address in envelope.rcpt_tos
        )


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=(data.login, data.password) == (b"anna", b"secret"), auth_data=data, handled=False)


async def main(kind: str, certificate: str | None = None) -> None:
    options: dict[str, Any] = {"enable_SMTPUTF8": True, "hostname": "mx.example", "loop": asyncio.get_running_loop()}
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        options |= {"tls_context": context, "authenticator": authenticate}
    make = LMTP if kind == "lmtp" else SMTP
    server = await asyncio.get_running_loop().create_server(lambda: make(Printing(), **options), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
