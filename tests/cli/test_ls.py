"""`asyncnet ls`, as its user sees it: lines, messages, exit status."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from pathlib import Path

import pytest

from asyncnet import serve
from asyncnet.cli import main
from asyncnet.cli.ls_ftp import as_line
from asyncnet.embed import in_thread
from asyncnet.ftp import Entry, EntryKind, FTPHandler, MemoryFiles, RemoteEntry, Status
from asyncnet.ftp import storage as interface
from tests.cli.command import COMMAND, DEADLINE, environment
from tests.cli.ftp_yard import Yard, server_tls, yard

NOON = 1_795_608_000  # 2026-11-25 12:00:00 UTC


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    with yard(tmp_path) as served:
        (served.root / "pub").mkdir()
        (served.root / "pub" / "deep").mkdir()
        (served.root / "pub" / "one.txt").write_bytes(b"one")
        (served.root / "pub" / "one.txt").chmod(0o640)
        for name in ("pub/one.txt", "pub/deep", "pub"):
            os.utime(served.root / name, (NOON, NOON))
        yield served


def test_a_folder_is_listed_a_line_for_each_file(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", f"{site.url}/pub/"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert sorted(out.splitlines()) == [
        "-rw-r-----             3 2026-11-25 12:00:00 one.txt",
        "drwxr-xr-x             - 2026-11-25 12:00:00 deep/",
    ]


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (RemoteEntry("x", EntryKind.FILE), "----------             - -                   x"),
        (
            RemoteEntry("x", EntryKind.LINK, size=5, modified=NOON, mode=0o777, target="y\n"),
            "lrwxrwxrwx             5 2026-11-25 12:00    x -> y\\n",
        ),
        (RemoteEntry("x", EntryKind.OTHER, modified=1e30), "?---------             - -                   x"),
    ],
)
def test_what_the_server_does_not_tell_is_left_out(entry: RemoteEntry, line: str) -> None:
    assert as_line(entry) == line


def test_a_slash_at_the_end_may_be_left_out_and_a_file_is_one_line(
    site: Yard, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["ls", "--names", f"{site.url}/pub"]) == 0
    assert sorted(capfd.readouterr().out.splitlines()) == ["deep/", "one.txt"]
    assert main(["ls", f"{site.url}/pub/one.txt"]) == 0
    assert capfd.readouterr().out == "-rw-r-----             3 2026-11-25 12:00:00 one.txt\n"
    assert main(["ls", "--names", site.url]) == 0
    assert capfd.readouterr().out == "pub/\n"


def test_programs_get_json_a_line_for_each_file(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--json", f"{site.url}/pub/"]) == 0
    lines = {line["name"]: line for line in map(json.loads, capfd.readouterr().out.splitlines())}
    assert lines["one.txt"] == {
        "name": "one.txt",
        "kind": "file",
        "size": 3,
        "modified": "2026-11-25T12:00:00Z",
        "mode": "0640",
    }
    assert lines["deep"]["kind"] == "folder"


def test_names_drive_no_terminal_and_json_has_them_as_they_are(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[31mred\u202e\udcff"
    (site.root / name).write_bytes(b"")
    assert main(["ls", "--names", site.url]) == 0
    assert "\\x1b[31mred\\u202e\\udcff" in capfd.readouterr().out.splitlines()
    assert main(["ls", "--json", site.url]) == 0
    assert name in [json.loads(line)["name"] for line in capfd.readouterr().out.splitlines()]


def test_what_is_not_there_is_told(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    for place in ("none", "none/"):
        assert main(["ls", f"{site.url}/{place}"]) == 1
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith(f"asyncnet ls: {site.url}/{place}: MLSD {place}: the server says 550 ")


def test_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    with yard(tmp_path, tls=server_tls(tmp_path), tls_for_data=True) as site:
        (site.root / "x").touch()
        url = site.url.replace("ftp", "ftpes")
        assert main(["ls", url]) == 1
        assert "--ca FILE names who vouches for it" in capfd.readouterr().err
        assert main(["ls", "--names", "--ca", str(tmp_path / "ca.pem"), url]) == 0
        assert main(["ls", "--names", "--insecure", url]) == 0
        assert capfd.readouterr().out == "x\nx\n"


class Endless(MemoryFiles):
    """Folders that have no end."""

    async def scan(self, path: interface.Path) -> AsyncGenerator[list[Entry], None]:
        number = 0
        while True:
            yield [Entry(f"file{number + i}", Status(False, 1, NOON)) for i in range(100)]
            number += 100


def test_lines_are_printed_as_they_come_and_a_reader_that_has_enough_is_no_failure() -> None:
    with in_thread() as portal:
        service = portal.start(partial(serve, FTPHandler(Endless(), anonymous=True), "tcp://127.0.0.1:0"))
        command = (
            f"{' '.join(COMMAND)} ls --names {service.urls[0]} | head -n 100000 | tail -n 1; echo ${{PIPESTATUS[0]}}"
        )
        done = subprocess.run(
            ["bash", "-c", command], env=environment(), capture_output=True, text=True, timeout=DEADLINE, check=True
        )
    assert (done.stdout, done.stderr) == ("file99999\n0\n", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["http://anna:hunter2@a/"], "http://a/: what can be listed is ftp://, ftps:// or ftpes://"),
        (["a/b"], "a/b: what can be listed is"),
        (["ftp://a/x%0d"], "cannot be sent"),
        (["--ca", "/nonexistent", "ftps://a/"], "does not load"),
    ],
)
def test_wrong_options_end_with_status_2_and_one_clear_message(
    arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["ls", *arguments]) == 2
    err = capfd.readouterr().err
    assert says in err
    assert "hunter2" not in err
    assert "Traceback" not in err


def test_two_forms_at_once_are_a_usage_error() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["ls", "--names", "--json", "ftp://a/"])
    assert caught.value.code == 2


@pytest.mark.parametrize(("redirection", "status"), [("2>&-", 0), (">&-", 2), (">/dev/full", 1)])
def test_standard_streams_that_are_closed_or_full(site: Yard, redirection: str, status: int) -> None:
    command = f"{' '.join(COMMAND)} ls {site.url} {redirection}"
    done = subprocess.run(
        ["bash", "-c", command], env=environment(), capture_output=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == status
    assert b"Traceback" not in done.stderr
