"""`asyncnet fetch URL…`: fetch files, several at once, with progress bars where somebody watches.

What a scheme needs is a fetcher, named in `FETCHERS` and imported when a URL asks for it.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import trio

from asyncnet.cli.groups import leaves
from asyncnet.cli.kinds import load
from asyncnet.cli.options import count, duration
from asyncnet.errors import AsyncnetError, ConfigurationError, LocalProtocolError
from asyncnet.printable import printable

FETCHERS = {
    "http": "asyncnet.cli.fetch_http:HTTPFetcher",
    "https": "asyncnet.cli.fetch_http:HTTPFetcher",
}
"""What fetches each scheme: a class that is made of `FetchOptions` and is a `Fetcher`."""

_EPILOG = """\
A file is saved in the current folder under the last part of its URL. Until it is whole it is .NAME.part, which
--continue goes on with: the server is asked for the rest, and only if the file is still the same. With --continue a
file that is there already, as long as the server's and no older, is left as it is: a list of URLs can be given again
and again.
The variables http_proxy, https_proxy, all_proxy and no_proxy are heeded.

Exit status: 0 if all were fetched, 1 if one was not, 2 for wrong options, 130 after Ctrl-C, 143 after SIGTERM.

examples:
  asyncnet fetch https://example.org/large.iso
  asyncnet fetch --continue https://example.org/large.iso
  asyncnet fetch --jobs 8 https://example.org/{1..20}.jpg
  asyncnet fetch -o - https://example.org/data.json | jq .
  asyncnet fetch --data @form.bin --header "Content-Type: application/x-thing" -o answer https://example.org/
