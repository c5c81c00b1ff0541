"""A machine that loses its power at any moment: what got its 250 is there, whole, on whatever its disk has kept.

A process that takes and delivers messages is recorded, and at each of its steps disks are built that a crash at that
moment may leave. A queue is opened on each, and has to have all that the world had been told by then.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.checking import Found, Promised, what_is_in
from tests.faults.recording import Disk, Step, disks, read_steps, recorded

ACCEPTING = Path(__file__).with_name("accepting.py")


@pytest.fixture(scope="module")
def steps(recorder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """What a process has done that has taken some messages, and delivered some."""
    folder = tmp_path_factory.mktemp("recorded")
    recorded(recorder, folder / "spool", folder / "log", ACCEPTING, folder / "spool", 1, 80)
    return read_steps(folder / "log")


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., object]:
    """Build a disk that a crash may leave, and see what a queue finds there."""
    numbers = iter(range(1_000_000))

    async def look_at(disk: Disk, chance: random.Random | None, kept: float) -> Found:
        folder = tmp_path / str(next(numbers))
        disk.crash(folder, chance, kept)
        try:
            return await what_is_in(folder)
        finally:
            shutil.rmtree(folder)

    return look_at


def test_the_recording_has_what_it_is_to_prove(steps: list[Step]) -> None:
    promised = Promised.by(step.data for step in steps if step.kind == "r")
    assert len(promised.digests) > 30
    assert sum(map(len, promised.recorded.values())) > 10
    assert len(promised.reports) > 3
    made = [step.data for step in steps if step.kind == "c"]
    assert any(name.startswith(b"content/") for name in made)
    assert b"queue.db-wal" in made


async def test_with_only_what_was_synced(steps: list[Step], look) -> None:
    """Nothing that was written is on the disk before somebody has asked for that, and no name is."""
    disk = Disk()
    promised, found = Promised(), Found()
    for step in steps:
        changed = disk.take(step)
        if step.kind == "r":
            promised.take(step.data)
            assert promised.broken_by(found) == []
        elif step.kind == "s" and changed:
            found = await look(disk, None, 0)
            assert promised.broken_by(found) == []
    assert len(found) > 10


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
async def test_with_any_part_of_what_was_not(steps: list[Step], look, thorough: bool, kept: float) -> None:
    """Written pages, torn or whole, in any order; names without their files, files without their names."""
    chance = random.Random(f"{kept}")
    for number, disk in disks(steps):
        if thorough or number % 19 == 0:
            assert Promised.by(disk.replies).broken_by(await look(disk, chance, kept)) == []


@pytest.mark.timeout(600)
async def test_with_everything_that_was_written(steps: list[Step], look, thorough: bool) -> None:
    """As after a kill: the machine lives on, or its disk was quick."""
    for number, disk in disks(steps):
        if thorough or number % 19 == 0:
            assert Promised.by(disk.replies).broken_by(await look(disk, None, 1)) == []


class TestTheProofItself:
    """Each of these takes away what the queue's durability rests on, and the crash has to show."""

    async def broken(self, steps: list[Step], look) -> list[str]:
        """What is wrong after a crash at the last reply, before the queue was closed."""
        last = max(number for number, step in enumerate(steps) if step.kind == "r")
        disk, promised = Disk(), Promised()
        for step in steps[: last + 1]:
            disk.take(step)
            if step.kind == "r":
                promised.take(step.data)
        try:
            return promised.broken_by(await look(disk, None, 0))
        except Exception as error:
            return [repr(error)]

    async def test_as_it_is_nothing_shows(self, steps: list[Step], look) -> None:
        assert await self.broken(steps, look) == []

    async def test_without_the_syncs_of_the_log(self, steps: list[Step], look) -> None:
        assert await self.broken(without_syncs_of(steps, b"queue.db-wal"), look)

    async def test_without_the_syncs_of_contents(self, steps: list[Step], look) -> None:
        assert await self.broken(without_syncs_of(steps, b"content/"), look)

    async def test_without_the_syncs_of_their_folder(self, steps: list[Step], look) -> None:
        assert await self.broken(without_syncs_of(steps, b"content"), look)

    async def test_without_that_of_the_folder_of_the_database(self, steps: list[Step], look) -> None:
        assert await self.broken(without_syncs_of(steps, b""), look)

    async def test_with_replies_that_leave_too_early(self, steps: list[Step], look) -> None:
        early = [step for step in steps if step.kind == "r"]
        others = [step for step in steps if step.kind != "r"]
        half = len(others) // 2
        assert await self.broken([*others[:half], *early], look)


def without_syncs_of(steps: list[Step], name: bytes) -> list[Step]:
    """The same without the syncs of one file or folder, or, with a slash at the end, of all in a folder."""

    def is_meant(step: Step) -> bool:
        return step.data == name or (name.endswith(b"/") and step.data.startswith(name))

    files = {step.file for step in steps if step.kind in "co" and is_meant(step)}
    assert files
    return [step for step in steps if step.kind != "s" or step.file not in files]
