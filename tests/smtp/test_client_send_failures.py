"""Messages whose servers leave, say nothing, or say anything, and messages that are cancelled. In memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import AsyncnetError, EndOfStream, LocalProtocolError, RemoteProtocolError
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.client import (
    MessageRefused,
    NotSupported,
    OutcomeUnknown,
    SMTPClient,
    SMTPClientTimeouts,
)
from asyncnet.smtp.client_content import Content
from asyncnet.smtp.client_transaction import Rules, Transaction, adapted
from asyncnet.smtp.content import DataDecoder
from asyncnet.smtp.envelope import Body, Envelope, Notify, Recipient, Returned
from asyncnet.smtp.extensions import Extensions
from asyncnet.smtp.wire import parse_command, parse_mail, parse_rcpt
from asyncnet.testing import OneByteStream, ScriptedPeer, cancel_at_each_checkpoint, stream_pair
from tests.smtp.scripted import (
    ANNA,
    CARL,
    DORA,
    GO_ON,
    HELLO,
    MAIL,
    OK,
    PIPELINING,
    PLAIN,
    TO_CARL,
    TO_DORA,
    answering,
    client_of,
    greeted,
    offering,
    ordinary,
    replies,
)

# The end of the message, and behind it


async def test_a_server_that_closes_behind_the_message_leaves_the_outcome_unknown() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(MAIL + TO_CARL + TO_DORA + b"DATA\r\n")
        await peer.send(OK + b"550 no\r\n" + OK + GO_ON)
        await peer.expect(HELLO + b".\r\n")
        await peer.close()

    async with greeted(script, PIPELINING) as smtp:
        with pytest.raises(OutcomeUnknown, match="nobody knows whether") as caught:
            await smtp.send(ANNA, [CARL, DORA], HELLO)
        assert replies(caught.value.outcomes) == [("RCPT", "550 no"), ("the message", "None")]
        assert not caught.value.outcomes[1].is_accepted
        assert caught.value.outcomes[1].error is None
        assert smtp.is_closed


@pytest.mark.parametrize(
    "answer", [b"", b"25", b"250-half\r\n", b"nonsense\r\n", b"354 more\r\n", b"250-a\r\n550 b\r\n"]
)
async def test_no_answer_to_the_message_that_can_be_understood_leaves_the_outcome_unknown(
    answer: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    script = answering(*ordinary(PIPELINING)[:1], (HELLO + b".\r\n", answer))
    async with greeted(script, PIPELINING) as smtp:
        start = trio.current_time()
        with pytest.raises(OutcomeUnknown):
            await smtp.send(ANNA, [CARL], HELLO)
        assert trio.current_time() - start in (0, 600)  # RFC 5321 section 4.5.3.2.6
        assert smtp.is_closed


async def test_a_server_that_closes_before_the_message_has_ended_has_not_taken_it() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(MAIL + TO_CARL + b"DATA\r\n")
        await peer.send(OK + OK + GO_ON)
        await peer.stream.receive_exactly(1000)
        await peer.close()

    async with greeted(script, PIPELINING) as smtp:
        with pytest.raises((RemoteProtocolError, trio.BrokenResourceError)):
            await smtp.send(ANNA, [CARL], b"x\r\n" * 100_000)
        assert smtp.is_closed


@pytest.mark.parametrize("size", [10, 300_000])
async def test_a_server_that_refuses_in_the_middle_is_heard_though_it_reads_no_more(size: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(MAIL + TO_CARL + b"DATA\r\n")
        await peer.send(OK + OK + GO_ON + b"552 5.3.4 too much\r\n")
        await peer.expect_reset()

    async def slow_script(peer: ScriptedPeer) -> None:
        await peer.expect(MAIL + TO_CARL + b"DATA\r\n")
        await peer.send(OK + OK + GO_ON)
        await peer.stream.receive_exactly(100)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(b"552 5.3.4 too much\r\n")

    for one in (script, slow_script) if size > 65536 else (script,):
        async with greeted(one, PIPELINING, capacity=65536) as smtp:
            with pytest.raises(MessageRefused) as caught:
                await smtp.send(ANNA, [CARL], b"x" * 70 * (size // 70) + b"\r\n")
            assert replies(caught.value.outcomes) == [("the message", "552 5.3.4 too much")]
            assert smtp.is_closed


async def test_a_server_that_takes_a_message_before_its_end_is_not_believed() -> None:
    script = answering((MAIL + TO_CARL + b"DATA\r\n", OK + OK + GO_ON + OK))
    async with greeted(script, PIPELINING) as smtp:
        with pytest.raises(RemoteProtocolError):
            await smtp.send(ANNA, [CARL], HELLO)
        assert smtp.is_closed


async def test_a_server_that_closes_before_a_small_message_has_left_has_not_taken_it() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(MAIL + TO_CARL + b"DATA\r\n")
        await peer.stream.send_all(OK + OK + GO_ON)
        await peer.close()

    async def content() -> AsyncIterator[bytes]:
        yield b"hello\r\n"
        await trio.testing.wait_all_tasks_blocked()

    async with greeted(script, PIPELINING) as smtp:
        with pytest.raises(EndOfStream):
            await smtp.send(ANNA, [CARL], content())
        assert smtp.is_closed


async def test_a_server_that_reads_byte_by_byte_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(MAIL + TO_CARL + b"DATA\r\n")
        await peer.stream.send_all(OK + OK + GO_ON)
        with pytest.raises(trio.BrokenResourceError):
            while await peer.stream.receive_some(1):
                await trio.sleep(1)

    async with greeted(script, PIPELINING, capacity=1000) as smtp:
        start = trio.current_time()
        with pytest.raises(TimeoutError, match="has not taken a piece of the message in 180 s"):
            await smtp.send(ANNA, [CARL], b"x\r\n" * 200_000)
        assert trio.current_time() - start == 180
        assert smtp.is_closed


async def test_a_server_that_never_reads_is_left(autojump_clock: trio.testing.MockClock) -> None:
    script = answering((MAIL + TO_CARL + b"DATA\r\n", OK + OK + GO_ON))
    async with greeted(script, PIPELINING) as smtp:
        with pytest.raises(trio.BrokenResourceError, match="has read nothing"):
            await smtp.send(ANNA, [CARL], b"x\r\n" * 200_000)
        assert smtp.is_closed


@pytest.mark.parametrize(("stops_at", "seconds"), [("MAIL", 300), ("RCPT", 300), ("DATA", 120)])
async def test_each_command_has_the_time_that_rfc_5321_gives_it(
    stops_at: str, seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    pairs = [(line, b"" if line.startswith(stops_at.encode()) else answer) for line, answer in ordinary(PLAIN)[:3]]
    pairs = pairs[: [answer for _, answer in pairs].index(b"") + 1]
    async with greeted(answering(*pairs), PLAIN) as smtp:
        start = trio.current_time()
        with pytest.raises(TimeoutError, match=f"has not answered {stops_at}"):
            await smtp.send(ANNA, [CARL], HELLO)
        assert trio.current_time() - start == seconds
        assert smtp.is_closed


async def test_replies_that_come_bit_by_bit_do_not_move_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(MAIL)
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await peer.stream.send_all(b"2")
                await trio.sleep(1)

    async with greeted(script, PLAIN, timeouts=SMTPClientTimeouts(mail=20)) as smtp:
        with pytest.raises(TimeoutError):
            await smtp.send(ANNA, [CARL], HELLO)


# Limits, cancelling, and whatever a server may say


async def test_what_was_sent_together_need_not_arrive_together() -> None:
    ours, its = stream_pair()
    content = b".\r\n" * 1000
    taken: list[bytes] = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.send(b"220-ready\r\n220 go\r\n")
        assert (await peer.expect_until()).startswith(b"EHLO")
        await peer.send(offering("PIPELINING", "SIZE 100000", "8BITMIME"))
        await taking(peer, taken)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, ScriptedPeer(OneByteStream(its)))
        smtp = SMTPClient(OneByteStream(ours))
        await smtp.greet()
        await smtp.hello()
        for _ in range(2):
            assert len((await smtp.send(ANNA, [CARL, DORA], content)).outcomes) == 2
        await smtp.quit()
    assert taken == [content, content]


async def test_a_connection_that_has_had_its_messages_is_of_no_more_use() -> None:
    script = answering(*ordinary(PLAIN))
    async with greeted(script, offering("LIMITS MAILMAX=1")) as smtp:
        assert smtp.is_usable
        await smtp.send(ANNA, [CARL], HELLO)
        assert not smtp.is_usable
        assert not smtp.is_closed


async def taking(peer: ScriptedPeer, taken: list[bytes]) -> None:
    """A server that takes whatever comes, and remembers whole messages."""
    stream = peer.stream
    try:
        while True:
            line = await stream.receive_until(b"\r\n", limit=1000)
            if line.startswith(b"DATA"):
                await stream.send_all(GO_ON)
                decoder, content = DataDecoder(), b""
                while not decoder.is_complete:
                    data = await stream.receive_some()
                    if not data:
                        return
                    content += decoder.feed(data)
                taken.append(content)
            await stream.send_all(OK)
    except (RemoteProtocolError, trio.BrokenResourceError):
        pass


@pytest.mark.parametrize("offered", [PLAIN, PIPELINING])
async def test_a_message_that_is_cancelled_anywhere_is_whole_or_not_there(offered: bytes) -> None:
    content = b"hello\r\n" * 30_000
    taken: list[bytes] = []

    async def script(peer: ScriptedPeer) -> None:
        await taking(peer, taken)

    for attempt in cancel_at_each_checkpoint():
        taken.clear()
        async with greeted(script, offered, capacity=16384) as smtp:
            with attempt:
                await smtp.send(ANNA, [CARL], content)
            assert smtp.is_closed or smtp.is_usable
            assert smtp.is_closed or not attempt.cancelled or smtp.messages == 0
            if not attempt.cancelled:
                assert taken == [content]
            await smtp.aclose()
        assert taken in ([], [content])


TEXT = st.text(max_size=8) | st.sampled_from(
    [
        "anna",
        "b\u00fccher.example",
        "example.org",
        "a b",
        "x\r\n",
        "\ud800",
        "[",
        "b\u00fc cher",
        "rfc822;x",
        "utf-8;\u00fc",
    ]
)
ADDRESSES = st.builds(MailAddress, TEXT, TEXT)
ENVELOPES = st.builds(
    Envelope,
    st.none() | ADDRESSES,
    st.sampled_from(Body),
    st.booleans(),
    st.none() | st.integers(0, 10**12),
    st.none() | st.sampled_from(Returned),
    st.none() | TEXT,
)
RECIPIENTS = st.builds(Recipient, ADDRESSES, st.sets(st.sampled_from(Notify)).map(frozenset), st.none() | TEXT)
OFFERED = st.builds(
    Extensions,
    size=st.none() | st.integers(0, 100),
    eight_bit_mime=st.booleans(),
    smtputf8=st.booleans(),
    chunking=st.booleans(),
    binarymime=st.booleans(),
    dsn=st.booleans(),
)


@given(ENVELOPES, RECIPIENTS, OFFERED, st.binary(max_size=20))
def test_whatever_an_envelope_holds_each_command_is_one_line_that_a_server_can_read(
    envelope: Envelope, recipient: Recipient, offered: Extensions, data: bytes
) -> None:
    rules, content = Rules(offered), Content(data, size=len(data), is_ascii=data.isascii())
    try:
        envelope = adapted(envelope, [recipient], content, rules)
        transaction = Transaction(None, rules, envelope, [recipient], content)  # type: ignore[arg-type]
    except (LocalProtocolError, NotSupported):
        return
    for line in (transaction._mail, *transaction._rcpts):
        assert line.endswith(b"\r\n")
        assert not set(line[:-2]) & set(b"\r\n\0")
    parse_mail(parse_command(transaction._mail).argument)
    parse_rcpt(parse_command(transaction._rcpts[0]).argument, international=envelope.international)


LINES = st.sampled_from(
    [
        b"250 ok\r\n",
        b"250-a\r\n",
        b"354 go\r\n",
        b"550 no\r\n",
        b"421 bye\r\n",
        b"334 \r\n",
        b"\r\n",
        b"250",
        b"220 x\r\n",
    ]
)


@given(st.lists(LINES | st.binary(max_size=20), max_size=12), st.booleans())
def test_whatever_a_server_says_a_client_raises_nothing_unforeseen(said: list[bytes], lmtp: bool) -> None:
    async def main() -> None:
        async def script(peer: ScriptedPeer) -> None:
            try:
                for piece in said:
                    await peer.stream.receive_some()
                    await peer.stream.send_all(piece)
                await peer.close()
            except trio.BrokenResourceError:
                pass

        async with client_of(script, lmtp=lmtp) as smtp:
            for step in (
                smtp.hello,
                lambda: smtp.login("joe", "secret", insecure_auth=True),
                lambda: smtp.send(ANNA, [CARL, DORA], HELLO),
                lambda: smtp.send(ANNA, [CARL], b"x\r\n" * 30_000),
                smtp.quit,
            ):
                try:
                    await step()
                except (AsyncnetError, TimeoutError, trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
            assert smtp.is_closed

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


STEPS: dict[str, Callable[[SMTPClient], Awaitable[object]]] = {
    "noop": lambda smtp: smtp.noop(),
    "hello": lambda smtp: smtp.hello(),
    "reset": lambda smtp: smtp.reset(),
    "send": lambda smtp: smtp.send(ANNA, [CARL], HELLO),
}


@pytest.mark.parametrize("step", STEPS)
async def test_a_server_that_leaves_is_told_by_everything(step: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_until()
        await peer.close()

    async with greeted(script, PLAIN) as smtp:
        with pytest.raises((RemoteProtocolError, trio.BrokenResourceError)):
            await STEPS[step](smtp)
        assert smtp.is_closed
