"""The SMTP and LMTP client against real servers: aiosmtpd, Postfix's smtp-sink, and our own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import IO, Any

import pytest
import trio
import trustme

from asyncnet import serve
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.client import (
    MessageRefused,
    NotSupported,
    OutcomeUnknown,
    PermanentReplyError,
    ServiceClosing,
    SMTPClient,
    StartTLS,
)
from asyncnet.smtp.client_transaction import CHUNK
from asyncnet.smtp.delivery import Role
from asyncnet.smtp.envelope import Body, Envelope, Notify, Recipient, Returned
from asyncnet.smtp.message import parse_message, serialize
from asyncnet.smtp.server import SMTPHandler
from tests.smtp.recorder import Recorder, Users

ROOT = Path(__file__).parents[2]
LETTER = b"From: anna@example.org\r\nTo: carl@example.net\r\nSubject: hello\r\n\r\n.\r\n..\r\nhello\r\n"
ANNA, CARL = "anna@example.org", "carl@example.net"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificate") / "cert.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return path


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


# aiosmtpd


class Printed:
    """aiosmtpd's URL, and what it has printed."""

    def __init__(self, scheme: str, output: IO[str]) -> None:
        self._output = output
        self.url = f"{scheme}://127.0.0.1:{output.readline().strip()}"

    async def message(self) -> dict[str, Any]:
        line = await trio.to_thread.run_sync(self._output.readline)
        message: dict[str, Any] = json.loads(line)
        return message


@contextmanager
def aiosmtpd(*arguments: object) -> Iterator[Printed]:
    pytest.importorskip("aiosmtpd")
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.interop.aiosmtpd_server", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield Printed(str(arguments[0]), process.stdout)
        finally:
            process.kill()


async def test_aiosmtpd_gets_messages_and_refuses_some_recipients() -> None:
    with aiosmtpd("smtp") as server:
        async with SMTPClient.connect(server.url) as smtp:
            sent = await smtp.send(ANNA, [CARL, "nobody@example.net"], LETTER)
            assert [outcome.is_accepted for outcome in sent.outcomes] == [True, False]
            assert sent.refused[0].enhanced == "5.1.1"
            message = await server.message()
            assert (message["sender"], message["recipients"]) == (ANNA, [CARL])
            assert message["content"].encode("latin-1") == LETTER
            with pytest.raises(MessageRefused):
                await smtp.send(ANNA, ["nobody@example.net"], LETTER)
            await smtp.send(ANNA, [CARL], b"again\n")
            assert (await server.message())["content"] == "again\r\n"


async def test_aiosmtpd_gets_what_is_beyond_ascii() -> None:
    message = EmailMessage()
    message["From"] = "Anna <anna@example.org>"
    message["To"] = "J\u00fcrgen <j\u00fcrgen@b\u00fccher.example>"
    message["Subject"] = "gr\u00fc\u00dfe"
    message.set_content("gr\u00fc\u00dfe\n")
    with aiosmtpd("smtp") as server:
        async with SMTPClient.connect(server.url) as smtp:
            await smtp.send_message(message)
            told = await server.message()
    assert "SMTPUTF8" in told["options"]
    assert told["recipients"] == ["j\u00fcrgen@b\u00fccher.example"]
    assert parse_message(told["content"].encode("latin-1"))["Subject"] == "gr\u00fc\u00dfe"


async def test_aiosmtpd_lets_in_over_tls(certificate: Path, trusting: ssl.SSLContext) -> None:
    with aiosmtpd("smtp", certificate) as server:
        url = server.url.replace("//", "//anna:secret@")
        async with SMTPClient.connect(url, tls=trusting) as smtp:
            assert smtp.tls is not None
            await smtp.send(ANNA, [CARL], LETTER)
        message = await server.message()
        assert (message["tls"], message["user"]) == (True, "anna")
        async with SMTPClient.connect(server.url) as smtp:
            assert smtp.tls is not None  # with nobody verified
        with pytest.raises(PermanentReplyError, match="535"):
            async with SMTPClient.connect(url.replace("secret", "hunter2"), tls=trusting):
                raise AssertionError
        with pytest.raises(NotSupported):
            async with SMTPClient.connect(url, starttls=StartTLS.NEVER):
                raise AssertionError  # it lets nobody in without TLS


