"""`WebSocket` as its peer sees it, over memory and in virtual time."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.abc import Clock

from asyncnet.errors import LocalProtocolError
from asyncnet.http.websocket import WebSocket, WebSocketClosed, WebSocketLimits, WebSocketTimeouts, attended
from asyncnet.http.websocket.deflate import DeflateAgreement, DeflateSettings
from asyncnet.http.websocket.handshake import Agreement
from asyncnet.stream import Stream
from asyncnet.testing import ScriptedPeer, cancel_at_each_checkpoint, stream_pair
from tests.http.websocket.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame

Handler = Callable[[WebSocket], Awaitable[object]]
DEFLATE = Agreement(deflate=DeflateAgreement(12, True, 12, True, DeflateSettings()))


def sent(opcode: int, payload: bytes = b"") -> bytes:
    """A frame of the server's."""
    return frame(opcode, payload, key=None)


def sent_close(code: int | None = None, reason: bytes = b"") -> bytes:
    return close(code, reason, key=None)


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@asynccontextmanager
async def served(handler: Handler, **options: object) -> AsyncIterator[ScriptedPeer]:
    """A peer of `handler`, after the opening handshake; the handler has to return when the peer is gone."""
    ours, theirs = stream_pair()

    async def serve() -> None:
        async with theirs, attended(WebSocket(theirs, **options)) as ws:  # type: ignore[arg-type]
            await handler(ws)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with ours:
            yield ScriptedPeer(ours, timeout=1000)


class Ending:
    """A handler that echoes and remembers how it ended."""

    def __init__(self) -> None:
        self.closed: WebSocketClosed | None = None

    async def __call__(self, ws: WebSocket) -> None:
        try:
            while True:
                await ws.send(await ws.receive())
        except WebSocketClosed as closed:
            self.closed = closed
        assert (ws.close_code, ws.close_reason) == (self.closed.code, self.closed.reason)

    @property
    def code(self) -> int | None:
        return None if self.closed is None else self.closed.code


class TestMessages:
    async def test_messages_are_echoed_in_their_kind(self, autojump_clock: Clock) -> None:
        async with served(echo) as peer:
            await peer.send(frame(TEXT, "Grüße".encode()))
            await peer.expect(sent(TEXT, "Grüße".encode()))
            await peer.send(frame(BINARY, b"\x00\xff") + frame(TEXT))
            await peer.expect(sent(BINARY, b"\x00\xff") + sent(TEXT))

    async def test_a_large_message_passes_both_ways(self, autojump_clock: Clock) -> None:
        data = bytes(range(256)) * 4096
        async with served(echo) as peer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.send, frame(BINARY, data))
                await peer.expect(sent(BINARY, data))

    async def test_compressed_messages_are_echoed(self, autojump_clock: Clock) -> None:
        left, right = stream_pair()
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                async with attended(WebSocket(right, DEFLATE)) as ws:
                    await echo(ws)

            nursery.start_soon(serve)
            async with WebSocket(left, DEFLATE, is_client=True) as ws:
                assert ws.is_compressed
                for message in ("x" * 10_000, b"y" * 10_000, "short", "x" * 10_000):
                    await ws.send(message)
                    assert await ws.receive() == message
                assert left.bytes_out < 1000
                assert left.bytes_in < 1000

    async def test_messages_that_came_together_are_received_one_by_one(self, autojump_clock: Clock) -> None:
        async with served(echo) as peer:
            await peer.send(b"".join(frame(TEXT, b"%d" % number) for number in range(500)))
            await peer.expect(b"".join(sent(TEXT, b"%d" % number) for number in range(500)))

    async def test_a_fast_peer_leaves_the_others_their_turn(self) -> None:
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        left, right = stream_pair()
        await left.send_all(frame(TEXT, b"x") * 1000)
        ws = WebSocket(right)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            for _ in range(1000):
                await ws.receive()
            assert turns > 10
            nursery.cancel_scope.cancel()

    async def test_two_tasks_do_not_receive_at_once(self, autojump_clock: Clock) -> None:
        left, right = stream_pair()
        ws = WebSocket(right)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.receive)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await ws.receive()
            await left.send_all(frame(TEXT))

    async def test_a_receive_that_is_cancelled_loses_nothing(self) -> None:
        for attempt in cancel_at_each_checkpoint():
            left, right = stream_pair()
            ws = WebSocket(right)
            await left.send_all(frame(TEXT, b"a", fin=False) + frame(PING, b"?") + frame(CONTINUATION, b"b")[:7])
            await left.send_all(frame(CONTINUATION, b"b")[7:] + frame(TEXT, b"c"))
            received = []
            with attempt:
                while len(received) < 2:
                    received.append(await ws.receive())
            while len(received) < 2:
                received.append(await ws.receive())
            assert received == ["ab", "c"]


