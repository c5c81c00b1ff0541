"""The client's connection: commands out, replies in, each with the command that it answers.

Theory of operation
===================

A server answers commands in their order, each with one reply (RFC 5321 section 4.2, RFC 2920). `_owed` is how many are
still to come. It is counted up in the step that queues a command and down in the step that takes its reply, with no
checkpoint between. What could go wrong, and why it does not:

- *Something fails or is cancelled in the middle.* Whoever leaves a `turn` while replies are owed closes the connection:
  no reply is taken for another's, and no half of a message for the whole.
- *A reply before its command.* What has come where nothing is owed is a 421, which is heard, or an attack, or the rest
  of a reply that was longer than it should be: the connection is closed.
- *A reply in the middle of a message.* Whoever sends content looks for it before each piece that does not fit into the
  buffer, and while it waits; so a server that refuses and reads no more is heard at once.
- *A server that says nothing, or does not end.* Each reply has an absolute deadline and a limit.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from asyncnet.errors import AsyncnetError, ReceiveTimeout, RemoteProtocolError
from asyncnet.printable import printable
from asyncnet.replies import MAX_REPLY, Reply, ReplyParser, ServiceClosing, error_for
from asyncnet.smtp.client_limits import SMTPClientTimeouts
from asyncnet.smtp.wire import MAX_RECEIVED_REPLY_LINE
from asyncnet.stream import Stream

CORK = 64 * 1024
"""How much is queued before it is sent, in bytes: a whole small message leaves in one piece."""

_SHOWN = 300
_EARLY = "the message, before its end"


class NotSupported(AsyncnetError):
    """The server does not have what this needs. `enhanced` is what a report calls that: "5.6.3"."""

    def __init__(self, text: str, enhanced: str = "5.5.4") -> None:
        super().__init__(text)
        self.enhanced = enhanced


class Control:
    """A connection to a server."""

    def __init__(self, stream: Stream, timeouts: SMTPClientTimeouts) -> None:
        self.stream = stream
        self.timeouts = timeouts
        self._parser = ReplyParser(every_line_coded=True)
        self._owed = 0
        self._busy = False
        self._has_left = False  # the server, while content was being sent

    @property
    def is_idle(self) -> bool:
        """Whether it can be used, as far as one knows without asking: open, and the server has not spoken or left."""
        if self.stream.is_closed or self._busy:
            return False
        try:
            return not self.stream.read_ahead_now(1) and not self.stream.buffered
        except trio.BrokenResourceError:
            return False

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Within it, nobody else may send commands. Left while replies are owed, it closes the connection."""
        if self.stream.is_closed:
            raise trio.ClosedResourceError("this SMTP client is closed")
        if self._busy:
            raise trio.BusyResourceError("this SMTP client is in use: for more at once, open another one")
        self._busy = True
        try:
            yield
        except RemoteProtocolError:
            await self.abort()  # what else it says cannot be trusted
            raise
        finally:
            self._busy = False
            if self._owed and not self.stream.is_closed:
                await self.abort()

    def owe(self, count: int) -> None:
        """So many replies will come to what is not a command, but content."""
        self._owed += count

    async def write(self, line: bytes, *, secret: bool = False) -> None:
        """Queue a command, which the receive of its reply sends."""
        if not self._owed:
            await self._check_unasked()
        if secret:
            with self.stream.secret():
                self.stream.write(line)
        else:
            self.stream.write(line)
        self._owed += 1

    async def ask(self, line: bytes, command: str, *, seconds: float | None = None, secret: bool = False) -> Reply:
        """Send a command and return its reply whatever that says; 421 is raised as `ServiceClosing`."""
        await self.write(line, secret=secret)
        reply = await self.receive(command, seconds)
        if reply.code == 421:
            raise error_for(reply, command)
        return reply

    async def expect(self, line: bytes, command: str, *, seconds: float | None = None) -> Reply:
        """The same, but raise ReplyError unless the reply is 2yz."""
        reply = await self.ask(line, command, seconds=seconds)
        if not reply.is_success:
            raise error_for(reply, command)
        return reply

    async def receive(self, command: str, seconds: float | None = None) -> Reply:
        """The next reply, which is to `command`. A 421 closes the connection; what else fails does, too."""
        seconds = self.timeouts.command if seconds is None else seconds
        self.stream.deadline = trio.current_time() + seconds
        try:
            while True:
                line = await self.stream.receive_until(b"\n", limit=MAX_RECEIVED_REPLY_LINE)
                reply = self._parser.feed(line)
                if reply is not None:
                    break
            if not 2 <= reply.code // 100 <= 5:
                raise RemoteProtocolError(f"{reply.code} is no code of SMTP")
        except ReceiveTimeout:
            await self.abort()
            raise TimeoutError(f"the SMTP server has not answered {command} for {seconds:g} seconds") from None
        except (RemoteProtocolError, trio.BrokenResourceError):
            await self.abort()
            raise
        self._owed -= 1
        if reply.code == 421:
            await self.abort()
        return reply

    async def _check_unasked(self) -> None:
        """Refuse what has come though nothing was asked: taken for an answer, it would shift all that follow."""
        try:
            self.stream.read_ahead_now(MAX_REPLY)
            while (line := self.stream.take_until(b"\n", limit=MAX_RECEIVED_REPLY_LINE)) is not None:
                reply = self._parser.feed(line)
                if reply is not None and reply.code == 421:
                    raise error_for(reply, "nothing")
                if reply is not None:
                    raise RemoteProtocolError(f"a reply that nobody asked for: {printable(str(reply))[:_SHOWN]}")
            if self.stream.buffered or not self._parser.is_between:
                raise RemoteProtocolError("the beginning of a reply that nobody asked for")
        except (ServiceClosing, RemoteProtocolError, trio.BrokenResourceError):
            await self.abort()
            raise

    # Content

    async def send_content(self, data: bytes) -> Reply | None:
        """Queue some content, and send what is queued when that is much.

        None, or the reply that the server has sent before its time: it wants no more, and nothing more can be sent.
        """
        if self.stream.pending and self.stream.pending + len(data) > CORK:
            reply = await self._flush_unless_answered()
            if reply is not None:
                return reply
        self.stream.write(data)
        return None

    async def hear_early(self) -> Reply | None:
        """The reply to a message whose end has not been sent, if the server has begun one.

        Raises EndOfStream if it has left instead: then it cannot take the message any more.
        """
        try:
            has_ended = self.stream.read_ahead_now(1)
        except trio.BrokenResourceError:
            has_ended = True
        if not self.stream.buffered and not has_ended:
            return None
        return await self.receive(_EARLY, self.timeouts.quit)

    async def _flush_unless_answered(self) -> Reply | None:
        """Send what is queued, hearing what the server says meanwhile.

        The server has `timeouts.block` to take all of that (RFC 5321 section 4.5.3.2.5): nobody reads a message byte by
        byte for days.
        """
        self.stream.deadline = math.inf
        is_sent, failure = False, None
        if not self.stream.buffered:
            async with trio.open_nursery() as nursery:
                nursery.cancel_scope.deadline = trio.current_time() + self.timeouts.block
                nursery.start_soon(self._watch, nursery.cancel_scope)
                try:
                    await self.stream.flush()
                    is_sent = True
                except trio.BrokenResourceError as exc:
                    failure = exc
                nursery.cancel_scope.cancel()
        if not (self.stream.buffered or self._has_left or failure):
            if is_sent:
                return None
            await self.abort()
            raise TimeoutError(
                f"the SMTP server has not taken a piece of the message in {self.timeouts.block:g} seconds"
            )
        try:
            return await self.receive(_EARLY, self.timeouts.quit)
        except (RemoteProtocolError, trio.BrokenResourceError, TimeoutError) as exc:
            raise (failure or exc) from None

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Cancel the sending of content as soon as the server says something, or leaves."""
        try:
            data = await self.stream.receive_some()
        except trio.BrokenResourceError:
            data = b""
        self._has_left = not data
        self.stream.unread(data)
        scope.cancel()

    async def abort(self) -> None:
        """Close at once."""
        await self.stream.abort()
