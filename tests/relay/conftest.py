from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncnet.relay.queue import Queue, open_queue
from tests.relay.use import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def queue(tmp_path: Path, clock: Clock) -> AsyncIterator[Queue]:
    """A queue in `tmp_path`, whose clock stands still."""
    async with open_queue(tmp_path, clock=clock) as opened:
        yield opened
