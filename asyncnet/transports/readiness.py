"""Which connections have something to receive: an edge-triggered epoll for those of a busy run.

Trio tells epoll anew for each wait, through five frames. Where many connections wait in each turn of its loop, telling
epoll once for each connection took a tenth off an HTTP request.

Theory of operation
===================

The epoll of a `Readiness` is itself a descriptor, which a system task has Trio wait for. Once Trio has been woken,
`after_io_wait` asks the epoll and has the tasks run that wait for what it tells. What could go wrong, and why it does
not:

- *An edge is told only once.* `Watched.readable` keeps it until a receive has found nothing, or has got less than it
  asked for, which says the same of a stream (epoll(7)). What comes after that is another edge.
- *The end, or an error, is told together with data.* Then the connection counts as readable for good.
- *A single connection would pay for it*, with a fifth of its requests: two epolls are asked for one event. So only a
  crowd is watched; a connection that waits with few others is not, from that wait on.
- *A descriptor's number is used again.* `unwatch` comes before it is closed.
- *An exception in an instrument* would make Trio remove it. None arises: nothing here runs code of others.
- *No descriptor is left for the epoll, or no room in it.* Then, as where there is no epoll, the wait is Trio's.
"""

from __future__ import annotations

import select
import sys
from typing import Protocol

import trio
from trio.lowlevel import RunVar, Task, add_instrument, reschedule, spawn_system_task, wait_readable

HAS_EPOLL = sys.platform == "linux"

CROWD = 8
"""How many waits begin in a turn of the loop when it is worth while to watch; with less than half it ends."""

EDGES = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET if sys.platform == "linux" else 0

UNKNOWN, READABLE, FOR_GOOD = 0, 1, 2
"""Whether to receive without a wait: not known to be worth it; worth a try; worth it whatever came before."""


class Watched(Protocol):
    """What is told: a transport on a descriptor."""

    readable: int
    """`UNKNOWN`, `READABLE` or `FOR_GOOD`: set here, and set back by whoever receives."""

    reader: Task | None
    """The task that waits to be told."""


class Readiness(trio.abc.Instrument):
    """The watched descriptors of one run of Trio."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watched: dict[int, Watched] = {}
        self._waits = 0
        self._is_crowded = False

    def counts_wait(self) -> bool:
        """Whether a wait that begins now is one of a crowd; to be asked once for each."""
        self._waits += 1
        return self._is_crowded

    def watch(self, descriptor: int, watched: Watched) -> bool:
        """Tell `watched` from now on, beginning with what is there already. False if the system has no room for it."""
        try:
            if self._epoll is None:
                self._epoll = select.epoll()
                spawn_system_task(self._have_trio_woken, self._epoll)
            self._epoll.register(descriptor, EDGES)
        except OSError:
            return False
        self._watched[descriptor] = watched
        return True

    def tell_again(self, descriptor: int) -> None:
        """Tell what is there now, whether or not it was told before."""
        assert self._epoll is not None
        self._epoll.modify(descriptor, EDGES)

    def unwatch(self, descriptor: int) -> None:
        """Tell nothing any more."""
        assert self._epoll is not None
        del self._watched[descriptor]
        self._epoll.unregister(descriptor)

    def after_io_wait(self, timeout: float) -> None:
        """Trio's: a turn begins."""
        if self._waits:
            self._is_crowded = self._waits >= (CROWD // 2 if self._is_crowded else CROWD)
            self._waits = 0
        if self._watched and self._epoll is not None:
            for descriptor, events in self._epoll.poll(0):
                watched = self._watched[descriptor]
                watched.readable = READABLE if events == select.EPOLLIN else FOR_GOOD
                if watched.reader is not None:
                    reschedule(watched.reader)
                    watched.reader = None

    async def _have_trio_woken(self, epoll: select.epoll) -> None:
        """Whenever there is something to tell, for as long as it runs. The epoll is closed with the last reference."""
        while True:
            await wait_readable(epoll.fileno())


_readiness: RunVar[Readiness] = RunVar("asyncnet.readiness")


def readiness_of_this_run() -> Readiness:
    try:
        return _readiness.get()
    except LookupError:
        readiness = Readiness()
        _readiness.set(readiness)
        add_instrument(readiness)
        return readiness
