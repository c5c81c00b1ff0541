"""`asyncnet fetch`, as its user sees it: files, messages, exit status."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import resource
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme
from hypothesis import given
from hypothesis import strategies as st

from asyncnet import ServerTLS, serve
from asyncnet.cli import main
from asyncnet.cli.download import safe_name
from asyncnet.cli.fetch import FetchOptions
from asyncnet.cli.fetch_http import HTTPFetcher, disposition_name, is_earlier
from asyncnet.embed import in_thread
from asyncnet.http import Files, HTTPHandler, Request, Response
from asyncnet.stream import Stream
from asyncnet.testing import cancel_at_each_checkpoint
from tests.cli.command import COMMAND, DEADLINE, environment

LARGE = bytes(range(256)) * 8000


class Site:
    """A folder and a few odd pages; `requests` is what was asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = Files(root)
        self.requests: list[Request] = []
        self.url = ""
        self.break_after: int | None = None
        self.broken = threading.Event()

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        if request.path == "/moved":
            return Response.redirect("/file.bin")
        if request.path == "/loop":
            return Response.redirect("/loop")
        if request.path == "/named":
            return Response(200, {"content-disposition": request.query.replace("+", " ")}, b"named")
        if request.path == "/echo":
            return Response.text(f"{request.method} {request.headers.get('content-type')} {await request.read()!r}")
        if request.path == "/weak":
            return Response(200, {"etag": 'W/"x"'}, self._cut())
        response = await self._files(request)
        if self.break_after is not None and response.status == 200:
            headers = {"etag": response.headers["etag"], "content-length": str(len(LARGE))}
            response.close()
            return Response(200, headers, self._cut())
        return response

    async def _cut(self) -> AsyncIterator[bytes]:
        yield LARGE[: self.break_after or 1000]
        self.broken.set()
        if self.break_after == 777:
            await trio.sleep_forever()
        raise trio.BrokenResourceError("told to")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    root, here = tmp_path / "root", tmp_path / "here"
    root.mkdir()
    here.mkdir()
    (root / "file.bin").write_bytes(LARGE)
    (root / "other.txt").write_bytes(b"other")
    monkeypatch.chdir(here)
    site = Site(root)
    with in_thread() as portal:
        service = portal.start(partial(serve, HTTPHandler(site), "tcp://127.0.0.1:0"))
        site.url = service.endpoints[0].replace("tcp", "http")
        yield site


