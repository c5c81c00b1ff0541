"""What a WSGI application is given and gives: `wsgi.input`, the head of its response, files (PEP 3333)."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from asyncnet.errors import LocalProtocolError
from asyncnet.http.messages import Headers

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# RFC 9110 section 7.6.1 and RFC 2616 section 13.5.1: what is between two neighbours is the server's business.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)

_is_status = re.compile(r"([2-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?").fullmatch
_is_length = re.compile(r"[0-9]{1,18}").fullmatch


class ResponseHead:
    """What `start_response` was given, checked."""

    __slots__ = ("has_content", "headers", "length", "status")

    def __init__(self, status: str, headers: Iterable[tuple[str, str]]) -> None:
        match = _is_status(status)
        if match is None:
            raise LocalProtocolError(f"not the status of a final response: {status!r}")
        self.status = int(match[1])
        self.headers = Headers(headers)
        for name, _ in self.headers:
            if name in HOP_BY_HOP:
                raise LocalProtocolError(f"an application may not set {name}: it belongs to the server (PEP 3333)")
        lengths = self.headers.get_all("content-length")
        if len(lengths) > 1 or (lengths and _is_length(lengths[0]) is None):
            raise LocalProtocolError(f"not a Content-Length: {lengths}")
        self.length = int(lengths[0]) if lengths else None
        self.has_content = self.status not in (204, 205, 304)
        if self.status == 204:
            del self.headers["content-length"]  # RFC 9110 section 8.6

    def learn_length(self, length: int) -> None:
        """The body turned out to have `length` bytes, which it announces unless it announces something already."""
        if self.length is None and self.has_content:
            self.length = length
            self.headers["content-length"] = str(length)


class Input(io.RawIOBase):
    """`wsgi.input` without a buffer: `ahead`, which has been read already, then what the connection brings."""

    def __init__(self, ahead: bytes, receive: Callable[[], bytes]) -> None:
        self._data = memoryview(ahead)
        self._receive = receive
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if not self._data and not self._ended and view:
            self._data = memoryview(self._receive())
            self._ended = not self._data
        count = min(len(view), len(self._data))
        view[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


def regular_file(file: object) -> io.FileIO | io.BufferedReader | io.BufferedRandom | None:
    """`file`, if what reading it gives is what its descriptor has: a regular file, and no wrapper that unpacks one."""
    if type(file) is io.FileIO:
        raw: object = file
    elif type(file) in (io.BufferedReader, io.BufferedRandom):
        raw = cast(io.BufferedReader, file).raw
    else:
        return None
    if type(raw) is not io.FileIO or raw.closed or not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        return None
    opened = cast("io.FileIO | io.BufferedReader | io.BufferedRandom", file)
    if opened.writable():
        opened.flush()
    return opened
