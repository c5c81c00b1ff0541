"""`LimitedFiles`: a storage with a quota.

Theory of operation
===================

How much is used is counted once, by going through all folders, before the first change; from then on every change
through this object adds its difference. So all connections of a user share one object. Changes by anybody else are not
seen, nor is what broken-off uploads have left before the object was made.

- *Differences are measured*, one change at a time: the sizes of what a change concerns are asked for before and after
  it. So nobody gains by renaming a file to itself, under another spelling or over itself.
- *Uploads count as they grow*, before their bytes are written, however many run at once. An upload that is to replace a
  file counts only with what it has more than that, or a file of more than half the quota could never be replaced. Only
  one upload for each file has this allowance, and only while the file is there: at worst the disk has twice the quota.
- *What a broken-off upload leaves* for a resumption counts, or else a thousand of them would be free.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager

import trio

from asyncnet.ftp.storage import Download, Entry, HashAlgorithm, Path, Status, Storage, Upload


class LimitedFiles:
    """`storage`, in whose files there may be `quota` bytes: a `Storage`. What goes past that raises EDQUOT.

    Use one object for all connections that share the quota, and the same storage only through it.
    """

    def __init__(self, storage: Storage, quota: int) -> None:
        self._storage = storage
        self.quota = quota
        self._used: int | None = None
        self._changing = trio.Lock()
        self._uploads: set[LimitedUpload] = set()
        self._partials: dict[Path, int] = {}
        """What broken-off uploads have left, and what counts for it."""

    async def used(self) -> int:
        """How many bytes there are, with what is on its way in."""
        if self._used is None:
            async with self._changing:
                if self._used is None:  # another task may have counted meanwhile
                    self._used = await _sum_of_sizes(self._storage)
        return self._used

    def charge(self, difference: int, path: Path) -> None:
        """Count `difference` bytes for an upload to `path`, or raise EDQUOT."""
        if difference > 0 and (self._used or 0) + difference > self.quota:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/".join(path))
        self.count(difference)

    def count(self, difference: int) -> None:
        """Count them, be it past the quota."""
        self._used = max(0, (self._used or 0) + difference)

    def _count_partial(self, path: Path, size: int | None) -> None:
        self.count((size or 0) - self._partials.pop(path, 0))
        if size:
            self._partials[path] = size

    @asynccontextmanager
    async def _measured(self, *paths: Path) -> AsyncGenerator[None]:
        """Make a change in the block, and what has become of the files that it concerns is counted."""
        await self.used()
        async with self._changing:
            before = await self._files_at(paths)
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):  # without a deadline: the storage alone is waited for
                    after = await self._files_at(paths)
                self.count(sum(file.size for file in after) - sum(file.size for file in before))
                self._end_allowances(paths, before)

    def _end_allowances(self, paths: Sequence[Path], files: Iterable[Status]) -> None:
        """What was to be replaced may be elsewhere now, or gone, and no longer pays for an upload."""
        for upload in self._allowed(paths, files):
            upload.end_allowance()

    def _allowed(self, paths: Sequence[Path], files: Iterable[Status]) -> list[LimitedUpload]:
        """The uploads with an allowance for one of these. Links may give one file several paths."""
        unique = {file.unique for file in files} - {""}
        return [upload for upload in self._uploads if upload.path in paths or upload.replaces in unique]

    async def _files_at(self, paths: Sequence[Path]) -> list[Status]:
        return [file for path in paths if (file := await self._file_status(path))]

    async def _file_status(self, path: Path) -> Status | None:
        try:
            status = await self._storage.stat(path)
        except OSError:
            return None
        return None if status.is_folder else status

    async def stat(self, path: Path) -> Status:
        return await self._storage.stat(path)

    async def partial_size(self, path: Path) -> int | None:
        return await self._storage.partial_size(path)

    def scan(self, path: Path) -> AsyncGenerator[list[Entry], None]:
        return self._storage.scan(path)

    async def open(self, path: Path) -> Download:
        return await self._storage.open(path)

    async def store(self, path: Path, *, offset: int | None = 0, exclusive: bool = False) -> LimitedUpload:
        await self.used()
        async with self._changing:
            old = await self._file_status(path)
            inner = await self._storage.store(path, offset=offset, exclusive=exclusive)
            if old is not None and self._allowed([path], [old]):
                old = None  # another upload has it
            upload = LimitedUpload(self, inner, path, replaces=old)
            self._uploads.add(upload)
            self._count_partial(path, None)  # what was left there is the upload's now, or gone
        try:
            upload.charge(inner.size)
        except OSError:
            await upload.abandon(keep=True)
            raise
        return upload

    async def commit(self, upload: LimitedUpload, inner: Upload) -> Status:
        """Have the upload take its name, and count what it has replaced."""
        with trio.CancelScope(shield=True):  # without a deadline: the storage alone is waited for
            async with self._changing:
                old = await self._file_status(upload.path)
                try:
                    status = await inner.commit()
                finally:
                    self._end(upload)
                new = await self._file_status(upload.path)
                self.count(status.size)
                # Where its folder was renamed it has gone elsewhere, and what is here was not replaced.
                if old is not None and new is not None and new.unique == status.unique:
                    self.count(-old.size)
                    self._end_allowances([upload.path], [old])
        return status

    async def abandon(self, upload: LimitedUpload, inner: Upload, *, keep: bool) -> None:
        """Count what is left of an upload that is given up."""
        with trio.CancelScope(shield=True):  # as above
            try:
                await inner.abandon(keep=keep)
                left = await self._storage.partial_size(upload.path) if keep else None
            finally:
                self._end(upload)
            if left is not None:
                self._count_partial(upload.path, left)

    def _end(self, upload: LimitedUpload) -> None:
        self._uploads.discard(upload)
        self.count(-upload.charged)
        upload.charged = 0

    async def remove(self, path: Path) -> None:
        async with self._measured(path):
            await self._storage.remove(path)
        self._count_partial(path, None)

    async def rename(self, source: Path, target: Path) -> None:
        async with self._measured(source, target):
            await self._storage.rename(source, target)
            depth = len(source)
            for upload in self._uploads:
                if upload.path[:depth] == source and len(upload.path) > depth:
                    upload.path = target + upload.path[depth:]
            for path in [path for path in self._partials if path[:depth] == source and len(path) > depth]:
                self._partials[target + path[depth:]] = self._partials.pop(path)

    async def make_folder(self, path: Path) -> None:
        await self._storage.make_folder(path)

    async def remove_folder(self, path: Path) -> None:
        await self.used()
        async with self._changing:
            await self._storage.remove_folder(path)
            for partial in [partial for partial in self._partials if partial[:-1] == path]:
                self._count_partial(partial, None)

    async def set_modified(self, path: Path, modified: float) -> None:
        await self._storage.set_modified(path, modified)

    async def set_mode(self, path: Path, mode: int) -> None:
        await self._storage.set_mode(path, mode)

    async def hash(self, path: Path, algorithm: HashAlgorithm, start: int = 0, end: int | None = None) -> str:
        return await self._storage.hash(path, algorithm, start, end)

    async def free_space(self) -> int | None:
        left = max(0, self.quota - await self.used())
        free = await self._storage.free_space()
        return left if free is None else min(left, free)


class LimitedUpload:
    """An `Upload` that counts as it grows, with what it has more than the file that it replaces."""

    def __init__(self, files: LimitedFiles, upload: Upload, path: Path, *, replaces: Status | None) -> None:
        self.path = path
        """Where it goes; changes when a folder on the way is renamed."""
        self.replaces = replaces.unique if replaces is not None else ""
        """`Status.unique` of the file that it has an allowance for."""
        self.charged = 0
        """What counts for it."""
        self._charged_for = 0
        self._files = files
        self._upload = upload
        self._allowance = replaces.size if replaces is not None else 0

    @property
    def size(self) -> int:
        return self._upload.size

    def charge(self, size: int) -> None:
        """It is to have `size` bytes. Raises EDQUOT, and nothing has changed then."""
        counting = max(0, size - self._allowance)
        self._files.charge(counting - self.charged, self.path)
        self.charged = counting
        self._charged_for = size

    def end_allowance(self) -> None:
        """All of it counts from now on, be it past the quota."""
        self._files.count(self._charged_for - self.charged)
        self.charged = self._charged_for
        self._allowance = 0
        self.replaces = ""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        self.charge(self._upload.size + len(data))
        await self._upload.write(data)

    async def commit(self) -> Status:
        return await self._files.commit(self, self._upload)

    async def abandon(self, *, keep: bool) -> None:
        await self._files.abandon(self, self._upload, keep=keep)


async def _sum_of_sizes(storage: Storage) -> int:
    """Of all files. A folder that several names lead to is gone through once, one that cannot be read not at all."""
    total = 0
    ahead: list[Path] = [()]
    seen: set[str] = {(await storage.stat(())).unique}
    while ahead:
        folder = ahead.pop()
        try:
            async with aclosing(storage.scan(folder)) as batches:
                async for batch in batches:
                    for entry in batch:
                        if not entry.status.is_folder:
                            total += entry.status.size
                        elif not entry.status.unique or entry.status.unique not in seen:
                            seen.add(entry.status.unique)
                            ahead.append((*folder, entry.name))
        except OSError:
            continue
    return total
