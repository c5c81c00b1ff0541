"""What tests do with a storage again and again."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from asyncnet.ftp.storage import Path, Storage, Upload


def at(path: str) -> Path:
    """ "a/b" -> ("a", "b")."""
    return tuple(path.split("/")) if path else ()


async def put(files: Storage, path: str, content: bytes = b"", **how: object) -> None:
    upload: Upload = await files.store(at(path), **how)  # type: ignore[arg-type]
    await upload.write(content)
    await upload.commit()


async def break_off(files: Storage, path: str, content: bytes, *, keep: bool = True) -> None:
    upload = await files.store(at(path))
    await upload.write(content)
    await upload.abandon(keep=keep)


async def get(files: Storage, path: str) -> bytes:
    download = await files.open(at(path))
    try:
        return await download.read(0, 1 << 30)
    finally:
        await download.aclose()


async def names(files: Storage, path: str = "") -> list[str]:
    return sorted([entry.name async for batch in files.scan(at(path)) for entry in batch])


@contextmanager
def fails(*numbers: int) -> Iterator[None]:
    """The block raises an OSError of one of these numbers."""
    try:
        yield
    except OSError as error:
        if error.errno in numbers:
            return
        raise
    raise AssertionError(f"no error, and not {[errno.errorcode[number] for number in numbers]}")
