"""When a message is tried again, when its sender is warned, when it is given up: RFC 5321 section 4.5.4.1. No I/O.

Times are seconds since 1970 by the queue's clock (see `relay.queue`), pauses are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from asyncnet.limits import check_times

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient a relay is."""

    first: float = 300.0
    """The pause after the first attempt that failed; each further one is twice as long. Greylisting lasts no longer."""
    longest: float = 4 * HOUR
    """What pauses grow to: a host that comes back has its mail within that time."""
    jitter: float = 0.2
    """The part of each pause that chance may take off, so that what failed together does not return together."""
    warning: float = 4 * HOUR
    """The age at which a sender is told that a message waits: RFC 3461 section 4.1 leaves it to us."""
    expiry: float = 5 * 24 * HOUR
    """The age at which a message is given up: RFC 5321 asks for at least 4 or 5 days."""
    least_attempts: int = 6
    """Without so many attempts nothing is given up that was not tried shortly before, either: a machine that was off
    for a week, or whose clock has jumped ahead, would else give up what it has hardly tried."""

    def __post_init__(self) -> None:
        check_times(self)
        if self.jitter >= 1:
            raise ValueError(f"RetryPolicy.jitter must be less than 1, not {self.jitter!r}")

    def pause(self, attempts: int, chance: float) -> float:
        """How long to wait after so many attempts (from 1), with a `chance` from 0 to 1 that the caller has drawn.

        Never longer than `longest`.
        """
        doublings = min(max(attempts, 1) - 1, 64)  # past that a float could overflow, and `longest` holds long before
        return min(self.first * 2.0**doublings, self.longest) * (1 - self.jitter * chance)

    def next_attempt(self, *, now: float, expires: float, attempts: int, chance: float) -> float:
        """When the next one is, after so many: at the latest when the message expires, if it has not yet."""
        planned = now + self.pause(attempts, chance)
        return min(planned, expires) if now < expires else planned

    def is_given_up(self, *, expires: float, attempts: int, now: float, before: float) -> bool:
        """Whether a recipient who could not be reached, at the last of `attempts`, is not tried again.

        `before` is when the attempt before that was, or else when the message came.
        """
        was_at_work = before < expires and now - before <= 2 * self.longest
        return now >= expires and (was_at_work or attempts >= self.least_attempts)

    def is_warning_due(self, *, arrived: float, now: float, warned: bool) -> bool:
        """Whether a sender who has not been warned yet of a recipient should be."""
        return not warned and now >= arrived + self.warning
