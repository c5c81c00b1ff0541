"""A user's mail: the interface, and what is atomic in it.

Everything may be called by many tasks at once, and more than one process may use the same mailbox. Every method may be
cancelled; what it changes is changed or is not. What goes wrong is an `OSError`: ENOSPC and EDQUOT mean that there is
no room, ENOENT that a message is gone, EBUSY that somebody else holds the lock.

Content is bytes with CR LF at the end of each line, however the storage keeps it.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


class Flag(enum.Enum):
    """What is known of a message besides: the names of RFC 3501 section 2.3.2."""

    SEEN = "\\Seen"
    ANSWERED = "\\Answered"
    FLAGGED = "\\Flagged"
    DELETED = "\\Deleted"
    DRAFT = "\\Draft"


@dataclass(frozen=True, slots=True)
class Message:
    """A message in a mailbox."""

    uid: str
    """Its own for ever, and nobody else's afterwards: 1 to 70 characters from ! to ~ (RFC 1939 section 7)."""
    size: int
    """In bytes, line ends counted as CR LF."""
    received: float
    """When it was delivered, in seconds since 1970."""
    flags: frozenset[Flag] = frozenset()


class Incoming(Protocol):
    """A message that is being delivered. Nobody sees it until `commit`; exactly one of `commit` and `abort` ends it."""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """The next piece, of any length. `data` is the caller's again when this returns."""
        ...

    async def commit(self) -> Message:
        """Have it in the mailbox, in one step. It is on the disk when this returns, where there is one.

        Shields itself where a cancellation would leave anything undecided. When it raises, it was aborted.
        """
        ...

    async def abort(self) -> None:
        """It will not come: leave nothing. Does its work also when cancelled."""
        ...


class Mailbox(Protocol):
    """The mail of one user."""

    async def deliver(self) -> Incoming:
        """Begin a delivery. Raises OSError with EDQUOT where the quota is used up already."""
        ...

    async def messages(self) -> Sequence[Message]:
        """All that is there, the oldest first."""
        ...

    def read(self, uid: str) -> AsyncGenerator[bytes, None]:
        """The content, piece by piece; whoever does not take all of it closes the generator."""
        ...

    async def set_flags(self, uid: str, flags: Iterable[Flag]) -> None:
        """Have exactly these flags on a message."""
        ...

    async def remove(self, uids: Iterable[str]) -> None:
        """Remove messages for ever. Those that are gone already do not matter; one that cannot be removed raises only
        behind the attempt to remove the others."""
        ...

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Hold the mailbox for one session (POP3): whoever else asks gets OSError with EBUSY at once.

        Deliveries go on meanwhile, and so do changes by those who do not ask for it. The lock of a process that dies is
        free again.
        """
        ...


class Mailboxes(Protocol):
    """The mailboxes of all users."""

    async def of(self, user: str) -> Mailbox:
        """That of `user`, which comes into being where it can. Raises LookupError if there is no such user, OSError if
        nobody can say that for now; nothing that `user` holds ("..", "/", NUL) leads anywhere else."""
        ...
