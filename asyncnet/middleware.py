"""What any service can wear: rules about who may come, how often and for how long, and what a stream shows or slows.

A middleware never wraps a stream. It decides at accept by the peer's address, before a handshake costs anything, and
dresses the finished stream with taps: a throttle, a log of the conversation. One object may be worn by several
services; then they share its counts.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

import trio

from asyncnet.stream import Stream
from asyncnet.transports.address import Address, Networks
from asyncnet.transports.base import Data


class Middleware:
    """The base of every middleware: each does nothing, until a subclass says otherwise."""

    time_limit: float = math.inf
    """How long a connection may last, in seconds."""

    def admit(self, peer: Address) -> str | None:
        """Why `peer` must not come in, in a few words for the log, or None if it may.

        Called once a connection, as soon as its address counts: at accept, or after its PROXY header.
        """
        return None

    def release(self, peer: Address) -> None:
        """A connection that was admitted has ended."""

    def dress(self, stream: Stream) -> None:
        """The connection's stream is there, before its handler sees it."""


class NetworkRules(Middleware):
    """Who may come: networks such as "192.0.2.0/24", single addresses, or "unix".

    What stands in `deny` is refused; of the rest, if `allow` is given, only what stands there comes in.
    """

    def __init__(self, *, allow: Iterable[str] | None = None, deny: Iterable[str] = ()) -> None:
        self._allow = None if allow is None else Networks(allow)
        self._deny = Networks(deny)

    def admit(self, peer: Address) -> str | None:
        if peer in self._deny:
            return "its network is denied"
        if self._allow is not None and peer not in self._allow:
            return "its network is not among those allowed"
        return None


class ConnectionsPerAddress(Middleware):
    """At most `limit` connections at a time from one address (for IPv6 from one /64). Unix peers are not counted."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: dict[str, int] = {}

    def admit(self, peer: Address) -> str | None:
        key = peer.key
        if key is None:
            return None
        count = self._counts.get(key, 0)
        if count >= self._limit:
            return f"it has {count} connections already"
        self._counts[key] = count + 1
        return None

    def release(self, peer: Address) -> None:
        key = peer.key
        if key is None:
            return
        count = self._counts[key] - 1
        if count:
            self._counts[key] = count
        else:
            del self._counts[key]


class ConnectionRate(Middleware):
    """At most `count` new connections in `seconds` from one address (for IPv6 from one /64), and a burst as large.

    A leaky bucket, kept as one time per address; `memory` addresses at most are remembered, those that came last.
    """

    def __init__(self, count: int, seconds: float, *, memory: int = 65536) -> None:
        if count < 1 or seconds <= 0 or memory < 1:
            raise ValueError("a rate is at least 1 connection in more than 0 seconds, and remembers at least 1 address")
        self._interval = seconds / count
        self._burst = seconds
        self._memory = memory
        self._full_until: dict[str, float] = {}

    def admit(self, peer: Address) -> str | None:
        key = peer.key
        if key is None:
            return None
        now = trio.current_time()
        full_until = max(self._full_until.pop(key, now), now) + self._interval
        if full_until - now > self._burst + self._interval * 1e-9:
            self._full_until[key] = full_until - self._interval
            return "it connects too often"
        self._full_until[key] = full_until
        if len(self._full_until) > self._memory:
            del self._full_until[next(iter(self._full_until))]
        return None


class TimeLimit(Middleware):
    """A connection lasts `seconds` at most, whatever it does."""

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError("a time limit is more than 0 seconds")
        self.time_limit = seconds


class _Bucket:
    """A token bucket in bytes: whoever takes more than is there waits until it has been refilled."""

    def __init__(self, rate: float) -> None:
        if not rate >= 1:
            raise ValueError("a bandwidth is at least 1 byte a second")
        self.rate = rate
        self.ready = -math.inf

    def spend(self, count: int) -> None:
        self.ready = max(self.ready, trio.current_time() - self.burst) + count / self.rate

    @property
    def burst(self) -> float:
        """How many seconds' worth may go at once after a pause."""
        return 0.1

    async def wait(self) -> None:
        await trio.sleep_until(self.ready)


class _Throttle:
    """The tap of one stream: its own buckets, and those that it shares, one set for each direction."""

    def __init__(self, incoming: tuple[_Bucket, ...], outgoing: tuple[_Bucket, ...]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._step = max(1, min((int(bucket.rate / 10) for bucket in outgoing), default=1))

    async def receiving(self) -> None:
        for bucket in self._incoming:
            await bucket.wait()

    def received(self, data: Data, *, secret: bool) -> None:
        for bucket in self._incoming:
            bucket.spend(len(data))

    async def sending(self, count: int) -> int:
        for bucket in self._outgoing:
            await bucket.wait()
        return min(count, self._step)

    def sent(self, data: Data, *, secret: bool) -> None:
        for bucket in self._outgoing:
            bucket.spend(len(data))

    def note(self, event: str) -> None:
        pass


class Bandwidth(Middleware):
    """Bytes a second, in each direction: for one connection, for all together, or both.

    What arrives faster is not read, so that the peer's own TCP slows down.
    """

    def __init__(self, *, each: float | None = None, total: float | None = None) -> None:
        if each is None and total is None:
            raise ValueError("a bandwidth for each connection, or in total, or both")
        self._each = each
        self._shared = () if total is None else ((_Bucket(total),), (_Bucket(total),))
        if each is not None:
            _Bucket(each)  # raises now rather than at the first connection

    def dress(self, stream: Stream) -> None:
        shared_in, shared_out = self._shared or ((), ())
        own_in, own_out = ((), ()) if self._each is None else ((_Bucket(self._each),), (_Bucket(self._each),))
        stream.add_tap(_Throttle((*own_in, *shared_in), (*own_out, *shared_out)))


SHOWN = 1024
"""How many bytes of each piece the log of a conversation shows."""


class ConversationLog(Middleware):
    """Writes what passes, above TLS, to a logger at DEBUG, for finding out who of two peers is wrong.

    Within `stream.secret()` only the number of bytes is shown. Not for production: it shows everything else.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("asyncnet.conversation")

    def dress(self, stream: Stream) -> None:
        if self._logger.isEnabledFor(logging.DEBUG):
            stream.add_tap(_Conversation(self._logger, str(stream.peer)))


class _Conversation:
    """The tap of one stream."""

    def __init__(self, logger: logging.Logger, peer: str) -> None:
        self._logger = logger
        self._peer = peer

    async def receiving(self) -> None:
        pass

    def received(self, data: Data, *, secret: bool) -> None:
        if data:
            self._logger.debug("%s -> %s", self._peer, _shown(data, secret))
        else:
            self._logger.debug("%s -> (end)", self._peer)

    async def sending(self, count: int) -> int:
        return count

    def sent(self, data: Data, *, secret: bool) -> None:
        self._logger.debug("%s <- %s", self._peer, _shown(data, secret))

    def note(self, event: str) -> None:
        self._logger.debug("%s -- %s", self._peer, event)


def _shown(data: Data, secret: bool) -> str:
    if secret:
        return f"({len(data)} secret bytes)"
    shown = repr(bytes(memoryview(data)[:SHOWN]))[1:]
    return shown if len(data) <= SHOWN else f"{shown} and {len(data) - SHOWN} bytes more"
