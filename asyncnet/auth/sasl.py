"""Logging in by SASL (RFC 4422): PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login), SCRAM-SHA-256 (RFC 7677).

A protocol carries challenges and responses; here is what they say, as bytes. A server:

    names = await offered_mechanisms(users, passwords=passwords_allowed(stream))
    identity = await log_in(mechanism, users=users, logins=logins, peer=stream.peer, challenge=ask, initial=initial)

and a client, which takes the first of `client_mechanisms(…)`, sends what `respond` makes of each challenge, and calls
`finish` when the server says that it is in. In the lines of SMTP and POP3 (RFC 4954, RFC 5034) they are base64:
`encode_initial`, `decode_initial`, `encode_response`, `decode_response`, `decode_base64`.
"""

from __future__ import annotations

import base64
import logging
import re
import secrets
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from typing import Final, Protocol, TypeAlias, TypeVar

import trio

from asyncnet.auth.guard import Logins
from asyncnet.auth.identity import Authenticator, Identity
from asyncnet.auth.scram import MECHANISM as SCRAM
from asyncnet.auth.scram import NobodysKeys, ScramKeys
from asyncnet.auth.scram_exchange import ScramClient, ScramServer, prepare
from asyncnet.errors import AsyncnetError, LocalProtocolError, RemoteProtocolError
from asyncnet.transports.address import Address

T = TypeVar("T")

logger = logging.getLogger(__name__)

PLAIN: Final = "PLAIN"
LOGIN: Final = "LOGIN"

MECHANISMS: Final = (SCRAM, PLAIN, LOGIN)
"""The best first: SCRAM tells the password to nobody, LOGIN says nothing that PLAIN does not."""

Challenge: TypeAlias = Callable[[bytes], Awaitable[bytes]]
"""Sends a challenge and returns the response to it, both without base64. Raises `RemoteProtocolError` for a response
that is malformed, and `ExchangeCancelled`."""


class ExchangeCancelled(RemoteProtocolError):
    """The client does not want to log in any more: it has sent "*"."""


class LoginUnavailable(AsyncnetError):
    """The authenticator has failed, as the log tells: nobody knows whether the login is right. It was no attempt."""


# Servers


async def asked(answer: Awaitable[T]) -> T:
    """What an authenticator answers. Raises `LoginUnavailable` where it fails: that is no fault of the protocol's."""
    try:
        return await answer
    except Exception as error:
        logger.exception("an authenticator has failed")
        raise LoginUnavailable("the authenticator has failed") from error


async def offered_mechanisms(users: Authenticator, *, passwords: bool) -> tuple[str, ...]:
    """What a server offers: PLAIN and LOGIN where `passwords` may pass, SCRAM-SHA-256 where there are keys for it.

    An authenticator that has SCRAM keys has some for any name, so that it does not matter which one it is asked for.
    """
    try:
        keys = await asked(users.scram_keys("postmaster"))
    except LoginUnavailable:
        keys = None
    return (*((SCRAM,) if keys is not None else ()), *((PLAIN, LOGIN) if passwords else ()))


async def log_in(
    mechanism: str,
    *,
    users: Authenticator,
    logins: Logins,
    peer: Address,
    challenge: Challenge,
    initial: bytes | None = None,
) -> Identity | None:
    """Run a server's side of the exchange. None is a failed login, and returns when its delay has passed.

    `mechanism` is one of those that `offered_mechanisms` has named. `initial` is the initial response, decoded; None if
    the client sent none. Raises `RemoteProtocolError` for malformed responses, which are no attempt, `LoginUnavailable`
    where `users` fails, and whatever `challenge` raises. Who wants to act for somebody else is refused. Cancelling it
    loses nothing.
    """
    match mechanism:
        case "PLAIN":
            response = initial if initial is not None else await challenge(b"")
            return await _verify(_parse_plain(response), users, logins, peer)
        case "LOGIN":
            name = _text(initial if initial is not None else await challenge(b"Username:"))
            password = _text(await challenge(b"Password:"))
            return await _verify(("", name, password), users, logins, peer)
        case "SCRAM-SHA-256":
            return await _log_in_by_scram(users, logins, challenge, initial)
    raise LocalProtocolError(f"{mechanism} is none of {', '.join(MECHANISMS)}")


async def _verify(
    credentials: tuple[str, str, str], users: Authenticator, logins: Logins, peer: Address
) -> Identity | None:
    authorized, name, password = credentials

    async def check() -> Identity | None:
        identity = await asked(users.verify(name, password, peer=peer))
        return identity if authorized in ("", name) else None

    return await logins.attempt(check)


def _parse_plain(message: bytes) -> tuple[str, str, str]:
    """RFC 4616 section 2: message = [authzid] NUL authcid NUL passwd. Neither of the last two is empty."""
    parts = message.split(b"\0")
    if len(parts) != 3 or not (parts[1] and parts[2]):
        raise RemoteProtocolError("no message of PLAIN")
    authorized, name, password = map(_text, parts)
    return authorized, name, password


def _text(response: bytes) -> str:
    try:
        return response.decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError("a name or a password that is no UTF-8") from error


