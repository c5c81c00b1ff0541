"""What a client of `POP3Handler` sees, in memory and in virtual time."""

from __future__ import annotations

import base64
import errno
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import trio

from asyncnet.auth.guard import LoginGuard
from asyncnet.auth.sasl import client_mechanisms, encode_initial
from asyncnet.auth.scram import ScramKeys
from asyncnet.errors import ConfigurationError
from asyncnet.limits import Timeouts
from asyncnet.mailbox.maildir import Maildirs
from asyncnet.mailbox.memory import MemoryMailbox, MemoryMailboxes
from asyncnet.mailbox.storage import Flag
from asyncnet.middleware import ConversationLog
from asyncnet.pop3.client import POP3Client
from asyncnet.pop3.limits import POP3Timeouts
from asyncnet.pop3.server import POP3Handler
from asyncnet.service import serve
from asyncnet.testing import MemoryListener, OneByteStream, ScriptedPeer, cancel_at_each_checkpoint, stream_pair
from tests.pop3.peer import FAR, HERE, LOCAL, MAILS, Peer, Users, boxes, connected, logged_in


class TestLogin:
    async def test_a_name_and_a_password(self) -> None:
        async with connected(POP3Handler(boxes(*MAILS), Users())) as peer:
            await peer.err("STAT", "Log in first")
            await peer.ok("USER anna")
            assert await peer.ok("PASS anna") == f"3 messages ({sum(map(len, MAILS))} octets)"
            await peer.err("USER anna", "already")
            await peer.err("PASS anna", "already")
            await peer.err("AUTH PLAIN", "already")
            await peer.err("STLS", "already")
            await peer.ok("QUIT")
            await peer.script.expect_end()

    async def test_a_password_may_have_blanks(self) -> None:
        name = " two  words "
        async with connected(POP3Handler(MemoryMailboxes(name), Users(name))) as peer:
            await peer.ok(f"USER {name}")
            await peer.ok(f"PASS {name}")

    @pytest.mark.parametrize("name", ["anna", "nobody", "\udcff"])
    async def test_nobody_is_told_whether_a_name_is_there(self, name: str, autojump_clock: object) -> None:
        async with connected(POP3Handler(boxes(), Users())) as peer:
            assert await peer.ok(f"USER {name}") == "The password, please."
            assert await peer.do("PASS wrong") == "-ERR [AUTH] The login failed."
            await peer.err("PASS anna", "USER comes first")
            await peer.log_in()

    async def test_after_a_few_tries_the_connection_ends(self, autojump_clock: object) -> None:
        users = Users()
        async with connected(POP3Handler(boxes(), users, guard=LoginGuard(tries=2)), timeout=100) as peer:
            for _ in range(2):
                await peer.ok("USER anna")
                await peer.err("PASS wrong", "[AUTH]")
            await peer.script.expect_end()
        assert users.asked == 2

    async def test_no_password_passes_in_the_clear(self) -> None:
        users = Users()
        async with connected(POP3Handler(boxes(), users), client=FAR) as peer:
            await peer.err("USER anna", "in the clear")
            await peer.err("PASS anna", "USER comes first")
            await peer.err("AUTH PLAIN AGFubmEAYW5uYQ==", "in the clear")
            capabilities = await peer.lines("CAPA")
            assert b"USER" not in capabilities
            assert b"SASL" not in capabilities
        assert users.asked == 0
        async with connected(POP3Handler(boxes(), users, insecure_auth=True), client=FAR) as peer:
            await peer.log_in()

    async def test_a_user_without_a_mailbox(self) -> None:
        async with connected(POP3Handler(MemoryMailboxes(), Users())) as peer:
            await peer.ok("USER anna")
            await peer.err("PASS anna", "[SYS/PERM]")
            await peer.err("STAT", "Log in first")

    async def test_a_mailbox_is_for_one_session_at_a_time(self) -> None:
        handler = POP3Handler(boxes(*MAILS), Users())
        async with connected(handler) as first, connected(handler) as second:
            await first.log_in()
            await second.ok("USER anna")
            await second.err("PASS anna", "[IN-USE]")
            await second.log_in("bert")
            await first.ok("QUIT")
            async with connected(handler) as third:
                await third.log_in()

    async def test_a_connection_that_breaks_lets_go_of_the_mailbox(self) -> None:
        handler = POP3Handler(boxes(*MAILS), Users())
        async with connected(handler) as peer:
            await peer.log_in()
            await peer.script.reset()
        async with connected(handler) as peer:
            await peer.log_in()

    async def test_who_logs_in_too_often_is_told(self, autojump_clock: object) -> None:
        handler = POP3Handler(boxes(*MAILS), Users(), login_delay=60)
        async with connected(handler) as peer:
            assert b"LOGIN-DELAY 60\r\n" in await peer.lines("CAPA")
            await peer.log_in()
            await peer.ok("QUIT")
        async with connected(handler, timeout=1000) as peer:
            await peer.ok("USER anna")
            await peer.err("PASS anna", "[LOGIN-DELAY]")
        async with connected(handler) as peer:
            await peer.log_in("bert")
        await trio.sleep(61)
        async with connected(handler) as first:
            await first.log_in()
            await trio.sleep(61)
            async with connected(handler) as second:
                for _ in range(2):  # what was no login counts for nothing
                    await second.ok("USER anna")
                    await second.err("PASS anna", "[IN-USE]")

    @pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOENT])
    async def test_a_mailbox_that_fails_is_a_failure_for_now(self, number: int) -> None:
        class Failing(MemoryMailbox):
            async def messages(self) -> Any:
                raise OSError(number, "the inner detail")

        mailboxes = boxes()
        mailboxes.boxes["anna"] = Failing()
        async with connected(POP3Handler(mailboxes, Users())) as peer:
            await peer.ok("USER anna")
            answer = await peer.err("PASS anna", "[SYS/TEMP]")
            assert "inner detail" not in answer
            await peer.ok("USER anna")
            await peer.err("PASS anna", "[SYS/TEMP]")  # and not IN-USE: the lock is free again

    @pytest.mark.parametrize("scram", [True, False])
    @pytest.mark.parametrize("error", [OSError, KeyError])
    async def test_where_users_cannot_be_asked_nobody_hears_that_a_password_is_wrong(
        self, scram: bool, error: type[Exception], caplog: pytest.LogCaptureFixture
    ) -> None:
        class Gone(Users):
            async def verify(self, name: str, password: str, *, peer: object) -> None:
                raise error("no directory")

            async def scram_keys(self, name: str) -> ScramKeys | None:
                if scram:
                    raise error("no directory")
                return await super().scram_keys(name)

        async with connected(POP3Handler(boxes(*MAILS), Gone(), guard=LoginGuard(tries=1))) as peer:
            for _ in range(3):
                await peer.err("AUTH PLAIN AGFubmEAYW5uYQ==", "[SYS/TEMP]")
                await peer.ok("USER anna")
                await peer.err("PASS anna", "[SYS/TEMP]")
        assert "no directory" in caplog.text


