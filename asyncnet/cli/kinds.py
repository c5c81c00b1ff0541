"""The kinds of service that `asyncnet serve` knows: how each is made, and the options of its own.

Handlers are named as "module:name" and imported when their kind is asked for, so that a kind costs only what it needs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from asyncnet.cli import ftp, http, pop3, smtp
from asyncnet.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of service."""

    handler: str
    """Where the class of the handler is, or a function that makes one."""
    help: str
    """What it does, in one line."""
    add_options: Callable[[argparse.ArgumentParser], object] = lambda parser: None
    """Adds its own options."""
    arguments: Callable[[argparse.Namespace], Sequence[object]] = lambda args: ()
    """What the handler is made of, from these options."""
    epilog: str | None = None
    """What stands below the options in its help."""
    takes_program: bool = False
    """Whether a program and its arguments follow behind `--`."""
    begins_tls: bool = False
    """Whether it takes a certificate also for endpoints without TLS, on which it begins TLS itself."""

    def make_handler(self, args: argparse.Namespace) -> Any:
        """The handler. Raises ConfigurationError if it cannot be made of these options."""
        if args.program and not self.takes_program:
            raise ConfigurationError(f"{args.kind} takes no program behind --")
        arguments = self.arguments(args)
        return load(self.handler)(*arguments)


def load(place: str) -> Any:
    """Import "module:name"."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _program(args: argparse.Namespace) -> Sequence[str]:
    if not args.program:
        raise ConfigurationError("exec needs a program: asyncnet serve exec ENDPOINT -- PROGRAM [ARGUMENT ...]")
    program: list[str] = args.program
    return program


KINDS = {
    "echo": Kind("asyncnet.echo:EchoHandler", "send back whatever arrives (RFC 862)"),
    "discard": Kind("asyncnet.echo:DiscardHandler", "drop whatever arrives (RFC 863)"),
    "chargen": Kind("asyncnet.echo:ChargenHandler", "send characters without end (RFC 864)"),
    "daytime": Kind("asyncnet.echo:DaytimeHandler", "tell the date and time, and close (RFC 867)"),
    "time": Kind("asyncnet.echo:TimeHandler", "tell the time as a binary number, and close (RFC 868)"),
    "exec": Kind(
        "asyncnet.echo.exec:ExecHandler",
        "run a program for each connection, as inetd does: the connection is its stdin and stdout",
        arguments=_program,
        takes_program=True,
    ),
    "http": Kind(
        "asyncnet.cli.http:make_handler",
        "serve a website: a folder, or an ASGI or WSGI application",
        http.add_options,
        epilog=http.EPILOG,
        arguments=lambda args: (args,),
    ),
    "ftp": Kind(
        "asyncnet.cli.ftp:make_handler",
        "serve files by FTP: to everybody, or to users with passwords",
        ftp.add_options,
        epilog=ftp.EPILOG,
        arguments=lambda args: (args,),
        begins_tls=True,
    ),
    "smtp": Kind(
        "asyncnet.cli.smtp:make_handler",
        "take mail by SMTP or LMTP, keep it safe, deliver it or pass it on",
        smtp.add_options,
        epilog=smtp.EPILOG,
        arguments=lambda args: (args,),
        begins_tls=True,
    ),
    "pop3": Kind(
        "asyncnet.cli.pop3:make_handler",
        "give users their mail by POP3",
        pop3.add_options,
        epilog=pop3.EPILOG,
        arguments=lambda args: (args,),
        begins_tls=True,
    ),
}
