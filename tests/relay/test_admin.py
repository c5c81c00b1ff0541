"""What an administrator does to a queue in which a relay is at work."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncnet.errors import ConfigurationError
from asyncnet.relay import admin as admin_module
from asyncnet.relay import schema
from asyncnet.relay.admin import Listed, QueueAdmin, Selection, open_admin
from asyncnet.relay.messages import DamagedContent, format_id, parse_id
from asyncnet.relay.queue import Queue, open_queue
from asyncnet.relay.sql import Connection
from tests.relay.use import ENVELOPE, LATER, LONG, Clock, content, deferred, delivered, files, put, to


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncnet.relay.queue.WATCH_EVERY", 0.001)


@pytest.fixture
def admin(queue: Queue, tmp_path: Path) -> Iterator[QueueAdmin]:
    with open_admin(tmp_path) as opened:
        yield opened


def one(id: str) -> Selection:
    return Selection([parse_id(id)])


async def test_what_is_told_is_what_came_in(queue: Queue, admin: QueueAdmin) -> None:
    id = await put(queue, b"12345", to("a@x.example", "b@y.example"))
    [(message, recipients)] = admin.find()
    assert (message.id, message.envelope, message.size) == (id, ENVELOPE, 5)
    assert [str(one.recipient.address) for one in recipients] == ["a@x.example", "b@y.example"]


async def test_all_are_told_in_their_order_however_many(
    queue: Queue, admin: QueueAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_module, "STEP", 3)
    ids = [await put(queue, recipients=to(f"a@x{number % 2}.example")) for number in range(10)]
    assert [message.id for message, _ in admin.find()] == ids
    assert [message.id for message, _ in admin.find(Selection(destination="x1.example"))] == ids[1::2]
    keys = [parse_id(id) for id in (ids[3], ids[5], ids[3])]
    assert [message.id for message, _ in admin.find(Selection(keys))] == [ids[3], ids[5]]
    assert len(admin.remove(Selection(destination="x1.example"))) == 5
    assert [message.id for message, _ in admin.find()] == ids[::2]


@pytest.mark.parametrize("selection", [Selection(), Selection(destination="x.example")])
async def test_looking_waits_for_no_relay_and_no_relay_waits_for_it(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selection: Selection
) -> None:
    monkeypatch.setattr("asyncnet.relay.database.LOCK_PATIENCE", 0)
    await put(queue, recipients=to("a@x.example"))
    relay = sqlite3.connect(tmp_path / "queue.db", timeout=0, isolation_level=None)
    relay.execute("BEGIN IMMEDIATE")
    with open_admin(tmp_path) as admin:
        assert len(list(admin.find(selection))) == 1
        relay.execute("ROLLBACK")
        read = admin_module._read

        def read_while_it_writes(connection: Connection, keys: list[int]) -> list[Listed]:
            found = read(connection, keys)
            relay.execute("BEGIN IMMEDIATE")
            relay.execute("ROLLBACK")
            return found

        monkeypatch.setattr(admin_module, "_read", read_while_it_writes)
        assert len(list(admin.find(selection))) == 1
    relay.close()


async def test_what_failed_is_tried_at_once(queue: Queue, admin: QueueAdmin, clock: Clock) -> None:
    id = await put(queue)
    [claim] = await queue.claim(10)
    await deferred(queue, claim)
    assert await queue.claim(10) == []
    [(_, [recipient])] = admin.find()
    assert recipient.reply == LATER
    assert admin.retry(one(id)) == [parse_id(id)]
    await queue.wait()
    clock.now -= 100_000  # by the relay's clock, whatever the administrator's shows
    [claim] = await queue.claim(10)
    assert claim.recipients[0].attempts == 1


async def test_what_is_held_waits_until_it_is_released(queue: Queue, admin: QueueAdmin) -> None:
    id = await put(queue)
    assert admin.hold(one(id)) == [parse_id(id)]
    assert await queue.claim(10) == []
    admin.retry(one(id))
    assert await queue.claim(10) == []
    [(message, _)] = admin.find()
    assert message.held
    admin.release(one(id))
    await queue.wait()
    assert len(await queue.claim(10)) == 1


async def test_what_is_held_while_it_is_sent_waits_behind_that(queue: Queue, admin: QueueAdmin, clock: Clock) -> None:
    id = await put(queue)
    [claim] = await queue.claim(10)
    admin.hold(one(id))
    assert not await deferred(queue, claim)
    clock.now += 1_000_000
    assert await queue.claim(10) == []
    admin.release(one(id))
    await queue.wait()
    [claim] = await queue.claim(10)
    admin.hold(one(id))
    assert await delivered(queue, claim)
    assert list(admin.find()) == []


async def test_releasing_what_is_not_held_changes_nothing(queue: Queue, admin: QueueAdmin) -> None:
    id = await put(queue)
    [claim] = await queue.claim(10)
    await deferred(queue, claim)
    admin.release(one(id))
    assert await queue.claim(10) == []


async def test_what_is_removed_is_gone_with_its_file(queue: Queue, admin: QueueAdmin, tmp_path: Path) -> None:
    short, long, other = await put(queue), await put(queue, b"x" * LONG), await put(queue, b"y" * LONG)
    removed = admin.remove(Selection([parse_id(short), parse_id(long), 12345]))
    assert removed == [parse_id(short), parse_id(long)]
    assert files(tmp_path) == [other]
    [claim] = await queue.claim(10)
    assert await content(queue, claim) == b"y" * LONG


async def test_what_is_removed_while_it_is_sent_comes_to_its_end(
    queue: Queue, admin: QueueAdmin, tmp_path: Path
) -> None:
    id = await put(queue, b"x" * LONG)
    [claim] = await queue.claim(10)
    reading = queue.read(claim)
    first = await anext(reading)
    admin.remove(one(id))
    assert first + b"".join([piece async for piece in reading]) == b"x" * LONG
    assert await delivered(queue, claim)
    assert await queue.claim(10) == []


async def test_what_was_set_aside_is_tried_again_when_it_is_whole_again(
    queue: Queue, admin: QueueAdmin, tmp_path: Path
) -> None:
    id = await put(queue, b"x" * LONG)
    path = tmp_path / "content" / id
    path.rename(tmp_path / "elsewhere")
    [claim] = await queue.claim(10)
    with pytest.raises(DamagedContent):
        await content(queue, claim)
    [(message, _)] = admin.find()
    assert message.damage == "its content file is missing"
    (tmp_path / "elsewhere").rename(path)
    admin.retry(one(id))
    await queue.wait()
    [claim] = await queue.claim(10)
    assert await content(queue, claim) == b"x" * LONG


async def test_all_of_the_queue_can_be_meant(queue: Queue, admin: QueueAdmin) -> None:
    ids = [await put(queue, recipients=to(f"a@x{number}.example")) for number in range(5)]
    assert [format_id(key) for key in admin.hold(Selection())] == ids
    assert await queue.claim(10) == []
    admin.release(Selection())
    await queue.wait()
    assert len(await queue.claim(10)) == 5


def test_where_no_queue_is_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no queue has been there"), open_admin(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


async def test_without_a_relay_it_works_as_well(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        id = await put(queue)
    with open_admin(tmp_path) as admin:
        assert [message.id for message, _ in admin.find()] == [id]


async def test_an_older_queue_is_left_to_the_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_queue(tmp_path) as queue:
        await put(queue)
    monkeypatch.setattr(schema, "VERSION", 2)
    with pytest.raises(ConfigurationError, match="of version 1, which the relay updates"), open_admin(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "queue.db") as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
    database.close()
