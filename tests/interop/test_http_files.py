"""Files, asked for by curl and by Python's own client in the ways that browsers and download tools ask."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from asyncnet import Service, serve
from asyncnet.http import Files, HTTPHandler

PAGE = b"<!DOCTYPE html><title>hello</title>\n" * 100
LARGE = os.urandom(5 << 20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "page.html").write_bytes(PAGE)
    (root / "page.html.gz").write_bytes(gzip.compress(PAGE))
    (root / "video.mp4").write_bytes(LARGE)
    return root


@asynccontextmanager
async def serving(root: Path) -> AsyncIterator[tuple[Service, int]]:
    async with trio.open_nursery() as nursery:
        handler = HTTPHandler(Files(root, precompressed=True))
        service: Service = await nursery.start(partial(serve, handler, "tcp://127.0.0.1:0"))
        yield service, int(service.endpoints[0].rpartition(":")[2])
        nursery.cancel_scope.cancel()


async def curl(*options: str | Path) -> bytes:
    """What curl prints; it has 30 seconds, and must succeed."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with trio.fail_after(30):
        done = await trio.run_process(
            ["curl", "--silent", "--show-error", "--noproxy", "*", *options], capture_stdout=True, capture_stderr=True
        )
    return done.stdout


async def test_curl_takes_the_compressed_twin_and_unpacks_it(root: Path) -> None:
    async with serving(root) as (_, port):
        url = f"http://127.0.0.1:{port}/page.html"
        assert await curl("--compressed", url) == PAGE
        packed = await curl("--header", "accept-encoding: gzip", url)
        assert gzip.decompress(packed) == PAGE
        assert len(packed) < len(PAGE)
        assert await curl(url) == PAGE


async def test_curl_gets_a_file_in_pieces_at_once(root: Path, tmp_path: Path) -> None:
    half = len(LARGE) // 2
    async with serving(root) as (_, port):
        url = f"http://127.0.0.1:{port}/video.mp4"
        first, second = tmp_path / "first", tmp_path / "second"
        await curl(
            *("--parallel", "--range", f"0-{half - 1}", "--output", first, url),
            *("--next", "--range", f"{half}-", "--output", second, url),
        )
    assert first.read_bytes() + second.read_bytes() == LARGE


async def test_curl_gets_several_ranges_in_one_answer(root: Path) -> None:
    async with serving(root) as (service, port):
        url = f"http://127.0.0.1:{port}/video.mp4"
        body = await curl("--range", "0-99,1000000-2999999,-100", url, url)
        assert service.counters.accepted == 1
    boundary = body.split(b"\r\n")[1]
    *parts, last = body.split(boundary + b"\r\n")[1:]
    contents = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts]
    assert contents[0] == LARGE[:100]
    assert contents[1] == LARGE[1_000_000:3_000_000]
    assert last.partition(b"\r\n\r\n")[2].startswith(LARGE[-100:] + b"\r\n" + boundary + b"--\r\n")


async def test_pythons_client_seeks_as_a_player_does(root: Path) -> None:
    def seek(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        tag = None
        for start in (0, 4 << 20, 1 << 20, len(LARGE) - 1):
            headers = {"range": f"bytes={start}-{start + 99_999}"} | ({"if-range": tag} if tag else {})
            connection.request("GET", "/video.mp4", headers=headers)
            response = connection.getresponse()
            expected = LARGE[start : start + 100_000]
            assert response.status == 206
            assert response.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/{len(LARGE)}"
            assert response.read() == expected
            tag = response.headers["etag"]
        connection.close()

    async with serving(root) as (service, port):
        await trio.to_thread.run_sync(seek, port)
        assert service.counters.accepted == 1


async def test_many_clients_at_once_get_the_same_file_whole(root: Path) -> None:
    def fetch(port: int, digests: list[str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/video.mp4")
        digests.append(hashlib.sha256(connection.getresponse().read()).hexdigest())
        connection.close()

    digests: list[str] = []
    async with serving(root) as (_, port), trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(trio.to_thread.run_sync, fetch, port, digests)
    assert len(digests) == 8
    assert set(digests) == {hashlib.sha256(LARGE).hexdigest()}
