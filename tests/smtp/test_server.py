"""What a client sees of `SMTPHandler`, and what its delivery gets. Attacks, TLS and logins have files of their own."""

from __future__ import annotations

import errno
import logging
import re
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from asyncnet.errors import ConfigurationError
from asyncnet.limits import Timeouts
from asyncnet.service import Service, serve
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.delivery import Client, Refused, Role, Transaction
from asyncnet.smtp.envelope import Body, Envelope, Notify, Recipient, Returned
from asyncnet.smtp.limits import SMTPLimits, SMTPTimeouts
from asyncnet.smtp.policies import Guarded, Rule
from asyncnet.smtp.server import SMTPHandler
from asyncnet.testing import MemoryListener, ScriptedPeer
from tests.smtp.recorder import Peer, Recorder, TakenByEach, Users, connected

CONTENT = b"Subject: hello\r\n\r\nHello.\r\n"


class TestConversation:
    async def test_a_server_says_who_it_is_and_what_it_can(self, autojump_clock: MockClock) -> None:
        async with connected(hello="") as peer:
            await peer.scripted.send(b"EHLO client.example\r\n")
            await peer.scripted.expect(
                b"250-mx.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n"
                b"250-CHUNKING\r\n250-BINARYMIME\r\n250-DSN\r\n250-SIZE 52428800\r\n"
                b"250-LIMITS MAILMAX=10000 RCPTMAX=1000\r\n250 HELP\r\n"
            )
            await peer.scripted.send(b"HELO client.example\r\n")
            await peer.scripted.expect(b"250 mx.example\r\n")

    async def test_a_message_comes_with_its_envelope_and_its_trace(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            await peer.expect(
                "250 2.1.0", "MAIL FROM:<anna@example.org> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=q SMTPUTF8"
            )
            await peer.expect("250 2.1.5", "RCPT TO:<jörg@example.net> NOTIFY=NEVER ORCPT=rfc822;joe@example.net")
            await peer.expect("354", "DATA")
            reply = await peer.raw(b"Subject: x\r\n\r\n..dot\r\n.\r\n")
            assert str(reply) == "250 2.0.0 queued as 1"
            await peer.expect("221 2.0.0", "QUIT")
            await peer.scripted.expect_end()
        [taken] = recorder.taken
        envelope = taken.envelope
        assert envelope.sender == MailAddress("anna", "example.org")
        assert (envelope.size, envelope.body, envelope.returned) == (100, Body.EIGHT_BIT, Returned.HEADERS)
        assert (envelope.envelope_id, envelope.international) == ("q", True)
        joe = MailAddress("jörg", "example.net")
        assert taken.recipients == [Recipient(joe, frozenset({Notify.NEVER}), "rfc822;joe@example.net")]
        assert (taken.client.name, taken.client.protocol, taken.client.role) == ("client.example", "UTF8SMTP", Role.MX)
        assert taken.ends == ["commit"]
        trace, _, rest = taken.content.partition(b"Subject")
        assert rest == b": x\r\n\r\n.dot\r\n"
        assert re.fullmatch(
            rb"Received: from client\.example \(\[203\.0\.113\.9\]\)\r\n"
            rb"\tby mx\.example with UTF8SMTP id [0-9a-f]{16}\r\n"
            rb"\tfor <j\xc3\xb6rg@example\.net>;\r\n"
            rb"\t\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000\r\n",
            trace,
        )

    async def test_with_several_recipients_none_is_told_of_the_others(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            await peer.send(CONTENT, "a@example.net", "b@example.net")
        assert b"example.net" not in recorder.taken[0].content

    async def test_the_null_path_and_postmaster_are_understood(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            await peer.begin("Postmaster", mail="MAIL FROM:<>")
        assert recorder.taken[0].envelope.sender is None
        assert recorder.taken[0].recipients[0].address == MailAddress("postmaster", "")

    async def test_commands_that_come_together_are_answered_together(self, autojump_clock: MockClock) -> None:
        async with connected() as peer:
            commands = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<>\r\nNOOP\r\nDATA\r\n"
            await peer.stream.send_all(commands)
            received = await peer.stream.receive_some()
            assert [line[:3] for line in received.split(b"\r\n")] == [b"250", b"250", b"501", b"250", b"354", b""]
            await peer.stream.send_all(CONTENT + b".\r\nRSET\r\nNOOP x\r\nMAIL FROM:<a@example.org>\r\n")
            received = await peer.stream.receive_some()
            assert [line[:3] for line in received.split(b"\r\n")] == [b"250"] * 4 + [b""]

    async def test_a_connection_carries_many_messages(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            for number in range(5):
                assert str(await peer.send(CONTENT)) == f"250 2.0.0 queued as {number + 1}"
        assert recorder.ends == [["commit"]] * 5

    async def test_commands_have_their_order(self, autojump_clock: MockClock) -> None:
        async with connected(hello="") as peer:
            await peer.expect_all(
                ("503 5.5.1 A greeting", "MAIL FROM:<a@example.org>"),
                ("503 5.5.1", "STARTTLS"),
                ("250 2.0.0", "NOOP"),
                ("250 2.0.0", "RSET"),
                ("503 5.5.1 A greeting", "RCPT TO:<a@example.org>"),
                ("252 2.5.0", "VRFY anna"),
                ("214 2.0.0", "HELP"),
                ("250", "HELO client.example"),
                ("503 5.5.1 MAIL", "RCPT TO:<a@example.org>"),
                ("503 5.5.1 MAIL", "DATA"),
                ("250 2.1.0", "MAIL FROM:<a@example.org>"),
                ("503 5.5.1 A message", "MAIL FROM:<a@example.org>"),
                ("503 5.5.1 RCPT", "DATA"),
                ("501 5.1.3", "RCPT TO:<>"),
                ("503 5.5.1 RCPT", "DATA"),
                ("250 2.1.5", "RCPT TO:<a@example.org>"),
                ("503 5.5.1 A message", "MAIL FROM:<a@example.org>"),
                ("250 2.1.5", "RCPT TO:<b@example.org>"),
                ("501 5.5.4", "DATA x"),
                ("354", "DATA"),
            )

    async def test_what_is_no_command_is_refused(self, autojump_clock: MockClock) -> None:
        async with connected() as peer:
            await peer.expect_all(
                ("500 5.5.2", ""),
                ("500 5.5.1", "SEND FROM:<a@example.org>"),
                ("500 5.5.1", "LHLO client.example"),
                ("501 5.5.4", "RSET x"),
                ("501 5.5.4", "QUIT x"),
                ("501 5.5.4", "VRFY"),
                ("501 5.5.4", "EHLO"),
                ("501 5.5.4", "EHLO a b"),
                ("502 5.5.1", "EXPN list"),
                ("502 5.5.1", "STARTTLS"),
                ("502 5.5.1", "AUTH PLAIN"),
                ("504 5.5.4", "HELP FOO"),
                ("214 2.0.0 RCPT TO:<address>", "HELP rcpt"),
                ("501 5.1.7", "MAIL FROM:anna@example.org"),
                ("555 5.5.4", "MAIL FROM:<anna@example.org> FOO=1"),
                ("550 5.6.7", "MAIL FROM:<ä@example.org>"),
            )

    @pytest.mark.parametrize("command", ["RSET", "EHLO again.example", "HELO again.example", "QUIT"])
    async def test_a_message_can_be_given_up(self, autojump_clock: MockClock, command: str) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            await peer.begin()
            assert (await peer.do(command)).is_success
            if command != "QUIT":
                await peer.expect("503", "RCPT TO:<b@example.org>")
                await peer.send(CONTENT)
        assert recorder.ends[0] == ["abort"]

    async def test_a_client_that_vanishes_leaves_nothing(self, autojump_clock: MockClock) -> None:
        for sent in (b"", b"DATA\r\n", b"DATA\r\nSubject: x\r\n\r\nHell", b"BDAT 100\r\nSubj", b"BDAT 4\r\nSubj"):
            for leave in ("close", "reset"):
                recorder = Recorder()
                async with connected(recorder) as peer:
                    await peer.begin()
                    await peer.scripted.send(sent)
                    await getattr(peer.scripted, leave)()
                assert recorder.ends == [["abort"]]

    async def test_a_line_that_is_too_long_is_skipped(self, autojump_clock: MockClock) -> None:
        async with connected(limits=SMTPLimits(line=100, skipped=1000)) as peer:
            await peer.expect("500 5.5.2", "NOOP " + "x" * 500)
            await peer.expect("250", "NOOP")
            assert str(await peer.raw(b"x" * 1500)).startswith("500 5.5.2")
            assert str(await peer.reply()).startswith("421 4.7.0")
            await peer.scripted.expect_end()

    async def test_lines_that_are_too_long_are_errors_too(self, autojump_clock: MockClock) -> None:
        async with connected(limits=SMTPLimits(line=40, errors=2)) as peer:
            await peer.scripted.send((b"x" * 50 + b"\r\n") * 4)
            assert [(await peer.reply()).code for _ in range(4)] == [500, 500, 500, 421]
            await peer.scripted.expect_end()

    async def test_the_log_tells_what_became_of_a_message(
        self, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="asyncnet.smtp")
        recorder = Recorder()
        async with connected(recorder) as peer:
            await peer.begin(mail='MAIL FROM:<"a\\ b"@example.org>')
            await peer.expect("354", "DATA")
            await peer.raw(CONTENT + b".\r\n")
        [traced] = re.findall(rb"with ESMTP id (\w+)", recorder.taken[0].content)
        said = f'{traced.decode()} from <"a b"@example.org> to 1 recipients, 26 bytes: 250 2.0.0 queued as 1'
        assert f"203.0.113.9:40000: {said}" in caplog.text  # so that who has the message finds it in the log

    async def test_and_who_was_refused(self, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger="asyncnet.smtp")
        recorder = Recorder(nobody=Refused(550, "5.1.1", "No such user."))
        async with connected(recorder) as peer:
            await peer.begin()
            await peer.expect("550 5.1.1", "RCPT TO:<@\x1b[2J:nobody@example.org>")
        said = r"from <anna@example.org> RCPT TO:<@\x1b[2J:nobody@example.org>: 550 5.1.1 No such user."
        assert f"203.0.113.9:40000: {said}" in caplog.text

    async def test_errors_without_a_message_end_the_connection(
        self, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="asyncnet.smtp")
        async with connected(limits=SMTPLimits(errors=3)) as peer:
            for command in ("NOOP", "RSET", "VRFY anna", "EHLO client.example", "MAIL FROM:<a@example.org>"):
                assert (await peer.do(command)).is_success
                if command != "NOOP":
                    assert (await peer.do("RCPT TO:<>")).is_permanent_failure
            assert str(await peer.reply()).startswith("421 4.7.0 Too many errors.")
            await peer.scripted.expect_end()
        assert "203.0.113.9:40000: too many errors" in caplog.text

    @pytest.mark.parametrize("role", [Role.MX, Role.LMTP])
    async def test_and_a_message_makes_up_for_them(self, autojump_clock: MockClock, role: Role) -> None:
        hello = "LHLO client.example" if role is Role.LMTP else "EHLO client.example"
        recorder = Recorder()
        async with connected(recorder, role=role, hello=hello, limits=SMTPLimits(errors=3, chatter=3)) as peer:
            for _ in range(3):
                await peer.expect("250", "NOOP")
                await peer.expect("250", "NOOP")
                for _ in range(3):
                    await peer.expect("500", "FOO")
                assert (await peer.send(CONTENT)).code == 250
            recorder.fails["commit"] = Refused(550, "5.7.1", "No.")
            for _ in range(4):
                assert (await peer.send(CONTENT)).code == 550
            assert str(await peer.reply()).startswith("421 4.7.0")
            await peer.scripted.expect_end()

    @pytest.mark.parametrize(
        "commands",
        [
            *(["NOOP"], ["RSET"], ["VRFY anna"], ["HELP"], ["EHLO client.example"], ["HELO client.example"]),
            ["MAIL FROM:<anna@example.org>", "RSET"],
            ["MAIL FROM:<anna@example.org>", "RCPT TO:<carl@example.org>", "EHLO client.example"],
            ["MAIL FROM:<later@example.org>"],
        ],
    )
    async def test_nor_does_chatter_go_on_for_ever(self, autojump_clock: MockClock, commands: list[str]) -> None:
        class Later(Rule):
            async def sender(self, envelope: Envelope, client: Client) -> Envelope:
                if envelope.sender == MailAddress("later", "example.org"):
                    raise Refused(451, "4.7.1", "Later.")
                return envelope

        async with connected(Guarded(Recorder(), Later()), limits=SMTPLimits(chatter=5)) as peer:
            for _ in range(5):  # the first EHLO counts, too
                for command in commands:
                    assert not (await peer.do(command)).is_permanent_failure
            assert str(await peer.reply()).startswith("421 4.7.0 Too many commands without a message.")
            await peer.scripted.expect_end()

    async def test_who_says_goodbye_hears_nothing_else(self, autojump_clock: MockClock) -> None:
        async with connected(limits=SMTPLimits(chatter=2)) as peer:
            await peer.expect("250", "NOOP")
            await peer.expect("221", "QUIT")
            await peer.scripted.expect_end()

    async def test_parameters_are_understood_behind_helo_too(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder, hello="HELO client.example") as peer:
            await peer.expect("250 2.1.0", "MAIL FROM:<anna@example.org> SIZE=26 BODY=8BITMIME")
        assert recorder.taken[0].envelope.body is Body.EIGHT_BIT
        assert recorder.taken[0].client.protocol == "SMTP"

    async def test_a_connection_has_so_many_messages(self, autojump_clock: MockClock) -> None:
        async with connected(limits=SMTPLimits(messages=1)) as peer:
            await peer.send(CONTENT)
            await peer.expect("421 4.7.0", "MAIL FROM:<anna@example.org>")
            await peer.scripted.expect_end()

    def test_what_could_never_work_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="login_required"):
            SMTPHandler(Recorder(), login_required=True)
        with pytest.raises(ConfigurationError, match="hostname"):
            SMTPHandler(Recorder(), hostname="no name")


class TestTime:
    async def test_a_client_that_says_nothing_is_told_so(self, autojump_clock: MockClock) -> None:
        async with connected(timeouts=SMTPTimeouts(command=10)) as peer:
            await peer.scripted.send(b"NOO")
            await peer.scripted.expect_silence(9.5)
            assert str(await peer.reply()).startswith("421 4.4.2")
            await peer.scripted.expect_end()

    async def test_no_byte_moves_the_deadline_of_a_command(self, autojump_clock: MockClock) -> None:
        async with connected(timeouts=SMTPTimeouts(command=10)) as peer:
            for _ in range(4):
                await trio.sleep(2.4)
                await peer.scripted.send(b"x")
            assert str(await peer.reply()).startswith("421 4.4.2")

    @pytest.mark.parametrize("command", [b"DATA\r\n", b"BDAT 100000\r\n"])
    async def test_a_content_has_to_come_at_some_pace(self, autojump_clock: MockClock, command: bytes) -> None:
        recorder = Recorder()
        async with connected(recorder, timeouts=SMTPTimeouts(content=10), limits=SMTPLimits(rate=100)) as peer:
            await peer.begin()
            await peer.scripted.send(command)
            for _ in range(20):  # 100 bytes a second are enough, for however long
                await trio.sleep(1)
                await peer.scripted.send(b"x" * 98 + b"\r\n")
            for _ in range(9):
                await trio.sleep(1)
                await peer.scripted.send(b"x")
            await trio.sleep(2)
            if command.startswith(b"DATA"):
                assert (await peer.reply()).code == 354
            assert str(await peer.reply()).startswith("421 4.4.2")
            await peer.scripted.expect_end()
        assert recorder.ends == [["abort"]]

    @pytest.mark.parametrize("chunk", [b"BDAT 1\r\nx", b"BDAT 0\r\n"])
    async def test_chunks_have_the_time_of_one_content(self, autojump_clock: MockClock, chunk: bytes) -> None:
        recorder = Recorder()
        async with connected(recorder, timeouts=SMTPTimeouts(content=10), limits=SMTPLimits(rate=100)) as peer:
            await peer.begin()
            for _ in range(3):
                assert (await peer.raw(chunk)).code == 250
                await trio.sleep(4)
            assert str(await peer.raw(chunk)).startswith("421 4.4.2")
            await peer.scripted.expect_end()
        assert recorder.ends == [["abort"]]

    async def test_a_drain_says_goodbye_to_who_is_idle_and_lets_a_message_come(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        listener = MemoryListener()
        async with trio.open_nursery() as nursery:

            async def start(task_status: trio.TaskStatus[Service]) -> None:
                await serve(SMTPHandler(recorder), listener, task_status=task_status)

            service = await nursery.start(start)
            idle, busy = [Peer(ScriptedPeer(await listener.connect())) for _ in range(2)]
            for peer in (idle, busy):
                await peer.reply()
                await peer.expect("250", "EHLO client.example")
            await busy.begin()
            nursery.start_soon(service.drain)
            assert str(await idle.reply()).startswith("421 4.3.2")
            await idle.scripted.expect_end()
            await busy.expect("354", "DATA")
            assert (await busy.raw(CONTENT + b".\r\n")).code == 250
            assert str(await busy.reply()).startswith("421 4.3.2")
            await busy.scripted.expect_end()
        assert recorder.ends == [["commit"]]

    async def test_a_delivery_may_take_longer_than_a_connection_may_be_idle(self, autojump_clock: MockClock) -> None:
        class Slow(Recorder):
            async def pass_step(self, *names: str) -> None:
                if "commit" in names:
                    await trio.sleep(500)

        listener = MemoryListener()
        async with trio.open_nursery() as nursery:
            serving = partial(serve, SMTPHandler(Slow()), listener, timeouts=Timeouts(idle=20))
            nursery.start_soon(serving)
            peer = Peer(ScriptedPeer(await listener.connect(), timeout=1000))
            await peer.reply()
            await peer.expect("250", "EHLO client.example")
            assert (await peer.send(CONTENT)).code == 250
            nursery.cancel_scope.cancel()


class TestSize:
    LIMITS = SMTPLimits(message=1000, refused_content=5000, text_line=500)

    async def test_what_is_announced_to_be_too_large_is_refused_at_once(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder, limits=self.LIMITS) as peer:
            await peer.expect("552 5.3.4", "MAIL FROM:<anna@example.org> SIZE=1001")
            await peer.expect("250 2.1.0", "MAIL FROM:<anna@example.org> SIZE=1000")
        assert len(recorder.taken) == 1

    @pytest.mark.parametrize("way", ["DATA", "BDAT"])
    async def test_what_is_too_large_is_read_to_its_end_and_refused(self, autojump_clock: MockClock, way: str) -> None:
        recorder = Recorder()
        async with connected(recorder, limits=self.LIMITS) as peer:
            for size, reply in ((1000, "250 2.0.0"), (1002, "552 5.3.4"), (4900, "552 5.3.4"), (1000, "250 2.0.0")):
                content = b"A: b\r\n\r\n" + b"x" * 90 + b"\r\n"
                content += (b"x" * 98 + b"\r\n") * (size // 100 - 1)
                content += b"x" * (size - len(content) - 2) + b"\r\n" if size > len(content) else b""
                assert len(content) == size
                await peer.begin()
                if way == "DATA":
                    await peer.expect("354", "DATA")
                    said = await peer.raw(content + b".\r\n")
                else:
                    said = await peer.raw(b"BDAT %d LAST\r\n" % size + content)
                assert str(said).startswith(reply)
        assert recorder.ends == [["commit"], ["abort"], ["abort"], ["commit"]]

    @pytest.mark.parametrize("command", [b"DATA\r\n", b"BDAT 100000\r\n"])
    async def test_a_content_without_end_is_read_to_a_limit(self, autojump_clock: MockClock, command: bytes) -> None:
        recorder = Recorder()
        async with connected(recorder, limits=self.LIMITS) as peer:
            await peer.begin()
            await peer.scripted.send(command + (b"x" * 98 + b"\r\n") * 60)
            if command.startswith(b"DATA"):
                assert (await peer.reply()).code == 354
            assert str(await peer.reply()).startswith("421 4.7.0")
            await peer.scripted.expect_end()
        assert recorder.ends == [["abort"]]

    async def test_a_message_has_so_many_recipients(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder, limits=SMTPLimits(recipients=2)) as peer:
            await peer.begin("a@example.org", "b@example.org")
            await peer.expect("452 4.5.3", "RCPT TO:<c@example.org>")
            await peer.expect("354", "DATA")
            assert (await peer.raw(CONTENT + b".\r\n")).code == 250
        assert len(recorder.taken[0].recipients) == 2

    async def test_those_too_many_may_come_all_at_once(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder, limits=SMTPLimits(recipients=100)) as peer:
            await peer.expect("250 2.1.0", "MAIL FROM:<anna@example.org>")
            recipients = b"".join(b"RCPT TO:<a%d@example.org>\r\n" % number for number in range(1000))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.stream.send_all, recipients + b"DATA\r\n" + CONTENT + b".\r\n")
                codes = [(await peer.reply()).code for _ in range(1002)]
        assert codes == [250] * 100 + [452] * 900 + [354, 250]
        assert len(recorder.taken[0].recipients) == 100

    async def test_large_contents_pass_in_pieces(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            await peer.begin()
            await peer.expect("354", "DATA")
            content = b"A: b\r\n\r\n" + (b"." + b"x" * 75 + b"\r\n") * 10_000
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.stream.send_all, content.replace(b"\n.", b"\n..") + b".\r\n")
                assert (await peer.reply()).code == 250
        [taken] = recorder.taken
        assert taken.content.endswith(content)
        assert taken.pieces > 10


class TestDeliveriesThatSayNo:
    NO = Refused(550, "5.7.1", "No.", "Never.")

    @pytest.mark.parametrize(
        ("exc", "reply"),
        [
            (NO, "550 5.7.1 No. / 5.7.1 Never."),
            (ValueError("a secret"), "451 4.3.0 A local error: try later."),
            (OSError(errno.ENOSPC, "no space"), "452 4.3.1 There is no room at the moment."),
            (trio.BrokenResourceError("the next hop"), "451 4.3.0 A local error: try later."),
            (Refused(550, "5.7.1", "ä\r\n250 yes"), r"550 5.7.1 \xe4\r\n250 yes"),
        ],
    )
    @pytest.mark.parametrize("step", ["start", "add", "write", "commit"])
    async def test_each_step_may_be_refused_or_fail(
        self, autojump_clock: MockClock, step: str, exc: Exception, reply: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        recorder = Recorder(**{step: exc})
        async with connected(recorder) as peer:
            if step == "start":
                await peer.expect(reply, "MAIL FROM:<anna@example.org>")
                await peer.expect("503 5.5.1", "RCPT TO:<carl@example.org>")
                assert recorder.taken == []
            elif step == "add":
                await peer.expect("250 2.1.0", "MAIL FROM:<anna@example.org>")
                await peer.expect(reply, "RCPT TO:<carl@example.org>")
                await peer.expect("503 5.5.1", "DATA")
            else:
                assert str(await peer.send(b"Subject: x\r\n\r\n" + b"x" * 10_000)) == reply
            recorder.fails.clear()
            await peer.expect("250", "RSET")
            assert (await peer.send(CONTENT)).code == 250  # the connection goes on
        assert recorder.ends[-1] == ["commit"]
        if step != "start":
            assert recorder.ends[0] == (["begun to commit"] if step == "commit" else ["abort"])
        assert "secret" not in reply
        assert ("delivery has failed" in caplog.text) == (not isinstance(exc, Refused | OSError))

    async def test_each_recipient_is_decided_on_its_own(self, autojump_clock: MockClock) -> None:
        recorder = Recorder(nobody=Refused(550, "5.1.1", "No such user."))
        async with connected(recorder) as peer:
            await peer.begin("anna@example.org")
            await peer.expect("550 5.1.1", "RCPT TO:<nobody@example.org>")
            await peer.expect("250 2.1.5", "RCPT TO:<carl@example.org>")
            await peer.expect("354", "DATA")
            assert (await peer.raw(CONTENT + b".\r\n")).code == 250
        assert [str(one.address) for one in recorder.taken[0].recipients] == ["anna@example.org", "carl@example.org"]

    async def test_a_delivery_may_end_the_connection(self, autojump_clock: MockClock) -> None:
        recorder = Recorder(add=Refused(421, "4.3.2", "Not now."))
        async with connected(recorder) as peer:
            await peer.expect("250 2.1.0", "MAIL FROM:<anna@example.org>")
            await peer.expect("421 4.3.2 Not now.", "RCPT TO:<carl@example.org>")
            await peer.scripted.expect_end()
        assert recorder.ends == [["abort"]]

    async def test_an_abort_that_fails_is_logged(
        self, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        recorder = Recorder(abort=ValueError("stuck"))
        async with connected(recorder) as peer:
            await peer.begin()
            await peer.expect("250", "RSET")
        assert "stuck" in caplog.text


class TestChunks:
    async def test_chunks_make_a_message(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            await peer.begin()
            assert str(await peer.raw(b"BDAT 9\r\nSubject: ")) == "250 2.0.0 9 bytes have come."
            assert (await peer.raw(b"BDAT 7\r\nx\r\n\r\n.\r")).code == 250
            assert (await peer.raw(b"BDAT 1\r\n\n")).code == 250
            await peer.expect("503 5.5.1 BDAT", "DATA")
            await peer.expect("503 5.5.1 BDAT", "RCPT TO:<a@example.org>")
            assert str(await peer.raw(b"BDAT 0 LAST\r\n")) == "250 2.0.0 queued as 1"
            await peer.expect("250 2.1.0", "MAIL FROM:<a@example.org>")
        assert recorder.taken[0].content.endswith(b"Subject: x\r\n\r\n.\r\n")
        assert recorder.taken[0].ends == ["commit"]

    async def test_they_may_all_come_together(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            await peer.scripted.send(
                b"MAIL FROM:<a@example.org> BODY=BINARYMIME\r\nRCPT TO:<b@example.org>\r\n"
                b"BDAT 8\r\nA: b\r\n\r\nBDAT 5 LAST\r\n\0\r\n\n\rQUIT\r\n"
            )
            assert [(await peer.reply()).code for _ in range(5)] == [250] * 4 + [221]
        assert recorder.taken[0].content.endswith(b"A: b\r\n\r\n\0\r\n\n\r")

    async def test_binary_contents_come_by_bdat_alone(self, autojump_clock: MockClock) -> None:
        async with connected() as peer:
            await peer.begin(mail="MAIL FROM:<anna@example.org> BODY=BINARYMIME")
            await peer.expect("503 5.5.1 BODY=BINARYMIME", "DATA")
            assert (await peer.raw(b"BDAT 5 LAST\r\n\0\r\r\n\n")).code == 250

    @pytest.mark.parametrize("content", [b"a\nb\r\n", b"a\rb\r\n", b"a\r\n\r", b"\n"])
    async def test_lines_end_with_cr_lf_in_all_others(self, autojump_clock: MockClock, content: bytes) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            await peer.begin()
            assert str(await peer.raw(b"BDAT %d LAST\r\n" % len(content) + content)).startswith("554 5.6.0")
        assert recorder.ends == [["abort"]]

    async def test_a_chunk_that_is_not_wanted_is_skipped(self, autojump_clock: MockClock) -> None:
        recorder = Recorder(write=Refused(554, "5.6.0", "No."))
        async with connected(recorder) as peer:
            assert str(await peer.raw(b"BDAT 6\r\nQUIT\r\n")).startswith("503 5.5.1")
            await peer.begin()
            await peer.scripted.send(b"BDAT 8\r\nA: b\r\n\r\nBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
            replies = [str(await peer.reply())[:9] for _ in range(4)]
            assert replies == ["554 5.6.0", "503 5.5.1", "503 5.5.1", "250 2.0.0"]
        assert recorder.ends == [["abort"]]

    async def test_and_not_without_end(self, autojump_clock: MockClock) -> None:
        async with connected(limits=SMTPLimits(refused_content=5000)) as peer:
            await peer.scripted.send(b"BDAT 99999999999999999999 LAST\r\n" + b"x" * 6000)
            assert str(await peer.reply()).startswith("421 4.7.0")
            await peer.scripted.expect_end()

    @pytest.mark.parametrize("argument", ["", " x", " -1", " 5 FIRST", " 5LAST"])
    async def test_a_bdat_that_is_none_ends_the_connection(self, autojump_clock: MockClock, argument: str) -> None:
        async with connected() as peer:
            await peer.begin()
            await peer.expect("501 5.5.4", f"BDAT{argument}")
            await peer.scripted.expect_end()


class TestLMTP:
    async def test_each_recipient_has_an_outcome(self, autojump_clock: MockClock) -> None:
        recorder = Recorder(each=True)
        async with connected(recorder, role=Role.LMTP, hello="LHLO client.example") as peer:
            await peer.expect("500 5.5.1", "EHLO client.example")
            await peer.begin("anna@example.org", "full@example.org", "carl@example.org")
            await peer.expect("354", "DATA")
            await peer.scripted.send(CONTENT + b".\r\n")
            assert [str(await peer.reply())[:9] for _ in range(3)] == ["250 2.0.0", "452 4.2.2", "250 2.0.0"]
            await peer.begin("anna@example.org", "carl@example.org")
            await peer.scripted.send(b"BDAT 8\r\nA: b\r\n\r\nBDAT 3 LAST\r\nx\r\n")
            assert [str(await peer.reply())[:9] for _ in range(3)] == ["250 2.0.0"] * 3
        assert recorder.ends == [["commit each"]] * 2
        assert b"with LMTP id" in recorder.taken[0].content

    async def test_or_all_have_the_same(self, autojump_clock: MockClock) -> None:
        for fails, expected in (({}, "250 2.0.0"), ({"commit": Refused(451, "4.2.0", "Later.")}, "451 4.2.0")):
            recorder = Recorder(**fails)
            async with connected(recorder, role=Role.LMTP, hello="LHLO client.example") as peer:
                await peer.begin("anna@example.org", "carl@example.org")
                await peer.expect("354", "DATA")
                await peer.scripted.send(CONTENT + b".\r\n")
                assert [str(await peer.reply())[:9] for _ in range(2)] == [expected] * 2

    async def test_a_content_that_is_refused_is_refused_for_each(self, autojump_clock: MockClock) -> None:
        recorder = Recorder(each=True)
        async with connected(recorder, role=Role.LMTP, hello="LHLO client.example") as peer:
            await peer.begin("anna@example.org", "carl@example.org")
            await peer.expect("354", "DATA")
            await peer.scripted.send(b"a\nb\r\n.\r\n")
            assert [str(await peer.reply())[:9] for _ in range(2)] == ["554 5.6.0"] * 2
            await peer.expect("503 5.5.1", "DATA")
        assert recorder.ends == [["abort"]]

    @pytest.mark.parametrize("outcomes", [[], [""], ["", "", ""]])
    async def test_each_recipient_has_one_reply_whatever_a_delivery_says(
        self, autojump_clock: MockClock, outcomes: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        class Miscounts(Recorder):
            async def start(self, envelope: Envelope, client: Client) -> Transaction:
                transaction = await super().start(envelope, client)
                assert isinstance(transaction, TakenByEach)

                async def commit_each() -> list[str]:
                    await transaction.commit()
                    return outcomes

                transaction.commit_each = commit_each  # type: ignore[method-assign]
                return transaction

        async with connected(Miscounts(each=True), role=Role.LMTP, hello="LHLO client.example") as peer:
            await peer.begin("anna@example.org", "carl@example.org")
            await peer.expect("354", "DATA")
            await peer.scripted.send(CONTENT + b".\r\nNOOP\r\n")
            assert [(await peer.reply()).code for _ in range(3)] == [451, 451, 250]
        assert f"{len(outcomes)} outcomes for 2 recipients" in caplog.text

    async def test_a_thousand_replies_find_room(self, autojump_clock: MockClock) -> None:
        recorder = Recorder(commit=Refused(451, "4.3.0", "long" * 1000))
        async with connected(recorder, role=Role.LMTP, hello="LHLO client.example") as peer:
            await peer.begin(*(f"a{number}@example.org" for number in range(1000)))
            await peer.expect("354", "DATA")
            await peer.scripted.send(CONTENT + b".\r\n")
            for _ in range(1000):
                reply = await peer.reply()
                assert (reply.code, len(reply.text)) == (451, 406)  # a line has at most 512 (section 4.5.3.1.5)


SUBMISSION: dict[str, Any] = {"role": Role.SUBMISSION, "users": Users("anna"), "insecure_auth": True}


class TestSubmission:
    async def test_only_users_send(self, autojump_clock: MockClock) -> None:
        async with connected(**SUBMISSION) as peer:
            await peer.expect("530 5.7.0", "MAIL FROM:<anna@example.org>")
            await peer.expect("530 5.7.0", "VRFY anna")
            await peer.expect("235 2.7.0", "AUTH PLAIN AGFubmEAYW5uYQ==")
            await peer.expect("250 2.1.0", "MAIL FROM:<anna@example.org>")

    @pytest.mark.parametrize(
        ("header", "added"),
        [
            (b"", [b"Message-ID", b"Date"]),
            (b"Date: x\r\n", [b"Message-ID"]),
            (b"MESSAGE-ID : <x@y>\r\n", [b"Date"]),
            (b"date: x\r\nA: b\r\n c\r\nmessage-id: y\r\n", []),
            (b"X: Date: Message-ID:\r\n Date: x\r\n", [b"Message-ID", b"Date"]),
        ],
    )
    @pytest.mark.parametrize("ends", [b"\r\n", b""])
    async def test_a_message_gets_what_it_has_to_have(
        self, autojump_clock: MockClock, header: bytes, added: list[bytes], ends: bytes
    ) -> None:
        recorder = Recorder()
        async with connected(recorder, **SUBMISSION) as peer:
            await peer.expect("235", "AUTH PLAIN AGFubmEAYW5uYQ==")
            content = header + (b"\r\nDate: no header\r\n" if ends else b"")
            await peer.begin()
            await peer.expect("354", "DATA")
            await peer.raw(content + b".\r\n")
        [taken] = recorder.taken
        assert taken.content.endswith(content)
        front = taken.content[: len(taken.content) - len(content)]
        assert re.findall(rb"(?m)^([A-Za-z-]+):", front) == [b"Received", *added]
        assert b"with ESMTPA id" in front

    @pytest.mark.parametrize("content", [b"how are you?", b" by nobody\r\nA: b", b"\t"])
    async def test_what_begins_with_its_body_does_not_become_a_part_of_our_fields(
        self, autojump_clock: MockClock, content: bytes
    ) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            await peer.send(content)
        header, _, body = recorder.taken[0].content.partition(b"\r\n\r\n")
        assert (header.count(b"Received:"), body) == (1, content + b"\r\n")

    async def test_others_are_left_as_they_are(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(recorder) as peer:
            await peer.send(b"A: b\r\n")
        assert re.findall(rb"(?m)^([A-Za-z-]+):", recorder.taken[0].content) == [b"Received", b"A"]


def test_limits_and_timeouts_are_checked() -> None:
    with pytest.raises(ValueError, match="line"):
        SMTPLimits(line=0)
    with pytest.raises(ValueError, match="content"):
        SMTPTimeouts(content=0)
