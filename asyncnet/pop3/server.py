"""`POP3Handler`: a POP3 server, for `serve` and `run`.

The conversation is in `conversation.py`, the commands are in `commands.py`, each a function of its own.
"""

from __future__ import annotations

from collections import OrderedDict

import trio

from asyncnet.auth.guard import LoginGuard
from asyncnet.auth.identity import Authenticator
from asyncnet.errors import ConfigurationError
from asyncnet.mailbox.storage import Mailboxes
from asyncnet.pop3.conversation import Conversation
from asyncnet.pop3.limits import POP3Limits, POP3Timeouts
from asyncnet.stream import Stream
from asyncnet.transports.certificates import ServerTLS


class POP3Handler:
    """Gives users their mail by POP3 (RFC 1939, RFC 2449), with TLS where it is given a certificate (RFC 2595).

    `mailboxes` has the mail: `Maildirs("/srv/mail")`, say. `users` is an `Authenticator` such as
    `UserFile("users.toml")`; the mailbox is the one of the user's name.

    `tls` lets clients begin TLS (STLS); on `tls://` endpoints it is there from the start. `insecure_auth`: passwords
    may pass in the clear. `login_delay` is how many seconds a user has to wait from one login to the next.

    Raises ConfigurationError for a `greeting` that could be none.
    """

    name = "pop3"
    alpn = ("pop3",)
    url_schemes = ("pop3", "pop3s")
    refusal = b"-ERR [SYS/TEMP] There are too many connections: please come again.\r\n"

    def __init__(
        self,
        mailboxes: Mailboxes,
        users: Authenticator,
        *,
        tls: ServerTLS | None = None,
        insecure_auth: bool = False,
        login_delay: int = 0,
        greeting: str = "asyncnet is ready.",
        guard: LoginGuard | None = None,
        limits: POP3Limits = POP3Limits(),
        timeouts: POP3Timeouts = POP3Timeouts(),
    ) -> None:
        if not (greeting.isascii() and greeting.isprintable() and len(greeting) <= 400) or "<" in greeting:
            # In angle brackets would stand what APOP needs, which there is not.
            raise ConfigurationError("a greeting is one line of at most 400 ASCII characters, without <")
        self.mailboxes = mailboxes
        self.users = users
        self.tls = tls if tls is None or tls.alpn else tls.copy(alpn=self.alpn)
        self.insecure_auth = insecure_auth
        self.login_delay = login_delay
        self.delays = LoginDelays(login_delay)
        self.greeting = greeting
        self.guard = guard or LoginGuard()
        self.pop3_limits = limits
        self.pop3_timeouts = timeouts

    async def __call__(self, stream: trio.abc.Stream) -> None:
        """Talk to one client."""
        await Conversation(self, Stream.of(stream)).run()


class LoginDelays:
    """When users have logged in, for those who ask too often (RFC 2449 section 6.5). `delay` is in seconds."""

    def __init__(self, delay: int) -> None:
        self._delay = delay
        self._logins: OrderedDict[str, float] = OrderedDict()  # the oldest comes first

    def is_too_early(self, user: str) -> bool:
        """Whether `user` has to wait."""
        now = trio.current_time()
        while self._logins and next(iter(self._logins.values())) <= now - self._delay:
            self._logins.popitem(last=False)
        return user in self._logins

    def note(self, user: str) -> None:
        """`user` has logged in."""
        if self._delay:
            self._logins[user] = trio.current_time()
            self._logins.move_to_end(user)
