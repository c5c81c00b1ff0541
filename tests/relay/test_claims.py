"""Which messages a relay gets, of many: fairly, and by indexes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import trio
from sqlalchemy.dialects import sqlite

from asyncnet.relay import claiming
from asyncnet.relay.limits import QueueLimits
from asyncnet.relay.messages import Claim, format_id
from asyncnet.relay.queue import Queue, open_queue
from tests.relay.use import Clock, deferred, delivered, put, to


def domains(claims: list[Claim]) -> list[str]:
    return [claim.destination for claim in claims]


class TestFairness:
    async def test_a_destination_has_no_more_than_its_share(self, queue: Queue) -> None:
        for _ in range(5):
            await put(queue, recipients=to("a@down.example"))
        await put(queue, recipients=to("a@up.example"))
        assert domains(await queue.claim(10, per_destination=2)) == ["down.example"] * 2 + ["up.example"]
        assert await queue.claim(10, per_destination=2) == []

    async def test_a_destination_that_has_its_share_does_not_hide_others(self, queue: Queue) -> None:
        for number in range(5):
            await put(queue, recipients=to("a@down.example", f"a@up{number}.example"))
        found: list[str] = []
        while some := await queue.claim(2, per_destination=1):
            assert len(some) <= 2
            found += domains(some)
        assert sorted(found) == ["down.example", *(f"up{number}.example" for number in range(5))]

    async def test_nor_do_those_of_which_all_is_claimed(self, queue: Queue) -> None:
        for number in range(7):
            await put(queue, recipients=to(f"a@x{number}.example"))
        found: list[str] = []
        while some := await queue.claim(3):
            found += domains(some)
        assert len(set(found)) == len(found) == 7

    async def test_whoever_looks_at_some_destinations_alone_finds_what_is_there(self, queue: Queue) -> None:
        for name in ("a", "b", "c"):
            await put(queue, recipients=to(f"x@{name}.example"))
        assert domains(await queue.claim(10, only=["b.example", "d.example"])) == ["b.example"]
        assert await queue.claim(10, only=[]) == []
        assert domains(await queue.claim(10)) == ["a.example", "c.example"]

    async def test_the_longest_overdue_comes_first(self, queue: Queue, clock: Clock) -> None:
        for name in ("c", "a", "b"):
            await put(queue, recipients=to(f"x@{name}.example"))
            clock.now += 1
        assert domains(await queue.claim(10)) == ["c.example", "a.example", "b.example"]

    async def test_the_recipients_of_a_message_go_together_as_far_as_a_server_takes_them(self, tmp_path: Path) -> None:
        async with open_queue(tmp_path, limits=QueueLimits(recipients=3)) as queue:
            await put(queue, recipients=to(*(f"a{number}@x.example" for number in range(7)), "b@y.example"))
            claims = await queue.claim(10)
            assert [[one.position for one in claim.recipients] for claim in claims] == [[0, 1, 2], [3, 4, 5], [6], [7]]

    async def test_what_arrives_at_a_destination_of_which_all_is_claimed_is_found(self, queue: Queue) -> None:
        await put(queue, recipients=to("a@x.example"))
        assert len(await queue.claim(10)) == 1
        assert await queue.claim(10) == []
        await put(queue, recipients=to("b@x.example"))
        assert len(await queue.claim(10)) == 1

    async def test_what_becomes_due_there_is_found(self, queue: Queue, clock: Clock) -> None:
        await put(queue, recipients=to("a@x.example"))
        [claim] = await queue.claim(10)
        await deferred(queue, claim)
        await put(queue, recipients=to("b@x.example"))
        assert len(await queue.claim(10)) == 1
        clock.now += 300
        assert len(await queue.claim(10)) == 1

    async def test_what_is_given_back_after_all_else_there_was_done_with_is_found(self, queue: Queue) -> None:
        for name in ("a", "b"):
            await put(queue, recipients=to(f"{name}@x.example"))
        first, second = await queue.claim(10)
        await delivered(queue, second)
        assert await queue.claim(10) == []
        queue.release(first)
        assert await queue.claim(10) == [first]

    async def test_what_another_process_makes_due_there_is_found(
        self, queue: Queue, clock: Clock, tmp_path: Path
    ) -> None:
        await put(queue, recipients=to("a@x.example"))
        [claim] = await queue.claim(10)
        await deferred(queue, claim)
        await put(queue, recipients=to("b@x.example"))
        assert len(await queue.claim(10)) == 1
        assert await queue.claim(10) == []
        with sqlite3.connect(tmp_path / "queue.db") as database:
            database.execute("UPDATE recipients SET next_attempt = 0 WHERE local = 'a'")
        database.close()
        await queue.claim(10)  # it notices
        await queue.wait()
        assert len(await queue.claim(10)) == 1

    async def test_claims_by_two_tasks_at_once_do_not_overlap(self, queue: Queue) -> None:
        for number in range(20):
            await put(queue, recipients=to(f"a@x{number % 4}.example"))
        found: list[Claim] = []

        async def work() -> None:
            while some := await queue.claim(3):
                found.extend(some)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(work)
        assert len(found) == len({claim.message.id for claim in found}) == 20

    async def test_while_all_is_recorded_and_comes_in_at_once_everything_is_delivered_once(self, queue: Queue) -> None:
        sent: list[str] = []
        expected: list[str] = []

        async def come(number: int) -> None:
            for _ in range(5):
                expected.append(await put(queue, recipients=to(f"a@x{number % 3}.example")))

        async def deliver(claim: Claim) -> None:
            sent.append(claim.message.id)
            await delivered(queue, claim)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(come, number)
            while len(sent) < 50:
                for claim in await queue.claim(4, per_destination=2):
                    nursery.start_soon(deliver, claim)
                await queue.wait()
        assert sorted(sent) == sorted(expected)


class TestWaiting:
    @pytest.fixture(autouse=True)
    def often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asyncnet.relay.queue.WATCH_EVERY", 0.001)

    async def test_it_ends_when_a_message_comes(self, queue: Queue) -> None:
        await queue.claim(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.wait)
            await put(queue)
        assert len(await queue.claim(10)) == 1

    async def test_it_ends_when_something_becomes_due(self, queue: Queue, clock: Clock) -> None:
        await put(queue)
        [claim] = await queue.claim(10)
        await deferred(queue, claim)
        assert await queue.claim(10) == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.wait)
            clock.now += 300
        assert len(await queue.claim(10)) == 1

    async def test_it_ends_when_there_was_more_than_was_wanted(self, queue: Queue) -> None:
        await put(queue)
        await put(queue)
        assert len(await queue.claim(1)) == 1
        await queue.wait()
        assert len(await queue.claim(1)) == 1

    async def test_it_ends_when_a_claim_is_given_back(self, queue: Queue) -> None:
        await put(queue)
        [claim] = await queue.claim(10)
        await queue.claim(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.wait)
            queue.release(claim)
        assert await queue.claim(10) == [claim]

    async def test_it_ends_when_another_process_has_changed_something(self, queue: Queue, tmp_path: Path) -> None:
        await put(queue)
        [claim] = await queue.claim(10)
        await deferred(queue, claim)
        assert await queue.claim(10) == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.wait)
            with sqlite3.connect(tmp_path / "queue.db") as database:
                database.execute("UPDATE recipients SET next_attempt = 0")
                database.execute("UPDATE destinations SET next_attempt = 0")
            database.close()
        assert len(await queue.claim(10)) == 1

    async def waits(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> bool:
        """Whether `wait` looks ten times, and goes on waiting."""
        looked = 0
        submit = queue._writer.submit

        async def counted(request: object) -> None:
            nonlocal looked
            looked += 1
            if looked == 10:
                scope.cancel()
            await submit(request)  # type: ignore[arg-type]

        with monkeypatch.context() as counting, trio.CancelScope() as scope:
            counting.setattr(queue._writer, "submit", counted)
            await queue.wait()
        return looked == 10

    async def test_a_queue_in_which_nothing_happens_ends_no_wait(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await put(queue)
        [claim] = await queue.claim(10)
        await deferred(queue, claim)
        assert await queue.claim(10) == []
        assert await self.waits(queue, monkeypatch)

    async def test_nor_does_a_destination_that_has_its_share_and_more_that_is_due(
        self, queue: Queue, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await put(queue)
        [claim] = await queue.claim(10, per_destination=1)
        await deferred(queue, claim)
        await put(queue)
        assert len(await queue.claim(10, per_destination=1)) == 1
        clock.now += 300
        assert await queue.claim(10, per_destination=1) == []
        assert await self.waits(queue, monkeypatch)


def explained(database: sqlite3.Connection, statement: object) -> str:
    text = str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))  # type: ignore[attr-defined]
    return "; ".join(row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {text}"))


def count_destinations(folder: Path) -> int:
    with sqlite3.connect(folder / "queue.db") as database:
        [[count]] = database.execute("SELECT count(*) FROM destinations")
    database.close()
    return int(count)


COUNT = 200_000


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spool with so many messages, nearly all of them to one destination, and due."""
    folder = tmp_path_factory.mktemp("full")

    async def begin() -> None:
        async with open_queue(folder) as queue:
            await put(queue, recipients=to("a@down.example"))
            await put(queue, recipients=to("z@up.example"))

    trio.run(begin)
    with sqlite3.connect(folder / "queue.db") as database:
        template = "WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < ?)"
        columns = "sender_local, sender_domain, envelope, client, arrived, expires, size, checksum, in_file, held"
        database.execute(
            f"INSERT INTO messages (key, {columns}) {template} SELECT k, {columns} FROM n, messages"
            " WHERE key = (SELECT min(key) FROM messages)",
            [COUNT],
        )
        database.execute(
            "INSERT INTO contents SELECT key, data FROM messages, contents"
            f" WHERE key <= {COUNT} AND message = (SELECT min(message) FROM contents)"
        )
        columns = "position, local, domain, notify, original, destination, state, attempts, next_attempt, warned"
        database.execute(
            f"INSERT INTO recipients (message, {columns}) {template} SELECT k, {columns} FROM n, recipients"
            " WHERE destination = 'down.example'",
            [COUNT],
        )
    database.close()
    return folder


