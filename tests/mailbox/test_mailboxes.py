"""What every mailbox promises: `asyncnet.mailbox.storage`, sentence by sentence."""

from __future__ import annotations

import errno
import re
import time
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncnet.mailbox.domains import Domains
from asyncnet.mailbox.maildir import Maildirs
from asyncnet.mailbox.memory import MemoryMailbox, MemoryMailboxes
from asyncnet.mailbox.storage import Flag, Mailbox, Mailboxes
from asyncnet.testing import cancel_at_each_checkpoint
from tests.mailbox.conftest import Maker
from tests.mailbox.use import MAIL, deliver, fails, get

LARGE = b"".join(b"%d: %s\r\n" % (number, b"x" * (number % 100)) for number in range(20_000))


class TestDelivery:
    async def test_a_message_is_there_when_commit_returns(self, mailbox: Mailbox) -> None:
        assert await mailbox.messages() == []
        before = time.time()
        message = await deliver(mailbox)
        assert await mailbox.messages() == [message]
        assert message.size == len(MAIL)
        assert message.flags == frozenset()
        assert before - 1 <= message.received <= time.time() + 1
        assert await get(mailbox, message) == MAIL

    async def test_and_not_before(self, mailbox: Mailbox) -> None:
        incoming = await mailbox.deliver()
        await incoming.write(LARGE)
        assert await mailbox.messages() == []
        await incoming.commit()
        assert len(await mailbox.messages()) == 1

    @pytest.mark.parametrize("content", [b"", b"x", b"\r\n", b"no end", b"\r", b"a\r\nb", LARGE])
    async def test_any_content_comes_back_with_its_size(self, mailbox: Mailbox, content: bytes) -> None:
        message = await deliver(mailbox, content)
        assert await get(mailbox, message) == content
        assert message.size == len(content)
        assert await mailbox.messages() == [message]

    async def test_a_line_feed_alone_comes_back_as_a_line_end(self, mailbox: Mailbox) -> None:
        message = await deliver(mailbox, b"one\n.\ntwo\r\n")
        assert await get(mailbox, message) == b"one\r\n.\r\ntwo\r\n"
        assert message.size == 13

    async def test_pieces_of_any_length_make_one_message(self, mailbox: Mailbox) -> None:
        incoming = await mailbox.deliver()
        for size in (1, 7, 300_000, 2, 600_000):
            piece = bytearray(b"a\r\n" * size)[: size * 3 - 2]
            await incoming.write(memoryview(piece))
            piece[:] = b"?" * len(piece)
            await incoming.write(b"\r")
            await incoming.write(b"\n")
        message = await incoming.commit()
        assert await get(mailbox, message) == b"".join(b"a\r\n" * size for size in (1, 7, 300_000, 2, 600_000))

    async def test_what_was_aborted_leaves_nothing(self, mailbox: Mailbox) -> None:
        for content in (b"", MAIL, LARGE):
            incoming = await mailbox.deliver()
            await incoming.write(content)
            await incoming.abort()
        assert await mailbox.messages() == []

    async def test_it_ends_once(self, mailbox: Mailbox) -> None:
        incoming = await mailbox.deliver()
        await incoming.commit()
        for again in (incoming.commit, incoming.abort, lambda: incoming.write(b"x")):
            with pytest.raises(trio.ClosedResourceError):
                await again()

    async def test_abort_does_its_work_when_cancelled(self, mailbox: Mailbox) -> None:
        incoming = await mailbox.deliver()
        await incoming.write(LARGE)
        with trio.CancelScope() as scope:
            scope.cancel()
            await incoming.abort()
        assert await mailbox.messages() == []

    async def test_many_at_once_have_uids_of_their_own(self, mailbox: Mailbox) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(deliver, mailbox)
        uids = [message.uid for message in await mailbox.messages()]
        assert len(set(uids)) == 50
        assert all(re.fullmatch(r"[!-~]{1,70}", uid) for uid in uids)

    async def test_the_oldest_comes_first(self, mailbox: Mailbox) -> None:
        for _ in range(5):
            await deliver(mailbox)
        received = [message.received for message in await mailbox.messages()]
        assert received == sorted(received)


