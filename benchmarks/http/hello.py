"""Hello over HTTP and over HTTPS: an application that answers 13 bytes, 64 connections."""

from __future__ import annotations

from benchmarks.echo import CONNECTIONS
from benchmarks.harness import Benchmark, Candidate, Sample, Settings, Target, ratio
from benchmarks.http.requests import COLUMNS, candidate, measure


def nginx(settings: Settings) -> Sample:
    scratch = str(settings.scratch)
    return measure(settings, module="nginx", arguments=(scratch, scratch))


UVICORN = ("uvicorn", "uvloop")

ASGI = Benchmark(
    "http_asgi",
    f"Hello over HTTP/1.1 from an ASGI application, {CONNECTIONS} connections: more is better",
    COLUMNS,
    (
        candidate("asyncnet", "asyncnet_asgi", "hello", "default"),
        candidate("asyncnet on h11", "asyncnet_asgi", "hello", "h11"),
        candidate("asyncnet, native handler", "asyncnet_native", "hello"),
        candidate(
            "uvicorn on httptools", "uvicorn_asgi", "hello", "httptools", "auto", requires=(*UVICORN, "httptools")
        ),
        candidate("uvicorn on zttp", "uvicorn_asgi", "hello", "zttp", "auto", requires=(*UVICORN, "zttp")),
        candidate("uvicorn on h11", "uvicorn_asgi", "hello", "h11", "auto", requires=(*UVICORN, "h11")),
        candidate("Hypercorn on trio", "hypercorn_trio", "hello", requires=("hypercorn",)),
        candidate("Granian", "granian_asgi", "hello", requires=("granian",)),
        candidate("aiohttp, its own handler", "aiohttp_hello", requires=("aiohttp",)),
        Candidate("nginx, return 200", nginx, programs=("wrk", "nginx")),
    ),
    (
        Target("1.25 times uvicorn on httptools (the aim: 1.4)", ratio("rate", "uvicorn on httptools"), at_least=1.25),
        Target("ahead of uvicorn on zttp", ratio("rate", "uvicorn on zttp"), at_least=1.0),
        Target("20 times Hypercorn on trio", ratio("rate", "Hypercorn on trio"), at_least=20),
        Target("the native handler faster still", ratio("rate", "asyncnet", "asyncnet, native handler"), at_least=1.0),
        Target("on h11 as fast as uvicorn on h11", ratio("rate", "uvicorn on h11", "asyncnet on h11"), at_least=1.0),
    ),
    "uvicorn runs on uvloop in all its rows. aiohttp's row has no ASGI in it; nginx is there for orientation.",
)

TLS = Benchmark(
    "http_tls",
    f"Hello over HTTPS (TLS 1.3) from an ASGI application, {CONNECTIONS} connections: more is better",
    COLUMNS,
    (
        candidate("asyncnet", "asyncnet_asgi", "hello", "default", tls=True),
        candidate(
            "uvicorn on httptools",
            "uvicorn_asgi",
            "hello",
            "httptools",
            "auto",
            requires=(*UVICORN, "httptools"),
            tls=True,
        ),
        candidate("Hypercorn on trio", "hypercorn_trio", "hello", requires=("hypercorn",), tls=True),
        candidate("aiohttp, its own handler", "aiohttp_hello", requires=("aiohttp",), tls=True),
    ),
    (Target("1.3 times uvicorn on httptools", ratio("rate", "uvicorn on httptools"), at_least=1.3),),
    "uvicorn runs on uvloop.",
)
