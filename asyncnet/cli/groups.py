"""Exception groups, as nurseries raise them, for commands that print one line for each error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

_E = TypeVar("_E", bound=BaseException)


def leaves(group: BaseExceptionGroup[_E]) -> Iterator[_E]:
    """The exceptions in `group` and in the groups within it."""
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from leaves(exc)
        else:
            yield exc
