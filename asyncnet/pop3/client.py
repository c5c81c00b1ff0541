"""`POP3Client`: mail from POP3 servers, on the same stream and the same wire as the server.

    async with POP3Client.connect("pop3s://anna@mail.example.org", password=password) as pop3:
        for number in await pop3.list():
            async with pop3.retrieve(number) as pieces:
                async for piece in pieces:
                    file.write(piece)
            await pop3.delete(number)

RFC 1939, 2449 (CAPA, response codes), 2595 (STLS), 5034 (AUTH). The connection is in `client_control.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Self, TypeVar

import trio

from asyncnet.auth.guard import passwords_allowed
from asyncnet.auth.sasl import ClientMechanism, client_mechanisms, decode_base64, encode_initial, encode_response
from asyncnet.auth.scram import MECHANISM as SCRAM
from asyncnet.endpoints import Endpoint, Scheme, connect
from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.limits import Timeouts
from asyncnet.pop3.client_control import MAX_CHALLENGE, Control, ReplyError, heard
from asyncnet.pop3.url import POP3URL, parse_url
from asyncnet.pop3.wire import (
    DotUnstuffer,
    Reply,
    format_command,
    parse_capabilities,
    parse_maildrop,
    parse_reply,
    parse_scan,
    parse_unique,
)
from asyncnet.stream import Stream
from asyncnet.transports.authority import format_authority
from asyncnet.transports.certificates import client_context
from asyncnet.urls import URLError

if TYPE_CHECKING:
    import ssl

__all__ = ["POP3URL", "POP3Client", "Pieces", "ReplyError", "URLError", "parse_url"]

_T = TypeVar("_T")

TIMEOUT: Final = 30.0
"""How many seconds a client waits, unless told otherwise: for the connection, and then for each response."""

MOST_LINES: Final = 1000
"""How many capabilities a server may have."""

MOST_CHALLENGES: Final = 10
"""How many challenges a login may have."""

LONGEST_COMMAND: Final = 255
"""The longest command with its line end, in bytes (RFC 2449 section 4). A login's initial response that does not fit is
sent when it is asked for."""


class Pieces:
    """A message on its way: `async for` over its pieces, or `receive_some` until it returns b""."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._unstuffer = DotUnstuffer()

    @property
    def is_over(self) -> bool:
        """Whether all of it has come."""
        return self._unstuffer.is_over

    async def receive_some(self) -> bytes:
        """The next piece, of any length, b"" at the end. Raises what every method of the client raises."""
        return await self._control.receive_piece(self._unstuffer)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await self.receive_some()
        if not piece:
            raise StopAsyncIteration
        return piece


