"""The options of `asyncnet serve ftp`, and the handler that they ask for.

Whatever serves FTP is imported when a handler is made: `--help` needs none of it.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from asyncnet.cli.begun_tls import begun_tls
from asyncnet.cli.log import log_to_file
from asyncnet.endpoints import parse
from asyncnet.errors import ConfigurationError

if TYPE_CHECKING:
    from asyncnet.ftp.server import FTPHandler

EPILOG = """\
Where --cert names a certificate, clients begin TLS on tcp:// endpoints when they ask for it (AUTH TLS), and on tls://
ones at once.

examples:
  asyncnet serve ftp tcp://127.0.0.1:2121 --root public --anonymous
  asyncnet serve ftp tcp://127.0.0.1:2121 --root incoming --anonymous --write
  asyncnet passwd users.toml anna && asyncnet serve ftp tcp://127.0.0.1:2121 --users users.toml --root /srv/ftp
  asyncnet serve ftp 'tcp://*:21' 'tls://*:990' --cert chain.pem --key key.pem --users users.toml --require-tls
  asyncnet serve ftp 'tcp://*:21' --root pub --anonymous --passive-ports 50000-50100 --masquerade 192.0.2.1
"""

TRANSFER_LOGGER = "asyncnet.ftp.transfers"

_NEEDS = {
    "write": "--anonymous",
    "insecure_auth": "--users",
}
"""Which option means nothing without which: whoever gives it believes that it does something."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the kind `ftp`."""
    files = parser.add_argument_group("what to serve, and to whom; at least one of --anonymous and --users")
    files.add_argument("--root", metavar="DIR", help="the folder of everybody whose entry in --users names no other")
    files.add_argument("--anonymous", action="store_true", help="let everybody read")
    files.add_argument("--write", action="store_true", help="let everybody upload, rename and delete, too")
    files.add_argument("--users", metavar="FILE", help="let in whoever has a password in this file (asyncnet passwd)")
    files.add_argument(
        "--insecure-auth", action="store_true", help="take passwords without TLS, too: anybody on the way can read them"
    )
    files.add_argument("--fsync", action="store_true", help="an upload is on the disk before it is confirmed")
    files.add_argument("--greeting", metavar="TEXT", help="what clients read first")

    tls = parser.add_argument_group("what TLS is demanded for, with --cert")
    tls.add_argument(
        "--require-tls",
        metavar="FOR",
        nargs="?",
        const="all",
        choices=["login", "all"],
        help="login, or all: data as well (default, if the option is given: all)",
    )
    tls.add_argument(
        "--require-session",
        action="store_true",
        help="data connections must resume their control connection's TLS session, so that nobody else can take them",
    )

    data = parser.add_argument_group("data connections")
    data.add_argument(
        "--passive-ports",
        metavar="FIRST-LAST",
        type=_ports,
        default=(),
        help="where clients connect to, such as 50000-50100, which a firewall has to let in (default: any free port)",
    )
    data.add_argument("--masquerade", metavar="ADDRESS", help="the IPv4 address that clients know, behind a NAT")
    data.add_argument("--no-active", action="store_true", help="make no connections to clients")

    log = parser.add_argument_group("the transfer log, a line for each file (xferlog)")
    log.add_argument(
        "--transfer-log",
        metavar="FILE",
        help="where it is written; off for none (default: to standard error, beside the log)",
    )


def _ports(text: str) -> range:
    found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1024 <= first <= last <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of ports from 1024 to 65535: write 50000-50100")
    return range(first, last + 1)


def make_handler(args: argparse.Namespace) -> FTPHandler:
    """The handler for these options. Raises ConfigurationError."""
    _check(args)
    from asyncnet.ftp.server import FTPHandler

    users = None
    if args.users is not None:
        from asyncnet.auth import UserFile

        users = UserFile(args.users)
    greeting = {} if args.greeting is None else {"greeting": args.greeting}
    handler = FTPHandler(
        args.root,
        users=users,
        anonymous=args.anonymous,
        anonymous_writes=args.write,
        tls=begun_tls(args, "ftp"),
        tls_for_login=args.require_tls is not None,
        tls_for_data=args.require_tls == "all",
        session_required=args.require_session,
        insecure_auth=args.insecure_auth,
        passive_ports=args.passive_ports,
        masquerade=args.masquerade,
        active=not args.no_active,
        fsync=args.fsync,
        **greeting,
    )
    if args.transfer_log is not None:
        log_to_file(TRANSFER_LOGGER, None if args.transfer_log == "off" else args.transfer_log)
    return handler


def _check(args: argparse.Namespace) -> None:
    """Refuse what lets nobody in, and options that would do nothing."""
    if not args.anonymous and args.users is None:
        raise ConfigurationError("nobody could log in: --anonymous lets everybody read, --users FILE names users")
    if args.anonymous and args.root is None:
        raise ConfigurationError("--anonymous needs --root DIR, the folder that everybody is to see")
    for name, needed in _NEEDS.items():
        if getattr(args, name) and not getattr(args, needed.removeprefix("--")):
            raise ConfigurationError(f"--{name.replace('_', '-')} goes with {needed}")
    for name in ("require_tls", "require_session"):
        if getattr(args, name) and args.cert is None and not all(parse(text).tls for text in args.endpoints):
            raise ConfigurationError(f"--{name.replace('_', '-')} needs --cert FILE: no client could do as it is told")
