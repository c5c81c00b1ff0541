"""A program on a stream, with real programs: what its peer sees, and that nothing of it stays behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from asyncnet import ConfigurationError, Service, Timeouts, connect, serve
from asyncnet.echo.exec import MAX_LOG_LINE, ExecHandler
from asyncnet.stream import Stream
from asyncnet.testing import run_handler

ENDPOINT = "tcp://127.0.0.1:0"


@pytest.fixture(autouse=True)
def nothing_stays_behind(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No child, dead or alive, and no descriptor is left by a test."""
    caplog.set_level(logging.INFO)
    before = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    after = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
    assert len(after) <= len(before)


@asynccontextmanager
async def serving(handler: ExecHandler, endpoint: str = ENDPOINT, *, drain: float = 10) -> AsyncIterator[Service]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(serve, handler, endpoint, timeouts=Timeouts(drain=drain)))
        nursery.cancel_scope.cancel()


async def receive_all(stream: Stream) -> bytes:
    return b"".join([data async for data in stream])


async def output_of(handler: ExecHandler, sent: bytes = b"") -> bytes:
    """What a peer gets that sends `sent` and ends its side."""
    async with run_handler(handler, timeout=20) as peer:
        await peer.send(sent)
        await peer.send_eof()
        return await receive_all(peer.stream)


def sh(script: str, **options) -> ExecHandler:
    return ExecHandler("sh", "-c", script, **options)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent does not."""
    try:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, timeout=10).stdout
    except subprocess.TimeoutExpired:
        return True
    return bool(state.strip()) and not state.startswith(b"Z")


async def wait_until_dead(pid: int) -> None:
    """By its end, not by the clock: a deadline only bounds it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with trio.fail_after(20):
            await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def test_stdin_and_stdout_are_the_stream() -> None:
    assert await output_of(ExecHandler("tr", "a-z", "A-Z"), b"hello\n") == b"HELLO\n"


async def test_the_end_of_stdout_ends_the_stream_after_all_of_it() -> None:
    assert await output_of(ExecHandler("head", "-c", "3000000", "/dev/zero")) == bytes(3_000_000)


async def test_much_goes_both_ways_at_once() -> None:
    data = os.urandom(3_000_000)
    async with serving(ExecHandler("cat")) as service, await connect(service.endpoints[0]) as peer:

        async def send() -> None:
            await peer.send_all(data)
            await peer.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert await receive_all(peer) == data


async def test_a_conversation_goes_to_and_fro() -> None:
    async with serving(sh("while read x; do echo got $x; done")) as service:
        async with await connect(service.endpoints[0]) as peer:
            for word in (b"one", b"two"):
                await peer.send_all(word + b"\n")
                assert await peer.receive_until(b"\n", limit=100) == b"got " + word + b"\n"


async def test_it_works_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    endpoint = f"tls://127.0.0.1:0?cert={tmp_path / 'server.pem'}"
    async with serving(sh("read x; echo $x $PROTO $SSL_PROTOCOL $SSL_TLS_SNI_SERVERNAME"), endpoint) as service:
        place = service.endpoints[0].partition("?")[0]
        async with await connect(f"{place}?ca={tmp_path / 'ca.pem'}&server_name=localhost") as peer:
            await peer.send_all(b"hello\n")
            assert await receive_all(peer) == b"hello TCP TLSv1.3 localhost\n"


async def test_input_that_the_program_does_not_take_destroys_no_output() -> None:
    async with serving(ExecHandler("echo", "bye")) as service, await connect(service.endpoints[0]) as peer:
        await peer.send_all(b"x" * 100_000)
        assert await receive_all(peer) == b"bye\n"


async def test_a_program_that_does_not_read_holds_its_peer_back() -> None:
    size = 50_000_000
    async with serving(ExecHandler("sleep", "1000")) as service:
        async with await connect(service.endpoints[0]) as peer:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(peer.send_all, bytes(size))
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    assert peer.bytes_out < size
                    scope.cancel()


