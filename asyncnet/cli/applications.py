"""Finding the application that the user names: "module:name", or "module:name()" for what `name` makes.

What is wrong with the name is one clear line. What the module itself raises goes on as it is: its traceback is what
its author needs to see.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from asyncnet.errors import ConfigurationError

TAKES = {"ASGI": ("scope", "receive", "send"), "WSGI": ("environ", "start_response")}
"""What an application of each interface is called with."""


def load_application(place: str, folder: str, interface: str) -> Callable[..., Any]:
    """Import "module:name", or call "module:name()"; modules are looked for in `folder` first.

    The application must be callable as `interface`, "ASGI" or "WSGI", has it. Raises ConfigurationError.
    """
    module, colon, name = place.partition(":")
    is_factory = name.endswith("()")
    name = name.removesuffix("()")
    if "/" in module or module.endswith(".py"):
        dotted = module.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigurationError(f"{module} is a file: write MODULE:APP, such as {dotted}:{name or 'app'}")
    if not (colon and name and all(module.split("."))):
        raise ConfigurationError(f"{place!r} is no application: write MODULE:APP, such as shop.main:app")
    if not os.path.isdir(folder):
        raise ConfigurationError(f"--app-dir {folder}: no such folder")
    found = _find(module, name, os.path.abspath(folder))
    if is_factory:
        if not _can_call(found, ()):
            raise ConfigurationError(
                f"{name!r} of {module!r} makes no application: it cannot be called without arguments"
            )
        found = found()
    _check_call(found, place, interface)
    application: Callable[..., Any] = found
    return application


def _find(module: str, name: str, folder: str) -> Any:
    sys.path.insert(0, folder)
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports
        raise ConfigurationError(f"no module {error.name!r} in {folder}, nor installed: --app-dir says where") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"the module {module!r} has no {name!r}")
        found = getattr(found, part)
    return found


def _check_call(app: object, place: str, interface: str) -> None:
    """Refuse what could not answer a single request: a factory that was not called, an application of another kind."""
    if _can_call(app, TAKES[interface]):
        return
    other = "WSGI" if interface == "ASGI" else "ASGI"
    hint = f"it cannot be called with ({', '.join(TAKES[interface])})"
    if not callable(app):
        hint = "it cannot be called"
    elif _can_call(app, TAKES[other]):
        hint = f"it looks like one for --{other.lower()}"
    elif _can_call(app, ()) and not place.endswith("()"):
        hint = f"if it makes one, write '{place}()'"
    raise ConfigurationError(f"{place!r} is no {interface} application: {hint}")


def _can_call(thing: Any, arguments: Sequence[object]) -> bool:
    """Whether `thing` takes so many arguments; of what is written in C nobody can tell."""
    if not callable(thing):
        return False
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True
