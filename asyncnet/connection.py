"""The handler's side of a service: what it can know of the connection that it runs for, found by a context variable.

So a handler stays a function of a stream: it asks here whether its service drains, and marks its idle waits. Outside a
service all of this does nothing.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

import trio

from asyncnet.errors import Draining
from asyncnet.stream import Stream

if TYPE_CHECKING:
    from asyncnet.service import Service


class Connection:
    """What the service knows of a connection while it is open."""

    __slots__ = (
        "admitted",
        "busy",
        "ending",
        "idle",
        "may_end_cleanly",
        "peer",
        "seen",
        "service",
        "shakes_hands",
        "since",
        "still",
        "stream",
    )

    def __init__(self, service: Service, stream: Stream, *, admitted: bool) -> None:
        self.service = service
        self.stream = stream
        self.peer = stream.peer
        self.admitted = admitted  # by every middleware, which have to be told of its end
        self.since = trio.current_time()
        self.shakes_hands = False  # a PROXY header or TLS comes first, and has not ended
        self.idle = False  # its handler waits for the next request
        self.busy = False  # something belongs to it that moves elsewhere
        self.seen = 0  # bytes that had moved when the watch last came by
        self.still = 0  # rounds of the watch since then
        self.ending = ""
        self.may_end_cleanly = False


current_connection: ContextVar[Connection | None] = ContextVar("asyncnet.connection", default=None)


class idle:
    """Marks a handler's wait for its peer's next request: `async with idle() as turn: …` around the receive.

    When the service drains, the wait ends at once and `turn.draining` is true: say goodbye and return. Receives that
    the buffer can satisfy go on. Outside a service it does nothing. It waits for nothing itself, so that a plain `with`
    does the same: HTTP's loop uses it, whose small requests cost 5 % less than with `async with`.
    """

    __slots__ = ("_connection", "draining")

    def __init__(self) -> None:
        self._connection = current_connection.get()
        self.draining = False
        """Whether the wait was ended by a drain."""

    def __enter__(self) -> idle:
        connection = self._connection
        if connection is not None:
            connection.idle = True
            if connection.service.is_draining:
                connection.stream.interrupt()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: object) -> bool:
        connection = self._connection
        if connection is None:
            return False
        connection.idle = False
        if connection.service.is_draining:
            connection.stream.interrupt(False)
        self.draining = isinstance(exc, Draining)
        return self.draining

    async def __aenter__(self) -> idle:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: object) -> bool:
        return self.__exit__(kind, exc, tb)


class busy:
    """Within it the connection of the running handler is not idle, however still it is: its work moves elsewhere."""

    __slots__ = ("_before", "_connection")

    def __enter__(self) -> None:
        self._connection = current_connection.get()
        if self._connection is not None:
            self._before, self._connection.busy = self._connection.busy, True

    def __exit__(self, *exc_info: object) -> None:
        if self._connection is not None:
            self._connection.busy = self._before


def dress(stream: Stream) -> None:
    """Have `stream`, another one that belongs to the running handler's connection, wear what its service wears: a
    throttle, a log of the conversation."""
    connection = current_connection.get()
    if connection is not None:
        connection.service.dress(stream)


def is_draining() -> bool:
    """Whether the service of the running handler drains: an answer can tell that it is the last."""
    connection = current_connection.get()
    return connection is not None and connection.service.is_draining


async def draining() -> None:
    """Wait until the service of the running handler drains: for handlers of several tasks. Else wait for ever."""
    connection = current_connection.get()
    if connection is None:
        await trio.sleep_forever()
    else:
        await connection.service.drain_begun.wait()
