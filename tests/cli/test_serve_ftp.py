"""`asyncnet serve ftp` as whoever runs it sees it: a process, what clients get from it, its log, its exit status."""

from __future__ import annotations

import ftplib
import io
import re
import shutil
import signal
import socket
import ssl
import subprocess
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import argon2
import pytest
import trustme
from argon2.profiles import CHEAPEST

from asyncnet.cli import main
from asyncnet.cli.log import FileLog
from tests.cli.command import DEADLINE, Running, run, serving
from tests.cli.test_log import record
from tests.cli.test_serve import wait_until_refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "hello.txt").write_bytes(b"hello")
    return folder


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users.toml"
    hashed = argon2.PasswordHasher.from_parameters(CHEAPEST).hash("secret")
    (tmp_path / "berts").mkdir()
    path.write_text(
        f'[users.anna]\npassword = "{hashed}"\n'
        f'[users.bert]\npassword = "{hashed}"\nroot = "{tmp_path / "berts"}"\npermissions = ["list"]\n'
    )
    path.chmod(0o600)
    return path


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "cert.pem"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    return path


def client_tls(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate.with_name("ca.pem")))


@contextmanager
def ftp_service(*arguments: object, endpoint: str = "tcp://127.0.0.1:0") -> Iterator[tuple[int, list[str]]]:
    """The port; the list has the lines of standard error when the block has ended."""
    log: list[str] = []
    with serving("ftp", endpoint, *arguments) as service:
        yield service.ports[0], log
        status, err = service.end(signal.SIGTERM)
        assert status == 0, err
        log += err.splitlines()


@contextmanager
def client(port: int, user: str = "", password: str = "") -> Iterator[ftplib.FTP]:
    with ftplib.FTP() as ftp:
        ftp.connect("127.0.0.1", port, timeout=DEADLINE)
        ftp.login(user, password)
        yield ftp


def fetched(ftp: ftplib.FTP, name: str) -> bytes:
    data = io.BytesIO()
    ftp.retrbinary(f"RETR {name}", data.write)
    return data.getvalue()


# Who may do what


def test_anonymous_users_read_and_do_not_write(root: Path) -> None:
    with ftp_service("--root", root, "--anonymous") as (port, _), client(port) as ftp:
        assert sorted(ftp.nlst()) == ["hello.txt", "sub"]
        assert fetched(ftp, "hello.txt") == b"hello"
        for attempt in (lambda: ftp.storbinary("STOR new", io.BytesIO(b"x")), lambda: ftp.delete("hello.txt")):
            with pytest.raises(ftplib.error_perm, match="550"):
                attempt()
    assert (root / "hello.txt").exists()


def test_anonymous_users_write_where_they_may(root: Path) -> None:
    with ftp_service("--root", root, "--anonymous", "--write", "--fsync") as (port, _), client(port) as ftp:
        ftp.storbinary("STOR sub/new", io.BytesIO(b"new"))
        ftp.rename("hello.txt", "sub/hi.txt")
    assert (root / "sub" / "new").read_bytes() == b"new"
    assert (root / "sub" / "hi.txt").read_bytes() == b"hello"


def test_nothing_out_of_the_root_is_served(root: Path) -> None:
    (root.parent / "secret").write_text("secret")
    (root / "link").symlink_to(root.parent / "secret")
    with ftp_service("--root", root, "--anonymous") as (port, _), client(port) as ftp:
        for name in ("../secret", "/../secret", "sub/../../secret", "link"):
            with pytest.raises(ftplib.error_perm):
                fetched(ftp, name)


def test_users_have_the_root_unless_their_entry_names_another(root: Path, users: Path) -> None:
    (users.parent / "berts" / "his").write_text("his")
    with ftp_service("--users", users, "--root", root) as (port, _):
        with client(port, "anna", "secret") as ftp:
            ftp.storbinary("STOR new", io.BytesIO(b"new"))
        with client(port, "bert", "secret") as ftp:
            assert ftp.nlst() == ["his"]
            with pytest.raises(ftplib.error_perm, match="550"):
                fetched(ftp, "his")
        with pytest.raises(ftplib.error_perm, match="530"), client(port):
            pass
    assert (root / "new").read_bytes() == b"new"


