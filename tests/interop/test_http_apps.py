"""Applications of the frameworks that people use, under `asyncnet serve http`, asked by curl and by our own client.

Each is a module as its user would write it (`applications/`), started by the command as its user would start it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
import trio

from asyncnet.http.websocket import CloseCode, HandshakeRefused, WebSocketClosed, connect_websocket
from tests.cli.command import DEADLINE, Running, serving

APPLICATIONS = Path(__file__).parent / "applications"
LARGE = hashlib.sha256(b"large").digest() * 100_000
DIGEST = hashlib.sha256(LARGE).hexdigest()

SITES = {
    "starlette": ("--asgi", "starlette_site:app"),
    "fastapi": ("--asgi", "fastapi_site:app"),
    "quart_trio": ("--asgi", "quart_site:app"),
    "flask": ("--wsgi", "flask_site:make_app()"),
    "django": ("--wsgi", "django_site:application"),
    "plain WSGI": ("--wsgi", "plain_site:app"),
}
WITH_WEBSOCKETS = ("starlette", "fastapi", "quart_trio")


class Site:
    """A running application."""

    def __init__(self, name: str, service: Running) -> None:
        self.name = name
        self.service = service
        self.port = int(re.findall(r":(\d+) ", service.lines[-1])[-1])
        self.url = f"http://127.0.0.1:{self.port}"

    def curl(self, path: str, *options: str | Path, data: bytes = b"") -> bytes:
        """What curl prints for it."""
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        command = ["curl", "--silent", "--show-error", "--noproxy", "*", *options, f"{self.url}{path}"]
        return subprocess.run(command, input=data, capture_output=True, timeout=DEADLINE, check=True).stdout

    def next_line(self) -> str:
        """What the application prints next; a test that waits for ever for it ends by its own timeout."""
        assert self.service.process.stdout is not None
        return self.service.process.stdout.readline().rstrip("\n")


@contextmanager
def running(name: str, large: Path) -> Iterator[Site]:
    pytest.importorskip(name.partition(" ")[0] if not name.startswith("plain") else "wsgiref")
    with serving(
        *("http", "tcp://127.0.0.1:0", *SITES[name], "--app-dir", APPLICATIONS, "--log-level", "warning"),
        LARGE=str(large),
    ) as service:
        yield Site(name, service)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.bin"
    path.write_bytes(LARGE)
    return path


@pytest.fixture(scope="module")
def sites(large: Path) -> Iterator[dict[str, Site]]:
    """Those that run already: a framework takes a second to start."""
    with ExitStack() as stack:

        class Started(dict[str, Site]):
            def __missing__(self, name: str) -> Site:
                self[name] = stack.enter_context(running(name, large))
                return self[name]

        yield Started()


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    return sites[request.param]


@pytest.fixture(params=WITH_WEBSOCKETS)
def chat(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    return sites[request.param]


def test_a_page_knows_path_query_and_its_own_url(site: Site) -> None:
    path = "/hello/w%C3%B6rld?q=a%20b"
    greeting, _, url = site.curl(path).decode().rpartition(" ")
    assert greeting == "Hello wörld, a b"
    assert quote(unquote(url), safe=":/?=") == f"{site.url}{path}"


def test_cookies_come_back(site: Site, tmp_path: Path) -> None:
    jar = ("--cookie", tmp_path / "jar", "--cookie-jar", tmp_path / "jar")
    for _ in range(3):
        site.curl("/hello/x?q=y", *jar)
    assert (tmp_path / "jar").read_text().rstrip().endswith("visits\t3")


def test_json_is_answered_by_json_and_the_application_was_started(site: Site) -> None:
    answer = site.curl("/add", "--header", "Content-Type: application/json", "--data", "[1, 2, 3]")
    assert json.loads(answer) == {"sum": 6, "started": True}


@pytest.mark.parametrize("name", [name for name in SITES if name != "plain WSGI"])  # which takes no forms apart
def test_a_form_with_a_large_file_arrives(name: str, sites: dict[str, Site], large: Path) -> None:
    answer = json.loads(sites[name].curl("/upload", "--form", "text=Grüße", "--form", f"file=@{large}"))
    assert answer == {"text": "Grüße", "filename": "large.bin", "digest": DIGEST}


@pytest.mark.parametrize(
    "options",
    [["--data-binary", "@-"], ["--data-binary", "@-", "--header", "Expect: 100-continue"]],
    ids=["length", "expect"],
)
def test_an_upload_arrives_whole(site: Site, options: list[str]) -> None:
    assert site.curl("/digest", "--header", "Content-Type: x/y", *options, data=LARGE) == DIGEST.encode()


def test_a_stream_arrives_whole(site: Site) -> None:
    assert site.curl("/stream?lines=20000") == "".join(f"line {number}\n" for number in range(20_000)).encode()
    assert site.next_line() == "the stream has ended"


def test_a_client_that_leaves_a_stream_ends_it(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=DEADLINE) as client:
        client.sendall(b"GET /stream?lines=1000000000 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        received = b""
        while b"line 100\n" not in received:
            received += client.recv(65536)
    assert site.next_line() == "the stream has ended"


def test_a_file_arrives_whole_in_part_and_as_its_head(site: Site) -> None:
    assert site.curl("/file") == LARGE
    if site.name not in ("plain WSGI", "django"):  # which know no ranges
        assert site.curl("/file", "--range", "1000-1999") == LARGE[1000:2000]
    if site.name not in ("plain WSGI", "fastapi"):  # which have no HEAD here
        assert f"content-length: {len(LARGE)}" in site.curl("/file", "--head").decode().lower()


def test_an_error_is_a_500_and_the_next_request_is_answered(site: Site) -> None:
    codes = site.curl(
        "/hello/x?q=y", "--output", "/dev/null", "--write-out", "%{http_code} ", f"{site.url}/error", "-o", "/dev/null"
    )
    assert codes == b"500 200 "


def test_many_requests_at_once_are_answered(site: Site) -> None:
    urls = f"{site.url}/hello/x[1-60]?q=y"
    parallel = ("--parallel", "--parallel-max", "20", "--write-out", "%{http_code} ", "--output", "/dev/null", urls)
    assert site.curl("/hello/x?q=y", *parallel, "--output", "/dev/null").count(b"200 ") == 61


def test_a_signal_stops_it_in_order(site: Site, large: Path) -> None:
    with running(site.name, large) as fresh:
        fresh.curl("/hello/x?q=y")
        fresh.service.process.send_signal(signal.SIGTERM)
        out, err = fresh.service.process.communicate(timeout=DEADLINE)
    assert fresh.service.process.returncode == 0, err
    assert out == ("stopped\n" if SITES[site.name][0] == "--asgi" else "")


async def test_a_websocket_talks_and_closes(chat: Site) -> None:
    with trio.fail_after(DEADLINE):
        async with connect_websocket(f"ws://127.0.0.1:{chat.port}/chat", subprotocols=["v1"]) as ws:
            assert ws.subprotocol == "v1"
            for text in ("hello", "Grüße" * 50_000, ""):
                await ws.send(text)
                assert await ws.receive() == text.upper()
        line = await trio.to_thread.run_sync(chat.next_line)
    assert line.startswith("the socket has closed")


async def test_a_websocket_where_none_is_served_is_refused(chat: Site) -> None:
    with trio.fail_after(DEADLINE), pytest.raises(HandshakeRefused) as refused:
        async with connect_websocket(f"ws://127.0.0.1:{chat.port}/none"):
            pass
    assert refused.value.status in (403, 404)


async def test_a_drain_closes_websockets_and_waits_for_the_application(chat: Site, large: Path) -> None:
    with running(chat.name, large) as fresh, trio.fail_after(DEADLINE):
        process: Any = fresh.service.process
        async with connect_websocket(f"ws://127.0.0.1:{fresh.port}/chat") as ws:
            await ws.send("hello")
            assert await ws.receive() == "HELLO"
            process.send_signal(signal.SIGTERM)
            with pytest.raises(WebSocketClosed) as closed:
                await ws.receive()
        assert closed.value.code == CloseCode.GOING_AWAY
        out, err = await trio.to_thread.run_sync(process.communicate)
    assert process.returncode == 0, err
    assert re.fullmatch(r"the socket has closed(: 1001|: 1012)?\nstopped\n", out), out
