"""How a message gets into a Maildir: written in `tmp`, and in `new` when it is whole and on the disk.

Whoever looks into the Maildir meanwhile, and after this process was killed, sees a whole message or none: readers look
into `new` and `cur` alone, and a file gets there by one system call, behind the fsync of what is in it: link(2), which
takes nobody's place. `commit` returns when the folder is on the disk as well.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import trio

from asyncnet.mailbox.folders import Folders, create_file, move_file, opened_folders, unique_name
from asyncnet.mailbox.lines import ToFile, WireSize
from asyncnet.mailbox.names import MaildirName
from asyncnet.mailbox.storage import Message
from asyncnet.per_run import once_per_run

T = TypeVar("T")

THREADS = 16
"""How many threads work for mailboxes at a time, in one run of Trio."""

BUFFER = 1 << 18
"""How much of a message is gathered in memory before a thread writes it, in bytes. Each delivery may hold so much."""

_limiter = once_per_run(lambda: trio.CapacityLimiter(THREADS))


async def in_thread(function: Callable[..., T], *args: object) -> T:
    """Call what waits for the disk."""
    return await trio.to_thread.run_sync(function, *args, limiter=_limiter())


def no_room() -> OSError:
    """What is raised where the quota is used up."""
    return OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


class MaildirIncoming:
    """An `Incoming` of the `Maildir` at `path`, whose `folders` are open at its beginning.

    They are opened again at its end: a message for many recipients is many deliveries, and none holds more descriptors
    than that of its file. `room` is how many bytes there were left; `check_room` looks again, and raises OSError where
    a message of so many finds none.
    """

    def __init__(self, path: str, folders: Folders, room: float, check_room: Callable[[Folders, int], object]) -> None:
        self._path = path
        self._room = room
        self._check_room = check_room
        self._unique = unique_name()
        self._file = create_file(folders.tmp, self._unique)
        self._buffer = bytearray()
        self._lines = ToFile()
        self._wire = WireSize()
        self._size = 0
        self._is_open = True

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        self._check_open()
        if len(self._buffer) + len(data) < BUFFER:
            self._buffer += data  # and no checkpoint: whoever receives what it writes has had one
            return
        gathered, self._buffer = self._buffer, bytearray()
        await in_thread(self._write_through, gathered, data)

    def _write_through(self, *pieces: bytes | bytearray | memoryview) -> None:
        for piece in pieces:
            self._append(self._lines.feed(piece))

    def _append(self, stored: bytes) -> None:
        self._wire.feed(stored)
        self._size += len(stored)
        if self._size > self._room:
            raise no_room()
        left = memoryview(stored)
        while left:
            left = left[os.write(self._file, left) :]

    async def commit(self) -> Message:
        self._check_open()
        self._is_open = False
        with trio.CancelScope(shield=True):  # without a deadline: the disk alone is waited for
            uid, received = await in_thread(self._finish)
        return Message(uid, self._wire.size, received)

    def _finish(self) -> tuple[str, float]:
        try:
            self._write_through(self._buffer)
            self._append(self._lines.end())
            os.fsync(self._file)
            with opened_folders(self._path, create=False) as folders:  # it may have been removed, and stays so
                self._check_room(folders, self._size)
                taken = self._take_name(folders)
        except BaseException:
            self._leave()
            raise
        os.close(self._file)
        return taken

    def _take_name(self, folders: Folders) -> tuple[str, float]:
        """The message's uid, and when it was received."""
        name = MaildirName.make(self._unique, size=self._size, wire_size=self._wire.size)
        try:
            move_file(folders.tmp, self._unique, folders.new, name.base)
            os.fsync(folders.new)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name.base, dir_fd=folders.new)  # nobody else's: nobody has made that name
            raise
        return name.uid, os.fstat(self._file).st_mtime

    async def abort(self) -> None:
        self._check_open()
        self._is_open = False
        with trio.CancelScope(shield=True):  # as above
            await in_thread(self._leave)

    def _leave(self) -> None:
        """Leave nothing in `tmp`; what stays there all the same is swept out some day."""
        os.close(self._file)
        with suppress(OSError), opened_folders(self._path, create=False) as folders:
            os.unlink(self._unique, dir_fd=folders.tmp)

    def _check_open(self) -> None:
        if not self._is_open:
            raise trio.ClosedResourceError("this delivery was committed or aborted")
