"""Names below a root, and no way out of it. HTTP files, FTP and the examples resolve every name here.

Theory of operation
===================

A path that was checked and is then opened by its name may have become another one in between: somebody has swapped a
folder for a symlink. So on systems whose `open` takes a directory's descriptor, a name is walked component by
component, each opened with `O_NOFOLLOW` relative to the descriptor of the one before, and the last one is used
relative to the folder it was found in. What a name means is settled by what was opened, never by a second look.

- *`..`, empty, `.`, absolute.* No component of a caller's name may be any of these, hold a slash, a backslash or NUL,
  or be longer than 255 bytes. Splitting a request's path is the caller's work, decoding it too: once.
- *Symlinks* are read and walked by hand. A relative target goes on where the link is, and its `..` stop at the root;
  an absolute one must begin with the root's own path. What leads out is refused; after 40 links so is the rest.
- *Bytes that are no UTF-8* come as surrogates (PEP 383) and reach the file system as the bytes they were.
- *The last component* is followed like the others where what it leads to is meant (opening, listing), and never where
  the name itself is (`follow_last=False`: removing, renaming).
- *What is not a file.* Opening a pipe would wait for its other end, opening a device may do anything: files are
  opened without waiting, and whatever turns out not to be a regular file is refused.

Without such an `open` (Windows) the real path is computed and compared with the root's. That leaves the race above to
whoever can change the folder from inside, and is the best there is.

What changes files is in `asyncnet.beneath_changes`, by the same walk.

Everything here may wait for a disk: call it in a thread. The exceptions are `open_now` and `stat_now`: what the kernel
can open at once (`asyncnet.openat2`, Linux), by the same rules. They leave the rest to `open` and `stat` in a thread:
whatever would have to wait, and absolute symlinks, whose way back below the root only the walk knows.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import TypeVar

from asyncnet.errors import ConfigurationError
from asyncnet.openat2 import OpenCached, open_cached_below

T = TypeVar("T")

MAX_NAME = 255
"""The longest component, in bytes: what file systems take."""
MAX_LINKS = 40
"""Symlinks on the way to one name: what Linux takes."""
MAX_STEPS = 1 << 14
"""Folders that are opened on the way to one name: links that go up and down again and again end there."""

_HAS_DIR_FD = {os.open, os.stat, os.readlink} <= os.supports_dir_fd and os.scandir in os.supports_fd
# O_PATH (Linux) needs no right to read the folders on the way. Missing flags are 0.
_FOLDER = os.O_RDONLY | getattr(os, "O_PATH", 0) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_LISTED = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NO_FOLLOW


class OutsideRoot(PermissionError):
    """The name, or a symlink on its way, leads out of the root; or it could never name anything below it."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.EACCES, "not below the root", name)


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder, and what it stands for: for a symlink, what it leads to."""

    name: str
    stat: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)


class Beneath:
    """The files below `root`, named by sequences of components; an empty one is the root itself.

    With `follow` false every symlink is refused, not only those that lead out. Raises `ConfigurationError` if `root`
    is no folder. Methods raise `OutsideRoot` and the other `OSError`s of their system calls. Synchronous: see above.
    """

    def __init__(self, root: str | os.PathLike[str], *, follow: bool = True) -> None:
        self.root = os.path.realpath(root)
        """The root's own path, free of symlinks."""
        self.follow = follow
        if not os.path.isdir(self.root):
            raise ConfigurationError(f"not a folder: {os.fspath(root)}")
        self._open_cached = open_cached_below(self.root, follow=follow)

    @property
    def opens_now(self) -> bool:
        """Whether `open_now` may ever succeed: the file system is one whose open and close ask nobody."""
        return self._open_cached is not None

    def stat(self, names: Sequence[str]) -> os.stat_result:
        """What the name stands for, symlinks followed."""
        with self._locate(names) as (folder, name):
            return os.stat(name, dir_fd=folder, follow_symlinks=False)

    def open(self, names: Sequence[str]) -> io.FileIO:
        """The regular file of that name, for reading, unbuffered.

        Raises `IsADirectoryError` for a folder and `OutsideRoot` for pipes, sockets and devices.
        """
        return self.open_with_stat(names)[0]

    def open_with_stat(self, names: Sequence[str]) -> tuple[io.FileIO, os.stat_result]:
        """The same, and its `fstat`."""
        with self._locate(names) as (folder, name):
            file = io.FileIO(name, opener=lambda path, _: os.open(path, _READ | _NO_FOLLOW, dir_fd=folder))
        return _regular(file, name)

    def open_now(self, names: Sequence[str]) -> tuple[io.FileIO, os.stat_result]:
        """What `open_with_stat` returns, without a wait for the disk: for event loops.

        Raises BlockingIOError where that does not go, which says nothing about the file: ask `open_with_stat` in a
        thread. Whatever else it raises is certain.
        """
        descriptor = self._ask_now(names, OpenCached.__call__)
        try:
            file = io.FileIO(descriptor)  # raises IsADirectoryError, and leaves the descriptor open
        except BaseException:
            os.close(descriptor)
            raise
        return _regular(file, "/".join(names))

    def stat_now(self, names: Sequence[str]) -> os.stat_result:
        """What `stat` returns, without a wait for the disk. Raises what `open_now` raises."""
        return self._ask_now(names, OpenCached.stat)

    def _ask_now(self, names: Sequence[str], ask: Callable[[OpenCached, bytes], T]) -> T:
        if self._open_cached is None:
            raise _not_now(names)
        for name in names:
            if _is_plain(name) is None:
                check_name(name)
        path = "/".join(names)
        try:
            return ask(self._open_cached, os.fsencode(path) if path else b".")
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError:
            # It would have to wait, or leads out, or cannot be opened: the walk says which, and why.
            raise _not_now(names) from None

    def scan(self, names: Sequence[str], *, limit: int | None = None) -> list[Entry]:
        """What is in the folder, in no order, `limit` entries at most.

        What vanishes meanwhile, what could not be named here, and symlinks that lead nowhere or out are left out.
        """
        with self.open_scan(names) as found:
            return found.take(limit)

    def open_scan(self, names: Sequence[str]) -> Scan:
        """The same for folders of any size: a context manager that reads the folder piece by piece."""
        return Scan(self, names)

    def _entry(self, names: Sequence[str], item: os.DirEntry[str]) -> Entry | None:
        try:
            check_name(item.name)
            if item.is_symlink():
                return Entry(item.name, self.stat([*names, item.name]))
            return Entry(item.name, item.stat(follow_symlinks=False))
        except OSError:
            return None

    @contextmanager
    def _locate(self, names: Sequence[str], *, follow_last: bool = True) -> Iterator[tuple[int | None, str]]:
        """The folder that the name is in, as a descriptor, and its last component there.

        That is no symlink unless `follow_last` is false, and need not exist. Where there are no such descriptors: None
        and the whole real path.
        """
        for name in names:
            check_name(name)
        if not _HAS_DIR_FD:
            yield None, self._real_path(names, follow_last=follow_last)
            return
        way = _Way(self.root)
        try:
            last = self._walk(names, way, follow_last=follow_last)
            yield way.folder, last
        finally:
            os.close(way.folder)

    def _walk(self, names: Sequence[str], way: _Way, *, follow_last: bool) -> str:
        """Open folder after folder.

        The caller's last name is the undermost in `ahead`: what links put there lies above it.
        """
        ahead = list(reversed(names))
        links = 0
        while ahead:
            name = ahead.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if not way.names:
                    raise OutsideRoot("/".join(names))
                way.go_up()
                continue
            target = _link_target(name, way.folder) if ahead or follow_last else None
            if target is None:
                if not ahead:
                    return name
                way.go_down(name)
                continue
            links += 1
            if not self.follow:
                raise OutsideRoot("/".join(names))
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), "/".join(names))
            if os.path.isabs(target):
                target = self._below_root(target)
                way.go_to_root()
            ahead.extend(reversed(target.split("/")))
        return "."

    def _below_root(self, target: str) -> str:
        root = self.root.rstrip("/")
        if target != root and not target.startswith(root + "/"):
            raise OutsideRoot(target)
        return target[len(root) :]

    def _real_path(self, names: Sequence[str], *, follow_last: bool) -> str:
        if names and not follow_last:
            return os.path.join(self._real_path(names[:-1], follow_last=True), names[-1])
        plain = os.path.join(self.root, *names)
        real = os.path.realpath(plain)
        try:
            is_below = os.path.commonpath((self.root, real)) == self.root
        except ValueError:  # another drive
            is_below = False
        if not is_below or (real != plain and not self.follow):
            raise OutsideRoot("/".join(names))
        return real


