"""`MemoryFiles`: files that are gone with the program. For tests, in virtual time, and for programs that keep nothing.

    files = MemoryFiles({"welcome.txt": b"Hello", "incoming/": b""})
    ...
    assert files.contents() == {"welcome.txt": b"Hello", "incoming/": b"", "incoming/a.txt": b"uploaded"}

No threads, and nothing waits: each method yields to other tasks once, and then does its work in one step.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

import trio

from asyncnet.beneath import check_name
from asyncnet.ftp.hashing import new_hasher
from asyncnet.ftp.storage import Entry, HashAlgorithm, Path, Status

BATCH = 500
"""How many entries of a folder come at a time."""

PIECE = 1 << 20
"""How much is hashed at a time, in bytes, before others have their turn."""

_numbers = itertools.count(1)
"""For `Status.unique`, which is so in all the program: several storages may be mounted into one."""


@dataclass(eq=False)
class _File:
    modified: float
    content: bytes | bytearray
    """Never changed: an upload puts another file in this one's place."""
    mode: int = 0o644
    number: int = field(default_factory=lambda: next(_numbers))

    def status(self) -> Status:
        return Status(False, len(self.content), self.modified, self.mode, f"memory-{self.number}")


@dataclass(eq=False)
class _Folder:
    modified: float
    mode: int = 0o755
    number: int = field(default_factory=lambda: next(_numbers))
    entries: dict[str, _File | _Folder] = field(default_factory=dict)
    partials: dict[str, bytearray] = field(default_factory=dict)
    """What broken-off uploads have left, by the name that they were to have."""
    is_removed: bool = False

    def status(self) -> Status:
        return Status(True, 0, self.modified, self.mode, f"memory-{self.number}")


_Node: TypeAlias = _File | _Folder