class TestSending:
    async def test_many_tasks_send_whole_messages_in_turns(self, autojump_clock: Clock) -> None:
        left, right = stream_pair(capacity=1000)
        ws, reader = WebSocket(right), WebSocket(left, is_client=True)
        count = 20

        async def send(number: int) -> None:
            for _ in range(5):
                await ws.send(bytes([number]) * 5000)

        received: list[str | bytes] = []
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(send, number)
            while len(received) < 5 * count:
                received.append(await reader.receive())
        assert sorted(received) == sorted(bytes([number]) * 5000 for number in range(count) for _ in range(5))  # type: ignore[type-var]

    async def test_a_sender_that_is_cancelled_in_the_queue_has_sent_nothing(self, autojump_clock: Clock) -> None:
        left, right = stream_pair(capacity=1000)
        ws, reader = WebSocket(right), WebSocket(left, is_client=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.send, b"a" * 5000)
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                scope.cancel()
                await ws.send(b"b")
            nursery.start_soon(ws.send, b"c")
            assert await reader.receive() == b"a" * 5000
            assert await reader.receive() == b"c"

    async def test_a_peer_that_does_not_read_makes_the_sender_wait(self, autojump_clock: Clock) -> None:
        _left, right = stream_pair(capacity=1000)
        ws = WebSocket(right)
        with trio.move_on_after(10) as scope:
            while True:
                await ws.send(bytes(100))
        assert scope.cancelled_caught
        assert right.bytes_out <= 1100

    async def test_a_peer_that_never_reads_is_given_up(self, autojump_clock: Clock) -> None:
        _left, right = stream_pair(capacity=1000)
        ws = WebSocket(right)
        with pytest.raises(WebSocketClosed, match="read nothing"):
            await ws.send(bytes(100_000))

    async def test_a_pong_between_large_messages_spoils_none(self, autojump_clock: Clock) -> None:
        left, right = stream_pair(capacity=5000)
        ws, reader = WebSocket(right), WebSocket(left, is_client=True)
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for _ in range(5):
                    await ws.send(bytes(200_000))

            nursery.start_soon(send)
            nursery.start_soon(ws.receive)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(5):
                await left.send_all(frame(PING, b"?" * 100) * 20)
                assert await reader.receive() == bytes(200_000)
            await left.send_all(frame(TEXT, b"end"))

    async def test_a_large_message_waits_for_a_pong_that_is_on_its_way(self, autojump_clock: Clock) -> None:
        left, right = stream_pair(capacity=10)
        ws = WebSocket(right)
        await left.send_all(frame(PING)[:6])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.receive)
            await left.send_all(frame(PING, b"?" * 100))
            await trio.testing.wait_all_tasks_blocked()
            assert right.pending
            nursery.start_soon(ws.send, bytes(200_000))
            expected = sent(PONG) + sent(PONG, b"?" * 100) + sent(BINARY, bytes(200_000))
            assert await left.receive_exactly(len(expected)) == expected
            await left.send_all(frame(TEXT))

    async def test_a_compressed_message_that_is_cancelled_before_it_leaves_spoils_none(
        self, autojump_clock: Clock
    ) -> None:
        left, right = stream_pair(capacity=10)
        ws, reader = WebSocket(right, DEFLATE), WebSocket(left, DEFLATE, is_client=True)
        text = "".join(map(chr, range(0x4E00, 0x9FFF))) * 4  # which can't be made much shorter
        await left.send_all(frame(PING)[:6])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.receive)
            await left.send_all(frame(PING, b"?" * 100))
            await trio.testing.wait_all_tasks_blocked()
            assert right.pending  # a pong is on its way
            with trio.CancelScope() as scope:
                scope.cancel()
                await ws.send(text)
            assert scope.cancelled_caught
            nursery.start_soon(ws.send, text[-1000:])
            assert await reader.receive() == text[-1000:]
            await left.send_all(frame(TEXT))

    @pytest.mark.parametrize("count", range(60, 68))
    @pytest.mark.parametrize("pings", [True, False])
    async def test_after_a_large_message_that_is_cancelled_the_rest_is_whole(
        self, count: int, pings: bool, autojump_clock: Clock
    ) -> None:
        left, right = stream_pair(capacity=1_000_000)
        ws, reader = WebSocket(right), WebSocket(left, is_client=True)
        for _ in range(count):  # now and then a send is a checkpoint
            await ws.send(b"small")
        with trio.CancelScope() as scope:
            scope.cancel()
            await ws.send(bytes(200_000))
        received = []
        async with trio.open_nursery() as nursery:
            if pings:
                await ws.ping()
            nursery.start_soon(ws.close)
            async for message in reader:
                received.append(message)
        assert received[:count] == [b"small"] * count
        assert received[count:] in ([], [bytes(200_000)])

    async def test_a_ping_can_be_sent(self, autojump_clock: Clock) -> None:
        async def ping(ws: WebSocket) -> None:
            await ws.ping(b"there?")
            with pytest.raises(LocalProtocolError):
                await ws.ping(bytes(126))

        async with served(ping) as peer:
            await peer.expect(sent(PING, b"there?") + sent_close(1000))

    async def test_nothing_is_sent_after_close(self, autojump_clock: Clock) -> None:
        async def late(ws: WebSocket) -> None:
            async for _ in ws:
                pass
            for operation in (ws.send("x"), ws.ping(), ws.receive()):
                with pytest.raises(WebSocketClosed):
                    await operation
            await ws.close(1001)

        async with served(late) as peer:
            await peer.send(close(1000))
            await peer.expect(sent_close(1000))
            await peer.expect_end()


