"""What an SMTP server does with the mail that it takes: the interface that a handler is given.

A transaction goes `start`, `add` for each recipient, `write` for each piece of the content, and then exactly one of
`commit` and `abort`. Each step may say no by `Refused`, whose words go to the client. What else is raised is a fault:
the client hears 451, the log hears why, and the transaction is aborted.

**What a 250 promises** (RFC 5321 section 6.1): when `commit` returns, the message is the delivery's to deliver or to
report as undeliverable, whatever happens to this process or this machine afterwards. A delivery that keeps nothing on a
disk must not return before whoever is next has taken over the same promise. Until then nothing is promised: a
transaction that was aborted, or whose process was killed, leaves nothing that is delivered later.

The steps of one transaction come one after the other; many transactions run at the same time. Any of them may be
cancelled; `abort` follows then, unless it was `commit` itself: that one shields what it must not leave undecided, and
when it raises, cancelled or not, it has cleaned up behind itself.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from asyncnet.auth.identity import Identity
from asyncnet.replies import Reply
from asyncnet.smtp.envelope import Envelope, Recipient
from asyncnet.transports.address import Address


class Refused(Exception):
    """No: a reply of the 4yz or the 5yz series. `enhanced` is its code of RFC 3463: "5.1.1"."""

    def __init__(self, code: int, enhanced: str, *lines: str) -> None:
        super().__init__(f"{code} {enhanced} {' / '.join(lines)}")
        self.code = code
        self.enhanced = enhanced
        self.lines = lines

    @property
    def reply(self) -> Reply:
        """As SMTP says it, with the enhanced code in every line (RFC 2034 section 4)."""
        return Reply.of(self.code, *(f"{self.enhanced} {line}" for line in self.lines or ("",)))

    @property
    def is_permanent(self) -> bool:
        """5yz: the same will be refused again."""
        return self.code // 100 == 5


class Role(enum.Enum):
    """What a server is there for."""

    MX = "mx"
    """Takes mail from anybody, for those whom it knows."""
    SUBMISSION = "submission"
    """Takes mail from its own users, for anybody, and completes it (RFC 6409)."""
    LMTP = "lmtp"
    """Takes mail from a server before it, and answers for each recipient (RFC 2033)."""


@dataclass(frozen=True, slots=True)
class Client:
    """Who sends."""

    peer: Address
    name: str
    """What it called itself in EHLO or HELO. Anybody can say anything."""
    role: Role = Role.MX
    protocol: str = "SMTP"
    """For the Received header and logs: "ESMTPSA" and its kin (RFC 3848, RFC 6531 section 4.3)."""
    identity: Identity | None = None
    """Who has logged in."""
    secure: bool = False
    """Whether the connection is in TLS."""


class Delivery(Protocol):
    """What takes mail."""

    async def start(self, envelope: Envelope, client: Client) -> Transaction:
        """MAIL has come. Raises `Refused` for a sender, a size or a moment that will not do."""
        ...


class Transaction(Protocol):
    """One message on its way in."""

    async def add(self, recipient: Recipient) -> None:
        """RCPT has come. Raises `Refused` for a recipient who is not served here: the others stay."""
        ...

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """The next piece of the content, of any length, trace headers included.

        It is as it will be stored: CR LF at line ends, without transparency dots. `data` is the caller's again when
        this returns. Raises `Refused` where there is no room (452 4.3.1) or for what it has seen (554 5.6.0, say).
        """
        ...

    async def commit(self) -> str:
        """All of it has come: take responsibility, for all recipients or, by `Refused`, for none.

        Returns what the reply says behind its codes, such as "queued as 4F2A"; "" if there is nothing to say.
        """
        ...

    async def abort(self) -> None:
        """It will not be completed: leave nothing. Does its work also when cancelled."""
        ...


@runtime_checkable
class CommitsEach(Protocol):
    """What a transaction may offer besides, where each recipient can have an outcome of their own."""

    async def commit_each(self) -> Sequence[str | Refused]:
        """In place of `commit`, in LMTP: an outcome for each recipient, in the order of `add`.

        A string is what `commit` returns. Who was refused is the client's again.
        """
        ...
