"""Large amounts: files that are sent and received, and receives into one buffer. What `Stream` has of them.

Over plain sockets the kernel moves the bytes of files itself, in both directions. Elsewhere they are read and written
in large pieces. A thread waits for the disk, and never the event loop: see `asyncnet.transports.files`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import BinaryIO, TypeAlias

import trio

from asyncnet.errors import FileShrankError
from asyncnet.receiving import ReceivingHalf
from asyncnet.transports.base import Data, TruncatedError
from asyncnet.transports.files import (
    PIECE,
    is_cached,
    load_into_cache,
    read_at,
    read_into_now,
    write_from_pipe,
)
from asyncnet.transports.socket import HAS_SENDFILE, HAS_SPLICE, SocketTransport

if sys.platform.startswith("linux"):
    import fcntl

Progress: TypeAlias = Callable[[int], object]
"""Called with the number of bytes of each step."""

READ_NOW = 256 * 1024
"""How much of a file is read on the event loop where it is in memory, in bytes: it takes some 30 µs."""

SMALL_FILE = 64 * 1024
"""What `send_file` sends without giving others their turn, in bytes: there is a wait in what follows."""

PIPE_SIZE = 1 << 20
"""How much `receive_to_file` moves at a time, in bytes: the most that the kernel lets everybody have."""


def _widen(pipe: int) -> int:
    """Give a pipe as much room as it may have; returns how much."""
    try:
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:
        return 65536


class BulkHalf(ReceivingHalf):
    """What `Stream` has for large amounts; the public methods are its own."""

    __slots__ = ()

    async def send_file(
        self, file: BinaryIO, offset: int = 0, count: int | None = None, *, progress: Progress | None = None
    ) -> int:
        """Send `count` bytes of `file` from `offset` on (None: to its end), and return how many that were.

        Over a plain socket the kernel sends them straight from its cache; elsewhere they are read in a thread and
        sent. Either way the event loop never waits for a disk. `file` is a regular file opened for reading; its
        position does not matter and stays. `progress` is called with the number of bytes of each step.

        Raises `FileShrankError` if the file ends early (somebody has shortened it): the peer was promised more, so
        that the sending side is broken then.
        """
        if count is None:
            count = max(0, os.fstat(file.fileno()).st_size - offset)
        report = progress or (lambda sent: None)
        await self.flush()
        self._sending = True
        try:
            if HAS_SENDFILE and isinstance(self._transport, SocketTransport) and not self._taps:
                done = await self._send_file_directly(self._transport, file, offset, count, report)
            else:
                done = await self._send_file_by_reading(file, offset, count, report)
        except BaseException:
            self._give_up(self._send_failure or "a file was not sent to its end")
            raise
        finally:
            self._sending = False
        if done < count:
            self._give_up("the file that was being sent has become shorter")
            raise FileShrankError(f"the file ended {count - done} bytes before its time")
        return done

    async def _send_file_directly(
        self, transport: SocketTransport, file: BinaryIO, offset: int, count: int, report: Progress
    ) -> int:
        """By `sendfile`, piece by piece; returns how many bytes, fewer than `count` if the file ends before."""
        done = cached = 0
        while done < count:
            if done == cached:
                piece = min(count - done, PIECE)
                if not is_cached(file, offset + done, piece):
                    await trio.to_thread.run_sync(load_into_cache, file, offset + done, piece)
                cached += piece
                if count > SMALL_FILE:
                    await trio.lowlevel.checkpoint()
            sent = transport.send_file_now(file, offset + done, cached - done)
            if sent is None:
                with self._progress_deadline():
                    sent = await transport.send_file_some(file, offset + done, cached - done)
            if not sent:
                break
            done += sent
            self.bytes_out += sent
            report(sent)
        return done

    async def _send_file_by_reading(self, file: BinaryIO, offset: int, count: int, report: Progress) -> int:
        """By reading pieces in a thread, where the kernel cannot do it."""
        done = 0
        buffer = memoryview(bytearray(min(count, READ_NOW)))  # one for all of it: to make them costs more than to read
        is_long = count > SMALL_FILE
        if is_long:
            self._transport.cork(True)  # each record of TLS is a write of its own: in full segments they cost 8 % less
        try:
            while done < count:
                data: Data = buffer[: count - done]
                if not read_into_now(file, offset + done, buffer[: count - done]):
                    data = await trio.to_thread.run_sync(read_at, file, offset + done, min(count - done, PIECE))
                if not data:
                    break
                self._queue(data)
                await self._send_pending()
                done += len(data)
                report(len(data))
        finally:
            if is_long:
                self._transport.cork(False)
        return done

    async def receive_into(self, buffer: memoryview) -> int:
        """Wait for some bytes and put what has come into `buffer`; returns how many bytes, 0 at the end.

        For large amounts: no bytes object is made, and under TLS more than one record is taken. Always a checkpoint.
        """
        if self._buffer or self._outgoing or self._taps or self._receiving:
            data = await self.receive_some(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        if self._draining or self._overdue:
            self._check_interrupted()
        self._receiving = True
        self._turns = 0
        try:
            while True:
                await self._transport.wait_receivable(len(buffer))
                count = self._transport.receive_into_now(buffer)
                if count is not None:
                    self.bytes_in += count
                    return count
                self._check_interrupted()
        except (trio.ClosedResourceError, TruncatedError) as exc:
            end = self._end_of(exc)
        finally:
            self._receiving = False
        return 0 if end else await self.receive_into(buffer)

    @property
    def can_receive_to_file(self) -> bool:
        """Whether `receive_to_file` works at the moment: a plain socket, nothing buffered, and nobody watches."""
        plain = HAS_SPLICE and isinstance(self._transport, SocketTransport)
        return plain and not (self._buffer or self._outgoing or self._taps)

    async def receive_to_file(self, descriptor: int, offset: int) -> int:
        """Wait for some bytes and have the kernel write them to a regular file; returns how many, 0 at the end.

        For large amounts, where `can_receive_to_file`. At most a MiB at a time. Cancelled, it has taken nothing.
        Raises the OSErrors of writing; what was taken is lost then.
        """
        transport = self._transport
        assert isinstance(transport, SocketTransport), "can_receive_to_file tells"
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._check_interrupted()
        self._receiving = True
        self._turns = 0
        reading, writing = os.pipe()
        try:
            size = _widen(writing)
            while True:
                await transport.wait_receivable(size)
                count = transport.splice_now(writing, size)
                if count is not None:
                    break
                self._check_interrupted()
            if count:
                self.bytes_in += count
                with trio.CancelScope(shield=True):  # what was taken is written; the disk alone is waited for
                    await trio.to_thread.run_sync(write_from_pipe, reading, descriptor, offset, count)
            return count
        except trio.ClosedResourceError as exc:
            end = self._end_of(exc)
        finally:
            self._receiving = False
            os.close(reading)
            os.close(writing)
        return 0 if end else await self.receive_to_file(descriptor, offset)
