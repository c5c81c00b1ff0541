"""`asyncnet mail`, as its user sees it: lines, messages, exit status."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trustme

from asyncnet import serve
from asyncnet.cli import mail_pop3, main
from asyncnet.cli.mail_pop3 import LONGEST_HEAD
from asyncnet.embed import in_thread
from asyncnet.mailbox import MemoryMailboxes
from asyncnet.pop3 import POP3Handler
from asyncnet.pop3 import commands as pop3_commands
from asyncnet.transports.certificates import ServerTLS
from tests.cli.command import COMMAND, DEADLINE, environment
from tests.pop3.peer import Users, boxes

MAILS = (
    b"From: Bert <bert@example.org>\r\nTo: anna@example.org\r\nDate: Thu, 26 Nov 2026 12:00:00 +0000\r\n"
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@example.org>\r\n\r\nHello,\r\n.\r\nanna\r\n",
    b"From: \x1b[31mevil\r\nSubject: \x9b2J\r\n\r\n\x1b[2J\x07boo\r\n",
)


@contextmanager
def mailbox(*mails: bytes, tls: ServerTLS | None = None, mailboxes: MemoryMailboxes | None = None) -> Iterator[str]:
    """The URL of anna's mailbox, who has these mails; her password is in it."""
    handler = POP3Handler(mailboxes or boxes(*mails), Users(), tls=tls)
    with in_thread() as portal:
        service = portal.start(partial(serve, handler, "tcp://127.0.0.1:0"))
        yield service.urls[0].replace("://", "://anna:anna@")


def asyncnet(*arguments: object) -> int:
    return main(["mail", *map(str, arguments)])


def test_a_mailbox_is_listed_a_line_for_each_message(capfd: pytest.CaptureFixture[str]) -> None:
    with mailbox(*MAILS) as url:
        assert asyncnet("list", url) == 0
        out, err = capfd.readouterr()
        assert err == ""
        assert out.splitlines() == [
            f"   1 {len(MAILS[0]):>9} 2026-11-26 12:00 Bert                     Grüße",
            f"   2 {len(MAILS[1]):>9} -                \\x1b[31mevil             \\x9b2J",
        ]
        assert asyncnet("list", "--json", url) == 0
        first = json.loads(capfd.readouterr().out.splitlines()[0])
        assert first == {
            "number": 1,
            "size": len(MAILS[0]),
            "from": "Bert",
            "subject": "Grüße",
            "date": "2026-11-26T12:00:00Z",
        }


def test_a_message_is_shown_and_drives_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    mailboxes = boxes(*MAILS)
    with mailbox(mailboxes=mailboxes) as url:
        assert asyncnet("read", url, 1) == 0
        assert capfd.readouterr().out == (
            "From: Bert <bert@example.org>\nTo: anna@example.org\nDate: Thu, 26 Nov 2026 12:00:00 +0000\n"
            "Subject: Grüße\n\nHello,\n.\nanna\n"
        )
        assert asyncnet("read", url, 2) == 0
        assert capfd.readouterr().out == "From: \\x1b[31mevil\nSubject: \\x9b2J\n\n\\x1b[2J\\x07boo\n"
    assert len(mailboxes.boxes["anna"]._messages) == 2


