"""`BasicAuth`: names and passwords before an application (RFC 7617), checked through `asyncnet.auth`.

A browser sends the password with every request, and a password hash costs tens of milliseconds on purpose. So a success
is remembered for a minute, by a hash with a key that only this process knows: neither password nor hash is kept.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING

import trio

from asyncnet.auth.guard import LoginGuard, passwords_allowed
from asyncnet.errors import ConfigurationError
from asyncnet.http.application import AnyApplication, Enclosing, as_application, send_response
from asyncnet.http.exchange import Exchange
from asyncnet.http.messages import Response

if TYPE_CHECKING:
    from asyncnet.auth.identity import Authenticator

REMEMBERED = 60.0
"""For how long, in seconds, a success is good without a new check: so long a withdrawn password still opens."""

MAX_REMEMBERED = 10_000
"""How many successes are remembered; the oldest goes first."""

_NO_TLS = "A password is needed here, and TLS to send it: use https.\n"

MAX_CREDENTIALS = 2048
"""The longest Authorization field that is looked at, in bytes."""


class BasicAuth(Enclosing):
    """Lets in to `app` whom `users` knows; everybody else is asked for a name and a password (401).

    Failed attempts are slowed down by address (`LoginGuard`). Where a password could be read on its way (no TLS, and
    not on this machine alone), nobody is asked and everybody refused with 403, unless `insecure_auth` is true. The
    application finds the name as `request.user`, under WSGI as REMOTE_USER.
    """

    def __init__(
        self,
        app: AnyApplication,
        users: Authenticator,
        *,
        realm: str = "asyncnet",
        insecure_auth: bool = False,
        guard: LoginGuard | None = None,
    ) -> None:
        if not (realm.isascii() and realm.isprintable()) or '"' in realm or "\\" in realm:
            raise ConfigurationError(f"a realm is printable ASCII without quotes and backslashes, not {realm!r}")
        super().__init__([app])
        self._respond = as_application(app).respond
        self._users = users
        self._insecure_auth = insecure_auth
        self._guard = guard or LoginGuard()
        self._challenge = {"www-authenticate": f'Basic realm="{realm}", charset="UTF-8"'}
        self._secret = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, tuple[float, str]] = OrderedDict()  # until when, and who

    async def respond(self, exchange: Exchange) -> None:
        if not passwords_allowed(exchange.stream, insecure_auth=self._insecure_auth):
            await send_response(exchange, Response.text(_NO_TLS, 403))
            return
        user = await self._identify(exchange)
        if user is None:
            await send_response(exchange, Response.problem(401, self._challenge))
            return
        exchange.user = user
        await self._respond(exchange)

    async def _identify(self, exchange: Exchange) -> str | None:
        fields = [value for name, value in exchange.headers if name == b"authorization"]
        credentials = _decode(fields[0]) if len(fields) == 1 else None
        if credentials is None:
            return None
        key = hashlib.blake2b(fields[0], key=self._secret, digest_size=32).digest()
        until, user = self._remembered.get(key, (0.0, ""))
        if trio.current_time() < until:
            return user
        name, password = credentials
        peer = exchange.stream.peer
        identity = await self._guard.connection(peer).attempt(lambda: self._users.verify(name, password, peer=peer))
        if identity is None:
            return None
        self._remembered[key] = trio.current_time() + REMEMBERED, identity.name
        self._remembered.move_to_end(key)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return identity.name


def _decode(field: bytes) -> tuple[str, str] | None:
    """Name and password (RFC 7617 section 2); None for another scheme and for what is malformed."""
    scheme, _, token = field.partition(b" ")
    if scheme.lower() != b"basic" or len(field) > MAX_CREDENTIALS:
        return None
    try:
        name, colon, password = base64.b64decode(token.strip(b" "), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, password) if colon else None
