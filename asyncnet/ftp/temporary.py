"""The hidden file in which an upload to a folder comes in, beside the name that it is to have. For `LocalFiles`.

Theory of operation
===================

- *Nobody sees half a file.* What comes is written to a file whose name begins with `.asyncnet-`, for its owner alone,
  and takes its name when it is whole. Names of that kind are reserved: no client reaches or sees one.
- *What is broken off can be resumed*, also after `kill -9`: the temporary's name is made from the name that it is to
  have, so the next upload to that name finds it. It is a hash, since a name of 255 bytes leaves no room for a suffix.
- *Two uploads of one name do not write one file.* The temporary is locked (flock(2): the kernel lets go of it when its
  process is gone). Who finds it locked takes a random name instead, which nobody can resume; if such an upload is
  killed, its file stays until the folder is removed. What was opened may have been renamed or removed before it was
  locked, so its name is looked at again behind the lock.
- *Somebody else may have put something of that name there* (a link to another file, say): only a plain file with one
  name is written to, and only our own or the folder's owner's is gone on with.
- *An append leaves the old file as it is*: its beginning is copied first, in the kernel, which on some file systems
  copies nothing at all.

Everything here waits for the disk: it runs in threads.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress

from asyncnet.beneath_changes import Place

PREFIX = ".asyncnet-"
"""What the names of temporary files begin with."""

COPIED = 1 << 26
"""How much is copied at a time, in bytes, before the copy may be cancelled."""


def is_reserved(name: str) -> bool:
    """Whether it is a name of ours; also where capital letters do not count."""
    return name[: len(PREFIX)].casefold() == PREFIX


class Temporary:
    """A file that is being written and has yet to take the name `place`, which it holds. Made by `begin`."""

    def __init__(self, place: Place, current: Place, descriptor: int, *, mode: int, size: int = 0) -> None:
        self.size = size
        """How many bytes have been written, and how many were there before."""
        self._place = place
        self._current = current
        self.descriptor = descriptor
        self._mode = mode
        """The permission bits that it is to have at last."""

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`. What was written before an error counts in `size`."""
        rest = memoryview(data)
        while rest:
            count = os.pwrite(self.descriptor, rest, self.size)
            self.size += count
            rest = rest[count:]

    def copy(self, source: int, count: int, check_cancelled: Callable[[], object]) -> None:
        """Begin with the first `count` bytes of the file `source`."""
        while self.size < count:
            check_cancelled()
            copied = self._copy_some(source, min(count - self.size, COPIED))
            if not copied:
                raise OSError(errno.EINVAL, "the file has become shorter", self._place.name)
            self.size += copied

    def _copy_some(self, source: int, count: int) -> int:
        try:
            return os.copy_file_range(source, self.descriptor, count, self.size, self.size)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
                raise
        return os.pwrite(self.descriptor, os.pread(source, min(count, 1 << 20), self.size), self.size)

    def drop(self) -> None:
        """Nothing is left of it. The place is the caller's again."""
        self._current.unlink()
        os.close(self.descriptor)

    def take_name(self, *, exclusive: bool, fsync: bool) -> os.stat_result:
        """The file is whole: have it take its name. Whatever comes of it, nothing temporary is left."""
        try:
            _chmod(self.descriptor, self._mode)
            if fsync:
                os.fsync(self.descriptor)
            if exclusive:
                self._current.rename_to_free(self._place)
            else:
                self._current.rename_to(self._place)
        except BaseException:
            self.leave(keep=False)
            raise
        try:
            if fsync:
                self._place.sync_folder()
            return os.fstat(self.descriptor)
        finally:
            self._close()

    def leave(self, *, keep: bool) -> None:
        """The file will not be whole. With `keep`, leave it for who resumes it, where that can be."""
        is_resumable = self._current.name == _partial(self._place).name
        try:
            if not (keep and self.size and is_resumable and self._place.status_if_any() is None):
                with suppress(FileNotFoundError):
                    self._current.unlink()
        finally:
            self._close()

    def _close(self) -> None:
        os.close(self.descriptor)
        self._place.close()


def begin(
    place: Place, *, offset: int | None, exclusive: bool, check_cancelled: Callable[[], object] = lambda: None
) -> Temporary:
    """What `Storage.store` promises, for the name `place`, which is the temporary's from now on."""
    try:
        there = place.status_if_any()
        if there is None:
            temporary = _resume(place, offset) if offset != 0 else None
            return temporary or _create(place)
        if exclusive:
            raise _error(errno.EEXIST, place)
        if stat.S_ISDIR(there.st_mode):
            raise _error(errno.EISDIR, place)
        if not stat.S_ISREG(there.st_mode) or not place.is_writable():
            raise _error(errno.EACCES, place)
        if offset == 0:
            return _create(place, there.st_mode & 0o777)
        return _continue(place, offset, check_cancelled)
    except BaseException:
        place.close()
        raise


