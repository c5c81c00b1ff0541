"""The options of `asyncnet serve pop3`, and the handler that they ask for.

Whatever serves POP3 is imported when a handler is made: `--help` needs none of it.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from asyncnet.cli.begun_tls import begun_tls
from asyncnet.cli.options import count
from asyncnet.errors import ConfigurationError

if TYPE_CHECKING:
    from asyncnet.pop3.server import POP3Handler

EPILOG = """\
DIR holds a Maildir for each user, under the user's name: it is made at the first login where it is missing. Postfix,
Dovecot, mutt and others may use it at the same time.
Where --cert names a certificate, clients begin TLS on tcp:// endpoints when they ask for it (STLS), and on tls:// ones
at once. Passwords pass in TLS and between loopback addresses alone, unless --insecure-auth says otherwise.

examples:
  asyncnet passwd users.toml anna
  asyncnet serve pop3 tcp://127.0.0.1:1110 --mail /srv/mail --users users.toml
  asyncnet serve pop3 'tcp://*:110' 'tls://*:995' --cert chain.pem --key key.pem --mail /srv/mail --users users.toml
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the kind `pop3`."""
    mail = parser.add_argument_group("whose mail")
    mail.add_argument("--mail", metavar="DIR", required=True, help="the folder with the Maildirs of all users")
    mail.add_argument("--users", metavar="FILE", required=True, help="their passwords (asyncnet passwd)")
    mail.add_argument(
        "--insecure-auth", action="store_true", help="take passwords without TLS, too: anybody on the way can read them"
    )
    mail.add_argument(
        "--login-delay",
        metavar="N",
        type=count,
        default=0,
        help="seconds from one login of a user to the next (default: none)",
    )
    mail.add_argument("--greeting", metavar="TEXT", help="what clients read first")


def make_handler(args: argparse.Namespace) -> POP3Handler:
    """The handler for these options. Raises ConfigurationError."""
    from asyncnet.auth import UserFile
    from asyncnet.mailbox.maildir import Maildirs
    from asyncnet.pop3.server import POP3Handler

    if not os.path.isdir(args.mail):
        raise ConfigurationError(f"--mail is a folder: {args.mail} is none")
    greeting = {} if args.greeting is None else {"greeting": args.greeting}
    return POP3Handler(
        Maildirs(args.mail, create=True),
        UserFile(args.users),
        tls=begun_tls(args, "pop3"),
        insecure_auth=args.insecure_auth,
        login_delay=args.login_delay,
        **greeting,
    )
