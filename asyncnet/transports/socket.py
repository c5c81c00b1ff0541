"""TCP and Unix sockets, straight on the non-blocking socket.

Theory of operation
===================

`trio.SocketStream` tries `recv` first and waits when there is nothing, so that a request-response protocol pays for
a failed system call and for an extra schedule each time. Here a receive waits first and then reads: the wait is the
checkpoint. A send tries first, since there is nearly always room, and costs no schedule at all.

What could go wrong, and why it does not:

- *The descriptor's number is used again.* It is kept as an integer and set to -1 before the socket closes; whoever
  waits on it is told by `trio.lowlevel.notify_closing`, and sees -1. Who waits for `readiness` is told alike.
- *`wake`.* The same ends a wait without closing anything. The receiver looks whether the descriptor is still
  open; a sender that waits at that moment on the same descriptor just waits again.
- *Readable, and yet nothing to read.* Linux may say so for a moment; the receive waits again.
- *A reset on close.* `SO_LINGER` with no time makes the kernel send RST instead of FIN: `abort` uses it, so that a
  peer can tell an answer that was cut off from one that ended.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Coroutine
from typing import Any, BinaryIO

import outcome
import trio
from trio.lowlevel import (
    Abort,
    RaiseCancelT,
    Task,
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    current_task,
    notify_closing,
    reschedule,
    wait_readable,
    wait_task_rescheduled,
    wait_writable,
)

from asyncnet.transports.address import NOWHERE, Address
from asyncnet.transports.base import RECEIVE_SIZE, Data, Transport
from asyncnet.transports.readiness import HAS_EPOLL, Readiness, readiness_of_this_run

if sys.platform.startswith("linux"):
    import fcntl
    import termios

HAS_SENDFILE = hasattr(os, "sendfile")
HAS_SPLICE = hasattr(os, "splice")

UNSENT_LOW_WATER = 128 * 1024
"""How much the kernel holds that has not left yet before it calls a TCP socket full, in bytes."""

SEND_FILE_STEP = 512 * 1024
"""How much one `sendfile` is given, in bytes: over loopback it cost the least; 1 MiB and 2 MiB were slower again."""


class DescriptorTransport(Transport):
    """What plain sockets and TLS on a socket share: the descriptor, waiting on it, closing it."""

    __slots__ = ("_descriptor", "_ended", "_known_to_trio", "_readiness", "_sending", "_socket", "is_watched", "reader")

    can_batch = True
    can_cancel_send = True

    def __init__(self, sock: socket.socket, local: Address | None = None, peer: Address | None = None) -> None:
        super().__init__(local, peer)
        self._socket = sock
        self._descriptor = sock.fileno()
        self._sending = False
        self._ended = False
        self._known_to_trio = False  # whether it was asked to wait; telling it of the end costs a system call
        self._readiness: Readiness | None = None  # of this run, once it was asked
        self.is_watched = False
        self.reader: Task | None = None

    @property
    def local(self) -> Address:
        if self._local is None:
            self._local = local_address(self._socket)
        return self._local

    @property
    def peer(self) -> Address:
        if self._peer is None:
            self._peer = peer_address(self._socket)
        return self._peer

    def undelivered(self) -> int:
        if self._descriptor == -1 or not sys.platform.startswith("linux"):
            return 0
        try:
            # SIOCOUTQ of tcp(7), which has the number of TIOCOUTQ.
            packed = fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, bytes(4))
        except OSError:
            return 0
        return int(struct.unpack("i", packed)[0])

    def cork(self, on: bool) -> None:
        if self._descriptor != -1 and hasattr(socket, "TCP_CORK") and self._socket.family != socket.AF_UNIX:
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)
            except OSError:
                pass  # it is broken already

    def take_urgent_inline(self) -> None:
        if self._socket.family in (socket.AF_INET, socket.AF_INET6):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)

    @property
    def is_open(self) -> bool:
        return self._descriptor != -1

    def wait_receivable(self, max_bytes: int) -> Coroutine[Any, Any, None]:
        if self._descriptor == -1:
            raise trio.ClosedResourceError("this connection was closed")
        if HAS_EPOLL:
            readiness = self._readiness
            if readiness is None:
                readiness = self._readiness = readiness_of_this_run()
            readiness.waits += 1
            if readiness.is_crowded and (self.is_watched or readiness.watch(self._descriptor, self)):
                if self.reader is not None:
                    raise trio.BusyResourceError("another task is receiving from this connection")
                self.reader = current_task()
                return wait_task_rescheduled(self._cancel_wait)
        return self._wait_readable()

    def _cancel_wait(self, raise_cancel: RaiseCancelT) -> Abort:
        self.reader = None
        return Abort.SUCCEEDED

    def _unwatch(self) -> None:
        if self.is_watched and self._readiness is not None:
            self._readiness.unwatch(self._descriptor)

    def wake(self) -> None:
        if self.reader is not None:
            reschedule(self.reader, outcome.Error(trio.ClosedResourceError("this wait was ended")))
            self.reader = None
        elif self._known_to_trio and self._descriptor != -1:
            notify_closing(self._descriptor)

    def _wait_readable(self) -> Coroutine[Any, Any, None]:
        self._known_to_trio = True
        return wait_readable(self._descriptor)

    async def _wait_writable(self) -> None:
        self._known_to_trio = True
        while True:
            try:
                return await wait_writable(self._descriptor)
            except trio.ClosedResourceError:
                if self._descriptor == -1:
                    raise

    async def send_all(self, data: Data) -> None:
        self._begin_send()
        try:
            await checkpoint_if_cancelled()
            with memoryview(data) as view:
                sent = self.send_now(view) if view else 0
                while sent < len(view):
                    with view[sent:] as rest:
                        sent += await self.send_some(rest)
            await cancel_shielded_checkpoint()
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        self._begin_send()
        try:
            await self._wait_writable()
        finally:
            self._sending = False

    def _begin_send(self) -> None:
        if self._descriptor == -1:
            raise trio.ClosedResourceError("this connection was closed")
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this connection")
        if self._ended:
            raise trio.ClosedResourceError("this side has ended already")
        self._sending = True

    def _failure(self, exc: OSError) -> Exception:
        """The error of Trio's that an error of the operating system means for this stream."""
        if self._descriptor == -1:
            return trio.ClosedResourceError("this connection was closed")
        return trio.BrokenResourceError(f"the connection broke: {exc.strerror or exc}")

    def close_now(self) -> None:
        """Close, as `aclose` does, without a checkpoint and without a word."""
        if self._descriptor != -1:
            if self.reader is not None:
                self.wake()
            self._unwatch()
            descriptor, self._descriptor = self._descriptor, -1
            if self._known_to_trio:
                notify_closing(descriptor)
            self._socket.close()

    async def aclose(self) -> None:
        self.close_now()
        await checkpoint()

    def finish_sending(self) -> None:
        """Tell the peer that nothing more will come, as far as that works, for a lingering close."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone: `discard` will see that

    async def discard(self, limit: int) -> None:
        """Receive and drop what still arrives, below TLS, until the peer ends or `limit` bytes have come.

        Raises `trio.BrokenResourceError` if the connection breaks.
        """
        while limit > 0:
            try:
                await self._wait_readable()
                count = len(socket.socket.recv(self._socket, RECEIVE_SIZE))
            except BlockingIOError:
                continue
            except OSError as exc:
                raise self._failure(exc) from exc
            if not count:
                return
            limit -= count

    def check_unbroken(self) -> None:
        """Raise `trio.BrokenResourceError` if the system knows by now that the connection broke."""
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if self._descriptor != -1 else 0
        if error:
            raise trio.BrokenResourceError(f"the connection broke: {os.strerror(error)}")

    async def abort(self) -> None:
        self.drop()

    def drop(self) -> None:
        """`abort`, for those who cannot wait even for nothing."""
        if self._descriptor != -1:
            reset_on_close(self._socket)
        self.close_now()


class SocketTransport(DescriptorTransport):
    """A connected, non-blocking stream socket, which now belongs to the transport."""

    __slots__ = ()

    can_half_close = True

    def receive_now(self, max_bytes: int) -> bytes | None:
        try:
            return self._socket.recv(max_bytes)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise self._failure(exc) from exc

    def receive_into_now(self, buffer: memoryview) -> int | None:
        try:
            return self._socket.recv_into(buffer)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise self._failure(exc) from exc

    def send_now(self, data: Data) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise self._failure(exc) from exc

    async def send_some(self, data: Data) -> int:
        while True:
            await self._wait_writable()
            sent = self.send_now(data)
            if sent:
                return sent

    def send_file_now(self, file: BinaryIO, offset: int, count: int) -> int | None:
        """Send some bytes of `file` straight from the kernel's cache; None: it must wait; 0: the file ends there.

        Needs `HAS_SENDFILE`, and the pages in memory: else this blocks on the disk. Not a checkpoint.
        """
        try:
            return os.sendfile(self._descriptor, file.fileno(), offset, min(count, SEND_FILE_STEP))
        except BlockingIOError:
            return None
        except OSError as exc:
            raise self._failure(exc) from exc

    async def send_file_some(self, file: BinaryIO, offset: int, count: int) -> int:
        """The same, but wait until there is room for some."""
        while True:
            await self._wait_writable()
            sent = self.send_file_now(file, offset, count)
            if sent is not None:
                return sent

    def splice_now(self, pipe: int, max_bytes: int) -> int | None:
        """Have the kernel move what has arrived into a pipe, whose room is not to be filled by it; 0 is the end."""
        try:
            return os.splice(self._descriptor, pipe, max_bytes, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise self._failure(exc) from exc

    async def send_eof(self) -> None:
        if not self._ended:
            self._begin_send()
            self._sending = False
            self._ended = True
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError as exc:
                raise self._failure(exc) from exc
        await checkpoint()

    def release(self) -> socket.socket:
        """The socket, which no longer belongs to this transport: TLS is about to be laid on it."""
        self._unwatch()
        self._descriptor = -1
        return self._socket


def prepare(sock: socket.socket) -> None:
    """Set the options of every TCP socket of asyncnet. On Linux a connection inherits them from its listener."""
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_LOW_WATER)


def reset_on_close(sock: socket.socket | trio.socket.SocketType) -> None:
    """Make the coming close of `sock` a reset."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass  # it is broken already