class TestSASL:
    async def test_plain_with_and_without_an_initial_response(self) -> None:
        for command, then in (("AUTH PLAIN AGFubmEAYW5uYQ==", ()), ("auth plain", ("AGFubmEAYW5uYQ==",))):
            async with connected(POP3Handler(boxes(*MAILS), Users())) as peer:
                answer = await peer.do(command)
                for line in then:
                    assert answer == "+ "
                    answer = await peer.do(line)
                assert answer.startswith("+OK 3 messages")

    async def test_login(self) -> None:
        async with connected(POP3Handler(boxes(*MAILS), Users())) as peer:
            assert await peer.do("AUTH LOGIN") == f"+ {base64.b64encode(b'Username:').decode()}"
            await peer.do("YW5uYQ==")
            await peer.ok("YW5uYQ==")

    async def test_scram_is_for_everybody_who_has_keys(self) -> None:
        async with connected(POP3Handler(boxes(*MAILS), Users(keys=True))) as peer:
            assert b"SASL SCRAM-SHA-256" in await peer.lines("CAPA")
            (mechanism, *_) = client_mechanisms(["SCRAM-SHA-256"], "anna", "anna", passwords=False)
            answer = await peer.do(f"AUTH SCRAM-SHA-256 {encode_initial(await mechanism.respond(b''))}")
            while answer.startswith("+ "):
                response = await mechanism.respond(base64.b64decode(answer[2:]))
                answer = await peer.do(base64.b64encode(response).decode())
            assert answer.startswith("+OK 3 messages")
            mechanism.finish()

    async def test_no_mechanism_is_there_in_the_clear(self) -> None:
        async with connected(POP3Handler(boxes(*MAILS), Users(keys=True)), client=FAR) as peer:
            assert b"SASL" not in await peer.lines("CAPA")
            for mechanism in ("SCRAM-SHA-256", "PLAIN", "LOGIN"):
                await peer.err(f"AUTH {mechanism}", "in the clear")

    @pytest.mark.parametrize("line", ["*", "?", "AGFubmE=", "AGFubmEAYW5uYQ", "x" * 3000])
    async def test_a_response_that_is_none_is_no_login(self, line: str) -> None:
        users = Users()
        async with connected(POP3Handler(boxes(), users)) as peer:
            assert await peer.do("AUTH PLAIN") == "+ "
            await peer.err(line)
            await peer.err("AUTH PLAIN AGFubmE=")
            await peer.err("AUTH CRAM-MD5", "PLAIN, LOGIN")
            await peer.err("AUTH")
            await peer.log_in()
        assert users.asked == 1

    async def test_a_wrong_password_counts(self, autojump_clock: object) -> None:
        async with connected(POP3Handler(boxes(), Users(), guard=LoginGuard(tries=1)), timeout=100) as peer:
            await peer.err("AUTH PLAIN AGFubmEAd3Jvbmc=", "[AUTH]")
            await peer.script.expect_end()

    async def test_apop_is_not_offered(self) -> None:
        async with connected(POP3Handler(boxes(), Users())) as peer:
            await peer.err("APOP anna 0123456789abcdef0123456789abcdef", "no such command")
        with pytest.raises(ConfigurationError):
            POP3Handler(boxes(), Users(), greeting="ready <1896.697170952@dbc.example>")


