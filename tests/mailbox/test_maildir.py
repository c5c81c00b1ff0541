"""What only a Maildir has: files, other programs that use them at the same time, and room that ends."""

from __future__ import annotations

import errno
import mailbox as stdlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncnet.mailbox import folders, maildir
from asyncnet.mailbox.maildir import LOCK, Maildir, Maildirs
from asyncnet.mailbox.maildir_delivery import BUFFER
from asyncnet.mailbox.storage import Flag
from tests.mailbox import killed
from tests.mailbox.use import MAIL, deliver, fails, get

STORED = MAIL.replace(b"\r\n", b"\n")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for name in ("tmp", "new", "cur"):
        (tmp_path / "box" / name).mkdir(parents=True)
    return tmp_path / "box"


@pytest.fixture
def box(path: Path) -> Maildir:
    return Maildir(path)


def files(path: Path) -> list[str]:
    """Every message, "new/NAME" or "cur/NAME", and what is on its way."""
    return sorted(f"{folder}/{name}" for folder in ("tmp", "new", "cur") for name in os.listdir(path / folder))


def failing(number: int) -> Callable[..., Any]:
    def fail(*args: object, **others: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


# Files


async def test_a_file_has_line_feeds_and_says_its_sizes(path: Path, box: Maildir) -> None:
    message = await deliver(box)
    (name,) = files(path)
    assert re.fullmatch(rf"new/\d+\.M\d+P{os.getpid()}R[0-9a-f]{{16}}\.[A-Za-z0-9-]+,S=\d+,W=\d+", name)
    assert name == f"new/{message.uid},S={len(STORED)},W={len(MAIL)}"
    assert (path / name).read_bytes() == STORED
    assert (path / name).stat().st_mode & 0o777 == 0o600
    assert (path / name).stat().st_nlink == 1


async def test_a_delivery_holds_one_descriptor(box: Maildir) -> None:
    before = len(os.listdir("/proc/self/fd"))
    incoming = [await box.deliver() for _ in range(10)]
    assert len(os.listdir("/proc/self/fd")) - before <= 10
    for one in incoming:
        await one.abort()


async def test_a_maildir_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    await deliver(Maildir(tmp_path / "made"))
    for place in ("made", "made/tmp", "made/new", "made/cur"):
        assert (tmp_path / place).stat().st_mode & 0o777 == 0o700
    with fails(errno.ENOENT):
        await deliver(Maildir(tmp_path / "missing" / "made"))


async def test_what_is_said_in_a_name_is_not_counted_again(path: Path, box: Maildir) -> None:
    (path / "new" / "1.host,S=4,W=6").write_bytes(b"a\nb\n")
    (path / "new" / "2.host,S=99,W=100").write_bytes(b"a\nb\n")
    (path / "cur" / "3.host:2,").write_bytes(b"a\r\nb\n")
    os.utime(path / "cur" / "3.host:2,", (5, 5))
    sizes = {message.uid: message.size for message in await box.messages()}
    assert sizes == {"1.host": 6, "2.host": 6, "3.host": 6}


async def test_what_was_counted_is_remembered_until_the_file_changes(
    path: Path, box: Maildir, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = path / "new" / "1.host"
    place.write_bytes(b"a\nb\n")
    assert (await box.messages())[0].size == 6
    with monkeypatch.context() as patched:
        patched.setattr(maildir, "read_at", failing(errno.EIO))
        assert (await box.messages())[0].size == 6
        place.rename(path / "cur" / "1.host:2,S")
        assert (await box.messages())[0].size == 6
    (path / "cur" / "1.host:2,S").write_bytes(b"a\nb\nc\n")
    assert (await box.messages())[0].size == 9


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
async def test_a_file_that_cannot_be_read_keeps_nobody_from_the_others(
    path: Path, box: Maildir, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (path / "new" / "1.host").write_bytes(b"a\n")
    message = await deliver(box)
    open_file = maildir.open_file

    def refuse_one(folder: int, name: str) -> Any:
        return failing(number)() if name == "1.host" else open_file(folder, name)

    monkeypatch.setattr(maildir, "open_file", refuse_one)  # root may read everything
    monkeypatch.setattr(maildir, "_counted", {})
    assert {one.uid for one in await box.messages()} == {"1.host", message.uid}
    assert await get(box, message) == MAIL
    with fails(number):
        await get(box, "1.host")


async def test_the_memory_of_counts_has_an_end(path: Path, box: Maildir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maildir, "_MOST_COUNTED", 3)
    monkeypatch.setattr(maildir, "_counted", {})
    for number in range(10):
        (path / "new" / f"{number}.host").write_bytes(b"a\n" * number)
    assert sorted(message.size for message in await box.messages()) == [3 * number for number in range(10)]
    assert len(maildir._counted) <= 3


async def test_uids_do_not_depend_on_the_order_in_the_folder_nor_on_flags(path: Path, box: Maildir) -> None:
    messages = [await deliver(box) for _ in range(5)]
    for number, message in enumerate(messages):
        (name,) = (path / "new").glob(f"{message.uid}*")
        os.utime(name, (number, number))
    before = [message.uid for message in messages]
    await box.set_flags(before[2], [Flag.SEEN])
    await box.remove([before[1]])
    assert [message.uid for message in await Maildir(path).messages()] == [before[0], *before[2:]]


async def test_flags_move_a_message_to_cur_and_keep_the_letters_of_others(path: Path, box: Maildir) -> None:
    message = await deliver(box)
    await box.set_flags(message.uid, [])
    assert files(path) == [f"cur/{message.uid},S={len(STORED)},W={len(MAIL)}:2,"]
    (path / files(path)[0]).rename(path / "cur" / f"{message.uid}:2,PSab")
    await box.set_flags(message.uid, [Flag.ANSWERED, Flag.DRAFT])
    assert files(path) == [f"cur/{message.uid}:2,DPRab"]


async def test_hidden_files_and_what_is_no_file_are_no_messages(path: Path, box: Maildir) -> None:
    (path / "new" / ".hidden").write_bytes(b"x")
    (path / "cur" / "folder:2,").mkdir()
    os.mkfifo(path / "cur" / "pipe:2,")
    assert await box.messages() == []


@pytest.mark.parametrize(
    "name", [b"caf\xe9", b"\xff\xfe:2,S", b"a b", b"x" * 200, b"\x1b[31m", b"1.host,S=,W=", b"a:b:c"]
)
async def test_names_of_odd_bytes_are_messages_like_others(path: Path, box: Maildir, name: bytes) -> None:
    place = os.path.join(os.fsencode(path), b"cur", name)
    with open(place, "wb") as file:
        file.write(STORED)
    (message,) = await box.messages()
    assert re.fullmatch(r"[!-~]{1,70}", message.uid)
    assert message.size == len(MAIL)
    assert await get(box, message) == MAIL
    await box.set_flags(message.uid, [Flag.FLAGGED])
    assert [one.uid for one in await box.messages()] == [message.uid]
    await box.remove([message.uid])
    assert files(path) == []


async def test_what_lies_in_tmp_for_two_days_is_removed(path: Path, box: Maildir) -> None:
    for name, hours in (("old", 37), ("young", 35)):
        (path / "tmp" / name).write_bytes(b"x")
        when = (path / "tmp" / name).stat().st_mtime - hours * 3600
        os.utime(path / "tmp" / name, (when, when))
    (path / "tmp" / "folder").mkdir()
    (path / "tmp" / "link").symlink_to("old")
    os.utime(path / "tmp" / "link", (5, 5), follow_symlinks=False)
    os.utime(path / "tmp" / "folder", (5, 5))
    await box.messages()
    assert files(path) == ["tmp/folder", "tmp/link", "tmp/young"]


# Other programs


async def test_a_message_that_another_program_moves_is_found_again(path: Path, box: Maildir) -> None:
    messages = [await deliver(box) for _ in range(3)]
    (name,) = (path / "new").glob(f"{messages[0].uid}*")
    moved = name.rename(path / "cur" / f"{name.name}:2,S")
    assert await get(box, messages[0]) == MAIL
    moved.rename(path / "cur" / f"{name.name}:2,RS")
    await box.set_flags(messages[0].uid, [Flag.FLAGGED])
    (name,) = (path / "cur").glob(f"{messages[0].uid}*")
    assert name.name.endswith(":2,F")
    name.rename(path / "cur" / f"{messages[0].uid}:2,T")  # and its sizes are gone, as Dovecot does with wrong ones
    assert {one.uid for one in await box.messages()} == {one.uid for one in messages}
    (path / "cur" / f"{messages[0].uid}:2,T").rename(path / "cur" / f"{messages[0].uid}:2,ST")
    await box.remove([one.uid for one in messages])
    assert files(path) == []


async def test_one_that_is_moved_again_and_again_is_not_said_to_be_removed(
    path: Path, box: Maildir, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving, other = await deliver(box), await deliver(box)
    unlink, flags = os.unlink, iter("DFRS" * 10)

    def come_too_late(name: str, *, dir_fd: int) -> None:
        if name.startswith(moving.uid):
            (place,) = path.glob(f"*/{moving.uid}*")
            place.rename(path / "cur" / f"{place.name.partition(':')[0]}:2,{next(flags)}")
        unlink(name, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", come_too_late)
        with fails(errno.EAGAIN):
            await box.remove([moving.uid, other.uid])
    assert [message.uid for message in await box.messages()] == [moving.uid]
    await box.remove([moving.uid])
    assert files(path) == []


async def test_a_message_that_another_program_removes_is_gone(path: Path, box: Maildir) -> None:
    message, other = await deliver(box), await deliver(box)
    await box.messages()
    (name,) = (path / "new").glob(f"{message.uid}*")
    name.unlink()
    with fails(errno.ENOENT):
        await get(box, message)
    with fails(errno.ENOENT):
        await box.set_flags(message.uid, [])
    await box.remove([message.uid, other.uid])
    assert files(path) == []


async def test_a_folder_that_changes_while_it_is_listed_is_listed_again(
    path: Path, box: Maildir, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = await deliver(box)
    (name,) = (path / "new").iterdir()
    current = name.rename(path / "cur" / f"{name.name}:2,")
    scan = folders.Folders.scan
    renamed: list[Path] = []

    def scan_badly(self: folders.Folders) -> Any:
        found = list(scan(self))
        if not renamed:
            # readdir(3) leaves open whether what is renamed meanwhile is seen: here it is not.
            renamed.append(current.rename(path / "cur" / f"{name.name}:2,S"))
            os.utime(path / "cur", (5, 5))
            return iter([])
        return iter(found)

    monkeypatch.setattr(folders.Folders, "scan", scan_badly)
    assert [one.uid for one in await box.messages()] == [message.uid]


async def test_two_files_of_one_unique_part_are_two_messages(path: Path, box: Maildir) -> None:
    (path / "new" / "1.host,S=2").write_bytes(b"a\n")
    (path / "cur" / "1.host,S=4:2,S").write_bytes(b"b\nb\n")
    found = await box.messages()
    assert len({message.uid for message in found}) == 2
    assert "1.host" in {message.uid for message in found}
    assert sorted([await get(box, message) for message in found]) == [b"a\r\n", b"b\r\nb\r\n"]
    assert {message.uid for message in await Maildir(path).messages()} == {message.uid for message in found}


async def test_two_names_of_one_file_are_one_message(path: Path, box: Maildir) -> None:
    message = await deliver(box)
    (name,) = (path / "new").iterdir()
    os.link(name, path / "cur" / f"{name.name}:2,")
    assert [one.uid for one in await box.messages()] == [message.uid]
    assert len(files(path)) == 2


async def test_flags_take_nobodys_place(path: Path, box: Maildir) -> None:
    (path / "new" / "1.host").write_bytes(b"a\n")
    await box.messages()
    (path / "cur" / "1.host:2,S").write_bytes(b"b\n")
    with fails(errno.EEXIST):
        await box.set_flags("1.host", [Flag.SEEN])
    assert (path / "cur" / "1.host:2,S").read_bytes() == b"b\n"


async def test_the_standard_librarys_maildir_reads_and_writes_the_same(path: Path, box: Maildir) -> None:
    theirs = stdlib.Maildir(path, create=False)
    message = await deliver(box)
    (key,) = theirs.keys()
    assert theirs.get_bytes(key) == STORED
    mail = stdlib.MaildirMessage(theirs[key])
    mail.set_subdir("cur")
    mail.set_flags("FS")
    theirs[key] = mail
    (ours,) = await box.messages()
    assert (ours.uid, ours.flags) == (message.uid, {Flag.FLAGGED, Flag.SEEN})
    theirs.add(STORED)
    assert sorted([await get(box, one) for one in await box.messages()]) == [MAIL, MAIL]
    await box.set_flags(ours.uid, [Flag.ANSWERED])
    theirs = stdlib.Maildir(path, create=False)
    assert [one.get_flags() for one in theirs if one.get_subdir() == "cur"] == ["R"]
    theirs.clear()
    assert await box.messages() == []


# Sessions


def start(path: Path) -> subprocess.Popen[str]:
    """Another process that has locked the mailbox and is in the middle of a delivery."""
    process = subprocess.Popen([sys.executable, "-m", "tests.mailbox.killed", path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    return process


async def test_killed_in_the_middle_of_a_delivery_it_leaves_nothing_to_see_and_no_lock(
    path: Path, box: Maildir
) -> None:
    with start(path) as process:
        with fails(errno.EBUSY):
            async with box.lock():
                raise AssertionError
        process.kill()
        process.wait()
    assert await box.messages() == []
    assert [name.partition("/")[0] for name in files(path)] == ["tmp"]
    assert list(stdlib.Maildir(path, create=False)) == []
    async with box.lock():
        pass


@pytest.mark.parametrize(
    ("call", "number", "arrives"),
    [
        ("write", 1, False),
        ("write", 2, False),
        ("fsync", 1, False),
        ("link", 1, False),
        ("unlink", 1, True),
        ("fsync", 2, True),
    ],
)
async def test_killed_at_a_system_call_it_leaves_a_whole_message_or_none(
    path: Path, box: Maildir, call: str, number: int, arrives: bool
) -> None:
    command = [sys.executable, "-m", "tests.mailbox.killed", path, call, str(number)]
    done = await trio.run_process(command, check=False)
    assert done.returncode == -signal.SIGKILL
    found = await box.messages()
    assert [await get(box, message) for message in found] == [killed.CONTENT * 1000] * arrives
    assert len(await Maildir(path).messages()) == arrives


async def test_the_lock_is_a_file_that_readers_take_for_nothing(path: Path, box: Maildir) -> None:
    async with box.lock():
        assert sorted(os.listdir(path)) == sorted([LOCK, "cur", "new", "tmp"])
        theirs = stdlib.Maildir(path, create=False)
        assert theirs.list_folders() == []
        theirs.add(STORED)
        assert len(await box.messages()) == 1


# Symlinks in hostile places


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_bytes(b"secret")
    os.utime(tmp_path / "secret" / "key", (5, 5))
    return tmp_path / "secret"


async def use_all(box: Maildir) -> None:
    await deliver(box)
    for message in await box.messages():
        await get(box, message)
        await box.set_flags(message.uid, [Flag.SEEN])
        await box.remove([message.uid])


@pytest.mark.parametrize("name", ["tmp", "new", "cur", ""])
async def test_a_folder_that_is_a_symlink_is_not_followed(path: Path, box: Maildir, secret: Path, name: str) -> None:
    place = path / name if name else path
    place.rename(path.parent / "aside")
    place.symlink_to(secret)
    with fails(errno.ENOTDIR, errno.ELOOP):
        await use_all(box)
    with fails(errno.ENOTDIR, errno.ELOOP):
        await box.messages()
    assert os.listdir(secret) == ["key"]


async def test_a_file_that_is_a_symlink_is_no_message(path: Path, box: Maildir, secret: Path) -> None:
    (path / "new" / "1.host").symlink_to(secret / "key")
    (path / "cur" / "2.host:2,").symlink_to(secret)
    (path / "tmp" / "3.host").symlink_to(secret / "key")
    await use_all(box)
    assert await box.messages() == []
    assert (secret / "key").read_bytes() == b"secret"


async def test_a_message_that_becomes_a_symlink_is_not_followed(path: Path, box: Maildir, secret: Path) -> None:
    message = await deliver(box)
    await box.messages()
    (name,) = (path / "new").iterdir()
    name.unlink()
    name.symlink_to(secret / "key")
    with fails(errno.ELOOP):
        await get(box, message)
    await box.remove([message.uid])  # the link itself
    assert (secret / "key").read_bytes() == b"secret"


async def test_a_lock_file_that_is_a_symlink_is_not_followed(path: Path, box: Maildir, secret: Path) -> None:
    (path / LOCK).symlink_to(secret / "made")
    with fails(errno.ELOOP):
        async with box.lock():
            raise AssertionError
    assert os.listdir(secret) == ["key"]


async def test_a_user_whose_folder_is_a_symlink_reaches_nothing(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "anna").symlink_to(secret)
    (tmp_path / "root" / "bert").write_bytes(b"no folder")
    for user in ("anna", "bert"):
        with pytest.raises(LookupError):
            await Maildirs(tmp_path / "root").of(user)
        with fails(errno.ENOTDIR, errno.ELOOP):
            await Maildirs(tmp_path / "root", create=True).of(user)
    assert os.listdir(secret) == ["key"]


async def test_a_folder_that_is_no_maildir_is_nobodys_until_it_is_made_one(tmp_path: Path) -> None:
    for name in ("backup/anna/new", "carl/new", "emil", "franz/tmp"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "dora").mkdir()
    (tmp_path / "dora" / "new").symlink_to(tmp_path / "carl" / "new")
    there, made = Maildirs(tmp_path), Maildirs(tmp_path, create=True)
    for user in ("backup", "dora"):
        with pytest.raises(LookupError):
            await there.of(user)
    for user in ("carl", "emil", "franz"):
        await deliver(await there.of(user))
    await made.of("backup")
    await deliver(await there.of("backup"))


async def test_of_what_is_no_maildir_not_all_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers ask for it as often as they like."""
    read, scandir = 0, os.scandir
    (tmp_path / "backup").mkdir()
    for number in range(100):
        (tmp_path / "backup" / f"{number}").touch()

    @contextmanager
    def counting(path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        def entries() -> Iterator[os.DirEntry[str]]:
            nonlocal read
            with scandir(path) as found:
                for entry in found:
                    read += 1
                    yield entry

        yield entries()

    monkeypatch.setattr(os, "scandir", counting)
    monkeypatch.setattr(os, "listdir", failing(errno.EIO))
    with pytest.raises(LookupError):
        await Maildirs(tmp_path).of("backup")
    assert read == 1


async def test_where_nobody_can_know_whether_a_maildir_is_there_it_is_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fails(errno.ENOENT):
        await Maildirs(tmp_path / "not mounted").of("anna")
    monkeypatch.setattr(os, "lstat", failing(errno.EACCES))  # root may look everywhere
    with fails(errno.EACCES):
        await Maildirs(tmp_path).of("anna")


@pytest.mark.parametrize("create", [False, True])
async def test_where_the_mailboxes_have_gone_nobody_is_said_to_have_none(tmp_path: Path, create: bool) -> None:
    (tmp_path / "root" / "anna").mkdir(parents=True)
    boxes = Maildirs(tmp_path / "root", create=create)
    (tmp_path / "root").rename(tmp_path / "unmounted")
    for user in ("anna", "nobody"):
        with fails(errno.ENOENT):
            await boxes.of(user)
    assert not (tmp_path / "root").exists()
    (tmp_path / "root").write_bytes(b"no folder")
    with fails(errno.ENOTDIR):
        await boxes.of("anna")


@pytest.mark.parametrize("end", ["commit", "abort"])
async def test_one_that_is_removed_while_mail_comes_is_not_there_again(path: Path, box: Maildir, end: str) -> None:
    incoming = await box.deliver()
    await incoming.write(b"Subject: x\r\n\r\nx\r\n")
    shutil.rmtree(path)
    if end == "abort":
        await incoming.abort()
    else:
        with fails(errno.ENOENT):
            await incoming.commit()
    assert not path.exists()


async def test_a_name_that_is_too_long_for_a_folder_is_nobodys(tmp_path: Path) -> None:
    for boxes in (Maildirs(tmp_path), Maildirs(tmp_path, create=True)):
        with pytest.raises(LookupError):
            await boxes.of("a" * 256)


# Room


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fsync", "link"])
async def test_a_disk_that_fails_leaves_nothing_and_recovers(
    path: Path, box: Maildir, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing(number))
        incoming = await box.deliver()
        await incoming.write(MAIL)
        with fails(number):
            await incoming.commit()
    assert files(path) == []
    await deliver(box)
    assert len(await box.messages()) == 1


async def test_a_folder_that_does_not_reach_the_disk_takes_the_message_back(
    path: Path, box: Maildir, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, calls = os.fsync, []

    def fail_the_second_time(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    incoming = await box.deliver()
    await incoming.write(MAIL)
    monkeypatch.setattr(os, "fsync", fail_the_second_time)
    with fails(errno.EIO):
        await incoming.commit()
    assert files(path) == []


async def test_what_does_not_fit_fails_where_it_is_written(
    path: Path, box: Maildir, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = await box.deliver()
    monkeypatch.setattr(os, "write", failing(errno.ENOSPC))
    with fails(errno.ENOSPC):
        await incoming.write(b"x" * BUFFER)
    await incoming.abort()
    assert files(path) == []


async def test_mail_that_others_deliver_counts(path: Path) -> None:
    box = Maildir(path, quota_bytes=1000)
    (path / "cur" / "1.host:2,").write_bytes(b"x" * 1000)
    with fails(errno.EDQUOT):
        await box.deliver()
    assert files(path) == ["cur/1.host:2,"]


async def test_to_count_what_names_say_no_file_is_looked_at(
    path: Path, box: Maildir, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await deliver(box)
    (path / "cur" / "1.host,S=700:2,S").write_bytes(b"x" * 700)
    size = sum(file.stat().st_size for file in path.glob("*/*"))
    monkeypatch.setattr(maildir, "file_status", failing(errno.EIO))
    await deliver(Maildir(path, quota_bytes=size + 100))
    with fails(errno.EDQUOT):
        await deliver(Maildir(path, quota_bytes=size))


async def test_one_that_cannot_be_removed_keeps_no_other(
    path: Path, box: Maildir, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [await deliver(box) for _ in range(3)]
    unlink = os.unlink

    def refuse_one(name: str, **how: Any) -> None:
        if name.startswith(messages[0].uid):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        unlink(name, **how)

    monkeypatch.setattr(os, "unlink", refuse_one)
    with fails(errno.EACCES):
        await box.remove([message.uid for message in messages])
    assert [message.uid for message in await box.messages()] == [messages[0].uid]


async def test_memory_does_not_grow_with_the_message(box: Maildir) -> None:
    piece = (b"x" * 998 + b"\r\n") * 64
    tracemalloc.start()
    try:
        incoming = await box.deliver()
        for _ in range(320):  # 20 MB
            await incoming.write(piece)
        message = await incoming.commit()
        size = 0
        async for data in box.read(message.uid):
            size += len(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == message.size == 320 * len(piece)
    assert peak < 4_000_000


async def test_a_file_that_becomes_shorter_is_no_whole_message(path: Path, box: Maildir) -> None:
    message = await deliver(box, b"x\r\n" * 300_000)
    (name,) = (path / "new").iterdir()
    read = 0
    with fails(errno.EIO):
        async for data in box.read(message.uid):
            read += len(data)
            os.truncate(name, 1000)
    assert read > 0


def test_one_mailbox_serves_runs_of_trio_one_after_the_other(path: Path, box: Maildir) -> None:
    for _ in range(2):
        trio.run(deliver, box)
    assert len(files(path)) == 2


# All of it, in any order


class Others:
    """What other programs do to the files of a Maildir."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, uid: str) -> Path:
        (found,) = (place for folder in ("new", "cur") for place in (self.path / folder).glob(f"{uid}*"))
        return found

    def move(self, uid: str) -> None:
        place = self.find(uid)
        place.rename(self.path / "cur" / (place.name if ":" in place.name else f"{place.name}:2,"))

    def flag(self, uid: str) -> None:
        place = self.find(uid)
        letters = set(place.name.partition(":2,")[2]) ^ {"S", "P"}
        place.rename(self.path / "cur" / f"{place.name.partition(':')[0]}:2,{''.join(sorted(letters))}")

    def forget_sizes(self, uid: str) -> None:
        place = self.find(uid)
        place.rename(place.parent / f"{uid}{''.join(place.name.partition(':')[1:])}")

    def remove(self, uid: str) -> None:
        self.find(uid).unlink()


STEPS = st.tuples(
    st.sampled_from(["deliver", "list", "read", "seen", "remove", "move", "flag", "forget_sizes", "take"]),
    st.integers(0, 5),
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])  # each step syncs a disk
@given(st.lists(STEPS, max_size=15))
def test_whatever_others_do_meanwhile_messages_stay_what_they_are(path: Path, steps: list[tuple[str, int]]) -> None:
    async def follow() -> None:
        box, others = Maildir(path), Others(path)
        there: dict[str, bytes] = {}
        for number, (step, choice) in enumerate(steps):
            uids = list(there)
            uid = uids[choice % len(uids)] if uids else ""
            match step:
                case "deliver":
                    content = b"%d\r\n" % number * choice
                    there[(await deliver(box, content)).uid] = content
                case "list":
                    found = await box.messages()
                    assert {one.uid: one.size for one in found} == {one: len(there[one]) for one in there}
                case "read" if uid:
                    assert await get(box, uid) == there[uid]
                case "seen" if uid:
                    await box.set_flags(uid, [Flag.SEEN])
                    assert "S" in others.find(uid).name.partition(":2,")[2]
                case "remove" if uid:
                    await box.remove([uid])
                    del there[uid]
                case "take" if uid:
                    others.remove(uid)
                    del there[uid]
                    with fails(errno.ENOENT):
                        await get(box, uid)
                case "move" | "flag" | "forget_sizes" if uid:
                    getattr(others, step)(uid)
        assert {one.uid: await get(box, one) for one in await box.messages()} == there
        await box.remove(there)
        assert files(path) == []

    trio.run(follow)
