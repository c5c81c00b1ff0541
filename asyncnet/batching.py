"""Sends that are made together, at the end of a turn of the event loop.

A send over TCP is some ten microseconds in the kernel, after which the processor has forgotten the program that it came
from. A server that answers many connections in one turn of Trio's loop is a fifth faster if it first works out all the
answers and then sends them one after the other: that was measured, for HTTP, over 64 connections.

Theory of operation
===================

A `Batch` is an instrument of Trio's, called once in each turn, when all tasks have run and before the loop waits for
the next event. So a batched send costs no turn more than one that is made at once. What could go wrong, and why it
does not:

- *A send that has no company* only comes later: its peer could work already while this side gets ready to wait. With a
  single connection that cost a quarter of the requests. So batches are made of the second send of a turn and those
  behind it, and of the first only where the turn before had several.
- *An answer waits for other tasks.* For those of the same turn, and once the first has waited `PATIENCE`, for no more:
  the next stream that comes sends them all. What a single task computes without a checkpoint it delays, as ever.
- *The kernel does not take all.* The stream is told in the next turn, and sends the rest by a task of its own: whoever
  receives may not come back soon.
- *A stream outlives its run*, and is used in another, whose turns this batch does not see. Then it has no company.
- *The connection is broken.* As for a send that a receive makes: whoever sends next is told.
- *A send wakes a task of this run.* Within the instrument that task would be overlooked until the next event: so only
  transports whose peer is behind the kernel take part (`Transport.can_batch`).
- *An exception in an instrument* would make Trio remove it: none leaves it.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Protocol

import trio

from asyncnet.per_run import once_per_run

logger = logging.getLogger(__name__)

PATIENCE = 0.001
"""How long, in seconds, the first send of a batch waits for others of its turn."""


class Batched(Protocol):
    """What can be sent: see `Stream`, the only one."""

    def send_batched(self) -> bool:
        """Send what is pending, as far as that goes without waiting; whether all has left or nothing ever will."""

    def go_on_after_batch(self) -> None:
        """The kernel did not take all: see to it that the rest leaves."""


class Batch(trio.abc.Instrument):
    """The sends of one run of Trio, turn after turn."""

    def __init__(self) -> None:
        self._waiting: list[Batched] = []
        self._sends: float = 0  # in this turn, batched or not
        self._sends_before: float = 0  # in the last one
        self._since = 0.0
        self._token = trio.lowlevel.current_trio_token()

    def has_company(self) -> bool:
        """Whether a send that comes now is not the only one of its turn; to be asked once for each."""
        self._sends += 1
        return self._sends > 1 or self._sends_before > 1

    def add(self, stream: Batched) -> None:
        """Have `stream` send at the end of this turn, or now if the first has waited long."""
        waiting = self._waiting
        if not waiting:
            self._since = time.perf_counter()
            waiting.append(stream)
        else:
            waiting.append(stream)
            if time.perf_counter() - self._since > PATIENCE:
                self._send()

    def before_io_wait(self, timeout: float) -> None:
        """Trio's: all tasks of this turn have run."""
        self._sends_before, self._sends = self._sends, 0
        if self._waiting:
            self._send()

    def after_run(self) -> None:
        """Trio's: no turn ends any more. What waits leaves now; streams that go on in another run send at once."""
        self._sends = self._sends_before = -math.inf
        waiting, self._waiting = self._waiting, []
        for stream in waiting:
            stream.send_batched()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for stream in waiting:
            try:
                if not stream.send_batched():
                    # In a turn of its own: who is woken here would be overlooked.
                    self._token.run_sync_soon(stream.go_on_after_batch)
            except Exception:
                logger.exception("a batched send failed")


@once_per_run
def batch_of_this_run() -> Batch:
    batch = Batch()
    trio.lowlevel.add_instrument(batch)
    return batch
