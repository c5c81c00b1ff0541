"""How long an SMTP client waits: frozen values, each default with its reason. `math.inf` switches one off."""

from __future__ import annotations

from dataclasses import dataclass

from asyncnet.limits import check_times


@dataclass(frozen=True, slots=True)
class SMTPClientTimeouts:
    """Seconds. A reply's is for the whole of it, whatever comes bit by bit. Most are the least of RFC 5321 section
    4.5.3.2: a client that waits for less gives up what would have come."""

    connect: float = 30.0
    """For the name, the connection and a proxy."""
    greeting: float = 300.0
    """A server that is full accepts the connection and says nothing until it has room."""
    handshake: float = 60.0
    """For a TLS handshake."""
    command: float = 300.0
    """For all replies that have no time of their own: to EHLO, STARTTLS, AUTH, RSET, NOOP."""
    mail: float = 300.0
    recipient: float = 300.0
    """Some servers look up much before they decide, and expand lists."""
    data: float = 120.0
    """For the 354."""
    block: float = 180.0
    """For the server to take what was sent at once of a message, some 64 KiB."""
    end: float = 600.0
    """For the reply to the whole message, which may be delivered and scanned meanwhile. A client that leaves too early
    sends it a second time."""
    quit: float = 5.0
    """For the server's goodbye: RFC 5321 has no time for it, and nothing depends on it."""

    def __post_init__(self) -> None:
        check_times(self)
