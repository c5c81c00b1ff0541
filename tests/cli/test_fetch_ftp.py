"""`asyncnet fetch` from FTP servers, as its user sees it: files, messages, exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from asyncnet.cli import main
from asyncnet.cli.fetch import FetchOptions
from asyncnet.cli.fetch_ftp import FTPFetcher
from asyncnet.cli.progress import Tally
from asyncnet.testing import cancel_at_each_checkpoint
from tests.cli.command import COMMAND, DEADLINE, environment
from tests.cli.ftp_yard import LARGE, Yard, liar, server_tls, yard
from tests.cli.test_fetch import terminal


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    with yard(tmp_path) as served:
        fill(served.root)
        enter(tmp_path, monkeypatch)
        yield served


def fill(root: Path) -> None:
    (root / "file.bin").write_bytes(LARGE)
    (root / "other.txt").write_bytes(b"other")
    (root / "pub" / "deep").mkdir(parents=True)
    (root / "pub" / "one.txt").write_bytes(b"one")
    (root / "pub" / "deep" / "two.txt").write_bytes(b"two")


def enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def here() -> list[str]:
    return sorted(os.listdir())


def test_a_file_is_saved_under_its_url_s_name(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", f"{site.url}/file.bin", f"{site.url}/pub/one.txt"]) == 0
    assert Path("file.bin").read_bytes() == LARGE
    assert here() == ["file.bin", "one.txt"]
    out, err = capfd.readouterr()
    assert (out, sorted(err.splitlines())) == ("", [f"file.bin: {len(LARGE)} bytes", "one.txt: 3 bytes"])
    assert set(site.logins) == {"anonymous"}


def test_files_of_one_server_come_over_as_many_connections_as_there_are_jobs(site: Yard) -> None:
    names = [f"file{number}" for number in range(12)]
    for name in names:
        (site.root / name).write_bytes(b"x")
    assert main(["fetch", "--jobs", "2", *(f"{site.url}/{name}" for name in names)]) == 0
    assert here() == sorted(names)
    assert len(site.logins) == 2


def test_one_that_fails_is_told_and_the_others_come(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "-q", "-j", "1", f"{site.url}/none", f"{site.url}/other.txt"]) == 1
    assert here() == ["other.txt"]
    err = capfd.readouterr().err
    assert err.startswith(f"asyncnet fetch: {site.url}/none: RETR none: the server says 550 ")
    assert err.count("\n") == 1


def test_standard_output_gets_the_content_and_nothing_else(
    site: Yard, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["fetch", "-o", "-", f"{site.url}/file.bin"]) == 0
    assert capfdbinary.readouterr() == (LARGE, b"")
    assert here() == []


def test_a_text_may_be_fetched_as_one(site: Yard) -> None:
    text = b"one\ntwo\r\n" * 100_000 + b"\r"
    (site.root / "text").write_bytes(text)
    assert main(["fetch", f"{site.url}/text;type=a"]) == 0
    assert Path("text").read_bytes() == text


def test_a_reader_of_standard_output_that_has_enough_is_no_failure(site: Yard) -> None:
    command = f"{' '.join(COMMAND)} fetch -o - {site.url}/file.bin | head -c 5; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, timeout=DEADLINE, check=True)
    assert (done.stdout, done.stderr) == (LARGE[:5] + b"0\n", b"")


def test_a_file_that_exists_is_replaced_only_by_force(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    Path("other.txt").write_text("mine")
    assert main(["fetch", f"{site.url}/other.txt"]) == 1
    assert "exists already: --force replaces it" in capfd.readouterr().err
    assert main(["fetch", "--force", "--verify", f"{site.url}/other.txt"]) == 0
    assert Path("other.txt").read_text() == "other"


# Resuming


def break_off(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    """Fetch a part of file.bin."""
    site.files.fault.after = 1_000_000
    assert main(["fetch", f"{site.url}/file.bin"]) == 1
    assert capfd.readouterr().err.endswith("; --continue goes on where it stopped\n")
    site.files.fault.after = None


def test_what_was_broken_off_is_continued(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    break_off(site, capfd)
    assert here() == [".file.bin.part", ".file.bin.part.info"]
    part = Path(".file.bin.part").read_bytes()
    assert part
    assert part == LARGE[: len(part)]
    assert main(["fetch", "--continue", "--verify", f"{site.url}/file.bin"]) == 0
    assert here() == ["file.bin"]
    assert Path("file.bin").read_bytes() == LARGE
    assert site.passed == [("file.bin", len(LARGE) - len(part))]


@pytest.mark.parametrize("change", ["size", "time", "url", "notes"])
def test_a_part_that_need_not_be_one_of_the_same_file_is_fetched_anew(
    site: Yard, capfd: pytest.CaptureFixture[str], change: str
) -> None:
    break_off(site, capfd)
    content, url = LARGE, f"{site.url}/file.bin"
    match change:
        case "size":
            status = os.stat(site.root / "file.bin")
            content = LARGE[::-1] + b"!"
            (site.root / "file.bin").write_bytes(content)
            os.utime(site.root / "file.bin", (status.st_atime, status.st_mtime))
        case "time":
            content = LARGE[::-1]
            (site.root / "file.bin").write_bytes(content)
            os.utime(site.root / "file.bin", (1, 1))
        case "url":
            content = b"deep"
            (site.root / "pub" / "file.bin").write_bytes(content)
            url = f"{site.url}/pub/file.bin"
        case "notes":
            Path(".file.bin.part.info").write_text("{}")
    assert main(["fetch", "--continue", url]) == 0
    assert Path("file.bin").read_bytes() == content
    assert site.passed[-1][1] == len(content)


def test_without_continue_a_file_is_fetched_anew(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    break_off(site, capfd)
    assert main(["fetch", f"{site.url}/file.bin"]) == 0
    assert site.passed == [("file.bin", len(LARGE))]


def test_a_part_that_is_the_whole_is_taken_for_it(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    break_off(site, capfd)
    Path(".file.bin.part").write_bytes(LARGE)
    assert main(["fetch", "-C", f"{site.url}/file.bin"]) == 0
    assert Path("file.bin").read_bytes() == LARGE
    assert site.passed == []


def test_a_part_whose_hash_is_another_is_thrown_away(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    break_off(site, capfd)
    Path(".file.bin.part").write_bytes(b"X" * 1000)
    assert main(["fetch", "-C", "--verify", f"{site.url}/file.bin"]) == 1
    err = capfd.readouterr().err
    assert "SHA-" in err
    assert "--continue" not in err
    assert here() == []


def test_the_notes_of_a_part_have_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with yard(tmp_path, users=True) as site:
        fill(site.root)
        enter(tmp_path, monkeypatch)
        site.files.fault.after = 1_000_000
        url = site.url.replace("//", "//anna:secret@") + "/file.bin"
        assert main(["fetch", url]) == 1
        assert "secret" not in Path(".file.bin.part.info").read_text()
        site.files.fault.after = None
        assert main(["fetch", "-C", url]) == 0
        assert site.passed[0][1] < len(LARGE)


def test_files_that_are_there_already_need_not_be_fetched_again(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", f"{site.url}/file.bin"]) == 0
    capfd.readouterr()
    assert main(["fetch", "--continue", "-j", "1", f"{site.url}/file.bin", f"{site.url}/other.txt"]) == 0
    assert capfd.readouterr().err == f"file.bin: there already, {len(LARGE)} bytes\nother.txt: 5 bytes\n"
    os.utime("other.txt", (1, 1))
    assert main(["fetch", "--continue", f"{site.url}/other.txt"]) == 1
    assert "other.txt exists already" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_part_that_can_be_continued(site: Yard, number: signal.Signals) -> None:
    site.files.fault.after, site.files.fault.stands_still = 1_000_000, True
    process = subprocess.Popen([*COMMAND, "fetch", f"{site.url}/file.bin"], env=environment(), stderr=subprocess.PIPE)
    try:
        assert site.files.fault.happened.wait(DEADLINE)
        wait_for(lambda: ".file.bin.part" in here() and os.path.getsize(".file.bin.part") > 0)
        process.send_signal(number)
        _, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert process.returncode == 128 + number, err
    assert b"Traceback" not in err
    assert b"interrupted; --continue goes on where it stopped" in err
    site.files.fault.after = None
    assert main(["fetch", "-C", f"{site.url}/file.bin"]) == 0
    assert Path("file.bin").read_bytes() == LARGE


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.02)


def test_a_server_s_words_drive_no_terminal(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    with liar(PASS="530 \x1b[31mNo", USER="331 Password") as (url, _):
        assert main(["fetch", f"{url}/x"]) == 1
    err = capfd.readouterr().err
    assert r"\x1b[31mNo" in err
    assert "\x1b" not in err
    assert here() == []


# Who logs in


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with yard(tmp_path, users=True) as site:
        fill(site.root)
        enter(tmp_path, monkeypatch)
        yield site


def test_user_and_password_come_from_the_url(guarded: Yard) -> None:
    assert main(["fetch", guarded.url.replace("//", "//anna:secret@") + "/other.txt"]) == 0
    assert guarded.logins == ["anna"]


def test_without_them_they_come_from_netrc(guarded: Yard, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login anna password secret\n")
    assert main(["fetch", f"{guarded.url}/other.txt"]) == 0
    assert main(["fetch", "-f", guarded.url.replace("//", "//anna@") + "/other.txt"]) == 0
    assert guarded.logins == ["anna", "anna"]


def test_who_wants_to_be_anonymous_is_asked_for_no_password(site: Yard) -> None:
    assert main(["fetch", site.url.replace("//", "//ftp@") + "/other.txt"]) == 0
    assert site.logins == ["anonymous"]


def test_a_netrc_that_cannot_be_read_is_told(guarded: Yard, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 nonsense\n")
    assert main(["fetch", f"{guarded.url}/other.txt"]) == 2
    assert "netrc: bad follower token 'nonsense'" in capfd.readouterr().err


def test_a_password_that_is_missing_is_asked_for_once(
    guarded: Yard, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or "secret")
    monkeypatch.setattr("asyncnet.cli.logins.TERMINAL", os.devnull)
    url = guarded.url.replace("//", "//anna@")
    assert main(["fetch", f"{url}/other.txt", f"{url}/pub/one.txt"]) == 0
    assert asked == ["Password for anna at 127.0.0.1: "]


def test_without_a_terminal_the_password_must_be_known(guarded: Yard) -> None:
    command = [*COMMAND, "fetch", guarded.url.replace("//", "//anna@") + "/other.txt"]
    done = subprocess.run(
        command,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 2
    assert "a password for anna at 127.0.0.1 is missing, and there is no terminal to ask at" in done.stderr


def test_a_wrong_password_is_told_and_not_shown(guarded: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", guarded.url.replace("//", "//anna:hunter2@") + "/other.txt"]) == 1
    err = capfd.readouterr().err
    assert "530" in err
    assert "hunter2" not in err


def test_where_nobody_is_anonymous_the_user_is_told_where_a_name_goes(
    guarded: Yard, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", f"{guarded.url}/other.txt"]) == 1
    assert f"ftp://USER@{guarded.url[6:]}/, or in ~/.netrc" in capfd.readouterr().err


def test_where_no_more_connections_are_let_in_the_files_come_one_by_one(guarded: Yard) -> None:
    url = guarded.url.replace("//", "//bert:secret@")
    assert main(["fetch", *(f"{url}/{name}" for name in ("file.bin", "other.txt", "pub/one.txt"))]) == 0
    assert here() == ["file.bin", "one.txt", "other.txt"]


# TLS


def test_a_server_is_verified_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    with yard(tmp_path, tls=server_tls(tmp_path), tls_for_data=True) as site:
        fill(site.root)
        enter(tmp_path, monkeypatch)
        for url in (site.url.replace("ftp", "ftpes"), site.secure_url):
            assert main(["fetch", f"{url}/file.bin"]) == 1
            assert "--ca FILE names who vouches for it" in capfd.readouterr().err
            assert main(["fetch", "-f", "--ca", str(tmp_path / "ca.pem"), f"{url}/file.bin"]) == 0
            assert main(["fetch", "-f", "--insecure", f"{url}/file.bin"]) == 0
            assert "anybody may be at the other end" in capfd.readouterr().err
        assert main(["fetch", "--insecure", f"{site.url.replace('ftp', 'ftps')}/other.txt"]) == 1
        assert "is it ftp:// or ftpes:// that you mean?" in capfd.readouterr().err


# Whole trees


def test_a_tree_is_mirrored_and_once_more_only_what_differs(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "--mirror", f"{site.url}/pub/"]) == 0
    assert Path("pub/one.txt").read_bytes() == b"one"
    assert Path("pub/deep/two.txt").read_bytes() == b"two"
    err = capfd.readouterr().err
    assert "pub/deep/two.txt: 3 bytes\n" in err
    assert err.endswith("pub: 2 moved, 6 bytes\n")
    (site.root / "pub" / "one.txt").write_bytes(b"changed")
    assert main(["fetch", "--mirror", f"{site.url}/pub"]) == 0
    assert Path("pub/one.txt").read_bytes() == b"changed"
    assert capfd.readouterr().err == "pub/one.txt: 7 bytes\npub: 1 moved, 1 the same, 7 bytes\n"


def test_only_with_delete_a_mirror_removes_what_is_not_there(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    Path("copy").mkdir()
    Path("copy/mine").write_text("mine")
    assert main(["fetch", "--mirror", "-o", "copy", f"{site.url}/pub"]) == 0
    assert Path("copy/mine").exists()
    assert main(["fetch", "--mirror", "--delete", "-o", "copy", f"{site.url}/pub"]) == 0
    assert sorted(os.listdir("copy")) == ["deep", "one.txt"]
    assert "copy/mine: deleted\n" in capfd.readouterr().err


def test_a_server_s_whole_tree_is_named_after_it(site: Yard) -> None:
    assert main(["fetch", "-q", "--mirror", site.url]) == 0
    assert sorted(os.listdir("127.0.0.1")) == ["file.bin", "other.txt", "pub"]


def test_a_tree_that_is_not_there_is_told(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "-q", "--mirror", f"{site.url}/none"]) == 1
    err = capfd.readouterr().err
    assert "550" in err
    assert "Traceback" not in err


def test_a_server_that_is_not_there_is_told(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--mirror"]):
        assert main(["fetch", *words, "ftp://127.0.0.1:1/a"]) == 1
        assert capfd.readouterr().err.startswith("asyncnet fetch: ftp://127.0.0.1:1/a: cannot connect to 127.0.0.1:1")


def test_a_file_of_a_tree_that_fails_does_not_stop_the_others(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    site.files.fault.after = 1_000_000
    assert main(["fetch", "--mirror", "-o", "copy", site.url]) == 1
    assert Path("copy/pub/deep/two.txt").read_bytes() == b"two"
    err = capfd.readouterr().err
    assert "asyncnet fetch: copy/file.bin: " in err
    assert "1 failed" in err
    site.files.fault.after = None
    assert main(["fetch", "--mirror", "-o", "copy", site.url]) == 0
    assert Path("copy/file.bin").read_bytes() == LARGE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_of_a_tree_what_has_come(site: Yard, number: signal.Signals) -> None:
    site.files.fault.after, site.files.fault.stands_still = 1_000_000, True
    command = [*COMMAND, "fetch", "--mirror", "-o", "copy", site.url]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as process:
        try:
            assert site.files.fault.happened.wait(DEADLINE)
            process.send_signal(number)
            _, err = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
    assert process.returncode == 128 + number, err
    assert b"Traceback" not in err
    assert b"interrupted; the same command once more fetches or puts what is missing" in err
    site.files.fault.after = None
    assert main(["fetch", "--mirror", "-o", "copy", site.url]) == 0
    assert Path("copy/file.bin").read_bytes() == LARGE


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-H", "A: b", "ftp://a/x"], "--header is for HTTP alone, which ftp://a/x is not"),
        (["-X", "GET", "ftp://a/x"], "--method is for HTTP alone"),
        (["-d", "x", "ftp://a/x"], "--data is for HTTP alone"),
        (["-J", "ftps://a/x"], "--server-name is for HTTP alone"),
        (["--max-redirects", "3", "ftpes://a/x"], "--max-redirects is for HTTP alone"),
        (["--mirror", "http://a/x"], "--mirror is for FTP alone, which http://a/x is not"),
        (["--active", "ftp://a/x", "http://a/y"], "--active is for FTP alone, which http://a/y is not"),
        (["--delete", "ftp://a/x"], "--delete goes with --mirror"),
        (["--mirror", "-o", "-", "ftp://a/x"], "leave out -o -"),
        (["--mirror", "-C", "ftp://a/x"], "--continue does nothing with --mirror"),
        (["--mirror", "--force", "ftp://a/x"], "--force does nothing with --mirror"),
        (["--mirror", "ftp://a/x", "ftp://b/x"], "would be saved as x"),
        (["--mirror", "-o", "x", "ftp://a/x", "ftp://b/y"], "-o is for one URL"),
        (["ftp://a/x/"], "ftp://a/x/ is a folder: --mirror fetches all that is in it"),
        (["ftp://a"], "is a folder"),
        (["ftp://a/x;type=d"], ";type= is a (text) or i"),
        (["ftp://a/x y"], "a blank is %20"),
        (["ftp://a/x%0d%0aDELE y"], "may not stand in a URL"),
        (["ftp://a/x%0d%0aDELE%20y"], "cannot be sent"),
        (["--proxy", "x://y", "ftp://a/x"], "a proxy begins with"),
        (["--proxy", "socks5://y:1", "--active", "ftp://a/x"], "no connection through a proxy"),
        (["--ca", "/nonexistent", "ftps://a/x"], "does not load"),
        (["ftp://a/x", "ftp://b/x"], "would be saved as x"),
    ],
)
def test_wrong_options_end_with_status_2_and_one_clear_message(
    site: Yard, arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", *arguments]) == 2
    err = capfd.readouterr().err
    assert says in err
    assert "Traceback" not in err


def test_a_terminal_shows_progress(site: Yard) -> None:
    with terminal() as (inner, finish):
        command = [*COMMAND, "fetch", f"{site.url}/file.bin"]
        done = subprocess.run(command, env=environment(TERM="xterm"), stderr=inner, timeout=DEADLINE, check=False)
        shown = finish().decode()
    assert done.returncode == 0
    assert "━" in shown
    assert f"file.bin: {len(LARGE)} bytes" in shown


def test_the_notes_say_of_what_file_they_are(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    break_off(site, capfd)
    noted = json.loads(Path(".file.bin.part.info").read_text())
    assert noted["url"] == f"{site.url}/file.bin"
    assert noted["modified"].startswith(f"{len(LARGE)} bytes, ")


def test_cancelled_anywhere_a_fetch_keeps_all_that_has_come(site: Yard) -> None:
    async def fetch_again_and_again() -> None:
        for attempt in cancel_at_each_checkpoint():
            for name in here():
                os.unlink(name)
            fetcher, report, url = FTPFetcher(FetchOptions()), Tally(), f"{site.url}/file.bin"
            fetcher.prepare(url)
            with attempt:
                await fetcher.fetch(url, Path("file.bin"), report)
            await fetcher.aclose()
            assert sum(os.path.getsize(name) for name in here() if not name.endswith(".info")) == report.size

    trio.run(fetch_again_and_again)
