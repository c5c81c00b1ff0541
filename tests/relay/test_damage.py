"""What is not as it came in is set aside and reported, and never deleted."""

from __future__ import annotations

import logging
import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncnet.errors import ConfigurationError
from asyncnet.relay.admin import open_admin
from asyncnet.relay.messages import DamagedContent, Gone, UnreadableContent, parse_id
from asyncnet.relay.queue import Queue, open_queue
from asyncnet.relay.rows import UNREADABLE
from tests.relay.use import (
    LONG,
    content,
    delivered,
    put,
    to,
)


class TestDamage:
    async def damaged(self, queue: Queue, caplog: pytest.LogCaptureFixture) -> str:
        """Claim and read the only message; the reason why that fails."""
        [claim] = await queue.claim(10)
        pieces = []
        with pytest.raises(DamagedContent), caplog.at_level(logging.ERROR, "asyncnet"):
            async for piece in queue.read(claim):
                pieces.append(piece)
        assert len(b"".join(pieces)) < claim.message.size  # so that nobody takes it for whole
        assert claim.message.id in caplog.text
        assert await queue.claim(10) == []
        return caplog.records[-1].getMessage().rpartition(": ")[2]

    def reason(self, folder: Path) -> str | None:
        with sqlite3.connect(folder / "queue.db") as database:
            [[reason]] = database.execute("SELECT damage FROM messages")
        database.close()
        return reason

    @pytest.mark.parametrize("size", [LONG, 1_000_000])
    @pytest.mark.parametrize("how", ["truncated", "emptied", "longer", "flipped first", "flipped last"])
    async def test_a_content_file_that_was_changed_is_set_aside(
        self, queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str, size: int
    ) -> None:
        path = tmp_path / "content" / await put(queue, b"x" * size)
        data = bytearray(path.read_bytes())
        match how:
            case "truncated":
                del data[-1:]
            case "emptied":
                data.clear()
            case "longer":
                data += b"x"
            case "flipped first":
                data[0] ^= 1
            case "flipped last":
                data[-1] ^= 1
        path.write_bytes(data)
        if how == "longer":
            [claim] = await queue.claim(10)
            with pytest.raises(DamagedContent):
                await content(queue, claim)
        else:
            assert await self.damaged(queue, caplog) == "its content file has changed"
        assert path.read_bytes() == data  # nothing is deleted
        assert self.reason(tmp_path) == "its content file has changed"

    async def test_one_that_is_missing_is_set_aside(
        self, queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "content" / await put(queue, b"x" * LONG)).unlink()
        assert await self.damaged(queue, caplog) == "its content file is missing"
        assert self.reason(tmp_path) == "its content file is missing"

    async def test_a_content_in_the_database_that_was_changed_is_set_aside(
        self, queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        await put(queue, b"short")
        with sqlite3.connect(tmp_path / "queue.db") as database:
            database.execute("UPDATE contents SET data = x'00'")
        database.close()
        assert await self.damaged(queue, caplog) == "its content in the database has changed"

    async def test_a_byte_that_flips_in_the_databases_file_is_noticed(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with open_queue(tmp_path) as queue:
            await put(queue, b"before\r\n" + b"MARK" * 100)
        data = bytearray((tmp_path / "queue.db").read_bytes())
        data[data.index(b"MARKMARK") + 50] ^= 1
        (tmp_path / "queue.db").write_bytes(data)
        async with open_queue(tmp_path) as queue:
            assert await self.damaged(queue, caplog) == "its content in the database has changed"

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE messages SET client = '{\"peer\":' WHERE key = ?",
            "UPDATE messages SET envelope = '[\"9BIT\",false,null,null,null]' WHERE key = ?",
            "UPDATE messages SET envelope = '7' WHERE key = ?",
            "UPDATE messages SET client = '[]' WHERE key = ?",
            "UPDATE recipients SET state = 'pendinf', next_attempt = 0 WHERE message = ?",
            "UPDATE recipients SET reply = '[]' WHERE message = ?",
            "UPDATE recipients SET reply = CAST(x'ff' AS TEXT) WHERE message = ?",
            "UPDATE recipients SET local = CAST(x'616eee61' AS TEXT) WHERE message = ?",
            "UPDATE recipients SET local = x'61' WHERE message = ?",
            "UPDATE recipients SET domain = '\u2603 .example' WHERE message = ?",
            "UPDATE messages SET sender_domain = '\u2603 .example' WHERE key = ?",
            "UPDATE recipients SET attempts = 'x' WHERE message = ?",
            "UPDATE recipients SET last_attempt = 'x' WHERE message = ?",
            "UPDATE messages SET sender_domain = CAST(x'ff' AS TEXT) WHERE key = ?",
            "UPDATE messages SET expires = 'x' WHERE key = ?",
            "UPDATE contents SET data = 'text' WHERE message = ?",
            "DELETE FROM messages WHERE key = ?",
        ],
    )
    async def test_a_row_that_makes_no_sense_keeps_no_other_message_waiting(
        self, queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
    ) -> None:
        ids = [await put(queue) for _ in range(3)]
        with sqlite3.connect(tmp_path / "queue.db") as database:
            assert database.execute(damage, [parse_id(ids[1])]).rowcount == 1
        database.close()
        assert [claim.message.id for claim in await queue.claim(10)] == [ids[0], ids[2]]
        assert f"{ids[1]} was set aside" in caplog.text
        caplog.clear()
        assert await queue.claim(10) == []
        assert not caplog.records
        with open_admin(tmp_path) as admin:
            told = {message.id: message.damage for message, _ in admin.find()}
        assert told.get(ids[1], UNREADABLE) == UNREADABLE
        assert told[ids[0]] is told[ids[2]] is None

    async def test_a_recipient_whose_row_makes_no_sense_keeps_the_message(self, queue: Queue, tmp_path: Path) -> None:
        id = await put(queue, recipients=to("a@x.example", "b@y.example"))
        with sqlite3.connect(tmp_path / "queue.db") as database:
            database.execute("UPDATE recipients SET state = 'pendinf' WHERE local = 'b'")
        database.close()
        (claim,) = await queue.claim(10)
        assert not await delivered(queue, claim)
        with open_admin(tmp_path) as admin:
            assert [message.id for message, _ in admin.find()] == [id]

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE recipients SET destination = CAST(x'ff' AS TEXT)",
            "UPDATE recipients SET destination = 'elsewhere.example'",
            "UPDATE recipients SET next_attempt = 'x'",
            "UPDATE destinations SET name = CAST(x'ff' AS TEXT)",
            "UPDATE destinations SET name = 'elsewhere.example'",
            "UPDATE destinations SET next_attempt = 'x'",
            "DELETE FROM destinations",
        ],
    )
    async def test_what_cannot_be_found_where_it_was_is_found_all_the_same(self, tmp_path: Path, damage: str) -> None:
        async with open_queue(tmp_path) as queue:
            id = await put(queue)
        with sqlite3.connect(tmp_path / "queue.db") as database:
            assert database.execute(damage).rowcount == 1
        database.close()
        async with open_queue(tmp_path) as queue:
            while not (claims := await queue.claim(10)):
                await queue.wait()
        assert [claim.message.id for claim in claims] == [id]

    @pytest.mark.parametrize("key", ["1.5", "x'ff'"])
    async def test_a_recipient_of_no_message_keeps_no_other_waiting(
        self, queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str
    ) -> None:
        ids = [await put(queue) for _ in range(3)]
        with sqlite3.connect(tmp_path / "queue.db") as database:
            database.execute(f"UPDATE recipients SET message = {key} WHERE message = ?", [parse_id(ids[1])])
        database.close()
        assert {claim.message.id for claim in await queue.claim(10)} == {ids[0], ids[2]}
        assert "was set aside" in caplog.text

    @pytest.mark.parametrize("name", ["'x.example'", "CAST(x'ff' AS TEXT)"])
    async def test_an_index_that_has_something_else_than_its_table_is_made_anew(
        self, queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
    ) -> None:
        await put(queue, recipients=to("a@x.example"))
        (claim,) = await queue.claim(10)
        await delivered(queue, claim)
        id = await put(queue, recipients=to("a@there.example"))
        forget = "DELETE FROM sqlite_schema WHERE name = 'destinations_due'"
        with sqlite3.connect(tmp_path / "queue.db") as database:
            index = database.execute("SELECT * FROM sqlite_schema WHERE name = 'destinations_due'").fetchone()
            database.execute(f"UPDATE destinations SET name = {name} WHERE name = 'x.example'")
            database.executescript(f"PRAGMA writable_schema = 1; {forget};")
        database.close()
        with sqlite3.connect(tmp_path / "queue.db") as database:
            database.execute("DELETE FROM destinations")
            database.execute("PRAGMA writable_schema = 1")
            database.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", index)
        database.close()
        while not (claims := await queue.claim(10)):
            await queue.wait()
        assert [claim.message.id for claim in claims] == [id]
        assert "made anew" in caplog.text
        caplog.clear()
        assert await queue.claim(10) == []
        assert not caplog.records

    async def test_it_stays_aside_when_the_queue_is_opened_again(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with open_queue(tmp_path) as queue:
            (tmp_path / "content" / await put(queue, b"x" * LONG)).unlink()
            await self.damaged(queue, caplog)
        async with open_queue(tmp_path) as queue:
            assert await queue.claim(10) == []
        assert self.reason(tmp_path) is not None

    @pytest.mark.parametrize("size", [10, LONG])
    async def test_one_that_was_removed_by_somebody_is_no_damage(
        self, queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int
    ) -> None:
        id = await put(queue, b"x" * size)
        [claim] = await queue.claim(10)
        with sqlite3.connect(tmp_path / "queue.db") as database:
            database.execute("DELETE FROM messages")
            database.execute("DELETE FROM recipients")
        database.close()
        if size == LONG:
            (tmp_path / "content" / id).unlink()
            with pytest.raises(Gone):
                await content(queue, claim)
        assert await delivered(queue, claim)
        assert not caplog.records


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """That of a queue with some messages, all of it in one file."""
    folder = tmp_path_factory.mktemp("whole")

    async def fill() -> None:
        async with open_queue(folder) as queue:
            for number in range(12):
                await put(queue, b"x" * 200, to(f"a@x{number % 5}.example", f"b@y{number}.example"))

    trio.run(fill)
    with sqlite3.connect(folder / "queue.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return (folder / "queue.db").read_bytes()


@settings(max_examples=15)
@given(places=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 7)), min_size=1, max_size=3))
@example(places=[(24003, 0)])  # a message's key that becomes a fraction
@example(places=[(3424, 7)])  # a column's name
@example(places=[(3799, 7), (7606, 5)])  # what SQLite then says is no text
@example(places=[(5349, 5), (7535, 4), (6205, 6)])  # messages that are found for ever
def test_whatever_bits_flip_a_queue_is_refused_or_goes_on(database: bytes, places: list[tuple[int, int]]) -> None:
    changed = bytearray(database)
    for place, bit in places:
        changed[place % len(changed)] ^= 1 << bit
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "queue.db").write_bytes(changed)
        with suppress(ConfigurationError, OSError):
            trio.run(deliver_all, Path(folder))
        with suppress(ConfigurationError, OSError), open_admin(folder) as admin:
            list(admin.find())


async def deliver_all(folder: Path) -> None:
    async with open_queue(folder) as queue:
        for _ in range(5):
            for claim in await queue.claim(100):
                try:
                    await content(queue, claim)
                except (DamagedContent, Gone, UnreadableContent):
                    continue
                await delivered(queue, claim)