async def _log_in_by_scram(
    users: Authenticator, logins: Logins, challenge: Challenge, initial: bytes | None
) -> Identity | None:
    exchange = ScramServer(initial if initial is not None else await challenge(b""))
    keys = await asked(users.scram_keys(exchange.name))
    if keys is None or keys.mechanism != SCRAM:
        keys = _nobodys_keys(exchange.name)
    signature = exchange.check(await challenge(exchange.challenge(keys)))

    async def check() -> Identity | None:
        return keys.identity if signature is not None and exchange.authorized in (None, exchange.name) else None

    identity = await logins.attempt(check)
    if identity is None or signature is None:
        return None
    if await challenge(signature):
        raise RemoteProtocolError("nothing more is to be said in SCRAM")
    return identity


def _nobodys_keys(name: str) -> ScramKeys:
    """For names whose keys are of another mechanism, or gone since SCRAM was offered."""
    return _made_up()(name)


@cache
def _made_up() -> NobodysKeys:
    return NobodysKeys(secrets.token_bytes(32), like=())


# Clients

_find_control = re.compile(r"[\x00-\x1f\x7f-\x9f]").search


class ClientMechanism(Protocol):
    """A client's side of one exchange."""

    name: str
    """What stands behind AUTH."""
    is_client_first: bool
    """Whether the exchange begins with a response, to no challenge: it is `respond(b"")`, and where the protocol can
    it goes with the command that names the mechanism."""

    @abstractmethod
    async def respond(self, challenge: bytes) -> bytes:
        """The response to the next challenge. Raises `RemoteProtocolError` for a challenge that is wrong: end the
        exchange then. May compute in a thread; cancelling it ends the exchange."""

    @abstractmethod
    def finish(self) -> None:
        """The server says that the login has succeeded. Raises `RemoteProtocolError` if it cannot know that."""


def client_mechanisms(
    offered: Iterable[str], user: str, password: str, *, passwords: bool
) -> tuple[ClientMechanism, ...]:
    """The ways to log in where the server has `offered` these mechanisms, the best first; none may be left.

    PLAIN and LOGIN tell the password: they are among them only where `passwords` may pass. SCRAM is not where SASLprep
    forbids the password: no server can have keys of it. Raises LocalProtocolError for a name with control characters,
    a password with a NUL, and either where it is empty.
    """
    if not user or _find_control(user) or not _is_utf8(user):
        raise LocalProtocolError("a user's name is not empty, is Unicode, and has no control characters")
    if not password or "\0" in password or not _is_utf8(password):
        raise LocalProtocolError("a password is not empty, is Unicode, and has no NUL")
    names = {name.upper() for name in offered}
    found: list[ClientMechanism] = []
    if SCRAM in names and _can_prepare(user) and _can_prepare(password):
        found.append(_Scram(user, password))
    if PLAIN in names and passwords:
        found.append(_Plain(user, password))
    if LOGIN in names and passwords:
        found.append(_Login(user, password))
    return tuple(found)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _can_prepare(text: str) -> bool:
    try:
        prepare(text)
    except ValueError:
        return False
    return True


class _Told:
    """PLAIN and LOGIN: what there is to say is known from the beginning, whatever the challenges are."""

    def __init__(self, *responses: str) -> None:
        self._responses = [response.encode() for response in responses]

    async def respond(self, challenge: bytes) -> bytes:
        if not self._responses:
            raise RemoteProtocolError("a challenge beyond the end of the login")
        return self._responses.pop(0)

    def finish(self) -> None:
        """Who knows the password from us has nothing to prove."""


class _Plain(_Told):
    name = PLAIN
    is_client_first = True

    def __init__(self, user: str, password: str) -> None:
        super().__init__(f"\0{user}\0{password}")


class _Login(_Told):
    name = LOGIN
    is_client_first = False

    def __init__(self, user: str, password: str) -> None:
        super().__init__(user, password)


class _Scram:
    name = SCRAM
    is_client_first = True

    def __init__(self, user: str, password: str) -> None:
        self._exchange = ScramClient(user, password)
        self._step = 0

    async def respond(self, challenge: bytes) -> bytes:
        self._step += 1
        match self._step:
            case 1:
                return self._exchange.first
            case 2:
                return await trio.to_thread.run_sync(self._exchange.final, challenge, abandon_on_cancel=True)
            case 3:
                self._exchange.verify(challenge)
                return b""
        raise RemoteProtocolError("a challenge beyond the end of the login")

    def finish(self) -> None:
        if not self._exchange.is_verified:
            raise RemoteProtocolError("the server lets us in without a proof that it knows the password")


# Base64 in lines


def decode_base64(text: bytes | str) -> bytes:
    """Bytes from their one base64 form (RFC 4648 section 4), padding included. Raises `RemoteProtocolError`."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise RemoteProtocolError("not base64") from error
    if base64.b64encode(data) != (text if isinstance(text, bytes) else text.encode()):
        raise RemoteProtocolError("base64 that is not in its one form")
    return data


def decode_response(line: bytes | str) -> bytes:
    """A client's response, from its line without the end. Raises `ExchangeCancelled` for "*" (RFC 4954 section 4)."""
    if line in (b"*", "*"):
        raise ExchangeCancelled("the client has cancelled its login")
    return decode_base64(line)


def decode_initial(argument: bytes | str) -> bytes:
    """An initial response, from its argument: "=" is an empty one (RFC 4954 section 4, RFC 5034 section 4)."""
    if not argument:
        raise RemoteProtocolError("an initial response that is empty is written =")
    return b"" if argument in (b"=", "=") else decode_base64(argument)


def encode_initial(response: bytes) -> str:
    """An initial response as the argument of its command."""
    return base64.b64encode(response).decode() or "="


def encode_response(response: bytes) -> bytes:
    """A challenge, or any response but an initial one, as its line."""
    return base64.b64encode(response)
