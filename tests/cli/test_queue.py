from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from asyncnet.cli import main
from asyncnet.relay.messages import Outcome, State
from asyncnet.relay.queue import Queue, open_queue
from asyncnet.replies import Reply
from asyncnet.smtp.envelope import Envelope
from tests.cli.command import COMMAND, DEADLINE, environment
from tests.cli.command import run as run_process
from tests.relay.use import CLIENT, Clock, content, put, to

EVIL = Reply.of(550, "5.1.1 \x1b[2Jno", "5.1.1 such\u202euser")


@pytest.fixture
def spool(tmp_path: Path) -> tuple[str, str, str]:
    """The folder of a queue, and the ids of two messages in it, the first of which was tried once."""

    async def fill() -> list[str]:
        async with open_queue(tmp_path, clock=Clock()) as queue:
            ids = [
                await put(queue, b"x" * 5, to("a@x.example", "b@x.example")),
                await put(queue, b"x" * 70_000, to("c@y.example"), Envelope(None)),
            ]
            [claim, _] = await queue.claim(10)
            outcomes = [Outcome(0, State.FAILED, EVIL, "mx\x1b.example"), Outcome(1, State.PENDING, EVIL)]
            await queue.record(claim, outcomes)
            return ids

    return (str(tmp_path), *trio.run(fill))


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command; exit status, standard output and error."""

    def run_it(*arguments: str) -> tuple[int, str, str]:
        status = main(["queue", *arguments])
        return (status, *capfd.readouterr())

    return run_it


def in_queue(spool: str, work: Callable[[Queue], object]) -> object:
    async def open_it() -> object:
        async with open_queue(spool) as queue:
            return await work(queue)  # type: ignore[misc]

    return trio.run(open_it)


def test_list_tells_of_each_message_in_a_line(run, spool: tuple[str, str, str]) -> None:
    folder, first, second = spool
    status, out, err = run("list", "--spool", folder)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert re.fullmatch(
        rf'{first} +5 2023-11-14 22:13:20 "ann a"@example.org -> b@x.example; next 2023-11-14 22:1\d:\d\d', lines[0]
    )
    assert lines[1] == f"{second}      70000 2023-11-14 22:13:20 <> -> c@y.example; next 2023-11-14 22:13:20"
    assert len(lines) == 2


def test_list_can_be_limited_to_a_number_and_to_a_destination(run, spool: tuple[str, str, str]) -> None:
    folder, first, second = spool
    assert [line.split()[0] for line in run("list", "--spool", folder, "--limit", "1")[1].splitlines()] == [first]
    assert [line.split()[0] for line in run("list", "--spool", folder, "--to", "y.example")[1].splitlines()] == [second]
    assert run("list", "--spool", folder, "--to", "z.example") == (0, "", "")


def test_json_has_everything_as_it_is(run, spool: tuple[str, str, str]) -> None:
    folder, first, second = spool
    told = [json.loads(line) for line in run("list", "--spool", folder, "--json")[1].splitlines()]
    assert [one["id"] for one in told] == [first, second]
    assert told[1]["sender"] is None
    assert told[0]["client"] == {
        "address": str(CLIENT.peer),
        "name": CLIENT.name,
        "protocol": "ESMTPSA",
        "user": "anna",
    }
    failed, pending = told[0]["recipients"]
    assert (failed["address"], failed["state"], failed["remote"]) == ("a@x.example", "failed", "mx\x1b.example")
    assert (pending["state"], pending["attempts"], pending["reply"]) == ("pending", 1, str(EVIL))
    assert pending["next_attempt"] > pending["last_attempt"]


def test_show_tells_all_and_drives_no_terminal(run, spool: tuple[str, str, str]) -> None:
    folder, first, second = spool
    status, out, _ = run("show", "--spool", folder, first, second)
    assert status == 0
    assert out.isascii()
    assert "\x1b" not in out
    for text in (
        f"{first}: in the queue",
        "a@x.example: failed, 1 attempt\n           by x.example\n",
        r"mx\x1b.example said: 550 5.1.1 \x1b[2Jno / 5.1.1 such\u202euser",
        "ENVID    QQ\\ud800314159",
        "as anna by ESMTPSA",
        f"{second}: in the queue",
    ):
        assert text in out


def test_messages_can_be_held_released_retried_and_removed(run, spool: tuple[str, str, str]) -> None:
    folder, first, second = spool
    assert run("hold", "--spool", folder, first, second) == (0, "2 messages held\n", "")
    assert [line.rpartition("; ")[2] for line in run("list", "--spool", folder)[1].splitlines()] == ["held", "held"]
    assert run("release", "--spool", folder, "--to", "y.example") == (0, "1 message released\n", "")
    assert run("release", "--spool", folder, "--all")[0] == 0
    assert run("retry", "--spool", folder, first) == (0, "1 message to be tried now\n", "")
    assert [line.rpartition("; ")[2] for line in run("list", "--spool", folder)[1].splitlines()] == ["next now"] * 2
    assert run("remove", "--spool", folder, second) == (0, "1 message removed\n", "")
    assert [line.split()[0] for line in run("list", "--spool", folder)[1].splitlines()] == [first]
    assert list(Path(folder, "content").iterdir()) == []


def test_what_waits_for_a_named_host_is_found_by_its_domain_and_by_that_host(run, tmp_path: Path) -> None:
    folder, host = str(tmp_path), "smtp://relay@smart.example:587"

    async def fill() -> str:
        async with open_queue(folder, destination_of=lambda address: host) as queue:
            await put(queue, b"x", to("a@x.example"))
            return await put(queue, b"x", to("b@y.example", "c@Z.example"))

    id = trio.run(fill)
    assert f"by {host}\n" in run("show", "--spool", folder, id)[1]
    for name in ("y.example", "z.example"):
        assert [line.split()[0] for line in run("list", "--spool", folder, "--to", name)[1].splitlines()] == [id]
    assert run("retry", "--spool", folder, "--to", host) == (0, "2 messages to be tried now\n", "")
    assert run("retry", "--spool", folder, "--to", "other.example") == (0, "0 messages to be tried now\n", "")


def test_what_is_held_is_not_said_to_be_tried(run, spool: tuple[str, str, str]) -> None:
    folder, first, second = spool
    run("hold", "--spool", folder, first)
    status, out, err = run("retry", "--spool", folder, first, second)
    assert (status, out) == (1, "1 message to be tried now\n")
    assert err == f"asyncnet queue: {first}: held: release it, and it is tried\n"
    assert run("retry", "--spool", folder, "--all") == (0, "1 message to be tried now\n", "")
    assert run("release", "--spool", folder, first, second) == (0, "1 message released\n", "")


def test_what_is_damaged_is_shown(run, spool: tuple[str, str, str]) -> None:
    folder, _, second = spool
    Path(folder, "content", second).unlink()

    async def read(queue: Queue) -> None:
        with pytest.raises(Exception, match="missing"):
            for claim in await queue.claim(10):
                await content(queue, claim)

    in_queue(folder, read)
    assert run("list", "--spool", folder)[1].splitlines()[1].endswith("; set aside: its content file is missing")


@pytest.mark.parametrize("action", ["show", "retry", "hold", "release", "remove"])
def test_a_message_that_is_not_there_is_exit_status_1(run, spool: tuple[str, str, str], action: str) -> None:
    folder, first, _ = spool
    status, out, err = run(action, "--spool", folder, "ABC", first)
    assert status == 1
    assert out
    assert err == "asyncnet queue: ABC: no such message\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["show"], "which messages?"),
        (["remove"], "which messages?"),
        (["remove", "--all", "ABC"], "which messages?"),
        (["hold", "--to", "x.example", "--all"], "which messages?"),
        (["retry", "../x"], "a message's id is up to 15 hexadecimal digits"),
    ],
)
def test_what_is_not_clear_is_exit_status_2(
    run, spool: tuple[str, str, str], arguments: list[str], problem: str
) -> None:
    status, out, err = run(*arguments, "--spool", spool[0])
    assert (status, out) == (2, "")
    assert err.startswith(f"asyncnet queue: {problem}")
    assert len(run("list", "--spool", spool[0])[1].splitlines()) == 2


def test_where_no_queue_is_the_user_is_told(run, tmp_path: Path) -> None:
    status, out, err = run("list", "--spool", str(tmp_path))
    assert (status, out) == (2, "")
    assert err == f"asyncnet queue: {tmp_path}/queue.db: no such file: no queue has been there\n"


def test_whoever_may_not_read_a_queue_is_told_so(
    run, spool: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, as tests may be, is allowed everything
    status, out, err = run("list", "--spool", spool[0])
    assert (status, out) == (2, "")
    assert err == (
        f"asyncnet queue: {spool[0]}/queue.db: Permission denied: a queue is for the user that its relay runs as\n"
    )


@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [
        (">/dev/full", 1, "asyncnet queue: standard output: No space left on device\n"),
        (">&-", 2, "asyncnet queue: standard output is closed\n"),
        ("2>&-", 0, ""),
        ("| true", 0, ""),
    ],
)
def test_standard_streams_that_are_closed_or_full(
    spool: tuple[str, str, str], redirection: str, status: int, said: str
) -> None:
    command = f"{' '.join(COMMAND)} queue list --spool {spool[0]} {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (status, said)


def test_the_command_works_while_a_relay_is_at_work(spool: tuple[str, str, str]) -> None:
    folder, first, second = spool

    async def hold(queue: Queue) -> list[str]:
        done = await trio.to_thread.run_sync(run_process, "queue", "hold", "--spool", folder, second)
        assert (done.returncode, done.stdout, done.stderr) == (0, "1 message held\n", "")
        return [claim.message.id for claim in await queue.claim(10)]

    assert in_queue(folder, hold) == [first]


def test_help_needs_no_database(tmp_path: Path) -> None:
    done = run_process("queue", "remove", "--help")
    assert done.returncode == 0
    assert "nobody is told" in done.stdout
