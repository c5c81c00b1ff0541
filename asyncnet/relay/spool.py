"""The folder of a queue: who may work in it, and the contents that are files of their own.

    DIR/lock         held by the relay that is at work
    DIR/queue.db     the database (`relay.database`), with its log beside it
    DIR/content/ID   the content of a message that is too long for the database

A content is written under its name from the beginning: what counts is whether the database knows it. The file and its
name in the folder are on the disk before the transaction that makes it known begins, and it is unlinked only after the
one that forgets it. So a crash leaves files that nobody knows, never a message without its file; `remove_orphans`
removes those when the next relay starts.

Everything here waits for the disk: it runs in threads.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

from asyncnet.errors import ConfigurationError
from asyncnet.relay.messages import format_id, parse_id

LOOKED_UP = 1000
"""How many files are asked for at once whether a message has them."""

PIECE = 1 << 18
"""How much of a content is read at a time, in bytes."""


def new_checksum() -> hashlib.blake2b:
    """What tells whether a content is the one that came in: a hash that no accident gets past."""
    return hashlib.blake2b(digest_size=16)


def checksum_of(data: bytes) -> str:
    """That of a whole content."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class Spool:
    """The folder."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self.database = os.path.join(self.folder, "queue.db")
        self._contents = os.path.join(self.folder, "content")

    def make(self) -> None:
        """Have the folders, for their owner alone, and their names on the disk. Raises ConfigurationError.

        A folder where anybody may put files is refused: by symlinks they would have us write where they cannot.
        """
        try:
            for folder in (self.folder, self._contents):
                with suppress(FileExistsError):
                    os.mkdir(folder, 0o700)
                    _sync_folder(os.path.dirname(os.path.abspath(folder)))
                if os.stat(folder).st_mode & stat.S_IWOTH:
                    raise ConfigurationError(f"{folder}: anybody may write there: chmod 700 it")
        except OSError as error:
            raise ConfigurationError(f"{self.folder}: no queue can be there: {error.strerror}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only relay that works in the folder. Raises ConfigurationError if another does.

        The kernel lets go of the lock when its process is gone, however that came about.
        """
        path = os.path.join(self.folder, "lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
                raise ConfigurationError(f"{self.folder}: another relay is at work there, process {holder}") from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
            yield
        finally:
            os.close(descriptor)

    def path_of(self, key: int) -> str:
        """Where the content of a message is, if it is a file."""
        return os.path.join(self._contents, format_id(key))

    def create(self, key: int) -> ContentWriter:
        """Begin the content of a message."""
        return ContentWriter(self.path_of(key))

    def remove(self, keys: Collection[int]) -> None:
        """Remove contents. Those that are gone already do not matter."""
        for key in keys:
            with suppress(FileNotFoundError):
                os.unlink(self.path_of(key))

    def sync_contents(self) -> None:
        """Have the names of all contents on the disk."""
        _sync_folder(self._contents)

    def sync(self) -> None:
        """Have the name of a new database on the disk."""
        _sync_folder(self.folder)

    def free_space(self) -> int:
        """Bytes that may still be written."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def remove_orphans(self, known: Callable[[Sequence[int]], Collection[int]]) -> int:
        """Remove the contents of messages that are not `known`, which returns those of its argument that are.

        Returns how many. Not while messages come in: they are known only at their end. What has a name that no content
        has is not ours to remove.
        """
        removed = 0
        keys: list[int] = []
        with os.scandir(self._contents) as entries:
            for entry in entries:
                with suppress(ValueError):
                    keys.append(parse_id(entry.name))
        for start in range(0, len(keys), LOOKED_UP):
            some = keys[start : start + LOOKED_UP]
            orphans = set(some).difference(known(some))
            self.remove(orphans)
            removed += len(orphans)
        return removed

    def open(self, key: int) -> ContentReader:
        """The content of a message. Raises FileNotFoundError."""
        return ContentReader(self.path_of(key))


class ContentWriter:
    """A content on its way to the disk."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._size = 0

    def append(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Write all of `pieces`. After an error nothing more can be written, only discarded."""
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                count = os.pwrite(self._descriptor, rest, self._size)
                self._size += count
                rest = rest[count:]

    def finish(self) -> None:
        """All has come: have it on the disk. The name is not, before `Spool.sync_contents`."""
        os.fsync(self._descriptor)
        self._close()

    def discard(self) -> None:
        """Leave nothing."""
        self._close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class ContentReader:
    """A content that is read from its beginning to its end."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._offset = 0

    def read(self) -> bytes:
        """The next piece; b"" at the end."""
        piece = os.pread(self._descriptor, PIECE, self._offset)
        self._offset += len(piece)
        return piece

    def close(self) -> None:
        os.close(self._descriptor)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
