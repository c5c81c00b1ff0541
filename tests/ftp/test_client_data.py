"""The FTP client's data connections, against a scripted server on loopback."""

from __future__ import annotations

import gzip
import io
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from asyncnet.endpoints import connect
from asyncnet.errors import LocalProtocolError, ReceiveTimeout, RemoteProtocolError
from asyncnet.ftp import client_data
from asyncnet.ftp.client import (
    FTPClient,
    HashMismatch,
    NotSupported,
    PermanentReplyError,
    ReplyError,
    TransientReplyError,
)
from asyncnet.ftp.client_control import Control
from asyncnet.ftp.client_data import _StallWatch
from asyncnet.limits import Timeouts
from asyncnet.service import serve
from asyncnet.stream import Stream
from asyncnet.testing import cancel_at_each_checkpoint, stream_pair
from asyncnet.transports.base import TruncatedError
from tests.ftp.scripted import ScriptedFTP, Session, connected, listen_extended, running, store

HELLO = b"hello world\n"


async def read_all(stream: Stream) -> bytes:
    received = b""
    while data := await stream.receive_some():
        received += data
    return received


async def fetch(ftp: FTPClient, path: str = "hello", **options: int) -> bytes:
    async with ftp.retrieve(path, **options) as stream:
        return await read_all(stream)


# How data connections are made


@pytest.mark.parametrize("active", [False, True])
async def test_files_go_both_ways_and_the_type_is_sent_once(active: bool) -> None:
    async with connected(active=active) as (ftp, server):
        assert await fetch(ftp) == HELLO
        async with ftp.store("new") as stream:
            await stream.send_all(b"abc")
        async with ftp.append("more") as stream:
            await stream.send_all(b"def")
        assert server.stored == {"new": b"abc", "more": b"def"}
        assert server.commands.count("TYPE I") == 1
        assert ("EPRT" in server.commands[5]) == active


async def test_a_text_is_asked_for_as_such() -> None:
    async with connected() as (ftp, server):
        async with ftp.retrieve("hello", ascii=True) as stream:
            await read_all(stream)
        assert await fetch(ftp) == HELLO
        assert [command for command in server.commands if "TYPE" in command] == ["TYPE A", "TYPE I"]


@pytest.mark.parametrize("code", [500, 501, 502, 522])
async def test_without_epsv_the_port_of_pasv_is_used_and_its_address_is_not(code: int) -> None:
    async with connected() as (ftp, server):
        server.answers["EPSV"] = b"%d no\r\n" % code
        assert await fetch(ftp) == HELLO  # the scripted server says 192.0.2.1
        assert await fetch(ftp) == HELLO
        assert (server.commands.count("EPSV"), server.commands.count("PASV")) == (1, 2)


@pytest.mark.parametrize("answer", [b"229 no port\r\n", b"229 (|||0|)\r\n"])
async def test_a_passive_reply_without_a_port_is_the_servers_fault(answer: bytes) -> None:
    async with connected() as (ftp, server):
        server.answers["EPSV"] = answer
        with pytest.raises(RemoteProtocolError):
            await fetch(ftp)
        server.answers["EPSV"] = listen_extended
        assert await fetch(ftp) == HELLO


async def test_a_refused_epsv_is_told() -> None:
    async with connected() as (ftp, server):
        server.answers["EPSV"] = b"425 not now\r\n"
        with pytest.raises(TransientReplyError, match="EPSV: the server says 425"):
            await fetch(ftp)
        assert "PASV" not in server.commands


async def test_a_data_port_where_nobody_listens_leaves_the_client_usable() -> None:
    async with connected() as (ftp, server):
        server.answers["EPSV"] = b"229 (|||1|)\r\n"
        with pytest.raises(OSError, match="cannot connect"):
            await fetch(ftp)
        assert await ftp.size("hello") == 12


async def test_without_eprt_the_server_is_told_by_port() -> None:
    async with connected(active=True) as (ftp, server):
        server.answers["EPRT"] = b"500 what?\r\n"
        assert await fetch(ftp) == HELLO
        assert await fetch(ftp) == HELLO
        assert sum(command.startswith("EPRT") for command in server.commands) == 1


async def test_a_stranger_on_the_active_port_is_sent_away() -> None:
    async def retrieve_with_stranger(session: Session, path: str) -> None:
        port = session.active_port
        with trio.socket.socket() as stranger:
            await stranger.bind(("127.0.0.2", 0))
            await stranger.connect(("127.0.0.1", port))
            data = await session.open_data()
            await data.send_all(b"true")
            await data.aclose()
            with pytest.raises(ConnectionResetError):
                await stranger.recv(1)
        await session.say(b"226 done\r\n")

    async with connected(active=True) as (ftp, server):
        server.answers["RETR"] = retrieve_with_stranger
        assert await fetch(ftp) == b"true"


async def test_a_server_that_does_not_connect_is_not_waited_for() -> None:
    async def promise(session: Session, path: str) -> None:
        ftp.timeout = 0.01
        await session.say(b"150 soon\r\n")

    async with connected(active=True) as (ftp, server):
        server.answers["RETR"] = promise
        with pytest.raises(TimeoutError, match="has not connected"):
            await fetch(ftp)
        ftp.timeout = 30
        server.answers["ABOR"] = b"426 well\r\n226 aborted\r\n"
        assert await ftp.size("hello") == 12


async def test_a_server_that_cannot_connect_says_so_and_is_heard_at_once() -> None:
    async def fail(session: Session, path: str) -> None:
        await session.say(b"150 soon\r\n")
        await trio.testing.wait_all_tasks_blocked(0.01)
        await session.say(b"150 patience\r\n")
        await trio.testing.wait_all_tasks_blocked(0.01)
        await session.say(b"425 cannot connect\r\n")

    async with connected(active=True) as (ftp, server):
        server.answers["RETR"] = fail
        with pytest.raises(TransientReplyError, match="cannot connect"):
            await fetch(ftp)
        server.answers["RETR"] = b"150 soon\r\n425 cannot connect\r\n"
        with pytest.raises(TransientReplyError, match="cannot connect"):
            await fetch(ftp)
        assert await ftp.size("hello") == 12
        assert "ABOR" not in server.commands