async def test_a_peer_that_does_not_read_holds_the_program_back(tmp_path: Path) -> None:
    async with run_handler(sh(f"head -c 10000000 /dev/zero; touch {tmp_path / 'done'}"), timeout=20) as peer:
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not (tmp_path / "done").exists()
        assert len(await receive_all(peer.stream)) == 10_000_000
    assert (tmp_path / "done").exists()


async def test_a_program_that_closes_its_output_may_go_on_reading(tmp_path: Path) -> None:
    async with serving(sh(f"echo enough; exec >&-; cat > {tmp_path / 'rest'}")) as service:
        async with await connect(service.endpoints[0]) as peer:
            assert await receive_all(peer) == b"enough\n"
            await peer.send_all(b"the rest")
            await peer.send_eof()
            await service.drain()
            assert service.counters.failed == 0
    assert (tmp_path / "rest").read_bytes() == b"the rest"


async def test_the_exit_status_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    await output_of(sh("exit 0"))
    await output_of(sh("exit 3"))
    await output_of(sh("kill -SEGV $$"))
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "exec sh for memory ended with status 0"),
        ("WARNING", "exec sh for memory ended with status 3"),
        ("WARNING", "exec sh for memory was ended by signal 11 (Segmentation fault)"),
    ]


async def test_stderr_goes_to_the_log_line_by_line_and_never_to_the_peer(caplog: pytest.LogCaptureFixture) -> None:
    script = r"printf 'one\r\ntwo \033[2J \377\n\nlast' >&2; echo out"
    assert await output_of(sh(script)) == b"out\n"
    lines = [record.message.removeprefix("exec sh for memory: ") for record in caplog.records][:-1]
    assert lines == ["one", r"two \x1b[2J \xff", "last"]


async def test_a_line_of_stderr_without_an_end_fills_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    await output_of(sh("head -c 300000 /dev/zero | tr '\\0' x >&2"))
    lines = [record.message.removeprefix("exec sh for memory: ") for record in caplog.records][:-1]
    assert "".join(lines) == "x" * 300_000
    assert max(map(len, lines)) == MAX_LOG_LINE


async def test_stderr_can_go_to_the_peer_or_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    assert await output_of(sh("echo oops >&2", stderr=subprocess.STDOUT)) == b"oops\n"
    assert await output_of(sh("echo oops >&2", stderr=subprocess.DEVNULL)) == b""
    assert "oops" not in caplog.text


async def test_a_program_is_told_who_its_peer_is_as_by_tcpserver() -> None:
    async with serving(ExecHandler("env")) as service, await connect(service.endpoints[0]) as peer:
        port = peer.local.port
        lines = (await receive_all(peer)).decode().splitlines()
    told = {line for line in lines if line.startswith(("PROTO", "TCP"))}
    assert told == {
        "PROTO=TCP",
        "TCPREMOTEIP=127.0.0.1",
        f"TCPREMOTEPORT={port}",
        "TCPLOCALIP=127.0.0.1",
        f"TCPLOCALPORT={service.endpoints[0].rpartition(':')[2]}",
    }


async def test_over_a_unix_socket_it_is_told_the_user(tmp_path: Path) -> None:
    async with serving(ExecHandler("env"), f"unix:{tmp_path / 'socket'}") as service:
        async with await connect(service.endpoints[0]) as peer:
            lines = (await receive_all(peer)).decode().splitlines()
    told = {line for line in lines if line.startswith(("PROTO", "UNIX"))}
    assert told == {"PROTO=UNIX", f"UNIXLOCALPATH={tmp_path / 'socket'}", f"UNIXREMOTEEUID={os.geteuid()}"}


async def test_the_services_secrets_stay_with_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "secret")
    monkeypatch.setenv("TCPREMOTEIP", "192.0.2.1")
    monkeypatch.setenv("LANG", "C.UTF-8")
    lines = (await output_of(ExecHandler("env", env={"GREETING": "hello", "TZ": "UTC"}))).decode().splitlines()
    assert {"GREETING=hello", "TZ=UTC", "LANG=C.UTF-8"} <= set(lines)
    assert not [line for line in lines if line.startswith(("API_TOKEN", "TCP"))]


