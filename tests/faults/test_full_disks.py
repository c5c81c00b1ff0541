"""A disk that is full, at every write: 452, nothing lost, nothing left, and on it goes when there is room."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.faults.recording import recorded

FILLING = Path(__file__).with_name("filling.py")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("size", [1000, 60_000, 100_000])
def test_a_message_is_refused_and_an_outcome_can_be_recorded_later(
    recorder: Path, tmp_path: Path, size: int, error: int
) -> None:
    done = recorded(recorder, tmp_path / "spool", tmp_path / "log", FILLING, tmp_path / "spool", size, error)
    refused, unrecorded = map(int, done.stdout.split())
    assert refused > 5
    assert unrecorded > 5