async def test_an_active_connection_that_comes_after_a_while_is_taken() -> None:
    async def retrieve_late(session: Session, path: str) -> None:
        await session.say(b"150 soon\r\n")
        await trio.testing.wait_all_tasks_blocked(0.01)
        await session.say(b"150 patience\r\n")
        await trio.testing.wait_all_tasks_blocked(0.01)
        data = await session.open_data()
        await data.send_all(b"late")
        await data.aclose()
        await session.say(b"226 done\r\n")

    async with connected(active=True) as (ftp, server):
        server.answers["RETR"] = retrieve_late
        assert await fetch(ftp) == b"late"
        assert await ftp.size("hello") == 12


@pytest.mark.parametrize("active", [False, True])
async def test_over_ipv6_there_are_the_extended_commands_alone(active: bool) -> None:
    async with running(host="[::1]") as server:
        async with FTPClient.connect(server.url, active=active) as ftp:
            assert await fetch(ftp) == HELLO
            server.answers |= {"EPSV": b"500 what?\r\n", "EPRT": b"500 what?\r\n"}
            with pytest.raises(PermanentReplyError):
                await fetch(ftp)
    assert not any(command.startswith(("PASV", "PORT")) for command in server.commands)


async def test_data_goes_through_the_proxy_too() -> None:
    targets: list[bytes] = []

    async def proxy(stream: trio.abc.Stream) -> None:
        ours = Stream.of(stream)
        head = await ours.receive_until(b"\r\n\r\n", limit=1000)
        targets.append(head.split()[1])
        async with await connect(f"tcp://{head.split()[1].decode()}") as its:
            await ours.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump, ours, its)
                nursery.start_soon(pump, its, ours)

    async def pump(source: Stream, target: Stream) -> None:
        try:
            while data := await source.receive_some():
                await target.send_all(data)
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        service = await nursery.start(lambda task_status: serve(proxy, "tcp://127.0.0.1:0", task_status=task_status))
        through = service.endpoints[0].replace("tcp:", "http:")
        async with connected(proxy=through) as (ftp, server):
            assert await fetch(ftp) == HELLO
            async with ftp.store("new") as stream:
                await stream.send_all(b"abc")
            assert server.stored == {"new": b"abc"}
        nursery.cancel_scope.cancel()
    assert len(targets) == 3


# How they end


async def test_a_refusal_opens_nothing() -> None:
    async with connected() as (ftp, server):
        with pytest.raises(PermanentReplyError, match="RETR nothing: the server says 550 no such file"):
            await fetch(ftp, "nothing")
        assert await fetch(ftp) == HELLO
        assert "ABOR" not in server.commands


def sending(data: bytes, last: bytes, first: bytes = b"150 ok\r\n") -> Callable[[Session, str], Awaitable[None]]:
    async def answer(session: Session, path: str) -> None:
        stream = await session.open_data(first)
        await stream.send_all(data)
        await stream.aclose()
        await session.say(last)

    return answer


@pytest.mark.parametrize(
    ("first", "data", "last", "error"),
    [
        (b"150 ok\r\n", b"half", b"451 the disk\r\n", TransientReplyError),
        (b"150 ok\r\n", b"half", b"551 the disk\r\n", PermanentReplyError),
        (b"150 ok\r\n", b"half", b"350 what?\r\n", ReplyError),
        (b"150 hello (12 bytes)\r\n", b"half", b"226 done\r\n", RemoteProtocolError),
        (b"150-hello\r\n150 (12 bytes).\r\n", b"half", b"226 done\r\n", RemoteProtocolError),
        (b"150 hello (12 bytes)\r\n", b"half", b"426 broken\r\n", TransientReplyError),
        (b"150 a (1 byte) (12 bytes)\r\n", b"half", b"226 done\r\n", RemoteProtocolError),
    ],
)
async def test_a_part_is_not_taken_for_the_whole(
    first: bytes, data: bytes, last: bytes, error: type[Exception]
) -> None:
    async with connected() as (ftp, server):
        server.answers["RETR"] = sending(data, last, first)
        with pytest.raises(error):
            await fetch(ftp)
        assert await ftp.size("hello") == 12


async def test_less_than_the_size_that_is_known_is_not_the_whole() -> None:
    async with connected() as (ftp, _):
        assert await fetch(ftp, size=12) == HELLO
        assert await fetch(ftp, size=12, offset=6) == b"world\n"
        with pytest.raises(RemoteProtocolError, match="6 bytes came, 7 were announced"):
            await fetch(ftp, size=13, offset=6)


async def test_a_reply_may_come_in_any_pieces_and_several_in_one() -> None:
    async def answer(session: Session, path: str) -> None:
        async with await session.open_data(b"150-a\r\n150 b\r\n226-c\r\n226 d\r\n") as data:
            await data.send_all(HELLO)

    async with connected() as (ftp, server):
        server.answers["RETR"] = answer
        assert await fetch(ftp) == HELLO
        assert await ftp.size("hello") == 12


async def test_a_file_of_which_all_was_read_needs_no_end_to_be_read() -> None:
    async with connected() as (ftp, server):
        async with ftp.retrieve("hello") as stream:
            await stream.receive_exactly(len(HELLO))
        assert await ftp.size("hello") == 12
        assert "ABOR" not in server.commands


@pytest.mark.parametrize("how", ["at once", "after some", "by an exception", "by closing"])
async def test_a_retrieve_that_is_left_before_its_end_is_broken_off(how: str) -> None:
    async with connected() as (ftp, server):
        server.files["large"] = bytes(5_000_000)
        try:
            async with ftp.retrieve("large") as stream:
                if how != "at once":
                    await stream.receive_some()
                if how == "by an exception":
                    raise KeyError
                if how == "by closing":
                    await stream.aclose()
        except KeyError:
            pass
        assert await ftp.size("hello") == 12
        assert await fetch(ftp) == HELLO
        assert server.commands.count("ABOR") == 1


