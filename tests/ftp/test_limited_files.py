"""A quota: nobody gets past it, and nobody loses any of it."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncnet.ftp.limited_files import LimitedFiles
from asyncnet.ftp.local_files import LocalFiles
from asyncnet.ftp.memory_files import MemoryFiles
from asyncnet.testing import cancel_at_each_checkpoint
from tests.ftp.use import break_off, fails, get, put

KEPT = {"a": b"1234567890", "folder/b": b"12345", "folder/deep/c": b"12345"}


@pytest.fixture
def memory() -> MemoryFiles:
    return MemoryFiles(KEPT)


@pytest.fixture
def files(memory: MemoryFiles) -> LimitedFiles:
    """20 bytes of 100 are used."""
    return LimitedFiles(memory, 100)


async def test_what_is_there_already_counts(files: LimitedFiles) -> None:
    assert await files.used() == 20
    assert await files.free_space() == 80


async def test_nothing_goes_past_the_quota(files: LimitedFiles, memory: MemoryFiles) -> None:
    await put(files, "b", b"x" * 80)
    upload = await files.store(("c",))
    await upload.write(b"")
    with fails(errno.EDQUOT):
        await upload.write(b"x")
    await upload.abandon(keep=True)
    assert "c" not in memory.contents()
    assert (await files.used(), await files.free_space()) == (100, 0)


async def test_uploads_count_as_they_grow_and_no_more_when_they_are_given_up(files: LimitedFiles) -> None:
    first, second = await files.store(("b",)), await files.store(("c",))
    await first.write(b"x" * 50)
    with fails(errno.EDQUOT):
        await second.write(b"x" * 31)
    await second.write(b"x" * 30)
    assert await files.used() == 100
    await first.abandon(keep=False)
    assert await files.used() == 50
    await second.write(b"x" * 50)
    await second.commit()
    assert await files.used() == 100


async def test_what_is_removed_or_replaced_is_given_back(files: LimitedFiles) -> None:
    await put(files, "a", b"1")
    assert await files.used() == 11
    await files.remove(("folder", "b"))
    assert await files.used() == 6
    await files.rename(("a",), ("folder", "deep", "c"))
    assert await files.used() == 1
    await files.remove(("folder", "deep", "c"))
    await files.remove_folder(("folder", "deep"))
    assert await files.used() == 0


async def test_what_fails_gives_nothing_back(files: LimitedFiles) -> None:
    with fails(errno.ENOENT):
        await files.remove(("missing",))
    with fails(errno.EISDIR):
        await files.remove(("folder",))
    with fails(errno.EISDIR):
        await files.rename(("a",), ("folder",))
    with fails(errno.ENOTEMPTY):
        await files.remove_folder(("folder",))
    with fails(errno.EEXIST):
        await files.store(("a",), exclusive=True)
    upload = await files.store(("new",), exclusive=True)
    await upload.write(b"x")
    await put(files, "new", b"yy")
    with fails(errno.EEXIST):
        await upload.commit()
    assert await files.used() == 22


async def test_an_append_counts_with_what_it_adds(files: LimitedFiles) -> None:
    await put(files, "a", b"x" * 70, offset=None)
    assert await files.used() == 90
    await put(files, "a", b"x", offset=79)
    assert await files.used() == 90
    await put(files, "a", b"x", offset=10)
    assert await files.used() == 21


class TestReplacing:
    async def test_a_file_of_more_than_half_the_quota_can_be_replaced(self, files: LimitedFiles) -> None:
        await put(files, "big", b"x" * 80)
        await put(files, "big", b"y" * 80)
        upload = await files.store(("big",))
        with fails(errno.EDQUOT):
            await upload.write(b"z" * 81)
        await upload.abandon(keep=True)
        assert await get(files, "big") == b"y" * 80
        assert await files.used() == 100

    async def test_only_one_upload_to_a_name_is_spared(self, files: LimitedFiles) -> None:
        await put(files, "big", b"x" * 80)
        first, second = await files.store(("big",)), await files.store(("big",))
        await first.write(b"y" * 80)
        with fails(errno.EDQUOT):
            await second.write(b"y")
        await second.abandon(keep=False)
        await first.commit()
        assert await files.used() == 100

    @pytest.mark.parametrize("how", ["removed", "replaced", "renamed", "renamed over"])
    async def test_what_is_gone_spares_nobody(self, files: LimitedFiles, how: str) -> None:
        await put(files, "big", b"x" * 60)
        upload = await files.store(("big",))
        await upload.write(b"y" * 60)
        assert await files.used() == 80
        if how == "removed":
            await files.remove(("big",))
        elif how == "replaced":
            await put(files, "big", b"")
        elif how == "renamed":
            await files.rename(("big",), ("moved",))
        else:
            await files.rename(("a",), ("big",))
        assert await files.used() == {"renamed": 140}.get(how, 80)
        await upload.commit()
        assert await files.used() == {"renamed": 140, "renamed over": 70}.get(how, 80)
        assert await files.used() == sum(map(len, (await measured(files)).values()))


async def measured(files: LimitedFiles) -> dict[str, bytes]:
    inner = files._storage
    assert isinstance(inner, MemoryFiles)
    return inner.contents()


class TestPartials:
    async def test_what_a_broken_off_upload_leaves_counts(self, files: LimitedFiles) -> None:
        await break_off(files, "x", b"x" * 40)
        await break_off(files, "y", b"x" * 40)
        assert await files.used() == 100
        upload = await files.store(("z",))
        with fails(errno.EDQUOT):
            await upload.write(b"x")
        await upload.abandon(keep=True)

    async def test_it_counts_once_when_it_is_resumed_or_begun_anew(self, files: LimitedFiles) -> None:
        await break_off(files, "x", b"x" * 40)
        upload = await files.store(("x",), offset=None)
        assert await files.used() == 60
        await upload.write(b"x" * 10)
        await upload.abandon(keep=True)
        assert await files.used() == 70
        await put(files, "x", b"x")
        assert await files.used() == 21

    async def test_it_is_given_back_with_its_folder_and_goes_along_with_it(self, files: LimitedFiles) -> None:
        await files.make_folder(("new",))
        await break_off(files, "new/x", b"x" * 40)
        await files.rename(("new",), ("newer",))
        assert await files.used() == 60
        await files.remove_folder(("newer",))
        assert await files.used() == 20

    async def test_one_that_does_not_fit_any_more_stays_for_later(self, memory: MemoryFiles) -> None:
        await break_off(memory, "x", b"x" * 90)
        files = LimitedFiles(memory, 100)
        with fails(errno.EDQUOT):
            await files.store(("x",), offset=None)
        assert await files.partial_size(("x",)) == 90


class TestTricks:
    async def test_renaming_a_file_to_itself_gives_nothing_back(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "a").write_bytes(b"x" * 50)
        (tmp_path / "alias").symlink_to("folder")
        os.link(tmp_path / "folder" / "a", tmp_path / "hard")
        files = LimitedFiles(LocalFiles(tmp_path), 1000)
        before = await files.used()
        await files.rename(("folder", "a"), ("folder", "a"))
        await files.rename(("folder", "a"), ("alias", "a"))
        await files.rename(("folder", "a"), ("hard",))
        assert await files.used() == before == 100

    async def test_links_in_a_circle_are_counted_to_an_end(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "a").write_bytes(b"x" * 50)
        for name in ("one", "two"):
            (tmp_path / "folder" / name).symlink_to(".")
            (tmp_path / "folder" / f"up {name}").symlink_to("..")
        assert await LimitedFiles(LocalFiles(tmp_path), 1000).used() == 50

    async def test_an_upload_whose_folder_is_renamed_still_counts(self, files: LimitedFiles) -> None:
        for end in ("commit", "abandon"):
            await files.make_folder(("new",))
            upload = await files.store(("new", "x"))
            await upload.write(b"x" * 20)
            await files.rename(("new",), (end,))
            await (upload.commit() if end == "commit" else upload.abandon(keep=True))
        assert await files.used() == 60

    async def test_nobody_is_spared_for_what_lies_where_the_folder_was(self, tmp_path: Path) -> None:
        files = LimitedFiles(LocalFiles(tmp_path), 100)
        await files.make_folder(("new",))
        (tmp_path / "alias").symlink_to("new")
        upload = await files.store(("alias", "x"))
        await upload.write(b"x" * 20)
        await files.rename(("new",), ("old",))
        await files.make_folder(("new",))
        await put(files, "new/x", b"y" * 30)
        await upload.commit()
        assert await files.used() == 50


async def test_many_connections_at_once_lose_and_gain_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    files = LimitedFiles(LocalFiles(tmp_path), 1_000_000)

    async def use(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(15):
            name, other = chance.choice("abc"), chance.choice("abc")
            try:
                kind = chance.randrange(4)
                if kind == 0:
                    await files.remove((name,))
                elif kind == 1:
                    await files.rename((name,), (other,))
                elif kind == 2:
                    await break_off(files, name, b"x" * chance.randrange(300), keep=False)
                else:
                    await put(files, name, b"x" * chance.randrange(300), offset=chance.choice([0, None]))
            except FileNotFoundError:
                pass

    async with trio.open_nursery() as nursery:
        for seed in range(8):
            nursery.start_soon(use, seed)
    assert await files.used() == sum(path.stat().st_size for path in tmp_path.iterdir())


async def test_all_who_ask_at_first_wait_for_one_count(memory: MemoryFiles) -> None:
    scans = 0

    class Slow(MemoryFiles):
        def scan(self, path):  # type: ignore[no-untyped-def]
            nonlocal scans
            scans += 1
            return memory.scan(path)

    files = LimitedFiles(Slow(), 100)
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(put, files, f"file {number}", b"x")
    assert scans == 3
    assert await files.used() == 25


async def test_each_operation_cancelled_anywhere_leaves_the_count_right() -> None:
    for attempt in cancel_at_each_checkpoint():
        memory = MemoryFiles(KEPT)
        files = LimitedFiles(memory, 100)
        upload = None
        with attempt:
            await files.remove(("folder", "b"))
            await files.rename(("a",), ("folder", "deep", "c"))
            upload = await files.store(("folder", "deep", "c"))
            await upload.write(b"x" * 30)
            await upload.commit()
            upload = await files.store(("d",))
            await upload.write(b"y" * 10)
        if upload is not None:
            try:
                await upload.abandon(keep=False)
            except trio.ClosedResourceError:
                pass
        assert await files.used() == sum(map(len, memory.contents().values()))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "append", "break off", "resume", "remove", "rename", "begin", "write", "end"]),
        st.sampled_from(["a", "b", "folder/a", "folder/b"]),
        st.sampled_from(["a", "b", "folder/a", "folder/b"]),
        st.integers(0, 60),
    ),
    max_size=20,
)


@given(STEPS)
@settings(max_examples=200)
async def test_whatever_is_done_the_count_is_what_is_there(
    steps: list[tuple[str, str, str, int]],
) -> None:
    memory = MemoryFiles({"folder/": b""})
    files = LimitedFiles(memory, 100)
    running = []
    for what, path, other, size in steps:
        names, data = tuple(path.split("/")), b"x" * size
        try:
            if what in ("put", "append", "resume", "begin"):
                upload = await files.store(names, offset=0 if what == "put" else None)
                running.append(upload)
                if what != "begin":
                    await upload.write(data)
                    await running.pop().commit()
            elif what == "break off":
                await break_off(files, path, data)
            elif what == "remove":
                await files.remove(names)
            elif what == "rename":
                await files.rename(names, tuple(other.split("/")))
            elif running and what == "write":
                await running[size % len(running)].write(data)
            elif running:
                await running.pop(size % len(running)).commit()
        except OSError as error:
            if error.errno not in (errno.EDQUOT, errno.ENOENT):
                raise
            if running and what in ("put", "append", "resume"):
                await running.pop().abandon(keep=False)
    for upload in running:
        await upload.abandon(keep=False)
    partials = sum(
        [await files.partial_size(tuple(path.split("/"))) or 0 for path in ("a", "b", "folder/a", "folder/b")]
    )
    assert await files.used() >= sum(map(len, memory.contents().values())) + partials
    assert sum(map(len, memory.contents().values())) <= 200
