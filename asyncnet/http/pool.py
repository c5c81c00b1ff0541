"""The client's connections: which are idle, how many there may be, and who waits for one.

Theory of operation
===================

A slot is counted from before a connection is opened until it has been given up. `take` gets an idle connection or a
slot, `put` gives a connection back for others, `discard` closes it. What could go wrong, and why it does not:

- *Somebody is cancelled who was just given something.* The waiter's own frame gives it on, whatever ends its wait.
- *The server has closed an idle connection, or said something that nobody had asked for.* `take` looks, without
  waiting, before it hands one out: such a connection is closed. What still happens after that look is the client's
  affair, who may try again where that is safe.
- *All connections are idle, but to other origins.* The one that has been idle for longest is closed.
- *A connection whose exchange was cancelled, or broke off, is used again.* Only who has seen the end of its response
  calls `put`; everything else ends in `discard`.

Nothing runs in the background: connections that are idle for too long are closed when the pool is used again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import trio

from asyncnet.http.client_limits import ClientLimits, ClientTimeouts, Phase, PhaseTimeout
from asyncnet.http.url import Origin
from asyncnet.stream import Stream


class Connection:
    """A connection to an origin, and what the pool knows of it."""

    __slots__ = ("idle_since", "origin", "requests", "stream")

    def __init__(self, origin: Origin, stream: Stream) -> None:
        self.origin = origin
        self.stream = stream
        self.requests = 0
        """How many requests it has carried before the present one."""
        self.idle_since = 0.0


class _Waiter:
    """A request that waits for a connection. It gets one, or a slot and maybe an idle one to close first."""

    __slots__ = ("connection", "origin", "served", "victim")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.served = trio.Event()
        self.connection: Connection | None = None
        self.victim: Connection | None = None


class Pool:
    """The connections of one client. `connect` opens one."""

    def __init__(
        self, connect: Callable[[Origin, ClientTimeouts], Awaitable[Stream]], limits: ClientLimits, idle_time: float
    ) -> None:
        self._connect = connect
        self._limits = limits
        self._idle_time = idle_time
        self._idle: dict[Origin, list[Connection]] = {}
        self._counts: dict[Origin, int] = {}
        self._total = 0
        self._waiting: deque[_Waiter] = deque()
        self._next_sweep = 0.0
        self._closed = False

    @property
    def connections(self) -> int:
        """How many there are, with those that are being opened."""
        return self._total

    @property
    def idle(self) -> int:
        """How many of them are idle."""
        return sum(map(len, self._idle.values()))

    async def take(self, origin: Origin, timeouts: ClientTimeouts) -> Connection:
        """An idle connection to `origin`, or a new one. The caller gives it back by `put` or `discard`.

        Raises PhaseTimeout if there is none within `timeouts.pool`, and what opening a connection raises.
        """
        if self._closed:
            raise trio.ClosedResourceError("this client was closed")
        now = trio.current_time()
        if now >= self._next_sweep:
            await self._sweep(now)
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if now - connection.idle_since < self._idle_time and is_silent(connection.stream):
                return connection
            await self.discard(connection)
        return await self._take_new(origin, timeouts)

    async def _take_new(self, origin: Origin, timeouts: ClientTimeouts) -> Connection:
        waiter = _Waiter(origin)
        if not self._reserve(waiter):
            await self._wait(waiter, timeouts.pool)
        if waiter.connection is not None:
            return waiter.connection
        try:
            if waiter.victim is not None:
                await waiter.victim.stream.aclose()
            stream = await self._connect(origin, timeouts)
        except BaseException:
            self._free(origin)
            raise
        return Connection(origin, stream)

    async def _wait(self, waiter: _Waiter, seconds: float) -> None:
        self._waiting.append(waiter)
        try:
            with trio.move_on_after(seconds):
                await waiter.served.wait()
                return
        except BaseException:
            await self._withdraw(waiter)
            raise
        await self._withdraw(waiter)
        raise PhaseTimeout(
            Phase.POOL,
            f"{waiter.origin}: no connection became free within {seconds:g} seconds: "
            "the client has as many as its limits allow",
        )

    async def _withdraw(self, waiter: _Waiter) -> None:
        """Give on what a waiter was given that no longer wants it."""
        if not waiter.served.is_set():
            self._waiting.remove(waiter)
        elif waiter.connection is not None:
            self.put(waiter.connection)
        else:
            self._free(waiter.origin)
            if waiter.victim is not None:
                await waiter.victim.stream.abort()

    def put(self, connection: Connection) -> None:
        """Give back a connection whose exchange has ended, for others to use. Not a checkpoint."""
        connection.requests += 1
        connection.idle_since = trio.current_time()
        for waiter in self._waiting:
            if waiter.origin == connection.origin:
                self._waiting.remove(waiter)
                waiter.connection = connection
                waiter.served.set()
                return
        self._idle.setdefault(connection.origin, []).append(connection)
        if self._waiting:
            self._serve_waiting()

    async def discard(self, connection: Connection) -> None:
        """Close a connection that is of no more use. Does its work even if cancelled."""
        self._free(connection.origin)
        await connection.stream.abort()

    def let_go(self, connection: Connection) -> None:
        """Count a connection no longer, and leave it to the caller."""
        self._free(connection.origin)

    def _free(self, origin: Origin) -> None:
        self._uncount(origin)
        self._serve_waiting()

    def _uncount(self, origin: Origin) -> None:
        self._total -= 1
        self._counts[origin] -= 1
        if not self._counts[origin]:
            del self._counts[origin]
            if not self._idle.get(origin):
                self._idle.pop(origin, None)

    def _serve_waiting(self) -> None:
        for waiter in list(self._waiting):
            if self._reserve(waiter):
                self._waiting.remove(waiter)
                waiter.served.set()

    def _reserve(self, waiter: _Waiter) -> bool:
        """Count a connection that `waiter` will open, if there may be one more."""
        if self._counts.get(waiter.origin, 0) >= self._limits.per_origin:
            return False
        if self._total >= self._limits.connections:
            oldest = [idle[0] for idle in self._idle.values() if idle]
            if not oldest:
                return False
            victim = waiter.victim = min(oldest, key=lambda one: one.idle_since)
            self._idle[victim.origin].remove(victim)
            self._uncount(victim.origin)
        self._counts[waiter.origin] = self._counts.get(waiter.origin, 0) + 1
        self._total += 1
        return True

    async def _sweep(self, now: float) -> None:
        """Close what has been idle for too long."""
        self._next_sweep = now + self._idle_time / 4
        old = [one for idle in self._idle.values() for one in idle if now - one.idle_since >= self._idle_time]
        for connection in old:
            idle = self._idle.get(connection.origin, [])
            if connection in idle:  # nobody took it while another was being closed
                idle.remove(connection)
                await self.discard(connection)

    async def aclose(self) -> None:
        """Close the idle connections; those in use are closed when they are given back."""
        self._closed = True
        idle = [connection for of_origin in self._idle.values() for connection in of_origin]
        self._idle.clear()
        for connection in idle:
            self._uncount(connection.origin)
        try:
            for connection in idle:
                await connection.stream.aclose()
        except BaseException:
            for connection in idle:
                await connection.stream.abort()
            raise

    @property
    def is_closed(self) -> bool:
        return self._closed


def is_silent(stream: Stream) -> bool:
    """Whether the connection stands, and nothing has come that nobody asked for."""
    try:
        return not (stream.buffered or stream.read_ahead_now(1) or stream.buffered)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return False
