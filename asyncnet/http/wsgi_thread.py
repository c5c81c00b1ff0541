"""One WSGI request: the thread in which the application runs, and the task of the connection (PEP 3333).

Used by `http.wsgi`, which says what goes into the environment and what comes out of it; `http.wsgi_interface` has what
passes between the application and this.

Theory of operation
===================

The application of one request stays in one thread, from its call to the `close()` of what it returned: frameworks keep
things in thread-locals. `trio.to_thread.run_sync` cannot do that here, because its call would have to end before the
response is given to the server, and with it the thread. So the thread comes straight from Trio's cache of threads, and
`Conversation` is what it shares with the task. A condition guards it; neither side holds it while it does other work.

- *The thread asks, the task does.* Only the connection's own task touches the connection. The thread puts down pieces
  of the response, or that it wants more of the request, tells the task by `run_sync_soon`, and goes on until it has to
  wait. The task looks at what is there (`news`), so that what was put down meanwhile is taken in one go: a short
  response costs one way there and one way back.
- *A slow reader.* Of a response, as much as `ahead` may wait to be sent; then the thread waits. What fits does not
  keep the thread: it has left, with `close()` called, before a slow peer has read anything.
- *Slow clients that hold all threads.* Nobody else may want one: then a thread waits for its client as long as the
  server does. But while requests wait for a thread, one whose client has kept it waiting for more than `PATIENCE`, and
  whose client is slower than `FAIR_RATE` on the whole, is taken away from it.
- *A peer or a task that goes away* (`leave`). A thread cannot be stopped, so the task does not wait for it. The
  thread is told at its next read, write or piece: `RequestOver` is raised from the first two, after the third the
  iteration ends; `close()` is called in any case. Until all of that is done, the thread keeps its token of the limiter,
  so that threads nobody waits for cannot pile up.
- *A response that is whole early*: all bytes of its Content-Length are there, or it is one without content (HEAD, 204,
  205, 304). The task goes on with the connection, and the thread with what is left of the application. What fails
  there can only be logged.
- *A response that the server drops unsent* (middleware answers in its place) leaves by `aclose`, or when it is
  collected: no thread waits for a task that will never come.

`except BaseException` stands in `_run`, at the thread's end: what the application raised is carried to the task, which
raises it in the thread's place.
"""

from __future__ import annotations

import contextvars
import io
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast
from wsgiref.util import FileWrapper

import trio

from asyncnet.errors import LocalProtocolError
from asyncnet.http.messages import FileBody
from asyncnet.http.wire import RequestError
from asyncnet.http.wsgi_interface import ResponseHead, regular_file

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

ExcInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]"

logger = logging.getLogger("asyncnet.http.wsgi")

PATIENCE = 10.0
"""For how many seconds in all a thread waits for its client though other requests wait for a thread."""

FAIR_RATE = 16 * 1024
"""Bytes per second, of request and response, that a client is given more than that for: slower links are rare."""

LOOK = 1.0
"""How often, in seconds, a thread that waits for its client looks whether somebody wants it."""


class RequestOver(ConnectionAbortedError):
    """The client, or the response's time, is over: nothing can be read or written any more."""


class InputBroken(ConnectionError):
    """The request's body could not be read to its end: the client broke off, was too slow, or sent nonsense."""


class TooSlow(RequestError):
    """The client kept a thread waiting that others wanted."""

    def __init__(self) -> None:
        super().__init__(408, "a client too slow for a thread that others wait for")


