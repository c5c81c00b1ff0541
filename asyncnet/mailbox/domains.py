"""`Domains`: mailboxes by the whole address, where a server serves more than one domain."""

from __future__ import annotations

from collections.abc import Mapping

from asyncnet.mailbox.storage import Mailbox, Mailboxes


class Domains:
    """The `Mailboxes` of each domain: `Domains({"example.org": Maildirs("/srv/mail/example.org")})`.

    Users are addresses, "anna@example.org". A domain's capital letters do not matter; of what stands before the last @
    those of the domain's own `Mailboxes` decide.
    """

    def __init__(self, domains: Mapping[str, Mailboxes]) -> None:
        self._domains = {domain.lower(): boxes for domain, boxes in domains.items()}

    async def of(self, user: str) -> Mailbox:
        local, _, domain = user.rpartition("@")
        boxes = self._domains.get(domain.lower())
        if boxes is None or not local:
            raise LookupError(f"{user!a} has no mailbox")
        return await boxes.of(local)
