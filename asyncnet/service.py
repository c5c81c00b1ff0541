"""Services: accept, guard, limit and drain the connections of a handler.

Theory of operation
===================

A service has two nurseries, one inside the other. The inner one accepts and keeps watch; `drain` cancels it and nothing
else, so that requests in flight live on in the outer one, where each connection has a task. At the drain's deadline
those that are left are cancelled together. A single connection that is to end, because it is idle, is hung up: its
stream closes, and its handler sees what it sees when a peer is gone. A cancel scope for each connection would do the
same at the price of 0.6 KiB for each; only a time limit pays that.

What could go wrong, and why it does not:

- *A handler fails.* The guard is the place that catches whatever it raises. A `BaseExceptionGroup` of `Cancelled` and a
  `ValueError` is no `Exception`: the guard splits it, logs the error, and lets the rest go on.
- *A flood.* Connections are counted in all, by address and while their handshake runs. At a cap the peer is told so in
  its protocol, by few at a time; past that the accept loop stops, and the kernel's queue holds the others back.
- *No descriptors left.* `accept` fails at once, again and again: the loop logs once, and rests before it tries anew.
- *A drain meets a connection that waits for its next request.* The handler marks that wait by `idle()`; the drain ends
  just that wait, and the handler says goodbye. Whoever has marked nothing has until the deadline. A handshake that is
  not finished ends at once.
- *Idle peers.* The watch compares each stream's byte counters with those of its last round: no timer per connection.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import trio

from asyncnet.connection import Connection, current_connection
from asyncnet.endpoints import as_url, listen
from asyncnet.errors import ConfigurationError, Draining, EndOfStream, ReceiveTimeout, RemoteProtocolError
from asyncnet.limits import Limits, Timeouts
from asyncnet.middleware import ConnectionsPerAddress, Middleware
from asyncnet.printable import printable
from asyncnet.stream import Stream
from asyncnet.transports.address import Address, Networks
from asyncnet.transports.base import Listener, Transport
from asyncnet.transports.certificates import ServerTLS
from asyncnet.transports.listening import NO_ROOM

if TYPE_CHECKING:
    import ssl

logger = logging.getLogger("asyncnet.service")

Handler: TypeAlias = Callable[[trio.abc.Stream], Awaitable[object]]
"""A protocol, for one connection. The service closes the stream after it.