class MemoryFiles:
    """Files in memory: a `Storage`.

    `files` is what is there at the beginning: contents by path, such as `"folder/file.txt"`; one that ends with a slash
    is a folder, and its content b"". Folders on the way are made. `clock` tells the time, in seconds since 1970.
    """

    def __init__(self, files: Mapping[str, bytes] | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._root = _Folder(clock())
        for path, content in (files or {}).items():
            self._put(path, content)

    def _put(self, path: str, content: bytes) -> None:
        *folders, name = path.split("/")
        folder = self._root
        for part in folders:
            check_name(part)
            node = folder.entries.setdefault(part, _Folder(self._clock()))
            if isinstance(node, _File):
                _fail(errno.ENOTDIR, path)
            folder = node
        if name or content:
            check_name(name)
            folder.entries[name] = _File(self._clock(), content)

    def contents(self) -> dict[str, bytes]:
        """What is there, in the form that the constructor takes: the files, and all folders but the root."""
        found: dict[str, bytes] = {}
        ahead: list[tuple[str, _Folder]] = [("", self._root)]
        while ahead:
            prefix, folder = ahead.pop()
            for name, node in folder.entries.items():
                if isinstance(node, _File):
                    found[prefix + name] = bytes(node.content)
                else:
                    found[f"{prefix}{name}/"] = b""
                    ahead.append((f"{prefix}{name}/", node))
        return found

    def _node(self, path: Path) -> _Node:
        node: _Node = self._root
        for name in path:
            check_name(name)
            if isinstance(node, _File):
                _fail(errno.ENOTDIR, name)
            if name not in node.entries:
                _fail(errno.ENOENT, name)
            node = node.entries[name]
        return node

    def _folder(self, path: Path) -> _Folder:
        node = self._node(path)
        if isinstance(node, _File):
            _fail(errno.ENOTDIR, path[-1])
        return node

    def _file(self, path: Path) -> _File:
        node = self._node(path)
        if isinstance(node, _Folder):
            _fail(errno.EISDIR, path[-1] if path else "/")
        return node

    def _parent(self, path: Path) -> tuple[_Folder, str]:
        """The folder that the name is in, and its last component, which need not exist."""
        check_name(path[-1])
        return self._folder(path[:-1]), path[-1]

    async def stat(self, path: Path) -> Status:
        await trio.lowlevel.checkpoint()
        return self._node(path).status()

    async def partial_size(self, path: Path) -> int | None:
        await trio.lowlevel.checkpoint()
        if not path:
            return None
        folder, name = self._parent(path)
        return len(folder.partials.get(name, b"")) or None if name not in folder.entries else None

    async def scan(self, path: Path) -> AsyncGenerator[list[Entry], None]:
        await trio.lowlevel.checkpoint()
        folder = self._folder(path)
        names = iter(list(folder.entries))
        while batch := list(itertools.islice(names, BATCH)):
            entries = [Entry(name, folder.entries[name].status()) for name in batch if name in folder.entries]
            if entries:
                yield entries
            await trio.lowlevel.checkpoint()

    async def open(self, path: Path) -> MemoryDownload:
        await trio.lowlevel.checkpoint()
        file = self._file(path)
        return MemoryDownload(file.content, file.status())

    async def store(self, path: Path, *, offset: int | None = 0, exclusive: bool = False) -> MemoryUpload:
        await trio.lowlevel.checkpoint()
        if not path:
            _fail(errno.EISDIR, "/")
        folder, name = self._parent(path)
        there = folder.entries.get(name)
        if there is not None and exclusive:
            _fail(errno.EEXIST, name)
        if isinstance(there, _Folder):
            _fail(errno.EISDIR, name)
        old = there.content if there is not None else folder.partials.get(name, b"")
        if offset is None:
            offset = len(old)
        if not 0 <= offset <= len(old):
            _fail(errno.EINVAL, name)
        folder.partials.pop(name, None)
        return MemoryUpload(folder, name, bytearray(memoryview(old)[:offset]), exclusive=exclusive, clock=self._clock)

    async def remove(self, path: Path) -> None:
        await trio.lowlevel.checkpoint()
        self._file(path)
        folder, name = self._parent(path)
        folder.modified = self._clock()
        del folder.entries[name]
        folder.partials.pop(name, None)

    async def rename(self, source: Path, target: Path) -> None:
        await trio.lowlevel.checkpoint()
        if not source or not target:
            _fail(errno.EACCES, "/")
        node = self._node(source)
        old, old_name = self._parent(source)
        new, new_name = self._parent(target)
        there = new.entries.get(new_name)
        if there is not None and isinstance(node, _Folder):
            _fail(errno.EEXIST, new_name)
        if isinstance(there, _Folder):
            _fail(errno.EISDIR, new_name)
        if target[: len(source)] == source and isinstance(node, _Folder):
            _fail(errno.EINVAL, new_name)
        del old.entries[old_name]
        new.entries[new_name] = node
        old.modified = new.modified = self._clock()

    async def make_folder(self, path: Path) -> None:
        await trio.lowlevel.checkpoint()
        if not path:
            _fail(errno.EEXIST, "/")
        folder, name = self._parent(path)
        if name in folder.entries:
            _fail(errno.EEXIST, name)
        folder.entries[name] = _Folder(self._clock())
        folder.modified = self._clock()

    async def remove_folder(self, path: Path) -> None:
        await trio.lowlevel.checkpoint()
        if not path:
            _fail(errno.EACCES, "/")
        node = self._folder(path)
        if node.entries:
            _fail(errno.ENOTEMPTY, path[-1])
        node.is_removed = True
        folder, name = self._parent(path)
        del folder.entries[name]
        folder.modified = self._clock()

    async def set_modified(self, path: Path, modified: float) -> None:
        await trio.lowlevel.checkpoint()
        self._node(path).modified = modified

    async def set_mode(self, path: Path, mode: int) -> None:
        await trio.lowlevel.checkpoint()
        self._node(path).mode = mode & 0o777

    async def hash(self, path: Path, algorithm: HashAlgorithm, start: int = 0, end: int | None = None) -> str:
        await trio.lowlevel.checkpoint()
        content = memoryview(self._file(path).content)
        end = len(content) if end is None else end
        if not 0 <= start <= end <= len(content):
            _fail(errno.EINVAL, path[-1])
        hasher = new_hasher(algorithm)
        for at in range(start, end, PIECE):
            hasher.update(content[at : min(at + PIECE, end)])
            await trio.lowlevel.checkpoint()
        return hasher.hexdigest()

    async def free_space(self) -> int | None:
        await trio.lowlevel.checkpoint()
        return None


class MemoryDownload:
    """A `Download` from memory."""

    file = None

    def __init__(self, content: bytes | bytearray, status: Status) -> None:
        self.status = status
        self._content = content

    async def read(self, offset: int, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(memoryview(self._content)[offset : offset + count])

    async def aclose(self) -> None:
        self._content = b""
        await trio.lowlevel.checkpoint()


class MemoryUpload:
    """An `Upload` to memory."""

    def __init__(
        self, folder: _Folder, name: str, content: bytearray, *, exclusive: bool, clock: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._name = name
        self._content = content
        self._exclusive = exclusive
        self._clock = clock
        self._is_open = True

    @property
    def size(self) -> int:
        return len(self._content)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._check_open()
        self._content += data

    def _check_open(self) -> None:
        if not self._is_open:
            raise trio.ClosedResourceError("this upload was committed or abandoned")

    async def commit(self) -> Status:
        await trio.lowlevel.cancel_shielded_checkpoint()
        self._check_open()
        self._is_open = False
        if self._folder.is_removed:
            _fail(errno.ENOENT, self._name)
        there = self._folder.entries.get(self._name)
        if there is not None and self._exclusive:
            _fail(errno.EEXIST, self._name)
        if isinstance(there, _Folder):
            _fail(errno.EISDIR, self._name)
        file = _File(self._clock(), self._content)
        if there is not None:
            file.mode = there.mode
        self._folder.entries[self._name] = file
        self._folder.modified = file.modified
        return file.status()

    async def abandon(self, *, keep: bool) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        self._check_open()
        self._is_open = False
        if keep and self._content and self._name not in self._folder.entries:
            self._folder.partials.setdefault(self._name, self._content)


def _fail(number: int, name: str) -> NoReturn:
    raise OSError(number, os.strerror(number), name)