def test_raw_it_is_as_it_is(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    large = b"Subject: x\r\n\r\n" + (b"." * 70 + b"\r\n") * 10_000
    with mailbox(*MAILS, large) as url:
        for number, mail in enumerate((*MAILS, large), 1):
            assert asyncnet("read", "--raw", url, number) == 0
            assert capfdbinary.readouterr().out == mail


def test_but_not_onto_a_terminal(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with mailbox(*MAILS) as url:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        assert asyncnet("read", "--raw", url, 2) == 2
        assert "--raw is for a file" in capfd.readouterr().err


def test_an_empty_mailbox_is_no_failure(capfd: pytest.CaptureFixture[str]) -> None:
    with mailbox() as url:
        assert asyncnet("list", url) == 0
        assert capfd.readouterr() == ("", "")


def test_what_is_not_there_is_told_without_the_password(capfd: pytest.CaptureFixture[str]) -> None:
    with mailbox(*MAILS) as url:
        shown = url.replace("anna:anna@", "")
        assert asyncnet("read", url, 3) == 1
        assert capfd.readouterr() == (
            "",
            f"asyncnet mail: {shown}: RETR 3: the server says There is no such message: the last is 2.\n",
        )
        assert asyncnet("list", url.replace("anna:anna", "anna:hunter2")) == 1
        err = capfd.readouterr().err
        assert "AUTH PLAIN: the server says [AUTH] The login failed." in err
        assert "hunter2" not in err


def test_a_server_without_top_lists_what_it_can(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(pop3_commands.COMMANDS, "TOP")
    with mailbox(MAILS[0]) as url:
        assert asyncnet("list", url) == 0
        assert capfd.readouterr().out == f"   1 {len(MAILS[0]):>9} -                -\n"


def test_a_head_of_any_length_keeps_nobody_from_the_other_messages(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with mailbox(b"Subject: long\r\nX: " + b"x" * 2 * LONGEST_HEAD + b"\r\n\r\n", MAILS[0]) as url:
        assert asyncnet("list", url) == 0
        lines = capfd.readouterr().out.splitlines()
        assert [line.split()[-1] for line in lines] == ["long", "Gr\u00fc\u00dfe"]
        monkeypatch.setattr(mail_pop3, "MOST_SHOWN", LONGEST_HEAD)
        assert asyncnet("list", url) == 1  # a server that does not end
        assert f"more than {LONGEST_HEAD} bytes" in capfd.readouterr().err


@pytest.fixture
def tls(tmp_path: Path) -> ServerTLS:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    return ServerTLS(tmp_path / "server.pem")


def test_tls_is_verified(tls: ServerTLS, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with mailbox(MAILS[0], tls=tls) as url:
        assert asyncnet("list", url) == 1
        assert "--ca FILE names who vouches for it" in capfd.readouterr().err
        assert asyncnet("list", "--ca", tmp_path / "ca.pem", "--starttls", "required", url) == 0
        assert asyncnet("list", "--insecure", url) == 0
        assert asyncnet("list", "--starttls", "never", url) == 0
        assert capfd.readouterr().err == "asyncnet mail: --insecure: anybody may be at the other end\n"
    with mailbox(MAILS[0]) as url:
        assert asyncnet("list", "--starttls", "required", url) == 1
        assert "STLS: the server says" in capfd.readouterr().err


def test_the_password_may_come_from_netrc_or_be_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login anna password anna\n")
    (tmp_path / "netrc").chmod(0o600)
    asked: list[str] = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or "anna")
    monkeypatch.setattr("asyncnet.cli.logins.TERMINAL", os.devnull)
    with mailbox(MAILS[0]) as url:
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        assert asyncnet("list", url.replace("anna:anna@", "")) == 0
        assert asyncnet("list", url.replace("anna:anna@", "anna@")) == 0
        assert asked == []
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))
        assert asyncnet("list", url.replace("anna:anna@", "anna@")) == 0
        assert asked == ["Password for anna at 127.0.0.1: "]
        assert asyncnet("list", url.replace("anna:anna@", "")) == 2
        assert "whose mailbox?" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list", "http://anna:hunter2@a/"], "http://a/: a mailbox is at pop3:// or pop3s://"),
        (["list", "pop3://anna:hunter2@a/INBOX"], "nothing stands behind the host"),
        (["list", "pop3://anna:x%0d@a"], "cannot be sent"),
        (
            ["list", "--ca", "/nonexistent", "pop3s://anna:hunter2@a"],
            "/nonexistent does not load: No such file or directory",
        ),
        (["list", "--starttls", "required", "pop3s://anna:hunter2@a"], "starttls with pop3s://"),
    ],
)
def test_wrong_options_end_with_status_2_and_one_clear_message(
    arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert asyncnet(*arguments) == 2
    err = capfd.readouterr().err
    assert says in err
    assert "hunter2" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["read", "pop3://a"], ["read", "pop3://a", "0"], ["read", "pop3://a", "x"], []])
def test_a_message_has_a_number(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        asyncnet(*arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize(("redirection", "status"), [("2>&-", 0), (">&-", 2), (">/dev/full", 1), ("| true", 0)])
def test_standard_streams_that_are_closed_or_full(redirection: str, status: int) -> None:
    with mailbox(b"Subject: x\r\n\r\n" + b"x\r\n" * 400_000) as url:
        command = f"{' '.join(COMMAND)} mail read {url} 1 {redirection}; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", command], env=environment(), capture_output=True, timeout=DEADLINE, check=False
        )
    assert done.returncode == status
    assert b"Traceback" not in done.stderr
