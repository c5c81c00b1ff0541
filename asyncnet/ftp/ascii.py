"""TYPE A: lines that end with LF where they are kept and with CR LF on their way (RFC 959 section 3.1.1.1). No I/O.

Every LF becomes CR LF, every CR LF an LF, and everything else stays: what is stored and retrieved comes back as it was.
A pair may be cut in two between pieces.
"""

from __future__ import annotations


def to_network(data: bytes) -> bytes:
    """A piece of a file, as it is sent."""
    return data.replace(b"\n", b"\r\n")


class FromNetwork:
    """Pieces that were received, as they are stored."""

    def __init__(self) -> None:
        self._held = b""  # a CR whose LF may be in the next piece

    def feed(self, data: bytes) -> bytes:
        """The next piece."""
        data = self._held + data
        self._held = b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        return data.replace(b"\r\n", b"\n")

    def end(self) -> bytes:
        """What is left when nothing more comes."""
        held, self._held = self._held, b""
        return held


def network_size(data: bytes) -> int:
    """How many bytes `to_network(data)` has."""
    return len(data) + data.count(b"\n")
