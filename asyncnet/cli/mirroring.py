"""Whole trees on their way, as `fetch --mirror` and `put --mirror` show them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import trio

from asyncnet.cli.progress import Display, Tally, explain
from asyncnet.errors import AsyncnetError, LocalProtocolError
from asyncnet.ftp.mirror import Outcome, Report, Step
from asyncnet.printable import printable

OnStep: TypeAlias = Callable[[Step], object]
OnMoved: TypeAlias = Callable[[str, int, int | None], object]


class Mirror(Protocol):
    """`mirror_down` or `mirror_up`, but for whom they tell."""

    def __call__(self, *, progress: OnStep, moved: OnMoved) -> Awaitable[Report]: ...


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder that is to become like another one."""

    what: str
    """What a line about its failure begins with: its URL."""
    target: str
    """Where it goes, for the user."""
    run: Mirror
    hint: str = ""
    """What stands behind the reason for which the whole failed."""


class _View:
    """A line for each file that something was done with, and bars for those on their way."""

    def __init__(self, tree: Tree, screen: Display) -> None:
        self._tree = tree
        self._screen = screen
        self._moving: dict[str, Tally] = {}

    def moved(self, path: str, done: int, total: int | None) -> None:
        report = self._moving.get(path)
        if report is None:
            report = self._moving[path] = self._screen.report(path)
            report.begin(done, total)
        else:
            report.advance(done - report.size)

    def progress(self, step: Step) -> None:
        report = self._moving.pop(step.path, None)
        if report is not None:
            report.end()
        path = printable(f"{self._tree.target}/{step.path}".rstrip("/"))
        match step.outcome:
            case Outcome.TRANSFERRED:
                self._screen.say(f"{path}: {step.size} bytes")
            case Outcome.MADE:
                self._screen.say(f"{path}/: made")
            case Outcome.DELETED:
                self._screen.say(f"{path}: deleted")
            case Outcome.SKIPPED:
                self._screen.say(f"{path}: left out: neither a file nor a folder")
            case Outcome.FAILED:
                assert step.error is not None, "a failure has a reason"
                self._screen.complain(path, explain(step.error) + ("" if step.path else self._tree.hint))
            case Outcome.SAME:
                pass

    def end(self) -> None:
        for report in self._moving.values():
            report.end()


async def mirror_all(trees: Sequence[Tree], screen: Display) -> int:
    """Mirror one tree after another, each over several connections. Returns how many failures there were."""
    failures = 0
    for tree in trees:
        view = _View(tree, screen)
        try:
            report = await tree.run(progress=view.progress, moved=view.moved)
        except LocalProtocolError:
            raise  # an option is wrong
        except (AsyncnetError, OSError, trio.BrokenResourceError) as error:
            failures += 1
            screen.complain(tree.what, explain(error, plain="ftp:// or ftpes://"))
        except Exception:
            raise
        except BaseException:  # cancelled, or Ctrl-C, or a group that has it
            screen.complain(tree.what, "interrupted; the same command once more fetches or puts what is missing")
            raise
        else:
            failures += len(report.failures)
            screen.say(_summary(tree, report))
        finally:
            view.end()
    return failures


def _summary(tree: Tree, report: Report) -> str:
    numbers = {
        "moved": report.transferred,
        "the same": report.same,
        "deleted": report.deleted,
        "left out": report.skipped,
        "failed": len(report.failures),
    }
    told = ", ".join(f"{number} {what}" for what, number in numbers.items() if number or what == "moved")
    return f"{printable(tree.target)}: {told}, {report.bytes} bytes"
