"""`asyncnet serve http` as whoever runs it sees it: a process, its answers, its log, its exit status."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import re
import signal
import socket
import ssl
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from asyncnet.cli import main
from tests.cli.command import DEADLINE, run, serving
from tests.cli.test_serve import begin_download, dial, read_to_end, wait_until_refused

APPLICATIONS = """
def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"wsgi {environ.get('REMOTE_USER')}".encode()]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            print("application:", event, flush=True)
            await send({"type": event + ".complete"})
            if event == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"asgi"})

class Factory:
    @staticmethod
    def make():
        return asgi

async def cannot_start(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

async def no_lifespan(scope, receive, send):
    assert scope["type"] == "http", "no lifespan here"
    await asgi(scope, receive, send)

async def slow(scope, receive, send):
    if scope["type"] == "lifespan":
        return await asgi(scope, receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begin ", "more_body": True})
    while (message := await receive())["type"] == "http.request":
        if not message.get("more_body"):
            break
    await send({"type": "http.response.body", "body": b"end"})

async def ends_badly(scope, receive, send):
    if scope["type"] != "lifespan":
        return await asgi(scope, receive, send)
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the queue is not empty"})

number = 5
"""

# What the guides of Flask and Django tell people to write: it closes all handlers, and disables all other loggers.
GREEDY = """
from logging.config import dictConfig

dictConfig({
    "version": 1,
    "formatters": {"mine": {"format": "mine: %(message)s"}},
    "handlers": {"mine": {"class": "logging.StreamHandler", "formatter": "mine"}},
    "root": {"level": "INFO", "handlers": ["mine"]},
})

def wsgi(environ, start_response):
    raise ValueError("the application's")
"""


@pytest.fixture
def app_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "applications"
    folder.mkdir()
    (folder / "apps.py").write_text(APPLICATIONS)
    (folder / "greedy.py").write_text(GREEDY)
    (folder / "lacking.py").write_text("import no_such_library\n")
    (folder / "raising.py").write_text("raise ValueError('told at import')\n")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "sub" / "deep").mkdir(parents=True)
    page = b"<!DOCTYPE html><title>front page</title>" + b"x" * 1000
    (folder / "index.html").write_bytes(page)
    (folder / "index.html.gz").write_bytes(gzip.compress(page))
    (folder / "index.html.br").write_bytes(b"not really brotli")
    (folder / "sub" / "front.htm").write_bytes(b"front of sub")
    (folder / "sub" / "style.css").write_bytes(b"p{}")
    return folder


def get(
    port: int, path: str = "/", method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        client.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = client.getresponse()
        return response.status, response.headers, response.read()
    finally:
        client.close()


@contextmanager
def http_service(*arguments: object, level: str = "info") -> Iterator[tuple[int, list[str]]]:
    """The port; the list has the lines of standard error when the block has ended."""
    log: list[str] = []
    with serving("http", "tcp://127.0.0.1:0", "--log-level", level, *arguments) as service:
        yield service.ports[0], log
        status, err = service.end(signal.SIGTERM)
        assert status == 0, err
        log += err.splitlines()


# Files


def test_without_options_the_current_folder_is_served(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with http_service() as (port, _):
        status, headers, page = get(port, Accept_Encoding="gzip, br")
        assert (status, headers["Cache-Control"], headers["Content-Encoding"]) == (200, "no-cache", None)
        assert b"front page" in page
        assert b"style.css" in get(port, "/sub/")[2]


def test_another_index_and_none(root: Path) -> None:
    with http_service("--root", root, "--index", "front.htm") as (port, _):
        assert get(port, "/sub/")[2] == b"front of sub"
        assert b'href="./index.html"' in get(port)[2]
    with http_service("--root", root, "--no-index") as (port, _):
        assert b'href="./index.html"' in get(port)[2]


def test_no_listing_hides_what_a_folder_holds(root: Path) -> None:
    with http_service("--root", root, "--no-listing") as (port, _):
        assert [get(port, path)[0] for path in ("/", "/sub/", "/sub/style.css")] == [200, 404, 200]


@pytest.mark.parametrize(
    ("option", "coding"),
    [("--precompressed", "br"), ("--precompressed=gzip,br", "gzip"), ("--precompressed=zstd", None)],
)
def test_precompressed_files_are_sent_in_the_order_that_was_given(root: Path, option: str, coding: str | None) -> None:
    with http_service("--root", root, option) as (port, _):
        assert get(port, Accept_Encoding="gzip, br")[1]["Content-Encoding"] == coding


def test_cache_control_by_pattern_and_for_the_rest(root: Path) -> None:
    rules = ["public, max-age=60", "*.css=max-age=31536000, immutable", "sub/front*=none"]
    options = [word for rule in rules for word in ("--cache", rule)]
    with http_service("--root", root, *options) as (port, _):
        sent = [get(port, path)[1]["Cache-Control"] for path in ("/index.html", "/sub/style.css", "/sub/front.htm")]
    assert sent == ["public, max-age=60", "max-age=31536000, immutable", None]
    with http_service("--root", root, "--cache", "none") as (port, _):
        assert get(port)[1]["Cache-Control"] is None
    with http_service("--root", root, "--cache", "*.css=no-store") as (port, _):
        assert [get(port, path)[1]["Cache-Control"] for path in ("/", "/sub/style.css")] == ["no-cache", "no-store"]


def test_a_file_out_of_the_root_is_not_served(root: Path) -> None:
    (root.parent / "secret").write_text("secret")
    with http_service("--root", root) as (port, _):
        assert {get(port, path)[0] for path in ("/../secret", "/%2e%2e/secret", "/sub/../../secret")} == {404}


# Applications


def test_an_asgi_application_is_started_and_stopped(app_dir: Path) -> None:
    with serving("http", "tcp://127.0.0.1:0", "--asgi", "apps:asgi", "--app-dir", app_dir, endpoints=2) as service:
        assert service.lines[0] == "application: lifespan.startup\n"  # before it listens
        (port,) = (int(re.findall(r":(\d+) ", line)[-1]) for line in service.lines[1:])
        assert get(port)[2] == b"asgi"
        service.process.send_signal(signal.SIGTERM)
        out, err = service.process.communicate(timeout=DEADLINE)
    assert (service.process.returncode, out) == (0, "application: lifespan.shutdown\n"), err


def test_a_factory_of_an_attribute_is_called_and_a_lifespan_switched_off(app_dir: Path) -> None:
    with http_service("--asgi", "apps:Factory.make()", "--app-dir", app_dir, "--lifespan", "off") as (port, _):
        assert get(port)[2] == b"asgi"


def test_modules_are_looked_for_in_the_current_folder(app_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(app_dir)
    with http_service("--wsgi", "apps:wsgi", "--threads", "2") as (port, _):
        assert get(port)[2] == b"wsgi None"


def test_an_application_that_knows_no_lifespan_is_served_unless_it_must_have_one(app_dir: Path) -> None:
    words = ("--asgi", "apps:no_lifespan", "--app-dir", app_dir)
    with http_service(*words) as (port, log):
        assert get(port)[2] == b"asgi"
    assert "Traceback" not in "".join(log)
    result = run("serve", "http", "tcp://127.0.0.1:0", *words, "--lifespan", "on")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "asyncnet serve: the application did not start: AssertionError('no lifespan here')\n"


def test_an_application_that_cannot_start_is_one_line(app_dir: Path) -> None:
    result = run("serve", "http", "tcp://127.0.0.1:0", "--asgi", "apps:cannot_start", "--app-dir", app_dir)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "asyncnet serve: the application did not start: no database\n"


def test_an_application_that_fails_to_stop_says_so_in_the_log(app_dir: Path) -> None:
    with http_service("--asgi", "apps:ends_badly", "--app-dir", app_dir) as (port, log):
        get(port)
    assert any("failed to stop: the queue is not empty" in line for line in log)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--asgi", "nothing:app"], "no module 'nothing' in "),
        (["--asgi", "apps.inner:app"], "no module 'apps.inner' in "),
        (["--asgi", "apps:nothing"], "the module 'apps' has no 'nothing'"),
        (["--asgi", "apps"], "write MODULE:APP"),
        (["--asgi", ".apps:asgi"], "write MODULE:APP"),
        (["--asgi", "./shop/apps.py:asgi"], "is a file: write MODULE:APP, such as shop.apps:asgi"),
        (["--asgi", "apps:number"], "it cannot be called"),
        (["--asgi", "apps:Factory.make"], "if it makes one, write 'apps:Factory.make()'"),
        (["--asgi", "apps:asgi()"], "makes no application"),
        (["--asgi", "apps:wsgi"], "it looks like one for --wsgi"),
        (["--wsgi", "apps:asgi"], "it looks like one for --asgi"),
        (["--wsgi", "apps:wsgi", "--app-dir", "/no/such"], "--app-dir /no/such: no such folder"),
        (["--asgi", "apps:asgi", "--no-listing"], "--no-listing goes with --root"),
        (["--wsgi", "apps:wsgi", "--cache", "none"], "--cache goes with --root"),
        (["--wsgi", "apps:wsgi", "--lifespan", "on"], "--lifespan goes with --asgi"),
        (["--threads", "5"], "--threads goes with --wsgi"),
        (["--app-dir", "."], "--app-dir goes with --asgi or --wsgi"),
        (["--realm", "x"], "--realm goes with --users"),
        (["--insecure-auth"], "--insecure-auth goes with --users"),
        (["--users", "/no/such.toml"], "/no/such.toml"),
        (["--root", ".", "--asgi", "apps:asgi"], "not allowed with argument --root"),
        (["--asgi", "apps:asgi", "--wsgi", "apps:wsgi"], "not allowed with argument --asgi"),
        (["--index", "a/b"], "without a folder"),
        (["--index", "a", "--no-index"], "not allowed with argument"),
        (["--precompressed=brotli"], "names no codings"),
        (["--precompressed", "tcp://127.0.0.1:0"], "write --precompressed, or --precompressed=br,gzip"),
        (["--cache", "*.css="], "has no value"),
        (["--cache", "=no-store"], "has no pattern"),
        (["--cache", "a=b\nc"], "no Cache-Control"),
        (["--cache", "none", "--cache", "no-store"], "two --cache for all files"),
        (["--max-body", "0"], "no number of bytes"),
    ],
)
def test_a_mistake_is_one_clear_message_and_status_2(
    words: list[str],
    problem: str,
    app_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(app_dir)
    monkeypatch.syspath_prepend(app_dir)
    try:
        status: object = main(["serve", "http", "tcp://127.0.0.1:0", *words])
    except SystemExit as ended:  # by argparse
        status = ended.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert problem in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("module", "problem"),
    [("lacking", "ModuleNotFoundError: No module named 'no_such_library'"), ("raising", "ValueError: told at import")],
)
def test_what_a_module_raises_is_shown_to_its_author(module: str, problem: str, app_dir: Path) -> None:
    result = run("serve", "http", "tcp://127.0.0.1:0", "--asgi", f"{module}:app", "--app-dir", app_dir)
    assert (result.returncode, result.stdout) == (1, "")
    assert f'{module}.py", line 1' in result.stderr
    assert result.stderr.rstrip().endswith(problem)


# Passwords


def test_names_and_passwords_of_the_users_file_open_the_site(app_dir: Path, tmp_path: Path) -> None:
    users = tmp_path / "users.toml"
    assert run("passwd", users, "anna", input="correct horse\n").returncode == 0
    words = ("--wsgi", "apps:wsgi", "--app-dir", app_dir, "--users", users, "--realm", "the shop")
    right = "Basic " + base64.b64encode(b"anna:correct horse").decode()
    wrong = "Basic " + base64.b64encode(b"anna:wrong").decode()
    with http_service(*words) as (port, log):
        status, headers, _ = get(port)
        assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="the shop", charset="UTF-8"')
        assert get(port, Authorization=right)[::2] == (200, b"wsgi anna")
        assert get(port, Authorization=wrong)[0] == 401
    assert re.match(r'127\.0\.0\.1 - anna \[.*\] "GET / HTTP/1\.1" 200 9 "-" "-"', log[1])
    assert "horse" not in "".join(log)


# Limits, engines, the log


def test_a_body_past_the_limit_is_refused(app_dir: Path) -> None:
    with http_service("--wsgi", "apps:wsgi", "--app-dir", app_dir, "--max-body", "1K") as (port, _):
        assert [get(port, "/", "POST", b"x" * size)[0] for size in (1024, 1025)] == [200, 413]


@pytest.mark.parametrize("engine", ["h11", "httptools"])
def test_either_engine_serves(engine: str, root: Path) -> None:
    with http_service("--root", root, "--engine", engine) as (port, _):
        assert get(port, "/sub/style.css")[2] == b"p{}"


def test_the_access_log_is_a_plain_line_a_request_and_connections_that_ended_well_have_none(root: Path) -> None:
    with http_service("--root", root) as (port, log):
        get(port, "/sub/style.css", User_Agent='a "b"')
        get(port, "/none", Referer="http://example.org/")
    assert len(log) == 2
    assert re.fullmatch(
        r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET /sub/style\.css HTTP/1\.1" 200 3 '
        r'"-" "a \\x22b\\x22"',
        log[0],
    )
    assert log[1].endswith('"GET /none HTTP/1.1" 404 14 "http://example.org/" "-"')


def test_a_connection_that_ended_badly_is_told_beside_the_access_log(root: Path) -> None:
    with (root / "big").open("wb") as file:
        file.truncate(64 << 20)
    with http_service("--root", root, "--drain-timeout", "0.1s") as (port, log):
        busy = begin_download(port)
        get(port, "/sub/style.css")
    busy.close()
    assert any("cut off by the drain" in line for line in log)


def test_the_access_log_as_json_and_none(root: Path) -> None:
    with http_service("--root", root, "--access-log", "json") as (port, log):
        get(port, "/sub/style.css")
    (line,) = log
    assert json.loads(line).items() >= {"method": "GET", "target": "/sub/style.css", "status": 200, "bytes": 3}.items()
    with http_service("--root", root, "--access-log", "off") as (port, log):
        get(port)
    assert len(log) == 1
    assert re.search(r" INFO asyncnet\.service: http: 127\.0\.0\.1:\d+, .* bytes out: done$", log[0])


def test_the_access_log_does_not_depend_on_the_level_of_the_other(root: Path) -> None:
    with http_service("--root", root, level="error") as (port, log):
        get(port)
    assert len(log) == 1
    assert '"GET / HTTP/1.1" 200' in log[0]


def test_an_application_that_configures_logging_does_not_silence_the_server(app_dir: Path) -> None:
    with http_service("--wsgi", "greedy:wsgi", "--app-dir", app_dir) as (port, log):
        get(port)
    text = "\n".join(log)
    assert "mine: 127.0.0.1:" in text  # the error, as the application would have it
    assert "the application failed on GET /\nTraceback" in text
    assert re.search(r'^127\.0\.0\.1 - - .* "GET / HTTP/1\.1" 500 ', text, re.MULTILINE)


# Endpoints and signals


def test_tcp_tls_and_unix_at_once_and_a_certificate_that_is_exchanged(root: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate, path = tmp_path / "server.pem", tmp_path / "http.sock"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])  # as browsers offer it
    authority.configure_trust(context)

    def over_tls(port: int) -> tuple[bytes, bytes | None, str | None]:
        with context.wrap_socket(dial(port), server_hostname="localhost") as sock:
            sock.sendall(b"GET /sub/style.css HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return read_to_end(sock), sock.getpeercert(binary_form=True), sock.selected_alpn_protocol()

    endpoints = ["tcp://127.0.0.1:0", "tls://127.0.0.1:0", f"unix:{path}?mode=600"]
    with serving("http", *endpoints, "--root", root, "--cert", certificate, endpoints=3) as service:
        plain, secure = (int(re.findall(r":(\d+) ", line)[-1]) for line in service.lines[:2])
        assert get(plain, "/sub/style.css")[2] == b"p{}"
        answer, before, alpn = over_tls(secure)
        assert (answer[-3:], alpn) == (b"p{}", "http/1.1")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE)
            sock.connect(str(path))
            sock.sendall(b"GET /sub/style.css HTTP/1.0\r\n\r\n")
            assert read_to_end(sock).endswith(b"p{}")
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        service.process.send_signal(signal.SIGHUP)
        assert service.process.stderr is not None
        for line in service.process.stderr:
            if "loaded the certificate" in line:
                break
        assert over_tls(secure)[1] not in (before, None)
        assert service.end(signal.SIGINT)[0] == 0
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_an_application_finish_its_request_and_then_stop(number: int, app_dir: Path) -> None:
    words = ("--asgi", "apps:slow", "--app-dir", app_dir, "--drain-timeout", "off")
    with serving("http", "tcp://127.0.0.1:0", *words, endpoints=2) as service:
        port = int(re.findall(r":(\d+) ", service.lines[1])[-1])
        with dial(port) as busy, dial(port) as idle:
            busy.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
            received = b""
            while b"begin " not in received:
                received += busy.recv(1000)
            service.process.send_signal(number)
            wait_until_refused(port)
            assert read_to_end(idle) == b""
            busy.sendall(b"body")
            received += read_to_end(busy)
        assert received.endswith(b"6\r\nbegin \r\n3\r\nend\r\n0\r\n\r\n")
        out, err = service.process.communicate(timeout=DEADLINE)
    assert (service.process.returncode, out) == (0, "application: lifespan.shutdown\n"), err


def test_help_tells_what_to_serve_before_all_else_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "http", "--help"])
    out = capsys.readouterr().out
    assert out.index("what to serve") < out.index("files, with --root") < out.index("limits;")
    for line in textwrap.dedent(out.partition("examples:\n")[2]).splitlines():
        assert "asyncnet serve http " in line
