"""wget, which mirrors sites and resumes downloads, and ab, which keeps its connections alive in HTTP/1.0."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import trio

from asyncnet.http import Files, HTTPHandler, Request, Response
from tests.interop.test_http import serving, url

LARGE = bytes(range(256)) * 8192


async def run(program: str, *arguments: str | Path) -> str:
    """What it says on both outputs; it has 30 seconds, and must succeed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with trio.fail_after(30):
        done = await trio.run_process(
            [program, *arguments], capture_stdout=True, capture_stderr=True, env={**environment, "LC_ALL": "C.UTF-8"}
        )
    return (done.stdout + done.stderr).decode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "folder" / "one deeper").mkdir(parents=True)
    (root / "folder" / "one deeper" / "größe & more.txt").write_text("text")
    (root / "folder" / "index.html").write_text('<!DOCTYPE html><a href="one%20deeper/">deeper</a>')
    (root / "large.bin").write_bytes(LARGE)
    os.utime(root / "large.bin", (1_000_000_000, 1_000_000_000))
    return root


async def test_wget_mirrors_a_site_through_its_listings_and_later_only_what_has_changed(
    root: Path, tmp_path: Path
) -> None:
    options = ("--mirror", "--no-parent", "--no-host-directories", "--directory-prefix", tmp_path / "copy")
    async with serving(HTTPHandler(Files(root))) as service:
        await run("wget", *options, url(service, "/"))
        for path in ("large.bin", "folder/index.html", "folder/one deeper/größe & more.txt"):
            assert (tmp_path / "copy" / path).read_bytes() == (root / path).read_bytes()
        (root / "large.bin").write_text("changed")
        said = await run("wget", *options, url(service, "/"))
        assert (tmp_path / "copy" / "large.bin").read_text() == "changed"
        assert "304 Not Modified" in said
        assert service.counters.accepted == 2, "a connection for each run"


async def test_wget_resumes_a_download_and_lets_a_finished_one_be(root: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(LARGE[:1_000_000])
    async with serving(HTTPHandler(Files(root))) as service:
        said = await run("wget", "--continue", "--output-document", part, url(service, "/large.bin"))
        assert "206 Partial Content" in said
        assert part.read_bytes() == LARGE
        said = await run("wget", "--continue", "--output-document", part, url(service, "/large.bin"))
        assert "already fully retrieved" in said
        assert part.read_bytes() == LARGE


async def test_ab_has_all_its_requests_answered_over_connections_that_are_kept() -> None:
    async def hello(request: Request) -> Response:
        assert request.http_version == "1.0"
        return Response.text("hello")

    async with serving(HTTPHandler(hello)) as service:
        said = await run("ab", "-q", "-k", "-n", "400", "-c", "8", url(service, "/"))
        figures = dict(re.findall(r"^([A-Z][\w -]+): +(\d+)", said, re.MULTILINE))
        assert (figures["Complete requests"], figures["Failed requests"]) == ("400", "0")
        assert (figures["Keep-Alive requests"], figures["Document Length"]) == ("400", "5")
        assert service.counters.accepted <= 16


async def test_ab_uploads_without_keep_alive(root: Path) -> None:
    received = []

    async def count(request: Request) -> Response:
        received.append(len(await request.read(limit=4 << 20)))
        return Response.text("thanks")

    async with serving(HTTPHandler(count)) as service:
        upload = ("-p", root / "large.bin", "-T", "application/octet-stream")
        said = await run("ab", "-q", "-n", "10", "-c", "2", *upload, url(service, "/"))
        assert re.search(r"Complete requests: +10\nFailed requests: +0\n", said)
        assert received == [len(LARGE)] * 10
