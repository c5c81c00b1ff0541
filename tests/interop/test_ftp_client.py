"""The FTP client against vsftpd, proftpd, pure-ftpd and pyftpdlib, in the clear and over TLS."""

from __future__ import annotations

import io
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from asyncnet.ftp.client import EntryKind, FTPClient, NotSupported, ReplyError
from asyncnet.ftp.mirror import mirror_down, mirror_up
from tests.interop.ftp_servers import LARGE, SERVERS, Peer

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusted(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module", params=SERVERS)
def peer(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[Peer]:
    with SERVERS[request.param](authority) as running:
        yield running


@pytest.fixture(params=["clear", "tls"])
def url(request: pytest.FixtureRequest, peer: Peer) -> str:
    return peer.url if request.param == "clear" else peer.tls_url


@asynccontextmanager
async def opened(peer: Peer, url: str, trusted: ssl.SSLContext, *, active: bool = False) -> AsyncIterator[FTPClient]:
    async with FTPClient.connect(url, tls=trusted if url.startswith("ftpes:") else None, active=active) as ftp:
        if peer.home != "/":
            await ftp.cwd(peer.home)
        yield ftp


async def test_a_folder_is_listed_with_sizes_kinds_and_times(peer: Peer, url: str, trusted: ssl.SSLContext) -> None:
    async with opened(peer, url, trusted) as ftp:
        found = {entry.name: entry for entry in await ftp.list()}
        assert {"a file.txt", "empty", "large", "sub folder", "link"} <= set(found)
        assert (found["a file.txt"].kind, found["a file.txt"].size) == (EntryKind.FILE, 6000)
        assert found["sub folder"].is_folder
        assert found["empty"].size == 0
        modified = found["a file.txt"].modified
        assert modified is not None
        assert abs(modified - 1_600_000_000) < 86400 + 60
        assert found["a file.txt"].is_exact == ("MLSD" not in peer.lacks)
        assert [entry.name for entry in await ftp.list("sub folder") if not entry.is_folder] == ["naïve.txt"]
        with pytest.raises(ReplyError):
            async with ftp.retrieve("not there"):
                pass
        with pytest.raises(ReplyError):
            await ftp.list("not there")
        assert f"{await ftp.pwd()}/".replace("//", "/") == peer.home


@pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])
async def test_files_go_both_ways(peer: Peer, url: str, trusted: ssl.SSLContext, active: bool) -> None:
    async with opened(peer, url, trusted, active=active) as ftp:
        target = io.BytesIO()
        assert await ftp.download("large", target) == len(LARGE)
        assert target.getvalue() == LARGE
        await ftp.upload(io.BytesIO(LARGE), "up")
        assert (peer.root / "up").read_bytes() == LARGE
        async with ftp.append("up") as stream:
            await stream.send_all(b"more")
        assert await ftp.size("up") == len(LARGE) + 4
        async with ftp.store("none") as stream:
            pass
        assert await ftp.size("none") == 0
        await ftp.delete("none")
        await ftp.delete("up")


async def test_broken_off_transfers_are_resumed(peer: Peer, url: str, trusted: ssl.SSLContext, tmp_path: Path) -> None:
    (tmp_path / "large.part").write_bytes(LARGE[:1_000_000])
    async with opened(peer, url, trusted) as ftp:
        assert await ftp.download("large", tmp_path / "large", resume=True) == len(LARGE) - 1_000_000
        assert (tmp_path / "large").read_bytes() == LARGE
        await ftp.upload(io.BytesIO(LARGE[:2_000_000]), "resumed")
        assert await ftp.upload(tmp_path / "large", "resumed", resume=True) == len(LARGE) - 2_000_000
        assert (peer.root / "resumed").read_bytes() == LARGE
        await ftp.delete("resumed")


async def test_a_transfer_that_is_left_leaves_the_client_usable(peer: Peer, url: str, trusted: ssl.SSLContext) -> None:
    async with opened(peer, url, trusted) as ftp:
        async with ftp.retrieve("large") as stream:
            await stream.receive_some()
        assert await ftp.size("empty") == 0
        with pytest.raises(KeyError):
            async with ftp.store("part") as stream:
                await stream.send_all(bytes(100_000))
                raise KeyError
        assert await ftp.size("empty") == 0
        with trio.move_on_after(0):
            async with ftp.retrieve("large"):
                pass
        with trio.CancelScope() as scope:
            async with ftp.retrieve("large") as stream:
                scope.cancel()
                await stream.receive_some()
        assert await ftp.size("a file.txt") == 6000
        assert len(await ftp.list()) >= 5
        await ftp.delete("part")


