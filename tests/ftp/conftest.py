"""Storages of every kind, for tests that are to hold on all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asyncnet.ftp.limited_files import LimitedFiles
from asyncnet.ftp.local_files import LocalFiles
from asyncnet.ftp.memory_files import MemoryFiles
from asyncnet.ftp.mounted_files import MountedFiles
from asyncnet.ftp.storage import Storage

Maker = Callable[[Path], Storage]

MAKERS: dict[str, Maker] = {
    "local": LocalFiles,
    "memory": lambda folder: MemoryFiles(),
    "mounted local": lambda folder: MountedFiles({"/": LocalFiles(folder)}),
    "mounted memory": lambda folder: MountedFiles({"/": MemoryFiles()}),
    "limited local": lambda folder: LimitedFiles(LocalFiles(folder), 1 << 30),
    "limited memory": lambda folder: LimitedFiles(MemoryFiles(), 1 << 30),
}


@pytest.fixture(params=MAKERS)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty storage."""
    folder = tmp_path / "root"
    folder.mkdir()
    return MAKERS[request.param](folder)


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """No test leaves a descriptor behind."""
    before = open_files()
    yield
    assert open_files() <= before


def open_files() -> set[tuple[str, str]]:
    """The descriptors of files and folders, and what they are open on."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if target.startswith("/tmp") or "asyncnet-" in target:
            found.add((number, target))
    return found
