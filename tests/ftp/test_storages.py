"""What every storage promises: `asyncnet.ftp.storage`, sentence by sentence."""

from __future__ import annotations

import errno
import hashlib
import zlib
from contextlib import aclosing

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncnet.ftp.memory_files import MemoryFiles
from asyncnet.ftp.storage import HashAlgorithm, Storage
from asyncnet.testing import cancel_at_each_checkpoint
from tests.ftp.use import at, break_off, fails, get, names, put


class TestLooking:
    async def test_the_root_is_a_folder_and_empty_at_first(self, files: Storage) -> None:
        assert (await files.stat(())).is_folder
        assert await names(files) == []

    async def test_a_file_has_its_size_and_a_time(self, files: Storage) -> None:
        await put(files, "a.txt", b"hello")
        status = await files.stat(("a.txt",))
        assert (status.is_folder, status.size) == (False, 5)
        assert status.modified > 1e9

    async def test_what_is_unique_stays_so_when_the_name_changes(self, files: Storage) -> None:
        await put(files, "a")
        await put(files, "b")
        a, b = await files.stat(("a",)), await files.stat(("b",))
        assert a.unique != b.unique
        await files.rename(("a",), ("c",))
        assert (await files.stat(("c",))).unique == a.unique

    async def test_what_is_missing_is_not_found(self, files: Storage) -> None:
        await put(files, "file")
        for path in ("missing", "missing/file"):
            with fails(errno.ENOENT):
                await files.stat(at(path))
            with fails(errno.ENOENT):
                await files.open(at(path))
            with fails(errno.ENOENT):
                await names(files, path)
            with fails(errno.ENOENT):
                await files.remove(at(path))
            with fails(errno.ENOENT):
                await files.remove_folder(at(path))
            with fails(errno.ENOENT):
                await files.rename(at(path), ("x",))
            with fails(errno.ENOENT):
                await files.set_modified(at(path), 0)
            with fails(errno.ENOENT):
                await files.set_mode(at(path), 0o600)
            with fails(errno.ENOENT):
                await files.hash(at(path), HashAlgorithm.MD5)
        for path in ("missing/x", "missing/deep/x"):
            with fails(errno.ENOENT):
                await files.store(at(path))
            with fails(errno.ENOENT):
                await files.make_folder(at(path))
            with fails(errno.ENOENT):
                await files.rename(("file",), at(path))

    async def test_a_file_is_no_folder(self, files: Storage) -> None:
        await put(files, "file", b"x")
        for path in ("file/x", "file/x/y"):
            with fails(errno.ENOTDIR):
                await files.stat(at(path))
            with fails(errno.ENOTDIR):
                await files.open(at(path))
            with fails(errno.ENOTDIR):
                await files.store(at(path))
            with fails(errno.ENOTDIR):
                await files.make_folder(at(path))
        with fails(errno.ENOTDIR):
            await names(files, "file")
        with fails(errno.ENOTDIR):
            await files.remove_folder(("file",))

    async def test_a_folder_is_no_file(self, files: Storage) -> None:
        await files.make_folder(("folder",))
        for path in ((), ("folder",)):
            with fails(errno.EISDIR):
                await files.open(path)
            with fails(errno.EISDIR):
                await files.store(path)
            with fails(errno.EISDIR):
                await files.remove(path)
            with fails(errno.EISDIR):
                await files.hash(path, HashAlgorithm.SHA256)
            assert await files.partial_size(path) is None
        with fails(errno.EEXIST):
            await files.store(("folder",), exclusive=True)

    @pytest.mark.parametrize("name", ["back\\slash", "a" * 256, "ä" * 128, "\udc2f", ".."])
    async def test_a_name_that_cannot_be_is_refused_everywhere(self, files: Storage, name: str) -> None:
        await put(files, "file")
        for path in ((name,), (name, "x")):
            with fails(errno.EACCES):
                await files.stat(path)
            with fails(errno.EACCES):
                await files.store(path)
            with fails(errno.EACCES):
                await files.make_folder(path)
            with fails(errno.EACCES):
                await files.remove(path)
            with fails(errno.EACCES):
                await files.rename(("file",), path)
        assert await names(files) == ["file"]

    @pytest.mark.parametrize(
        "name", ["a b", 'quo"te', "it's", "a" * 255, "ä" * 127, "caf\udce9", " ", "-x", ".hidden", "*"]
    )
    async def test_a_name_may_have_all_kinds_of_characters(self, files: Storage, name: str) -> None:
        await put(files, name, b"content")
        assert await get(files, name) == b"content"
        assert await names(files) == [name]
        await break_off(files, f"{name[:-1]}+", b"partial")
        assert await files.partial_size((f"{name[:-1]}+",)) == 7
        await files.rename((name,), ("other",))
        await files.make_folder((name,))
        await put(files, f"{name}/{name}", b"deep")
        assert await names(files, name) == [name]


