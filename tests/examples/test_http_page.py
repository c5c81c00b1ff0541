"""docs/http.md: each of its programs runs, on a free port, and each of its commands is one."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asyncnet import limits
from asyncnet.cli import _parser
from asyncnet.http import HTTPLimits, HTTPTimeouts
from tests.examples.test_readme import DEADLINE, ENVIRONMENT

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
_port = re.compile(r"127\.0\.0\.1:8080")


def program(holds: str) -> str:
    """The one program with `holds` in it."""
    (index,) = [index for index, text in enumerate(PROGRAMS) if holds in text]
    return PROGRAMS[index]


@contextmanager
def serving(holds: str, folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The URL of the server that this program is."""
    text = _port.sub("127.0.0.1:0", program(holds))
    with subprocess.Popen(
        [sys.executable, "-c", text], env=ENVIRONMENT, cwd=folder, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            found = re.match(r"http on (http://127\.0\.0\.1:\d+);", server.stdout.readline())
            assert found
            yield found[1], server
        finally:
            server.kill()


def output(holds: str, url: str) -> str:
    """What the client that this program is prints, when it asks the server at `url`."""
    text = _port.sub(url.partition("://")[2], program(holds))
    done = subprocess.run(
        [sys.executable, "-c", text], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, timeout=DEADLINE, check=True
    )
    return done.stdout


def ask(url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, named), timeout=DEADLINE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_an_application(tmp_path: Path) -> None:
    with serving('"sum"', tmp_path) as (url, _):
        assert ask(f"{url}/add", b"1 2 3") == (200, b'{"sum": 6}')
        assert [ask(f"{url}/add", b"x")[0], ask(f"{url}/add")[0], ask(url)[0]] == [400, 405, 404]
        assert ask(f"{url}/add", b"1 " * 10_000)[0] == 413


def test_bodies_that_do_not_fit_into_memory(tmp_path: Path) -> None:
    with serving("ticks", tmp_path) as (url, _):
        assert ask(f"{url}/ticks") == (200, b"data: 0\n\ndata: 1\n\ndata: 2\n\n")
        assert ask(url, b"abc")[1].startswith(b"ba7816bf")


def test_forms_and_cookies(tmp_path: Path) -> None:
    with serving("read_form", tmp_path) as (url, _):
        jar = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        body = (
            b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nAnna\r\n'
            b'--x\r\nContent-Disposition: form-data; name="photo"; filename="../me.jpg"\r\n\r\nphoto\r\n--x--\r\n'
        )
        form = urllib.request.Request(url, body, {"Content-Type": "multipart/form-data; boundary=x"})
        with jar.open(form, timeout=DEADLINE) as answer:
            assert answer.read() == b"You are Anna."
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"photo"]


def test_files_and_mounts(tmp_path: Path) -> None:
    for name in ("public", "docs", "others"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    with serving("Mounts", tmp_path) as (url, _):
        assert json.loads(ask(f"{url}/api/x")[1]) == {"mounted at": "/api", "path": "/x"}
        hosts = ("a", "docs.example.com", "x.example.com")
        assert [ask(f"{url}/a.txt", Host=host)[1] for host in hosts] == [b"public", b"docs", b"others"]
        assert ask(f"{url}/", Host="docs.example.com")[0] == 404


def test_asgi_and_wsgi(tmp_path: Path) -> None:
    pytest.importorskip("starlette")
    for holds, says in (("Starlette(", b"Hello from Starlette\n"), ("WSGI(app", b"Hello from a thread\n")):
        with serving(holds, tmp_path) as (url, _):
            assert ask(url) == (200, says)


def test_websockets(tmp_path: Path) -> None:
    with serving("shout", tmp_path) as (url, _):
        assert output("connect_websocket", url) == "HELLO\n"


def test_passwords(tmp_path: Path) -> None:
    pytest.importorskip("argon2")
    command = [sys.executable, "-m", "asyncnet", "passwd", tmp_path / "users.toml", "anna"]
    subprocess.run(command, env=ENVIRONMENT, input=b"secret\n", check=True, timeout=DEADLINE)
    with serving("BasicAuth", tmp_path) as (url, _):
        assert ask(url)[0] == 401
        assert ask(url, Authorization="Basic YW5uYTpzZWNyZXQ=") == (200, b"Hello anna\n")


def test_limits(tmp_path: Path) -> None:
    with serving("HTTPLimits", tmp_path) as (url, server):
        assert (ask(url, bytes(1000)), ask(url, bytes(1001))[0]) == ((200, b"1000 bytes\n"), 413)
        assert server.stdout is not None
        assert json.loads(server.stdout.readline())["status"] == 200


SITE = """
from asyncnet import run
from asyncnet.http import HTTPHandler, Request, Response, read_form

async def app(request: Request) -> Response:
    match request.path:
        case "/page":
            return Response.text("a page")
        case "/large":
            return Response(200, (), bytes(1_000_000))
        case "/add":
            return Response.json({"body": (await request.read()).decode()})
        case "/upload":
            async with read_form(request) as form:
                return Response.text((await form.file("file").read()).decode())
    return Response.problem(404)

run(HTTPHandler(app), "tcp://127.0.0.1:8080")
"""


def test_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PROGRAMS", [*PROGRAMS, SITE])
    with serving('case "/page"', tmp_path) as (url, _):
        assert output("StatusError", url).splitlines() == [
            "200 text/plain; charset=utf-8 a page",
            "1000000",
            "{'body': '[1, 2, 3]'}",
            "404",
        ]
        pytest.importorskip("httpx2")
        assert output("httpx2", url) == "200 hello\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_options_that_there_are(command: str) -> None:
    name, *words = shlex.split(command)
    assert name == "asyncnet"
    _parser(words).parse_args(words)


def test_the_defaults_are_those_of_the_code() -> None:
    http, times, all_, waits = HTTPLimits(), HTTPTimeouts(), limits.Limits(), limits.Timeouts()
    rows = {
        "HTTPLimits.request_line": f"{http.request_line >> 10} KiB",
        "`.head`, `.fields`": f"{http.head >> 10} KiB, {http.fields} lines",
        "`.body` ": f"{http.body >> 30} GiB",
        "`.unread`": f"{http.unread >> 10} KiB",
        "`.requests`": f"{http.requests:,}",
        "HTTPTimeouts.head": f"{times.head:g} s",
        "`.keep_alive`": f"{times.keep_alive:g} s",
        "`.body_grace`": f"{times.body_grace:g} s, then {times.body_rate:g} bytes/s",
        "Limits.connections": f"{all_.connections:,}",
        "Limits.per_address": f"{all_.per_address}",
        "Timeouts.idle": f"{waits.idle:g} s, {waits.send:g} s",
        "Timeouts.drain": f"{waits.drain:g} s",
    }
    for name, value in rows.items():
        assert re.search(rf"^\| `?{re.escape(name)}[^|]*\| {re.escape(value)}", PAGE, re.MULTILINE), name


def test_no_program_is_left_out() -> None:
    """Each is named by the one thing that it alone has: a new one wants a test of its own."""
    named = {
        argument.value
        for node in ast.walk(ast.parse(Path(__file__).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("serving", "output")
        for argument in node.args[:1]
        if isinstance(argument, ast.Constant)
    } | {"Starlette(", "WSGI(app"}
    left_out = [text for text in PROGRAMS if not any(name in text for name in named)]
    assert left_out == []
