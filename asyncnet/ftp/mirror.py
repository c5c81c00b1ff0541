"""Whole trees, from and to an FTP server, over several connections at once.

    report = await mirror_down(lambda: FTPClient.connect(url), "pub", "copy", connections=4)
    for failure in report.failures:
        print(failure.path, failure.error)

Each connection is a worker that takes jobs from one pile: a folder to compare, which puts more jobs on it, or a file to
move. A job that fails is reported, and the others go on; a worker whose connection has closed opens another one. Local
folders are looked at without following symlinks, so that what was planted in the tree leads nowhere.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Container
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeAlias

import trio

from asyncnet.errors import AsyncnetError, LocalProtocolError
from asyncnet.ftp import client_files
from asyncnet.ftp.client import FTPClient
from asyncnet.ftp.client_files import DISK_TIME, PART
from asyncnet.ftp.client_listing import EntryKind, RemoteEntry, is_safe_name
from asyncnet.printable import printable
from asyncnet.replies import PermanentReplyError

Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[FTPClient]]
"""Opens one more connection: `lambda: FTPClient.connect(url, …)`."""

TOLERANCE = 2.0
"""By how many seconds the times of two files may differ that count as the same: some file systems keep no odd ones."""

DEPTH = 100
"""How many folders may lie in each other: a server can claim any number."""

ENTRIES = 1_000_000
"""How many entries a folder may have: a server can list them without end, and all of them are in memory at once."""


class Outcome(Enum):
    """What became of a file or folder."""

    TRANSFERRED = "transferred"
    SAME = "same"
    """It was there already."""
    MADE = "made"
    """A folder was made."""
    DELETED = "deleted"
    SKIPPED = "skipped"
    """Neither file nor folder (a symlink, a device)."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Step:
    """What the progress callback gets: `path` is relative to the tree's root, with `/` between names.

    A name that is none here is shown with its control characters escaped.
    """

    path: str
    outcome: Outcome
    size: int = 0
    """Bytes moved."""
    error: Exception | None = None


@dataclass(slots=True)
class Report:
    """What has been done."""

    transferred: int = 0
    same: int = 0
    made: int = 0
    deleted: int = 0
    skipped: int = 0
    bytes: int = 0
    """Bytes moved, of whole files."""
    failures: list[Step] = field(default_factory=list)

    def add(self, step: Step) -> None:
        """Count a step."""
        self.bytes += step.size
        if step.outcome is Outcome.FAILED:
            self.failures.append(step)
        else:
            setattr(self, step.outcome.value, getattr(self, step.outcome.value) + 1)


Told: TypeAlias = Callable[[Step], object]
Moved: TypeAlias = Callable[[str, int, int | None], object]


async def mirror_down(
    connect: Connect,
    source: str,
    target: str | os.PathLike[str],
    *,
    connections: int = 4,
    delete: bool = False,
    progress: Told | None = None,
    moved: Moved | None = None,
) -> Report:
    """Make the folder `target` here what the folder `source` is there.

    A file is moved when its size differs, or the time of its last change by two seconds or more (where the server can
    tell it exactly); it is resumed where an earlier mirror has broken off in the same file, by that time. With
    `delete`, what is not there is removed here, last, and only in folders that could be listed whole; not dot-files,
    where the server has no MLSD: LIST mostly hides them. A file that
    fails does not stop the others: `Report.failures` has it. `progress` hears of each file when it is done, `moved` of
    the bytes on the way: path, so far, size.

    A name that is no name here (a slash, `..`, a control character) fails, and never leads out of `target`; nor do
    symlinks within it, which are not followed. Raises what `connect` raises if not even one connection succeeds.
    """
    tree = _Down(source, Path(target), delete, progress, moved)
    return await tree.run(connect, connections)


async def mirror_up(
    connect: Connect,
    source: str | os.PathLike[str],
    target: str,
    *,
    connections: int = 4,
    delete: bool = False,
    progress: Told | None = None,
    moved: Moved | None = None,
) -> Report:
    """Make the folder `target` there what the folder `source` here is; else like `mirror_down`.

    Times are compared and set where the server has MFMT; else the size alone decides. Symlinks here are skipped.
    """
    tree = _Up(target, Path(source), delete, progress, moved)
    return await tree.run(connect, connections)


