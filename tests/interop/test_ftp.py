"""The FTP server, used by the clients that people have: curl, lftp, tnftp, ncftp, rclone, and Python's ftplib."""

from __future__ import annotations

import ftplib
import io
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from asyncnet import Service
from asyncnet.auth.identity import Identity
from asyncnet.ftp.server import FTPHandler
from asyncnet.transports.certificates import ServerTLS
from tests.interop.test_http import serving

LARGE = bytes(range(256)) * 20000
TEXT = b"one\ntwo\n"


class Users:
    """Anna, whose password is secret."""

    async def verify(self, name: str, password: str, *, peer: object) -> Identity | None:
        await trio.lowlevel.checkpoint()
        return Identity("anna") if (name, password) == ("anna", "secret") else None

    async def scram_keys(self, name: str) -> None:
        return None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "folder" / "one deeper").mkdir(parents=True)
    (root / "folder" / "one deeper" / "größe & more.txt").write_bytes(TEXT)
    (root / "folder" / "empty").write_bytes(b"")
    (root / "large.bin").write_bytes(LARGE)
    os.utime(root / "large.bin", (1_000_000_000, 1_000_000_000))
    return root


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    return tmp_path / "server.pem"


@asynccontextmanager
async def ftp(root: Path, endpoint: str = "tcp://127.0.0.1:0", **options: Any) -> AsyncIterator[int]:
    """The port of a server of `root`, for anybody and for Anna."""
    handler = FTPHandler(root, anonymous=True, anonymous_writes=True, users=Users(), **options)
    service: Service
    async with serving(handler, endpoint) as service:
        yield int(service.endpoints[0].partition("?")[0].rpartition(":")[2])


