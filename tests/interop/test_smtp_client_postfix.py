"""The SMTP client against Postfix, which runs here by itself, with a configuration and a spool of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import pytest
import trio
import trustme

from asyncnet.smtp import MessageRefused, NotSupported, SMTPClient, StartTLS
from asyncnet.smtp.client_transaction import CHUNK
from asyncnet.smtp.message import parse_message
from tests.interop.test_smtp_client import wait_for_port

DAEMONS = Path("/usr/lib/postfix/sbin")
ANNA, CARL = "anna@example.org", "carl@example.net"

MAIN = """\
compatibility_level = 3.6
queue_directory = {root}/spool
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {root}/log
maillog_file_prefixes = {root}
myhostname = mx.example
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mydestination =
alias_maps =
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
virtual_mailbox_domains = example.net
virtual_mailbox_base = {root}/mail
virtual_mailbox_maps = inline:{{carl@example.net=carl/, j\u00fcrgen@example.net=juergen/}}
virtual_uid_maps = static:{nobody}
virtual_gid_maps = static:{nobody}
virtual_minimum_uid = 100
smtpd_relay_restrictions = reject_unauth_destination
message_size_limit = 20000000
smtpd_tls_security_level = may
smtpd_tls_chain_files = {root}/cert.pem
"""
MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass
class Postfix:
    url: str
    root: Path
    trusting: ssl.SSLContext

    async def delivered(self, user: str, count: int) -> list[bytes]:
        """The messages in a mailbox, as soon as there are so many."""
        folder = self.root / "mail" / user / "new"
        with trio.fail_after(30):
            while not folder.is_dir() or len(list(folder.iterdir())) < count:
                await trio.sleep(0.02)
        return sorted((path.read_bytes() for path in folder.iterdir()), key=len)


@asynccontextmanager
async def postfix() -> AsyncIterator[Postfix]:
    if shutil.which("postfix", path="/usr/sbin") is None or not DAEMONS.is_dir():
        pytest.skip("Postfix is not installed")
    if os.geteuid() != 0:
        pytest.skip("Postfix is started as root only")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    root = Path(tempfile.mkdtemp(prefix="postfix-"))
    try:
        root.chmod(0o755)
        for name, owner in (("etc", "root"), ("spool", "root"), ("data", "postfix"), ("mail", "nobody")):
            (root / name).mkdir()
            shutil.chown(root / name, owner)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(root / "cert.pem")
        nobody = pwd.getpwnam("nobody").pw_uid
        (root / "etc/main.cf").write_text(MAIN.format(root=root, daemons=DAEMONS, nobody=nobody))
        (root / "etc/master.cf").write_text(MASTER.format(port=port))
        command = ["/usr/sbin/postfix", "-c", str(root / "etc")]
        with subprocess.Popen([*command, "start-fg"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                await wait_for_port(port)
                yield Postfix(f"smtp://127.0.0.1:{port}", root, trusting)
            finally:
                subprocess.run([*command, "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
                process.wait(30)
    finally:
        shutil.rmtree(root)


async def test_postfix_takes_messages_of_all_kinds_over_one_connection() -> None:
    async with postfix() as server:
        async with SMTPClient.connect(server.url, tls=server.trusting, starttls=StartTLS.REQUIRED) as smtp:
            assert smtp.tls is not None
            assert smtp.extensions.chunking
            assert smtp.extensions.smtputf8
            sent = await smtp.send(ANNA, [CARL, "nobody@example.net"], b"Subject: a\n\n.\n..\nbare\rend\n")
            assert [outcome.enhanced for outcome in sent.outcomes] == ["2.0.0", "5.1.1"]
            with pytest.raises(MessageRefused) as caught:
                await smtp.send(ANNA, ["nobody@example.net", "dora@example.org"], b"Subject: b\r\n\r\n")
            assert [outcome.enhanced for outcome in caught.value.outcomes] == ["5.1.1", "5.7.1"]
            large = b"Subject: large\r\n\r\n" + (b"." * 70 + b"\r\n") * (3 * CHUNK // 72)
            await smtp.send(ANNA, [CARL], large)
            with pytest.raises(NotSupported):
                await smtp.send(ANNA, [CARL], b"x\r\n" * 7_000_000)

            letter = EmailMessage()
            letter["From"], letter["To"] = ANNA, "J\u00fcrgen <j\u00fcrgen@example.net>"
            letter["Subject"] = "gr\u00fc\u00dfe"
            letter.set_content("gr\u00fc\u00dfe\n")
            await smtp.send_message(letter)
            assert smtp.is_usable

        small, chunked = await server.delivered("carl", 2)
        assert small.endswith(b"\n\n.\n..\nbare\nend\n")
        assert chunked.endswith(large.partition(b"\r\n")[2].replace(b"\r\n", b"\n"))
        [told] = await server.delivered("juergen", 1)
        assert b"To: J\xc3\xbcrgen <j\xc3\xbcrgen@example.net>\n" in told
        assert parse_message(told).get_content() == "gr\u00fc\u00dfe\n"
