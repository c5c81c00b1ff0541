"""`MemoryFiles` by itself: how it is filled and looked into, and that time in it is virtual."""

from __future__ import annotations

import errno

import pytest
import trio

from asyncnet.ftp.memory_files import MemoryFiles
from asyncnet.ftp.storage import HashAlgorithm
from tests.ftp.use import fails, get, names, put


async def test_it_is_filled_with_contents_by_path() -> None:
    files = MemoryFiles({"a/b.txt": b"deep", "c": b"", "empty/": b""})
    assert await names(files) == ["a", "c", "empty"]
    assert await get(files, "a/b.txt") == b"deep"
    assert await names(files, "empty") == []


async def test_its_contents_are_what_it_can_be_filled_with() -> None:
    filled = {"a/": b"", "a/b.txt": b"deep", "c": b"", "empty/": b""}
    files = MemoryFiles(filled)
    assert files.contents() == filled
    await put(files, "empty/new", b"new")
    assert files.contents() == filled | {"empty/new": b"new"}


@pytest.mark.parametrize("path", ["/a", "a//b", "..", "a/../b", "a\\b", "", "folder/"])
def test_it_is_filled_with_nothing_that_cannot_be(path: str) -> None:
    with fails(errno.EACCES):
        MemoryFiles({path: b"x"})


def test_nothing_lies_below_a_file() -> None:
    with fails(errno.ENOTDIR):
        MemoryFiles({"a": b"x", "a/b": b"y"})


async def test_times_are_those_of_the_clock_it_is_given(autojump_clock: object) -> None:
    began = trio.current_time()
    files = MemoryFiles({"a": b""}, clock=lambda: 1000 + trio.current_time() - began)
    await trio.sleep(3600)
    await put(files, "a", b"new")
    assert (await files.stat(("a",))).modified == 4600


async def test_a_long_hash_lets_others_have_their_turn() -> None:
    files = MemoryFiles({"a": b"x" * (5 << 20)})
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await files.hash(("a",), HashAlgorithm.MD5)
        nursery.cancel_scope.cancel()
    assert turns >= 4
