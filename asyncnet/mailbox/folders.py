"""The folders of a Maildir, held open, and the files in them. For `Maildir`; everything here waits for the disk.

What could go wrong, and why it does not: somebody who may write here has put a symlink in a folder's or a file's place.
So each folder is held by its descriptor and each file is named relative to it, no symlink is followed, and whatever
turns out not to be a regular file is none of ours.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO

from asyncnet.beneath_changes import Place

STALE = 36 * 3600
"""After how many seconds nobody is at work any more at a file in `tmp`: what the Maildir's inventor has settled."""

PARTS = ("tmp", "new", "cur")
"""The folders of a Maildir, in the order in which they are made."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_HOST = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in os.uname().nodename)[:20]


def unique_name() -> str:
    """A name that no message has had or will have, on any machine that delivers here: at most 64 characters."""
    now = time.time_ns()
    seconds, microseconds = now // 10**9, now // 1000 % 10**6
    return f"{seconds}.M{microseconds:06}P{os.getpid()}R{secrets.token_hex(8)}.{_HOST}"


@dataclass(frozen=True, slots=True)
class Folders:
    """The descriptors of a Maildir and of the three folders in it."""

    root: int
    tmp: int
    new: int
    cur: int

    def scan(self) -> Iterator[tuple[int, str]]:
        """Every file in `new` and `cur`, with the folder that it is in.

        In this order, since that is how others move them: what is moved meanwhile comes twice rather than never.
        """
        for folder in (self.new, self.cur):
            with os.scandir(folder) as found:
                for entry in found:
                    if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                        yield folder, entry.name

    def version(self) -> tuple[int, ...]:
        """Another one whenever a file came, went or was renamed."""
        return os.fstat(self.new).st_mtime_ns, os.fstat(self.cur).st_mtime_ns

    def sweep(self) -> None:
        """Remove what was being delivered when its process died, long ago."""
        now = time.time()
        with os.scandir(self.tmp) as found:
            for entry in found:
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) and status.st_mtime < now - STALE:
                        os.unlink(entry.name, dir_fd=self.tmp)


@contextmanager
def opened_folders(path: str, *, create: bool = True) -> Iterator[Folders]:
    """The folders of the Maildir at `path`, for as long as the block lasts; `create` makes those that are missing."""
    with ExitStack() as stack:
        try:
            root = _open_folder(path)
        except FileNotFoundError:
            if not create:
                raise
            make_folder_at(path)
            root = _open_folder(path)
        stack.callback(os.close, root)
        below = []
        for name in PARTS:
            try:
                folder = _open_folder(name, root)
            except FileNotFoundError:
                if not create:
                    raise
                make_folder(name, root)
                folder = _open_folder(name, root)
            stack.callback(os.close, folder)
            below.append(folder)
        yield Folders(root, *below)


def is_maildir(path: str) -> bool:
    """Whether `path` is a folder with a folder `new` in it, or an empty one, which may become a Maildir.

    Raises OSError where that cannot be known.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return False
        try:
            return stat.S_ISDIR(os.lstat(os.path.join(path, "new")).st_mode)
        except FileNotFoundError:
            with os.scandir(path) as found:  # whose first other name is enough, of however many
                return all(entry.name in PARTS for entry in found)  # another delivery may be making them
    except (FileNotFoundError, NotADirectoryError):
        return False


def _open_folder(name: str, parent: int | None = None) -> int:
    return os.open(name, _FOLDER, dir_fd=parent)


def make_folder(name: str, parent: int) -> None:
    """Make a folder for its owner alone, if it is not there, and have it on the disk."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
        os.fsync(parent)


def make_folder_at(path: str) -> None:
    """The same by its path; what is above it has to be there."""
    above, name = os.path.split(path)
    parent = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        make_folder(name, parent)
    finally:
        os.close(parent)


def open_file(folder: int, name: str) -> FileIO:
    """A regular file for reading. Raises FileNotFoundError for anything else."""
    file = FileIO(os.open(name, os.O_RDONLY | _FILE, dir_fd=folder))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileNotFoundError(errno.ENOENT, "no regular file", name)
    return file


def create_file(folder: int, name: str) -> int:
    """A descriptor of a new file, for its owner alone."""
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=folder)


def file_status(folder: int, name: str) -> os.stat_result:
    """Raises FileNotFoundError for what is no regular file."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(errno.ENOENT, "no regular file", name)
    return status


def move_file(folder: int, name: str, to_folder: int, to_name: str) -> None:
    """Give a file another name that nobody has: else FileExistsError."""
    Place(folder, name).rename_to_free(Place(to_folder, to_name))
