"""What must not work on `SMTPHandler`: smuggling, bombs, loops; and that a transaction has one end, come what may."""

from __future__ import annotations

import itertools

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from asyncnet.errors import RemoteProtocolError
from asyncnet.limits import Timeouts
from asyncnet.replies import ReplyParser
from asyncnet.smtp.content import DataEncoder
from asyncnet.smtp.declarations import COMMANDS
from asyncnet.smtp.delivery import Refused, Role
from asyncnet.smtp.limits import SMTPLimits
from asyncnet.smtp.server import SMTPHandler
from asyncnet.testing import OneByteStream, cancel_at_each_checkpoint, run_handler, stream_pair
from tests.smtp.recorder import THERE, Recorder, Users, connected

SMUGGLED = b"MAIL FROM:<admin@example.org>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nSubject: fake\r\n\r\nfake"
FAKE_ENDS = [
    *(b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r.\n", b"\n.\r", b"\r\n.\n", b"\r\n.\r", b"\r\n.\r\r\n"),
    *(b"\r\r\n.\n", b"\n\r.\n\r"),
]


class TestSmuggling:
    @pytest.mark.parametrize("fake", FAKE_ENDS)
    async def test_what_looks_like_an_end_is_none_and_is_refused(self, fake: bytes, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            await peer.begin()
            await peer.expect("354", "DATA")
            await peer.scripted.send(b"Subject: x\r\n\r\nx" + fake + SMUGGLED + b"\r\n.\r\nNOOP\r\n")
            assert str(await peer.reply()).startswith("554 5.6.0 The message has a CR without LF")
            assert str(await peer.reply()).startswith("250 2.0.0 Still here")  # one reply, in its place
        assert recorder.ends == [["abort"]]

    @pytest.mark.parametrize("fake", FAKE_ENDS)
    async def test_nor_is_it_for_those_who_know_no_better(self, fake: bytes, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder, normalise_from=["203.0.113.0/24"]) as peer:
            await peer.begin()
            await peer.expect("354", "DATA")
            await peer.scripted.send(b"Subject: x\n\nx" + fake + SMUGGLED + b"\r\n.\r\nNOOP\r\n")
            assert [(await peer.reply()).code for _ in range(2)] == [250, 250]
        [taken] = recorder.taken
        assert b"MAIL FROM:<admin@example.org>" in taken.content
        assert not set(taken.content.replace(b"\r\n", b"")) & set(b"\r\n")

    async def test_commands_end_with_cr_lf_too(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            assert str(await peer.raw(b"NOOP\rMAIL FROM:<a@example.org>\r\n")).startswith("500 5.5.2")
            assert str(await peer.raw(b"x" * 13_000 + b"\nMAIL FROM:<a@example.org>\r\n")).startswith("500 5.5.2")
            await peer.scripted.send(b"NOOP\nMAIL FROM:<a@example.org>\r\n")
            assert str(await peer.reply()).startswith("500 5.5.2 A line that does not end with CR LF")
            await peer.scripted.expect_end()
        assert recorder.taken == []
        async with connected(normalise_from=["203.0.113.9"]) as peer:
            assert str(await peer.raw(b"NOOP\n")).startswith("250")

    async def test_a_null_byte_hides_nothing(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            assert str(await peer.raw(b"NOOP\0\r\n")).startswith("500 5.5.2")
            assert str(await peer.raw(b"MAIL FROM:<a\0@example.org>\r\n")).startswith("500 5.5.2")
            assert (await peer.send(b"A: b\r\n\r\n\r\n\0.\r\n.\0\r\nx")).code == 250
        assert recorder.taken[0].content.endswith(b"\r\n\r\n\0.\r\n\0\r\nx\r\n")


class TestBombs:
    LIMITS = SMTPLimits(header=2000, header_fields=20, hops=5)

    @pytest.mark.parametrize(
        ("content", "reply"),
        [
            (b"A: " + b"x" * 1990 + b"\r\n\r\nbody", "250 2.0.0"),
            (b"A: " + b"x" * 2000 + b"\r\n\r\nbody", "552 5.3.4"),
            (b"A: b\r\n" + b" folded\r\n" * 300, "552 5.3.4"),
            (b"A: b\r\n" * 500 + b"\r\nbody", "552 5.3.4"),
            (b"A:\r\n" * 20 + b"\r\nbody", "250 2.0.0"),
            (b"A:\r\n" * 21 + b"\r\nbody", "554 5.6.0"),
            (b"Received: x\r\n" * 5 + b"\r\nbody", "250 2.0.0"),
            (b"Received: x\r\n" * 6 + b"\r\nbody", "554 5.4.6"),
            (b"RECEIVED : x\r\n y\r\n" * 6 + b"\r\nbody", "554 5.4.6"),
            (b"no header\r\n" + b"Received: x\r\n" * 600, "250 2.0.0"),
            (b"x" * 5000, "552 5.3.4"),
            (b"\r\n" + b"x" * 5000, "250 2.0.0"),
        ],
    )
    @pytest.mark.parametrize("way", ["at once", "byte by byte"])
    async def test_a_header_has_its_limits(
        self, content: bytes, reply: str, way: str, autojump_clock: MockClock
    ) -> None:
        recorder = Recorder()
        async with connected(recorder, limits=self.LIMITS) as peer:
            await peer.begin()
            await peer.expect("354", "DATA")
            data = content + b"\r\n.\r\n"
            for piece in [data] if way == "at once" else [data[i : i + 1] for i in range(len(data))]:
                await peer.scripted.send(piece)
            assert str(await peer.reply()).startswith(reply)
            await peer.expect("250", "NOOP")
        assert recorder.ends == [["commit"] if reply.startswith("250") else ["abort"]]

    async def test_a_line_has_a_limit(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder, limits=SMTPLimits(text_line=1000)) as peer:
            assert str(await peer.send(b"\r\n" + b"x" * 999)).startswith("554 5.6.0 The message has a line that is too")
            assert (await peer.send(b"\r\n" + b"x" * 998)).code == 250

    async def test_a_client_that_never_reads_is_cut_off(self, autojump_clock: MockClock) -> None:
        ours, theirs = stream_pair(capacity=4096, timeouts=Timeouts(send=10))
        recorder = Recorder()
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await SMTPHandler(recorder)(theirs)
                await theirs.aclose()

            nursery.start_soon(serve)
            commands = b"EHLO a.example\r\nMAIL FROM:<a@example.org>\r\n" + b"HELP\r\n" * 100_000
            with pytest.raises(trio.BrokenResourceError):
                await ours.send_all(commands)
        assert theirs.is_closed
        assert theirs.bytes_in < len(commands)
        assert recorder.ends == [["abort"]]

    def test_a_client_that_finds_no_room_is_told_so(self) -> None:
        reply = ReplyParser(every_line_coded=True).feed(SMTPHandler.refusal)
        assert str(reply).startswith("421 4.3.2 ")
        assert SMTPHandler.refusal.endswith(b"\r\n")

    async def test_another_protocol_is_not_listened_to(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            await peer.scripted.send(b"POST / HTTP/1.1\r\nHost: mx.example\r\n\r\nMAIL FROM:<a@example.org>\r\n")
            assert (await peer.reply()).code == 500
            await peer.scripted.expect_end()
        assert recorder.taken == []

    async def test_a_name_cannot_forge_the_trace(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder, hello="EHLO friend([10.0.0.1])by;evil") as peer:
            await peer.send(b"A: b\r\n")
        assert recorder.taken[0].content.startswith(b"Received: from friend??10.0.0.1??by?evil ([203.0.113.9])\r\n")

    @pytest.mark.parametrize(
        "content", [b" (from a.friend by us)\r\n", b"\tx\r\n", b"hello\r\n", b"From a.friend\r\nA: b\r\n"]
    )
    async def test_nor_can_what_is_no_header(self, content: bytes, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            await peer.begin()
            await peer.expect("354", "DATA")
            assert (await peer.raw(content + b".\r\n")).code == 250
        header, _, body = recorder.taken[0].content.partition(b"\r\n\r\n")
        assert header.startswith(b"Received: from client.example")
        assert header.endswith(b" +0000")
        assert body == content


SESSION = (
    b"EHLO client.example\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nA: b\r\n\r\nx\r\n.\r\n"
    b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nBDAT 8\r\nA: b\r\n\r\nBDAT 3 LAST\r\nx\r\nQUIT\r\n"
)


@pytest.mark.parametrize("leave", ["close", "send_eof"])
async def test_a_session_that_breaks_off_anywhere_leaves_what_was_whole(leave: str, autojump_clock: MockClock) -> None:
    ends = [SESSION.index(b"\r\n.\r\n") + 5, SESSION.index(b"QUIT")]
    for length in range(len(SESSION)):
        recorder = Recorder()
        async with connected(recorder, hello="") as peer:
            await peer.scripted.send(SESSION[:length])
            await getattr(peer.scripted, leave)()
        assert recorder.ends.count(["commit"]) == sum(length >= end for end in ends), SESSION[:length]
        assert all(end in (["commit"], ["abort"]) for end in recorder.ends)


WORDS = st.sampled_from(
    [
        *("", "client.example", "FROM:<a@example.org>", "FROM:<>", "TO:<a@example.org>", "TO:<postmaster>"),
        *('FROM:<"a\\b"@x.example> SIZE=5 BODY=8BITMIME', "TO:<@a,@b:c@d.example>", "TO:<a%b@c.example> NOTIFY=NEVER"),
        *(
            "FROM:<a@b> BODY=BINARYMIME SMTPUTF8",
            "5",
            "0 LAST",
            "5 LAST",
            "PLAIN AGFubmEAYW5uYQ==",
            "PLAIN",
            "*",
            "x y",
        ),
    ]
)
LINES = st.one_of(
    st.builds(lambda verb, word: f"{verb} {word}".encode(), st.sampled_from(sorted(COMMANDS)), WORDS),
    st.sampled_from([b"MAIL FROM:<a@example.org>", b"RCPT TO:<b@example.org>", b"DATA", b"."]),
    st.builds(
        lambda verb, tail: verb.encode() + b" " + tail, st.sampled_from(sorted(COMMANDS)), st.binary(max_size=60)
    ),
    st.binary(max_size=300),
).map(lambda line: line.replace(b"\n", b"") + b"\r\n")


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(LINES, max_size=30), st.sampled_from(Role), st.booleans())
def test_no_conversation_makes_it_fail(lines: list[bytes], role: Role, refuses: bool) -> None:
    """Whatever a client says, it is answered or the connection ends, and each transaction has one end."""
    recorder = Recorder(**({"write": Refused(554, "5.6.0", "No.")} if refuses else {}))

    async def talk() -> None:
        limits = SMTPLimits(line=200, skipped=400, message=500, refused_content=1000, header=300)
        handler = SMTPHandler(
            recorder, role=role, users=Users("anna"), login_required=False, insecure_auth=True, limits=limits
        )
        async with run_handler(handler, client=THERE) as peer:
            hello = b"LHLO client.example\r\n" if role is Role.LMTP else b"EHLO client.example\r\n"
            parser, codes = ReplyParser(every_line_coded=True), []

            async def send() -> None:
                try:
                    await peer.stream.send_all(hello + b"".join(lines) + b"\r\n.\r\nQUIT\r\n")
                    await peer.stream.send_eof()
                except trio.BrokenResourceError:
                    pass  # it has had enough

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                try:
                    while True:
                        reply = parser.feed(await peer.stream.receive_until(b"\n", limit=100_000))
                        if reply is not None:
                            codes.append(reply.code)
                except (RemoteProtocolError, trio.BrokenResourceError):
                    pass  # the end
            assert parser.is_between
            assert codes[:2] == [220, 250]

    trio.run(talk, clock=MockClock(autojump_threshold=0))
    assert all(len(ends) == 1 for ends in recorder.ends)


CONTENTS = st.lists(st.sampled_from([b"", b".", b"..", b".a", b"A: b", b" c", b"\xff\0", b"QUIT"]), max_size=20).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


@given(CONTENTS, st.lists(st.integers(0, 80), max_size=6).map(sorted), st.integers(1, 80))
def test_a_content_arrives_as_it_was_sent_however_it_comes(content: bytes, cuts: list[int], size: int) -> None:
    """By DATA in segments of any size, or by BDAT in any chunks, with the commands around it in the same segments."""
    places = [0, *(min(cut, len(content)) for cut in cuts), len(content)]
    chunks = [content[begin:end] for begin, end in itertools.pairwise(places)]
    encoder = DataEncoder()
    by_data = b"DATA\r\n" + encoder.feed(content) + encoder.finish()
    by_bdat = b"".join(b"BDAT %d\r\n%b" % (len(chunk), chunk) for chunk in chunks) + b"BDAT 0 LAST\r\n"
    envelope = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"
    said = b"EHLO a.example\r\n" + envelope + by_data + envelope + by_bdat + b"QUIT\r\n"
    recorder = Recorder()

    async def talk() -> None:
        async with run_handler(SMTPHandler(recorder)) as peer:
            for begin in range(0, len(said), size):
                await peer.send(said[begin : begin + size])
            assert (await peer.expect_until(b"221 2.0.0 Goodbye.\r\n")).count(b"\r\n250 2.0.0 queued as") == 2
            await peer.expect_end()

    trio.run(talk, clock=MockClock(autojump_threshold=0))
    assert recorder.ends == [["commit"]] * 2
    for taken in recorder.taken:
        trace, _, rest = taken.content.partition(b" +0000\r\n")
        assert trace.startswith(b"Received: ")
        assert rest in (content, b"\r\n" + content)  # a body without a header gets the line that separates them


MESSAGES = {
    "DATA": b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n",
    "BDAT": b"BDAT 8\r\nA: b\r\n\r\nBDAT 3 LAST\r\nx\r\n",
    "refused": b"DATA\r\nx\ny\r\n.\r\n",
    "given up": b"RSET\r\n",
}


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("role", [Role.MX, Role.LMTP])
async def test_a_cancellation_anywhere_leaves_each_transaction_with_one_end(
    message: str, role: Role, autojump_clock: MockClock
) -> None:
    hello = b"LHLO client.example\r\n" if role is Role.LMTP else b"EHLO client.example\r\n"
    envelope = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"
    rounds = 0
    for attempt in cancel_at_each_checkpoint():
        ours, theirs = stream_pair()
        recorder = Recorder()
        await ours.send_all(hello + (envelope + MESSAGES[message]) * 2 + b"QUIT\r\n")
        with attempt:
            await SMTPHandler(recorder, role=role)(OneByteStream(theirs) if rounds % 2 else theirs)
        await ours.aclose()
        rounds += 1
        assert all(len(ends) == 1 for ends in recorder.ends), recorder.ends
        if not attempt.cancelled:
            expected = "commit" if message in ("DATA", "BDAT") else "abort"
            assert recorder.ends == [[expected]] * 2
    assert rounds > 10
