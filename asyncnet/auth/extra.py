"""The libraries of `asyncnet[auth]`, imported when they are first needed: most programs have no passwords."""

from __future__ import annotations

import importlib
from types import ModuleType

from asyncnet.errors import ConfigurationError


def auth_extra(module: str) -> ModuleType:
    """The module called `module`. Raises ConfigurationError, with the command that installs it, when it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(f'passwords need {module}: pip install "asyncnet[auth]" ({error})') from error
