"""WebSocket echo: 64 connections, messages of 128 bytes, a closed loop. The load offers no compression."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.echo import COLUMNS, CONNECTIONS, SIZE, measure
from benchmarks.harness import Benchmark, Candidate, Sample, Settings, Target, ratio

LONGEST = 15
"""Seconds. Servers ping every 20, which the load takes for a wrong answer."""


def measure_frames(settings: Settings, *, module: str, arguments: tuple[str, ...]) -> Sample:
    shorter = replace(settings, seconds=min(settings.seconds, LONGEST))
    return measure(shorter, module=module, arguments=arguments, dress="websocket")


def candidate(name: str, module: str, *arguments: str, requires: tuple[str, ...] = ()) -> Candidate:
    return Candidate(name, partial(measure_frames, module=module, arguments=arguments), requires)


WEBSOCKET = Benchmark(
    "http_websocket",
    f"WebSocket echo, {CONNECTIONS} connections, {SIZE} bytes: more is better",
    COLUMNS,
    (
        candidate("asyncnet", "asyncnet_websocket"),
        candidate("asyncnet, ASGI", "asyncnet_asgi", "echo", "default"),
        candidate(
            "uvicorn with websockets",
            "uvicorn_asgi",
            "echo",
            "httptools",
            "websockets-sansio",
            requires=("uvicorn", "uvloop", "httptools", "websockets"),
        ),
        candidate(
            "uvicorn with wsproto",
            "uvicorn_asgi",
            "echo",
            "httptools",
            "wsproto",
            requires=("uvicorn", "uvloop", "httptools", "wsproto"),
        ),
    ),
    (
        Target("as fast as uvicorn with websockets", ratio("rate", "uvicorn with websockets"), at_least=1.0),
        Target("so through ASGI", ratio("rate", "uvicorn with websockets", "asyncnet, ASGI"), at_least=1.0),
    ),
    "uvicorn runs on uvloop; with `websockets` it is its default, the sans-I/O part of that library. No compression.",
)
