"""Stream's promises: ends told apart, hard limits, nothing lost, nobody locked. Its files are in test_stream_files."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from asyncnet.errors import Draining, EndOfStream, IncompleteRead, LimitExceeded, ReceiveTimeout
from asyncnet.limits import Timeouts
from asyncnet.receiving import READ_AHEAD
from asyncnet.sending import FAIR_TURNS, MAX_PENDING
from asyncnet.stream import LINGER_LIMIT, Stream
from asyncnet.testing import (
    OneByteStream,
    ScriptedPeer,
    StallingStream,
    cancel_at_each_checkpoint,
    stream_pair,
)
from asyncnet.transports.memory import memory_transports
from tests.pairs import MAKERS, Maker, close_sockets, foreign_pair, memory_pair, over, socket_pair, tcp_pair

MANY = pytest.mark.parametrize("maker", [socket_pair, tcp_pair, memory_pair, foreign_pair])
MIB = 1 << 20
CRLF = b"\r\n"


@pytest.fixture(autouse=True)
def _no_socket_stays_open() -> Iterator[None]:
    yield
    close_sockets()


def foreign(stream: Stream) -> Stream:
    """A stream over another stream that it knows nothing about."""
    return Stream.of(StallingStream(stream, at=1 << 60))


# Ends are told apart


async def test_an_end_where_nothing_was_begun_is_end_of_stream() -> None:
    for receive in (
        lambda stream: stream.receive_exactly(1),
        lambda stream: stream.receive_until(CRLF, limit=10),
        lambda stream: stream.skip_until(CRLF, limit=10),
    ):
        client, server = stream_pair()
        await client.aclose()
        assert await server.receive_some() == b""
        with pytest.raises(EndOfStream):
            await receive(server)


async def test_an_end_in_the_middle_of_an_item_is_incomplete_and_shows_the_part() -> None:
    client, server = stream_pair()
    await client.send_all(b"abc")
    await client.aclose()
    with pytest.raises(IncompleteRead) as caught:
        await server.receive_exactly(4)
    assert (caught.value.partial, caught.value.expected) == (b"abc", 4)
    with pytest.raises(IncompleteRead) as caught:
        await server.receive_until(CRLF, limit=10)
    assert (caught.value.partial, caught.value.expected) == (b"abc", None)
    assert await server.receive_some() == b"abc"


async def test_an_end_while_skipping_is_incomplete_even_if_all_was_dropped() -> None:
    client, server = stream_pair()
    await client.send_all(b"abc")
    await client.aclose()
    with pytest.raises(IncompleteRead):
        await server.skip_until(b"\n", limit=10)


async def test_a_reset_is_neither_kind_of_end() -> None:
    client, server = stream_pair()
    await client.send_all(b"abc")
    await client.abort()
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_exactly(4)
    assert await server.receive_some() == b"abc"


async def test_receiving_after_close_is_the_callers_mistake() -> None:
    _client, server = stream_pair()
    await server.aclose()
    for receive in (server.receive_some(), server.receive_exactly(1), server.receive_until(b"x", limit=9)):
        with pytest.raises(trio.ClosedResourceError):
            await receive
    assert server.is_closed


# Limits are hard


async def test_the_limit_counts_the_delimiter() -> None:
    client, server = stream_pair()
    await client.send_all(b"12345678\r\n12345678\r\n")
    assert await server.receive_until(CRLF, limit=10) == b"12345678\r\n"
    with pytest.raises(LimitExceeded):
        await server.receive_until(CRLF, limit=9)


async def test_an_item_past_the_limit_leaves_the_buffer_as_it_was() -> None:
    client, server = stream_pair()
    await client.send_all(b"123456789\r\nnext\r\n")
    with pytest.raises(LimitExceeded) as caught:
        await server.receive_until(CRLF, limit=10)
    assert caught.value.limit == 10
    assert server.take(server.buffered) == b"123456789\r\nnext\r\n"


async def test_no_more_is_received_once_the_limit_is_reached() -> None:
    client, server = stream_pair()
    await client.send_all(b"1234567890")
    with pytest.raises(LimitExceeded):
        await server.receive_until(CRLF, limit=10)


@pytest.mark.parametrize("chunks", [[b"abc\r", b"\nrest"], [b"abc", b"\r\nrest"], [b"a", b"bc", b"\r", b"\n", b"rest"]])
async def test_a_delimiter_may_be_split_over_chunks(chunks: list[bytes]) -> None:
    client, server = stream_pair()

    async def send() -> None:
        for chunk in chunks:
            await client.send_all(chunk)
            await trio.testing.wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert await server.receive_until(CRLF, limit=10) == b"abc\r\n"
    assert await server.receive_exactly(4) == b"rest"


async def test_after_one_delimiter_another_is_found_in_what_was_searched() -> None:
    client, server = stream_pair()
    await client.send_all(b"xone two")
    await server.receive_exactly(1)
    assert server.take_until(b"\n", limit=100) is None
    assert server.take_until(b" ", limit=100) == b"one "


async def test_a_longer_delimiter_is_found_though_its_end_was_searched_for() -> None:
    client, server = stream_pair()
    await client.send_all(b"xab\r")
    await server.receive_exactly(1)
    assert server.take_until(b"\n", limit=100) is None
    await client.send_all(b"\n")
    assert await server.receive_until(CRLF, limit=100) == b"ab\r\n"


class CountingBuffer(bytearray):
    """Counts the bytes that searches look at."""

    searched = 0

    def find(self, delimiter: bytes, start: int = 0, end: int = 1 << 62) -> int:
        self.searched += max(0, min(end, len(self)) - start)
        return super().find(delimiter, start, end)


@pytest.mark.parametrize("delimiter", [b"\n", b"\r\n", b"\r\n\r\n"])
async def test_a_line_that_comes_byte_by_byte_is_searched_once(delimiter: bytes) -> None:
    client, server = stream_pair()
    server = Stream.of(OneByteStream(server))
    server._buffer = buffer = CountingBuffer()
    line = b"x" * 5000 + delimiter
    await client.send_all(line)
    assert await server.receive_until(delimiter, limit=10_000) == line
    assert buffer.searched <= (len(delimiter) + 1) * len(line)


async def test_empty_delimiters_are_refused() -> None:
    _client, server = stream_pair()
    server.unread(b"x")
    with pytest.raises(ValueError, match="empty delimiter"):
        await server.receive_until(b"", limit=1)
    with pytest.raises(ValueError, match="empty delimiter"):
        await server.skip_until(b"", limit=1)


# Resynchronising


async def test_skip_until_finds_the_next_item() -> None:
    client, server = stream_pair()
    await client.send_all(b"x" * 100 + b"\r\nnext\r\n")
    with pytest.raises(LimitExceeded):
        await server.receive_until(CRLF, limit=10)
    await server.skip_until(CRLF, limit=1000)
    assert await server.receive_until(CRLF, limit=10) == b"next\r\n"


@pytest.mark.parametrize("byte_by_byte", [False, True])
@pytest.mark.parametrize(("length", "fits"), [(8, True), (9, False), (50, False)])
async def test_skip_until_has_the_same_limit_however_the_bytes_come(
    length: int, fits: bool, byte_by_byte: bool
) -> None:
    client, server = stream_pair()
    await client.send_all(b"x" * length + b"\r\nnext")
    if byte_by_byte:
        server = Stream.of(OneByteStream(server))
    if fits:
        await server.skip_until(CRLF, limit=10)
        assert await server.receive_exactly(4) == b"next"
    else:
        with pytest.raises(LimitExceeded) as caught:
            await server.skip_until(CRLF, limit=10)
        assert caught.value.limit == 10


# What is buffered


async def test_what_a_parser_gives_back_comes_first() -> None:
    client, server = stream_pair()
    await client.send_all(b"onetwothree")
    assert await server.receive_exactly(6) == b"onetwo"
    server.unread(b"two")
    server.unread(b"")
    assert server.buffered == 8
    assert await server.receive_some(3) == b"two"
    assert await server.receive_some() == b"three"


async def test_a_delimiter_may_begin_in_what_was_given_back() -> None:
    client, server = stream_pair()
    await client.send_all(b"abc")
    assert await server.receive_exactly(1) == b"a"
    assert server.take_until(CRLF, limit=9) is None
    server.unread(b"x\r\n")
    assert server.take_until(CRLF, limit=9) == b"x\r\n"


async def test_take_gives_only_what_is_there() -> None:
    client, server = stream_pair()
    await client.send_all(b"abcdef")
    await server.receive_exactly(1)
    assert server.take(0) == b""
    assert server.take(2) == b"bc"
    with pytest.raises(ValueError, match="4 bytes asked for, 3 are buffered"):
        server.take(4)
    with pytest.raises(ValueError, match="-1 bytes"):
        server.take(-1)
    assert server.take_until(b"e", limit=3) == b"de"
    assert server.take_until(b"z", limit=3) is None
    assert server.take(1) == b"f"


@pytest.mark.parametrize("size", [0, -1])
async def test_a_receive_of_no_bytes_is_refused(size: int) -> None:
    client, server = stream_pair(capacity=1)
    client.write(b"xx")
    for stream in (client, server):
        with pytest.raises(ValueError, match="at least 1"):
            await stream.receive_some(size)


async def test_receive_some_never_returns_more_than_asked_for() -> None:
    client, server = stream_pair()
    await client.send_all(b"abcdef")
    assert await server.receive_some(2) == b"ab"
    await server.receive_exactly(1)
    assert await server.receive_some(2) == b"de"


# Writing


@MANY
async def test_what_is_written_leaves_with_the_flush(maker: Maker) -> None:
    left, right = await over(maker)()
    left.write(b"one")
    left.write(b"")
    left.write(bytearray(b"two"))
    left.write(memoryview(b"three"))
    assert (left.pending, left.bytes_out) == (11, 0)
    await left.flush()
    assert (left.pending, left.bytes_out) == (0, 11)
    assert await right.receive_exactly(11) == b"onetwothree"


async def test_what_is_written_may_change_afterwards() -> None:
    client, server = stream_pair(capacity=2)
    data = bytearray(b"before")
    client.write(data)
    data[:] = b"afterwards"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.flush)
        assert await server.receive_exactly(6) == b"before"


async def test_queueing_past_the_bound_is_refused_and_loses_nothing() -> None:
    client, server = stream_pair(capacity=1 << 20)
    client.write(b"x" * MAX_PENDING)
    with pytest.raises(BufferError, match="flush"):
        client.write(b"y")
    await client.flush()
    client.write(b"y")
    await client.flush()
    assert await server.receive_exactly(MAX_PENDING + 1) == b"x" * MAX_PENDING + b"y"


async def test_send_all_sends_what_was_queued_first() -> None:
    client, server = stream_pair()
    client.write(b"one")
    await client.send_all(b"two")
    await client.send_all(b"")
    assert await server.receive_exactly(6) == b"onetwo"


@MANY
async def test_a_receive_that_has_to_wait_sends_what_is_queued(maker: Maker) -> None:
    left, right = await over(maker)()

    async def answer() -> None:
        assert await right.receive_exactly(8) == b"question"
        right.write(b"answer")
        with pytest.raises(EndOfStream):
            await right.receive_exactly(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        left.write(b"question")
        assert await left.receive_exactly(6) == b"answer"
        await left.aclose()


async def test_a_receive_that_the_buffer_satisfies_leaves_the_queue_alone() -> None:
    client, server = stream_pair()
    await client.send_all(b"one\r\ntwo\r\n")
    assert await server.receive_until(CRLF, limit=9) == b"one\r\n"
    server.write(b"1")
    assert await server.receive_until(CRLF, limit=9) == b"two\r\n"
    assert server.pending == 1


@MANY
@pytest.mark.parametrize("piece", [16384, 65536])
async def test_two_peers_that_both_write_before_they_read_do_not_lock_each_other(maker: Maker, piece: int) -> None:
    left, right = await over(maker)()
    load = bytes(range(256)) * (MIB // 256)

    async def talk(stream: Stream) -> None:
        received = bytearray()
        for start in range(0, MIB, piece):
            stream.write(load[start : start + piece])
            while stream.pending >= 65536 and len(received) < MIB:
                received += await stream.receive_some()
        while len(received) < MIB:
            received += await stream.receive_some()
        assert received == load
        await stream.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk, left)
        nursery.start_soon(talk, right)


@MANY
async def test_one_big_write_on_either_side_locks_nobody(maker: Maker) -> None:
    left, right = await over(maker)()

    async def talk(stream: Stream) -> None:
        stream.write(bytes(MIB))
        assert await stream.receive_exactly(MIB) == bytes(MIB)
        await stream.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk, left)
        nursery.start_soon(talk, right)


@MANY
async def test_a_handler_that_answers_every_receive_is_slowed_down_by_a_peer_that_reads_late(maker: Maker) -> None:
    left, right = await over(maker)()
    load = bytes(range(256)) * (4 * MIB // 256)

    async def echo() -> None:
        while data := await right.receive_some():
            assert right.buffered <= READ_AHEAD
            right.write(data)
        await right.aclose()

    async def send() -> None:
        await left.send_all(load)
        if left.can_half_close:
            await left.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo)
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert await left.receive_exactly(len(load)) == load


async def test_lines_that_are_all_answered_do_not_pile_up_either() -> None:
    client, server = stream_pair()
    lines = 30_000

    async def answer() -> None:
        for _ in range(lines):
            await server.receive_until(b"\n", limit=9)
            server.write(b"250 a good deal longer\n")
        await server.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        nursery.start_soon(client.send_all, b"noop\n" * lines)
        await trio.testing.wait_all_tasks_blocked()
        assert await client.receive_exactly(23 * lines) == b"250 a good deal longer\n" * lines


@pytest.mark.parametrize("wrap", [Stream.of, foreign], ids=["memory", "foreign"])
async def test_a_sender_takes_over_from_a_receive_that_sends(wrap: Callable[[Stream], Stream]) -> None:
    """One task receives, another sends: what it had queued is on its way already when it comes to flush."""
    client, server = stream_pair(capacity=10)
    server = wrap(server)
    server.write(b"x" * 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(server.send_all, b"y" * 1000)
        await trio.testing.wait_all_tasks_blocked()
        assert await client.receive_exactly(2000) == b"x" * 1000 + b"y" * 1000
        await client.send_all(b"done")


async def test_a_close_sends_what_a_waiting_receive_was_sending() -> None:
    client, server = stream_pair(capacity=10)
    server.write(b"x" * 1000)

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await server.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(server.aclose)
        peer = ScriptedPeer(client)
        await peer.expect(b"x" * 1000)
        await peer.expect_end()


async def test_an_abort_ends_a_receive_that_sends() -> None:
    _client, server = stream_pair(capacity=10)
    server.write(b"x" * 1000)
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await server.receive_some()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await server.abort()


async def test_what_the_peer_sent_before_it_left_is_received_though_nothing_can_be_sent() -> None:
    client, server = stream_pair(capacity=10)
    await client.send_all(b"last words")
    await client.aclose()
    server.write(b"x" * 1000)
    assert await server.receive_some() == b"last words"
    assert await server.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await server.flush()


# Progress


@pytest.mark.parametrize("wrap", [Stream.of, foreign], ids=["memory", "foreign"])
async def test_a_peer_that_never_reads_is_cut_off(
    autojump_clock: trio.testing.MockClock, wrap: Callable[[Stream], Stream]
) -> None:
    _client, server = stream_pair(capacity=10, timeouts=Timeouts(send=7))
    server = wrap(server)
    server.timeouts = Timeouts(send=7)
    with pytest.raises(trio.BrokenResourceError, match="read nothing for 7 seconds"):
        await server.send_all(b"x" * 11)
    assert trio.current_time() == pytest.approx(7)
    with pytest.raises(trio.BrokenResourceError, match="read nothing"):
        server.write(b"more")


async def test_a_peer_that_sends_and_never_reads_is_cut_off_too(autojump_clock: trio.testing.MockClock) -> None:
    client, server = stream_pair(capacity=1000, timeouts=Timeouts(send=7))

    async def echo() -> None:
        with pytest.raises(trio.BrokenResourceError, match="read nothing"):
            while data := await server.receive_some():
                server.write(data)
        await server.aclose()

    async def chatter() -> None:
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await client.send_all(b"x" * 1000)
                await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo)
        nursery.start_soon(chatter)


async def test_a_slow_peer_is_not_cut_off_as_long_as_it_reads(autojump_clock: trio.testing.MockClock) -> None:
    client, server = stream_pair(capacity=10, timeouts=Timeouts(send=7))

    async def read_slowly() -> None:
        for _ in range(10):
            await trio.sleep(6)
            await client.receive_exactly(10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly)
        await server.send_all(b"x" * 100)
    assert trio.current_time() == pytest.approx(60)


# Cancelling


@pytest.mark.parametrize("queued", [0, 5, 5000])
@pytest.mark.parametrize("wrap", [Stream.of, foreign], ids=["memory", "foreign"])
async def test_a_cancelled_receive_loses_no_bytes(wrap: Callable[[Stream], Stream], queued: int) -> None:
    receives = (
        lambda stream: stream.receive_some(3),
        lambda stream: stream.receive_exactly(5),
        lambda stream: stream.receive_until(CRLF, limit=100),
    )
    for receive in receives:
        for attempt in cancel_at_each_checkpoint():
            client, server = stream_pair(capacity=1000)
            server = wrap(server)
            server.write(b"q" * queued)
            received = b""

            async def send(client: Stream = client) -> None:
                for byte in b"line one\r\nline two":
                    await client.send_all(bytes([byte]))

            async def read(client: Stream = client) -> None:
                while await client.receive_some():
                    pass

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                nursery.start_soon(read)
                with attempt:
                    received = await receive(server)
                rest = b"line one\r\nline two"[len(received) :]
                assert await server.receive_exactly(len(rest)) == rest
                nursery.cancel_scope.cancel()


async def test_an_item_that_is_there_is_not_lost_when_it_is_the_others_turn() -> None:
    client, server = stream_pair()
    await client.send_all(b"-" + b"x\n" * 200)
    await server.receive_exactly(1)
    taken = 0
    with trio.CancelScope() as scope:
        scope.cancel()
        while True:
            await server.receive_until(b"\n", limit=9)
            taken += 1
    assert 0 < taken < 200
    assert server.buffered == 400 - 2 * taken


@pytest.mark.parametrize("send", ["send_all", "flush"])
async def test_a_send_cancelled_in_the_middle_breaks_sending_only_and_makes_the_close_a_reset(send: str) -> None:
    broken = 0
    for attempt in cancel_at_each_checkpoint():
        client, server = stream_pair(capacity=10)
        peer = ScriptedPeer(client)
        await peer.send(b"in")
        load = bytes(range(50))
        received = bytearray()

        async def read(client: Stream = client, received: bytearray = received) -> None:
            try:
                while data := await client.receive_some():
                    received += data
            except trio.BrokenResourceError:
                received += b"reset"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with attempt:
                if send == "flush":
                    server.write(load)
                    await server.flush()
                else:
                    await server.send_all(load)
            if attempt.cancelled and 0 < server.bytes_out < 50:
                broken += 1
                with pytest.raises(trio.BrokenResourceError, match="cancelled"):
                    await server.send_all(b"more")
                assert await server.receive_some() == b"in"
                await server.aclose()
                expected = load[: server.bytes_out] + b"reset"
            else:
                expected = load[: server.bytes_out + server.pending]
                await server.receive_some()
                await server.aclose()
        assert received == expected
    assert broken > 3


async def test_a_cancelled_receive_leaves_what_is_queued_to_the_next() -> None:
    client, server = stream_pair(capacity=10)
    server.write(b"x" * 100)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert server.pending == 90
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.flush)
        assert await client.receive_exactly(100) == b"x" * 100


# Closing


async def test_a_close_sends_what_is_queued() -> None:
    client, server = stream_pair(capacity=10)
    server.write(b"x" * 100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.aclose)
        peer = ScriptedPeer(client)
        await peer.expect(b"x" * 100)
        await peer.expect_end()
    await server.aclose()


async def test_a_close_without_a_checkpoint_ends_what_has_left_and_leaves_the_rest_to_another() -> None:
    ours, theirs = await over(socket_pair)()
    ours.write(b"queued")
    assert not ours.close_now()
    await ours.flush()
    with trio.testing.assert_no_checkpoints():
        assert ours.close_now()
    assert ours.is_closed
    assert await theirs.receive_exactly(6) == b"queued"
    assert await theirs.receive_some() == b""


async def test_a_close_without_a_checkpoint_ends_a_wait() -> None:
    ours, _theirs = await over(socket_pair)()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_receive_in_vain, ours)
        await trio.testing.wait_all_tasks_blocked()
        assert ours.close_now()


async def _receive_in_vain(stream: Stream) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


async def test_a_close_waits_so_long_and_then_resets(autojump_clock: trio.testing.MockClock) -> None:
    client, server = stream_pair(capacity=10, timeouts=Timeouts(close=3))
    server.write(b"x" * 100)
    await server.aclose()
    assert trio.current_time() == pytest.approx(3)
    peer = ScriptedPeer(client)
    await peer.expect(b"x" * 10)
    await peer.expect_reset()


class NeverCloses(StallingStream):
    """Closes only by force."""

    async def aclose(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            await trio.aclose_forcefully(self._stream)


async def test_a_close_does_not_wait_for_ever_for_what_is_beneath(autojump_clock: trio.testing.MockClock) -> None:
    client, server = stream_pair()
    await Stream(Stream.of(NeverCloses(server, at=99))._transport, Timeouts(close=3)).aclose()
    assert trio.current_time() == pytest.approx(3)
    await ScriptedPeer(client).expect_end()


async def test_a_cancelled_close_closes() -> None:
    for attempt in cancel_at_each_checkpoint():
        client, server = stream_pair(capacity=10)
        server.write(b"x" * 30)
        async with trio.open_nursery() as nursery:
            received = bytearray()

            async def read(client: Stream = client, received: bytearray = received) -> None:
                try:
                    while data := await client.receive_some():
                        received += data
                except trio.BrokenResourceError:
                    received += b"reset"

            nursery.start_soon(read)
            with attempt:
                await server.aclose()
        assert server.is_closed
        assert received == b"x" * 30 or (attempt.cancelled and received.endswith(b"reset"))


async def test_an_abort_drops_what_is_queued_and_resets() -> None:
    for maker in (tcp_pair, memory_pair):
        left, right = await over(maker)()
        left.write(b"never seen")
        await left.abort()
        assert left.pending == 0
        await ScriptedPeer(right).expect_reset()
        await right.aclose()


async def test_sending_after_the_close_is_the_callers_mistake() -> None:
    _client, server = stream_pair()
    await server.aclose()
    with pytest.raises(trio.ClosedResourceError):
        server.write(b"x")
    for send in (server.flush(), server.send_all(b"x"), server.send_eof(), server.wait_send_all_might_not_block()):
        with pytest.raises(trio.ClosedResourceError):
            await send


@pytest.mark.parametrize("maker", [tcp_pair, memory_pair])
async def test_a_lingering_close_delivers_the_answer_though_unread_bytes_have_come(maker: Maker) -> None:
    left, right = await over(maker)()
    await left.send_all(b"x" * 4096)
    assert await right.receive_some(10) == b"x" * 10
    right.write(b"413 too much")

    async def refuse() -> None:
        await right.linger()
        await right.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        assert await left.receive_exactly(12) == b"413 too much"
        assert await left.receive_some() == b""
        await left.aclose()


async def test_lingering_ends_after_two_seconds(autojump_clock: trio.testing.MockClock) -> None:
    client, server = stream_pair()
    await server.linger()
    assert trio.current_time() == pytest.approx(2)
    await ScriptedPeer(client).expect_end()


async def test_lingering_ends_after_so_many_bytes(autojump_clock: trio.testing.MockClock) -> None:
    client, server = stream_pair()

    async def flood() -> None:
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await client.send_all(b"x" * 65536)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        await server.linger()
        await server.aclose()
    assert trio.current_time() == 0
    assert client.bytes_out <= 2 * LINGER_LIMIT


async def test_lingering_is_fine_when_the_peer_has_gone() -> None:
    client, server = stream_pair()
    server.write(b"too late")
    await client.abort()
    await server.linger()
    await server.aclose()


@MANY
async def test_one_side_may_end_while_the_other_goes_on(maker: Maker) -> None:
    left, right = await over(maker)()
    left.write(b"question")
    await left.send_eof()
    await left.send_eof()
    assert await right.receive_exactly(8) == b"question"
    assert await right.receive_some() == b""
    await right.send_all(b"answer")
    await right.aclose()
    assert await left.receive_exactly(6) == b"answer"
    with pytest.raises(trio.ClosedResourceError):
        left.write(b"more")
    await left.aclose()


# Deadlines and drains


@pytest.mark.parametrize("wrap", [Stream.of, foreign], ids=["memory", "foreign"])
async def test_a_receive_past_its_deadline_loses_nothing_and_leaves_sending_alone(
    autojump_clock: trio.testing.MockClock, wrap: Callable[[Stream], Stream]
) -> None:
    client, server = stream_pair()
    server = wrap(server)
    await client.send_all(b"half a li")
    server.deadline = 5
    with pytest.raises(ReceiveTimeout):
        await server.receive_until(CRLF, limit=100)
    assert trio.current_time() == pytest.approx(5)
    await server.send_all(b"too slow")
    assert await client.receive_some() == b"too slow"
    server.deadline = math.inf
    await client.send_all(b"ne\r\n")
    assert await server.receive_until(CRLF, limit=100) == b"half a line\r\n"


async def test_a_deadline_holds_over_many_receives(autojump_clock: trio.testing.MockClock) -> None:
    client, server = stream_pair()

    async def trickle() -> None:
        while True:
            await trio.sleep(1)
            await client.send_all(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        server.deadline = 10.5
        with pytest.raises(ReceiveTimeout):
            await server.receive_until(CRLF, limit=100)
        nursery.cancel_scope.cancel()
    assert trio.current_time() == pytest.approx(10.5)
    assert server.buffered == 10


async def test_what_is_buffered_is_had_after_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    client, server = stream_pair()
    await client.send_all(b"one\r\ntwo\r\n")
    await server.receive_until(CRLF, limit=9)
    server.deadline = trio.current_time()
    assert await server.receive_until(CRLF, limit=9) == b"two\r\n"
    with pytest.raises(ReceiveTimeout):
        await server.receive_until(CRLF, limit=9)


@pytest.mark.parametrize("maker", [socket_pair, memory_pair, foreign_pair])
async def test_a_deadline_ends_a_receive_whose_peer_does_not_read(
    maker: Maker, autojump_clock: trio.testing.MockClock
) -> None:
    left, _right = await over(maker)()
    left.write(bytes(8 * MIB))
    left.deadline = trio.current_time() + 5
    with pytest.raises(ReceiveTimeout):
        await left.receive_some()
    await left.abort()


async def test_a_stream_with_a_deadline_can_be_collected() -> None:
    client, server = stream_pair()
    server.deadline = trio.current_time() + 1000
    gone = weakref.ref(server)
    del client, server
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("maker", [socket_pair, memory_pair, foreign_pair])
async def test_a_drain_ends_a_receive_that_waits_and_later_ones_until_it_is_lifted(maker: Maker) -> None:
    left, right = await over(maker)()
    ended = []

    async def wait() -> None:
        with pytest.raises(Draining):
            await right.receive_some()
        ended.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        right.interrupt()
    assert ended
    await left.send_all(b"hello")
    with pytest.raises(Draining):
        await right.receive_exactly(1)
    right.interrupt(False)
    assert await right.receive_exactly(5) == b"hello"
    await right.send_all(b"bye")
    assert await left.receive_exactly(3) == b"bye"
    await left.aclose()
    await right.aclose()


async def test_while_draining_what_is_buffered_is_had() -> None:
    client, server = stream_pair()
    await client.send_all(b"one\r\ntwo\r\n")
    await server.receive_until(CRLF, limit=9)
    server.interrupt()
    assert await server.receive_until(CRLF, limit=9) == b"two\r\n"
    with pytest.raises(Draining):
        await server.receive_until(CRLF, limit=9)


@pytest.mark.parametrize("maker", [socket_pair, memory_pair, foreign_pair])
async def test_a_drain_is_not_lost_wherever_the_receive_is(maker: Maker) -> None:
    """The drain comes one schedule later each time: before the receive waits, while it waits, when it has the bytes."""
    for schedules in range(8):
        left, right = await over(maker)()
        right.write(b"x" * 10)
        outcome: list[object] = []

        async def receive(right: Stream = right, outcome: list[object] = outcome) -> None:
            try:
                outcome.append(await right.receive_some())
            except Draining as exc:
                outcome.append(exc)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for _ in range(schedules):
                await trio.lowlevel.checkpoint()
            right.interrupt()
            with trio.fail_after(5):
                while not outcome:
                    await trio.lowlevel.checkpoint()
        assert isinstance(outcome[0], Draining)
        await left.aclose()
        await right.aclose()


async def test_a_wake_between_a_readiness_and_a_fruitless_read_is_not_lost() -> None:
    left, right = memory_transports()
    stream = Stream(right)
    readings = 0
    receive_now = right.receive_now

    def fruitless(max_bytes: int) -> bytes | None:
        nonlocal readings
        readings += 1
        if readings == 1:
            stream.interrupt()
            return None
        return receive_now(max_bytes)

    transport = _Replaced(right, fruitless)
    stream._transport = transport
    await left.send_all(b"x")
    with pytest.raises(Draining):
        await stream.receive_some()


class _Replaced:
    """A transport whose `receive_now` is another one."""

    def __init__(self, transport: object, receive_now: object) -> None:
        self._transport = transport
        self.receive_now = receive_now

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


async def test_a_foreign_stream_that_was_closed_behind_our_back_is_closed() -> None:
    left, _right = trio.testing.memory_stream_pair()
    stream = Stream.of(left)
    await left.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


# Fairness


async def test_a_task_that_never_has_to_wait_gives_turns() -> None:
    client, server = stream_pair(capacity=MIB)
    items = 100 * FAIR_TURNS
    await client.send_all(b"x\n" * items)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(items // 2):
            await server.receive_until(b"\n", limit=9)
        for _ in range(items // 2):
            await server.receive_exactly(2)
        nursery.cancel_scope.cancel()
    assert turns >= 90


async def test_a_task_that_only_flushes_gives_turns_and_can_be_cancelled() -> None:
    _client, server = stream_pair(capacity=MIB)
    with trio.CancelScope() as scope:
        scope.cancel()
        for _ in range(2 * FAIR_TURNS):
            server.write(b"x")
            await server.flush()
    assert scope.cancelled_caught
    assert server.bytes_out < FAIR_TURNS
    assert server.bytes_out + server.pending == FAIR_TURNS


# Two tasks


async def test_a_second_task_gets_busy_resource_error() -> None:
    _client, server = stream_pair(capacity=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.receive_some)
        nursery.start_soon(server.send_all, b"x" * 20)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await server.receive_some()
        for send in (server.send_all(b"y"), server.flush(), server.wait_send_all_might_not_block()):
            with pytest.raises(trio.BusyResourceError):
                await send
        nursery.cancel_scope.cancel()


# Counting


@MANY
async def test_every_byte_is_counted_in_both_directions(maker: Maker) -> None:
    left, right = await over(maker)()

    async def answer() -> None:
        assert await right.receive_exactly(200_000) == bytes(200_000)
        right.write(b"ok")
        await right.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        await left.send_all(bytes(200_000))
        assert await left.receive_exactly(2) == b"ok"
    assert (left.bytes_out, left.bytes_in) == (200_000, 2)
    assert (right.bytes_in, right.bytes_out) == (200_000, 2)
    assert "200000 out" in repr(left)
    assert "closed" in repr(right)
    await left.aclose()


async def test_stream_of_a_stream_is_itself() -> None:
    client, _server = stream_pair()
    assert Stream.of(client) is client
    assert Stream.of(client._transport)._transport is client._transport


class TestDelivering:
    """`deliver`: an end that is known to have arrived."""

    async def test_it_returns_when_the_peer_has_all(self) -> None:
        near, far = await over(tcp_pair)()
        near.write(b"hello")
        await near.deliver()
        assert near.is_closed
        assert await far.receive_exactly(5) == b"hello"
        assert await far.receive_some() == b""
        await far.aclose()

    async def test_it_waits_for_a_peer_that_reads_slowly(self) -> None:
        near, far = await over(tcp_pair)()
        size = 20_000_000
        done = trio.Event()

        async def send() -> None:
            await near.send_all(bytes(size))
            await near.deliver()
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            received = 0
            while data := await far.receive_some(1 << 20):
                received += len(data)
            assert received == size
            with trio.fail_after(5):
                await done.wait()
        await far.aclose()

    async def test_a_peer_that_resets_is_told(self) -> None:
        near, far = await over(tcp_pair)()

        async def send() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await near.send_all(bytes(20_000_000))
                await near.deliver()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await far.receive_some()
            await far.abort()
        await near.aclose()

    async def test_over_other_streams_it_closes(self) -> None:
        near, far = await over(memory_pair)()
        near.write(b"hello")
        await near.deliver()
        assert await far.receive_exactly(5) == b"hello"
        assert await far.receive_some() == b""


class TestReceivingInto:
    async def test_what_has_come_is_put_into_the_buffer(self) -> None:
        for maker in MAKERS:
            near, far = await over(maker)()
            buffer = memoryview(bytearray(10))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.send_all, b"hello")
                assert await far.receive_into(buffer) == 5
            assert bytes(buffer) == b"hello" + bytes(5)
            far.unread(b"back")
            assert await far.receive_into(buffer) == 4
            assert buffer[:5] == b"backo"
            await near.aclose()
            assert await far.receive_into(buffer) == 0
            await far.aclose()

    async def test_its_deadline_is_the_streams(self, autojump_clock: trio.testing.MockClock) -> None:
        _, far = await over(memory_pair)()
        far.deadline = trio.current_time() + 5
        with pytest.raises(ReceiveTimeout):
            await far.receive_into(memoryview(bytearray(1)))

    async def test_cancelled_it_loses_nothing(self) -> None:
        near, far = await over(tcp_pair)()
        with trio.move_on_after(0):
            await far.receive_into(memoryview(bytearray(1)))
        await near.send_all(b"x")
        assert await far.receive_exactly(1) == b"x"
        await near.aclose()
        await far.aclose()


class TestReceivingToFiles:
    """`receive_to_file`: what arrives goes into a file without passing through this process."""

    async def test_what_arrives_is_in_the_file(self, tmp_path: Path) -> None:
        near, far = await over(tcp_pair)()
        content = bytes(range(256)) * 20_000
        with (tmp_path / "file").open("w+b") as file:
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    await near.send_all(content)
                    await near.aclose()

                nursery.start_soon(send)
                assert far.can_receive_to_file
                size = 0
                while count := await far.receive_to_file(file.fileno(), size):
                    size += count
            assert (tmp_path / "file").read_bytes() == content
            assert far.bytes_in == size == len(content)
        await far.aclose()

    async def test_it_is_for_plain_sockets_with_nothing_buffered(self) -> None:
        near, far = await over(memory_pair)()
        assert not far.can_receive_to_file
        near, far = await over(tcp_pair)()
        far.unread(b"x")
        assert not far.can_receive_to_file
        await near.aclose()
        await far.aclose()

    async def test_cancelled_it_has_taken_nothing(self, tmp_path: Path) -> None:
        near, far = await over(tcp_pair)()
        with (tmp_path / "file").open("w+b") as file:
            with trio.move_on_after(0):
                await far.receive_to_file(file.fileno(), 0)
            await near.send_all(b"hello")
            assert await far.receive_to_file(file.fileno(), 0) == 5
        assert (tmp_path / "file").read_bytes() == b"hello"
        await near.aclose()
        await far.aclose()

    async def test_a_disk_that_is_full_is_told(self) -> None:
        near, far = await over(tcp_pair)()
        await near.send_all(b"hello")
        with open("/dev/full", "wb", buffering=0) as file:
            with pytest.raises(OSError, match="No space left"):
                await far.receive_to_file(file.fileno(), 0)
        await near.aclose()
        await far.aclose()

    async def test_its_deadline_and_a_drain_end_its_wait(self, tmp_path: Path) -> None:
        near, far = await over(tcp_pair)()
        with (tmp_path / "file").open("w+b") as file:
            far.deadline = trio.current_time() + 0.01
            with pytest.raises(ReceiveTimeout):
                await far.receive_to_file(file.fileno(), 0)
            far.deadline = math.inf
            far.interrupt()
            with pytest.raises(Draining):
                await far.receive_to_file(file.fileno(), 0)
        await near.aclose()
        await far.aclose()
