"""The SMTP server, used by the clients that people have: smtplib, swaks, msmtp, curl, Postfix's smtp-source."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from asyncnet import Service
from asyncnet.smtp.delivery import Refused, Role
from asyncnet.smtp.envelope import Body, Notify
from asyncnet.smtp.limits import SMTPLimits
from asyncnet.smtp.server import SMTPHandler
from asyncnet.transports.certificates import ServerTLS
from tests.interop.test_ftp import run
from tests.interop.test_http import serving
from tests.smtp.recorder import Recorder, Users

LARGE = b"Subject: large\r\n\r\n" + b"".join(b".%d\r\n" % number for number in range(200_000))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    return tmp_path / "server.pem"


@asynccontextmanager
async def smtp(recorder: Recorder, endpoint: str = "tcp://127.0.0.1:0", **options: Any) -> AsyncIterator[int]:
    """The port of a server, where Anna may log in by her name."""
    service: Service
    async with serving(SMTPHandler(recorder, users=Users("anna"), **options), endpoint) as service:
        yield int(service.endpoints[0].partition("?")[0].rpartition(":")[2])


def body(content: bytes) -> bytes:
    """What came behind the header."""
    return content.partition(b"\r\n\r\n")[2]


class TestSmtplib:
    @staticmethod
    async def use(port: int, work: Callable[[smtplib.SMTP], None], kind: type[smtplib.SMTP] = smtplib.SMTP) -> None:
        def talk() -> None:
            with kind("127.0.0.1", port, local_hostname="client.example", timeout=20) as client:
                work(client)

        await trio.to_thread.run_sync(talk)

    async def test_messages_and_refusals(self) -> None:
        recorder = Recorder(nobody=Refused(550, "5.1.1", "No such user."))

        def work(client: smtplib.SMTP) -> None:
            message = EmailMessage()
            message["From"], message["To"], message["Subject"] = "anna@example.org", "carl@example.org", "hello"
            message.set_content("Hello.\n.\n..\n")
            assert client.send_message(message) == {}
            assert client.sendmail("anna@example.org", ["nobody@example.org", "carl@example.org"], LARGE) == {
                "nobody@example.org": (550, b"5.1.1 No such user.")
            }
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                client.sendmail("anna@example.org", ["nobody@example.org"], b"x")
            with pytest.raises(smtplib.SMTPDataError):
                client.sendmail("anna@example.org", ["carl@example.org"], b"Received: x\r\n" * 101 + b"\r\n")
            assert client.verify("anna")[0] == 252
            assert client.help().startswith(b"2.0.0 The commands")
            assert client.noop()[0] == client.rset()[0] == 250

        async with smtp(recorder) as port:
            await self.use(port, work)
        assert body(recorder.taken[0].content) == b"Hello.\r\n.\r\n..\r\n"
        assert body(recorder.taken[1].content) == body(LARGE)
        assert recorder.ends == [["commit"], ["commit"], ["abort"], ["abort"]]

    async def test_beyond_ascii(self) -> None:
        recorder = Recorder()

        def work(client: smtplib.SMTP) -> None:
            client.ehlo()
            options = ["SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=a+2Bb"]
            assert client.mail("jörg@bücher.example", options)[0] == 250
            assert client.rcpt("käthe@example.org", ["NOTIFY=SUCCESS,FAILURE", "ORCPT=utf-8;käthe@x"])[0] == 250
            assert client.data("Subject: grüße\r\n\r\nä\r\n".encode())[0] == 250

        async with smtp(recorder) as port:
            await self.use(port, work)
        [taken] = recorder.taken
        assert (str(taken.envelope.sender), taken.envelope.body) == ("jörg@bücher.example", Body.EIGHT_BIT)
        assert taken.envelope.envelope_id == "a+b"
        assert taken.recipients[0].notify == {Notify.SUCCESS, Notify.FAILURE}
        assert taken.recipients[0].original == "utf-8;käthe@x"
        assert "grüße".encode() in taken.content

    async def test_tls_and_login(self, certificate: Path, tmp_path: Path) -> None:
        recorder = Recorder()
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))

        def work(client: smtplib.SMTP) -> None:
            assert client.docmd("MAIL FROM:<anna@example.org>")[0] == 530
            client.starttls(context=context)
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("anna", "wrong")
            client.login("anna", "anna")
            client.sendmail("anna@example.org", ["carl@example.org"], b"Subject: x\r\n\r\nx\r\n")

        async with smtp(recorder, tls=ServerTLS(certificate), tls_required=True, role=Role.SUBMISSION) as port:
            await self.use(port, work)
        assert b"with ESMTPSA id" in recorder.taken[0].content
        assert b"Message-ID: <" in recorder.taken[0].content

    async def test_lmtp(self) -> None:
        recorder = Recorder(each=True)

        def work(client: smtplib.SMTP) -> None:
            client.ehlo("client.example")
            for command in ("MAIL FROM:<a@example.org>", "RCPT TO:<full@example.org>", "RCPT TO:<b@example.org>"):
                assert client.docmd(command)[0] == 250
            assert client.docmd("DATA")[0] == 354
            client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            assert [client.getreply()[0] for _ in range(2)] == [452, 250]

        async with smtp(recorder, role=Role.LMTP) as port:
            await self.use(port, work, smtplib.LMTP)


class TestSwaks:
    async def swaks(self, port: int, *options: str) -> str:
        to = ("--from", "anna@example.org", "--to", "carl@example.org,bert@example.org", "--helo", "client.example")
        return (await run("swaks", "--server", f"127.0.0.1:{port}", *to, *options)).decode()

    @pytest.mark.parametrize("options", [[], ["--pipeline"], ["--protocol", "SMTP"]])
    async def test_messages(self, options: list[str]) -> None:
        recorder = Recorder()
        async with smtp(recorder) as port:
            said = await self.swaks(port, "--body", "one\n.two", *options)
        assert "<** " not in said  # what it marks errors by
        assert body(recorder.taken[0].content).startswith(b"one\r\n.two\r\n")
        assert len(recorder.taken[0].recipients) == 2

    @pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
    async def test_tls_and_login(self, certificate: Path, mechanism: str) -> None:
        recorder = Recorder()
        login = ("--auth", mechanism, "--auth-user", "anna", "--auth-password", "anna")
        async with smtp(recorder, tls=ServerTLS(certificate)) as port:
            await self.swaks(port, "--tls", *login)
        async with smtp(recorder, f"tls://127.0.0.1:0?cert={certificate}") as port:
            await self.swaks(port, "--tls-on-connect", *login)
        assert [one.client.protocol for one in recorder.taken] == ["ESMTPSA"] * 2

    async def test_lmtp(self) -> None:
        recorder = Recorder()
        async with smtp(recorder, role=Role.LMTP) as port:
            await self.swaks(port, "--protocol", "LMTP")
        assert recorder.taken[0].client.protocol == "LMTP"


class TestMsmtp:
    @pytest.mark.parametrize("mechanism", ["plain", "login"])
    async def test_tls_and_login(self, certificate: Path, tmp_path: Path, mechanism: str) -> None:
        recorder = Recorder()
        configuration = tmp_path / "msmtprc"
        async with smtp(recorder, tls=ServerTLS(certificate), role=Role.SUBMISSION) as port:
            configuration.write_text(
                f"account default\nhost localhost\nport {port}\nfrom anna@example.org\ndomain client.example\n"
                f"tls on\ntls_starttls on\ntls_trust_file {tmp_path / 'ca.pem'}\n"
                f"auth {mechanism}\nuser anna\npassword anna\ndsn_notify failure\ndsn_return headers\n"
            )
            configuration.chmod(0o600)
            message = b"Subject: hello\n\nfrom a file\n.\nwith a dot\n"
            await run("msmtp", "--file", configuration, "carl@example.org", data=message, cwd=tmp_path)
        [taken] = recorder.taken
        assert body(taken.content) == b"from a file\r\n.\r\nwith a dot\r\n"
        assert taken.recipients[0].notify == {Notify.FAILURE}
        assert taken.client.protocol == "ESMTPSA"


class TestCurl:
    async def test_messages_and_login(self, certificate: Path, tmp_path: Path) -> None:
        recorder = Recorder()
        content = tmp_path / "mail"
        content.write_bytes(LARGE)
        common = ("--mail-from", "anna@example.org", "--mail-rcpt", "carl@example.org", "--upload-file", str(content))
        secure = ("--ssl-reqd", "--cacert", str(tmp_path / "ca.pem"), "--user", "anna:anna")
        async with smtp(recorder, tls=ServerTLS(certificate)) as port:
            await run("curl", "--silent", "--show-error", f"smtp://127.0.0.1:{port}/client.example", *common)
            await run("curl", "--silent", "--show-error", f"smtp://127.0.0.1:{port}/client.example", *common, *secure)
        assert [body(one.content) for one in recorder.taken] == [body(LARGE)] * 2
        assert [one.client.protocol for one in recorder.taken] == ["ESMTP", "ESMTPSA"]
        assert recorder.taken[0].envelope.size == len(LARGE)

    async def test_what_is_too_large_is_refused(self, tmp_path: Path) -> None:
        recorder = Recorder()
        content = tmp_path / "mail"
        content.write_bytes(LARGE)
        async with smtp(recorder, limits=SMTPLimits(message=100_000)) as port:
            with pytest.raises(AssertionError, match="552"):
                await run(
                    *("curl", "--silent", "--show-error", "--verbose", f"smtp://127.0.0.1:{port}/client.example"),
                    *("--mail-from", "a@example.org", "--mail-rcpt", "b@example.org", "--upload-file", content),
                )
        assert recorder.taken == []


class TestSmtpSource:
    @pytest.mark.parametrize("options", [[], ["-d"], ["-L"]], ids=["SMTP", "reused", "LMTP"])
    async def test_many_at_once(self, options: list[str]) -> None:
        recorder = Recorder()
        role = Role.LMTP if "-L" in options else Role.MX
        async with smtp(recorder, role=role) as port:
            arguments = (
                "-s",
                "10",
                "-m",
                "100",
                "-r",
                "3",
                "-l",
                "20000",
                "-f",
                "a@example.org",
                "-t",
                "b@example.org",
            )
            await run("smtp-source", *options, *arguments, f"127.0.0.1:{port}")
        assert recorder.ends == [["commit"]] * 100
        assert {len(one.recipients) for one in recorder.taken} == {3}
        assert min(len(one.content) for one in recorder.taken) > 20_000