class _Way:
    """The way from the root to where a walk has come, of which the last folder alone is held open.

    Or else who can make folders in folders could have all descriptors of the process used up. To go up is to go down
    again from the root: by names that were no symlinks, and if one has become a symlink meanwhile, that fails.
    """

    def __init__(self, root: str) -> None:
        self.names: list[str] = []
        self._root = root
        self._steps = 0
        self.folder = os.open(root, _FOLDER)

    def go_down(self, name: str) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        below = os.open(name, _FOLDER, dir_fd=self.folder)
        os.close(self.folder)
        self.folder = below
        self.names.append(name)

    def go_to_root(self) -> None:
        root = os.open(self._root, _FOLDER)
        os.close(self.folder)
        self.folder = root
        self.names = []

    def go_up(self) -> None:
        *way, _ = self.names
        self.go_to_root()
        for name in way:
            self.go_down(name)


class Scan:
    """A folder that is read piece by piece, so that one of any size takes no memory. Made by `Beneath.open_scan`.

    A context manager, open from the beginning. For one thread at a time, not always the same.
    """

    def __init__(self, beneath: Beneath, names: Sequence[str]) -> None:
        with beneath._locate(names) as (folder, name):
            # Entries are looked at relative to this descriptor, so that it stays open as long as they come.
            self._descriptor = None if folder is None else os.open(name, _LISTED, dir_fd=folder)
            try:
                self._found = os.scandir(name if self._descriptor is None else self._descriptor)
            except BaseException:
                if self._descriptor is not None:
                    os.close(self._descriptor)
                raise
        self._entries = (entry for item in self._found if (entry := beneath._entry(names, item)))

    def take(self, count: int | None) -> list[Entry]:
        """The next `count` entries, or all that are left; fewer only at the folder's end."""
        return list(islice(self._entries, count))

    def close(self) -> None:
        """Nothing more is taken."""
        self._found.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Scan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _regular(file: io.FileIO, name: str) -> tuple[io.FileIO, os.stat_result]:
    """The file and its status; anything but a regular file is closed and refused."""
    try:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OutsideRoot(name)
    except BaseException:
        file.close()
        raise
    return file, status


def _not_now(names: Sequence[str]) -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, "not without waiting", "/".join(names))


_is_plain = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", re.ASCII).fullmatch
"""Most names: such a one can be a component, which takes `check_name` longer to say."""

_FORBIDDEN = frozenset("/\\\0:" if os.name == "nt" else "/\\\0")


def check_name(name: str) -> None:
    """Raise `OutsideRoot` unless `name` can be one component: see the rules above."""
    try:
        length = len(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise OutsideRoot(name) from None
    if name in ("", ".", "..") or length > MAX_NAME or not _FORBIDDEN.isdisjoint(name):
        raise OutsideRoot(name)


def _link_target(name: str, folder: int) -> str | None:
    """Where the symlink leads; None for what is no symlink, or is not there."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