class TestClosing:
    @pytest.mark.parametrize(("code", "reason"), [(1000, b""), (1001, b"bye"), (3000, b""), (4999, "ü".encode())])
    async def test_the_peers_close_is_answered_with_its_code(
        self, autojump_clock: Clock, code: int, reason: bytes
    ) -> None:
        ending = Ending()
        async with served(ending) as peer:
            await peer.send(close(code, reason))
            await peer.expect(sent_close(code))
            await peer.expect_end()
        assert ending.closed is not None
        assert (ending.closed.code, ending.closed.reason) == (code, reason.decode())

    async def test_the_peers_reason_drives_no_terminal_through_the_error(self, autojump_clock: Clock) -> None:
        ending = Ending()
        async with served(ending) as peer:
            await peer.send(close(1000, b"bye\x1b[2J\n"))
        assert ending.closed is not None
        assert str(ending.closed) == "the WebSocket has closed with 1000: bye\\x1b[2J\\n"
        assert ending.closed.reason == "bye\x1b[2J\n"

    async def test_a_close_without_a_code_is_answered_with_one_without(self, autojump_clock: Clock) -> None:
        ending = Ending()
        async with served(ending) as peer:
            await peer.send(close())
            await peer.expect(sent_close())
            await peer.expect_end()
        assert ending.code == 1005

    async def test_what_comes_behind_a_close_is_dropped(self, autojump_clock: Clock) -> None:
        async with served(echo) as peer:
            await peer.send(frame(TEXT, b"a") + close(1000) + frame(TEXT, b"b") + b"\xff" * 1000)
            await peer.expect(sent(TEXT, b"a") + sent_close(1000))
            await peer.expect_end()

    async def test_a_handler_that_returns_closes_with_1000(self, autojump_clock: Clock) -> None:
        async def hello(ws: WebSocket) -> None:
            await ws.send("hello")

        async with served(hello) as peer:
            await peer.expect(sent(TEXT, b"hello") + sent_close(1000))
            await peer.send(frame(TEXT, b"on its way") + close(1000))
            await peer.expect_end()

    async def test_a_handler_closes_as_it_likes(self, autojump_clock: Clock) -> None:
        async def refuse(ws: WebSocket) -> None:
            await ws.close(4001, "no such room")
            assert ws.close_code == 4001

        async with served(refuse) as peer:
            await peer.expect(sent_close(4001, b"no such room"))
            await peer.send(close(4001))
            await peer.expect_end()

    async def test_codes_that_may_not_be_sent_are_refused_and_nothing_is_closed(self, autojump_clock: Clock) -> None:
        async def careless(ws: WebSocket) -> None:
            for code, reason in ((1005, "x"), (1006, ""), (2000, ""), (1000, "x" * 124)):
                with pytest.raises(LocalProtocolError):
                    await ws.close(code, reason)
            await ws.send("still here")

        async with served(careless) as peer:
            await peer.expect(sent(TEXT, b"still here") + sent_close(1000))

    async def test_a_peer_that_does_not_answer_a_close_is_left(self, autojump_clock: Clock) -> None:
        async def bye(ws: WebSocket) -> None:
            await ws.close()
            assert ws.close_code == 1006

        async with served(bye, timeouts=WebSocketTimeouts(close=5)) as peer:
            began = trio.current_time()
            await peer.expect(sent_close(1000))
            await peer.expect_end()
            assert trio.current_time() - began <= 8

    async def test_a_peer_that_talks_on_instead_of_answering_is_left(self, autojump_clock: Clock) -> None:
        async def bye(ws: WebSocket) -> None:
            await ws.close()

        async with served(bye, timeouts=WebSocketTimeouts(close=5)) as peer:
            began = trio.current_time()
            with pytest.raises((trio.BrokenResourceError, AssertionError)):
                while True:
                    await peer.send(frame(TEXT, b"blah"))
                    await trio.sleep(0.1)
            assert trio.current_time() - began <= 8

    async def test_a_task_that_receives_gets_no_message_once_close_was_called(self, autojump_clock: Clock) -> None:
        received: list[str | bytes] = []

        async def collect(ws: WebSocket) -> None:
            received.extend([message async for message in ws])

        async def both(ws: WebSocket) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(collect, ws)
                await trio.testing.wait_all_tasks_blocked()
                await ws.close()

        async with served(both) as peer:
            await peer.expect(sent_close(1000))
            await peer.send(frame(TEXT, b"too late") + close(1000))
            await peer.expect_end()
        assert received == []

    async def test_close_beside_a_task_that_receives_ends_both(self, autojump_clock: Clock) -> None:
        ending = Ending()

        async def both(ws: WebSocket) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ending, ws)
                await trio.testing.wait_all_tasks_blocked()
                await ws.close(1000)

        async with served(both) as peer:
            await peer.expect(sent_close(1000))
            await peer.send(close(1000))
            await peer.expect_end()
        assert ending.code == 1000

    async def test_a_task_that_receives_while_another_closes_sees_the_end(self, autojump_clock: Clock) -> None:
        async def both(ws: WebSocket) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ws.close)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(WebSocketClosed) as caught:
                    await ws.receive()
                assert caught.value.code == 1000

        async with served(both) as peer:
            await peer.expect(sent_close(1000))
            await trio.sleep(1)
            await peer.send(close(1000))
            await peer.expect_end()

    async def test_a_connection_that_ends_without_a_word_is_1006(self, autojump_clock: Clock) -> None:
        ending = Ending()
        async with served(ending):
            pass
        assert ending.code == 1006
        ending = Ending()
        async with served(ending) as peer:
            await peer.stream.abort()
        assert ending.code == 1006

    @pytest.mark.parametrize("code", [1000, 1001, 1011, 4000, None])
    async def test_an_iteration_ends_in_silence_only_when_all_is_well(
        self, autojump_clock: Clock, code: int | None
    ) -> None:
        left, right = stream_pair()
        await left.send_all(frame(TEXT, b"x") + close(code))
        await left.send_eof()
        received: list[str | bytes] = []

        async def iterate() -> None:
            received.extend([message async for message in WebSocket(right)])

        if code in (1000, 1001):
            await iterate()
            assert received == ["x"]
        else:
            with pytest.raises(WebSocketClosed) as caught:
                await iterate()
            assert caught.value.code == (code or 1005)

    async def test_an_exception_of_the_handler_closes_with_1011_and_tells_nothing_of_it(
        self, autojump_clock: Clock
    ) -> None:
        left, right = stream_pair()

        async def fail() -> None:
            with pytest.raises(ValueError, match="secret"):
                async with attended(WebSocket(right)):
                    raise ValueError("secret")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            peer = ScriptedPeer(left)
            await peer.expect(sent_close(1011))
            await peer.send(close(1011))
            await peer.expect_end()
            await left.aclose()

    async def test_closed_comes_through_a_nursery_quietly_and_other_errors_do_not(self, autojump_clock: Clock) -> None:
        async def nested(ws: WebSocket) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ws.receive)

        async with served(nested) as peer:
            await peer.send(close(1000))
            await peer.expect(sent_close(1000))

        left, right = stream_pair()
        await left.send_all(close(1000))
        with pytest.raises(ExceptionGroup) as caught:
            async with attended(WebSocket(right)) as ws:
                await left.send_eof()
                with pytest.raises(WebSocketClosed) as closed:
                    await ws.receive()
                raise ExceptionGroup("both", [closed.value, ValueError("other")])
        assert [type(error) for error in caught.value.exceptions] == [ValueError]

    async def test_cancelling_is_prompt_and_says_1001(self, autojump_clock: Clock) -> None:
        left, right = stream_pair()
        with trio.CancelScope() as scope:
            async with attended(WebSocket(right)) as ws:
                scope.cancel()
                await ws.receive()
        assert scope.cancelled_caught
        peer = ScriptedPeer(left)
        await peer.expect(sent_close(1001))
        await peer.expect_end()

    async def test_close_can_be_cancelled_everywhere(self, autojump_clock: Clock) -> None:
        for attempt in cancel_at_each_checkpoint():
            left, right = stream_pair()
            await left.send_all(close(1000))
            await left.send_eof()
            ws = WebSocket(right)
            with attempt:
                await ws.close()
            if attempt.cancelled:
                with pytest.raises(WebSocketClosed):
                    await ws.receive()
            else:
                assert ws.close_code == 1000
            assert right.is_closed

    async def test_a_receive_that_is_cancelled_at_a_close_does_not_lose_its_code(self, autojump_clock: Clock) -> None:
        for attempt in cancel_at_each_checkpoint():
            left, right = stream_pair(capacity=100)
            ws = WebSocket(right)
            right.write(bytes(200))  # so that the answer has to wait
            await left.send_all(close(4000))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.receive_exactly, 204)
                with attempt, pytest.raises(WebSocketClosed):
                    await ws.receive()
                with pytest.raises(WebSocketClosed) as caught:
                    await ws.receive()
                assert caught.value.code == 4000
                nursery.cancel_scope.cancel()


