"""The FTP client's control connection, as its servers see it: in memory, in virtual time."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
import trustme
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import LocalProtocolError, PlaintextAfterUpgrade, RemoteProtocolError
from asyncnet.ftp.client import (
    FTPClient,
    NotSupported,
    PermanentReplyError,
    ReplyError,
    ServiceClosing,
    TransientReplyError,
)
from asyncnet.replies import Reply
from asyncnet.testing import ScriptedPeer, cancel_at_each_checkpoint, stream_pair

Script = Callable[[ScriptedPeer], Awaitable[object]]


@asynccontextmanager
async def client_of(script: Script, **options: float) -> AsyncIterator[FTPClient]:
    """A client that has heard no greeting yet, and a server that follows `script`, which has to be through."""
    ours, its = stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, ScriptedPeer(its, timeout=1000))
        yield FTPClient(ours, **options)  # type: ignore[arg-type]
    await ours.abort()


def answering(*pairs: tuple[bytes, bytes]) -> Script:
    """A script of commands and what is said to each."""

    async def script(peer: ScriptedPeer) -> None:
        for command, answer in pairs:
            await peer.expect(command)
            await peer.send(answer)

    return script


def saying(*pieces: bytes) -> Script:
    async def script(peer: ScriptedPeer) -> None:
        for piece in pieces:
            await peer.send(piece)
            await trio.testing.wait_all_tasks_blocked()

    return script


# The greeting


@pytest.mark.parametrize(
    "pieces",
    [
        (b"220 ready\r\n",),
        (b"220-one\r\n220 two\r\n",),
        (b"220-one\r\n two\r\n220-three\r\n\r\n220 ready\r\n",),
        (b"120 in a minute\r\n", b"220 ready\r\n"),
        (b"2", b"2", b"0", b" ", b"ready", b"\r", b"\n"),
        (b"220 ready\n",),
    ],
)
async def test_a_greeting_may_have_many_forms(pieces: tuple[bytes, ...]) -> None:
    async with client_of(saying(*pieces)) as ftp:
        assert (await ftp.greet()).code == 220
        assert ftp.welcome.code == 220


@pytest.mark.parametrize(
    ("greeting", "error"),
    [
        (b"421 too many\r\n", ServiceClosing),
        (b"530 go away\r\n", PermanentReplyError),
        (b"SSH-2.0-OpenSSH\r\n", RemoteProtocolError),
        (b"HTTP/1.1 400 Bad Request\r\n", RemoteProtocolError),
        (b"x" * 10_000, RemoteProtocolError),
        (b"220-" + b"x" * 8000 + b"\r\n" + (b"y" * 8000 + b"\r\n") * 10, RemoteProtocolError),
        (b"120 wait\r\n" * 100, RemoteProtocolError),
    ],
)
async def test_a_greeting_that_is_none_closes_the_client(greeting: bytes, error: type[Exception]) -> None:
    async with client_of(saying(greeting)) as ftp:
        with pytest.raises(error):
            await ftp.greet()
        assert ftp.is_closed
        with pytest.raises(trio.ClosedResourceError):
            await ftp.noop()


async def test_a_server_that_leaves_closes_the_client() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.send(b"220-hal")
        await peer.close()

    async with client_of(script) as ftp:
        with pytest.raises(RemoteProtocolError):
            await ftp.greet()
        assert ftp.is_closed


# Login


async def test_without_a_user_it_is_anonymous() -> None:
    script = answering(
        (b"USER anonymous\r\n", b"331 who?\r\n"),
        (b"PASS anonymous@\r\n", b"230-hello\r\n230 in\r\n"),
        (b"FEAT\r\n", b"211-Features:\r\n SIZE\r\n  mlst Type*;Size*;\r\n UTF8\r\n211 End\r\n"),
        (b"OPTS UTF8 ON\r\n", b"501 always\r\n"),
    )
    async with client_of(script) as ftp:
        await ftp.login()
        assert dict(await ftp.features()) == {"SIZE": "", "MLST": "Type*;Size*;", "UTF8": ""}


async def test_a_login_asks_for_no_more_than_the_server_does() -> None:
    async with client_of(answering((b"USER joe\r\n", b"230 in\r\n"), (b"FEAT\r\n", b"500 what?\r\n"))) as ftp:
        await ftp.login("joe", "secret")
        assert dict(await ftp.features()) == {}


async def test_an_account_is_given_where_it_is_asked_for() -> None:
    script = answering(
        (b"USER joe\r\n", b"331 password\r\n"),
        (b"PASS secret\r\n", b"332 account\r\n"),
        (b"ACCT sales\r\n", b"230 in\r\n"),
        (b"FEAT\r\n", b"502 no\r\n"),
    )
    async with client_of(script) as ftp:
        await ftp.login("joe", "secret", "sales")


async def test_a_refused_login_leaves_the_client_usable_and_shows_no_password() -> None:
    script = answering(
        (b"USER joe\r\n", b"331 password\r\n"), (b"PASS secret\r\n", b"530 no\r\n"), (b"NOOP\r\n", b"200 ok\r\n")
    )
    async with client_of(script) as ftp:
        with pytest.raises(PermanentReplyError, match=r"^PASS: the server says 530 no$") as caught:
            await ftp.login("joe", "secret")
        assert "secret" not in repr(caught.value) + repr(ftp) + str(caught.value.command)
        await ftp.noop()


async def test_passwords_are_hidden_from_the_log_of_the_conversation() -> None:
    seen: list[tuple[bytes, bool]] = []

    class Tap:
        async def receiving(self) -> None: ...

        def received(self, data: bytes, *, secret: bool) -> None: ...

        async def sending(self, count: int) -> int:
            return count

        def sent(self, data: bytes, *, secret: bool) -> None:
            seen.append((bytes(data), secret))

        def note(self, event: str) -> None: ...

    script = answering(
        (b"USER joe\r\n", b"331 password\r\n"),
        (b"PASS secret\r\n", b"230 in\r\n"),
        (b"FEAT\r\n", b"502 no\r\n"),
        (b"pass secret\r\n", b"230 in\r\n"),
    )
    async with client_of(script) as ftp:
        ftp.stream.add_tap(Tap())  # type: ignore[arg-type]
        await ftp.login("joe", "secret")
        assert (await ftp.command("pass", "secret")).code == 230
        with pytest.raises(LocalProtocolError) as caught:
            await ftp.command("PASS", "secret\n")
    assert "secret" not in str(caught.value)
    assert seen == [
        (b"USER joe\r\n", False),
        (b"PASS secret\r\n", True),
        (b"FEAT\r\n", False),
        (b"pass secret\r\n", True),
    ]


# Nothing that could be another command leaves

INJECTING: dict[str, Callable[[FTPClient], Awaitable[object]]] = {
    "login's user": lambda ftp: ftp.login("joe\r\nDELE x", "p"),
    "login's password": lambda ftp: ftp.login("joe", "p\r\nDELE x"),
    "login's unencodable password": lambda ftp: ftp.login("joe", "p\r\nDELE\ud800"),
    "login's account": lambda ftp: ftp.login("joe", "p", "a\nDELE x"),
    "cwd": lambda ftp: ftp.cwd("a\r\nDELE x"),
    "size": lambda ftp: ftp.size("a\nDELE x"),
    "modified": lambda ftp: ftp.modified("a\0b"),
    "set_modified": lambda ftp: ftp.set_modified("a\rb", 0),
    "rename from": lambda ftp: ftp.rename("a\r\n", "b"),
    "rename to": lambda ftp: ftp.rename("a", "b\r\nDELE x"),
    "delete": lambda ftp: ftp.delete("a\r\nb"),
    "mkdir": lambda ftp: ftp.mkdir("a\r\nb"),
    "rmdir": lambda ftp: ftp.rmdir("a\r\nb"),
    "chmod": lambda ftp: ftp.chmod("a\r\nb", 0o644),
    "hash": lambda ftp: ftp.hash("a\r\nb"),
    "stat": lambda ftp: ftp.stat("a\r\nb"),
    "list": lambda ftp: ftp.list("a\r\nb"),
    "command": lambda ftp: ftp.command("SITE", "a\r\nb"),
    "command's verb": lambda ftp: ftp.command("NOOP\r\nDELE x"),
    "retrieve": lambda ftp: ftp.retrieve("a\r\nb").__aenter__(),
    "store": lambda ftp: ftp.store("a\r\nb").__aenter__(),
    "append": lambda ftp: ftp.append("a\r\nb").__aenter__(),
    "download": lambda ftp: ftp.download("a\r\nb", "/nonexistent/x"),
    "upload": lambda ftp: ftp.upload("/nonexistent/x", "a\r\nb"),
}


@pytest.mark.parametrize("what", INJECTING)
async def test_a_line_end_or_nul_in_an_argument_is_refused_before_a_byte_is_sent(what: str) -> None:
    async with client_of(answering((b"NOOP\r\n", b"200 ok\r\n"))) as ftp:
        with pytest.raises(LocalProtocolError) as caught:
            await INJECTING[what](ftp)
        assert "p\\r\\nDELE" not in str(caught.value)
        await ftp.noop()
        assert ftp.stream.bytes_out == len(b"NOOP\r\n")


# Replies


async def test_a_refusal_says_which_command_and_what_the_server_said_made_printable() -> None:
    script = answering((b"DELE x\r\n", b"550-\x1b[2Jno\r\n550 \xff\r\n"), (b"RMD x\r\n", b"450 later\r\n"))
    async with client_of(script) as ftp:
        with pytest.raises(PermanentReplyError) as caught:
            await ftp.delete("x")
        assert str(caught.value) == r"DELE x: the server says 550 \x1b[2Jno / \udcff"
        assert (caught.value.code, caught.value.command) == (550, "DELE x")
        with pytest.raises(TransientReplyError):
            await ftp.rmdir("x")


async def test_any_command_can_be_sent_and_its_reply_is_the_callers() -> None:
    script = answering((b"SITE HELP\r\n", b"214-a\r\n b\r\n214 c\r\n"), (b"STAT\r\n", b"502 no\r\n"))
    async with client_of(script) as ftp:
        assert await ftp.command("SITE", "HELP") == Reply.of(214, "a", " b", "c")
        assert (await ftp.command("STAT")).code == 502


async def test_an_unexpected_reply_is_an_error_and_no_more() -> None:
    script = answering((b"CWD x\r\n", b"331 what?\r\n"), (b"RNFR a\r\n", b"250 fine\r\n"), (b"NOOP\r\n", b"200 ok\r\n"))
    async with client_of(script) as ftp:
        with pytest.raises(ReplyError):
            await ftp.cwd("x")
        with pytest.raises(ReplyError):
            await ftp.rename("a", "b")
        await ftp.noop()


async def test_a_reply_that_nobody_asked_for_is_not_taken_for_an_answer() -> None:
    script = answering((b"NOOP\r\n", b"200 ok\r\n226 what was that\r\n"), (b"PWD\r\n", b'257 "/a ""b"""\r\n'))
    async with client_of(script) as ftp:
        await ftp.noop()
        assert await ftp.pwd() == '/a "b"'


