"""Requests for one small answer over 64 kept-alive connections, by wrk: how many a second a server answers.

Before it is measured, one answer is compared, so that all servers do the same work.
"""

from __future__ import annotations

import http.client
import resource
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from benchmarks import echo
from benchmarks.harness import (
    BenchmarkError,
    Candidate,
    Column,
    Sample,
    Server,
    Settings,
    measured_by,
    server,
)

HELLO = b"Hello, world!"
WARMUP = 1
TIMEOUT = 30.0
"""Seconds that the first answer may take."""

COLUMNS = (Column("rate", "requests/s"), *echo.COLUMNS[1:])


def measure(
    settings: Settings,
    *,
    module: str,
    arguments: tuple[str, ...] = (),
    tls: bool = False,
    path: str = "/",
    expected: bytes = HELLO,
) -> Sample:
    """Starts the server, compares an answer, and returns what wrk and the clocks saw."""
    if tls:
        arguments = (*arguments, "--certificate", str(echo.certificate(settings.scratch)))
    with server(settings, module, *arguments) as target:
        compare(target, path, expected, tls=tls)
        address = f"{'https' if tls else 'http'}://127.0.0.1:{target.port}{path}"
        wrk(settings, address, WARMUP)
        return observe(settings, target, address)


def compare(target: Server, path: str, expected: bytes, *, tls: bool = False) -> None:
    """Asks once; BenchmarkError unless the answer is a 200 with this body."""
    with connection_to(target, tls=tls) as client:
        client.request("GET", path)
        response = client.getresponse()
        status, body = response.status, response.read()
    if status != 200 or body != expected:
        raise BenchmarkError(f"GET {path} was answered by {status} and {body[:80]!r}")


@contextmanager
def connection_to(target: Server, *, tls: bool = False) -> Iterator[http.client.HTTPConnection]:
    """A client of the standard library, for what is not timed; BenchmarkError where the answer is no HTTP."""
    client = http.client.HTTPConnection("127.0.0.1", target.port, timeout=TIMEOUT)
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client = http.client.HTTPSConnection("127.0.0.1", target.port, timeout=TIMEOUT, context=context)
    try:
        with closing(client):
            yield client
    except http.client.HTTPException as error:
        raise BenchmarkError(f"no answer: {error!r}") from error


def observe(settings: Settings, target: Server, address: str) -> Sample:
    """One timed run of wrk, with the processor time of both sides."""
    began, busy, own = time.monotonic(), target.processor_seconds(), children_seconds()
    found = wrk(settings, address, settings.seconds)
    passed, busy, own = time.monotonic() - began, target.processor_seconds() - busy, children_seconds() - own
    if found["errors"] or not found["requests"]:
        raise BenchmarkError(f"{found['errors']:.0f} of {found['requests']:.0f} requests failed")
    return {
        "rate": found["requests"] / found["seconds"],
        "p50": found["p50"],
        "p99": found["p99"],
        "cost": 1e6 * busy / found["requests"],
        "server_busy": busy / passed,
        "load_busy": own / passed,
    }


def wrk(settings: Settings, address: str, seconds: int) -> Sample:
    """What wrk.lua prints about `seconds` of requests from one thread on the loads' core."""
    script = Path(__file__).with_name("wrk.lua")
    command = ["wrk", "-t1", f"-c{echo.CONNECTIONS}", f"-d{seconds}s", "-s", str(script), address]
    return measured_by(command, settings.load_core, seconds)


def children_seconds() -> float:
    """The processor time of children that have ended: wrk's, since servers still run."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def candidate(
    name: str,
    module: str,
    *arguments: str,
    requires: tuple[str, ...] = (),
    programs: tuple[str, ...] = (),
    tls: bool = False,
) -> Candidate:
    """A server that says hello."""
    measuring = partial(measure, module=module, arguments=arguments, tls=tls)
    return Candidate(name, measuring, requires, ("wrk", *programs))