async def test_names_folders_times_and_modes_are_changed(peer: Peer, url: str, trusted: ssl.SSLContext) -> None:
    async with opened(peer, url, trusted) as ftp:
        assert (await ftp.mkdir("made")).endswith("made")
        await ftp.cwd("made")
        assert await ftp.pwd() == f"{peer.home}made"
        await ftp.upload(io.BytesIO(b"x"), "ä b")
        await ftp.rename("ä b", "-c")
        entry = await ftp.stat("-c")
        assert (entry.name, entry.size, entry.kind) == ("-c", 1, EntryKind.FILE)
        if "MFMT" not in peer.lacks:
            await ftp.set_modified("-c", 1_500_000_000)
            assert await ftp.modified("-c") == 1_500_000_000
        if "CHMOD" not in peer.lacks:
            await ftp.chmod("-c", 0o600)
            assert (peer.root / "made" / "-c").stat().st_mode & 0o777 == 0o600
        await ftp.cwd(peer.home)
        assert (await ftp.stat("made")).is_folder
        with pytest.raises(ReplyError):
            await ftp.rmdir("made")
        await ftp.delete("made/-c")
        await ftp.rmdir("made")
        with pytest.raises(ReplyError):
            await ftp.stat("made")


async def test_a_hash_is_compared(peer: Peer, url: str, trusted: ssl.SSLContext, tmp_path: Path) -> None:
    async with opened(peer, url, trusted) as ftp:
        if "HASH" in peer.lacks:
            with pytest.raises(NotSupported):
                await ftp.hash("large")
        else:
            await ftp.download("large", tmp_path / "large", verify=True)
            assert len(await ftp.hash("large", "MD5")) == 32
            assert len(await ftp.hash("large", "CRC32")) == 8


async def test_a_server_answers_noops_in_the_middle_of_a_transfer(
    peer: Peer, url: str, trusted: ssl.SSLContext
) -> None:
    async with opened(peer, url, trusted) as ftp:
        async with ftp.retrieve("large") as stream:
            await stream.receive_exactly(100_000)
            ftp._control.send_noop()
            await stream.receive_exactly(len(LARGE) - 100_000)
        assert await ftp.size("empty") == 0
        async with ftp.store("kept") as stream:
            ftp._control.send_noop()
            await stream.send_all(b"abc")
        assert await ftp.size("kept") == 3
        await ftp.delete("kept")


async def test_data_resumes_the_session_of_the_control_connection(peer: Peer, trusted: ssl.SSLContext) -> None:
    async with opened(peer, peer.tls_url, trusted) as ftp:
        assert ftp.stream.tls is not None
        for _ in range(3):
            async with ftp.retrieve("a file.txt") as stream:
                assert stream.tls is not None
                assert stream.tls.session_reused == ("SESSION" not in peer.lacks)
                assert len(await stream.receive_exactly(6000)) == 6000


async def test_a_demanded_tls_is_verified(peer: Peer) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        async with FTPClient.connect(peer.tls_url):
            pass


async def test_without_tls_a_server_says_so(peer: Peer, trusted: ssl.SSLContext) -> None:
    url = peer.url.replace("ftp:", "ftpes:", 1)
    with pytest.raises(ReplyError, match="AUTH TLS"):
        async with FTPClient.connect(url, tls=trusted):
            pass
    async with FTPClient.connect(peer.url, tls=trusted, try_tls=True) as ftp:
        assert ftp.stream.tls is None
        assert await ftp.size(f"{peer.home}empty") == 0


async def test_implicit_tls_is_spoken_from_the_first_byte(peer: Peer, trusted: ssl.SSLContext) -> None:
    if peer.implicit_port is None:
        return
    async with FTPClient.connect(f"ftps://localhost:{peer.implicit_port}/", tls=trusted) as ftp:
        target = io.BytesIO()
        await ftp.download(f"{peer.home}large", target)
        assert target.getvalue() == LARGE


async def test_trees_go_both_ways(peer: Peer, url: str, trusted: ssl.SSLContext, tmp_path: Path) -> None:
    here, there = tmp_path / "here", f"{peer.home}mirrored"
    (here / "a" / "b").mkdir(parents=True)
    contents = {"x": b"x" * 10, "a/y z": LARGE, "a/b/ü": b"", "a/-v": b"v"}
    for name, content in contents.items():
        (here / name).write_bytes(content)

    def connect() -> AbstractAsyncContextManager[FTPClient]:
        return FTPClient.connect(url, tls=trusted if url.startswith("ftpes:") else None)

    report = await mirror_up(connect, here, there, connections=3)
    assert (report.transferred, report.failures) == (4, [])
    assert (await mirror_up(connect, here, there, connections=2)).same == 4
    report = await mirror_down(connect, there, tmp_path / "back", connections=3)
    assert (report.transferred, report.failures) == (4, [])
    assert {name: (tmp_path / "back" / name).read_bytes() for name in contents} == contents
    again = await mirror_down(connect, there, tmp_path / "back", connections=2)
    assert (again.transferred, again.same) == (0, 4)
    for name in contents:
        (here / name).unlink()
    report = await mirror_up(connect, here, there, delete=True)
    assert (report.deleted, report.failures) == (4, [])
