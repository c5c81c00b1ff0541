"""Echo over TCP and over TLS: 64 connections, messages of 128 bytes, a closed loop."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.harness import (
    Benchmark,
    BenchmarkError,
    Candidate,
    Column,
    Sample,
    Settings,
    Target,
    load,
    ratio,
    server,
)

CONNECTIONS = 64
SIZE = 128
WARMUP = 1

COLUMNS = (
    Column("rate", "round trips/s"),
    Column("p50", "p50 µs"),
    Column("p99", "p99 µs"),
    Column("cost", "server's µs each", "{:.1f}"),
    Column("server_busy", "server busy", "{:.0%}"),
    Column("load_busy", "load busy", "{:.0%}"),
)


def measure(settings: Settings, *, module: str, arguments: tuple[str, ...] = (), dress: str = "") -> Sample:
    """Starts the server, and returns what the load saw of it. `dress` is "tls", "websocket", or nothing."""
    if dress == "tls":
        arguments = (*arguments, "--certificate", str(certificate(settings.scratch)))
    shape = (CONNECTIONS, SIZE, WARMUP, settings.seconds)
    with (
        server(settings, module, *arguments) as target,
        load(settings, "echo", target.port, target.pid, *shape, *filter(None, [dress])) as running,
    ):
        return running.result(WARMUP + settings.seconds)


def certificate(folder: Path) -> Path:
    """A PEM file with a key and a certificate for 127.0.0.1, made once a run."""
    path = folder / "certificate.pem"
    if not path.exists():
        try:
            import trustme
        except ImportError as error:
            raise BenchmarkError("no certificate: pip install trustme") from error
        trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


def over_tcp(name: str, module: str, *arguments: str, requires: tuple[str, ...] = ()) -> Candidate:
    return Candidate(name, partial(measure, module=module, arguments=arguments), requires)


def over_tls(name: str, module: str, *, requires: tuple[str, ...] = ()) -> Candidate:
    return Candidate(name, partial(measure, module=module, dress="tls"), requires)


ECHO = Benchmark(
    "echo",
    f"Echo over TCP, {CONNECTIONS} connections, {SIZE} bytes: more is better",
    COLUMNS,
    (
        over_tcp("asyncnet", "asyncnet_echo"),
        over_tcp("trio.serve_tcp", "trio_echo"),
        over_tcp("AnyIO on trio", "anyio_echo", "trio", requires=("anyio",)),
        over_tcp("AnyIO on asyncio", "anyio_echo", "asyncio", requires=("anyio",)),
        over_tcp("Twisted", "twisted_echo", requires=("twisted",)),
        over_tcp("asyncio streams", "asyncio_streams"),
        over_tcp("asyncio protocol", "asyncio_protocol"),
        over_tcp("uvloop streams", "uvloop_streams", requires=("uvloop",)),
    ),
    (
        Target("1.5 times trio.serve_tcp", ratio("rate", "trio.serve_tcp"), at_least=1.5),
        Target("more than AnyIO on trio", ratio("rate", "AnyIO on trio"), at_least=1.0),
        Target("more than AnyIO on asyncio", ratio("rate", "AnyIO on asyncio"), at_least=1.0),
        Target("more than Twisted", ratio("rate", "Twisted"), at_least=1.0),
        Target("past asyncio streams, or as near as it goes", ratio("rate", "asyncio streams"), at_least=1.0),
    ),
)

ECHO_TLS = Benchmark(
    "echo_tls",
    f"Echo over TLS, {CONNECTIONS} connections, {SIZE} bytes: more is better",
    COLUMNS,
    (
        over_tls("asyncnet", "asyncnet_echo"),
        over_tls("trio.serve_ssl_over_tcp", "trio_echo"),
        over_tls("asyncio streams", "asyncio_streams"),
        over_tls("uvloop streams", "uvloop_streams", requires=("uvloop",)),
    ),
    (Target("1.8 times trio.serve_ssl_over_tcp", ratio("rate", "trio.serve_ssl_over_tcp"), at_least=1.8),),
)