class TestMailbox:
    async def test_stat_list_and_uidl(self) -> None:
        async with logged_in() as peer:
            sizes = list(map(len, MAILS))
            assert await peer.ok("STAT") == f"3 {sum(sizes)}"
            assert await peer.lines("LIST") == "".join(f"{n} {size}\r\n" for n, size in enumerate(sizes, 1)).encode()
            assert await peer.ok("LIST 2") == f"2 {sizes[1]}"
            assert await peer.lines("UIDL") == b"1 1\r\n2 2\r\n3 3\r\n"
            assert await peer.ok("UIDL 3") == "3 3"

    async def test_an_empty_mailbox(self) -> None:
        async with connected(POP3Handler(boxes(), Users())) as peer:
            await peer.log_in()
            assert await peer.ok("STAT") == "0 0"
            assert await peer.lines("LIST") == await peer.lines("UIDL") == b""
            await peer.err("RETR 1", "no such message")

    async def test_retr_sends_the_message_with_its_dots_doubled(self) -> None:
        async with logged_in() as peer:
            assert await peer.lines("RETR 1") == MAILS[0]
            assert await peer.lines("RETR 2") == b"Subject: two\r\n\r\n..\r\n...\r\nend\r\n"
            assert await peer.lines("retr 3") == MAILS[2]

    async def test_a_message_without_an_end_gets_one(self) -> None:
        async with logged_in(b"", b"no end", b"\r") as peer:
            assert await peer.ok("STAT") == "3 7"
            assert await peer.lines("RETR 1") == b""
            assert await peer.lines("RETR 2") == b"no end\r\n"
            assert await peer.lines("RETR 3") == b"\r\r\n"

    async def test_top_sends_the_head_and_some_lines(self) -> None:
        async with logged_in() as peer:
            head = b"Subject: three\r\n\r\n"
            assert await peer.lines("TOP 3 0") == head
            assert await peer.lines("TOP 3 2") == head + b"x\r\n" * 2
            assert await peer.lines("TOP 3 4294967295") == MAILS[2]
            for arguments in ("", " 3", " 3 -1", " 3 x", " 3 00", " 3 1 2", " 4 1", " 3 99999999999"):
                await peer.err(f"TOP{arguments}")

    async def test_dele_marks_and_rset_forgets(self) -> None:
        async with logged_in() as peer:
            await peer.ok("DELE 2")
            await peer.err("DELE 2", "deleted")
            await peer.err("RETR 2", "deleted")
            await peer.err("LIST 2", "deleted")
            await peer.err("TOP 2 0", "deleted")
            assert await peer.ok("STAT") == f"2 {len(MAILS[0] + MAILS[2])}"
            assert await peer.lines("UIDL") == b"1 1\r\n3 3\r\n"
            await peer.ok("RSET")
            assert await peer.ok("STAT") == f"3 {sum(map(len, MAILS))}"

    @pytest.mark.parametrize(
        "number", ["0", "4", "01", "-1", "4294967295", "4294967297", "99999999999999999999", "x", "٢"]
    )
    @pytest.mark.parametrize("verb", ["RETR", "DELE", "LIST", "UIDL"])
    async def test_what_is_no_number_is_refused(self, verb: str, number: str) -> None:
        async with logged_in() as peer:
            await peer.err(f"{verb} {number}")
            assert (await peer.ok("STAT")).startswith("3 ")

    async def test_numbers_and_sizes_stay_what_they_are(self) -> None:
        mailboxes = boxes(*MAILS)
        async with logged_in(mailboxes=mailboxes) as peer:
            mailboxes.boxes["anna"].add(b"later\r\n")
            await mailboxes.boxes["anna"].remove(["1"])
            assert await peer.ok("STAT") == f"3 {sum(map(len, MAILS))}"
            await peer.err("RETR 1", "Another program")
            assert await peer.lines("RETR 3") == MAILS[2]
            await peer.ok("DELE 1")
            await peer.ok("QUIT")
        assert [one.uid for one in await mailboxes.boxes["anna"].messages()] == ["2", "3", "4"]

    async def test_noop_and_what_is_not_there(self) -> None:
        async with logged_in() as peer:
            await peer.ok("NOOP")
            for line in ("LAST", "XTND XMIT", "HELP", "NOOP 1", "STAT 1", "QUIT 1"):
                await peer.err(line)

    async def test_a_large_mailbox_is_listed_in_pieces(self) -> None:
        mailboxes = boxes(*[b"x\r\n"] * 3000)
        async with logged_in(mailboxes=mailboxes) as peer:
            assert await peer.lines("LIST") == b"".join(b"%d 3\r\n" % number for number in range(1, 3001))