class TestKeepAlive:
    async def test_no_ping_is_squeezed_into_a_large_message_that_leaves_slowly(self, autojump_clock: Clock) -> None:
        left, right = stream_pair(capacity=10_000)
        ws = WebSocket(right)
        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.send, bytes(400_000))
            nursery.start_soon(ws.receive)
            while len(received) < 400_012:
                await trio.sleep(5)
                received += await left.receive_some()
            assert received == sent(BINARY, bytes(400_000)) + sent(PING)
            assert trio.current_time() > 100
            await left.send_all(frame(TEXT))

    async def test_a_silent_peer_is_asked_and_left_when_it_is_gone(self, autojump_clock: Clock) -> None:
        ending = Ending()
        async with served(ending, timeouts=WebSocketTimeouts(ping=20, pong=10)) as peer:
            began = trio.current_time()
            await peer.expect(sent(PING))
            assert trio.current_time() - began == pytest.approx(20)
            await peer.expect_end()
            assert trio.current_time() - began == pytest.approx(31)
        assert ending.code == 1006
        assert "no answer to a ping" in str(ending.closed)

    async def test_a_peer_that_answers_stays_for_days(self, autojump_clock: Clock) -> None:
        async with served(echo) as peer:
            while trio.current_time() < 2 * 86400:
                await peer.expect(sent(PING))
                await trio.sleep(5)
                await peer.send(frame(PONG))
            await peer.send(frame(TEXT, b"still here"))
            await peer.expect(sent(TEXT, b"still here"))

    async def test_any_byte_is_a_sign_of_life(self, autojump_clock: Clock) -> None:
        async with served(echo, timeouts=WebSocketTimeouts(ping=20, pong=10)) as peer:
            for _ in range(20):
                await peer.send(frame(TEXT, b"x"))
                await peer.expect(sent(TEXT, b"x"))
                await trio.sleep(15)

    async def test_pings_can_be_switched_off(self, autojump_clock: Clock) -> None:
        timeouts = WebSocketTimeouts(ping=math.inf, message=math.inf)
        async with served(echo, timeouts=timeouts) as peer:
            await trio.sleep(86400)
            await peer.send(frame(TEXT, b"x"))
            await peer.expect(sent(TEXT, b"x"))
        async with served(echo, timeouts=WebSocketTimeouts(ping=math.inf)) as peer:
            await trio.sleep(86400)
            await peer.send(frame(TEXT, b"x"))
            await peer.expect(sent(TEXT, b"x"))

    async def test_a_handler_that_was_away_holds_nothing_against_its_peer(self, autojump_clock: Clock) -> None:
        async def poll(ws: WebSocket) -> None:
            while True:
                with trio.move_on_after(1):
                    await ws.send(await ws.receive())
                await trio.sleep(300)

        async with served(poll, timeouts=WebSocketTimeouts(ping=0.5, pong=10)) as peer:
            for _ in range(10):
                await peer.send(frame(TEXT, b"x"))
                while (first := await peer.stream.receive_exactly(2)) == sent(PING):
                    await peer.send(frame(PONG))
                assert first + await peer.stream.receive_exactly(1) == sent(TEXT, b"x")

    async def test_a_message_that_never_ends_is_cut_off(self, autojump_clock: Clock) -> None:
        """A byte a second is a sign of life; a whole message is due all the same."""
        ending = Ending()
        async with served(ending, timeouts=WebSocketTimeouts(message=60)) as peer:
            async with trio.open_nursery() as nursery:

                async def drip() -> None:
                    for byte in frame(TEXT, b"x" * 1000):
                        await peer.stream.send_all(bytes([byte]))
                        await trio.sleep(1)

                nursery.start_soon(drip)
                await peer.expect(sent_close(1008, b"a message that took longer than 60 seconds"))
                assert 60 <= trio.current_time() <= 101
                nursery.cancel_scope.cancel()
        assert ending.code == 1008

    async def test_fragments_that_never_end_are_cut_off_as_well(self, autojump_clock: Clock) -> None:
        async with served(Ending(), timeouts=WebSocketTimeouts(message=60)) as peer:
            async with trio.open_nursery() as nursery:

                async def drip() -> None:
                    await peer.stream.send_all(frame(TEXT, fin=False))
                    while True:
                        await peer.stream.send_all(frame(CONTINUATION, fin=False))
                        await trio.sleep(1)

                nursery.start_soon(drip)
                await peer.expect(sent_close(1008, b"a message that took longer than 60 seconds"))
                nursery.cancel_scope.cancel()

    async def test_a_slow_message_that_is_in_time_passes(self, autojump_clock: Clock) -> None:
        async with served(echo, timeouts=WebSocketTimeouts(message=60)) as peer:
            for _ in range(3):
                for byte in frame(TEXT, b"x" * 40):
                    await peer.send(bytes([byte]))
                    await trio.sleep(1)
                await peer.expect(sent(TEXT, b"x" * 40))

    async def test_an_idle_websocket_closes_where_that_is_asked_for(self, autojump_clock: Clock) -> None:
        ending = Ending()
        async with served(ending, timeouts=WebSocketTimeouts(idle=100, ping=math.inf)) as peer:
            await peer.send(frame(TEXT, b"x"))
            await peer.expect(sent(TEXT, b"x"))
            await peer.expect(sent_close(1001, b"no message for 100 seconds"))
            assert 100 <= trio.current_time() <= 260
            await peer.send(close(1001))
            await peer.expect_end()

    @pytest.mark.parametrize("value", [0, -1, math.nan])
    def test_times_that_are_none_are_refused(self, value: float) -> None:
        with pytest.raises(ValueError, match="ping"):
            WebSocketTimeouts(ping=value)