async def test_a_server_that_closes_while_nothing_is_asked_is_heard() -> None:
    async with client_of(answering((b"NOOP\r\n", b"200 ok\r\n421 you are idle\r\n"))) as ftp:
        await ftp.noop()
        with pytest.raises(ServiceClosing, match="you are idle"):
            await ftp.noop()
        assert ftp.is_closed


async def test_a_421_in_place_of_a_reply_closes_the_client() -> None:
    async with client_of(answering((b"CWD x\r\n", b"421 shutting down\r\n"))) as ftp:
        with pytest.raises(ServiceClosing):
            await ftp.cwd("x")
        assert ftp.is_closed


async def test_a_server_that_says_nothing_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async with client_of(answering((b"NOOP\r\n", b"")), timeout=7) as ftp:
        before = trio.current_time()
        with pytest.raises(TimeoutError, match="7 seconds"):
            await ftp.noop()
        assert trio.current_time() - before == pytest.approx(7)
        assert ftp.is_closed


async def test_a_server_that_never_ends_its_reply_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(b"NOOP\r\n")
        with pytest.raises((trio.BrokenResourceError, AssertionError)):
            while True:
                await peer.send(b"200-x\r\n")
                await trio.sleep(1)

    async with client_of(script, timeout=7) as ftp:
        with pytest.raises(TimeoutError):
            await ftp.noop()


