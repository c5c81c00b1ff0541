"""What a client sees of `FTPHandler`: login, folders and files, transfers, listings. Attacks have their own file."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
import trio
import trio.testing

from asyncnet.errors import ConfigurationError
from asyncnet.ftp.limits import FTPTimeouts
from asyncnet.ftp.memory_files import MemoryFiles
from asyncnet.ftp.server import FTPHandler
from asyncnet.middleware import Middleware
from asyncnet.stream import Stream
from tests.ftp.peer import Peer, connected, logged_in, served


class TestLogin:
    async def test_anonymous_users_read_and_change_nothing(self) -> None:
        handler = FTPHandler(MemoryFiles({"a.txt": b"hello"}), anonymous=True)
        async with connected(handler) as peer:
            await peer.log_in()
            assert await peer.fetch("RETR a.txt") == b"hello"
            for command in (
                "DELE a.txt",
                "STOR b",
                "APPE a.txt",
                "MKD c",
                "RNFR a.txt",
                "SITE CHMOD 600 a.txt",
                "STOU",
            ):
                await peer.expect(550, command)

    @pytest.mark.parametrize("name", ["anonymous", "ftp", "Anonymous", "FTP"])
    async def test_nobody_in_particular_has_several_names(self, name: str) -> None:
        async with connected(FTPHandler(MemoryFiles(), anonymous=True)) as peer:
            await peer.log_in(name)

    async def test_without_anonymous_users_nobody_is_anonymous(self) -> None:
        async with connected(FTPHandler(MemoryFiles(), users=Users())) as peer:
            await peer.expect(331, "USER anonymous")
            await peer.expect(530, "PASS x")

    async def test_before_the_login_only_what_leads_to_it_is_done(self) -> None:
        from asyncnet.ftp.declarations import COMMANDS

        async with connected(FTPHandler(MemoryFiles(), anonymous=True)) as peer:
            for verb, declaration in COMMANDS.items():
                if verb != "QUIT":
                    reply = await peer.do(f"{verb} x")
                    assert declaration.before_login or reply.code == 530, (verb, reply)
                    assert reply.code not in (150, 226, 250, 257, 213, 212, 227, 229) or verb == "ABOR", (verb, reply)

    async def test_a_log_of_the_conversation_shows_no_password_that_comes_together_with_its_user(self) -> None:
        shown: list[bytes] = []

        class Tap:
            async def receiving(self) -> None: ...

            def received(self, data: bytes, *, secret: bool) -> None:
                shown.extend(() if secret else (data,))

            async def sending(self, count: int) -> int:
                return count

            def sent(self, data: bytes, *, secret: bool) -> None: ...

            def note(self, event: str) -> None: ...

        handler = FTPHandler(MemoryFiles(), users=Users(joe={}))

        async def watched(stream: Stream) -> None:
            stream.add_tap(Tap())  # type: ignore[arg-type]
            await handler(stream)

        async with connected(watched) as peer:  # type: ignore[arg-type]
            await peer.stream.send_all(b"USER joe\r\nPASS joe\r\n")
            assert (await peer.reply()).code == 331
            assert (await peer.reply()).code == 230
            await peer.expect(200, "NOOP")
        assert b"NOOP" in b"".join(shown)
        assert b"PASS" not in b"".join(shown)

    async def test_the_password_comes_behind_the_name(self) -> None:
        async with connected(FTPHandler(MemoryFiles(), anonymous=True)) as peer:
            await peer.expect(503, "PASS x")
            await peer.log_in()
            await peer.expect(503, "PASS x")

    async def test_another_name_logs_out_who_was_in(self) -> None:
        async with logged_in() as peer:
            await peer.expect_all((331, "USER anonymous"), (530, "PWD"), (230, "PASS x"), (257, "PWD"))

    async def test_rein_begins_anew(self) -> None:
        async with logged_in(MemoryFiles({"a/b": b""})) as peer:
            await peer.expect_all((250, "CWD a"), (220, "REIN"), (530, "PWD"))
            await peer.log_in()
            assert '"/"' in (await peer.expect(257, "PWD")).text

    async def test_users_have_what_their_entry_says(self) -> None:
        files = MemoryFiles({"a": b"1"})
        users = Users(anna={"permissions": ["read", "list"]}, bert={"permissions": "list,write"}, carl={})
        async with served(FTPHandler(files, users=users)) as service:
            from asyncnet.endpoints import connect

            for name, code in {"anna": 550, "bert": 226, "carl": 226}.items():
                async with await connect(service.endpoints[0]) as stream:
                    peer = Peer(stream, service)
                    await peer.reply()
                    await peer.log_in(name, name)
                    if code == 550:
                        await peer.expect(550, "STOR new")
                    else:
                        await peer.send("STOR new", b"1")
                    await peer.expect(550 if name == "bert" else 425, "RETR a")

    async def test_a_user_has_so_many_connections_at_a_time(self) -> None:
        from asyncnet.endpoints import connect

        async with served(FTPHandler(MemoryFiles(), users=Users(anna={"connections": 1}))) as service:
            async with await connect(service.endpoints[0]) as first, await connect(service.endpoints[0]) as second:
                one, two = Peer(first, service), Peer(second, service)
                for peer in (one, two):
                    await peer.reply()
                await one.log_in("anna", "anna")
                await two.expect_all((331, "USER anna"), (421, "PASS anna"))
                await two.expect_end()  # 421 says that it ends (RFC 959 section 5.4)
                await one.expect(221, "QUIT")
                await one.expect_end()
            async with await connect(service.endpoints[0]) as third:
                three = Peer(third, service)
                await three.reply()
                await three.log_in("anna", "anna")

    async def test_a_wrong_entry_keeps_its_user_out_and_tells_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        async with connected(FTPHandler(MemoryFiles(), users=Users(anna={"permissions": ["raed"]}))) as peer:
            await peer.expect_all((331, "USER anna"), (530, "PASS anna"))
        assert "user 'anna': 'raed' is no permission" in caplog.text

    def test_a_server_that_nobody_could_log_in_to_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="nobody could log in"):
            FTPHandler(MemoryFiles())


class Users:
    """Users whose password is their name."""

    def __init__(self, **settings: dict[str, Any]) -> None:
        self.settings = settings

    async def verify(self, name: str, password: str, *, peer: object) -> Any:
        from asyncnet.auth.identity import Identity

        await trio.lowlevel.checkpoint()
        return Identity(name, self.settings[name]) if name in self.settings and password == name else None

    async def scram_keys(self, name: str) -> None:
        return None


class TestFolders:
    async def test_walking_through_them(self) -> None:
        async with logged_in(MemoryFiles({"a/b/c": b"", "file": b""})) as peer:
            await peer.expect_all((250, "CWD a/b"), (257, "PWD"), (250, "CDUP"), (250, "CWD /a/../a/./b/"))
            assert (await peer.do("PWD")).text.startswith('"/a/b"')
            await peer.expect_all((250, "CWD ../../../.."), (550, "CWD nowhere"), (550, "CWD file"))
            assert (await peer.do("XPWD")).text.startswith('"/"')

    async def test_making_and_removing_them(self) -> None:
        async with logged_in() as peer:
            assert (await peer.expect(257, 'MKD sp ace "q"')).text.startswith('"/sp ace ""q"""')
            await peer.expect_all((550, 'MKD sp ace "q"'), (250, 'CWD sp ace "q"'), (257, "XMKD in"), (250, "CDUP"))
            await peer.expect_all((550, 'RMD sp ace "q"'), (250, '/sp ace "q"/in'.join(["XRMD ", ""])))
            await peer.expect_all((250, 'RMD sp ace "q"'), (550, "RMD nothing"))

    async def test_renaming(self) -> None:
        files = MemoryFiles({"a": b"A", "b": b"B", "folder/": b""})
        async with logged_in(files) as peer:
            await peer.expect_all((503, "RNTO b"), (550, "RNFR nothing"), (350, "RNFR a"), (250, "RNTO b"))
            assert files.contents() == {"b": b"A", "folder/": b""}
            await peer.expect_all((350, "RNFR b"), (200, "NOOP"), (503, "RNTO c"))
            await peer.expect_all((350, "RNFR b"), (250, "RNTO folder/c"))
            assert files.contents() == {"folder/": b"", "folder/c": b"A"}

    async def test_names_that_are_no_utf8_come_back_as_they_were(self) -> None:
        async with logged_in() as peer:
            name = b"caf\xe9\xff\xff".decode("utf-8", "surrogateescape")
            assert (await peer.raw(b"MKD caf\xe9\xff\xff\r\n")).code == 257  # Telnet doubles its IAC
            assert await peer.fetch("NLST") == b"caf\xe9\xff\r\n"
            assert (await peer.raw(b"CWD caf\xe9\xff\xff\r\n")).code == 250
            await peer.stream.send_all(b"PWD\r\n")
            assert await peer.stream.receive_until(b"\n", limit=100) == (
                b'257 "/caf\xe9\xff\xff" is the working folder.\r\n'
            )
            assert name


