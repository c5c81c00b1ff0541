"""`asyncnet fetch URL…`: fetch files, several at once, with progress bars where somebody watches.

What a scheme needs is a fetcher, named in `FETCHERS` and imported when a URL asks for it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from asyncnet.cli.jobs import Job, finish, move_all
from asyncnet.cli.kinds import load
from asyncnet.cli.options import add_way, count
from asyncnet.cli.progress import Display, Report, print_line, shown
from asyncnet.errors import ConfigurationError

_HTTP = "asyncnet.cli.fetch_http:HTTPFetcher"
_FTP = "asyncnet.cli.fetch_ftp:FTPFetcher"

FETCHERS = {"http": _HTTP, "https": _HTTP, "ftp": _FTP, "ftps": _FTP, "ftpes": _FTP}
"""What fetches each scheme: a class that is made of `FetchOptions` and is a `Fetcher`."""

_OPTIONS_OF = {
    _HTTP: {
        "headers": "--header",
        "method": "--method",
        "data": "--data",
        "server_names": "--server-name",
        "redirects": "--max-redirects",
    },
    _FTP: {"mirror": "--mirror", "delete": "--delete", "verify_hash": "--verify", "active": "--active"},
}
"""Options that mean nothing for URLs of another kind: whoever gives them believes that they do something."""

_EPILOG = """\
A file is saved in the current folder under the last part of its URL. Until it is whole it is .NAME.part, which
--continue goes on with: the server is asked for the rest, and only if the file is still the same. With --continue a
file that is there already, as long as the server's and no older, is left as it is: a list of URLs can be given again
and again.
The variables http_proxy, https_proxy, all_proxy and no_proxy are heeded, by HTTP.
With ftps:// TLS begins at once, with ftpes:// when FTP's AUTH TLS was answered. User and password of FTP come from the
URL, else from ~/.netrc; a password that is missing is asked for.

Exit status: 0 if all were fetched, 1 if one was not, 2 for wrong options, 130 after Ctrl-C, 143 after SIGTERM.

examples:
  asyncnet fetch https://example.org/large.iso
  asyncnet fetch --continue https://example.org/large.iso
  asyncnet fetch --jobs 8 https://example.org/{1..20}.jpg
  asyncnet fetch -o - https://example.org/data.json | jq .
  asyncnet fetch --data @form.bin --header "Content-Type: application/x-thing" -o answer https://example.org/
  asyncnet fetch ftp://example.org/pub/large.iso ftpes://anna@example.org/letter.txt
  asyncnet fetch --mirror -o copy ftp://example.org/pub/
