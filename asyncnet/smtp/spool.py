"""A message's content while it is in hand: in memory up to a bound, then in a file without a name.

The file is written and read by a thread, in large pieces, and is gone when it is closed, or when the process is.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from typing import BinaryIO, cast

import trio

IN_MEMORY = 256 * 1024
"""How many bytes of a message stay in memory: nearly all messages have less, and a thousand such are 256 MiB."""

_PIECE = 256 * 1024
"""How much is written and read at once, in bytes."""


class Spool:
    """Bytes that are written once, and then read as often as one likes.

    `memory`: how many bytes of them are held in memory. `folder`: where the file is made, if there has to be one (None:
    where temporary files are). All methods raise OSError for what the disk has against it. Cancelled, `write` may have
    written a part, and the others have done nothing.
    """

    def __init__(self, *, memory: int = IN_MEMORY, folder: str | os.PathLike[str] | None = None) -> None:
        self.size = 0
        """How many bytes have been written."""
        self._memory = memory
        self._folder = folder
        self._buffer = bytearray()  # the last bytes, which are not in the file
        self._file: BinaryIO | None = None

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append. A checkpoint only if there is too much for the memory."""
        self._buffer += data
        self.size += len(data)
        if len(self._buffer) > (self._memory if self._file is None else _PIECE):
            await trio.to_thread.run_sync(self._write_out)

    def _write_out(self) -> None:
        if self._file is None:
            # Unbuffered: what is written is in the file when a write returns.
            self._file = cast(BinaryIO, tempfile.TemporaryFile(buffering=0, dir=self._folder))  # noqa: SIM115
        self._file.seek(0, os.SEEK_END)
        while self._buffer:
            del self._buffer[: self._file.write(self._buffer)]

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it, from the beginning, in pieces. Nothing may be written meanwhile."""
        place = 0
        while self._file is not None and place < self.size - len(self._buffer):
            data = await trio.to_thread.run_sync(self._read, self._file, place)
            place += len(data)
            yield data
        if self._buffer:
            await trio.lowlevel.checkpoint()
            yield bytes(self._buffer)

    @staticmethod
    def _read(file: BinaryIO, place: int) -> bytes:
        file.seek(place)
        return file.read(_PIECE)

    async def read(self) -> bytes:
        """All of it at once, in memory."""
        return b"".join([piece async for piece in self.pieces()])

    async def aclose(self) -> None:
        """Throw it away. Also when cancelled."""
        self._buffer = bytearray()
        file, self._file = self._file, None
        if file is not None:
            with trio.CancelScope(shield=True):  # a thread that closes a file needs no deadline: it cannot be given up
                await trio.to_thread.run_sync(file.close)