@pytest.mark.parametrize(
    "replies",
    [
        b"426 broken off\r\n226 aborted\r\n",  # proftpd
        b"426 broken off\r\n225 nothing to abort\r\n",  # vsftpd
        b"226 aborted\r\n",  # pure-ftpd
        b"150 0.001 seconds\r\n226 aborted\r\n",
        b"226 done\r\n226-aborted\r\n226 indeed\r\n",
        b"451 x\r\n500 what?\r\n200 late\r\n",
    ],
)
async def test_whatever_a_server_says_to_what_was_broken_off_the_next_reply_is_the_next_commands(
    replies: bytes,
) -> None:
    async def silent(session: Session, path: str) -> None:
        await session.open_data()

    async with connected() as (ftp, server):
        server.answers["RETR"] = silent
        server.answers["ABOR"] = replies
        with pytest.raises(KeyError):
            async with ftp.retrieve("hello"):
                raise KeyError
        assert await ftp.size("hello") == 12
        await ftp.noop()


async def test_a_server_that_answers_pwd_by_nothing_of_the_kind_is_given_up() -> None:
    async with connected() as (ftp, server):
        server.answers["PWD"] = b"250 somewhere\r\n" * 300
        with pytest.raises(KeyError):
            async with ftp.retrieve("hello"):
                raise KeyError
        with pytest.raises(RemoteProtocolError):
            await ftp.noop()
        assert ftp.is_closed


async def leave_by_error(ftp: FTPClient) -> None:
    with pytest.raises(KeyError):
        async with ftp.store("part") as stream:
            await stream.send_all(b"half")
            raise KeyError


async def leave_by_cancelling(ftp: FTPClient) -> None:
    with trio.CancelScope() as scope:
        async with ftp.store("part") as stream:
            await stream.send_all(b"half")
            scope.cancel()
            await trio.sleep_forever()


async def leave_after_a_send_that_was_cancelled(ftp: FTPClient) -> None:
    with pytest.raises(ReplyError):
        async with ftp.store("part") as stream:
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.send_all(bytes(50_000_000))
            if not scope.cancelled_caught:
                raise AssertionError
            stream._give_up("as if some of it had left")


async def leave_by_aborting(ftp: FTPClient) -> None:
    with pytest.raises(TransientReplyError):
        async with ftp.append("part") as stream:
            await stream.send_all(b"half")
            await stream.abort()


@pytest.mark.parametrize(
    "leave", [leave_by_error, leave_by_cancelling, leave_after_a_send_that_was_cancelled, leave_by_aborting]
)
async def test_what_was_not_sent_whole_is_never_ended_cleanly(leave: Callable[[FTPClient], Awaitable[None]]) -> None:
    async with connected() as (ftp, server):
        await leave(ftp)
        with trio.fail_after(5):
            await server.stored_event.wait()
        assert server.stored == {"part": None}
        assert await ftp.size("hello") == 12


async def test_a_server_that_has_no_more_room_is_heard() -> None:
    async def full(session: Session, path: str) -> None:
        data = await session.open_data()
        await data.receive_some()
        await data.abort()
        await session.say(b"552 no room\r\n")

    async with connected() as (ftp, server):
        server.answers["STOR"] = full
        with pytest.raises(PermanentReplyError, match="STOR big: the server says 552 no room"):
            async with ftp.store("big") as stream:
                while True:
                    await stream.send_all(bytes(100_000))
        assert await ftp.size("hello") == 12


async def test_a_server_that_has_no_more_room_and_only_stops_reading_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(session: Session, path: str) -> None:
        await session.open_data()
        await session.say(b"552 no room\r\n")

    monkeypatch.setattr(client_data, "Timeouts", lambda send: Timeouts(send=0.01))
    async with connected() as (ftp, server):
        server.answers["STOR"] = full
        with pytest.raises(PermanentReplyError, match="no room"):
            await ftp.upload(io.BytesIO(bytes(20_000_000)), "big")


async def test_a_download_that_breaks_says_why() -> None:
    async def broken(session: Session, path: str) -> None:
        data = await session.open_data()
        await data.send_all(b"half")
        await data.abort()
        await session.say(b"451 the disk\r\n")

    async with connected() as (ftp, server):
        server.answers["RETR"] = broken
        with pytest.raises(TransientReplyError, match="the disk"):
            await fetch(ftp)
        assert await ftp.size("hello") == 12


async def test_another_connection_that_breaks_is_not_the_servers_fault() -> None:
    async with connected() as (ftp, server):
        server.files["large"] = bytes(5_000_000)
        with pytest.raises(trio.BrokenResourceError, match="another"):
            async with ftp.retrieve("large") as stream:
                await stream.receive_some()
                raise trio.BrokenResourceError("another")
        assert await ftp.size("hello") == 12


async def test_an_upload_that_the_server_does_not_confirm_has_failed() -> None:
    async def refuse(session: Session, path: str) -> None:
        await read_all(await session.open_data())
        await session.say(b"451 no\r\n")

    async with connected() as (ftp, server):
        server.answers["STOR"] = refuse
        with pytest.raises(TransientReplyError):
            async with ftp.store("x") as stream:
                await stream.send_all(b"abc")


async def test_nothing_else_runs_beside_a_transfer() -> None:
    async with connected() as (ftp, _):
        async with ftp.retrieve("hello") as stream:
            with pytest.raises(trio.BusyResourceError):
                await ftp.noop()
            with pytest.raises(trio.BusyResourceError):
                await fetch(ftp)
            assert await read_all(stream) == HELLO


