"""What only a disk has: links, permissions, other processes, and room that ends."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from asyncnet import beneath
from asyncnet.errors import ConfigurationError
from asyncnet.ftp import local_files, temporary
from asyncnet.ftp.local_files import BUFFER, FIRST_BATCH, LocalFiles
from asyncnet.ftp.storage import HashAlgorithm, Storage
from asyncnet.testing import cancel_at_each_checkpoint
from tests.ftp.use import at, break_off, fails, get, names, put


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root, and a secret beside it."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("secret")
    os.utime(tmp_path / "secret" / "key", (5, 5))
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def files(root: Path) -> LocalFiles:
    return LocalFiles(root)


@pytest.fixture
def secret_stays(root: Path) -> Iterator[None]:
    """What lies outside is as it was, whatever the test did."""
    outside = root.parent / "secret"

    def state() -> object:
        status = (outside / "key").stat()
        return os.listdir(outside), (outside / "key").read_text(), status.st_mtime, status.st_mode, status.st_nlink

    before = state()
    yield
    assert state() == before


def hidden(folder: Path) -> list[str]:
    """The names of temporary files in the folder."""
    return [name for name in os.listdir(folder) if name.startswith(".asyncnet-")]


def failing(number: int) -> Callable[..., Any]:
    def fail(*args: object, **others: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_root_that_is_no_folder_is_a_configuration_error(root: Path) -> None:
    with pytest.raises(ConfigurationError):
        LocalFiles(root / "missing")


def test_the_real_path_is_below_the_root(root: Path, files: LocalFiles) -> None:
    assert files.root == str(root)
    assert files.real_path(()) == str(root)
    assert files.real_path(("a", "b c")) == str(root / "a" / "b c")
    for path in (("..", "secret"), ("a/b",), (".asyncnet-x",)):
        with fails(errno.EACCES, errno.ENOENT):
            files.real_path(path)


EVERYTHING: dict[str, Callable[[Storage, tuple[str, ...]], Awaitable[object]]] = {
    "stat": lambda files, path: files.stat(path),
    "partial size": lambda files, path: files.partial_size(path),
    "scan": lambda files, path: names(files, "/".join(path)),
    "open": lambda files, path: files.open(path),
    "store": lambda files, path: files.store(path),
    "append": lambda files, path: files.store(path, offset=None),
    "store exclusively": lambda files, path: files.store(path, exclusive=True),
    "remove": lambda files, path: files.remove(path),
    "rename from": lambda files, path: files.rename(path, ("stolen",)),
    "rename to": lambda files, path: files.rename(("file",), path),
    "make folder": lambda files, path: files.make_folder(path),
    "remove folder": lambda files, path: files.remove_folder(path),
    "set modified": lambda files, path: files.set_modified(path, 0),
    "set mode": lambda files, path: files.set_mode(path, 0o777),
    "hash": lambda files, path: files.hash(path, HashAlgorithm.SHA256),
}

MEANING_THE_LINK = ("remove", "rename from", "make folder", "remove folder")


@pytest.mark.usefixtures("secret_stays")
class TestLinksOut:
    @pytest.fixture(autouse=True)
    def links(self, root: Path) -> None:
        (root / "folder").mkdir()
        (root / "file").write_text("file")
        for folder, up in ((root, ".."), (root / "folder", "../..")):
            (folder / "out").symlink_to(f"{up}/secret")
            (folder / "key").symlink_to(f"{up}/secret/key")
            (folder / "new").symlink_to(f"{up}/secret/new")
            (folder / "absolute").symlink_to(root.parent / "secret")

    @pytest.mark.parametrize("method", EVERYTHING)
    @pytest.mark.parametrize("way", ["out/key", "out/new", "folder/out/key", "absolute/key", "folder/absolute/x/y"])
    async def test_no_method_goes_through_one(self, files: LocalFiles, method: str, way: str) -> None:
        with fails(errno.EACCES):
            await EVERYTHING[method](files, at(way))

    @pytest.mark.parametrize("method", [method for method in EVERYTHING if method not in MEANING_THE_LINK])
    @pytest.mark.parametrize("name", ["out", "key", "new", "folder/key", "absolute"])
    async def test_no_method_follows_one_at_the_end(self, files: LocalFiles, method: str, name: str) -> None:
        with fails(errno.EACCES):
            await EVERYTHING[method](files, at(name))

    @pytest.mark.parametrize("name", ["out", "key", "new", "absolute"])
    async def test_the_link_itself_is_removed_and_renamed_and_in_the_way(
        self, root: Path, files: LocalFiles, name: str
    ) -> None:
        with fails(errno.EEXIST):
            await files.make_folder((name,))
        with fails(errno.ENOTDIR):
            await files.remove_folder((name,))
        await files.rename((name,), ("renamed",))
        assert (root / "renamed").is_symlink()
        with fails(errno.EACCES):
            await files.stat(("renamed",))
        await files.remove(("renamed",))
        assert not (root / "renamed").is_symlink()

    async def test_none_is_listed(self, files: LocalFiles) -> None:
        assert await names(files) == ["file", "folder"]
        assert await names(files, "folder") == []

    async def test_an_upload_goes_on_in_its_folder_when_that_is_swapped_for_one(
        self, root: Path, files: LocalFiles
    ) -> None:
        for how in ("commit", "keep", "drop"):
            (root / "swapped").mkdir()
            upload = await files.store(("swapped", how))
            await upload.write(b"x")
            (root / "swapped").rename(root / f"gone {how}")
            (root / "swapped").symlink_to("../secret")
            await (upload.commit() if how == "commit" else upload.abandon(keep=how == "keep"))
            (root / "swapped").unlink()
        assert os.listdir(root / "gone commit") == ["commit"]
        assert len(hidden(root / "gone keep")) == 1
        assert os.listdir(root / "gone drop") == []

    @pytest.mark.parametrize("method", EVERYTHING)
    async def test_a_folder_that_is_swapped_for_one_after_the_look_is_not_left(
        self, root: Path, files: LocalFiles, method: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real_open = os.open

        def open_after_swap(path: str, *args: Any, **others: Any) -> int:
            if path == "folder" and not (root / "gone").exists():
                os.rename(root / "folder", root / "gone")
                (root / "folder").symlink_to("../secret")
            return real_open(path, *args, **others)

        monkeypatch.setattr(files._files, "_open_cached", None)
        monkeypatch.setattr(os, "open", open_after_swap)
        with fails(errno.ENOTDIR, errno.ELOOP):
            await EVERYTHING[method](files, ("folder", "inner"))
        assert (root / "gone").exists()


class TestLinksInside:
    async def test_what_a_link_leads_to_is_replaced_and_the_link_stays(self, root: Path, files: LocalFiles) -> None:
        (root / "folder").mkdir()
        (root / "folder" / "real").write_text("old")
        (root / "link").symlink_to("folder/real")
        await put(files, "link", b"new")
        await put(files, "link", b"er", offset=None)
        assert os.readlink(root / "link") == "folder/real"
        assert (root / "folder" / "real").read_text() == "newer"
        assert hidden(root) == hidden(root / "folder") == []

    async def test_a_link_to_nothing_has_something_made_where_it_leads(self, root: Path, files: LocalFiles) -> None:
        (root / "folder").mkdir()
        (root / "link").symlink_to("folder/real")
        await put(files, "link", b"new", exclusive=True)
        assert (root / "folder" / "real").read_text() == "new"

    async def test_removing_one_leaves_what_it_leads_to(self, root: Path, files: LocalFiles) -> None:
        (root / "real").write_text("x")
        (root / "folder").mkdir()
        for target in ("real", "folder"):
            (root / "link").symlink_to(target)
            await files.remove(("link",))
        assert await names(files) == ["folder", "real"]

    async def test_none_is_followed_where_that_is_asked_for(self, root: Path) -> None:
        files = LocalFiles(root, follow=False)
        (root / "real").write_text("x")
        (root / "link").symlink_to("real")
        with fails(errno.EACCES):
            await files.open(("link",))
        with fails(errno.EACCES):
            await files.store(("link",))
        assert await names(files) == ["real"]


class TestReservedNames:
    @pytest.mark.parametrize("name", [".asyncnet-x.part", ".asyncnet-", ".ASYNCNET-x", ".a\u017fyncnet-x"])
    @pytest.mark.parametrize("method", EVERYTHING)
    async def test_they_are_neither_found_nor_made(self, root: Path, files: LocalFiles, method: str, name: str) -> None:
        (root / "file").write_text("file")
        (root / name).write_text("partial")
        (root / f"{name}d").mkdir()
        (root / f"{name}d" / "inner").write_text("inner")
        making = method in ("store", "append", "store exclusively", "rename to", "make folder")
        with fails(errno.EACCES if making else errno.ENOENT):
            await EVERYTHING[method](files, (name,))
        with fails(errno.ENOENT):
            await EVERYTHING[method](files, (f"{name}d", "inner"))
        assert await names(files) == ["file"]
        assert (root / name).read_text() == "partial"

    async def test_what_an_upload_writes_to_is_for_its_owner_alone_until_it_is_whole(
        self, root: Path, files: LocalFiles
    ) -> None:
        (root / "old").write_text("old")
        (root / "old").chmod(0o664)
        for name, mode in (("new", 0o640), ("old", 0o664)):
            previous = os.umask(0o027)
            try:
                upload = await files.store((name,))
            finally:
                os.umask(previous)
            (partial,) = hidden(root)
            assert (root / partial).stat().st_mode & 0o777 == 0o600
            await upload.commit()
            assert (root / name).stat().st_mode & 0o777 == mode

    async def test_a_resumed_file_gets_the_permissions_of_new_files(self, root: Path, files: LocalFiles) -> None:
        await break_off(files, "a", b"x")
        previous = os.umask(0o027)
        try:
            await put(files, "a", b"y", offset=None)
        finally:
            os.umask(previous)
        assert (root / "a").stat().st_mode & 0o777 == 0o640

    async def test_of_two_uploads_of_one_name_the_second_one_cannot_be_resumed(
        self, root: Path, files: LocalFiles
    ) -> None:
        first, second = await files.store(("a",)), await LocalFiles(root).store(("a",), offset=None)
        await first.write(b"first")
        await second.write(b"second")
        assert len(hidden(root)) == 2
        with fails(errno.EINVAL):
            await files.store(("a",), offset=1)
        await second.abandon(keep=True)
        assert len(hidden(root)) == 1
        await first.abandon(keep=True)
        assert await files.partial_size(("a",)) == 5

    @pytest.mark.usefixtures("secret_stays")
    @pytest.mark.parametrize("planted", ["link", "hard link", "pipe", "folder"])
    @pytest.mark.parametrize("offset", [0, None])
    async def test_what_somebody_has_put_in_the_place_of_a_partial_is_not_written_to(
        self, root: Path, files: LocalFiles, planted: str, offset: int | None
    ) -> None:
        await break_off(files, "a", b"x")
        (partial,) = hidden(root)
        (root / partial).unlink()
        if planted == "link":
            (root / partial).symlink_to("../secret/key")
        elif planted == "hard link":
            (root / "theirs").write_text("theirs")
            os.link(root / "theirs", root / partial)
        elif planted == "pipe":
            os.mkfifo(root / partial)
        else:
            (root / partial).mkdir()
        assert await files.partial_size(("a",)) is None
        await put(files, "a", b"content", offset=offset)
        assert await get(files, "a") == b"content"
        assert hidden(root) == [partial]
        if planted == "hard link":
            assert (root / "theirs").read_text() == "theirs"

    @pytest.mark.parametrize("another", [False, True])
    async def test_a_partial_that_takes_its_name_before_it_is_locked_is_left_alone(
        self, root: Path, files: LocalFiles, another: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await break_off(files, "a", b"x")
        real_flock = fcntl.flock

        def flock(descriptor: int, operation: int) -> None:
            monkeypatch.undo()
            partial = hidden(root)[0]
            os.rename(root / partial, root / "a")  # another process has committed it
            if another:
                (root / partial).touch()  # and a third one has begun anew
            real_flock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", flock)
        upload = await files.store(("a",), offset=None)
        await upload.write(b"new" * BUFFER)
        assert (root / "a").read_bytes() == b"x"
        await upload.commit()
        assert (root / "a").read_bytes() == b"new" * BUFFER
        assert hidden(root) == []

    async def test_without_locks_files_are_uploaded_and_none_is_resumed(
        self, root: Path, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fcntl, "flock", failing(errno.ENOTSUP))
        await put(files, "a", b"one")
        await put(files, "a", b"two", offset=None)
        assert await get(files, "a") == b"onetwo"
        await break_off(files, "b", b"x")
        assert await files.partial_size(("b",)) is None
        assert os.listdir(root) == ["a"]

    async def test_a_partial_that_somebody_else_has_made_is_neither_resumed_nor_removed(
        self, root: Path, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await break_off(files, "a", b"theirs")
        (partial,) = hidden(root)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert await files.partial_size(("a",)) == 6  # the folder's owner has made it
        real_fstat = os.fstat

        def fstat(descriptor: int) -> os.stat_result:
            status = list(real_fstat(descriptor))
            status[4] = 54321
            return os.stat_result(status)

        monkeypatch.setattr(os, "fstat", fstat)
        assert await files.partial_size(("a",)) is None
        with fails(errno.EINVAL):
            await files.store(("a",), offset=3)
        await put(files, "a", b"ours", offset=None)
        assert (root / "a").read_text() == "ours"
        assert (root / partial).read_text() == "theirs"


@pytest.mark.parametrize("name", ["a", "a" * 255])
async def test_what_has_come_before_the_process_was_killed_is_resumed(root: Path, files: LocalFiles, name: str) -> None:
    command = [sys.executable, "-m", "tests.ftp.killed", str(root), name]
    for times in (1, 2):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert await trio.to_thread.run_sync(process.stdout.readline) == b"written\n"
            assert await files.partial_size((name,)) is None  # it is being written
            process.kill()
        assert await files.partial_size((name,)) == BUFFER * times
    assert await names(files) == []
    await put(files, name, b"y", offset=None)
    assert (root / name).read_bytes() == b"x" * BUFFER * 2 + b"y"
    assert hidden(root) == []


async def test_many_uploads_of_one_name_at_once_do_not_mix(root: Path, files: LocalFiles) -> None:
    async def upload(number: int, end: str) -> None:
        content = bytes([number]) * (BUFFER // 2)
        for _ in range(5):
            upload = await files.store(("a",))
            for _ in range(3):
                await upload.write(content)
            await (upload.commit() if end == "commit" else upload.abandon(keep=end == "keep"))

    async def look() -> None:
        for _ in range(20):
            found = await get(files, "a")
            assert len(found) == 3 * (BUFFER // 2)
            assert len(set(found)) == 1

    await upload(0, "commit")
    async with trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(upload, number, ("commit", "keep", "drop")[number % 3])
        nursery.start_soon(look)
    assert os.listdir(root) == ["a"]


class TestFolders:
    async def test_the_first_entries_of_a_large_folder_come_alone(self, root: Path, files: LocalFiles) -> None:
        for number in range(FIRST_BATCH + 10):
            (root / str(number)).touch()
        batches = [len(batch) async for batch in files.scan(())]
        assert batches == [FIRST_BATCH, 10]

    async def test_what_is_neither_file_nor_folder_is_not_there(self, root: Path, files: LocalFiles) -> None:
        os.mkfifo(root / "pipe")
        (root / "null").symlink_to("pipe")
        assert await names(files) == []
        for name in ("pipe", "null"):
            with fails(errno.ENOENT):
                await files.stat((name,))
            with fails(errno.EACCES):
                await files.open((name,))
            with fails(errno.EACCES):
                await files.hash((name,), HashAlgorithm.MD5)
            for offset in (0, None):
                with fails(errno.EACCES):
                    await files.store((name,), offset=offset)

    async def test_one_with_a_running_upload_is_not_removed(self, root: Path, files: LocalFiles) -> None:
        await files.make_folder(("folder",))
        first, second = await files.store(("folder", "a")), await files.store(("folder", "a"))
        for upload in (first, second):
            with fails(errno.ENOTEMPTY):
                await files.remove_folder(("folder",))
            await upload.abandon(keep=True)
        await files.remove_folder(("folder",))

    async def test_one_with_something_invisible_in_it_is_not_removed(self, root: Path, files: LocalFiles) -> None:
        await files.make_folder(("folder",))
        await break_off(files, "folder/a", b"x")
        (root / "folder" / "out").symlink_to("../../secret")
        with fails(errno.ENOTEMPTY):
            await files.remove_folder(("folder",))
        assert await files.partial_size(("folder", "a")) == 1


class TestAppending:
    @pytest.mark.parametrize("number", [None, errno.ENOSYS, errno.EXDEV, errno.EOPNOTSUPP])
    async def test_the_beginning_is_copied_with_or_without_the_kernels_help(
        self, files: LocalFiles, number: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if number is not None:
            monkeypatch.setattr(os, "copy_file_range", failing(number))
        monkeypatch.setattr(temporary, "COPIED", 1000)
        content = bytes(range(256)) * 100
        await put(files, "a", content)
        await put(files, "a", b"!", offset=20_001)
        assert await get(files, "a") == content[:20_001] + b"!"

    async def test_a_full_disk_leaves_the_old_file(
        self, root: Path, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await put(files, "a", b"old")
        monkeypatch.setattr(os, "copy_file_range", failing(errno.ENOSPC))
        with fails(errno.ENOSPC):
            await files.store(("a",), offset=None)
        assert await get(files, "a") == b"old"
        assert hidden(root) == []

    async def test_a_file_that_shrinks_meanwhile_is_no_beginning(
        self, root: Path, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await put(files, "a", b"old")
        monkeypatch.setattr(os, "copy_file_range", lambda *args: 0)
        with fails(errno.EINVAL):
            await files.store(("a",), offset=2)
        assert hidden(root) == []

    async def test_the_copy_is_given_up_when_cancelled(
        self, root: Path, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await put(files, "a", b"0123456789")
        monkeypatch.setattr(temporary, "COPIED", 1)
        real_copy = os.copy_file_range
        copied = 0

        def copy(*args: Any) -> int:
            nonlocal copied
            copied += 1
            trio.from_thread.run_sync(scope.cancel)
            return real_copy(*args)

        monkeypatch.setattr(os, "copy_file_range", copy)
        with trio.CancelScope() as scope:
            await files.store(("a",), offset=None)
        assert scope.cancelled_caught
        assert copied == 1
        assert hidden(root) == []


class TestFullDisk:
    @pytest.fixture
    def room(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
        """Leave room for so many bytes."""
        real_pwrite = os.pwrite

        def limit(left: int) -> None:
            def pwrite(descriptor: int, data: bytes, offset: int) -> int:
                nonlocal left
                if not left:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                count = real_pwrite(descriptor, data[:left], offset)
                left -= count
                return count

            monkeypatch.setattr(os, "pwrite", pwrite)

        return limit

    @pytest.mark.parametrize("piece", [100, BUFFER, 3 * BUFFER])
    async def test_a_write_fails_and_what_has_come_can_be_resumed(
        self, root: Path, files: LocalFiles, room: Callable[[int], None], piece: int
    ) -> None:
        room(BUFFER + 5)
        upload = await files.store(("a",))
        with fails(errno.ENOSPC):
            for _ in range(0, 3 * BUFFER, piece):
                await upload.write(b"x" * piece)
        await upload.abandon(keep=True)
        assert await files.partial_size(("a",)) == BUFFER + 5
        room(10 * BUFFER)
        await put(files, "a", b"y", offset=None)
        assert (root / "a").read_bytes() == b"x" * (BUFFER + 5) + b"y"

    async def test_what_is_full_at_the_end_leaves_nothing(
        self, root: Path, files: LocalFiles, room: Callable[[int], None]
    ) -> None:
        (root / "a").write_text("old")
        upload = await files.store(("a",))
        await upload.write(b"new content")
        room(3)
        with fails(errno.ENOSPC):
            await upload.commit()
        assert (root / "a").read_text() == "old"
        assert hidden(root) == []

    @pytest.mark.parametrize("function", ["replace", "fsync", "link"])
    @pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EDQUOT])
    async def test_whatever_fails_at_the_end_the_old_file_stays_and_nothing_else(
        self, root: Path, function: str, number: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = LocalFiles(root, fsync=True)
        exclusive = function == "link"
        if not exclusive:
            (root / "a").write_text("old")
        upload = await files.store(("a",), exclusive=exclusive)
        await upload.write(b"new")
        monkeypatch.setattr(os, function, failing(number))
        with fails(number):
            await upload.commit()
        assert [path.read_text() for path in root.iterdir()] == ([] if exclusive else ["old"])


class TestCommitting:
    async def test_an_upload_is_on_the_disk_before_it_has_its_name_and_its_name_before_it_is_acknowledged(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done: list[object] = []
        real_fsync, real_replace = os.fsync, os.replace

        def fsync(descriptor: int) -> None:
            what = os.readlink(f"/proc/self/fd/{descriptor}")
            done.append((os.path.isdir(what), os.path.exists(root / "a")))
            real_fsync(descriptor)

        def replace(*args: Any, **others: Any) -> None:
            done.append("replace")
            real_replace(*args, **others)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", replace)
        await put(LocalFiles(root, fsync=True), "a", b"x")
        assert done == [(False, False), "replace", (True, True)]
        await put(LocalFiles(root), "b", b"x")
        assert done[3:] == ["replace"]

    async def test_new_folders_and_names_are_on_the_disk_too_where_uploads_are(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[str] = []
        monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
        files = LocalFiles(root, fsync=True)
        await files.make_folder(("a",))
        await files.make_folder(("a", "b"))
        await files.rename(("a", "b"), ("c",))
        assert synced == [str(root), str(root / "a"), str(root / "a"), str(root)]

    async def test_names_are_taken_exclusively_without_hard_links_too(
        self, root: Path, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "link", failing(errno.EPERM))
        await put(files, "a", b"x", exclusive=True)
        upload = await files.store(("b",), exclusive=True)
        (root / "b").write_text("theirs")
        with fails(errno.EEXIST):
            await upload.commit()
        assert (root / "b").read_text() == "theirs"
        assert hidden(root) == []

    async def test_file_systems_without_permissions_take_files(
        self, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "fchmod", failing(errno.EPERM))
        await put(files, "a", b"x")
        await put(files, "a", b"y")
        assert await get(files, "a") == b"y"


class TestPermissions:
    """Root may do everything: so it is the system calls that are told to refuse."""

    async def test_a_file_that_may_not_be_written_is_not_replaced(
        self, root: Path, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (root / "a").write_text("old")
        monkeypatch.setattr(os, "access", lambda *args, **others: False)
        for offset in (0, None):
            with fails(errno.EACCES):
                await files.store(("a",), offset=offset)
        assert (root / "a").read_text() == "old"
        assert hidden(root) == []

    @pytest.mark.parametrize(
        ("method", "function"),
        [
            ("stat", "stat"),
            ("open", "open"),
            ("scan", "open"),
            ("store", "open"),
            ("append", "open"),
            ("remove", "unlink"),
            ("rename from", "replace"),
            ("make folder", "mkdir"),
            ("remove folder", "rmdir"),
            ("set modified", "utime"),
            ("set mode", "chmod"),
            ("hash", "open"),
        ],
    )
    @pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EMFILE])
    async def test_what_the_system_refuses_is_raised(
        self,
        root: Path,
        files: LocalFiles,
        method: str,
        function: str,
        number: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if method != "make folder":
            (root / "a").touch()
        monkeypatch.setattr(files._files, "_open_cached", None)
        monkeypatch.setattr(os, function, failing(number))
        with fails(number):
            await EVERYTHING[method](files, ("a",))


class TestReading:
    @pytest.mark.parametrize("cached", [True, False])
    async def test_a_file_is_read_whether_it_is_in_memory_or_not(
        self, root: Path, files: LocalFiles, cached: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not cached:
            monkeypatch.setattr(files._files, "_open_cached", None)
            monkeypatch.setattr(local_files, "read_now", lambda *args: None)
        content = bytes(range(256)) * 4096
        (root / "a").write_bytes(content)
        for attempt in cancel_at_each_checkpoint():
            with attempt:
                download = await files.open(("a",))
                try:
                    assert await download.read(0, 1 << 20) == content
                    assert await download.read(1 << 20, 1) == b""
                finally:
                    await download.aclose()

    async def test_only_what_was_there_at_first_is_read(self, root: Path, files: LocalFiles) -> None:
        (root / "a").write_text("0123")
        download = await files.open(("a",))
        with open(root / "a", "a") as file:
            file.write("4567")
        assert await download.read(0, 100) == b"0123"
        with open(root / "a", "w") as file:
            file.write("01")
        assert await download.read(0, 100) == b"01"
        await download.aclose()

    async def test_a_file_that_shrinks_while_it_is_hashed_has_no_hash(
        self, root: Path, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (root / "a").write_bytes(b"x" * 100)
        monkeypatch.setattr(os, "pread", lambda descriptor, count, offset: b"")
        with fails(errno.EINVAL):
            await files.hash(("a",), HashAlgorithm.SHA1)


class TestThreads:
    @pytest.fixture
    def hops(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What was done in threads."""
        done: list[str] = []
        real_run = trio.to_thread.run_sync

        async def run_sync(function: Callable[..., Any], *args: object, **others: Any) -> object:
            done.append(function.__name__)
            return await real_run(function, *args, **others)

        monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
        return done

    async def test_a_small_file_is_written_in_two_hops(self, files: LocalFiles, hops: list[str]) -> None:
        upload = await files.store(("a",))
        for _ in range(100):
            await upload.write(b"x" * 100)
        await upload.commit()
        assert len(hops) == 2

    async def test_a_large_one_takes_one_for_each_half_megabyte(self, files: LocalFiles, hops: list[str]) -> None:
        upload = await files.store(("a",))
        for _ in range(160):
            await upload.write(b"x" * 65536)
        await upload.commit()
        assert len(hops) <= 22

    async def test_a_small_file_that_is_in_memory_is_read_in_none(
        self, root: Path, files: LocalFiles, hops: list[str]
    ) -> None:
        await put(files, "a", b"x" * 4096)
        if not files._files.opens_now:
            pytest.skip("this kernel or this file system cannot open files without waiting")
        await get(files, "a")
        hops.clear()
        download = await files.open(("a",))
        await download.aclose()
        assert hops == []

    async def test_ftp_does_not_wait_for_the_threads_of_others(self, files: LocalFiles) -> None:
        others = trio.to_thread.current_default_thread_limiter()
        holders = [object() for _ in range(int(others.total_tokens))]
        for holder in holders:
            others.acquire_on_behalf_of_nowait(holder)
        await put(files, "a", b"x")
        assert await names(files) == ["a"]
        for holder in holders:
            others.release_on_behalf_of(holder)


