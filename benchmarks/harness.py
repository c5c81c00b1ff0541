"""What every benchmark shares: the load program, servers as child processes, rounds, medians.

The server and the load each have a core of their own. Candidates take turns over several rounds, each time with a fresh
server and in the opposite order, so that a machine that slows down or speeds up does so for all of them. A candidate
that cannot be measured says why and stops nobody else.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
CHECKOUT = HERE.parent

START_TIMEOUT = 15.0
"""Seconds a server may take from its start to its ready line."""
LOAD_MARGIN = 60.0
"""Seconds a load may take beyond what it was asked to measure: connecting, handshakes, slow machines."""
SATURATED = 0.9
"""A server's share of its core, below which something other than the server was measured."""

DEBIAN_PACKAGES = {
    "wrk": "wrk",
    "nginx": "nginx-light",
    "vsftpd": "vsftpd",
    "smtp-sink": "postfix",
    "smtp-source": "postfix",
}
"""Which package brings a program."""

Sample = dict[str, float]
"""What one measurement found, by column."""


class BenchmarkError(Exception):
    """A measurement is not possible; the message is one line that says why, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run was asked for, and where it runs."""

    seconds: int
    server_core: int
    load_core: int
    load_program: Path
    scratch: Path
    """A temporary folder, removed at the end."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row of a table: something to measure, and what has to be installed for it."""

    name: str
    measure: Callable[[Settings], Sample]
    requires: tuple[str, ...] = ()
    """Modules."""
    programs: tuple[str, ...] = ()

    def missing(self) -> str:
        """What has to be installed first, in words; empty where nothing is missing."""
        if any(importlib.util.find_spec(module) is None for module in self.requires):
            return "not installed"
        packages = [DEBIAN_PACKAGES[program] for program in self.programs if shutil.which(program) is None]
        return f"not installed: apt-get install {' '.join(packages)}" if packages else ""


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a sample: its key there, its title in the table, how it is printed."""

    key: str
    title: str
    form: str = "{:,.0f}"


@dataclass(frozen=True, slots=True)
class Target:
    """What asyncnet has to reach: a value made from all medians, and a bound. Exactly one bound is given."""

    text: str
    value: Callable[[dict[str, Sample]], float]
    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A table: the first candidate is asyncnet, the first column is what the ratios compare."""

    name: str
    title: str
    columns: tuple[Column, ...]
    candidates: tuple[Candidate, ...]
    targets: tuple[Target, ...] = ()
    notes: str = ""


@dataclass(slots=True)
class Outcome:
    """What became of one candidate: its samples, or why there are none."""

    samples: list[Sample] = field(default_factory=list)
    trouble: str = ""
    failed: bool = False
    """Trouble that is more than a package that is not installed."""

    @property
    def medians(self) -> Sample:
        return {key: statistics.median(sample[key] for sample in self.samples) for key in self.samples[0]}


def ratio(column: str, peer: str, own: str = "asyncnet") -> Callable[[dict[str, Sample]], float]:
    """The value of a target that compares asyncnet's median with a peer's."""
    return lambda medians: medians[own][column] / medians[peer][column]


def figure(column: str, own: str = "asyncnet") -> Callable[[dict[str, Sample]], float]:
    """The value of a target that bounds a median of asyncnet's."""
    return lambda medians: medians[own][column]


def run(benchmark: Benchmark, settings: Settings, rounds: int) -> dict[str, Outcome]:
    """Measures every candidate in every round, and tells on standard error how far it is."""
    outcomes = {candidate.name: Outcome() for candidate in benchmark.candidates}
    for number in range(rounds):
        order = benchmark.candidates if number % 2 == 0 else benchmark.candidates[::-1]
        for candidate in order:
            outcome = outcomes[candidate.name]
            if outcome.trouble:
                continue
            print(f"{benchmark.name}: round {number + 1} of {rounds}, {candidate.name}", file=sys.stderr, flush=True)
            if missing := candidate.missing():
                outcome.trouble = missing
                continue
            try:
                outcome.samples.append(candidate.measure(settings))
            except (BenchmarkError, OSError) as error:
                outcome.trouble, outcome.failed = str(error).replace(f"{CHECKOUT}/", ""), True
    return outcomes


def build_load() -> Path:
    """Compiles load.c unless that was done since it last changed."""
    source, program = HERE / "load.c", HERE / "bin" / "load"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise BenchmarkError("no C compiler for load.c: apt-get install gcc libc6-dev, or set CC")
    program.parent.mkdir(exist_ok=True)
    command = [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source), "-lssl", "-lcrypto"]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode != 0:
        if "openssl/" in built.stderr or "-lssl" in built.stderr:
            raise BenchmarkError("no OpenSSL headers for load.c: apt-get install libssl-dev")
        raise BenchmarkError(f"load.c does not compile: {last_line(built.stderr)}")
    return program


