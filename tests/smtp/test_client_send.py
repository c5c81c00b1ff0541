"""Envelopes and refusals, as SMTP and LMTP servers see them and say them. In memory, in virtual time."""

from __future__ import annotations

import pytest

from asyncnet.errors import RemoteProtocolError
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.client import (
    MessageRefused,
    OutcomeUnknown,
    PermanentReplyError,
    ServiceClosing,
    TransientReplyError,
)
from asyncnet.smtp.envelope import Envelope, Notify, Recipient, Returned
from asyncnet.testing import ScriptedPeer
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
    greeted,
    offering,
    ordinary,
    replies,
)

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
