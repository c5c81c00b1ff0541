"""`LocalFiles`: an FTP server's files are those of a folder on the disk.

Every name is resolved beneath the folder (`asyncnet.beneath`), uploads come in hidden beside the name that they are to
have (`asyncnet.ftp.temporary`). All that may wait for a disk is done in threads, of which FTP has its own.

What a client neither sees nor can open: names that begin with `.asyncnet-`, whatever is neither file nor folder (pipes,
sockets, devices), and symlinks that lead out of the folder. Which symlinks are followed: `asyncnet.beneath_changes`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncGenerator, Callable
from io import FileIO
from typing import TypeVar

import trio

from asyncnet.beneath import Entry as FoundEntry
from asyncnet.beneath import Scan, check_name
from asyncnet.beneath_changes import Place, WritableBeneath
from asyncnet.ftp import temporary
from asyncnet.ftp.hashing import new_hasher
from asyncnet.ftp.storage import Entry, HashAlgorithm, Path, Status
from asyncnet.ftp.temporary import Temporary, is_reserved
from asyncnet.per_run import once_per_run
from asyncnet.transports.files import PIECE, read_at, read_now

T = TypeVar("T")

THREADS = 16
"""How many threads work for FTP at a time, in one run of Trio."""

BUFFER = 1 << 19
"""How much of an upload is gathered in memory before a thread writes it, in bytes. Each upload may hold so much."""

LARGE = BUFFER // 2
"""What is written as it comes, in bytes: to copy it into the buffer would cost more than a thread."""

READ_NOW = 1 << 18
"""How much is read on the event loop, if it is in memory, in bytes: more of it would keep others waiting."""

FIRST_BATCH, BATCH = 50, 500
"""How many entries of a folder come at a time. The first ones soon."""

HASH_THREADS = 2
"""How many more hash: it takes long, and others are not to wait for it."""

COPY_THREADS = 4
"""How many more copy what is there for an upload that goes on behind it, for the same reason."""

_limiter = once_per_run(lambda: trio.CapacityLimiter(THREADS))
_hash_limiter = once_per_run(lambda: trio.CapacityLimiter(HASH_THREADS))
_copy_limiter = once_per_run(lambda: trio.CapacityLimiter(COPY_THREADS))


async def _in_thread(function: Callable[..., T], *args: object) -> T:
    return await trio.to_thread.run_sync(function, *args, limiter=_limiter())


class LocalFiles:
    """The files below the folder `root`: a `Storage`. Raises `ConfigurationError` if `root` is no folder.

    `fsync`: an upload, a rename and a new folder are acknowledged only when they are on the disk, which costs a wait
    for each. Without it a file is whole or not there when this process dies, and may be lost when the machine does.
    `follow`: whether symlinks are followed that lead to something below the root; without, none is.

    New files and folders get the permissions that the umask leaves them; a file that replaces another gets that one's.
    A file that we may not write is not replaced either. Uploads that are cut off can be resumed, by any connection,
    for as long as their partial file lies in the folder.
    """

    def __init__(self, root: str | os.PathLike[str], *, fsync: bool = False, follow: bool = True) -> None:
        self._files = WritableBeneath(root, follow=follow)
        self._fsync = fsync

    def __repr__(self) -> str:
        return f"LocalFiles({self._files.root!r})"

    @property
    def root(self) -> str:
        """The folder, free of symlinks."""
        return self._files.root

    def real_path(self, path: Path) -> str:
        """Where `path` is on the disk, for programs that go on with a file that was uploaded.

        Symlinks in it are not resolved, and somebody may change them, or the files, at any time: whoever opens it by
        this name does without the protection that this class gives. Does not look at the disk.
        """
        self._check(path)
        for name in path:
            check_name(name)
        return os.path.join(self._files.root, *path)

    def _check(self, path: Path, *, make: bool = False) -> None:
        """Raise for reserved names; `make`: the last one is to be made, so that it cannot be said not to be there."""
        for depth, name in enumerate(path, 1):
            if is_reserved(name):
                if make and depth == len(path):
                    raise PermissionError(errno.EACCES, "a reserved name", name)
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    async def stat(self, path: Path) -> Status:
        self._check(path)
        try:
            status = self._files.stat_now(path)  # as below
        except BlockingIOError:
            status = await _in_thread(self._files.stat, path)
        if not _is_file_or_folder(status):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path[-1])
        return _status(status)

    async def partial_size(self, path: Path) -> int | None:
        self._check(path)
        return await _in_thread(self._at, path, temporary.partial_size)

    def _at(self, path: Path, function: Callable[[Place], T]) -> T:
        with self._files.place(path) as place:
            return function(place)

    async def scan(self, path: Path) -> AsyncGenerator[list[Entry], None]:
        self._check(path)
        scan, found = await _in_thread(self._begin_scan, path)
        try:
            while found:
                entries = [Entry(entry.name, _status(entry.stat)) for entry in found if _is_shown(entry)]
                if entries:
                    yield entries
                found = await _in_thread(scan.take, BATCH)
        finally:
            scan.close()

    def _begin_scan(self, path: Path) -> tuple[Scan, list[FoundEntry]]:
        scan = self._files.open_scan(path)
        try:
            return scan, scan.take(FIRST_BATCH)
        except BaseException:
            scan.close()
            raise

    async def open(self, path: Path) -> LocalDownload:
        self._check(path)
        try:
            # What is in memory needs no thread, and no checkpoint: that is a tenth of what a small file takes.
            file, status = self._files.open_now(path)
        except BlockingIOError:
            file, status = await _in_thread(self._files.open_with_stat, path)
        return LocalDownload(file, _status(status), closes_now=self._files.opens_now)

    async def store(self, path: Path, *, offset: int | None = 0, exclusive: bool = False) -> LocalUpload:
        self._check(path, make=True)
        if offset is not None and offset < 0:
            raise OSError(errno.EINVAL, "an offset below 0")
        limiter = _limiter() if offset == 0 else _copy_limiter()
        begun = await trio.to_thread.run_sync(self._begin_upload, path, offset, exclusive, limiter=limiter)
        return LocalUpload(begun, exclusive=exclusive, fsync=self._fsync)

    def _begin_upload(self, path: Path, offset: int | None, exclusive: bool) -> Temporary:
        return temporary.begin(
            self._files.hold(path),
            offset=offset,
            exclusive=exclusive,
            check_cancelled=trio.from_thread.check_cancelled,
        )

    async def remove(self, path: Path) -> None:
        self._check(path)
        await _in_thread(self._remove, path)

    def _remove(self, path: Path) -> None:
        with self._files.place(path, follow_last=False) as place:
            place.unlink()
            temporary.discard_partial(place)

    async def rename(self, source: Path, target: Path) -> None:
        self._check(source)
        self._check(target, make=True)
        await _in_thread(self._rename, source, target)

    def _rename(self, source: Path, target: Path) -> None:
        self._files.rename(source, target)
        self._sync_folders_of(source, target)

    def _sync_folders_of(self, *paths: Path) -> None:
        """Have these names, or that they are gone, on the disk, if everything is to be."""
        for path in paths if self._fsync else ():
            with self._files.place(path, follow_last=False) as place:
                place.sync_folder()

    async def make_folder(self, path: Path) -> None:
        self._check(path, make=True)
        await _in_thread(self._make_folder, path)

    def _make_folder(self, path: Path) -> None:
        self._files.mkdir(path)
        self._sync_folders_of(path)

    async def remove_folder(self, path: Path) -> None:
        self._check(path)
        await _in_thread(self._remove_folder, path)

    def _remove_folder(self, path: Path) -> None:
        try:
            self._files.rmdir(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not self._remove_partials(path):
                raise
            self._files.rmdir(path)

    def _remove_partials(self, path: Path) -> bool:
        """Remove partial uploads from a folder in which there is nothing else. Whether that went."""
        with self._files.all_names(path) as names:
            if not all(is_reserved(name) for name in names):
                return False
        with self._files.all_names(path) as names:
            for name in names:
                with self._files.place((*path, name), follow_last=False) as place:
                    if not temporary.discard(place):
                        return False
        return True

    async def set_modified(self, path: Path, modified: float) -> None:
        self._check(path)
        await _in_thread(self._files.utime, path, modified)

    async def set_mode(self, path: Path, mode: int) -> None:
        self._check(path)
        await _in_thread(self._files.chmod, path, mode & 0o777)

    async def hash(self, path: Path, algorithm: HashAlgorithm, start: int = 0, end: int | None = None) -> str:
        self._check(path)
        return await trio.to_thread.run_sync(self._hash, path, algorithm, start, end, limiter=_hash_limiter())

    def _hash(self, path: Path, algorithm: HashAlgorithm, start: int, end: int | None) -> str:
        file, status = self._files.open_with_stat(path)
        with file:
            end = status.st_size if end is None else end
            if not 0 <= start <= end <= status.st_size:
                raise OSError(errno.EINVAL, "not within the file")
            hasher = new_hasher(algorithm)
            while start < end:
                trio.from_thread.check_cancelled()
                data = os.pread(file.fileno(), min(PIECE, end - start), start)
                if not data:
                    raise OSError(errno.EINVAL, "the file has become shorter")
                hasher.update(data)
                start += len(data)
            return hasher.hexdigest()

    async def free_space(self) -> int | None:
        status = await _in_thread(os.statvfs, self._files.root)
        return status.f_bavail * status.f_frsize


class LocalDownload:
    """A `Download` of a file on the disk. Only what was there when it was opened is read."""

    def __init__(self, file: FileIO, status: Status, *, closes_now: bool) -> None:
        self.file = file
        self.status = status
        self._closes_now = closes_now

    async def read(self, offset: int, count: int) -> bytes:
        count = max(0, min(count, self.status.size - offset))
        data = read_now(self.file, offset, count) if count <= READ_NOW else None
        if data is None:
            return await _in_thread(read_at, self.file, offset, count)
        await trio.lowlevel.checkpoint()
        return data

    async def aclose(self) -> None:
        # The last descriptor of a file that was removed: closing it frees what may be gigabytes.
        if self._closes_now and (self.file.closed or os.fstat(self.file.fileno()).st_nlink):
            self.file.close()
        else:
            with trio.CancelScope(shield=True):  # without a deadline: the disk alone is waited for
                await _in_thread(self.file.close)


class LocalUpload:
    """An `Upload` to a hidden file beside the name that it is to have."""

    def __init__(self, begun: Temporary, *, exclusive: bool, fsync: bool) -> None:
        self._temporary = begun
        self._exclusive = exclusive
        self._fsync = fsync
        self._buffer = bytearray()
        self._is_open = True

    @property
    def size(self) -> int:
        return self._temporary.size + len(self._buffer)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        self._check_open()
        if len(data) >= LARGE or len(self._buffer) + len(data) >= BUFFER:
            await _in_thread(self._write_through, data)
        else:
            self._buffer += data  # and no checkpoint: whoever receives what it writes has had one

    @property
    def descriptor(self) -> int | None:
        return None if self._buffer else self._temporary.descriptor

    def moved(self, count: int) -> None:
        self._temporary.size += count

    def _check_open(self) -> None:
        if not self._is_open:
            raise trio.ClosedResourceError("this upload was committed or abandoned")

    def _write_through(self, data: bytes | bytearray | memoryview = b"") -> None:
        if self._buffer:
            before = self._temporary.size
            try:
                self._temporary.append(self._buffer)
            finally:
                # Another one: what an error's traceback refers to cannot be resized.
                self._buffer = self._buffer[self._temporary.size - before :]
        self._temporary.append(data)

    async def commit(self) -> Status:
        self._check_open()
        self._is_open = False
        with trio.CancelScope(shield=True):  # without a deadline: the disk alone is waited for
            status = await _in_thread(self._finish)
        return _status(status)

    def _finish(self) -> os.stat_result:
        try:
            self._write_through()
        except BaseException:
            self._temporary.leave(keep=False)
            raise
        return self._temporary.take_name(exclusive=self._exclusive, fsync=self._fsync)

    async def abandon(self, *, keep: bool) -> None:
        self._check_open()
        self._is_open = False
        with trio.CancelScope(shield=True):  # as above
            await _in_thread(self._leave, keep)

    def _leave(self, keep: bool) -> None:
        try:
            if keep:
                self._write_through()
        except OSError:
            pass  # what has reached the disk is kept
        finally:
            self._temporary.leave(keep=keep)


def _status(status: os.stat_result) -> Status:
    return Status(
        is_folder=stat.S_ISDIR(status.st_mode),
        size=status.st_size,
        modified=status.st_mtime,
        mode=status.st_mode & 0o777,
        unique=f"{status.st_dev:x}-{status.st_ino:x}",
        links=status.st_nlink,
    )


def _is_shown(entry: FoundEntry) -> bool:
    return _is_file_or_folder(entry.stat) and not is_reserved(entry.name)


def _is_file_or_folder(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
