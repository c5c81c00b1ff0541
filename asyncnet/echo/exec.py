"""ExecHandler: a program's standard input and output are the stream. inetd's job, and tcpserver's.

The program talks through pipes rather than to the socket itself, so that it is served over TLS and memory too.

Theory of operation
===================

The program leads a session and with it a process group of its own. The connection lasts until its output ends, that
is until nobody holds it any more, its children included; then the stream is ended, the program's exit is awaited, and
whatever is left of the group is killed. What could go wrong, and why it does not:

- *A number names another process by now.* A group keeps its leader's number for as long as the leader has not been
  reaped. So its end is awaited by a descriptor (pidfd) that reaps nothing, then the group gets SIGKILL, and last the
  leader is reaped. Where there are no such descriptors it is reaped a moment before.
- *A peer that vanishes.* Receiving or sending fails, and the program gets SIGTERM, as from a terminal that hung up,
  and SIGKILL when the grace period is over. Cancelling does the same, with hardly any grace.
- *A peer that only ended its side.* It is told to the program by the end of its input. Over TCP nobody can tell that
  from a peer that has gone altogether before something is sent to it: the service's idle timeout ends such a program.
- *A program that closes its input, or is slow.* Then nothing more is taken from the peer; TCP holds it back. The same
  holds for a peer that is slow to read.
- *Output that is still on its way when the program ends.* The close lingers, as unread input would make the kernel
  send a reset, which destroys it.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping

import trio

from asyncnet.errors import ConfigurationError
from asyncnet.printable import printable
from asyncnet.stream import Stream

logger = logging.getLogger("asyncnet.echo.exec")

INHERITED = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER")
"""What a program gets of the service's environment. Everything else may be a secret."""

GRACE = 5.0
"""How long a program has between SIGTERM and SIGKILL when its peer has vanished, in seconds."""
SHORT_GRACE = 0.5
"""The same when the connection was cancelled, by a drain's deadline for one: that has to be prompt."""
KILL_TIME = 5.0
"""How long the end of a killed process is awaited, in seconds: a dead disk can hold one."""

PIECE = 65536
"""How much is read from a program at once, in bytes: what a pipe holds."""
MAX_LOG_LINE = 1024
"""Where a line of stderr is cut in two, in bytes."""


