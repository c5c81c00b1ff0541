"""Flask and Django under WSGI, used by curl: applications as people write them, over real sockets."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
import trio

from asyncnet import Service
from asyncnet.http import HTTPHandler
from asyncnet.http.wsgi import WSGI
from tests.interop.test_http import curl, serving, url

LARGE = hashlib.sha256(b"large").digest() * 100_000
DIGEST = hashlib.sha256(LARGE).hexdigest()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.bin"
    path.write_bytes(LARGE)
    return path


class Record:
    """What the application did, for the test to look at."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.closed = threading.Event()


def flask_app(large: Path, record: Record) -> Any:
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__)
    app.secret_key = "not secret"

    @app.get("/hello/<name>")
    def hello(name: str) -> Any:
        return f"Hello {name}, {flask.request.args.get('q')} {flask.request.remote_addr} {flask.request.url}"

    @app.post("/form")
    def form() -> Any:
        upload = flask.request.files["file"]
        digest = hashlib.sha256(upload.read()).hexdigest()
        return flask.jsonify(text=flask.request.form["text"], filename=upload.filename, digest=digest)

    @app.post("/digest")
    def digest() -> Any:
        total = hashlib.sha256()
        while piece := flask.request.stream.read(50_000):
            total.update(piece)
        return total.hexdigest()

    @app.get("/count")
    def count() -> Any:
        flask.session["visits"] = flask.session.get("visits", 0) + 1
        return str(flask.session["visits"])

    @app.get("/stream")
    def stream() -> Any:
        def pieces() -> Iterator[str]:
            record.threads.append(threading.get_ident())
            try:
                for number in range(10_000_000):
                    yield f"{flask.request.path} {number}\n"
            finally:
                record.threads.append(threading.get_ident())
                record.closed.set()

        record.threads.append(threading.get_ident())
        return flask.Response(flask.stream_with_context(pieces()), mimetype="text/plain")

    @app.get("/file")
    def file() -> Any:
        return flask.send_file(large, conditional=True)

    @app.get("/error")
    def error() -> Any:
        raise ValueError("the application's")

    return app


def django_app(large: Path, record: Record) -> Any:
    pytest.importorskip("django")
    import django
    from django.conf import settings
    from django.core.signals import request_finished
    from django.core.wsgi import get_wsgi_application
    from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
    from django.urls import path

    def hello(request: Any, name: str) -> Any:
        address = request.META["REMOTE_ADDR"]
        return HttpResponse(f"Hello {name}, {request.GET.get('q')} {address} {request.build_absolute_uri()}")

    def form(request: Any) -> Any:
        upload = request.FILES["file"]
        digest = hashlib.sha256()
        for piece in upload.chunks():
            digest.update(piece)
        return JsonResponse({"text": request.POST["text"], "filename": upload.name, "digest": digest.hexdigest()})

    def digest(request: Any) -> Any:
        total = hashlib.sha256()
        while piece := request.read(50_000):
            total.update(piece)
        return HttpResponse(total.hexdigest())

    def count(request: Any) -> Any:
        visits = int(request.get_signed_cookie("visits", "0")) + 1
        response = HttpResponse(str(visits))
        response.set_signed_cookie("visits", str(visits))
        return response

    def stream(request: Any) -> Any:
        record.threads.append(threading.get_ident())

        def pieces() -> Iterator[str]:
            try:
                for number in range(10_000_000):
                    yield f"{request.path} {number}\n"
            finally:
                record.threads.append(threading.get_ident())

        def finished(**options: Any) -> None:
            record.threads.append(threading.get_ident())
            record.closed.set()

        request_finished.connect(finished, weak=False, dispatch_uid="test")
        return StreamingHttpResponse(pieces(), content_type="text/plain")

    def file(request: Any) -> Any:
        return FileResponse(large.open("rb"))

    def error(request: Any) -> Any:
        raise ValueError("the application's")

    if not settings.configured:
        settings.configure(
            SECRET_KEY="not secret",
            ALLOWED_HOSTS=["127.0.0.1"],
            ROOT_URLCONF="asyncnet_test_urls",
            MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.gzip.GZipMiddleware"],
            LOGGING_CONFIG=None,
        )
        django.setup()
    from django.urls import set_urlconf

    class URLs:
        urlpatterns = (
            path("hello/<name>", hello),
            path("form", form),
            path("digest", digest),
            path("count", count),
            path("stream", stream),
            path("file", file),
            path("error", error),
        )

    settings.ROOT_URLCONF = URLs
    set_urlconf(None)
    return get_wsgi_application()


