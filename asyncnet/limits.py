"""Limits and timeouts of a service: frozen values, each default with its reason.

Sizes are bytes, times are seconds. `math.inf` switches a timeout off.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any


def check_sizes(limits: Any, *, may_be_zero: Collection[str] = ()) -> None:
    """Raise ValueError if a field of `limits`, a dataclass with slots, is less than 1; of those named, less than 0."""
    for name in limits.__slots__:
        least, value = 0 if name in may_be_zero else 1, getattr(limits, name)
        if value < least:
            raise ValueError(f"{type(limits).__name__}.{name} must be at least {least}, not {value!r}")


def check_times(timeouts: Any) -> None:
    """Raise ValueError if a field of `timeouts`, a dataclass with slots, is not positive."""
    for name in timeouts.__slots__:
        value = getattr(timeouts, name)
        if math.isnan(value) or value <= 0:
            raise ValueError(f"{type(timeouts).__name__}.{name} must be positive, not {value!r}")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a service holds at once."""

    connections: int = 10_000
    """Connections in all. At about 4 KiB each this is 40 MiB; raise `ulimit -n` with it."""
    per_address: int = 256
    """Connections from one IPv4 address or one IPv6 /64. A NAT with an office behind it stays well below."""
    handshakes: int = 512
    """TLS handshakes and PROXY headers not finished yet. Each costs about a millisecond of processor."""
    refusals: int = 64
    """Connections over a cap that are being told so at the same moment. Past them the service stops accepting."""
    backlog: int = 1024
    """What the kernel queues for `accept`. It is cut to `net.core.somaxconn`."""
    accept_burst: int = 64
    """Connections accepted in a row before the others get a turn."""

    def __post_init__(self) -> None:
        check_sizes(self)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a service waits."""

    idle: float = 300.0
    """Without a byte in either direction. RFC 5321 asks for five minutes, and NATs forget at about that age."""
    handshake: float = 10.0
    """For a whole TLS handshake, from accept: three round trips on a satellite link leave plenty."""
    proxy_header: float = 5.0
    """For a whole PROXY header, which a real proxy sends in its first segment."""
    send: float = 60.0
    """Without progress of a send: the peer's window stays shut."""
    close: float = 5.0
    """For what is still to be flushed at close."""
    drain: float = 10.0
    """From `drain()` to the cancelling of what still runs: shorter than the 30 s that process managers allow."""

    def __post_init__(self) -> None:
        check_times(self)
