"""A relay that is killed at any instant: what got its 250 is there, and nothing that was crossed off is."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.checking import Promised, what_is_in
from tests.faults.recording import REPOSITORY

ACCEPTING = Path(__file__).with_name("accepting.py")


@pytest.mark.timeout(600)
async def test_a_relay_that_is_killed_again_and_again_keeps_its_promises(tmp_path: Path, thorough: bool) -> None:
    kills = 100 if thorough else 8
    chance = random.Random(5321)
    promised = Promised()
    for round in range(kills):
        for line in await lines_until_killed(tmp_path, round, chance.randrange(1, 60), chance.randrange(20_000)):
            promised.take(line)
        assert promised.broken_by(await what_is_in(tmp_path)) == []
    assert len(promised.digests) > kills
    assert promised.recorded
    # Each kill interrupts no more deliveries than were under way.
    assert promised.repeated <= kills * 12


async def lines_until_killed(folder: Path, seed: int, count: int, pause: int) -> list[bytes]:
    """What a process has said that was killed somewhat after its line number `count`."""
    with subprocess.Popen(
        [sys.executable, str(ACCEPTING), str(folder), str(seed)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(count)]
            for _ in range(pause):  # it goes on meanwhile
                pass
        finally:
            process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    if not lines[-1].endswith(b"\n"):
        lines.pop()
    return lines
