"""Streams that look like files, for blocking code in a thread: `Stream.as_file` leads here.

    def greet(file):
        with file:
            print("What is your name?", file=file)
            print("Hello", file.readline().strip(), file=file)

    await trio.to_thread.run_sync(greet, stream.as_file("rw"))

The file is one of Python's own `io` classes over a raw file that has Trio's thread do the work. So it has everything
that files have, but no place in it (`seek`) and no descriptor (`fileno`).
"""

from __future__ import annotations

import errno
import io
import weakref
from collections.abc import Awaitable, Callable
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import trio

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from asyncnet.stream import Stream

T = TypeVar("T")


def open_file(
    stream: Stream,
    mode: str = "rwb",
    *,
    buffering: int = -1,
    encoding: str = "utf-8",
    errors: str = "strict",
    newline: str | None = None,
) -> IO[Any]:
    """A file over `stream` to read ("r"), write ("w") or both ("rw"), of bytes with "b" and of text without.

    `buffering`, `errors` and `newline` are those of the built-in `open`; 0, no buffer, is for bytes alone. What is
    written and not flushed leaves before a read waits, so that whoever asks and then listens need not flush.

    The file is used in a thread that `trio.to_thread.run_sync` has started, by one thread at a time, and raises
    RuntimeError elsewhere. Cancelling that call ends a read or write that waits by `trio.Cancelled`, which is to be
    let through. A connection that breaks is `ConnectionError`, a stream that was closed `ValueError`, as with files.

    `close` flushes and leaves the stream open, which is the handler's. A buffered file reads ahead, and what it holds
    when it is closed is gone: a conversation that goes on afterwards needs `buffering=0`.
    """
    kinds, binary = mode.replace("b", "", 1), "b" in mode
    if kinds not in ("r", "w", "rw", "wr"):
        raise ValueError(f"a mode is r, w or rw, with b for bytes, not {mode!r}")
    if buffering == 0 and not binary:
        raise ValueError("text needs a buffer")
    raw = RawStream(stream, readable="r" in kinds, writable="w" in kinds)
    if buffering == 0:
        return cast(IO[Any], raw)
    file = cast(IO[bytes], _buffered(raw, buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE))
    return file if binary else io.TextIOWrapper(file, encoding, errors, newline, line_buffering=buffering == 1)


def _buffered(raw: RawStream, size: int) -> io.BufferedIOBase:
    if not raw.writable():
        return io.BufferedReader(raw, size)
    if not raw.readable():
        return io.BufferedWriter(raw, size)
    pair = io.BufferedRWPair(raw, raw, size)
    raw.flush_before_waiting(pair)
    return pair


class RawStream(io.RawIOBase):
    """The unbuffered file: each read is a receive, each write a send of everything."""

    def __init__(self, stream: Stream, *, readable: bool, writable: bool) -> None:
        self._stream = stream
        self._readable = readable
        self._writable = writable
        self._buffer: Callable[[], io.BufferedIOBase | None] = lambda: None

    def flush_before_waiting(self, buffer: io.BufferedIOBase) -> None:
        """Flush `buffer`, which lies over this file, before each read."""
        self._buffer = weakref.ref(buffer)  # a cycle would keep what is not flushed from being collected in time

    def readable(self) -> bool:
        return self._readable

    def writable(self) -> bool:
        return self._writable

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        self._check(self._readable, "read")
        over = self._buffer()
        if over is not None:
            over.flush()
        view = memoryview(buffer).cast("B")
        data = self._run(self._stream.receive_some, len(view)) if view else b""
        view[: len(data)] = data
        return len(data)

    def write(self, data: ReadableBuffer, /) -> int:
        self._check(self._writable, "write")
        copy = bytes(data)
        self._run(self._stream.send_all, copy)
        return len(copy)

    def _check(self, allowed: bool, what: str) -> None:
        if self.closed:
            raise ValueError("this file was closed")
        if not allowed:
            raise io.UnsupportedOperation(f"this file is not open to {what}")

    def _run(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Have Trio's thread call an async method of the stream, and wait for it."""
        try:
            trio.from_thread.check_cancelled()
        except RuntimeError:
            raise RuntimeError("a stream is a file only in a thread that trio.to_thread.run_sync has started") from None
        try:
            return trio.from_thread.run(function, *args)
        except trio.BrokenResourceError as exc:
            raise ConnectionResetError(errno.ECONNRESET, str(exc)) from exc
        except trio.ClosedResourceError as exc:
            raise ValueError(str(exc)) from exc
