"""docs/security.md and docs/rfc.md name a test for what they claim: each of those tests is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
_find_names = re.compile(r"`([\w/]+\.py)::([\w:]+)`").findall


def names_in(path: Path) -> Iterator[str]:
    """The names of the tests in a file, as pytest has them."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}::{item.name}" for item in node.body if hasattr(item, "name"))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


@pytest.mark.parametrize("page", ["security.md", "rfc.md"])
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    named = _find_names((DOCS / page).read_text())
    assert named
    known = {file: set(names_in(TESTS / file)) for file in {file for file, _ in named}}
    assert [f"{file}::{test}" for file, test in named if test not in known[file]] == []
