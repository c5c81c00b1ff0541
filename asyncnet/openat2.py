"""`openat2(2)`, asked for what the kernel can do at once: a file opened below a folder without a wait for the disk.

Theory of operation
===================

`RESOLVE_BENEATH` has the kernel refuse, in the one call that opens the file, whatever would lead out of the folder:
there is no moment between a check and its use. `RESOLVE_CACHED` has it answer EAGAIN wherever a name is not in
memory. What is left of "the event loop never waits for a disk":

- *The open itself.* On network and FUSE file systems it asks a server, however well the names are known. So the
  file system of the folder has to be one of those below, and `RESOLVE_NO_XDEV` refuses to walk into another.
- *What a name stands for.* A pipe without a writer and some devices wait when they are opened: not with `O_NONBLOCK`.
- *A kernel without the call* (before 5.12), a sandbox that forbids it, another system: found out by one attempt.

Python has no function for it, so it is called through ctypes. Used by `asyncnet.beneath` alone.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from functools import cache
from typing import Any

try:
    import ctypes

    _libc: Any = ctypes.CDLL(None, use_errno=True) if sys.platform.startswith("linux") else None
except (ImportError, OSError):  # a Python built without it
    _libc = None

NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, CACHED = 0x01, 0x02, 0x04, 0x08, 0x20
"""The RESOLVE_ flags of linux/openat2.h."""

_NUMBER = 437
"""Of the system call, on every architecture of Linux but alpha."""

_CURRENT_FOLDER = -100
"""AT_FDCWD."""

_LOCAL = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # XFS
        0x9123683E,  # Btrfs
        0xF2F52010,  # F2FS
        0x2FC12FC1,  # ZFS
        0xCA451A4E,  # bcachefs
        0x01021994,  # tmpfs
        0x858458F6,  # ramfs
        0x794C7630,  # overlayfs: containers
        0xE0F5E1E2,  # EROFS
        0x73717368,  # SquashFS
    }
)
"""File systems (`f_type` of statfs(2)) whose open and close ask nobody."""


class OpenCached:
    """How to open files at once below one folder. Make it with `open_cached_below`."""

    __slots__ = ("_any", "_file", "_folder", "_path")

    def __init__(self, path: str, *, follow: bool) -> None:
        self._path = os.fsencode(path)
        resolve = BENEATH | NO_XDEV | NO_MAGICLINKS | CACHED | (0 if follow else NO_SYMLINKS)
        self._folder = _how(os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, CACHED)
        self._any = _how(os.O_PATH | os.O_CLOEXEC, resolve)
        self._file = _how(os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, resolve)

    def __call__(self, path: bytes) -> int:
        """A descriptor for reading of what is at `path`, relative to the folder as that is named now.

        Raises BlockingIOError where it would have to wait, and what else open(2) raises.
        """
        return self._open_below(path, self._file)

    def stat(self, path: bytes) -> os.stat_result:
        """What is at `path`, a folder or whatever else; raises the same."""
        found = self._open_below(path, self._any)
        try:
            return os.fstat(found)
        finally:
            os.close(found)

    def _open_below(self, path: bytes, how: bytes) -> int:
        # The folder is looked up each time: it may have been replaced, and kept open it would be held for ever.
        folder = _open(_CURRENT_FOLDER, self._path, self._folder)
        try:
            return _open(folder, path, how)
        finally:
            os.close(folder)


def open_cached_below(path: str, *, follow: bool) -> OpenCached | None:
    """The means to open files at once below the folder `path`; None where there are none."""
    if not _is_supported() or not _is_local(path):
        return None
    return OpenCached(path, follow=follow)


@cache
def _is_supported() -> bool:
    if _libc is None or os.uname().machine == "alpha":
        return False
    try:
        os.close(_open(_CURRENT_FOLDER, b"/", _how(os.O_PATH | os.O_CLOEXEC, CACHED)))
    except OSError as error:
        # No such call, no RESOLVE_CACHED, a sandbox. Other errors come from a kernel that has the call.
        return error.errno not in (errno.ENOSYS, errno.EINVAL, errno.EPERM)
    return True


def _is_local(path: str) -> bool:
    status = ctypes.create_string_buffer(512)  # larger than any struct statfs, whose first member is f_type, a long
    if _libc.statfs(os.fsencode(path), status) != 0:
        return False
    return struct.unpack_from("@l", status)[0] & 0xFFFFFFFF in _LOCAL


def _how(flags: int, resolve: int) -> bytes:
    """A struct open_how: flags, mode, resolve."""
    return struct.pack("=QQQ", flags, 0, resolve)


def _open(folder: int, path: bytes, how: bytes) -> int:
    descriptor: int = _libc.syscall(_NUMBER, folder, path, how, len(how))
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(path))
    return descriptor
