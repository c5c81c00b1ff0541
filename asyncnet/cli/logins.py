"""Whose password a command uses where the URL has none: from the user's netrc file, else from whoever sits there."""

from __future__ import annotations

import getpass
import netrc
import os
from dataclasses import dataclass, field

from asyncnet.errors import ConfigurationError
from asyncnet.printable import printable

TERMINAL = "/dev/tty"


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in; without a user it is anonymous."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    account: str | None = field(default=None, repr=False)


def netrc_login(host: str) -> Login | None:
    """What `NETRC`, or `~/.netrc`, says of a host. Raises ConfigurationError if it cannot be read."""
    path = os.environ.get("NETRC")
    try:
        found = netrc.netrc(path or None).authenticators(host)
    except FileNotFoundError:
        return None
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path or '~/.netrc'}: {printable(str(error))}") from None
    if found is None or not found[0]:
        return None
    user, account, password = found
    return Login(user, password, account or None)


def netrc_password(user: str, host: str) -> str | None:
    """The password that the netrc file has for a user of a host. Raises ConfigurationError if it cannot be read."""
    found = netrc_login(host)
    return found.password if found is not None and found.user == user else None


def ask_password(user: str, host: str) -> str:
    """Ask at the terminal. Raises ConfigurationError where there is none, or no answer."""
    who = f"{printable(user)} at {host}"
    try:
        with open(TERMINAL, "rb"):
            pass
    except OSError:
        raise ConfigurationError(
            f"a password for {who} is missing, and there is no terminal to ask at: write it into ~/.netrc"
        ) from None
    try:
        return getpass.getpass(f"Password for {who}: ")
    except EOFError:
        raise ConfigurationError(f"no password for {who} was given") from None