async def test_one_task_uses_a_client_at_a_time() -> None:
    go_on = trio.Event()

    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(b"NOOP\r\n")
        await go_on.wait()
        await peer.send(b"200 ok\r\n")

    async with client_of(script) as ftp:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ftp.noop)
            await trio.testing.wait_all_tasks_blocked()
            for step in (ftp.pwd, ftp.login, ftp.greet, ftp.quit):
                with pytest.raises(trio.BusyResourceError):
                    await step()
            go_on.set()
        assert not ftp.is_closed


async def test_a_command_that_is_cancelled_leaves_the_client_usable_wherever_that_happens() -> None:
    async def script(peer: ScriptedPeer) -> None:
        while True:
            match await peer.stream.receive_until(b"\r\n", limit=100):
                case b"MDTM x\r\n":
                    await peer.send(b"213-what\r\n")
                    await trio.testing.wait_all_tasks_blocked()
                    await peer.send(b"213 20200913122640\r\n")
                case b"SIZE x\r\n":
                    await peer.send(b"213 7\r\n")
                case b"TYPE I\r\n":
                    await peer.send(b"200 ok\r\n")
                case _:
                    await peer.send(b"221 bye\r\n")
                    return

    for attempt in cancel_at_each_checkpoint():
        async with client_of(script) as ftp:
            with attempt:
                with pytest.raises(RemoteProtocolError):  # two lines are no time
                    await ftp.modified("x")
            assert not ftp.is_closed
            assert await ftp.size("x") == 7
            await ftp.quit()


