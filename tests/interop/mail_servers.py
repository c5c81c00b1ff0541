"""Mail servers of others on loopback, for the tests of the relay: where it passes mail on to.

smtp-sink comes with Postfix, which is installed, and so is Dovecot. Where `.ci/mail-servers` has unpacked Exim and
OpenSMTPD, they run; else the tests are skipped. Their configuration is made here. Those two know by their names only
the users that their packages would have made, and look for their own files in fixed places: each sees its own
/etc/passwd, and what else it needs, in a mount namespace that dies with it.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.cli.command import ROOT
from tests.cli.test_serve_smtp import until
from tests.interop.ftp_servers import PEERS, free_ports, running

USER, PASSWORD = "anna", "secret"
OWNER = "daemon"
"""Who the servers are, and whom the mail belongs to that they keep."""


@dataclass
class Peer:
    """A running server at `port`, which keeps each message as a file in `mail`, or in a Maildir there.

    `ca` is the file of the authority that vouches for it, if it has TLS; `suffix` is what it puts behind messages.
    """

    port: int
    mail: Path
    ca: Path | None = None
    suffix: bytes = b""

    def url(self, login: str = "", scheme: str = "smtp") -> str:
        return f"{scheme}://{login}localhost:{self.port}"

    def files(self, within: str = "") -> list[Path]:
        """The files of what has come, in no particular order."""
        folder = self.mail / within
        new = folder / "new" if (folder / "new").is_dir() else folder
        return [path for path in new.iterdir() if path.is_file()] if new.is_dir() else []

    def contents(self, within: str = "") -> list[bytes]:
        """What has come, with LF for line ends, and with the lines that the server has put before it."""
        return [path.read_bytes().removesuffix(self.suffix) for path in self.files(within)]

    def wait_for(self, count: int, within: str = "") -> list[bytes]:
        """Its contents as soon as so many have come; some servers deliver behind their 250."""
        until(lambda: len(self.contents(within)) >= count)
        contents = self.contents(within)
        assert len(contents) == count
        return contents


class Printing(Peer):
    """aiosmtpd, which prints what it gets into the file `mail`."""

    @property
    def told(self) -> list[dict[str, Any]]:
        """What it has printed of each message: see `tests.interop.aiosmtpd_server`."""
        return [json.loads(line) for line in self.mail.read_text().splitlines(keepends=True)[1:] if line.endswith("\n")]

    def contents(self, within: str = "") -> list[bytes]:
        return [told["content"].encode("latin-1").replace(b"\r\n", b"\n") for told in self.told]


@contextmanager
def folder_for_servers() -> Iterator[Path]:
    """A folder that other users reach, which pytest's own are not, with one for mail that is `OWNER`'s."""
    folder = Path(tempfile.mkdtemp(prefix="asyncnet-mail-"))
    try:
        folder.chmod(0o755)
        for name in ("mail", "spool", "home"):
            (folder / name).mkdir()
            give(folder / name, OWNER)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a server that ends may be writing still


def give(path: Path, user: str) -> None:
    """Have it belong to a user, if we are root. Else all servers that run are ours, as all that they read is."""
    if os.geteuid() == 0:
        shutil.chown(path, user, pwd.getpwnam(user).pw_gid)


def write_certificate(folder: Path) -> Path:
    """Put server.pem into the folder, which is for localhost; returns where the authority's certificate is."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    (folder / "server.pem").chmod(0o600)
    give(folder / "server.pem", OWNER)
    return folder / "ca.pem"


def program(name: str, script: str, *, unpacked: bool = False) -> str:
    """Where a server's program is. Skips the test where it is not, with the script that puts it there."""
    found = shutil.which(name, path=str(PEERS / "usr/sbin") if unpacked else "/usr/sbin:/usr/local/sbin:/usr/bin")
    if found is None:
        pytest.skip(f"{name} is not there: {script} puts it there")
    if os.geteuid() != 0:
        pytest.skip(f"{name} is started as root only")
    return found


def in_own_mounts(folder: Path, users: list[str], steps: list[str], command: list[str]) -> list[str]:
    """The command with `users` in its /etc/passwd, each of them `OWNER` by another name, and after these steps."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        pytest.skip("root may make no mount namespaces here")
    owner = pwd.getpwnam(OWNER)
    for path, lines in (
        ("/etc/passwd", [f"{user}:x:{owner.pw_uid}:{owner.pw_gid}::/nonexistent:/bin/false" for user in users]),
        ("/etc/group", [f"{user}:x:{owner.pw_gid}:" for user in users]),
    ):
        own = folder / Path(path).name
        own.write_text(Path(path).read_text() + "".join(f"{line}\n" for line in lines))
        steps = [f"mount --bind {own} {path}", *steps]
    return ["unshare", "--mount", "sh", "-c", " && ".join([*steps, 'exec "$@"']), "sh", *command]


# smtp-sink


@contextmanager
def smtp_sink(*options: str, host: str = "127.0.0.1", port: int | None = None) -> Iterator[Peer]:
    """Postfix's smtp-sink, which takes anything, with a file for each message."""
    binary = program("smtp-sink", ".ci/run")
    if port is None:
        (port,) = free_ports(1)
    with folder_for_servers() as folder:
        command = [binary, "-u", OWNER, "-d", f"{folder}/mail/%H%M.", *options, f"{host}:{port}", "1000"]
        with running(command, port, folder, host=host):
            yield Peer(port, folder / "mail", suffix=b"\n")


# aiosmtpd