@dataclass(frozen=True, slots=True)
class _Job:
    """Something to be done over any of the connections, for a file or folder of that path."""

    path: str
    run: Callable[[FTPClient], Awaitable[None]]
    tries: int = 0
    """How often a connection has closed under it."""


_FAILURES = (AsyncnetError, OSError, ValueError, trio.BrokenResourceError, trio.ClosedResourceError)
"""How a job may fail with the others going on."""


class _Tree(ABC):
    """What both ways share: the pile of jobs, the workers, the report. `remote` and `local` are the two roots."""

    def __init__(self, remote: str, local: Path, delete: bool, progress: Told | None, moved: Moved | None) -> None:
        self._remote = remote
        self._local = local
        self._delete = delete
        self._progress = progress
        self._moved = moved
        self._report = Report()
        self._pile: list[_Job] = []
        self._running = 0
        self._news = trio.Event()
        self._refusal: Exception | None = None  # of the last connection that could not be opened
        self._connected = False
        self._connections = 1

    async def run(self, connect: Connect, connections: int) -> Report:
        if connections < 1:
            raise LocalProtocolError("a mirror takes one connection at least")
        self._connections = connections
        self._add("", lambda ftp: self._root(ftp))
        await self._empty_pile(connect, connections)
        await self._finish(connect, connections)
        return self._report

    @abstractmethod
    async def _root(self, ftp: FTPClient) -> None:
        """Compare the roots."""

    @abstractmethod
    async def _finish(self, connect: Connect, connections: int) -> None:
        """Delete what is to go, when all else is done."""

    # The pile and its workers

    async def _empty_pile(self, connect: Connect, connections: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(connections):
                nursery.start_soon(self._work, connect)
        if self._refusal is not None and not self._connected:
            raise self._refusal
        for job in self._pile:  # every worker has lost its connection, and got no other
            self._tell(job.path, Outcome.FAILED, error=self._refusal)
        self._pile.clear()

    async def _work(self, connect: Connect) -> None:
        """Do jobs until there are no more, over another connection when one has closed."""
        while await self._are_jobs_left():
            try:
                async with connect() as ftp:
                    self._connected = True
                    while not ftp.is_closed and await self._are_jobs_left():
                        await self._do(self._pile.pop(), ftp)
            except _FAILURES as exc:  # the others may have more luck
                self._refusal = exc
                return

    async def _are_jobs_left(self) -> bool:
        """Wait until there is a job on the pile, or none will come any more."""
        while not self._pile and self._running:
            await self._news.wait()
        return bool(self._pile)

    async def _do(self, job: _Job, ftp: FTPClient) -> None:
        self._running += 1
        try:
            await job.run(ftp)
        except _FAILURES as exc:
            if ftp.is_closed and job.tries <= self._connections:  # the server may have been tired of each of them
                self._pile.append(replace(job, tries=job.tries + 1))
            else:
                self._tell(job.path, Outcome.FAILED, error=exc)
        finally:
            self._running -= 1
            self._tell_workers()

    def _add(self, path: str, run: Callable[[FTPClient], Awaitable[None]]) -> None:
        self._pile.append(_Job(path, run))
        self._tell_workers()

    def _tell_workers(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _tell(self, path: str, outcome: Outcome, size: int = 0, *, error: Exception | None = None) -> None:
        step = Step(path, outcome, size, error)
        self._report.add(step)
        if self._progress is not None:
            self._progress(step)

    # Paths

    def _there(self, path: str) -> str:
        """The path on the server."""
        if not path or not self._remote:
            return path or self._remote
        return f"{self._remote.removesuffix('/')}/{path}"

    def _here(self, path: str) -> Path:
        return self._local / path if path else self._local

    def _progress_of(self, path: str) -> Callable[[int, int | None], object] | None:
        moved = self._moved
        return None if moved is None else lambda done, size: moved(path, done, size)


def _below(path: str, name: str) -> str:
    if path.count("/") >= DEPTH:
        raise LocalProtocolError(f"more than {DEPTH} folders lie in each other")
    return f"{path}/{name}" if path else name


class _Down(_Tree):
    """From the server."""

    _to_delete: list[str]

    async def _root(self, ftp: FTPClient) -> None:
        self._to_delete = []
        await trio.to_thread.run_sync(lambda: self._local.mkdir(parents=True, exist_ok=True))
        await self._compare(ftp, "")

    async def _folder(self, ftp: FTPClient, path: str) -> None:
        if await trio.to_thread.run_sync(_make_folder, self._here(path)):
            self._tell(path, Outcome.MADE)
        await self._compare(ftp, path)

    async def _compare(self, ftp: FTPClient, path: str) -> None:
        had = await trio.to_thread.run_sync(_scan, self._here(path))
        found: dict[str, RemoteEntry] = {}
        # The listing is taken whole before anything comes of it: it may break off, and then be asked for again.
        for entry in await ftp.list(self._there(path), limit=ENTRIES):
            found.setdefault(entry.name, entry)
        for name, entry in found.items():
            if is_safe_name(name):
                self._pile_up(_below(path, name), entry, had.get(name), _part_suffix(name, found))
            else:
                error = LocalProtocolError(f"this is no name for a file here: {name[:200]!a}")
                self._tell(_below(path, printable(name)), Outcome.FAILED, error=error)
        if self._delete:
            gone = (name for name in had if name not in found and name.removesuffix(PART) not in found)
            # What may only be hidden there is not removed here.
            gone = (name for name in gone if ftp.lists_everything or not name.startswith("."))
            self._to_delete += [_below(path, name) for name in gone]

    def _pile_up(self, path: str, entry: RemoteEntry, had: os.stat_result | None, suffix: str) -> None:
        if entry.kind is EntryKind.FOLDER:
            self._add(path, lambda ftp: self._folder(ftp, path))
        elif entry.kind is not EntryKind.FILE:
            self._tell(path, Outcome.SKIPPED)
        elif entry.is_exact and _is_same(entry, had):
            self._tell(path, Outcome.SAME)
        else:
            self._add(path, lambda ftp: self._file(ftp, path, entry, had, suffix))

    async def _file(
        self, ftp: FTPClient, path: str, entry: RemoteEntry, had: os.stat_result | None, suffix: str
    ) -> None:
        source, target = self._there(path), self._here(path)
        if not entry.is_exact:
            entry = await _exactly(ftp, source, entry)
            if _is_same(entry, had):
                self._tell(path, Outcome.SAME)
                return
        part = client_files.part_of(target, suffix)
        resume = await trio.to_thread.run_sync(_is_part_of, part, entry)
        try:
            size = await client_files.download(
                ftp, source, target, resume, self._progress_of(path), verify=False, suffix=suffix
            )
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + DISK_TIME):
                await trio.to_thread.run_sync(_mark_part, part, entry)
            raise
        if entry.is_exact and entry.modified is not None:
            times = (entry.modified, entry.modified)
            await trio.to_thread.run_sync(lambda: os.utime(target, times, follow_symlinks=False))
        self._tell(path, Outcome.TRANSFERRED, size)

    async def _finish(self, connect: Connect, connections: int) -> None:
        for path in self._to_delete if self._delete else ():
            try:
                await trio.to_thread.run_sync(_remove, self._here(path))
            except OSError as exc:
                self._tell(path, Outcome.FAILED, error=exc)
            else:
                self._tell(path, Outcome.DELETED)


class _Up(_Tree):
    """To the server."""

    _to_delete: list[tuple[str, RemoteEntry]]

    async def _root(self, ftp: FTPClient) -> None:
        self._to_delete = []
        exists = True
        if self._remote:
            try:
                exists = (await ftp.stat(self._remote)).is_folder
            except PermanentReplyError:
                exists = False
        await self._folder(ftp, "", exists)

    async def _folder(self, ftp: FTPClient, path: str, exists: bool) -> None:
        here = await trio.to_thread.run_sync(_scan, self._here(path))
        there: dict[str, RemoteEntry] = {}
        if exists:
            there = {entry.name: entry for entry in await ftp.list(self._there(path), limit=ENTRIES)}
        else:
            await ftp.mkdir(self._there(path))
            self._tell(path, Outcome.MADE)
        keeps_times = "MFMT" in await ftp.features()
        for name, status in here.items():
            self._pile_up(_below(path, name), status, there.get(name), keeps_times)
        if self._delete:
            self._to_delete += [(_below(path, name), entry) for name, entry in there.items() if name not in here]

    def _pile_up(self, path: str, status: os.stat_result, had: RemoteEntry | None, keeps_times: bool) -> None:
        if stat.S_ISDIR(status.st_mode):
            exists = had is not None and had.kind is not EntryKind.FILE
            self._add(path, lambda ftp: self._folder(ftp, path, exists))
        elif not stat.S_ISREG(status.st_mode):
            self._tell(path, Outcome.SKIPPED)
        elif had is not None and (
            _is_same(had, status) if keeps_times else had.kind is EntryKind.FILE and had.size == status.st_size
        ):
            self._tell(path, Outcome.SAME)
        else:
            self._add(path, lambda ftp: self._file(ftp, path, keeps_times))

    async def _file(self, ftp: FTPClient, path: str, keeps_times: bool) -> None:
        target = self._there(path)
        file = await trio.to_thread.run_sync(_open_plain, self._here(path))
        try:
            modified = os.fstat(file.fileno()).st_mtime
            size = await ftp.upload(file, target, progress=self._progress_of(path))
        finally:
            await client_files.close(file)
        if keeps_times:
            await ftp.set_modified(target, modified)
        self._tell(path, Outcome.TRANSFERRED, size)

    async def _finish(self, connect: Connect, connections: int) -> None:
        for path, entry in self._to_delete:
            self._add(path, partial(self._remove, path, entry))
        if self._pile:
            await self._empty_pile(connect, connections)

    async def _remove(self, path: str, entry: RemoteEntry, ftp: FTPClient) -> None:
        await _remove_there(ftp, self._there(path), entry)
        self._tell(path, Outcome.DELETED)


async def _remove_there(ftp: FTPClient, path: str, entry: RemoteEntry) -> None:
    """Remove a file, or a folder with what is in it."""
    if entry.kind is not EntryKind.FOLDER:
        await ftp.delete(path)
        return
    for inner in await ftp.list(path, limit=ENTRIES):
        if "/" in inner.name or path.count("/") > 2 * DEPTH:
            raise LocalProtocolError(f"this is no name in a folder: {inner.name[:200]!a}")
        await _remove_there(ftp, f"{path}/{inner.name}", inner)
    await ftp.rmdir(path)


async def _exactly(ftp: FTPClient, path: str, entry: RemoteEntry) -> RemoteEntry:
    """The entry with its size and time to the second, where the server can tell them."""
    try:
        return replace(entry, size=await ftp.size(path), modified=await ftp.modified(path), is_exact=True)
    except PermanentReplyError:
        return entry


def _is_same(entry: RemoteEntry, status: os.stat_result | None) -> bool:
    """Whether a file here and one there are taken for the same."""
    if status is None or not stat.S_ISREG(status.st_mode) or entry.kind is not EntryKind.FILE:
        return False
    if entry.size is None or entry.size != status.st_size:
        return False
    return not entry.is_exact or entry.modified is None or abs(entry.modified - status.st_mtime) < TOLERANCE


# The local side. All of it waits for the disk, and is called in threads.


def _make_folder(path: Path) -> bool:
    """Make a folder; false if it was there. Raises OSError if what is there is none, or leads to one."""
    try:
        path.mkdir()
    except FileExistsError:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise
        return False
    return True


def _scan(folder: Path) -> dict[str, os.stat_result]:
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat(follow_symlinks=False) for entry in entries}


def _part_suffix(name: str, others: Container[str]) -> str:
    """What stands behind the name of a file until it is whole, so that the name is none of the others'."""
    suffix = PART
    while name + suffix in others:
        suffix = f".~{suffix[1:]}"
    return suffix


def _open_plain(path: Path) -> BinaryIO:
    """Open a file for reading, unless a symlink or a pipe has taken its place meanwhile."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileNotFoundError(errno.ENOENT, "no plain file any more", str(path))
    return file


def _mark_part(part: Path, entry: RemoteEntry) -> None:
    """Note in what is left of a download which file it belongs to: it gets that one's time."""
    if entry.is_exact and entry.modified is not None:
        with suppress(OSError):
            os.utime(part, (entry.modified, entry.modified), follow_symlinks=False)


def _is_part_of(part: Path, entry: RemoteEntry) -> bool:
    """Whether what is left of a download belongs to the file as it is now.

    That the part is the younger one says nothing: a file that is put in the place of another brings an old time along.
    """
    try:
        return entry.is_exact and entry.modified is not None and abs(part.lstat().st_mtime - entry.modified) < 0.001
    except OSError:
        return False


def _remove(path: Path) -> None:
    if stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()
