"""The client's connection: commands out, responses in, each with the command that it answers.

A server answers commands in their order, and nothing in POP3 tells one response from another. What could go wrong, and
why it does not:

- *A command or a response is broken off*, by cancelling, by a timeout, by a caller who has enough. The connection is
  closed: a response that came later would be taken for the next one's, and a message's lines for responses.
- *Something comes that nobody asked for.* Before each command what has come is looked at, and ends the connection.
- *Endless lines, endless lists, endless messages.* The first two have limits; a message is handed on piece by piece,
  and nothing is made as large as the server says that it will be.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import trio

from asyncnet.errors import (
    AsyncnetError,
    EndOfStream,
    IncompleteRead,
    LocalProtocolError,
    ReceiveTimeout,
    RemoteProtocolError,
)
from asyncnet.pop3.wire import DotUnstuffer, Reply, format_command, parse_reply, strip_end
from asyncnet.printable import printable
from asyncnet.stream import Stream

_T = TypeVar("_T")

MAX_LINE: Final = 4096
"""The longest line of a response and of a list, in bytes: RFC 1939 has 512. Lines of messages have no limit."""

MAX_CHALLENGE: Final = 16_384
"""The longest challenge in a login, in bytes: RFC 5034 section 4 has 12288."""

_SHOWN = 300


class ReplyError(AsyncnetError):
    """The server has said no. `reply` is how, `command` to what."""

    def __init__(self, reply: Reply, command: str) -> None:
        self.reply = reply
        self.command = command
        said = printable(str(reply)) or "no"
        said = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}…"
        super().__init__(f"{command}: the server says {said}")

    @property
    def code(self) -> str:
        """IN-USE, LOGIN-DELAY, SYS/TEMP, SYS/PERM, AUTH, or what else the server has; "" if there is none."""
        return self.reply.code

    @property
    def is_transient(self) -> bool:
        """Whether the server says that the same may succeed later."""
        return self.code in ("IN-USE", "LOGIN-DELAY", "SYS/TEMP")


class Control:
    """A connection. `timeout` in seconds is for each response, and for each piece of a message."""

    def __init__(self, stream: Stream, timeout: float) -> None:
        self.stream = stream
        self.timeout = timeout
        self._busy = False

    @asynccontextmanager
    async def claim(self) -> AsyncIterator[None]:
        """Within it, nobody else may send commands. Every error but the server's no and our own closes the client."""
        if self.stream.is_closed:
            raise trio.ClosedResourceError("this POP3 client is closed")
        if self._busy:
            raise trio.BusyResourceError("this POP3 client is in use: for more at once, open another one")
        self._busy = True
        try:
            yield
        except (ReplyError, LocalProtocolError):
            raise  # we know where we are
        except ReceiveTimeout:
            await self.stream.abort()
            raise TimeoutError(f"the POP3 server has said nothing for {self.timeout:g} seconds") from None
        except BaseException:
            await self.stream.abort()
            raise
        finally:
            self._busy = False

    async def ask(self, verb: str, argument: str | None = None, *, secret: bool = False) -> Reply:
        """Send a command, and return the response to it. Raises ReplyError if that is a no. Within `claim` only."""
        command = verb if argument is None or secret else f"{verb} {argument}"
        if not secret:
            return self.positive(parse_reply(await self.send_and_receive(verb, argument)), command)
        with self.stream.secret():
            return self.positive(parse_reply(await self.send_and_receive(verb, argument)), command)

    async def send_and_receive(self, verb: str, argument: str | None, limit: int = MAX_LINE) -> bytes:
        """Send a command, and return the line that answers it."""
        line = format_command(verb, argument)
        self._check_nothing_unasked()
        self.stream.write(line)
        return await self.receive_line(limit)

    @staticmethod
    def positive(reply: Reply, command: str) -> Reply:
        """`reply`, if it is a yes; raises ReplyError otherwise."""
        if not reply.is_positive:
            raise ReplyError(reply, printable(command))
        return reply

    def _check_nothing_unasked(self) -> None:
        """A response that came before its command would be taken for the answer to it."""
        self.stream.read_ahead_now(MAX_LINE)
        if self.stream.buffered:
            said = self.stream.take(min(self.stream.buffered, 100))
            raise RemoteProtocolError(f"the POP3 server says something unasked: {said!r}")

    async def receive_line(self, limit: int = MAX_LINE) -> bytes:
        """The next line, without its end."""
        self.stream.deadline = trio.current_time() + self.timeout
        return strip_end(await self.stream.receive_until(b"\n", limit=limit))

    async def receive_list(self, parse: Callable[[bytes], _T], most: int) -> list[_T]:
        """The lines behind a response, each as `parse` reads it: a line may be long, and what it says is short.

        Raises `RemoteProtocolError` for more than `most`.
        """
        found: list[_T] = []
        while (line := await self.receive_line()) != b".":
            if len(found) >= most:
                raise RemoteProtocolError(f"a list of more than {most} lines")
            found.append(parse(line.removeprefix(b".")))
        return found

    async def receive_piece(self, unstuffer: DotUnstuffer) -> bytes:
        """The next piece of a message, b"" at its end."""
        while not unstuffer.is_over:
            self.stream.deadline = trio.current_time() + self.timeout
            data = await self.stream.receive_some()
            if not data:
                raise IncompleteRead(b"")
            piece = unstuffer.feed(data)
            self.stream.unread(unstuffer.rest)
            if piece:
                return piece
        return b""


async def heard(control: Control) -> Reply:
    """The greeting. Raises ReplyError if it is none that lets us in."""
    try:
        return control.positive(parse_reply(await control.receive_line()), "the greeting")
    except EndOfStream:
        raise RemoteProtocolError("the POP3 server closes the connection without a greeting") from None