@contextmanager
def aiosmtpd() -> Iterator[Printing]:
    """aiosmtpd with STARTTLS: "nobody" is refused, and over TLS `USER` may log in with `PASSWORD`. It has no DSN."""
    pytest.importorskip("aiosmtpd")
    with folder_for_servers() as folder:
        ca = write_certificate(folder)
        printed = folder / "printed"
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.interop.aiosmtpd_server",
            "smtp",
            f"{folder}/server.pem",
        ]
        with printed.open("w") as file, subprocess.Popen(command, cwd=ROOT, stdout=file) as process:
            try:
                until(lambda: printed.read_text().endswith("\n"))
                yield Printing(int(printed.read_text()), printed, ca)
            finally:
                process.kill()


# Exim

EXIM = """\
exim_path = {program}
spool_directory = {folder}/spool
log_file_path = {folder}/spool/log-%slog
pid_file_path = {folder}/spool/pid
keep_environment =
primary_hostname = mx.example
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
deliver_drop_privilege
tls_advertise_hosts = *
tls_certificate = {folder}/server.pem
dsn_advertise_hosts = *
acl_smtp_rcpt = recipients
acl_smtp_data = accept
{options}

begin acl
recipients:
  deny message = 5.1.1 There is nobody
       local_parts = nobody
  deny message = 5.7.1 Log in first
       local_parts = members
       !authenticated = *
  defer message = 4.2.0 Come back later
        local_parts = later
        condition = ${{if !exists{{{folder}/mail/new}}}}
  accept

begin routers
all:
  driver = accept
  transport = keep

begin transports
keep:
  driver = appendfile
  directory = {folder}/mail
  maildir_format
  envelope_to_add
  return_path_add
  user = {owner}

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_advertise_condition = ${{if def:tls_in_cipher}}
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
"""


@contextmanager
def exim(*options: str) -> Iterator[Peer]:
    """Exim, with these lines in its configuration. There are STARTTLS and DSN.

    "nobody" is refused, "members" to whom has not logged in, and "later" for now, until others have mail.
    Reports are kept like all that it takes: for whomever they are.
    """
    binary = program("exim4", ".ci/mail-servers", unpacked=True)
    with folder_for_servers() as folder:
        ca = write_certificate(folder)
        (port,) = free_ports(1)
        configuration = EXIM.format(
            program=binary,
            folder=folder,
            port=port,
            owner=OWNER,
            options="\n".join(options),
            user=USER,
            password=PASSWORD,
        )
        (folder / "conf").write_text(configuration)
        command = in_own_mounts(folder, ["Debian-exim"], [], [binary, "-bdf", "-C", str(folder / "conf")])
        with running(command, port, folder):
            yield Peer(port, folder / "mail", ca)


# OpenSMTPD

OPENSMTPD = """\
pki localhost cert "{folder}/server.pem"
pki localhost key "{folder}/server.pem"
table users {{ "carl" = "{owner}" }}
listen on 127.0.0.1 port {port} hostname localhost tls pki localhost
action keep maildir "{folder}/mail" virtual <users>
match from any for domain "example.com" action keep
"""
OPENSMTPD_PLACES = [
    *(f"mount -t tmpfs tmpfs {place}" for place in ("/var/lib", "/var/spool", "/usr/libexec", "/run")),
    "mkdir -p /var/lib/opensmtpd/empty /var/spool/smtpd /usr/libexec/opensmtpd",
    "chmod 711 /var/spool/smtpd",
    f"mount --bind {PEERS}/usr/libexec/opensmtpd /usr/libexec/opensmtpd",
]


@contextmanager
def opensmtpd() -> Iterator[Peer]:
    """OpenSMTPD, which keeps the mail of carl@example.com and refuses all other recipients.

    It offers STARTTLS, and fails in the handshake: with OpenSSL 3, 6.8.0 does not find its own key, of whatever kind.
    So nobody can log in, which it wants TLS for; at Exim and aiosmtpd one can.
    """
    binary = program("smtpd", ".ci/mail-servers", unpacked=True)
    with folder_for_servers() as folder:
        ca = write_certificate(folder)
        give(folder / "server.pem", "root")
        (port,) = free_ports(1)
        (folder / "conf").write_text(OPENSMTPD.format(folder=folder, port=port, owner=OWNER))
        command = [binary, "-d", "-f", str(folder / "conf")]
        with running(in_own_mounts(folder, ["opensmtpd", "opensmtpq"], OPENSMTPD_PLACES, command), port, folder):
            yield Peer(port, folder / "mail", ca)


# Dovecot

DOVECOT = """\
protocols = lmtp
base_dir = {folder}/run
log_path = {folder}/log
ssl = no
first_valid_uid = 1
mail_location = maildir:{folder}/mail/%n
mail_plugins = quota
plugin {{
  quota = maildir:User quota
}}
passdb {{
  driver = passwd-file
  args = username_format=%n {folder}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {folder}/users
  default_fields = uid={owner} gid={owner} home={folder}/home
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""


@contextmanager
def dovecot_lmtp() -> Iterator[Peer]:
    """Dovecot by LMTP, with Maildirs of carl, and of "full", which shows only behind the message that it is so."""
    binary = program("dovecot", ".ci/run")
    if not Path("/usr/lib/dovecot/lmtp").exists():
        pytest.skip("dovecot-lmtpd is not installed: .ci/mail-servers does it")
    with folder_for_servers() as folder:
        (port,) = free_ports(1)
        (folder / "users").write_text("carl:::::::\nfull:::::::userdb_quota_rule=*:bytes=10\n")
        (folder / "conf").write_text(DOVECOT.format(folder=folder, port=port, owner=OWNER))
        with running([binary, "-F", "-c", str(folder / "conf")], port, folder):
            yield Peer(port, folder / "mail")
