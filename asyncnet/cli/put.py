"""`asyncnet put FILE… URL`: put files on an FTP server, several at once, with progress bars where somebody watches."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from functools import partial

from asyncnet.cli.jobs import Job, finish, move_all
from asyncnet.cli.kinds import load
from asyncnet.cli.options import add_way, count
from asyncnet.cli.progress import Display, print_line, shown
from asyncnet.errors import ConfigurationError
from asyncnet.printable import printable

_EPILOG = """\
A URL that ends with a slash is a folder, which FILE is put into under its own name; any other is the name that the one
FILE gets there. What has the name already is replaced, by most servers as soon as the upload begins, by asyncnet's when
it is whole. FILE may be -, standard input, for which the URL names a file.
--continue asks how much of each file the server has, and sends the rest; a file that it has whole is left as it is.
What is older than FILE is no part of it, and is sent anew. Nobody but --verify can know whether what was there
before is the same otherwise.
With --mirror FILE is a folder, and the folder there becomes like it: what differs in size or time is sent.
With ftps:// TLS begins at once, with ftpes:// when AUTH TLS was answered. User and password come from the URL, else
from ~/.netrc; a password that is missing is asked for.

Exit status: 0 if all were put, 1 if one was not, 2 for wrong options, 130 after Ctrl-C, 143 after SIGTERM.

examples:
  asyncnet put report.pdf ftpes://anna@example.org/reports/
  asyncnet put --continue --jobs 2 one.iso two.iso ftp://example.org/incoming/
  tar c src | asyncnet put - ftpes://anna@example.org/backup/src.tar
  asyncnet put --mkdir --mirror public ftpes://anna@example.org/www/shop
"""


@dataclass(frozen=True, slots=True)
class PutOptions:
    """What the user asked for, for every file."""

    resume: bool = False
    make_folders: bool = False
    verify_hash: bool = False
    delete: bool = False
    jobs: int = 4
    active: bool = False
    proxy: str | None = None
    verify: bool = True
    ca: str | None = None
    timeout: float = 30.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Mount `put` under the command."""
    parser = commands.add_parser(
        "put",
        usage="asyncnet put FILE [FILE ...] URL [options]",
        description="Put files on a server, by FTP.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="a file, or - for standard input")
    parser.add_argument("url", metavar="URL", help="ftp://, ftps:// or ftpes://...; with a slash at the end a folder")
    parser.add_argument(
        "-C", "--continue", dest="resume", action="store_true", help="go on with what an earlier run left"
    )
    parser.add_argument("-j", "--jobs", metavar="N", type=count, default=4, help="how many at once (default: 4)")
    parser.add_argument("-p", "--mkdir", action="store_true", help="make the folders of the URL that are missing")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--mirror", action="store_true", help="put whole folders, and of them what differs")
    parser.add_argument("--delete", action="store_true", help="with --mirror, remove there what is not here")
    parser.add_argument("--verify", dest="verify_hash", action="store_true", help="compare hashes at the end")
    parser.add_argument("--active", action="store_true", help="have the server connect to us for data")
    add_way(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Put everything. Returns the exit status; raises ConfigurationError and LocalProtocolError for what is wrong."""
    _check(args)
    options = PutOptions(
        resume=args.resume,
        make_folders=args.mkdir,
        verify_hash=args.verify_hash,
        delete=args.delete,
        jobs=args.jobs,
        active=args.active,
        proxy=args.proxy,
        verify=not args.insecure,
        ca=args.ca,
        timeout=args.timeout,
    )
    putter = load("asyncnet.cli.put_ftp:FTPPutter")(options)
    targets = [putter.target(args.url, file, is_tree=args.mirror) for file in args.files]
    twice = next((target for target in targets if targets.count(target) > 1), None)
    if twice is not None:
        hint = "a folder's URL ends with a slash" if len(set(targets)) == 1 else "put them one by one"
        raise ConfigurationError(f"two of the files would be put as {shown(str(twice))}: {hint}")
    putter.prepare(args.url)
    if args.insecure:
        print_line("asyncnet put: --insecure: anybody may be at the other end")

    async def work(screen: Display) -> int:
        if args.mirror:
            failures: int = await putter.mirror(list(zip(args.files, targets, strict=True)), screen)
            return failures
        jobs = [
            Job(
                printable(file),
                "standard input" if file == "-" else os.path.basename(file),
                partial(putter.put, file, target),
                plain="ftp:// or ftpes://",
            )
            for file, target in zip(args.files, targets, strict=True)
        ]
        return await move_all(jobs, options.jobs, screen)

    return finish(work, putter.aclose, command="put", quiet=args.quiet)


def _check(args: argparse.Namespace) -> None:
    """Find out what is wrong with options and files before anything begins."""
    if args.url.partition("://")[0].lower() not in ("ftp", "ftps", "ftpes"):
        raise ConfigurationError(f"{shown(args.url)}: files are put to ftp://, ftps:// or ftpes://, the last argument")
    if args.delete and not args.mirror:
        raise ConfigurationError("--delete goes with --mirror")
    for name, option in (("resume", "--continue"), ("verify_hash", "--verify")):
        if args.mirror and getattr(args, name):
            raise ConfigurationError(f"{option} does nothing with --mirror, which puts what differs: leave it out")
    for file in args.files:
        if file == "-":
            _check_stdin(args)
        elif not os.path.exists(file):
            raise ConfigurationError(f"{printable(file)}: there is no such file")
        elif args.mirror and not os.path.isdir(file):
            raise ConfigurationError(f"{printable(file)} is no folder: leave out --mirror")
        elif os.path.isdir(file) and not args.mirror:
            raise ConfigurationError(f"{printable(file)} is a folder: --mirror puts all that is in it")


def _check_stdin(args: argparse.Namespace) -> None:
    if args.mirror or args.resume or args.verify_hash:
        raise ConfigurationError("standard input can be put but once, and as one file: leave out the other options")
    if args.files != ["-"]:
        raise ConfigurationError("standard input is put by itself")
    if sys.stdin is None:
        raise ConfigurationError("standard input is closed")  # its descriptor may be another file's by now
