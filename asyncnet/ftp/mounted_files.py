"""`MountedFiles`: several storages under one root.

    MountedFiles({"/": LocalFiles("/srv/ftp"), "/incoming": LocalFiles("/var/spool/incoming", fsync=True)})

A mount point is a folder wherever its name is seen, whatever the storage above it has of that name, and so are the
folders on the way to it. Clients can neither make, remove, rename nor replace any of these.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NoReturn

from asyncnet.beneath import OutsideRoot, check_name
from asyncnet.errors import ConfigurationError
from asyncnet.ftp.storage import Download, Entry, HashAlgorithm, Path, Status, Storage, Upload


@dataclass(slots=True)
class _Point:
    """A mount point, or a folder on the way to one, which has no storage of its own."""

    storage: Storage | None = None
    below: dict[str, _Point] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a path means: a path in a storage, a point, or both."""

    storage: Storage | None
    """None if there is none above the path, either."""
    path: Path
    point: _Point | None
    """Set if the path is that of a point."""


class MountedFiles:
    """A `Storage` made of others: `places` maps "/" and such paths as "/incoming/photos" to them.

    Without "/" the root holds the mount points alone. A folder on the way to a mount point that no storage has is shown
    and is otherwise read-only. A storage may be mounted at several places. `free_space` is that of "/".

    Raises ConfigurationError for a wrong place.
    """

    def __init__(self, places: Mapping[str, Storage]) -> None:
        self._root = _Point()
        self._made = time.time()
        for place, storage in places.items():
            point = self._root
            for name in _names(place):
                point = point.below.setdefault(name, _Point())
            if point.storage is not None:
                raise ConfigurationError(f"two storages are mounted at {place!r}")
            point.storage = storage

    def _find(self, path: Path) -> _Found:
        point: _Point | None = self._root
        storage, depth = self._root.storage, 0
        for index, name in enumerate(path, 1):
            point = point.below.get(name) if point is not None else None
            if point is None:
                break
            if point.storage is not None:
                storage, depth = point.storage, index
        return _Found(storage, path[depth:], point)

    def _find_unless_point(self, path: Path, number: int) -> tuple[Storage, Path]:
        """The path in its storage. Raises the error `number` for a point."""
        found = self._find(path)
        if found.point is not None:
            _fail(number, path)
        if found.storage is None:
            _fail(errno.ENOENT, path)
        return found.storage, found.path

    async def _find_in_storage(self, path: Path) -> tuple[Storage, Path]:
        """The path in its storage, which for a point has to have a folder there."""
        found = self._find(path)
        if found.point is not None and not await self._has_folder(found):
            _fail(errno.EACCES, path)
        if found.storage is None:
            _fail(errno.ENOENT, path)
        return found.storage, found.path

    async def _has_folder(self, found: _Found) -> bool:
        return (await self._folder_status(found)) is not None

    async def _folder_status(self, found: _Found) -> Status | None:
        """What a storage knows of the folder that a point is; None if none has it."""
        if found.storage is None:
            return None
        try:
            status = await found.storage.stat(found.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status if status.is_folder else None

    async def stat(self, path: Path) -> Status:
        found = self._find(path)
        if found.point is not None:
            return await self._folder_status(found) or Status(True, 0, self._made, 0o555)
        if found.storage is None:
            _fail(errno.ENOENT, path)
        return await found.storage.stat(found.path)

    async def partial_size(self, path: Path) -> int | None:
        found = self._find(path)
        if found.point is not None or found.storage is None:
            return None
        return await found.storage.partial_size(found.path)

    async def scan(self, path: Path) -> AsyncGenerator[list[Entry], None]:
        found = self._find(path)
        points = found.point.below if found.point is not None else {}
        if points:
            yield [Entry(name, await self.stat((*path, name))) for name in points]
        if found.point is not None and not await self._has_folder(found):
            return
        if found.storage is None:
            _fail(errno.ENOENT, path)
        async with aclosing(found.storage.scan(found.path)) as batches:
            async for batch in batches:
                entries = [entry for entry in batch if entry.name not in points]
                if entries:
                    yield entries

    async def open(self, path: Path) -> Download:
        storage, inner = self._find_unless_point(path, errno.EISDIR)
        return await storage.open(inner)

    async def store(self, path: Path, *, offset: int | None = 0, exclusive: bool = False) -> Upload:
        storage, inner = self._find_unless_point(path, errno.EEXIST if exclusive else errno.EISDIR)
        return await storage.store(inner, offset=offset, exclusive=exclusive)

    async def remove(self, path: Path) -> None:
        storage, inner = self._find_unless_point(path, errno.EISDIR)
        await storage.remove(inner)

    async def rename(self, source: Path, target: Path) -> None:
        storage, old = self._find_unless_point(source, errno.EACCES)
        target_storage, new = self._find_unless_point(target, errno.EACCES)
        if storage is not target_storage:
            await storage.stat(old)  # what is not there cannot be renamed to anything
            _fail(errno.EXDEV, target)
        await storage.rename(old, new)

    async def make_folder(self, path: Path) -> None:
        storage, inner = self._find_unless_point(path, errno.EEXIST)
        await storage.make_folder(inner)

    async def remove_folder(self, path: Path) -> None:
        storage, inner = self._find_unless_point(path, errno.EACCES)
        await storage.remove_folder(inner)

    async def set_modified(self, path: Path, modified: float) -> None:
        storage, inner = await self._find_in_storage(path)
        await storage.set_modified(inner, modified)

    async def set_mode(self, path: Path, mode: int) -> None:
        storage, inner = await self._find_in_storage(path)
        await storage.set_mode(inner, mode)

    async def hash(self, path: Path, algorithm: HashAlgorithm, start: int = 0, end: int | None = None) -> str:
        storage, inner = self._find_unless_point(path, errno.EISDIR)
        return await storage.hash(inner, algorithm, start, end)

    async def free_space(self) -> int | None:
        return await self._root.storage.free_space() if self._root.storage is not None else None


def _names(place: str) -> Path:
    names = tuple(name for name in place.split("/") if name)
    if not place.startswith("/") or "//" in place:
        raise ConfigurationError(f"{place!r} is no place: write '/', '/name' or '/name/name'")
    try:
        for name in names:
            check_name(name)
    except OutsideRoot:
        raise ConfigurationError(f"{place!r} is no place: nothing can be called {name!r}") from None
    return names


def _fail(number: int, path: Path) -> NoReturn:
    raise OSError(number, os.strerror(number), "/".join(path))
