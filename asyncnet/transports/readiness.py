"""Which connections have something to receive: an epoll for those of a busy run.

Trio arms its epoll for each wait anew, through five frames. Where many connections wait in each turn of its loop, to
arm one once for each connection took a tenth off an HTTP request.

Theory of operation
===================

The epoll of a `Readiness` is itself a descriptor, which a system task has Trio wait for. Once Trio has been woken,
`after_io_wait` asks the epoll and has the tasks run that wait for what it tells. What could go wrong, and why it does
not:

- *Nobody takes what is there*: the epoll would tell it turn after turn. Told in vain once, a connection is watched no
  more, until somebody waits for it again.
- *A single connection would pay for it*, with a fifth of its requests: two epolls are asked for one event. So only
  those of a crowd are woken so. Who waits with few others has Trio wait, and here is told in vain.
- *A descriptor's number is used again.* `unwatch` comes before it is closed.
- *An exception in an instrument* would make Trio remove it. None arises: nothing here runs code of others.
- *A stream outlives its run*, and is used in another, where nobody asks this epoll. Then the wait is Trio's.
- *No descriptor is left for the epoll, or no room in it.* Then, as where there is no epoll, the wait is Trio's.
"""

from __future__ import annotations

import select
import sys
from typing import Protocol

import trio
from trio.lowlevel import Task, add_instrument, reschedule, spawn_system_task, wait_readable

from asyncnet.per_run import once_per_run

HAS_EPOLL = sys.platform == "linux"

CROWD = 8
"""How many waits begin in a turn of the loop when it is worth while to watch; with less than half it ends."""


class Watched(Protocol):
    """What is told: a transport on a descriptor."""

    is_watched: bool
    """Set here."""

    reader: Task | None
    """The task that waits to be told."""


class Readiness(trio.abc.Instrument):
    """The watched descriptors of one run of Trio."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watched: dict[int, Watched] = {}
        self.waits = 0
        """How many waits have begun in this turn; whoever waits counts."""
        self.is_crowded = False
        """Whether the turns have many waits now."""

    def watch(self, descriptor: int, watched: Watched) -> bool:
        """Wake the readers of `watched` from now on. False if the system has no room for it."""
        try:
            if self._epoll is None:
                self._epoll = select.epoll()
                spawn_system_task(self._have_trio_woken, self._epoll)
            self._epoll.register(descriptor, select.EPOLLIN)
        except OSError:
            return False
        self._watched[descriptor] = watched
        watched.is_watched = True
        return True

    def unwatch(self, descriptor: int) -> None:
        """Wake them no more."""
        assert self._epoll is not None
        self._watched.pop(descriptor).is_watched = False
        try:
            self._epoll.unregister(descriptor)
        except OSError:
            pass  # somebody has closed it behind our back

    def after_io_wait(self, timeout: float) -> None:
        """Trio's: a turn begins."""
        if self.waits:
            self.is_crowded = self.waits >= (CROWD // 2 if self.is_crowded else CROWD)
            self.waits = 0
        if self._watched and self._epoll is not None:
            for descriptor, _ in self._epoll.poll(0):
                watched = self._watched[descriptor]
                if watched.reader is None:
                    self.unwatch(descriptor)
                else:
                    reschedule(watched.reader)
                    watched.reader = None

    def after_run(self) -> None:
        """Trio's: nobody asks the epoll any more."""
        for watched in self._watched.values():
            watched.is_watched = False
        self._watched.clear()
        self._epoll = None
        self.is_crowded = False

    async def _have_trio_woken(self, epoll: select.epoll) -> None:
        """Whenever there is something to tell, for as long as it runs. The epoll is closed with the last reference."""
        while True:
            await wait_readable(epoll.fileno())


@once_per_run
def readiness_of_this_run() -> Readiness:
    readiness = Readiness()
    add_instrument(readiness)
    return readiness