class TestUpdate:
    async def test_quit_removes_what_is_marked_and_marks_what_was_seen(self) -> None:
        mailboxes = boxes(*MAILS)
        box = mailboxes.boxes["anna"]
        await box.set_flags("3", [Flag.FLAGGED])
        async with logged_in(mailboxes=mailboxes) as peer:
            await peer.ok("DELE 2")
            await peer.lines("RETR 3")
            await peer.lines("TOP 1 0")
            assert len(await box.messages()) == 3
            assert await peer.ok("QUIT") == "Goodbye."
            await peer.script.expect_end()
        left = {message.uid: message.flags for message in await box.messages()}
        assert left == {"1": frozenset(), "3": {Flag.FLAGGED, Flag.SEEN}}

    @pytest.mark.parametrize("way", ["close", "reset", "send_eof"])
    async def test_a_connection_that_ends_without_it_removes_nothing(self, way: str) -> None:
        mailboxes = boxes(*MAILS)
        async with logged_in(mailboxes=mailboxes) as peer:
            await peer.ok("DELE 1")
            await peer.lines("RETR 2")
            await getattr(peer.script, way)()
        assert [message.flags for message in await mailboxes.boxes["anna"].messages()] == [frozenset()] * 3

    async def test_who_does_not_get_what_was_said_removes_nothing(self, autojump_clock: object) -> None:
        mailboxes = boxes(b"x" * 500_000, *MAILS)
        handler = POP3Handler(mailboxes, Users())
        # The client sends all at once, and never reads.
        async with connected(handler, timeouts=Timeouts(send=5), timeout=1000) as peer:
            await peer.script.send(b"USER anna\r\nPASS anna\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n")
            await trio.sleep(100)
        assert len(await mailboxes.boxes["anna"].messages()) == 4

    async def test_what_cannot_be_removed_is_told(self) -> None:
        class Stubborn(MemoryMailbox):
            async def remove(self, uids: Any) -> None:
                raise OSError(errno.EACCES, "no")

        mailboxes = boxes()
        mailboxes.boxes["anna"] = Stubborn()
        mailboxes.boxes["anna"].add(MAILS[0])
        handler = POP3Handler(mailboxes, Users())
        async with connected(handler) as peer:
            await peer.log_in()
            await peer.ok("DELE 1")
            await peer.err("QUIT", "[SYS/TEMP]")
            await peer.script.expect_end()
        async with connected(handler) as peer:
            await peer.log_in()

    async def test_quit_without_a_login(self) -> None:
        async with connected(POP3Handler(boxes(), Users())) as peer:
            await peer.ok("QUIT")
            await peer.script.expect_end()


