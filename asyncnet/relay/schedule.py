"""What a relay has in its hands, and where there is nothing else to do. In memory alone: who is killed has nothing."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

from asyncnet.relay.messages import Claim


class Schedule:
    """The claims of one relay.

    It is read within transactions, in the thread that makes them, and changed in Trio's thread between those; only a
    claim that is given back without an outcome goes at any time (hence the copies that are iterated over).
    """

    def __init__(self) -> None:
        self._claimed: dict[str, set[tuple[int, int]]] = {}  # by destination: message and position
        self._claims: dict[str, int] = {}  # by destination: how many
        self._drained: dict[str, float] = {}  # where all that is due is claimed, and until when
        self._changed: set[str] = set()  # where there may be something new since a look has begun

    def claimed_at(self, destination: str) -> Collection[tuple[int, int]]:
        """Which recipients there are claimed, as message and position."""
        return self._claimed.get(destination, ())

    def room_at(self, destination: str, per_destination: int) -> int:
        """How many more claims a destination can have."""
        return per_destination - self._claims.get(destination, 0)

    def passed_over(self, now: float, per_destination: int) -> set[str]:
        """Where nothing is to be found: all has been claimed that is due, or as much as may be."""
        full = {name for name, count in list(self._claims.items()) if count >= per_destination}
        return full.union(name for name, until in list(self._drained.items()) if until > now)

    @property
    def next_due(self) -> float:
        """When there will be something to find where all has been claimed."""
        return min(self._drained.values(), default=math.inf)

    def begin_look(self, now: float) -> None:
        """Somebody is about to look for what is due. One at a time."""
        self._changed.clear()
        # Where a time has come the look finds out anew: left as it was, it would say for ever that there is something.
        self._drained = {name: until for name, until in self._drained.items() if until > now}

    def end_look(self, claims: Iterable[Claim], drained: Mapping[str, float]) -> None:
        """These were found and are claimed, and then there was no more at those destinations until that time."""
        for claim in claims:
            name = claim.destination
            self._claims[name] = self._claims.get(name, 0) + 1
            self._claimed.setdefault(name, set()).update(_pairs(claim))
        for name, until in drained.items():
            if name not in self._changed:
                self._drained[name] = until

    def remove(self, claim: Claim) -> None:
        """It is not in our hands any more. Nothing happens if it was not."""
        name = claim.destination
        claimed = self._claimed.get(name, set())
        if not claimed.issuperset(_pairs(claim)):
            return
        claimed.difference_update(_pairs(claim))
        self._claims[name] -= 1
        if not claimed:
            del self._claimed[name], self._claims[name]
        self.changed_at((name,))

    def changed_at(self, names: Iterable[str]) -> None:
        """There may be something new."""
        for name in names:
            self._drained.pop(name, None)
            self._changed.add(name)

    def changed(self) -> None:
        """There may be something new anywhere."""
        self.changed_at(list(self._drained))


def _pairs(claim: Claim) -> list[tuple[int, int]]:
    return [(claim.message.key, recipient.position) for recipient in claim.recipients]