def test_without_a_root_only_users_who_have_one_get_in(users: Path) -> None:
    with ftp_service("--users", users) as (port, log):
        with client(port, "bert", "secret") as ftp:
            assert ftp.nlst() == []
        with pytest.raises(ftplib.Error), client(port, "anna", "secret"):
            pass
    assert any("user 'anna': root is missing" in line for line in log)


def test_the_greeting_is_the_user_s(root: Path) -> None:
    with ftp_service("--root", root, "--anonymous", "--greeting", "Files of the shop") as (port, _):
        with client(port) as ftp:
            assert ftp.getwelcome() == "220 Files of the shop"


# TLS


def test_clients_may_begin_tls_and_need_not(root: Path, certificate: Path) -> None:
    with ftp_service("--root", root, "--anonymous", "--cert", certificate) as (port, _):
        with ftplib.FTP_TLS(context=client_tls(certificate)) as ftp:
            ftp.connect("localhost", port, timeout=DEADLINE)
            ftp.login()
            ftp.prot_p()
            assert fetched(ftp, "hello.txt") == b"hello"
        with client(port) as plain:
            assert fetched(plain, "hello.txt") == b"hello"


def test_tls_that_is_required_is_required_for_login_and_data(root: Path, users: Path, certificate: Path) -> None:
    words = ("--users", users, "--root", root, "--cert", certificate)
    with ftp_service(*words, "--require-tls") as (port, _):
        with pytest.raises(ftplib.Error, match="TLS"), client(port, "anna", "secret"):
            pass
        with ftplib.FTP_TLS(context=client_tls(certificate)) as ftp:
            ftp.connect("localhost", port, timeout=DEADLINE)
            ftp.login("anna", "secret")
            with pytest.raises(ftplib.error_perm):
                fetched(ftp, "hello.txt")
            ftp.prot_p()
            assert fetched(ftp, "hello.txt") == b"hello"
    with ftp_service(*words, "--require-tls=login") as (port, _):
        with ftplib.FTP_TLS(context=client_tls(certificate)) as ftp:
            ftp.connect("localhost", port, timeout=DEADLINE)
            ftp.login("anna", "secret")
            assert fetched(ftp, "hello.txt") == b"hello"


