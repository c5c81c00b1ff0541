"""`asyncnet ls URL`: list a folder of an FTP server, or tell of a file, as long as the list may be."""

from __future__ import annotations

import argparse
import sys

from asyncnet.cli.kinds import load
from asyncnet.cli.options import add_way
from asyncnet.cli.progress import print_line, shown
from asyncnet.errors import ConfigurationError

_EPILOG = """\
A line for each file: kind and permissions, bytes, when it was changed, name; - for what the server does not tell. Times
are UTC, folders have a slash behind their name, and characters that are not printable are escaped. The order is the
server's: lines are printed as they come.
With ftps:// TLS begins at once, with ftpes:// when AUTH TLS was answered. User and password come from the URL, else
from ~/.netrc; a password that is missing is asked for.

Exit status: 0 if all went well, 1 if not, 2 for wrong options, 130 after Ctrl-C, 143 after SIGTERM.

examples:
  asyncnet ls ftp://example.org/pub/
  asyncnet ls --names ftpes://anna@example.org/ | sort
  asyncnet ls --json ftp://example.org/pub/ | jq -r 'select(.size > 1000000).name'
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Mount `ls` under the command."""
    parser = commands.add_parser(
        "ls",
        usage="asyncnet ls URL [options]",
        description="List a folder of an FTP server.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("url", metavar="URL", help="ftp://, ftps:// or ftpes://...")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--names", action="store_true", help="names alone, one a line")
    form.add_argument("--json", action="store_true", help="a JSON object a line, names as they are")
    parser.add_argument("--active", action="store_true", help="have the server connect to us for data")
    add_way(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List. Returns the exit status; raises ConfigurationError and LocalProtocolError for what is wrong."""
    if args.url.partition("://")[0].lower() not in ("ftp", "ftps", "ftpes"):
        raise ConfigurationError(f"{shown(args.url)}: what can be listed is ftp://, ftps:// or ftpes://")
    if sys.stdout is None:
        raise ConfigurationError("standard output is closed")
    if args.insecure:
        print_line("asyncnet ls: --insecure: anybody may be at the other end")
    status: int = load("asyncnet.cli.ls_ftp:run")(args)
    return status