class TestScanning:
    async def test_a_large_folder_comes_in_pieces(self, files: Storage) -> None:
        for number in range(1200):
            await files.make_folder((str(number),))
        batches = [batch async for batch in files.scan(())]
        assert len(batches) > 1
        assert sorted(int(entry.name) for batch in batches for entry in batch) == list(range(1200))

    async def test_no_batch_is_empty(self, files: Storage) -> None:
        await files.make_folder(("empty",))
        await break_off(files, "hidden", b"x")
        await files.remove_folder(("empty",))
        assert [batch async for batch in files.scan(())] == []

    async def test_what_vanishes_meanwhile_harms_nobody(self, files: Storage) -> None:
        for number in range(600):
            await files.make_folder((str(number),))
        seen = 0
        async for batch in files.scan(()):
            if not seen:
                for number in range(600):
                    await files.remove_folder((str(number),))
            seen += len(batch)
        assert 0 < seen <= 600

    async def test_who_stops_early_leaves_nothing_open(self, files: Storage) -> None:
        for number in range(100):
            await files.make_folder((str(number),))
        async with aclosing(files.scan(())) as batches:  # type: ignore[type-var]
            async for _ in batches:
                break
        for attempt in cancel_at_each_checkpoint():
            with attempt:
                async with aclosing(files.scan(())) as batches:  # type: ignore[type-var]
                    async for _ in batches:
                        pass


class TestReading:
    async def test_any_piece_can_be_read(self, files: Storage) -> None:
        await put(files, "a", b"0123456789")
        download = await files.open(("a",))
        assert await download.read(0, 3) == b"012"
        assert await download.read(8, 100) == b"89"
        assert await download.read(10, 100) == b""
        assert await download.read(100, 100) == b""
        assert await download.read(3, 0) == b""
        assert download.status.size == 10
        await download.aclose()

    async def test_a_descriptor_has_the_same_bytes(self, files: Storage) -> None:
        await put(files, "a", b"0123456789")
        download = await files.open(("a",))
        assert download.file is None or download.file.read() == b"0123456789"
        await download.aclose()

    @pytest.mark.parametrize("change", ["removed", "renamed", "replaced", "appended to"])
    async def test_a_file_that_is_being_read_goes_on_existing(self, files: Storage, change: str) -> None:
        await put(files, "a", b"the old content")
        download = await files.open(("a",))
        if change == "removed":
            await files.remove(("a",))
        elif change == "renamed":
            await files.rename(("a",), ("b",))
            await put(files, "a", b"another")
        else:
            await put(files, "a", b"new", offset=0 if change == "replaced" else None)
        assert await download.read(0, 7) == b"the old"
        assert await download.read(7, 100) == b" content"
        await download.aclose()

    async def test_closing_works_when_cancelled_and_twice(self, files: Storage) -> None:
        await put(files, "a", b"x")
        for attempt in cancel_at_each_checkpoint():
            download = await files.open(("a",))
            with attempt:
                await download.read(0, 1)
                await download.aclose()
            await download.aclose()

    async def test_opening_is_cancelled_anywhere(self, files: Storage) -> None:
        await put(files, "a", b"x")
        for attempt in cancel_at_each_checkpoint():
            with attempt:
                await (await files.open(("a",))).aclose()


