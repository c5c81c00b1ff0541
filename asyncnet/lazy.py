"""Names of a package that are imported when they are first asked for, so that importing the package costs nothing.

A package says, besides the imports that type checkers read:

    __all__, __getattr__, __dir__ = lazy_names(__name__, {"client": ("HTTPClient",), "server": ("HTTPHandler",)})
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping


def lazy_names(
    package: str, modules: Mapping[str, tuple[str, ...]]
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """What `package` needs to have the names that `modules` of its own hold: `__all__`, `__getattr__`, `__dir__`."""
    homes = {name: module for module, names in modules.items() for name in names}

    def __getattr__(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)  # the next time it is simply there
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return list(homes), __getattr__, __dir__