async def test_it_runs_in_the_folder_that_was_given(tmp_path: Path) -> None:
    assert await output_of(ExecHandler("pwd", cwd=tmp_path)) == os.fsencode(tmp_path.resolve()) + b"\n"


async def test_a_program_gets_no_descriptor_but_its_three(tmp_path: Path) -> None:
    with open(tmp_path / "open", "w"):
        shown = await output_of(ExecHandler(sys.executable, "-c", "import os; print(os.listdir('/proc/self/fd'))"))
    assert sorted(eval(shown))[:4] == ["0", "1", "2", "3"]  # 3 is the folder that is listed
    assert len(eval(shown)) == 4


async def test_a_peer_that_vanishes_ends_the_program_by_sigterm(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(sh("trap 'echo terminated >&2; exit 7' TERM; echo $$; while :; do sleep 0.01; done")) as service:
        peer = await connect(service.endpoints[0])
        pid = int(await peer.receive_until(b"\n", limit=100))
        await peer.abort()
        await wait_until_dead(pid)
        while service.open:
            await trio.lowlevel.checkpoint()
    assert "ended with status 7" in caplog.text


async def test_a_program_that_ignores_sigterm_is_killed_with_all_its_children(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = "trap '' TERM; sleep 1000 & echo $$ $!; sleep 1000"
    async with serving(sh(script, grace=0.01)) as service:
        peer = await connect(service.endpoints[0])
        pids = [int(word) for word in (await peer.receive_until(b"\n", limit=100)).split()]
        await peer.abort()
        for pid in pids:
            await wait_until_dead(pid)
        while service.open:
            await trio.lowlevel.checkpoint()
    assert "was ended by signal 9 (Killed)" in caplog.text


async def test_what_a_program_leaves_running_in_its_group_ends_with_it() -> None:
    shown = await output_of(sh("sleep 1000 > /dev/null 2>&1 & echo $!"))
    await wait_until_dead(int(shown))


async def test_cancelling_ends_the_program_at_once() -> None:
    async with serving(sh("trap '' TERM; echo $$; while :; do sleep 1000; done", grace=1000)) as service:
        peer = await connect(service.endpoints[0])
        pid = int(await peer.receive_until(b"\n", limit=100))
    await peer.aclose()
    assert not is_alive(pid)


async def test_a_drain_lets_a_program_finish() -> None:
    async with serving(sh("read x; echo $x")) as service, await connect(service.endpoints[0]) as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.drain)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_all(b"finished\n")
            assert await receive_all(peer) == b"finished\n"
            await peer.aclose()


async def test_the_deadline_of_a_drain_ends_a_program() -> None:
    async with serving(sh("echo $$; exec sleep 1000"), drain=0.01) as service:
        peer = await connect(service.endpoints[0])
        pid = int(await peer.receive_until(b"\n", limit=100))
        await service.drain()
        assert not is_alive(pid)
        with pytest.raises(trio.BrokenResourceError):
            await peer.receive_some()
        await peer.aclose()


def test_a_program_that_is_not_there_is_found_before_anybody_connects(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no program 'no-such-program'"):
        ExecHandler("no-such-program")
    with pytest.raises(ConfigurationError, match="not a folder"):
        ExecHandler("cat", cwd=tmp_path / "none")
    (tmp_path / "script").write_text("#!/bin/sh\n")
    with pytest.raises(ConfigurationError, match="no program"):
        ExecHandler(str(tmp_path / "script"))


async def test_a_program_that_vanishes_later_is_logged_and_its_peers_see_a_reset(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho hello\n")
    script.chmod(0o755)
    handler = ExecHandler(str(script))
    assert await output_of(handler) == b"hello\n"
    script.unlink()
    async with run_handler(handler) as peer:
        await peer.expect_reset()
    assert "exec script for memory could not be started: [Errno 2]" in caplog.text


async def test_signals_that_python_ignores_do_their_work_in_the_program() -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    assert await output_of(sh("yes | head -n 1; kill -PIPE $$; echo unreachable")) == b"y\n"
