"""`Maildir`: a user's mail in files, one for each message, as mutt, Dovecot and Postfix know it; and `Maildirs`.

Theory of operation
===================

Others use the same folder at the same time, and none of them asks for a lock. So what was seen may be gone:

- *A message has moved* (from `new` to `cur`, or to a name with other flags). Its unique part stays, and by that it is
  looked for again. What a listing finds out is kept as a guess of where files are, and no more than that.
- *A folder changes while it is listed*, so that a file that is renamed may be in neither half: it is listed again.
- *Two files have one unique part.* No program that follows the rules makes them, a backup that was copied back does.
  The later one gets a unique part of its own: hidden behind the other, it would be lost.
- *Names of others* say nothing of sizes: such a message is counted once, and the result is remembered.

How a message gets in is in `maildir_delivery.py`, what names say in `names.py`, who may put what in our way in
`folders.py`. Everything that may wait for the disk is done in threads.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from io import FileIO
from typing import Final, TypeAlias

import trio

from asyncnet.beneath import OutsideRoot, check_name
from asyncnet.mailbox.folders import (
    Folders,
    file_status,
    is_maildir,
    move_file,
    open_file,
    opened_folders,
    unique_name,
)
from asyncnet.mailbox.lines import ToWire, WireSize
from asyncnet.mailbox.maildir_delivery import MaildirIncoming, in_thread, no_room
from asyncnet.mailbox.names import MaildirName, said_size
from asyncnet.mailbox.storage import Flag, Message
from asyncnet.transports.files import read_at, read_now

PIECE: Final = 1 << 17
"""How much of a message is read at a time, in bytes."""

LOCK: Final = "asyncnet.lock"
"""The file in the Maildir that a session locks. Readers of Maildirs take hidden folders for mailboxes, and no file for
anything."""

_TRIES: Final = 4
"""How often files are looked for that others move around meanwhile."""

_MOST_COUNTED: Final = 20_000
"""How many sizes of messages are remembered whose names do not say them."""

_Places: TypeAlias = dict[str, tuple[str, str]]
"""Where each message is, by its uid: "new" or "cur", and the file's name."""

_counted: dict[tuple[int, ...], int] = {}
"""Sizes that were counted, by what tells one version of a file from all others."""


