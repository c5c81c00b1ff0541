"""What each run of Trio has one of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


def once_per_run(make: Callable[[], T]) -> Callable[[], T]:
    """Makes `make` a function that does its work once in each run of Trio, and then returns what came of it.

    To be called within a run; for what belongs to one, such as limiters, system tasks and instruments.
    """
    made: trio.lowlevel.RunVar[T] = trio.lowlevel.RunVar(repr(make))

    def get() -> T:
        try:
            return made.get()
        except LookupError:
            value = make()
            made.set(value)
            return value

    return get
