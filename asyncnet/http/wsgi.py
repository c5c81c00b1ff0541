"""`WSGI`: a WSGI application (Flask, Django, Zope) as an application for `HTTPHandler` (PEP 3333).

    await serve(HTTPHandler(WSGI(flask_app)), "tcp://127.0.0.1:8080")

What the application is told about a request is here; how its thread and the task of the connection work together is
`http.wsgi_thread`.
"""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

import trio

from asyncnet.http.messages import Headers, Request, Response
from asyncnet.http.wsgi_interface import Input
from asyncnet.http.wsgi_thread import Conversation, Pieces, logger
from asyncnet.per_run import once_per_run
from asyncnet.printable import printable

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

error_logger = logging.getLogger("asyncnet.http.wsgi.errors")
"""Where `wsgi.errors` goes, a record a line."""

RETRY_AFTER = "10"
"""For how many seconds a client is sent away that found no free thread."""

LONGEST_LINE = 8192
"""Characters of a line of `wsgi.errors` that are kept until it ends."""


class WSGI:
    """Serves the WSGI application `app` from worker threads.

    `threads` is how many requests run in it at once; the others wait for one to end, `max_wait` seconds at most, and
    are then answered by 503. 40 is what Trio takes for threads that mostly wait, for databases and the like. The limit
    is this application's own, so that nothing else waits for its threads, and it holds for each `trio.run` anew.

    While others wait, a client keeps a thread waiting for 10 seconds in all, or longer if it is as fast as 16 KiB a
    second; a slower one is cut off, by 408 if its response has not begun.

    `read_ahead` is how many bytes of a request's body are received before a thread is taken: a slow sender of less
    costs no thread. With 0, an application can answer each piece of a body before the next has been sent. A body in
    chunks that fits is given its length, without which Django takes a body for empty. A client that waits for
    `100 Continue` with a longer body is told so when the application reads, and so can be refused before it sends.

    `write_ahead` is how many bytes of a response may wait to be sent before the thread does; a piece that goes past
    it is still taken. Each connection holds both at most, and twice a piece.

    When the client vanishes, or the connection is cancelled (a drain's deadline has passed), the connection is gone
    at once, and the thread, which cannot be stopped, is told at its next step: reading `wsgi.input` and `write()`
    raise `ConnectionAbortedError`, the iteration ends, and `close()` of what the application returned is called as
    ever. It counts among `threads` until it has ended. At the end of the process it is cut off.

    A vanished client is noticed where something is sent to it or received from it.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        threads: int = 40,
        max_wait: float = 30.0,
        read_ahead: int = 64 * 1024,
        write_ahead: int = 64 * 1024,
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads!r}")
        if read_ahead < 0 or write_ahead < 1:
            raise ValueError("read_ahead must be at least 0 and write_ahead at least 1")
        if not max_wait > 0:
            raise ValueError(f"max_wait must be positive, not {max_wait!r}")
        self.app = app
        self.threads = threads
        self.max_wait = max_wait
        self.read_ahead = read_ahead
        self.write_ahead = write_ahead
        self._places = once_per_run(lambda: _Places(threads))

    async def __call__(self, request: Request) -> Response:
        """Answer one request. What the application raises before its response has begun, is raised."""
        body = aiter(request.body)
        ahead, is_whole = await self._read_ahead(request, body)
        environ = make_environ(request)
        places = self._places()
        conversation = Conversation(
            self.app, environ, body, ahead=self.write_ahead, is_wanted=lambda: places.waiting > 0
        )
        if not is_whole:
            environ["wsgi.input"] = io.BufferedReader(Input(ahead, conversation.receive))
        else:
            environ["wsgi.input"] = io.BytesIO(ahead)
            if environ.pop("HTTP_TRANSFER_ENCODING", None):
                # RFC 9112 section 7.1.3
                environ["CONTENT_LENGTH"] = str(len(ahead))
        if not await places.take(conversation, self.max_wait):
            logger.warning("no thread was free for %g seconds: %s was refused", self.max_wait, request.target)
            return Response.problem(503, {"retry-after": RETRY_AFTER})
        conversation.start(places.limiter)
        try:
            await conversation.news()
        except BaseException:
            conversation.leave()
            raise
        return _response(request, conversation)

    async def _read_ahead(self, request: Request, body: AsyncIterator[bytes]) -> tuple[bytes, bool]:
        """The front of the body, and whether it is all of it."""
        headers = request.headers
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return b"", True
        if not self.read_ahead or ("expect" in headers and int(headers.get("content-length", "0")) > self.read_ahead):
            return b"", False
        data = bytearray()  # no list of pieces, which of two bytes each would hold thirty times as much
        async for piece in body:
            data += piece
            if len(data) >= self.read_ahead:
                return bytes(data), False
        return bytes(data), True


class _Places:
    """The threads that an application may have in one `trio.run`."""

    def __init__(self, threads: int) -> None:
        self.limiter = trio.CapacityLimiter(threads)
        self.waiting = 0
        """How many requests wait for a thread."""

    async def take(self, conversation: Conversation, max_wait: float) -> bool:
        """Wait for a free thread. False if there was none for so many seconds."""
        try:
            self.limiter.acquire_on_behalf_of_nowait(conversation)
        except trio.WouldBlock:
            pass
        else:
            return True
        self.waiting += 1
        try:
            with trio.move_on_after(max_wait) as scope:
                await self.limiter.acquire_on_behalf_of(conversation)
        finally:
            self.waiting -= 1
        return not scope.cancelled_caught


class _Nothing:
    """The body of a response to HEAD, of which nobody knows the length."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration


