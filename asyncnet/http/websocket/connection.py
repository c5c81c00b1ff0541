"""`WebSocket`: messages over a `Stream` after the opening handshake (RFC 6455), for servers and clients alike.

Theory of operation
===================

There is no task, queue or cancel scope for a WebSocket. Whoever receives, does what has to be done on the way: it
answers pings, keeps alive, closes. What has arrived is decoded message by message, as they are asked for; a receive
waits only when all of it has been taken. What could go wrong, and why it does not:

- *Messages mixed up.* A frame is given to the stream in one piece, so that a pong may come between two messages and
  never within one; tasks that send take turns, in their order.
- *A peer that does not read.* Sends wait. At most one pong waits beside them: a newer ping is answered in the place of
  an older one (RFC 6455 section 5.5.3), so that a flood of pings fills no memory.
- *A peer that is gone without a word.* The stream's own deadline wakes the receive, which asks by a ping, and gives up
  if no byte comes. While nobody receives, nobody asks: the application is at work.
- *A peer that begins a message and never ends it.* The same alarm finds the same message still begun.
- *The service drains.* The receive that waits is woken, says 1001, and waits for the peer's Close.
- *The last words are destroyed.* A connection that is closed with bytes unread is reset, and the Close frame with it:
  so this side ends first and takes what still comes, for a while.
- *Ends are told apart.* `WebSocketClosed` has the code; an iteration ends in silence only when the peer has said
  that all is well (1000, 1001).
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Collection, Coroutine
from types import TracebackType
from typing import Any, Self

import trio

from asyncnet.errors import Draining, ReceiveTimeout, RemoteProtocolError
from asyncnet.http.messages import Request
from asyncnet.http.websocket.handshake import Agreement
from asyncnet.http.websocket.keep_alive import LAST_CHANCE, KeepAlive, Verdict
from asyncnet.http.websocket.limits import CONTROL_WINDOW, WebSocketLimits, WebSocketTimeouts
from asyncnet.http.websocket.wire import (
    MAX_REASON,
    Close,
    CloseCode,
    Data,
    Decoder,
    Encoder,
    Message,
    Ping,
    Pong,
    WebSocketError,
)
from asyncnet.printable import printable
from asyncnet.sending import FAIR_TURNS
from asyncnet.stream import Stream

_LIMITS = WebSocketLimits()
_TIMEOUTS = WebSocketTimeouts()
_NOTHING_SETTLED = Agreement()

_GOOD_ENDS = frozenset({int(CloseCode.NORMAL), int(CloseCode.GOING_AWAY)})
_UNANSWERED = "the peer did not answer the Close frame in time"

PONG_ROOM = 1024
"""With more than that waiting to leave, in bytes, a pong is put off: whatever is ahead of it is not being read."""

MUCH = 65536
"""With more than that together, in bytes, what waits leaves before a message: `Stream.write` queues only so much."""


class WebSocketClosed(RemoteProtocolError):
    """The WebSocket has closed. `code` is the peer's, or why this side closed it, or `CloseCode.ABNORMAL` (1006)."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"the WebSocket has closed with {code}{f': {printable(reason)}' if reason else ''}")