def test_curl_speaks_all_three_ways_at_once(root: Path, certificate: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    endpoints = ("tcp://127.0.0.1:0", "tls://127.0.0.1:0")
    words = ("--root", root, "--anonymous", "--write", "--cert", certificate, "--require-session")
    with serving("ftp", *endpoints, *words, endpoints=2) as service:
        plain, secure = service.ports
        ca = ["--cacert", str(certificate.with_name("ca.pem"))]
        for way in ([f"ftp://localhost:{plain}"], [*ca, "--ssl-reqd", f"ftp://localhost:{plain}"]):
            assert curl(*way[:-1], f"{way[-1]}/hello.txt") == b"hello"
        assert curl(*ca, f"ftps://localhost:{secure}/hello.txt") == b"hello"
        curl("-T", str(root / "hello.txt"), "--ssl-reqd", *ca, f"ftp://localhost:{plain}/sub/")
        assert (root / "sub" / "hello.txt").read_bytes() == b"hello"
        assert service.end(signal.SIGTERM)[0] == 0


def curl(*arguments: str) -> bytes:
    command = ["curl", "--silent", "--show-error", "--max-time", str(DEADLINE), "--disable-epsv", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=2 * DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sighup_loads_the_certificate_of_clients_who_begin_tls_again(root: Path, certificate: Path) -> None:
    with serving("ftp", "tcp://127.0.0.1:0", "--root", root, "--anonymous", "--cert", certificate) as service:
        before = certificate_shown(service)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(certificate.with_name("ca.pem"))
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        service.process.send_signal(signal.SIGHUP)
        assert service.process.stderr is not None
        for line in service.process.stderr:
            if "loaded the certificate" in line:
                break
        assert certificate_shown(service) != before
        assert service.end(signal.SIGTERM)[0] == 0


def certificate_shown(service: Running) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with ftplib.FTP_TLS(context=context) as ftp:
        ftp.connect("127.0.0.1", service.ports[0], timeout=DEADLINE)
        ftp.auth()
        assert isinstance(ftp.sock, ssl.SSLSocket)
        shown = ftp.sock.getpeercert(binary_form=True)
        assert shown
        return shown


# Data connections


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_passive_ports_and_the_address_in_front_of_a_nat(root: Path) -> None:
    port_for_data = free_port()
    words = ("--passive-ports", port_for_data, "--masquerade", "192.0.2.7")
    with ftp_service("--root", root, "--anonymous", *words) as (port, _), client(port) as ftp:
        high, low = divmod(port_for_data, 256)
        assert f"(192,0,2,7,{high},{low})" in ftp.sendcmd("PASV")
        assert f"(|||{port_for_data}|)" in ftp.sendcmd("EPSV")


def test_active_connections_may_be_forbidden(root: Path) -> None:
    for words, works in (((), True), (("--no-active",), False)):
        with ftp_service("--root", root, "--anonymous", *words) as (port, _), client(port) as ftp:
            if works:
                ftp.set_pasv(False)
                assert fetched(ftp, "hello.txt") == b"hello"
            else:
                with pytest.raises(ftplib.error_perm):
                    ftp.sendport("127.0.0.1", free_port())


# The transfer log

LINE = re.compile(r"\w{3} \w{3} [ \d]\d [\d:]{8} \d{4} \d+ 127\.0\.0\.1 5 /hello\.txt b _ o a anonymous ftp 0 \* c")


def test_transfers_have_their_line_beside_the_log(root: Path) -> None:
    with ftp_service("--root", root, "--anonymous", "--log-level", "error") as (port, log), client(port) as ftp:
        fetched(ftp, "hello.txt")
    assert len(log) == 1
    assert LINE.fullmatch(log[0])


def test_transfers_are_logged_to_a_file_of_their_own(root: Path, tmp_path: Path) -> None:
    words = ("--root", root, "--anonymous", "--log-level", "error")
    for _ in range(2):  # it is added to
        with ftp_service(*words, "--transfer-log", tmp_path / "xferlog") as (port, log), client(port) as ftp:
            fetched(ftp, "hello.txt")
        assert log == []
    lines = (tmp_path / "xferlog").read_text().splitlines()
    assert [bool(LINE.fullmatch(line)) for line in lines] == [True, True]
    with ftp_service(*words, "--transfer-log", "off") as (port, log), client(port) as ftp:
        fetched(ftp, "hello.txt")
    assert log == []


def test_a_log_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = FileLog(str(path))
    for number in range(3):
        log.emit(record(f"record {number}"))
        log.close()
        path.rename(tmp_path / f"log.{number}")
    assert [(tmp_path / f"log.{number}").read_text() for number in range(3)] == [f"record {n}\n" for n in range(3)]


# Mistakes


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "nobody could log in: --anonymous lets everybody read, --users FILE names users"),
        (["--root", "."], "nobody could log in"),
        (["--anonymous"], "--anonymous needs --root DIR"),
        (["--anonymous", "--root", "/no/such"], "/no/such"),
        (["--write", "--users", "users.toml"], "--write goes with --anonymous"),
        (["--anonymous", "--root", ".", "--insecure-auth"], "--insecure-auth goes with --users"),
        (["--users", "/no/such.toml"], "/no/such.toml"),
        (["--anonymous", "--root", ".", "--require-tls"], "--require-tls needs --cert FILE"),
        (["--anonymous", "--root", ".", "--require-session"], "--require-session needs --cert FILE"),
        (["--anonymous", "--root", ".", "--key", "key.pem"], "--key needs --cert"),
        (["--anonymous", "--root", ".", "--client-ca", "ca.pem"], "none begins with tls"),
        (["--anonymous", "--root", ".", "--cert", "/no/such.pem"], "/no/such.pem does not exist"),
        (["--anonymous", "--root", ".", "--passive-ports", "80-90"], "write 50000-50100"),
        (["--anonymous", "--root", ".", "--passive-ports", "50100-50000"], "write 50000-50100"),
        (["--anonymous", "--root", ".", "--masquerade", "example.org"], "an IPv4 address"),
        (["--anonymous", "--root", ".", "--transfer-log", "/no/such/log"], "/no/such/log: cannot be written"),
        (["--anonymous", "--root", ".", "--require-tls=never"], "invalid choice"),
    ],
)
def test_a_mistake_is_one_clear_message_and_status_2(
    words: list[str],
    problem: str,
    users: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status: object = main(["serve", "ftp", "tcp://127.0.0.1:0", *words])
    except SystemExit as ended:  # by argparse
        status = ended.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert problem in err
    assert "Traceback" not in err


def test_other_kinds_take_no_certificate_for_endpoints_without_tls(certificate: Path) -> None:
    result = run("serve", "echo", "tcp://127.0.0.1:0", "--cert", certificate)
    assert result.returncode == 2
    assert "none begins with tls" in result.stderr


def test_help_tells_what_to_serve_before_all_else_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "ftp", "--help"])
    out = capsys.readouterr().out
    assert out.index("what to serve") < out.index("data connections") < out.index("limits;")
    for line in textwrap.dedent(out.partition("examples:\n")[2]).splitlines():
        assert "asyncnet serve ftp " in line


