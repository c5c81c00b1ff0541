"""POP3 with the programs that people have: curl, fetchmail, getmail and Python's poplib fetch from our server; our
client fetches from Dovecot, which reads and writes the same Maildirs."""

from __future__ import annotations

import mailbox as stdlib
import os
import poplib
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio
import trustme

from asyncnet.auth.identity import Identity
from asyncnet.mailbox.maildir import Maildir, Maildirs
from asyncnet.mailbox.storage import Flag, Mailbox, Message
from asyncnet.pop3.client import POP3Client, ReplyError
from asyncnet.pop3.server import POP3Handler
from asyncnet.transports.certificates import ServerTLS
from tests.interop.pop3_servers import PASSWORD, Dovecot, dovecot
from tests.interop.test_ftp import run
from tests.interop.test_http import serving

MAILS = (
    b"From: bert@example.org\r\nTo: anna@example.org\r\nSubject: one\r\nMessage-ID: <1@example.org>\r\n\r\nHello.\r\n",
    b"From: bert@example.org\r\nSubject: dots\r\nMessage-ID: <2@example.org>\r\n\r\n.\r\n..\r\n.a\r\n\r\nend\r\n",
    b"From: carl@example.org\r\nSubject: large\r\nMessage-ID: <3@example.org>\r\n\r\n" + (b"x" * 70 + b"\r\n") * 30_000,
    b"From: carl@example.org\r\nSubject: caf\xc3\xa9\r\nMessage-ID: <4@example.org>\r\n\r\ncaf\xe9\r\n",
)


class Users:
    """Anna, whose password is `PASSWORD`."""

    async def verify(self, name: str, password: str, *, peer: object) -> Identity | None:
        await trio.lowlevel.checkpoint()
        return Identity("anna") if (name, password) == ("anna", PASSWORD) else None

    async def scram_keys(self, name: str) -> None:
        return None


async def deliver(box: Mailbox, content: bytes) -> Message:
    incoming = await box.deliver()
    await incoming.write(content)
    return await incoming.commit()


async def read(box: Mailbox, uid: str) -> bytes:
    return b"".join([piece async for piece in box.read(uid)])


@pytest.fixture
async def box(tmp_path: Path) -> Maildir:
    """Anna's mailbox."""
    box = await Maildirs(tmp_path / "mail", create=True).of("anna")
    for number, content in enumerate(MAILS):
        message = await deliver(box, content)
        (place,) = (tmp_path / "mail" / "anna" / "new").glob(f"{message.uid}*")
        os.utime(place, (1_600_000_000 + number, 1_600_000_000 + number))
    return box


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("localhost", "127.0.0.1", common_name="localhost")  # fetchmail looks for that
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    return tmp_path / "server.pem"


@asynccontextmanager
async def pop3(folder: Path, endpoint: str = "tcp://127.0.0.1:0", **options: Any) -> AsyncIterator[int]:
    """The port of a server of the mailboxes in `folder`/mail."""
    async with serving(POP3Handler(Maildirs(folder / "mail"), Users(), **options), endpoint) as service:
        yield int(service.endpoints[0].partition("?")[0].rpartition(":")[2])


def tls_endpoint(certificate: Path) -> str:
    return f"tls://127.0.0.1:0?cert={quote(str(certificate))}"


class TestPoplib:
    @staticmethod
    def fetch(session: poplib.POP3) -> list[bytes]:
        """Everything that poplib can, and all but the second message deleted."""
        assert session.getwelcome() == b"+OK asyncnet is ready."
        assert "UIDL" in session.capa()
        with pytest.raises(poplib.error_proto, match="AUTH"):
            session.user("anna")
            session.pass_("wrong")
        session.user("anna")
        session.pass_(PASSWORD)
        count, size = session.stat()
        assert (count, size) == (4, sum(map(len, MAILS)))
        assert session.list()[1] == [f"{number} {len(mail)}".encode() for number, mail in enumerate(MAILS, 1)]
        assert len({line.split()[1] for line in session.uidl()[1]}) == 4
        assert session.uidl(2) is not None
        assert session.top(1, 0)[1] == MAILS[0].split(b"\r\n")[:-2]
        found = []
        for number in range(1, count + 1):
            _, lines, octets = session.retr(number)
            assert octets == len(MAILS[number - 1])
            found.append(b"".join(line + b"\r\n" for line in lines))
            session.dele(number)
        session.rset()
        for number in (1, 3, 4):
            session.dele(number)
        session.quit()
        return found

    @pytest.mark.parametrize("way", ["clear", "stls", "tls"])
    async def test_everything_that_it_can(self, tmp_path: Path, box: Maildir, certificate: Path, way: str) -> None:
        context = ssl.create_default_context(cafile=tmp_path / "ca.pem")

        def talk(port: int) -> list[bytes]:
            if way == "tls":
                return self.fetch(poplib.POP3_SSL("localhost", port, timeout=30, context=context))
            session = poplib.POP3("localhost", port, timeout=30)
            if way == "stls":
                session.stls(context)
            return self.fetch(session)

        endpoint = tls_endpoint(certificate) if way == "tls" else "tcp://127.0.0.1:0"
        tls = ServerTLS(certificate) if way == "stls" else None
        async with pop3(tmp_path, endpoint, tls=tls) as port:
            assert await trio.to_thread.run_sync(talk, port) == list(MAILS)
        (left,) = await box.messages()
        assert (await read(box, left.uid), left.flags) == (MAILS[1], {Flag.SEEN})

    async def test_it_takes_our_greeting_for_no_apop(self, tmp_path: Path, box: Maildir) -> None:
        def talk(port: int) -> None:
            session = poplib.POP3("localhost", port, timeout=30)
            with pytest.raises(poplib.error_proto, match="APOP not supported"):
                session.apop("anna", PASSWORD)
            session.close()

        async with pop3(tmp_path) as port:
            await trio.to_thread.run_sync(talk, port)