class TestQuotas:
    async def test_a_message_that_finds_no_room_is_refused_and_leaves_nothing(self, make: Maker) -> None:
        mailbox = make(quota_bytes=1000)
        await deliver(mailbox, b"x" * 600)
        with fails(errno.EDQUOT):
            incoming = await mailbox.deliver()
            try:
                await incoming.write(b"x" * 600_000)
            except OSError:
                await incoming.abort()
                raise
        assert len(await mailbox.messages()) == 1
        await deliver(mailbox, b"x" * 400)
        with fails(errno.EDQUOT):
            await mailbox.deliver()

    async def test_room_that_is_gone_at_the_end_is_told_there(self, make: Maker) -> None:
        mailbox = make(quota_bytes=1000)
        one, other = await mailbox.deliver(), await mailbox.deliver()
        await one.write(b"x" * 600)
        await other.write(b"x" * 600)
        await one.commit()
        with fails(errno.EDQUOT):
            await other.commit()
        assert len(await mailbox.messages()) == 1

    async def test_messages_may_be_counted(self, make: Maker) -> None:
        mailbox = make(quota_messages=2)
        first = await deliver(mailbox)
        await deliver(mailbox)
        with fails(errno.EDQUOT):
            await mailbox.deliver()
        await mailbox.remove([first.uid])
        await deliver(mailbox)


class TestReading:
    async def test_what_is_not_there_is_not_found(self, mailbox: Mailbox) -> None:
        with fails(errno.ENOENT):
            await get(mailbox, "missing")
        with fails(errno.ENOENT):
            await mailbox.set_flags("missing", [])

    async def test_it_comes_in_pieces_and_may_be_left_early(self, mailbox: Mailbox) -> None:
        message = await deliver(mailbox, LARGE)
        async with aclosing(mailbox.read(message.uid)) as pieces:
            first = await anext(pieces)
        assert 0 < len(first) < len(LARGE)
        assert LARGE.startswith(first)

    async def test_a_message_that_is_removed_meanwhile_is_read_to_its_end(self, mailbox: Mailbox) -> None:
        message = await deliver(mailbox, LARGE)
        async with aclosing(mailbox.read(message.uid)) as pieces:
            content = await anext(pieces)
            await mailbox.remove([message.uid])
            async for piece in pieces:
                content += piece
        assert content == LARGE


class TestChanges:
    @pytest.mark.parametrize("flags", [[], [Flag.SEEN], [Flag.FLAGGED, Flag.SEEN, Flag.ANSWERED], list(Flag)])
    async def test_flags_are_exactly_those_that_were_set(self, mailbox: Mailbox, flags: list[Flag]) -> None:
        message, other = await deliver(mailbox), await deliver(mailbox)
        await mailbox.set_flags(message.uid, [Flag.DRAFT])
        await mailbox.set_flags(message.uid, flags)
        found = {one.uid: one for one in await mailbox.messages()}
        assert found[message.uid].flags == frozenset(flags)
        assert found[message.uid].size == message.size
        assert found[message.uid].received == message.received
        assert found[other.uid] == other
        assert await get(mailbox, message) == MAIL

    async def test_what_is_removed_is_gone_and_the_rest_stays(self, mailbox: Mailbox) -> None:
        messages = [await deliver(mailbox) for _ in range(4)]
        await mailbox.remove([messages[0].uid, "missing", messages[2].uid])
        assert {one.uid for one in await mailbox.messages()} == {messages[1].uid, messages[3].uid}
        await mailbox.remove([messages[0].uid])
        with fails(errno.ENOENT):
            await get(mailbox, messages[0])


class TestLock:
    async def test_there_is_one_session_at_a_time_and_others_are_told_at_once(self, mailbox: Mailbox) -> None:
        for _ in range(2):
            async with mailbox.lock():
                with fails(errno.EBUSY):
                    async with mailbox.lock():
                        raise AssertionError
                message = await deliver(mailbox)
                assert message in await mailbox.messages()

    async def test_it_is_free_again_behind_an_error(self, mailbox: Mailbox) -> None:
        with pytest.raises(RuntimeError):
            async with mailbox.lock():
                raise RuntimeError
        async with mailbox.lock():
            pass


