"""Whole files: `FTPClient.download` and `upload`, with resume, progress, hashes and times. Used by `ftp.client` alone.

The disk is waited for in threads, in pieces of a MiB. A download has `.part` behind its name until it is whole.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import trio

from asyncnet.errors import AsyncnetError, LocalProtocolError, RemoteProtocolError
from asyncnet.replies import PermanentReplyError

if TYPE_CHECKING:
    from asyncnet.ftp.client import FTPClient

Progress: TypeAlias = Callable[[int, int | None], object]
"""Called with how many bytes of a file have been moved (those that were there before a resume count), and how many it
has, None where nobody knows."""

PIECE = 1 << 20
"""How much is read from or written to the disk at a time, in bytes."""

SMALL_PIECE = 1 << 16
"""The same for small files."""

DISK_TIME = 5.0
"""How many seconds the disk has for what is written and closed after a cancellation."""

PART = ".part"
"""What stands behind the name of a file that is not whole."""

LONGEST_NAME = 255
"""How long a name may be in nearly all file systems, in bytes."""

ALGORITHMS = ("SHA-512", "SHA-256", "SHA-1", "MD5", "CRC32")
"""What a hash can be made by, the best first."""


class HashMismatch(AsyncnetError):
    """What was moved is not the same at both ends."""


async def download(
    ftp: FTPClient,
    path: str,
    target: str | os.PathLike[str],
    resume: bool,
    progress: Progress | None,
    verify: bool,
    *,
    suffix: str = PART,
) -> int:
    """Receive `path` into the file `target`, which appears when it is whole; until then it has `suffix` behind it."""
    place = Path(target)
    part = part_of(place, suffix)
    if await trio.to_thread.run_sync(place.is_dir):
        raise IsADirectoryError(errno.EISDIR, "a folder: name the file in it", str(place))
    file = await trio.to_thread.run_sync(_open_part, part, resume)
    try:
        moved = await download_into(ftp, path, file, resume, progress, verify)
    except HashMismatch:
        await trio.to_thread.run_sync(part.unlink)  # no resume would mend it
        raise
    finally:
        await close(file)
    await trio.to_thread.run_sync(os.replace, part, place)
    return moved


def part_of(place: Path, suffix: str = PART) -> Path:
    """Where a file is until it is whole; a name too long for something behind it is replaced by its hash."""
    name = os.fsencode(place.name)
    is_long = len(name) + len(suffix) > LONGEST_NAME
    return place.with_name((hashlib.blake2b(name, digest_size=16).hexdigest() if is_long else place.name) + suffix)


async def close(file: BinaryIO) -> None:
    """Close a file that has nothing to write any more, also when cancelled."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + DISK_TIME):
        await trio.to_thread.run_sync(file.close)


_PART_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def _open_part(part: Path, resume: bool) -> BinaryIO:
    """Open for writing what is a plain file of ours with one name: nobody is to lead us elsewhere, or to read along."""
    descriptor = os.open(part, _PART_FLAGS | getattr(os, "O_NONBLOCK", 0), 0o666)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or not _is_trusted(status, part):
            raise FileExistsError(errno.EEXIST, "somebody else's, or no plain file with one name: remove it", str(part))
        if not resume:
            os.ftruncate(descriptor, 0)
        return os.fdopen(descriptor, "r+b")
    except BaseException:
        os.close(descriptor)
        raise


def _is_trusted(status: os.stat_result, part: Path) -> bool:
    """Whether it is our own file, or that of the folder's owner, who may do there what he likes anyway."""
    return os.name == "nt" or status.st_uid in (os.geteuid(), part.parent.stat().st_uid)


async def download_into(
    ftp: FTPClient, path: str, file: BinaryIO, resume: bool, progress: Progress | None, verify: bool
) -> int:
    """Receive `path` into `file`; with `resume` behind what it holds."""
    algorithm = await ftp.best_hash() if verify else None
    size = await _size(ftp, path)
    offset = await trio.to_thread.run_sync(file.seek, 0, os.SEEK_END) if resume else 0
    if size is not None and offset > size:
        offset = 0  # that is another file
        await trio.to_thread.run_sync(_empty, file)
    report = progress or (lambda done, whole: None)
    report(offset, size)
    moved = 0
    if size is None or offset < size or not offset:
        moved = await _receive(ftp, path, file, offset, size, report)
    if algorithm is not None:
        await _verify(ftp, path, file, algorithm)
    return moved


async def _size(ftp: FTPClient, path: str) -> int | None:
    """The size, where the server can tell it; what is wrong with the file, the transfer will say."""
    try:
        return await ftp.size(path)
    except PermanentReplyError:
        return None


