"""How much the queue holds of a message in memory, and of a disk in reserve."""

from __future__ import annotations

from dataclasses import dataclass

from asyncnet.limits import check_sizes


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Limits of a queue."""

    memory: int = 64 * 1024
    """Bytes of a message that are held in memory while it comes in. One that stays within them becomes part of the
    database, a longer one is a file: SQLite is faster than the file system up to about that size."""
    reserve: int = 64 * 1024 * 1024
    """Bytes of the disk that stay free: below them no new message is begun. The outcomes of deliveries need room too,
    or what has been delivered could not be crossed off."""
    recipients: int = 100
    """Recipients that are claimed of one message at once: as many as every server has to take (RFC 5321 section
    4.5.3.1.8)."""

    def __post_init__(self) -> None:
        check_sizes(self, may_be_zero=("reserve",))
