"""Changes to files below a root: `asyncnet.beneath`, for those who write. Its walk finds every name here.

What could go wrong, and why it does not: a name that was looked at has become another one when it is used. So the
folder is held by its descriptor, whatever its name has become meanwhile, and each change is one system call relative
to it that follows no symlink.

Which symlinks are followed:

- on the way to a name, all that stay below the root;
- *Removing and renaming* mean the name itself: a symlink goes or moves, what it leads to stays as it is, and where it
  leads does not matter. A file that is renamed to a symlink's name takes the symlink's place.
- *Times, permissions, and writing* mean what the symlink leads to, as reading does. One that leads out is refused.

Everything here may wait for a disk: call it in a thread.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from asyncnet.beneath import Beneath, OutsideRoot

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
# Without waiting: what was a file may have become a pipe.
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_REFERENCE = getattr(os, "O_PATH", 0)
_AS_WHO_WE_ARE = os.access in os.supports_effective_ids


@dataclass(frozen=True, slots=True)
class Place:
    """A name in a folder that is held open, and what can be done there. No method follows a symlink."""

    folder: int | None
    """The folder's descriptor. None where there are no such: names are whole paths then."""
    path: str
    """The name as system calls take it, relative to the folder if that is a descriptor."""

    @property
    def name(self) -> str:
        """The last component alone; "." where a symlink has led to a folder from within."""
        return os.path.basename(self.path)

    def beside(self, name: str) -> Place:
        """Another name in the same folder."""
        return Place(self.folder, name if self.folder is not None else os.path.join(os.path.dirname(self.path), name))

    def status(self) -> os.stat_result:
        return os.stat(self.path, dir_fd=self.folder, follow_symlinks=False)

    def status_if_any(self) -> os.stat_result | None:
        """The same; None where nothing has the name."""
        try:
            return self.status()
        except FileNotFoundError:
            return None

    def create(self) -> int:
        """A descriptor for writing of a new file, with the permissions that new files get."""
        return os.open(self.path, _CREATE, 0o666, dir_fd=self.folder)

    def open(self, flags: int) -> int:
        """A descriptor of what is there, without a wait for somebody at its other end."""
        return os.open(self.path, flags | _SAFELY, dir_fd=self.folder)

    def is_writable(self) -> bool:
        """Whether its permissions let us write it."""
        return os.access(self.path, os.W_OK, dir_fd=self.folder, effective_ids=_AS_WHO_WE_ARE)

    def unlink(self) -> None:
        os.unlink(self.path, dir_fd=self.folder)

    def rename_to(self, target: Place) -> None:
        """Take the place of `target`, whatever is there."""
        os.replace(self.path, target.path, src_dir_fd=self.folder, dst_dir_fd=target.folder)

    def rename_to_free(self, target: Place) -> None:
        """The same for a file, only if nothing is there: else FileExistsError."""
        try:
            os.link(self.path, target.path, src_dir_fd=self.folder, dst_dir_fd=target.folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            # A file system without hard links. Somebody may take the name between these two.
            if target.status_if_any() is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target.name) from None
            self.rename_to(target)
        else:
            self.unlink()

    def folder_status(self) -> os.stat_result:
        """That of the folder which the name is in."""
        return os.stat(self._folder_path, dir_fd=self.folder)

    @property
    def _folder_path(self) -> str:
        return os.path.dirname(self.path) if self.folder is None else "."

    def sync_folder(self) -> None:
        """Have the names in the folder on the disk."""
        descriptor = os.open(self._folder_path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0), dir_fd=self.folder)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the folder: only for those that `WritableBeneath.hold` has made."""
        if self.folder is not None:
            os.close(self.folder)


class WritableBeneath(Beneath):
    """The files below a root, to be changed as well. Methods raise the `OSError`s of their system calls.

    The root itself is neither made, removed nor renamed.
    """

    @contextmanager
    def place(self, names: Sequence[str], *, follow_last: bool = True) -> Iterator[Place]:
        """Where the name is, which need not exist, for as long as the block lasts."""
        with self._locate(names, follow_last=follow_last) as (folder, name):
            yield Place(folder, name)

    def hold(self, names: Sequence[str]) -> Place:
        """The same for longer: whoever asks calls `close` on it."""
        with self.place(names) as place:
            return place if place.folder is None else Place(os.dup(place.folder), place.path)

    def mkdir(self, names: Sequence[str]) -> None:
        """Make a folder. Raises FileExistsError where anything has the name, be it a symlink that leads nowhere."""
        if not names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), "/")
        with self.place(names, follow_last=False) as place:
            os.mkdir(place.path, dir_fd=place.folder)

    def rmdir(self, names: Sequence[str]) -> None:
        """Remove an empty folder. Raises NotADirectoryError for a symlink to one."""
        _check_not_root(names)
        with self.place(names, follow_last=False) as place:
            os.rmdir(place.path, dir_fd=place.folder)

    @contextmanager
    def all_names(self, names: Sequence[str]) -> Iterator[Iterator[str]]:
        """Whatever is in a folder that is no symlink, also what `scan` leaves out."""
        with self.place(names, follow_last=False) as place:
            descriptor = place.open(os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
            try:
                with os.scandir(descriptor) as found:
                    yield (item.name for item in found)
            finally:
                os.close(descriptor)

    def rename(self, source: Sequence[str], target: Sequence[str]) -> None:
        """Give what is called `source` the name `target`; a file takes the place of a file.

        Anything else takes nobody's place (FileExistsError), and a folder's place is taken by nobody
        (IsADirectoryError), nor that of a symlink to one.
        """
        _check_not_root(source)
        _check_not_root(target)
        with self.place(source, follow_last=False) as old, self.place(target, follow_last=False) as new:
            moved, there = old.status(), new.status_if_any()
            if there is not None:
                if stat.S_ISDIR(moved.st_mode):
                    # If somebody makes an empty folder of that name now, rename(2) replaces it: nothing is lost.
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), "/".join(target))
                if stat.S_ISLNK(there.st_mode):
                    self._check_leads_to_no_folder(target)
            old.rename_to(new)

    def _check_leads_to_no_folder(self, names: Sequence[str]) -> None:
        try:
            status = self.stat(names)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), "/".join(names))

    def utime(self, names: Sequence[str], modified: float) -> None:
        """Set the time of the last change, in seconds since 1970; that of the last access stays."""
        with self.place(names) as place:
            try:
                seconds = math.floor(modified)  # by itself: a float has no room for so many nanoseconds
                nanoseconds = seconds * 1_000_000_000 + round((modified - seconds) * 1_000_000_000)
                times = (place.status().st_atime_ns, nanoseconds)
                os.utime(place.path, ns=times, dir_fd=place.folder, follow_symlinks=False)
            except (OverflowError, ValueError):
                raise OSError(errno.EINVAL, "no time that a file can have", "/".join(names)) from None

    def chmod(self, names: Sequence[str], mode: int) -> None:
        """Set the permission bits of a file or folder."""
        # Not fchmodat(2), which follows symlinks: somebody may put one there after the walk. Through /proc what is
        # opened need not be readable; many a chroot has no /proc.
        through_proc = _REFERENCE and os.path.isdir("/proc/self/fd")
        with self.place(names) as place:
            descriptor = place.open(_REFERENCE if through_proc else os.O_RDONLY)
            try:
                kind = os.fstat(descriptor).st_mode
                if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
                    raise OutsideRoot("/".join(names))
                if through_proc:
                    os.chmod(f"/proc/self/fd/{descriptor}", mode)
                else:
                    os.fchmod(descriptor, mode)
            finally:
                os.close(descriptor)


def _check_not_root(names: Sequence[str]) -> None:
    if not names:
        raise PermissionError(errno.EACCES, "the root stays where it is", "/")
