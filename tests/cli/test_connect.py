from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from hypothesis import given
from hypothesis import strategies as st

from asyncnet import ServerTLS, Stream, serve
from asyncnet.cli import main
from asyncnet.cli.connect import to_crlf
from asyncnet.echo import EchoHandler
from asyncnet.embed import in_thread
from tests.cli.command import COMMAND, DEADLINE, environment, run

Start = Callable[..., str]


@pytest.fixture
def start() -> Iterator[Start]:
    """Serve a handler on loopback, and return where to connect to."""
    with in_thread() as portal:

        def start(handler: Any, endpoint: str = "tcp://127.0.0.1:0", **options: Any) -> str:
            return str(portal.start(partial(serve, handler, endpoint, **options)).endpoints[0])

        yield start


async def answer_a_line(stream: trio.abc.Stream) -> None:
    """Says the line that it got, and closes."""
    stream = Stream.of(stream)
    await stream.send_all(b"you said " + await stream.receive_until(b"\n", limit=1000))


async def greet(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"hello\n")


async def greet_and_stay(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"hello\n")
    await trio.sleep_forever()


async def chatter(stream: trio.abc.Stream) -> None:
    while True:
        await stream.send_all(bytes(65536))


async def hang_up(stream: trio.abc.Stream) -> None:
    stream = Stream.of(stream)
    await stream.send_all(b"so far")
    await stream.receive_some()
    await stream.abort()


# Standard input and output


def test_standard_input_goes_out_and_what_comes_back_is_printed(start: Start) -> None:
    text = "".join(f"line {number}\n" for number in range(50_000))
    result = run("connect", start(EchoHandler()), input=text)
    assert (result.returncode, result.stdout == text, result.stderr) == (0, True, "")


def test_standard_input_may_be_a_file(start: Start, tmp_path: Path) -> None:
    (tmp_path / "input").write_text("from a file\n")
    with (tmp_path / "input").open() as file:
        result = run("connect", start(EchoHandler()), stdin=file)
    assert (result.returncode, result.stdout, result.stderr) == (0, "from a file\n", "")


def test_standard_input_may_be_closed(start: Start) -> None:
    shell = ["sh", "-c", 'exec "$0" "$@" <&-', *COMMAND, "connect", start(greet)]
    result = subprocess.run(shell, env=environment(), capture_output=True, timeout=DEADLINE)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"hello\n", b"")


def test_standard_input_and_output_may_be_non_blocking(start: Start) -> None:
    """Programs that share a terminal or a pipe with us may have made it so."""
    endpoint = start(EchoHandler())
    ours, keyboard = os.pipe()
    screen, theirs = os.pipe()
    os.set_blocking(ours, False)
    os.set_blocking(theirs, False)
    load = bytes(range(256)) * 4096  # more than a pipe holds

    with subprocess.Popen(
        [*COMMAND, "connect", endpoint], env=environment(), stdin=ours, stdout=theirs, stderr=subprocess.PIPE
    ) as process:
        os.close(ours)
        os.close(theirs)
        try:
            with open(keyboard, "wb") as typed, open(screen, "rb") as shown:
                typed.write(b"first")
                typed.flush()
                assert shown.read(5) == b"first"  # so that it waits for more now
                writer = threading.Thread(target=lambda: (typed.write(load), typed.close()))
                writer.start()
                assert shown.read() == load
                writer.join()
            assert (process.wait(DEADLINE), process.stderr.read() if process.stderr else b"") == (0, b"")
        finally:
            process.kill()


def test_a_closed_standard_output_is_said(start: Start) -> None:
    shell = ["sh", "-c", 'exec "$0" "$@" >&-', *COMMAND, "connect", start(greet)]
    result = subprocess.run(
        shell, env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=DEADLINE
    )
    assert (result.returncode, result.stderr) == (2, b"asyncnet connect: standard output is closed\n")


def test_it_ends_with_the_peer_though_the_terminal_goes_on_and_leaves_the_terminal_as_it_was(start: Start) -> None:
    keyboard, terminal = pty.openpty()
    try:
        before = fcntl.fcntl(terminal, fcntl.F_GETFL)
        with subprocess.Popen(
            [*COMMAND, "connect", start(answer_a_line)], env=environment(), stdin=terminal, stdout=subprocess.PIPE
        ) as process:
            try:
                os.write(keyboard, b"something typed\n")
                out, _ = process.communicate(timeout=DEADLINE)
            finally:
                process.kill()
        assert (process.returncode, out) == (0, b"you said something typed\n")
        assert fcntl.fcntl(terminal, fcntl.F_GETFL) == before
    finally:
        os.close(keyboard)
        os.close(terminal)


