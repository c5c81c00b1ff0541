"""The server's data connections: where the next one comes from, and how it begins. RFC 959 section 3.2, RFC 2428, 4217.

What could go wrong, and why it does not:

- *Bounce.* PORT and EPRT name the peer of the control connection and a port from 1024 on, or are refused (RFC 2577).
- *Theft.* A passive port is a random one; only the peer of the control connection is let in; the listener closes as
  soon as it has come. Strangers are sent away, and neither use up the one that is awaited nor, for long, its queue.
- *An upload that its own client destroys.* One that only writes never reads TLS's tickets, so that the kernel resets
  the connection when it closes: there are none on data connections.
- *A TLS session of somebody else.* Where sessions are demanded, each control connection has a context of its own, in
  which only its own sessions can be resumed.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from asyncnet.alarms import set_alarm
from asyncnet.beside import accept_beside, accept_beside_now, connect_beside, listen_beside
from asyncnet.errors import RemoteProtocolError
from asyncnet.stream import Stream
from asyncnet.transports.listening import SocketListener

DOORKEEPER = 0.5
"""How long a client may take to connect, in seconds, before strangers on its port are sent away as they come."""


class DataFailed(Exception):
    """There is no data connection: the code of the reply, and what it says."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class DataSource(Protocol):
    """Where the next data connection comes from."""

    def ready(self) -> Stream | None:
        """The connection, if it is there without a wait."""
        ...

    async def wait(self) -> Stream:
        """Wait for it, without a limit. Raises OSError."""
        ...

    def close(self) -> None:
        """It is not wanted any more."""
        ...


class Passive:
    """The client connects to us."""

    def __init__(self, control: Stream, ports: Sequence[int]) -> None:
        """Listen at once. Raises OSError."""
        self._control = control
        self._listener: SocketListener | None = listen_beside(control, ports)
        self.port = self._listener.address.port or 0
        self._is_waited_for = False
        self._found: Stream | None = None
        self._came: trio.Event | None = None  # there is a doorkeeper, who sets it
        # Many of them at the same time cost the alarms one round.
        set_alarm(math.ceil(trio.current_time() / DOORKEEPER + 1) * DOORKEEPER, self)

    def ready(self) -> Stream | None:
        if self._found is None and self._came is None:
            assert self._listener is not None, "a source is asked once"
            self._found = accept_beside_now(self._control, self._listener, timeouts=self._control.timeouts)
        stream, self._found = self._found, None
        if stream is not None:
            self.close()
        return stream

    async def wait(self) -> Stream:
        self._is_waited_for = True
        try:
            if self._came is None:
                assert self._listener is not None, "a source is asked once"
                return await accept_beside(self._control, self._listener, timeouts=self._control.timeouts)
            await self._came.wait()
            stream, self._found = self._found, None
            if stream is None:
                raise OSError(errno.EMFILE, "there is no room for it")
            return stream
        finally:
            self.close()

    def ring(self, now: float) -> None:
        """For the alarm of the constructor alone: the client takes its time, and strangers must not fill its place."""
        if self._listener is not None and not self._is_waited_for and self._came is None:
            self._came = trio.Event()
            trio.lowlevel.spawn_system_task(self._keep_the_door, self._listener, self._came)

    def forget_alarms(self) -> None:
        """For the alarm of the constructor alone."""

    async def _keep_the_door(self, listener: SocketListener, came: trio.Event) -> None:
        """Send strangers away until the client comes, or nobody wants it any more."""
        try:
            self._found = await accept_beside(self._control, listener, timeouts=self._control.timeouts)
            listener.close()
        except (OSError, trio.ClosedResourceError, trio.BusyResourceError):
            pass  # the connection is not wanted, or there is no descriptor for it
        finally:
            came.set()
            if self._listener is None and self._found is not None:
                await self._found.abort()  # it came when it was not wanted any more

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._found is not None:
            self._found.drop()
            self._found = None


@dataclass(frozen=True, slots=True)
class Active:
    """We connect to the client."""

    control: Stream
    port: int

    def ready(self) -> Stream | None:
        return None

    async def wait(self) -> Stream:
        return await connect_beside(self.control, self.port, timeouts=self.control.timeouts)

    def close(self) -> None:
        """There is nothing to close."""


async def protect(data: Stream, control: Stream, *, session_required: bool, timeout: float) -> None:
    """Begin TLS on `data` in the control connection's context. Raises `DataFailed`; `data` is closed then."""
    assert control.tls is not None, "PROT P comes behind AUTH"
    try:
        await data.start_tls(control.tls.context, server_side=True, tickets=False, timeout=timeout)
    except (OSError, RemoteProtocolError, trio.BrokenResourceError) as exc:
        raise DataFailed(425, "The TLS handshake of the data connection failed.") from exc
    assert data.tls is not None, "the handshake is over"
    if session_required and not data.tls.session_reused:
        await data.abort()
        raise DataFailed(522, "The data connection has to resume the TLS session of the control connection.")
