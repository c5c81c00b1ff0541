"""What stands between a connection and the password check: whether passwords may pass at all, and how fast one guesses.

Every protocol's server asks `passwords_allowed` before it offers or takes a password, and lets every attempt pass
through its `LoginGuard`.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from asyncnet.auth.identity import Identity
from asyncnet.transports.address import Address

if TYPE_CHECKING:
    from asyncnet.stream import Stream

logger = logging.getLogger(__name__)

CHECKS_PER_ADDRESS: Final = 2
"""Attempts of one address that are checked at the same moment: half of `HASHES_AT_ONCE`, so that one address never
keeps all others waiting."""


def passwords_allowed(stream: Stream, *, insecure_auth: bool = False) -> bool:
    """Whether a password may pass over `stream`: nobody on the way can read it, or the user asked for it all the same.

    Secure are TLS and what stays on this machine.
    """
    return insecure_auth or stream.tls is not None or stays_here(stream)


def stays_here(stream: Stream) -> bool:
    """Whether `stream` leads to this machine: over a Unix socket, or with loopback at both ends.

    The ends are those that a PROXY header told, if there was one: a proxy on this machine does not make its clients
    local.
    """
    local, peer = stream.local, stream.peer
    return (local.is_unix and peer.is_unix) or (local.is_loopback and peer.is_loopback)


class LoginGuard:
    """Slows down who guesses passwords. A server keeps one for all its connections; times are seconds.

    After a failed login its address waits `delay` before the answer and before its next attempt on any connection;
    each further failure doubles that, to at most `longest_delay`. An address (an IPv4 address, an IPv6 /64) is
    forgotten when it has not failed for `memory`, or when `addresses` others failed after it. Peers on Unix sockets
    are not told apart: each of their connections counts by itself. Names are never locked: anyone could lock out
    anyone.

    `tries` failed logins are what one connection gets.
    """

    def __init__(
        self,
        *,
        tries: int = 3,
        delay: float = 1.0,
        longest_delay: float = 16.0,
        memory: float = 900.0,
        addresses: int = 10_000,
    ) -> None:
        self.tries = tries
        self._delay = delay
        self._longest_delay = longest_delay
        self._memory = memory
        self._addresses = addresses
        self._records: OrderedDict[str, _Record] = OrderedDict()  # who failed longest ago comes first

    def connection(self, peer: Address) -> Logins:
        """What one connection from `peer` sends its attempts through."""
        return Logins(self, peer)

    @contextmanager
    def _entered(self, key: str) -> Iterator[_Record]:
        """The record that all connections of an address share, while one of them is making an attempt."""
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = _Record()
        record.inside += 1
        try:
            yield record
        finally:
            record.inside -= 1
            if record.delay == 0 and not record.inside and self._records.get(key) is record:
                del self._records[key]

    def _failed(self, key: str | None, record: _Record) -> None:
        now = trio.current_time()
        if now >= record.ready + self._memory:
            record.delay = 0.0
        record.delay = min(record.delay * 2 or self._delay, self._longest_delay)
        record.ready = now + record.delay
        if key is None:
            return
        self._records[key] = record  # it may have been dropped meanwhile
        self._records.move_to_end(key)
        while len(self._records) > self._addresses or self._oldest_is_over(now):
            self._records.popitem(last=False)

    def _oldest_is_over(self, now: float) -> bool:
        oldest = next(iter(self._records.values()), None)
        return oldest is not None and not oldest.inside and now >= oldest.ready + self._memory


class Logins:
    """The login attempts of one connection. Made by `LoginGuard.connection`."""

    def __init__(self, guard: LoginGuard, peer: Address) -> None:
        self._guard = guard
        self._peer = peer
        self._own_record = _Record()  # for peers that have no address
        self._failures = 0

    @property
    def exhausted(self) -> bool:
        """Whether this connection had its tries: answer the last one, and disconnect."""
        return self._failures >= self._guard.tries

    async def attempt(self, check: Callable[[], Awaitable[Identity | None]]) -> Identity | None:
        """Await `check` when this address's turn has come, and return what it says.

        None is a failed login, and returns when the delay for it has passed. The delay holds nothing that other
        addresses wait for. An attempt that is cancelled, or whose `check` raises, does not count.
        """
        key = self._peer.key
        with nullcontext(self._own_record) if key is None else self._guard._entered(key) as record:
            while True:
                await trio.sleep_until(record.ready)
                async with record.checks:
                    if trio.current_time() < record.ready:
                        continue  # another connection of this address failed while this one waited
                    identity = await check()
                    if identity is not None:
                        return identity
                    self._failures += 1
                    self._guard._failed(key, record)
                    break
            logger.info("a login from %s failed; its next one waits %g s", self._peer, record.delay)
            await trio.sleep_until(record.ready)
            return None


@dataclass(slots=True)
class _Record:
    """What is remembered of an address."""

    delay: float = 0.0  # after its last failure; 0 when there was none
    ready: float = -math.inf  # when its next attempt may be checked
    inside: int = 0  # attempts that are waiting or being checked
    checks: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(CHECKS_PER_ADDRESS))
