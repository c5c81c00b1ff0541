"""The command's log, on standard error: written by a thread, so that whoever reads it slowly does not stop the service.

A pipe that nobody reads is full after 64 KiB, and a disk may be slow: a log that is written where it arises would then
hold up every connection. Here records wait in a queue; when that is full they are dropped, and the log says how many.

Applications configure logging, too, and `logging.config` closes every handler that there is and disables every logger
that it is not told of. This log is not to be silenced by that: it goes on after `close`, and `enable_again` brings the
loggers back.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import sys
import threading

from asyncnet.cli.descriptors import write_all
from asyncnet.errors import ConfigurationError

WAITING = 10_000
"""How many records wait for the writer; with a connection a record this is some seconds of a busy service."""

LAST_WORDS = 1.0
"""How long, in seconds, the end of the process waits for what is still to be written."""


class QueuedLog(logging.Handler):
    """Formats records where they arise, and has a thread write them to the descriptor `sink`."""

    def __init__(self, sink: int) -> None:
        super().__init__()
        self._sink = sink
        self._queue: queue.Queue[str | threading.Event] = queue.Queue(WAITING)
        self._dropped = 0
        self._is_stuck = False
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._queue.put_nowait(f"{self.format(record)}\n")
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        while True:
            text = self._queue.get()
            if isinstance(text, threading.Event):
                text.set()
                continue
            dropped, self._dropped = self._dropped, 0
            if dropped:
                text += f"{dropped} records were dropped, since nobody reads this quickly enough\n"
            try:
                self._put(text.encode("utf-8", "backslashreplace"))
            except OSError:
                pass  # a broken pipe, a full disk: the service goes on, and the next record may fit

    def _put(self, data: bytes) -> None:
        write_all(self._sink, data)

    def close(self) -> None:
        """Let what waits be written, for a moment. Records that come later are written as before."""
        written = threading.Event()
        if not self._is_stuck:
            try:
                self._queue.put(written, timeout=LAST_WORDS)
            except queue.Full:
                self._is_stuck = True
            else:
                self._is_stuck = not written.wait(LAST_WORDS)
        super().close()


class FileLog(QueuedLog):
    """The same into a file, which is opened again when it was moved away: so logs are rotated."""

    def __init__(self, path: str) -> None:
        """Open `path`. Raises ConfigurationError."""
        self._path = path
        try:
            sink = self._open()
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from error
        super().__init__(sink)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _put(self, data: bytes) -> None:
        try:
            is_same = os.path.samestat(os.fstat(self._sink), os.stat(self._path))
        except FileNotFoundError:
            is_same = False
        if not is_same:
            sink = self._open()
            os.close(self._sink)
            self._sink = sink
        write_all(self._sink, data)


ACCESS_LOGS = ("asyncnet.http.access", "asyncnet.ftp.transfers")
"""The loggers whose lines other programs read: they come whatever the level, and as they are."""


def log_to_stderr(level: str) -> None:
    """Have the log written to standard error from `level` on; where that is closed, nowhere."""
    handler = _handler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in ACCESS_LOGS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    atexit.register(handler.close)  # `logging` does not know of it any more once an application has configured it


def log_to_file(name: str, path: str | None) -> None:
    """Have the lines of an access log written to the file `path` instead; None: nowhere. Raises ConfigurationError."""
    handler = logging.NullHandler() if path is None else FileLog(path)
    handler.setFormatter(_Formatter())
    logging.getLogger(name).handlers = [handler]
    atexit.register(handler.close)


def enable_again() -> None:
    """Enable our loggers, which an application may have disabled while it was imported."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("asyncnet.") and isinstance(logger, logging.Logger):
            logger.disabled = False


class _Formatter(logging.Formatter):
    """Leaves the lines of access logs as they are: other programs read them."""

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage() if record.name in ACCESS_LOGS else super().format(record)


def _handler() -> logging.Handler:
    if sys.stderr is None:
        return logging.NullHandler()
    try:
        return QueuedLog(sys.stderr.fileno())
    except OSError:  # something in its place that has no descriptor
        return logging.StreamHandler()
