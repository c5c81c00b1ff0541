"""What POP3 servers see of our client, and what it makes of what they say: in memory, in virtual time."""

from __future__ import annotations

import base64
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import AsyncnetError, LocalProtocolError, PlaintextAfterUpgrade, RemoteProtocolError
from asyncnet.middleware import ConversationLog
from asyncnet.pop3.client import POP3URL, POP3Client, ReplyError, parse_url
from asyncnet.pop3.client_control import MAX_LINE
from asyncnet.pop3.server import POP3Handler
from asyncnet.service import serve
from asyncnet.stream import Stream
from asyncnet.testing import ScriptedPeer, cancel_at_each_checkpoint, stream_pair
from asyncnet.transports.certificates import ServerTLS
from asyncnet.urls import URLError
from tests.pop3.peer import FAR, HERE, LOCAL, MAILS, Users, boxes

Script = Callable[[ScriptedPeer], Awaitable[object]]
CA = trustme.CA()
CERT = CA.issue_cert("localhost", "127.0.0.1")


@asynccontextmanager
async def client_of(script: Script, *, client: Any = LOCAL, **options: Any) -> AsyncIterator[POP3Client]:
    """A client that has heard no greeting yet, and a server that follows `script`, which has to be through."""
    ours, its = stream_pair(client=client, server=HERE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, ScriptedPeer(its, timeout=1000))
        yield POP3Client(ours, **options)
    await ours.abort()


def answering(*pairs: tuple[bytes, bytes]) -> Script:
    """A script of commands and what is said to each."""

    async def script(peer: ScriptedPeer) -> None:
        for command, answer in pairs:
            await peer.expect(command)
            await peer.send(answer)

    return script


# The greeting


async def test_a_greeting_lets_us_in() -> None:
    for greeting in (b"+OK ready\r\n", b"+OK\r\n", b"+OK <1.2@x>\n"):
        async with client_of(answering((b"", greeting))) as pop3:
            assert (await pop3.greet()).is_positive


@pytest.mark.parametrize(
    ("greeting", "error"),
    [
        (b"-ERR [SYS/TEMP] too many\r\n", ReplyError),
        (b"220 mail ready\r\n", RemoteProtocolError),
        (b"* OK IMAP4rev1\r\n", RemoteProtocolError),
        (b"x" * MAX_LINE, RemoteProtocolError),
        (b"+OK \0\r\n", RemoteProtocolError),
    ],
)
async def test_a_greeting_that_is_none_closes_the_client(greeting: bytes, error: type[Exception]) -> None:
    async with client_of(answering((b"", greeting))) as pop3:
        with pytest.raises(error):
            await pop3.greet()
        assert pop3.is_closed
        with pytest.raises(trio.ClosedResourceError):
            await pop3.noop()


async def test_a_server_that_leaves_closes_the_client() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.close()

    async with client_of(script) as pop3:
        with pytest.raises(RemoteProtocolError, match="without a greeting"):
            await pop3.greet()


# Login

PLAIN = base64.b64encode(b"\0anna\0secret")


def capable(*lines: bytes) -> tuple[bytes, bytes]:
    return b"CAPA\r\n", b"+OK\r\n" + b"".join(line + b"\r\n" for line in lines) + b".\r\n"


@pytest.mark.parametrize(
    "script",
    [
        [capable(b"USER", b"SASL LOGIN PLAIN"), (b"AUTH PLAIN " + PLAIN + b"\r\n", b"+OK in\r\n")],
        [
            capable(b"SASL login"),
            (b"AUTH LOGIN\r\n", b"+ VXNlcm5hbWU6\r\n"),
            (b"YW5uYQ==\r\n", b"+ UGFzc3dvcmQ6\r\n"),
            (b"c2VjcmV0\r\n", b"+OK\r\n"),
        ],
        [capable(b"SASL PLAIN"), (b"AUTH PLAIN " + PLAIN + b"\r\n", b"+OK\r\n")],
        [capable(b"USER"), (b"USER anna\r\n", b"+OK\r\n"), (b"PASS secret\r\n", b"+OK\r\n")],
        [(b"CAPA\r\n", b"-ERR what?\r\n"), (b"USER anna\r\n", b"+OK\r\n"), (b"PASS secret\r\n", b"+OK\r\n")],
        [capable(b"SASL CRAM-MD5"), (b"USER anna\r\n", b"+OK\r\n"), (b"PASS secret\r\n", b"+OK\r\n")],
    ],
)
async def test_it_logs_in_by_the_best_way_that_there_is(script: list[tuple[bytes, bytes]]) -> None:
    async with client_of(answering(*script)) as pop3:
        await pop3.login("anna", "secret")


