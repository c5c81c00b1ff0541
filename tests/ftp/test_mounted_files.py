"""Several storages under one root: what is seen where, and that nobody moves a mount point."""

from __future__ import annotations

import errno

import pytest

from asyncnet.errors import ConfigurationError
from asyncnet.ftp.memory_files import MemoryFiles
from asyncnet.ftp.mounted_files import MountedFiles
from asyncnet.ftp.storage import HashAlgorithm
from tests.ftp.use import at, break_off, fails, get, names, put


@pytest.fixture
def root() -> MemoryFiles:
    return MemoryFiles({"file": b"file", "folder/file": b"inner", "hidden/under": b"under", "plain": b"plain"})


@pytest.fixture
def other() -> MemoryFiles:
    return MemoryFiles({"there": b"there", "deep/": b""})


@pytest.fixture
def files(root: MemoryFiles, other: MemoryFiles) -> MountedFiles:
    return MountedFiles(
        {
            "/": root,
            "/hidden": other,  # where the root has a folder
            "/plain": MemoryFiles({"x": b"x"}),  # where it has a file
            "/new/nested/": MemoryFiles({"y": b"y"}),  # where it has nothing
            "/folder/inside": MemoryFiles({"z": b"z"}),
            "/hidden/deep/er": MemoryFiles({"w": b"w"}),  # below another one
        }
    )


async def test_mount_points_are_folders_in_the_listings_above_them(files: MountedFiles) -> None:
    assert await names(files) == ["file", "folder", "hidden", "new", "plain"]
    assert await names(files, "new") == ["nested"]
    assert await names(files, "folder") == ["file", "inside"]
    assert await names(files, "hidden") == ["deep", "there"]
    assert await names(files, "hidden/deep") == ["er"]
    listed = [entry async for batch in files.scan(()) for entry in batch]
    assert {entry.name for entry in listed if entry.status.is_folder} == {"folder", "hidden", "new", "plain"}
    for path in ("hidden", "plain", "new", "new/nested", "folder/inside", "hidden/deep", "hidden/deep/er"):
        assert (await files.stat(at(path))).is_folder


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("file", b"file"),
        ("folder/file", b"inner"),
        ("hidden/there", b"there"),
        ("plain/x", b"x"),
        ("new/nested/y", b"y"),
        ("folder/inside/z", b"z"),
        ("hidden/deep/er/w", b"w"),
    ],
)
async def test_each_file_is_that_of_the_storage_mounted_there(files: MountedFiles, path: str, content: bytes) -> None:
    assert await get(files, path) == content
    await files.rename(at(path), (*at(path)[:-1], "renamed"))
    await put(files, path, b"put")
    await files.make_folder((*at(path)[:-1], "made"))
    await break_off(files, f"{path}!", b"123")
    assert await files.partial_size(at(f"{path}!")) == 3
    assert {at(path)[-1], "renamed", "made"} <= set(await names(files, path.rpartition("/")[0]))
    assert len(await files.hash(at(path), HashAlgorithm.CRC32)) == 8
    await files.remove(at(path))


async def test_what_lies_beneath_a_mount_point_is_not_reached(files: MountedFiles, root: MemoryFiles) -> None:
    with fails(errno.ENOENT):
        await get(files, "hidden/under")
    assert root.contents()["hidden/under"] == b"under"


@pytest.mark.parametrize(
    "path", ["", "hidden", "plain", "new", "new/nested", "folder", "hidden/deep", "hidden/deep/er"]
)
async def test_no_point_is_made_removed_renamed_or_replaced(
    files: MountedFiles, root: MemoryFiles, other: MemoryFiles, path: str
) -> None:
    before = root.contents(), other.contents()
    with fails(errno.EEXIST):
        await files.make_folder(at(path))
    with fails(errno.EISDIR):
        await files.remove(at(path))
    with fails(errno.EACCES):
        await files.remove_folder(at(path))
    with fails(errno.EACCES):
        await files.rename(at(path), ("elsewhere",))
    with fails(errno.EACCES):
        await files.rename(("file",), at(path))
    for offset in (0, None):
        with fails(errno.EISDIR):
            await files.store(at(path), offset=offset)
    with fails(errno.EEXIST):
        await files.store(at(path), exclusive=True)
    with fails(errno.EISDIR):
        await files.open(at(path))
    with fails(errno.EISDIR):
        await files.hash(at(path), HashAlgorithm.MD5)
    assert await files.partial_size(at(path)) is None
    assert (root.contents(), other.contents()) == before


async def test_nothing_is_renamed_from_one_storage_to_another(files: MountedFiles) -> None:
    with fails(errno.EXDEV):
        await files.rename(("file",), ("hidden", "file"))
    with fails(errno.ENOENT):
        await files.rename(("missing",), ("hidden", "file"))
    assert await get(files, "file") == b"file"


async def test_one_storage_at_two_places_is_one(other: MemoryFiles) -> None:
    files = MountedFiles({"/a": other, "/b": other})
    await files.rename(("a", "there"), ("b", "renamed"))
    assert await get(files, "a/renamed") == b"there"


async def test_a_folder_on_the_way_that_nobody_has_is_read_only(files: MountedFiles) -> None:
    for path in (("new", "x"), ("new", "x", "y")):
        with fails(errno.ENOENT):
            await files.stat(path)
        with fails(errno.ENOENT):
            await files.store(path)
        with fails(errno.ENOENT):
            await files.make_folder(path)
    with fails(errno.EACCES):
        await files.set_mode(("new",), 0o777)
    with fails(errno.EACCES):
        await files.set_modified(("new",), 0)


async def test_times_and_permissions_of_a_point_are_those_of_its_storage(
    files: MountedFiles, other: MemoryFiles
) -> None:
    await files.set_modified(("hidden",), 5)
    await files.set_mode(("hidden",), 0o700)
    status = await other.stat(())
    assert (status.modified, status.mode) == (5, 0o700)
    assert (await files.stat(("hidden",))) == status


async def test_without_a_storage_for_the_root_there_are_the_points_alone(other: MemoryFiles) -> None:
    files = MountedFiles({"/a/b": other})
    assert await names(files) == ["a"]
    assert await names(files, "a/b") == ["deep", "there"]
    assert await files.free_space() is None
    for path in (("x",), ("a", "x"), ("a", "x", "y")):
        with fails(errno.ENOENT):
            await files.stat(path)
        with fails(errno.ENOENT):
            await names(files, "/".join(path))
        with fails(errno.ENOENT):
            await files.store(path)
        with fails(errno.ENOENT):
            await files.set_mode(path, 0)
        assert await files.partial_size(path) is None


async def test_a_missing_folder_of_the_root_is_not_found(files: MountedFiles) -> None:
    with fails(errno.ENOENT):
        await names(files, "missing")
    with fails(errno.ENOTDIR):
        await names(files, "file")


@pytest.mark.parametrize("place", ["", "a", "//a", "/a//b", "/../a", "/.", "/a\\b", "/a\0"])
def test_a_wrong_place_is_a_configuration_error(place: str, root: MemoryFiles) -> None:
    with pytest.raises(ConfigurationError):
        MountedFiles({place: root})


def test_two_storages_at_one_place_are_a_configuration_error(root: MemoryFiles, other: MemoryFiles) -> None:
    with pytest.raises(ConfigurationError, match="two storages"):
        MountedFiles({"/a": root, "/a/": other})