@pytest.mark.parametrize("offset", [-1, -100])
async def test_a_negative_offset_is_refused(offset: int) -> None:
    async with connected() as (ftp, server):
        had = len(server.commands)
        with pytest.raises(LocalProtocolError):
            await fetch(ftp, offset=offset)
        assert [command for command in server.commands[had:] if command != "TYPE I"] == []


async def test_a_restart_that_no_transfer_followed_is_taken_back() -> None:
    async def cancel(session: Session, argument: str) -> None:
        scope.cancel()
        await session.say(b"350 ok\r\n")

    async with connected() as (ftp, server):
        server.answers["REST 6"] = cancel
        with trio.CancelScope() as scope:
            await fetch(ftp, offset=6)
        assert scope.cancelled_caught
        assert await fetch(ftp) == HELLO
        assert "REST 0" in server.commands
        assert await fetch(ftp) == HELLO
        assert server.commands.count("REST 0") == 1


async def test_a_refused_restart_is_told() -> None:
    async with connected() as (ftp, server):
        server.answers["REST"] = b"502 no\r\n"
        with pytest.raises(PermanentReplyError, match="REST 6"):
            await fetch(ftp, offset=6)
        assert await fetch(ftp) == HELLO


async def test_a_receive_for_which_nothing_comes_is_ended_and_a_slow_reader_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, its = stream_pair()
    control, _ = stream_pair()
    watch = _StallWatch(ours, Control(control, 10))
    await its.send_all(b"hello")
    await trio.sleep(100)
    assert await ours.receive_exactly(5) == b"hello"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_slowly, its)
        for _ in range(10):
            await ours.receive_exactly(1)
    before = trio.current_time()
    with pytest.raises(ReceiveTimeout):
        await ours.receive_some()
    assert 10 <= trio.current_time() - before <= 20
    watch.stop()


async def send_slowly(stream: Stream) -> None:
    for _ in range(10):
        await trio.sleep(9)
        await stream.send_all(b"x")


async def test_without_a_network_there_is_no_data_connection() -> None:
    ours, _ = stream_pair()
    ftp = FTPClient(ours)
    ftp._type = "I"
    with pytest.raises(NotSupported):
        async with ftp.retrieve("x"):
            pass


# Cancelling anywhere


async def retrieve_it(ftp: FTPClient) -> None:
    assert await fetch(ftp) == HELLO


async def store_it(ftp: FTPClient) -> None:
    async with ftp.store("new") as stream:
        await stream.send_all(b"abc")
        await stream.send_all(b"def")


async def list_it(ftp: FTPClient) -> None:
    assert [entry.name for entry in await ftp.list()] == ["hello"]


async def resume_it(ftp: FTPClient) -> None:
    assert await fetch(ftp, offset=6) == b"world\n"


@pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])
@pytest.mark.parametrize("do", [retrieve_it, store_it, list_it, resume_it])
async def test_cancelled_anywhere_a_transfer_leaves_the_client_usable(
    do: Callable[[FTPClient], Awaitable[None]], active: bool
) -> None:
    async with running() as server:
        for attempt in cancel_at_each_checkpoint():
            server.stored.clear()
            async with FTPClient.connect(server.url, active=active) as ftp:
                with attempt:
                    await do(ftp)
                assert not ftp.is_closed
                assert await ftp.size("hello") == 12
                assert await fetch(ftp) == HELLO
                # A part is never stored as the whole; what is cancelled at the very end may be whole all the same.
                assert server.stored.get("new") in (None, b"abcdef")


# Keep-alive