class TestCapabilities:
    async def test_they_are_told_before_and_after_the_login(self) -> None:
        async with connected(POP3Handler(boxes(), Users())) as peer:
            before = (await peer.lines("CAPA")).split(b"\r\n")
            for line in (
                b"TOP",
                b"UIDL",
                b"PIPELINING",
                b"RESP-CODES",
                b"AUTH-RESP-CODE",
                b"USER",
                b"SASL PLAIN LOGIN",
            ):
                assert line in before
            assert b"STLS" not in before
            await peer.log_in()
            assert (await peer.lines("CAPA")).split(b"\r\n") == before

    async def test_commands_may_come_all_at_once(self) -> None:
        async with connected(POP3Handler(boxes(*MAILS), Users())) as peer:
            await peer.script.send(b"USER anna\r\nPASS anna\r\nSTAT\r\nRETR 1\r\nDELE 1\r\nLIST\r\nQUIT\r\n")
            answers = await peer.script.expect_until(b"Goodbye.\r\n")
            lines = [line for line in answers.split(b"\r\n") if line.startswith((b"+OK", b"-ERR"))]
            assert len(lines) == 7
            assert all(line.startswith(b"+OK") for line in lines)
            assert MAILS[0] + b".\r\n" in answers


class TestTime:
    async def test_a_client_has_ten_minutes_and_then_nothing_is_said(self, autojump_clock: object) -> None:
        mailboxes = boxes(*MAILS)
        async with logged_in(mailboxes=mailboxes) as peer:
            await peer.ok("DELE 1")
            await peer.script.expect_silence(599)
            await peer.ok("NOOP")
            await peer.script.expect_silence(599)
            peer.script.timeout = 10
            await peer.script.expect_end()
        assert len(await mailboxes.boxes["anna"].messages()) == 3

    async def test_a_byte_now_and_then_does_not_count(self, autojump_clock: object) -> None:
        async with logged_in() as peer:
            began = trio.current_time()
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await peer.stream.send_all(b"x")
                    await trio.sleep(1)
            assert 600 <= trio.current_time() - began < 610

    @pytest.mark.parametrize("said", [b"", b"USER anna\r\n", b"AUTH PLAIN\r\n", b"NOOP"])
    async def test_a_login_has_a_minute(self, said: bytes, autojump_clock: object) -> None:
        handler = POP3Handler(boxes(), Users(), timeouts=POP3Timeouts(login=60))
        async with connected(handler, timeout=100) as peer:
            await peer.script.send(said)
            began = trio.current_time()
            try:
                while await peer.stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
            assert 59 < trio.current_time() - began < 65

    @pytest.mark.parametrize(
        "said", [b"USER anna\r\nPASS wrong\r\n", b"AUTH PLAIN " + base64.b64encode(b"\0anna\0wrong") + b"\r\n"]
    )
    async def test_who_guesses_on_many_connections_holds_none_of_them_longer(
        self, said: bytes, autojump_clock: object
    ) -> None:
        handler = POP3Handler(boxes(), Users())
        ends: list[float] = []

        async def guess() -> None:
            async with connected(handler, timeout=1000) as peer:
                await peer.script.send(said * 10)
                try:
                    while await peer.stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass
                ends.append(trio.current_time())

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(guess)
        assert max(ends) - began < 65

    async def test_the_service_does_not_take_a_still_client_for_an_idle_one(self, autojump_clock: object) -> None:
        listener = MemoryListener(address=HERE)
        async with trio.open_nursery() as nursery:
            handler = POP3Handler(boxes(*MAILS), Users())
            await nursery.start(lambda task_status: serve(handler, listener, task_status=task_status))
            peer = Peer(ScriptedPeer(await listener.connect(LOCAL)))
            await peer.line()
            await peer.log_in()
            await trio.sleep(590)
            await peer.ok("NOOP")
            nursery.cancel_scope.cancel()

    async def test_no_password_reaches_the_log_of_the_conversation(
        self, caplog: pytest.LogCaptureFixture, autojump_clock: object
    ) -> None:
        caplog.set_level("DEBUG")
        said = base64.b64encode(b"\0carl\0hunter2")
        async with trio.open_nursery() as nursery:
            listener = MemoryListener(address=HERE)
            handler = POP3Handler(boxes(*MAILS), Users())
            await nursery.start(
                lambda task_status: serve(handler, listener, task_status=task_status, middleware=[ConversationLog()])
            )
            peer = Peer(ScriptedPeer(await listener.connect(LOCAL), timeout=100))
            await peer.line()
            await peer.script.send(b"USER carl\r\nPASS hunter2\r\nAUTH PLAIN " + said + b"\r\n")
            for answer in ("+OK", "-ERR", "-ERR"):
                assert (await peer.line()).startswith(answer)
            await peer.do("AUTH PLAIN")
            await peer.err(said.decode())
            await peer.script.expect_end()
            nursery.cancel_scope.cancel()
        assert "+OK" in caplog.text
        assert "hunter2" not in caplog.text
        assert said.decode() not in caplog.text

    async def test_a_drain_says_so(self, autojump_clock: object) -> None:
        listener = MemoryListener(address=HERE)
        mailboxes = boxes(*MAILS)
        async with trio.open_nursery() as nursery:
            handler = POP3Handler(mailboxes, Users())
            service = await nursery.start(lambda task_status: serve(handler, listener, task_status=task_status))
            peers = [Peer(ScriptedPeer(await listener.connect(LOCAL))) for _ in range(3)]
            for peer in peers:
                await peer.line()
            await peers[0].log_in()
            await peers[0].ok("DELE 1")
            assert await peers[1].do("AUTH PLAIN") == "+ "
            nursery.start_soon(service.drain)
            assert (await peers[0].line()).startswith("-ERR [SYS/TEMP]")
            assert (await peers[2].line()).startswith("-ERR [SYS/TEMP]")
            assert (await peers[1].line()).startswith("-ERR")
            assert (await peers[1].line()).startswith("-ERR [SYS/TEMP]")
            for peer in peers:
                await peer.script.expect_end()
                await peer.script.close()
        assert len(await mailboxes.boxes["anna"].messages()) == 3