class TestAttacks:
    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (frame(TEXT, b"x", key=None), 1002),
            (frame(TEXT, b"x", rsv=4), 1002),
            (frame(3), 1002),
            (frame(CONTINUATION, b"x"), 1002),
            (frame(TEXT, b"x", fin=False) + frame(TEXT), 1002),
            (frame(PING, b"x", fin=False), 1002),
            (frame(CLOSE, b"\x03"), 1002),
            (close(1006), 1002),
            (b"\x82\xff" + b"\xff" * 8, 1002),
            (frame(BINARY, bytes(5), form=8), 1002),
            (frame(TEXT, b"\xff"), 1007),
            (b"\x82\xff" + (1 << 40).to_bytes(8, "big"), 1009),
            (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 8000, 1008),
        ],
    )
    async def test_the_peer_is_told_the_code_and_left(self, autojump_clock: Clock, data: bytes, code: int) -> None:
        ending = Ending()
        async with served(ending, limits=WebSocketLimits(fragments=1000)) as peer:
            await peer.send(frame(TEXT, b"before") + data + frame(TEXT, b"after"))
            await peer.expect(sent(TEXT, b"before"))
            head = await peer.stream.receive_exactly(2)
            payload = await peer.stream.receive_exactly(head[1])
            assert (head[0], int.from_bytes(payload[:2], "big")) == (0x88, code)
            await peer.expect_end()
        assert ending.code == code

    async def test_the_answer_survives_what_is_still_on_its_way(self, autojump_clock: Clock) -> None:
        async with served(Ending()) as peer:
            await peer.send(b"\x82\xff" + (1 << 30).to_bytes(8, "big"))
            await peer.send(bytes(100_000))
            await peer.expect(sent_close(1009, b"a message of more than 1048576 bytes"))
            await peer.expect_end()

    async def test_pings_are_answered_between_fragments(self, autojump_clock: Clock) -> None:
        async with served(echo) as peer:
            await peer.send(frame(TEXT, b"a", fin=False) + frame(PING, b"1"))
            await peer.expect(sent(PONG, b"1"))
            await peer.send(frame(CONTINUATION, b"b"))
            await peer.expect(sent(TEXT, b"ab"))

    async def test_of_pings_that_came_together_the_last_is_answered(self, autojump_clock: Clock) -> None:
        """RFC 6455 section 5.5.3 allows it, and a flood is answered by little."""
        async with served(echo) as peer:
            await peer.send(b"".join(frame(PING, b"%d" % number) for number in range(100)) + frame(PONG, b"unasked"))
            await peer.expect(sent(PONG, b"99"))

    async def test_a_flood_of_pings_is_cut_off(self, autojump_clock: Clock) -> None:
        ending = Ending()
        async with served(ending) as peer:
            await peer.send(frame(PING) * 1001)
            await peer.expect(sent_close(1008, b"too many control frames"))
            await peer.expect_end()
        assert ending.code == 1008

    async def test_pings_at_a_steady_pace_are_no_flood(self, autojump_clock: Clock) -> None:
        async with served(echo) as peer:
            for _ in range(50):
                await peer.send(frame(PING, b"x") * 100)
                await peer.expect(sent(PONG, b"x"))
                await trio.sleep(2)

    async def test_a_flood_of_pings_without_reading_fills_no_memory(self, autojump_clock: Clock) -> None:
        left, right = stream_pair(capacity=2000)
        ws = WebSocket(right, limits=WebSocketLimits(control_frames=1_000_000))
        most = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.receive)
            for _ in range(1000):
                await left.send_all(frame(PING, bytes(125)) * 10)
                await trio.sleep(0.001)
                most = max(most, right.pending)
            nursery.cancel_scope.cancel()
        assert right.bytes_in == left.bytes_out == 1_310_000
        assert most <= 1024 + 127

    async def test_a_peer_that_sends_and_never_reads_stops_the_echo(self, autojump_clock: Clock) -> None:
        left, right = stream_pair(capacity=10_000)

        async def serve() -> None:
            async with right, attended(WebSocket(right)) as ws:
                await echo(ws)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with trio.move_on_after(30):
                while True:
                    await left.send_all(frame(BINARY, bytes(1000)))
            assert left.bytes_out < 200_000
            assert right.pending < 200_000
            await left.aclose()