async def curl(*options: str | Path) -> bytes:
    return await run("curl", "--silent", "--show-error", "--user", f"anna:{PASSWORD}", *options)


class TestCurl:
    async def test_lists_messages_and_commands(self, tmp_path: Path, box: Maildir) -> None:
        async with pop3(tmp_path) as port:
            base = f"pop3://localhost:{port}"
            sizes = "".join(f"{number} {len(mail)}\r\n" for number, mail in enumerate(MAILS, 1))
            assert (await curl(base)).decode() == sizes
            assert [await curl(f"{base}/{number}") for number in range(1, 5)] == list(MAILS)
            assert (await curl("--list-only", f"{base}/1")) == b""
            assert len((await curl("--request", "UIDL", base)).splitlines()) == 4
            assert await curl("--request", "TOP 2 1", base) == MAILS[1].partition(b".\r\n..")[0] + b".\r\n"
            await curl("--request", "DELE", "--head", f"{base}/2")
        assert len(await box.messages()) == 3

    @pytest.mark.parametrize("login", ["AUTH=PLAIN", "AUTH=LOGIN", "AUTH=*"])
    async def test_every_way_to_log_in_in_tls(
        self, tmp_path: Path, box: Maildir, certificate: Path, login: str
    ) -> None:
        ways = ["--cacert", tmp_path / "ca.pem", "--login-options", login]
        async with pop3(tmp_path, tls=ServerTLS(certificate)) as port:
            assert await curl(*ways, "--ssl-reqd", f"pop3://localhost:{port}/1") == MAILS[0]
        async with pop3(tmp_path, tls_endpoint(certificate)) as port:
            assert await curl(*ways, f"pop3s://localhost:{port}/2") == MAILS[1]


def saver(folder: Path) -> Path:
    """A program that puts its standard input into a file of its own, FOLDER/fetched-…"""
    path = folder / "save"
    path.write_text(f"#!/bin/sh\nexec cat >$(mktemp {folder}/fetched-XXXXXX)\n")
    path.chmod(0o755)
    return path


def bodies(*mails: bytes) -> list[bytes]:
    """What stands behind the heads, to which such programs add."""
    return sorted(mail.replace(b"\r\n", b"\n").partition(b"\n\n")[2] for mail in mails)


class TestFetchmail:
    @pytest.mark.parametrize("way", ["clear", "stls", "tls"])
    async def test_it_fetches_everything_and_deletes_it(
        self, tmp_path: Path, box: Maildir, certificate: Path, way: str
    ) -> None:
        (tmp_path / "home").mkdir()
        save = saver(tmp_path)
        endpoint = tls_endpoint(certificate) if way == "tls" else "tcp://127.0.0.1:0"
        tls = ServerTLS(certificate) if way == "stls" else None
        async with pop3(tmp_path, endpoint, tls=tls) as port:
            security = {
                "clear": 'sslproto ""',
                "stls": f'sslproto "auto" sslcertck sslcertfile "{tmp_path}/ca.pem"',
                "tls": f'ssl sslcertck sslcertfile "{tmp_path}/ca.pem"',
            }[way]
            (tmp_path / "rc").write_text(
                f'poll localhost protocol pop3 port {port} uidl user "anna" password "{PASSWORD}" '
                f'{security} fetchall no keep no rewrite mda "{save}"\n'
            )
            (tmp_path / "rc").chmod(0o600)
            await run("fetchmail", "--fetchmailrc", tmp_path / "rc", "--nosyslog", cwd=tmp_path / "home")
        fetched = [path.read_bytes() for path in tmp_path.glob("fetched-*")]
        assert bodies(*fetched) == bodies(*MAILS)
        assert await box.messages() == []


