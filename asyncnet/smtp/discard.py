"""A delivery that takes everything and keeps nothing: to try clients, and to measure what the protocol costs."""

from __future__ import annotations

from asyncnet.smtp.delivery import Client
from asyncnet.smtp.envelope import Envelope, Recipient


class Discard:
    """Throws all mail away. The 250 that its clients get is a lie, and meant to be."""

    async def start(self, envelope: Envelope, client: Client) -> Discard:
        return self  # a transaction has nothing to remember

    async def add(self, recipient: Recipient) -> None: ...

    async def write(self, data: bytes | bytearray | memoryview) -> None: ...

    async def commit(self) -> str:
        return "thrown away"

    async def abort(self) -> None: ...
