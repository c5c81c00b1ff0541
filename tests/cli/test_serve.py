from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
import trustme

from asyncnet.cli import main
from tests.cli.command import COMMAND, DEADLINE, environment, run, serving

BIG = 64 * 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a file that is larger than any socket's buffer."""
    folder = tmp_path / "root"
    folder.mkdir()
    with (folder / "big").open("wb") as file:
        file.truncate(BIG)
    return folder


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    return path


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)


def read_to_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def begin_download(port: int) -> socket.socket:
    """A connection on which an answer has begun, of which nothing more is read."""
    sock = dial(port)
    sock.sendall(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert sock.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
    return sock


def wait_until_refused(port: int) -> None:
    """Until the listening socket is closed: the drain has begun."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            dial(port).close()
        except OSError:
            return
    raise AssertionError("it still accepts connections")


def talk(port: int) -> bytes:
    with dial(port) as sock:
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        return read_to_end(sock)


# What it prints, and that it works


def test_it_prints_a_line_for_each_endpoint_as_soon_as_it_listens(tmp_path: Path) -> None:
    path = tmp_path / "echo.sock"
    with serving("echo", "tcp://127.0.0.1:0", "tcp://[::1]:0", f"unix:{path}?mode=600", endpoints=3) as service:
        assert re.fullmatch(r"listening on tcp://127\.0\.0\.1:[1-9]\d* \(echo\)\n", service.lines[0])
        assert re.fullmatch(r"listening on tcp://\[::1\]:[1-9]\d* \(echo\)\n", service.lines[1])
        assert service.lines[2] == f"listening on unix:{path} (echo)\n"
        assert talk(int(service.lines[0].rpartition(":")[2].split()[0])) == b"hello"
        assert service.end(signal.SIGTERM)[0] == 0
    assert not path.exists()


def test_the_log_has_a_line_for_each_connection() -> None:
    with serving("echo", "tcp://127.0.0.1:0") as service:
        talk(service.ports[0])
        status, err = service.end(signal.SIGTERM)
    assert status == 0
    assert re.fullmatch(r".* INFO asyncnet\.service: echo: 127\.0\.0\.1:\d+, .* 5 bytes in, 5 bytes out: done\n", err)


def test_exec_gives_each_connection_a_program_with_its_arguments() -> None:
    with serving("exec", "tcp://127.0.0.1:0", "--", "sh", "-c", 'read line; echo "$0 $line"', "--", "x") as service:
        with dial(service.ports[0]) as sock:
            sock.sendall(b"hello\n")
            assert read_to_end(sock) == b"-- hello\n"
        assert service.end(signal.SIGTERM)[0] == 0


def test_a_signal_lets_a_running_program_finish() -> None:
    with serving("exec", "tcp://127.0.0.1:0", "--drain-timeout", "off", "--", "cat") as service:
        with dial(service.ports[0]) as sock:
            sock.sendall(b"before")
            assert sock.recv(6, socket.MSG_WAITALL) == b"before"
            service.process.send_signal(signal.SIGTERM)
            wait_until_refused(service.ports[0])
            sock.sendall(b"after")
            sock.shutdown(socket.SHUT_WR)
            assert read_to_end(sock) == b"after"
        assert service.end()[0] == 0


def test_options_reach_the_service() -> None:
    with serving("echo", "tcp://127.0.0.1:0", "--deny", "127.0.0.0/8", "--log-conversation") as service:
        with pytest.raises(ConnectionResetError):
            talk(service.ports[0])
        err = service.end(signal.SIGTERM)[1]
    assert "its network is denied" in err
    with serving("echo", "tcp://127.0.0.1:0", "--log-conversation", "--bandwidth", "10M") as service:
        assert talk(service.ports[0]) == b"hello"
        err = service.end(signal.SIGTERM)[1]
    assert "-> 'hello'" in err


def test_a_full_disk_behind_standard_output_is_no_reason_not_to_serve(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, open("/dev/full", "w") as full:
        manager.settimeout(DEADLINE)
        manager.bind(str(path))
        with subprocess.Popen(
            [*COMMAND, "serve", "echo", "tcp://127.0.0.1:0"],
            env=environment(NOTIFY_SOCKET=str(path)),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                assert manager.recv(100) == b"READY=1"
                process.send_signal(signal.SIGTERM)
                _, err = process.communicate(timeout=DEADLINE)
            finally:
                process.kill()
    assert (process.returncode, err) == (0, b"")


def test_whoever_read_the_first_line_may_leave_and_the_service_stays(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(DEADLINE)
        manager.bind(str(path))
        reader, writer = os.pipe()
        os.close(reader)
        with subprocess.Popen(
            [*COMMAND, "serve", "echo", f"unix:{tmp_path}/echo"],
            env=environment(NOTIFY_SOCKET=str(path)),
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
        ) as process:
            os.close(writer)
            try:
                assert manager.recv(100) == b"READY=1"
                process.send_signal(signal.SIGTERM)
                _, err = process.communicate(timeout=DEADLINE)
            finally:
                process.kill()
    assert (process.returncode, err) == (0, b"")


def test_systemd_is_told_of_the_beginning_and_of_the_end(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(DEADLINE)
        manager.bind(str(path))
        with serving("echo", "tcp://127.0.0.1:0", NOTIFY_SOCKET=str(path)) as service:
            assert manager.recv(100) == b"READY=1"
            assert service.end(signal.SIGTERM)[0] == 0
        assert manager.recv(100) == b"STOPPING=1"


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_idle_connections_and_lets_the_others_finish(number: int, root: Path) -> None:
    with serving("http", "tcp://127.0.0.1:0", "--root", root, "--drain-timeout", "off") as service:
        (port,) = service.ports
        with begin_download(port) as busy, dial(port) as idle:
            service.process.send_signal(number)
            wait_until_refused(port)
            assert read_to_end(idle) == b""
            assert len(read_to_end(busy).partition(b"\r\n\r\n")[2]) == BIG
        status, err = service.end()
    assert status == 0
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(number: int, root: Path) -> None:
    with serving("http", "tcp://127.0.0.1:0", "--root", root, "--drain-timeout", "off") as service:
        (port,) = service.ports
        with begin_download(port):
            service.process.send_signal(signal.SIGTERM)
            wait_until_refused(port)
            status, err = service.end(number)
    assert status == 128 + number
    assert "Traceback" not in err


def test_what_does_not_finish_in_time_is_cut_off(root: Path) -> None:
    with serving("http", "tcp://127.0.0.1:0", "--root", root, "--drain-timeout", "0.1s") as service:
        with begin_download(service.ports[0]):
            status, err = service.end(signal.SIGTERM)
    assert status == 0
    assert "cut off by the drain" in err


def test_sighup_brings_a_new_certificate_into_use(certificate: Path) -> None:
    def shown(port: int) -> bytes | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(dial(port)) as sock:
            return sock.getpeercert(binary_form=True)

    with serving("echo", "tls://127.0.0.1:0", "--cert", certificate) as service:
        (port,) = service.ports
        before = shown(port)
        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        service.process.send_signal(signal.SIGHUP)
        assert service.process.stderr is not None
        for line in service.process.stderr:
            if "loaded the certificate" in line:
                break
        assert shown(port) not in (before, None)
        assert service.end(signal.SIGTERM)[0] == 0


# TLS


def test_the_certificate_of_the_options_is_for_endpoints_with_tls_alone(tmp_path: Path) -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("localhost")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    for index, blob in enumerate(leaf.cert_chain_pems):
        blob.write_to_path(tmp_path / "chain.pem", append=index > 0)
    files = ["--cert", tmp_path / "chain.pem", "--key", tmp_path / "key.pem"]
    with serving("echo", "tls://127.0.0.1:0", "tcp://127.0.0.1:0", *files, endpoints=2) as service:
        assert [line.split("/")[0] for line in service.lines] == ["listening on tls:", "listening on tcp:"]
        context = ssl.create_default_context()
        ca.configure_trust(context)
        with context.wrap_socket(dial(service.ports[0]), server_hostname="localhost") as sock:
            sock.sendall(b"hello")
            assert sock.recv(5) == b"hello"
        assert talk(service.ports[1]) == b"hello"


def test_clients_without_a_certificate_are_turned_away_when_there_is_a_client_ca(
    certificate: Path, tmp_path: Path
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = f"tls://127.0.0.1:0?cert={certificate}"
    with serving("echo", own, "--client-ca", tmp_path / "ca.pem") as service:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            pytest.raises((ssl.SSLError, ConnectionError)),
            context.wrap_socket(dial(service.ports[0])) as sock,
        ):
            sock.sendall(b"hello")
            sock.recv(5)
        ca.issue_cert("someone").configure_cert(context)
        with context.wrap_socket(dial(service.ports[0])) as sock:
            sock.sendall(b"hello")
            assert sock.recv(5) == b"hello"


# What the user can put right: one line, exit status 2


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "echo", f"tcp://127.0.0.1:{port}")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"asyncnet serve: cannot listen on 127.0.0.1:{port}: the port is in use")
    assert result.stderr.count("\n") == 1


def test_a_wrong_endpoint_is_shown_with_the_place() -> None:
    result = run("serve", "echo", "tcp://localhost:http")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[1:] == ["  tcp://localhost:http", "                  ^"]


def test_a_broken_certificate_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.pem"
    path.write_text("no certificate\n")
    result = run("serve", "echo", "tls://127.0.0.1:0", "--cert", path)
    assert result.returncode == 2
    assert re.fullmatch(rf"asyncnet serve: the certificate {path} does not load: .*\n", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["echo", "tls://127.0.0.1:0", "--cert", "/no/such.pem"], "/no/such.pem does not exist"),
        (["echo", "tls://127.0.0.1:0"], "a certificate is missing"),
        (["echo", "tls://127.0.0.1:0", "--key", "key.pem"], "--key needs --cert"),
        (["echo", "tcp://127.0.0.1:0", "--cert", "chain.pem"], "none begins with tls"),
        (["echo", "tcp://127.0.0.1:0", "--", "cat"], "echo takes no program"),
        (["exec", "tcp://127.0.0.1:0"], "exec needs a program"),
        (["exec", "tcp://127.0.0.1:0", "--", "/no/such/program"], "/no/such/program"),
        (["http", "tcp://127.0.0.1:0", "--root", "/no/such/folder"], "/no/such/folder"),
        (["echo", "tcp://127.0.0.1:0", "--allow", "10.0.0.1/8"], "host bits"),
        (["echo", "tcp://127.0.0.1:0", "--idle-timeout", "soon"], "no duration"),
        (["echo", "tcp://127.0.0.1:0", "--max-connections", "0"], "no number"),
        (["echo"], "ENDPOINT"),
        (["gopher", "tcp://127.0.0.1:0"], "invalid choice: 'gopher'"),
    ],
)
def test_a_mistake_of_the_user_ends_with_status_2_and_no_traceback(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = main(["serve", *arguments])
    except SystemExit as ended:  # by argparse
        status = ended.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert problem in err
