"""`asyncnet fetch`, `put` and `ls` against vsftpd, proftpd, pure-ftpd and pyftpdlib, in the clear and over TLS."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.cli.command import run
from tests.interop.ftp_servers import LARGE, SERVERS, Peer

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module", params=SERVERS)
def peer(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[Peer]:
    with SERVERS[request.param](authority) as running:
        yield running


@pytest.fixture(params=["clear", "tls"])
def url(
    request: pytest.FixtureRequest,
    peer: Peer,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    base = peer.url if request.param == "clear" else peer.tls_url
    return base + peer.home.lstrip("/") + ("/" if peer.home != "/" else "")


def command(name: str, *words: object) -> str:
    """What it says; it succeeds."""
    done = run(name, "--ca", "../ca.pem", *words)
    assert done.returncode == 0, done.stderr
    return done.stderr if name != "ls" else done.stdout


def test_a_folder_is_listed(url: str) -> None:
    entries = {entry["name"]: entry for entry in map(json.loads, command("ls", "--json", url).splitlines())}
    assert entries["a file.txt"]["size"] == 6000
    assert entries["sub folder"]["kind"] == "folder"
    assert "sub folder/" in command("ls", "--names", url).splitlines()
    assert len(command("ls", f"{url}large").splitlines()) == 1


def test_a_file_is_fetched_and_what_was_broken_off_continued(url: str) -> None:
    said = command("fetch", f"{url}large", f"{url}empty")
    assert sorted(said.splitlines()) == ["empty: 0 bytes", f"large: {len(LARGE)} bytes"]
    assert Path("large").read_bytes() == LARGE
    assert command("fetch", "-C", f"{url}large") == f"large: there already, {len(LARGE)} bytes\n"


def test_a_file_is_put_and_what_was_broken_off_continued(url: str, peer: Peer) -> None:
    name = "put by tls" if "ftpes" in url else "put"
    Path(name).write_bytes(LARGE)
    command("put", name, url)
    target = peer.root / name
    assert target.read_bytes() == LARGE
    os.truncate(target, 1_000_000)
    command("put", "-C", name, url)
    assert target.read_bytes() == LARGE
    assert ": there already, " in command("put", "-C", name, url)


def test_a_tree_is_put_into_folders_that_are_made_and_fetched_again(url: str, peer: Peer) -> None:
    Path("tree/deep").mkdir(parents=True)
    Path("tree/deep/one.txt").write_bytes(b"one")
    Path("tree/large").write_bytes(LARGE)
    place = f"{url}trees/{'tls' if 'ftpes' in url else 'clear'}/"
    command("put", "--mkdir", "--mirror", "tree", place)
    command("fetch", "--mirror", "-o", "copy", f"{place}tree")
    assert Path("copy/deep/one.txt").read_bytes() == b"one"
    assert Path("copy/large").read_bytes() == LARGE
    assert "copy: 0 moved, 2 the same" in command("fetch", "--mirror", "-o", "copy", f"{place}tree")
