"""`SMTPHandler`: a server that takes mail, for `serve` and `run`. SMTP, mail submission, and LMTP.

The conversation is in `conversation.py`, the commands in `commands_session.py` and `commands_mail.py`, each a function
with a declaration above it; `incoming.py` has what becomes of a message, `delivery.py` what takes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import trio

from asyncnet.auth.guard import LoginGuard
from asyncnet.auth.identity import Authenticator
from asyncnet.errors import ConfigurationError
from asyncnet.replies import Reply
from asyncnet.smtp import commands_mail, commands_session
from asyncnet.smtp.address import ascii_domain, parse_domain
from asyncnet.smtp.conversation import Conversation
from asyncnet.smtp.declarations import COMMANDS
from asyncnet.smtp.delivery import Delivery, Role
from asyncnet.smtp.limits import SMTPLimits, SMTPTimeouts
from asyncnet.stream import Stream
from asyncnet.transports.address import Networks
from asyncnet.transports.certificates import ServerTLS

_COMMANDS_ARE_DECLARED = (commands_mail, commands_session)


class SMTPHandler:
    """Takes mail by SMTP (RFC 5321 and its extensions) and gives it to `delivery`.

    `role`: who comes, and what is done for them (see `Role`); `Role.LMTP` speaks LMTP (RFC 2033). `hostname` is what
    the server calls itself, a name that the DNS knows; None: what the machine is called.

    `users`, an `Authenticator` such as `UserFile("users.toml")`, are who may log in; a submission server with users
    takes mail from nobody else, and any other does so with `login_required`. Whether one who has not logged in may
    send to whomever they like is for the delivery to say: see `asyncnet.smtp.policies`, without which a delivery that
    passes mail on is open to everybody.

    `tls` lets clients begin TLS (STARTTLS, RFC 3207); on `tls://` endpoints it is there from the start.
    `tls_required`: nothing is done without it. `insecure_auth`: passwords may pass in the clear.

    `normalise_from`: networks of clients that end lines by LF alone and cannot be taught. Their line ends are put
    right; those of all others are refused.

    Raises ConfigurationError where it could never do what it is told.
    """

    name = "smtp"
    alpn = ("smtp",)
    url_schemes = ("smtp", "smtps")
    refusal = b"421 4.3.2 There are too many connections: please come again.\r\n"

    def __init__(
        self,
        delivery: Delivery,
        *,
        role: Role = Role.MX,
        hostname: str | None = None,
        users: Authenticator | None = None,
        login_required: bool | None = None,
        tls: ServerTLS | None = None,
        tls_required: bool = False,
        insecure_auth: bool = False,
        normalise_from: Iterable[str] = (),
        guard: LoginGuard | None = None,
        limits: SMTPLimits = SMTPLimits(),
        timeouts: SMTPTimeouts = SMTPTimeouts(),
    ) -> None:
        self.delivery = delivery
        self.role = role
        if role is Role.LMTP:
            self.name, self.url_schemes = "lmtp", ("lmtp", "lmtps")
        self.hostname = own_hostname(hostname)
        self.users = users
        self.login_required = (
            role is Role.SUBMISSION and users is not None if login_required is None else login_required
        )
        if self.login_required and users is None:
            raise ConfigurationError("login_required needs users, or nobody could send anything")
        self.tls = tls if tls is None or tls.alpn else tls.copy(alpn=self.alpn)
        self.tls_required = tls_required
        self.insecure_auth = insecure_auth
        self.normalise_from = Networks(normalise_from)
        self.guard = guard or LoginGuard()
        self.commands = {verb: one for verb, one in COMMANDS.items() if role in one.roles}
        """Those that a server of this role knows."""
        self.greeting = Reply.of(220, f"{self.hostname} {'LMTP' if role is Role.LMTP else 'ESMTP'} asyncnet")
        self.hellos: dict[tuple[bool, tuple[str, ...]], Reply] = {}
        """What EHLO and LHLO are answered, by what is offered of TLS and logins."""
        self.smtp_limits = limits
        self.smtp_timeouts = timeouts

    async def __call__(self, stream: trio.abc.Stream) -> None:
        """Talk to one client."""
        await Conversation(self, Stream.of(stream)).run()


def own_hostname(name: str | None) -> str:
    """What a server calls itself: a domain or an address literal, in A-labels; None: what the machine is called, if
    that is one. Raises ConfigurationError for what is neither."""
    try:
        return ascii_domain(parse_domain(os.uname().nodename if name is None else name))
    except ValueError as exc:
        if name is None:
            return "localhost"
        raise ConfigurationError(f"hostname is a domain, or an address in brackets, not {name!r}") from exc
