"""docs/mail.md: each of its programs runs, on a free port, and each of its commands is one."""

from __future__ import annotations

import inspect
import re
import shlex
import signal
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from asyncnet import serve
from asyncnet.cli import _parser
from asyncnet.embed import in_thread
from asyncnet.pop3 import POP3Handler, POP3Limits, POP3Timeouts
from asyncnet.relay import QueueLimits, RelayLimits
from asyncnet.relay.runner import RelayTimes
from asyncnet.smtp import Inbox, Message, SMTPHandler, SMTPLimits, SMTPTimeouts
from tests.examples.test_readme import DEADLINE, ENVIRONMENT
from tests.pop3.peer import Users, boxes

PAGE = (Path(__file__).parents[2] / "docs" / "mail.md").read_text()
RECEIVER, RULES, RELAY, SENDING, READING = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    line.rpartition("&& ")[2]
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
MESSAGE = "From: anna@example.org\r\nSubject: hello\r\n\r\nhow are you?\r\n"


@contextmanager
def serving(text: str) -> Iterator[tuple[smtplib.SMTP, subprocess.Popen[str]]]:
    """A client of the server that this program is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = text.replace("127.0.0.1:2525", f"127.0.0.1:{port}")
    with subprocess.Popen(
        [sys.executable, "-u", "-c", text], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            with connected(port) as smtp:
                yield smtp, server
        finally:
            server.kill()


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def connected(port: int) -> smtplib.SMTP:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return smtplib.SMTP("127.0.0.1", port, timeout=DEADLINE)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def output(text: str, url: str, password: str) -> str:
    """What the client that this program is prints, when it asks the server at `url`."""
    text = re.sub(r"\w+://anna@mail.example.org", url.replace("://", "://anna@"), text)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text],
        env=ENVIRONMENT,
        input=f"{password}\n",
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
        start_new_session=True,  # without a terminal to ask at
    )
    return done.stdout


def test_the_receiver_prints_what_has_come() -> None:
    with serving(RECEIVER) as (smtp, server):
        assert smtp.sendmail("anna@example.org", ["carl@example.com"], MESSAGE) == {}
        assert server.stdout is not None
        while "hello" not in (line := server.stdout.readline()):
            assert line
        assert line.startswith("anna@example.org ")


def test_the_rules_are_ones() -> None:
    names: dict[str, object] = {"delivery": Inbox(lambda message: None)}  # type: ignore[arg-type, return-value]
    exec(RULES, names)
    assert type(names["delivery"]).__name__ == "Guarded"


def test_the_relay_delivers_to_those_it_knows_and_ends_well(tmp_path: Path) -> None:
    new = tmp_path / "mail" / "anna" / "new"
    new.mkdir(parents=True)
    text = RELAY.replace("/srv/mail", str(tmp_path / "mail")).replace("/var/spool/asyncnet", str(tmp_path / "spool"))
    with serving(text) as (smtp, server):
        assert smtp.sendmail(
            "carl@example.com", ["anna@example.org", "eve@example.org", "x@other.example"], MESSAGE
        ) == {
            "eve@example.org": (550, b"5.1.1 Nobody here has this address."),
            "x@other.example": (550, b"5.7.1 Mail for others is not taken from here."),
        }
        smtp.quit()
        until(lambda: len(list(new.iterdir())) == 1)
        server.send_signal(signal.SIGTERM)
        assert server.wait(DEADLINE) == 0


def test_the_message_is_sent() -> None:
    sent: list[str] = []

    async def on_message(message: Message) -> None:
        sent.append(str((await message.parse())["Subject"]))

    with in_thread() as portal:
        handler = SMTPHandler(Inbox(on_message), users=Users())
        service = portal.start(partial(serve, handler, "tcp://127.0.0.1:0"))
        assert output(SENDING, service.urls[0], "anna") == ""
    assert sent == ["Καλημέρα"]


def test_the_mailbox_is_read_and_emptied() -> None:
    mailboxes = boxes(b"Subject: 1\r\n\r\nx\r\n", b"Subject: 22\r\n\r\nx\r\n")
    with in_thread() as portal:
        service = portal.start(partial(serve, POP3Handler(mailboxes, Users()), "tcp://127.0.0.1:0"))
        assert output(READING, service.urls[0], "anna").splitlines() == ["1 17 bytes", "2 18 bytes"]
        assert output(READING, service.urls[0], "anna") == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_options_that_there_are(command: str) -> None:
    name, *words = shlex.split(command, comments=True)
    assert name == "asyncnet"
    _parser(words).parse_args(words)


def test_the_unit_starts_a_server_that_there_is() -> None:
    (command,) = re.findall(r"^ExecStart=(.*)", PAGE.replace("\\\n", " "), re.MULTILINE)
    _, *words = shlex.split(command)
    _parser(words).parse_args(words)


def test_the_defaults_are_those_of_the_code() -> None:
    smtp, waits, pop3, pop3_waits = SMTPLimits(), SMTPTimeouts(), POP3Limits(), POP3Timeouts()
    relay, times, queue = RelayLimits(), RelayTimes(), QueueLimits()
    rows = [
        ("SMTPLimits.message", f"{smtp.message >> 20} MiB"),
        (".recipients", f"{smtp.recipients:,}"),
        (".messages", f"{smtp.messages:,}"),
        (".errors", f"{smtp.errors}"),
        (".hops", f"{smtp.hops}"),
        ("SMTPTimeouts.command", f"{waits.command:g} s"),
        (".content", f"{waits.content:g} s"),
        ("POP3Limits.errors", f"{pop3.errors}"),
        ("POP3Timeouts.login", f"{pop3_waits.login:g} s"),
        (".command", f"{pop3_waits.command:g} s"),
        ("RelayLimits.deliveries", f"{relay.deliveries}"),
        (".per_destination", f"{relay.per_destination}"),
        ("RelayTimes.down", f"{times.down:g} s"),
        ("QueueLimits.reserve", f"{queue.reserve >> 20} MiB"),
    ]
    table = PAGE.partition("\n## Limits\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(.+?)` \| (.+?) \|", table, re.MULTILINE) == rows
    assert f"a second more for each {smtp.rate} bytes" in table


def test_every_option_and_every_argument_of_the_handler_is_told() -> None:
    arguments = {*inspect.signature(SMTPHandler).parameters} - {"delivery", "guard"}
    assert [name for name in sorted(arguments) if not re.search(rf"\b{name}\b", PAGE)] == []
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    for kind in ("smtp", "pop3"):
        words = ["serve", kind, "--help"]
        with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patched:
            said: list[str] = []
            patched.setattr(sys.stdout, "write", said.append)
            _parser(words).parse_args(words)
        own = "".join(said).partition("\nTLS, for endpoints")[0]
        assert [
            option for option in re.findall(r"^  (--[\w-]+)", own, re.MULTILINE) if not re.search(rf"{option}\b", prose)
        ] == []