@pytest.mark.parametrize("answer", [b"200 ok\r\n", b"500 what?\r\n", b"502 no\r\n"])
@pytest.mark.parametrize("when", ["before", "after", "around"])
async def test_the_answers_to_noops_are_told_from_the_transfers(
    answer: bytes, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def retrieve(session: Session, path: str) -> None:
        data = await session.open_data()
        await data.send_all(HELLO)
        await go_on.wait()
        await data.aclose()
        noops = [await session.stream.receive_exactly(6) for _ in range(2)]
        assert noops == [b"NOOP\r\n"] * 2
        done = b"226 done\r\n"
        await session.say(
            {"before": answer * 2 + done, "after": done + answer * 2, "around": answer + done + answer}[when]
        )

    go_on = trio.Event()
    sent = 0
    original = Control.send_noop

    def send_noop(control: Control) -> None:
        nonlocal sent
        if sent < 2:
            sent += 1
            original(control)
        else:
            go_on.set()

    monkeypatch.setattr(Control, "send_noop", send_noop)
    async with connected(keep_alive=0.01) as (ftp, server):
        server.answers["RETR"] = retrieve
        assert await fetch(ftp) == HELLO
        assert await ftp.size("hello") == 12
        assert await ftp.pwd() == "/"


async def test_noops_that_are_never_answered_are_not_waited_for() -> None:
    async def retrieve(session: Session, path: str) -> None:
        data = await session.open_data()
        await data.send_all(HELLO)
        await session.stream.receive_exactly(6)
        await data.aclose()
        await session.say(b"226 done\r\n")

    async with connected() as (ftp, server):
        server.answers["RETR"] = retrieve
        async with ftp.retrieve("hello") as stream:
            ftp._control.send_noop()
            await read_all(stream)
        assert await ftp.size("hello") == 12
        assert await ftp.pwd() == "/"


async def test_any_number_of_noops_may_have_been_answered_when_a_transfer_is_broken_off() -> None:
    async def retrieve(session: Session, path: str) -> None:
        await session.open_data()
        await session.stream.receive_exactly(6 * 1000)
        await session.say(b"200 ok\r\n" * 1000)

    async with connected() as (ftp, server):
        server.answers["RETR"] = retrieve
        with pytest.raises(KeyError):
            async with ftp.retrieve("hello"):
                for _ in range(1000):
                    ftp._control.send_noop()
                raise KeyError
        assert await ftp.size("hello") == 12


async def test_a_failure_is_not_taken_for_the_answer_to_a_noop() -> None:
    async def retrieve(session: Session, path: str) -> None:
        data = await session.open_data()
        await session.stream.receive_exactly(6)
        await data.aclose()
        await session.say(b"500 internal error\r\n200 ok\r\n")

    async with connected() as (ftp, server):
        server.answers["RETR"] = retrieve
        with pytest.raises(PermanentReplyError, match="internal error"):
            async with ftp.retrieve("hello") as stream:
                ftp._control.send_noop()
                await read_all(stream)
        assert await ftp.size("hello") == 12


@pytest.mark.parametrize("answers", [b"200 ok\r\n226 done\r\n500 what?\r\n", b"226 done\r\n200 ok\r\n200 ok\r\n"])
async def test_cancelled_before_the_transfers_reply_all_replies_to_noops_stay_owed(answers: bytes) -> None:
    async def retrieve(session: Session, path: str) -> None:
        data = await session.open_data()
        await session.stream.receive_exactly(12)
        await data.aclose()
        await ended.wait()
        await session.say(answers)

    ended = trio.Event()
    async with connected() as (ftp, server):
        server.answers["RETR"] = retrieve
        with trio.CancelScope() as scope:
            async with ftp.retrieve("hello") as stream:
                ftp._control.send_noop()
                ftp._control.send_noop()
                await read_all(stream)
                scope.deadline = trio.current_time() + 0.01
        assert scope.cancelled_caught
        ended.set()
        assert await ftp.size("hello") == 12
        assert await ftp.pwd() == "/"


# Listings


async def test_a_listing_is_iterated_entry_by_entry() -> None:
    async def many(session: Session, path: str) -> None:
        data = await session.open_data()
        try:
            for start in range(0, 100_000, 1000):
                await data.send_all(
                    b"".join(b"type=file;size=%d; n%d\r\n" % (n, n) for n in range(start, start + 1000))
                )
            await data.aclose()
        except trio.BrokenResourceError:
            pass
        await session.say(b"226 done\r\n")

    async with connected() as (ftp, server):
        server.answers["MLSD"] = many
        count = most = 0
        async with ftp.scan() as entries:
            async for entry in entries:
                assert entry.size == count
                count += 1
                most = max(most, ftp.stream.buffered)
        assert count == 100_000
        with pytest.raises(RemoteProtocolError, match="more than 1000 entries"):
            await ftp.list(limit=1000)
        assert await ftp.size("hello") == 12


@pytest.mark.parametrize("code", [500, 502])
async def test_without_mlsd_a_listing_is_that_of_list(code: int) -> None:
    async with connected() as (ftp, server):
        server.answers["MLSD"] = b"%d no\r\n" % code
        server.listing = b"total 8\r\n-rw-r--r-- 1 u g 12 Jan  1  2020 hello\r\ndrwxr-xr-x 2 u g 12 Jan  1  2020 ..\r\n"
        assert [(entry.name, entry.size) for entry in await ftp.list("-a")] == [("hello", 12)]
        assert [entry.name for entry in await ftp.list()] == ["hello"]
        assert [command for command in server.commands if "LIST" in command or "MLSD" in command] == [
            "MLSD -a",
            "LIST ./-a",
            "LIST",
        ]


async def test_a_listing_of_nothing_is_not_that_of_an_empty_folder() -> None:
    async with connected() as (ftp, server):
        server.answers["MLSD"] = b"500 what?\r\n"
        server.answers["LIST"] = sending(b"", b"226 Transfer done (but failed to open directory).\r\n")
        with pytest.raises(ReplyError, match="failed to open"):
            await ftp.list("x")
        server.answers["LIST"] = sending(b"", b"226 Directory send OK.\r\n")
        assert await ftp.list("x") == []
        assert server.commands[-3:] == ["PWD", "CWD x", "CWD /"]
        assert await ftp.list() == []
        assert server.commands[-1] == "LIST"
        server.answers["CWD"] = b"550 not there\r\n"
        with pytest.raises(PermanentReplyError, match="not there"):
            await ftp.list("x")
        assert await ftp.size("hello") == 12


async def test_a_server_that_says_beforehand_that_it_has_no_facts_is_not_asked_for_them() -> None:
    server = ScriptedFTP()
    server.answers["FEAT"] = b"211-Features:\r\n SIZE\r\n211 End\r\n"
    server.listing = b"-rw-r--r-- 1 u g 12 Jan  1  2020 hello\r\n"
    async with connected(server) as (ftp, _):
        assert [entry.name for entry in await ftp.list()] == ["hello"]
        assert server.commands[-1] == "LIST"
        assert "MLSD" not in server.commands


async def test_a_folder_that_is_not_there_is_not_asked_for_again_by_list() -> None:
    async with connected() as (ftp, server):
        server.answers["MLSD"] = b"550 no\r\n"
        with pytest.raises(PermanentReplyError):
            await ftp.list("x")
        assert "LIST x" not in server.commands


@pytest.mark.parametrize(
    ("listing", "names"),
    [
        (b"", []),
        (b"type=file; a\r\ntype=file; b", ["a", "b"]),
        (b"type=file; a\ntype=file; b\n", ["a", "b"]),
        (b"type=file; \xc3\xbc\r\ntype=file; \xff\r\n", ["ü", "\udcff"]),
    ],
)
async def test_the_end_of_a_listing_may_have_many_forms(listing: bytes, names: list[str]) -> None:
    async with connected() as (ftp, server):
        server.listing = listing
        assert [entry.name for entry in await ftp.list()] == names


@pytest.mark.parametrize("listing", [b"garbage\r\n", b"type=file;size=x; a\r\n", b"x" * 100_000])
async def test_a_listing_that_cannot_be_read_is_the_servers_fault(listing: bytes) -> None:
    async with connected() as (ftp, server):
        server.listing = listing
        with pytest.raises(RemoteProtocolError):
            await ftp.list()
        assert await ftp.size("hello") == 12


async def test_a_listing_that_is_left_early_leaves_the_client_usable() -> None:
    async with connected() as (ftp, server):
        server.listing *= 10_000
        async with ftp.scan() as entries:
            async for _ in entries:
                break
        assert await ftp.size("hello") == 12


# TLS


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    ours, its = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("127.0.0.1").configure_cert(its)
    return ours, its


class SecureFTP(ScriptedFTP):
    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__()
        self.reused: list[bool] = []
        self.tls = tls

        async def upgrade(session: Session, argument: str) -> None:
            await session.say(b"234 go\r\n")
            await session.stream.start_tls(tls, server_side=True)

        async def protect(session: Session, argument: str) -> None:
            session.data_tls = tls
            await session.say(b"200 ok\r\n")

        self.answers |= {"AUTH": upgrade, "PBSZ": b"200 ok\r\n", "PROT": protect}


@asynccontextmanager
async def secured(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], **options: float
) -> AsyncIterator[tuple[FTPClient, SecureFTP]]:
    server = SecureFTP(contexts[1])
    async with running(server):
        url = server.url.replace("ftp:", "ftpes:")
        async with FTPClient.connect(url, tls=contexts[0], **options) as ftp:  # type: ignore[arg-type]
            yield ftp, server


