"""One declaration for each command: where there is one, whether it takes an argument, its help.

A command is a function with its declaration above it:

    @command("RCPT", argument=Argument.REQUIRED, help="TO:<address> [parameters]")
    async def rcpt(talk: Conversation, argument: str) -> Reply: ...

The table that the server and HELP read is made of these.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from asyncnet.replies import Reply
from asyncnet.smtp.delivery import Role

if TYPE_CHECKING:
    from asyncnet.smtp.conversation import Conversation


class Argument(enum.Enum):
    """Whether a command takes something behind its verb."""

    NONE = enum.auto()
    OPTIONAL = enum.auto()
    REQUIRED = enum.auto()


Run: TypeAlias = "Callable[[Conversation, str], Awaitable[Reply | None]]"
"""Does the command and returns its last reply; None: all has been said."""

SMTP = frozenset({Role.MX, Role.SUBMISSION})
LMTP = frozenset({Role.LMTP})


@dataclass(frozen=True, slots=True)
class Declaration:
    """A command."""

    verb: str
    run: Run
    argument: Argument
    help: str
    """What stands behind the verb in HELP."""
    roles: frozenset[Role]
    """The servers that know it."""
    checks_itself: bool
    """Whether it asks the session itself if it is legal, since something has to be done when it is not."""
    brings_mail: bool
    """Whether it leads to a message. All others may not go on for ever without one."""


COMMANDS: dict[str, Declaration] = {}
"""Every command by its verb."""


def command(
    verb: str,
    *,
    argument: Argument,
    help: str,
    roles: frozenset[Role] = SMTP | LMTP,
    checks_itself: bool = False,
    brings_mail: bool = False,
) -> Callable[[Run], Run]:
    """Declare the function beneath to be the command `verb`."""

    def declare(run: Run) -> Run:
        COMMANDS[verb] = Declaration(verb, run, argument, help, roles, checks_itself, brings_mail)
        return run

    return declare
