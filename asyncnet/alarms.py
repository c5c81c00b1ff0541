"""Deadlines that cost next to nothing to move.

A cancel scope around every receive would cost a busy connection a third of its time, and a deadline of Trio's costs
a heap operation each time it moves. A server moves its deadlines far more often than they pass. So a stream's
deadline is an attribute, and one system task a run, asleep until the earliest of them, looks whether it still holds:
if it has moved on meanwhile, the alarm is simply set again.

A deadline that moves earlier needs a second alarm, and the first is not taken back: the sleeper remembers it, and sets
none anew as long as one rings before its deadline. So a sleeper has few alarms however often it moves its deadline.
"""

from __future__ import annotations

import heapq
import math
import weakref
from typing import Protocol

import trio

from asyncnet.per_run import once_per_run


class Sleeper(Protocol):
    """What can be woken: see `Stream`, the only one."""

    def ring(self, now: float) -> None:
        """It is `now`, and an alarm was set for it."""

    def forget_alarms(self) -> None:
        """Its alarms will never ring: their run of Trio is over."""


SWEEP_FROM = 1024
"""How many alarms may wait before those of sleepers that are gone are looked for."""


class Alarms:
    """The alarms of one run of Trio."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, weakref.ref[Sleeper]]] = []
        self._count = 0
        self._scope = trio.CancelScope()
        self._sweep_at = SWEEP_FROM

    def __len__(self) -> int:
        """How many alarms wait."""
        return len(self._heap)

    def set(self, when: float, sleeper: Sleeper) -> None:
        """Call `sleeper.ring` at `when`, if it still lives then."""
        if len(self._heap) >= self._sweep_at:
            self._sweep()
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, weakref.ref(sleeper)))
        if self._heap[0][1] == self._count:
            self._scope.cancel()

    def _sweep(self) -> None:
        """Forget sleepers that are gone. Short connections with long deadlines would pile up otherwise."""
        self._heap = [alarm for alarm in self._heap if alarm[2]() is not None]
        heapq.heapify(self._heap)
        self._sweep_at = max(SWEEP_FROM, 2 * len(self._heap))

    async def run(self) -> None:
        try:
            while True:
                when = self._heap[0][0] if self._heap else math.inf
                with trio.CancelScope() as self._scope:
                    await trio.sleep_until(when)
                now = trio.current_time()
                while self._heap and self._heap[0][0] <= now:
                    sleeper = heapq.heappop(self._heap)[2]()
                    if sleeper is not None:
                        sleeper.ring(now)
        finally:
            for _, _, reference in self._heap:
                sleeper = reference()
                if sleeper is not None:
                    sleeper.forget_alarms()


@once_per_run
def alarms_of_this_run() -> Alarms:
    alarms = Alarms()
    trio.lowlevel.spawn_system_task(alarms.run)
    return alarms


def set_alarm(when: float, sleeper: Sleeper) -> None:
    """Have `sleeper.ring` called at `when`, in this run of Trio."""
    alarms_of_this_run().set(when, sleeper)
