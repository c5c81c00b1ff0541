"""The client's control connection: commands out, replies in, each with the command that it answers.

Theory of operation
===================

A server answers commands in their order, each with one final reply, preliminary ones (1xx) before it. `_owed` is how
many final replies are still to come. It is counted up in the step that queues a command and down in the step that
takes its reply, with no checkpoint between. What could go wrong, and why it does not:

- *A command whose caller was cancelled.* It leaves all the same, and its reply stays owed: `settle` reads it and drops
  it before the next command, so that no reply is taken for another's.
- *A transfer that was broken off.* Its data connection was reset. Most servers say so in one reply, some in none
  (pure-ftpd), and one to ABOR follows. So a PWD comes behind it: no other reply begins with 257.
- *A NOOP in the middle of a transfer.* Servers answer it at once, behind the transfer's reply, or never.
  `settle_transfer` knows the one from the other by their codes; when some are missing, a PWD comes behind as well.
- *A reply that nobody asked for* is dropped before the next command is sent; a 421 among them is heard.
- *A server that says nothing, or does not end.* Each reply has a deadline and a limit; past them the connection is
  closed: a reply that came later would be taken for the next one's.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from asyncnet.alarms import set_alarm
from asyncnet.errors import AsyncnetError, ReceiveTimeout, RemoteProtocolError
from asyncnet.ftp.wire import MAX_LINE, format_command, strip_telnet
from asyncnet.replies import Reply, ReplyParser, ServiceClosing, error_for
from asyncnet.stream import Stream

MAX_UNASKED = 256
"""How many replies may stand before the one that is looked for behind a transfer that was broken off."""

MAX_PRELIMINARY = 64
"""How many 1xx replies may stand before a final one."""

_SHOWN = 300
_NOOP_ANSWERS = frozenset({200, 500, 501, 502, 503, 530})
"""What servers answer to a NOOP in the middle of a transfer; a transfer itself ends by none of these."""


class NotSupported(AsyncnetError):
    """The server does not have what this needs."""


class _Resync(enum.Enum):
    """How far it is with finding the place in the replies behind a transfer that was broken off."""

    NOT_NEEDED = 0
    ABOR = 1
    """ABOR is to be sent."""
    ANSWER = 2
    """It was; a final reply is to come, to it or to the transfer."""
    NOOPS = 3
    """PWD is to be sent: some NOOPs have not been answered, and perhaps never will be."""
    PWD = 4
    """PWD was sent; all replies before its own are dropped."""


class Control:
    """A control connection. `timeout` in seconds is for each reply."""

    def __init__(self, stream: Stream, timeout: float) -> None:
        self.stream = stream
        self.timeout = timeout
        self._parser = ReplyParser(every_line_coded=False)
        self._owed = 0
        self._noops = 0  # sent during the transfer that runs, and not answered yet
        self._resync = _Resync.NOT_NEEDED
        self._busy = False
        self.has_restart = False
        """A REST was sent, and no transfer after it: servers keep it for the next one, whatever comes between."""

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Within it, nobody else may send commands."""
        if self.stream.is_closed:
            raise trio.ClosedResourceError("this FTP client is closed")
        if self._busy:
            raise trio.BusyResourceError("this FTP client is in use: for more at once, open another one")
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    async def ask(self, verb: str, argument: str | None = None, *, secret: bool = False) -> Reply:
        """Send a command, and return its final reply whatever that says. Within `claim` only."""
        await self._send(verb, argument, secret=secret)
        reply = await self.receive_final()
        self._owed -= 1
        return reply

    async def expect(self, verb: str, argument: str | None = None, *, secret: bool = False) -> Reply:
        """The same, but raise ReplyError unless the reply is 2xx."""
        reply = await self.ask(verb, argument, secret=secret)
        if not reply.is_success:
            raise error_for(reply, describe(verb, argument, secret=secret))
        return reply

    async def begin_transfer(self, verb: str, argument: str | None) -> Reply:
        """Send a command that opens a data connection, and return its first reply, a 1xx; raise ReplyError for others.

        Its final reply is owed from then on: `settle_transfer`.
        """
        await self._send(verb, argument)
        self.has_restart = False
        try:
            reply = await self.receive()
        except BaseException:
            self.abandon_transfer()
            raise
        if reply.is_preliminary:
            return reply
        self._owed -= 1
        raise error_for(reply, describe(verb, argument))

    async def _send(self, verb: str, argument: str | None, *, secret: bool = False) -> None:
        """Queue a command, which the receive of its reply sends."""
        line = format_command(verb, argument)
        await self.settle()
        await self._drop_unasked()
        if secret:
            with self.stream.secret():
                self.stream.write(line)
        else:
            self.stream.write(line)
        self._owed += 1

    def abandon_transfer(self) -> None:
        """The transfer that has begun was broken off."""
        self._owed -= 1
        self._resync = _Resync.ABOR

    async def settle(self) -> Reply | None:
        """Receive and drop what is owed to nobody any more; returns the first reply to what was broken off, if any."""
        while self._owed:
            await self.receive_final()
            self._owed -= 1
        first: Reply | None = None
        # Each step is taken together with what it sends or receives, so that a cancelled one is gone on with.
        if self._resync is _Resync.ABOR:
            self.stream.write(b"ABOR\r\n")
            self._resync = _Resync.ANSWER
        if self._resync is _Resync.ANSWER:
            first = await self.receive_final()
            self._resync = _Resync.NOOPS
        if self._resync is _Resync.NOOPS:
            self.stream.write(b"PWD\r\n")
            self._resync = _Resync.PWD
        for _ in range(MAX_UNASKED + self._noops):
            if self._resync is _Resync.NOT_NEEDED:
                self._noops = 0
                return first
            if (await self.receive_final()).code == 257:
                self._resync = _Resync.NOT_NEEDED
        await self.abort()
        raise RemoteProtocolError("the FTP server does not answer PWD behind a transfer that was broken off")

    async def settle_transfer(self) -> Reply:
        """The final reply of a transfer, whose data connection has ended. Those of NOOPs may come before or after."""
        doubtful: Reply | None = None
        try:
            while True:
                reply = await self.receive_final()
                if not self._noops or reply.code not in _NOOP_ANSWERS:
                    break
                self._noops -= 1
                if reply.code != 200:
                    doubtful = reply
            self._owed -= 1
        finally:
            if self._noops:
                self._resync = _Resync.NOOPS
        if reply.code == 200 and doubtful is not None:
            return doubtful  # that was the transfer's, and this is a NOOP's
        return reply

    async def hear_transfer(self) -> Reply | None:
        """What the server says of a transfer that waits for its data connection: the final reply, or None for a 1xx."""
        reply = await self.receive()
        if reply.is_preliminary:
            return None
        self._owed -= 1
        return reply

    async def receive_final(self) -> Reply:
        """The next reply that is not 1xx."""
        for _ in range(MAX_PRELIMINARY):
            reply = await self.receive()
            if not reply.is_preliminary:
                return reply
        await self.abort()
        raise RemoteProtocolError(f"{MAX_PRELIMINARY} preliminary replies and no other")

    async def receive(self) -> Reply:
        """The next reply. A 421 closes the connection and is raised, whatever was asked."""
        self.stream.deadline = trio.current_time() + self.timeout
        try:
            while True:
                line = await self.stream.receive_until(b"\n", limit=MAX_LINE)
                reply = self._parser.feed(strip_telnet(line))
                if reply is not None:
                    break
        except ReceiveTimeout:
            await self.abort()
            raise TimeoutError(f"the FTP server has not answered for {self.timeout:g} seconds") from None
        except (RemoteProtocolError, trio.BrokenResourceError):
            await self.abort()
            raise
        if reply.code == 421:
            await self.abort()
            raise ServiceClosing(reply)
        return reply

    async def _drop_unasked(self) -> None:
        """Drop replies that have come though nothing was asked: taken for answers, they would shift all that follow."""
        try:
            self.stream.read_ahead_now(MAX_LINE)
            while (line := self.stream.take_until(b"\n", limit=MAX_LINE)) is not None:
                reply = self._parser.feed(strip_telnet(line))
                if reply is not None and reply.code == 421:
                    raise ServiceClosing(reply)
        except (ServiceClosing, RemoteProtocolError, trio.BrokenResourceError):
            await self.abort()
            raise

    def send_noop(self) -> None:
        """Send a NOOP in the middle of a transfer, as far as that goes without waiting."""
        try:
            self.stream.write_through(b"NOOP\r\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError, BufferError):
            return  # the next receive says so
        self._noops += 1

    async def abort(self) -> None:
        """Close at once."""
        await self.stream.abort()


class KeepAlive:
    """Sends a NOOP every `seconds` while a transfer runs, so that firewalls do not forget the control connection."""

    def __init__(self, control: Control, seconds: float) -> None:
        self._control: Control | None = control
        self._seconds = seconds
        set_alarm(trio.current_time() + seconds, self)

    def ring(self, now: float) -> None:
        if self._control is not None:
            self._control.send_noop()
            set_alarm(now + self._seconds, self)

    def forget_alarms(self) -> None:
        self._control = None

    def stop(self) -> None:
        """The transfer is over."""
        self._control = None


def describe(verb: str, argument: str | None, *, secret: bool = False) -> str:
    """A command for a message, without what is nobody's business."""
    if argument is None:
        return verb
    return f"{verb} ***" if secret else f"{verb} {argument[:_SHOWN]}"