def address_of(name: tuple[object, ...] | str | bytes, uid: int | None = None) -> Address:
    """The `Address` for what `accept`, `getsockname` or `getpeername` gives."""
    if isinstance(name, tuple):
        host, port = str(name[0]), int(str(name[1]))
        scope = name[3] if len(name) > 3 else 0
        if scope and "%" not in host:
            host = f"{host}%{scope}"
        return Address.of_ip(host, port)
    if isinstance(name, bytes):  # Linux's abstract names
        name = os.fsdecode(name).replace("\0", "@")
    return Address(path=name, uid=uid)


def local_address(sock: socket.socket | trio.socket.SocketType) -> Address:
    try:
        return address_of(sock.getsockname())
    except OSError:
        return NOWHERE


def peer_address(sock: socket.socket | trio.socket.SocketType) -> Address:
    try:
        return address_of(sock.getpeername(), peer_uid(sock))
    except OSError:
        return NOWHERE  # it has gone again


def peer_uid(sock: socket.socket | trio.socket.SocketType) -> int | None:
    """The user at the other end of a Unix socket; None elsewhere, and where the platform does not tell."""
    if sock.family != getattr(socket, "AF_UNIX", None) or not hasattr(socket, "SO_PEERCRED"):
        return None
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return int(uid)