A handler that is an object may also have `refusal` (bytes: what a peer is told on a plain endpoint when there is no
room), `alpn` (names for TLS), `tls` (a `ServerTLS` for protocols that begin TLS themselves, watched like those of
endpoints), `tls_context_each` (true: each connection's TLS has a context of its own, so that a session which is resumed
in it is its own), `url_schemes` (a pair: in the clear and over TLS), `name` (for the log), `logs_requests`
(true: connections that end well are no info, since the handler's own log tells what they did), and may be an async
context manager, entered before listening and left after the drain.
"""

NO_ROOM_PAUSE = 0.5
"""How long, in seconds, the accept loop rests when the system has no room for another connection."""

CERTIFICATE_CHECK = 10.0
"""How often, in seconds, certificate files are looked at for changes."""


@dataclass(slots=True)
class Counters:
    """What a service has done so far."""

    accepted: int = 0
    """Connections taken from the kernel."""
    refused: int = 0
    """Of these, sent away before the handler: by a cap, a network rule, a missing PROXY header."""
    handshakes_failed: int = 0
    """Of these, ended in the TLS handshake."""
    failed: int = 0
    """Of these, ended by an error of the handler."""
    bytes_in: int = 0
    """Received by connections that have ended, above TLS."""
    bytes_out: int = 0
    seconds: float = 0.0
    """How long the connections that have ended were open, in all."""


async def serve(
    handler: Handler,
    *endpoints: str | Listener,
    tls: ssl.SSLContext | ServerTLS | None = None,
    limits: Limits = Limits(),
    timeouts: Timeouts = Timeouts(),
    proxy_from: Iterable[str] = (),
    middleware: Sequence[Middleware] = (),
    task_status: trio.TaskStatus[Service] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `handler` on `endpoints` until cancelled, or until the service has been drained.

    Cancelling is prompt: connections end where they are. `service.drain()` lets them finish. `nursery.start(serve, …)`
    gives the `Service` as soon as it listens.

    `tls` is laid on every endpoint, unless it is a `tls://` one with a certificate of its own. `proxy_from`: networks
    (or "unix") from which, and from which alone, connections are taken, each with a PROXY header in front.

    Raises `EndpointError` for a wrong endpoint and `ConfigurationError` where listening is not possible.
    """
    if not endpoints:
        raise ValueError("serve() needs at least one endpoint, such as 'tcp://127.0.0.1:0'")
    trusted = Networks(proxy_from)
    async with contextlib.AsyncExitStack() as stack:
        entered: object = handler
        if isinstance(entered, contextlib.AbstractAsyncContextManager):
            await stack.enter_async_context(entered)
        listeners: list[Listener] = []
        try:
            for endpoint in endpoints:
                if isinstance(endpoint, Listener):
                    listeners.append(endpoint)
                else:
                    alpn = getattr(handler, "alpn", ())
                    listeners += await listen(endpoint, tls=tls, alpn=alpn, backlog=limits.backlog)
            service = Service(handler, listeners, limits, timeouts, trusted, middleware)
            await service._run(task_status)
        finally:
            for listener in listeners:
                await trio.aclose_forcefully(listener)


class Service:
    """A handler at work. `serve` makes it."""

    def __init__(
        self,
        handler: Handler,
        listeners: list[Listener],
        limits: Limits,
        timeouts: Timeouts,
        proxy_from: Networks,
        middleware: Sequence[Middleware],
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.timeouts = timeouts
        self.counters = Counters()
        self.name = str(getattr(handler, "name", "") or getattr(handler, "__name__", type(handler).__name__))
        """The service's name in the log."""
        self.endpoints = [listener.endpoint for listener in listeners]
        """Where it listens, with the ports that were bound."""
        self.urls = [as_url(endpoint, getattr(handler, "url_schemes", None)) for endpoint in self.endpoints]
        """The same as one writes it for the protocol where it has URLs: http://127.0.0.1:8080."""
        self.is_draining = False
        """Whether `drain` was called; handlers ask often."""
        self.drain_begun = trio.Event()
        self._refusal: bytes | None = getattr(handler, "refusal", None)
        self._tls_context_each: bool = getattr(handler, "tls_context_each", False)
        self._level_of_ended = logging.DEBUG if getattr(handler, "logs_requests", False) else logging.INFO
        self._listeners = listeners
        self._proxy_from = proxy_from
        self._middleware = (ConnectionsPerAddress(limits.per_address), *middleware)
        self.time_limit = min((each.time_limit for each in middleware), default=math.inf)
        self._connections: set[Connection] = set()
        self._handshakes = 0
        self._ended_by_drain: set[trio.CancelScope] = set()
        self._refusing = 0
        self._out_of_room = False
        self._room = trio.Event()
        self._accepting = trio.CancelScope()
        self._task_name = f"a connection of {self.name}"  # made once: Trio would make one for each
        self._finished = trio.Event()

    @property
    def open(self) -> int:
        """How many connections are open at this moment."""
        return len(self._connections)

    async def drain(self) -> None:
        """Stop accepting, let connections finish, cancel what still runs after `timeouts.drain`; return after that.

        Idle connections end at once, in their protocol's way. Cancelled, it stops waiting; the drain goes on.
        """
        self.is_draining = True
        self.drain_begun.set()
        self._accepting.cancel()
        await self._finished.wait()

    async def reload_certificates(self, *, force: bool = True) -> None:
        """Load the certificates of all endpoints again; broken ones leave those in use alone, and the log says so."""
        for tls in self._certificates:
            await trio.to_thread.run_sync(partial(tls.reload, force=force))

    @property
    def _certificates(self) -> set[ServerTLS]:
        used = (*(listener.tls for listener in self._listeners), getattr(self.handler, "tls", None))
        return {tls for tls in used if isinstance(tls, ServerTLS)}

    async def _run(self, task_status: trio.TaskStatus[Service]) -> None:
        try:
            async with trio.open_nursery() as connections:
                with self._accepting:
                    async with trio.open_nursery() as accepting:
                        for listener in self._listeners:
                            accepting.start_soon(self._accept_from, listener, connections)
                        accepting.start_soon(self._watch_certificates)
                        accepting.start_soon(self._watch_idle)
                        task_status.started(self)
                await self._drain_connections()
                connections.cancel_scope.cancel()
        finally:
            self._finished.set()

    async def _drain_connections(self) -> None:
        """Return when all connections have ended, or at the deadline, with those marked that have not."""
        for connection in self._connections:
            if connection.idle:
                connection.stream.interrupt()
        for handshake in self._ended_by_drain:
            handshake.cancel()
        with trio.move_on_after(self.timeouts.drain):
            while self._connections:
                await self._something_ended()
        for connection in self._connections:
            connection.ending = "cut off by the drain"

    # Accepting

    async def _accept_from(self, listener: Listener, connections: trio.Nursery) -> None:
        async with listener:
            while True:
                await self._wait_for_room(listener)
                await listener.wait()
                for _ in range(self.limits.accept_burst):
                    if not self._has_room(listener):
                        break
                    try:
                        transport = listener.accept_now()
                    except OSError as exc:
                        if exc.errno not in NO_ROOM:
                            raise
                        await self._rest(exc)
                        break
                    if transport is None:
                        break
                    self._out_of_room = False
                    self._take(transport, listener, connections)

    def _has_room(self, listener: Listener) -> bool:
        """Whether another connection may be accepted: to be served, or at least to be told that it is refused."""
        if self._begins_with_handshake(listener) and self._handshakes >= self.limits.handshakes:
            return False
        if self.open < self.limits.connections:
            return True
        return self._can_refuse_aloud(listener)

    def _begins_with_handshake(self, listener: Listener) -> bool:
        return listener.tls is not None or bool(self._proxy_from)

    def _can_refuse_aloud(self, listener: Listener) -> bool:
        plain = not self._begins_with_handshake(listener)
        return plain and self._refusal is not None and self._refusing < self.limits.refusals

    async def _wait_for_room(self, listener: Listener) -> None:
        while not self._has_room(listener):
            await self._something_ended()

    async def _something_ended(self) -> None:
        if self._room.is_set():
            self._room = trio.Event()
        await self._room.wait()

    async def _rest(self, exc: OSError) -> None:
        """Wait before trying again; the log is told once, until an accept has succeeded."""
        if not self._out_of_room:
            self._out_of_room = True
            logger.error(
                "%s: accept says %s (%s); connections wait, %d are open: raise `ulimit -n` or lower Limits.connections",
                self.name,
                errno.errorcode.get(exc.errno or 0, "an error"),
                exc.strerror,
                self.open,
            )
        await trio.sleep(NO_ROOM_PAUSE)

    def _take(self, transport: Transport, listener: Listener, connections: trio.Nursery) -> None:
        self.counters.accepted += 1
        reason = None
        if self.open >= self.limits.connections:
            reason = f"there are {self.open} connections already"
        elif not self._proxy_from:
            reason = self._admit(transport.peer)
        elif transport.peer not in self._proxy_from:
            reason = "it is none of the proxies that we trust"
        if reason is None:
            connection = Connection(self, Stream(transport, self.timeouts), admitted=not self._proxy_from)
            self._connections.add(connection)
            if self._begins_with_handshake(listener):
                connection.shakes_hands = True
                self._handshakes += 1
            connections.start_soon(self._guard, connection, listener, name=self._task_name)
        else:
            self._count_refusal(transport.peer, reason)
            aloud = self._can_refuse_aloud(listener)
            self._refusing += aloud
            connections.start_soon(self._refuse, transport, aloud)

    def _admit(self, peer: Address) -> str | None:
        """Ask every middleware; those that had agreed are told when a later one refuses."""
        for index, middleware in enumerate(self._middleware):
            reason = middleware.admit(peer)
            if reason is not None:
                for agreed in self._middleware[:index]:
                    agreed.release(peer)
                return reason
        return None

    def _count_refusal(self, peer: Address, reason: str) -> None:
        self.counters.refused += 1
        logger.info("%s refused %s: %s", self.name, peer, printable(reason))

    async def _refuse(self, transport: Transport, aloud: bool) -> None:
        """Send the peer away: in its protocol's words if there is a place for that, else by a reset."""
        if not aloud or self._refusal is None:
            await transport.abort()
            return
        stream = Stream(transport, self.timeouts)
        try:
            stream.write(self._refusal)
            await stream.linger()
        except trio.BrokenResourceError:
            pass
        finally:
            self._refusing -= 1
            self._room.set()
            await trio.aclose_forcefully(stream)

    # One connection

    async def _guard(self, connection: Connection, listener: Listener) -> None:
        """Everything that happens to one connection. Whatever goes wrong in here ends here.

        An idle connection waits within this frame: what it does not hold, ten thousand connections do not hold.
        """
        current_connection.set(connection)
        try:
            if connection.shakes_hands:
                await self._shake_hands(connection, listener)
            self.dress(connection.stream)
            if self.time_limit < math.inf:
                await self._handle_for_a_time(connection)
            else:
                await self.handler(connection.stream)
            if not connection.stream.close_now():
                await connection.stream.aclose()
        except BaseException as exc:
            if (rest := self._explain(connection, exc)) is not None:
                raise rest from None
        finally:
            await self._end(connection)

    def dress(self, stream: Stream) -> None:
        """Have `stream` wear what connections of this service wear. For handlers: `connection.dress`."""
        for middleware in self._middleware:
            middleware.dress(stream)

    async def _handle_for_a_time(self, connection: Connection) -> None:
        with trio.CancelScope(deadline=connection.since + self.time_limit) as scope:
            await self.handler(connection.stream)
        if scope.cancelled_caught:
            raise _HungUp("reached its time limit")

    async def _shake_hands(self, connection: Connection, listener: Listener) -> None:
        """PROXY header and TLS, as far as they are asked for. A drain ends both: there is no request to finish."""
        with trio.CancelScope() as scope:
            self._ended_by_drain.add(scope)
            try:
                if self.is_draining:
                    scope.cancel()
                if self._proxy_from:
                    await self._receive_proxy_header(connection)
                if listener.tls is not None:
                    await self._begin_tls(connection.stream, listener.tls)
            finally:
                self._ended_by_drain.discard(scope)
        if scope.cancelled_caught:
            raise _HungUp("the service drains")
        self._end_handshake(connection)

    async def _receive_proxy_header(self, connection: Connection) -> None:
        try:
            await connection.stream.receive_proxy_header(timeout=self.timeouts.proxy_header)
        except (RemoteProtocolError, TimeoutError, trio.BrokenResourceError) as exc:
            self.counters.refused += 1
            raise _HungUp(f"no PROXY header: {exc}") from exc
        connection.peer = connection.stream.peer
        reason = self._admit(connection.peer)
        if reason is not None:
            self._count_refusal(connection.peer, reason)
            raise _HungUp(reason)
        connection.admitted = True

    async def _begin_tls(self, stream: Stream, tls: ssl.SSLContext | ServerTLS) -> None:
        try:
            if self._tls_context_each and isinstance(tls, ServerTLS):
                tls = await trio.to_thread.run_sync(tls.copy)
            await stream.start_tls(tls, server_side=True)
        except (OSError, RemoteProtocolError, trio.BrokenResourceError, ConfigurationError) as exc:
            self.counters.handshakes_failed += 1
            raise _HungUp(f"TLS handshake failed: {exc}") from exc

    def _end_handshake(self, connection: Connection) -> None:
        if connection.shakes_hands:
            connection.shakes_hands = False
            self._handshakes -= 1
            self._room.set()

    def _explain(self, connection: Connection, exc: BaseException) -> BaseException | None:
        """Find the words for how a connection ended, and return what is not the guard's to catch.

        What is nobody's fault but ours is logged with its traceback.
        """
        errors, rest = _split(exc)
        if errors is None:
            connection.ending = connection.ending or "cancelled"
            return rest
        leaves = list(_leaves(errors))
        if connection.ending and all(isinstance(leaf, (trio.ClosedResourceError, *_QUIET)) for leaf in leaves):
            return rest  # it was hung up, and has noticed
        if all(isinstance(leaf, _QUIET) for leaf in leaves):
            connection.ending = str(leaves[0])
            connection.may_end_cleanly = isinstance(leaves[0], (EndOfStream, ReceiveTimeout, Draining))
        else:
            self.counters.failed += 1
            connection.ending = f"failed: {errors!r}"
            logger.error("%s failed on the connection from %s", self.name, connection.peer, exc_info=errors)
        return rest

    async def _end(self, connection: Connection) -> None:
        """Close what is still open, and count. What did not end by itself must not look whole to the peer."""
        stream, counters = connection.stream, self.counters
        if not stream.is_closed:
            if connection.may_end_cleanly:
                await trio.aclose_forcefully(stream)
            else:
                await stream.abort()
        if connection.admitted:
            for middleware in self._middleware:
                middleware.release(connection.peer)
        self._end_handshake(connection)
        self._connections.discard(connection)
        self._room.set()
        seconds = trio.current_time() - connection.since
        counters.bytes_in += stream.bytes_in
        counters.bytes_out += stream.bytes_out
        counters.seconds += seconds
        level = logging.INFO if connection.ending else self._level_of_ended
        if logger.isEnabledFor(level):
            logger.log(
                level,
                "%s: %s, %.3f s, %d bytes in, %d bytes out: %s",
                self.name,
                connection.peer,
                seconds,
                stream.bytes_in,
                stream.bytes_out,
                printable(connection.ending) or "done",  # an error may quote its peer
            )

    # Watching

    async def _watch_idle(self) -> None:
        """End connections that have not moved a byte for `timeouts.idle` seconds, or for an eighth longer."""
        if self.timeouts.idle == math.inf:
            return
        rounds = 8
        while True:
            await trio.sleep(self.timeouts.idle / rounds)
            ended = []
            for connection in self._connections:
                moved = connection.stream.bytes_in + connection.stream.bytes_out
                if moved != connection.seen or connection.busy:
                    connection.seen = moved
                    connection.still = 0
                elif not connection.ending:
                    connection.still += 1
                    if connection.still >= rounds:
                        connection.ending = f"idle for {self.timeouts.idle:g} s"
                        ended.append(connection)
            for connection in ended:
                await trio.aclose_forcefully(connection.stream)

    async def _watch_certificates(self) -> None:
        """Load certificates again when their files change."""
        while self._certificates:
            await trio.sleep(CERTIFICATE_CHECK)
            await self.reload_certificates(force=False)


class _HungUp(Exception):
    """This side ends the connection; the message says why."""


_QUIET = (
    _HungUp,
    RemoteProtocolError,
    ReceiveTimeout,
    Draining,
    trio.BrokenResourceError,
)
"""How connections end in the ordinary course of things: a line in the log, and no traceback."""


def _split(exc: BaseException) -> tuple[Exception | None, BaseException | None]:
    """The errors in `exc`, and the rest: cancellations, KeyboardInterrupt and the like, alone or in a group."""
    if isinstance(exc, Exception):
        return exc, None
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(Exception)
    return None, exc


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from _leaves(inner)
    else:
        yield exc
