"""The names of the packages, which are imported when they are first asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

PACKAGES = [
    "asyncnet",
    "asyncnet.ftp",
    "asyncnet.http",
    "asyncnet.mailbox",
    "asyncnet.pop3",
    "asyncnet.relay",
    "asyncnet.smtp",
]


def imports_for_type_checkers(package: str) -> dict[str, str]:
    """Where each name comes from, by the imports that type checkers read."""
    source = import_module(package).__file__
    assert source is not None
    tree = ast.parse(Path(source).read_text())
    (choice,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = (node for node in choice.body if isinstance(node, ast.ImportFrom))
    return {alias.asname or "": node.module or "" for node in imports for alias in node.names}


NAMES = [(package, name) for package in PACKAGES for name in sorted(import_module(package).__all__)]


@pytest.mark.parametrize("package", PACKAGES)
def test_what_type_checkers_see_is_what_there_is(package: str) -> None:
    assert sorted(imports_for_type_checkers(package)) == sorted(import_module(package).__all__)


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_every_public_name_can_be_imported(package: str, name: str) -> None:
    home = imports_for_type_checkers(package)[name]
    assert getattr(import_module(package), name) is getattr(import_module(home), name)
    assert name in dir(import_module(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_an_ordinary_import_error(package: str) -> None:
    with pytest.raises(ImportError, match="no_such_thing"):
        exec(f"from {package} import no_such_thing")


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_imports_no_trio(package: str) -> None:
    program = f"import {package}, sys; assert 'trio' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_a_star_imports_them_all() -> None:
    program = "from asyncnet import *; serve, connect, Stream; from asyncnet.http import *; HTTPHandler, HTTPClient"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
