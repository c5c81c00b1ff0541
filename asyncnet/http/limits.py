"""How much one HTTP/1.1 connection may ask for, and how long it may take: frozen values, each default with its reason.

Sizes are bytes, times are seconds; `math.inf` switches a time limit off.
"""

from __future__ import annotations

from dataclasses import dataclass

from asyncnet.limits import check_sizes, check_times


@dataclass(frozen=True, slots=True)
class HTTPLimits:
    """How much a connection, a request or a part of it may hold."""

    request_line: int = 8192
    """Method, target and version with their CRLF. RFC 9112 section 3 asks for at least 8000."""
    head: int = 32 * 1024
    """Request line and header section: a browser with a heap of cookies stays below half of it."""
    fields: int = 100
    """Header lines in a head, and again in a trailer section. Browsers send about 15, chains of proxies add 10."""
    chunk_line: int = 256
    """A chunk-size line with its extensions, which hardly anybody sends."""
    chunk_extensions: int = 8192
    """Chunk extensions of one message in all: they cost work and carry nothing (RFC 9112 section 7.1.1)."""
    trailers: int = 8192
    """The trailer section of a chunked body."""
    body: int = 1 << 30
    """A request body. It is streamed, so that this guards disks and patience, not memory."""
    unread: int = 64 * 1024
    """What is read and thrown away of a body that the application left, to keep the connection."""
    requests: int = 10_000
    """Requests on one connection, so that long-lived ones spread again after a new process has come up."""

    def __post_init__(self) -> None:
        check_sizes(self, may_be_zero=("body", "unread"))


@dataclass(frozen=True, slots=True)
class HTTPTimeouts:
    """How long a connection waits for its peer."""

    head: float = 10.0
    """From accept to the first byte, and again from the first byte of a request to the end of its head, which fits a
    few segments."""
    keep_alive: float = 75.0
    """Between requests. Load balancers give up at 60 s, and must be the first to do so."""
    body_grace: float = 10.0
    """Waiting for the body that costs nothing; past it, the body must have come at `body_rate` on the whole."""
    body_rate: float = 256.0
    """Bytes per second: slower than any link people upload over, and it ends the byte-a-second attack."""

    def __post_init__(self) -> None:
        check_times(self)