def choose_cores() -> tuple[int, int]:
    """One core for servers and one for loads: the first two that this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("server and load need a core each, and this machine offers one")
    return cores[0], cores[1]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Children started inside run on this core from their first instruction."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def allow_descriptors(count: int) -> None:
    """Lets this process and the children it will start open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, hard)))
    except (ValueError, PermissionError) as error:
        raise BenchmarkError(f"{count} open files are needed and {hard} allowed: raise `ulimit -Hn`") from error


@dataclass(frozen=True, slots=True)
class Server:
    """A server that listens."""

    port: int
    pid: int

    def processor_seconds(self) -> float:
        """The processor time of the process and of those it has started, so far."""
        return processor_seconds(self.pid)

    def resident_bytes(self) -> int:
        """What the process holds in memory. The kernel's share of a connection is not in it."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        found = re.search(r"^Rss:\s+(\d+) kB$", rollup, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024


def processor_seconds(pid: int) -> float:
    """The processor time of a process and of those it has started, so far, as long as they live."""
    seconds = 0.0
    for each in descendants(pid):
        with suppress(OSError):  # it has just ended
            seconds += time.clock_gettime(~each << 3 | PROCESS_CLOCK)
    return seconds


PROCESS_CLOCK = 2
"""In the number of a process's clock: all of its threads (clock_getcpuclockid, as Linux makes it)."""


def descendants(pid: int) -> Iterator[int]:
    """The process, and those that it and they have started."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from descendants(int(child))


@contextmanager
def server(settings: Settings, module: str, *arguments: str, core: int | None = None) -> Iterator[Server]:
    """Runs `benchmarks.servers.MODULE`, on the servers' core unless another is given; it listens when this returns."""
    command = [sys.executable, "-m", f"benchmarks.servers.{module}", *arguments]
    with tempfile.TemporaryFile("w+") as stderr:
        with pinned(settings.server_core if core is None else core):
            process = subprocess.Popen(
                command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=stderr, text=True, process_group=0
            )
        with process:
            try:
                port = wait_for_port(process)
                if port is None:
                    raise BenchmarkError("the server did not say that it listens")
                yield Server(port, process.pid)
            except (BenchmarkError, OSError) as error:
                stderr.seek(0)
                said = last_line(stderr.read())
                raise BenchmarkError(f"{error}; the server said: {said}" if said else str(error)) from error
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with its workers


def wait_for_port(process: subprocess.Popen[str]) -> int | None:
    """The port in a server's ready line, once it listens there; None where it ends or takes too long."""
    assert process.stdout is not None
    deadline = time.monotonic() + START_TIMEOUT
    ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT)
    found = re.search(r":(\d+)$", process.stdout.readline().rstrip()) if ready else None
    while found and process.poll() is None and time.monotonic() < deadline:
        if listens(int(found[1])):
            return int(found[1])
        time.sleep(0.01)
    return None


def listens(port: int) -> bool:
    """Whether something listens on this port of 127.0.0.1, looked up without connecting."""
    address = int.from_bytes(bytes([127, 0, 0, 1]), sys.byteorder)
    return f" {address:08X}:{port:04X} 00000000:0000 0A " in Path("/proc/net/tcp").read_text()


@dataclass(frozen=True, slots=True)
class Load:
    """A running load program."""

    process: subprocess.Popen[str]

    def wait_until_open(self) -> None:
        """Waits for the line that says that all idle connections are open; BenchmarkError where they are not."""
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            self.result()

    def result(self, seconds: float = 0.0) -> Sample:
        """Tells the program to finish, and returns what it found; raises BenchmarkError where anything went wrong."""
        try:
            stdout, stderr = self.process.communicate("\n", timeout=seconds + LOAD_MARGIN)
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError("the load did not end in time") from error
        if self.process.returncode != 0:
            raise BenchmarkError(last_line(stderr) or f"the load ended with status {self.process.returncode}")
        sample: Sample = json.loads(last_line(stdout))
        if errors := sample.get("errors"):
            raise BenchmarkError(f"{errors} connections were lost, stalled or answered wrongly")
        return sample


@contextmanager
def load(settings: Settings, *arguments: object) -> Iterator[Load]:
    """Runs the load program on the loads' core; it is ended with the block."""
    command = [str(settings.load_program), *map(str, arguments)]
    with pinned(settings.load_core):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    with process:
        try:
            yield Load(process)
        finally:
            process.kill()


def measured_by(command: list[str], core: int, seconds: float, environment: dict[str, str] | None = None) -> Sample:
    """Runs a program on a core for about so long; the sample is its last line, in JSON."""
    try:
        with pinned(core):
            ended = subprocess.run(
                command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=seconds + LOAD_MARGIN
            )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{command[0]} did not end in time") from error
    if ended.returncode != 0:
        raise BenchmarkError(last_line(ended.stderr) or last_line(ended.stdout) or f"status {ended.returncode}")
    sample: Sample = json.loads(last_line(ended.stdout))
    return sample


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2].strip()


def settled_bytes(target: Server) -> int:
    """The resident memory of a server once it no longer changes."""
    before = -1
    for _ in range(20):
        time.sleep(0.25)
        now = target.resident_bytes()
        if now == before:
            break
        before = now
    return before
