"""Whether a queue has what the world was promised: see `accepting` for what it was told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asyncnet.relay.queue import open_queue
from asyncnet.relay.spool import checksum_of


@dataclass
class Promised:
    """What the world knows."""

    digests: dict[str, str] = field(default_factory=dict)
    """Of the messages that got their 250."""
    waiting: dict[str, set[int]] = field(default_factory=dict)
    """Who of their recipients has not been served: all of these have to be in the queue."""
    served: dict[str, set[int]] = field(default_factory=dict)
    """Who has been. That may be before the 250 has left."""
    recorded: dict[str, set[int]] = field(default_factory=dict)
    """Who has been, and was crossed off: none of these may be."""
    reports: dict[str, tuple[str, set[int]]] = field(default_factory=dict)
    """The message and recipients of each report that was to be made."""
    repeated: int = 0
    """How often somebody was served again, as is allowed where it was not crossed off yet."""
    problems: list[str] = field(default_factory=list)
    """What was said that contradicts what was said before."""

    @classmethod
    def by(cls, lines: Iterable[bytes]) -> Promised:
        promised = cls()
        for line in lines:
            promised.take(line)
        return promised

    def take(self, line: bytes) -> None:
        """The world was told one thing more."""
        what, *words = line.decode().split()
        if what == "accepted":
            id, digest, count = words
            self.digests[id] = digest
            self.waiting[id] = set(range(int(count))) - self.served.get(id, set())
        elif what == "delivered":
            id, digest, places = words
            self._delivered(id, digest, _numbers(places))
        elif what == "failed":
            id, places, report = words
            self.reports[report] = id, _numbers(places)
            # Its recipients may be gone from now on, but only with the report: see `_broken_reports`.
            self.waiting.setdefault(id, set()).difference_update(_numbers(places))
        elif what == "recorded":
            id, places = words
            self.recorded.setdefault(id, set()).update(_numbers(places))

    def _delivered(self, id: str, digest: str, places: set[int]) -> None:
        if self.digests.setdefault(id, digest) != digest:
            self.problems.append(f"{id} was delivered damaged")
        if places & self.recorded.get(id, set()):
            self.problems.append(f"{id} was delivered again though it was crossed off")
        served = self.served.setdefault(id, set())
        self.repeated += bool(places & served)
        served |= places
        self.waiting.setdefault(id, set()).difference_update(places)

    def broken_by(self, found: Found) -> list[str]:
        """Which promises a queue breaks in which this was found, in words."""
        problems = self.problems + list(self._broken_reports(found))
        for id, digest in self.digests.items():
            there_digest, there = found.get(id, (digest, set()))
            if there_digest != digest:
                problems.append(f"{id} is damaged")
            if not there >= self.waiting.get(id, set()):
                problems.append(f"{id} is lost")
            if there & self.recorded.get(id, set()):
                problems.append(f"{id} is there though it was crossed off")
        return problems

    def _broken_reports(self, found: Found) -> Iterator[str]:
        """Who was given up has a report, and who has a report was given up."""
        reported: dict[str, set[int]] = {}
        for report, (id, places) in self.reports.items():
            if report in found or self.served.get(report):
                reported.setdefault(id, set()).update(places)
        for id in {id for id, _ in self.reports.values()}:
            given_up = {place for of, places in self.reports.values() if of == id for place in places}
            gone = given_up - found.get(id, ("", set()))[1] - self.served.get(id, set())
            if gone - reported.get(id, set()):
                yield f"{id} was given up, and nobody was told"
            if found.get(id, ("", set()))[1] & reported.get(id, set()):
                yield f"{id} was reported as given up, and is there"


def _numbers(text: str) -> set[int]:
    return set(map(int, text.split(",")))


Found = dict[str, tuple[str, set[int]]]
"""The digest and the recipients of each message in a queue."""


async def what_is_in(folder: Path) -> Found:
    """What a relay finds that opens the queue. It can read all of it, or this raises."""
    found: Found = {}
    async with open_queue(folder) as queue:
        long = set()
        while claims := await queue.claim(1000, per_destination=1_000_000):
            for claim in claims:
                digest = checksum_of(b"".join([piece async for piece in queue.read(claim)]))
                _, places = found.setdefault(claim.message.id, (digest, set()))
                places.update(one.position for one in claim.recipients)
                if claim.message.in_file:
                    long.add(claim.message.id)
        assert {path.name for path in (folder / "content").iterdir()} == long, "there are contents that nobody knows"
    return found