def test_a_reader_that_leaves_ends_it_without_a_word(start: Start) -> None:
    with subprocess.Popen(
        [*COMMAND, "connect", start(chatter)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(1)
            process.stdout.close()
            err = process.stderr.read()
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
    assert err == b""


def test_ctrl_c_ends_it_without_a_word(start: Start) -> None:
    with subprocess.Popen(
        [*COMMAND, "connect", start(greet_and_stay)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.read(6) == b"hello\n"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
    assert (process.returncode, err) == (128 + signal.SIGINT, b"")


def test_crlf_ends_the_lines_that_are_sent(start: Start) -> None:
    received = bytearray()

    async def receive(stream: trio.abc.Stream) -> None:
        while data := await stream.receive_some():
            received.extend(data)

    run("connect", start(receive), "--crlf", input="a\nb\r\nc")
    assert received == b"a\r\nb\r\nc"


@given(st.lists(st.text("ab\r\n").map(str.encode).filter(bool)))
def test_crlf_does_not_depend_on_how_the_input_is_cut(pieces: list[bytes]) -> None:
    sent, last = b"", b""
    for piece in pieces:
        sent += to_crlf(piece, last)
        last = piece[-1:]
    assert sent == to_crlf(b"".join(pieces), b"")
    assert sent.replace(b"\r\n", b"").count(b"\n") == 0
    assert to_crlf(sent, b"") == sent


def test_wait_ends_the_conversation_with_a_peer_that_stays_silent(start: Start) -> None:
    result = run("connect", start(greet_and_stay), "--wait", "0.2s", input="x")
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")


# TLS


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    ca.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    ca.issue_cert("me").private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    return ca


@pytest.fixture
def secure(start: Start, ca: trustme.CA, tmp_path: Path) -> str:
    """Where a line is answered over TLS."""
    return start(answer_a_line, tls=ServerTLS(tmp_path / "server.pem", alpn=["answer/1"]))


def test_over_tls_the_peer_is_verified_by_the_given_authority(secure: str, tmp_path: Path) -> None:
    result = run("connect", secure, "--ca", tmp_path / "ca.pem", "--alpn", "answer/1", input="hello\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, "you said hello\n", "")


def test_a_peer_that_nobody_vouches_for_is_one_clear_line(secure: str) -> None:
    result = run("connect", secure, input="hello\n")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("asyncnet connect: the peer's certificate does not verify: ")
    assert result.stderr.count("\n") == 1


def test_the_server_name_is_what_is_verified(secure: str, tmp_path: Path) -> None:
    authority = ["--ca", tmp_path / "ca.pem"]
    assert run("connect", secure, *authority, "--server-name", "localhost", input="hello\n").returncode == 0
    result = run("connect", secure, *authority, "--server-name", "www.example.org", input="hello\n")
    assert result.returncode == 1
    assert "www.example.org" in result.stderr


def test_insecure_goes_without_and_says_so(secure: str) -> None:
    result = run("connect", secure, "--insecure", input="hello\n")
    assert (result.returncode, result.stdout) == (0, "you said hello\n")
    assert result.stderr == "asyncnet connect: --insecure: anybody may be at the other end\n"


def test_a_certificate_is_shown_to_a_server_that_asks_for_one(start: Start, ca: trustme.CA, tmp_path: Path) -> None:
    endpoint = start(answer_a_line, tls=ServerTLS(tmp_path / "server.pem", client_ca=tmp_path / "ca.pem"))
    authority = ["--ca", tmp_path / "ca.pem"]
    own = ["--cert", tmp_path / "client.pem"]
    assert run("connect", endpoint, *authority, *own, input="hello\n").stdout == "you said hello\n"
    refused = run("connect", endpoint, *authority, input="hello\n")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)


# Exit statuses


def test_a_refused_connection_is_one_line_and_status_1() -> None:
    result = run("connect", "tcp://127.0.0.1:1")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "asyncnet connect: cannot connect to 127.0.0.1:1: Connection refused\n"


def test_a_connection_that_breaks_is_one_line_and_status_1_after_what_had_come(start: Start) -> None:
    result = run("connect", start(hang_up), input="x")
    assert (result.returncode, result.stdout) == (1, "so far")
    assert result.stderr.startswith("asyncnet connect: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["example.org:80"], "the scheme is missing"),
        (["systemd:web"], "this is for listening"),
        (["tcp://127.0.0.1:1", "--ca", "ca.pem"], "begins with tls"),
        (["tcp://127.0.0.1:1", "--insecure"], "begins with tls"),
        (["tls://127.0.0.1:1", "--ca", "/no/such.pem"], "does not load"),
        (["tls://127.0.0.1:1", "--key", "key.pem"], "a key needs its certificate"),
        (["tcp://127.0.0.1:1", "--proxy", "gopher://127.0.0.1:70"], "gopher"),
        (["tcp://127.0.0.1:1", "--timeout", "0"], "no duration"),
        ([], "ENDPOINT"),
    ],
)
def test_a_mistake_of_the_user_ends_with_status_2_and_no_traceback(
    arguments: list[str], problem: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    try:
        status: object = main(["connect", *arguments])
    except SystemExit as ended:  # by argparse
        status = ended.code
    out, err = capfd.readouterr()
    assert (status, out) == (2, "")
    assert problem in err