class Conversation:
    """What the thread of one request and the task of its connection share. Its methods say whose they are."""

    def __init__(
        self,
        app: WSGIApplication,
        environ: dict[str, Any],
        body: AsyncIterator[bytes],
        *,
        ahead: int,
        is_wanted: Callable[[], bool],
    ) -> None:
        """`is_wanted`: whether other requests wait for a thread."""
        self._app = app
        self._environ = environ
        self._body = body
        self._ahead = ahead
        self._is_wanted = is_wanted
        self._head_only = environ["REQUEST_METHOD"] == "HEAD"
        self._what = f"{environ['REQUEST_METHOD']} {environ['REQUEST_URI']}"
        self._token = trio.lowlevel.current_trio_token()
        self._news = trio.Event()
        self._started: ResponseHead | None = None  # the thread's own, as long as it may be replaced
        self._given = 0  # bytes of the body that the application has produced
        self._received = 0  # bytes of the request's body that it has waited for
        self._waited = 0.0  # seconds, for the client
        self._changed = threading.Condition(threading.Lock())
        # From here on, under the condition:
        self.head: ResponseHead | None = None
        """The head of the response, once something of it may be sent."""
        self.file: FileBody | None = None
        """The whole body, if it is a file."""
        self.whole = False
        """Whether everything of the response is there."""
        self.failure: BaseException | None = None
        """What ended the application before its response was whole."""
        self._pieces: list[bytes] = []
        self._queued = 0
        self._asked = False
        self._answer: bytes | Exception = b""
        self._left = False
        self._told = False

    # The task's side

    def start(self, limiter: trio.CapacityLimiter) -> None:
        """Run the application in a thread, which gives back its token of `limiter` when it has really ended."""

        def ended(result: object) -> None:
            try:
                self._token.run_sync_soon(limiter.release_on_behalf_of, self)
            except trio.RunFinishedError:
                pass  # and the limiter with it

        context = contextvars.copy_context()
        try:
            trio.lowlevel.start_thread_soon(lambda: context.run(self._run), ended)
        except BaseException:
            limiter.release_on_behalf_of(self)
            raise

    async def news(self) -> None:
        """Wait for a piece of the response, its end or a failure, and read the request's body as it is asked for."""
        while True:
            with self._changed:
                self._told = False
                if self.head is not None and (self._pieces or self.whole):
                    return
                if self.failure is not None:
                    return
                asked = self._asked
                self._news = trio.Event()
            if asked:
                await self._feed()
            else:
                await self._news.wait()

    async def _feed(self) -> None:
        answer: bytes | Exception
        try:
            answer = await anext(self._body)
        except StopAsyncIteration:
            answer = b""
        except Exception as error:  # the thread's to handle, or to pass on
            answer = error
        with self._changed:
            self._answer = answer
            self._asked = False
            self._changed.notify()

    def take(self) -> bytes:
        """What waits to be sent."""
        with self._changed:
            pieces, self._pieces = self._pieces, []
            self._queued = 0
            self._changed.notify()
        return b"".join(pieces)

    def take_file(self) -> FileBody | None:
        """The whole body, if it is a file, which is the taker's to close from now on."""
        file, self.file = self.file, None
        return file

    def reason(self) -> BaseException:
        """Why there is no response, or not all of it; to be asked once."""
        failure, self.failure = self.failure, None
        if isinstance(self._answer, RequestError):
            return self._answer  # the client's fault, whatever the application made of it
        assert failure is not None
        return failure

    def leave(self) -> None:
        """Have nothing to do with the thread any more. It may be called from anywhere, and again."""
        with self._changed:
            self._left = True
            self._changed.notify()
            file, self.file = self.file, None
            failure, self.failure = self.failure, None
        if file is not None:
            file.file.close()
        if failure is not None:
            self._log(failure)

    # The thread's side

    def _run(self) -> None:
        try:
            self._respond()
        except BaseException as error:  # SystemExit, too: no application ends the service
            self._fail(error)
        finally:
            self._environ["wsgi.errors"].flush()
            self._environ = {}  # its wsgi.input refers to this conversation

    def _respond(self) -> None:
        iterable = self._app(self._environ, self._start_response)
        try:
            if not self._sends_file(iterable):
                self._send(iterable)
        finally:
            close = getattr(iterable, "close", None)
            if close is not None:
                close()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], None]:
        try:
            if exc_info is not None and exc_info[1] is not None:
                if self.head is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            elif self._started is not None:
                raise LocalProtocolError("start_response was called twice, and no error given the second time")
            self._started = ResponseHead(status, headers)
        finally:
            exc_info = None  # PEP 3333: it would be a circular reference
        return self._write

    def _write(self, data: bytes) -> None:
        self._put(data)
        if self._left:
            raise RequestOver("the client has gone")

    def _send(self, iterable: Iterable[bytes]) -> None:
        if isinstance(iterable, (list, tuple)) and sum(map(len, iterable)) <= self._ahead:
            iterable = [b"".join(iterable)]
        try:
            is_single = len(cast("list[bytes]", iterable)) == 1
        except TypeError:
            is_single = False
        for piece in iterable:
            if is_single and self._started is not None and self.head is None and (piece or not self._head_only):
                self._started.learn_length(len(piece))
                self._check_length(len(piece))  # while there can still be a 500
            if piece:
                self._put(piece)
            elif not isinstance(piece, bytes):
                raise TypeError(f"a piece of the body is bytes, not {piece!r}")
            if self._left or (self.whole and not self._has_content):
                return
        self._end()

    @property
    def _has_content(self) -> bool:
        return not self._head_only and self._started is not None and self._started.has_content

    def _put(self, piece: bytes) -> None:
        """Put down a piece for the task. It waits while too much lies there already."""
        head = self._started
        if head is None:
            raise LocalProtocolError("the body began before start_response was called")
        if not isinstance(piece, bytes):
            raise TypeError(f"a piece of the body is bytes, not {piece!r}")
        self._given += len(piece)
        if head.length is not None and self._given > head.length and self._has_content:
            raise LocalProtocolError(f"a body of more than the {head.length} bytes of its Content-Length")
        with self._changed:
            while self._queued >= self._ahead and not self._left:
                self._wait_for_client()
            self.head = head
            if self._has_content and not self._left:
                self._pieces.append(piece)
                self._queued += len(piece)
                self.whole = self._given == head.length
            else:
                self.whole = True
        self._tell()

    def _end(self) -> None:
        head = self._started
        if head is None:
            raise LocalProtocolError("the application returned, and start_response was never called")
        self._check_length(self._given)
        if not self.whole:
            with self._changed:
                self.head = head
                self.whole = True
            self._tell()

    def _check_length(self, given: int) -> None:
        """Whether a body that has ended with `given` bytes has all that were announced."""
        length = None if self._started is None else self._started.length
        if length is not None and given < length and self._has_content:
            raise LocalProtocolError(f"a body of {given} bytes, {length} in its Content-Length")

    def _sends_file(self, iterable: object) -> bool:
        """Whether the body is a regular file and nothing else, which then leaves without this thread."""
        head = self._started
        if type(iterable) is not FileWrapper or head is None or self.head is not None:
            return False
        file = regular_file(iterable.filelike)
        if file is None:
            return False
        offset = file.tell()
        count = max(0, os.fstat(file.fileno()).st_size - offset)
        head.learn_length(count)
        self._check_length(count)
        with self._changed:
            if self._has_content and not self._left:
                # The application closes its file when it likes: the descriptor that is sent is another one.
                copy = cast(BinaryIO, io.FileIO(os.dup(file.fileno())))
                self.file = FileBody(copy, offset, head.length or 0)
            self.head = head
            self.whole = True
        self._tell()
        return True

    def receive(self) -> bytes:
        """More of the request's body, nothing at its end. Raises `RequestOver` or `InputBroken`."""
        with self._changed:
            if self._left or self.whole:
                raise RequestOver("the request is over: its body can no longer be read")
            self._asked = True
        self._tell()
        with self._changed:
            while self._asked and not self._left:
                self._wait_for_client()
            has_come, answer = not self._asked, self._answer
        if self.failure is not None:
            self._tell()  # that the client was too slow
        if not has_come:
            raise RequestOver("the client has gone")
        if isinstance(answer, Exception):
            raise InputBroken(str(answer)) from answer
        self._received += len(answer)
        return answer

    def _wait_for_client(self) -> None:
        """Wait a while, under the condition. Give the client up if it is too slow for a thread that others want."""
        began = time.monotonic()
        self._changed.wait(LOOK)
        self._waited += time.monotonic() - began
        fair = PATIENCE + (self._given + self._received) / FAIR_RATE
        if self._waited > fair and self._is_wanted() and not self._left:
            self.failure = TooSlow()
            self._left = True

    def _tell(self) -> None:
        """Wake the task, unless it has been told and has not looked yet."""
        with self._changed:
            if self._told:
                return
            self._told = True
        try:
            self._token.run_sync_soon(self._wake)
        except trio.RunFinishedError:
            self._left = True

    def _wake(self) -> None:
        self._news.set()

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, SystemExit):
            error = RuntimeError(f"the application wanted to end the process: SystemExit({error.code!r})")
        with self._changed:
            answerable = not self.whole and not self._left
            if answerable:
                self.failure = error
        if answerable:
            self._tell()
        else:
            self._log(error)

    def _log(self, error: BaseException) -> None:
        """Log what the application raised when nobody could be answered any more; quietly if that is why it did."""
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, (RequestOver, InputBroken, TooSlow)):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            logger.error("the application failed on %s behind its response", self._what, exc_info=error)
        else:
            logger.debug("%s: the client has gone: %s", self._what, error)


class Pieces(AsyncGenerator[bytes, None]):
    """The body of a response while the application is still at it.

    A generator in its ways, so that the server closes it, and an object with a finaliser, which one that was never
    started does not have.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    async def asend(self, value: None) -> bytes:
        conversation = self._conversation
        try:
            await conversation.news()
        except BaseException:
            conversation.leave()
            raise
        if piece := conversation.take():
            return piece
        if conversation.failure is not None:
            raise conversation.reason()
        if conversation.whole:
            raise StopAsyncIteration
        return b""  # write(b""), which sends the head

    async def athrow(self, *error: Any) -> bytes:
        self._conversation.leave()
        raise error[0]

    async def aclose(self) -> None:
        self._conversation.leave()

    def __del__(self) -> None:
        self._conversation.leave()