@pytest.mark.parametrize("refusal", [b"-ERR [AUTH] no\r\n", b"-ERR no\r\n"])
async def test_who_has_no_keys_on_the_server_logs_in_by_the_next_way(refusal: bytes) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answering(capable(b"SASL SCRAM-SHA-256 LOGIN PLAIN"))(peer)
        assert (await peer.expect_until(b"\r\n")).startswith(b"AUTH SCRAM-SHA-256 ")
        await peer.send(refusal)
        await answering((b"AUTH PLAIN " + PLAIN + b"\r\n", b"+OK in\r\n"))(peer)

    async with client_of(script) as pop3:
        await pop3.login("anna", "secret")


async def test_but_not_where_the_password_was_right() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answering(capable(b"SASL LOGIN PLAIN"))(peer)
        await answering((b"AUTH PLAIN " + PLAIN + b"\r\n", b"-ERR [IN-USE] later\r\n"))(peer)

    async with client_of(script) as pop3:
        with pytest.raises(ReplyError) as caught:
            await pop3.login("anna", "secret")
        assert caught.value.code == "IN-USE"


async def test_an_initial_response_that_is_too_long_is_sent_when_it_is_asked_for() -> None:
    password = "x" * 300
    response = base64.b64encode(f"\0anna\0{password}".encode())
    script = answering(capable(b"SASL PLAIN"), (b"AUTH PLAIN\r\n", b"+ \r\n"), (response + b"\r\n", b"+OK\r\n"))
    async with client_of(script) as pop3:
        await pop3.login("anna", password)


@pytest.mark.parametrize("capabilities", [[b"USER", b"SASL PLAIN LOGIN"], []])
async def test_no_password_is_told_in_the_clear(capabilities: list[bytes]) -> None:
    async with client_of(answering(capable(*capabilities)), client=FAR) as pop3:
        with pytest.raises(LocalProtocolError, match="in the clear"):
            await pop3.login("anna", "secret")
        assert not pop3.is_closed
    script = answering(capable(*capabilities), (b"", b""))
    async with client_of(script, proxied=True) as pop3:  # the far end of a tunnel is not here
        with pytest.raises(LocalProtocolError, match="in the clear"):
            await pop3.login("anna", "secret")