async def test_it_works_where_there_are_no_descriptors_of_folders(
    root: Path, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beneath, "_HAS_DIR_FD", False)
    (root.parent / "secret").mkdir(exist_ok=True)
    (root / "out").symlink_to("../secret")
    (root / "itself").symlink_to(".")
    await files.make_folder(("folder",))
    await break_off(files, "folder/a", b"x")
    await put(files, "folder/a", b"y", offset=None)
    await put(files, "folder/a", b"z", offset=None)
    await put(files, "folder/b", b"b", exclusive=True)
    assert await get(files, "folder/a") == b"xyz"
    for path in (("out", "new"), ("out",)):
        with fails(errno.EACCES):
            await files.store(path)
    with fails(errno.EISDIR):
        await files.store(("itself",))
    await files.rename(("folder", "a"), ("folder", "b"))
    await break_off(files, "folder/c", b"x")
    await files.remove(("folder", "b"))
    await files.remove_folder(("folder",))
    assert sorted(os.listdir(root)) == ["itself", "out"]
    assert os.listdir(root.parent / "secret") == ["key"]


async def test_free_space_is_that_of_the_file_system(root: Path, files: LocalFiles) -> None:
    free = await files.free_space()
    assert free is not None
    assert 0 < free <= os.statvfs(root).f_blocks * os.statvfs(root).f_frsize
