"""Listening sockets: TCP on one address or on all, Unix sockets, descriptors handed over by systemd or a parent."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import stat
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from asyncnet.errors import ConfigurationError
from asyncnet.limits import Limits
from asyncnet.transports.address import Address
from asyncnet.transports.authority import percent_encode
from asyncnet.transports.base import Listener
from asyncnet.transports.socket import SocketTransport, address_of, local_address, peer_uid, prepare

if TYPE_CHECKING:
    from asyncnet.transports.tls import TLSContext

# What accept(2) reports of a connection that has broken before it was accepted: the next one may be fine. It is tried
# after a wait, as every other event is: EPERM may come again and again.
BROKEN_BEFORE_ACCEPT = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
        errno.ETIMEDOUT,
    }
)

# What it reports when the system has no room for another connection.
NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


FREE_PORT_TRIES = 10
"""How often a free port is looked for that is free at every address."""


class SocketListener(Listener):
    """A listening, non-blocking socket, which now belongs to the listener; `unlink` is the path to remove at close."""

    __slots__ = ("__weakref__", "_descriptor", "_local", "_socket", "_unlink", "endpoint", "tls")

    def __init__(self, sock: socket.socket, *, unlink: Path | None = None) -> None:
        self._socket = sock
        self._descriptor = sock.fileno()
        self._unlink = (unlink, _identity(unlink)) if unlink is not None else None
        # The kernel only knows the name under which the socket was bound, before it was renamed.
        self._local = Address(path=str(unlink)) if unlink is not None else None
        self.endpoint = _name(local_address(sock))
        self.tls = None

    def lay_tls(self, tls: TLSContext | None) -> None:
        """Have connections begin with a TLS handshake; None: in the clear."""
        self.tls = tls
        if tls is not None:
            self.endpoint = self.endpoint.replace("tcp://", "tls://", 1).replace("unix:", "tls+unix:", 1)

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return self._descriptor != -1

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._local or local_address(self._socket)

    async def wait(self) -> None:
        await trio.lowlevel.wait_readable(self._descriptor)

    def accept_now(self) -> SocketTransport | None:
        try:
            sock, name = self._socket.accept()
        except BlockingIOError:
            return None
        except OSError as exc:
            if exc.errno in BROKEN_BEFORE_ACCEPT:
                return None
            if self._descriptor == -1:
                raise trio.ClosedResourceError("this listener was closed") from None
            raise
        sock.setblocking(False)
        try:
            return SocketTransport(sock, self._local, address_of(name, peer_uid(sock)))
        except OSError:  # it has gone again, before it could be asked who it is
            sock.close()
            return None

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """`aclose`, without a checkpoint."""
        if self._descriptor != -1:
            descriptor, self._descriptor = self._descriptor, -1
            trio.lowlevel.notify_closing(descriptor)
            self._socket.close()
            if self._unlink is not None and _identity(self._unlink[0]) == self._unlink[1]:
                self._unlink[0].unlink(missing_ok=True)


def _name(address: Address) -> str:
    return f"unix:{percent_encode(address.path)}" if address.path is not None else f"tcp://{address}"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


async def listen_tcp(
    host: str, port: int, *, reuse_port: bool = False, backlog: int = Limits().backlog
) -> list[SocketListener]:
    """Listen on every address of `host` ("*": all interfaces, IPv6 and IPv4) that this machine has, all on one port.

    Raises `ConfigurationError` if the name is unknown, the port is in use or needs a privilege.
    """
    places = await _resolve(host, port)
    tries = 1 if port else FREE_PORT_TRIES
    while True:
        tries -= 1
        try:
            return await _listen_at(places, host, port, reuse_port=reuse_port, backlog=backlog)
        except ConfigurationError as exc:
            if not tries or not isinstance(exc.__cause__, OSError) or exc.__cause__.errno != errno.EADDRINUSE:
                raise


async def _listen_at(
    places: list[tuple[socket.AddressFamily, tuple[object, ...]]],
    host: str,
    port: int,
    *,
    reuse_port: bool,
    backlog: int,
) -> list[SocketListener]:
    listeners: list[SocketListener] = []
    lacking: OSError | None = None
    try:
        for family, address in places:
            address = (address[0], port or listeners_port(listeners), *address[2:])
            try:
                listeners.append(_bind(family, address, reuse_port=reuse_port, backlog=backlog))
            except OSError as exc:
                if exc.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise ConfigurationError(_why_not(exc, host, port)) from exc
                lacking = exc  # a machine without IPv6, where names may still have such an address
    except BaseException:
        for listener in listeners:
            await trio.aclose_forcefully(listener)
        raise
    if not listeners:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: this machine does not have that address"
        ) from lacking
    return listeners


def listeners_port(listeners: list[SocketListener]) -> int:
    """The port that port 0 became for the first address: the others take the same."""
    return (listeners[0].address.port or 0) if listeners else 0


async def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    if host == "*":
        return [(socket.AF_INET6, ("::", port)), (socket.AF_INET, ("0.0.0.0", port))]
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise ConfigurationError(f"cannot listen on {host}: {exc.strerror or exc}") from exc
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bind(
    family: socket.AddressFamily, address: tuple[object, ...], *, reuse_port: bool, backlog: int
) -> SocketListener:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        prepare(sock)
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            if not hasattr(socket, "SO_REUSEPORT"):
                raise ConfigurationError("this platform has no reuse_port: leave the option out")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return SocketListener(sock)


BESIDE_BACKLOG = 16
"""How many connections wait on a listener that is meant for one: strangers must not keep that one out."""


def listen_at(local: Address, ports: Sequence[int] = ()) -> SocketListener:
    """Listen on the address of `local`, on a free port among `ports`, or on any: for one connection that is awaited.

    Which one is random: whoever wants to come first has to guess. At once, without a name to look up. Raises OSError,
    with EADDRINUSE if none is free, and EAFNOSUPPORT where `local` is not of TCP.
    """
    if local.host is None:
        raise OSError(errno.EAFNOSUPPORT, "there is no network here")
    family = socket.AF_INET6 if ":" in local.host else socket.AF_INET
    for port in _in_random_order(ports) if ports else _any_port():
        try:
            return _bind(family, local.socket_name(port), reuse_port=False, backlog=BESIDE_BACKLOG)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, "all ports are in use")


def _in_random_order(ports: Sequence[int]) -> Iterator[int]:
    start = secrets.randbelow(len(ports))
    return (ports[(start + step) % len(ports)] for step in range(len(ports)))


def _any_port() -> Iterator[int]:
    """Some dynamic ports (RFC 6335 section 6), then the kernel's choice, which takes long after many connections."""
    yield from (49152 + secrets.randbelow(16384) for _ in range(20))
    yield 0