def partial_size(place: Place) -> int | None:
    """What `Storage.partial_size` promises."""
    if place.status_if_any() is not None:
        return None
    descriptor = _open_locked(_partial(place))
    if descriptor is None:
        return None
    try:
        return os.fstat(descriptor).st_size or None
    finally:
        os.close(descriptor)


def discard_partial(place: Place) -> None:
    """Remove what a broken-off upload to `place` has left: the name's next file has nothing to do with it."""
    discard(_partial(place))


def discard(current: Place) -> bool:
    """Remove a temporary that nobody is at work on. False if somebody is, or it is not one of ours."""
    descriptor = _open_locked(current)
    if descriptor is None:
        return False
    try:
        current.unlink()
    finally:
        os.close(descriptor)
    return True


def _resume(place: Place, offset: int | None) -> Temporary | None:
    """Go on with what a broken-off upload has left; None if that is nothing, and nothing was asked for."""
    current = _partial(place)
    descriptor = _open_locked(current)
    if descriptor is None:
        if offset is not None:
            raise OSError(errno.EINVAL, "nothing has come yet", place.name)
        return None
    try:
        size = os.fstat(descriptor).st_size
        if offset is not None:
            if offset > size:
                raise OSError(errno.EINVAL, "less than that has come", place.name)
            os.ftruncate(descriptor, offset)
            size = offset
        return Temporary(place, current, descriptor, mode=_mode_of_new_files(place), size=size)
    except BaseException:
        os.close(descriptor)
        raise


def _mode_of_new_files(place: Place) -> int:
    """Only the kernel knows it: it depends on the umask, and on what access control lists the folder hands down."""
    probe = place.beside(_random_name())
    descriptor = probe.create()
    try:
        probe.unlink()
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _continue(place: Place, offset: int | None, check_cancelled: Callable[[], object]) -> Temporary:
    """Begin with a copy of what is there."""
    source = place.open(os.O_RDONLY)
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            raise _error(errno.EACCES, place)
        if offset is None:
            offset = status.st_size
        if offset > status.st_size:
            raise OSError(errno.EINVAL, "the file is shorter than that", place.name)
        temporary = _create(place, status.st_mode & 0o777)
        try:
            temporary.copy(source, offset, check_cancelled)
        except BaseException:
            temporary.drop()
            raise
        return temporary
    finally:
        os.close(source)


def _create(place: Place, mode: int | None = None) -> Temporary:
    """A new one, under the name by which it can be resumed, or a random one if somebody is at work on that.

    `mode` is what its permission bits are to be; None: those of new files.
    """
    current = _partial(place)
    descriptor = _create_locked(current)
    if descriptor is None:
        current = place.beside(_random_name())
        descriptor = current.create()
        with suppress(OSError):
            _lock(descriptor, current)  # so that nobody takes it for a leftover
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode) if mode is None else mode
    _chmod(descriptor, 0o600)
    return Temporary(place, current, descriptor, mode=mode)


def _create_locked(current: Place) -> int | None:
    """A new file of that name, in the place of what a broken-off upload has left; None if it cannot be ours alone."""
    try:
        descriptor = current.create()
    except FileExistsError:
        if not discard(current):
            return None
        try:
            descriptor = current.create()
        except FileExistsError:
            return None
    try:
        if _lock(descriptor, current):
            return descriptor
    except OSError:  # a file system that cannot lock
        current.unlink()
    os.close(descriptor)
    return None


def _open_locked(current: Place) -> int | None:
    """What is there, if it is a plain file that nobody is at work on."""
    try:
        descriptor = current.open(os.O_WRONLY)
    except OSError:  # none, a link, a folder, not ours to write
        return None
    try:
        if _lock(descriptor, current) and _is_trusted(descriptor, current):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _lock(descriptor: int, current: Place) -> bool:
    """Whether the file is ours alone now, and the only thing that its name stands for."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status, named = os.fstat(descriptor), current.status()
    except (BlockingIOError, FileNotFoundError):  # another's; renamed or removed meanwhile
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and os.path.samestat(status, named)


def _is_trusted(descriptor: int, current: Place) -> bool:
    """Whether nobody else has made it: whoever owns it could read and change what is written to it."""
    owner = os.fstat(descriptor).st_uid
    return owner in (os.geteuid(), current.folder_status().st_uid)


def _chmod(descriptor: int, mode: int) -> None:
    with suppress(PermissionError):  # file systems without permissions
        os.fchmod(descriptor, mode)


def _partial(place: Place) -> Place:
    digest = hashlib.blake2b(os.fsencode(place.name), digest_size=16).hexdigest()
    return place.beside(f"{PREFIX}{digest}.part")


def _random_name() -> str:
    return f"{PREFIX}{secrets.token_hex(16)}.tmp"


def _error(number: int, place: Place) -> OSError:
    return OSError(number, os.strerror(number), place.name)
