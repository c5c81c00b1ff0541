"""How many fsyncs messages cost that are committed at the same moment: those of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.recording import recorded

GROUPING = Path(__file__).with_name("grouping.py")


def syncs(recorder: Path, folder: Path, count: int, size: int) -> int:
    done = recorded(recorder, folder / "spool", folder / "log", GROUPING, folder / "spool", count, size)
    return int(done.stdout)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_short_messages_share_one(recorder: Path, tmp_path: Path, count: int) -> None:
    assert syncs(recorder, tmp_path, count, 1000) == 1


def test_a_long_one_costs_its_file_the_folder_and_the_log(recorder: Path, tmp_path: Path) -> None:
    assert syncs(recorder, tmp_path, 1, 100_000) == 3