async def test_a_cancelled_login_closes_the_client() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(b"USER joe\r\n")
        scope.cancel()

    async with client_of(script) as ftp:
        with trio.CancelScope() as scope:
            await ftp.login("joe", "secret")
        assert ftp.is_closed


async def test_quit_never_raises_and_closes(autojump_clock: trio.testing.MockClock) -> None:
    for answer in (b"221 bye\r\n", b"500 what?\r\n", b"421 bye\r\n", b"garbage\r\n", b""):
        async with client_of(answering((b"QUIT\r\n", answer))) as ftp:
            await ftp.quit()
            assert ftp.is_closed
            await ftp.quit()


# What the commands make of replies


async def test_a_folder_that_is_made_has_the_name_that_the_server_tells() -> None:
    script = answering((b"MKD a\r\n", b'257 "/home/a" made\r\n'), (b"MKD b\r\n", b"257 made\r\n"))
    async with client_of(script) as ftp:
        assert (await ftp.mkdir("a"), await ftp.mkdir("b")) == ("/home/a", "b")


@pytest.mark.parametrize("answer", [b"213 x\r\n", b"213 \r\n", b"213 -1\r\n", b"213 99999999999999999999\r\n"])
async def test_a_size_that_is_none_is_the_servers_fault(answer: bytes) -> None:
    async with client_of(answering((b"TYPE I\r\n", b"200 ok\r\n"), (b"SIZE a\r\n", answer))) as ftp:
        with pytest.raises(RemoteProtocolError, match="a size is a number"):
            await ftp.size("a")


async def test_times_modes_and_names_are_changed() -> None:
    script = answering(
        (b"MFMT 20200913122640 a b\r\n", b"213 Modify=20200913122640; a b\r\n"),
        (b"MDTM a b\r\n", b"213 20200913122640.5\r\n"),
        (b"SITE CHMOD 644 a b\r\n", b"200 ok\r\n"),
        (b"RNFR a b\r\n", b"350 and?\r\n"),
        (b"RNTO c\r\n", b"250 ok\r\n"),
    )
    async with client_of(script) as ftp:
        await ftp.set_modified("a b", 1_600_000_000.7)
        assert await ftp.modified("a b") == 1_600_000_000.5
        await ftp.chmod("a b", 0o644)
        await ftp.rename("a b", "c")


MLST = b"250-Listing\r\n type=file;size=7;modify=20200913122640; /pub/a b\r\n250 End\r\n"


async def test_stat_goes_by_facts() -> None:
    async with client_of(answering((b"MLST pub/a b\r\n", MLST), (b"MLST x\r\n", b"550 no\r\n"))) as ftp:
        entry = await ftp.stat("pub/a b")
        assert (entry.name, entry.size, entry.modified, entry.is_folder) == ("a b", 7, 1_600_000_000, False)
        with pytest.raises(PermanentReplyError):
            await ftp.stat("x")


