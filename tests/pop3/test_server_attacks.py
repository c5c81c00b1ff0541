"""What `POP3Handler` withstands: hostile lines, floods, and peers that do not read."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncnet.errors import EndOfStream, IncompleteRead
from asyncnet.limits import Timeouts
from asyncnet.mailbox.memory import MemoryMailbox, MemoryMailboxes
from asyncnet.mailbox.storage import Message
from asyncnet.pop3.commands import COMMANDS
from asyncnet.pop3.limits import POP3Limits
from asyncnet.pop3.server import POP3Handler
from asyncnet.pop3.wire import parse_reply
from asyncnet.testing import run_handler
from tests.pop3.peer import HERE, LOCAL, MAILS, Users, boxes, connected, logged_in


class TestLines:
    @pytest.mark.parametrize("start", [b"", b"USER ", b"RETR ", b"AUTH PLAIN "])
    async def test_a_long_line_is_refused_before_the_login_and_the_session_goes_on(self, start: bytes) -> None:
        async with connected(POP3Handler(boxes(*MAILS), Users())) as peer:
            await peer.script.send(start + b"a" * 60_000 + b"\r\n")
            assert (await peer.line()).startswith("-ERR A command has at most")
            await peer.log_in()

    @pytest.mark.parametrize(
        "start", [b"", b"USER anna\r\nPASS ", b"USER anna\r\nPASS anna\r\nTOP 1 ", b"AUTH PLAIN\r\n"]
    )
    async def test_a_line_without_an_end_closes_the_connection(self, start: bytes) -> None:
        async with connected(POP3Handler(boxes(*MAILS), Users())) as peer:
            await peer.stream.send_all(start)
            with pytest.raises(trio.BrokenResourceError):
                for _ in range(1000):
                    await peer.stream.send_all(b"a" * 10_000)

    @pytest.mark.parametrize(
        "line", [b"", b"\r", b" STAT\r", b"STAT\0\r", b"\xff\r", b"A\r", b"USER a\rb\r", b"x" * 41 + b"\r"]
    )
    async def test_what_is_no_command_is_refused(self, line: bytes) -> None:
        async with logged_in() as peer:
            await peer.script.send(line + b"\n")
            assert (await peer.line()).startswith("-ERR")
            await peer.ok("NOOP")

    async def test_nothing_but_nonsense_ends_the_connection(self) -> None:
        async with connected(POP3Handler(boxes(), Users(), limits=POP3Limits(errors=5))) as peer:
            for _ in range(6):
                await peer.err("STAT")
            assert (await peer.line()).startswith("-ERR [SYS/PERM] Too many errors")
            await peer.script.expect_end()

    async def test_nor_does_it_help_that_it_is_too_long_to_be_read(self) -> None:
        async with connected(POP3Handler(boxes(), Users(), limits=POP3Limits(errors=5))) as peer:
            for _ in range(6):
                await peer.err("a" * 3000, "A command has at most")
            assert (await peer.line()).startswith("-ERR [SYS/PERM] Too many errors")
            await peer.script.expect_end()

    async def test_a_response_that_is_too_long_is_refused_once(self) -> None:
        async with connected(POP3Handler(boxes(*MAILS), Users())) as peer:
            assert await peer.do("AUTH PLAIN") == "+ "
            await peer.err("a" * 20_000, "A response has at most")
            await peer.log_in()

    async def test_one_without_an_end_ends_the_connection_and_is_no_command(self) -> None:
        async with connected(POP3Handler(boxes(*MAILS), Users(), limits=POP3Limits(skipped=20_000))) as peer:
            assert await peer.do("AUTH PLAIN") == "+ "
            await peer.script.send(b"a" * 50_000 + b"\r\nNOOP\r\n")
            await peer.script.expect_end()

    async def test_a_good_command_between_starts_the_count_again(self) -> None:
        async with logged_in(limits=POP3Limits(errors=2)) as peer:
            for _ in range(5):
                await peer.err("RETR 99")
                await peer.err("RETR 0")
                await peer.ok("NOOP")


class TestFloods:
    @pytest.mark.parametrize("command", [b"LIST\r\n", b"CAPA\r\n", b"RETR 1\r\n", b"STAT\r\n", b"NONSENSE\r\n"])
    async def test_a_client_that_floods_and_does_not_read_holds_no_memory_and_is_cut_off(
        self, command: bytes, autojump_clock: object
    ) -> None:
        handler = POP3Handler(boxes(*[b"x\r\n" * 1000] * 1000), Users(), limits=POP3Limits(errors=100_000))
        async with connected(handler, timeouts=Timeouts(send=10), timeout=100) as peer:
            await peer.log_in()
            began = trio.current_time()
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await peer.stream.send_all(command * 1000)
                    assert peer.stream.bytes_out < 20_000_000
            assert trio.current_time() - began >= 10

    async def test_a_flood_keeps_nobody_waiting(self) -> None:
        handler = POP3Handler(boxes(*MAILS), Users())
        async with connected(handler) as flood, connected(handler) as other:
            await flood.log_in()
            answered = 0

            async def send() -> None:
                for _ in range(20):
                    await flood.stream.send_all(b"STAT\r\n" * 1000)

            async def receive() -> None:
                nonlocal answered
                while answered < 20_000:
                    answered += (await flood.stream.receive_some()).count(b"\n")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                nursery.start_soon(receive)
                await other.log_in("bert")
                await other.ok("STAT")
                assert answered < 20_000

    async def test_a_refusal_of_the_service_is_a_response(self) -> None:
        reply = parse_reply(POP3Handler.refusal)
        assert (reply.is_positive, reply.code) == (False, "SYS/TEMP")


class Endless(MemoryMailbox):
    """One message of 50 MB, which is nowhere."""

    PIECE = (b".x" * 499 + b"\r\n") * 64

    async def messages(self) -> list[Message]:
        return [Message("1", 800 * len(self.PIECE), 0.0)]

    async def read(self, uid: str) -> AsyncGenerator[bytes, None]:
        for _ in range(800):
            await trio.lowlevel.checkpoint()
            yield self.PIECE


async def test_memory_does_not_grow_with_the_message() -> None:
    mailboxes = MemoryMailboxes("anna")
    mailboxes.boxes["anna"] = Endless()
    async with logged_in(mailboxes=mailboxes) as peer:
        tracemalloc.start()
        try:
            await peer.ok("RETR 1")
            received, end = 0, b""
            while not end.endswith(b"\r\n.\r\n"):
                data = await peer.stream.receive_some()
                received += len(data)
                end = (end + data)[-5:]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert received == 800 * (len(Endless.PIECE) + 64) + 3  # each line begins with a dot
        assert peak < 2_000_000


WORDS = st.sampled_from(
    ["", "1", "0", "01", "99", "4294967295", "anna", "PLAIN", "PLAIN AGFubmEAYW5uYQ==", "*", "1 1", "x y"]
)
LINES = st.one_of(
    st.builds(lambda verb, word: f"{verb} {word}".encode(), st.sampled_from(sorted(COMMANDS)), WORDS),
    st.builds(
        lambda verb, tail: verb.encode() + b" " + tail, st.sampled_from(sorted(COMMANDS)), st.binary(max_size=60)
    ),
    st.binary(max_size=300),
).map(lambda line: line.replace(b"\n", b"") + b"\r\n")


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(LINES, max_size=30), st.booleans())
def test_no_conversation_makes_it_fail(lines: list[bytes], starts_logged_in: bool) -> None:
    async def talk() -> None:
        handler = POP3Handler(boxes(*MAILS), Users(), limits=POP3Limits(line=200, skipped=400, errors=10))
        async with run_handler(handler, client=LOCAL, server=HERE) as peer:
            said = b"USER anna\r\nPASS anna\r\n" if starts_logged_in else b""
            said += b"".join(lines) + b"QUIT\r\n"

            async def send() -> None:
                try:
                    await peer.stream.send_all(said)
                except trio.BrokenResourceError:
                    pass  # it has had enough

            received = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                try:
                    while True:
                        received.append(await peer.stream.receive_until(b"\r\n", limit=100_000))
                except (EndOfStream, trio.BrokenResourceError):
                    pass  # the end
                except IncompleteRead:
                    raise AssertionError("half a line") from None
            assert parse_reply(received[0]).is_positive
            parse_reply(received[-1])

    # The guard makes a wrong password wait.
    trio.run(talk, clock=trio.testing.MockClock(autojump_threshold=0.0))
