"""The `asyncnet` command: `serve`, `fetch`, `send` and the others, each in the module of its name.

A module is imported when its command is given, and a service when its kind is: `--help` imports nothing else.

Exit status: 0 if all went well, 1 if a connection failed, 2 for what the user can put right (one clear line on standard
error, no traceback), 128 and the signal's number after an interrupt.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from asyncnet import __version__
from asyncnet.cli.groups import leaves
from asyncnet.errors import ConfigurationError, EndpointError, LocalProtocolError

_COMMANDS = {
    "serve": "serve a protocol on one or more endpoints",
    "connect": "send standard input to a peer and print what it sends, over TCP, TLS or a Unix socket",
    "fetch": "fetch files by HTTP and FTP, several at once, and go on with what was broken off",
    "put": "put files on an FTP server, several at once, and go on with what was broken off",
    "ls": "list a folder of an FTP server",
    "send": "send messages to a mail server",
    "queue": "look into a mail relay's queue, and change it",
    "mail": "list and read the mail of a mailbox",
    "passwd": "make or change a user's password",
}

_EPILOG = """\
endpoints:
  tcp://127.0.0.1:8080   tcp://[::1]:8080   tcp://*:8080   (port 0 takes a free one)
  tls://*:8443?cert=chain.pem&key=key.pem   unix:/run/app.sock?mode=660
  fd:3   systemd:NAME   (listening sockets from the parent, or from socket activation)

examples:
  asyncnet serve http tcp://127.0.0.1:8080 --root public
  asyncnet serve exec tcp://127.0.0.1:7000 -- /bin/cat -u
  echo hello | asyncnet connect tcp://127.0.0.1:7000
  asyncnet serve ftp tcp://127.0.0.1:2121 --root public --anonymous
  asyncnet fetch https://example.org/large.iso
  asyncnet put report.pdf ftpes://anna@example.org/reports/
  asyncnet send message.eml smtps://anna@mail.example.org
  asyncnet mail list pop3s://anna@mail.example.org

`asyncnet COMMAND --help` tells more.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (None: the process's own) and return its exit status."""
    words, program = _split_program(sys.argv[1:] if argv is None else list(argv))
    args = _parser(words).parse_args(words, argparse.Namespace(program=program))
    status = 0
    try:
        status = args.run(args)
    except* (ConfigurationError, EndpointError, LocalProtocolError) as group:
        for error in leaves(group):
            print(f"asyncnet {args.command}: {error}", file=sys.stderr)
        status = 2
    except* KeyboardInterrupt:
        status = 128 + signal.SIGINT
    return status


def _split_program(words: list[str]) -> tuple[list[str], list[str]]:
    """What stands behind the first `--` of `serve` is a program and its arguments, and none of our options."""
    if words[:1] == ["serve"] and "--" in words:
        place = words.index("--")
        return words[:place], words[place + 1 :]
    return words, []


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """A parser that knows the options of the command that `words` begins with, and of the others the names."""
    parser = argparse.ArgumentParser(
        "asyncnet",
        description="Network services for Trio.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"asyncnet {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name, help in _COMMANDS.items():
        if words[:1] == [name]:
            import_module(f"asyncnet.cli.{name}").add_parser(commands)
        else:
            commands.add_parser(name, help=help)
    return parser
