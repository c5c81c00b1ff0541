"""Mail for programs: each message, whole, before its client hears that it was taken."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import trio

from asyncnet.errors import RemoteProtocolError
from asyncnet.smtp.delivery import Refused
from asyncnet.smtp.inbox import Inbox, Message
from asyncnet.smtp.spool import Spool
from asyncnet.testing import cancel_at_each_checkpoint
from tests.smtp.recorder import connected

MULTIPART = b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n'


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("memory", [1 << 20, 100])
async def test_a_message_is_handed_over_whole(memory: int, tmp_path: Path) -> None:
    seen = []

    async def on_message(message: Message) -> str:
        mail = await message.parse()
        seen.append((message, mail, await message.content.read()))
        assert await message.content.read() == seen[-1][2]  # as often as one likes
        return "printed"

    before = open_files()
    async with connected(Inbox(on_message, memory=memory, folder=tmp_path)) as peer:
        reply = await peer.send(
            "Subject: grüße\r\n\r\n".encode() + b"hello\r\n" * 1000, "a@example.org", "b@example.org"
        )
        assert str(reply) == "250 2.0.0 printed"
        assert os.listdir(tmp_path) == []
    [(message, mail, content)] = seen
    assert mail["Subject"] == "grüße"
    assert mail.get_content() == "hello\r\n" * 1000 + "\r\n"
    assert [str(one.address) for one in message.recipients] == ["a@example.org", "b@example.org"]
    assert str(message.envelope.sender) == "anna@example.org"
    assert message.client.name == "client.example"
    assert content.startswith(b"Received: ")
    assert len(content) == message.content.size
    assert open_files() <= before


async def test_a_program_may_refuse_or_fail(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([Refused(550, "5.7.1", "Not this one."), ValueError("a bug"), None])

    async def on_message(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        answer = next(answers)
        if answer is not None:
            raise answer

    async with connected(Inbox(on_message)) as peer:
        assert [str(await peer.send(b"A: b\r\n")) for _ in range(3)] == [
            "550 5.7.1 Not this one.",
            "451 4.3.0 A local error: try later.",
            "250 2.0.0 Taken.",
        ]
    assert "a bug" in caplog.text


async def test_a_full_disk_is_a_failure_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    async def on_message(message: Message) -> None:
        assert b"small" in await message.content.read()

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **options: io.FileIO("/dev/full", "r+"))
    before = open_files()
    async with connected(Inbox(on_message, memory=1000)) as peer:
        assert str(await peer.send(b"Subject: large\r\n\r\n" + b"hello\r\n" * 10_000)).startswith("452 4.3.1")
        assert (await peer.send(b"Subject: small\r\n")).code == 250
    assert open_files() <= before


async def test_what_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    async def on_message(message: Message) -> None:
        raise AssertionError("it was not whole")

    before = open_files()
    async with connected(Inbox(on_message, memory=10, folder=tmp_path)) as peer:
        await peer.begin()
        await peer.expect("354", "DATA")
        await peer.scripted.send(b"A: b\r\n\r\n" + b"x" * 1000)
        await peer.scripted.close()
    assert open_files() <= before


@pytest.mark.parametrize("nested", [True, False])
async def test_a_mime_bomb_is_not_parsed(nested: bool) -> None:
    failures = []

    async def on_message(message: Message) -> None:
        with pytest.raises(RemoteProtocolError, match="more than 200 parts") as caught:
            await message.parse()
        failures.append(caught)
        assert (await message.parse(max_parts=1000)).is_multipart()

    if nested:
        content = b"".join(MULTIPART % (level, level) for level in range(250)) + b"\r\nx\r\n"
    else:
        content = MULTIPART % (0, 0) + b"\r\nx\r\n--b0\r\n" * 250
    async with connected(Inbox(on_message)) as peer:
        assert (await peer.send(content)).code == 250
    assert failures


async def test_nor_is_one_of_fewer_parts_and_many_lines() -> None:
    """Each of 1,000,000 lines would be looked at 60 times."""
    failures = []

    async def on_message(message: Message) -> None:
        with pytest.raises(RemoteProtocolError, match="parts and 1000"):
            await message.parse()
        failures.append(message)

    content = b"".join(MULTIPART % (level, level) for level in range(60)) + b"\r\n" + b"x\r\n" * 1_000_000
    async with connected(Inbox(on_message)) as peer:
        await peer.begin()
        await peer.expect("354", "DATA")
        await peer.stream.send_all(content + b".\r\n")
        assert (await peer.reply()).code == 250
    assert failures


@pytest.mark.parametrize(
    "content",
    [
        b'content-TYPE: "' + b'"' * 20_000 + b"\r\n\r\nx\r\n",
        b"Content-Type: text/plain;" + b"\r\n ;;;;;;;;" * 2_000 + b"\r\n\r\nx\r\n",
        MULTIPART % (0, 0) + (b"\r\n--b0\r\nContent-Type: " + b'"' * 8_000 + b"\r\n\r\nx") * 5 + b"\r\n",
        b"Content-Type: " + b"(" * 8_000 + b"\r\n\r\nx\r\n",
        b"Content-Type: text/plain; a*\r\n\r\nx\r\n",
        MULTIPART % (0, 0) + b"Content-Disposition: " + b'"' * 20_000 + b"\r\n\r\nx\r\n",
        MULTIPART % (0, 0) + b"Content-Transfer-Encoding: " + b'"' * 20_000 + b"\r\n\r\nx\r\n",
    ],
)
async def test_nor_is_one_whose_fields_take_long_or_cannot_be_read(content: bytes) -> None:
    failures = []

    async def on_message(message: Message) -> None:
        with pytest.raises(RemoteProtocolError):
            await message.parse()
        failures.append(message)

    async with connected(Inbox(on_message)) as peer:
        assert (await peer.send(content)).code == 250
    assert failures


async def test_many_parts_with_types_of_an_ordinary_length_are_parsed() -> None:
    found = []

    async def on_message(message: Message) -> None:
        found.append(await message.parse())

    part = b"\r\n--b0\r\nContent-Type: application/octet-stream; name=" + b"x" * 200 + b"\r\n\r\nx"
    async with connected(Inbox(on_message)) as peer:
        assert (await peer.send(MULTIPART % (0, 0) + part * 190 + b"\r\n--b0--\r\n")).code == 250
    assert len(list(found[0].iter_parts())) >= 190


@pytest.mark.parametrize("memory", [0, 5, 100])
async def test_a_spool_gives_back_what_was_written(memory: int) -> None:
    spool = Spool(memory=memory)
    for piece in (b"hello", bytearray(b" "), memoryview(b"world"), b"", b"x" * 300_000, b"!"):
        await spool.write(piece)
    expected = b"hello world" + b"x" * 300_000 + b"!"
    assert spool.size == len(expected)
    for _ in range(2):
        assert await spool.read() == expected
        assert [piece async for piece in spool.pieces()]
    await spool.aclose()
    await spool.aclose()


async def test_a_spool_leaves_no_file_whenever_it_is_cancelled() -> None:
    before = open_files()
    for attempt in cancel_at_each_checkpoint():
        spool = Spool(memory=3)
        with attempt:
            try:
                await spool.write(b"hello")
                await spool.write(b"world")
                assert await spool.read() == b"helloworld"
            finally:
                await spool.aclose()
    assert open_files() <= before
