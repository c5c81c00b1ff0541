"""What `FTPHandler` withstands: hostile commands, paths, data connections and peers, and a storage that fails."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from asyncnet.auth.guard import LoginGuard
from asyncnet.endpoints import connect
from asyncnet.ftp.limits import FTPLimits, FTPTimeouts
from asyncnet.ftp.local_files import THREADS, LocalFiles
from asyncnet.ftp.memory_files import MemoryFiles
from asyncnet.ftp.server import FTPHandler
from asyncnet.ftp.storage import HashAlgorithm
from asyncnet.replies import MAX_REPLY
from asyncnet.service import Service
from tests.ftp.peer import Peer, connected, logged_in, served
from tests.ftp.test_server import Users


def listening_port(service: Service) -> int:
    return int(service.endpoints[0].rpartition(":")[2])


class TestLines:
    async def test_a_line_of_a_megabyte_is_refused_and_the_session_goes_on(self) -> None:
        async with logged_in() as peer:
            reply = await peer.raw(b"STOR " + b"a" * 1_000_000 + b"\r\n")
            assert reply.code == 500
            await peer.expect(257, "PWD")

    async def test_a_line_without_an_end_closes_the_connection(self) -> None:
        async with logged_in() as peer:
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await peer.stream.send_all(b"a" * 100_000)

    @pytest.mark.parametrize(
        "line",
        [
            b"",
            b"\r",
            b" PWD\r",
            b"PWD\0\r",
            b"\xff\r",
            b"A\r",
            b"TOOLONGVERB x\r",
            b"P\xc3\xa4D\r",
            b"MKD a\0b\r",
            b"MKD a\rb\r",
        ],
    )
    async def test_what_is_no_command_is_refused(self, line: bytes) -> None:
        async with logged_in() as peer:
            assert (await peer.raw(line + b"\n")).code == 500
            await peer.expect(257, "PWD")

    async def test_a_flood_of_commands_is_answered_and_keeps_nobody_waiting(self) -> None:
        async with served(FTPHandler(MemoryFiles(), anonymous=True)) as service:
            async with await connect(service.endpoints[0]) as flood, await connect(service.endpoints[0]) as other:
                answered = 0

                async def send() -> None:
                    for _ in range(100):
                        await flood.send_all(b"NOOP\r\n" * 1000)

                async def receive() -> None:
                    nonlocal answered
                    while answered < 100_000:
                        answered += (await flood.receive_some()).count(b"\n")

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send)
                    nursery.start_soon(receive)
                    peer = Peer(other, service)
                    await peer.reply()
                    await peer.log_in()
                    assert answered < 100_000

    async def test_a_long_reply_comes_behind_others(self) -> None:
        files = MemoryFiles({f"{number}{'x' * 200}": b"" for number in range(1000)})
        async with logged_in(files) as peer:
            await peer.stream.send_all(b"NOOP\r\nSTAT\r\nSTAT .\r\nNOOP\r\n")
            answers = b""
            with trio.fail_after(10):
                while answers.count(b"200 Still here") < 2:
                    answers += await peer.stream.receive_some()
            assert answers.count(b"x" * 200) > 100
            assert b"there is more" in answers
            assert len(answers) < MAX_REPLY

    async def test_stat_tells_no_more_than_a_reply_holds(self) -> None:
        async with logged_in(
            MemoryFiles({f"f/{number}": b"" for number in range(20)}), limits=FTPLimits(reply_entries=9)
        ) as peer:
            reply = await peer.expect(212, "STAT f")
            assert len(reply.lines) == 12
            assert "there is more" in reply.lines[-2]

    async def test_a_client_that_reads_no_replies_while_a_transfer_begins_is_no_failure(self) -> None:
        handler = FTPHandler(MemoryFiles({"a": bytes(1_000_000)}), anonymous=True)
        async with served(handler) as service:
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(("127.0.0.1", listening_port(service)))
                sock.sendall(b"USER anonymous\r\nPASS x\r\nTYPE I\r\n")
                await trio.testing.wait_all_tasks_blocked(0.01)
                (connection,) = service._connections
                while not connection.stream._pending:
                    sock.sendall(b"HELP\r\n")
                    await trio.testing.wait_all_tasks_blocked(0.0001)
                sock.sendall(b"EPSV\r\n")
                await trio.testing.wait_all_tasks_blocked(0.001)
                sock.sendall(b"RETR a\r\n")
                await trio.testing.wait_all_tasks_blocked(0.05)
                sock.sendall(b"NOOP\r\n")
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert not service.counters.failed

    async def test_nothing_but_nonsense_closes_the_connection(self) -> None:
        async with logged_in(limits=FTPLimits(errors=5)) as peer:
            for _ in range(5):
                await peer.expect(500, "NONSENSE")
            assert (await peer.do("NONSENSE")).code == 500
            assert (await peer.reply()).code == 421
            await peer.expect_end()


class TestPaths:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "root"
        root.mkdir()
        (tmp_path / "secret").write_text("secret")
        (root / "inside").write_text("inside")
        (root / "out").symlink_to(tmp_path)
        (root / "file").symlink_to(tmp_path / "secret")
        (root / "up").symlink_to("..")
        return root

    @pytest.mark.parametrize(
        "path",
        [
            "../secret",
            "/../secret",
            "a/../../secret",
            "out/secret",
            "file",
            "up/secret",
            "/out/../file",
            "./file",
            "..\\secret",
        ],
    )
    async def test_no_command_leads_out_of_the_root(self, root: Path, path: str) -> None:
        secret = root.parent / "secret"
        async with logged_in(root) as peer:
            for command in (
                "RETR",
                "SIZE",
                "MDTM",
                "MLST",
                "CWD",
                "DELE",
                "RMD",
                "HASH",
                "XCRC",
                "STAT",
                "LIST",
                "MLSD",
            ):
                reply = await peer.do(f"{command} {path}")
                assert reply.code in (550, 425, 501, 250), (command, reply)
                assert reply.code != 250 or command == "DELE", (command, reply)
            await peer.do(f"MFMT 20010101000000 {path}")
            await peer.do(f"SITE CHMOD 777 {path}")
            async with await peer.open_data() as data:
                reply = await peer.do(f"STOR {path}")
                if reply.code == 150:
                    await data.send_all(b"overwritten")
                    await data.aclose()
                    await peer.reply()
            if (await peer.do(f"RNFR {path}")).code == 350:
                await peer.do("RNTO moved")
            await peer.do("RNFR inside")
            await peer.do(f"RNTO {path}")
        assert secret.read_text() == "secret"
        assert secret.stat().st_mode & 0o777 != 0o777
        assert secret.stat().st_mtime > 1_000_000_000
        assert sorted(os.listdir(root.parent)) == ["root", "secret"]

    async def test_names_are_taken_as_they_are(self, tmp_path: Path) -> None:
        names = [
            b"a b",
            b" lead",
            b"trail ",
            b'q"u"ote',
            b"caf\xe9",
            "ü".encode(),
            b"x" * 255,
            b"-la",
            b"*",
            b"~",
            b"%41",
        ]
        async with logged_in(tmp_path) as peer:
            for name in names:
                text = name.decode("utf-8", "surrogateescape")
                await peer.send(f"STOR {text}", name)
                assert await peer.fetch(f"RETR {text}") == name
            assert sorted(os.listdir(os.fsencode(tmp_path))) == sorted(names)
            await peer.expect(550, "RETR " + "x" * 256)
            await peer.expect(550, "CWD " + "/".join(["x"] * 2000))
            for name in names:
                await peer.expect(250, "DELE " + name.decode("utf-8", "surrogateescape"))

    async def test_partial_uploads_of_others_cannot_be_had(self, tmp_path: Path) -> None:
        async with logged_in(tmp_path) as peer:
            data = await peer.open_data()
            await peer.expect(150, "STOR a")
            await data.send_all(b"x" * 3_000_000)
            await data.abort()
            assert (await peer.reply()).code == 426
            (hidden,) = os.listdir(tmp_path)
            for command in ("RETR", "DELE", "SIZE", "STOR", "RNFR", "MKD", "APPE"):
                assert (await peer.do(f"{command} {hidden}")).code in (550, 553), command
            assert await peer.fetch("NLST") == b""


class TestDataConnections:
    @pytest.mark.parametrize(
        ("command", "code"),
        [
            ("PORT 127,0,0,2,200,1", 500),
            ("PORT 10,0,0,1,200,1", 500),
            ("PORT 127,0,0,1,0,22", 500),
            ("PORT 127,0,0,1,3,255", 500),
            ("EPRT |1|127.0.0.2|5000|", 500),
            ("EPRT |2|::1|5000|", 500),
            ("EPRT |2|::ffff:10.0.0.1|5000|", 500),
            ("EPRT |3|x|5000|", 522),
            ("EPRT |1|127.0.0.1|80|", 500),
            ("PORT 127,0,0,1,300,1", 501),
            ("PORT 127,0,0,1", 501),
            ("EPRT 1", 501),
            ("EPRT |1|127.0.0.1|99999|", 501),
            ("EPRT |1|localhost|5000|", 501),
        ],
    )
    async def test_nobody_is_attacked_through_us(self, command: str, code: int) -> None:
        async with logged_in(MemoryFiles({"a": b""})) as peer:
            await peer.expect(code, command)
            await peer.expect(425, "RETR a")

    async def test_active_connections_can_be_switched_off(self) -> None:
        async with logged_in(active=False) as peer:
            await peer.expect_all((502, "PORT 127,0,0,1,200,1"), (502, "EPRT |1|127.0.0.1|50000|"))

    async def test_a_stranger_on_the_passive_port_gets_nothing_and_takes_nothing(self) -> None:
        async with logged_in(MemoryFiles({"a": b"hello"})) as peer:
            port = await peer.passive_port()
            with socket.socket() as stranger:
                stranger.bind(("127.0.0.2", 0))
                stranger.connect(("127.0.0.1", port))
                data = await connect(f"tcp://127.0.0.1:{port}")
                await peer.expect(150, "RETR a")
                assert await data.receive_some() == b"hello"
                await data.aclose()
                assert (await peer.reply()).code == 226
                with pytest.raises(ConnectionResetError):
                    stranger.recv(1)

    async def test_the_passive_port_takes_one_connection_and_closes(self) -> None:
        async with logged_in(MemoryFiles({"a": bytes(10_000_000)})) as peer:
            port = await peer.passive_port()
            async with await connect(f"tcp://127.0.0.1:{port}"):
                await peer.expect(150, "RETR a")
                with pytest.raises(OSError, match="refused"):
                    await connect(f"tcp://127.0.0.1:{port}")
                await peer.expect(426, "ABOR")
                await peer.reply()

    async def test_strangers_who_fill_a_passive_port_are_sent_away_before_the_command_comes(self) -> None:
        async with logged_in(MemoryFiles({"a": b"hello"})) as peer:
            port = await peer.passive_port()
            strangers = []
            try:
                for _ in range(40):
                    stranger = socket.socket()
                    strangers.append(stranger)
                    stranger.setblocking(False)
                    stranger.bind(("127.0.0.2", 0))
                    try:
                        stranger.connect(("127.0.0.1", port))
                    except BlockingIOError:
                        pass
                with trio.fail_after(20):
                    data = await peer.open_data(port)
                await peer.expect(150, "RETR a")
                assert await data.receive_some() == b"hello"
                await data.aclose()
                assert (await peer.reply()).code == 226
            finally:
                for stranger in strangers:
                    stranger.close()

    async def test_a_client_that_connects_late_is_let_in(self) -> None:
        async with logged_in(MemoryFiles({"a": b"hello"})) as peer:
            for waits_for_command in (True, False):
                port = await peer.passive_port()
                await trio.sleep(1.1)  # a doorkeeper stands there by now
                if waits_for_command:
                    await peer.expect(150, "RETR a")
                data = await peer.open_data(port)
                if not waits_for_command:
                    await peer.expect(150, "RETR a")
                assert await data.receive_some() == b"hello"
                await data.aclose()
                assert (await peer.reply()).code == 226
            await peer.passive_port()
            await trio.sleep(1.1)
            await peer.passive_port()

    async def test_a_new_passive_port_closes_the_one_before(self) -> None:
        async with logged_in() as peer:
            before = await peer.passive_port()
            await peer.passive_port()
            with pytest.raises(OSError, match="refused"):
                await connect(f"tcp://127.0.0.1:{before}")

    async def test_passive_ports_differ_from_one_to_the_next(self) -> None:
        async with logged_in() as peer:
            ports = [await peer.passive_port() for _ in range(20)]
            steps = {after - before for before, after in itertools.pairwise(ports)}
            assert len(steps) > 10

    async def test_a_new_login_does_not_get_the_old_ones_data_connection(self) -> None:
        async with logged_in(MemoryFiles({"a": b""})) as peer:
            await peer.passive_port()
            await peer.log_in()
            await peer.expect(425, "RETR a")

    async def test_epsv_all_leaves_only_epsv(self) -> None:
        async with logged_in() as peer:
            await peer.expect_all((200, "EPSV ALL"), (501, "PASV"), (501, "PORT 127,0,0,1,200,1"))
            await peer.expect_all((501, "EPRT |1|127.0.0.1|50000|"), (229, "EPSV"), (229, "EPSV 1"), (522, "EPSV 2"))

    async def test_all_passive_ports_in_use_is_told(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            async with logged_in(passive_ports=[taken.getsockname()[1]]) as peer:
                await peer.expect_all((451, "EPSV"), (451, "PASV"), (257, "PWD"))


class TestHashing:
    async def test_nobody_hashes_for_a_client_that_has_left(self) -> None:
        begun, given_up = trio.Event(), trio.Event()

        class Slow(MemoryFiles):
            async def hash(self, *args: Any) -> str:
                begun.set()
                try:
                    await trio.sleep_forever()
                finally:
                    given_up.set()
                return ""

        async with logged_in(Slow({"a": b""})) as peer:
            await peer.stream.send_all(b"HASH a\r\nPWD\r\n")
            await begun.wait()
            await peer.stream.aclose()
            with trio.fail_after(5):
                await given_up.wait()

    async def test_a_hash_that_does_not_exist_is_told_as_ever(self) -> None:
        async with logged_in() as peer:
            await peer.stream.send_all(b"HASH a\r\nPWD\r\n")
            assert [(await peer.reply()).code for _ in range(2)] == [550, 257]


class TestRenaming:
    async def test_who_may_only_rename_replaces_nothing(self) -> None:
        files = MemoryFiles({"a": b"A", "b": b"B"})
        async with connected(FTPHandler(files, users=Users(anna={"permissions": ["list", "rename"]}))) as peer:
            await peer.log_in("anna", "anna")
            await peer.expect_all((350, "RNFR a"), (550, "RNTO b"), (350, "RNFR a"), (250, "RNTO c"))
        assert files.contents() == {"b": b"B", "c": b"A"}


class TestGuessing:
    async def test_after_some_wrong_passwords_the_connection_ends(self) -> None:
        handler = FTPHandler(MemoryFiles(), users=Users(anna={}), guard=LoginGuard(tries=2, delay=0.001))
        async with connected(handler) as peer:
            await peer.expect_all((331, "USER anna"), (530, "PASS wrong"), (503, "PASS anna"), (331, "USER nobody"))
            await peer.expect(421, "PASS wrong")
            await peer.expect_end()

    async def test_passwords_do_not_pass_in_the_clear(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from asyncnet.transports.address import Address

        monkeypatch.setattr(Address, "is_loopback", False)
        async with connected(FTPHandler(MemoryFiles(), users=Users(anna={}), anonymous=True)) as peer:
            await peer.expect_all((530, "USER anna"), (503, "PASS anna"))
            await peer.log_in()
        handler = FTPHandler(MemoryFiles(), users=Users(anna={}), insecure_auth=True)
        async with connected(handler) as peer:
            await peer.log_in("anna", "anna")


class TestStorageFails:
    @pytest.mark.parametrize(
        ("number", "code"), [(errno.ENOSPC, 452), (errno.EDQUOT, 552), (errno.EIO, 451), (errno.EROFS, 550)]
    )
    async def test_a_full_disk_is_told_and_the_old_file_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
    ) -> None:
        (tmp_path / "a").write_bytes(b"old")
        async with logged_in(LocalFiles(tmp_path)) as peer:

            def fail(*args: object) -> int:
                raise OSError(number, os.strerror(number))

            for name in ("write", "pwrite", "writev", "pwritev"):
                monkeypatch.setattr(os, name, fail)
            data = await peer.open_data()
            await peer.expect(150, "STOR a")
            try:
                await data.send_all(b"new" * 1_000_000)
                await data.aclose()
            except trio.BrokenResourceError:
                await data.abort()
            assert (await peer.reply()).code == code
            monkeypatch.undo()
            assert await peer.fetch("RETR a") == b"old"
            await peer.send("STOR a", b"new")
            assert await peer.fetch("RETR a") == b"new"

    async def test_a_file_that_shrinks_is_no_whole_file(self, tmp_path: Path) -> None:
        size = 50_000_000
        (tmp_path / "a").write_bytes(bytes(size))
        async with logged_in(tmp_path) as peer:
            data = await peer.open_data()
            await peer.expect(150, "RETR a")
            os.truncate(tmp_path / "a", 1000)
            with pytest.raises(trio.BrokenResourceError):
                while await data.receive_some():
                    pass
            await data.aclose()
            assert (await peer.reply()).code == 451

    async def test_a_file_that_is_replaced_is_sent_as_it_was(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"1" * 20_000_000)
        (tmp_path / "b").write_bytes(b"2")
        async with logged_in(tmp_path) as peer:
            data = await peer.open_data()
            await peer.expect(150, "RETR a")
            os.replace(tmp_path / "b", tmp_path / "a")
            content = b""
            while piece := await data.receive_some():
                content += piece
            await data.aclose()
            assert content == b"1" * 20_000_000
            assert (await peer.reply()).code == 226

    async def test_a_listing_that_fails_in_the_middle_is_no_whole_listing(self) -> None:
        class Failing(MemoryFiles):
            async def scan(self, path: Any) -> Any:
                async for batch in super().scan(path):
                    yield batch
                raise OSError(errno.EIO, "broken")

        async with logged_in(Failing({"a": b""})) as peer:
            data = await peer.open_data()
            await peer.expect(150, "MLSD")
            with pytest.raises(trio.BrokenResourceError):
                while await data.receive_some():
                    pass
            await data.aclose()
            assert (await peer.reply()).code == 451


class TestSlowPeers:
    async def test_what_waits_for_its_bandwidth_is_no_upload_on_which_nothing_comes(self) -> None:
        users = Users(anna={"bandwidth": 400_000})
        async with connected(FTPHandler(MemoryFiles(), users=users, timeouts=FTPTimeouts(data=0.01))) as peer:
            await peer.log_in("anna", "anna")
            async with await peer.open_data() as data:
                await data.send_all(bytes(60_000))  # what the system takes without a reader
            await peer.expect(150, "STOR a")
            assert (await peer.reply()).code == 226
            await peer.expect(213, "SIZE a")

    async def test_a_client_that_reads_nothing_is_cut_off(self) -> None:
        from asyncnet.limits import Timeouts

        files = MemoryFiles({"a": bytes(50_000_000)})
        handler = FTPHandler(files, anonymous=True)
        async with connected(handler, timeouts=Timeouts(send=0.05)) as peer:
            await peer.log_in()
            async with await peer.open_data():
                await peer.expect(150, "RETR a")
                assert (await peer.reply()).code == 426

    async def test_a_transfer_that_takes_long_does_not_make_the_control_connection_idle(self) -> None:
        from asyncnet.limits import Timeouts

        handler = FTPHandler(MemoryFiles(), anonymous=True, anonymous_writes=True)
        async with connected(handler, timeouts=Timeouts(idle=0.05)) as peer:
            await peer.log_in()
            data = await peer.open_data()
            await peer.expect(150, "STOR a")
            for _ in range(20):
                await data.send_all(b"x")
                await trio.sleep(0.01)
            await data.aclose()
            assert (await peer.reply()).code == 226

    @pytest.mark.parametrize("work", ["hash", "append"])
    async def test_hashes_and_copies_of_large_files_keep_nobody_else_waiting(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str
    ) -> None:
        (tmp_path / "a").write_bytes(b"a")
        end = threading.Event()

        def wait(*args: object) -> str:
            end.wait(60)
            raise OSError(errno.EINVAL, "no")

        monkeypatch.setattr(LocalFiles, "_hash", wait)
        monkeypatch.setattr(LocalFiles, "_begin_upload", wait)
        files = LocalFiles(tmp_path)

        async def wait_for_one() -> None:
            with pytest.raises(OSError, match="no"):
                if work == "hash":
                    await files.hash(("a",), HashAlgorithm.SHA256)
                else:
                    await files.store(("a",), offset=None)

        async with logged_in(files) as peer, trio.open_nursery() as nursery:
            for _ in range(THREADS):
                nursery.start_soon(wait_for_one)
            await trio.testing.wait_all_tasks_blocked()
            try:
                await peer.expect(213, "SIZE a")
            finally:
                end.set()