class TestClientSide:
    async def test_a_client_masks_and_waits_for_the_server_to_end(self, autojump_clock: Clock) -> None:
        left, right = stream_pair()
        ws = WebSocket(left, is_client=True)
        peer = ScriptedPeer(right)
        async with trio.open_nursery() as nursery:

            async def talk() -> None:
                async with ws:
                    await ws.send("hello")
                    assert await ws.receive() == "hello"

            nursery.start_soon(talk)
            keys = []
            for opcode, payload in ((TEXT, b"hello"), (CLOSE, b"\x03\xe8")):
                head = await right.receive_exactly(6)
                keys.append(head[2:])
                body = await right.receive_exactly(len(payload))
                assert head + body == frame(opcode, payload, key=head[2:])
                await peer.send(sent(opcode, payload))
            assert keys[0] != keys[1]
            await trio.sleep(1)
            assert not left.is_closed
            await right.aclose()
        assert left.is_closed
        assert ws.close_code == 1000

    async def test_a_server_that_does_not_end_is_left(self, autojump_clock: Clock) -> None:
        left, right = stream_pair()
        await right.send_all(sent_close(1000))
        async with WebSocket(left, is_client=True) as ws:
            with pytest.raises(WebSocketClosed):
                await ws.receive()
        assert left.is_closed
        assert trio.current_time() <= 6

    async def test_a_server_that_masks_is_refused(self, autojump_clock: Clock) -> None:
        left, right = stream_pair()
        await right.send_all(frame(TEXT, b"x"))
        with pytest.raises(WebSocketClosed) as caught:
            await WebSocket(left, is_client=True).receive()
        assert caught.value.code == 1002


async def test_repr_tells_the_state(autojump_clock: Clock) -> None:
    left, right = stream_pair()
    ws = WebSocket(Stream.of(right))
    assert "open" in repr(ws)
    await left.send_all(close(1000))
    await left.send_eof()
    await ws.close()
    assert "closed with 1000" in repr(ws)
