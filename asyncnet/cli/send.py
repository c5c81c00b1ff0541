"""`asyncnet send FILE… URL`: send messages to a mail server, with a progress bar where somebody watches."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from functools import partial

from asyncnet.cli.jobs import Job, finish, move_all
from asyncnet.cli.kinds import load
from asyncnet.cli.options import add_way
from asyncnet.cli.progress import Display, print_line, shown
from asyncnet.errors import ConfigurationError
from asyncnet.printable import printable

_EPILOG = """\
FILE is a message: a header, an empty line, and a body; - is standard input. It goes to those in To, Cc and Bcc, and
comes from Sender or From, unless --to and --from say otherwise. Bcc is taken out, line ends become CR LF, and what
the server cannot take is encoded anew; all else is sent as it is. Who is refused is named, and the others get it.
With smtps:// TLS begins at once. With smtp:// it begins by STARTTLS: it is required where a password is to go to
another machine, and else used where the server has it, without verifying anybody. The password of the URL's user comes
from the URL, else from ~/.netrc; one that is missing is asked for.

Exit status: 0 if all were sent to everybody, 1 if something was not, 2 for wrong options, 130 after Ctrl-C, 143 after
SIGTERM.

examples:
  asyncnet send message.eml smtp://127.0.0.1:2525
  asyncnet send --from anna@example.org --to carl@example.net message.eml smtps://anna@mail.example.org
  asyncnet send --starttls required *.eml smtp://anna@mail.example.org:587
  asyncnet send - lmtp+unix:/run/dovecot/lmtp < message.eml
"""


@dataclass(frozen=True, slots=True)
class SendOptions:
    """What the user asked for, for every message."""

    sender: str | None = None
    recipients: tuple[str, ...] = ()
    starttls: str | None = None
    name: str | None = None
    insecure_auth: bool = False
    proxy: str | None = None
    verify: bool = True
    ca: str | None = None
    timeout: float | None = None


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Mount `send` under the command."""
    parser = commands.add_parser(
        "send",
        usage="asyncnet send FILE [FILE ...] URL [options]",
        description="Send messages to a mail server, by SMTP or LMTP.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="a message, or - for standard input")
    parser.add_argument("url", metavar="URL", help="smtp://, smtps://, lmtp://... or lmtp+unix:PATH")
    parser.add_argument("--from", dest="sender", metavar="ADDRESS", help="who sends it, instead of the header's sender")
    parser.add_argument(
        "--to",
        dest="recipients",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="who gets it, instead of those in the header; may be given several times",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--name", metavar="NAME", help="what this host calls itself (default: its address)")
    add_way(parser, timeout=None, default="for each wait (default: what RFC 5321 asks for, 2 to 10 minutes)")
    parser.add_argument(
        "--starttls",
        choices=("never", "opportunistic", "required"),
        help="whether TLS is begun with smtp:// (default: required where a password leaves this machine, or with --ca)",
    )
    parser.add_argument(
        "--insecure-auth", action="store_true", help="tell the password to whoever is there, even without TLS"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Send everything. Returns the exit status; raises ConfigurationError and LocalProtocolError for what is wrong."""
    _check(args)
    options = SendOptions(
        sender=args.sender,
        recipients=tuple(args.recipients),
        starttls=args.starttls,
        name=args.name,
        insecure_auth=args.insecure_auth,
        proxy=args.proxy,
        verify=not args.insecure,
        ca=args.ca,
        timeout=args.timeout,
    )
    sender = load("asyncnet.cli.send_smtp:MailSender")(args.url, options)
    if args.insecure:
        print_line("asyncnet send: --insecure: anybody may be at the other end")

    async def work(screen: Display) -> int:
        jobs = [
            Job(_name(file), _name(file), partial(sender.send, file, screen), plain="smtp://") for file in args.files
        ]
        return await move_all(jobs, 1, screen)

    return finish(work, sender.aclose, command="send", quiet=args.quiet)


def _name(file: str) -> str:
    return "standard input" if file == "-" else printable(file)


def _check(args: argparse.Namespace) -> None:
    """Find out what is wrong with URL and files before anything begins."""
    if not args.url.lower().startswith(("smtp://", "smtps://", "lmtp://", "lmtp+unix:")):
        raise ConfigurationError(
            f"{shown(args.url)}: messages are sent to smtp://, smtps://, lmtp:// or lmtp+unix:, the last argument"
        )
    for file in args.files:
        if file == "-":
            if args.files.count("-") > 1:
                raise ConfigurationError("standard input can be sent but once")
            if sys.stdin is None:
                raise ConfigurationError("standard input is closed")  # its descriptor may be another file's by now
        elif not os.path.exists(file):
            raise ConfigurationError(f"{printable(file)}: there is no such file")
        elif os.path.isdir(file):
            raise ConfigurationError(f"{printable(file)} is a folder, and no message")
