"""One message on its way from a client to a delivery: what is counted and looked at as it passes, and how it ends.

Theory of operation
===================

A transaction of the delivery's is ended exactly once, by `commit`, `commit_each` or `abort`, whatever happens. What
could go wrong, and why it does not:

- *The delivery says no in the middle, or fails.* The transaction is aborted at once and the refusal kept; what the
  client still sends is counted and thrown away, and the reply comes when its time has come.
- *The client vanishes, or the connection is cancelled.* Whoever has the message in hand calls `abort` in any case;
  it does nothing where the end has come already. A `commit` that raises has cleaned up behind itself.
- *A header without an end.* It is held in memory until it is whole, to a limit. Everything behind it passes as it
  comes.
- *An endless content.* What was refused is read to a limit, and then the connection has to close.
"""

from __future__ import annotations

import errno
import logging
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from asyncnet.errors import LimitExceeded
from asyncnet.smtp.content import LineCheck
from asyncnet.smtp.delivery import Client, CommitsEach, Delivery, Refused, Transaction
from asyncnet.smtp.envelope import Envelope, Recipient
from asyncnet.smtp.header import HeaderTooLong, HeaderWatch
from asyncnet.smtp.limits import SMTPLimits

logger = logging.getLogger("asyncnet.smtp")

T = TypeVar("T")


class Incoming:
    """A message that comes in: made by `start`; `add`, `begin`, `write` and one of the ends follow."""

    def __init__(self, transaction: Transaction, envelope: Envelope, client: Client, limits: SMTPLimits) -> None:
        self.envelope = envelope
        self.client = client
        self.recipients: list[Recipient] = []
        """Those that were accepted."""
        self.refusal: Refused | None = None
        """Why the content is not taken; None: it is, as yet."""
        self.size = 0
        """How many bytes of content have come."""
        self.id = f"{random.getrandbits(64):016x}"
        """What its Received field and the log call it: no secret."""
        self.begun = math.inf
        """When its content was begun."""
        self.lines: LineCheck | None = None
        """What looks at its lines, since it comes by BDAT."""
        self._transaction = transaction
        self._limits = limits
        self._is_over = False
        self._header: HeaderWatch | None = HeaderWatch(limits.header)
        self._added: Callable[[HeaderWatch], bytes] | None = None

    async def add(self, recipient: Recipient) -> None:
        """Raises `Refused`."""
        await step(self._transaction.add(recipient))
        self.recipients.append(recipient)

    def begin(self, added: Callable[[HeaderWatch], bytes]) -> None:
        """The content comes next. `added` tells what is to stand in front of it, once its header is known."""
        self.begun = trio.current_time()
        self._added = added

    async def write(self, content: bytes) -> None:
        """The next piece of the content. Raises `LimitExceeded` when more of a refused one has come than is read."""
        self.size += len(content)
        if self.size > self._limits.message:
            await self.refuse(_too_large(self._limits))
        if self.refusal is not None:
            if self.size > self._limits.refused_content:
                raise LimitExceeded(self._limits.refused_content)
        elif self._header is None:
            await self._pass_on(content)
        elif content:
            await self._watch(self._header.feed, content)

    async def _watch(self, feed: Callable[..., bytes], *content: bytes) -> None:
        """Have the header looked at; what it held back passes when it is whole."""
        header = self._header
        assert header is not None, "it is not whole yet"
        assert self._added is not None, "begin() comes first"
        try:
            held = feed(*content)
        except HeaderTooLong:
            await self.refuse(Refused(552, "5.3.4", f"The header has more than {self._limits.header} bytes."))
            return
        if not header.is_whole:
            return
        self._header = None
        if header.names.count(b"received") > self._limits.hops:
            await self.refuse(Refused(554, "5.4.6", "Too many hops: this message goes in circles."))
        elif len(header.names) > self._limits.header_fields:
            await self.refuse(Refused(554, "5.6.0", f"The header has more than {self._limits.header_fields} fields."))
        else:
            await self._pass_on(self._added(header) + held)

    async def _pass_on(self, content: bytes) -> None:
        try:
            await step(self._transaction.write(content))
        except Refused as refusal:
            await self.refuse(refusal)

    async def refuse(self, refusal: Refused) -> None:
        """The content is not taken, and what still comes of it is thrown away. The first reason counts."""
        if self.refusal is None:
            self.refusal = refusal
            await self.abort()

    async def _finish(self) -> None:
        """All of the content has come. Raises `Refused` if it is not taken."""
        if self._header is not None and self.refusal is None:
            await self._watch(self._header.finish)
        if self.refusal is not None:
            raise self.refusal
        self._is_over = True

    async def commit(self) -> str:
        """Hand the message over; returns what the reply says. Raises `Refused`."""
        await self._finish()
        return await step(self._transaction.commit())

    async def commit_each(self) -> Sequence[str | Refused]:
        """The same for LMTP: an outcome for each recipient."""
        try:
            await self._finish()
            if isinstance(self._transaction, CommitsEach):
                outcomes = await step(self._transaction.commit_each())
                if len(outcomes) != len(self.recipients):  # the client would take replies for those of others
                    logger.error("a delivery has %d outcomes for %d recipients", len(outcomes), len(self.recipients))
                    raise _failed()
                return outcomes
            return [await step(self._transaction.commit())] * len(self.recipients)
        except Refused as refusal:
            return [refusal] * len(self.recipients)

    async def abort(self) -> None:
        """It will not be completed. Does nothing if it has ended."""
        if not self._is_over:
            self._is_over = True
            try:
                await self._transaction.abort()
            except Exception:
                logger.exception("a delivery could not be aborted")


async def start(delivery: Delivery, envelope: Envelope, client: Client, limits: SMTPLimits) -> Incoming:
    """Begin a transaction. Raises `Refused`, also for a message that is announced to be too large (RFC 1870)."""
    if envelope.size is not None and envelope.size > limits.message:
        raise _too_large(limits)
    return Incoming(await step(delivery.start(envelope, client)), envelope, client, limits)


async def step(awaitable: Awaitable[T]) -> T:
    """Await a step of a delivery's. Raises `Refused`, also for what has failed: the log hears of that, not the client.

    This is what `Delivery` promises to those who write one: their faults are the message's, not the connection's.
    """
    try:
        return await awaitable
    except Refused:
        raise
    except Exception as exc:
        if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
            logger.error("no room for a message: %s", exc)
            raise Refused(452, "4.3.1", "There is no room at the moment.") from exc
        logger.exception("a delivery has failed")
        raise _failed() from exc


def _failed() -> Refused:
    return Refused(451, "4.3.0", "A local error: try later.")


def _too_large(limits: SMTPLimits) -> Refused:
    return Refused(552, "5.3.4", f"A message has at most {limits.message} bytes.")