"""


MAX_PROBLEM = 500
"""How much is printed of what went wrong, in characters: servers may have had a say in it."""

_GO_ON = "; --continue goes on where it stopped"


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """What the user asked for, for every URL."""

    headers: tuple[tuple[str, str], ...] = ()
    method: str = "GET"
    data: bytes = b""
    data_file: BinaryIO | None = None
    data_size: int = 0
    resume: bool = False
    force: bool = False
    server_names: bool = False
    proxy: str | None = None
    verify: bool = True
    ca: str | None = None
    timeout: float = 30.0
    redirects: int = 10
    jobs: int = 4


class Report(Protocol):
    """Who is told how a fetch gets on."""

    saved: Path | None
    """Where the file is at the end."""
    is_resumable: bool
    """Whether what has come is kept for `--continue`."""
    was_there: bool
    """Whether the file was there, and was left as it is."""

    def begin(self, done: int, total: int | None) -> None:
        """`done` bytes of `total` (None: nobody knows) are there."""

    def advance(self, size: int) -> None:
        """`size` bytes more."""


class Fetcher(Protocol):
    """What fetches the URLs of a scheme."""

    def file_name(self, url: str) -> str:
        """The name of a file in the current folder for `url`. Raises LocalProtocolError if it is no URL."""

    async def fetch(self, url: str, target: Path | None, report: Report) -> None:
        """Fetch `url` into `target`, which appears when it is whole; None: onto standard output."""

    async def aclose(self) -> None:
        """Close what is open."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Mount `fetch` under the command."""
    parser = commands.add_parser(
        "fetch",
        usage="asyncnet fetch URL [URL ...] [options]",
        description="Fetch files by HTTP.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("urls", metavar="URL", nargs="+", help="http://... or https://...")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to save the one URL; - is standard output")
    parser.add_argument(
        "-C", "--continue", dest="resume", action="store_true", help="go on with what an earlier run left"
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace files that exist")
    parser.add_argument(
        "-J",
        "--server-name",
        dest="server_names",
        action="store_true",
        help="save under the name that the server gives",
    )
    parser.add_argument("-j", "--jobs", metavar="N", type=count, default=4, help="how many at once (default: 4)")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    request = parser.add_argument_group("what is sent")
    request.add_argument(
        "-H", "--header", metavar="'NAME: VALUE'", type=_header, action="append", default=[], help="one more header"
    )
    request.add_argument("-X", "--method", metavar="NAME", help="the method (default: GET, or POST with --data)")
    request.add_argument("-d", "--data", metavar="TEXT", help="the body; @FILE sends a file")
    way = parser.add_argument_group("the way there")
    way.add_argument("--proxy", metavar="URL", help="http://... or socks5://[user:password@]host:port")
    way.add_argument("--timeout", metavar="TIME", type=duration, default=30.0, help="for each wait (default: 30 s)")
    way.add_argument("--max-redirects", metavar="N", type=_number, default=10, help="how many to follow (default: 10)")
    way.add_argument("--ca", metavar="FILE", help="who vouches for servers, instead of the system's authorities (PEM)")
    way.add_argument("--insecure", action="store_true", help="do not verify who the server is")
    parser.set_defaults(run=run)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name or re.search(r"[\0\r\n]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no header: write 'Name: value'")
    return name, value.strip()


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 9999")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Fetch everything. Returns the exit status; raises ConfigurationError and LocalProtocolError for what is wrong."""
    with ExitStack() as stack:
        options = _options(args, stack)
        jobs = _jobs(args, options)
        if args.insecure:
            _print("asyncnet fetch: --insecure: anybody may be at the other end")
        return trio.run(_fetch_all, jobs, options, args.quiet)


def _options(args: argparse.Namespace, stack: ExitStack) -> FetchOptions:
    headers: list[tuple[str, str]] = args.header
    data, data_file, size = b"", None, 0
    kind = None
    if args.data is not None and args.data.startswith("@"):
        try:
            data_file = stack.enter_context(open(args.data[1:], "rb"))  # noqa: SIM115
            size = os.fstat(data_file.fileno()).st_size
        except OSError as error:
            raise ConfigurationError(f"--data {args.data}: {error.strerror}") from None
        kind = "application/octet-stream"
    elif args.data is not None:
        data = args.data.encode()
        kind = "application/x-www-form-urlencoded"
    if kind is not None and not any(name.lower() == "content-type" for name, _ in headers):
        headers = [*headers, ("content-type", kind)]
    method = args.method or ("GET" if args.data is None else "POST")
    if args.resume and method != "GET":
        raise ConfigurationError("--continue is for GET alone")
    if args.output == "-" and sys.stdout is None:
        raise ConfigurationError("standard output is closed")  # its descriptor may be another file's by now
    if args.output == "-" and (args.resume or args.server_names):
        raise ConfigurationError("standard output can neither be continued nor renamed: leave out -o -")
    return FetchOptions(
        headers=tuple(headers),
        method=method,
        data=data,
        data_file=data_file,
        data_size=size,
        resume=args.resume,
        force=args.force,
        server_names=args.server_names and args.output is None,
        proxy=args.proxy,
        verify=not args.insecure,
        ca=args.ca,
        timeout=args.timeout,
        redirects=args.max_redirects,
        jobs=args.jobs,
    )


@dataclass(frozen=True, slots=True)
class _Job:
    url: str
    fetcher: Fetcher
    target: Path | None


def _jobs(args: argparse.Namespace, options: FetchOptions) -> list[_Job]:
    """What is to be fetched whereto: everything that can be wrong with it is found before anything begins."""
    if args.output is not None and len(args.urls) > 1:
        raise ConfigurationError("-o is for one URL; several are saved under their own names")
    fetchers: dict[str, Fetcher] = {}
    jobs: list[_Job] = []
    for url in args.urls:
        scheme, colon, _ = url.partition("://")
        place = FETCHERS.get(scheme.lower())
        if place is None:
            known = ", ".join(f"{name}://" for name in FETCHERS)
            hint = f"the schemes are {known}" if colon else f"the scheme is missing: https://{_shown(url)}"
            raise ConfigurationError(f"{_shown(url)}: {hint}")
        if place not in fetchers:
            fetchers[place] = load(place)(options)
        fetcher = fetchers[place]
        name = fetcher.file_name(url)
        jobs.append(_Job(url, fetcher, None if args.output == "-" else Path(args.output or name)))
    targets = [job.target for job in jobs if job.target is not None]
    twice = next((target for target in targets if targets.count(target) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"two of the URLs would be saved as {twice}: fetch them one by one, with -o")
    return jobs


async def _fetch_all(jobs: list[_Job], options: FetchOptions, quiet: bool) -> int:
    failures = 0
    queue = iter(jobs)

    async def work() -> None:
        nonlocal failures
        for job in queue:
            report = display.report(job)
            try:
                problem = await _fetch(job, report)
            except trio.Cancelled:
                if report.is_resumable:
                    display.say(f"asyncnet fetch: {_shown(job.url)}: interrupted{_GO_ON}")
                raise
            finally:
                report.end()
            if problem:
                failures += 1
                url = _shown(job.url)
                display.say(f"asyncnet fetch: {url}: {problem.removeprefix(f'{url}: ')}")
            elif report.was_there:
                if not quiet:
                    display.say(f"{report.saved}: there already, {report.size} bytes")
            elif report.saved is not None and not quiet:
                display.say(f"{report.saved}: {report.size} bytes")

    terminated = False

    async def heed_sigterm(scope: trio.CancelScope) -> None:
        nonlocal terminated
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            await anext(signals)
        terminated = True  # as after Ctrl-C, what has come is kept; a second one ends the process where it stands
        scope.cancel()

    with _display(quiet) as display:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(heed_sigterm, nursery.cancel_scope)
                async with trio.open_nursery() as working:
                    for _ in range(min(options.jobs, len(jobs))):
                        working.start_soon(work)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
                for fetcher in {id(job.fetcher): job.fetcher for job in jobs}.values():
                    await fetcher.aclose()
    if terminated:
        return 128 + signal.SIGTERM
    return 1 if failures else 0


async def _fetch(job: _Job, report: _Report) -> str:
    """Fetch one; returns what went wrong in one line, "" if nothing did."""
    try:
        await job.fetcher.fetch(job.url, job.target, report)
    except LocalProtocolError:
        raise  # an option is wrong, for all URLs alike
    except BrokenPipeError:
        return "" if job.target is None else "the connection broke"  # whoever reads our output has enough
    except (AsyncnetError, OSError, trio.BrokenResourceError) as error:
        problem = _explain(error)
    except BaseExceptionGroup as group:
        others, known = group.split((AsyncnetError, OSError, trio.BrokenResourceError))[::-1]
        if others is not None or known is None:
            raise
        problem = "; ".join(_explain(error) for error in leaves(known))
    else:
        return ""
    return f"{problem}{_GO_ON}" if report.is_resumable else problem


def _explain(error: BaseException) -> str:
    """One line about what went wrong, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate does not verify: {error.verify_message}; --ca FILE names who vouches for it"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "the server does not speak TLS there: is it http:// that you mean?"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    line = printable(" ".join(text.split()))
    return line if len(line) <= MAX_PROBLEM else f"{line[:MAX_PROBLEM]}..."


def _shown(url: str) -> str:
    """`url` without user and password."""
    return printable(re.sub(r"^([a-z][a-z0-9+.-]*://)?[^/?#]*@", r"\1", url, flags=re.IGNORECASE))


# What somebody at a terminal sees


class _Report:
    """Counts; shows nothing."""

    def __init__(self) -> None:
        self.saved: Path | None = None
        self.is_resumable = False
        self.was_there = False
        self.size = 0

    def begin(self, done: int, total: int | None) -> None:
        self.size = done

    def advance(self, size: int) -> None:
        self.size += size

    def end(self) -> None:
        """Nothing more comes."""


class _Bar(_Report):
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


class _Display:
    """Where reports and lines go, with bars or without."""

    def __init__(self, progress: Any = None) -> None:
        self._progress = progress

    def report(self, job: _Job) -> _Report:
        if self._progress is None:
            return _Report()
        return _Bar(self._progress, _shown(job.url) if job.target is None else printable(job.target.name))

    def say(self, line: str) -> None:
        if self._progress is None:
            _print(line)
        else:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print(line: str) -> None:
    """Onto standard error; where that is closed, nowhere: `print` would take standard output."""
    if sys.stderr is not None:
        print(line, file=sys.stderr)


@contextmanager
def _display(quiet: bool) -> Iterator[_Display]:
    """Bars where standard error is a terminal and rich is installed; else nothing but lines."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield _Display()
        return
    try:
        from rich import progress as bars
        from rich.console import Console
    except ImportError:
        _print('asyncnet fetch: pip install "asyncnet[http]" brings progress bars')
        yield _Display()
        return
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.DownloadColumn(binary_units=True),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Display(progress)
