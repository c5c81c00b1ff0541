"""How the HTTP client opens a connection: straight, through a proxy, or by what its caller brings; with TLS or without.

Used by `http.client`, whose pool calls it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import trio

from asyncnet.endpoints import Endpoint, Scheme, connect
from asyncnet.http.client_limits import ClientTimeouts, Phase, PhaseTimeout
from asyncnet.http.proxies import Proxies
from asyncnet.http.url import Origin
from asyncnet.limits import Timeouts
from asyncnet.stream import Stream
from asyncnet.transports.authority import format_authority
from asyncnet.transports.certificates import client_context
from asyncnet.transports.tunnels import ProxyKind, ProxyURL

if TYPE_CHECKING:
    import ssl

Connect: TypeAlias = Callable[[Origin], Awaitable[trio.abc.Stream]]


class Dialer:
    """Opens the connections of one client. `tls` is the context for https (None: the system's trust store)."""

    def __init__(self, proxies: Proxies, tls: ssl.SSLContext | None, connect: Connect | None) -> None:
        self._proxies = proxies
        self._tls = tls
        self._tls_lock = trio.Lock()
        self._connect = connect

    async def open(self, origin: Origin, timeouts: ClientTimeouts) -> Stream:
        """Connect to `origin`, by TLS where its scheme says so. Raises PhaseTimeout, and OSError as `connect` does."""
        try:
            return await self._open(origin, timeouts)
        except TimeoutError as exc:
            raise PhaseTimeout(Phase.CONNECT, str(exc)) from None

    async def _open(self, origin: Origin, timeouts: ClientTimeouts) -> Stream:
        context = await self._context() if origin.scheme in ("https", "wss") else None
        waits = stream_timeouts(timeouts)
        if self._connect is not None:
            return await self._connect_by_caller(origin, context, timeouts, waits)
        text = format_authority(origin.host, origin.port)
        proxy = self._proxies.choose(origin)
        if proxy is not None and proxy.kind is ProxyKind.HTTP and origin.scheme == "http":
            return await self._connect_to_proxy(proxy, timeouts, waits)
        return await connect(
            f"tcp://{text}" if context is None else f"tls://{text}",
            tls=context,
            proxy=self._proxies.text(origin),
            timeout=timeouts.connect,
            timeouts=waits,
        )

    async def _connect_to_proxy(self, proxy: ProxyURL, timeouts: ClientTimeouts, waits: Timeouts) -> Stream:
        place = format_authority(proxy.host, proxy.port)
        return await connect(f"tcp://{place}", timeout=timeouts.connect, timeouts=waits)

    async def _connect_by_caller(
        self, origin: Origin, context: ssl.SSLContext | None, timeouts: ClientTimeouts, waits: Timeouts
    ) -> Stream:
        assert self._connect is not None
        stream: Stream | None = None
        try:
            with trio.fail_after(timeouts.connect):
                stream = Stream.of(await self._connect(origin))
                stream.timeouts = waits
                if context is not None:
                    await stream.start_tls(context, server_hostname=origin.host, timeout=timeouts.connect)
                return stream
        except trio.TooSlowError:
            if stream is not None:
                await stream.abort()
            raise TimeoutError(f"{origin}: no connection after {timeouts.connect:g} seconds") from None
        except BaseException:
            if stream is not None:
                await stream.abort()
            raise

    async def _context(self) -> ssl.SSLContext:
        """The context for https. The system's store takes a while to read, so that a thread does it, once."""
        if self._tls is None:
            async with self._tls_lock:
                if self._tls is None:
                    rules = Endpoint(Scheme.TCP, tls=True, alpn=("http/1.1",))
                    self._tls = await trio.to_thread.run_sync(client_context, rules)
        return self._tls


def stream_timeouts(timeouts: ClientTimeouts) -> Timeouts:
    """What a stream has to know of ours; nobody waits long for a request to leave that is over."""
    return Timeouts(send=timeouts.send, close=min(timeouts.send, 2.0))
