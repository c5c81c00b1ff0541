"""`LocalParts`: which mailbox an address's local part means, where that is not its name letter by letter."""

from __future__ import annotations

from asyncnet.mailbox.storage import Mailbox, Mailboxes


class LocalParts:
    """The `Mailboxes` of `inner` by local parts: "Anna" is anna's unless there is an Anna, and so is "anna+lists".

    `separator` is what stands before that detail (RFC 5233); None: there is none.
    """

    def __init__(self, inner: Mailboxes, *, separator: str | None = "+") -> None:
        self._inner = inner
        self._separator = separator

    async def of(self, user: str) -> Mailbox:
        base = user.partition(self._separator)[0] if self._separator else user
        for name in dict.fromkeys((user, user.lower(), base, base.lower())):
            if name:
                try:
                    return await self._inner.of(name)
                except LookupError:
                    pass
        raise LookupError(f"{user!a} has no mailbox")
