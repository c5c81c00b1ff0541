"""The examples of mail, as a person runs them."""

from __future__ import annotations

import re
import runpy
import signal
import smtplib
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import EmailPolicy
from pathlib import Path
from typing import IO

import argon2
import pytest
import trio
import trustme
from argon2.profiles import CHEAPEST

from asyncnet.smtp.envelope import Envelope
from asyncnet.smtp.message import parse_message
from tests.cli.test_send import post_office
from tests.examples.running import ANYWHERE, ROOT
from tests.examples.test_getfile import ENVIRONMENT, SECONDS, example


def test_a_message_with_an_attachment_and_a_subject_in_greek_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "\u03b1\u03c1\u03c7\u03b5\u03af\u03bf.bin"
    file.write_bytes(bytes(range(256)) * 100)
    with post_office() as post:
        command = example("send_message.py", post.url, "anna@example.org", "carl@example.net", file)
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=ENVIRONMENT)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("250 2.0.0 ")
        [taken] = post.taken
    message = parse_message(taken.content)
    assert message["Subject"] == "\u039a\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1"
    [attachment] = message.iter_attachments()
    assert (attachment.get_filename(), attachment.get_content()) == (file.name, file.read_bytes())


def test_a_server_prints_what_comes() -> None:
    with serving_mail("mail_print.py", ANYWHERE) as (url, lines):
        with smtplib.SMTP("127.0.0.1", int(url.rpartition(":")[2]), timeout=SECONDS) as smtp:
            smtp.sendmail("anna@example.org", ["carl@example.com"], "Subject: hello\x1b[31m\r\n\r\nhow are you?\r\n")
        assert next(lines).startswith("From <anna@example.org>, at 127.0.0.1:")
        assert next(lines) == "To <carl@example.com>\n"
        assert "how are you?\n" in lines
        assert "\x1b" not in "".join(lines.seen)


def test_attachments_are_saved_under_names_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    with serving_mail("mail_receiver.py", "me@example.org", tmp_path / "saved", ANYWHERE) as (url, lines):
        message = EmailMessage()
        message["Subject"] = "two files"
        message.set_content("here they are")
        for name in ("report.txt", "../../.evil"):
            message.add_attachment(name.encode(), maintype="application", subtype="x", filename=name)
        with smtplib.SMTP("127.0.0.1", int(url.rpartition(":")[2]), timeout=SECONDS) as smtp:
            smtp.send_message(message, "anna@example.org", ["me@example.org"])
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                smtp.send_message(message, "anna@example.org", ["you@example.org"])
        assert next(lines) == "'two files' from anna@example.org: 2 saved\n"
    saved = {path.name[9:]: path.read_text() for path in (tmp_path / "saved").iterdir()}
    assert saved == {"report.txt": "report.txt", "_.._.evil": "../../.evil"}


PART = b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n%s\r\n\r\nhello\r\n--b--\r\n'


def test_mail_that_nobody_can_read_is_refused_for_good_and_keeps_no_other(tmp_path: Path) -> None:
    name = "\u5831\u544a" * 100
    with serving_mail("mail_receiver.py", "me@example.org", tmp_path, ANYWHERE) as (url, lines):
        with smtplib.SMTP("127.0.0.1", int(url.rpartition(":")[2]), timeout=SECONDS) as smtp:
            for field in (
                b"Content-Disposition: " + b"(" * 5000,
                b"Content-Disposition: '=@;x*",
                b"Content-Disposition: " + b'"' * 50_000,
                b"Content-Type: " + b'"' * 50_000,
            ):
                with pytest.raises(smtplib.SMTPDataError) as caught:
                    smtp.sendmail("anna@example.org", ["me@example.org"], PART % field)
                assert (caught.value.smtp_code, caught.value.smtp_error[:6]) == (554, b"5.6.0 ")
            message = EmailMessage()
            message["Subject"] = "\x1b[2J"
            message.set_content("here it is")
            message.add_attachment(b"report", maintype="application", subtype="x", filename=name)
            smtp.send_message(message, "anna@example.org", ["me@example.org"])
        assert next(lines) == "'\\x1b[2J' from anna@example.org: 1 saved\n"
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"report"]


async def test_no_field_of_a_stranger_is_parsed_where_all_others_wait(tmp_path: Path) -> None:
    class Watched(EmailPolicy):
        def header_fetch_parse(self, name: str, value: str) -> object:
            assert threading.current_thread() is not threading.main_thread()
            return super().header_fetch_parse(name, value)

    class Message:
        envelope = Envelope(None)

        async def parse(self) -> EmailMessage:
            content = b"Subject: hello\r\n" + PART % b"X: y"
            return await trio.to_thread.run_sync(BytesParser(EmailMessage, policy=Watched()).parsebytes, content)

    save = runpy.run_path(str(ROOT / "examples" / "mail_receiver.py"))["save"]
    assert await save(str(tmp_path), Message()) == "0 attachments saved"


def test_users_submit_mail_that_a_smarthost_gets(tmp_path: Path) -> None:
    certificate, users = tmp_path / "cert.pem", tmp_path / "users.toml"
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    hashed = argon2.PasswordHasher.from_parameters(CHEAPEST).hash("secret")
    users.write_text(f'[users.anna]\npassword = "{hashed}"\n')
    users.chmod(0o600)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with post_office() as post:
        arguments = (users, certificate, post.url, tmp_path / "spool", ANYWHERE)
        with serving_mail("mail_submission.py", *arguments) as (url, _):
            with smtplib.SMTP("localhost", int(url.rpartition(":")[2]), timeout=SECONDS) as smtp:
                smtp.starttls(context=trusting)
                with pytest.raises(smtplib.SMTPSenderRefused):
                    smtp.sendmail("anna@example.org", ["carl@example.com"], "Subject: hello\r\n\r\n")
                smtp.login("anna", "secret")
                smtp.sendmail("anna@example.org", ["carl@example.com"], "Subject: hello\r\n\r\n")
            deadline = time.monotonic() + SECONDS
            while not post.taken:
                assert time.monotonic() < deadline
                time.sleep(0.01)
    assert b"Message-ID:" in post.taken[0].content


class Lines:
    """The lines that a process prints, as they come."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.seen: list[str] = []

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline()
        if not line:
            raise StopIteration
        self.seen.append(line)
        return line


@contextmanager
def serving_mail(name: str, *arguments: object) -> Iterator[tuple[str, Lines]]:
    """An example that serves: its URL, and what it prints. Ctrl-C ends it well."""
    with subprocess.Popen(
        example(name, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        try:
            assert process.stdout is not None
            lines = Lines(process.stdout)
            found = re.match(r"mail on (smtp://127\.0\.0\.1:\d+); Ctrl-C ends it", next(lines))
            assert found
            yield found[1], lines
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=SECONDS)
            assert (process.returncode, err) == (0, "")
        finally:
            process.kill()
