"""Who logged in, and the interface of what decides it: every server takes an `Authenticator`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from asyncnet.auth.scram import ScramKeys
    from asyncnet.transports.address import Address


@dataclass(frozen=True, slots=True)
class Identity:
    """A user who is known and may come in.

    `settings` are the entry's keys that a protocol reads for itself (`root`, `permissions`, `quota`, …), as they were
    written: an authenticator does not know what they mean, the protocol checks them.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)


class Authenticator(Protocol):
    """What decides who may log in. Both methods may be called by many connections at once, and may be cancelled.

    Neither may tell by its time or its answer whether a name exists.
    """

    async def verify(self, name: str, password: str, *, peer: Address) -> Identity | None:
        """Who this is, or None when name and password do not belong together.

        `peer` is the client's address (behind a proxy, the one that the proxy told), for authenticators that have
        rules about it.
        """
        ...

    async def scram_keys(self, name: str) -> ScramKeys | None:
        """What a SCRAM exchange with `name` needs (RFC 5802 section 3), or None where nobody has such keys.

        An unknown name gets keys that look like anybody's, the same ones each time, with `identity` None. The server
        runs the exchange with them as with any others; when the proof is right the user is `keys.identity`, and None
        there is a failed login.
        """
        ...
