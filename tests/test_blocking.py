"""Streams that look like files, in the hands of blocking code in a thread."""

from __future__ import annotations

import csv
import gc
import io
import threading
from collections.abc import Callable
from typing import IO, Any, TypeVar

import pytest
import trio
import trio.testing

from asyncnet.stream import Stream
from asyncnet.testing import stream_pair

T = TypeVar("T")

in_thread = trio.to_thread.run_sync


async def with_file(function: Callable[[IO[Any]], T], stream: Stream, mode: str, **options: Any) -> T:
    """Run `function` with a file over `stream`, and close the file."""

    def run() -> T:
        with stream.as_file(mode, **options) as file:
            return function(file)

    return await in_thread(run)


async def test_print_writes_to_the_peer() -> None:
    ours, its = stream_pair()
    await with_file(lambda file: print("Grüße", 42, file=file), its, "w")
    assert await ours.receive_until(b"\n", limit=100) == "Grüße 42\n".encode()


async def test_csv_reads_from_the_peer() -> None:
    ours, its = stream_pair()
    await ours.send_all(b'name,size\r\n"a ""b""",1\r\n')
    await ours.send_eof()
    rows = await with_file(lambda file: list(csv.reader(file)), its, "r", newline="")
    assert rows == [["name", "size"], ['a "b"', "1"]]


async def test_lines_come_one_by_one_until_the_peer_ends() -> None:
    ours, its = stream_pair()
    seen: list[str] = []

    def read(file: IO[str]) -> None:
        for line in file:
            seen.append(line)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(with_file, read, its, "r")
        await ours.send_all(b"one\r\ntwo\nth")
        while len(seen) < 2:
            await trio.lowlevel.checkpoint()
        assert seen == ["one\n", "two\n"]
        await ours.send_all(b"ree")
        await ours.send_eof()
    assert seen[2:] == ["three"]


@pytest.mark.parametrize("mode", ["rw", "rwb"])
async def test_whoever_asks_and_then_listens_need_not_flush(mode: str) -> None:
    ours, its = stream_pair()

    def converse(file: IO[Any]) -> Any:
        file.write("name?\n" if mode == "rw" else b"name?\n")
        return file.readline()

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def answer() -> None:
            assert await ours.receive_until(b"\n", limit=100) == b"name?\n"
            await ours.send_all(b"anna\n")

        assert await with_file(converse, its, mode) in ("anna\n", b"anna\n")


async def test_bytes_go_both_ways_in_any_size() -> None:
    ours, its = stream_pair()
    data = bytes(range(256)) * 2000

    def echo(file: IO[bytes]) -> int:
        return file.write(file.read(len(data)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, data)
        nursery.start_soon(with_file, echo, its, "rwb")
        assert await ours.receive_exactly(len(data)) == data


async def test_without_a_buffer_nothing_is_read_ahead() -> None:
    ours, its = stream_pair()
    await ours.send_all(b"headerbody")
    assert await with_file(lambda file: file.read(6), its, "rb", buffering=0) == b"header"
    assert await its.receive_exactly(4) == b"body"


async def test_with_a_buffer_what_is_written_leaves_at_a_flush_and_at_the_end() -> None:
    ours, its = stream_pair()
    sent: list[int] = []

    def write(file: IO[bytes]) -> None:
        for action in (lambda: file.write(b"one"), file.flush, lambda: file.write(b"two")):
            action()
            sent.append(its.bytes_out)

    await with_file(write, its, "wb")
    assert sent == [0, 3, 3]
    assert await ours.receive_exactly(6) == b"onetwo"


async def test_with_line_buffering_each_line_leaves_by_itself() -> None:
    ours, its = stream_pair()
    file = its.as_file("w", buffering=1)
    await in_thread(file.write, "line\n")
    assert await ours.receive_exactly(5) == b"line\n"
    await in_thread(file.close)


async def test_closing_the_file_leaves_the_stream_open() -> None:
    ours, its = stream_pair()
    await with_file(lambda file: file.write(b"x"), its, "rwb")
    assert not its.is_closed
    await its.send_all(b"y")
    assert await ours.receive_exactly(2) == b"xy"


@pytest.mark.parametrize("mode", ["rb", "wb", "rwb"])
async def test_a_file_says_what_it_can_do(mode: str) -> None:
    _ours, its = stream_pair()
    for buffering in (-1, 0, 100):
        with its.as_file(mode, buffering=buffering) as file:
            assert (file.readable(), file.writable(), file.seekable()) == ("r" in mode, "w" in mode, False)
            with pytest.raises(io.UnsupportedOperation):
                file.fileno()
            if "r" not in mode:
                with pytest.raises(io.UnsupportedOperation):
                    file.read(1)
            if "w" not in mode:
                with pytest.raises(io.UnsupportedOperation):
                    file.write(b"x")
        with pytest.raises(ValueError, match="closed"):
            file.read(1) if "r" in mode else file.write(b"x")


@pytest.mark.parametrize("mode", ["", "b", "a", "r+", "rr", "rbb", "x"])
async def test_a_mode_that_is_none_is_refused(mode: str) -> None:
    with pytest.raises(ValueError, match="a mode is"):
        stream_pair()[0].as_file(mode)


async def test_text_without_a_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="text needs a buffer"):
        stream_pair()[0].as_file("r", buffering=0)


async def test_a_reset_is_a_connection_error_to_the_reader_and_to_the_writer() -> None:
    ours, its = stream_pair()
    await ours.abort()
    with pytest.raises(ConnectionResetError):
        await with_file(lambda file: file.readline(), its, "rb")
    with pytest.raises(ConnectionResetError):
        await with_file(lambda file: file.write(b"x"), its, "wb", buffering=0)


async def test_a_closed_stream_is_a_closed_file() -> None:
    _ours, its = stream_pair()
    await its.aclose()
    with pytest.raises(ValueError, match="closed"):
        await with_file(lambda file: file.readline(), its, "rb")


async def test_cancelling_reaches_the_blocking_code() -> None:
    _ours, its = stream_pair()
    seen: list[BaseException] = []

    def read(file: IO[bytes]) -> None:
        try:
            file.readline()
        except BaseException as exc:
            seen.append(exc)
            raise

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(with_file, read, its, "rb")
            await trio.testing.wait_all_tasks_blocked(0.01)
            scope.cancel()
    assert scope.cancelled_caught
    assert [type(exc) for exc in seen] == [trio.Cancelled]


async def test_the_streams_deadline_is_a_timeout_of_the_file() -> None:
    _ours, its = stream_pair()
    its.deadline = trio.current_time()
    with pytest.raises(TimeoutError):
        await with_file(lambda file: file.readline(), its, "rb")


async def test_outside_of_a_thread_of_trios_it_says_where_it_belongs() -> None:
    _ours, its = stream_pair()
    message = "only in a thread that trio.to_thread.run_sync has started"
    with pytest.raises(RuntimeError, match=message):
        its.as_file("rb").read(1)
    seen: list[BaseException] = []

    def read() -> None:
        try:
            its.as_file("rb").read(1)
        except RuntimeError as exc:
            seen.append(exc)

    thread = threading.Thread(target=read)
    thread.start()
    await in_thread(thread.join)
    assert message in str(seen[0])


async def test_a_file_that_is_dropped_sends_what_it_holds_in_its_thread() -> None:
    ours, its = stream_pair()
    gc.disable()
    try:
        await in_thread(lambda: print("dropped", file=its.as_file("rw")))
    finally:
        gc.enable()
    assert await ours.receive_until(b"\n", limit=100) == b"dropped\n"
