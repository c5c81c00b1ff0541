"""Opening a queue: the only relay, of the right version, after whatever has happened; and what its clock says."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asyncnet.errors import ConfigurationError
from asyncnet.relay import queue as queue_module
from asyncnet.relay import schema
from asyncnet.relay.queue import open_queue
from asyncnet.relay.retry import HOUR, RetryPolicy
from tests.relay.use import (
    LONG,
    Clock,
    deferred,
    files,
    put,
    to,
)


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

    @pytest.mark.parametrize("name", [".", "content"])
    async def test_a_folder_where_anybody_may_write_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "content").mkdir()
        (tmp_path / name).chmod(0o1777)
        with pytest.raises(ConfigurationError, match="anybody may write there"):
            async with open_queue(tmp_path):
                pass
        assert not (tmp_path / "queue.db").exists()

    async def test_a_lock_that_leads_elsewhere_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "theirs").write_text("precious")
        (tmp_path / "lock").symlink_to("theirs")
        with pytest.raises(ConfigurationError, match="lock"):
            async with open_queue(tmp_path):
                pass
        assert (tmp_path / "theirs").read_text() == "precious"

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
        """By a machine that was off, or whose clock has jumped; nor soon thereafter."""
        policy, now = RetryPolicy(), 1e12
        for expires, before in ((1, 0), (now - 2 * policy.longest, now - 2 * policy.longest - 1), (0, now - 1)):
            assert not policy.is_given_up(expires=expires, attempts=policy.least_attempts - 1, now=now, before=before)
            assert policy.is_given_up(expires=expires, attempts=policy.least_attempts, now=now, before=before)

    async def test_what_came_while_it_was_years_ahead_expires_when_it_should(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        years = 10 * 365 * 24 * HOUR
        async with open_queue(tmp_path, clock=clock) as queue:
            await put(queue, recipients=to("a@x.example"))
        clock.now += years
        async with open_queue(tmp_path, clock=clock) as queue:
            await put(queue, recipients=to("b@y.example"))
        clock.now -= years
        async with open_queue(tmp_path, clock=clock) as queue:
            await put(queue, recipients=to("c@x.example"))
            claims = await queue.claim(10)
            assert [claim.message.arrived for claim in claims] == [clock.now] * 3
            assert [claim.message.expires for claim in claims] == [clock.now + queue.retry.expiry] * 3
        clock.now += HOUR
        async with open_queue(tmp_path, clock=clock) as queue:
            assert [claim.message.arrived for claim in await queue.claim(10)] == [clock.now - HOUR] * 3
