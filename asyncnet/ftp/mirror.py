"""Whole trees, from and to an FTP server, over several connections at once.

report = await mirror_down(lambda: FTPClient.connect(url), "pub", "copy", connections=4)
for failure in report.failures:
    print(failure.path, failure.error)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from asyncnet.ftp.client import FTPClient

Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[FTPClient]]
"""Opens one more connection: `lambda: FTPClient.connect(url, …)`."""


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
    """What the progress callback gets: `path` is relative to the tree's root, with `/` between names."""

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


async def mirror_down(
    connect: Connect,
    source: str,
    target: str | os.PathLike[str],
    *,
    connections: int = 4,
    delete: bool = False,
    progress: Callable[[Step], object] | None = None,
    moved: Callable[[str, int, int | None], object] | None = None,
) -> Report:
    """Make the folder `target` here what the folder `source` is there.

    A file is moved when its size differs, or the time of its last change by two seconds or more; it is resumed where
    a part is left from before. With `delete`, what is not there is removed here, last, and only where the folder could
    be listed whole. A file that fails does not stop the others: `Report.failures` has it. `progress` hears of each
    file when it is done, `moved` of the bytes on the way: path, so far, size.

    A name that is no name here (a slash, `..`, a control character) fails, and never leads out of `target`; nor do
    symlinks within it, which are not followed. Raises what `connect` raises if not even one connection succeeds.
    """
    raise NotImplementedError


async def mirror_up(
    connect: Connect,
    source: str | os.PathLike[str],
    target: str,
    *,
    connections: int = 4,
    delete: bool = False,
    progress: Callable[[Step], object] | None = None,
    moved: Callable[[str, int, int | None], object] | None = None,
) -> Report:
    """Make the folder `target` there what the folder `source` here is; else like `mirror_down`.

    Times are compared and set where the server has MFMT; else the size alone decides.
    """
    raise NotImplementedError
