"""What stands on a message's envelope: from whom, to whom, and how it is to be treated. RFC 5321 section 2.3.1, no I/O.

Server and client, the relay's queue and every delivery speak in these. The content is not here: it is bytes with CR LF
at the end of each line, and they are streamed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from asyncnet.smtp.address import MailAddress


class Body(enum.Enum):
    """What the content consists of: the values of MAIL's BODY (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"
    """Lines, in which bytes above 127 may stand."""
    BINARY = "BINARYMIME"
    """Any bytes, lines or not: only BDAT can move it."""


class Notify(enum.Enum):
    """When a sender wants to be told of a recipient: the values of RCPT's NOTIFY (RFC 3461 section 4.1)."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


class Returned(enum.Enum):
    """How much of a message comes back with a report of its failure: MAIL's RET (RFC 3461 section 4.3)."""

    FULL = "FULL"
    HEADERS = "HDRS"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One forward-path, and what was said with it."""

    address: MailAddress
    notify: frozenset[Notify] = frozenset()
    """Empty: nothing was said, which means failures, and delays if the relay likes (RFC 3461 section 4.1)."""
    original: str | None = None
    """ORCPT, "rfc822;carol@example.org", decoded: the address that the sender wrote, before any alias."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What MAIL has said. Its recipients follow one by one."""

    sender: MailAddress | None
    """The reverse-path; None is the null one, of bounces: nothing is ever sent back to it."""
    body: Body = Body.SEVEN_BIT
    international: bool = False
    """SMTPUTF8: addresses and headers may hold UTF-8, and whoever cannot take that must not get it (RFC 6531)."""
    size: int | None = None
    """How many bytes the client says that the content has (RFC 1870). What comes may be less or more."""
    returned: Returned | None = None
    envelope_id: str | None = None
    """ENVID, decoded: what the sender calls this message in reports (RFC 3461 section 4.4)."""