async def test_stat_without_facts_goes_by_size_and_time_or_by_entering_the_folder() -> None:
    script = answering(
        (b"MLST pub/a\r\n", b"500 what?\r\n"),
        (b"TYPE I\r\n", b"200 ok\r\n"),
        (b"SIZE pub/a\r\n", b"213 7\r\n"),
        (b"MDTM pub/a\r\n", b"213 20200913122640\r\n"),
        (b"MLST pub\r\n", b"500 what?\r\n"),
        (b"SIZE pub\r\n", b"550 a folder\r\n"),
        (b"PWD\r\n", b'257 "/home" is here\r\n'),
        (b"CWD pub\r\n", b"250 ok\r\n"),
        (b"CWD /home\r\n", b"250 ok\r\n"),
        (b"MLST x\r\n", b"500 what?\r\n"),
        (b"SIZE x\r\n", b"550 not there\r\n"),
        (b"PWD\r\n", b'257 "/home" is here\r\n'),
        (b"CWD x\r\n", b"550 no\r\n"),
    )
    async with client_of(script) as ftp:
        entry = await ftp.stat("pub/a")
        assert (entry.name, entry.size, entry.modified) == ("a", 7, 1_600_000_000)
        assert (await ftp.stat("pub")).is_folder
        with pytest.raises(PermanentReplyError, match="not there"):
            await ftp.stat("x")


async def logged_in(ftp: FTPClient) -> FTPClient:
    await ftp.login("joe")
    return ftp


def with_features(features: bytes, *pairs: tuple[bytes, bytes]) -> Script:
    feat = b"211-Features:\r\n" + b"".join(b" %b\r\n" % line for line in features.split(b",")) + b"211 End\r\n"
    return answering((b"USER joe\r\n", b"230 in\r\n"), (b"FEAT\r\n", feat), *pairs)


SHA = b"ab" * 32


@pytest.mark.parametrize(
    ("features", "pairs", "algorithm", "digest"),
    [
        (
            b"HASH SHA-1*;SHA-256",
            [
                (b"TYPE I\r\n", b"200 ok\r\n"),
                (b"OPTS HASH SHA-256\r\n", b"200 SHA-256\r\n"),
                (b"HASH a b\r\n", b"213 SHA-256 0-49 " + SHA.upper() + b" a b\r\n"),
            ],
            "SHA-256",
            SHA.decode(),
        ),
        (b"XSHA256", [(b"XSHA256 a b\r\n", b"250 " + SHA + b"\r\n")], "SHA-256", SHA.decode()),
        (b"XSHA256", [(b"XSHA256 a b\r\n", b"250-Computing\r\n250 " + SHA + b"\r\n")], "SHA-256", SHA.decode()),
        (b"XCRC", [(b"XCRC a b\r\n", b"250 ABCDEF\r\n")], "CRC32", "00abcdef"),
        (b"HASH SHA-1*,XMD5", [(b"XMD5 a b\r\n", b"250 " + b"0f" * 16 + b"\r\n")], "MD5", "0f" * 16),
    ],
)
async def test_a_hash_is_made_by_the_command_that_the_server_has(
    features: bytes, pairs: list[tuple[bytes, bytes]], algorithm: str, digest: str
) -> None:
    async with client_of(with_features(features, *pairs)) as ftp:
        assert await (await logged_in(ftp)).hash("a b", algorithm) == digest


async def test_a_hash_that_the_server_cannot_make_is_not_asked_for() -> None:
    async with client_of(with_features(b"HASH SHA-1*,XCRC")) as ftp:
        await logged_in(ftp)
        with pytest.raises(NotSupported):
            await ftp.hash("a", "SHA-256")
        assert await ftp.best_hash() == "SHA-1"


async def test_a_hash_that_is_none_is_the_servers_fault() -> None:
    async with client_of(with_features(b"XMD5", (b"XMD5 a\r\n", b"250 done\r\n"))) as ftp:
        with pytest.raises(RemoteProtocolError, match="no hash"):
            await (await logged_in(ftp)).hash("a", "MD5")


# Whatever a server says

