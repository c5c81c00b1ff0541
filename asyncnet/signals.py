"""Signals of a program that is a service: SIGINT and SIGTERM drain it, SIGHUP has it load its certificates again.

The library installs no signal handler by itself. `run` does, which is a whole program, and `drain_on_signal`, which any
program may call that runs Trio in its main thread.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import trio

from asyncnet.service import Handler, Service, serve
from asyncnet.transports.base import Listener


def run(
    handler: Handler,
    *endpoints: str | Listener,
    ready: Callable[[Service], object] | None = None,
    **options: Any,
) -> None:
    """Be a program that is a service: `serve` in a Trio run of its own, until Ctrl-C or SIGTERM have drained it.

    `ready` is called with the service once it listens; without it, a line on standard output says where. `options` are
    those of `serve`. Raises what `serve` raises, and ValueError outside the main thread.
    """

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            service: Service = await nursery.start(partial(serve, handler, *endpoints, **options))
            await nursery.start(drain_on_signal, service)
            (ready or _tell_where)(service)

    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]  # what `serve` has raised, without the nurseries around it
        raise error from None


def _tell_where(service: Service) -> None:
    print(f"{service.name} on {' and '.join(service.urls)}; Ctrl-C ends it", flush=True)


async def drain_on_signal(*services: Service, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Wait for SIGINT (Ctrl-C) or SIGTERM, drain all `services` together, and return when they have ended.

    A second one ends the process where it stands, with exit status 128 and the signal's number: somebody has lost
    patience. SIGHUP has the services load their certificates again, also while they drain.

    The handlers that were there before come back when it returns or is cancelled. `nursery.start` returns as soon as
    they are replaced. Raises ValueError outside the main thread.
    """
    with _end_signals() as asked_to_end:
        async with trio.open_nursery() as nursery:
            await nursery.start(_reload_on_hangup, services)
            task_status.started()
            await asked_to_end.wait()
            async with trio.open_nursery() as draining:
                for service in services:
                    draining.start_soon(service.drain)
            nursery.cancel_scope.cancel()


@contextmanager
def _end_signals() -> Iterator[trio.Event]:
    """An event that SIGINT or SIGTERM sets; the next one ends the process."""
    token = trio.lowlevel.current_trio_token()
    asked_to_end = trio.Event()
    signals = []

    def on_signal(number: int, frame: object) -> None:
        signals.append(number)
        if len(signals) > 1:
            os._exit(128 + number)  # Nothing else is certain to end now: a handler or a thread may be stuck.
        token.run_sync_soon(asked_to_end.set)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked_to_end
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _reload_on_hangup(
    services: Sequence[Service], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    if not hasattr(signal, "SIGHUP"):  # Windows
        task_status.started()
        return
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        task_status.started()
        async for _ in hangups:
            for service in services:
                await service.reload_certificates()
