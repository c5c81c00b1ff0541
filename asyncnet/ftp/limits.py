"""How much one FTP session may ask for, and how long it may take: frozen values, each default with its reason.

Sizes are bytes, times are seconds; `math.inf` switches a time limit off.
"""

from __future__ import annotations

from dataclasses import dataclass

from asyncnet.ftp.wire import MAX_LINE
from asyncnet.limits import check_sizes, check_times


@dataclass(frozen=True, slots=True)
class FTPLimits:
    """How much a session may hold."""

    line: int = MAX_LINE
    """A command with its line end. The longest that makes sense is a path of 4096 bytes, doubled by Telnet."""
    skipped: int = 1 << 20
    """How much of a line that is too long is thrown away to find its end; past it the connection closes."""
    errors: int = 50
    """Commands in a row that are none, or are refused, before the connection closes: no client sends so many."""
    reply_entries: int = 1000
    """Entries of a folder that STAT lists on the control connection; for more there is LIST."""
    ascii_size: int = 64 << 20
    """The largest file that SIZE counts in TYPE A, for which all of it has to be read."""

    def __post_init__(self) -> None:
        check_sizes(self)


@dataclass(frozen=True, slots=True)
class FTPTimeouts:
    """How long a session waits for its client."""

    login: float = 60.0
    """From the greeting to the login: a person who looks for a password in a drawer."""
    command: float = 300.0
    """From one answer to the end of the next command; no byte moves it. What FTP servers have always given."""
    data_connection: float = 30.0
    """For a data connection to be there, its TLS handshake included."""
    data: float = 60.0
    """Without a byte on a data connection that receives; one that sends has `Timeouts.send`."""

    def __post_init__(self) -> None:
        check_times(self)
