"""Final delivery: what lies in mailboxes behind it, and what is said where it does not."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from asyncnet.mailbox.local_parts import LocalParts
from asyncnet.mailbox.maildir import Maildirs
from asyncnet.mailbox.memory import MemoryMailboxes
from asyncnet.mailbox.storage import Mailbox, Mailboxes
from asyncnet.relay.mailbox_target import MailboxTarget
from asyncnet.relay.messages import DamagedContent, UnreadableContent
from asyncnet.relay.targets import Parcel, Verdict
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.envelope import Envelope
from asyncnet.testing import cancel_at_each_checkpoint
from tests.relay.use import to

ANNA = Envelope(MailAddress("anna", "example.org"))
PIECES = [b"Subject: hello\r\n\r\n", b"how are ", b"you?\r\n"]


def parcel(*recipients: str, envelope: Envelope = ANNA, breaks: bool = False) -> Parcel:
    async def read() -> AsyncGenerator[bytes, None]:
        for piece in PIECES:
            yield piece
        if breaks:
            raise DamagedContent("changed")

    return Parcel(envelope, tuple(to(*(f"{name}@example.org" for name in recipients))), sum(map(len, PIECES)), read)


async def hand_over(mailboxes: Mailboxes, parcel: Parcel) -> list[Verdict]:
    """What has become of it, for each recipient."""
    verdicts: dict[int, Verdict] = {}
    await MailboxTarget(mailboxes).courier().hand_over(parcel, verdicts)
    return [verdicts[index] for index in range(len(parcel.recipients))]


async def contents(mailboxes: Mailboxes, user: str) -> list[bytes]:
    mailbox = await mailboxes.of(user)
    return [b"".join([piece async for piece in mailbox.read(each.uid)]) for each in await mailbox.messages()]


@pytest.fixture(params=["memory", "maildir"])
def mailboxes(request: pytest.FixtureRequest, tmp_path: Path) -> Mailboxes:
    if request.param == "memory":
        return MemoryMailboxes("anna", "carl")
    for user in ("anna", "carl"):
        (tmp_path / user / "new").mkdir(parents=True)
    return Maildirs(tmp_path)


async def test_everybody_has_a_copy_that_says_who_sent_it(mailboxes: Mailboxes) -> None:
    verdicts = await hand_over(mailboxes, parcel("anna", "carl"))
    assert [(verdict.reply.code, verdict.is_delivered) for verdict in verdicts] == [(250, True)] * 2
    for user in ("anna", "carl"):
        assert await contents(mailboxes, user) == [b"Return-Path: <anna@example.org>\r\n" + b"".join(PIECES)]


async def test_mail_for_everybody_opens_few_files(tmp_path: Path) -> None:
    users = [f"user{number}" for number in range(50)]
    for user in users:
        (tmp_path / user / "new").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    most = 0

    async def read() -> AsyncGenerator[bytes, None]:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")) - before)
        yield b"".join(PIECES)

    mailboxes, whole = Maildirs(tmp_path), parcel(*users)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(hand_over, mailboxes, replace(whole, read=read))
    assert 0 < most < 200
    assert [len(os.listdir(tmp_path / user / "new")) for user in users] == [20] * 50


async def test_a_bounce_says_that_nobody_sent_it(mailboxes: Mailboxes) -> None:
    await hand_over(mailboxes, parcel("anna", envelope=Envelope(None)))
    (content,) = await contents(mailboxes, "anna")
    assert content.startswith(b"Return-Path: <>\r\n")


async def test_who_does_not_exist_keeps_nobody_else_from_their_mail(mailboxes: Mailboxes) -> None:
    verdicts = await hand_over(mailboxes, parcel("nobody", "carl", '"../carl"'))
    assert [str(verdict.reply)[:9] for verdict in verdicts] == ["550 5.1.1", "250 2.1.5", "550 5.1.1"]
    assert len(await contents(mailboxes, "carl")) == 1


async def test_what_is_damaged_is_delivered_to_nobody(mailboxes: Mailboxes) -> None:
    with pytest.raises(DamagedContent):
        await hand_over(mailboxes, parcel("anna", "carl", breaks=True))
    assert await contents(mailboxes, "anna") == await contents(mailboxes, "carl") == []


@pytest.mark.parametrize("error", [UnreadableContent("broken"), DamagedContent("changed")])
async def test_who_has_it_already_does_not_get_it_again_where_the_content_fails_later(error: Exception) -> None:
    reads = 0

    async def read() -> AsyncGenerator[bytes, None]:
        nonlocal reads
        reads += 1
        if reads > 1:
            raise error
        yield b"".join(PIECES)

    users = [f"user{number}" for number in range(5)]
    verdicts: dict[int, Verdict] = {}
    with pytest.raises(type(error)):
        await MailboxTarget(MemoryMailboxes(*users)).hand_over(replace(parcel(*users), read=read), verdicts)
    assert [(index, verdict.reply.code) for index, verdict in verdicts.items()] == [(0, 250), (1, 250)]


async def test_who_has_it_is_known_at_each_moment_at_which_a_delivery_is_given_up(tmp_path: Path) -> None:
    users = [f"user{number}" for number in range(5)]
    for attempt in cancel_at_each_checkpoint():
        (folder := tmp_path / str(len(list(tmp_path.iterdir())))).mkdir()
        for user in users:
            (folder / user).mkdir()
        verdicts: dict[int, Verdict] = {}
        with attempt:
            await MailboxTarget(Maildirs(folder)).hand_over(parcel(*users), verdicts)
        has_it = [user for user in users if (folder / user / "new").is_dir() and any((folder / user / "new").iterdir())]
        assert has_it == [users[index] for index in sorted(verdicts)]
    assert len(verdicts) == 5


async def test_a_full_mailbox_is_tried_again(tmp_path: Path) -> None:
    boxes = Maildirs(tmp_path, create=True, quota_bytes=30)
    (verdict,) = await hand_over(boxes, parcel("anna"))
    assert str(verdict.reply).startswith("452 4.2.2 ")
    assert await contents(boxes, "anna") == []


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "452 4.3.1"), (errno.EIO, "451 4.3.0"), (errno.EACCES, "451 4.3.0")]
)
@pytest.mark.parametrize("when", ["deliver", "write", "commit"])
async def test_a_disk_that_fails_fails_one_recipient(number: int, said: str, when: str) -> None:
    class Failing(MemoryMailboxes):
        async def of(self, user: str) -> Mailbox:  # type: ignore[override]
            mailbox = await super().of(user)
            if user == "anna":
                incoming = await mailbox.deliver()

                async def fail(*arguments: object) -> None:
                    raise OSError(number, "failed")

                if when == "deliver":
                    mailbox.deliver = fail  # type: ignore[method-assign, assignment]
                else:
                    setattr(incoming, when, fail)

                    async def deliver() -> object:
                        return incoming

                    mailbox.deliver = deliver  # type: ignore[method-assign, assignment]
            return mailbox

    boxes = Failing("anna", "carl")
    anna, carl = await hand_over(boxes, parcel("anna", "carl"))
    assert str(anna.reply).startswith(said)
    assert carl.reply.code == 250
    assert len(await contents(boxes, "carl")) == 1


@pytest.mark.parametrize(
    ("local", "whose"),
    [("anna", "anna"), ("Anna", "anna"), ("anna+lists", "anna"), ("ANNA+x+y", "anna"), ("Carl", "Carl")],
)
async def test_a_local_part_may_be_written_in_more_than_one_way(local: str, whose: str) -> None:
    inner = MemoryMailboxes("anna", "carl", "Carl")
    await hand_over(LocalParts(inner), parcel(local))
    assert len(await contents(inner, whose)) == 1


@pytest.mark.parametrize("local", ["+lists", "+", "nobody+anna", "ann"])
async def test_but_not_in_any_way(local: str) -> None:
    with pytest.raises(LookupError):
        await LocalParts(MemoryMailboxes("anna")).of(local)


async def test_without_a_separator_there_is_no_detail() -> None:
    with pytest.raises(LookupError):
        await LocalParts(MemoryMailboxes("anna"), separator=None).of("anna+lists")
