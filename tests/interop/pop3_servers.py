"""Dovecot on loopback, with a Maildir for each user, for the tests of the POP3 client and of Maildirs.

Its configuration is made here. It is started as root, since that is what it is made for, and reads mail as the user
daemon, to whom the Maildirs belong.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.interop.ftp_servers import free_ports, running

PASSWORD = "pass word"

CONFIGURATION = """
protocols = pop3
base_dir = {folder}/run
log_path = {folder}/log
listen = 127.0.0.1
ssl = yes
ssl_cert = <{folder}/server.pem
ssl_key = <{folder}/server.pem
auth_mechanisms = plain login scram-sha-256
first_valid_uid = 1
mail_location = maildir:{folder}/mail/%u
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
userdb {{
  driver = static
  args = uid=daemon gid=daemon home={folder}/home
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = {tls_port}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""


@dataclass
class Dovecot:
    """A running server. The Maildir of each user is in `mail`."""

    mail: Path
    ca: Path
    port: int
    tls_port: int

    def own(self) -> None:
        """Give Dovecot what was put into `mail`."""
        for folder, _, names in os.walk(self.mail):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                shutil.chown(path, "daemon", "daemon")


@contextmanager
def dovecot() -> Iterator[Dovecot]:
    """Dovecot with the user anna, whose password is `PASSWORD`."""
    program = shutil.which("dovecot") or "/usr/sbin/dovecot"
    if not os.path.exists(program):
        pytest.skip("dovecot is not installed")
    if os.geteuid() != 0:
        pytest.skip("dovecot has to be started as root")
    folder = Path(tempfile.mkdtemp(prefix="asyncnet-pop3-"))  # pytest's own folders are closed to others
    try:
        folder.chmod(0o755)
        for name in ("mail", "home"):
            (folder / name).mkdir()
            os.chown(folder / name, pwd.getpwnam("daemon").pw_uid, pwd.getpwnam("daemon").pw_gid)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            folder / "server.pem"
        )
        (folder / "users").write_text(f"anna:{{PLAIN}}{PASSWORD}::::::\n")
        port, tls_port = free_ports(2)
        (folder / "conf").write_text(CONFIGURATION.format(folder=folder, port=port, tls_port=tls_port))
        with running([program, "-F", "-c", str(folder / "conf")], port, folder):
            yield Dovecot(folder / "mail", folder / "ca.pem", port, tls_port)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
