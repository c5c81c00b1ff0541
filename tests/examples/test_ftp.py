"""The FTP examples as a person runs them: real processes, tried with ftplib and with the asyncnet command."""

from __future__ import annotations

import ftplib
import hashlib
import io
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import argon2
import pytest
import trustme
from argon2.profiles import CHEAPEST

from tests.examples.running import ANYWHERE, DEADLINE, ENVIRONMENT, example, run, serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "hello.txt").write_bytes(b"hello")
    (folder / "sub" / "deep.txt").write_bytes(b"deep")
    return folder


@contextmanager
def client(url: str, user: str = "", password: str = "") -> Iterator[ftplib.FTP]:
    with ftplib.FTP() as ftp:
        ftp.connect("127.0.0.1", int(url.rpartition(":")[2]), timeout=DEADLINE)
        ftp.login(user, password)
        yield ftp


def fetched(ftp: ftplib.FTP, name: str) -> bytes:
    data = io.BytesIO()
    ftp.retrbinary(f"RETR {name}", data.write)
    return data.getvalue()


def test_everybody_reads_from_the_anonymous_server(folder: Path) -> None:
    with subprocess.Popen(
        example("ftp_anonymous.py", folder, ANYWHERE), stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        try:
            assert process.stdout is not None
            found = re.match(r"ftp on (ftp://127\.0\.0\.1:\d+); Ctrl-C ends it", process.stdout.readline())
            assert found
            with client(found[1]) as ftp:
                assert ftp.getwelcome() == "220 These files are for everybody."
                assert fetched(ftp, "sub/deep.txt") == b"deep"
                with pytest.raises(ftplib.error_perm, match="550"):
                    ftp.storbinary("STOR new", io.BytesIO(b"new"))
            line = process.stdout.readline()
            assert re.fullmatch(r".* 127\.0\.0\.1 4 /sub/deep\.txt b _ o a anonymous ftp 0 \* c\n", line)
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


def test_users_have_to_begin_tls(folder: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    hashed = argon2.PasswordHasher.from_parameters(CHEAPEST).hash("secret")
    users = tmp_path / "users.toml"
    users.write_text(f'[users.anna]\npassword = "{hashed}"\n')
    users.chmod(0o600)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with subprocess.Popen(
        example("ftp_users_tls.py", users, tmp_path / "cert.pem", folder, "0,0"),
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        try:
            assert process.stdout is not None
            found = re.match(
                r"open (ftp://127\.0\.0\.1:\d+) \(ftpes\) and ftps://127\.0\.0\.1:(\d+);", process.stdout.readline()
            )
            assert found
            with pytest.raises(ftplib.Error), client(found[1], "anna", "secret"):
                pass
            with ftplib.FTP_TLS(context=context) as ftp:
                ftp.connect("localhost", int(found[1].rpartition(":")[2]), timeout=DEADLINE)
                ftp.login("anna", "secret")
                ftp.prot_p()
                assert fetched(ftp, "hello.txt") == b"hello"
            assert "anna has logged in from 127.0.0.1:" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


def test_a_tree_is_mirrored_there_and_back(folder: Path, tmp_path: Path) -> None:
    with serving("ftp_anonymous.py", folder, ANYWHERE) as url:
        done = run("ftp_mirror.py", f"{url}/", tmp_path / "copy")
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "copy" / "sub" / "deep.txt").read_bytes() == b"deep"
        assert done.stdout.endswith("2 files moved, 0 were the same, 9 bytes\n")
        done = run("ftp_mirror.py", url, tmp_path / "copy")
        assert done.stdout == "0 files moved, 2 were the same, 0 bytes\n"
        (tmp_path / "copy" / "new").write_text("new")
        done = run("ftp_mirror.py", tmp_path / "copy", url)
        assert done.returncode == 1
        assert re.search(r"failed +new STOR new: the server says 550 ", done.stdout)


def test_the_drop_box_hands_on_each_file_that_is_whole_and_shows_none(folder: Path) -> None:
    with subprocess.Popen(
        example("ftp_drop_box.py", folder, ANYWHERE), stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        try:
            assert process.stdout is not None
            found = re.match(r"ftp on (ftp://127\.0\.0\.1:\d+);", process.stdout.readline())
            assert found
            content = b"picture" * 1000
            with client(found[1], "camera", "whatever") as ftp:
                ftp.storbinary("STOR picture.jpg", io.BytesIO(content))
                digest = hashlib.sha256(content).hexdigest()
                assert process.stdout.readline() == f"'picture.jpg' from 127.0.0.1: 7000 bytes, {digest}\n"
                for attempt in (lambda: fetched(ftp, "picture.jpg"), ftp.nlst, lambda: ftp.delete("picture.jpg")):
                    with pytest.raises(ftplib.error_perm, match="550"):
                        attempt()
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
    assert (folder / "picture.jpg").read_bytes() == content