class TestManyMessages:
    async def test_where_others_have_removed_all_of_it_each_look_is_short(self, tmp_path: Path) -> None:
        """Else one would hold the database for as long as it takes, and ask more than SQLite can be asked at once."""
        async with open_queue(tmp_path) as queue:
            await put(queue, recipients=to("a@there.example"))
            with sqlite3.connect(tmp_path / "queue.db") as database:
                database.execute(
                    "WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < 1000)"
                    " INSERT INTO destinations SELECT 'gone' || k || '.example', k FROM n"
                )
            database.close()
            looks, left = 1, 1001
            while not (found := await queue.claim(200)):
                before, left = left, await trio.to_thread.run_sync(count_destinations, tmp_path)
                assert before - claiming.LOOKED_AT <= left < before
                looks += 1
                await queue.wait()
            assert looks > 1000 // claiming.LOOKED_AT
            assert domains(found) == ["there.example"]
            assert await trio.to_thread.run_sync(count_destinations, tmp_path) == 1

    async def test_a_claim_takes_what_it_wants_and_the_dead_destination_hides_nothing(self, full: Path) -> None:
        async with open_queue(full) as queue:
            claims = await queue.claim(100, per_destination=20)
        assert domains(claims) == ["down.example"] * 20 + ["up.example"]
        assert [claim.message.id for claim in claims[:20]] == [format_id(key) for key in range(1, 21)]

    async def test_opening_and_claiming_read_few_rows(self, full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many there are: the steps of SQLite's machine are counted."""
        steps = 0
        real = sqlite3.connect

        def counted(*args: object, **options: object) -> sqlite3.Connection:
            def count() -> None:
                nonlocal steps
                steps += 1

            connection: sqlite3.Connection = real(*args, **options)  # type: ignore[call-overload]
            connection.set_progress_handler(count, 1)
            return connection

        monkeypatch.setattr(sqlite3, "connect", counted)
        async with open_queue(full) as queue:
            opening = steps
            await queue.claim(100, per_destination=20)
        assert 0 < opening < 2_000
        assert 0 < steps - opening < 20_000

    def test_every_statement_goes_by_an_index(self, full: Path) -> None:
        with sqlite3.connect(full / "queue.db") as database:
            plan = explained(database, claiming.due_destinations(1e12, ["down.example"], 10))
            assert plan == "SEARCH destinations USING COVERING INDEX destinations_due (next_attempt<?)"
            plan = explained(database, claiming.due_recipients("down.example", 1e12, 10))
            assert plan == "SEARCH recipients USING INDEX recipients_due (destination=? AND next_attempt<?)"
        database.close()