class TestGetmail:
    @pytest.mark.parametrize("way", ["clear", "tls"])
    async def test_it_fetches_what_is_new_and_leaves_it(
        self, tmp_path: Path, box: Maildir, certificate: Path, way: str
    ) -> None:
        (tmp_path / "home").mkdir()
        save = saver(tmp_path)
        kind, more = "SimplePOP3Retriever", ""
        if way == "tls":
            kind, more = "SimplePOP3SSLRetriever", f"ca_certs = {tmp_path}/ca.pem\n"
        async with pop3(tmp_path, tls_endpoint(certificate) if way == "tls" else "tcp://127.0.0.1:0") as port:
            (tmp_path / "home" / "rc").write_text(
                f"[retriever]\ntype = {kind}\nserver = localhost\nport = {port}\nusername = anna\n"
                f"password = {PASSWORD}\n{more}[destination]\ntype = MDA_external\npath = {save}\n"
                f"unixfrom = false\nallow_root_commands = true\n"
                f"[options]\nread_all = false\ndelete = false\ndelivered_to = false\nreceived = false\n"
            )
            for _ in range(2):  # the second time it knows them by their ids
                await run("getmail", "--getmaildir", tmp_path / "home", "--rcfile", "rc", cwd=tmp_path / "home")
        fetched = [path.read_bytes() for path in tmp_path.glob("fetched-*")]
        assert bodies(*fetched) == bodies(*MAILS)
        assert len(await box.messages()) == 4


@pytest.fixture
def server() -> Iterator[Dovecot]:
    with dovecot() as running:
        yield running


async def fill(server: Dovecot) -> Maildir:
    box = Maildir(server.mail / "anna")
    for content in MAILS:
        await deliver(box, content)
    server.own()
    return box


class TestDovecot:
    @pytest.mark.parametrize("scheme", ["pop3", "pop3s"])
    async def test_our_client_fetches_from_it(self, server: Dovecot, scheme: str) -> None:
        box = await fill(server)
        tls = ssl.create_default_context(cafile=server.ca)
        url = f"{scheme}://anna@localhost:{server.tls_port if scheme == 'pop3s' else server.port}"
        with pytest.raises(ReplyError) as caught:
            async with POP3Client.connect(url, password="wrong", tls=tls):
                raise AssertionError
        assert caught.value.code == "AUTH"
        async with POP3Client.connect(url, password=PASSWORD, tls=tls) as pop3:
            assert pop3.stream.tls is not None
            assert await pop3.stat() == (4, sum(map(len, MAILS)))
            sizes = await pop3.list()
            found = {number: await pop3.read(number) for number in sizes}
            assert sorted(found.values()) == sorted(MAILS)
            assert {number: len(content) for number, content in found.items()} == sizes
            assert len(set((await pop3.uidl()).values())) == 4
            for number, content in found.items():
                assert await pop3.top(number, 0) == content.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            await pop3.delete(1)
            await pop3.reset()
            await pop3.delete(2)
        assert sorted([await read(box, one.uid) for one in await box.messages()]) == sorted(
            content for number, content in found.items() if number != 2
        )

    async def test_scram_is_what_it_logs_in_by(self, server: Dovecot) -> None:
        await fill(server)
        url = f"pop3://localhost:{server.port}"
        async with POP3Client.connect(url, tls=ssl.create_default_context(cafile=server.ca)) as pop3:
            assert "SCRAM-SHA-256" in (await pop3.capabilities())["SASL"]
            # Where no password may pass, there is nothing else.
            pop3._may_tell_password = lambda: False  # type: ignore[method-assign]
            await pop3.login("anna", PASSWORD)
            assert (await pop3.stat())[0] == 4

    async def test_a_message_that_is_left_early_closes_the_connection(self, server: Dovecot) -> None:
        await fill(server)
        url = f"pop3://anna@localhost:{server.port}"
        async with POP3Client.connect(url, password=PASSWORD, starttls=False) as pop3:
            number = max(await pop3.list(), key=(await pop3.list()).__getitem__)
            async with pop3.retrieve(number) as pieces:
                await pieces.receive_some()
            assert pop3.is_closed

    async def test_it_and_we_use_one_maildir_at_a_time_and_know_messages_again(self, server: Dovecot) -> None:
        box = await fill(server)
        before = {message.uid: message for message in await box.messages()}
        url = f"pop3://anna@localhost:{server.port}"
        async with POP3Client.connect(url, password=PASSWORD, starttls=False) as pop3:
            await pop3.read(1)  # which it marks as seen, by another name
            await deliver(box, MAILS[0])
        found = {message.uid: message for message in await box.messages()}
        assert before.keys() < found.keys()
        assert [message.flags for uid, message in found.items() if uid in before].count(frozenset({Flag.SEEN})) == 1
        assert [message.size for uid, message in found.items() if uid in before] == [
            message.size for message in before.values()
        ]
        assert len(list(stdlib.Maildir(server.mail / "anna", create=False))) == 5
