"""Names below a root: what is reached, and that nothing outside ever is."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncnet import beneath, openat2
from asyncnet.beneath import MAX_LINKS, Beneath, OutsideRoot
from asyncnet.beneath_changes import WritableBeneath
from asyncnet.errors import ConfigurationError


@pytest.fixture(params=["by descriptor", "by path"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways of resolving: with directory descriptors, and the fallback without."""
    if request.param == "by path":
        monkeypatch.setattr(beneath, "_HAS_DIR_FD", False)
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    yield request.param
    if before is not None:
        assert set(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with a few files, and a secret beside it."""
    root = tmp_path / "root"
    (root / "folder" / "deep").mkdir(parents=True)
    (root / "file.txt").write_text("file")
    (root / "folder" / "inner.txt").write_text("inner")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("secret")
    (tmp_path / "root-too").mkdir()
    (tmp_path / "root-too" / "key").write_text("secret")
    return root


def read(root: Path, *names: str) -> str:
    with Beneath(root).open(names) as file:
        return file.read().decode()


@pytest.mark.usefixtures("way")
class TestNames:
    def test_files_are_opened_by_their_components(self, tree: Path) -> None:
        assert read(tree, "file.txt") == "file"
        assert read(tree, "folder", "inner.txt") == "inner"

    def test_the_empty_name_is_the_root(self, tree: Path) -> None:
        assert os.path.samestat(Beneath(tree).stat([]), os.stat(tree))

    @pytest.mark.parametrize(
        "name",
        [
            "",
            ".",
            "..",
            "/",
            "a/b",
            "/etc/passwd",
            "../secret/key",
            "..\\secret",
            "a\\b",
            "\0",
            "file.txt\0",
            "\udc2f",
        ],
    )
    def test_a_component_that_could_lead_elsewhere_is_refused(self, tree: Path, name: str) -> None:
        for names in ([name], ["folder", name], [name, "file.txt"]):
            for method in (Beneath(tree).open, Beneath(tree).stat, Beneath(tree).scan):
                with pytest.raises(OutsideRoot):
                    method(names)

    def test_a_component_may_have_255_bytes(self, tree: Path) -> None:
        for name in ("a" * 255, "ä" * 127):
            (tree / name).write_text("long")
            assert read(tree, name) == "long"
        for name in ("a" * 256, "ä" * 128):
            with pytest.raises(OutsideRoot):
                Beneath(tree).stat([name])

    def test_bytes_that_are_no_utf_8_reach_the_file_of_that_name(self, tree: Path) -> None:
        Path(os.fsdecode(os.fsencode(tree) + b"/caf\xe9")).write_text("latin")
        assert read(tree, b"caf\xe9".decode("utf-8", "surrogateescape")) == "latin"

    def test_what_is_missing_or_no_folder_says_so(self, tree: Path) -> None:
        with pytest.raises(FileNotFoundError):
            Beneath(tree).open(["missing"])
        with pytest.raises(FileNotFoundError):
            Beneath(tree).stat(["missing", "file.txt"])
        with pytest.raises(NotADirectoryError):
            Beneath(tree).stat(["file.txt", "x"])
        with pytest.raises(NotADirectoryError):
            Beneath(tree).scan(["file.txt"])
        with pytest.raises(IsADirectoryError):
            Beneath(tree).open(["folder"])

    def test_a_root_that_is_no_folder_is_a_configuration_error(self, tree: Path) -> None:
        with pytest.raises(ConfigurationError):
            Beneath(tree / "file.txt")
        with pytest.raises(ConfigurationError):
            Beneath(tree / "missing")

    def test_a_pipe_is_refused_without_waiting_for_its_other_end(self, tree: Path) -> None:
        os.mkfifo(tree / "pipe")
        with pytest.raises(OutsideRoot):
            Beneath(tree).open(["pipe"])


@pytest.mark.usefixtures("way")
class TestSymlinks:
    @pytest.mark.parametrize("target", ["file.txt", "./file.txt", "folder/../file.txt", "folder/deep/../../file.txt"])
    def test_a_link_that_stays_inside_is_followed(self, tree: Path, target: str) -> None:
        (tree / "link").symlink_to(target)
        assert read(tree, "link") == "file"

    def test_a_link_in_a_folder_goes_on_from_there(self, tree: Path) -> None:
        (tree / "folder" / "up").symlink_to("../file.txt")
        (tree / "folder" / "deep" / "side").symlink_to("../inner.txt")
        (tree / "short").symlink_to("folder/deep/")
        assert read(tree, "folder", "up") == "file"
        assert read(tree, "short", "side") == "inner"

    def test_an_absolute_link_into_the_root_is_followed(self, tree: Path) -> None:
        (tree / "folder" / "absolute").symlink_to(tree / "file.txt")
        (tree / "itself").symlink_to(tree)
        assert read(tree, "folder", "absolute") == "file"
        assert read(tree, "itself", "folder", "inner.txt") == "inner"

    @pytest.mark.parametrize(
        "target",
        [
            "../secret/key",
            "folder/../../secret/key",
            "/etc/hostname",
            "{root}/../secret/key",
            "{root}-too/key",
            "/",
            "..",
        ],
    )
    def test_a_link_that_leads_out_is_refused(self, tree: Path, target: str) -> None:
        (tree / "link").symlink_to(target.format(root=tree))
        for names in (["link"], ["link", "key"]):
            with pytest.raises(OutsideRoot):
                Beneath(tree).stat(names)
            with pytest.raises(OutsideRoot):
                Beneath(tree).open(names)

    def test_a_linked_folder_outside_is_refused(self, tree: Path) -> None:
        (tree / "out").symlink_to("../secret")
        with pytest.raises(OutsideRoot):
            read(tree, "out", "key")
        with pytest.raises(OutsideRoot):
            Beneath(tree).scan(["out"])

    def test_links_that_go_in_a_circle_end(self, tree: Path) -> None:
        (tree / "a").symlink_to("b")
        (tree / "b").symlink_to("a")
        with pytest.raises(OSError, match=r"."):
            Beneath(tree).open(["a"])

    def test_no_link_is_followed_where_the_policy_says_so(self, tree: Path) -> None:
        (tree / "link").symlink_to("file.txt")
        (tree / "short").symlink_to("folder")
        for names in (["link"], ["short", "inner.txt"]):
            with pytest.raises(OutsideRoot):
                Beneath(tree, follow=False).open(names)

    def test_a_root_that_is_a_link_itself_is_fine(self, tree: Path) -> None:
        alias = tree.parent / "alias"
        alias.symlink_to(tree)
        assert read(alias, "file.txt") == "file"


@pytest.mark.usefixtures("way")
class TestScanning:
    def test_a_folder_shows_what_can_be_reached(self, tree: Path) -> None:
        (tree / "inside").symlink_to("folder")
        (tree / "outside").symlink_to("../secret")
        (tree / "nowhere").symlink_to("missing")
        (tree / "back\\slash").write_text("")
        found = {entry.name: entry.is_folder for entry in Beneath(tree).scan([])}
        assert found == {"file.txt": False, "folder": True, "inside": True}
        assert {entry.name for entry in Beneath(tree).scan(["inside"])} == {"inner.txt", "deep"}

    def test_no_more_is_read_than_asked_for(self, tree: Path) -> None:
        assert len(Beneath(tree).scan([], limit=1)) == 1

    def test_a_folder_is_read_piece_by_piece(self, tree: Path) -> None:
        for number in range(25):
            (tree / "folder" / "deep" / str(number)).touch()
        with Beneath(tree).open_scan(["folder", "deep"]) as found:
            pieces = [found.take(10) for _ in range(4)]
        assert [len(piece) for piece in pieces] == [10, 10, 5, 0]
        assert {entry.name for piece in pieces for entry in piece} == {str(number) for number in range(25)}

    def test_a_folder_that_is_swapped_while_it_is_read_is_read_on(self, tree: Path) -> None:
        for number in range(25):
            (tree / "folder" / "deep" / str(number)).touch()
        with Beneath(tree).open_scan(["folder", "deep"]) as found:
            names = [entry.name for entry in found.take(1)]
            (tree / "folder" / "deep").rename(tree / "gone")
            (tree / "folder" / "deep").symlink_to("../../secret")
            names += [entry.name for entry in found.take(None)]
        assert "key" not in names

    def test_closing_twice_harms_nobody(self, tree: Path) -> None:
        found = Beneath(tree).open_scan([])
        found.close()
        found.close()

    def test_sizes_are_those_of_the_files(self, tree: Path) -> None:
        (tree / "link").symlink_to("file.txt")
        sizes = {entry.name: entry.stat.st_size for entry in Beneath(tree).scan([]) if not entry.is_folder}
        assert sizes == {"file.txt": 4, "link": 4}


@pytest.mark.usefixtures("way")
class TestChanges:
    """`WritableBeneath`: removing and renaming mean the name, times and permissions what it leads to."""

    def secret(self, tree: Path) -> object:
        """All that is outside, for comparing."""
        outside = tree.parent / "secret"
        status = (outside / "key").stat()
        return sorted(os.listdir(outside)), (outside / "key").read_text(), status.st_mtime, status.st_mode

    def test_folders_are_made_and_removed(self, tree: Path) -> None:
        beneath = WritableBeneath(tree)
        beneath.mkdir(["folder", "new"])
        assert (tree / "folder" / "new").is_dir()
        beneath.rmdir(["folder", "new"])
        assert not (tree / "folder" / "new").exists()
        for names in (["folder"], ["file.txt"], []):
            with pytest.raises(FileExistsError):
                beneath.mkdir(names)
        with pytest.raises(OSError, match="not empty"):
            beneath.rmdir(["folder"])

    def test_the_root_stays(self, tree: Path) -> None:
        beneath = WritableBeneath(tree)
        for change in (
            lambda: beneath.rmdir([]),
            lambda: beneath.rename([], ["x"]),
            lambda: beneath.rename(["folder"], []),
        ):
            with pytest.raises(PermissionError):
                change()
        with beneath.place([], follow_last=False) as place, pytest.raises(IsADirectoryError):
            place.unlink()

    def test_a_link_is_removed_and_not_what_it_leads_to(self, tree: Path) -> None:
        before = self.secret(tree)
        beneath = WritableBeneath(tree)
        for target in ("file.txt", "folder", "../secret/key", "../secret", "missing", "link"):
            (tree / "link").symlink_to(target)
            with pytest.raises(NotADirectoryError):
                beneath.rmdir(["link"])
            with beneath.place(["link"], follow_last=False) as place:
                place.unlink()
            assert not (tree / "link").is_symlink()
        assert (tree / "file.txt").exists()
        assert (tree / "folder").exists()
        assert self.secret(tree) == before

    def test_a_link_is_renamed_and_not_what_it_leads_to(self, tree: Path) -> None:
        for target in ("file.txt", "folder", "../secret/key", "missing"):
            (tree / "link").symlink_to(target)
            WritableBeneath(tree).rename(["link"], ["renamed"])
            assert os.readlink(tree / "renamed") == target
            (tree / "renamed").unlink()

    def test_a_file_takes_the_place_of_a_link_but_not_of_one_to_a_folder_or_out(self, tree: Path) -> None:
        before = self.secret(tree)
        beneath = WritableBeneath(tree)
        for target in ("folder/inner.txt", "missing"):
            (tree / "link").symlink_to(target)
            (tree / "new").write_text("new")
            beneath.rename(["new"], ["link"])
            assert (tree / "link").read_text() == "new"
            (tree / "link").unlink()
        assert (tree / "folder" / "inner.txt").read_text() == "inner"
        for target, error in (
            ("folder", IsADirectoryError),
            ("../secret/key", OutsideRoot),
            ("../secret", OutsideRoot),
        ):
            (tree / "link").symlink_to(target)
            with pytest.raises(error):
                beneath.rename(["file.txt"], ["link"])
            (tree / "link").unlink()
        assert self.secret(tree) == before

    def test_a_folder_takes_nobodys_place(self, tree: Path) -> None:
        (tree / "empty").mkdir()
        (tree / "dangling").symlink_to("missing")
        for target in ("empty", "file.txt", "dangling", "folder"):
            with pytest.raises(FileExistsError):
                WritableBeneath(tree).rename(["folder"], [target])
        WritableBeneath(tree).rename(["folder"], ["empty", "moved"])
        assert read(tree, "empty", "moved", "inner.txt") == "inner"

    def test_times_and_permissions_are_those_of_what_a_link_leads_to(self, tree: Path) -> None:
        (tree / "link").symlink_to("file.txt")
        (tree / "short").symlink_to("folder")
        beneath = WritableBeneath(tree)
        for link, target in (("link", "file.txt"), ("short", "folder")):
            beneath.utime([link], 1_000_000_000.5)
            beneath.chmod([link], 0o700)
            status = (tree / target).stat()
            assert (status.st_mtime, status.st_mode & 0o777) == (1_000_000_000.5, 0o700)

    @pytest.mark.parametrize("modified", [float("inf"), float("nan"), 1e300])
    def test_a_time_that_no_file_can_have_is_refused(self, tree: Path, modified: float) -> None:
        with pytest.raises(OSError, match="no time"):
            WritableBeneath(tree).utime(["file.txt"], modified)

    def test_without_proc_permissions_are_set_by_a_descriptor(
        self, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os.path, "isdir", lambda path: False)
        beneath = WritableBeneath.__new__(WritableBeneath)
        beneath.root, beneath.follow = str(tree), True
        beneath.chmod(["file.txt"], 0o600)
        beneath.chmod(["folder"], 0o700)
        assert (tree / "file.txt").stat().st_mode & 0o777 == 0o600
        assert (tree / "folder").stat().st_mode & 0o777 == 0o700

    def test_the_permissions_of_a_pipe_are_not_touched(self, tree: Path) -> None:
        os.mkfifo(tree / "pipe", 0o600)
        with pytest.raises(OutsideRoot):
            WritableBeneath(tree).chmod(["pipe"], 0o777)
        assert (tree / "pipe").stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("where", [["out"], ["out", "key"], ["folder", "out", "key"], ["key"], ["absolute"]])
    def test_nothing_outside_is_changed_through_a_link(self, tree: Path, where: list[str]) -> None:
        (tree / "out").symlink_to("../secret")
        (tree / "folder" / "out").symlink_to("../../secret")
        (tree / "key").symlink_to("../secret/key")
        (tree / "absolute").symlink_to(tree.parent / "secret" / "key")
        before = self.secret(tree)
        beneath = WritableBeneath(tree)
        for change in (
            lambda: beneath.utime(where, 0),
            lambda: beneath.chmod(where, 0o777),
            lambda: beneath.mkdir([*where, "new"]),
            lambda: beneath.rmdir([*where, "new"]),
            lambda: beneath.rename(["file.txt"], [*where, "new"]),
            lambda: beneath.rename([*where, "key"], ["stolen"]),
            lambda: beneath.hold(where),
            lambda: beneath.all_names([*where, "x"]).__enter__(),
        ):
            with pytest.raises(OutsideRoot):
                change()
        assert self.secret(tree) == before

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../secret/key", "a\\b", "x\0", "a" * 256])
    def test_no_change_is_made_by_a_name_that_could_lead_elsewhere(self, tree: Path, name: str) -> None:
        beneath = WritableBeneath(tree)
        for names in ([name], ["folder", name], [name, "x"]):
            for change in (
                lambda names: beneath.mkdir(names),
                lambda names: beneath.rmdir(names),
                lambda names: beneath.rename(names, ["x"]),
                lambda names: beneath.rename(["file.txt"], names),
                lambda names: beneath.utime(names, 0),
                lambda names: beneath.chmod(names, 0o777),
                lambda names: beneath.hold(names),
            ):
                with pytest.raises(OutsideRoot):
                    change(names)

    def test_a_held_place_is_still_the_folder_when_its_name_has_become_another(self, tree: Path) -> None:
        if not beneath._HAS_DIR_FD:
            return  # a path leads wherever it leads: see the module's docstring
        place = WritableBeneath(tree).hold(["folder", "new"])
        (tree / "folder").rename(tree / "gone")
        (tree / "folder").symlink_to("../secret")
        os.close(place.create())
        os.close(place.beside("other").create())
        place.beside("other").rename_to(place.beside("third"))
        place.sync_folder()
        place.close()
        assert {"new", "third"} < set(os.listdir(tree / "gone"))
        assert os.listdir(tree.parent / "secret") == ["key"]

    def test_all_names_are_also_those_that_cannot_be_reached(self, tree: Path) -> None:
        (tree / "folder" / "out").symlink_to("../../secret")
        (tree / "folder" / "nowhere").symlink_to("missing")
        with WritableBeneath(tree).all_names(["folder"]) as names:
            assert set(names) == {"deep", "inner.txt", "out", "nowhere"}


@pytest.mark.parametrize("method", ["utime", "chmod", "mkdir", "rename from", "rename to"])
@pytest.mark.parametrize("name", ["folder", "inner.txt"])
def test_no_change_goes_through_what_was_swapped_for_a_link(
    tree: Path, monkeypatch: pytest.MonkeyPatch, method: str, name: str
) -> None:
    outside = tree.parent / "secret"
    (outside / "inner.txt").write_text("secret")
    os.utime(outside / "inner.txt", (5, 5))
    (outside / "inner.txt").chmod(0o600)
    swapped = tree / "folder" if name == "folder" else tree / "folder" / "inner.txt"

    def swap(real: Callable[..., object]) -> Callable[..., object]:
        """`real`, before whose use of the name somebody swaps it."""

        def call(path: str, *args: object, **others: object) -> object:
            if name in (path, *args) and not swapped.is_symlink():
                monkeypatch.undo()
                swapped.rename(tree / "gone")
                swapped.symlink_to("../secret" if name == "folder" else "../../secret/inner.txt")
            return real(path, *args, **others)

        return call

    for function in ("open", "mkdir", "replace", "utime", "chmod"):
        monkeypatch.setattr(os, function, swap(getattr(os, function)))
    beneath = WritableBeneath(tree)
    try:
        if method == "utime":
            beneath.utime(["folder", "inner.txt"], 0)
        elif method == "chmod":
            beneath.chmod(["folder", "inner.txt"], 0o777)
        elif method == "mkdir":
            beneath.mkdir(["folder", "new"])
        elif method == "rename from":
            beneath.rename(["folder", "inner.txt"], ["stolen"])
        else:
            beneath.rename(["file.txt"], ["folder", "inner.txt"])
    except OSError:
        pass
    assert (tree / "gone").exists() or (method, name) == ("mkdir", "inner.txt")
    assert sorted(os.listdir(outside)) == ["inner.txt", "key"]
    status = (outside / "inner.txt").stat()
    assert (status.st_mtime, status.st_mode & 0o777, status.st_size) == (5, 0o600, 6)
    assert not (tree / "stolen").exists() or (tree / "stolen").is_symlink() or (tree / "stolen").read_text() == "inner"


NAMES = ["folder", "file.txt", "inner.txt", "link", "short", "out", "key", "nowhere", "a", "absolute", "etc", "pipe"]
NAMES += ["deep", "missing", "..", ".", "", "passwd", "caf\udce9"]


class TestAtOnce:
    """`open_now`: the same names, the same refusals, or no answer. It never says what the walk would not say."""

    @pytest.fixture
    def tree(self, tree: Path) -> Path:
        if Beneath(tree)._open_cached is None:
            pytest.skip("this kernel or this file system cannot open files without waiting")
        (tree / "folder" / "link").symlink_to("../file.txt")
        (tree / "short").symlink_to("folder")
        (tree / "out").symlink_to("../secret")
        (tree / "key").symlink_to("out/key")
        (tree / "nowhere").symlink_to("missing")
        (tree / "a").symlink_to("b")
        (tree / "b").symlink_to("a")
        (tree / "absolute").symlink_to(tree / "file.txt")
        (tree / "etc").symlink_to("/etc")
        os.mkfifo(tree / "pipe")
        Path(os.fsdecode(os.fsencode(tree) + b"/caf\xe9")).write_text("file")
        return tree

    def verdict(self, tree: Path, method: str, *names: str, follow: bool = True) -> object:
        try:
            file, status = getattr(Beneath(tree, follow=follow), method)(names)
        except OSError as error:
            return type(error)
        with file:
            assert os.path.samestat(status, os.fstat(file.fileno()))
            return file.read()

    def at_once(self, tree: Path, *names: str, follow: bool = True) -> object:
        """The verdict when the names are in memory: the walk has put them there."""
        self.verdict(tree, "open_with_stat", *names, follow=follow)
        return self.verdict(tree, "open_now", *names, follow=follow)

    def test_a_file_that_was_opened_before_is_opened(self, tree: Path) -> None:
        assert self.at_once(tree, "file.txt") == b"file"
        assert self.at_once(tree, "folder", "inner.txt") == b"inner"
        assert self.at_once(tree, "folder", "link") == b"file"
        assert self.at_once(tree, "short", "inner.txt") == b"inner"
        assert self.at_once(tree, "caf\udce9") == b"file"

    def test_a_folder_and_a_pipe_are_told_from_files(self, tree: Path) -> None:
        assert self.at_once(tree, "folder") is IsADirectoryError
        assert self.at_once(tree, "short") is IsADirectoryError
        assert self.at_once(tree) is IsADirectoryError
        assert self.at_once(tree, "pipe") is OutsideRoot

    @pytest.mark.parametrize(
        "names", [["out", "key"], ["key"], ["out"], ["etc", "hostname"], ["absolute"], ["a"], ["a", "key"]]
    )
    def test_a_link_out_and_what_is_not_certain_is_left_to_the_walk(self, tree: Path, names: list[str]) -> None:
        for _ in range(3):
            assert self.at_once(tree, *names) is BlockingIOError

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "/", "a/b", "../secret/key", "a\\b", "file.txt\0", "x" * 256, "\ud800"]
    )
    def test_a_component_that_could_lead_elsewhere_is_refused(self, tree: Path, name: str) -> None:
        for names in ([name], ["folder", name], [name, "file.txt"]):
            assert self.verdict(tree, "open_now", *names) is OutsideRoot

    def test_no_link_is_followed_where_the_policy_says_so(self, tree: Path) -> None:
        assert self.at_once(tree, "folder", "link", follow=False) is BlockingIOError
        assert self.at_once(tree, "short", "inner.txt", follow=False) is BlockingIOError
        assert self.at_once(tree, "file.txt", follow=False) == b"file"

    def test_a_file_that_appears_is_found_though_its_absence_was_remembered(self, tree: Path) -> None:
        assert self.at_once(tree, "new") in (FileNotFoundError, BlockingIOError)
        (tree / "new").write_text("new")
        assert self.verdict(tree, "open_now", "new") in (b"new", BlockingIOError)
        (tree / "new").unlink()
        assert self.verdict(tree, "open_now", "new") in (FileNotFoundError, BlockingIOError)

    @given(st.lists(st.sampled_from(NAMES), max_size=5), st.booleans())
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
    def test_what_is_certain_is_what_the_walk_says(self, tree: Path, names: list[str], follow: bool) -> None:
        walked = self.verdict(tree, "open_with_stat", *names, follow=follow)
        assert self.verdict(tree, "open_now", *names, follow=follow) in (walked, BlockingIOError)

    def test_a_folder_replaced_by_a_link_out_is_refused(self, tree: Path) -> None:
        beneath = Beneath(tree)
        beneath.open_with_stat(["folder", "inner.txt"])[0].close()
        (tree / "folder").rename(tree / "gone")
        (tree / "folder").symlink_to("../secret")
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                beneath.open_now(["folder", "key"])
            with pytest.raises(OutsideRoot):
                beneath.open_with_stat(["folder", "key"])

    def test_nothing_stays_open(self, tree: Path) -> None:
        before = set(os.listdir("/proc/self/fd"))
        for names in (["file.txt"], ["folder"], ["pipe"], ["missing"], ["out", "key"], []):
            self.at_once(tree, *names)
        assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.EMFILE])
def test_without_the_system_call_nothing_is_certain(tree: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(folder: int, path: bytes, how: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(openat2, "_open", fail)
    openat2._is_supported.cache_clear()
    try:
        with pytest.raises(BlockingIOError):
            Beneath(tree).open_now(["file.txt"])
        assert read(tree, "file.txt") == "file"
    finally:
        openat2._is_supported.cache_clear()


def test_a_file_system_that_asks_somebody_else_is_left_to_threads(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openat2, "_LOCAL", frozenset())
    with pytest.raises(BlockingIOError):
        Beneath(tree).open_now(["file.txt"])


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc here")
def test_another_file_system_below_the_root_is_left_to_threads() -> None:
    beneath = Beneath("/")
    beneath.open_with_stat(["proc", "version"])[0].close()
    with pytest.raises(BlockingIOError):
        beneath.open_now(["proc", "version"])


def test_a_chain_of_links_may_have_forty(tree: Path) -> None:
    (tree / "link0").symlink_to("file.txt")
    for index in range(1, MAX_LINKS + 1):
        (tree / f"link{index}").symlink_to(f"link{index - 1}")
    assert read(tree, f"link{MAX_LINKS - 1}") == "file"
    with pytest.raises(OSError, match="symbolic links"):
        read(tree, f"link{MAX_LINKS}")


@pytest.fixture
def deep(tree: Path) -> list[str]:
    """The components of a folder far down, which holds a file and a link to what is above it."""
    names = ["d"] * 100
    folder = tree.joinpath("root", *names)
    folder.mkdir(parents=True)
    (folder / "file").write_text("deep")
    (folder / "up").symlink_to("../../d/../d/d/file")
    (folder / "again").symlink_to("../d/" * 600 + "file")
    return names


def test_folders_in_folders_take_no_descriptor_each(deep: list[str], tree: Path) -> None:
    files = Beneath(tree / "root")
    lowest = os.dup(0)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 10, hard))
    try:
        for name in ("file", "up"):
            with files.open([*deep, name]) as file:
                assert file.read() == b"deep"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_link_that_goes_up_and_down_without_end_ends(deep: list[str], tree: Path) -> None:
    with pytest.raises(OSError, match="Too many levels"):
        Beneath(tree / "root").open([*deep, "again"])


def test_a_folder_swapped_for_a_link_on_the_way_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def open_after_swap(path: str, flags: int, *args: object, dir_fd: int | None = None) -> int:
        if path == "folder":
            os.rename(tree / "folder", tree / "gone")
            (tree / "folder").symlink_to("../secret")
        return real_open(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_after_swap)
    with pytest.raises(OSError, match=r"directory|symbolic"):
        Beneath(tree).open(["folder", "key"])


def test_a_file_swapped_for_a_link_before_it_is_opened_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def open_after_swap(path: str, flags: int, *args: object, dir_fd: int | None = None) -> int:
        if path == "file.txt":
            os.unlink(tree / "file.txt")
            (tree / "file.txt").symlink_to("../secret/key")
        return real_open(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_after_swap)
    with pytest.raises(OSError, match="symbolic links"):
        Beneath(tree).open(["file.txt"])


names = st.lists(
    st.sampled_from(["..", ".", "", "folder", "file.txt", "up", "out", "root", "secret", "key", "/", "deep"])
)


@given(names)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_reads_the_secret(tree: Path, names: list[str]) -> None:
    for name, target in (("up", ".."), ("out", "../secret"), ("folder/up", ".."), ("folder/out", "../../secret")):
        if not (tree / name).is_symlink():
            (tree / name).symlink_to(target)
    try:
        with Beneath(tree).open(names) as file:
            assert file.read() in (b"file", b"inner")
    except OSError:
        pass
