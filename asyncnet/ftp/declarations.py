"""One declaration for each command: what it takes, who may give it and when, its help, its line in FEAT.

A command is a function with its declaration above it:

    @command("SIZE", argument=Argument.REQUIRED, permission=Permission.LIST, help="pathname", feature="SIZE")
    async def size(control: Control, argument: str) -> Reply: ...

The tables that the server, HELP and FEAT read are made of these.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from asyncnet.replies import Reply

if TYPE_CHECKING:
    from asyncnet.ftp.control import Control


class Permission(enum.Flag):
    """What a user may do; the names are those of the users file."""

    READ = enum.auto()
    """Fetch files."""
    LIST = enum.auto()
    """See what is there, and walk through folders."""
    WRITE = enum.auto()
    """Store files, also in the place of others."""
    APPEND = enum.auto()
    """Store behind what is there: APPE, and uploads that resume."""
    DELETE = enum.auto()
    """Remove files and folders."""
    RENAME = enum.auto()
    """Give another name."""
    MKDIR = enum.auto()
    """Make folders."""
    CHMOD = enum.auto()
    """Change permission bits and times."""


READ_ONLY = Permission.READ | Permission.LIST
EVERYTHING = Permission(sum(one.value for one in Permission))


class Argument(enum.Enum):
    """Whether a command takes something behind its verb."""

    NONE = enum.auto()
    OPTIONAL = enum.auto()
    REQUIRED = enum.auto()


Run: TypeAlias = "Callable[[Control, str], Awaitable[Reply | None]]"
"""Does the command and returns its last reply; None: it has been sent, or there is none."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A command."""

    verb: str
    run: Run
    argument: Argument
    permission: Permission | None
    """What the user must be allowed; None: nothing, or the command asks for itself."""
    help: str
    """What stands behind the verb in HELP."""
    feature: str | Callable[[Control], str | None] | None
    """Its line in FEAT (RFC 2389); None: it is no extension."""
    before_login: bool
    during_transfer: bool
    """Whether it is heard while a transfer runs; the others wait for its end."""
    is_transfer: bool
    is_secret: bool
    """Whether the argument must not be logged."""


COMMANDS: dict[str, Declaration] = {}
"""Every command by its verb."""

SITE_COMMANDS: dict[str, Declaration] = {}
"""Every command behind SITE."""


def command(
    *verbs: str,
    argument: Argument,
    help: str,
    permission: Permission | None = None,
    feature: str | Callable[[Control], str | None] | None = None,
    before_login: bool = False,
    during_transfer: bool = False,
    is_transfer: bool = False,
    is_secret: bool = False,
    table: dict[str, Declaration] = COMMANDS,
) -> Callable[[Run], Run]:
    """Declare the function beneath to be the command `verbs[0]`, and those of other times and servers behind it."""

    def declare(run: Run) -> Run:
        for verb in verbs:
            table[verb] = Declaration(
                verb,
                run,
                argument,
                permission,
                help,
                feature if verb == verbs[0] else None,
                before_login,
                during_transfer,
                is_transfer,
                is_secret,
            )
        return run

    return declare
