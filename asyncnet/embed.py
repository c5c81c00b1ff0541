"""Trio, and so asyncnet, in programs of another kind: in asyncio by Trio's guest mode, in synchronous code by a thread.

    async with in_asyncio() as portal:                      with in_thread() as portal:
        service = await portal.start(serve, ...)                service = portal.start(serve, ...)
        await portal.run(service.drain)                         portal.run(service.drain)

Theory of operation
===================

A Trio run lives as long as the block, and everything that a portal is asked for runs in its one nursery. What could go
wrong, and why it does not:

- *The block ends, in whatever way.* The run is cancelled and waited for: no task, socket or thread outlives the block.
  Cancelling is prompt. Whoever wants to drain says so before.
- *Something that was started fails later.* As in any nursery, the rest is cancelled, and the run ends. In asyncio the
  task in the block is cancelled then, as `asyncio.TaskGroup` does it; in a thread the next call says so. The block
  raises the group.
- *The caller of `run` or `start` is cancelled or interrupted.* So is the call. In asyncio the caller waits for the
  call's end, so that what it cleans up is clean before anybody goes on.
- *Two loops in one thread.* asyncio keeps the descriptor that signals wake it by, and the handler for SIGINT; Trio
  leaves both alone. While Trio makes a step, sniffio says "trio" to code that runs on either.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from types import TracebackType
from typing import Any, TypeAlias, TypeVar, TypeVarTuple

import outcome
import trio

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_Reply: TypeAlias = "asyncio.Future[Any] | Future[Any]"


def in_asyncio() -> AsyncioPortal:
    """`async with in_asyncio() as portal:` runs Trio beside the running asyncio loop, in its thread.

    Leaving the block cancels what runs in Trio and waits for its end. What had failed there is raised in a group; an
    error of the block itself is put into the same group, or raised as it is if nothing else failed. A loop can have one
    such block at a time.
    """
    return AsyncioPortal()


def in_thread() -> ThreadPortal:
    """`with in_thread() as portal:` runs Trio in a thread of its own.

    Leaving the block cancels what runs in Trio and waits for its end. What had failed there is raised in a group; an
    error of the block itself is put into the same group, or raised as it is if nothing else failed.
    """
    return ThreadPortal()


class _Call:
    """Something that a portal was asked for."""

    __slots__ = ("args", "async_fn", "reply", "scope")

    def __init__(self, async_fn: Callable[..., Awaitable[object]], args: tuple[object, ...], reply: _Reply) -> None:
        self.async_fn = async_fn
        self.args = args
        self.reply = reply
        self.scope = trio.CancelScope()


class _Run:
    """The side of a portal that is in Trio. `begin`, `cancel` and `stop` may be called from any thread."""

    def __init__(self) -> None:
        self._token: trio.lowlevel.TrioToken
        self.nursery: trio.Nursery

    async def live(self, tell_ready: Callable[[None], object]) -> None:
        """The main task: lives until `stop`, or until something fails."""
        async with trio.open_nursery() as self.nursery:
            self._token = trio.lowlevel.current_trio_token()
            tell_ready(None)
            await trio.sleep_forever()

    def begin(self, call: _Call) -> None:
        """Start `call`, with the context variables of the caller. Its reply always comes."""
        try:
            self._token.run_sync_soon(self._spawn, call, contextvars.copy_context())
        except trio.RunFinishedError:
            call.reply.set_exception(_over())

    def _spawn(self, call: _Call, context: contextvars.Context) -> None:
        try:
            context.run(self.nursery.start_soon, self._carry_out, call)
        except RuntimeError:  # the nursery has closed: the run is about to end
            call.reply.set_exception(_over())

    async def _carry_out(self, call: _Call) -> None:
        """Carry what comes of `call` to its caller. What is no `Exception` (SystemExit, say) ends the run instead."""
        try:
            with call.scope:
                call.reply.set_result(await call.async_fn(*call.args))
            if call.scope.cancelled_caught:
                call.reply.cancel()
        except Exception as exc:
            call.reply.set_exception(exc)
        finally:
            if not call.reply.done():
                call.reply.set_exception(_over())

    def cancel(self, call: _Call) -> None:
        """Cancel `call`, unless it has ended."""
        self._soon(call.scope.cancel)

    def stop(self) -> None:
        """Cancel everything."""
        self._soon(self.nursery.cancel_scope.cancel)

    def _soon(self, function: Callable[[], object]) -> None:
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            pass


def _over() -> trio.RunFinishedError:
    return trio.RunFinishedError("the Trio run of this portal has ended")


def _raise_failure(result: outcome.Outcome[None], exc: BaseException | None) -> None:
    """Raise what the run failed with, if it did; `exc` is what the block raises."""
    try:
        result.unwrap()
    except BaseExceptionGroup as failure:
        # The block was told by one of these that the run had failed: they are no errors of its own.
        if exc is None or isinstance(exc, (asyncio.CancelledError, trio.RunFinishedError)):
            raise
        raise BaseExceptionGroup("the block and the Trio run have failed", [exc, *failure.exceptions]) from None


class AsyncioPortal:
    """Calls from asyncio into a Trio run in the same thread: see `in_asyncio`. For tasks of one loop alone."""

    def __init__(self) -> None:
        self._run = _Run()
        self._leaving = False
        self._interrupted = False

    async def run(self, async_fn: Callable[[*_Ts], Awaitable[_T]], *args: *_Ts) -> _T:
        """Run `async_fn(*args)` in Trio and return what it returns, or raise what it raises.

        Cancelled, it cancels `async_fn`, waits for its end, and raises what that raises, else CancelledError. Raises
        `trio.RunFinishedError` if the run ends before.
        """
        reply: asyncio.Future[_T] = self._loop.create_future()
        call = _Call(async_fn, args, reply)
        self._run.begin(call)
        try:
            await asyncio.wait({reply})
        except asyncio.CancelledError:
            self._run.cancel(call)
            await _outlast(reply)
            error = None if reply.cancelled() else reply.exception()
            if error is not None and not isinstance(error, trio.RunFinishedError):
                raise error from None
            raise
        return reply.result()

    async def start(self, async_fn: Callable[..., Awaitable[object]], *args: object) -> Any:
        """Start `async_fn(*args, task_status=...)` in the background, as `trio.Nursery.start` does.

        Returns what it tells by `task_status.started`: the `Service` of `serve`. Keyword arguments go into a
        `functools.partial`. What it raises before is raised here; what it raises later ends the run.
        """
        return await self.run(self._run.nursery.start, async_fn, *args)

    async def __aenter__(self) -> AsyncioPortal:
        self._loop = asyncio.get_running_loop()
        self._host = asyncio.current_task()
        self._ended: asyncio.Future[outcome.Outcome[None]] = self._loop.create_future()
        ready: asyncio.Future[None] = self._loop.create_future()
        trio.lowlevel.start_guest_run(
            self._run.live,
            ready.set_result,
            run_sync_soon_threadsafe=self._loop.call_soon_threadsafe,
            run_sync_soon_not_threadsafe=self._loop.call_soon,
            done_callback=self._ended.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        cancelled = await _outlast(ready)
        self._ended.add_done_callback(self._interrupt)
        if cancelled is not None:
            await self.__aexit__(type(cancelled), cancelled, None)
            raise cancelled
        return self

    def _interrupt(self, _: object) -> None:
        """The run has ended: if nobody is leaving the block, something failed, and the block has to know."""
        if not self._leaving and self._host is not None:
            self._interrupted = True
            self._host.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leaving = True
        self._run.stop()
        cancelled = await _outlast(self._ended)
        if self._interrupted and self._host is not None:
            try:
                await asyncio.sleep(0)  # where our own cancelling arrives, if the block did not wait for anything
            except asyncio.CancelledError:
                pass
            self._host.uncancel()
        _raise_failure(self._ended.result(), exc)
        if cancelled is not None:
            raise cancelled


async def _outlast(future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait for the end of `future` whatever happens; return the cancellation that came meanwhile, if one did."""
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as exc:
            cancelled = exc
    return cancelled


