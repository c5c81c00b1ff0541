"""One writer for the database: all that wait at the same moment share one transaction, and so one fsync.

Theory of operation
===================

Whoever has something to write asks by `submit`. If nobody is writing, that task leads: it lets the others run that are
ready to, takes what has gathered, and commits it in a thread. Meanwhile more gathers. When the batch is in, the leader
wakes its companions, and one of those who wait now leads the next. There is no task that does nothing else, so that
none has to be started, watched and ended.

- *A waiter is cancelled.* Either its request has not been taken yet: then it is withdrawn, as if never made. Or it is
  in a batch: then its outcome is waited for, which is a matter of the disk alone, and `submit` returns as if nothing
  had happened. There is no third way: withdrawal is the abort function of a Trio wait, which is called before or after
  the batch was taken, and not in between. Its companions notice nothing of it. A leader is not cancelled while it
  leads.
- *A request fails.* The transaction is rolled back, and each half of the batch is tried alone, and so on: it takes no
  other with it.
- *The disk fails or is full* (OSError): none of them is tried again, as all would fail. Each of them raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import outcome
import trio

R = TypeVar("R")

BATCH = 1000
"""How many requests share a transaction: databases have a limit to the length of a list."""


class Writer(Generic[R]):
    """What puts requests together.

    `commit` makes a transaction of some requests, and returns when it is on the disk; it is called in a thread, never
    twice at a time. `committed` is called with the same requests, at once, in Trio's thread and before anybody is woken
    and before the next `commit`.
    """

    def __init__(self, commit: Callable[[Sequence[R]], object], committed: Callable[[Sequence[R]], object]) -> None:
        self._commit = commit
        self._committed = committed
        self._waiting: dict[trio.lowlevel.Task, R] = {}
        self._has_leader = False
        self._limiter = trio.CapacityLimiter(1)

    async def submit(self, request: R) -> None:
        """Have `request` in the database. Raises what its part of the transaction has raised.

        Cancelled, the request is either withdrawn, and Cancelled is raised, or it is in, and nothing is.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        task = trio.lowlevel.current_task()
        self._waiting[task] = request
        if self._has_leader:
            if not await trio.lowlevel.wait_task_rescheduled(lambda _: self._withdraw(task)):
                return
        else:
            self._has_leader = True
            await trio.lowlevel.cancel_shielded_checkpoint()
        await self._lead(task)

    def _withdraw(self, task: trio.lowlevel.Task) -> trio.lowlevel.Abort:
        if self._waiting.pop(task, None) is None:
            return trio.lowlevel.Abort.FAILED  # it is taken
        return trio.lowlevel.Abort.SUCCEEDED

    async def _lead(self, leader: trio.lowlevel.Task) -> None:
        """Write what waits, the leader's request first, and leave the lead to one who waits then."""
        tasks = [leader, *(task for task in self._waiting if task is not leader)][:BATCH]
        batch = [self._waiting.pop(task) for task in tasks]
        try:
            with trio.CancelScope(shield=True):  # without a deadline: the disk alone is waited for
                failures = await trio.to_thread.run_sync(self._write, batch, limiter=self._limiter)
        except BaseException as exc:
            failures = [exc] * len(batch)
        try:
            self._committed([request for request, failure in zip(batch, failures, strict=True) if failure is None])
        finally:
            for task, failure in zip(tasks[1:], failures[1:], strict=True):
                trio.lowlevel.reschedule(task, outcome.Value(False) if failure is None else outcome.Error(failure))
            self._pass_lead()
        if failures[0] is not None:
            raise failures[0]

    def _pass_lead(self) -> None:
        """Make a leader of the one who has waited longest."""
        self._has_leader = bool(self._waiting)
        if self._waiting:
            trio.lowlevel.reschedule(next(iter(self._waiting)), outcome.Value(True))

    def _write(self, batch: Sequence[R]) -> list[BaseException | None]:
        """Commit, as far as that goes. Returns what went wrong with each."""
        try:
            self._commit(batch)
        except Exception as exc:
            if isinstance(exc, OSError):
                return [OSError(exc.errno, exc.strerror) for _ in batch]
            if len(batch) == 1:
                return [exc]
            half = len(batch) // 2
            return self._write(batch[:half]) + self._write(batch[half:])
        return [None] * len(batch)
