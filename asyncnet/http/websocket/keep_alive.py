"""Keeping a WebSocket alive: what to make of a peer, each time the alarm of its connection rings. Pure.

The alarm rings once an interval, not once a message. So what has happened is seen by comparing what the last alarm saw.
The application may have been away from its receive for long, with the peer's answer waiting in the kernel: before
anything is held against the peer it gets a last chance, in which what is there is taken.
"""

from __future__ import annotations

import enum
import math

from asyncnet.http.websocket.limits import WebSocketTimeouts

LAST_CHANCE = 1.0
"""How long a peer is given, in seconds, that seems to be late: its bytes may be here, and unread."""


class Verdict(enum.Enum):
    """What an alarm has found."""

    FINE = enum.auto()
    SILENT = enum.auto()
    """Nothing has come since the last alarm: a ping is due, and `KeepAlive.asked` when it was sent."""
    LATE = enum.auto()
    """One of the next two, unless more comes within `LAST_CHANCE`."""
    DEAD = enum.auto()
    """A ping has had no answer, and nothing else has come."""
    SLOW = enum.auto()
    """A message was begun and takes too long."""
    IDLE = enum.auto()
    """No message for too long."""


class KeepAlive:
    """What the alarms of one WebSocket have seen. Times are in seconds, by one clock."""

    __slots__ = (
        "_asked_at",
        "_bytes_before",
        "_bytes_seen",
        "_messages_seen",
        "_partial_since",
        "_quiet_since",
        "_timeouts",
        "_warned",
    )

    def __init__(self, timeouts: WebSocketTimeouts, now: float, bytes_in: int) -> None:
        self._timeouts = timeouts
        self._bytes_seen = self._bytes_before = bytes_in
        self._messages_seen = 0
        self._quiet_since = self._partial_since = now
        self._asked_at = math.inf  # when a ping was sent, if nothing has come since
        self._warned = False  # something will be held against the peer, unless more comes now

    @property
    def interval(self) -> float:
        """How long until the next alarm."""
        timeouts = self._timeouts
        wait = timeouts.ping if self._asked_at == math.inf else timeouts.pong
        return min(wait, timeouts.message, timeouts.idle)

    def look(self, now: float, *, bytes_in: int, messages: int, is_within_message: bool) -> Verdict:
        """The alarm has rung; so many bytes and messages have come in all, and a message may be begun."""
        timeouts = self._timeouts
        if bytes_in != self._bytes_seen:
            self._bytes_seen = bytes_in
            self._asked_at = math.inf
        if messages != self._messages_seen:
            self._messages_seen = messages
            self._quiet_since = self._partial_since = now
        elif not is_within_message:
            self._partial_since = now
        is_dead = now - self._asked_at >= timeouts.pong
        is_slow = now - self._partial_since >= timeouts.message
        if (is_dead or is_slow) and not self._warned:
            self._warned = True
            return Verdict.LATE
        self._warned = False
        if is_dead:
            return Verdict.DEAD
        if is_slow:
            return Verdict.SLOW
        if now - self._quiet_since >= timeouts.idle:
            return Verdict.IDLE
        is_silent = self._bytes_seen == self._bytes_before and self._asked_at == math.inf
        self._bytes_before = self._bytes_seen
        return Verdict.SILENT if is_silent and timeouts.ping < math.inf else Verdict.FINE

    def asked(self, now: float) -> None:
        """A ping was sent."""
        self._asked_at = now
