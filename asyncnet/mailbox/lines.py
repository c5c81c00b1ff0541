"""Line ends, piece by piece: CR LF on the wire, LF in the files of a Maildir. Pure.

Mutt and others expect LF in files; everything that travels has CR LF. A CR that stands alone is left alone, a LF that
stands alone becomes a line's end: what is given out has no other, so that no client can be made to see a line where
another sees none.
"""

from __future__ import annotations


class _Pieces:
    """Holds back a CR at the end of a piece: whether it belongs to a line's end, the next one tells."""

    def __init__(self) -> None:
        self._held = b""

    def _take(self, data: bytes | bytearray | memoryview) -> bytes:
        taken = self._held + bytes(data)
        self._held = b"\r" if taken.endswith(b"\r") else b""
        return taken[:-1] if self._held else taken

    def end(self) -> bytes:
        """What comes behind the last piece."""
        held, self._held = self._held, b""
        return held


class ToFile(_Pieces):
    """From the wire to a file."""

    def feed(self, data: bytes | bytearray | memoryview) -> bytes:
        return self._take(data).replace(b"\r\n", b"\n")


class ToWire(_Pieces):
    """From a file, whatever its line ends are, to the wire."""

    def feed(self, data: bytes | bytearray | memoryview) -> bytes:
        return self._take(data).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


class WireSize:
    """Counts how many bytes `ToWire` makes of a file's."""

    def __init__(self) -> None:
        self.size = 0
        self._ends_in_cr = False

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        data = bytes(data)
        if data:
            whole = data.count(b"\r\n") + (self._ends_in_cr and data.startswith(b"\n"))
            self.size += len(data) + data.count(b"\n") - whole
            self._ends_in_cr = data.endswith(b"\r")