class TestWriting:
    async def test_nobody_sees_an_upload_until_it_is_committed(self, files: Storage) -> None:
        upload = await files.store(("a",))
        await upload.write(b"con")
        await upload.write(bytearray(b"te"))
        await upload.write(memoryview(b"nt"))
        assert upload.size == 7
        assert await names(files) == []
        with fails(errno.ENOENT):
            await files.stat(("a",))
        with fails(errno.ENOENT):
            await files.open(("a",))
        assert (await upload.commit()).size == 7
        assert await names(files) == ["a"]
        assert await get(files, "a") == b"content"

    async def test_large_and_small_pieces_come_in_order(self, files: Storage) -> None:
        pieces = [bytes([number]) * size for number, size in enumerate([1, 300_000, 5, 5, 2_000_000, 0, 7, 700_000])]
        upload = await files.store(("a",))
        for piece in pieces * 2:
            await upload.write(piece)
        assert upload.size == 2 * sum(map(len, pieces))
        await upload.commit()
        assert await get(files, "a") == b"".join(pieces * 2)

    async def test_what_was_given_may_be_used_again_at_once(self, files: Storage) -> None:
        upload = await files.store(("a",))
        for size in (3, 300_000):
            data = bytearray(b"x" * size)
            await upload.write(memoryview(data))
            data[:] = b"y" * size
        await upload.commit()
        assert set(await get(files, "a")) == {ord("x")}

    async def test_the_old_file_stays_while_an_upload_runs_and_when_it_is_given_up(self, files: Storage) -> None:
        await put(files, "a", b"old")
        for offset in (0, 2, None):
            upload = await files.store(("a",), offset=offset)
            await upload.write(b"new" * 1_000_000)
            assert await get(files, "a") == b"old"
            await upload.abandon(keep=offset is None)
            assert await get(files, "a") == b"old"
            assert await names(files) == ["a"]
        assert await files.partial_size(("a",)) is None

    async def test_a_file_replaces_another(self, files: Storage) -> None:
        await put(files, "a", b"a long old one")
        await put(files, "a", b"new")
        assert await get(files, "a") == b"new"

    async def test_a_file_that_replaces_another_keeps_its_permissions(self, files: Storage) -> None:
        for how in ({}, {"offset": 0}, {"offset": None}):
            await put(files, "a", b"x")
            await files.set_mode(("a",), 0o640)
            await put(files, "a", b"new", **how)
            assert (await files.stat(("a",))).mode == 0o640

    async def test_an_upload_goes_on_behind_what_is_there(self, files: Storage) -> None:
        await put(files, "a", b"0123456789")
        await put(files, "a", b"!", offset=None)
        assert await get(files, "a") == b"0123456789!"
        await put(files, "a", b"abc", offset=4)
        assert await get(files, "a") == b"0123abc"
        await put(files, "a", b"", offset=3)
        assert await get(files, "a") == b"012"
        for offset in (4, -1):
            with fails(errno.EINVAL):
                await files.store(("a",), offset=offset)

    async def test_where_nothing_is_an_upload_begins_at_the_beginning(self, files: Storage) -> None:
        await put(files, "a", b"abc", offset=None)
        assert await get(files, "a") == b"abc"
        with fails(errno.EINVAL):
            await files.store(("b",), offset=1)
        assert await names(files) == ["a"]

    async def test_two_uploads_of_one_name_are_two_files_and_the_last_one_stays(self, files: Storage) -> None:
        first, second = await files.store(("a",)), await files.store(("a",))
        for letter in "abc":
            await first.write(f"first {letter}".encode() * 100_000)
            await second.write(f"second {letter}".encode() * 100_000)
        await second.commit()
        assert await get(files, "a") == b"".join(f"second {letter}".encode() * 100_000 for letter in "abc")
        await first.commit()
        assert await get(files, "a") == b"".join(f"first {letter}".encode() * 100_000 for letter in "abc")
        assert await names(files) == ["a"]

    async def test_an_upload_whose_folder_was_removed_fails(self, files: Storage) -> None:
        await files.make_folder(("folder",))
        upload = await files.store(("folder", "a"))
        is_removed = True
        try:
            await files.remove_folder(("folder",))
        except OSError:
            is_removed = False  # on a disk the upload's temporary file is in the way
        if is_removed:
            with fails(errno.ENOENT):
                await upload.commit()
        else:
            await upload.commit()
            assert await names(files, "folder") == ["a"]

    async def test_an_upload_whose_folder_was_renamed_goes_there(self, files: Storage) -> None:
        await files.make_folder(("old",))
        upload = await files.store(("old", "a"))
        await upload.write(b"x")
        await files.rename(("old",), ("new",))
        await upload.commit()
        assert await get(files, "new/a") == b"x"

    async def test_a_folder_that_was_made_meanwhile_is_not_replaced(self, files: Storage) -> None:
        upload = await files.store(("a",))
        await upload.write(b"x")
        await files.make_folder(("a",))
        with fails(errno.EISDIR):
            await upload.commit()
        assert (await files.stat(("a",))).is_folder

    async def test_an_upload_is_ended_once(self, files: Storage) -> None:
        upload = await files.store(("a",))
        await upload.commit()
        with pytest.raises(trio.ClosedResourceError):
            await upload.write(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await upload.commit()
        with pytest.raises(trio.ClosedResourceError):
            await upload.abandon(keep=True)


class TestExclusively:
    async def test_a_name_that_is_taken_is_refused(self, files: Storage) -> None:
        await put(files, "a", b"old")
        with fails(errno.EEXIST):
            await files.store(("a",), exclusive=True)
        await put(files, "b", b"new", exclusive=True)
        assert (await get(files, "a"), await get(files, "b")) == (b"old", b"new")

    async def test_a_name_that_was_taken_meanwhile_is_refused_at_the_end(self, files: Storage) -> None:
        first, second = await files.store(("a",), exclusive=True), await files.store(("a",), exclusive=True)
        await first.write(b"first")
        await second.write(b"second")
        await second.commit()
        with fails(errno.EEXIST):
            await first.commit()
        assert await get(files, "a") == b"second"
        assert await names(files) == ["a"]
        assert await files.partial_size(("a",)) is None


class TestResuming:
    async def test_what_a_broken_off_upload_has_left_is_resumed(self, files: Storage) -> None:
        await break_off(files, "a", b"0123456789")
        assert await names(files) == []
        assert await files.partial_size(("a",)) == 10
        upload = await files.store(("a",), offset=None)
        assert upload.size == 10
        await upload.write(b"abc")
        await upload.commit()
        assert await get(files, "a") == b"0123456789abc"
        assert await files.partial_size(("a",)) is None

    async def test_it_may_be_resumed_again_and_further_ahead(self, files: Storage) -> None:
        await break_off(files, "a", b"0123456789")
        upload = await files.store(("a",), offset=5)
        await upload.write(b"abc")
        assert await files.partial_size(("a",)) is None  # somebody is at work on it
        await upload.abandon(keep=True)
        assert await files.partial_size(("a",)) == 8
        await put(files, "a", b"!", offset=8)
        assert await get(files, "a") == b"01234abc!"

    async def test_no_more_is_resumed_than_has_come(self, files: Storage) -> None:
        await break_off(files, "a", b"0123")
        with fails(errno.EINVAL):
            await files.store(("a",), offset=5)
        assert await files.partial_size(("a",)) == 4

    async def test_an_upload_from_nothing_has_nothing_of_it(self, files: Storage) -> None:
        await break_off(files, "a", b"0123456789")
        await put(files, "a", b"new")
        assert await get(files, "a") == b"new"

    async def test_without_keep_nothing_is_left(self, files: Storage) -> None:
        await break_off(files, "a", b"0123456789", keep=False)
        assert await files.partial_size(("a",)) is None

    async def test_nothing_can_be_resumed_where_nothing_has_come(self, files: Storage) -> None:
        await break_off(files, "a", b"")
        assert await files.partial_size(("a",)) is None

    async def test_a_name_that_is_taken_has_nothing_to_resume(self, files: Storage) -> None:
        await break_off(files, "a", b"partial")
        await put(files, "b", b"whole")
        await files.rename(("b",), ("a",))
        assert await files.partial_size(("a",)) is None
        await put(files, "a", b"!", offset=None)
        assert await get(files, "a") == b"whole!"

    async def test_a_name_that_was_removed_has_nothing_to_resume(self, files: Storage) -> None:
        await break_off(files, "a", b"partial")
        await put(files, "b", b"whole")
        await files.rename(("b",), ("a",))
        await files.remove(("a",))
        assert await files.partial_size(("a",)) is None

    async def test_two_names_have_two_partials(self, files: Storage) -> None:
        await break_off(files, "a", b"one")
        await break_off(files, "b", b"three")
        assert (await files.partial_size(("a",)), await files.partial_size(("b",))) == (3, 5)


class TestFolders:
    async def test_folders_are_made_and_removed(self, files: Storage) -> None:
        await files.make_folder(("a",))
        await files.make_folder(("a", "b"))
        assert (await files.stat(("a", "b"))).is_folder
        with fails(errno.ENOTEMPTY):
            await files.remove_folder(("a",))
        await files.remove_folder(("a", "b"))
        await files.remove_folder(("a",))
        assert await names(files) == []

    async def test_nothing_is_made_where_something_is(self, files: Storage) -> None:
        await put(files, "file", b"x")
        await files.make_folder(("folder",))
        for path in ((), ("file",), ("folder",)):
            with fails(errno.EEXIST):
                await files.make_folder(path)
        assert await get(files, "file") == b"x"

    async def test_the_root_is_neither_removed_nor_renamed(self, files: Storage) -> None:
        await put(files, "file", b"x")
        with fails(errno.EACCES):
            await files.remove_folder(())
        with fails(errno.EACCES):
            await files.rename((), ("x",))
        with fails(errno.EACCES):
            await files.rename(("file",), ())
        assert await names(files) == ["file"]

    async def test_partial_uploads_do_not_hold_a_folder(self, files: Storage) -> None:
        await files.make_folder(("folder",))
        await break_off(files, "folder/a", b"partial")
        await put(files, "folder/b", b"whole")
        with fails(errno.ENOTEMPTY):
            await files.remove_folder(("folder",))
        assert await files.partial_size(("folder", "a")) == 7
        await files.remove(("folder", "b"))
        await files.remove_folder(("folder",))
        await files.make_folder(("folder",))
        assert await files.partial_size(("folder", "a")) is None


class TestRenaming:
    async def test_a_file_takes_the_place_of_a_file(self, files: Storage) -> None:
        await put(files, "a", b"a")
        await put(files, "b", b"b")
        await files.make_folder(("folder",))
        await files.rename(("a",), ("b",))
        await files.rename(("b",), ("folder", "c"))
        assert await names(files) == ["folder"]
        assert await get(files, "folder/c") == b"a"

    async def test_a_folder_takes_nobodys_place(self, files: Storage) -> None:
        await files.make_folder(("a",))
        await put(files, "a/x", b"x")
        await files.make_folder(("empty",))
        await put(files, "file", b"file")
        for target in ("empty", "file", "a"):
            with fails(errno.EEXIST):
                await files.rename(("a",), (target,))
        await files.rename(("a",), ("empty", "b"))
        assert await get(files, "empty/b/x") == b"x"

    async def test_a_folders_place_is_taken_by_nobody(self, files: Storage) -> None:
        await files.make_folder(("folder",))
        await put(files, "file", b"file")
        with fails(errno.EISDIR):
            await files.rename(("file",), ("folder",))
        assert await names(files) == ["file", "folder"]

    async def test_a_file_renamed_to_itself_stays(self, files: Storage) -> None:
        await put(files, "a", b"a")
        await files.rename(("a",), ("a",))
        assert await get(files, "a") == b"a"

    async def test_no_folder_goes_into_itself(self, files: Storage) -> None:
        await files.make_folder(("a",))
        await files.make_folder(("a", "b"))
        for target in (("a", "c"), ("a", "b", "c")):
            with fails(errno.EINVAL):
                await files.rename(("a",), target)
        assert await names(files, "a") == ["b"]


class TestAttributes:
    async def test_times_are_set(self, files: Storage) -> None:
        await put(files, "file")
        await files.make_folder(("folder",))
        for path in (("file",), ("folder",), ()):
            for modified in (0.0, 1_000_000_000.0, 1.5e9 + 0.25):
                await files.set_modified(path, modified)
                assert (await files.stat(path)).modified == modified

    async def test_permissions_are_set_and_no_more_than_permissions(self, files: Storage) -> None:
        await put(files, "file")
        await files.make_folder(("folder",))
        for path in (("file",), ("folder",)):
            for mode in (0o600, 0o755):
                await files.set_mode(path, mode | 0o7000)
                assert (await files.stat(path)).mode == mode


class TestHashing:
    @pytest.mark.parametrize("algorithm", HashAlgorithm)
    async def test_a_file_or_a_part_of_it_is_hashed(self, files: Storage, algorithm: HashAlgorithm) -> None:
        content = bytes(range(256)) * 8192
        await put(files, "a", content)

        def expected(data: bytes) -> str:
            if algorithm is HashAlgorithm.CRC32:
                return f"{zlib.crc32(data):08x}"
            return hashlib.new(algorithm.value.replace("-", ""), data).hexdigest()

        assert await files.hash(("a",), algorithm) == expected(content)
        assert await files.hash(("a",), algorithm, 1, 2_000_000) == expected(content[1:2_000_000])
        assert await files.hash(("a",), algorithm, len(content)) == expected(b"")

    @pytest.mark.parametrize(("start", "end"), [(0, 4), (4, None), (2, 1), (-1, 2)])
    async def test_a_range_that_is_not_in_the_file_is_refused(
        self, files: Storage, start: int, end: int | None
    ) -> None:
        await put(files, "a", b"abc")
        with fails(errno.EINVAL):
            await files.hash(("a",), HashAlgorithm.SHA256, start, end)

    async def test_hashing_is_cancelled_anywhere(self, files: Storage) -> None:
        await put(files, "a", b"x" * 3_000_000)
        for attempt in cancel_at_each_checkpoint():
            with attempt:
                await files.hash(("a",), HashAlgorithm.CRC32)


class TestCancelling:
    async def test_an_upload_that_is_cancelled_anywhere_is_there_whole_or_not_at_all(self, files: Storage) -> None:
        for attempt in cancel_at_each_checkpoint():
            await put(files, "a", b"old")
            upload = None
            done = False
            with attempt:
                upload = await files.store(("a",))
                await upload.write(b"new")
                await upload.write(b"er" * 500_000)
                done = True
                await upload.commit()
            if upload is not None and not done:
                await upload.abandon(keep=True)
            assert await get(files, "a") in ([b"new" + b"er" * 500_000] if done else [b"old"])
            assert await names(files) == ["a"]

    async def test_abandoning_works_when_cancelled(self, files: Storage) -> None:
        for attempt in cancel_at_each_checkpoint():
            upload = await files.store(("a",))
            await upload.write(b"x")
            with attempt:
                await upload.abandon(keep=True)
            assert await files.partial_size(("a",)) == 1
            await put(files, "a")
            await files.remove(("a",))

    async def test_a_rename_is_done_or_not(self, files: Storage) -> None:
        for attempt in cancel_at_each_checkpoint():
            await put(files, "a", b"a")
            await put(files, "b", b"b")
            with attempt:
                await files.rename(("a",), ("b",))
            left = await names(files)
            assert [await get(files, name) for name in left] in ([b"a"], [b"a", b"b"])

    async def test_each_method_passes_a_checkpoint(self, files: Storage) -> None:
        await put(files, "a", b"a")
        download, upload = await files.open(("a",)), await files.store(("u",))
        for call in (
            lambda: files.partial_size(("a",)),
            lambda: files.store(("a",)),
            lambda: files.remove(("a",)),
            lambda: files.rename(("a",), ("b",)),
            lambda: files.make_folder(("c",)),
            lambda: files.remove_folder(("c",)),
            lambda: files.set_modified(("a",), 0),
            lambda: files.set_mode(("a",), 0),
            lambda: files.hash(("a",), HashAlgorithm.MD5),
            files.free_space,
            lambda: download.read(0, 1),
        ):
            with trio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught
        assert upload.size == 0
        assert await names(files) == ["a"]
        await download.aclose()
        await upload.abandon(keep=False)


NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
STEPS = st.one_of(
    st.tuples(st.just("put"), PATHS, st.binary(max_size=3)),
    st.tuples(st.just("append"), PATHS, st.binary(max_size=3)),
    st.tuples(st.just("break off"), PATHS, st.binary(max_size=3)),
    st.tuples(st.just("remove"), PATHS),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("make"), PATHS),
    st.tuples(st.just("remove folder"), PATHS),
)