class WebSocket:
    """A WebSocket: `receive` and `send` messages, `str` for text and `bytes` for binary, or `async for message in it`.

    One task receives, any number send. As a context manager it closes at the end: with 1000, or with 1011 if an
    exception comes through. Iterating ends when the peer has closed with 1000 or 1001, and raises `WebSocketClosed`
    for any other end.

    `stream` carries frames from now on; what the peer sent behind its handshake is in its buffer. `agreed` is what
    the handshake settled, `is_client` on which side this is, `request` what opened it, on a server.
    """

    __slots__ = (
        "_agreed",
        "_answering",
        "_close_sent",
        "_controls",
        "_controls_since",
        "_decoder",
        "_encoder",
        "_ended",
        "_failure",
        "_finished",
        "_keep_alive",
        "_receiving",
        "_sending",
        "_stream",
        "_turns",
        "_waiting",
        "close_code",
        "close_reason",
        "is_client",
        "limits",
        "request",
        "timeouts",
    )

    def __init__(
        self,
        stream: Stream,
        agreed: Agreement = _NOTHING_SETTLED,
        *,
        is_client: bool = False,
        request: Request | None = None,
        limits: WebSocketLimits = _LIMITS,
        timeouts: WebSocketTimeouts = _TIMEOUTS,
    ) -> None:
        deflate = agreed.deflate
        self._stream = stream
        self._agreed = agreed
        self._decoder = Decoder(
            limits, from_client=not is_client, inflater=None if deflate is None else deflate.inflater()
        )
        self._encoder = Encoder(
            mask_key=_MaskKeys().next if is_client else None, deflater=None if deflate is None else deflate.deflater()
        )
        self.is_client = is_client
        self.request = request
        """The request that opened it; None on a client."""
        self.limits = limits
        self.timeouts = timeouts
        self.close_code: int | None = None
        """What it closed with, once it has: see `WebSocketClosed`."""
        self.close_reason = ""
        # Receiving
        self._receiving = False
        self._turns = 0
        self._answering: bytes | None = None  # a ping's payload that is still to be sent back
        self._controls = 0
        self._controls_since = trio.current_time()
        self._keep_alive = KeepAlive(timeouts, self._controls_since, stream.bytes_in)
        # Sending
        self._sending = False
        self._waiting: deque[trio.Event] | None = None  # idle WebSockets are many, and hold no queue
        # The end
        self._close_sent = False
        self._ended: trio.Event | None = None  # for who waits for the end while another receives
        self._failure: WebSocketClosed | None = None
        self._finished = False
        self._set_alarm()

    @property
    def subprotocol(self) -> str | None:
        """What both sides have agreed to speak, or None."""
        return self._agreed.subprotocol

    @property
    def is_compressed(self) -> bool:
        """Whether permessage-deflate was agreed (RFC 7692)."""
        return self._agreed.deflate is not None

    def __repr__(self) -> str:
        state = "open" if self.close_code is None else f"closed with {self.close_code}"
        return f"<WebSocket {self._stream.local} <- {self._stream.peer}: {state}>"

    # Receiving

    def receive(self) -> Coroutine[Any, Any, Message]:
        """Wait for the next message and return it. A checkpoint if it must wait, and now and then if not.

        Raises `WebSocketClosed` at the end, however it came about, and again at each further call. Cancelled, it
        loses nothing. A second task that receives gets `trio.BusyResourceError`.
        """
        return self._receive()

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Message]:
        return self._receive(_GOOD_ENDS)

    async def _receive(self, good_ends: Collection[int] = ()) -> Message:
        """The next message; at an end with one of `good_ends`, the end of the iteration."""
        if self._receiving:
            return await self._receive_beside_close()
        self._receiving = True
        try:
            while self._failure is None:
                try:
                    self._turns += 1
                    if self._turns >= FAIR_TURNS:
                        self._turns = 0
                        await trio.lowlevel.checkpoint()
                    event = self._decoder.next_event()
                    if event is None:
                        if self._answering is not None:
                            self._answer()
                        self._turns = 0
                        data = await self._stream.receive_some()
                        if data:
                            self._decoder.feed(data)
                        else:
                            self._end(CloseCode.ABNORMAL, "the connection ended without a Close frame")
                    elif not isinstance(event, (str, bytes)):
                        await self._control(event)
                    elif not self._close_sent:
                        return event
                except WebSocketError as error:
                    await self._fail(error.code, str(error))
                except ReceiveTimeout:
                    await self._look()
                except Draining:
                    self._stream.interrupt(False)
                    await self._begin_closing(CloseCode.GOING_AWAY, "the service is going down")
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    self._end(CloseCode.ABNORMAL, str(error))
        finally:
            self._receiving = False
        if self._failure.code in good_ends:
            raise StopAsyncIteration
        raise self._failure

    async def _receive_beside_close(self) -> Message:
        """A task that receives while another waits in `close` for the peer's Close: there will be no message."""
        if not self._close_sent:
            raise trio.BusyResourceError("another task is receiving from this WebSocket")
        await self._wait_ended()
        self._end(CloseCode.ABNORMAL, _UNANSWERED)
        assert self._failure is not None
        raise self._failure

    async def _control(self, event: Ping | Pong | Close) -> None:
        """What comes between messages, and between the fragments of one."""
        if isinstance(event, Close):
            await self._receive_close(event)
            return
        self._controls += 1
        if self._controls > self.limits.control_frames:
            now = trio.current_time()
            if now - self._controls_since < CONTROL_WINDOW:
                raise WebSocketError(CloseCode.POLICY, "too many control frames")
            self._controls = 1
            self._controls_since = now
        if isinstance(event, Ping):
            self._answering = event.payload

    def _answer(self) -> None:
        """Queue the answer to the last ping, unless much waits before it: then it goes with a later receive."""
        if self._answering is not None and self._stream.pending <= PONG_ROOM:
            if not self._close_sent:
                self._queue(self._encoder.pong(self._answering))
            self._answering = None

    def _queue(self, frame: bytes) -> None:
        """Have a control frame leave with the next send, or the receive that comes now."""
        try:
            self._stream.write(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError, BufferError):
            pass  # what the peer sent before can still be received

    # Keeping alive

    def _set_alarm(self) -> None:
        self._stream.deadline = trio.current_time() + self._keep_alive.interval

    async def _look(self) -> None:
        """The alarm has rung: see whether the peer is there."""
        if self._close_sent:
            self._end(CloseCode.ABNORMAL, _UNANSWERED)
            return
        stream, decoder, timeouts = self._stream, self._decoder, self.timeouts
        now = trio.current_time()
        verdict = self._keep_alive.look(
            now, bytes_in=stream.bytes_in, messages=decoder.messages, is_within_message=decoder.is_within_message
        )
        match verdict:
            case Verdict.LATE:
                stream.deadline = now + LAST_CHANCE
            case Verdict.DEAD:
                self._end(CloseCode.ABNORMAL, f"no answer to a ping for {timeouts.pong:g} seconds")
            case Verdict.SLOW:
                await self._fail(CloseCode.POLICY, f"a message that took longer than {timeouts.message:g} seconds")
            case Verdict.IDLE:
                await self._begin_closing(CloseCode.GOING_AWAY, f"no message for {timeouts.idle:g} seconds")
            case Verdict.FINE | Verdict.SILENT:
                # Not behind a large message that is still on its way: how long that may take, the stream's limit tells.
                if verdict is Verdict.SILENT and stream.pending <= PONG_ROOM:
                    self._queue(self._encoder.ping())
                    self._keep_alive.asked(now)
                self._set_alarm()

    # Sending

    async def send(self, message: str | Data) -> None:
        """Send a message: `str` as text, bytes as binary. A checkpoint only if it must wait, and now and then.

        The message leaves at the end of this turn of the event loop at the latest; the next one waits until it has, so
        that a peer that does not read makes the sender wait. Raises `WebSocketClosed` when it has closed, or is about
        to, and `LocalProtocolError` for text that UTF-8 cannot hold.
        Cancelled while it waits for its turn, nothing has been sent; later, it leaves with what is sent next, or the
        sending side is broken.
        """
        if self._sending:
            await self._wait_turn()
        else:
            self._sending = True
        try:
            self._check_can_send()
            stream = self._stream
            # Before it is compressed: what was, has to leave, since the next message may refer to it.
            while stream.pending and stream.pending + _most_bytes(message) > MUCH:
                await stream.flush()
            if not stream.write_soon(self._encoder.message(message)):
                await stream.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise WebSocketClosed(CloseCode.ABNORMAL, str(error)) from None
        finally:
            if self._waiting:
                self._pass_turn()
            else:
                self._sending = False

    def _check_can_send(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._close_sent:
            raise WebSocketClosed(CloseCode.ABNORMAL, "this side is closing")

    async def ping(self, payload: bytes = b"") -> None:
        """Send a ping of at most 125 bytes. Nobody needs that for keeping alive. Raises as `send` does."""
        frame = self._encoder.ping(payload)
        await self._take_turn()
        try:
            self._check_can_send()
            await self._send_control(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise WebSocketClosed(CloseCode.ABNORMAL, str(error)) from None
        finally:
            self._pass_turn()

    async def _send_control(self, frame: bytes) -> None:
        """Send a frame behind what waits, which can be a large message whose sender was cancelled."""
        await self._stream.flush()
        self._stream.write(frame)
        await self._stream.flush()

    async def _take_turn(self) -> None:
        if self._sending:
            await self._wait_turn()
        else:
            self._sending = True

    async def _wait_turn(self) -> None:
        """Wait until the tasks that came before have sent; from then on it is the caller's turn."""
        if self._waiting is None:
            self._waiting = deque()
        waiting, turn = self._waiting, trio.Event()
        waiting.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._pass_turn()
            else:
                waiting.remove(turn)
            raise

    def _pass_turn(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._sending = False

    # The end

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close: send a Close frame, wait `timeouts.close` at most for the peer's, end the connection.

        Messages that still come are dropped; a task that receives sees the end. Closing twice is fine, and so is
        closing what the peer has closed. Raises `LocalProtocolError` for a code that may not be sent (see
        `wire.may_be_sent`) or a reason of more than 123 bytes in UTF-8. Cancelled, the connection is broken off.
        """
        self._encoder.close(code, reason)  # raises before anything is changed
        try:
            if self._failure is None:
                await self._begin_closing(code, reason)
            if self._receiving:
                await self._wait_ended()
            else:
                await self._receive_to_the_end()
            await self._finish()
        except BaseException:
            self._end(CloseCode.ABNORMAL, "the connection was broken off")
            await self._stream.abort()
            raise

    async def _receive_to_the_end(self) -> None:
        try:
            while True:
                await self.receive()
        except WebSocketClosed:
            pass

    async def _begin_closing(self, code: int, reason: str) -> None:
        """Send a Close frame, if none was sent. From now on the peer has `timeouts.close` to answer."""
        if not self._close_sent:
            self._close_sent = True
            self._stream.deadline = trio.current_time() + self.timeouts.close
            await self._send_close(code, reason)

    async def _send_close(self, code: int, reason: str) -> None:
        """Send the last frame of this side, unless the peer does not read."""
        self._close_sent = True
        frame = self._encoder.close(code, reason)
        with trio.move_on_after(self.timeouts.close):
            await self._take_turn()
            try:
                await self._send_control(frame)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._pass_turn()

    async def _receive_close(self, close: Close) -> None:
        """The peer's Close: answered with the same code, unless it is the answer to ours (RFC 6455 section 5.5.1)."""
        try:
            if not self._close_sent:
                await self._send_close(close.code, "")
        finally:
            self._end(close.code, close.reason)

    async def _fail(self, code: CloseCode, problem: str) -> None:
        """The peer has broken the rules: tell it so, and wait for nothing (RFC 6455 section 7.1.7)."""
        try:
            if not self._close_sent:
                await self._send_close(code, problem[:MAX_REASON])
        finally:
            self._end(code, problem)

    def _end(self, code: int, reason: str) -> None:
        """Nothing more will be received."""
        if self._failure is None:
            self._failure = WebSocketClosed(code, reason)
            self.close_code = code
            self.close_reason = reason
            self._stream.deadline = math.inf
            if self._ended is not None:
                self._ended.set()

    async def _wait_ended(self) -> None:
        """Wait until the task that receives has seen the end; no longer than the peer has for its Close."""
        if self._failure is None:
            self._ended = self._ended or trio.Event()
            with trio.move_on_after(self.timeouts.close):
                await self._ended.wait()

    async def _finish(self) -> None:
        """End the connection: a server first, a client when the server has (RFC 6455 section 7.1.1)."""
        stream = self._stream
        if self._finished:
            return
        self._finished = True
        if self._receiving or self._sending:
            await stream.abort()  # somebody is still stuck in it
            return
        if self.close_code != CloseCode.ABNORMAL:
            if self.is_client:
                await self._await_end()
            else:
                await stream.linger()
        await stream.aclose()

    async def _await_end(self) -> None:
        stream = self._stream
        stream.deadline = trio.current_time() + self.timeouts.close
        before = stream.bytes_in
        try:
            while await stream.receive_some() and stream.bytes_in - before < self.limits.message:
                pass
        except (ReceiveTimeout, Draining, trio.BrokenResourceError):
            pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None:
            await self.close()
        elif isinstance(exc, Exception):
            await self.close(CloseCode.INTERNAL_ERROR)
        else:
            await self._break_off(CloseCode.GOING_AWAY if isinstance(exc, trio.Cancelled) else CloseCode.INTERNAL_ERROR)

    async def _break_off(self, code: CloseCode) -> None:
        """Cancelled: say so if that takes no time, and be gone."""
        if not self._close_sent and not self._sending:
            self._close_sent = True
            self._queue(self._encoder.close(code))
        self._end(CloseCode.ABNORMAL, "the connection was broken off")
        await self._stream.aclose()


def _most_bytes(message: str | Data) -> int:
    """How long `message` may be in UTF-8, at most."""
    return 4 * len(message) if isinstance(message, str) else memoryview(message).nbytes


class _MaskKeys:
    """Four random bytes for each frame of a client, from the system's generator (RFC 6455 section 10.3)."""

    __slots__ = ("_at", "_bytes")

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def next(self) -> bytes:
        if self._at == len(self._bytes):
            self._bytes = os.urandom(1024)
            self._at = 0
        self._at += 4
        return self._bytes[self._at - 4 : self._at]