@pytest.mark.parametrize(
    "login",
    [
        [capable(b"USER"), (b"USER anna\r\n", b"+OK\r\n"), (b"PASS secret\r\n", b"+OK\r\n")],
        [capable(b"SASL PLAIN"), (b"AUTH PLAIN " + PLAIN + b"\r\n", b"+OK in\r\n")],
        [
            capable(b"SASL LOGIN"),
            (b"AUTH LOGIN\r\n", b"+ VXNlcm5hbWU6\r\n"),
            (b"YW5uYQ==\r\n", b"+ UGFzc3dvcmQ6\r\n"),
            (b"c2VjcmV0\r\n", b"+OK\r\n"),
        ],
    ],
)
async def test_no_password_reaches_the_log_of_the_conversation(
    login: list[tuple[bytes, bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with client_of(answering(*login, (b"NOOP\r\n", b"+OK\r\n"))) as pop3:
        ConversationLog().dress(pop3.stream)
        await pop3.login("anna", "secret")
        await pop3.noop()
    assert "CAPA" in caplog.text
    assert "NOOP" in caplog.text
    for secret in ("secret\\r", PLAIN.decode(), "c2VjcmV0"):
        assert secret not in caplog.text


async def test_unless_the_user_wants_it() -> None:
    script = answering(capable(b"SASL PLAIN"), (b"AUTH PLAIN " + PLAIN + b"\r\n", b"+OK\r\n"))
    async with client_of(script, client=FAR, insecure_auth=True) as pop3:
        await pop3.login("anna", "secret")


@pytest.mark.parametrize(
    "answers",
    [
        [b"-ERR [AUTH] no\r\n"],
        [b"+ \r\n", b"-ERR [AUTH] no\r\n"],
    ],
)
async def test_a_login_that_fails_leaves_the_client_usable(answers: list[bytes]) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answering(capable(b"USER"), (b"USER anna\r\n", b"+OK\r\n"), (b"PASS wrong\r\n", answers[-1]))(peer)
        await answering((b"USER anna\r\n", b"+OK\r\n"), (b"PASS secret\r\n", b"+OK\r\n"))(peer)

    async with client_of(script) as pop3:
        with pytest.raises(ReplyError) as caught:
            await pop3.login("anna", "wrong")
        assert caught.value.code == "AUTH"
        assert "wrong" not in str(caught.value)
        await pop3.login("anna", "secret")


@pytest.mark.parametrize(
    "answers",
    [
        (b"+ " + b"A" * 20_000 + b"\r\n",),
        (b"+ ?\r\n",),
        (b"+ AAAA\r\n",) * 20,
        (b"+OK\r\n",),  # who lets us in before the end of SCRAM does not know the password
        (b"what\r\n",),
    ],
)
async def test_an_exchange_that_is_wrong_closes_the_client(answers: tuple[bytes, ...]) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answering(capable(b"SASL SCRAM-SHA-256"))(peer)
        try:
            for answer in answers:
                await peer.stream.receive_until(b"\r\n", limit=1000)
                await peer.stream.send_all(answer)
        except (trio.BrokenResourceError, RemoteProtocolError):
            pass

    async with client_of(script) as pop3:
        with pytest.raises(RemoteProtocolError):
            await pop3.login("anna", "secret")
        assert pop3.is_closed


# Commands


@pytest.mark.parametrize("text", ["a\r\nDELE 1", "a\n", "a\rb", "a\0"])
async def test_no_argument_holds_another_command(text: str) -> None:
    async with client_of(answering()) as pop3:
        with pytest.raises(LocalProtocolError):
            await pop3.login(text, "secret")
        with pytest.raises(LocalProtocolError):
            await pop3.login("x", text)
        for number in (0, -1):
            with pytest.raises(LocalProtocolError):
                await pop3.delete(number)
            with pytest.raises(LocalProtocolError):
                await pop3.read(number)
        with pytest.raises(LocalProtocolError):
            await pop3.top(1, -1)
        assert not pop3.is_closed
        assert pop3.stream.bytes_out == pop3.stream.pending == 0


async def test_what_is_there() -> None:
    script = answering(
        (b"STAT\r\n", b"+OK 2 320 and more\r\n"),
        (b"LIST\r\n", b"+OK 2 messages\r\n1 120\r\n2 200\r\n.\r\n"),
        (b"UIDL\r\n", b"+OK\r\n1 a.1\r\n2 a.2\r\n.\r\n"),
        (b"LIST\r\n", b"+OK\r\n.\r\n"),
        (b"UIDL\r\n", b"-ERR not here\r\n"),
    )
    async with client_of(script) as pop3:
        assert await pop3.stat() == (2, 320)
        assert await pop3.list() == {1: 120, 2: 200}
        assert await pop3.uidl() == {1: "a.1", 2: "a.2"}
        assert await pop3.list() == {}
        with pytest.raises(ReplyError):
            await pop3.uidl()
        assert not pop3.is_closed


async def test_messages_come_as_they_were_sent() -> None:
    script = answering(
        (b"RETR 1\r\n", b"+OK 5 octets\r\na\r\n..\r\n...b\r\n.\r\n"),
        (b"RETR 2\r\n", b"+OK\r\n.\r\n"),
        (b"TOP 1 0\r\n", b"+OK\r\nSubject: x\r\n\r\n.\r\n"),
        (b"RETR 3\r\n", b"-ERR no such message\r\n"),
        (b"DELE 1\r\n", b"+OK\r\n"),
        (b"RSET\r\n", b"+OK\r\n"),
        (b"NOOP\r\n", b"+OK\r\n"),
    )
    async with client_of(script) as pop3:
        assert await pop3.read(1) == b"a\r\n.\r\n..b\r\n"
        async with pop3.retrieve(2) as pieces:
            assert [piece async for piece in pieces] == []
        assert await pop3.top(1) == b"Subject: x\r\n\r\n"
        with pytest.raises(ReplyError) as caught:
            await pop3.read(3)
        assert not caught.value.is_transient
        await pop3.delete(1)
        await pop3.reset()
        await pop3.noop()


async def test_what_was_deleted_before_it_was_closed_is_not_said_to_be_gone() -> None:
    script = answering((b"DELE 1\r\n", b"+OK\r\n"), (b"RETR 2\r\n", b"+OK\r\nSubject: x\r\n"))
    async with client_of(script) as pop3:
        await pop3.delete(1)
        async with pop3.retrieve(2):
            pass
        with pytest.raises(trio.ClosedResourceError, match="nothing is removed"):
            await pop3.quit()
        await pop3.quit()


async def test_one_task_uses_it_at_a_time() -> None:
    async with client_of(answering((b"RETR 1\r\n", b"+OK\r\na\r\n.\r\n"))) as pop3:
        async with pop3.retrieve(1) as pieces:
            with pytest.raises(trio.BusyResourceError):
                await pop3.noop()
            assert await pieces.receive_some() == b"a\r\n"
            assert await pieces.receive_some() == b""


async def test_a_message_that_is_left_early_closes_the_client() -> None:
    async with client_of(answering((b"RETR 1\r\n", b"+OK\r\na\r\n"))) as pop3:
        async with pop3.retrieve(1) as pieces:
            await pieces.receive_some()
        assert pop3.is_closed


# Servers that are wrong


@pytest.mark.parametrize(
    "answer",
    [
        b"+OK\r\n1 5\r\n1 6\r\n.\r\n",
        b"+OK\r\n0 5\r\n.\r\n",
        b"+OK\r\n1 -5\r\n.\r\n",
        b"+OK\r\n01 5\r\n.\r\n",
        b"+OK\r\n99999999999 5\r\n.\r\n",
        b"+OK\r\n1\r\n.\r\n",
        b"+OK\r\n1 " + b"5" * MAX_LINE,
        b"+OK\r\n" + b"".join(b"%d 1\r\n" % number for number in range(1, 20)),
        b"+OK" + b"x" * MAX_LINE,
        b"hello\r\n",
    ],
)
async def test_a_list_that_is_none_or_has_no_end_closes_the_client(answer: bytes) -> None:
    async with client_of(answering((b"LIST\r\n", answer))) as pop3:
        with pytest.raises(RemoteProtocolError):
            await pop3.list(limit=10)
        assert pop3.is_closed


@pytest.mark.parametrize(
    "answer", [b"+OK\r\n", b"+OK 1\r\n", b"+OK x y\r\n", b"+OK 1 -1\r\n", b"+OK " + b"9" * 30 + b" 1\r\n"]
)
async def test_numbers_that_are_none_close_the_client(answer: bytes) -> None:
    async with client_of(answering((b"STAT\r\n", answer))) as pop3:
        with pytest.raises(RemoteProtocolError):
            await pop3.stat()
        assert pop3.is_closed


async def test_ids_that_could_drive_a_terminal_are_refused() -> None:
    async with client_of(answering((b"UIDL\r\n", b"+OK\r\n1 \x1b[31m\r\n.\r\n"))) as pop3:
        with pytest.raises(RemoteProtocolError) as caught:
            await pop3.uidl()
        assert str(caught.value).isprintable()


async def test_what_a_server_says_drives_no_terminal() -> None:
    async with client_of(answering((b"NOOP\r\n", "-ERR \x1b[31m\u202e\r\n".encode()))) as pop3:
        with pytest.raises(ReplyError) as caught:
            await pop3.noop()
        assert str(caught.value).isprintable()


async def test_a_message_without_an_end_takes_no_memory() -> None:
    line = b"x" * 60_000  # and not even the line ends

    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(b"RETR 1\r\n")
        await peer.send(b"+OK 10 octets\r\n")  # as if
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await peer.stream.send_all(line)

    async with client_of(script) as pop3:
        tracemalloc.start()
        try:
            with pytest.raises(RemoteProtocolError, match="more than 1000000 bytes"):
                await pop3.read(1, limit=1_000_000)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert pop3.is_closed
        assert peak < 5_000_000


async def test_a_list_takes_no_more_memory_than_what_it_says() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(b"LIST\r\n")
        await peer.send(b"+OK\r\n")
        for number in range(1, 3001):
            await peer.send(b"%d 5 " % number + b"x" * 4000 + b"\r\n")
        await peer.send(b".\r\n")

    async with client_of(script) as pop3:
        tracemalloc.start()
        try:
            assert len(await pop3.list()) == 3000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 5_000_000


@pytest.mark.parametrize("size", [b"0", b"99999999999999999999999999", b"-1", b"x"])
async def test_the_size_that_a_server_says_is_not_believed(size: bytes) -> None:
    async with client_of(answering((b"RETR 1\r\n", b"+OK " + size + b" octets\r\nabc\r\n.\r\n"))) as pop3:
        assert await pop3.read(1) == b"abc\r\n"


@pytest.mark.parametrize("end", [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r"])
async def test_only_the_real_end_is_one(end: bytes) -> None:
    async with client_of(answering((b"RETR 1\r\n", b"+OK\r\na" + end + b"-ERR b\r\n.\r\n"))) as pop3:
        assert await pop3.read(1) == (b"a" + end + b"-ERR b\r\n").replace(b"\r\n.", b"\r\n")


async def test_what_comes_unasked_closes_the_client() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.send(b"+OK ready\r\n+OK 0 0\r\n")

    async with client_of(script) as pop3:
        await pop3.greet()
        with pytest.raises(RemoteProtocolError, match="unasked"):
            await pop3.stat()
        assert pop3.is_closed


async def test_a_server_that_says_nothing(autojump_clock: object) -> None:
    async with client_of(answering((b"NOOP\r\n", b"+O")), timeout=5) as pop3:
        with pytest.raises(TimeoutError, match="5 seconds"):
            await pop3.noop()
        assert pop3.is_closed
        assert trio.current_time() == pytest.approx(5)


async def test_a_server_that_stops_in_a_message(autojump_clock: object) -> None:
    async with client_of(answering((b"RETR 1\r\n", b"+OK\r\na\r\n")), timeout=5) as pop3:
        with pytest.raises(TimeoutError):
            await pop3.read(1)
        assert pop3.is_closed


async def test_a_server_that_leaves_in_a_message() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answering((b"RETR 1\r\n", b"+OK\r\na\r\n"))(peer)
        await peer.close()

    async with client_of(script) as pop3:
        with pytest.raises(RemoteProtocolError):
            await pop3.read(1)


@given(st.lists(st.binary(max_size=40)), st.sampled_from(["list", "uidl", "stat", "capabilities", "greet", "noop"]))
def test_whatever_a_server_says_is_understood_or_refused(answers: list[bytes], method: str) -> None:
    async def talk() -> None:
        ours, its = stream_pair()
        await its.send_all(b"+OK\r\n" + b"\r\n".join(answers) + b"\r\n")
        await its.send_eof()
        pop3 = POP3Client(ours)
        await pop3.greet()
        try:
            await getattr(pop3, method)()
        except (AsyncnetError, trio.BrokenResourceError):
            pass
        await ours.abort()
        await its.abort()

    trio.run(talk)


async def serve_one(stream: Stream) -> None:
    """Answer one command by a message, if the client lets us."""
    try:
        await stream.receive_until(b"\r\n", limit=100)
        await stream.send_all(b"+OK\r\nSubject: x\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(b"\r\n.\r\n")
    except (trio.BrokenResourceError, RemoteProtocolError):
        pass


async def test_cancelled_it_is_closed_rather_than_out_of_step() -> None:
    for attempt in cancel_at_each_checkpoint():
        ours, its = stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_one, its)
            pop3 = POP3Client(ours)
            content = b""
            with attempt:
                content = await pop3.read(1)
            assert content == b"Subject: x\r\n\r\n" or (attempt.cancelled and (pop3.is_closed or ours.bytes_out == 0))
            await ours.abort()
        await its.abort()


# TLS


@pytest.fixture
def tls(tmp_path: Path) -> ServerTLS:
    CERT.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    return ServerTLS(tmp_path / "server.pem")


@pytest.fixture
def context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


async def test_a_response_injected_before_tls_is_an_attack(context: ssl.SSLContext) -> None:
    async with client_of(answering((b"STLS\r\n", b"+OK\r\n+OK in\r\n"))) as pop3:
        with pytest.raises(PlaintextAfterUpgrade):
            await pop3.start_tls(context, server_hostname="localhost")
        assert pop3.is_closed


async def test_what_was_known_before_tls_is_forgotten(tls: ServerTLS, context: ssl.SSLContext) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answering(capable(b"STLS", b"SASL EXTERNAL"), (b"STLS\r\n", b"+OK\r\n"))(peer)
        await peer.stream.start_tls(tls, server_side=True)
        await answering(capable(b"SASL PLAIN"))(peer)

    async with client_of(script) as pop3:
        assert (await pop3.capabilities())["SASL"] == ("EXTERNAL",)
        await pop3.start_tls(context, server_hostname="localhost")
        assert (await pop3.capabilities())["SASL"] == ("PLAIN",)


@asynccontextmanager
async def served(
    endpoint: str, tls: ServerTLS | None = None, mailboxes: Any = None, **options: Any
) -> AsyncIterator[str]:
    """The URL of anna's mailbox on a server of ours."""
    handler = POP3Handler(mailboxes or boxes(*MAILS), Users(**options), tls=tls if endpoint[:3] == "tcp" else None)
    async with trio.open_nursery() as nursery:
        context = tls if endpoint[:3] == "tls" else None
        service = await nursery.start(
            lambda task_status: serve(handler, endpoint, tls=context, task_status=task_status)
        )
        yield service.urls[0].replace("://", "://anna:anna@").replace("127.0.0.1", "localhost")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
@pytest.mark.parametrize("keys", [False, True])
async def test_from_a_server_of_our_own(tls: ServerTLS, context: ssl.SSLContext, scheme: str, keys: bool) -> None:
    mailboxes = boxes(*MAILS)
    async with served(f"{scheme}://127.0.0.1:0", tls, mailboxes, keys=keys) as url:
        async with POP3Client.connect(url, tls=context) as pop3:
            assert pop3.stream.tls is not None
            assert await pop3.list() == {number: len(mail) for number, mail in enumerate(MAILS, 1)}
            assert [await pop3.read(number) for number in await pop3.uidl()] == list(MAILS)
            await pop3.delete(2)
    assert [message.uid for message in await mailboxes.boxes["anna"].messages()] == ["1", "3"]


async def test_an_exception_in_the_block_deletes_nothing() -> None:
    mailboxes = boxes(*MAILS)
    async with served("tcp://127.0.0.1:0", None, mailboxes) as url:
        with pytest.raises(RuntimeError):
            async with POP3Client.connect(url) as pop3:
                await pop3.delete(1)
                raise RuntimeError
    assert len(await mailboxes.boxes["anna"].messages()) == 3


async def test_tls_may_be_demanded_or_forbidden(tls: ServerTLS, context: ssl.SSLContext) -> None:
    async with served("tcp://127.0.0.1:0") as url:
        with pytest.raises(ReplyError, match="STLS"):
            async with POP3Client.connect(url, tls=context, starttls=True):
                raise AssertionError
    async with served("tcp://127.0.0.1:0", tls) as url:
        async with POP3Client.connect(url, starttls=False) as pop3:
            assert pop3.stream.tls is None
        with pytest.raises(ssl.SSLCertVerificationError):
            async with POP3Client.connect(url):
                raise AssertionError


async def test_a_certificate_is_verified(tls: ServerTLS) -> None:
    async with served("tls://127.0.0.1:0", tls) as url:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with POP3Client.connect(url):
                raise AssertionError


async def test_wrong_arguments_are_refused_before_anything_is_done() -> None:
    for url, options, error in (
        ("http://a/", {}, URLError),
        ("pop3://anna@a", {}, LocalProtocolError),
        ("pop3s://a", {"starttls": True}, LocalProtocolError),
        ("pop3://a", {"starttls": False, "tls": ssl.create_default_context()}, LocalProtocolError),
    ):
        with pytest.raises(error):
            async with POP3Client.connect(url, **options):  # type: ignore[arg-type]
                raise AssertionError


async def test_a_quit_that_fails_is_told_where_it_matters() -> None:
    for deleted in (True, False):
        script = [(b"DELE 1\r\n", b"+OK\r\n")] if deleted else []
        async with client_of(answering(*script, (b"QUIT\r\n", b"-ERR [SYS/TEMP] not all\r\n"))) as pop3:
            if deleted:
                await pop3.delete(1)
                with pytest.raises(ReplyError) as caught:
                    await pop3.quit()
                assert caught.value.is_transient
            else:
                await pop3.quit()
            assert pop3.is_closed
            await pop3.quit()


# URLs


@pytest.mark.parametrize(
    ("text", "shown", "user", "password"),
    [
        ("pop3://Example.ORG", "pop3://example.org", None, None),
        ("POP://anna@example.org/", "pop3://anna@example.org", "anna", None),
        (
            "pop3s://anna%40example.org:s%20cret@[::1]:1995",
            "pop3s://anna%40example.org@[::1]:1995",
            "anna@example.org",
            "s cret",
        ),
        ("pops://example.org:995", "pop3s://example.org", None, None),
    ],
)
def test_a_url_says_where_the_mailbox_is(text: str, shown: str, user: str | None, password: str | None) -> None:
    url = parse_url(text)
    assert (str(url), url.user, url.password) == (shown, user, password)
    assert "cret" not in repr(url)
    assert parse_url(str(url)).host == url.host


@given(
    st.sampled_from(["pop3", "pop3s"]),
    st.sampled_from(["example.org", "127.0.0.1", "::1"]),
    st.integers(1, 65535),
    st.none() | st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1),
)
def test_what_is_written_is_read(scheme: str, host: str, port: int, user: str | None) -> None:
    url = POP3URL(scheme, host, port, user)
    assert parse_url(str(url)) == url


@given(st.text())
def test_any_text_is_a_url_or_refused(text: str) -> None:
    for url in (text, f"pop3://{text}"):
        problem = ""
        try:
            parse_url(url)
        except URLError as error:
            problem = str(error)
        assert problem.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pop3:",
        "http://a",
        "pop3://",
        "pop3://@a",
        "pop3://a/INBOX",
        "pop3://a?x",
        "pop3://a%0d%0a@b",
        "pop3://a%00@b",
        "pop3://anna;AUTH=*@example.org",
        "pop3://anna;auth=+APOP:secret@example.org",
        "pop3://a:0",
        "pop3://a b",
        "pop3://%ff@b",
        "pop3://a%@b",
        "pop3://a\r\nb",
    ],
)
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(URLError):
        parse_url(text)