# Its end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_transfers_finish_and_says_goodbye_to_whoever_waits(root: Path, number: int) -> None:
    content = bytes(range(256)) * 100_000  # more than the sockets on the way hold
    (root / "large").write_bytes(content)
    with serving("ftp", "tcp://127.0.0.1:0", "--root", root, "--anonymous", "--drain-timeout", "off") as service:
        (port,) = service.ports
        with client(port) as busy, client(port) as idle:
            busy.voidcmd("TYPE I")
            with busy.transfercmd("RETR large") as data:
                received = bytearray(data.recv(1000))
                service.process.send_signal(number)
                wait_until_refused(port)
                with pytest.raises(ftplib.error_temp, match="421"):
                    idle.getresp()
                while piece := data.recv(1 << 20):
                    received += piece
            assert busy.getresp().startswith("226")
            assert received == content
            with pytest.raises(ftplib.error_temp, match="421"):
                busy.getresp()
            status, err = service.end()
            assert status == 0, err
            idle.close()
            busy.close()


def test_an_upload_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000
    old = tmp_path / "old"
    old.write_bytes(b"old")
    options = ("ftp", "tcp://127.0.0.1:0", "--root", tmp_path, "--anonymous", "--write")
    with serving(*options) as running, client(running.ports[0]) as ftp:
        ftp.voidcmd("TYPE I")
        uploads = [ftp.transfercmd("STOR new")]
        uploads[0].sendall(content[:-1])
        with client(running.ports[0]) as other:
            other.voidcmd("TYPE I")
            uploads.append(other.transfercmd("STOR old"))
            uploads[1].sendall(content[:-1])
            give_up = time.monotonic() + DEADLINE
            while sum(path.stat().st_size > 1_000_000 for path in tmp_path.glob(".asyncnet-*.part")) < 2:
                assert time.monotonic() < give_up
            running.process.kill()
            running.process.wait()
        for upload in uploads:
            upload.close()
    assert not (tmp_path / "new").exists()
    assert old.read_bytes() == b"old"
    with serving(*options) as running, client(running.ports[0]) as ftp:
        ftp.voidcmd("TYPE I")
        size = ftp.size("new")
        assert size
        ftp.storbinary("STOR new", io.BytesIO(content[size:]), rest=size)
        assert (tmp_path / "new").read_bytes() == content
        ftp.storbinary("STOR old", io.BytesIO(content))
    assert {path.name for path in tmp_path.iterdir()} == {"new", "old"}
