"""How much a response may ask of the client, and how long each phase may take: frozen, each default with its reason.

Sizes are bytes, times are seconds; `math.inf` switches a time limit off.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from asyncnet.errors import AsyncnetError
from asyncnet.limits import check_sizes, check_times


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """How much a client holds, and a response or a part of it."""

    connections: int = 100
    """Connections in all, idle ones among them. A request that finds none waits for one: see `ClientTimeouts.pool`."""
    per_origin: int = 64
    """Connections to one origin: more hardly make anything faster, and servers cut off who has more."""
    head: int = 64 * 1024
    """Status line and header section; long policies and dozens of cookies stay below half of it."""
    fields: int = 256
    """Header lines in a head, and again in a trailer section."""
    interim: int = 32
    """Interim responses (1xx) before the final one, so that they cannot go on for ever."""
    chunk_line: int = 4096
    """A chunk-size line with its extensions, which a few proxies fill with signatures."""
    chunk_extensions: int = 64 * 1024
    """Chunk extensions of one body in all: they cost work and carry nothing."""
    trailers: int = 16 * 1024
    """The trailer section of a chunked body."""
    content: int = 64 << 20
    """What `get` and its like, and `read`, take into memory, decoded; ask for more by `limit=`, or stream."""
    inflated: int = 4 << 30
    """What a compressed body may inflate to while it is streamed: past it, it is a bomb on somebody's disk."""
    codings: int = 2
    """Content codings on top of each other. One is usual; each multiplies what a bomb makes of its bytes."""
    unread: int = 64 * 1024
    """What is read and thrown away of a redirect's body, to keep the connection."""

    def __post_init__(self) -> None:
        check_sizes(self, may_be_zero=("interim", "content", "unread"))


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """How long a request waits in each of its phases."""

    pool: float = 60.0
    """For a connection, where the client has as many as it may."""
    connect: float = 15.0
    """For a new connection: name, TCP, proxy, TLS handshake. Two lost packets still fit."""
    send: float = 30.0
    """Without progress while the request is sent: the server does not read."""
    head: float = 60.0
    """From the request's end to the end of the response's head: servers give up their own work at about that age."""
    body: float = 30.0
    """Between two pieces of the response's body. For a limit on the whole use `trio.fail_after`."""
    idle: float = 55.0
    """How long an idle connection is used again after its last response; load balancers close theirs at 60 s."""

    def __post_init__(self) -> None:
        check_times(self)


class Phase(enum.Enum):
    """What a request was waiting for."""

    POOL = "pool"
    CONNECT = "connect"
    HEAD = "head"
    BODY = "body"


class PhaseTimeout(AsyncnetError, TimeoutError):
    """A phase of a request took longer than `ClientTimeouts` lets it; `phase` tells which."""

    def __init__(self, phase: Phase, problem: str) -> None:
        self.phase = phase
        super().__init__(problem)
