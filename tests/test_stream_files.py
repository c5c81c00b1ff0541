"""Sending files: whole, in part, by the kernel and by reading, to the end or not at all.

Threads read the disk here, so that there is no virtual time in this file.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
import trio
import trio.testing

from asyncnet.errors import FileShrankError
from asyncnet.middleware import Bandwidth
from asyncnet.stream import Stream
from asyncnet.transports import files
from tests.pairs import Maker, close_sockets, foreign_pair, memory_pair, over, socket_pair, tcp_pair

CONTENT = bytes(range(256)) * 10_000  # 2.4 MiB: more than two pieces
EVERYWHERE = pytest.mark.parametrize("maker", [socket_pair, tcp_pair, memory_pair, foreign_pair])


@pytest.fixture(autouse=True)
def _no_socket_stays_open() -> Iterator[None]:
    yield
    close_sockets()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[BinaryIO]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        yield file


async def collect(stream: Stream, into: bytearray) -> None:
    try:
        while data := await stream.receive_some():
            into += data
    except trio.BrokenResourceError:
        into += b"(reset)"


@EVERYWHERE
async def test_a_file_goes_out_whole_behind_what_was_queued(maker: Maker, file: BinaryIO) -> None:
    left, right = await over(maker)()
    received = bytearray()
    steps: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect, right, received)
        left.write(b"head ")
        assert await left.send_file(file, progress=steps.append) == len(CONTENT)
        await left.send_all(b" tail")
        await left.aclose()
    assert received == b"head " + CONTENT + b" tail"
    assert sum(steps) == len(CONTENT)
    assert left.bytes_out == len(CONTENT) + 10
    assert file.tell() == 0


@EVERYWHERE
@pytest.mark.parametrize(("offset", "count"), [(0, 1), (1000, 300_000), (len(CONTENT) - 7, None), (5, 0)])
async def test_a_part_of_a_file_goes_out(maker: Maker, file: BinaryIO, offset: int, count: int | None) -> None:
    left, right = await over(maker)()
    received = bytearray()
    expected = CONTENT[offset:] if count is None else CONTENT[offset : offset + count]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect, right, received)
        assert await left.send_file(file, offset, count) == len(expected)
        await left.aclose()
    assert received == expected


@EVERYWHERE
async def test_an_empty_file_and_an_offset_behind_the_end_send_nothing(
    maker: Maker, file: BinaryIO, tmp_path: Path
) -> None:
    left, right = await over(maker)()
    (tmp_path / "empty").touch()
    with (tmp_path / "empty").open("rb") as empty:
        assert await left.send_file(empty) == 0
    assert await left.send_file(file, len(CONTENT) + 1) == 0
    await left.aclose()
    assert await right.receive_some() == b""


@EVERYWHERE
async def test_a_file_that_became_shorter_breaks_the_sending_side(maker: Maker, file: BinaryIO) -> None:
    left, right = await over(maker)()
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect, right, received)
        with pytest.raises(FileShrankError):
            await left.send_file(file, 0, len(CONTENT) + 1)
        with pytest.raises(trio.BrokenResourceError, match="shorter"):
            left.write(b"more")
        await left.aclose()
    assert CONTENT.startswith(received.removesuffix(b"(reset)"))
    if maker in (tcp_pair, memory_pair):  # the others can't say so
        assert received.endswith(b"(reset)")


@EVERYWHERE
async def test_a_cancelled_file_breaks_the_sending_side_only(maker: Maker, file: BinaryIO) -> None:
    left, right = await over(maker)()
    await right.send_all(b"in")

    async def send(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            while True:
                await left.send_file(file)

    async with trio.open_nursery() as nursery:
        scope = await nursery.start(send)
        await right.receive_exactly(1000)
        scope.cancel()
    with pytest.raises(trio.BrokenResourceError):
        await left.send_all(b"more")
    assert await left.receive_some() == b"in"
    await left.aclose()


@EVERYWHERE
async def test_a_progress_callback_that_fails_breaks_the_sending_side(maker: Maker, file: BinaryIO) -> None:
    left, right = await over(maker)()

    def fail(count: int) -> None:
        raise RuntimeError("the meter is broken")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect, right, bytearray())
        with pytest.raises(RuntimeError):
            await left.send_file(file, progress=fail)
        with pytest.raises(trio.BrokenResourceError):
            await left.send_all(b"an answer in the middle of the file")
        await left.aclose()


@pytest.mark.parametrize("maker", [socket_pair, memory_pair, foreign_pair])  # TCP's buffers may hold the whole file
async def test_nobody_else_sends_in_the_middle_of_a_file(maker: Maker, file: BinaryIO) -> None:
    left, right = await over(maker)()
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.send_file, file)
        assert await right.receive_exactly(1) == CONTENT[:1]
        for _ in range(3):
            with pytest.raises(trio.BusyResourceError):
                await left.send_all(b"between")
            await trio.lowlevel.checkpoint()
        nursery.start_soon(collect, right, received)
        while left._sending:
            await trio.lowlevel.checkpoint()
        await left.aclose()
    assert received == CONTENT[1:]


async def test_a_peer_that_leaves_breaks_the_file(file: BinaryIO) -> None:
    for maker in (tcp_pair, memory_pair):
        left, right = await over(maker)()
        await right.abort()
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await left.send_file(file)
        await left.aclose()


async def test_a_file_that_is_not_in_memory_is_read_by_a_thread_first(
    file: BinaryIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[int, int]] = []
    monkeypatch.setattr("asyncnet.bulk.is_cached", lambda file, offset, count: False)
    monkeypatch.setattr("asyncnet.bulk.load_into_cache", lambda file, offset, count: loaded.append((offset, count)))
    left, right = await over(tcp_pair)()
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect, right, received)
        await left.send_file(file, 10)
        await left.aclose()
    assert received == CONTENT[10:]
    assert loaded[0] == (10, files.PIECE)
    assert sum(count for _, count in loaded) == len(CONTENT) - 10


async def test_whether_a_piece_is_in_memory_is_asked_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10_000)
    with path.open("rb") as file:
        assert files.is_cached(file, 0, 20_000) is False  # it ends before
        assert files.read_at(file, 9_990, 100) == b"x" * 10
        assert files.read_at(file, 0, 4) == b"xxxx"
        assert files.read_now(file, 0, 20_000) is None
        assert files.read_now(file, 9_990, 10) in (b"x" * 10, None)
        assert files.read_now(file, 0, 0) == b""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb"):
        assert files.is_cached(pipe, 0, 1) is False
        assert files.read_now(pipe, 0, 1) is None


async def test_a_piece_is_looked_at_on_both_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[int] = []

    def answer(descriptor: int, buffers: list[bytearray], offset: int, flags: int) -> int:
        asked.append(offset)
        return 0 if offset == files.PIECE + 5 else 1

    monkeypatch.setattr(os, "preadv", answer)
    monkeypatch.setattr(files, "_NOWAIT", 8)
    with (tmp_path / "file").open("wb") as file:
        assert files.is_cached(file, 5, files.PIECE) is True
        assert asked == [5, 4 + files.PIECE]
        assert files.is_cached(file, 6, files.PIECE) is False
        assert files.is_cached(file, files.PIECE + 5, 2) is False
        assert files.is_cached(file, 5, 1) is True


async def test_what_follows_a_file_that_was_read_leaves_at_once(file: BinaryIO) -> None:
    """Behind a file that was sent in full segments, small writes are not held back."""
    left, right = await over(tcp_pair)()
    Bandwidth(each=1e12).dress(left)  # so that the file is read
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.send_file, file)
        while len(received) < len(CONTENT):
            received += await right.receive_some()
    sock = cast(Any, left)._transport._socket
    assert not hasattr(socket, "TCP_CORK") or not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK)
    await left.send_all(b"more")
    assert await right.receive_exactly(4) == b"more"
    await left.aclose()
    await right.aclose()
