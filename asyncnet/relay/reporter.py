"""`Reporter`: notes in the queue what became of a message, and puts what its sender is to hear of it there as well.

Both are one transaction: no failure is noted without its report, and none is reported twice.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from contextlib import aclosing

from asyncnet.printable import printable
from asyncnet.relay.bounces import MAX_HEADERS, Action, Fate, Report, Subject, is_wanted, make_report, returned_part
from asyncnet.relay.incoming import QueueTransaction
from asyncnet.relay.messages import Claim, Outcome, QueuedRecipient, State
from asyncnet.relay.queue import Queue
from asyncnet.relay.targets import Verdict
from asyncnet.smtp.delivery import Client
from asyncnet.smtp.envelope import Returned
from asyncnet.transports.address import NOWHERE

logger = logging.getLogger("asyncnet.relay")

EXPIRED = "4.4.7"
"""The status of what was tried until it was too late: RFC 3463 section 3.5."""


class Reporter:
    """`host` is what reports call us."""

    def __init__(self, queue: Queue, host: str) -> None:
        self._queue = queue
        self._host = host

    async def note(self, claim: Claim, recipients: Sequence[QueuedRecipient], verdicts: Sequence[Verdict]) -> None:
        """Have the queue know the verdict of each of `recipients`; the claim is over then.

        Raises what `Queue.record` and `Queue.read` raise. Then nothing is noted, and nothing reported.
        """
        outcomes, fates = [], []
        for queued, verdict in zip(recipients, verdicts, strict=True):
            outcome, fate = self._judge(claim, queued, verdict)
            outcomes.append(outcome)
            if fate is not None and is_wanted(claim.message.envelope, queued.recipient, fate.action):
                fates.append(fate)
        reports = [await self._report(claim, fates)] if fates else []
        await self._record(claim, recipients, outcomes, reports)

    async def note_only(self, claim: Claim, recipients: Sequence[QueuedRecipient], verdicts: Sequence[Verdict]) -> None:
        """The same, for verdicts that no report can be made of: whoever has it does not get it again, and all others
        are tried again until their sender can be told. Raises what `Queue.record` raises."""
        outcomes = [
            Outcome(
                queued.position,
                State.DELIVERED if verdict.reply.is_success else State.PENDING,
                verdict.reply,
                verdict.host,
            )
            for queued, verdict in zip(recipients, verdicts, strict=True)
        ]
        await self._record(claim, recipients, outcomes, ())

    async def _record(
        self,
        claim: Claim,
        recipients: Sequence[QueuedRecipient],
        outcomes: Sequence[Outcome],
        reports: Sequence[QueueTransaction],
    ) -> None:
        is_finished = await self._queue.record(claim, outcomes, reports=reports)
        for queued, outcome in zip(recipients, outcomes, strict=True):
            logger.info(
                "%s: %s for <%s>: %s",
                claim.message.id,
                outcome.state.value,
                printable(str(queued.recipient.address)),
                printable(f"{outcome.remote or 'here'}: {outcome.reply}"),
            )
        for report in reports:
            logger.info("%s: its sender is told by %s", claim.message.id, report.id)
        if is_finished:
            logger.info("%s: done", claim.message.id)

    def _judge(self, claim: Claim, queued: QueuedRecipient, verdict: Verdict) -> tuple[Outcome, Fate | None]:
        """What is to be noted of one recipient, and what is to be said."""
        now, retry, message = self._queue.clock(), self._queue.retry, claim.message
        status = verdict.reply.enhanced or f"{verdict.reply.code // 100}.0.0"
        state, action = State.PENDING, None
        if verdict.reply.is_success:
            state = State.DELIVERED
            if not verdict.tells_success:
                action = Action.DELIVERED if verdict.is_delivered else Action.RELAYED
        elif verdict.reply.is_permanent_failure:
            state, action = State.FAILED, Action.FAILED
        elif retry.is_given_up(
            expires=message.expires,
            attempts=queued.attempts + 1,
            now=now,
            before=message.arrived if queued.last_attempt is None else queued.last_attempt,
        ):
            state, action, status = State.FAILED, Action.FAILED, EXPIRED
        elif retry.is_warning_due(arrived=message.arrived, now=now, warned=queued.warned):
            action = Action.DELAYED
        outcome = Outcome(queued.position, state, verdict.reply, verdict.host, warned=action is Action.DELAYED)
        if action is None:
            return outcome, None
        return outcome, Fate(
            queued.recipient,
            action,
            status,
            f"{verdict.reply.code} {verdict.reply.text}",
            verdict.host,
            attempted=now,
            retried_until=message.expires if action is Action.DELAYED else None,
        )

    async def _report(self, claim: Claim, fates: Sequence[Fate]) -> QueueTransaction:
        """The report for all who are to hear of it, complete but for its commit."""
        is_whole = returned_part(claim.message.envelope, claim.message.size, fates) is Returned.FULL
        content = await self._beginning(claim, claim.message.size if is_whole else MAX_HEADERS)
        subject = Subject(claim.message.envelope, claim.message.arrived, content, is_whole)
        made = make_report(
            subject, fates, host=self._host, now=self._queue.clock(), token=f"{claim.message.id}.{secrets.token_hex(8)}"
        )
        return await self._begin(made)

    async def _beginning(self, claim: Claim, count: int) -> bytes:
        gathered = bytearray()
        async with aclosing(self._queue.read(claim)) as pieces:
            async for piece in pieces:
                gathered += piece
                if len(gathered) >= count:
                    break
        return bytes(gathered[:count])

    async def _begin(self, made: Report) -> QueueTransaction:
        transaction = await self._queue.report(made.envelope, Client(NOWHERE, self._host))
        try:
            await transaction.add(made.recipient)
            await transaction.write(made.content)
        except BaseException:
            await transaction.abort()
            raise
        return transaction