REPLIES = st.lists(
    st.sampled_from([b"220", b"226", b"257", b"331", b"421", b"500", b"x", b"-", b" ", b'"/"', b"\r\n", b"\n", b"\xff"])
).map(b"".join) | st.binary(max_size=60)


@given(said=st.lists(REPLIES, max_size=6))
def test_whatever_a_server_says_a_client_raises_nothing_unforeseen(said: list[bytes]) -> None:
    async def main() -> None:
        async def script(peer: ScriptedPeer) -> None:
            try:
                for piece in said:
                    await peer.send(piece)
                    await trio.testing.wait_all_tasks_blocked()
            except (AssertionError, trio.BrokenResourceError):
                pass  # the client has had enough
            await peer.close()

        async with client_of(script) as ftp:
            foreseen = (ReplyError, RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError)
            for step in (ftp.greet, ftp.login, ftp.pwd, ftp.noop, lambda: ftp.stat("x"), ftp.quit):
                try:
                    await step()
                except foreseen:
                    pass
            assert ftp.is_closed

    trio.run(main)


# TLS


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    ours, its = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("localhost").configure_cert(its)
    return ours, its


async def test_after_the_upgrade_nothing_that_was_learnt_before_counts(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(b"FEAT\r\n")
        await peer.send(b"211-Features:\r\n INJECTED\r\n211 End\r\n")
        await peer.expect(b"AUTH TLS\r\n")
        await peer.send(b"234 go\r\n")
        await peer.stream.start_tls(contexts[1], server_side=True)
        await peer.expect(b"PBSZ 0\r\n")
        await peer.send(b"200 ok\r\n")
        await peer.expect(b"PROT P\r\n")
        await peer.send(b"200 ok\r\n")
        await peer.expect(b"FEAT\r\n")
        await peer.send(b"211-Features:\r\n SIZE\r\n211 End\r\n")

    async with client_of(script) as ftp:
        assert "INJECTED" in await ftp.features()
        await ftp.start_tls(contexts[0], server_hostname="localhost")
        assert set(await ftp.features()) == {"SIZE"}
        assert ftp.stream.tls is not None


async def test_a_reply_injected_before_the_handshake_is_never_heard(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    script = answering((b"AUTH TLS\r\n", b"234 go\r\n200 ok\r\n200 ok\r\n"))
    async with client_of(script) as ftp:
        with pytest.raises(PlaintextAfterUpgrade):
            await ftp.start_tls(contexts[0], server_hostname="localhost")
        assert ftp.is_closed


async def test_tls_that_is_refused_is_an_error_and_the_password_stays_here(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with client_of(answering((b"AUTH TLS\r\n", b"502 no\r\n"))) as ftp:
        with pytest.raises(PermanentReplyError):
            await ftp.start_tls(contexts[0], server_hostname="localhost")
        assert ftp.stream.bytes_out == len(b"AUTH TLS\r\n")


async def test_data_connections_that_would_be_in_the_clear_close_the_client(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(b"AUTH TLS\r\n")
        await peer.send(b"234 go\r\n")
        await peer.stream.start_tls(contexts[1], server_side=True)
        await peer.expect(b"PBSZ 0\r\n")
        await peer.send(b"200 ok\r\n")
        await peer.expect(b"PROT P\r\n")
        await peer.send(b"534 no\r\n")

    async with client_of(script) as ftp:
        with pytest.raises(PermanentReplyError):
            await ftp.start_tls(contexts[0], server_hostname="localhost")
        assert ftp.is_closed


async def test_a_cancelled_upgrade_closes_the_client(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(b"AUTH TLS\r\n")
        scope.cancel()

    async with client_of(script) as ftp:
        with trio.CancelScope() as scope:
            await ftp.start_tls(contexts[0], server_hostname="localhost")
        assert ftp.is_closed


async def test_active_mode_through_a_proxy_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        FTPClient(stream_pair()[0], active=True, proxy="http://127.0.0.1:1")
    with pytest.raises(LocalProtocolError):
        async with FTPClient.connect("ftp://192.0.2.1/", active=True, proxy="http://127.0.0.1:1"):
            pass


async def test_a_hash_by_an_unknown_name_is_refused() -> None:
    async with client_of(answering()) as ftp:
        with pytest.raises(LocalProtocolError, match="SHA-256"):
            await ftp.hash("x", "sha256")
