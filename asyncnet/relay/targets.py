"""Where mail is handed over: what the relay asks of a target, and what it hears back. Values and interfaces.

`mailbox_target.MailboxTarget` puts mail into mailboxes, `smtp_target.SMTPTarget` sends it to other hosts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol

from asyncnet.replies import Reply
from asyncnet.smtp.envelope import Envelope, Recipient


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message on its way to a target, for some of its recipients."""

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    size: int
    """Bytes of content."""
    read: Callable[[], AsyncGenerator[bytes, None]]
    """The content, from its beginning each time. Raises what `Queue.read` raises."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What has become of a parcel for one recipient."""

    reply: Reply
    """2yz: the target has taken it over, with all that a 250 promises. 4yz: it has not, now. 5yz: nor will it."""
    host: str | None = None
    """The host that said so; None: these are our own words."""
    is_delivered: bool = False
    """Whether it lies in a mailbox now."""
    tells_success: bool = False
    """Whether the host sends the notification of success that the sender may have asked for (RFC 3461)."""


class Unreachable(Exception):
    """A target takes nothing from anybody at the moment: there is no host, or no connection to it."""

    def __init__(self, reply: Reply, host: str | None = None) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.host = host


class Courier(Protocol):
    """Hands over parcels to one target, one after the other. It may keep a connection for the next one."""

    async def hand_over(self, parcel: Parcel, verdicts: dict[int, Verdict]) -> None:
        """Note in `verdicts` what becomes of it for each recipient, by their place among the recipients.

        Each as soon as it is certain: what has been noted holds, though this is cancelled or raises. Raises what
        `Parcel.read` raises, and `Unreachable` where nobody has heard of the parcel. Of whom nothing was noted then
        nothing is known, or nothing was done.
        """
        ...

    async def aclose(self) -> None:
        """Nothing more comes: say goodbye."""
        ...


class Target(Protocol):
    """Where the mail of one destination goes."""

    def courier(self) -> Courier:
        """Another one who hands it over. Waits for nothing."""
        ...