class TestCancelling:
    async def test_a_cancelled_delivery_has_happened_or_has_not(self, mailbox: Mailbox) -> None:
        for attempt in cancel_at_each_checkpoint():
            before = len(await mailbox.messages())
            incoming = None
            committed = False
            with attempt:
                incoming = await mailbox.deliver()
                await incoming.write(LARGE)
                await incoming.write(LARGE)
                committed = True
                await incoming.commit()
                committed = None
            if incoming is not None and committed is False:
                await incoming.abort()
            found = await mailbox.messages()
            assert len(found) - before in ((1,) if committed is None else (0, 1) if committed else (0,))
            assert all(message.size == 2 * len(LARGE) for message in found)

    async def test_a_cancelled_lock_is_free(self, mailbox: Mailbox) -> None:
        for attempt in cancel_at_each_checkpoint():
            with attempt:
                async with mailbox.lock():
                    await trio.lowlevel.checkpoint()
            async with mailbox.lock():
                pass

    async def test_a_cancelled_read_leaves_nothing_open(self, mailbox: Mailbox) -> None:
        message = await deliver(mailbox, LARGE)
        for attempt in cancel_at_each_checkpoint():
            with attempt:
                async with aclosing(mailbox.read(message.uid)) as pieces:
                    async for _ in pieces:
                        pass
            assert await get(mailbox, message) == LARGE

    async def test_cancelled_changes_are_made_or_not(self, mailbox: Mailbox) -> None:
        message = await deliver(mailbox)
        for attempt in cancel_at_each_checkpoint():
            with attempt:
                await mailbox.set_flags(message.uid, [Flag.SEEN])
                await mailbox.set_flags(message.uid, [])
            found = await mailbox.messages()
            assert [one.uid for one in found] == [message.uid]
        for attempt in cancel_at_each_checkpoint():
            one = await deliver(mailbox)
            with attempt:
                await mailbox.remove([one.uid])
            assert (one.uid in {other.uid for other in await mailbox.messages()}) <= attempt.cancelled


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([b"a", b".", b"\r\n", b"\n", b"\r", b"\xff\0"])).map(b"".join),
    st.lists(st.integers(0, 30), max_size=5),
)
def test_any_content_in_any_pieces_comes_back_with_whole_line_ends(
    make: Maker, content: bytes, cuts: list[int]
) -> None:
    async def check() -> None:
        mailbox = make()
        incoming = await mailbox.deliver()
        places = sorted(cuts)
        for start, end in zip([0, *places], [*places, len(content)], strict=True):
            await incoming.write(content[start:end])
        message = await incoming.commit()
        read = await get(mailbox, message)
        assert message.size == len(read)
        assert message in await mailbox.messages()
        assert re.search(rb"(?<!\r)\n", read) is None
        assert read.replace(b"\r", b"") == content.replace(b"\r", b"")
        await mailbox.remove([message.uid])

    trio.run(check)


@pytest.fixture(params=["maildirs", "memory", "domains"])
def mailboxes(request: pytest.FixtureRequest, tmp_path: Path) -> Mailboxes:
    """Those of anna and bert."""
    if request.param == "memory":
        return MemoryMailboxes("anna", "bert")
    root = tmp_path / "root"
    for user in ("anna", "bert"):
        (root / user / "new").mkdir(parents=True)
    boxes = Maildirs(root)
    return boxes if request.param == "maildirs" else _Local(Domains({"Example.org": boxes}))


class _Local:
    """Users of a domain, without their domain."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    async def of(self, user: str) -> Mailbox:
        return await self._domains.of(f"{user}@eXample.ORG")


class TestUsers:
    async def test_each_has_a_mailbox_and_always_the_same(self, mailboxes: Mailboxes) -> None:
        message = await deliver(await mailboxes.of("anna"))
        assert await (await mailboxes.of("anna")).messages() == [message]
        assert await (await mailboxes.of("bert")).messages() == []

    @pytest.mark.parametrize(
        "user",
        [
            "carl",
            "",
            ".",
            "..",
            "/",
            "../root/anna",
            "anna/cur",
            "anna/",
            "/etc",
            "an\0na",
            "a\\b",
            "\udc80",
            "x" * 300,
        ],
    )
    async def test_who_is_unknown_has_none(self, mailboxes: Mailboxes, user: str) -> None:
        with pytest.raises(LookupError):
            await mailboxes.of(user)

    async def test_who_is_unknown_may_get_one(self, tmp_path: Path) -> None:
        for boxes in (MemoryMailboxes(create=True), Maildirs(tmp_path / "made", create=True)):
            assert await (await boxes.of("carl")).messages() == []
            await deliver(await boxes.of("carl"))
            assert len(await (await boxes.of("carl")).messages()) == 1
        with pytest.raises(LookupError):
            await Maildirs(tmp_path / "made", create=True).of(".hidden")

    async def test_an_address_without_its_two_parts_has_none(self) -> None:
        domains = Domains({"example.org": MemoryMailboxes("anna", "", "anna@example.org")})
        assert isinstance(await domains.of("anna@example.org"), MemoryMailbox)
        for user in ("anna", "@example.org", "anna@", "anna@example.com", "anna@example.org."):
            with pytest.raises(LookupError):
                await domains.of(user)