async def apply(files: Storage, step: tuple) -> object:  # type: ignore[type-arg]
    """What came of the step: the number of the error, if it is one."""
    what, path, *more = step
    try:
        if what in ("put", "append"):
            await put(files, "/".join(path), more[0], offset=None if what == "append" else 0)
        elif what == "break off":
            await break_off(files, "/".join(path), more[0])
        elif what == "remove":
            await files.remove(path)
        elif what == "rename":
            await files.rename(path, more[0])
        elif what == "make":
            await files.make_folder(path)
        else:
            await files.remove_folder(path)
    except OSError as error:
        return error.errno if what != "rename" else "refused"  # both names may be wrong, each in its own way
    return await files.partial_size(path) if what == "break off" else None


async def contents(files: Storage, path: tuple[str, ...] = ()) -> dict[str, bytes]:
    found = {}
    async for batch in files.scan(path):
        for entry in batch:
            name = "/".join((*path, entry.name))
            if entry.status.is_folder:
                found[f"{name}/"] = b""
                found |= await contents(files, (*path, entry.name))
            else:
                found[name] = await get(files, name)
    return found


@given(steps=st.lists(STEPS, max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
async def test_any_steps_come_to_the_same_as_in_memory(files: Storage, steps: list[tuple]) -> None:  # type: ignore[type-arg]
    async def empty(path: tuple[str, ...]) -> None:
        async for batch in files.scan(path):
            for entry in batch:
                if entry.status.is_folder:
                    await empty((*path, entry.name))
                    await files.remove_folder((*path, entry.name))
                else:
                    await files.remove((*path, entry.name))

    await empty(())
    for name in "abc":  # what earlier examples have broken off
        await put(files, name)
        await files.remove((name,))
    model = MemoryFiles()
    for step in steps:
        assert await apply(files, step) == await apply(model, step), step
    assert await contents(files) == model.contents()