@pytest.fixture(params=["flask", "django"])
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def serving_framework(framework: str, large: Path) -> AsyncIterator[tuple[Service, Record]]:
    record = Record()
    app = {"flask": flask_app, "django": django_app}[framework](large, record)
    async with serving(HTTPHandler(WSGI(app))) as service:
        yield service, record


async def test_a_page_knows_its_client_and_its_url(framework: str, large: Path) -> None:
    async with serving_framework(framework, large) as (service, _):
        address = url(service, "/hello/w%C3%B6rld?q=a%20b")
        greeting, _, seen = (await curl(address)).decode().rpartition(" ")
        assert greeting == "Hello w\u00f6rld, a b 127.0.0.1"
        assert quote(unquote(seen), safe=":/?=") == address


async def test_a_form_with_a_large_file_arrives(framework: str, large: Path) -> None:
    async with serving_framework(framework, large) as (service, _):
        text = "x" * 1000
        answer = await curl("--form", f"text={text}", "--form", f"file=@{large}", url(service, "/form"))
        assert json.loads(answer) == {"text": text, "filename": "large.bin", "digest": DIGEST}


async def test_an_upload_is_read_piece_by_piece(framework: str, large: Path) -> None:
    async with serving_framework(framework, large) as (service, _):
        assert (
            await curl("--request", "POST", "--data-binary", f"@{large}", url(service, "/digest"))
        ) == DIGEST.encode()


async def test_an_upload_in_chunks_arrives(framework: str, large: Path) -> None:
    # Django reads as much as Content-Length says, and here nobody says: small bodies are given a length by the server.
    data = LARGE if framework == "flask" else LARGE[:20_000]
    async with serving_framework(framework, large) as (service, _):
        chunked = ("--request", "POST", "--header", "Transfer-Encoding: chunked", "--upload-file", "-")
        assert await curl(*chunked, url(service, "/digest"), data=data) == hashlib.sha256(data).hexdigest().encode()


async def test_cookies_come_back(framework: str, large: Path, tmp_path: Path) -> None:
    async with serving_framework(framework, large) as (service, _):
        jar = ("--cookie", tmp_path / "jar", "--cookie-jar", tmp_path / "jar")
        assert [await curl(*jar, url(service, "/count")) for _ in range(3)] == [b"1", b"2", b"3"]


async def test_a_client_that_leaves_a_stream_ends_it_in_the_thread_it_began_in(framework: str, large: Path) -> None:
    async with serving_framework(framework, large) as (service, record):
        with trio.fail_after(30):
            async with await trio.open_tcp_stream("127.0.0.1", int(url(service, "").rpartition(":")[2])) as client:
                await client.send_all(b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                received = b""
                while b"/stream 100\n" not in received:
                    received += await client.receive_some()
            assert await trio.to_thread.run_sync(record.closed.wait, 30)
        assert len(record.threads) >= 3 - (framework == "django")
        assert len(set(record.threads)) == 1


async def test_a_file_is_fetched_whole_and_its_head_alone(framework: str, large: Path) -> None:
    async with serving_framework(framework, large) as (service, _):
        assert await curl(url(service, "/file")) == LARGE
        assert f"content-length: {len(LARGE)}" in (await curl("--head", url(service, "/file"))).decode().lower()
        if framework == "flask":
            assert await curl("--range", "1000-1999", url(service, "/file")) == LARGE[1000:2000]


async def test_an_error_is_the_frameworks_page(framework: str, large: Path) -> None:
    async with serving_framework(framework, large) as (service, _):
        head = await curl("--include", url(service, "/error"))
        assert head.startswith(b"HTTP/1.1 500 ")
        assert b"Server Error" in head


async def test_requests_that_wait_run_beside_each_other(large: Path) -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__)
    barrier = threading.Barrier(5)

    @app.get("/")
    def meet() -> str:
        barrier.wait(30)
        return "met"

    async with serving(HTTPHandler(WSGI(app, threads=5))) as service:
        answers: list[bytes] = []

        async def ask() -> None:
            answers.append(await curl(url(service, "/")))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert answers == [b"met"] * 5