class ThreadPortal:
    """Calls from synchronous code into a Trio run in another thread: see `in_thread`. For all threads but that one."""

    def __init__(self) -> None:
        self._run = _Run()
        self._ready: Future[Any] = Future()
        self._ended: Future[Any] = Future()  # of an outcome.Outcome[None]
        # A daemon: if somebody interrupts the waiting for its end, it does not keep the process.
        self._thread = threading.Thread(target=self._main, name="asyncnet", daemon=True)

    def _main(self) -> None:
        self._ended.set_result(outcome.capture(trio.run, self._run.live, self._ready.set_result))

    def run(self, async_fn: Callable[[*_Ts], Awaitable[_T]], *args: *_Ts) -> _T:
        """Run `async_fn(*args)` in Trio, wait for it, and return what it returns, or raise what it raises.

        KeyboardInterrupt cancels `async_fn` and does not wait for its end; leaving the block does. Raises
        `trio.RunFinishedError` if the run ends before.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("this is the portal's own thread: await the function instead")
        reply: Future[_T] = Future()
        call = _Call(async_fn, args, reply)
        try:
            self._run.begin(call)  # in here: an interrupt may come before the next line
            return reply.result()
        finally:
            if not reply.done():
                self._run.cancel(call)

    def start(self, async_fn: Callable[..., Awaitable[object]], *args: object) -> Any:
        """Start `async_fn(*args, task_status=...)` in the background, as `trio.Nursery.start` does.

        Returns what it tells by `task_status.started`: the `Service` of `serve`. Keyword arguments go into a
        `functools.partial`. What it raises before is raised here; what it raises later ends the run.
        """
        return self.run(self._run.nursery.start, async_fn, *args)

    def __enter__(self) -> ThreadPortal:
        self._thread.start()
        wait({self._ready, self._ended}, return_when=FIRST_COMPLETED)
        if not self._ready.done():
            self._ended.result().unwrap()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run.stop()
        self._thread.join()
        _raise_failure(self._ended.result(), exc)