class POP3Client:
    """One connection to a mailbox: `async with POP3Client.connect(url) as pop3`.

    One task uses it at a time (else `trio.BusyResourceError`). A no of the server's is a `ReplyError` and leaves it
    usable. Whatever breaks off in the middle closes it, cancelling too: no line of a message is taken for a response.
    A line end or NUL in an argument is refused by `LocalProtocolError` before a byte is sent.

    Besides, every method raises `RemoteProtocolError` for what is no POP3, or too much of it,
    `trio.BrokenResourceError`, `trio.ClosedResourceError`, and `TimeoutError` when the server has said nothing for
    `timeout` seconds.

    Made of a stream, `POP3Client(stream)` has heard nothing yet: `greet` and `login` come first.
    """

    url: POP3URL | None = None
    """What it was connected by."""

    def __init__(
        self, stream: trio.abc.Stream, *, insecure_auth: bool = False, proxied: bool = False, timeout: float = TIMEOUT
    ) -> None:
        self._control = Control(Stream.of(stream), timeout)
        self._insecure_auth = insecure_auth
        self._proxied = proxied  # so that the peer's address says nothing of who listens on the way
        self._capabilities: Mapping[str, tuple[str, ...]] | None = None
        self._is_logged_in = False
        self._has_deleted = False

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str | POP3URL,
        *,
        user: str | None = None,
        password: str | None = None,
        starttls: bool | None = None,
        tls: ssl.SSLContext | None = None,
        insecure_auth: bool = False,
        proxy: str | None = None,
        timeout: float = TIMEOUT,
    ) -> AsyncIterator[Self]:
        """Connect, secure, log in; at the end of the block QUIT, or at an exception close, which deletes nothing.

        `url` is `pop3://` (port 110), where TLS begins by STLS, or `pop3s://` (TLS from the first byte, port 995).
        `starttls` demands STLS, or forbids it; without it TLS begins where the server offers it. Either way its
        certificate is verified, by `tls`, a context of the caller's, or against the system's trust store.

        `user` and `password` go before those of the URL, whose password is for its own user alone; without a user
        nobody logs in. A password passes in TLS, between loopback addresses and, with `insecure_auth`, wherever the
        user wants it; where it may not, LocalProtocolError is raised before any of it was sent.

        Raises URLError, what `asyncnet.connect` and `Stream.start_tls` raise, and `ReplyError` for the server's no.
        """
        where = parse_url(url) if isinstance(url, str) else url
        if user is None or user == where.user:
            user, password = where.user, where.password if password is None else password
        if user is not None and password is None:
            raise LocalProtocolError("a user without a password")
        is_implicit = where.scheme == "pop3s"
        if is_implicit and starttls is not None:
            raise LocalProtocolError("starttls with pop3s://, where TLS is there from the first byte")
        if tls is not None and starttls is False:
            raise LocalProtocolError("tls where starttls forbids it")
        if tls is None and starttls is not False:
            tls = await trio.to_thread.run_sync(client_context, Endpoint(Scheme.TCP, tls=True))
        stream = await connect(
            f"{'tls' if is_implicit else 'tcp'}://{format_authority(where.host, where.port)}",
            tls=tls if is_implicit else None,
            proxy=proxy,
            timeout=timeout,
            timeouts=Timeouts(send=timeout),
        )
        pop3 = cls(stream, insecure_auth=insecure_auth, proxied=proxy is not None, timeout=timeout)
        pop3.url = where
        try:
            await pop3.greet()
            if tls is not None and not is_implicit and (starttls or "STLS" in await pop3.capabilities()):
                await pop3.start_tls(tls, server_hostname=where.host)
            if user is not None and password is not None:
                await pop3.login(user, password)
            yield pop3
            await pop3.quit()
        finally:
            await stream.abort()

    @property
    def stream(self) -> Stream:
        """The connection: its addresses, and `stream.tls`."""
        return self._control.stream

    @property
    def is_closed(self) -> bool:
        """Whether it is of no more use."""
        return self.stream.is_closed

    def __repr__(self) -> str:
        return f"<POP3Client of {self.stream!r}>"

    # Beginning and end

    async def greet(self) -> Reply:
        """Hear the server's greeting: the first step on a stream of the caller's; `connect` does it."""
        try:
            async with self._control.claim():
                return await heard(self._control)
        except ReplyError:
            await self.stream.abort()
            raise

    async def capabilities(self) -> Mapping[str, tuple[str, ...]]:
        """What the server can do: names in capital letters, each with its parameters (RFC 2449 section 5).

        Asked once, and again behind STLS and the login. Empty where it does not know the question.
        """
        if self._capabilities is None:
            async with self._control.claim():
                try:
                    await self._control.ask("CAPA")
                    self._capabilities = parse_capabilities(await self._control.receive_list(bytes, MOST_LINES))
                except ReplyError:
                    self._capabilities = {}
        return self._capabilities

    async def start_tls(self, context: ssl.SSLContext, *, server_hostname: str | None) -> None:
        """Secure the connection by STLS; `connect` does it. All that was known of the server is forgotten.

        Raises `PlaintextAfterUpgrade` if anything came in the clear behind the server's yes: somebody has put it there.
        """
        async with self._control.claim():
            await self._control.ask("STLS")
            await self.stream.start_tls(context, server_hostname=server_hostname, timeout=self._control.timeout)
            self._capabilities = None

    async def login(self, user: str, password: str) -> None:
        """Log in by the best way that the server offers, SCRAM-SHA-256, PLAIN, LOGIN, or USER and PASS; `connect` does.

        Where SCRAM is refused the next one is tried: a server may have keys for some users alone.

        Raises `ReplyError` (code AUTH for a wrong name or password, IN-USE for a mailbox that somebody else has open),
        `LocalProtocolError` where the password would have to pass in the clear.
        """
        for verb, argument in (("USER", user), ("PASS", password)):
            format_command(verb, argument)  # before anything is asked
        passwords = self._may_tell_password()
        capabilities = await self.capabilities()
        mechanisms = client_mechanisms(capabilities.get("SASL", ()), user, password, passwords=passwords)
        if not mechanisms and not passwords:
            raise LocalProtocolError(
                "a password may not pass in the clear, and the server offers neither TLS nor SCRAM"
            )
        async with self._control.claim():
            if mechanisms:
                await self._authenticate_by_one(mechanisms)
            else:
                await self._control.ask("USER", user)
                await self._control.ask("PASS", password, secret=True)
            self._capabilities = None
            self._is_logged_in = True

    def _may_tell_password(self) -> bool:
        if self._proxied:
            return self._insecure_auth or self.stream.tls is not None
        return passwords_allowed(self.stream, insecure_auth=self._insecure_auth)

    async def _authenticate_by_one(self, mechanisms: Sequence[ClientMechanism]) -> None:
        first, *others = mechanisms
        try:
            await self._authenticate(first)
        except ReplyError as exc:
            if first.name != SCRAM or not others or exc.code not in ("AUTH", ""):
                raise  # it has heard the password, or does not mind that
            await self._authenticate(others[0])

    async def _authenticate(self, mechanism: ClientMechanism) -> None:
        """RFC 5034 section 4."""
        control, command = self._control, f"AUTH {mechanism.name}"
        initial = await mechanism.respond(b"") if mechanism.is_client_first else None
        argument = mechanism.name
        if initial is not None and len(f"{command} {encode_initial(initial)}\r\n") <= LONGEST_COMMAND:
            argument, initial = f"{argument} {encode_initial(initial)}", None
        with self.stream.secret():
            line = await control.send_and_receive("AUTH", argument, limit=MAX_CHALLENGE)
            for _ in range(MOST_CHALLENGES):
                if not line.startswith(b"+ ") and line != b"+":
                    control.positive(parse_reply(line), command)
                    mechanism.finish()
                    return
                response, initial = initial, None
                if response is None:
                    response = await mechanism.respond(decode_base64(line[2:]))
                self.stream.write(encode_response(response) + b"\r\n")
                line = await control.receive_line(MAX_CHALLENGE)
        raise RemoteProtocolError(f"a login of more than {MOST_CHALLENGES} challenges")

    async def quit(self) -> None:
        """Have the server remove what was deleted, and close.

        Raises `ReplyError` if it could not remove all of it, and `trio.ClosedResourceError` if the client was closed
        meanwhile. Where nothing was deleted, nothing is raised that the server could be at fault for.
        """
        has_deleted, self._has_deleted = self._has_deleted, False
        if self.is_closed:
            if has_deleted:
                raise trio.ClosedResourceError("this POP3 client was closed before QUIT: nothing is removed")
            return
        try:
            async with self._control.claim():
                await self._control.ask("QUIT")
        except (ReplyError, RemoteProtocolError, trio.BrokenResourceError, TimeoutError):
            if has_deleted:
                raise
        finally:
            await self.stream.aclose()

    # What is there

    async def stat(self) -> tuple[int, int]:
        """How many messages there are, and how many bytes in them, as the server says."""
        async with self._control.claim():
            return parse_maildrop((await self._control.ask("STAT")).text)

    async def list(self, *, limit: int = 100_000) -> dict[int, int]:
        """The number of each message, and its size in bytes, as the server says.

        Raises `RemoteProtocolError`, and closes, for more than `limit` messages.
        """
        async with self._control.claim():
            await self._control.ask("LIST")
            return _numbered(await self._control.receive_list(parse_scan, limit))

    async def uidl(self, *, limit: int = 100_000) -> dict[int, str]:
        """The number of each message, and its unique id, by which it is known again in another session.

        Raises `ReplyError` where the server has none, and what `list` raises.
        """
        async with self._control.claim():
            await self._control.ask("UIDL")
            return _numbered(await self._control.receive_list(parse_unique, limit))

    # Messages

    @asynccontextmanager
    async def retrieve(self, number: int, *, lines: int | None = None) -> AsyncIterator[Pieces]:
        """Receive a message, piece by piece, as it was sent: `async with pop3.retrieve(1) as pieces`.

        With `lines` it is its head, and the first lines of its body (TOP), which not all servers have. Nothing else
        runs on this client meanwhile. Left before its end it closes the client, since the rest may be of any length.
        """
        async with self._control.claim():
            await self._control.ask(*_asked_for(number, lines))
            pieces = Pieces(self._control)
            try:
                yield pieces
            finally:
                if not pieces.is_over:
                    await self.stream.abort()

    async def read(self, number: int, *, limit: int = 64 << 20) -> bytes:
        """The whole message. Raises `RemoteProtocolError`, and closes, if it has more than `limit` bytes."""
        return await self._read(number, None, limit)

    async def top(self, number: int, lines: int = 0, *, limit: int = 1 << 20) -> bytes:
        """A message's head and the first `lines` of its body. Raises what `read` raises; not all servers have it."""
        return await self._read(number, lines, limit)

    async def _read(self, number: int, lines: int | None, limit: int) -> bytes:
        content = bytearray()
        async with self.retrieve(number, lines=lines) as pieces:
            async for piece in pieces:
                content += piece
                if len(content) > limit:
                    raise RemoteProtocolError(f"{' '.join(_asked_for(number, lines))}: more than {limit} bytes")
        return bytes(content)

    async def delete(self, number: int) -> None:
        """Have the message removed by `quit`, and by nothing else."""
        await self._ask("DELE", str(_checked(number)))
        self._has_deleted = True

    async def reset(self) -> None:
        """Have nothing removed of what was deleted so far."""
        await self._ask("RSET")
        self._has_deleted = False

    async def noop(self) -> None:
        """Stay connected."""
        await self._ask("NOOP")

    async def _ask(self, verb: str, argument: str | None = None) -> Reply:
        async with self._control.claim():
            return await self._control.ask(verb, argument)


def _checked(number: int) -> int:
    if number < 1:
        raise LocalProtocolError("messages have numbers from 1 on")
    return number


def _asked_for(number: int, lines: int | None) -> tuple[str, str]:
    """The command that asks for a message, or for its first lines."""
    if lines is None:
        return "RETR", str(_checked(number))
    if lines < 0:
        raise LocalProtocolError("there are no fewer lines than none")
    return "TOP", f"{_checked(number)} {lines}"


def _numbered(pairs: Iterable[tuple[int, _T]]) -> dict[int, _T]:
    found: dict[int, _T] = {}
    for number, what in pairs:
        if number in found:
            raise RemoteProtocolError("a list that has a message twice")
        found[number] = what
    return found
