"""Messages on their way out, as SMTP and LMTP servers see them, good ones and bad ones. In memory, in virtual time."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import AsyncnetError, EndOfStream, RemoteProtocolError
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.client import (
    MessageRefused,
    NotSupported,
    Outcome,
    OutcomeUnknown,
    PermanentReplyError,
    ServiceClosing,
    SMTPClient,
    SMTPClientTimeouts,
    TransientReplyError,
)
from asyncnet.smtp.client_transaction import CHUNK
from asyncnet.smtp.content import DataDecoder
from asyncnet.smtp.envelope import Body, Envelope, Notify, Recipient, Returned
from asyncnet.testing import ScriptedPeer, cancel_at_each_checkpoint
from tests.smtp.scripted import PLAIN, answering, client_of, greeted, offering

ANNA = MailAddress.parse("anna@example.org")
CARL = "carl@example.net"
DORA = "dora@example.net"

MAIL = b"MAIL FROM:<anna@example.org>\r\n"
TO_CARL = b"RCPT TO:<carl@example.net>\r\n"
TO_DORA = b"RCPT TO:<dora@example.net>\r\n"
OK = b"250 ok\r\n"
GO_ON = b"354 go on\r\n"
PIPELINING = offering("PIPELINING")
HELLO = b"Subject: hello\r\n\r\nhello\r\n"


def replies(outcomes: tuple[Outcome, ...]) -> list[tuple[str, str]]:
    return [(outcome.command, str(outcome.reply)) for outcome in outcomes]


# The envelope


async def test_without_pipelining_each_command_waits_for_its_answer() -> None:
    script = answering(
        (MAIL, b"250 2.1.0 ok\r\n"),
        (TO_CARL, b"250 2.1.5 ok\r\n"),
        (b"DATA\r\n", GO_ON),
        (HELLO + b".\r\n", b"250 2.0.0 queued as 4F2A\r\n"),
    )
    async with greeted(script, PLAIN) as smtp:
        sent = await smtp.send(ANNA, [CARL], HELLO)
        assert str(sent.reply) == "250 2.0.0 queued as 4F2A"
        [outcome] = sent.outcomes
        assert outcome.recipient == Recipient(MailAddress.parse(CARL))
        assert (outcome.is_accepted, outcome.enhanced, outcome.error, sent.refused) == (True, "2.0.0", None, ())
        assert smtp.is_usable
        assert smtp.messages == 1


async def test_with_pipelining_all_that_comes_before_the_content_leaves_together() -> None:
    script = answering(
        (MAIL + TO_CARL + TO_DORA + b"DATA\r\n", OK + OK + OK + GO_ON), (HELLO + b".\r\n", b"250 queued\r\n")
    )
    async with greeted(script, PIPELINING) as smtp:
        assert len((await smtp.send("anna@example.org", [CARL, DORA], HELLO)).outcomes) == 2


async def test_a_thousand_recipients_go_in_groups_that_fit_a_buffer() -> None:
    recipients = [f"{'x' * 50}{n}@example.net" for n in range(2000)]

    async def script(peer: ScriptedPeer) -> None:
        waiting = 0
        command = await peer.expect_until()
        while command != b"DATA\r\n":
            waiting += len(command)
            assert waiting < 65536
            if not peer.stream.buffered:
                waiting = 0
            await peer.send(OK)
            command = await peer.expect_until()
        await peer.send(GO_ON)
        await peer.expect(HELLO + b".\r\n")
        await peer.send(OK)

    async with greeted(script, PIPELINING) as smtp:
        assert len((await smtp.send(ANNA, recipients, HELLO)).outcomes) == 2000


async def test_what_the_envelope_says_is_told_to_servers_that_know_it() -> None:
    envelope = Envelope(ANNA, returned=Returned.HEADERS, envelope_id="a+b")
    recipient = Recipient(
        MailAddress.parse(CARL), frozenset({Notify.SUCCESS, Notify.FAILURE}), "rfc822;karl@example.net"
    )
    mail = b"MAIL FROM:<anna@example.org> SIZE=25 RET=HDRS ENVID=a+2Bb\r\n"
    rcpt = b"RCPT TO:<carl@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;karl@example.net\r\n"
    known = answering((mail, OK), (rcpt, OK), (b"DATA\r\n", GO_ON), (HELLO + b".\r\n", OK))
    async with greeted(known, offering("SIZE", "DSN")) as smtp:
        await smtp.send(envelope, [recipient], HELLO)
    unknown = answering((MAIL, OK), (TO_CARL, OK), (b"DATA\r\n", GO_ON), (HELLO + b".\r\n", OK))
    async with greeted(unknown, PLAIN) as smtp:
        sent = await smtp.send(envelope, [recipient], HELLO)
        assert sent.outcomes[0].recipient is recipient


async def test_a_bounce_has_no_sender() -> None:
    script = answering((b"MAIL FROM:<>\r\n", OK), (TO_CARL, OK), (b"DATA\r\n", GO_ON), (HELLO + b".\r\n", OK))
    async with greeted(script, PLAIN) as smtp:
        await smtp.send(None, [CARL], HELLO)


# Refusals


async def test_who_is_refused_is_named_and_the_others_get_the_message() -> None:
    script = answering(
        (MAIL + TO_CARL + TO_DORA + b"DATA\r\n", OK + b"550 5.1.1 no carl here\r\n" + OK + GO_ON),
        (HELLO + b".\r\n", b"250 queued\r\n"),
    )
    async with greeted(script, PIPELINING) as smtp:
        sent = await smtp.send(ANNA, [CARL, DORA], HELLO)
        assert replies(sent.outcomes) == [("RCPT", "550 5.1.1 no carl here"), ("the message", "250 queued")]
        [refused] = sent.refused
        assert isinstance(refused.error, PermanentReplyError)
        assert (refused.error.code, refused.error.enhanced) == (550, "5.1.1")
        assert str(refused.error) == "RCPT <carl@example.net>: the server says 550 5.1.1 no carl here"
        assert str(sent.reply) == "250 queued"


@pytest.mark.parametrize(
    ("offered", "pairs"),
    [
        (PLAIN, [(MAIL, OK), (TO_CARL, b"550 no\r\n"), (TO_DORA, b"450 not now\r\n")]),
        (PIPELINING, [(MAIL + TO_CARL + TO_DORA + b"DATA\r\n", OK + b"550 no\r\n450 not now\r\n554 nobody\r\n")]),
        # RFC 2920 section 3.1: a server may say 354 all the same, and then an empty message ends that
        (
            PIPELINING,
            [
                (MAIL + TO_CARL + TO_DORA + b"DATA\r\n", OK + b"550 no\r\n450 not now\r\n" + GO_ON),
                (b".\r\n", b"554 nobody\r\n"),
            ],
        ),
    ],
)
async def test_a_message_that_nobody_gets_says_why_for_each_and_the_client_goes_on(
    offered: bytes, pairs: list[tuple[bytes, bytes]]
) -> None:
    reset = [] if pairs[-1][0] == b".\r\n" else [(b"RSET\r\n", OK)]
    async with greeted(answering(*pairs, *reset, *ordinary(offered)), offered) as smtp:
        with pytest.raises(MessageRefused) as caught:
            await smtp.send(ANNA, [CARL, DORA], HELLO)
        assert replies(caught.value.outcomes) == [("RCPT", "550 no"), ("RCPT", "450 not now")]
        assert not caught.value.is_permanent
        assert "carl@example.net>: the server says 550 no; RCPT <dora" in str(caught.value)
        assert smtp.is_usable
        await smtp.send(ANNA, [CARL], HELLO)


def ordinary(offered: bytes) -> list[tuple[bytes, bytes]]:
    """A message to Carl."""
    if offered == PIPELINING:
        return [(MAIL + TO_CARL + b"DATA\r\n", OK + OK + GO_ON), (HELLO + b".\r\n", OK)]
    return [(MAIL, OK), (TO_CARL, OK), (b"DATA\r\n", GO_ON), (HELLO + b".\r\n", OK)]


@pytest.mark.parametrize(
    ("offered", "pairs"),
    [
        (PLAIN, [(MAIL, b"550 5.7.1 not you\r\n")]),
        (
            PIPELINING,
            [(MAIL + TO_CARL + TO_DORA + b"DATA\r\n", b"550 5.7.1 not you\r\n503 no\r\n503 no\r\n503 no\r\n")],
        ),
    ],
)
async def test_a_sender_who_is_refused_is_refused_for_all(offered: bytes, pairs: list[tuple[bytes, bytes]]) -> None:
    async with greeted(answering(*pairs, *ordinary(offered)), offered) as smtp:
        with pytest.raises(MessageRefused, match=r"^MAIL: the server says 550 5.7.1 not you$") as caught:
            await smtp.send(ANNA, [CARL, DORA], HELLO)
        assert caught.value.is_permanent
        assert [outcome.enhanced for outcome in caught.value.outcomes] == ["5.7.1", "5.7.1"]
        await smtp.send(ANNA, [CARL], HELLO)  # without RSET: there is no envelope


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"452 4.5.3 too many recipients", TransientReplyError),
        (b"552 too many recipients", TransientReplyError),  # RFC 5321 section 4.5.3.1.10
        (b"552 5.5.3 too many recipients", TransientReplyError),
        (b"552 5.2.2 mailbox full", PermanentReplyError),
    ],
)
async def test_too_many_recipients_are_a_failure_for_now(reply: bytes, kind: type[Exception]) -> None:
    pairs = [
        (MAIL + TO_CARL + TO_DORA + b"DATA\r\n", OK + OK + reply + b"\r\n" + GO_ON),
        (HELLO + b".\r\n", OK),
    ]
    async with greeted(answering(*pairs), PIPELINING) as smtp:
        sent = await smtp.send(ANNA, [CARL, DORA], HELLO)
        assert type(sent.refused[0].error) is kind
        assert MessageRefused(sent.refused).is_permanent is (kind is PermanentReplyError)


async def test_data_that_is_refused_is_refused_for_those_who_were_left() -> None:
    pairs = (MAIL + TO_CARL + TO_DORA + b"DATA\r\n", OK + b"550 no\r\n" + OK + b"451 full\r\n")
    async with greeted(answering(pairs, (b"RSET\r\n", OK), *ordinary(PIPELINING)), PIPELINING) as smtp:
        with pytest.raises(MessageRefused) as caught:
            await smtp.send(ANNA, [CARL, DORA], HELLO)
        assert replies(caught.value.outcomes) == [("RCPT", "550 no"), ("DATA", "451 full")]
        await smtp.send(ANNA, [CARL], HELLO)


async def test_a_message_that_is_refused_at_its_end_is_refused_for_those_who_were_left() -> None:
    pairs = [
        (MAIL + TO_CARL + TO_DORA + b"DATA\r\n", OK + b"550 no\r\n" + OK + GO_ON),
        (HELLO + b".\r\n", b"554 5.7.1 spam\r\n"),
    ]
    async with greeted(answering(*pairs, *ordinary(PIPELINING)), PIPELINING) as smtp:
        with pytest.raises(MessageRefused) as caught:
            await smtp.send(ANNA, [CARL, DORA], HELLO)
        assert replies(caught.value.outcomes) == [("RCPT", "550 no"), ("the message", "554 5.7.1 spam")]
        assert caught.value.is_permanent
        await smtp.send(ANNA, [CARL], HELLO)  # without RSET: the end of the message has ended its envelope


@pytest.mark.parametrize(
    ("pairs", "outcomes"),
    [
        ([(MAIL + TO_CARL + TO_DORA + b"DATA\r\n", b"421 bye\r\n")], [("MAIL", "421 bye"), ("MAIL", "421 bye")]),
        (
            [(MAIL + TO_CARL + TO_DORA + b"DATA\r\n", OK + b"550 no\r\n421 bye\r\n")],
            [("RCPT", "550 no"), ("RCPT", "421 bye")],
        ),
        (
            [(MAIL + TO_CARL + TO_DORA + b"DATA\r\n", OK + b"550 no\r\n" + OK + b"421 bye\r\n")],
            [("RCPT", "550 no"), ("DATA", "421 bye")],
        ),
        (
            [
                (MAIL + TO_CARL + TO_DORA + b"DATA\r\n", OK + b"550 no\r\n" + OK + GO_ON),
                (HELLO + b".\r\n", b"421 bye\r\n"),
            ],
            [("RCPT", "550 no"), ("the message", "421 bye")],
        ),
    ],
)
async def test_a_421_in_the_middle_is_a_refusal_for_now_and_closes_the_client(
    pairs: list[tuple[bytes, bytes]], outcomes: list[tuple[str, str]]
) -> None:
    async with greeted(answering(*pairs), PIPELINING) as smtp:
        with pytest.raises(MessageRefused) as caught:
            await smtp.send(ANNA, [CARL, DORA], HELLO)
        assert replies(caught.value.outcomes) == outcomes
        assert isinstance(caught.value.outcomes[1].error, ServiceClosing)
        assert not caught.value.is_permanent
        assert smtp.is_closed


@pytest.mark.parametrize(
    "pairs",
    [
        [(MAIL, GO_ON)],
        [(MAIL, OK), (TO_CARL, GO_ON)],
        [(MAIL, OK), (TO_CARL, OK), (b"DATA\r\n", OK)],
        [(MAIL, OK), (TO_CARL, OK), (b"DATA\r\n", b"334 \r\n")],
        [(MAIL, b"250-a\r\n550 b\r\n")],
        [(MAIL, b"999 what\r\n")],
        [(MAIL, b"150 soon\r\n")],
    ],
)
async def test_an_answer_that_is_none_closes_the_client(pairs: list[tuple[bytes, bytes]]) -> None:
    async with greeted(answering(*pairs), PLAIN) as smtp:
        with pytest.raises(RemoteProtocolError):
            await smtp.send(ANNA, [CARL], HELLO)
        assert smtp.is_closed


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


# Content


async def received(content: Any) -> bytes:
    """What a server gets of `content`, behind the transparency."""
    got = b""

    async def script(peer: ScriptedPeer) -> None:
        nonlocal got
        while (await peer.expect_until()) != b"DATA\r\n":
            await peer.send(OK)
        await peer.send(GO_ON)
        decoder = DataDecoder()
        while not decoder.is_complete:
            got += decoder.feed(await peer.stream.receive_some())
        assert decoder.fault is None
        assert decoder.rest == b""
        await peer.send(OK)

    async with greeted(script, PIPELINING) as smtp:
        await smtp.send(ANNA, [CARL], content)
    return got


async def pieces_of(data: bytes, size: int = 1) -> AsyncIterator[bytes]:
    for begin in range(0, len(data), size):
        yield data[begin : begin + size]


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b""),
        (b"a", b"a\r\n"),
        (b".\r\n", b".\r\n"),
        (b".", b".\r\n"),
        (b"a\n.\nMAIL FROM:<x@y>\n", b"a\r\n.\r\nMAIL FROM:<x@y>\r\n"),
        (b"a\r.\rb", b"a\r\n.\r\nb\r\n"),
        (b"a\r\n.\r\n", b"a\r\n.\r\n"),
        (b"a\n\r.\r\n", b"a\r\n\r\n.\r\n"),
        (b"a\r\r\n.\n", b"a\r\n\r\n.\r\n"),
        (b"a\r", b"a\r\n"),
        (b"\0\r\n", b"\0\r\n"),
    ],
)
@pytest.mark.parametrize("form", ["bytes", "bytearray", "file", "pipe", "pieces"])
async def test_whatever_the_content_is_lines_end_in_cr_lf_and_the_message_where_it_ends(
    content: bytes, wire: bytes, form: str
) -> None:
    match form:
        case "bytes":
            source: Any = content
        case "bytearray":
            source = bytearray(content)
        case "file":
            source = io.BytesIO(b"before" + content)
            source.seek(6)
        case "pipe":
            reading, writing = os.pipe()
            os.write(writing, content)
            os.close(writing)
            source = open(reading, "rb")  # noqa: SIM115
        case "pieces":
            source = pieces_of(content)
    assert await received(source) == wire
    if form in ("file", "pipe"):
        source.close()


async def test_a_large_message_is_the_same_at_the_other_end(tmp_path: Any) -> None:
    line = b"." * 900 + b"\r\n"
    content = line * 3000
    path = tmp_path / "message"
    path.write_bytes(content.replace(b"\r\n", b"\n"))
    assert await received(content) == content
    with path.open("rb") as file:
        assert await received(file) == content
    assert await received(pieces_of(content, 100_001)) == content


async def test_progress_is_told() -> None:
    told: list[tuple[int, int | None]] = []
    content = b"x" * 998 + b"\r\n"

    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(MAIL + TO_CARL + b"DATA\r\n")
        await peer.send(OK + OK + GO_ON)
        while b"\r\n.\r\n" not in await peer.expect_until(b".\r\n", limit=1_000_000):
            pass
        await peer.send(OK)

    async with greeted(script, PIPELINING) as smtp:
        await smtp.send(ANNA, [CARL], content * 200, progress=lambda done, total: told.append((done, total)))
    assert told == [(65536, 200_000), (131072, 200_000), (196608, 200_000), (200_000, 200_000)]


async def test_an_iterator_that_fails_closes_the_client_before_the_message_has_ended() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"hello\r\n"
        raise RuntimeError("no more")

    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(MAIL + TO_CARL + b"DATA\r\n")
        await peer.send(OK + OK + GO_ON)
        await peer.expect_reset()

    async with greeted(script, PIPELINING) as smtp:
        with pytest.raises(RuntimeError, match="no more"):
            await smtp.send(ANNA, [CARL], failing())
        assert smtp.is_closed


async def test_a_message_that_is_too_large_is_not_begun() -> None:
    async with greeted(answering(), offering("SIZE 20")) as smtp:
        with pytest.raises(NotSupported, match="20 bytes, and this has 25") as caught:
            await smtp.send(ANNA, [CARL], HELLO)
        assert caught.value.enhanced == "5.3.4"
        assert smtp.is_usable


async def test_the_size_that_is_told_counts_line_ends_as_they_are_sent() -> None:
    script = answering(
        (b"MAIL FROM:<anna@example.org> SIZE=25\r\n", OK), (TO_CARL, OK), (b"DATA\r\n", GO_ON), (HELLO + b".\r\n", OK)
    )
    for source in (HELLO.replace(b"\r\n", b"\n"), io.BytesIO(HELLO.replace(b"\r\n", b"\n"))):
        async with greeted(script, offering("SIZE")) as smtp:
            await smtp.send(ANNA, [CARL], source)


@pytest.mark.parametrize(
    ("envelope", "content", "offered", "parameters"),
    [
        (Envelope(ANNA), b"\xff\r\n", ["8BITMIME"], b" BODY=8BITMIME"),
        (Envelope(ANNA, body=Body.EIGHT_BIT), b"a\r\n", ["8BITMIME"], b""),
        (Envelope(ANNA, body=Body.EIGHT_BIT), b"a\r\n", [], b""),
        (Envelope(ANNA, body=Body.EIGHT_BIT), None, ["8BITMIME"], b" BODY=8BITMIME"),
        (Envelope(ANNA, body=Body.EIGHT_BIT, size=9), None, ["8BITMIME", "SIZE"], b" SIZE=9 BODY=8BITMIME"),
        (Envelope(ANNA, international=True), b"a\r\n", [], b""),
        (Envelope(ANNA, international=True), b"\xc3\xbc\r\n", ["SMTPUTF8"], b" BODY=8BITMIME SMTPUTF8"),
        (Envelope(ANNA, international=True), None, ["SMTPUTF8"], b" SMTPUTF8"),
    ],
)
async def test_an_envelope_asks_for_what_its_content_needs(
    envelope: Envelope, content: bytes | None, offered: list[str], parameters: bytes
) -> None:
    script = answering(
        (MAIL.replace(b"\r\n", parameters + b"\r\n"), OK),
        (TO_CARL, OK),
        (b"DATA\r\n", GO_ON),
        ((content or b"a\r\n") + b".\r\n", OK),
    )
    async with greeted(script, offering(*offered)) as smtp:
        await smtp.send(envelope, [CARL], pieces_of(b"a\r\n") if content is None else content)


@pytest.mark.parametrize(
    ("envelope", "recipient", "content", "enhanced"),
    [
        (Envelope(ANNA), CARL, b"\xff\r\n", "5.6.3"),
        (Envelope(ANNA, body=Body.EIGHT_BIT), CARL, None, "5.6.3"),
        (Envelope(ANNA, body=Body.BINARY), CARL, b"a\n", "5.6.3"),
        (Envelope(ANNA), "j\u00fcrgen@example.net", b"a\r\n", "5.6.7"),
        (Envelope(MailAddress.parse("j\u00fcrgen@example.net")), CARL, b"a\r\n", "5.6.7"),
        (Envelope(ANNA, international=True), CARL, None, "5.6.7"),
    ],
)
async def test_what_the_server_cannot_take_is_not_begun(
    envelope: Envelope, recipient: str, content: bytes | None, enhanced: str
) -> None:
    async with greeted(answering(), offering("CHUNKING")) as smtp:
        had = smtp.stream.bytes_out
        with pytest.raises(NotSupported) as caught:
            await smtp.send(envelope, [recipient], pieces_of(b"a\r\n") if content is None else content)
        assert caught.value.enhanced == enhanced
        assert (smtp.stream.bytes_out, smtp.stream.pending) == (had, 0)
        assert smtp.is_usable


async def test_a_domain_beyond_ascii_goes_as_the_dns_knows_it() -> None:
    script = answering(
        (b"MAIL FROM:<anna@xn--bcher-kva.example>\r\n", OK),
        (b"RCPT TO:<carl@xn--bcher-kva.example>\r\n", OK),
        (b"DATA\r\n", GO_ON),
        (HELLO + b".\r\n", OK),
    )
    async with greeted(script, PLAIN) as smtp:
        sent = await smtp.send("anna@b\u00fccher.example", ["carl@b\u00fccher.example"], HELLO)
        assert sent.outcomes[0].recipient.address == MailAddress.parse("carl@b\u00fccher.example")


async def test_a_local_part_beyond_ascii_asks_for_smtputf8() -> None:
    script = answering(
        (b"MAIL FROM:<anna@example.org> SMTPUTF8\r\n", OK),
        ("RCPT TO:<j\u00fcrgen@example.net>\r\n".encode(), OK),
        (b"DATA\r\n", GO_ON),
        (HELLO + b".\r\n", OK),
    )
    async with greeted(script, offering("SMTPUTF8")) as smtp:
        await smtp.send(ANNA, ["j\u00fcrgen@example.net"], HELLO)


# Chunks

BINARY = Envelope(ANNA, body=Body.BINARY)
CHUNKING = offering("CHUNKING", "BINARYMIME", "8BITMIME", "PIPELINING")


async def test_binary_content_goes_in_a_chunk_as_it_is() -> None:
    content = b"a\n.\r\n.\r\nb\r\xff\0"
    script = answering(
        (b"MAIL FROM:<anna@example.org> BODY=BINARYMIME\r\n" + TO_CARL, OK + OK),
        (b"BDAT 12 LAST\r\n" + content, b"250 queued\r\n"),
    )
    async with greeted(script, CHUNKING) as smtp:
        assert str((await smtp.send(BINARY, [CARL], content)).reply) == "250 queued"


@pytest.mark.parametrize("extra", [0, 1])
async def test_a_large_message_goes_in_chunks_each_of_which_is_answered(extra: int) -> None:
    told: list[tuple[int, int | None]] = []
    content = b"." * (2 * CHUNK + extra - 2) + b"\r\n"
    got: list[bytes] = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(MAIL + TO_CARL)
        await peer.send(OK + OK)
        for size in (CHUNK, CHUNK, extra)[: 2 + extra]:
            last = b" LAST" if sum(map(len, got)) + size == len(content) else b""
            await peer.expect(b"BDAT %d%s\r\n" % (size, last))
            got.append(await peer.stream.receive_exactly(size))
            await peer.send(OK)

    async with greeted(script, CHUNKING) as smtp:
        await smtp.send(ANNA, [CARL], io.BytesIO(content), progress=lambda *sizes: told.append(sizes))
        assert smtp.is_usable
    assert b"".join(got) == content
    assert told == [(CHUNK * n, len(content)) for n in range(1, 2 + extra)] + [(len(content), len(content))]


async def test_a_chunk_that_is_refused_ends_the_message_and_the_client_goes_on() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(MAIL + TO_CARL)
        await peer.send(OK + OK)
        await peer.expect(b"BDAT %d\r\n" % CHUNK)
        await peer.stream.receive_exactly(CHUNK)
        await peer.send(b"552 5.2.2 full\r\n")
        await answering((b"RSET\r\n", OK), *ordinary(PIPELINING))(peer)

    async with greeted(script, CHUNKING) as smtp:
        with pytest.raises(MessageRefused, match=r"^BDAT: the server says 552 5.2.2 full$"):
            await smtp.send(ANNA, [CARL], b"x" * 2 * CHUNK)
        assert smtp.is_usable
        await smtp.send(ANNA, [CARL], HELLO)


async def test_a_chunk_that_is_refused_while_it_is_sent_closes_the_client() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(MAIL + TO_CARL)
        await peer.send(OK + OK)
        await peer.expect(b"BDAT %d\r\n" % CHUNK)
        await peer.send(b"552 5.3.4 too much\r\n")

    async with greeted(script, CHUNKING) as smtp:
        with pytest.raises(MessageRefused, match=r"^the message: the server says 552"):
            await smtp.send(ANNA, [CARL], b"x" * 2 * CHUNK)
        assert smtp.is_closed


async def test_an_empty_binary_message_is_one_empty_chunk() -> None:
    script = answering(
        (b"MAIL FROM:<anna@example.org> BODY=BINARYMIME\r\n" + TO_CARL, OK + OK), (b"BDAT 0 LAST\r\n", OK)
    )
    async with greeted(script, CHUNKING) as smtp:
        await smtp.send(BINARY, [CARL], b"")


# LMTP


async def test_lmtp_answers_for_each_recipient() -> None:
    script = answering(
        (
            MAIL + TO_CARL + b"RCPT TO:<eve@example.net>\r\n" + TO_DORA + b"DATA\r\n",
            OK + OK + b"550 no\r\n" + OK + GO_ON,
        ),
        (HELLO + b".\r\n", b"250 2.1.5 carl has it\r\n452 4.2.2 dora is full\r\n"),
        (b"NOOP\r\n", OK),
    )
    async with greeted(script, PIPELINING, lmtp=True) as smtp:
        sent = await smtp.send(ANNA, [CARL, "eve@example.net", DORA], HELLO)
        assert replies(sent.outcomes) == [
            ("the message", "250 2.1.5 carl has it"),
            ("RCPT", "550 no"),
            ("the message", "452 4.2.2 dora is full"),
        ]
        assert isinstance(sent.outcomes[2].error, TransientReplyError)
        await smtp.noop()


async def test_lmtp_that_breaks_off_tells_whom_it_has_answered_for() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answering(
            (MAIL + TO_CARL + TO_DORA + b"DATA\r\n", OK + OK + OK + GO_ON), (HELLO + b".\r\n", b"250 carl\r\n25")
        )(peer)
        await peer.close()

    async with greeted(script, PIPELINING, lmtp=True) as smtp:
        with pytest.raises(OutcomeUnknown) as caught:
            await smtp.send(ANNA, [CARL, DORA], HELLO)
        assert [outcome.is_accepted for outcome in caught.value.outcomes] == [True, False]
        assert caught.value.outcomes[1].reply is None
        assert smtp.is_closed


async def test_lmtp_that_answers_too_often_is_left() -> None:
    script = answering(
        (MAIL + TO_CARL + b"DATA\r\n", OK + OK + GO_ON), (HELLO + b".\r\n", b"250 carl\r\n250 and who?\r\n")
    )
    async with greeted(script, PIPELINING, lmtp=True) as smtp:
        await smtp.send(ANNA, [CARL], HELLO)
        assert not smtp.is_usable
        with pytest.raises(RemoteProtocolError):
            await smtp.send(ANNA, [CARL], HELLO)
        assert smtp.is_closed


async def test_lmtp_that_wants_a_message_for_nobody_is_left() -> None:
    script = answering((MAIL + TO_CARL + b"DATA\r\n", OK + b"550 no\r\n" + GO_ON))
    async with greeted(script, PIPELINING, lmtp=True) as smtp:
        with pytest.raises(RemoteProtocolError, match="354 to DATA without recipients"):
            await smtp.send(ANNA, [CARL], HELLO)
        assert smtp.is_closed


async def test_lmtp_in_chunks_answers_for_each_behind_the_last_one() -> None:
    script = answering(
        (b"MAIL FROM:<anna@example.org> BODY=BINARYMIME\r\n" + TO_CARL + TO_DORA, OK + OK + OK),
        (b"BDAT 1 LAST\r\nx", b"250 carl\r\n552 dora\r\n"),
    )
    async with greeted(script, CHUNKING, lmtp=True) as smtp:
        sent = await smtp.send(BINARY, [CARL, DORA], b"x")
        assert [outcome.is_accepted for outcome in sent.outcomes] == [True, False]


# Limits, cancelling, and whatever a server may say


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
