"""FTP servers of others on loopback, each in a folder of its own, for the tests of the client.

Where vsftpd is installed and where `.ci/ftp-servers` has unpacked proftpd and pure-ftpd, they run; else the tests are
skipped. Their configuration is made here. They are started as root, since that is what they are made for, and serve as
the user daemon, whose home exists.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

PEERS = Path(os.environ.get("ASYNCNET_PEERS", "/opt/asyncnet-peers"))
USER, PASSWORD = "joe", "pass word"
LARGE = bytes(range(256)) * 20_000


@dataclass
class Peer:
    """A running server. `root` is the folder that it shows; the TLS one demands TLS where it can."""

    name: str
    root: Path
    login: str
    port: int
    tls_port: int
    implicit_port: int | None = None
    home: str = "/"
    """What `root` is called on it."""
    lacks: frozenset[str] = field(default_factory=frozenset)

    @property
    def url(self) -> str:
        return f"ftp://{self.login}localhost:{self.port}/"

    @property
    def tls_url(self) -> str:
        return f"ftpes://{self.login}localhost:{self.tls_port}/"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def running(command: list[str], port: int, folder: Path, host: str = "127.0.0.1") -> Iterator[None]:
    """A server's process, from when it answers at `port` on."""
    with (folder / f"log-{port}").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    try:
        for _ in range(200):
            try:
                socket.create_connection((host, port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / f"log-{port}").read_text(errors="replace")
                time.sleep(0.05)
        else:
            raise AssertionError(f"{command[0]} does not answer")
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """A folder with files that another user's process can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="asyncnet-ftp-"))
    try:
        folder.chmod(0o755)
        root = folder / "root"
        (root / "sub folder" / "deep").mkdir(parents=True)
        (root / "a file.txt").write_bytes(b"hello\n" * 1000)
        (root / "empty").write_bytes(b"")
        (root / "large").write_bytes(LARGE)
        (root / "sub folder" / "naïve.txt").write_text("ü")
        (root / "link").symlink_to("large")
        os.utime(root / "a file.txt", (1_600_000_000, 1_600_000_000))
        owner = pwd.getpwnam("daemon")
        for path in (root, *root.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
        yield folder
    finally:
        shutil.rmtree(folder)


def write_certificate(authority: trustme.CA, folder: Path) -> Path:
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    path = folder / "cert.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
    path.chmod(0o600)
    return path


def program(name: str, *, unpacked: bool) -> str:
    found = shutil.which(name, path=str(PEERS / "usr/sbin") if unpacked else "/usr/sbin:/usr/local/sbin:/usr/bin")
    if found is None:
        pytest.skip(f"{name} is not there: .ci/ftp-servers puts it there")
    if os.getuid() != 0:
        pytest.skip(f"{name} runs as root only")
    return found


def hashed_password() -> str:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    made = subprocess.run(["openssl", "passwd", "-6", PASSWORD], check=True, capture_output=True, text=True)
    return made.stdout.strip()


VSFTPD = """
listen=YES
background=NO
listen_address=127.0.0.1
listen_port={port}
anonymous_enable=YES
ftp_username=daemon
nopriv_user=nobody
anon_root={folder}
write_enable=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_umask=022
secure_chroot_dir={folder}/empty
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
mdtm_write=YES
xferlog_enable=NO
"""
VSFTPD_TLS = """
ssl_enable=YES
allow_anon_ssl=YES
force_anon_logins_ssl=YES
force_anon_data_ssl=YES
require_ssl_reuse=YES
implicit_ssl={implicit}
rsa_cert_file={folder}/cert.pem
"""


@contextmanager
def vsftpd(authority: trustme.CA) -> Iterator[Peer]:
    binary = program("vsftpd", unpacked=False)
    with folder_for_all() as folder:
        (folder / "empty").mkdir()
        write_certificate(authority, folder)
        ports = free_ports(3)
        texts = [
            VSFTPD,
            VSFTPD + VSFTPD_TLS.replace("{implicit}", "NO"),
            VSFTPD + VSFTPD_TLS.replace("{implicit}", "YES"),
        ]
        commands = []
        for port, text in zip(ports, texts, strict=True):
            (folder / f"{port}.conf").write_text(text.format(port=port, folder=folder).lstrip())
            commands.append([binary, str(folder / f"{port}.conf")])
        with (
            running(commands[0], ports[0], folder),
            running(commands[1], ports[1], folder),
            running(commands[2], ports[2], folder),
        ):
            lacks = frozenset({"MLSD", "MFMT", "HASH", "CHMOD"})  # the anonymous may not write at its top
            yield Peer("vsftpd", folder / "root", "", *ports, home="/root/", lacks=lacks)


PROFTPD = """
ModulePath {peers}/usr/lib/proftpd
LoadModule mod_tls.c
LoadModule mod_digest.c
ServerType standalone
ServerName test
DefaultAddress 127.0.0.1
UseIPv6 off
Port {port}
User daemon
Group daemon
AuthUserFile {folder}/users
AuthOrder mod_auth_file.c
RequireValidShell off
DefaultRoot {folder}/root
PidFile {folder}/{port}.pid
ScoreboardFile {folder}/{port}.scoreboard
SystemLog {folder}/{port}.system
TransferLog none
WtmpLog off
UseReverseDNS off
AllowOverwrite on
AllowStoreRestart on
AllowRetrieveRestart on
"""
PROFTPD_TLS = """
TLSEngine on
TLSRequired on
TLSECCertificateFile {folder}/cert.pem
TLSECCertificateKeyFile {folder}/cert.pem
TLSVerifyClient off
TLSLog {folder}/{port}.tls
"""


@contextmanager
def proftpd(authority: trustme.CA) -> Iterator[Peer]:
    binary = program("proftpd", unpacked=True)
    owner = pwd.getpwnam("daemon")
    with folder_for_all() as folder:
        write_certificate(authority, folder)
        line = f"{USER}:{hashed_password()}:{owner.pw_uid}:{owner.pw_gid}::{folder}/root:/bin/false\n"
        (folder / "users").write_text(line)
        (folder / "users").chmod(0o600)
        ports = free_ports(2)
        for port, text in zip(ports, (PROFTPD, PROFTPD + PROFTPD_TLS), strict=True):
            (folder / f"{port}.conf").write_text(text.format(port=port, folder=folder, peers=PEERS))
        one, other = ([binary, "-n", "-c", str(folder / f"{port}.conf")] for port in ports)
        with running(one, ports[0], folder), running(other, ports[1], folder):
            yield Peer("proftpd", folder / "root", f"{USER}:pass%20word@", *ports)


@contextmanager
def pure_ftpd(authority: trustme.CA) -> Iterator[Peer]:
    binary = program("pure-ftpd", unpacked=True)
    with folder_for_all() as folder:
        certificate = write_certificate(authority, folder)
        owner = pwd.getpwnam("daemon")
        user = f"{USER}:{hashed_password()}:{owner.pw_uid}:{owner.pw_gid}::{folder}/root/./::::::::::::\n"
        (folder / "passwd").write_text(user)
        make = [str(PEERS / "usr/bin/pure-pw"), "mkdb", str(folder / "puredb"), "-f", str(folder / "passwd")]
        subprocess.run(make, check=True, capture_output=True)
        ports = free_ports(2)
        common = [binary, "-l", f"puredb:{folder}/puredb", "-E", "-A", "-H", "-u", "1", "-2", str(certificate)]
        commands = [
            [*common, "-S", f"127.0.0.1,{port}", "-g", f"{folder}/{port}.pid", "-Y", level]
            for port, level in zip(ports, ("0", "3"), strict=True)
        ]
        with running(commands[0], ports[0], folder), running(commands[1], ports[1], folder):
            yield Peer(
                "pure-ftpd", folder / "root", f"{USER}:pass%20word@", *ports, lacks=frozenset({"HASH", "SESSION"})
            )


PYFTPDLIB = """
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer
port, kind, root, cert, user, password = sys.argv[1:]
authorizer = DummyAuthorizer()
authorizer.add_user(user, password, root, perm="elradfmwMT")
handler = TLS_FTPHandler if kind == "tls" else FTPHandler
handler.authorizer = authorizer
if kind == "tls":
    handler.certfile = cert
    handler.tls_control_required = handler.tls_data_required = True
FTPServer(("127.0.0.1", int(port)), handler).serve_forever()
"""


@contextmanager
def pyftpdlib(authority: trustme.CA) -> Iterator[Peer]:
    with folder_for_all() as folder:
        certificate = write_certificate(authority, folder)
        ports = free_ports(2)
        one, other = (
            [sys.executable, "-c", PYFTPDLIB, str(port), kind, str(folder / "root"), str(certificate), USER, PASSWORD]
            for port, kind in zip(ports, ("plain", "tls"), strict=True)
        )
        with running(one, ports[0], folder), running(other, ports[1], folder):
            login = f"{USER}:pass%20word@"
            yield Peer("pyftpdlib", folder / "root", login, *ports, lacks=frozenset({"HASH"}))


SERVERS = {"vsftpd": vsftpd, "proftpd": proftpd, "pure-ftpd": pure_ftpd, "pyftpdlib": pyftpdlib}