@contextmanager
def liar(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers each request by the next of `answers`, whatever it asks: its URL, and what was asked."""
    asked: list[bytes] = []

    async def answer(transport: trio.abc.Stream) -> None:
        stream = Stream.of(transport)
        asked.append(await stream.receive_until(b"\r\n\r\n", limit=65536))
        await stream.send_all(answers[min(len(asked), len(answers)) - 1])
        await stream.aclose()

    with in_thread() as portal:
        service = portal.start(partial(serve, answer, "tcp://127.0.0.1:0"))
        yield service.endpoints[0].replace("tcp", "http"), asked


def here() -> list[str]:
    return sorted(os.listdir())


def test_a_file_is_saved_under_its_url_s_name(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", f"{site.url}/file.bin?x=y#z"]) == 0
    assert Path("file.bin").read_bytes() == LARGE
    assert here() == ["file.bin"]
    out, err = capfd.readouterr()
    assert (out, err) == ("", f"file.bin: {len(LARGE)} bytes\n")


def test_several_are_fetched_at_once_and_one_that_fails_is_told(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    urls = [f"{site.url}/{name}" for name in ("file.bin", "other.txt", "none")]
    assert main(["fetch", "--jobs", "2", "--quiet", *urls]) == 1
    assert here() == ["file.bin", "other.txt"]
    assert capfd.readouterr().err == f"asyncnet fetch: {site.url}/none: the server answered 404 Not Found\n"


def test_as_many_are_fetched_at_once_as_was_asked_for(site: Site) -> None:
    asked = 0
    all_asked = trio.Event()

    async def app(request: Request) -> Response:
        nonlocal asked
        asked += 1
        if asked == 120:
            all_asked.set()
        await all_asked.wait()
        return Response.text("together")

    with in_thread() as portal:
        service = portal.start(partial(serve, HTTPHandler(app), "tcp://127.0.0.1:0"))
        url = service.endpoints[0].replace("tcp", "http")
        assert main(["fetch", "--jobs", "120", "--timeout", "5", *(f"{url}/{number}" for number in range(120))]) == 0
    assert len(here()) == 120


def test_standard_output_gets_the_content_and_nothing_else(
    site: Site, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["fetch", "-o", "-", f"{site.url}/moved"]) == 0
    assert capfdbinary.readouterr() == (LARGE, b"")
    assert here() == []


def test_an_output_may_be_named(site: Site) -> None:
    assert main(["fetch", "-q", "-o", "mine", f"{site.url}/file.bin"]) == 0
    assert here() == ["mine"]


def test_a_device_is_written_to_and_not_replaced(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "-o", "/dev/null", f"{site.url}/file.bin"]) == 0
    assert Path("/dev/null").is_char_device()
    assert capfd.readouterr().err == ""


def test_a_reader_of_standard_output_that_has_enough_is_no_failure(site: Site) -> None:
    command = f"{' '.join(COMMAND)} fetch -o - {site.url}/file.bin | head -c 5; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, timeout=DEADLINE, check=True)
    assert done.stdout == LARGE[:5] + b"0\n"
    assert done.stderr == b""


def test_a_file_that_exists_is_replaced_only_by_force(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    Path("other.txt").write_text("mine")
    assert main(["fetch", f"{site.url}/other.txt"]) == 1
    assert "exists already: --force replaces it" in capfd.readouterr().err
    assert Path("other.txt").read_text() == "mine"
    assert here() == ["other.txt"]
    assert main(["fetch", "--force", f"{site.url}/other.txt"]) == 0
    assert Path("other.txt").read_text() == "other"


def test_a_file_that_comes_to_exist_meanwhile_is_not_replaced(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    original = site._files

    async def files(request: Request) -> Response:
        Path("other.txt").write_text("mine")
        return await original(request)

    site._files = files  # type: ignore[assignment]
    assert main(["fetch", f"{site.url}/other.txt"]) == 1
    assert Path("other.txt").read_text() == "mine"
    assert "has come to exist meanwhile" in capfd.readouterr().err


# Resuming


def break_off(site: Site, capfd: pytest.CaptureFixture[str], after: int = 1_000_000) -> None:
    """Fetch a part of file.bin."""
    site.break_after = after
    assert main(["fetch", f"{site.url}/file.bin"]) == 1
    assert capfd.readouterr().err.endswith("; --continue goes on where it stopped\n")
    site.break_after = None


def test_what_was_broken_off_is_continued(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    break_off(site, capfd)
    assert here() == [".file.bin.part", ".file.bin.part.info"]
    part = Path(".file.bin.part").read_bytes()
    assert 0 < len(part) <= 1_000_000
    assert part == LARGE[: len(part)]
    assert main(["fetch", "--continue", f"{site.url}/file.bin"]) == 0
    assert here() == ["file.bin"]
    assert Path("file.bin").read_bytes() == LARGE
    asked = site.requests[-1].headers
    assert (asked["range"], asked["if-range"][0]) == (f"bytes={len(part)}-", '"')


def test_a_file_that_has_changed_is_fetched_anew(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    break_off(site, capfd)
    (site.root / "file.bin").write_bytes(b"another")
    assert main(["fetch", "-C", f"{site.url}/file.bin"]) == 0
    assert Path("file.bin").read_bytes() == b"another"


def test_without_continue_a_file_is_fetched_anew(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    break_off(site, capfd)
    assert main(["fetch", f"{site.url}/file.bin"]) == 0
    assert "range" not in site.requests[-1].headers
    assert here() == ["file.bin"]


def test_a_part_that_is_the_whole_is_taken_for_it(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    break_off(site, capfd)
    Path(".file.bin.part").write_bytes(LARGE)
    assert main(["fetch", "-C", f"{site.url}/file.bin"]) == 0
    assert Path("file.bin").read_bytes() == LARGE


def test_a_part_that_is_more_than_the_whole_is_fetched_anew(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    break_off(site, capfd)
    Path(".file.bin.part").write_bytes(LARGE + b"more")
    assert main(["fetch", "-C", f"{site.url}/file.bin"]) == 0
    assert Path("file.bin").read_bytes() == LARGE


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", b"", b"nonsense\r\n\r\n"])
def test_a_part_outlives_a_server_that_is_in_trouble(
    site: Site, capfd: pytest.CaptureFixture[str], answer: bytes
) -> None:
    rest = b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 10-19/20\r\ncontent-length: 10\r\n\r\nABCDEFGHIJ"
    with liar(CUT, answer, rest) as (url, _):
        assert main(["fetch", f"{url}/file"]) == 1
        assert main(["fetch", "--continue", f"{url}/file"]) == 1
        assert "--continue goes on" in capfd.readouterr().err.splitlines()[-1]
        assert Path(".file.part").read_bytes() == b"0123456789"
        assert main(["fetch", "--continue", f"{url}/file"]) == 0
    assert Path("file").read_bytes() == b"0123456789ABCDEFGHIJ"


@pytest.mark.parametrize("info", ["", "{}", "[]", "null", '{"url": 1, "etag": 2, "modified": 3}'])
def test_notes_that_are_damaged_are_not_believed(site: Site, capfd: pytest.CaptureFixture[str], info: str) -> None:
    break_off(site, capfd)
    Path(".file.bin.part.info").write_text(info)
    Path(".file.bin.part").write_bytes(b"x" * 1000)
    assert main(["fetch", "-C", f"{site.url}/file.bin"]) == 0
    assert Path("file.bin").read_bytes() == LARGE


@pytest.mark.parametrize(
    "fields",
    [
        "content-range: bytes 0-9/20",
        "content-range: bytes 10-15/20",
        "content-range: bytes 10-19/*",
        "content-range: bytes 10-19/20, bytes 0-9/20",
        'content-range: bytes 10-19/20\r\netag: "other"',
        "x: y",
    ],
)
def test_a_range_that_need_not_be_the_rest_of_the_same_file_is_not_added(site: Site, fields: str) -> None:
    rest = f"HTTP/1.1 206 Partial Content\r\ncontent-length: 10\r\n{fields}\r\n\r\nABCDEFGHIJ".encode()
    with liar(CUT, rest, WHOLE) as (url, asked):
        assert main(["fetch", f"{url}/file"]) == 1
        assert main(["fetch", "--continue", f"{url}/file"]) == 0
        assert b"range: bytes=10-\r\n" in asked[1]
        assert b"range:" not in asked[2]
    assert Path("file").read_bytes() == b"a whole file, all of"


CUT = b'HTTP/1.1 200 OK\r\ncontent-length: 20\r\netag: "one"\r\n\r\n0123456789'
WHOLE = b'HTTP/1.1 200 OK\r\ncontent-length: 20\r\netag: "other"\r\n\r\na whole file, all of'


@pytest.mark.parametrize("sent", [b"5\r\nABCDE\r\n", b"f\r\nABCDEFGHIJKLMNO\r\n"])
def test_a_rest_that_is_longer_or_shorter_than_it_says_is_not_taken_for_the_whole(
    site: Site, capfd: pytest.CaptureFixture[str], sent: bytes
) -> None:
    head = b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 10-19/20\r\ntransfer-encoding: chunked\r\n\r\n"
    with liar(CUT, head + sent + b"0\r\n\r\n", WHOLE) as (url, _):
        assert main(["fetch", f"{url}/file"]) == 1
        assert main(["fetch", "--continue", f"{url}/file"]) == 1
        assert "20" in capfd.readouterr().err
        assert not Path("file").exists()
        assert main(["fetch", f"{url}/file"]) == 0
    assert Path("file").read_bytes() == b"a whole file, all of"


def test_notes_about_another_url_are_not_used(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    break_off(site, capfd)
    noted = json.loads(Path(".file.bin.part.info").read_text())
    Path(".file.bin.part.info").write_text(json.dumps({**noted, "url": "http://example.org/file.bin"}))
    assert main(["fetch", "-C", f"{site.url}/file.bin"]) == 0
    assert "range" not in site.requests[-1].headers


def test_what_no_validator_vouches_for_leaves_nothing_behind(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", f"{site.url}/weak"]) == 1
    assert "--continue" not in capfd.readouterr().err
    assert here() == []


@pytest.mark.parametrize(
    ("modified", "date", "strong"),
    [
        ("Wed, 25 Nov 2026 04:00:00 GMT", "Wed, 25 Nov 2026 04:00:01 GMT", True),
        ("Wed, 25 Nov 2026 04:00:00 GMT", "Wed, 25 Nov 2026 04:00:00 GMT", False),
        ("Wed, 25 Nov 2026 04:00:00 GMT", "", False),
        ("nonsense", "Wed, 25 Nov 2026 04:00:00 GMT", False),
        ("Wed, 25 Nov 2026 04:00:00", "Wed, 25 Nov 2026 04:00:01 GMT", False),
        ("Wed, 25 Nov 99999999999 04:00:00 GMT", "Wed, 25 Nov 2026 04:00:01 GMT", False),
        ("Wed, 25 Nov 2026 04:00:00 +99999999999", "Wed, 25 Nov 2026 04:00:01 GMT", False),
    ],
)
def test_a_date_vouches_for_a_part_only_if_it_is_strong(modified: str, date: str, strong: bool) -> None:
    assert is_earlier(modified, date) is strong


@pytest.mark.parametrize(
    "fields",
    [
        b"content-length: \xb2\r\n",
        b"content-length: " + b"9" * 5000 + b"\r\n",
        b"last-modified: Wed, 25 Nov 99999999999 04:00:00 GMT\r\ndate: Wed, 25 Nov 2026 04:00:01 GMT\r\n",
    ],
)
def test_fields_of_nonsense_harm_no_file(site: Site, capfd: pytest.CaptureFixture[str], fields: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" + fields + b"\r\n5\r\nhello\r\n0\r\n\r\n"
    with liar(answer) as (url, _):
        assert main(["fetch", f"{url}/odd", f"{site.url}/file.bin"]) == 0
    assert Path("odd").read_bytes() == b"hello"
    assert Path("file.bin").read_bytes() == LARGE


def test_two_runs_do_not_write_one_file(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    with open(".file.bin.part", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert main(["fetch", f"{site.url}/file.bin"]) == 1
    assert "another fetch is at work on it" in capfd.readouterr().err


def test_a_run_that_finishes_while_another_begins_keeps_its_file(
    site: Site, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".file.bin.part").write_bytes(b"all that the other wanted")
    lock = fcntl.flock

    def lock_late(descriptor: int, operation: int) -> None:
        Path(".file.bin.part").rename("file.bin")  # the other has finished between our open and our lock
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    assert main(["fetch", f"{site.url}/file.bin"]) == 1
    assert "another fetch" in capfd.readouterr().err
    assert Path("file.bin").read_bytes() == b"all that the other wanted"


def test_a_partial_file_that_is_a_link_is_not_followed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    Path(".file.bin.part").symlink_to(tmp_path / "precious")
    assert main(["fetch", f"{site.url}/file.bin"]) == 1
    assert (tmp_path / "precious").read_text() == "precious"


def test_notes_that_are_a_link_are_not_followed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    Path(".file.bin.part.info").symlink_to(tmp_path / "precious")
    assert main(["fetch", f"{site.url}/file.bin"]) == 0
    assert (tmp_path / "precious").read_text() == "precious"
    assert Path("file.bin").read_bytes() == LARGE
    assert here() == ["file.bin"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_part_that_can_be_continued(site: Site, number: signal.Signals) -> None:
    site.break_after = 777  # and then silence
    process = subprocess.Popen([*COMMAND, "fetch", f"{site.url}/file.bin"], env=environment(), stderr=subprocess.PIPE)
    try:
        assert site.broken.wait(DEADLINE)
        for _ in range(DEADLINE * 50):
            if ".file.bin.part.info" in here():
                break
            threading.Event().wait(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert process.returncode == 128 + number, err
    assert b"Traceback" not in err
    assert b"--continue" in err
    site.break_after = None
    assert Path(".file.bin.part").read_bytes() == LARGE[:777]
    assert main(["fetch", "-C", f"{site.url}/file.bin"]) == 0
    assert Path("file.bin").read_bytes() == LARGE


class Counting:
    """A report that counts what has come."""

    def __init__(self) -> None:
        self.saved: Path | None = None
        self.is_resumable = self.was_there = False
        self.size = 0

    def begin(self, done: int, total: int | None) -> None:
        self.size = done

    def advance(self, size: int) -> None:
        self.size += size


def test_cancelled_anywhere_a_fetch_keeps_all_that_has_come(site: Site) -> None:
    async def fetch_again_and_again() -> None:
        for attempt in cancel_at_each_checkpoint():
            for name in here():
                os.unlink(name)
            fetcher, report = HTTPFetcher(FetchOptions()), Counting()
            with attempt:
                await fetcher.fetch(f"{site.url}/file.bin", Path("file.bin"), report)
            await fetcher.aclose()
            assert sum(os.path.getsize(name) for name in here() if not name.endswith(".info")) == report.size

    trio.run(fetch_again_and_again)


def test_a_pipe_that_nobody_reads_can_be_left(site: Site) -> None:
    os.mkfifo("pipe")
    process = subprocess.Popen(
        [*COMMAND, "fetch", "-o", "pipe", f"{site.url}/file.bin"], env=environment(), stderr=subprocess.PIPE
    )
    try:
        wait_for_thread(process.pid)  # which opens the pipe, and waits for a reader
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, b"")


def wait_for_thread(pid: int) -> None:
    for _ in range(DEADLINE * 50):
        if len(os.listdir(f"/proc/{pid}/task")) > 1:
            return
        threading.Event().wait(0.02)
    raise AssertionError("no thread")


def test_files_that_are_there_already_need_not_be_fetched_again(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    urls = [f"{site.url}/file.bin", f"{site.url}/other.txt"]
    (site.root / "empty").touch()
    assert main(["fetch", urls[0], f"{site.url}/empty"]) == 0
    capfd.readouterr()
    assert main(["fetch", "--continue", *urls, f"{site.url}/empty"]) == 0
    assert here() == ["empty", "file.bin", "other.txt"]
    assert sorted(capfd.readouterr().err.splitlines()) == [
        "empty: there already, 0 bytes",
        f"file.bin: there already, {len(LARGE)} bytes",
        "other.txt: 5 bytes",
    ]


@pytest.mark.parametrize("content", [b"mine", LARGE + b"more"])
def test_a_file_of_another_length_is_not_taken_for_the_one_that_is_continued(
    site: Site, capfd: pytest.CaptureFixture[str], content: bytes
) -> None:
    Path("file.bin").write_bytes(content)
    assert main(["fetch", "--continue", f"{site.url}/file.bin"]) == 1
    assert "file.bin exists already" in capfd.readouterr().err
    assert Path("file.bin").read_bytes() == content
    assert here() == ["file.bin"]


def test_a_file_that_has_changed_on_the_server_is_not_there_already(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", f"{site.url}/other.txt"]) == 0
    an_hour_ago = Path("other.txt").stat().st_mtime - 3600
    os.utime("other.txt", (an_hour_ago, an_hour_ago))
    (site.root / "other.txt").write_bytes(b"OTHER")
    assert main(["fetch", "--continue", f"{site.url}/other.txt"]) == 1
    assert "other.txt exists already" in capfd.readouterr().err
    assert main(["fetch", "--force", f"{site.url}/other.txt"]) == 0
    assert Path("other.txt").read_bytes() == b"OTHER"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmine", 0),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nlast-modified: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nmine", 0),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nlast-modified: Fri, 31 Dec 9999 00:00:00 GMT\r\n\r\nthey", 1),
        (b"HTTP/1.1 416 No\r\ncontent-length: 0\r\ncontent-range: bytes */4\r\n\r\n", 0),
        (b"HTTP/1.1 412 No\r\ncontent-length: 0\r\ncontent-range: bytes */4\r\n\r\n", 1),
    ],
)
def test_a_file_is_there_already_if_the_server_has_none_that_is_newer(site: Site, answer: bytes, status: int) -> None:
    Path("file").write_bytes(b"mine")
    with liar(answer) as (url, asked):
        assert main(["fetch", "--continue", f"{url}/file"]) == status
        assert b"range: bytes=4-\r\n" in asked[0]
    assert Path("file").read_bytes() == b"mine"


def test_a_kill_at_any_moment_leaves_a_part_that_can_be_continued(site: Site) -> None:
    site.break_after = 777  # and then silence; what has come waits to be written in one piece
    process = subprocess.Popen([*COMMAND, "fetch", f"{site.url}/file.bin"], env=environment())
    try:
        assert site.broken.wait(DEADLINE)
    finally:
        process.kill()
        process.wait(DEADLINE)
    site.break_after = None
    assert main(["fetch", "-C", f"{site.url}/file.bin"]) == 0
    assert Path("file.bin").read_bytes() == LARGE
    assert here() == ["file.bin"]


# Names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/", "index.html"),
        ("/a/b.txt", "b.txt"),
        ("/a/b/", "index.html"),
        ("/..", "index.html"),
        ("/%2e%2e", "index.html"),
        ("/..%2f..%2fetc%2fpasswd", "passwd"),
        ("/a%5c..%5cb", "b"),
        ("/.bashrc", "bashrc"),
        ("/%2ebashrc", "bashrc"),
        ("/-rf", "rf"),
        ("/a%00b%0a%1b[31m", "ab[31m"),
        ("/a%20b", "a b"),
        ("/%ff", "\N{REPLACEMENT CHARACTER}"),
        ("/" + "é" * 300, "é" * 100),
    ],
)
def test_a_url_s_name_is_made_safe(text: str, name: str) -> None:
    assert safe_name(text) == name


@given(st.text())
def test_no_name_leaves_the_folder_or_hides(text: str) -> None:
    for name in (safe_name(text), disposition_name(f'attachment; filename="{text}"') or "x"):
        assert name not in ("", ".", "..")
        assert "/" not in name
        assert "\0" not in name
        assert name[0] not in ".- "
        assert name.isprintable()
        assert len(name.encode()) <= 200


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ('attachment; filename="../../evil.sh"', "evil.sh"),
        ("attachment; filename=.bashrc", "bashrc"),
        ("attachment; filename*=UTF-8''na%C3%AFve.txt; filename=x", "naïve.txt"),
        ("attachment; filename*=utf-8''..%2F..%2Fx", "x"),
        (r'attachment; filename="a\"b"', 'a"b'),
        ("inline", None),
    ],
)
def test_a_server_s_name_is_made_safe(field: str, name: str | None) -> None:
    assert disposition_name(field) == name


def test_a_server_names_the_file_only_if_it_may(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    url = f"{site.url}/named?attachment;+filename=..%2Fevil"
    assert main(["fetch", "-q", url]) == 0
    assert main(["fetch", "-q", "-J", f"{site.url}/named?attachment;+filename=../there"]) == 1  # named exists
    os.remove("named")
    assert main(["fetch", "-q", "-J", f"{site.url}/named?attachment;+filename=../there"]) == 0
    assert main(["fetch", "-q", "-J", f"{site.url}/named?attachment;+filename=../there"]) == 1
    assert "there exists already" in capfd.readouterr().err
    assert here() == ["there"]


# What is sent, and the way there


def test_method_body_and_headers_are_the_user_s(site: Site, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    url = f"{site.url}/echo"
    assert main(["fetch", "-o", "-", "--data", "a=b", url]) == 0
    assert capfd.readouterr().out == "POST application/x-www-form-urlencoded b'a=b'"
    (tmp_path / "body").write_bytes(b"from a file")
    arguments = ["--method", "PUT", "--data", f"@{tmp_path / 'body'}", "--header", "Content-Type: x/y"]
    assert main(["fetch", "-o", "-", *arguments, url]) == 0
    assert capfd.readouterr().out == "PUT x/y b'from a file'"


def test_redirects_can_be_limited(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "--max-redirects", "0", f"{site.url}/moved"]) == 1
    assert "--max-redirects says not to follow" in capfd.readouterr().err


def test_a_stranger_s_certificate_is_refused_unless_the_user_says_so(
    site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    with in_thread() as portal:
        tls = ServerTLS(tmp_path / "cert.pem", alpn=["http/1.1"])
        service = portal.start(partial(serve, HTTPHandler(site), "tcp://127.0.0.1:0", tls=tls))
        url = service.endpoints[0].replace("tls", "https") + "/other.txt"
        assert main(["fetch", "-o", "-", url]) == 1
        assert "--ca FILE names who vouches for it" in capfd.readouterr().err
        assert main(["fetch", "-o", "-", "--ca", str(tmp_path / "ca.pem"), url]) == 0
        assert main(["fetch", "-o", "-", "--insecure", url]) == 0
    out, err = capfd.readouterr()
    assert out == "other" * 2
    assert "anybody may be at the other end" in err


def test_a_proxy_is_used_from_the_option_and_from_the_environment(
    site: Site, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Our own server takes absolute URLs as a proxy does.
    assert main(["fetch", "-o", "-", "--proxy", site.url, "http://example.org/other.txt"]) == 0
    monkeypatch.setenv("http_proxy", site.url)
    assert main(["fetch", "-o", "-", "http://example.com/other.txt"]) == 0
    assert capfd.readouterr().out == "other" * 2
    assert [request.host for request in site.requests] == ["example.org", "example.com"]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert main(["fetch", "-o", "-", f"{site.url}/other.txt"]) == 0
    assert site.requests[-1].target == "/other.txt"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["example.org/file"], "the scheme is missing: https://example.org/file"),
        (["gopher://example.org/"], "the schemes are http://, https://, ftp://, ftps://, ftpes://"),
        (["http://exa mple.org/"], "a blank is %20"),
        (["http://a/x", "http://b/x"], "would be saved as x"),
        (["-o", "x", "http://a/x", "http://b/y"], "-o is for one URL"),
        (["-C", "-d", "x", "http://a/x"], "--continue is for GET alone"),
        (["-C", "-o", "-", "http://a/x"], "standard output"),
        (["-d", "@/nonexistent", "http://a/x"], "No such file"),
        (["--proxy", "x://y", "http://a/x"], "a proxy begins with"),
        (["--ca", "/nonexistent", "http://a/x"], "does not load"),
        (["-X", "G T", "http://a/x"], "not a method"),
        (["-H", "a b: c", "http://a/x"], "not a header name"),
    ],
)
def test_wrong_options_end_with_status_2_and_one_clear_message(
    site: Site, arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", *arguments]) == 2
    err = capfd.readouterr().err
    assert says in err
    assert "Traceback" not in err


def test_a_name_that_no_file_can_have_is_told(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    for name, says in ((".", ". is a folder"), ("/", "/ is a folder"), ("none/x", "there is no folder none")):
        assert main(["fetch", "-o", name, f"{site.url}/other.txt"]) == 1
        assert says in capfd.readouterr().err


def test_plain_http_where_tls_was_expected_is_told(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "-o", "-", site.url.replace("http", "https") + "/other.txt"]) == 1
    assert "does not speak TLS there: is it http:// that you mean?" in capfd.readouterr().err


def test_endless_redirects_are_told_once(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", f"{site.url}/loop"]) == 1
    assert capfd.readouterr().err == f"asyncnet fetch: {site.url}/loop: more than 10 redirects\n"


def test_a_server_s_words_fill_no_terminal(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    far = b"HTTP/1.1 302 Found\r\nlocation: ftp://example.org/" + b"x" * 50_000 + b"\r\ncontent-length: 0\r\n\r\n"
    for answer in (far, b"HTTP/1.1 404 " + b"x" * 50_000 + b"\r\ncontent-length: 0\r\n\r\n"):
        with liar(answer) as (url, _):
            assert main(["fetch", f"{url}/file"]) == 1
        assert len(capfd.readouterr().err) < 1000


def test_a_full_disk_is_told_and_what_has_come_is_kept(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))  # a write past it fails, as on a full disk
    try:
        assert main(["fetch", f"{site.url}/file.bin"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert capfd.readouterr().err.endswith(": File too large; --continue goes on where it stopped\n")
    assert 0 < Path(".file.bin.part").stat().st_size <= 1_000_000
    assert main(["fetch", "-C", f"{site.url}/file.bin"]) == 0
    assert Path("file.bin").read_bytes() == LARGE


@pytest.mark.parametrize(
    ("redirection", "status", "out"), [("2>&-", 0, b"other"), (">&-", 2, b""), (">/dev/full", 1, b"")]
)
def test_standard_streams_that_are_closed_or_full(site: Site, redirection: str, status: int, out: bytes) -> None:
    command = f"{' '.join(COMMAND)} fetch -o - {site.url}/other.txt {redirection}"
    done = subprocess.run(
        ["bash", "-c", command], env=environment(), capture_output=True, timeout=DEADLINE, check=False
    )
    assert (done.returncode, done.stdout) == (status, out)
    assert b"Traceback" not in done.stderr


def test_no_line_takes_the_place_of_standard_error_in_standard_output(site: Site) -> None:
    command = f"{' '.join(COMMAND)} fetch {site.url}/other.txt 2>&-"
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, timeout=DEADLINE, check=True)
    assert done.stdout == b""


@pytest.mark.parametrize("arguments", [[], ["-H", "x", "http://a/"], ["--jobs", "0", "http://a/"]])
def test_options_that_cannot_be_read_are_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fetch", *arguments])
    assert caught.value.code == 2


def test_a_password_in_a_url_is_not_shown(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", site.url.replace("//", "//user:hunter2@") + "/none"]) == 1
    assert "hunter2" not in capfd.readouterr().err
    for url in ("gopher://user:hunter2@example.org/", "user:hunter2@example.org/", "x-1://user:hunter2@example.org"):
        assert main(["fetch", url]) == 2
        assert "hunter2" not in capfd.readouterr().err


@contextmanager
def terminal() -> Iterator[tuple[int, Callable[[], bytes]]]:
    """A terminal's inner end, and what was written to it."""
    outer, inner = pty.openpty()
    seen = bytearray()

    def read() -> None:
        try:
            while data := os.read(outer, 4096):
                seen.extend(data)
        except OSError:
            pass

    reader = threading.Thread(target=read)
    reader.start()

    def finish() -> bytes:
        os.close(inner)
        reader.join(DEADLINE)
        return bytes(seen)

    yield inner, finish
    os.close(outer)


def test_a_terminal_shows_progress(site: Site) -> None:
    with terminal() as (inner, finish):
        command = [*COMMAND, "fetch", f"{site.url}/file.bin"]
        done = subprocess.run(command, env=environment(TERM="xterm"), stderr=inner, timeout=DEADLINE, check=False)
        shown = finish()
    assert done.returncode == 0
    assert "━" in shown.decode()
    assert f"file.bin: {len(LARGE)} bytes" in shown.decode()


def test_bars_of_what_is_done_make_room_for_the_others(site: Site) -> None:
    names = [f"file{number}" for number in range(40)]
    for name in names:
        (site.root / name).write_bytes(b"x")
    with terminal() as (inner, finish):
        command = [*COMMAND, "fetch", *(f"{site.url}/{name}" for name in names)]
        done = subprocess.run(command, env=environment(TERM="xterm"), stderr=inner, timeout=DEADLINE, check=False)
        frames = finish().decode().split("\x1b[2K")  # each line of the last frame is erased before the next one
    assert done.returncode == 0
    bars = [[line for line in frame.splitlines() if "━" in line] for frame in frames]
    assert 1 <= max(map(len, bars)) <= 4  # as many as there are jobs
    assert not bars[-1]
