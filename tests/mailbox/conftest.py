"""Mailboxes of every kind, for tests that are to hold on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asyncnet.mailbox.maildir import Maildir
from asyncnet.mailbox.memory import MemoryMailbox
from asyncnet.mailbox.storage import Mailbox
from tests.ftp.conftest import open_files

Maker = Callable[..., Mailbox]


@pytest.fixture(params=["maildir", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Maker:
    """Makes an empty mailbox with these quotas."""
    if request.param == "memory":
        return MemoryMailbox
    return lambda **quotas: Maildir(tmp_path / "box", **quotas)


@pytest.fixture
def mailbox(make: Maker) -> Mailbox:
    """An empty mailbox."""
    return make()


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """No test leaves a descriptor behind."""
    before = open_files()
    yield
    assert open_files() <= before