async def test_over_tls_nothing_is_said_in_the_clear_but_auth(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with secured(contexts) as (ftp, server):
        assert await fetch(ftp) == HELLO
        async with ftp.store("new") as stream:
            assert stream.tls is not None
            assert stream.tls.session_reused
            await stream.send_all(b"abc")
        assert server.stored == {"new": b"abc"}
        assert server.commands[:4] == ["AUTH TLS", "PBSZ 0", "PROT P", "USER anonymous"]


async def test_implicit_tls_begins_with_the_handshake(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server = SecureFTP(contexts[1])
    async with running(server, tls=contexts[1]):
        async with FTPClient.connect(server.url.replace("ftp:", "ftps:"), tls=contexts[0]) as ftp:
            assert await fetch(ftp) == HELLO
        assert server.commands[:3] == ["PBSZ 0", "PROT P", "USER anonymous"]


async def test_data_that_ends_without_tls_saying_so_is_not_the_whole(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def truncated(session: Session, path: str) -> None:
        data = await session.open_data()
        await data.send_all(HELLO)
        data._transport._socket.shutdown(1)  # type: ignore[attr-defined]
        await session.say(b"226 done\r\n")

    async with secured(contexts) as (ftp, server):
        server.answers["RETR"] = truncated
        with pytest.raises(TruncatedError):
            await fetch(ftp)
        assert await ftp.size("hello") == 12


async def test_a_part_is_never_ended_cleanly_over_tls_either(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with secured(contexts) as (ftp, server):
        await leave_by_error(ftp)
        await server.stored_event.wait()
        assert server.stored == {"part": None}
        assert await ftp.size("hello") == 12


async def test_an_unknown_certificate_is_refused_before_the_login(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server = SecureFTP(contexts[1])
    async with running(server):
        with pytest.raises(ssl.SSLCertVerificationError):
            async with FTPClient.connect(server.url.replace("ftp:", "ftpes:"), user="joe", password="secret"):
                pass
    assert server.commands == ["AUTH TLS"]


async def test_data_in_the_clear_is_refused_where_tls_was_agreed(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with secured(contexts) as (ftp, server):
        server.answers["PROT"] = b"200 ok\r\n"
        server.sessions[0].data_tls = None
        with pytest.raises(ssl.SSLError):
            await fetch(ftp)
        assert await ftp.size("hello") == 12


@pytest.mark.parametrize("scheme", ["ftpes", "ftp"])
async def test_tls_is_tried_or_demanded(contexts: tuple[ssl.SSLContext, ssl.SSLContext], scheme: str) -> None:
    async with running() as server:
        url = server.url.replace("ftp:", f"{scheme}:")
        if scheme == "ftpes":
            with pytest.raises(PermanentReplyError):
                async with FTPClient.connect(url, tls=contexts[0]):
                    pass
            assert server.commands == ["AUTH TLS"]
        else:
            async with FTPClient.connect(url, tls=contexts[0], try_tls=True) as ftp:
                assert await fetch(ftp) == HELLO


# Connecting and leaving


async def test_a_client_says_goodbye_unless_it_is_left_by_an_exception() -> None:
    async with connected() as (_, server):
        pass
    assert server.commands[-1] == "QUIT"
    async with running() as server:
        with pytest.raises(KeyError):
            async with FTPClient.connect(server.url):
                raise KeyError
    assert "QUIT" not in server.commands


async def test_user_and_password_come_from_the_url_or_from_the_caller() -> None:
    async with running() as server:
        place = server.url.removeprefix("ftp://")
        async with FTPClient.connect(f"ftp://joe:a%20b@{place}x/y") as ftp:
            assert ftp.url is not None
            assert ftp.url.path == "x/y"
        async with FTPClient.connect(f"ftp://joe:a@{place}", password="other"):
            pass
        async with FTPClient.connect(f"ftp://joe:a@{place}", user="jim"):
            pass
        async with FTPClient.connect(server.url, login=False):
            pass
    logins = [command for command in server.commands if command[:4] in ("USER", "PASS")]
    assert logins == ["USER joe", "PASS a b", "USER joe", "PASS other", "USER jim", "PASS"]


# Whole files


async def test_a_download_appears_when_it_is_whole(tmp_path: Path) -> None:
    async with connected() as (ftp, server):
        seen: list[tuple[int, int | None]] = []
        target = tmp_path / "hello"
        assert await ftp.download("hello", target, progress=lambda done, size: seen.append((done, size))) == 12
        assert target.read_bytes() == HELLO
        assert seen == [(0, 12), (12, 12)]
        server.answers["RETR"] = sending(b"half", b"451 the disk\r\n")
        with pytest.raises(TransientReplyError):
            await ftp.download("hello", tmp_path / "other")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["hello", "other.part"]
        assert (tmp_path / "other.part").read_bytes() == b"half"


async def test_a_download_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    async with connected() as (ftp, server):
        (tmp_path / "hello.part").write_bytes(b"hello ")
        assert await ftp.download("hello", tmp_path / "hello", resume=True) == 6
        assert (tmp_path / "hello").read_bytes() == HELLO
        file = io.BytesIO(b"hello ")
        assert await ftp.download("hello", file, resume=True) == 6
        assert file.getvalue() == HELLO
        assert await ftp.download("hello", file, resume=True) == 0
        longer = io.BytesIO(b"something longer than the file")
        assert await ftp.download("hello", longer, resume=True) == 12
        assert longer.getvalue() == HELLO
        server.answers["SIZE"] = b"502 no\r\n"
        assert await ftp.download("hello", io.BytesIO()) == 12


async def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    async with connected() as (ftp, _):
        assert await ftp.download("hello", tmp_path / ("ü" * 127), resume=True) == 12
        assert [path.name for path in tmp_path.iterdir()] == ["ü" * 127]


async def test_a_cancelled_download_keeps_what_has_come(tmp_path: Path) -> None:
    async def stalled(session: Session, path: str) -> None:
        data = await session.open_data()
        await data.send_all(b"hello ")
        await session.stream.receive_exactly(6)
        await session.say(b"426 aborted\r\n")

    async with connected() as (ftp, server):
        server.answers["RETR"] = stalled
        with trio.CancelScope() as scope:
            await ftp.download("hello", tmp_path / "x", progress=lambda done, size: scope.cancel() if done else None)
        assert (tmp_path / "x.part").read_bytes() == b"hello "
        assert await ftp.size("hello") == 12


async def test_a_symlink_in_the_place_of_a_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "hello.part").symlink_to("victim")
    async with connected() as (ftp, _):
        with pytest.raises(OSError, match="symbolic links"):
            await ftp.download("hello", tmp_path / "hello")
    assert (tmp_path / "victim").read_bytes() == b"precious"


async def test_an_upload_is_sent_from_the_disk_or_from_memory(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(3_000_000))
    async with connected() as (ftp, server):
        seen: list[tuple[int, int | None]] = []
        assert await ftp.upload(tmp_path / "x", "a", progress=lambda done, size: seen.append((done, size))) == 3_000_000
        assert server.stored["a"] == bytes(3_000_000)
        assert (seen[0], seen[-1]) == ((0, 3_000_000), (3_000_000, 3_000_000))
        assert await ftp.upload(io.BytesIO(b"abc"), "b") == 3
        assert server.stored["b"] == b"abc"
        await ftp.upload(io.BytesIO(b""), "c")
        assert server.stored["c"] == b""


async def test_an_upload_goes_on_behind_what_the_server_has(tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(HELLO + b"and more")
    async with connected() as (ftp, server):
        assert await ftp.upload(tmp_path / "hello", "hello", resume=True) == 8
        assert server.stored == {"hello": b"and more"}
        assert "REST 12" in server.commands
        assert server.files["hello"] == HELLO + b"and more"
        server.files["hello"] = HELLO
        assert await ftp.upload(io.BytesIO(HELLO), "hello", resume=True) == 0
        assert await ftp.upload(io.BytesIO(b"short"), "hello", resume=True) == 5
        assert await ftp.upload(io.BytesIO(b"abc"), "new", resume=True) == 3


async def test_a_file_that_cannot_be_read_is_no_empty_upload() -> None:
    async with connected() as (ftp, server):
        with pytest.raises(FileNotFoundError):
            await ftp.upload("/nonexistent/x", "x")
        assert "STOR x" not in server.commands


async def test_times_are_kept_if_asked(tmp_path: Path) -> None:
    async with connected() as (ftp, server):
        server.answers |= {"MDTM": b"213 20200913122640\r\n", "MFMT": b"213 ok\r\n"}
        await ftp.download("hello", tmp_path / "hello", keep_time=True)
        assert (tmp_path / "hello").stat().st_mtime == 1_600_000_000
        await ftp.upload(tmp_path / "hello", "up", keep_time=True)
        assert server.commands[-1] == "MFMT 20200913122640 up"


async def test_times_are_not_forgotten_in_silence_where_there_is_no_path() -> None:
    async with connected() as (ftp, server):
        with pytest.raises(LocalProtocolError, match="keep_time"):
            await ftp.download("hello", io.BytesIO(), keep_time=True)
        with pytest.raises(LocalProtocolError, match="keep_time"):
            await ftp.upload(io.BytesIO(), "up", keep_time=True)
        assert not {"RETR hello", "STOR up"} & set(server.commands)


async def test_hashes_are_compared_if_asked(tmp_path: Path) -> None:
    server = ScriptedFTP()
    server.answers["FEAT"] = b"211-Features:\r\n XMD5\r\n211 End\r\n"
    server.answers["XMD5"] = b"250 6f5902ac237024bdd0c176cb93063dc4\r\n"
    async with connected(server) as (ftp, _):
        await ftp.download("hello", tmp_path / "hello", verify=True)
        await ftp.upload(tmp_path / "hello", "up", verify=True)
        server.answers["XMD5"] = b"250 " + b"0" * 32 + b"\r\n"
        with pytest.raises(HashMismatch):
            await ftp.download("hello", tmp_path / "other", verify=True)
        with pytest.raises(HashMismatch):
            await ftp.upload(tmp_path / "hello", "up", verify=True)
    assert [path.name for path in tmp_path.iterdir()] == ["hello"]


async def test_a_server_that_begins_again_is_not_taken_for_one_that_goes_on(tmp_path: Path) -> None:
    async def begin_again(session: Session, path: str) -> None:
        data = await session.open_data()
        await data.send_all(HELLO)
        await data.aclose()
        await session.say(b"226 done\r\n")

    (tmp_path / "hello.part").write_bytes(b"hello ")
    async with connected() as (ftp, server):
        server.answers["RETR"] = begin_again
        with pytest.raises(RemoteProtocolError, match="12 bytes came, 6 were announced"):
            await ftp.download("hello", tmp_path / "hello", resume=True)
        assert not (tmp_path / "hello").exists()
        await ftp.download("hello", tmp_path / "hello", resume=True)
        assert (tmp_path / "hello").read_bytes() == HELLO


async def test_an_upload_that_the_server_did_not_put_behind_what_it_had_has_failed() -> None:
    async with connected() as (ftp, server):

        async def begin_again(session: Session, path: str) -> None:
            await store(session, path)
            server.files[path] = server.stored[path] or b""

        server.answers["STOR"] = begin_again
        with pytest.raises(RemoteProtocolError, match="has 8 bytes there, not 20"):
            await ftp.upload(io.BytesIO(HELLO + b"and more"), "hello", resume=True)


async def test_what_a_file_gives_to_its_reader_is_uploaded_and_not_what_lies_beneath(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "x.gz", "wb") as packed:
        packed.write(b"x" * 1000)
    async with connected() as (ftp, server):
        with gzip.open(tmp_path / "x.gz", "rb") as file:
            assert await ftp.upload(file, "x") == 1000  # type: ignore[arg-type]
        assert server.stored["x"] == b"x" * 1000


async def test_a_file_that_changes_while_it_is_uploaded_has_the_time_from_before(tmp_path: Path) -> None:
    source = tmp_path / "x"
    source.write_bytes(b"abc")
    os.utime(source, (1_600_000_000, 1_600_000_000))
    async with connected() as (ftp, server):
        server.answers["MFMT"] = b"213 ok\r\n"
        await ftp.upload(source, "x", keep_time=True, progress=lambda done, size: os.utime(source))
        assert server.commands[-1] == "MFMT 20200913122640 x"


@pytest.mark.parametrize("resume", [False, True])
async def test_a_pipe_or_another_name_in_the_place_of_a_part_is_not_written_to(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "hello.part").hardlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "pipe.part")
    async with connected() as (ftp, server):
        server.files["pipe"] = HELLO
        for name in ("hello", "pipe"):
            with pytest.raises(FileExistsError, match=r"remove it"):
                await ftp.download(name, tmp_path / name, resume=resume)
    assert (tmp_path / "victim").read_bytes() == b"precious"


async def test_a_folder_is_no_target_and_nothing_is_asked_for(tmp_path: Path) -> None:
    async with connected() as (ftp, server):
        with pytest.raises(IsADirectoryError):
            await ftp.download("hello", tmp_path)
        assert "RETR hello" not in server.commands
    assert not tmp_path.with_name(f"{tmp_path.name}.part").exists()


async def test_hashes_that_the_server_cannot_make_are_missed_before_anything_is_moved(tmp_path: Path) -> None:
    async with connected() as (ftp, server):
        with pytest.raises(NotSupported):
            await ftp.download("hello", tmp_path / "hello", verify=True)
        with pytest.raises(NotSupported):
            await ftp.upload(io.BytesIO(b"abc"), "new", verify=True)
        assert not {"RETR hello", "STOR new"} & set(server.commands)


@pytest.mark.parametrize("here", [b'257 "/gone"\r\n', b'257-"/a\r\n b"\r\n257 so\r\n'])
async def test_a_client_that_cannot_go_back_to_its_folder_is_closed(here: bytes) -> None:
    async with connected() as (ftp, server):
        server.answers |= {"PWD": here, "SIZE": b"550 no file\r\n", "CWD /gone": b"550 no such folder\r\n"}
        with pytest.raises((PermanentReplyError, RemoteProtocolError)):
            await ftp.stat("pub")
        assert ftp.is_closed or "CWD pub" not in server.commands


@pytest.mark.parametrize("digits", ["9" * 5000, "²", "-1"])
async def test_a_size_that_is_none_is_none_for_stat_too(digits: str) -> None:
    async with connected() as (ftp, server):
        server.answers["SIZE"] = f"213 {digits}\r\n".encode()
        with pytest.raises(RemoteProtocolError):
            await ftp.stat("hello")


async def test_a_tls_context_is_not_passed_over_in_silence() -> None:
    async with running() as server:
        with pytest.raises(LocalProtocolError, match="ftpes://"):
            async with FTPClient.connect(server.url, tls=ssl.create_default_context()):
                pass
        assert server.commands == []


async def test_a_passive_port_of_0_is_the_servers_fault() -> None:
    for options in ({}, {"proxy": "http://127.0.0.1:9"}):
        async with running() as server:
            server.answers |= {"EPSV": b"502 no\r\n", "PASV": b"227 Passive (127,0,0,1,0,0)\r\n"}
            ftp = FTPClient(await connect(f"tcp://127.0.0.1:{server.port}"), host="127.0.0.1", **options)
            await ftp.greet()
            with pytest.raises(RemoteProtocolError, match="port"):
                await fetch(ftp)
            await ftp.quit()


async def test_a_name_that_looks_like_an_announced_size_announces_nothing() -> None:
    async with connected() as (ftp, server):
        server.files["x (99 bytes)"] = HELLO
        server.answers["RETR"] = sending(HELLO, b"226 done\r\n", b"150 here comes x (99 bytes)\r\n")
        assert await fetch(ftp, "x (99 bytes)") == HELLO


async def test_a_server_that_will_not_have_a_data_connection_says_why(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def refuse(session: Session, path: str) -> None:
        session.data_tls = None
        data = await session.open_data()
        await data.abort()
        await session.say(b"425 reuse the session, please\r\n")

    async with secured(contexts) as (ftp, server):
        server.answers["RETR"] = refuse
        with pytest.raises(TransientReplyError, match="please"):
            await fetch(ftp)
        assert await ftp.size("hello") == 12