async def test_aiosmtpds_lmtp_answers_for_each() -> None:
    with aiosmtpd("lmtp") as server:
        async with SMTPClient.connect(server.url) as lmtp:
            sent = await lmtp.send(ANNA, [CARL, "nobody@example.net", "full@example.net"], LETTER)
            assert [outcome.enhanced for outcome in sent.outcomes] == ["2.0.0", "5.1.1", "4.2.2"]
            await lmtp.send(ANNA, [CARL], LETTER)


# smtp-sink


@asynccontextmanager
async def sink(folder: Path, *options: str, scheme: str = "smtp") -> AsyncIterator[tuple[str, Path]]:
    """The URL of Postfix's smtp-sink, and the folder that it writes messages to."""
    program = shutil.which("smtp-sink", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        pytest.skip("smtp-sink is not installed: it comes with Postfix")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    user: list[str] = []
    if os.geteuid() == 0:
        user = ["-u", "nobody"]
        folder.chmod(0o777)
    for parent in folder.parents:
        if parent.owner() == folder.owner() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)  # pytest's own folders are for nobody else
    command = [program, *user, *options, "-d", f"{folder}/message.", f"127.0.0.1:{port}", "10"]
    with subprocess.Popen(command) as process:
        try:
            await wait_for_port(port)
            yield f"{scheme}://127.0.0.1:{port}", folder
        finally:
            process.kill()


async def wait_for_port(port: int) -> None:
    with trio.fail_after(30):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                return
            except OSError:
                await trio.sleep(0.02)


def dumped(folder: Path) -> list[bytes]:
    """The messages, with LF at line ends, without the fields that smtp-sink puts in front."""
    return sorted(path.read_bytes().partition(b"From: anna")[2] for path in folder.iterdir())


@pytest.mark.parametrize("options", [(), ("-p",), ("-8", "-E", "-N", "-p"), ("-e",)])
async def test_smtp_sink_gets_messages_whatever_it_offers(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with sink(tmp_path, *options) as (url, folder):
        async with SMTPClient.connect(url) as smtp:
            assert smtp.extensions.pipelining is not (options != ())
            for _ in range(3):
                sent = await smtp.send(ANNA, [CARL, "dora@example.net"], LETTER)
                assert not sent.refused
            large = LETTER + (b"." * 70 + b"\r\n") * 50_000
            await smtp.send(ANNA, [CARL], large)
        wanted = [content.partition(b"From: anna")[2].replace(b"\r\n", b"\n") for content in (LETTER,) * 3 + (large,)]
        assert [message.rstrip(b"\n") for message in dumped(folder)] == [one.rstrip(b"\n") for one in sorted(wanted)]


@pytest.mark.parametrize(
    ("options", "command"),
    [(("-f", "MAIL"), "MAIL"), (("-f", "RCPT"), "RCPT"), (("-r", "DATA"), "DATA"), (("-f", "."), "the message")],
)
async def test_smtp_sinks_refusals_leave_the_connection_usable(
    tmp_path: Path, options: tuple[str, ...], command: str
) -> None:
    async with sink(tmp_path, *options) as (url, _):
        async with SMTPClient.connect(url) as smtp:
            for _ in range(3):
                with pytest.raises(MessageRefused) as caught:
                    await smtp.send(ANNA, [CARL], LETTER)
                assert caught.value.outcomes[0].command == command
                assert caught.value.is_permanent is ("-f" in options)
                assert smtp.is_usable


async def test_smtp_sink_that_leaves_without_an_answer(tmp_path: Path) -> None:
    async with sink(tmp_path, "-q", ".") as (url, _):
        async with SMTPClient.connect(url) as smtp:
            with pytest.raises(OutcomeUnknown):
                await smtp.send(ANNA, [CARL], LETTER)
            assert smtp.is_closed


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "."])
async def test_smtp_sink_that_closes_with_421(tmp_path: Path, command: str) -> None:
    async with sink(tmp_path, "-Q", command) as (url, _):
        async with SMTPClient.connect(url) as smtp:
            with pytest.raises(MessageRefused) as caught:
                await smtp.send(ANNA, [CARL], LETTER)
            assert isinstance(caught.value.outcomes[0].error, ServiceClosing)
            assert smtp.is_closed


