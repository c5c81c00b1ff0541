"""`asyncnet serve pop3` as whoever runs it sees it: a process, what clients get from it, its exit status."""

from __future__ import annotations

import mailbox
import os
import poplib
import signal
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import argon2
import pytest
import trustme
from argon2.profiles import CHEAPEST

from asyncnet.cli import main
from tests.cli.command import COMMAND, DEADLINE, environment, serving
from tests.cli.test_serve_smtp import until

MAIL = b"Subject: hello\n\nHello.\n.\n"


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    """The mail of anna, who has one message, and bert, who has no Maildir yet."""
    (tmp_path / "mail").mkdir()
    mailbox.Maildir(tmp_path / "mail" / "anna").add(MAIL)
    return tmp_path / "mail"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users.toml"
    hashed = argon2.PasswordHasher.from_parameters(CHEAPEST).hash("secret")
    path.write_text("".join(f'[users.{user}]\npassword = "{hashed}"\n' for user in ("anna", "bert", "'../mail/anna'")))
    path.chmod(0o600)
    return path


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    return tmp_path / "cert.pem"


def client_tls(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate.with_name("ca.pem")))


@pytest.fixture
def port(mail: Path, users: Path) -> Iterator[int]:
    with serving("pop3", "tcp://127.0.0.1:0", "--mail", mail, "--users", users) as service:
        assert service.lines == [f"listening on tcp://127.0.0.1:{service.ports[0]} (pop3)\n"]
        yield service.ports[0]
        status, err = service.end(signal.SIGTERM)
        assert status == 0, err
        assert "Traceback" not in err
        assert "secret" not in err


def logged_in(session: poplib.POP3, user: str = "anna") -> poplib.POP3:
    session.user(user)
    session.pass_("secret")
    return session


def test_a_user_fetches_what_is_in_their_maildir(port: int, mail: Path) -> None:
    session = logged_in(poplib.POP3("127.0.0.1", port, timeout=DEADLINE))
    assert session.stat() == (1, len(MAIL.replace(b"\n", b"\r\n")))
    assert b"\n".join(session.retr(1)[1]) + b"\n" == MAIL
    session.dele(1)
    assert len(mailbox.Maildir(mail / "anna", create=False)) == 1
    session.quit()
    assert len(mailbox.Maildir(mail / "anna", create=False)) == 0


def test_a_maildir_is_made_at_the_first_login(port: int, mail: Path) -> None:
    session = logged_in(poplib.POP3("127.0.0.1", port, timeout=DEADLINE), "bert")
    assert session.stat() == (0, 0)
    session.quit()
    assert sorted(path.name for path in (mail / "bert").iterdir()) == ["asyncnet.lock", "cur", "new", "tmp"]


def test_a_name_leads_nowhere_else(port: int) -> None:
    session = poplib.POP3("127.0.0.1", port, timeout=DEADLINE)
    with pytest.raises(poplib.error_proto, match="SYS/PERM"):
        logged_in(session, "../mail/anna")
    session.close()


def test_our_own_command_reads_it(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["mail", "list", f"pop3://anna:secret@127.0.0.1:{port}"]) == 0
    assert capfd.readouterr().out.split() == ["1", str(len(MAIL) + 4), "-", "-", "hello"]
    assert main(["mail", "read", f"pop3://anna:secret@127.0.0.1:{port}", "1"]) == 0
    assert capfd.readouterr().out == "Subject: hello\n\nHello.\n.\n"


def test_tls_begins_when_it_is_asked_for_and_at_once(mail: Path, users: Path, certificate: Path) -> None:
    options = ["--mail", mail, "--users", users, "--cert", certificate]
    with serving("pop3", "tcp://127.0.0.1:0", "tls://127.0.0.1:0", *options, endpoints=2) as service:
        session = poplib.POP3("localhost", service.ports[0], timeout=DEADLINE)
        assert "STLS" in session.capa()
        session.stls(client_tls(certificate))
        assert logged_in(session).stat()[0] == 1
        session.quit()
        session = poplib.POP3_SSL("localhost", service.ports[1], timeout=DEADLINE, context=client_tls(certificate))
        assert logged_in(session).stat()[0] == 1
        session.quit()


def test_a_drain_says_goodbye(mail: Path, users: Path) -> None:
    with serving("pop3", "tcp://127.0.0.1:0", "--mail", mail, "--users", users) as service:
        session = logged_in(poplib.POP3("127.0.0.1", service.ports[0], timeout=DEADLINE))
        session.dele(1)
        service.process.send_signal(signal.SIGTERM)
        assert session.file is not None
        assert session.file.readline().startswith(b"-ERR [SYS/TEMP]")
        assert session.file.readline() == b""
        session.close()
        assert service.end()[0] == 0
    assert len(mailbox.Maildir(mail / "anna", create=False)) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--mail", "/nonexistent", "--users", "USERS"], "--mail is a folder"),
        (["--mail", "MAIL", "--users", "/nonexistent"], "/nonexistent: No such file"),
        (["--mail", "MAIL", "--users", "USERS", "--greeting", "<1.2@x>"], "a greeting is"),
        (["--mail", "MAIL", "--users", "USERS", "--key", "USERS"], "--key needs --cert"),
    ],
)
def test_wrong_options_are_one_clear_line(options: list[str], says: str, mail: Path, users: Path) -> None:
    places = {"MAIL": str(mail), "USERS": str(users)}
    done = subprocess.run(
        [*COMMAND, "serve", "pop3", "tcp://127.0.0.1:0", *(places.get(option, option) for option in options)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_mail_and_users_are_needed(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "pop3", "tcp://127.0.0.1:0"])
    assert caught.value.code == 2
    assert "--mail, --users" in capfd.readouterr().err


def test_what_comes_by_smtp_is_there(mail: Path, users: Path, tmp_path: Path) -> None:
    spool = ["--spool", tmp_path / "spool", "--local", f"example.org={mail}", "--hostname", "mx.example.org"]
    with (
        serving("smtp", "tcp://127.0.0.1:0", *spool) as receiving,
        serving("pop3", "tcp://127.0.0.1:0", "--mail", mail, "--users", users) as giving,
    ):
        with smtplib.SMTP("127.0.0.1", receiving.ports[0], timeout=DEADLINE) as smtp:
            smtp.sendmail("carl@example.net", ["anna@example.org"], b"Subject: new\r\n\r\n..\r\nend\r\n")
        until(lambda: len(os.listdir(mail / "anna" / "new")) == 2)
        session = logged_in(poplib.POP3("127.0.0.1", giving.ports[0], timeout=DEADLINE))
        sizes = [int(line.split()[1]) for line in session.list()[1]]
        found = [session.retr(number) for number in (1, 2)]
        assert [octets for _, _, octets in found] == sizes
        (new,) = (lines for _, lines, _ in found if b"Subject: new" in lines)
        assert new[0] == b"Return-Path: <carl@example.net>"
        assert new[-3:] == [b"", b"..", b"end"]
        session.quit()