async def test_mail_from_a_maildir(tmp_path: Path) -> None:
    mailboxes = Maildirs(tmp_path, create=True)
    box = await mailboxes.of("anna")
    for mail in MAILS:
        incoming = await box.deliver()
        await incoming.write(mail)
        await incoming.commit()
    async with logged_in(mailboxes=mailboxes) as peer:
        order = [message.size for message in await box.messages()]
        assert await peer.lines("LIST") == "".join(f"{n} {size}\r\n" for n, size in enumerate(order, 1)).encode()
        await peer.lines("RETR 1")
        await peer.ok("DELE 2")
        await peer.ok("QUIT")
    assert [message.flags for message in await box.messages()] == [{Flag.SEEN}, frozenset()]


class Broken(MemoryMailbox):
    """Its messages cannot be read to their end."""

    async def read(self, uid: str) -> AsyncGenerator[bytes, None]:
        if uid == "1":
            raise OSError(errno.EIO, "cannot be read")
        yield b"x\r\n" * 100
        raise OSError(errno.EIO, "cannot be read any further")


async def test_a_message_that_breaks_off_looks_like_no_whole_one() -> None:
    mailboxes = MemoryMailboxes("anna")
    mailboxes.boxes["anna"] = Broken()
    for _ in range(2):
        mailboxes.boxes["anna"].add(MAILS[0])
    async with logged_in(mailboxes=mailboxes) as peer:
        await peer.err("RETR 1", "[SYS/TEMP]")
        await peer.script.send(b"RETR 2\r\n")
        received = b""
        with pytest.raises(trio.BrokenResourceError):
            while data := await peer.stream.receive_some():
                received += data
        assert not received.endswith(b".\r\n")


