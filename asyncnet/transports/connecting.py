"""Connecting sockets: Happy Eyeballs for TCP, by Trio; a plain connect for Unix sockets."""

from __future__ import annotations

import os
import socket

import trio

from asyncnet.transports.address import Address
from asyncnet.transports.socket import SocketTransport, peer_uid, prepare


async def connect_tcp(host: str, port: int) -> SocketTransport:
    """Connect to the first of `host`'s addresses that answers (RFC 8305). Raises OSError if none does."""
    try:
        stream = await trio.open_tcp_stream(host, port)
    except socket.gaierror as exc:
        raise OSError(exc.errno, f"the name {host} is not known: {exc.strerror}") from exc
    except OSError as exc:
        raise _plain(exc, f"{host}:{port}") from exc
    sock = socket.socket(fileno=stream.socket.detach())
    prepare(sock)
    return SocketTransport(sock)


def _plain(exc: OSError, place: str) -> OSError:
    """One error with the first attempt's reason: Trio wraps them all in a group without a number of its own."""
    cause: BaseException | None = exc
    while cause is not None and not (isinstance(cause, OSError) and cause.errno):
        inner = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__
        cause = inner
    if cause is None:
        return OSError(f"cannot connect to {place}: {exc}")
    assert isinstance(cause, OSError)
    return type(cause)(cause.errno, f"cannot connect to {place}: {os.strerror(cause.errno or 0)}")


async def connect_unix(path: str) -> SocketTransport:
    """Connect to the Unix socket at `path`. Raises OSError."""
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            await sock.connect(path)
        except OSError as exc:
            raise type(exc)(exc.errno, f"cannot connect to unix:{path}: {exc.strerror}") from exc
        connected = socket.socket(fileno=sock.detach())
    connected.setblocking(False)
    # The kernel would tell the name under which the socket was bound, which may have been another.
    return SocketTransport(connected, peer=Address(path=path, uid=peer_uid(connected)))


async def connect_between(local: Address, peer: Address) -> SocketTransport:
    """Connect from the address of `local`, on any port, to `peer`. Both are of TCP. Raises OSError."""
    family = socket.AF_INET6 if ":" in (peer.host or "") else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            if local.host is not None:
                if hasattr(socket, "IP_BIND_ADDRESS_NO_PORT"):  # the port is chosen with the peer in view
                    sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
                await sock.bind(local.socket_name(port=0))
            await sock.connect(peer.socket_name())
        except OSError as exc:
            raise type(exc)(exc.errno, f"cannot connect to {peer}: {exc.strerror}") from exc
        connected = socket.socket(fileno=sock.detach())
    prepare(connected)
    return SocketTransport(connected)
