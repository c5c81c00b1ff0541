"""How much one POP3 session may ask for, and how long it may take: frozen values, each default with its reason.

Sizes are bytes, times are seconds; `math.inf` switches a time limit off.
"""

from __future__ import annotations

from dataclasses import dataclass

from asyncnet.limits import check_sizes, check_times


@dataclass(frozen=True, slots=True)
class POP3Limits:
    """How much a session may hold."""

    line: int = 2048
    """A command with its line end. RFC 2449 section 4 has 255; a name and a password may have 1024 each here."""
    response: int = 12_288
    """A response in a login by AUTH: what RFC 5034 section 4 demands at least."""
    skipped: int = 64 * 1024
    """How much of a line that is too long is thrown away to find its end; past it the connection closes."""
    errors: int = 20
    """Commands in a row that are refused, before the connection closes: no client sends so many."""

    def __post_init__(self) -> None:
        check_sizes(self)


@dataclass(frozen=True, slots=True)
class POP3Timeouts:
    """How long a session waits for its client."""

    login: float = 60.0
    """From the greeting to the login. Who is not logged in cannot be logged out: RFC 1939's ten minutes are for those
    who hold a mailbox, and would be a present to those who hold nothing but connections."""
    command: float = 600.0
    """From one answer to the end of the next command; no byte moves it. RFC 1939 section 3 forbids less."""

    def __post_init__(self) -> None:
        check_times(self)
