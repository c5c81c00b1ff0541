"""A message on its way into the queue: what the queue is to a server, a `smtp.delivery.Transaction`."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import trio

from asyncnet.per_run import once_per_run
from asyncnet.relay.limits import QueueLimits
from asyncnet.relay.messages import Arrival, QueuedMessage, QueuedRecipient, format_id
from asyncnet.relay.retry import RetryPolicy
from asyncnet.relay.spool import ContentWriter, Spool, new_checksum
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.delivery import Client, Refused
from asyncnet.smtp.envelope import Body, Envelope, Recipient

T = TypeVar("T")

logger = logging.getLogger(__name__)

THREADS = 16
"""How many threads read and write contents at a time, in one run of Trio."""

_limiter = once_per_run(lambda: trio.CapacityLimiter(THREADS))


async def in_thread(function: Callable[..., T], *args: object) -> T:
    """Call what waits for a disk."""
    return await trio.to_thread.run_sync(function, *args, limiter=_limiter())


def no_room() -> Refused:
    """What a client is told where there is no room on the disk."""
    return Refused(452, "4.3.1", "insufficient system storage, try again later")


@contextmanager
def refusing() -> Iterator[None]:
    """Has what fails for want of room refused to the client. Anything else is a fault."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            logger.warning("a message was refused: %s", error)
            raise no_room() from error
        raise


class QueueTransaction:
    """A message that comes in. Made by `Queue.start`.

    `accept` is called with the message when it is complete, and makes it the queue's.
    """

    def __init__(
        self,
        key: int,
        envelope: Envelope,
        client: Client,
        *,
        spool: Spool,
        limits: QueueLimits,
        retry: RetryPolicy,
        destination_of: Callable[[MailAddress], str],
        clock: Callable[[], float],
        accept: Callable[[Arrival], Awaitable[None]],
    ) -> None:
        self._key = key
        self._envelope = envelope
        self._client = client
        self._spool = spool
        self._limits = limits
        self._retry = retry
        self._destination_of = destination_of
        self._clock = clock
        self._accept = accept
        self._recipients: list[Recipient] = []
        self._buffer = bytearray()
        self._file: ContentWriter | None = None
        self._size = 0
        self._is_ascii = True
        self._checksum = new_checksum()
        self._is_open = True

    @property
    def id(self) -> str:
        """What the message will be called."""
        return format_id(self._key)

    async def add(self, recipient: Recipient) -> None:
        self._check_open()
        self._recipients.append(recipient)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        self._check_open()
        if len(self._buffer) + len(data) > self._limits.memory:
            with refusing():
                await in_thread(self._write_through, data)
        else:
            self._buffer += data  # and no checkpoint: whoever receives what it writes has had one
        self._size += len(data)

    def _check_open(self) -> None:
        if not self._is_open:
            raise trio.ClosedResourceError("this transaction was committed or aborted")

    def _write_through(self, data: bytes | bytearray | memoryview = b"") -> None:
        """Have all that has come in the file."""
        if self._file is None:
            self._file = self._spool.create(self._key)
        pieces = (self._buffer, data)
        for piece in pieces:
            self._look_at(piece)
        self._file.append(pieces)
        self._buffer = bytearray()  # another one: what an error's traceback refers to cannot be resized

    def _look_at(self, piece: bytes | bytearray | memoryview) -> None:
        """Find out what is to be known of the content."""
        self._checksum.update(piece)
        self._is_ascii = self._is_ascii and bytes(piece).isascii()

    async def commit(self) -> str:
        """As `smtp.delivery` has it. When it has been cancelled in time, the message is withdrawn and leaves nothing;
        when that was too late, it is in the queue, and this returns."""
        try:
            with refusing():
                await self._accept(await self.finish())
        except BaseException:
            await self.discard()
            raise
        return f"queued as {self.id}"

    async def finish(self) -> Arrival:
        """All has come: have the content on the disk, if it is a file. `commit`, or a report's `Queue.record`, then
        makes it known; else `discard` is to be called. Raises OSError."""
        self._check_open()
        if not self._recipients:
            raise Refused(554, "5.5.1", "no valid recipients")
        self._is_open = False
        if self._file is not None:
            await in_thread(self._finish_file)
        else:
            self._look_at(self._buffer)
        now = self._clock()
        recipients = (
            QueuedRecipient(position, recipient, self._destination_of(recipient.address), next_attempt=now)
            for position, recipient in enumerate(self._recipients)
        )
        message = QueuedMessage(
            key=self._key,
            envelope=self._true_envelope(),
            client=self._client,
            arrived=now,
            expires=now + self._retry.expiry,
            size=self._size,
            checksum=self._checksum.hexdigest(),
            in_file=self._file is not None,
        )
        return Arrival(message, tuple(recipients), None if self._file is not None else bytes(self._buffer))

    def _true_envelope(self) -> Envelope:
        """The envelope. Many a client does not say 8BITMIME; the hosts that the message goes to have to be told."""
        envelope = self._envelope
        if envelope.body is Body.SEVEN_BIT and not self._is_ascii:
            return replace(envelope, body=Body.EIGHT_BIT)
        return envelope

    def _finish_file(self) -> None:
        assert self._file is not None
        self._write_through()
        self._file.finish()

    async def abort(self) -> None:
        self._check_open()
        await self.discard()

    async def discard(self) -> None:
        """Leave nothing, whatever has been done. Does its work also when cancelled."""
        self._is_open = False
        self._buffer = bytearray()
        if self._file is not None:
            with trio.CancelScope(shield=True):  # without a deadline: the disk alone is waited for
                await in_thread(self._file.discard)
