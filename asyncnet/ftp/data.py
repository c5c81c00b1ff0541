"""The server's data connections: where the next one comes from, and how it begins. RFC 959 section 3.2, RFC 2428, 4217.

What could go wrong, and why it does not:

- *Bounce.* PORT and EPRT name the peer of the control connection and a port from 1024 on, or are refused (RFC 2577).
- *Theft.* A passive port is a random one; only the peer of the control connection is let in; the listener closes as
  soon as it has come. Strangers are sent away, and do not use up the one that is awaited.
- *An upload that its own client destroys.* One that only writes never reads TLS's tickets, so that the kernel resets
  the connection when it closes: there are none on data connections.
- *A TLS session of somebody else.* Where sessions are demanded, AUTH TLS gives each control connection a context of its
  own, in which only its own sessions can be resumed. Those of `tls://` endpoints share one: there any session of this
  server's will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from asyncnet.beside import accept_beside, accept_beside_now, connect_beside, listen_beside
from asyncnet.errors import RemoteProtocolError
from asyncnet.stream import Stream
from asyncnet.transports.listening import SocketListener


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

    def ready(self) -> Stream | None:
        assert self._listener is not None, "a source is asked once"
        stream = accept_beside_now(self._control, self._listener, timeouts=self._control.timeouts)
        if stream is not None:
            self.close()
        return stream

    async def wait(self) -> Stream:
        assert self._listener is not None, "a source is asked once"
        try:
            return await accept_beside(self._control, self._listener, timeouts=self._control.timeouts)
        finally:
            self.close()

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None


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
