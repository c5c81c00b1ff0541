"""FTP connections of a command: who logs in, and connections that are lent to one transfer after another.

User and password come from the URL; else from the user's netrc file (`NETRC`, or `~/.netrc`), by the host's name and,
where the URL names one, the user; else the login is anonymous, and a password that is missing is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import trio

from asyncnet.cli.logins import Login, ask_password, netrc_login
from asyncnet.endpoints import Endpoint, Scheme
from asyncnet.errors import AsyncnetError, ConfigurationError
from asyncnet.ftp.client import FTPClient, PermanentReplyError, ServiceClosing
from asyncnet.ftp.url import FTPURL
from asyncnet.transports.certificates import client_context
from asyncnet.transports.tunnels import parse_proxy

if TYPE_CHECKING:
    import ssl


class LoginError(AsyncnetError):
    """The server lets nobody in without a name."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a command gets to its servers."""

    proxy: str | None = None
    timeout: float = 30.0
    ca: str | None = None
    verify: bool = True
    active: bool = False


class FTPClients:
    """Connections for the URLs of a run. `prepare` each URL before the run begins: it may ask for a password."""

    def __init__(self, way: Way) -> None:
        if way.proxy is not None:
            parse_proxy(way.proxy)
        if way.proxy is not None and way.active:
            raise ConfigurationError("--active and --proxy: a server can make no connection through a proxy")
        self._way = way
        self._tls: ssl.SSLContext | None = None
        self._logins: dict[FTPURL, Login] = {}
        self._servers: dict[FTPURL, _Server] = {}

    def prepare(self, url: FTPURL) -> None:
        """Find out who logs in there. Raises ConfigurationError if nobody knows."""
        if url.scheme != "ftp" and self._tls is None:
            self._tls = client_context(Endpoint(Scheme.TCP, tls=True, ca=self._way.ca), verify=self._way.verify)
        key = _server(url)
        if key not in self._logins:
            self._logins[key] = _find_login(url)

    def connect(self, url: FTPURL) -> AbstractAsyncContextManager[FTPClient]:
        """One more connection, logged in."""
        login, way = self._logins[_server(url)], self._way
        return FTPClient.connect(
            url,
            user=login.user,
            password=login.password,
            account=login.account,
            tls=None if url.scheme == "ftp" else self._tls,
            active=way.active,
            proxy=way.proxy,
            timeout=way.timeout,
        )

    @asynccontextmanager
    async def borrow(self, url: FTPURL) -> AsyncIterator[FTPClient]:
        """A connection, logged in, which the next one gets who goes to the same server.

        Where the server lets no more of them in, it waits for one of those that are lent out.
        """
        server = self._servers.setdefault(_server(url), _Server())
        while True:
            server.busy += 1
            try:
                client, stack = await server.take_idle() or await self._open(url)
                break
            except BaseException as error:
                server.busy -= 1
                server.waiting.unpark()
                if not isinstance(error, ServiceClosing) or not (server.busy or server.idle):
                    raise
            if not server.idle:
                await server.waiting.park()
        try:
            yield client
        finally:
            server.busy -= 1
            server.idle.append((client, stack))
            server.waiting.unpark()

    async def _open(self, url: FTPURL) -> _Open:
        stack = AsyncExitStack()
        try:
            return await stack.enter_async_context(self.connect(url)), stack
        except PermanentReplyError as error:
            if error.code == 530 and self._logins[_server(url)].user is None:
                where = f"{url.scheme}://USER@{url.authority}/"
                raise LoginError(f"{error}; the user's name stands in the URL, {where}, or in ~/.netrc") from error
            raise

    async def aclose(self) -> None:
        """Say goodbye on all connections."""
        for server in self._servers.values():
            while server.idle:
                await server.idle.pop()[1].aclose()


_Open: TypeAlias = tuple[FTPClient, AsyncExitStack]
"""A connection, and what closes it."""


@dataclass(slots=True)
class _Server:
    """The connections to one server."""

    idle: list[_Open] = field(default_factory=list)
    busy: int = 0
    """How many are lent out, or on their way to the server."""
    waiting: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    async def take_idle(self) -> _Open | None:
        """One that is open and of use, if there is any."""
        while self.idle:
            client, stack = self.idle.pop()
            if not client.is_closed:
                return client, stack
            await stack.aclose()
        return None


def _server(url: FTPURL) -> FTPURL:
    """What URLs have in common that one connection serves."""
    return FTPURL(url.scheme, url.host, url.port, user=url.user, password=url.password)


def _find_login(url: FTPURL) -> Login:
    if url.user is not None and url.password is not None:
        return Login(url.user, url.password)
    found = netrc_login(url.host)
    if found is not None and url.user in (None, found.user):
        return found
    if url.user in (None, "anonymous", "ftp"):
        return Login()
    return Login(url.user, ask_password(url.user, url.host))
