"""Files on their way out and in: never a wait for the disk on the event loop.

`os.sendfile` on a non-blocking socket still blocks on a page that is not in memory. So a file goes out piece by piece;
before each, its first byte and its last one are read with `RWF_NOWAIT`, which fails instead of waiting. (One byte would
prove one page; read-ahead loads megabytes as a whole, so this is good evidence.) Where a page is missing, or the file
system cannot say (network file systems, other platforms), a thread reads the piece first, and then it is sent. A tmpfs
cannot say either, but has no disk, unless there is swap.

On the way in the kernel moves what has arrived into a pipe, on the event loop, and from there into the file, in a
thread: no byte passes through this process.
"""

from __future__ import annotations

import errno
import os
from functools import cache
from typing import BinaryIO

PIECE = 1 << 20
"""How much of a file is looked at, read or sent at a time, in bytes, before others have their turn: with four times as
much one of 200 connections got all at six times the speed of another."""

_NOWAIT = getattr(os, "RWF_NOWAIT", None)


def is_cached(file: BinaryIO, offset: int, count: int) -> bool:
    """Whether the piece seems to be in memory (see above); False also where nobody knows. Does not wait."""
    if _NOWAIT is None:
        return False
    byte = [bytearray(1)]
    try:
        return all(os.preadv(file.fileno(), byte, at, _NOWAIT) == 1 for at in (offset, offset + count - 1))
    except OSError as exc:  # EAGAIN: not in memory; EOPNOTSUPP: no such question here
        return exc.errno == errno.EOPNOTSUPP and _is_memory(os.fstat(file.fileno()).st_dev)


@cache
def _is_memory(device: int) -> bool:
    """Whether the file system with this number (`st_dev`) is a tmpfs that cannot be swapped out."""
    try:
        with open("/proc/swaps", "rb") as swaps:
            if len(swaps.readlines()) > 1:
                return False
        with open("/proc/self/mountinfo", "rb") as mounts:
            number = b"%d:%d" % (os.major(device), os.minor(device))
            return any(fields[2] == number and b" - tmpfs " in line for line in mounts if (fields := line.split()))
    except OSError:
        return False


def read_now(file: BinaryIO, offset: int, count: int) -> bytes | None:
    """`count` bytes from `offset` on if all of them are in memory; None if not, or if nobody knows. Does not wait."""
    data = bytearray(count)
    return bytes(data) if read_into_now(file, offset, memoryview(data)) else None


def read_into_now(file: BinaryIO, offset: int, buffer: memoryview) -> bool:
    """The same into `buffer`, as much as that holds; whether it did."""
    if not buffer:
        return True
    if _NOWAIT is None:
        return False
    try:
        done = os.preadv(file.fileno(), [buffer], offset, _NOWAIT)
    except OSError as exc:  # as above
        if exc.errno != errno.EOPNOTSUPP or not _is_memory(os.fstat(file.fileno()).st_dev):
            return False
        done = os.preadv(file.fileno(), [buffer], offset)
    return done == len(buffer)


def load_into_cache(file: BinaryIO, offset: int, count: int) -> None:
    """Read the piece so that its pages are in memory. Waits for the disk: call it in a thread."""
    read_at(file, offset, count)


def write_from_pipe(pipe: int, descriptor: int, offset: int, count: int) -> None:
    """Write `count` bytes that wait in a pipe to a file at `offset`. Waits for the disk: call it in a thread."""
    while count > 0:
        try:
            moved = os.splice(pipe, descriptor, count, offset_dst=offset)
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
            moved = os.pwrite(descriptor, os.read(pipe, min(count, 1 << 16)), offset)  # it cannot be spliced to
        offset += moved
        count -= moved


def read_at(file: BinaryIO, offset: int, count: int) -> bytes:
    """Up to `count` bytes from `offset` on; fewer only at the file's end. Waits for the disk: call it in a thread."""
    if hasattr(os, "pread"):
        pieces = []
        while count > 0 and (piece := os.pread(file.fileno(), count, offset)):
            pieces.append(piece)
            offset += len(piece)
            count -= len(piece)
        return b"".join(pieces)
    file.seek(offset)
    return file.read(count)
