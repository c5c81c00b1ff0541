"""Reading and writing the standard streams' descriptors in a thread.

Whoever shares a terminal or a pipe with us may have made it non-blocking, and may do so while we run.
"""

from __future__ import annotations

import os
import select

PIECE = 65536


def read_some(source: int) -> bytes:
    """Read what is there, b"" at the end, waiting as long as it takes."""
    while True:
        try:
            return os.read(source, PIECE)
        except BlockingIOError:
            select.select([source], [], [])


def write_all(sink: int, data: bytes) -> None:
    """Write `data`, waiting as long as it takes. Raises BrokenPipeError when nobody will ever read it."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(sink, rest) :]
        except BlockingIOError:
            select.select([], [sink], [])