def _response(request: Request, conversation: Conversation) -> Response:
    """What the application has given, or will go on to give."""
    head = conversation.head
    if head is None or conversation.failure is not None:
        raise conversation.reason()
    if not conversation.whole:
        return Response(head.status, head.headers, Pieces(conversation))
    if request.method == "HEAD" and head.length is None:
        return Response(head.status, head.headers, _Nothing())
    return Response(head.status, head.headers, conversation.take_file() or conversation.take())


# The environment


def make_environ(request: Request) -> dict[str, Any]:
    """What PEP 3333 and RFC 3875 say about a request, without `wsgi.input`.

    Strings hold one byte a character (ISO 8859-1), as everywhere in WSGI. REQUEST_URI is the target as it was sent,
    for applications that have to tell "%2F" from "/".
    """
    name, port = _server(request)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": _decoded(request.mounted_at),
        "PATH_INFO": _decoded(request.raw_path),
        "QUERY_STRING": request.query,
        "REQUEST_URI": request.target,
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{request.http_version}",
        "SERVER_SOFTWARE": "asyncnet",
        "REMOTE_ADDR": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": ErrorLog(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
    }
    if request.peer is not None and request.peer.host is not None:
        environ["REMOTE_ADDR"] = request.peer.host
        environ["REMOTE_PORT"] = str(request.peer.port)
    if request.user is not None:
        environ["REMOTE_USER"] = request.user.encode().decode("latin-1")
        environ["AUTH_TYPE"] = "Basic"
    if request.tls is not None:
        environ["wsgi.url_scheme"] = "https"
        environ["HTTPS"] = "on"
    _add_fields(environ, request.headers)
    if request.host:
        environ["HTTP_HOST"] = request.host  # RFC 9112 section 3.2.2: an absolute target's goes before the field
    return environ


def _add_fields(environ: dict[str, Any], headers: Headers) -> None:
    """The header fields, by the names of RFC 3875 section 4.1.18.

    A name with an underscore would look like another one with a hyphen, which a proxy in front may have checked or
    set: it is dropped. So is `Proxy`, which would become HTTP_PROXY, the setting of HTTP clients (CVE-2016-5385).
    """
    for raw_name, raw_value in headers.raw:
        if b"_" in raw_name or raw_name == b"proxy":
            continue
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        if name not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            name = "HTTP_" + name
        value = raw_value.decode("latin-1")
        if name in environ:
            value = environ[name] + ("; " if name == "HTTP_COOKIE" else ",") + value
        environ[name] = value


def _decoded(path: str) -> str:
    if "%" not in path and path.isascii():
        return path
    return unquote_to_bytes(path.encode("latin-1")).decode("latin-1")


def _server(request: Request) -> tuple[str, str]:
    """SERVER_NAME and SERVER_PORT, by which the client has called this server (RFC 3875 section 4.1.14)."""
    name, colon, port = request.host.rpartition(":")
    if not colon or not port.isdecimal():
        name, port = request.host, ""
    return name or "localhost", port or ("80" if request.tls is None else "443")


class ErrorLog(io.TextIOBase):
    """`wsgi.errors`: what is written to it is logged, a record a line."""

    def __init__(self) -> None:
        self._line = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._log(line)
        if len(self._line) > LONGEST_LINE:
            self.flush()
        return len(text)

    def flush(self) -> None:
        line, self._line = self._line, ""
        if line:
            self._log(line)

    def _log(self, line: str) -> None:
        error_logger.error("%s", printable(line))
