"""How much one WebSocket may ask for, and how long it may take: frozen values, each default with its reason.

Sizes are bytes, times are seconds; `math.inf` switches a time limit off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from asyncnet.limits import check_sizes, check_times


@dataclass(frozen=True, slots=True)
class WebSocketLimits:
    """What is taken from a peer."""

    message: int = 1 << 20
    """A message, after inflating: it is held in memory whole. A frame is refused by what its head announces."""
    fragments: int = 16_384
    """Frames of one message: a mebibyte in pieces of 64 bytes. Empty ones carry nothing and cost work."""
    control_frames: int = 1000
    """Pings and pongs in `CONTROL_WINDOW` seconds. Keep-alive sends one in twenty."""

    def __post_init__(self) -> None:
        check_sizes(self)


CONTROL_WINDOW = 10.0


@dataclass(frozen=True, slots=True)
class WebSocketTimeouts:
    """How long a WebSocket waits for its peer."""

    ping: float = 20.0
    """Without a byte from the peer, until it is sent a ping: NATs and load balancers forget after a minute. A receive
    has to be waiting; the first ping may come as late as twice that."""
    pong: float = 20.0
    """From a ping to any byte, before the peer is taken for dead."""
    message: float = 60.0
    """For a whole message from its first byte: a mebibyte at 140 kbit/s. It ends the byte-a-second attack."""
    idle: float = math.inf
    """Without a message. Most WebSockets are silent for most of the time."""
    close: float = 5.0
    """For the closing handshake."""

    def __post_init__(self) -> None:
        check_times(self)
