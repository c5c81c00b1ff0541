"""How much one SMTP session may ask for, and how long it may take: frozen values, each default with its reason.

Sizes are bytes, times are seconds; `math.inf` switches a time limit off. What RFC 5321 section 4.5.3 has are minimums.
"""

from __future__ import annotations

from dataclasses import dataclass

from asyncnet.limits import check_sizes, check_times
from asyncnet.smtp.content import MAX_TEXT_LINE
from asyncnet.smtp.wire import MAX_LINE


@dataclass(frozen=True, slots=True)
class SMTPLimits:
    """How much a session may hold."""

    line: int = MAX_LINE
    """A command with its line end: what RFC 4954 wants for AUTH, and more than the others' 512 and their parameters."""
    skipped: int = 1 << 20
    """How much of a command that is too long is thrown away to find its end; past it the connection closes."""
    message: int = 50 << 20
    """A message, told by SIZE. What the large providers take, or about that."""
    text_line: int = MAX_TEXT_LINE
    """A line of the content with its end; RFC 5321 section 4.5.3.1.6 has 1000, many programs do not care."""
    refused_content: int = 100 << 20
    """How much of a content that was refused is still read, to stay in step; past it the connection closes. Twice as
    much as a message may have: who sends more does not listen."""
    recipients: int = 1000
    """Of one message; section 4.5.3.1.8 has 100. Who has more sends it again for the next 1000 (452 says so)."""
    hops: int = 100
    """Received fields, past which a message is taken to go in circles (section 6.3)."""
    header: int = 128 << 10
    """The header in all: it is held in memory until it is whole. A thousand recipients in it have some 40 KiB."""
    header_fields: int = 1000
    """Fields in a header. Who parses it pays for each."""
    messages: int = 10_000
    """Messages of one connection (RFC 9422's MAILMAX): a relay that never leaves would outlive every certificate."""
    errors: int = 50
    """Commands that are refused for ever, with no message taken between them, before the connection closes: nobody
    honest goes on so long. Postfix takes 20 (`smtpd_hard_error_limit`)."""
    chatter: int = 1000
    """Commands that lead to no message, or are refused for now, with none taken between them. Postfix takes 100 such as
    NOOP and RSET, but 1000 recipients too many, whom a client may send all at once (RFC 5321 section 4.5.3.1.10)."""
    rate: int = 256
    """The least that a content has to come at, in bytes a second, beyond `SMTPTimeouts.content`: less than a modem."""

    def __post_init__(self) -> None:
        check_sizes(self)


@dataclass(frozen=True, slots=True)
class SMTPTimeouts:
    """How long a session waits for its client."""

    command: float = 300.0
    """From one answer to the end of the next command; no byte moves it. RFC 5321 section 4.5.3.2.7."""
    content: float = 300.0
    """For a content, beyond what it needs at the least rate: its bytes by `SMTPLimits.rate`."""

    def __post_init__(self) -> None:
        check_times(self)
