"""The lifespan of an ASGI application: its start before the service listens, its end after the drain.

The application's side runs in a task of its own, in a nursery that is open from `start` to `stop`; both are called by
the task that runs the service. An application that raises before it has started has no lifespan, unless it must have
one: the specification has the service go on. Whoever raises at the scope knows no lifespans, which is told; whoever has
received `lifespan.startup` knows them, and its start has failed, which is logged as an error, as is what fails later.

What could go wrong, and why it does not: an application that never says that it has stopped, or that goes on after it
has said so, is cancelled after a while; and whatever ends `start` or `stop`, the nursery is left.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import trio

from asyncnet.errors import ConfigurationError, LocalProtocolError

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

SHUTDOWN_TIME = 60.0
"""How long, in seconds, an application may take to stop."""

GRACE = 5.0
"""For how long, in seconds, its task may go on after it has said that it has stopped."""

logger = logging.getLogger(__name__)


class Lifespan:
    """One start and one end of `app`."""

    def __init__(self, app: ASGIApp, *, required: bool) -> None:
        self._app = app
        self._required = required
        self._state: dict[str, Any] = {}
        self._to_app, self._from_server = trio.open_memory_channel[Message](2)
        self._started, self._stopped = trio.Event(), trio.Event()
        self._is_known = False
        """Whether the application has asked what there is to do, and so knows what a lifespan is."""
        self._is_over = False
        self._problem = ""
        self._nursery: AbstractAsyncContextManager[trio.Nursery] = trio.open_nursery()
        self._scope: trio.CancelScope | None = None

    async def start(self) -> dict[str, Any] | None:
        """Have the application start: the state that it left, or None if it has no lifespan.

        Raises ConfigurationError when it says that it cannot start.
        """
        nursery = await self._nursery.__aenter__()
        self._scope = nursery.cancel_scope
        try:
            nursery.start_soon(self._run, name="the lifespan of an ASGI application")
            self._to_app.send_nowait({"type": "lifespan.startup"})
            await self._started.wait()
        except BaseException as error:
            nursery.cancel_scope.cancel()
            await self._nursery.__aexit__(type(error), error, error.__traceback__)
            raise
        if self._problem:
            nursery.cancel_scope.cancel()
            await self._nursery.__aexit__(None, None, None)
            raise ConfigurationError(f"the application did not start: {self._problem}")
        return None if self._is_over else self._state

    async def stop(self) -> None:
        """Have the application stop, and wait for it. Cancelled, it cancels the application."""
        assert self._scope is not None
        try:
            if not self._is_over:
                self._to_app.send_nowait({"type": "lifespan.shutdown"})
                with trio.move_on_after(SHUTDOWN_TIME):
                    await self._stopped.wait()
                if not self._stopped.is_set():
                    logger.error("the application has not stopped within %g seconds: it is cancelled", SHUTDOWN_TIME)
                    self._scope.cancel()
            self._scope.deadline = trio.current_time() + GRACE
        finally:
            await self._nursery.__aexit__(*sys.exc_info())

    async def _run(self) -> None:
        scope: Scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        try:
            await self._app(scope, self._receive, self._send)
            if self._required and not self._started.is_set():
                self._problem = "it returned before it had started"
        except Exception as error:
            if self._problem:
                logger.debug("the application did not start", exc_info=error)  # it has told why
            elif self._started.is_set():
                logger.error("the application's lifespan failed", exc_info=error)
            else:
                if self._is_known:
                    logger.error("the application failed while it started", exc_info=error)
                if self._required:
                    self._problem = repr(error)
                elif not self._is_known:
                    logger.info("the application has no lifespan: %r", error)
        finally:
            self._is_over = True
            self._started.set()
            self._stopped.set()

    async def _receive(self) -> Message:
        message = await self._from_server.receive()
        self._is_known = True
        return message

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._started.set()
            case "lifespan.startup.failed":
                self._problem = _in_one_line(message.get("message") or "")
                self._started.set()
            case "lifespan.shutdown.complete":
                self._stopped.set()
            case "lifespan.shutdown.failed":
                logger.error("the application failed to stop: %s", message.get("message") or "it gave no reason")
                self._stopped.set()
            case kind:
                raise LocalProtocolError(f"no message of a lifespan: {kind!r}")


def _in_one_line(reason: str) -> str:
    """The reason why an application did not start; a traceback, as Starlette gives one, goes to the log."""
    lines = reason.strip().splitlines()
    if len(lines) > 1:
        logger.error("the application did not start:\n%s", "\n".join(lines))
    return lines[-1] if lines else "it gave no reason"