def _why_not(exc: OSError, host: str, port: int) -> str:
    place = f"cannot listen on {host}:{port}"
    match exc.errno:
        case errno.EADDRINUSE:
            return f"{place}: the port is in use; stop what listens there, or take another port (0 takes a free one)"
        case errno.EACCES:
            return f"{place}: not permitted; ports below 1024 need root, CAP_NET_BIND_SERVICE or socket activation"
        case _:
            return f"{place}: {exc.strerror or exc}"


def listen_unix(path: str, *, mode: int | None = None, backlog: int = Limits().backlog) -> SocketListener:
    """Listen on a Unix socket; a stale one in its place is replaced, a live one is not.

    The socket is bound under a temporary name beside `path`, given its `mode`, and then renamed, so that nobody
    connects before the permissions hold. Raises `ConfigurationError` if something else is there, or lives.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigurationError(f"cannot listen on unix:{path}: this platform has no Unix sockets")
    place = Path(path)
    _make_way(place)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    # Short, since the system takes few characters. What is there was left by a process that had our number.
    temporary = place.with_name(f".{os.getpid():x}")
    try:
        temporary.unlink(missing_ok=True)
        sock.bind(str(temporary))
        try:
            if mode is not None:
                temporary.chmod(mode)
            sock.listen(backlog)
            temporary.rename(place)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as exc:
        sock.close()
        raise ConfigurationError(f"cannot listen on unix:{path}: {exc.strerror or exc}") from exc
    listener = SocketListener(sock, unlink=place.absolute())
    listener.endpoint = f"unix:{percent_encode(path)}"
    return listener


def _make_way(place: Path) -> None:
    """See to it that at `place` there is nothing, or a stale socket, which the rename will replace."""
    try:
        if not stat.S_ISSOCK(place.lstat().st_mode):
            raise ConfigurationError(f"cannot listen on unix:{place}: something that is no socket is there")
    except FileNotFoundError:
        return
    except OSError as exc:
        raise ConfigurationError(f"cannot listen on unix:{place}: {exc.strerror}") from exc
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(place))
        except ConnectionRefusedError:
            return  # stale: nobody listens
        except BlockingIOError:
            pass  # alive, with a full backlog
        except OSError as exc:
            raise ConfigurationError(f"cannot listen on unix:{place}: {exc.strerror}") from exc
    raise ConfigurationError(f"cannot listen on unix:{place}: another program listens there")


def listen_descriptor(descriptor: int) -> SocketListener:
    """Listen on a socket that was opened by whoever started this process. Raises `ConfigurationError`."""
    other = _handed_over.get(descriptor)
    if other is not None and other.is_open:
        raise ConfigurationError(f"descriptor {descriptor} is named twice: it can be listened on once")
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as exc:
        raise ConfigurationError(f"descriptor {descriptor} is no socket: {exc.strerror}") from exc
    try:
        listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        listens = False
    if not listens:
        sock.detach()
        raise ConfigurationError(f"descriptor {descriptor} is no listening stream socket")
    os.set_inheritable(descriptor, False)
    prepare(sock)
    listener = _handed_over[descriptor] = SocketListener(sock)
    return listener


_handed_over: weakref.WeakValueDictionary[int, SocketListener] = weakref.WeakValueDictionary()
"""The listeners on sockets that were not opened here. Two objects cannot own one descriptor."""

FIRST_PASSED = 3
"""The first descriptor of socket activation: sd_listen_fds(3)."""


def listen_systemd(name: str) -> list[SocketListener]:
    """Listen on the sockets that systemd passed under `name` (FileDescriptorName=, sd_listen_fds(3)).

    Raises `ConfigurationError` if there are none.
    """
    environment = os.environ
    if environment.get("LISTEN_PID") != str(os.getpid()):
        raise ConfigurationError(f"systemd:{name}: systemd has passed no sockets to this process")
    try:
        count = int(environment.get("LISTEN_FDS", ""))
    except ValueError:
        raise ConfigurationError("LISTEN_FDS is not a number") from None
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    names += ["unknown"] * (count - len(names))
    found = [FIRST_PASSED + i for i in range(count) if names[i] == name]
    if not found:
        had = ", ".join(sorted(set(names[:count]))) or "none"
        raise ConfigurationError(f"systemd:{name}: no socket of that name; the names passed are: {had}")
    return [listen_descriptor(descriptor) for descriptor in found]
