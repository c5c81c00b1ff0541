"""The web server, used by curl, which is what people try it with first."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme

from asyncnet import Handler, Service, serve
from asyncnet.http import Files, HTTPHandler, HTTPLimits, Request, Response

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


async def test_curl_uploads_a_file_and_waits_to_be_told_to_go_on(root: Path) -> None:
    said: list[str | None] = []

    async def keep(request: Request) -> Response:
        said.append(request.headers.get("expect"))
        (root / "kept").write_bytes(await request.read(limit=len(LARGE)))
        return Response.text("thanks", 201)

    async with serving(HTTPHandler(keep)) as service:
        upload = ("--upload-file", root / "folder" / "large file.bin", "--header", "Expect: 100-continue")
        assert await curl(*upload, "--write-out", " %{http_code}", url(service, "/kept")) == b"thanks 201"
        assert (root / "kept").read_bytes() == LARGE
    assert said == ["100-continue"]


async def test_curl_is_spared_an_upload_that_is_refused(root: Path) -> None:
    async def refuse(request: Request) -> Response:
        return Response.text("no", 403)

    for handler, code in (
        (HTTPHandler(refuse), b"403"),
        (HTTPHandler(refuse, limits=HTTPLimits(body=1000)), b"413"),
    ):
        async with serving(handler) as service:
            upload = ("--upload-file", root / "folder" / "large file.bin", "--header", "Expect: 100-continue")
            told = await curl(
                *upload, "--output", "-", "--write-out", " %{http_code} %{size_upload}", url(service, "/x")
            )
        assert told.endswith(b" " + code + b" 0")


async def test_curl_takes_a_compressed_twin_and_unpacks_it(root: Path) -> None:
    (root / "index.html.gz").write_bytes(gzip.compress(PAGE))
    os.utime(root / "index.html", (1, 1))
    async with serving(HTTPHandler(Files(root, precompressed=["gzip"]))) as service:
        head = await curl("--compressed", "--dump-header", "-", url(service, "/"))
        assert b"content-encoding: gzip\r\n" in head
        assert head.endswith(b"\r\n\r\n" + PAGE)
        assert await curl(url(service, "/")) == PAGE


async def test_curl_asks_for_what_is_newer_than_its_file(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(PAGE)
    async with serving(HTTPHandler(Files(root))) as service:
        for age, code in ((3600, b"304"), (-3600, b"200")):
            os.utime(copy, (time.time() + age,) * 2)
            told = await curl(
                "--time-cond", copy, "--output", "/dev/null", "--write-out", "%{http_code}", url(service, "/")
            )
            assert told == code


async def test_curl_fetches_a_range_from_the_end_and_several_at_once(root: Path) -> None:
    async with serving(HTTPHandler(Files(root))) as service:
        target = url(service, "/folder/large%20file.bin")
        assert await curl("--range", "-100", target) == LARGE[-100:]
        parts = await curl("--range", "0-9,1000000-1000009", "--include", target)
        assert b"multipart/byteranges" in parts
        assert LARGE[:10] in parts
        assert LARGE[1_000_000:1_000_010] in parts
        too_far = await curl("--range", "99999999-", "--output", "/dev/null", "--write-out", "%{http_code}", target)
        assert too_far == b"416"


async def test_curl_offers_http_2_over_tls_and_in_the_clear_and_is_answered_in_http_1_1(
    root: Path, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    secure = f"tls://127.0.0.1:0?cert={tmp_path / 'server.pem'}"
    for endpoint, scheme in ((secure, "https"), ("tcp://127.0.0.1:0", "http")):
        async with serving(HTTPHandler(Files(root)), endpoint) as service:
            port = service.endpoints[0].rpartition(":")[2]
            told = await curl(
                *("--http2", "--cacert", tmp_path / "ca.pem", "--resolve", f"localhost:{port}:127.0.0.1"),
                *("--write-out", "%{http_version}", url(service, "/", scheme, "localhost")),
            )
        assert told == PAGE + b"1.1"


async def test_curl_in_http_1_0_is_answered_with_an_end_and_without_chunks() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    async def app(request: Request) -> Response:
        return Response(200, {}, pieces())

    async with serving(HTTPHandler(app)) as service:
        answer = await curl("--http1.0", "--include", url(service, "/"))
    assert answer.endswith(b"\r\n\r\n" + b"x" * 100_000)
    assert b"chunked" not in answer
