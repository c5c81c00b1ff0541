"""What the tests of faults share. ASYNCNET_FAULTS=all has them try everything, which takes minutes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.faults.recording import build


@pytest.fixture(scope="session")
def thorough() -> bool:
    """Whether there is time for everything."""
    return os.environ.get("ASYNCNET_FAULTS") == "all"


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that notes what is done to files, for LD_PRELOAD."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler (cc)")
    return build(tmp_path_factory.mktemp("recorder"))
