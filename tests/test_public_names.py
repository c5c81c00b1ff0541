"""The names of the package itself, which are imported when they are first asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import asyncnet


def names_for_type_checkers() -> set[str]:
    tree = ast.parse(Path(asyncnet.__file__).read_text())
    (choice,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = (node for node in choice.body if isinstance(node, ast.ImportFrom))
    return {f"{node.module}.{alias.asname}" for node in imports for alias in node.names}


def test_what_type_checkers_see_is_what_there_is() -> None:
    there_are = {f"{module}.{name}" for name, module in asyncnet._HOMES.items()}
    assert names_for_type_checkers() == there_are


@pytest.mark.parametrize("name", sorted(asyncnet._HOMES))
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(asyncnet, name) is getattr(sys.modules[asyncnet._HOMES[name]], name)
    assert name in dir(asyncnet)


def test_an_unknown_name_is_an_ordinary_import_error() -> None:
    with pytest.raises(ImportError, match="no_such_thing"):
        exec("from asyncnet import no_such_thing")


def test_importing_the_package_imports_no_trio() -> None:
    program = "import asyncnet, sys; assert 'trio' not in sys.modules; asyncnet.serve; assert 'trio' in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_a_star_imports_them_all() -> None:
    program = "from asyncnet import *; serve, connect, Stream"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