def test_streams_may_be_anybodys() -> None:
    async def talk() -> None:
        client, server = stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(POP3Handler(boxes(), Users()), server)
            assert (await ScriptedPeer(client).expect_until()).startswith(b"+OK")
            await client.aclose()

    trio.run(talk)


async def test_cancelled_anywhere_it_lets_go_of_the_mailbox() -> None:
    for attempt in cancel_at_each_checkpoint():
        mailboxes = boxes(*MAILS)
        client, server = stream_pair(client=LOCAL, server=HERE)
        await client.send_all(b"USER anna\r\nPASS anna\r\nDELE 1\r\nRETR 2\r\nQUIT\r\n")
        await client.send_eof()
        with attempt:
            await POP3Handler(mailboxes, Users())(server)
        await server.abort()
        await client.abort()
        box = mailboxes.boxes["anna"]
        assert len(await box.messages()) in ((2, 3) if attempt.cancelled else (2,))
        async with box.lock():
            pass


async def test_one_byte_at_a_time_makes_no_difference() -> None:
    mailboxes = boxes(*MAILS)
    client, server = stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(POP3Handler(mailboxes, Users(), insecure_auth=True), OneByteStream(server))
        pop3 = POP3Client(OneByteStream(client), insecure_auth=True)
        await pop3.greet()
        await pop3.login("anna", "anna")
        assert [await pop3.read(number) for number in await pop3.list()] == list(MAILS)
        assert await pop3.top(3, 1) == b"Subject: three\r\n\r\nx\r\n"
        await pop3.delete(1)
        await pop3.quit()
    await server.aclose()
    assert len(await mailboxes.boxes["anna"].messages()) == 2