async def run(
    program: str, *arguments: str | Path, data: bytes = b"", cwd: Path | None = None, **variables: str
) -> bytes:
    """What it says on standard output; it has 50 seconds, and must succeed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"LC_ALL": "C.UTF-8", "HOME": str(cwd or "/nonexistent"), **variables}
    with trio.fail_after(50):
        done = await trio.run_process(
            [program, *arguments],
            stdin=data,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment,
            cwd=cwd,
        )
    assert done.returncode == 0, (done.stdout + done.stderr).decode("utf-8", "replace")
    return done.stdout


async def curl(*options: str | Path) -> bytes:
    return await run("curl", "--silent", "--show-error", *options)


class TestCurl:
    async def test_fetching_listing_and_ranges(self, root: Path) -> None:
        async with ftp(root) as port:
            base = f"ftp://127.0.0.1:{port}"
            assert await curl(f"{base}/large.bin") == LARGE
            assert await curl(f"{base}/folder/one%20deeper/gr%C3%B6%C3%9Fe%20%26%20more.txt") == TEXT
            assert await curl("--range", "1000-1999", f"{base}/large.bin") == LARGE[1000:2000]
            assert await curl("--range", "-10", f"{base}/large.bin") == LARGE[-10:]
            assert (await curl("--list-only", f"{base}/folder/")).split(b"\n")[:2] != []
            assert b"Last-Modified: Sun, 09 Sep 2001 01:46:40 GMT" in await curl("--head", f"{base}/large.bin")
            assert await curl("--ftp-port", "-", f"{base}/large.bin") == LARGE
            assert await curl("--ftp-port", "-", "--disable-eprt", f"{base}/large.bin") == LARGE
            assert await curl("--disable-epsv", f"{base}/large.bin") == LARGE
            assert await curl("--use-ascii", f"{base}/folder/one%20deeper/gr%C3%B6%C3%9Fe%20%26%20more.txt") == TEXT

    async def test_several_files_over_one_connection(self, root: Path) -> None:
        async with ftp(root) as port:
            urls = [f"ftp://127.0.0.1:{port}/folder/one%20deeper/gr%C3%B6%C3%9Fe%20%26%20more.txt"] * 5
            assert await curl(*urls) == TEXT * 5

    async def test_uploading_appending_and_resuming(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "new").write_bytes(LARGE)
        async with ftp(root) as port:
            base = f"ftp://127.0.0.1:{port}"
            await curl("--upload-file", tmp_path / "new", "--ftp-create-dirs", f"{base}/a/b/c/new")
            assert (root / "a/b/c/new").read_bytes() == LARGE
            (root / "half").write_bytes(LARGE[:12345])
            await curl("--continue-at", "-", "--upload-file", tmp_path / "new", f"{base}/half")
            assert (root / "half").read_bytes() == LARGE
            await curl("--append", "--upload-file", tmp_path / "new", f"{base}/half")
            assert (root / "half").read_bytes() == LARGE + LARGE
            (tmp_path / "part").write_bytes(LARGE[:777])
            await curl("--continue-at", "-", "--output", tmp_path / "part", f"{base}/large.bin")
            assert (tmp_path / "part").read_bytes() == LARGE

    @pytest.mark.parametrize("version", ["1.2", "1.3"])
    async def test_tls_explicit_and_implicit(self, root: Path, certificate: Path, version: str) -> None:
        tls = ("--cacert", certificate.with_name("ca.pem"), "--tls-max", version, "--user", "anna:secret")
        new = certificate.with_name("ca.pem")
        async with ftp(root, tls=ServerTLS(certificate), tls_for_login=True, tls_for_data=True) as port:
            base = f"ftp://localhost:{port}"
            assert await curl("--ssl-reqd", *tls, f"{base}/large.bin") == LARGE
            await curl("--ssl-reqd", *tls, "--upload-file", new, f"{base}/explicit")
            assert (root / "explicit").read_bytes() == new.read_bytes()
        async with ftp(root, f"tls://127.0.0.1:0?cert={certificate}", tls_for_data=True) as port:
            base = f"ftps://localhost:{port}"
            assert await curl(*tls, f"{base}/large.bin") == LARGE
            await curl(*tls, "--upload-file", new, f"{base}/implicit")
            assert (root / "implicit").read_bytes() == new.read_bytes()

    async def test_removing_and_renaming(self, root: Path) -> None:
        async with ftp(root) as port:
            base = f"ftp://127.0.0.1:{port}/"
            await curl("-Q", "RNFR large.bin", "-Q", "RNTO folder/moved.bin", "-Q", "DELE folder/empty", base)
        assert (root / "folder" / "moved.bin").read_bytes() == LARGE
        assert not (root / "folder" / "empty").exists()


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that is below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


class TestLftp:
    async def test_mirroring_both_ways(self, root: Path, tmp_path: Path) -> None:
        async with ftp(root) as port:
            script = f"""
                set cmd:fail-exit yes; set net:max-retries 1; set net:timeout 10
                open ftp://127.0.0.1:{port}
                mirror --parallel=4 / {tmp_path}/copy
                mirror --reverse --parallel=4 {tmp_path}/copy /again
                chmod 600 /again/large.bin
                mv /again/folder /again/renamed
                rm -r /folder
            """
            await run("lftp", "-c", script, cwd=tmp_path)
        assert tree(root / "again" / "renamed") == tree(tmp_path / "copy" / "folder")
        assert (tmp_path / "copy" / "large.bin").read_bytes() == LARGE
        assert (tmp_path / "copy" / "large.bin").stat().st_mtime == 1_000_000_000
        assert (root / "again" / "large.bin").stat().st_mtime == 1_000_000_000
        assert (root / "again" / "large.bin").stat().st_mode & 0o777 == 0o600
        assert not (root / "folder").exists()

    async def test_tls_with_sessions_demanded(self, root: Path, certificate: Path, tmp_path: Path) -> None:
        options: dict[str, Any] = {"tls_for_login": True, "tls_for_data": True, "session_required": True}
        async with ftp(root, tls=ServerTLS(certificate), **options) as port:
            script = f"""
                set cmd:fail-exit yes; set net:max-retries 1; set net:timeout 10
                set ssl:ca-file {certificate.with_name("ca.pem")}; set ftp:ssl-force yes; set ftp:ssl-protect-data yes
                open -u anna,secret ftp://localhost:{port}
                mirror / {tmp_path}/copy
                put -O /folder {tmp_path}/copy/large.bin
            """
            await run("lftp", "-c", script, cwd=tmp_path)
        assert (root / "folder" / "large.bin").read_bytes() == LARGE


class TestOldClients:
    async def test_tnftp(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "new.txt").write_bytes(TEXT)
        async with ftp(root) as port:
            script = "binary\nget large.bin\ncd folder\nmkdir made\nput new.txt\nls\nmls * list\nbye\n"
            await run("tnftp", "-a", "127.0.0.1", str(port), data=script.encode(), cwd=tmp_path)
        assert (tmp_path / "large.bin").read_bytes() == LARGE
        assert (root / "folder" / "new.txt").read_bytes() == TEXT
        assert (root / "folder" / "made").is_dir()

    async def test_tnftp_gets_what_matches_a_pattern(self, root: Path, tmp_path: Path) -> None:
        for name in ("a.txt", "b.txt", "c.bin"):
            (root / "folder" / name).write_text(name)
        (tmp_path / "folder").mkdir()
        async with ftp(root) as port:
            script = b"prompt off\nmget folder/*.txt\nbye\n"
            await run("tnftp", "-a", "127.0.0.1", str(port), data=script, cwd=tmp_path)
        assert sorted(os.listdir(tmp_path / "folder")) == ["a.txt", "b.txt"]

    async def test_ncftp(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "up").mkdir()
        (tmp_path / "up" / "new.bin").write_bytes(LARGE)
        async with ftp(root) as port:
            options = ("-P", str(port), "-t", "10", "-V")
            await run("ncftpget", *options, "-R", "127.0.0.1", str(tmp_path), "/folder", cwd=tmp_path)
            await run("ncftpput", *options, "-R", "127.0.0.1", "/", "up", cwd=tmp_path)
            assert b"large.bin" in await run("ncftpls", *options[:4], f"ftp://127.0.0.1:{port}/", cwd=tmp_path)
        assert tree(tmp_path / "folder") == tree(root / "folder")
        assert (root / "up" / "new.bin").read_bytes() == LARGE


class TestRclone:
    @pytest.mark.parametrize("explicit", [False, True], ids=["clear", "tls"])
    async def test_copying_both_ways_and_checking(
        self, root: Path, certificate: Path, tmp_path: Path, explicit: bool
    ) -> None:
        async with ftp(root, tls=ServerTLS(certificate)) as port:
            password = (await run("rclone", "obscure", "secret", cwd=tmp_path)).decode().strip()
            remote = f":ftp,host=localhost,port={port},user=anna,pass={password},explicit_tls={str(explicit).lower()}:"
            # rclone's --ca-cert is not for FTP.
            rclone = partial(run, "rclone", cwd=tmp_path, SSL_CERT_FILE=str(certificate.with_name("ca.pem")))
            await rclone("copy", "--retries", "1", remote, tmp_path / "copy")
            assert tree(tmp_path / "copy") == tree(root)
            await rclone("copy", "--retries", "1", tmp_path / "copy", f"{remote}again")
            await rclone("check", "--download", tmp_path / "copy", f"{remote}again")
            await rclone("purge", f"{remote}again")
        assert not (root / "again").exists()


class TestFtplib:
    """CPython's own client, in a thread."""

    async def in_thread(self, use: Callable[[], None]) -> None:
        with trio.fail_after(50):
            await trio.to_thread.run_sync(use)

    async def test_what_it_can(self, root: Path) -> None:
        async with ftp(root) as port:

            def use() -> None:
                with ftplib.FTP(timeout=20) as client:
                    client.connect("127.0.0.1", port)
                    client.login()
                    received = io.BytesIO()
                    client.retrbinary("RETR large.bin", received.write)
                    assert received.getvalue() == LARGE
                    client.storbinary("STOR new", io.BytesIO(LARGE))
                    assert client.size("new") == len(LARGE)
                    client.storbinary("STOR new", io.BytesIO(b"end"), rest=10)
                    client.storlines("STOR lines", io.BytesIO(TEXT))
                    lines: list[str] = []
                    client.retrlines("RETR lines", lines.append)
                    assert lines == ["one", "two"]
                    assert sorted(client.nlst()) == ["folder", "large.bin", "lines", "new"]
                    assert dict(client.mlsd())["large.bin"]["size"] == str(len(LARGE))
                    client.mkd("made")
                    client.cwd("made")
                    assert client.pwd() == "/made"
                    client.cwd("..")
                    client.rename("lines", "made/lines")
                    client.delete("made/lines")
                    client.rmd("made")
                    with pytest.raises(ftplib.error_perm, match="550"):
                        client.delete("nothing")
                    client.voidcmd("TYPE I")
                    connection = client.transfercmd("RETR large.bin")
                    connection.recv(1)
                    client.abort()
                    connection.close()
                    client.voidcmd("NOOP")
                    client.quit()

            await self.in_thread(use)
        assert (root / "lines").exists() is False
        assert (root / "new").read_bytes() == LARGE[:10] + b"end"

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_tls(self, root: Path, certificate: Path, version: ssl.TLSVersion) -> None:
        async with ftp(root, tls=ServerTLS(certificate), tls_for_login=True, tls_for_data=True) as port:

            def use() -> None:
                context = ssl.create_default_context(cafile=str(certificate.with_name("ca.pem")))
                context.maximum_version = version
                with ftplib.FTP_TLS(context=context, timeout=20) as client:
                    client.connect("localhost", port)
                    client.login("anna", "secret")
                    client.prot_p()
                    received = io.BytesIO()
                    client.retrbinary("RETR large.bin", received.write)
                    assert received.getvalue() == LARGE
                    client.storbinary("STOR new", io.BytesIO(LARGE))
                    assert "large.bin" in client.nlst()

            await self.in_thread(use)
        assert (root / "new").read_bytes() == LARGE