class ExecHandler:
    """Runs `program` with `args` for each connection, its stdin and stdout on the stream.

    The end of the peer's side is the end of the program's stdin. When its stdout ends the stream does, after all of
    it was sent; over TLS, which has no half-close, when the program has ended too. The exit status goes to the log.
    Processes that it leaves behind in its group are killed. POSIX only.

    The environment of the program is `INHERITED`, then that of UCSPI: over TCP `PROTO=TCP`, `TCPREMOTEIP`,
    `TCPREMOTEPORT`, `TCPLOCALIP` and `TCPLOCALPORT`; over a Unix socket `PROTO=UNIX`, `UNIXLOCALPATH` and
    `UNIXREMOTEEUID`; under TLS also `SSL_PROTOCOL`, `SSL_CIPHER` and `SSL_TLS_SNI_SERVERNAME`. What is not known is
    not set. `env` comes on top of all that. Its folder is `cwd`, or the service's.

    `stderr` is None (to the log, line by line), `subprocess.DEVNULL`, or `subprocess.STDOUT` (to the peer, as inetd
    has it). `grace` in seconds is what the program has between SIGTERM and SIGKILL when the peer has vanished. A drain
    lets programs go on to its deadline.

    Raises `ConfigurationError` if the program or the folder is not there.
    """

    def __init__(
        self,
        program: str,
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stderr: int | None = None,
        grace: float = GRACE,
    ) -> None:
        found = shutil.which(program)
        if found is None:
            raise ConfigurationError(f"no program {program!r} that can be run was found")
        if cwd is not None and not os.path.isdir(cwd):
            raise ConfigurationError(f"not a folder: {os.fspath(cwd)}")
        if not hasattr(os, "killpg"):
            raise ConfigurationError("programs can be served on POSIX systems only")
        self.name = f"exec {os.path.basename(found)}"
        """What the log calls it."""
        self._command = (os.path.abspath(found), *args)
        self._env = dict(env or {})
        self._cwd = cwd
        self._stderr = subprocess.PIPE if stderr is None else stderr
        self._grace = grace

    async def __call__(self, stream: trio.abc.Stream) -> None:
        stream = Stream.of(stream)
        try:
            process = await trio.lowlevel.open_process(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=program_environment(stream) | self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        except OSError as exc:
            logger.error("%s for %s could not be started: %s", self.name, stream.peer, exc)
            await stream.abort()
            return
        whole = False
        try:
            await self._converse(stream, process)
            whole = True
        finally:
            await self._finish(stream, process, level=logging.WARNING if whole else logging.INFO)
        await stream.linger()

    async def _converse(self, stream: Stream, process: trio.Process) -> None:
        """Carry bytes both ways until the program has ended."""
        assert process.stdin is not None
        assert process.stdout is not None
        async with trio.open_nursery() as nursery:
            feeding: trio.CancelScope = await nursery.start(_feed, stream, process.stdin)
            if process.stderr is not None:
                nursery.start_soon(self._log_lines, stream, process.stderr)
            while data := await process.stdout.receive_some(PIECE):
                await stream.send_all(data)
            if stream.can_half_close:
                await stream.send_eof()
            await _wait_unreaped(process)
            feeding.cancel()
            _signal_group(process, signal.SIGKILL)
            # Now nobody is left who could write to stderr, unless somebody has left the group.
            nursery.cancel_scope.deadline = trio.current_time() + SHORT_GRACE

    async def _finish(self, stream: Stream, process: trio.Process, *, level: int) -> None:
        """Leave no process and no descriptor behind, whatever has happened; `level` is for the log of a failure."""
        is_cancelled = trio.current_effective_deadline() == -math.inf
        with trio.CancelScope(shield=True) as scope:
            scope.deadline = trio.current_time() + (SHORT_GRACE if is_cancelled else self._grace)
            _signal_group(process, signal.SIGTERM)
            await _wait_unreaped(process)
        _signal_group(process, signal.SIGKILL)
        with trio.CancelScope(shield=True) as scope:
            scope.deadline = trio.current_time() + KILL_TIME
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    await pipe.aclose()
            status = await process.wait()
            logger.log(level if status else logging.INFO, "%s for %s %s", self.name, stream.peer, _ending(status))
        if scope.cancelled_caught:
            logger.error("%s for %s does not end: process %d", self.name, stream.peer, process.pid)

    async def _log_lines(self, stream: Stream, pipe: trio.abc.ReceiveStream) -> None:
        """Log what the program says on stderr, a record a line."""
        rest = b""
        while data := await pipe.receive_some(PIECE):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) >= MAX_LOG_LINE:
                lines.append(rest)
                rest = b""
            for line in lines:
                self._log_line(stream, line)
        self._log_line(stream, rest)

    def _log_line(self, stream: Stream, line: bytes) -> None:
        for start in range(0, len(line), MAX_LOG_LINE):
            logger.warning("%s for %s: %s", self.name, stream.peer, _text(line[start : start + MAX_LOG_LINE]))


async def _feed(
    stream: Stream, pipe: trio.abc.SendStream, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    """Carry what the peer sends to the program, and the end of it too; `task_status` gets what stops it."""
    with trio.CancelScope() as scope:
        task_status.started(scope)
        while data := await stream.receive_some():
            try:
                await pipe.send_all(data)
            except trio.BrokenResourceError:
                return  # the program wants no more
        await pipe.aclose()


async def _wait_unreaped(process: trio.Process) -> None:
    """Wait until the process has ended, and leave it a zombie, where the system can do that."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux, or an old one
        await process.wait()
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _signal_group(process: trio.Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # nobody is left, or only somebody who has become another user


def program_environment(stream: Stream) -> dict[str, str]:
    """What a program is told: see `ExecHandler`."""
    local, peer, tls = stream.local, stream.peer, stream.tls
    values: dict[str, str | int | None] = {name: os.environ.get(name) for name in INHERITED}
    if peer.host is not None:
        values |= {"PROTO": "TCP", "TCPREMOTEIP": peer.host, "TCPREMOTEPORT": peer.port}
        values |= {"TCPLOCALIP": local.host, "TCPLOCALPORT": local.port}
    elif peer.is_unix:
        values |= {"PROTO": "UNIX", "UNIXLOCALPATH": local.path, "UNIXREMOTEEUID": peer.uid}
    if tls is not None:
        values |= {"SSL_PROTOCOL": tls.version, "SSL_CIPHER": tls.cipher, "SSL_TLS_SNI_SERVERNAME": tls.server_name}
    return {name: str(value) for name, value in values.items() if value is not None and value != ""}


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    return f"was ended by signal {-status} ({signal.strsignal(-status)})"


def _text(line: bytes) -> str:
    return printable(line.removesuffix(b"\r").decode("utf-8", "backslashreplace"))