"""


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
    delete: bool = False
    verify_hash: bool = False
    active: bool = False


class Fetcher(Protocol):
    """What fetches the URLs of a scheme."""

    def file_name(self, url: str) -> str:
        """The name of a file in the current folder for `url`. Raises LocalProtocolError if it is no URL."""

    def prepare(self, url: str) -> None:
        """Ask the user for what is needed besides. Raises ConfigurationError if they cannot be asked."""

    async def fetch(self, url: str, target: Path | None, report: Report) -> None:
        """Fetch `url` into `target`, which appears when it is whole; None: onto standard output."""

    async def aclose(self) -> None:
        """Close what is open."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Mount `fetch` under the command."""
    parser = commands.add_parser(
        "fetch",
        usage="asyncnet fetch URL [URL ...] [options]",
        description="Fetch files by HTTP and FTP.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("urls", metavar="URL", nargs="+", help="http://, https://, ftp://, ftps:// or ftpes://...")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to save the one URL; - is standard output")
    parser.add_argument(
        "-C", "--continue", dest="resume", action="store_true", help="go on with what an earlier run left"
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace files that exist")
    parser.add_argument("-j", "--jobs", metavar="N", type=count, default=4, help="how many at once (default: 4)")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    _add_http_options(parser)
    _add_ftp_options(parser)
    add_way(parser)
    parser.set_defaults(run=run)


def _add_http_options(parser: argparse.ArgumentParser) -> None:
    http = parser.add_argument_group("HTTP")
    http.add_argument(
        "-J",
        "--server-name",
        dest="server_names",
        action="store_true",
        help="save under the name that the server gives",
    )
    http.add_argument(
        "-H", "--header", dest="headers", metavar="'NAME: VALUE'", type=_header, action="append", help="one more header"
    )
    http.add_argument("-X", "--method", metavar="NAME", help="the method (default: GET, or POST with --data)")
    http.add_argument("-d", "--data", metavar="TEXT", help="the body; @FILE sends a file")
    http.add_argument(
        "--max-redirects", dest="redirects", metavar="N", type=_number, help="how many to follow (default: 10)"
    )


def _add_ftp_options(parser: argparse.ArgumentParser) -> None:
    ftp = parser.add_argument_group("FTP")
    ftp.add_argument(
        "--mirror",
        action="store_true",
        help="fetch whole folders, and of them what differs in size or time; -o names the folder here",
    )
    ftp.add_argument("--delete", action="store_true", help="with --mirror, remove here what is not there")
    ftp.add_argument("--verify", dest="verify_hash", action="store_true", help="compare hashes at the end")
    ftp.add_argument("--active", action="store_true", help="have the server connect to us for data")


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
        fetchers = _fetchers(args, options)
        if args.mirror:
            return _mirror(args, options)
        jobs = _jobs(args, fetchers)
        if args.insecure:
            print_line("asyncnet fetch: --insecure: anybody may be at the other end")

        async def work(screen: Display) -> int:
            return await move_all(jobs, options.jobs, screen)

        async def close() -> None:
            for fetcher in fetchers.values():
                await fetcher.aclose()

        return finish(work, close, command="fetch", quiet=args.quiet)


def _mirror(args: argparse.Namespace, options: FetchOptions) -> int:
    if args.output == "-":
        raise ConfigurationError("--mirror makes a folder, which is nothing for standard output: leave out -o -")
    for name, option in (("resume", "--continue"), ("force", "--force"), ("verify_hash", "--verify")):
        if getattr(args, name):
            raise ConfigurationError(f"{option} does nothing with --mirror, which fetches what differs: leave it out")
    if args.output is not None and len(args.urls) > 1:
        raise ConfigurationError("-o is for one URL; several are saved under their own names")
    status: int = load("asyncnet.cli.fetch_ftp:mirror")(args.urls, args.output, options, quiet=args.quiet)
    return status


def _options(args: argparse.Namespace, stack: ExitStack) -> FetchOptions:
    headers: list[tuple[str, str]] = args.headers or []
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
    if args.delete and not args.mirror:
        raise ConfigurationError("--delete goes with --mirror")
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
        redirects=10 if args.redirects is None else args.redirects,
        jobs=args.jobs,
        delete=args.delete,
        verify_hash=args.verify_hash,
        active=args.active,
    )


def _fetchers(args: argparse.Namespace, options: FetchOptions) -> dict[str, Fetcher]:
    """What fetches the URLs, by its place. What is wrong with a URL's scheme is found here."""
    fetchers: dict[str, Fetcher] = {}
    for url in args.urls:
        place = _place(url)
        for other, names in _OPTIONS_OF.items():
            given = next((option for name, option in names.items() if getattr(args, name) not in (None, False)), None)
            if given is not None and other != place:
                kind = "HTTP" if other == _HTTP else "FTP"
                raise ConfigurationError(f"{given} is for {kind} alone, which {shown(url)} is not")
        if place not in fetchers:
            fetchers[place] = load(place)(options)
    return fetchers


def _place(url: str) -> str:
    scheme, colon, _ = url.partition("://")
    place = FETCHERS.get(scheme.lower())
    if place is None:
        known = ", ".join(f"{name}://" for name in FETCHERS)
        hint = f"the schemes are {known}" if colon else f"the scheme is missing: https://{shown(url)}"
        raise ConfigurationError(f"{shown(url)}: {hint}")
    return place


def _jobs(args: argparse.Namespace, fetchers: dict[str, Fetcher]) -> list[Job]:
    """What is to be fetched whereto: everything that can be wrong with it is found before anything begins."""
    if args.output is not None and len(args.urls) > 1:
        raise ConfigurationError("-o is for one URL; several are saved under their own names")
    jobs: list[Job] = []
    targets: list[Path] = []
    for url in args.urls:
        place = _place(url)
        fetcher = fetchers[place]
        target = None if args.output == "-" else Path(args.output or fetcher.file_name(url))
        if target in targets:
            raise ConfigurationError(f"two of the URLs would be saved as {target}: fetch them one by one, with -o")
        if target is not None:
            targets.append(target)
        jobs.append(
            Job(
                shown(url),
                shown(url) if target is None else target.name,
                partial(fetcher.fetch, url, target),
                onto_stdout=target is None,
                plain="http://" if place == _HTTP else "ftp:// or ftpes://",
            )
        )
    for url in args.urls:
        fetchers[_place(url)].prepare(url)
    return jobs