async def _receive(ftp: FTPClient, path: str, file: BinaryIO, offset: int, size: int | None, report: Progress) -> int:
    moved = 0
    async with ftp.retrieve(path, offset=offset, size=size) as stream:
        buffer = memoryview(bytearray(PIECE if size is None else min(PIECE, max(size - offset, SMALL_PIECE))))
        filled = 0
        try:
            while True:
                stream.deadline = trio.current_time() + ftp.timeout
                count = await stream.receive_into(buffer[filled:])
                filled += count
                if filled == len(buffer) or not count:
                    await trio.lowlevel.checkpoint_if_cancelled()  # with it still `filled`
                    ready, filled = buffer[:filled], 0
                    await trio.to_thread.run_sync(_write, file, ready)
                if not count:
                    break
                moved += count
                report(offset + moved, size)
        finally:
            if filled:  # broken off: what has come is what a resume goes on from
                with trio.CancelScope(shield=True, deadline=trio.current_time() + DISK_TIME):
                    await trio.to_thread.run_sync(_write, file, buffer[:filled])
    return moved


def _write(file: BinaryIO, data: memoryview) -> None:
    while data:  # a raw file may take less
        data = data[file.write(data) or len(data) :]
    file.flush()


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


async def upload(
    ftp: FTPClient, source: str | os.PathLike[str], path: str, resume: bool, progress: Progress | None, verify: bool
) -> tuple[int, float]:
    """Send the file `source` to `path`; returns the bytes moved, and when the file had last been changed before."""
    file = await trio.to_thread.run_sync(open, source, "rb")
    try:
        modified = os.fstat(file.fileno()).st_mtime
        return await upload_from(ftp, file, path, resume, progress, verify), modified
    finally:
        await close(file)


async def upload_from(
    ftp: FTPClient, file: BinaryIO, path: str, resume: bool, progress: Progress | None, verify: bool
) -> int:
    """Send `file` to `path`; with `resume` what the server does not have."""
    algorithm = await ftp.best_hash() if verify else None
    size = await trio.to_thread.run_sync(_size_of, file)
    offset = 0
    if resume:
        if size is None:
            raise LocalProtocolError("a file without a size cannot be resumed")
        had = await _size(ftp, path)
        offset = had if had is not None and had <= size else 0
    report = progress or (lambda done, whole: None)
    report(offset, size)
    moved = 0
    if not offset or offset != size:
        moved = await _send(ftp, file, path, offset, size, report)
    if offset and moved and (has := await _size(ftp, path)) not in (None, offset + moved):
        raise RemoteProtocolError(f"STOR {path}: the server has {has} bytes there, not {offset + moved}: send it whole")
    if algorithm is not None:
        await _verify(ftp, path, file, algorithm)
    return moved


async def _send(ftp: FTPClient, file: BinaryIO, path: str, offset: int, size: int | None, report: Progress) -> int:
    moved = 0

    def count(step: int) -> None:
        nonlocal moved
        moved += step
        report(offset + moved, size)

    is_plain = await trio.to_thread.run_sync(_is_regular, file)
    async with ftp.store(path, offset=offset) as stream:
        if is_plain:
            await stream.send_file(file, offset, progress=count)
        else:
            if size is not None:
                await trio.to_thread.run_sync(file.seek, offset)
            while data := await trio.to_thread.run_sync(file.read, PIECE):
                await stream.send_all(data)
                count(len(data))
    return moved


def _is_regular(file: BinaryIO) -> bool:
    """Whether the kernel may send it: a regular file, and what its reader gets (gzip, say, has a `fileno` too)."""
    raw = file.raw if isinstance(file, (io.BufferedReader, io.BufferedRandom)) else file
    return type(raw) is io.FileIO and stat.S_ISREG(os.fstat(raw.fileno()).st_mode)


def _size_of(file: BinaryIO) -> int | None:
    try:
        if not file.seekable():
            return None
        place = file.tell()
        size = file.seek(0, os.SEEK_END)
        file.seek(place)
        return size
    except OSError:
        return None


async def _verify(ftp: FTPClient, path: str, file: BinaryIO, algorithm: str) -> None:
    """Compare the hashes at both ends."""
    theirs = await ftp.hash(path, algorithm)
    ours = await trio.to_thread.run_sync(local_hash, file, algorithm)
    if ours != theirs:
        raise HashMismatch(f"{algorithm} of what was moved is {ours} here and {theirs} there")


def local_hash(file: BinaryIO, algorithm: str) -> str:
    """The hash of a whole file, in lower-case hexadecimal digits. Waits for the disk: call it in a thread."""
    file.seek(0)
    if algorithm == "CRC32":
        crc = 0
        while data := file.read(PIECE):
            crc = zlib.crc32(data, crc)
        return f"{crc:08x}"
    made = hashlib.new(algorithm.replace("-", "").lower(), usedforsecurity=False)
    while data := file.read(PIECE):
        made.update(data)
    return made.hexdigest()
