"""`asyncnet send`, as its user sees it: what the server has then, messages, exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from asyncnet import ServerTLS, serve
from asyncnet.auth import UserFile
from asyncnet.cli import main
from asyncnet.embed import in_thread
from asyncnet.smtp.delivery import Refused, Role
from asyncnet.smtp.server import SMTPHandler
from asyncnet.testing import ScriptedPeer
from tests.cli.command import COMMAND, DEADLINE, environment
from tests.cli.ftp_yard import server_tls, users_file
from tests.cli.test_fetch import terminal, wait_for_thread
from tests.smtp.recorder import Recorder

LETTER = """\
From: Anna <anna@example.org>
To: carl@example.net
Cc: dora@example.net
Bcc: eve@example.net
Subject: hello

hello
.
"""


class Post(Recorder):
    """A mail server's delivery, and its URL."""

    url = ""
    tls: ServerTLS | None = None

    @property
    def letters(self) -> list[tuple[str, list[str]]]:
        """Sender and recipients of each message that was taken."""
        return [
            (str(one.envelope.sender), [str(recipient.address) for recipient in one.recipients])
            for one in self.taken
            if one.ends[-1:] in (["commit"], ["commit each"])
        ]


@contextmanager
def post_office(endpoint: str = "tcp://127.0.0.1:0", *, each: bool = False, **options: Any) -> Iterator[Post]:
    post = Post(each=each)
    options.setdefault("hostname", "mx.example")
    with in_thread() as portal:
        service = portal.start(partial(serve, SMTPHandler(post, **options), endpoint, tls=options.get("tls")))
        post.url = service.endpoints[0].replace("tcp://", "smtp://").replace("tls://", "smtps://")
        yield post


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a letter in it."""
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("letter.eml").write_text(LETTER)
    return tmp_path


@pytest.fixture
def post(folder: Path) -> Iterator[Post]:
    with post_office() as post:
        yield post


def test_a_message_goes_to_those_in_its_header(post: Post, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "letter.eml", post.url]) == 0
    assert post.letters == [("anna@example.org", ["carl@example.net", "dora@example.net", "eve@example.net"])]
    content = post.taken[0].content
    assert content.endswith(LETTER.replace("Bcc: eve@example.net\n", "").replace("\n", "\r\n").encode())
    assert b"eve" not in content
    assert capfd.readouterr() == ("", f"letter.eml to 3 recipients: {len(LETTER) - 21 + 7} bytes\n")


def test_from_and_to_go_before_the_header(post: Post, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--from", "bert@example.org", "--to", "fritz@example.net", "--to", "gerd@example.net"]
    assert main(["send", "-q", *options, "letter.eml", post.url]) == 0
    assert post.letters == [("bert@example.org", ["fritz@example.net", "gerd@example.net"])]
    assert capfd.readouterr() == ("", "")


def test_several_messages_go_over_one_connection(post: Post) -> None:
    Path("other.eml").write_text("From: bert@example.org\nTo: carl@example.net\n\nhi\n")
    assert main(["send", "letter.eml", "other.eml", "letter.eml", post.url]) == 0
    assert [sender for sender, _ in post.letters] == ["anna@example.org", "bert@example.org", "anna@example.org"]
    assert len({one.client.peer for one in post.taken}) == 1


def test_standard_input_is_a_message(post: Post) -> None:
    command = [*COMMAND, "send", "-", post.url]
    done = subprocess.run(command, env=environment(), input=LETTER, capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stderr.partition(":")[0]) == (0, "standard input to 3 recipients")
    assert len(post.letters) == 1


def test_a_pipe_is_a_message_and_can_be_left(post: Post) -> None:
    os.mkfifo("pipe")
    command = [*COMMAND, "send", "pipe", post.url]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as process:
        Path("pipe").write_text(LETTER)
        process.communicate(timeout=DEADLINE)
    assert (process.returncode, len(post.letters)) == (0, 1)
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as process:
        wait_for_thread(process.pid)  # which opens the pipe, and waits for a writer
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (130, b"")


def test_lmtp_over_a_unix_socket(folder: Path) -> None:
    with post_office(f"unix:{folder / 'lmtp'}", each=True, role=Role.LMTP) as post:
        assert main(["send", "letter.eml", f"lmtp+unix:{folder / 'lmtp'}"]) == 0
        assert len(post.letters) == 1


# Refusals


def test_who_is_refused_is_named_and_the_others_get_it(post: Post, capfd: pytest.CaptureFixture[str]) -> None:
    post.fails["dora"] = Refused(550, "5.1.1", "No dora here.")
    assert main(["send", "letter.eml", post.url]) == 1
    assert post.letters == [("anna@example.org", ["carl@example.net", "eve@example.net"])]
    refusal, summary = capfd.readouterr().err.splitlines()
    assert refusal.startswith("asyncnet send: letter.eml to dora@example.net: ")
    assert refusal.endswith(": the server says 550 5.1.1 No dora here.")
    assert summary == "asyncnet send: letter.eml: 1 of its 3 recipients do not get it"


def test_who_is_refused_drives_no_terminal(post: Post, capfd: pytest.CaptureFixture[str]) -> None:
    post.fails["do\u202era"] = Refused(550, "5.1.1", "No \u202e here.")
    assert main(["send", "--to", "do\u202era@example.net", "--to", "eve@example.net", "letter.eml", post.url]) == 1
    refusal, _ = capfd.readouterr().err.splitlines()
    assert refusal.startswith("asyncnet send: letter.eml to do\\u202era@example.net: ")
    assert refusal.isprintable()


def test_a_message_that_nobody_gets_says_why_for_each(post: Post, capfd: pytest.CaptureFixture[str]) -> None:
    post.fails |= {name: Refused(550, "5.1.1", f"No {name}.") for name in ("carl", "dora", "eve")}
    assert main(["send", "letter.eml", post.url]) == 1
    err = capfd.readouterr().err.splitlines()
    assert [line.rpartition(" ")[2] for line in err] == ["carl.", "dora.", "eve.", "it"]
    assert err[-1] == "asyncnet send: letter.eml: nobody gets it"


def test_a_message_that_is_refused_says_why_once_and_the_next_one_is_sent(
    post: Post, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("bad.eml").write_text(LETTER.replace("anna", "mallory"))
    real = post.start

    async def start(envelope: Any, client: Any) -> Any:
        if envelope.sender.local == "mallory":
            raise Refused(550, "5.7.1", "Not you.")
        return await real(envelope, client)

    post.start = start  # type: ignore[method-assign]
    assert main(["send", "bad.eml", "letter.eml", post.url]) == 1
    assert len(post.letters) == 1
    err = capfd.readouterr().err.splitlines()
    assert err[0] == "asyncnet send: bad.eml: MAIL: the server says 550 5.7.1 Not you."
    assert err[1].startswith("letter.eml to 3 recipients")


def test_a_message_without_addresses_says_so_and_the_next_one_is_sent(
    post: Post, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("bare.eml").write_text("Subject: hello\n\nhello\n")
    assert main(["send", "bare.eml", "letter.eml", post.url]) == 1
    assert len(post.letters) == 1
    assert "asyncnet send: bare.eml: the message has no From: say who sends it\n" in capfd.readouterr().err


def test_a_server_that_leaves_in_the_middle_is_told(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def leave(stream: trio.abc.Stream) -> None:
        peer = ScriptedPeer(stream, timeout=DEADLINE)
        await peer.send(b"220 ready\r\n")
        for _ in range(5):
            await peer.expect_until()
            await peer.send(b"250 ok\r\n")
        await peer.expect(b"DATA\r\n")
        await peer.send(b"354 go\r\n")
        await peer.expect_until(b"\r\n.\r\n")
        await peer.close()

    with in_thread() as portal:
        service = portal.start(partial(serve, leave, "tcp://127.0.0.1:0"))
        assert main(["send", "letter.eml", service.endpoints[0].replace("tcp", "smtp")]) == 1
    assert "letter.eml: nobody knows whether the server has taken the message" in capfd.readouterr().err


# Ways and logins


def test_a_password_is_told_over_tls(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = {"tls": server_tls(folder).copy(alpn=["smtp"]), "users": UserFile(users_file(folder))}
    with post_office("tls://127.0.0.1:0", **options) as post:
        url = post.url.replace("//", "//anna:secret@")
        assert main(["send", "letter.eml", url]) == 1
        assert "certificate does not verify" in capfd.readouterr().err
        assert main(["send", "letter.eml", url, "--ca", str(folder / "ca.pem")]) == 0
        assert main(["send", "letter.eml", url, "--insecure"]) == 0
        assert "--insecure: anybody may be at the other end" in capfd.readouterr().err
        assert [one.client.identity.name for one in post.taken if one.client.identity] == ["anna", "anna"]
        assert main(["send", "letter.eml", url.replace("secret", "hunter2"), "--insecure"]) == 1
        err = capfd.readouterr().err
        assert "AUTH" in err
        assert "535" in err
        assert "hunter2" not in err


def test_tls_begins_by_starttls(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with post_office(tls=None) as post:
        assert main(["send", "letter.eml", post.url, "--starttls", "required"]) == 1
        assert "the server does not offer TLS" in capfd.readouterr().err
    handler_tls = server_tls(folder).copy(alpn=["smtp"])
    post = Post()
    with in_thread() as portal:
        handler = SMTPHandler(post, hostname="mx.example", tls=handler_tls)
        service = portal.start(partial(serve, handler, "tcp://127.0.0.1:0"))
        url = service.endpoints[0].replace("tcp", "smtp")
        assert main(["send", "letter.eml", url]) == 0
        assert main(["send", "letter.eml", url, "--starttls", "required", "--ca", str(folder / "ca.pem")]) == 0
        assert main(["send", "letter.eml", url, "--starttls", "never"]) == 0
        assert [one.client.secure for one in post.taken] == [True, True, False]
        assert main(["send", "letter.eml", url, "--starttls", "required"]) == 1


def test_a_password_comes_from_netrc_or_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or "secret")
    monkeypatch.setattr("asyncnet.cli.logins.TERMINAL", os.devnull)
    with post_office(users=UserFile(users_file(folder))) as post:
        url = post.url.replace("//", "//anna@")
        assert main(["send", "letter.eml", "letter.eml", url]) == 0
        assert asked == ["Password for anna at 127.0.0.1: "]
        (folder / "netrc").write_text("machine 127.0.0.1 login anna password secret\n")
        monkeypatch.setenv("NETRC", str(folder / "netrc"))
        assert main(["send", "letter.eml", url]) == 0
        assert main(["send", "letter.eml", post.url]) == 0  # who names no user does not log in
        names = [one.client.identity and one.client.identity.name for one in post.taken]
        assert (names, len(asked)) == (["anna", "anna", "anna", None], 1)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["letter.eml", "http://127.0.0.1"], "messages are sent to smtp://"),
        (["letter.eml", "other.eml"], "messages are sent to smtp://"),
        (["none.eml", "smtp://127.0.0.1"], "none.eml: there is no such file"),
        ([".", "smtp://127.0.0.1"], ". is a folder"),
        (["-", "-", "smtp://127.0.0.1"], "standard input can be sent but once"),
        (["letter.eml", "smtp://127.0.0.1/x"], "nothing stands behind the host"),
        (["letter.eml", "smtp://127.0.0.1", "--to", "carl"], "carl is no address"),
        (["letter.eml", "smtp://127.0.0.1", "--from", "a\nb@example.org"], "is no address"),
        (["letter.eml", "smtp://127.0.0.1:1", "--name", "a b"], "no name for EHLO"),
        (["letter.eml", "smtps://127.0.0.1", "--starttls", "never"], "smtps:// begins with TLS"),
        (
            ["letter.eml", "smtp://127.0.0.1", "--starttls", "never", "--ca", "none.pem"],
            "none.pem does not load: No such file or directory",
        ),
        (["letter.eml", "smtp://127.0.0.1", "--proxy", "nonsense"], "proxy"),
    ],
)
def test_wrong_options_are_told_before_anything_is_sent(
    arguments: list[str], problem: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["send", *arguments]) == 2
    err = capfd.readouterr().err
    assert problem in err
    assert err.count("\n") <= 3


def test_nobody_there_is_told_in_one_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "letter.eml", "smtp://127.0.0.1:1"]) == 1
    err = capfd.readouterr().err
    assert err.startswith("asyncnet send: letter.eml: ")
    assert "refused" in err
    assert err.count("\n") == 1


# Interrupts, and bars


@contextmanager
def stuck() -> Iterator[tuple[str, threading.Event, Callable[[], bool]]]:
    """A server that never answers the end of a message: its URL, when that has come, and whether the client is gone."""
    ended, gone = threading.Event(), threading.Event()

    async def handler(stream: trio.abc.Stream) -> None:
        peer = ScriptedPeer(stream, timeout=DEADLINE)
        await peer.send(b"220 ready\r\n")
        for _ in range(5):
            await peer.expect_until()
            await peer.send(b"250 ok\r\n")
        await peer.expect(b"DATA\r\n")
        await peer.send(b"354 go\r\n")
        await peer.expect_until(b"\r\n.\r\n")
        ended.set()
        try:
            await peer.stream.receive_some()
        except trio.BrokenResourceError:
            pass
        gone.set()

    with in_thread() as portal:
        service = portal.start(partial(serve, handler, "tcp://127.0.0.1:0"))
        yield service.endpoints[0].replace("tcp", "smtp"), ended, partial(gone.wait, DEADLINE)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_it_at_once(folder: Path, number: int, status: int) -> None:
    with stuck() as (url, ended, gone):
        command = [*COMMAND, "send", "letter.eml", url]
        with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
            assert ended.wait(DEADLINE)
            process.send_signal(number)
            _, err = process.communicate(timeout=DEADLINE)
        assert gone()
    assert process.returncode == status
    assert err == "asyncnet send: letter.eml: interrupted: nobody knows whether the server has taken it\n"


def test_a_time_that_is_told_is_for_each_wait(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with stuck() as (url, _, gone):
        assert main(["send", "letter.eml", url, "--timeout", "0.2"]) == 1
        assert gone()
    assert "has not answered the message for 0.2 seconds" in capfd.readouterr().err


def test_a_terminal_shows_progress(post: Post) -> None:
    Path("large.eml").write_text(LETTER + "x" * 70 + "\n" * 100_000)
    with terminal() as (inner, finish):
        command = [*COMMAND, "send", "large.eml", post.url]
        done = subprocess.run(command, env=environment(TERM="xterm"), stderr=inner, timeout=DEADLINE, check=False)
        shown = finish()
    assert done.returncode == 0
    assert "━" in shown.decode()