async def test_smtp_sink_that_refuses_in_the_middle_and_reads_no_more(tmp_path: Path) -> None:
    async with sink(tmp_path, "-A", "0") as (url, _):
        async with SMTPClient.connect(url) as smtp:
            with pytest.raises(MessageRefused, match="550"):
                await smtp.send(ANNA, [CARL], b"x" * 70_000_000)
            assert smtp.is_closed


async def test_smtp_sinks_lmtp_answers_for_each(tmp_path: Path) -> None:
    async with sink(tmp_path, "-L", scheme="lmtp") as (url, folder):
        async with SMTPClient.connect(url) as lmtp:
            sent = await lmtp.send(ANNA, [CARL, "dora@example.net"], LETTER)
            assert [outcome.is_accepted for outcome in sent.outcomes] == [True, True]
            await lmtp.send(ANNA, [CARL], LETTER)
        assert len(dumped(folder)) == 2


# Our own


@asynccontextmanager
async def ours(recorder: Recorder, **options: Any) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        handler = SMTPHandler(recorder, hostname="mx.example", **options)
        service = await nursery.start(lambda task_status: serve(handler, "tcp://127.0.0.1:0", task_status=task_status))
        yield service.endpoints[0].replace("tcp", "lmtp" if options.get("role") is Role.LMTP else "smtp")
        nursery.cancel_scope.cancel()


async def test_our_server_gets_all_that_the_client_can_say() -> None:
    recorder = Recorder()
    sender = MailAddress.parse("j\u00fcrgen@example.org")
    envelope = Envelope(sender, international=True, returned=Returned.HEADERS, envelope_id="a+b=c")
    recipient = Recipient(
        MailAddress.parse(CARL), frozenset({Notify.SUCCESS, Notify.DELAY}), "rfc822;karl+x@example.net"
    )
    async with ours(recorder) as url:
        async with SMTPClient.connect(url) as smtp:
            await smtp.send(envelope, [recipient], LETTER + b"\xc3\xbc\r\n")
            await smtp.send(Envelope(None, body=Body.BINARY), [CARL], b"a\n\r.\r\n\0\xff")
            large = (b"x" * 70 + b"\r\n") * 50_000
            assert len(large) > CHUNK
            await smtp.send(ANNA, [CARL], large)
    first, second, third = recorder.taken
    assert first.envelope == Envelope(sender, Body.EIGHT_BIT, True, len(LETTER) + 4, Returned.HEADERS, "a+b=c")
    assert first.recipients == [recipient]
    assert first.content.endswith(LETTER + b"\xc3\xbc\r\n")
    assert second.envelope.sender is None
    assert second.content.endswith(b"a\n\r.\r\n\0\xff")
    assert third.content.endswith(large)
    assert recorder.ends == [["commit"]] * 3


async def test_our_server_lets_in_by_scram_and_by_password() -> None:
    for scram in (True, False):
        recorder = Recorder()
        async with ours(recorder, users=Users("anna", scram=scram)) as url:
            async with SMTPClient.connect(url.replace("//", "//anna:anna@")) as smtp:
                assert ("SCRAM-SHA-256" in smtp.extensions.auth) is scram
                await smtp.send(ANNA, [CARL], LETTER)
        assert recorder.taken[0].client.identity is not None


async def test_who_has_no_keys_is_let_in_by_password_where_others_have_some() -> None:
    async with ours(Recorder(), users=Users("anna", "bert", scram=True)) as url:
        async with SMTPClient.connect(url.replace("//", "//bert:bert@")) as smtp:
            await smtp.send(ANNA, [CARL], LETTER)


async def test_our_lmtp_answers_for_each() -> None:
    recorder = Recorder(each=True)
    async with ours(recorder, role=Role.LMTP) as url:
        async with SMTPClient.connect(url) as lmtp:
            sent = await lmtp.send(ANNA, [CARL, "full@example.net"], LETTER)
            assert [outcome.is_accepted for outcome in sent.outcomes] == [True, False]
            assert sent.refused[0].enhanced == "4.2.2"


async def test_a_message_is_the_same_behind_our_server() -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = ANNA, CARL, "gr\u00fc\u00dfe"
    message.set_content("gr\u00fc\u00dfe\n.\n")
    recorder = Recorder()
    async with ours(recorder) as url:
        async with SMTPClient.connect(url) as smtp:
            await smtp.send_message(message)
    assert recorder.taken[0].content.endswith(serialize(message, eight_bit=True))
