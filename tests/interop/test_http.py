"""The web server, used by curl, which is what people try it with first."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme

from asyncnet import Handler, Service, serve
from asyncnet.http import Files, HTTPHandler, Request, Response

PAGE = b"<!DOCTYPE html><title>hello</title>\n"
LARGE = bytes(range(256)) * 8192


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "index.html").write_bytes(PAGE)
    (root / "folder" / "large file.bin").write_bytes(LARGE)
    return root


@asynccontextmanager
async def serving(handler: Handler, endpoint: str = "tcp://127.0.0.1:0", **options: object) -> AsyncIterator[Service]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(serve, handler, endpoint, **options))
        nursery.cancel_scope.cancel()


def url(service: Service, path: str, scheme: str = "http", host: str = "127.0.0.1") -> str:
    port = service.endpoints[0].rpartition(":")[2]
    return f"{scheme}://{host}:{port}{path}"


async def curl(*options: str | Path, data: bytes = b"") -> bytes:
    """What curl prints; it has 30 seconds, and must succeed."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with trio.fail_after(30):
        done = await trio.run_process(
            ["curl", "--silent", "--show-error", "--noproxy", "*", *options],
            stdin=data,
            capture_stdout=True,
            capture_stderr=True,
        )
    return done.stdout


async def test_curl_fetches_a_page_and_a_file(root: Path) -> None:
    async with serving(HTTPHandler(Files(root))) as service:
        assert await curl(url(service, "/")) == PAGE
        assert await curl(url(service, "/folder/large%20file.bin")) == LARGE


async def test_curl_fetches_several_pages_over_one_connection(root: Path) -> None:
    async with serving(HTTPHandler(Files(root))) as service:
        pages = await curl(*[url(service, "/")] * 5)
        assert pages == PAGE * 5
        assert service.counters.accepted == 1


async def test_curl_resumes_a_download(root: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(LARGE[:1_000_000])
    async with serving(HTTPHandler(Files(root))) as service:
        await curl("--continue-at", "-", "--output", part, url(service, "/folder/large%20file.bin"))
    assert part.read_bytes() == LARGE


async def test_curl_does_not_fetch_again_what_has_not_changed(root: Path, tmp_path: Path) -> None:
    tags, page = tmp_path / "tags", tmp_path / "page"
    async with serving(HTTPHandler(Files(root))) as service:
        for _ in range(2):
            code = await curl(
                *("--etag-save", tags, "--etag-compare", tags, "--output", page, "--write-out", "%{http_code}"),
                url(service, "/"),
            )
    assert code == b"304"
    assert page.read_bytes() == PAGE


async def test_curl_lists_a_folder_and_is_led_to_it(root: Path) -> None:
    async with serving(HTTPHandler(Files(root))) as service:
        assert b"large file.bin" in await curl("--location", url(service, "/folder"))


async def test_curl_does_not_get_out_of_the_root(root: Path) -> None:
    (root.parent / "secret").write_text("secret")
    async with serving(HTTPHandler(Files(root))) as service:
        for path in ("/../secret", "/..%2fsecret", "/folder/../../secret", "/%2e%2e/secret"):
            code = await curl("--path-as-is", "--output", "-", "--write-out", "%{http_code}", url(service, path))
            assert code.endswith(b"404")


async def test_curl_uploads_with_a_length_in_chunks_and_with_an_expectation() -> None:
    async def count(request: Request) -> Response:
        total = 0
        async for piece in request.body:
            total += len(piece)
        return Response.text(str(total))

    async with serving(HTTPHandler(count)) as service:
        target = url(service, "/")
        for options in ([], ["--header", "Transfer-Encoding: chunked"], ["--header", "Expect: 100-continue"]):
            assert await curl("--data-binary", "@-", *options, target, data=LARGE) == str(len(LARGE)).encode()


async def test_curl_over_tls_agrees_on_http_1_1(root: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    async with serving(HTTPHandler(Files(root)), f"tls://127.0.0.1:0?cert={tmp_path / 'server.pem'}") as service:
        port = service.endpoints[0].rpartition(":")[2]
        page = await curl(
            *("--cacert", tmp_path / "ca.pem", "--resolve", f"localhost:{port}:127.0.0.1"),
            *("--write-out", "%{http_version}", url(service, "/", "https", "localhost")),
        )
    assert page == PAGE + b"1.1"


async def test_curl_tells_where_it_comes_from_by_a_proxy_header(root: Path) -> None:
    async def tell(request: Request) -> Response:
        return Response.text(str(request.peer))

    async with serving(HTTPHandler(tell), proxy_from=["127.0.0.1"]) as service:
        assert (await curl("--haproxy-protocol", url(service, "/"))).startswith(b"127.0.0.1:")


async def test_curl_over_a_unix_socket(root: Path, tmp_path: Path) -> None:
    async with serving(HTTPHandler(Files(root)), f"unix:{tmp_path / 'http'}"):
        assert await curl("--unix-socket", tmp_path / "http", "http://localhost/") == PAGE


async def test_curl_as_an_http_1_0_client(root: Path) -> None:
    async with serving(HTTPHandler(Files(root))) as service:
        assert await curl("--http1.0", url(service, "/")) == PAGE
