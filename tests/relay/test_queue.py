"""The queue as servers and relays see it."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from asyncnet.relay import queue as queue_module
from asyncnet.relay.limits import QueueLimits
from asyncnet.relay.messages import Outcome, State, format_id, parse_id
from asyncnet.relay.queue import Queue, open_queue
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.delivery import Refused
from asyncnet.smtp.envelope import Body, Envelope, Recipient
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

    @pytest.mark.parametrize("size", [10, LONG, 1_000_000])
    @pytest.mark.parametrize("place", ["first", "last"])
    async def test_what_has_eight_bits_is_not_believed_to_have_seven(self, queue: Queue, size: int, place: str) -> None:
        for letter, body in ((b"u", Body.SEVEN_BIT), (b"\xfc", Body.EIGHT_BIT)):
            data = letter + b"x" * size if place == "first" else b"x" * size + letter
            await put(queue, data, envelope=Envelope(None))
            [claim] = await queue.claim(10)
            assert claim.message.envelope.body is body
            assert await content(queue, claim) == data

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
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        mock_clock: trio.testing.MockClock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        limits = QueueLimits(reserve=1000)
        async with open_queue(tmp_path, limits=limits) as queue:
            free = 1100
            monkeypatch.setattr(queue._spool, "free_space", lambda: free)
            await (await queue.start(Envelope(None, size=100), CLIENT)).abort()
            with pytest.raises(Refused, match=r"452 4\.3\.1"):
                await queue.start(Envelope(None, size=101), CLIENT)
            free = 999
            mock_clock.jump(queue_module.WATCH_EVERY)
            with pytest.raises(Refused, match=r"452 4\.3\.1"):
                await queue.start(Envelope(None), CLIENT)
            assert "no mail is taken: 999 bytes are free there, and 1000 are to stay so" in caplog.text
            free = 1000
            mock_clock.jump(queue_module.WATCH_EVERY)
            await (await queue.start(Envelope(None), CLIENT)).abort()
            assert "mail is taken again: 1000 bytes are free there" in caplog.text

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
