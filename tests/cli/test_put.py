"""`asyncnet put`, as its user sees it: what the server has then, messages, exit status."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncnet.cli import main
from tests.cli.command import COMMAND, DEADLINE, environment, run
from tests.cli.ftp_yard import LARGE, Yard, liar, server_tls, yard
from tests.cli.test_fetch import terminal, wait_for_thread
from tests.cli.test_fetch_ftp import enter, wait_for


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    with yard(tmp_path) as served:
        enter(tmp_path, monkeypatch)
        Path("file.bin").write_bytes(LARGE)
        Path("other.txt").write_bytes(b"other")
        yield served


def there(site: Yard, folder: str = ".") -> list[str]:
    return sorted(os.listdir(site.root / folder))


def test_files_are_put_into_a_folder_under_their_own_names(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["put", "file.bin", "other.txt", f"{site.url}/"]) == 0
    assert (site.root / "file.bin").read_bytes() == LARGE
    assert (site.root / "other.txt").read_bytes() == b"other"
    out, err = capfd.readouterr()
    lines = [f"{site.url}/file.bin: {len(LARGE)} bytes", f"{site.url}/other.txt: 5 bytes"]
    assert (out, sorted(err.splitlines())) == ("", lines)


def test_a_url_without_a_slash_at_its_end_names_the_file(site: Yard) -> None:
    assert main(["put", "-q", "other.txt", f"{site.url}/mine%20too"]) == 0
    assert there(site) == ["mine too"]
    assert main(["put", "-q", "other.txt", site.url]) == 0
    assert there(site) == ["mine too", "other.txt"]


def test_what_has_the_name_is_replaced(site: Yard) -> None:
    (site.root / "other.txt").write_bytes(b"something longer")
    assert main(["put", "-q", "--verify", "other.txt", f"{site.url}/"]) == 0
    assert (site.root / "other.txt").read_bytes() == b"other"


def test_standard_input_is_put_under_the_url_s_name(site: Yard) -> None:
    command = [*COMMAND, "put", "-", f"{site.url}/piped"]
    done = subprocess.run(command, env=environment(), input=LARGE, capture_output=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, f"{site.url}/piped: {len(LARGE)} bytes\n")
    assert (site.root / "piped").read_bytes() == LARGE


def test_a_pipe_is_put_and_can_be_left(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe")
    command = [*COMMAND, "put", "pipe", f"{site.url}/"]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as process:
        with open("pipe", "wb") as pipe:
            pipe.write(LARGE)
        assert process.communicate(timeout=DEADLINE)[1].decode() == f"{site.url}/pipe: {len(LARGE)} bytes\n"
    assert (site.root / "pipe").read_bytes() == LARGE
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as process:
        wait_for_thread(process.pid)  # which opens the pipe, and waits for a writer
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (130, b"")
    assert main(["put", "-C", "pipe", f"{site.url}/"]) == 1
    assert "pipe: it is no file" in capfd.readouterr().err


def test_files_go_over_as_many_connections_as_there_are_jobs(site: Yard) -> None:
    names = [f"file{number}" for number in range(12)]
    for name in names:
        Path(name).write_bytes(b"x")
    assert main(["put", "--jobs", "2", *names, f"{site.url}/"]) == 0
    assert there(site) == sorted(names)
    assert len(site.logins) == 2


def test_folders_that_are_missing_are_made_if_the_user_says_so(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["put", "other.txt", f"{site.url}/new/deep/"]) == 1
    assert capfd.readouterr().err.endswith("; --mkdir makes folders that are missing\n")
    assert there(site) == []
    assert main(["put", "--mkdir", "other.txt", "file.bin", f"{site.url}/new/deep/"]) == 0
    assert there(site, "new/deep") == ["file.bin", "other.txt"]
    assert main(["put", "--mkdir", "other.txt", f"{site.url}//new/deep/more/mine"]) == 0
    assert there(site, "new/deep/more") == ["mine"]


def test_one_that_fails_is_told_and_the_others_go(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    (site.root / "other.txt").mkdir()
    assert main(["put", "-q", "other.txt", "file.bin", f"{site.url}/"]) == 1
    assert (site.root / "file.bin").read_bytes() == LARGE
    err = capfd.readouterr().err
    assert err.startswith("asyncnet put: other.txt: STOR other.txt: the server says 5")
    assert err.count("\n") == 1


# Resuming


def break_off(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    """Put a part of file.bin."""
    site.files.fault.after = 1_000_000
    assert main(["put", "file.bin", f"{site.url}/"]) == 1
    assert capfd.readouterr().err.endswith("; --continue goes on where it stopped\n")
    site.files.fault.after = None
    assert "file.bin" not in there(site)


def test_what_was_broken_off_is_continued(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    break_off(site, capfd)
    assert main(["put", "--continue", "--verify", "file.bin", f"{site.url}/"]) == 0
    assert (site.root / "file.bin").read_bytes() == LARGE
    assert there(site) == ["file.bin"]
    ((name, passed),) = site.passed
    assert name == "file.bin"
    assert 0 < passed < len(LARGE)


def test_without_continue_a_file_is_put_anew(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    break_off(site, capfd)
    assert main(["put", "file.bin", f"{site.url}/"]) == 0
    assert site.passed == [("file.bin", len(LARGE))]


def test_a_file_that_is_there_whole_is_left_as_it_is(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["put", "file.bin", f"{site.url}/"]) == 0
    capfd.readouterr()
    assert main(["put", "-C", "-j", "1", "file.bin", "other.txt", f"{site.url}/"]) == 0
    assert capfd.readouterr().err.splitlines() == [
        f"{site.url}/file.bin: there already, {len(LARGE)} bytes",
        f"{site.url}/other.txt: 5 bytes",
    ]


def test_what_is_older_there_than_here_is_no_part_of_it(site: Yard) -> None:
    (site.root / "other.txt").write_bytes(b"OTHER")
    (site.root / "file.bin").write_bytes(b"old")
    for name in ("other.txt", "file.bin"):
        os.utime(site.root / name, (1, 1))
    assert main(["put", "-C", "other.txt", "file.bin", f"{site.url}/"]) == 0
    assert (site.root / "other.txt").read_bytes() == b"other"
    assert (site.root / "file.bin").read_bytes() == LARGE


def test_a_beginning_that_is_another_s_is_found_by_its_hash(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    (site.root / "file.bin").write_bytes(b"another's")
    assert main(["put", "-C", "--verify", "file.bin", f"{site.url}/"]) == 1
    assert "SHA-" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_part_that_can_be_continued(site: Yard, number: signal.Signals) -> None:
    fault = site.files.fault
    fault.after, fault.stands_still = 1_000_000, True
    with open("huge.bin", "wb") as file:
        file.truncate(64 << 20)  # more than the sockets on the way hold
    process = subprocess.Popen([*COMMAND, "put", "huge.bin", f"{site.url}/"], env=environment(), stderr=subprocess.PIPE)
    try:
        assert fault.happened.wait(DEADLINE)
        process.send_signal(number)
        _, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert process.returncode == 128 + number, err
    assert b"Traceback" not in err
    assert b"huge.bin: interrupted; --continue goes on where it stopped" in err
    fault.goes_on.set()
    wait_for(lambda: any(os.path.getsize(site.root / name) for name in there(site)))
    assert "huge.bin" not in there(site)
    fault.after = None
    assert main(["put", "-C", "huge.bin", f"{site.url}/"]) == 0
    assert (site.root / "huge.bin").stat().st_size == 64 << 20
    assert site.passed[0][1] < 64 << 20


# The way there


def test_tls_and_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with yard(tmp_path, users=True, tls=server_tls(tmp_path), tls_for_login=True, tls_for_data=True) as site:
        enter(tmp_path, monkeypatch)
        Path("other.txt").write_bytes(b"other")
        for url in (site.url.replace("ftp", "ftpes"), site.secure_url):
            url = url.replace("//", "//anna:secret@")
            assert main(["put", "other.txt", f"{url}/"]) == 1
            assert "--ca FILE names who vouches for it" in capfd.readouterr().err
            assert main(["put", "--ca", str(tmp_path / "ca.pem"), "other.txt", f"{url}/"]) == 0
            err = capfd.readouterr().err
            assert err.endswith("/other.txt: 5 bytes\n")
            assert "secret" not in err
        assert main(["put", "other.txt", f"{site.url.replace('//', '//anna:secret@')}/"]) == 1
        assert "TLS" in capfd.readouterr().err
    assert site.logins == ["anna", "anna"]


def test_where_no_more_connections_are_let_in_the_files_go_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with yard(tmp_path, users=True) as site:
        enter(tmp_path, monkeypatch)
        for name in "abc":
            Path(name).write_text(name)
        assert main(["put", "a", "b", "c", site.url.replace("//", "//bert:secret@") + "/"]) == 0
        assert there(site) == ["a", "b", "c"]


# Whole trees


@pytest.fixture
def tree(site: Yard) -> Path:
    Path("tree/deep").mkdir(parents=True)
    Path("tree/one.txt").write_bytes(b"one")
    Path("tree/deep/two.txt").write_bytes(b"two")
    return Path("tree")


def test_a_tree_is_mirrored_and_once_more_only_what_differs(
    site: Yard, tree: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["put", "--mirror", "tree", f"{site.url}/copy"]) == 0
    assert (site.root / "copy" / "deep" / "two.txt").read_bytes() == b"two"
    err = capfd.readouterr().err
    assert f"{site.url}/copy/one.txt: 3 bytes\n" in err
    assert err.endswith(f"{site.url}/copy: 2 moved, 6 bytes\n")
    (tree / "one.txt").write_bytes(b"changed")
    assert main(["put", "--mirror", "tree", f"{site.url}/copy"]) == 0
    assert capfd.readouterr().err == (
        f"{site.url}/copy/one.txt: 7 bytes\n{site.url}/copy: 1 moved, 1 the same, 7 bytes\n"
    )


def test_a_tree_goes_into_a_folder_whose_url_has_a_slash_at_its_end(site: Yard, tree: Path) -> None:
    assert main(["put", "-q", "--mkdir", "--mirror", "tree/", f"{site.url}/a/b/"]) == 0
    assert there(site, "a/b/tree") == ["deep", "one.txt"]
    assert main(["put", "-q", "--mirror", "tree", site.url]) == 0
    assert there(site) == ["a", "deep", "one.txt"]


def test_only_with_delete_a_mirror_removes_what_is_not_here(site: Yard, tree: Path) -> None:
    (site.root / "copy").mkdir()
    (site.root / "copy" / "theirs").write_text("theirs")
    assert main(["put", "-q", "--mirror", "tree", f"{site.url}/copy"]) == 0
    assert there(site, "copy") == ["deep", "one.txt", "theirs"]
    assert main(["put", "-q", "--mirror", "--delete", "tree", f"{site.url}/copy"]) == 0
    assert there(site, "copy") == ["deep", "one.txt"]


def test_a_tree_needs_the_folders_above_it(site: Yard, tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["put", "--mirror", "tree", f"{site.url}/a/b/copy"]) == 1
    err = capfd.readouterr().err
    assert err.startswith(f"asyncnet put: {site.url}/a/b/copy: MKD a/b/copy: the server says 550 ")
    assert "; --mkdir makes folders that are missing\n" in err


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["other.txt", "file.bin"], "files are put to ftp://, ftps:// or ftpes://, the last argument"),
        (["other.txt", "https://anna:hunter2@a/"], "https://a/: files are put to"),
        (["none", "ftp://a/"], "none: there is no such file"),
        ([".", "ftp://a/"], ". is a folder: --mirror puts all that is in it"),
        (["--mirror", "other.txt", "ftp://a/"], "other.txt is no folder: leave out --mirror"),
        (["--mirror", "-C", ".", "ftp://a/"], "--continue does nothing with --mirror"),
        (["--delete", "other.txt", "ftp://a/"], "--delete goes with --mirror"),
        (["-", "ftp://a/x/"], "the URL names the file that standard input becomes"),
        (["-", "ftp://a"], "the URL names the file that standard input becomes"),
        (["-C", "-", "ftp://a/x"], "standard input can be put but once"),
        (["-", "other.txt", "ftp://a/x/"], "standard input is put by itself"),
        (["other.txt", "file.bin", "ftp://a/x"], "a folder's URL ends with a slash"),
        (["other.txt", "./other.txt", "ftp://a/x/"], "two of the files would be put as ftp://a/x/other.txt"),
        (["other.txt", "ftp://a/x y"], "a blank is %20"),
        (["other.txt", "ftp://a/x%0a"], "cannot be sent"),
        (["other.txt", "ftp://a/x;type=a"], "files are put as they are: leave out ;type=a"),
        (["--proxy", "x://y", "other.txt", "ftp://a/"], "a proxy begins with"),
        (["--ca", "/nonexistent", "other.txt", "ftpes://a/"], "does not load"),
    ],
)
def test_wrong_options_end_with_status_2_and_one_clear_message(
    site: Yard, arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["put", *arguments]) == 2
    err = capfd.readouterr().err
    assert says in err
    assert "hunter2" not in err
    assert "Traceback" not in err


def test_a_name_with_a_line_end_needs_another_one(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    Path("two\nlines").write_text("x")
    assert main(["put", "two\nlines", f"{site.url}/"]) == 2
    assert "FTP cannot send a line end" in capfd.readouterr().err
    assert main(["put", "two\nlines", f"{site.url}/lines"]) == 0
    assert there(site) == ["lines"]


def test_a_server_that_is_not_there_is_told(site: Yard, tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words in (["other.txt"], ["--mirror", "tree"], ["--mkdir", "--mirror", "tree"]):
        assert main(["put", *words, "ftp://127.0.0.1:1/a/"]) == 1
        assert "cannot connect to 127.0.0.1:1" in capfd.readouterr().err


def test_a_server_that_takes_no_file_is_told(site: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    with liar(PASV="421 Enough") as (url, _):
        assert main(["put", "other.txt", f"{url}/"]) == 1
    assert "the server says 421 Enough" in capfd.readouterr().err


def test_options_that_cannot_be_read_are_a_usage_error() -> None:
    for arguments in ([], ["x"], ["--jobs", "0", "x", "ftp://a/"]):
        assert run("put", *arguments).returncode == 2


def test_a_terminal_shows_progress(site: Yard) -> None:
    with terminal() as (inner, finish):
        command = [*COMMAND, "put", "file.bin", f"{site.url}/"]
        done = subprocess.run(command, env=environment(TERM="xterm"), stderr=inner, timeout=DEADLINE, check=False)
        shown = finish().decode()
    assert done.returncode == 0
    assert "━" in shown
    assert f"file.bin: {len(LARGE)} bytes" in shown
