"""What somebody sees of files on their way: bars where standard error is a terminal, and lines.

Shared by the commands that move files, `fetch` and `put`.
"""

from __future__ import annotations

import re
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from asyncnet.printable import printable

MAX_PROBLEM = 500
"""How much is printed of what went wrong, in characters: servers may have had a say in it."""


class Report(Protocol):
    """Who is told how a file gets on."""

    saved: Path | str | None
    """Where the file is at the end, for the user."""
    is_resumable: bool
    """Whether what has come is kept for `--continue`."""
    was_there: bool
    """Whether the file was there, and was left as it is."""

    def begin(self, done: int, total: int | None) -> None:
        """`done` bytes of `total` (None: nobody knows) are there."""

    def advance(self, size: int) -> None:
        """`size` bytes more."""


class Tally:
    """A report that counts, and shows nothing."""

    def __init__(self) -> None:
        self.saved: Path | str | None = None
        self.is_resumable = False
        self.was_there = False
        self.size = 0

    def begin(self, done: int, total: int | None) -> None:
        self.size = done

    def advance(self, size: int) -> None:
        self.size += size

    def end(self) -> None:
        """Nothing more comes."""


class Bar(Tally):
    """A progress bar of rich's."""

    def __init__(self, progress: Any, name: str) -> None:
        super().__init__()
        self._progress = progress
        self._task = progress.add_task(name, total=None)

    def begin(self, done: int, total: int | None) -> None:
        super().begin(done, total)
        self._progress.update(self._task, completed=done, total=total)

    def advance(self, size: int) -> None:
        super().advance(size)
        self._progress.advance(self._task, size)

    def end(self) -> None:
        self._progress.remove_task(self._task)  # of many files, those that are on their way are what fits a screen


class Display:
    """Where a command's reports and lines go, with bars or without."""

    def __init__(self, command: str, *, quiet: bool, progress: Any = None) -> None:
        self._command = command
        self._quiet = quiet
        self._progress = progress

    def report(self, name: str) -> Tally:
        """A report of the file `name`."""
        return Tally() if self._progress is None else Bar(self._progress, printable(name))

    def say(self, line: str) -> None:
        """Print a line, unless the user wants none."""
        if not self._quiet:
            self._print(line)

    def complain(self, what: str, problem: str) -> None:
        """Print a line about what went wrong with `what`, in any case."""
        self._print(f"asyncnet {self._command}: {what}: {problem.removeprefix(f'{what}: ')}")

    def _print(self, line: str) -> None:
        if self._progress is None:
            print_line(line)
        else:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def display(command: str, *, quiet: bool) -> Iterator[Display]:
    """Bars where standard error is a terminal and rich is installed; else nothing but lines."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield Display(command, quiet=quiet)
        return
    try:
        from rich import progress as bars
        from rich.console import Console
    except ImportError:
        print_line(f"asyncnet {command}: pip install rich brings progress bars")
        yield Display(command, quiet=quiet)
        return
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.DownloadColumn(binary_units=True),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as progress:
        yield Display(command, quiet=quiet, progress=progress)


def print_line(line: str) -> None:
    """Onto standard error; where that is closed, nowhere: `print` would take standard output."""
    if sys.stderr is not None:
        print(line, file=sys.stderr)


def explain(error: BaseException, *, plain: str = "http://") -> str:
    """One line about what went wrong, and what to do. `plain`: how URLs without TLS begin."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate does not verify: {error.verify_message}; --ca FILE names who vouches for it"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return f"the server does not speak TLS there: is it {plain} that you mean?"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{printable(str(error.filename))}: {error.strerror}"
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    line = printable(" ".join(text.split()))
    return line if len(line) <= MAX_PROBLEM else f"{line[:MAX_PROBLEM]}..."


def shown(url: str) -> str:
    """`url` without user and password."""
    return printable(re.sub(r"^([a-z][a-z0-9+.-]*://)?[^/?#]*@", r"\1", url, flags=re.IGNORECASE))