class TestTransfers:
    async def test_files_come_back_as_they_went(self) -> None:
        async with logged_in() as peer:
            content = bytes(range(256)) * 5000
            await peer.send("STOR x", content)
            assert await peer.fetch("RETR x") == content
            assert (await peer.expect(213, "SIZE x")).text == str(len(content))

    async def test_without_a_data_connection_nothing_is_transferred(self) -> None:
        async with logged_in(MemoryFiles({"a": b""})) as peer:
            for command in ("RETR a", "STOR b", "LIST", "NLST", "MLSD", "APPE a", "STOU"):
                await peer.expect(425, command)

    async def test_an_upload_has_no_name_until_it_is_whole(self) -> None:
        files = MemoryFiles({"a": b"old"})
        async with logged_in(files) as peer:
            data = await peer.open_data()
            await peer.expect(150, "STOR a")
            await data.send_all(b"new")
            assert files.contents() == {"a": b"old"}
            await data.aclose()
            assert (await peer.reply()).code == 226
            assert files.contents() == {"a": b"new"}

    async def test_an_upload_that_is_reset_leaves_the_old_file_and_is_told(self) -> None:
        files = MemoryFiles({"a": b"old"})
        async with logged_in(files) as peer:
            data = await peer.open_data()
            await peer.expect(150, "STOR a")
            await data.send_all(b"new")
            await data.abort()
            assert (await peer.reply()).code == 426
            assert files.contents() == {"a": b"old"}

    async def test_a_client_that_vanishes_during_an_upload_leaves_the_old_file(self) -> None:
        files = MemoryFiles({"a": b"old"})
        async with logged_in(files) as peer:
            data = await peer.open_data()
            await peer.expect(150, "STOR a")
            await data.send_all(b"new")
            await peer.stream.abort()
            while peer.service.open:
                await trio.testing.wait_all_tasks_blocked(0.001)
            await data.aclose()
        assert files.contents() == {"a": b"old"}

    async def test_a_client_that_leaves_before_the_end_of_its_data_leaves_the_old_file(self) -> None:
        files = MemoryFiles({"a": b"old"})
        async with logged_in(files) as peer:
            data = await peer.open_data()
            await peer.expect(150, "STOR a")
            await peer.stream.aclose()
            await data.aclose()
            while peer.service.open:
                await trio.testing.wait_all_tasks_blocked(0.001)
        assert files.contents() == {"a": b"old"}

    async def test_a_broken_upload_goes_on_where_it_stopped(self) -> None:
        files = MemoryFiles()
        async with logged_in(files) as peer:
            data = await peer.open_data()
            await peer.expect(150, "STOR a")
            await data.send_all(b"12345")
            while peer.service.counters.accepted and (await peer.do("STAT")).text.find(" 5 bytes") < 0:
                pass
            await data.abort()
            assert (await peer.reply()).code == 426
            assert files.contents() == {}
            await peer.expect(550, "MDTM a")
            assert (await peer.expect(213, "SIZE a")).text == "5"
            await peer.expect(350, "REST 5")
            await peer.send("STOR a", b"6789")
            assert files.contents() == {"a": b"123456789"}

    async def test_appe_goes_on_behind_what_is_there(self) -> None:
        files = MemoryFiles({"a": b"123"})
        async with logged_in(files) as peer:
            await peer.send("APPE a", b"456")
            await peer.send("APPE b", b"new")
            assert files.contents() == {"a": b"123456", "b": b"new"}

    async def test_stou_finds_a_name_and_tells_it(self) -> None:
        files = MemoryFiles({"a": b"old"})
        async with logged_in(files) as peer:
            for argument in ("", " a", " b"):
                data = await peer.open_data()
                reply = await peer.expect(150, f"STOU{argument}")
                name = reply.text.removeprefix("FILE: ")
                await data.send_all(b"new")
                await data.aclose()
                assert (await peer.reply()).code == 226
                assert files.contents()[name] == b"new"
            assert files.contents()["a"] == b"old"
            assert name == "b"

    async def test_retrieving_begins_where_rest_says_and_once_only(self) -> None:
        async with logged_in(MemoryFiles({"a": b"0123456789"})) as peer:
            await peer.expect(350, "REST 7")
            assert await peer.fetch("RETR a") == b"789"
            assert await peer.fetch("RETR a") == b"0123456789"
            await peer.expect_all((350, "REST 3"), (257, "PWD"))
            assert await peer.fetch("RETR a") == b"0123456789"
            async with await peer.open_data():
                await peer.expect_all((350, "REST 11"), (554, "RETR a"))

    async def test_storing_at_an_offset_keeps_what_is_before_it(self) -> None:
        files = MemoryFiles({"a": b"0123456789"})
        async with logged_in(files) as peer:
            await peer.expect(350, "REST 4")
            await peer.send("STOR a", b"xyz")
            assert files.contents() == {"a": b"0123xyz"}
            await peer.expect_all((350, "REST 8"), (554, "STOR a"), (350, "REST 1"), (554, "STOR new"))

    async def test_allo_is_a_promise(self) -> None:
        files = MemoryFiles()
        async with logged_in(files) as peer:
            await peer.expect(200, "ALLO 10")
            await peer.send("STOR a", b"too short", code=426)
            assert files.contents() == {}
            await peer.expect(200, "ALLO 10 R 20")
            await peer.send("STOR a", b"0123456789")
            await peer.send("STOR a", b"short")
            assert files.contents() == {"a": b"short"}

    async def test_lines_end_with_crlf_on_their_way_in_type_a(self) -> None:
        files = MemoryFiles({"a": b"one\ntwo\r\nthree\rfour\n\n"})
        async with logged_in(files) as peer:
            await peer.expect(200, "TYPE A")
            sent = b"one\r\ntwo\r\r\nthree\rfour\r\n\r\n"
            assert await peer.fetch("RETR a") == sent
            async with await peer.open_data():
                assert "bytes)" not in (await peer.expect(150, "RETR a")).text
                await peer.reply()
            assert (await peer.expect(213, "SIZE a")).text == str(len(sent))
            await peer.send("STOR b", sent)
            assert files.contents()["b"] == files.contents()["a"]
            await peer.expect(350, "REST 5")
            assert await peer.fetch("RETR a") == sent[5:]
            await peer.expect(350, "REST 5")
            await peer.send("STOR b", b"2\r\n")
            assert files.contents()["b"] == b"one\n2\n"

    async def test_active_connections_go_to_the_client(self) -> None:
        async with logged_in(MemoryFiles({"a": b"hello"})) as peer:
            for form in ("PORT 127,0,0,1,{0},{1}", "EPRT |1|127.0.0.1|{2}|"):
                async with (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] as listener:
                    port = listener.socket.getsockname()[1]
                    await peer.expect(200, form.format(port // 256, port % 256, port))
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(peer.expect, 150, "RETR a")
                        stream = await listener.accept()
                    assert await stream.receive_some() == b"hello"
                    assert await stream.receive_some() == b""
                    await stream.aclose()
                    assert (await peer.reply()).code == 226

    async def test_pasv_tells_the_servers_address_or_the_one_it_stands_behind(self) -> None:
        async with logged_in() as peer:
            assert "(127,0,0,1," in (await peer.expect(227, "PASV")).text
        async with logged_in(masquerade="192.0.2.7") as peer:
            assert "(192,0,2,7," in (await peer.expect(227, "PASV")).text

    async def test_passive_ports_are_among_those_allowed(self) -> None:
        ports = range(52000, 52020)
        async with logged_in(passive_ports=ports) as peer:
            assert {await peer.passive_port() for _ in range(10)} <= set(ports)

    async def test_data_connections_wear_what_the_service_wears(self) -> None:
        class Noting(Middleware):
            dressed = 0

            def dress(self, stream: Stream) -> None:
                self.dressed += 1

        noting = Noting()
        handler = FTPHandler(MemoryFiles({"a": b"hello"}), anonymous=True)
        async with connected(handler, middleware=[noting]) as peer:
            await peer.log_in()
            await peer.fetch("RETR a")
            await peer.fetch("LIST")
        assert noting.dressed == 3

    async def test_a_client_may_connect_after_the_150(self) -> None:
        async with logged_in(MemoryFiles({"a": b"hello"})) as peer:
            port = await peer.passive_port()
            await peer.expect(150, "RETR a")
            data = await peer.open_data(port)
            assert await data.receive_some() == b"hello"
            await data.aclose()
            assert (await peer.reply()).code == 226

    async def test_a_data_connection_that_does_not_come_is_told(self) -> None:
        async with logged_in(MemoryFiles({"a": b""}), timeouts=FTPTimeouts(data_connection=0.01)) as peer:
            await peer.passive_port()
            await peer.expect(150, "RETR a")
            assert (await peer.reply()).code == 425
            assert await peer.fetch("RETR a") == b""

    async def test_an_upload_on_which_nothing_comes_ends(self) -> None:
        async with logged_in(timeouts=FTPTimeouts(data=0.01)) as peer:
            async with await peer.open_data():
                await peer.expect(150, "STOR a")
                assert (await peer.reply()).code == 426

    async def test_abor_ends_a_transfer_and_the_session_goes_on(self) -> None:
        files = MemoryFiles({"a": bytes(50_000_000)})
        async with logged_in(files) as peer:
            data = await peer.open_data()
            await peer.expect(150, "RETR a")
            await peer.expect(426, "ABOR")
            assert (await peer.reply()).code == 226
            await data.aclose()
            await peer.expect_all((225, "ABOR"), (257, "PWD"))

    async def test_abor_behind_another_command_ends_the_transfer_and_the_replies_keep_their_order(self) -> None:
        async with logged_in(MemoryFiles({"a": bytes(50_000_000)})) as peer:
            data = await peer.open_data()
            await peer.expect(150, "RETR a")
            await peer.stream.send_all(b"PWD\r\nABOR\r\nSYST\r\n")
            assert [(await peer.reply()).code for _ in range(4)] == [426, 257, 225, 215]
            await data.aclose()

    async def test_a_client_that_vanishes_behind_commands_that_wait_is_noticed(self) -> None:
        files = MemoryFiles()
        async with logged_in(files) as peer:
            data = await peer.open_data()
            await peer.expect(150, "STOR a")
            await peer.stream.send_all(b"PWD\r\n")
            await peer.stream.abort()
            while peer.service.open:
                await trio.testing.wait_all_tasks_blocked(0.001)
            await data.aclose()
        assert files.contents() == {}

    async def test_abor_with_telnets_interrupt_is_heard(self) -> None:
        async with logged_in(MemoryFiles({"a": bytes(50_000_000)})) as peer:
            data = await peer.open_data()
            await peer.expect(150, "RETR a")
            assert (await peer.raw(b"\xff\xf4\xff\xf2ABOR\r\n")).code == 426
            assert (await peer.reply()).code == 226
            await data.aclose()

    async def test_stat_during_a_transfer_tells_how_far_it_is(self) -> None:
        async with logged_in() as peer:
            data = await peer.open_data()
            await peer.expect(150, "STOR a")
            assert re.match(r"STOR /a: \d+ bytes so far", (await peer.expect(213, "STAT")).text)
            await peer.expect(200, "NOOP")
            await data.aclose()
            assert (await peer.reply()).code == 226

    async def test_other_commands_wait_for_the_end_of_the_transfer(self) -> None:
        async with logged_in() as peer:
            data = await peer.open_data()
            await peer.expect(150, "STOR a")
            await peer.stream.send_all(b"SIZE a\r\nQUIT\r\n")
            await data.send_all(b"12")
            await data.aclose()
            assert [(await peer.reply()).code for _ in range(3)] == [226, 213, 221]
            await peer.expect_end()

    async def test_commands_that_come_together_are_answered_in_order(self) -> None:
        async with logged_in(MemoryFiles({"a": b"hello"})) as peer:
            await peer.stream.send_all(b"PWD\r\nSIZE a\r\nNOOP\r\nFOO\r\nSYST\r\n")
            assert [(await peer.reply()).code for _ in range(5)] == [257, 213, 200, 500, 215]


class TestListings:
    async def test_list_looks_like_ls(self) -> None:
        files = MemoryFiles({"folder/x": b"", "a b": b"hello"})
        async with logged_in(files) as peer:
            lines = (await peer.fetch("LIST")).decode().split("\r\n")
            assert sorted(re.sub(r"[A-Z][a-z]{2} [ \d]\d [\d:]+", "DATE", line) for line in lines) == [
                "",
                "-rw-r--r--   1 ftp      ftp                 5 DATE a b",
                "drwxr-xr-x   1 ftp      ftp                 0 DATE folder",
            ]

    async def test_old_entries_have_their_year(self) -> None:
        files = MemoryFiles({"a": b""})
        async with logged_in(files) as peer:
            await peer.expect(213, "MFMT 20010203040506 a")
            assert b" Feb  3  2001 a\r\n" in await peer.fetch("LIST")

    async def test_the_options_of_ls_are_no_path(self) -> None:
        async with logged_in(MemoryFiles({"folder/x": b"", ".hidden": b""})) as peer:
            for command in ("LIST -a", "LIST -la", "LIST -l -a .", "LIST"):
                assert b".hidden" in await peer.fetch(command)
            assert b" x\r\n" in await peer.fetch("LIST -la folder")

    async def test_nlst_gives_names_that_can_be_asked_for(self) -> None:
        async with logged_in(MemoryFiles({"f/a.txt": b"", "f/b.txt": b"", "f/c": b"", "top": b""})) as peer:
            for command, names in {
                "NLST": ["f", "top"],
                "NLST f": ["f/a.txt", "f/b.txt", "f/c"],
                "NLST f/": ["f/a.txt", "f/b.txt", "f/c"],
                "NLST f/*.txt": ["f/a.txt", "f/b.txt"],
                "NLST t?p": ["top"],
                "NLST top": ["top"],
                "NLST *.zip": [],
            }.items():
                assert sorted((await peer.fetch(command)).decode().split()) == names, command
            await peer.expect(550, "NLST nothing")

    async def test_mlsd_and_mlst_tell_the_facts(self) -> None:
        files = MemoryFiles({"folder/": b"", "a": b"hello"})
        async with logged_in(files) as peer:
            await peer.expect(213, "MFMT 20010203040506 a")
            lines = (await peer.fetch("MLSD")).decode()
            facts = r"type=file;size=5;modify=20010203040506;perm=adfrw;unique=\S+;unix\.mode=0644;"
            assert re.search(rf"^{facts} a\r$", lines, re.MULTILINE)
            assert re.search(r"^type=dir;modify=\d{14};perm=cdeflmp;\S* folder\r$", lines, re.MULTILINE)
            reply = await peer.expect(250, "MLST a")
            assert re.fullmatch(r" type=file;size=5;.*; /a", reply.lines[1])
            await peer.expect_all((200, "OPTS MLST size;type;nonsense;"), (501, "MLSD a"))
            assert b"type=file;size=5; a\r\n" in await peer.fetch("MLSD")
            assert "MLST Type*;Size*;Modify;" in (await peer.expect(211, "FEAT")).text

    async def test_names_with_line_ends_forge_no_entry(self, tmp_path: Any) -> None:
        (tmp_path / "a\r\ntype=file; b").write_bytes(b"")
        async with logged_in(tmp_path) as peer:
            for command in ("LIST", "NLST", "MLSD"):
                assert (await peer.fetch(command)).count(b"\n") == 1

    async def test_stat_lists_on_the_control_connection(self) -> None:
        async with logged_in(MemoryFiles({"f/a": b"", "f/b": b""})) as peer:
            assert len((await peer.expect(212, "STAT f")).lines) == 4
            assert len((await peer.expect(213, "STAT f/a")).lines) == 3
            await peer.expect_all((550, "STAT nothing"), (211, "STAT"))


class TestInformation:
    async def test_times_are_told_and_set(self) -> None:
        async with logged_in(MemoryFiles({"a": b""})) as peer:
            await peer.expect(213, "MFMT 20200102030405 a")
            assert (await peer.expect(213, "MDTM a")).text == "20200102030405"
            await peer.expect(253, "MDTM 20210102030405 a")
            assert (await peer.expect(213, "MDTM a")).text == "20210102030405"
            await peer.expect_all((501, "MFMT 2020 a"), (501, "MFMT 20209902030405 a"), (550, "MDTM nothing"))

    async def test_modes_are_set(self) -> None:
        files = MemoryFiles({"a": b""})
        async with logged_in(files) as peer:
            await peer.expect(200, "SITE CHMOD 640 a")
            assert b"-rw-r-----" in await peer.fetch("LIST")
            await peer.expect_all((501, "SITE CHMOD 9 a"), (504, "SITE NONSENSE"), (214, "SITE HELP"))

    async def test_contents_are_hashed(self) -> None:
        async with logged_in(MemoryFiles({"a b": b"hello"})) as peer:
            sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
            assert (await peer.expect(213, "HASH a b")).text == f"SHA-256 0-4 {sha256} a b"
            await peer.expect_all((200, "OPTS HASH CRC32"), (501, "OPTS HASH MD2"))
            assert (await peer.expect(213, "HASH a b")).text == "CRC32 0-4 3610a686 a b"
            await peer.expect(350, "RANG 1 2")
            assert (await peer.expect(213, "HASH a b")).text == "CRC32 1-2 1d57a06e a b"
            assert (await peer.expect(250, "XCRC a b")).text == "3610A686"
            assert (await peer.expect(250, 'XSHA256 "a b"')).text == sha256.upper()
            assert (await peer.expect(250, 'XMD5 "a b" 0 5')).text == "5D41402ABC4B2A76B9719D911017C592"
            await peer.expect_all((550, "HASH nothing"), (550, 'XMD5 "a b" 4 3'))

    async def test_feat_lists_what_there_is(self) -> None:
        async with connected(FTPHandler(MemoryFiles(), anonymous=True)) as peer:
            lines = {line.strip() for line in (await peer.expect(211, "FEAT")).lines}
            assert {"UTF8", "TVFS", "SIZE", "MDTM", "MFMT", "REST STREAM", "EPSV", "EPRT", "CLNT"} <= lines
            assert not {"AUTH TLS", "PBSZ", "PROT"} & lines

    async def test_help_knows_every_command(self) -> None:
        from asyncnet.ftp.declarations import COMMANDS

        async with connected(FTPHandler(MemoryFiles(), anonymous=True)) as peer:
            text = (await peer.expect(214, "HELP")).text
            for verb in COMMANDS:
                assert verb in text
                await peer.expect(214, f"HELP {verb}")
            await peer.expect_all((501, "HELP nonsense"), (214, "HELP site chmod"))

    async def test_what_others_have_and_we_have_not_is_refused(self) -> None:
        async with logged_in() as peer:
            await peer.expect_all(
                *((504, "MODE B"), (504, "STRU R"), (504, "TYPE E"), (504, "OPTS UTF8 OFF"), (504, "LANG fr")),
                *((200, "MODE S"), (200, "STRU F"), (200, "TYPE L 8"), (200, "OPTS UTF8 ON"), (200, "LANG")),
                *((215, "SYST"), (202, "ACCT x"), (500, "SMNT x"), (502, "AUTH TLS"), (503, "PBSZ 0"), (503, "PROT P")),
            )


class TestEvents:
    async def test_an_embedding_program_is_told_of_what_happens(self) -> None:
        told: list[Any] = []

        async def note(event: object) -> None:
            told.append(event)

        names = ("login", "stored", "retrieved", "removed", "renamed", "folder_made", "folder_removed")
        events: Any = {f"on_{name}": note for name in names}
        async with logged_in(**events) as peer:
            await peer.send("STOR a", b"hello")
            await peer.fetch("RETR a")
            await peer.expect_all((350, "RNFR a"), (250, "RNTO b"), (250, "DELE b"), (257, "MKD c"), (250, "RMD c"))
        assert [(type(event).__name__, getattr(event, "path", None)) for event in told] == [
            ("LoggedIn", None),
            ("Moved", ("a",)),
            ("Moved", ("a",)),
            ("Changed", ("b",)),
            ("Changed", ("b",)),
            ("Changed", ("c",)),
            ("Changed", ("c",)),
        ]
        assert told[1].size == 5
        assert told[3].old_path == ("a",)

    async def test_an_event_that_fails_ends_the_connection_without_the_226(self) -> None:
        async def fail(event: object) -> None:
            raise ValueError("no")

        files = MemoryFiles()
        async with logged_in(files, on_stored=fail) as peer:
            data = await peer.open_data()
            await peer.expect(150, "STOR a")
            await data.aclose()
            with pytest.raises(trio.BrokenResourceError):
                await peer.stream.receive_some()
        assert files.contents() == {"a": b""}

    @pytest.mark.parametrize("ending", ["ABOR", "leaves"])
    async def test_a_stored_file_is_told_to_the_end_even_if_the_client_does_not_wait(self, ending: str) -> None:
        begun, heard, told = trio.Event(), trio.Event(), trio.Event()

        async def note(event: object) -> None:
            begun.set()
            await heard.wait()
            told.set()

        async with logged_in(on_stored=note) as peer:
            await peer.expect(257, "MKD made")
            data = await peer.open_data()
            await peer.expect(150, "STOR a")
            await data.aclose()
            await begun.wait()
            assert (await peer.do("NOOP")).code == 200  # commands are heard by now
            if ending == "ABOR":
                await peer.stream.send_all(b"ABOR\r\n")
            else:
                await peer.stream.aclose()
            await trio.testing.wait_all_tasks_blocked(0.005)
            heard.set()
            with trio.fail_after(10):
                await told.wait()
            if ending == "ABOR":
                assert [(await peer.reply()).code for _ in range(2)] == [226, 226]

    async def test_transfers_are_logged_in_the_form_of_xferlog(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "asyncnet.ftp.transfers")
        async with logged_in() as peer:
            await peer.send("STOR a b", b"hello")
            await peer.fetch("RETR a b")
            await peer.expect(250, "DELE a b")
        lines = [record.getMessage() for record in caplog.records if record.name == "asyncnet.ftp.transfers"]
        date = time.strftime("%a %b")
        assert [re.sub(r"^.*?\d{4} \d+ ", "", line) for line in lines] == [
            f"127.0.0.1 {size} /a_b b _ {direction} a anonymous ftp 0 * c"
            for size, direction in ((5, "i"), (5, "o"), (0, "d"))
        ]
        assert all(line.startswith(date) for line in lines)


class TestEnds:
    async def test_quit_says_goodbye(self) -> None:
        async with logged_in() as peer:
            await peer.expect(221, "QUIT")
            await peer.expect_end()

    async def test_a_drain_says_goodbye_to_who_is_idle_and_waits_for_transfers(self) -> None:
        files = MemoryFiles()
        async with logged_in(files) as peer:
            data = await peer.open_data()
            await peer.expect(150, "STOR a")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.service.drain)
                await peer.service.drain_begun.wait()
                await data.send_all(b"whole")
                await data.aclose()
                assert (await peer.reply()).code == 226
                assert (await peer.reply()).code == 421
                await peer.expect_end()
        assert files.contents() == {"a": b"whole"}

    async def test_who_does_not_log_in_is_sent_away(self) -> None:
        handler = FTPHandler(MemoryFiles(), anonymous=True, timeouts=FTPTimeouts(login=0.01))
        async with connected(handler) as peer:
            assert (await peer.reply()).code == 421
            await peer.expect_end()

    @pytest.mark.parametrize("command", ["USER anonymous", "REIN"])
    async def test_another_login_has_its_own_time(self, command: str, mock_clock: trio.testing.MockClock) -> None:
        async with logged_in() as peer:
            mock_clock.jump(100)
            await peer.expect(200, "NOOP")
            await peer.do(command)
            await peer.log_in()

    async def test_who_says_nothing_more_is_sent_away(self) -> None:
        async with logged_in(timeouts=FTPTimeouts(command=0.05)) as peer:
            assert (await peer.reply()).code == 421
            await peer.expect_end()
