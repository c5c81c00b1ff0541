"""The examples that read mail."""

from __future__ import annotations

from functools import partial

import pytest

from asyncnet import serve
from asyncnet.embed import in_thread
from asyncnet.pop3 import POP3Handler
from tests.examples import running
from tests.examples.running import run
from tests.pop3.peer import Users, boxes


def test_a_mailbox_is_read_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(running.ENVIRONMENT, "PASSWORD", "anna")
    mails = [b"From: bert@example.org\r\nSubject: %d\x1b[31m\r\n\r\nx\r\n" % number for number in (1, 2)]
    with in_thread() as portal:
        service = portal.start(partial(serve, POP3Handler(boxes(*mails), Users()), "tcp://127.0.0.1:0"))
        done = run("read_mail.py", service.urls[0].replace("://", "://anna@"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"2 messages, {sum(map(len, mails))} bytes",
        "2 'bert@example.org' '2\\x1b[31m'",
        "1 'bert@example.org' '1\\x1b[31m'",
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("read_mail.py", "Read a mailbox"),
        ("send_message.py", "python examples/send_message.py smtp://"),
        ("mail_receiver.py", "python examples/mail_receiver.py ADDRESS FOLDER"),
        ("mail_submission.py", "python examples/mail_submission.py users.toml cert.pem smtp://"),
        ("ftp_users_tls.py", "python examples/ftp_users_tls.py users.toml cert.pem"),
        ("ftp_mirror.py", "python examples/ftp_mirror.py"),
    ],
)
def test_without_its_arguments_an_example_explains_itself(name: str, says: str) -> None:
    done = run(name)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_no_header_keeps_it_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(running.ENVIRONMENT, "PASSWORD", "anna")
    heads = [
        b'From: "' + b'"' * 300_000,  # the standard library would parse that for an hour
        b"From: " + b"(" * 100_000,
        b"From: =?nowhere?q?x?= <a@example.org>",
        b"From: =?utf-8?b?w?= \xff",
        b"From: =?utf-8?q?a=0D=0A=1B[2J?=",
        b"From: =?utf-8?q?Gr=C3=BC=C3=9Fe?=",
    ]
    with in_thread() as portal:
        mails = [head + b"\r\n\r\nx\r\n" for head in heads]
        service = portal.start(partial(serve, POP3Handler(boxes(*mails), Users()), "tcp://127.0.0.1:0"))
        done = run("read_mail.py", service.urls[0].replace("://", "://anna@"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:3] == ["6 'Gr\\xfc\\xdfe' '-'", "5 'a\\r\\n\\x1b[2J' '-'"]
    assert len(done.stdout.splitlines()) == 7
