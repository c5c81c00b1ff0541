"""A second connection beside one that is there: FTP's data connections, on both sides.

It lies between the same two machines as the first, also where a PROXY header told of others: this end has the first
one's address, and so has the other, or it is a stranger.
"""

from __future__ import annotations

from collections.abc import Sequence

from asyncnet.limits import Timeouts
from asyncnet.stream import Stream
from asyncnet.transports.address import Address
from asyncnet.transports.connecting import connect_between
from asyncnet.transports.listening import BESIDE_BACKLOG, SocketListener, listen_at


def listen_beside(stream: Stream, ports: Sequence[int] = ()) -> SocketListener:
    """Listen on this end's address, on a free one of `ports`, or on any. At once. Raises OSError."""
    return listen_at(stream.hop[0], ports)


async def accept_beside(stream: Stream, listener: SocketListener, *, timeouts: Timeouts = Timeouts()) -> Stream:
    """The first connection that comes from the peer of `stream`; strangers are sent away. Waits without a limit."""
    while True:
        connection = accept_beside_now(stream, listener, timeouts=timeouts)
        if connection is not None:
            return connection
        await listener.wait()


def accept_beside_now(stream: Stream, listener: SocketListener, *, timeouts: Timeouts = Timeouts()) -> Stream | None:
    """The same, if it has come already; else None."""
    for _ in range(BESIDE_BACKLOG):  # there may always be one stranger more
        transport = listener.accept_now()
        if transport is None:
            break
        if transport.peer.host == stream.hop[1].host:
            return Stream(transport, timeouts)
        transport.drop()
    return None


async def connect_beside(
    stream: Stream, port: int, *, host: str | None = None, timeouts: Timeouts = Timeouts()
) -> Stream:
    """Connect to `port` of the peer of `stream`, or of `host` (a numeric address). Raises OSError."""
    local, peer = stream.hop
    where = Address.of_ip(host, port) if host is not None else Address(peer.host, port, peer.scope)
    return Stream(await connect_between(local, where), timeouts)