class Maildir:
    """A `Mailbox` in the folder `path`, which is made with the first use if it is not there; no symlink is followed.

    `quota_bytes` (as the files lie on the disk, or as their names say) and `quota_messages` are how much it may hold;
    two deliveries that end in the same moment may exceed them by one of the two. Files that others deliver count, and
    are not refused.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, quota_bytes: int | None = None, quota_messages: int | None = None
    ) -> None:
        self._path = os.path.abspath(path)
        self._most_bytes = math.inf if quota_bytes is None else quota_bytes
        self._most_messages = math.inf if quota_messages is None else quota_messages
        self._places: _Places = {}

    def __repr__(self) -> str:
        return f"Maildir({self._path!r})"

    # Delivery

    async def deliver(self) -> MaildirIncoming:
        return await in_thread(self._begin)

    def _begin(self) -> MaildirIncoming:
        with opened_folders(self._path) as folders:
            folders.sweep()
            return MaildirIncoming(self._path, folders, self._check_room(folders, 1), self._check_room)

    def _check_room(self, folders: Folders, size: int) -> float:
        """How many bytes are left. Raises OSError with EDQUOT if those are fewer than `size`."""
        if self._most_bytes == self._most_messages == math.inf:
            return math.inf
        held = count = 0
        for folder, name in folders.scan():
            with suppress(FileNotFoundError):
                size_of_one = said_size(name)
                held += file_status(folder, name).st_size if size_of_one is None else size_of_one
                count += 1
        if count >= self._most_messages or held + size > self._most_bytes:
            raise no_room()
        return self._most_bytes - held

    # What is there

    async def messages(self) -> Sequence[Message]:
        return await in_thread(self._list)

    def _list(self) -> list[Message]:
        found: list[Message] = []
        with opened_folders(self._path) as folders:
            folders.sweep()
            self._places = self._find(folders)

            def look(folder: int, file_name: str) -> None:
                found.append(_message(folder, file_name))

            self._for_each(folders, list(self._places), look)
        return sorted(found, key=lambda message: (message.received, message.uid))

    def _find(self, folders: Folders) -> _Places:
        """Where all messages are."""
        for _ in range(_TRIES):
            before = folders.version()
            places: _Places = {}
            for folder, file_name in folders.scan():
                uid = MaildirName.parse(file_name).uid
                place = "new" if folder == folders.new else "cur", file_name
                if uid in places:
                    place = _tell_apart(folders, places[uid], place)
                    uid = MaildirName.parse(place[1]).uid
                places[uid] = place
            if folders.version() == before:
                break
        return places

    def _for_each(self, folders: Folders, uids: Iterable[str], do: Callable[[int, str], object]) -> list[str]:
        """Do something with the files of these messages, wherever they are by now. Returns those that are gone."""
        gone = list(uids)
        for _ in range(_TRIES):
            wanted, gone = gone, []
            for uid in wanted:
                folder, file_name = self._places.get(uid, ("", ""))
                try:
                    if not folder:
                        raise FileNotFoundError
                    do(folders.cur if folder == "cur" else folders.new, file_name)
                except FileNotFoundError:
                    gone.append(uid)
            if not gone:
                break
            self._places = self._find(folders)
            if self._places.keys().isdisjoint(gone):
                break
        return gone

    async def read(self, uid: str) -> AsyncGenerator[bytes, None]:
        file = await in_thread(self._open_message, uid)
        try:
            lines, offset, size = ToWire(), 0, os.fstat(file.fileno()).st_size
            while offset < size:
                count = min(PIECE, size - offset)
                data = read_now(file, offset, count) or await in_thread(read_at, file, offset, count)
                if not data:
                    raise OSError(errno.EIO, "the message has become shorter", uid)
                offset += len(data)
                await trio.lowlevel.checkpoint()
                yield lines.feed(data)
            if rest := lines.end():
                yield rest
        finally:
            await _close(file)

    def _open_message(self, uid: str) -> FileIO:
        found: list[FileIO] = []
        with opened_folders(self._path) as folders:
            self._for_each(folders, [uid], lambda folder, file_name: found.append(open_file(folder, file_name)))
        if not found:
            raise _no_such(uid)
        return found[0]

    # Changes

    async def set_flags(self, uid: str, flags: Iterable[Flag]) -> None:
        await in_thread(self._set_flags, uid, frozenset(flags))

    def _set_flags(self, uid: str, flags: frozenset[Flag]) -> None:
        def rename(folder: int, file_name: str) -> None:
            wanted = str(MaildirName.parse(file_name).with_flags(flags))
            if folder != folders.cur or file_name != wanted:
                file_status(folder, file_name)  # so that what is gone is told from what has the name already
                _rename(folder, file_name, folders.cur, wanted)
                self._places[uid] = "cur", wanted

        with opened_folders(self._path) as folders:
            if self._for_each(folders, [uid], rename):
                raise _no_such(uid)

    async def remove(self, uids: Iterable[str]) -> None:
        await in_thread(self._remove, list(uids))

    def _remove(self, uids: list[str]) -> None:
        failures: list[OSError] = []

        def remove(folder: int, file_name: str) -> None:
            try:
                os.unlink(file_name, dir_fd=folder)
            except FileNotFoundError:
                raise
            except OSError as error:
                failures.append(error)

        with opened_folders(self._path) as folders:
            gone = self._for_each(folders, uids, remove)
        if not self._places.keys().isdisjoint(gone):
            raise OSError(errno.EAGAIN, "another program renames it again and again", self._path)
        if failures:
            raise failures[0]

    # Sessions

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        descriptor = await in_thread(self._lock)
        try:
            yield
        finally:
            os.close(descriptor)

    def _lock(self) -> int:
        """A descriptor that holds the lock until it is closed, by us or with the process."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with opened_folders(self._path) as folders:
            descriptor = os.open(LOCK, flags, 0o600, dir_fd=folders.root)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno != errno.EWOULDBLOCK:
                raise
            raise OSError(errno.EBUSY, "somebody else has this mailbox open", self._path) from None
        return descriptor


