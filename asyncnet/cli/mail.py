"""`asyncnet mail list URL`, `asyncnet mail read URL NUMBER`: a mailbox in a terminal."""

from __future__ import annotations

import argparse
import sys

from asyncnet.cli.kinds import load
from asyncnet.cli.options import add_way, count
from asyncnet.cli.progress import print_line, shown
from asyncnet.errors import ConfigurationError

_EPILOG = """\
`list` prints a line for each message: its number, bytes, date (UTC), who sent it, what it is about. `read` prints a
message: what matters of its header, and its text; with --raw all of it, as it is. Characters that are not printable
are escaped. Nothing is deleted or marked.
With pop3s:// TLS begins at once, with pop3:// where the server offers it. The password of the URL's user comes from
the URL, else from ~/.netrc; one that is missing is asked for.

Exit status: 0 if all went well, 1 if not, 2 for wrong options, 130 after Ctrl-C, 143 after SIGTERM.

examples:
  asyncnet mail list pop3s://anna@mail.example.org
  asyncnet mail read pop3s://anna@mail.example.org 3 | less
  asyncnet mail read --raw pop3s://anna@mail.example.org 3 > message.eml
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Mount `mail` under the command."""
    parser = commands.add_parser(
        "mail",
        description="List and read the mail of a mailbox, by POP3.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(metavar="list | read", dest="action", required=True)
    list_parser = _add_action(actions, "list", "a line for each message")
    list_parser.add_argument("--json", action="store_true", help="a JSON object a line")
    read_parser = _add_action(actions, "read", "show a message")
    read_parser.add_argument("number", metavar="NUMBER", type=count, help="which one, as `list` counts")
    read_parser.add_argument("--raw", action="store_true", help="the message as it is, for a file or a program")
    for one in (list_parser, read_parser):
        one.add_argument(
            "--starttls",
            choices=("never", "required"),
            help="whether TLS is begun with pop3:// (default: where the server offers it)",
        )
        one.add_argument(
            "--insecure-auth", action="store_true", help="tell the password to whoever is there, even without TLS"
        )
        add_way(one)


def _add_action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, help: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(
        name,
        help=help,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("url", metavar="URL", help="pop3:// or pop3s://USER@HOST")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """List or read. Returns the exit status; raises ConfigurationError and LocalProtocolError for what is wrong."""
    if args.url.partition("://")[0].lower() not in ("pop3", "pop3s", "pop", "pops"):
        raise ConfigurationError(f"{shown(args.url)}: a mailbox is at pop3:// or pop3s://")
    if sys.stdout is None:
        raise ConfigurationError("standard output is closed")
    if args.action == "read" and args.raw and sys.stdout.isatty():
        raise ConfigurationError("--raw is for a file or a program: a message may hold what drives a terminal")
    if args.insecure:
        print_line("asyncnet mail: --insecure: anybody may be at the other end")
    status: int = load("asyncnet.cli.mail_pop3:run")(args)
    return status
