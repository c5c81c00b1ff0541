"""Whatever is done to a queue in whatever order: what is due is found, and what is not, is not."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncnet.relay.admin import Selection, open_admin
from asyncnet.relay.messages import Claim, Outcome, State, parse_id
from asyncnet.relay.queue import Queue, open_queue
from asyncnet.relay.retry import RetryPolicy
from tests.relay.use import LATER, OK, Clock, all_of, put, to

RETRY = RetryPolicy(first=300, longest=1200, jitter=1e-9)

some = st.integers(0, 1000)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.integers(0, 3), min_size=1, max_size=4)),
        st.tuples(st.just("claim"), st.tuples(st.integers(1, 5), st.integers(1, 3))),
        st.tuples(st.sampled_from(["deliver", "deliver one", "defer", "give back"]), some),
        st.tuples(st.just("advance"), st.sampled_from([0.0, 101.0, 307.0, 1009.0])),
        st.tuples(st.sampled_from(["hold", "release", "retry", "remove"]), some),
        st.tuples(st.just("open again"), st.none()),
    ),
    max_size=40,
)


@dataclass
class Waiting:
    """A recipient who is pending."""

    destination: str
    next_attempt: float
    attempts: int = 0


@dataclass
class Model:
    """What should be in the queue."""

    clock: Clock = field(default_factory=Clock)
    waiting: dict[tuple[str, int], Waiting] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    claims: list[Claim] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    is_changed: bool = False
    """Whether somebody else has changed something, which the next claim may only notice."""

    def claimed(self) -> set[tuple[str, int]]:
        return {(claim.message.id, one.position) for claim in self.claims for one in claim.recipients}

    def due(self) -> set[tuple[str, int]]:
        """Who is to be claimed."""
        ready = {key for key, one in self.waiting.items() if one.next_attempt <= self.clock.now}
        return {key for key in ready - self.claimed() if key[0] not in self.held}

    def out_at(self, destination: str) -> int:
        return sum(claim.destination == destination for claim in self.claims)

    def check(self, found: list[Claim], limit: int, per_destination: int) -> None:
        """What has been claimed was due, and nothing else was that could have been."""
        due = self.due()
        keys = [(claim.message.id, one.position) for claim in found for one in claim.recipients]
        assert len(set(keys)) == len(keys)
        assert set(keys) <= due
        assert len(found) <= limit
        before = {claim.destination: self.out_at(claim.destination) for claim in found}
        self.claims += found
        for claim in found:
            assert all(
                self.waiting[claim.message.id, one.position].destination == claim.destination
                for one in claim.recipients
            )
            assert self.out_at(claim.destination) <= max(per_destination, before[claim.destination])
        if len(found) < limit and not self.is_changed:
            left = {self.waiting[key].destination for key in due - set(keys)}
            assert all(self.out_at(destination) >= per_destination for destination in left)
        self.is_changed = False

    def defer(self, claim: Claim) -> None:
        for one in claim.recipients:
            waiting = self.waiting.get((claim.message.id, one.position))
            if waiting is not None:
                waiting.attempts += 1
                waiting.next_attempt = self.clock.now + RETRY.pause(waiting.attempts, 0)


@settings(max_examples=60)
@given(STEPS)
def test_a_queue_does_what_its_model_says(steps: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(run, Path(folder), steps)


async def run(folder: Path, steps: list[tuple[str, Any]]) -> None:
    model = Model()
    rest = iter(steps)
    is_over = False
    while not is_over:
        model.claims.clear()  # a relay that has ended has none
        async with open_queue(folder, clock=model.clock, retry=RETRY) as queue:
            for what, value in rest:
                if what == "open again":
                    break
                await take(queue, folder, model, what, value)
            else:
                is_over = True
                await drain(queue, model)


async def take(queue: Queue, folder: Path, model: Model, what: str, value: Any) -> None:
    """Do one thing to the queue and to the model."""
    if what == "put":
        names = [f"d{number}.example" for number in value]
        id = await put(queue, recipients=to(*(f"a{place}@{name}" for place, name in enumerate(names))))
        model.ids.append(id)
        for place, name in enumerate(names):
            model.waiting[id, place] = Waiting(name, model.clock.now)
    elif what == "claim":
        model.check(await queue.claim(value[0], per_destination=value[1]), *value)
    elif what == "advance":
        model.clock.now += value
    elif what in ("hold", "release", "retry", "remove"):
        if model.ids:
            administer(folder, model, what, model.ids[value % len(model.ids)])
    elif model.claims:
        await end(queue, model, what, model.claims.pop(value % len(model.claims)))


async def end(queue: Queue, model: Model, what: str, claim: Claim) -> None:
    """Let go of a claim."""
    if what == "give back":
        queue.release(claim)
    elif what == "defer":
        await queue.record(claim, all_of(claim, State.PENDING, LATER))
        model.defer(claim)
    else:
        served = claim.recipients[:1] if what == "deliver one" else claim.recipients
        await queue.record(claim, [Outcome(one.position, State.DELIVERED, OK) for one in served])
        for one in served:
            model.waiting.pop((claim.message.id, one.position), None)


def administer(folder: Path, model: Model, what: str, id: str) -> None:
    """What is done from another process, at least from another connection."""
    mine = [one for (of, _), one in model.waiting.items() if of == id]
    with open_admin(folder) as admin:
        changed = getattr(admin, what)(Selection([parse_id(id)]))
    is_held = id in model.held
    is_of_use = {"release": is_held, "retry": not is_held}.get(what, True)
    assert bool(changed) == (bool(mine) and is_of_use)
    model.is_changed = True
    if what == "hold" and mine:
        model.held.add(id)
    elif what == "remove":
        model.held.discard(id)
        for key in [key for key in model.waiting if key[0] == id]:
            del model.waiting[key]
    elif what == "release" and id in model.held:
        model.held.discard(id)
        for one in mine:
            one.next_attempt = 0
    elif what == "retry" and id not in model.held:
        for one in mine:
            one.next_attempt = 0


async def drain(queue: Queue, model: Model) -> None:
    """In the end everything that is not held is delivered."""
    while model.claims:
        await end(queue, model, "give back", model.claims.pop())
    for _ in range(2):  # the first claim notices what others have changed
        model.clock.now += RETRY.longest
        while True:
            while model.claims:
                await end(queue, model, "deliver", model.claims.pop())
            model.check(await queue.claim(100), 100, 20)
            if not model.claims:
                break
    assert {id for id, _ in model.waiting} <= model.held
