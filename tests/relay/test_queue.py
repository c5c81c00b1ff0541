"""The queue as servers and relays see it."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from asyncnet.errors import ConfigurationError
from asyncnet.relay import queue as queue_module
from asyncnet.relay import schema
from asyncnet.relay.admin import open_admin
from asyncnet.relay.limits import QueueLimits
from asyncnet.relay.messages import DamagedContent, Gone, Outcome, State, format_id, parse_id
from asyncnet.relay.queue import Queue, open_queue
from asyncnet.relay.retry import RetryPolicy
from asyncnet.relay.rows import UNREADABLE
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.delivery import Refused
from asyncnet.smtp.envelope import Envelope, Recipient
from tests.relay.use import (
    BOB,
    CLIENT,
    ENVELOPE,
    LATER,
    LONG,
    NEVER,
    OK,
    Clock,
    all_of,
    content,
    deferred,
    delivered,
    files,
    put,
    to,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def queue(tmp_path: Path, clock: Clock) -> AsyncIterator[Queue]:
    async with open_queue(tmp_path, clock=clock) as opened:
        yield opened


class TestComingIn:
    @pytest.mark.parametrize("size", [0, 1, 65536, 65537, LONG, 1_000_000])
    async def test_a_message_comes_out_as_it_came_in(self, queue: Queue, clock: Clock, size: int) -> None:
        data = os.urandom(size)
        recipients = [BOB, Recipient(MailAddress("postmaster", ""))]
        assert await put(queue, data, recipients)
        claims = await queue.claim(10)
        assert [claim.destination for claim in claims] == ["", "xn--bcher-kva.example"]
        assert [one.recipient for claim in reversed(claims) for one in claim.recipients] == recipients
        for claim in claims:
            message = claim.message
            assert (message.envelope, message.client, message.size) == (ENVELOPE, CLIENT, size)
            assert (message.arrived, message.expires) == (clock.now, clock.now + queue.retry.expiry)
            assert await content(queue, claim) == data

    async def test_it_is_still_there_when_the_queue_is_opened_again(self, tmp_path: Path) -> None:
        long = os.urandom(LONG)
        async with open_queue(tmp_path) as queue:
            ids = [await put(queue, b"short"), await put(queue, long)]
        async with open_queue(tmp_path) as queue:
            claims = await queue.claim(10)
            assert [claim.message.id for claim in claims] == ids
            assert [await content(queue, claim) for claim in claims] == [b"short", long]

    async def test_the_reply_names_the_message(self, queue: Queue) -> None:
        transaction = await queue.start(ENVELOPE, CLIENT)
        await transaction.add(BOB)
        assert await transaction.commit() == f"queued as {transaction.id}"
        [claim] = await queue.claim(10)
        assert claim.message.id == transaction.id

    async def test_later_messages_have_greater_keys_even_if_the_clock_goes_back(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        keys = []
        for _ in range(3):
            clock.now -= 10_000
            async with open_queue(tmp_path, clock=clock) as queue:
                keys += [parse_id(await put(queue)), parse_id(await put(queue))]
        assert keys == sorted(set(keys))

    async def test_what_is_long_is_a_file_and_what_is_short_is_none(self, queue: Queue, tmp_path: Path) -> None:
        await put(queue, b"x" * 65536)
        assert files(tmp_path) == []
        id = await put(queue, b"x" * LONG)
        assert files(tmp_path) == [id]

    async def test_only_the_owner_can_read_it(self, queue: Queue, tmp_path: Path) -> None:
        await put(queue, b"x" * LONG)
        for path in tmp_path.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path

    async def test_a_folder_that_is_made_is_its_owners_alone(self, tmp_path: Path) -> None:
        async with open_queue(tmp_path / "new"):
            assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700

    @pytest.mark.parametrize("size", [100, LONG])
    async def test_an_aborted_transaction_leaves_nothing(self, queue: Queue, tmp_path: Path, size: int) -> None:
        transaction = await queue.start(ENVELOPE, CLIENT)
        await transaction.add(BOB)
        await transaction.write(b"x" * size)
        with trio.CancelScope() as scope:
            scope.cancel()
            await transaction.abort()
        assert files(tmp_path) == []
        assert await queue.claim(10) == []
        with pytest.raises(trio.ClosedResourceError):
            await transaction.write(b"x")

    async def test_memory_holds_no_more_than_the_limit(self, queue: Queue) -> None:
        transaction = await queue.start(ENVELOPE, CLIENT)
        for _ in range(50):
            await transaction.write(b"x" * 9_999)
            assert len(transaction._buffer) <= queue.limits.memory
        await transaction.abort()

    async def test_a_message_for_nobody_is_refused(self, queue: Queue) -> None:
        transaction = await queue.start(ENVELOPE, CLIENT)
        with pytest.raises(Refused, match=r"554 5\.5\.1"):
            await transaction.commit()

    async def test_below_the_reserve_no_message_is_begun(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
    ) -> None:
        limits = QueueLimits(reserve=1000)
        async with open_queue(tmp_path, limits=limits) as queue:
            free = 1100
            monkeypatch.setattr(queue._spool, "free_space", lambda: free)
            await (await queue.start(Envelope(None, size=100), CLIENT)).abort()
            with pytest.raises(Refused, match=r"452 4\.3\.1"):
                await queue.start(Envelope(None, size=101), CLIENT)
            free = 999
            await trio.sleep(queue_module.WATCH_EVERY)
            with pytest.raises(Refused, match=r"452 4\.3\.1"):
                await queue.start(Envelope(None), CLIENT)
            free = 1000
            await trio.sleep(queue_module.WATCH_EVERY)
            await (await queue.start(Envelope(None), CLIENT)).abort()

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    @pytest.mark.parametrize("function", ["open", "pwrite", "fsync"])
    async def test_a_full_disk_refuses_until_there_is_room(
        self, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int
    ) -> None:
        def full(*args: object) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(os, function, full)
            transaction = await queue.start(ENVELOPE, CLIENT)
            await transaction.add(BOB)
            with pytest.raises(Refused, match=r"452 4\.3\.1"):
                await transaction.write(b"x" * LONG)
                await transaction.commit()
            if transaction._is_open:  # it was `write` that was refused
                await transaction.abort()
        assert files(tmp_path) == []
        await put(queue, b"y" * LONG)
        [claim] = await queue.claim(10)
        assert await content(queue, claim) == b"y" * LONG

    async def test_another_error_of_the_disk_is_a_fault(
        self, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: object) -> None:
            raise OSError(errno.EIO, "broken")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="broken"):
                await put(queue, b"x" * LONG)
        assert files(tmp_path) == []
        assert await queue.claim(10) == []


class TestGoingOut:
    async def test_what_is_delivered_is_gone_with_its_file(self, queue: Queue, tmp_path: Path) -> None:
        await put(queue, b"x" * LONG)
        [claim] = await queue.claim(10)
        assert await delivered(queue, claim)
        assert files(tmp_path) == []
        assert await queue.claim(10) == []
        with sqlite3.connect(tmp_path / "queue.db") as database:
            for table in ("messages", "contents", "recipients", "destinations"):
                assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
        database.close()

    async def test_it_is_gone_only_when_no_recipient_is_pending(self, queue: Queue) -> None:
        await put(queue, recipients=to("a@x.example", "b@x.example", "c@y.example"))
        first, second = await queue.claim(10)
        outcomes = [Outcome(0, State.DELIVERED, OK), Outcome(1, State.FAILED, NEVER, "mx\udc80")]
        assert not await queue.record(first, outcomes)
        assert await delivered(queue, second)

    async def test_what_has_failed_for_now_is_due_after_the_pause_and_knows_what_was_said(
        self, queue: Queue, clock: Clock
    ) -> None:
        await put(queue)
        for attempts in range(1, 5):
            [claim] = await queue.claim(10)
            assert not await deferred(queue, claim)
            assert await queue.claim(10) == []
            clock.now += 300 * 2 ** (attempts - 1)
        [claim] = await queue.claim(10)
        [recipient] = claim.recipients
        assert (recipient.attempts, recipient.reply, recipient.remote) == (4, LATER, "mx.example.net")
        assert recipient.last_attempt == clock.now - 2400

    async def test_that_a_sender_was_warned_is_remembered(self, queue: Queue, clock: Clock) -> None:
        await put(queue)
        for outcome in (Outcome(0, State.PENDING, LATER, warned=True), Outcome(0, State.PENDING, LATER)):
            [claim] = await queue.claim(10)
            await queue.record(claim, [outcome])
            clock.now += 10_000
        [claim] = await queue.claim(10)
        assert claim.recipients[0].warned

    async def test_what_is_claimed_is_not_claimed_again_until_it_is_released(self, queue: Queue) -> None:
        await put(queue)
        [claim] = await queue.claim(10)
        assert await queue.claim(10) == []
        queue.release(claim)
        assert await queue.claim(10) == [claim]

    async def test_the_claims_of_a_relay_that_is_gone_are_free(self, tmp_path: Path) -> None:
        async with open_queue(tmp_path) as queue:
            await put(queue)
            [claim] = await queue.claim(10)
        async with open_queue(tmp_path) as queue:
            assert await queue.claim(10) == [claim]

    async def test_who_is_not_recorded_is_due_again(self, queue: Queue) -> None:
        await put(queue, recipients=to("a@x.example", "b@x.example"))
        [claim] = await queue.claim(10)
        await queue.record(claim, [Outcome(0, State.DELIVERED, OK)])
        [claim] = await queue.claim(10)
        assert [recipient.position for recipient in claim.recipients] == [1]

    async def test_reports_enter_the_queue_with_the_outcome(self, queue: Queue, tmp_path: Path) -> None:
        id = await put(queue, recipients=to("a@x.example"))
        [claim] = await queue.claim(10)
        report = await queue.report(Envelope(None), CLIENT)
        await report.add(Recipient(MailAddress.parse("ann@example.org")))
        await report.write(b"r" * LONG)
        assert await queue.record(claim, all_of(claim, State.FAILED, NEVER), reports=[report])
        [claim] = await queue.claim(10)
        assert claim.message.id == report.id != id
        assert await content(queue, claim) == b"r" * LONG

    async def test_where_reports_have_no_room_the_outcome_is_not_recorded(
        self, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await put(queue)
        [claim] = await queue.claim(10)
        report = await queue.report(Envelope(None), CLIENT)
        await report.add(BOB)
        await report.write(b"r" * LONG)

        def full(*args: object) -> None:
            raise OSError(errno.ENOSPC, "full")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="full"):
                await queue.record(claim, all_of(claim, State.FAILED, NEVER), reports=[report])
        assert files(tmp_path) == []
        queue.release(claim)
        assert await queue.claim(10) == [claim]

    async def test_a_reader_who_has_enough_closes_the_file(self, queue: Queue) -> None:
        await put(queue, b"x" * 1_000_000)
        [claim] = await queue.claim(10)
        before = len(os.listdir("/proc/self/fd"))
        reading = queue.read(claim)
        assert len(await anext(reading)) > 0
        await reading.aclose()
        assert len(os.listdir("/proc/self/fd")) == before


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


class TestOpening:
    async def test_a_second_relay_is_refused(self, tmp_path: Path) -> None:
        async with open_queue(tmp_path):
            with pytest.raises(ConfigurationError, match=f"another relay is at work there, process {os.getpid()}"):
                async with open_queue(tmp_path):
                    pass
        async with open_queue(tmp_path):
            pass

    async def test_a_second_process_is_refused(self, tmp_path: Path) -> None:
        program = (
            "import sys, trio; from asyncnet.relay.queue import open_queue\n"
            "async def main():\n async with open_queue(sys.argv[1]): pass\n"
            "trio.run(main)"
        )
        async with open_queue(tmp_path):
            done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
        assert "another relay is at work there" in done.stderr

    async def test_what_is_garbage_is_refused_and_left_as_it_is(self, tmp_path: Path) -> None:
        for garbage in (b"garbage" * 1000, b"SQLite format 3\0" + b"garbage" * 1000):
            (tmp_path / "queue.db").write_bytes(garbage)
            with pytest.raises(ConfigurationError, match=r"queue\.db: no database, or a damaged one"):
                async with open_queue(tmp_path):
                    pass
            assert (tmp_path / "queue.db").read_bytes() == garbage
            assert sorted(path.name for path in tmp_path.iterdir()) == ["content", "lock", "queue.db"]

    async def test_a_database_of_another_program_is_refused_and_left_as_it_is(self, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "queue.db") as database:
            database.execute("CREATE TABLE theirs (x)")
        database.close()
        before = (tmp_path / "queue.db").read_bytes()
        with pytest.raises(ConfigurationError, match="a database of some other program"):
            async with open_queue(tmp_path):
                pass
        assert (tmp_path / "queue.db").read_bytes() == before

    async def test_a_newer_queue_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(schema, "VERSION", schema.VERSION + 1)
            async with open_queue(tmp_path) as queue:
                await put(queue)
        before = (tmp_path / "queue.db").read_bytes()
        with pytest.raises(
            ConfigurationError, match="a queue of version 2, made by a newer asyncnet: this one knows 1"
        ):
            async with open_queue(tmp_path):
                pass
        assert (tmp_path / "queue.db").read_bytes() == before

    async def test_an_older_queue_is_brought_up_to_date_step_by_step(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with open_queue(tmp_path) as queue:
            id = await put(queue)
        steps = {
            1: lambda connection: connection.exec_driver_sql("ALTER TABLE messages ADD COLUMN added INTEGER"),
            2: lambda connection: connection.exec_driver_sql("UPDATE messages SET added = 7"),
        }
        monkeypatch.setattr(schema, "VERSION", 3)
        monkeypatch.setattr(schema, "STEPS", steps)
        for _ in range(2):
            async with open_queue(tmp_path) as queue:
                assert [claim.message.id for claim in await queue.claim(10)] == [id]
        with sqlite3.connect(tmp_path / "queue.db") as database:
            assert database.execute("SELECT added FROM messages").fetchall() == [(7,)]
        database.close()

    async def test_a_step_that_fails_leaves_the_older_queue(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with open_queue(tmp_path) as queue:
            await put(queue)

        def fail(connection: Any) -> None:
            connection.exec_driver_sql("DROP TABLE messages")
            raise RuntimeError("in the middle")

        with monkeypatch.context() as patched:
            patched.setattr(schema, "VERSION", 2)
            patched.setattr(schema, "STEPS", {1: fail})
            with pytest.raises(RuntimeError):
                async with open_queue(tmp_path):
                    pass
        async with open_queue(tmp_path) as queue:
            assert len(await queue.claim(10)) == 1

    async def test_contents_that_nobody_knows_are_removed_and_others_are_not(self, tmp_path: Path) -> None:
        async with open_queue(tmp_path) as queue:
            id = await put(queue, b"x" * LONG)
            short = await put(queue, b"x")
        for name in ("1", "65D8A0C4F21B3E7", short, "README"):
            (tmp_path / "content" / name).write_bytes(b"x")
        async with open_queue(tmp_path) as queue:
            assert files(tmp_path) == sorted([id, "README"])
            assert len(await queue.claim(10)) == 2

    async def test_a_folder_that_cannot_be_is_a_configuration_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(ConfigurationError):
            async with open_queue(tmp_path / "file" / "spool"):
                pass

    async def test_one_that_fails_to_open_is_free_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(path: str) -> None:
            raise OSError(errno.EIO, "broken")

        before = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", fail)
            with pytest.raises(ConfigurationError, match="cannot be opened: broken"):
                async with open_queue(tmp_path):
                    pass
        assert len(os.listdir("/proc/self/fd")) == before
        async with open_queue(tmp_path):
            pass
        assert len(os.listdir("/proc/self/fd")) == before

    async def test_where_sqlite_cannot_write_durably_it_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = sqlite3.connect

        def in_memory(path: str, **options: Any) -> sqlite3.Connection:
            return real(":memory:", **options)  # which has no WAL

        monkeypatch.setattr(sqlite3, "connect", in_memory)
        with pytest.raises(ConfigurationError, match="SQLite cannot write durably there"):
            async with open_queue(tmp_path):
                pass


def test_without_sqlalchemy_the_error_says_what_to_install() -> None:
    program = "import sys; sys.modules['sqlalchemy'] = None\nimport asyncnet.relay.queue"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert 'pip install "asyncnet[relay]"' in done.stderr


def test_ids_are_read_as_they_are_written_and_nothing_else_is() -> None:
    for key in (0, 1, 2**59 + 12345):
        assert parse_id(format_id(key)) == key
    for text in ("", "x", "-1", "+1", " 1", "1_0", "1" * 16, "٣"):
        with pytest.raises(ValueError, match="hexadecimal"):
            parse_id(text)


class TestClocks:
    async def test_one_that_was_ahead_delays_nothing_for_longer_than_a_pause(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        async with open_queue(tmp_path, clock=clock) as queue:
            await put(queue, recipients=to("a@x.example"))
            await put(queue, recipients=to("b@x.example"))
            for claim in await queue.claim(10):
                await deferred(queue, claim)
        clock.now -= 1_000_000
        async with open_queue(tmp_path, clock=clock) as queue:
            assert len(await queue.claim(10)) == 2

    async def test_nor_where_something_else_is_due_earlier(self, tmp_path: Path, clock: Clock) -> None:
        async with open_queue(tmp_path, clock=clock) as queue:
            await put(queue, recipients=to("a@x.example"))
            [claim] = await queue.claim(10)
            await deferred(queue, claim)
        clock.now -= 1_000_000
        with sqlite3.connect(tmp_path / "queue.db") as database:
            database.execute("UPDATE destinations SET next_attempt = ?", [clock.now])
        database.close()
        async with open_queue(tmp_path, clock=clock) as queue:
            await queue.claim(10)
            await queue.wait()
            assert len(await queue.claim(10)) == 1

    async def test_a_step_of_the_wall_clock_does_not_move_the_queues(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import time

        clock = queue_module.queue_clock()
        before = clock()
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 1_000_000)
        assert before <= clock() < before + 1000

    def test_nothing_is_given_up_that_was_hardly_tried(self) -> None:
        policy = RetryPolicy()
        assert not policy.is_given_up(expires=0, attempts=policy.least_attempts - 1, now=1e12)
        assert policy.is_given_up(expires=0, attempts=policy.least_attempts, now=1e12)