class Maildirs:
    """The `Mailboxes` in the folder `root`: that of each user is the Maildir of their name in it.

    A Maildir is known by the folder `new` in it, or is empty; with `create` it is made for whoever is asked for, and so
    is `root`, at once and never again. A name that could not be one component of a path, or begins with a dot, is
    nobody's; without `create`, so is one that has no Maildir. Where `root` is not there, or may not be looked into,
    `of` raises OSError. Capital letters count as the file system has it. The quotas are those of each Maildir.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        create: bool = False,
        quota_bytes: int | None = None,
        quota_messages: int | None = None,
    ) -> None:
        self._root = os.path.realpath(root)
        self._create = create
        if create:
            os.makedirs(self._root, exist_ok=True)  # now, and not where it has gone later: a disk may be missing
        self._quotas = {"quota_bytes": quota_bytes, "quota_messages": quota_messages}

    def __repr__(self) -> str:
        return f"Maildirs({self._root!r})"

    async def of(self, user: str) -> Maildir:
        try:
            check_name(user)
        except OutsideRoot:
            raise LookupError(f"{user!a} cannot be a user's name") from None
        if user.startswith("."):
            raise LookupError(f"{user!a} cannot be a user's name")
        path = os.path.join(self._root, user)
        if not await in_thread(self._is_there, path):
            raise LookupError(f"{user!a} has no mailbox")
        return Maildir(path, **self._quotas)

    def _is_there(self, path: str) -> bool:
        if self._create and not is_maildir(path):
            with opened_folders(path):  # which makes what is missing
                return True
        if is_maildir(path):
            return True
        os.stat(os.path.join(self._root, "."))  # where that is gone, nobody can say who has none: mail waits
        return False


def _no_such(uid: str) -> OSError:
    return FileNotFoundError(errno.ENOENT, "no such message", uid)


def _message(folder: int, file_name: str) -> Message:
    name, status = MaildirName.parse(file_name), file_status(folder, file_name)
    size = name.wire_size(status.st_size)
    if size is None:
        try:
            size = _count(folder, file_name, status)
        except FileNotFoundError:
            raise
        except OSError:
            size = status.st_size  # it cannot be read, and keeps nobody from the others
    return Message(name.uid, size, status.st_mtime, name.flags)


def _count(folder: int, file_name: str, status: os.stat_result) -> int:
    """How long a message is with CR LF at line ends."""
    version = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    size = _counted.get(version)
    if size is None:
        wire, offset = WireSize(), 0
        with open_file(folder, file_name) as file:
            while data := read_at(file, offset, 1 << 20):
                trio.from_thread.check_cancelled()
                wire.feed(data)
                offset += len(data)
        size = wire.size
        if len(_counted) >= _MOST_COUNTED:
            _counted.clear()
        _counted[version] = size
    return size


def _rename(folder: int, file_name: str, to_folder: int, to_name: str) -> None:
    """Rename by rename(2), under which a message has one name at any moment; raise if another file has the new one."""
    with suppress(FileNotFoundError):
        os.stat(to_name, dir_fd=to_folder, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to_name)
    os.rename(file_name, to_name, src_dir_fd=folder, dst_dir_fd=to_folder)


def _tell_apart(folders: Folders, one: tuple[str, str], other: tuple[str, str]) -> tuple[str, str]:
    """What becomes of the second of two files with one uid: its place, maybe under another name."""
    numbers = {"new": folders.new, "cur": folders.cur}
    try:
        first, second = (file_status(numbers[folder], file_name) for folder, file_name in (one, other))
    except FileNotFoundError:
        return other  # it was renamed between our two looks
    if os.path.samestat(first, second):
        return other  # it is being moved, by two names
    folder, file_name = other
    unique = MaildirName.parse(file_name).base.partition(",")[0]
    renamed = unique_name() + file_name.removeprefix(unique)
    move_file(numbers[folder], file_name, numbers[folder], renamed)
    return folder, renamed


async def _close(file: FileIO) -> None:
    """Close a file; its last name may be gone, and what it frees may be much."""
    if os.fstat(file.fileno()).st_nlink:
        file.close()
        return
    with trio.CancelScope(shield=True):  # without a deadline: the disk alone is waited for
        await in_thread(file.close)
