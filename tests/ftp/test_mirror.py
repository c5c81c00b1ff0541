"""Whole trees: a scripted server that has folders, and what becomes of them here and there."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from asyncnet.errors import LocalProtocolError
from asyncnet.ftp import mirror
from asyncnet.ftp.client import FTPClient, TransientReplyError
from asyncnet.ftp.mirror import Connect, Outcome, Report, Step, mirror_down, mirror_up
from asyncnet.ftp.wire import format_time, parse_time
from tests.ftp.scripted import ScriptedFTP, Session, running

OLD, NEW = 1_600_000_000.0, 1_700_000_000.0


class TreeFTP(ScriptedFTP):
    """The scripted server with a tree: paths to contents, None for folders. All of it changed at `OLD`."""

    def __init__(self, tree: dict[str, bytes | None]) -> None:
        super().__init__()
        self.tree = tree
        self.times: dict[str, float] = {}
        self.extra: dict[str, bytes] = {}
        """Lines of listings that no tree would have."""
        self.answers |= {
            "RETR": self.give,
            "SIZE": self.tell_size,
            "MLSD": self.list_folder,
            "MLST": self.tell,
            "STOR": self.take,
            "MKD": self.make,
            "DELE": self.remove,
            "RMD": self.remove,
            "MFMT": self.set_time,
            "MDTM": self.tell_time,
        }

    def facts(self, path: str) -> bytes:
        content = self.tree[path]
        modify = format_time(self.times.get(path, OLD))
        if content is None:
            return f"type=dir;modify={modify}; {path.rpartition('/')[2]}\r\n".encode()
        return f"type=file;size={len(content)};modify={modify}; {path.rpartition('/')[2]}\r\n".encode()

    async def list_folder(self, session: Session, path: str) -> None:
        path = path.rstrip("/")
        if path and self.tree.get(path, b"") is not None:
            await session.say(b"550 no such folder\r\n")
            return
        lines = [self.facts(one) for one in self.tree if one.rpartition("/")[0] == path]
        data = await session.open_data()
        await data.send_all(b"type=cdir; .\r\n" + b"".join(lines) + self.extra.get(path, b""))
        await data.aclose()
        await session.say(b"226 done\r\n")

    async def give(self, session: Session, path: str) -> None:
        self.files = {name: content for name, content in self.tree.items() if content is not None}
        from tests.ftp.scripted import retrieve

        await retrieve(session, path)

    async def take(self, session: Session, path: str) -> None:
        from tests.ftp.scripted import store

        await store(session, path)
        self.tree[path] = self.stored[path] or b""
        self.times.pop(path, None)

    async def tell(self, session: Session, path: str) -> None:
        if path in self.tree:
            await session.say(b"250-x\r\n " + self.facts(path) + b"250 end\r\n")
        else:
            await session.say(b"550 not there\r\n")

    async def tell_size(self, session: Session, path: str) -> None:
        await session.say(f"213 {len(self.tree[path] or b'')}\r\n".encode())

    async def tell_time(self, session: Session, path: str) -> None:
        await session.say(f"213 {format_time(self.times.get(path, OLD))}\r\n".encode())

    async def make(self, session: Session, path: str) -> None:
        self.tree[path] = None
        await session.say(b"257 made\r\n")

    async def remove(self, session: Session, path: str) -> None:
        if any(other.startswith(f"{path}/") for other in self.tree):
            await session.say(b"550 not empty\r\n")
        else:
            del self.tree[path]
            await session.say(b"250 gone\r\n")

    async def set_time(self, session: Session, argument: str) -> None:
        text, _, path = argument.partition(" ")
        self.times[path] = parse_time(text)
        await session.say(b"213 ok\r\n")


TREE: dict[str, bytes | None] = {
    "pub": None,
    "pub/a": b"first",
    "pub/b c": b"second",
    "pub/empty": None,
    "pub/sub": None,
    "pub/sub/deep": None,
    "pub/sub/deep/d": b"third",
}


@asynccontextmanager
async def serving(tree: dict[str, bytes | None] = TREE) -> AsyncIterator[tuple[Connect, TreeFTP]]:
    server = TreeFTP(dict(tree))
    async with running(server):
        yield lambda: FTPClient.connect(server.url, timeout=10), server


def tree_of(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


WHOLE = {path.removeprefix("pub/"): content for path, content in TREE.items() if path != "pub"}


@pytest.mark.parametrize("connections", [1, 3])
async def test_a_tree_comes_whole_with_its_times_and_not_again(tmp_path: Path, connections: int) -> None:
    target = tmp_path / "copy" / "of it"
    async with serving() as (connect, server):
        steps: list[Step] = []
        report = await mirror_down(connect, "pub", target, connections=connections, progress=steps.append)
        assert tree_of(target) == WHOLE
        assert (target / "a").stat().st_mtime == OLD
        assert (report.transferred, report.made, report.bytes, report.failures) == (3, 3, 16, [])
        assert sorted(step.path for step in steps if step.outcome is Outcome.TRANSFERRED) == ["a", "b c", "sub/deep/d"]
        assert len(server.sessions) == connections
        again = await mirror_down(connect, "pub", target, connections=connections)
        assert (again.transferred, again.same, again.made) == (0, 3, 0)


@pytest.mark.parametrize("slash", ["", "/"])
async def test_only_what_differs_is_moved(tmp_path: Path, slash: str) -> None:
    async with serving() as (connect, server):
        await mirror_down(connect, f"pub{slash}", tmp_path)
        server.tree["pub/a"] = b"longer than before"
        server.times["pub/b c"] = NEW
        moved: list[tuple[str, int, int | None]] = []
        report = await mirror_down(connect, f"pub{slash}", tmp_path, moved=lambda *news: moved.append(news))
        assert (report.transferred, report.same) == (2, 1)
        assert (tmp_path / "a").read_bytes() == b"longer than before"
        assert ("a", 18, 18) in moved


async def test_what_is_not_there_goes_only_if_asked(tmp_path: Path) -> None:
    (tmp_path / "gone" / "deep").mkdir(parents=True)
    (tmp_path / "gone" / "deep" / "x").write_text("x")
    (tmp_path / "old").write_text("x")
    (tmp_path / "outside").symlink_to("/etc")
    async with serving() as (connect, _):
        await mirror_down(connect, "pub", tmp_path)
        assert (tmp_path / "old").exists()
        report = await mirror_down(connect, "pub", tmp_path, delete=True)
        assert report.deleted == 3
        assert tree_of(tmp_path) == WHOLE
    assert Path("/etc/passwd").exists()


async def test_nothing_is_deleted_in_a_folder_that_could_not_be_listed_whole(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "old").write_text("x")
    async with serving() as (connect, server):
        server.extra["pub/sub"] = b"garbage\r\n"
        report = await mirror_down(connect, "pub", tmp_path, delete=True)
        assert [step.path for step in report.failures] == ["sub"]
        assert (tmp_path / "sub" / "old").exists()
        assert (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "name", [b"../escaped", b"/tmp/escaped", b"..", b"sub/../../escaped", b"a\x01b", b"\x1b[2J", b"sub/escaped"]
)
async def test_a_hostile_server_writes_nothing_outside_of_the_folder(tmp_path: Path, name: bytes) -> None:
    async with serving() as (connect, server):
        server.extra["pub"] = b"type=file;size=4; " + name + b"\r\ntype=dir; " + name + b"\r\n"
        server.tree[name.decode()] = b"evil"
        report = await mirror_down(connect, "pub", tmp_path / "copy")
        assert tree_of(tmp_path / "copy") == WHOLE
        assert [path.name for path in tmp_path.iterdir()] == ["copy"]
        assert len(report.failures) == (0 if name == b".." else 1)
        assert all(step.path.isprintable() for step in report.failures)


async def test_a_symlink_here_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "sub").symlink_to(outside)
    (outside / "victim").write_text("precious")
    (copy / "a").symlink_to(outside / "victim")
    async with serving() as (connect, _):
        report = await mirror_down(connect, "pub", copy)
        assert [step.path for step in report.failures] == ["sub"]
        assert [path.name for path in outside.iterdir()] == ["victim"]
        assert (outside / "victim").read_text() == "precious"
        assert not (copy / "a").is_symlink()


async def test_what_is_neither_file_nor_folder_is_left_out(tmp_path: Path) -> None:
    async with serving({"pub": None}) as (connect, server):
        server.extra["pub"] = b"type=OS.unix=slink:/etc; link\r\ntype=OS.unix=chr-1/3; null\r\n"
        report = await mirror_down(connect, "pub", tmp_path)
        assert (report.skipped, tree_of(tmp_path)) == (2, {})


async def test_one_file_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    async with serving() as (connect, server):
        server.answers["RETR pub/a"] = b"450 locked\r\n"
        report = await mirror_down(connect, "pub", tmp_path, connections=2)
        assert [(step.path, type(step.error)) for step in report.failures] == [("a", TransientReplyError)]
        assert report.transferred == 2
        assert not (tmp_path / "a").exists()


async def test_a_connection_that_is_lost_is_opened_again(tmp_path: Path) -> None:
    async def tired(session: Session, path: str) -> None:
        del server.answers["RETR pub/a"]
        await session.say(b"421 you were here too long\r\n")

    async with serving() as (connect, server):
        server.answers["RETR pub/a"] = tired
        report = await mirror_down(connect, "pub", tmp_path, connections=1)
        assert (report.transferred, report.failures) == (3, [])
        assert tree_of(tmp_path) == WHOLE


async def test_connections_that_the_server_has_left_while_they_were_idle_cost_no_file(tmp_path: Path) -> None:
    async with serving({"pub": None, "pub/a": b"first"}) as (connect, server):

        async def leave_all(session: Session, path: str) -> None:
            server.answers["MLSD"] = server.list_folder
            with trio.fail_after(5):
                while len([command for command in server.commands if command.startswith("OPTS")]) < 3:
                    await trio.sleep(0.001)
            await server.list_folder(session, path)
            for one in server.sessions:
                await one.say(b"421 you were here too long\r\n")

        server.answers["MLSD"] = leave_all
        report = await mirror_down(connect, "pub", tmp_path, connections=3)
        assert (report.transferred, report.failures) == (1, [])


async def test_a_file_for_which_the_server_always_leaves_fails(tmp_path: Path) -> None:
    async with serving() as (connect, server):
        server.answers["RETR pub/a"] = b"421 not this one\r\n"
        report = await mirror_down(connect, "pub", tmp_path, connections=3)
        assert (report.transferred, [step.path for step in report.failures]) == (2, ["a"])


async def test_a_server_that_takes_fewer_connections_is_served_by_those(tmp_path: Path) -> None:
    async with serving() as (connect, server):

        async def count(session: Session, argument: str) -> None:
            is_first = session is server.sessions[0]
            await session.say(b"331 password\r\n" if is_first else b"421 one is enough\r\n")

        server.answers["USER"] = count
        report = await mirror_down(connect, "pub", tmp_path, connections=4)
        assert (report.transferred, report.failures) == (3, [])


async def test_a_server_that_cannot_be_reached_is_an_error(tmp_path: Path) -> None:
    async with serving() as (connect, server):
        server.greeting = b"421 closed\r\n"
        with pytest.raises(TransientReplyError, match="closed"):
            await mirror_down(connect, "pub", tmp_path)
    with pytest.raises(LocalProtocolError):
        await mirror_down(connect, "pub", tmp_path, connections=0)


async def test_folders_without_end_are_given_up(tmp_path: Path) -> None:
    async with serving({"pub": None}) as (connect, server):

        async def again(session: Session, path: str) -> None:
            data = await session.open_data()
            await data.send_all(b"type=dir; d\r\n")
            await data.aclose()
            await session.say(b"226 done\r\n")

        server.answers["MLSD"] = again
        report = await mirror_down(connect, "pub", tmp_path, connections=1)
        assert len(report.failures) == 1
        assert "lie in each other" in str(report.failures[0].error)


async def test_a_listing_that_breaks_off_and_is_asked_for_again_moves_no_file_twice(tmp_path: Path) -> None:
    async with serving() as (connect, server):

        async def break_off(session: Session, path: str) -> None:
            server.answers["MLSD"] = server.list_folder
            data = await session.open_data()
            await data.send_all(server.facts("pub/a") + server.facts("pub/sub"))
            await data.abort()
            await session.say(b"421 too tired\r\n")

        server.answers["MLSD"] = break_off
        report = await mirror_down(connect, "pub", tmp_path, connections=2)
        assert (report.transferred, report.failures) == (3, [])
        assert server.commands.count("RETR pub/a") == 1
        assert tree_of(tmp_path) == WHOLE


async def test_a_file_whose_name_is_that_of_anothers_part_is_not_taken_for_it(tmp_path: Path) -> None:
    tree: dict[str, bytes | None] = {"pub": None, "pub/a": b"first", "pub/a.part": b"second", "pub/a.~part": b"third"}
    async with serving(tree) as (connect, server):

        async def keep_waiting(session: Session, path: str) -> None:
            data = await session.open_data()
            await data.send_all(b"fi")
            await others_are_there()
            await data.send_all(b"rst")
            await data.aclose()
            await session.say(b"226 done\r\n")

        async def others_are_there() -> None:
            with trio.fail_after(5):
                while not {"a.part", "a.~part"} <= {path.name for path in tmp_path.iterdir()}:
                    await trio.sleep(0.001)

        server.answers["RETR pub/a"] = keep_waiting
        report = await mirror_down(connect, "pub", tmp_path, connections=3)
        assert (report.transferred, report.failures) == (3, [])
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
            "a": b"first",
            "a.part": b"second",
            "a.~part": b"third",
        }
        server.times["pub/a"] = OLD - 100  # older than its neighbour, which is not the part of it
        server.answers["RETR pub/a"] = server.give
        await mirror_down(connect, "pub", tmp_path)
        assert (tmp_path / "a").read_bytes() == b"first"
        assert (tmp_path / "a.part").read_bytes() == b"second"


async def test_a_listing_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "ENTRIES", 100)

    async def without_end(session: Session, path: str) -> None:
        data = await session.open_data()
        with suppress(trio.BrokenResourceError):
            for number in itertools.count():
                await data.send_all(f"type=dir; {number}\r\n".encode())
        await session.say(b"426 broken off\r\n")

    async with serving({"pub": None}) as (connect, server):
        server.answers["MLSD"] = without_end
        report = await mirror_down(connect, "pub", tmp_path)
        assert "more than 100 entries" in str(report.failures[0].error)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changed", [False, True])
async def test_a_part_is_gone_on_with_unless_the_file_has_changed_since(tmp_path: Path, changed: bool) -> None:
    async with serving() as (connect, server):

        async def break_off(session: Session, path: str) -> None:
            data = await session.open_data()
            await data.send_all(b"FIR")
            await data.aclose()
            await session.say(b"426 broken off\r\n")

        server.times["pub/a"] = NEW
        server.answers["RETR pub/a"] = break_off
        assert len((await mirror_down(connect, "pub", tmp_path)).failures) == 1
        del server.answers["RETR pub/a"]
        if changed:
            server.times["pub/a"] = OLD  # another file in its place, which is older
        await mirror_down(connect, "pub", tmp_path, delete=True)
        assert (tmp_path / "a").read_bytes() == (b"first" if changed else b"FIRst")


async def test_a_part_of_which_nobody_knows_what_it_is_of_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(b"FIR")
    async with serving() as (connect, _):
        await mirror_down(connect, "pub", tmp_path)
        assert (tmp_path / "a").read_bytes() == b"first"


async def test_without_exact_times_in_listings_the_server_is_asked(tmp_path: Path) -> None:
    async with serving({"pub": None, "pub/a": b"first"}) as (connect, server):
        line = b"-rw-r--r-- 1 u g 5 Jan  1  2020 a\r\n"

        async def give(session: Session, path: str) -> None:
            data = await session.open_data()
            await data.send_all(line)
            await data.aclose()
            await session.say(b"226 done\r\n")

        server.answers |= {"MLSD": b"500 what?\r\n", "LIST": give}
        for expected in ((1, 0), (0, 1)):
            report = await mirror_down(connect, "pub", tmp_path)
            assert (report.transferred, report.same) == expected
        assert (tmp_path / "a").stat().st_mtime == OLD


async def test_what_list_may_hide_is_not_deleted(tmp_path: Path) -> None:
    for name in (".hidden", "visible"):
        (tmp_path / name).write_bytes(b"")
    async with serving({"pub": None}) as (connect, server):

        async def give(session: Session, path: str) -> None:
            data = await session.open_data()
            await data.send_all(b"total 0\r\n")
            await data.aclose()
            await session.say(b"226 done\r\n")

        facts = server.answers["MLSD"]
        server.answers |= {"MLSD": b"500 what?\r\n", "LIST": give}
        await mirror_down(connect, "pub", tmp_path, delete=True)
        assert [path.name for path in tmp_path.iterdir()] == [".hidden"]
        server.answers["MLSD"] = facts
        await mirror_down(connect, "pub", tmp_path, delete=True)
        assert not list(tmp_path.iterdir())


def plant(folder: Path) -> None:
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(b"first")
    (folder / "sub" / "deep" / "d e").write_bytes(b"second")
    (folder / "link").symlink_to("a")
    for path in (folder / "a", folder / "sub" / "deep" / "d e"):
        os.utime(path, (NEW, NEW))


@pytest.mark.parametrize("connections", [1, 3])
async def test_a_tree_goes_whole_with_its_times_and_not_again(tmp_path: Path, connections: int) -> None:
    plant(tmp_path)
    async with serving({}) as (connect, server):
        report = await mirror_up(connect, tmp_path, "up", connections=connections)
        assert server.tree == {
            "up": None,
            "up/a": b"first",
            "up/sub": None,
            "up/sub/deep": None,
            "up/sub/deep/d e": b"second",
        }
        assert server.times["up/a"] == NEW
        assert (report.transferred, report.made, report.skipped, report.failures) == (2, 3, 1, [])
        again = await mirror_up(connect, tmp_path, "up", connections=connections)
        assert (again.transferred, again.same, again.made) == (0, 2, 0)
        (tmp_path / "a").write_bytes(b"other")
        assert (await mirror_up(connect, tmp_path, "up")).transferred == 1


async def test_what_is_not_here_goes_there_only_if_asked(tmp_path: Path) -> None:
    plant(tmp_path)
    async with serving({**TREE, "pub/sub/deep/d e": b"second"}) as (connect, server):
        await mirror_up(connect, tmp_path, "pub")
        assert "pub/empty" in server.tree
        report = await mirror_up(connect, tmp_path, "pub", delete=True)
        assert sorted(server.tree) == ["pub", "pub/a", "pub/sub", "pub/sub/deep", "pub/sub/deep/d e"]
        assert (report.deleted, report.failures) == (3, [])


async def test_without_mfmt_the_size_decides(tmp_path: Path) -> None:
    plant(tmp_path)
    async with serving({"pub": None, "pub/a": b"FIRST"}) as (connect, server):
        server.answers["FEAT"] = b"211-Features:\r\n MLST type*;size*;modify*;\r\n211 End\r\n"
        report = await mirror_up(connect, tmp_path, "pub")
        assert (report.same, report.transferred) == (1, 1)


async def test_a_symlink_that_takes_the_place_of_a_file_is_not_sent(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"for nobody")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"first")
    (tree / "b").write_bytes(b"second")
    async with serving({}) as (connect, server):

        async def swap(session: Session, path: str) -> None:
            (tree / "a").unlink()
            (tree / "a").symlink_to(secret)
            (tree / "b").unlink()
            os.mkfifo(tree / "b")
            await server.make(session, path)

        server.answers["MKD"] = swap
        report = await mirror_up(connect, tree, "new")
        assert sorted(step.path for step in report.failures) == ["a", "b"]
        assert server.stored == {}


async def test_an_upload_that_fails_is_reported(tmp_path: Path) -> None:
    plant(tmp_path)
    async with serving({}) as (connect, server):
        server.answers["STOR up/a"] = b"552 no room\r\n"
        report: Report = await mirror_up(connect, tmp_path, "up")
        assert [step.path for step in report.failures] == ["a"]
        assert "no room" in str(report.failures[0].error)
        assert report.transferred == 1


async def test_cancelling_a_mirror_ends_it(tmp_path: Path) -> None:
    async with serving() as (connect, _):
        with trio.CancelScope() as scope:
            await mirror_down(connect, "pub", tmp_path, progress=lambda step: scope.cancel())
        assert scope.cancelled_caught
