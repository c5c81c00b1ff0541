"""Files that are moved several at once, until all are done or somebody interrupts: what `fetch` and `put` share.

Exit status: 0 if all went well, 1 if one did not, 128 and the signal's number after Ctrl-C (raised) and SIGTERM.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import trio

from asyncnet.cli.groups import leaves
from asyncnet.cli.progress import Display, Report, display, explain
from asyncnet.errors import AsyncnetError, LocalProtocolError

GO_ON = "; --continue goes on where it stopped"

CLOSING_TIME = 2.0
"""How long, in seconds, connections are given to say goodbye."""

Work: TypeAlias = Callable[[Display], Awaitable[int]]
"""What a command does, returning how much of it failed."""


@dataclass(frozen=True, slots=True)
class Job:
    """A file that is to be moved."""

    what: str
    """What a line about its failure begins with: a URL, say."""
    name: str
    """What stands beside its bar."""
    move: Callable[[Report], Awaitable[None]]
    onto_stdout: bool = False
    """Whether it goes to standard output, whose reader may have had enough."""
    plain: str = "http://"
    """How a URL without TLS begins."""


def finish(work: Work, close: Callable[[], Awaitable[None]], *, command: str, quiet: bool) -> int:
    """Do `work` in a run of its own, and `close` at its end, however it ends. Returns the exit status."""
    return trio.run(_finish, work, close, command, quiet)


async def _finish(work: Work, close: Callable[[], Awaitable[None]], command: str, quiet: bool) -> int:
    terminated = False
    failures = 0

    async def heed_sigterm(scope: trio.CancelScope) -> None:
        nonlocal terminated
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            await anext(signals)
        terminated = True  # as after Ctrl-C, what has come is kept; a second one ends the process where it stands
        scope.cancel()

    with display(command, quiet=quiet) as screen:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(heed_sigterm, nursery.cancel_scope)
                failures = await work(screen)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSING_TIME):
                await close()
    if terminated:
        return 128 + signal.SIGTERM
    return 1 if failures else 0


async def move_all(jobs: Sequence[Job], at_once: int, screen: Display) -> int:
    """Move all files, and print a line about each. Returns how many failed."""
    failures = 0
    queue = iter(jobs)

    async def work() -> None:
        nonlocal failures
        for job in queue:
            is_moved = await _move_one(job, screen)
            failures += not is_moved

    async with trio.open_nursery() as nursery:
        for _ in range(min(at_once, len(jobs))):
            nursery.start_soon(work)
    return failures


async def _move_one(job: Job, screen: Display) -> bool:
    """Whether it went well."""
    report = screen.report(job.name)
    try:
        problem = await _problem(job, report)
    except (trio.Cancelled, KeyboardInterrupt):
        if report.is_resumable:
            screen.complain(job.what, f"interrupted{GO_ON}")
        raise
    finally:
        report.end()
    if problem:
        screen.complain(job.what, problem)
    elif report.saved is not None:
        screen.say(f"{report.saved}: {'there already, ' if report.was_there else ''}{report.size} bytes")
    return not problem


async def _problem(job: Job, report: Report) -> str:
    """Move one; returns what went wrong in one line, "" if nothing did."""
    try:
        await job.move(report)
    except LocalProtocolError:
        raise  # an option is wrong, for all files alike
    except BrokenPipeError:
        return "" if job.onto_stdout else "the connection broke"  # whoever reads our output has enough
    except (AsyncnetError, OSError, trio.BrokenResourceError) as error:
        problem = explain(error, plain=job.plain)
    except BaseExceptionGroup as group:
        others, known = group.split((AsyncnetError, OSError, trio.BrokenResourceError))[::-1]
        if others is not None or known is None:
            raise
        problem = "; ".join(explain(error, plain=job.plain) for error in leaves(known))
    else:
        return ""
    return f"{problem}{GO_ON}" if report.is_resumable else problem
