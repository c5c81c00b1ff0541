"""What of a message is on the wire, by DATA and by BDAT, as SMTP servers see it. In memory, in virtual time."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.client import (
    MessageRefused,
    NotSupported,
)
from asyncnet.smtp.client_transaction import CHUNK
from asyncnet.smtp.content import DataDecoder
from asyncnet.smtp.envelope import Body, Envelope
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
    pieces_of,
)

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


async def test_lmtp_in_chunks_answers_for_each_behind_the_last_one() -> None:
    script = answering(
        (b"MAIL FROM:<anna@example.org> BODY=BINARYMIME\r\n" + TO_CARL + TO_DORA, OK + OK + OK),
        (b"BDAT 1 LAST\r\nx", b"250 carl\r\n552 dora\r\n"),
    )
    async with greeted(script, CHUNKING, lmtp=True) as smtp:
        sent = await smtp.send(BINARY, [CARL, DORA], b"x")
        assert [outcome.is_accepted for outcome in sent.outcomes] == [True, False]
