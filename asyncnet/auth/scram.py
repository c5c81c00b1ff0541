"""What a server keeps for SCRAM: not the password but a salt and two keys made from it (RFC 5802 section 3).

Stored as RFC 5803 section 2 writes it. `UserFile` reads it, `asyncnet passwd --scram` makes it, a protocol's server
runs the exchange with it.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from asyncnet.auth.extra import auth_extra
from asyncnet.auth.identity import Identity

MECHANISM: Final = "SCRAM-SHA-256"
"""What new keys are for (RFC 7677): the one that clients have in common beyond SHA-1."""
ITERATIONS: Final = 100_000
"""Of PBKDF2, for new keys. RFC 7677 section 4 asks for a tenth of a second of a modern machine, which was 15,000 in
its day; the client pays it at each login, a thief of the file at each guess."""
SALT_LENGTH: Final = 16
"""Bytes of salt in new keys."""

_KEY_LENGTHS: Final = {"SCRAM-SHA-1": 20, "SCRAM-SHA-256": 32, "SCRAM-SHA-512": 64}
FEWEST_ITERATIONS: Final = 4096  # RFC 5802 section 4 and RFC 7677 section 4: clients refuse fewer
MOST_ITERATIONS: Final = 10_000_000  # more would keep a client busy for seconds; scramp refuses it
_SHORTEST_SALT: Final = 12  # bytes; scramp refuses a shorter one
_LONGEST_SALT: Final = 64  # bytes: one HMAC-SHA-512, so that a made-up salt can be as long

# RFC 5803 section 2: scheme "$" iter-count ":" salt "$" StoredKey ":" ServerKey
_STORED = re.compile(r"([A-Z0-9-]+)\$([1-9][0-9]{0,7}):([^$:]+)\$([^$:]+):([^$:]+)")


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """One user's keys for one SCRAM mechanism.

    `identity` is who is logged in when the client's proof is right. It is None in keys that stand for nobody: then a
    right proof, which nobody can make, is a failed login too.
    """

    mechanism: str
    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    identity: Identity | None = None

    @classmethod
    def parse(cls, text: str) -> ScramKeys:
        """Read the stored form. Raises ValueError that says what is wrong and repeats no secret."""
        match = _STORED.fullmatch(text)
        if match is None:
            raise ValueError("not of the form MECHANISM$iterations:salt$storedkey:serverkey")
        mechanism, count, *encoded = match.groups()
        if mechanism not in _KEY_LENGTHS:
            raise ValueError(f"{mechanism} is none of {', '.join(_KEY_LENGTHS)}")
        if not FEWEST_ITERATIONS <= int(count) <= MOST_ITERATIONS:
            raise ValueError(f"{count} iterations are not from {FEWEST_ITERATIONS} to {MOST_ITERATIONS}")
        salt, stored_key, server_key = map(_decode, encoded)
        if not _SHORTEST_SALT <= len(salt) <= _LONGEST_SALT:
            raise ValueError(f"a salt of {len(salt)} bytes is not from {_SHORTEST_SALT} to {_LONGEST_SALT} long")
        if {len(stored_key), len(server_key)} != {_KEY_LENGTHS[mechanism]}:
            raise ValueError(f"the keys of {mechanism} are {_KEY_LENGTHS[mechanism]} bytes long each")
        return cls(mechanism, salt, int(count), stored_key, server_key)

    def format(self) -> str:
        """The stored form, which `parse` reads. `identity` is not in it."""
        salt, stored_key, server_key = map(_encode, (self.salt, self.stored_key, self.server_key))
        return f"{self.mechanism}${self.iterations}:{salt}${stored_key}:{server_key}"

    @classmethod
    def of_password(cls, password: str) -> ScramKeys:
        """New SCRAM-SHA-256 keys of `password`, prepared by SASLprep (RFC 4013), with a random salt.

        Computes for some hundredths of a second. Raises ValueError for a password that SASLprep forbids or leaves
        nothing of.
        """
        scramp = auth_extra("scramp")
        try:
            if not auth_extra("scramp.utils").saslprep(password):
                raise ValueError("SCRAM sees an empty password: its characters all count as nothing (RFC 4013)")
            info = scramp.ScramMechanism(MECHANISM).make_auth_info(
                password, ITERATIONS, secrets.token_bytes(SALT_LENGTH)
            )
        except scramp.ScramException as error:
            raise ValueError(f"SCRAM forbids a character of this password (RFC 4013): {error.args[0]}") from error
        salt, stored_key, server_key, iterations = info
        return cls(MECHANISM, salt, iterations, stored_key, server_key)


class NobodysKeys:
    """Keys for names that have none. They look like those of most users, and a name always gets the same ones.

    Otherwise a client could tell which names exist by asking twice. The bytes come from the name and a random key of
    this process; no password leads to them, since that would need a preimage of `stored_key`.
    """

    def __init__(self, secret: bytes, like: Iterable[ScramKeys]) -> None:
        self._secret = secret
        shapes = Counter((keys.mechanism, keys.iterations, len(keys.salt)) for keys in like)
        self._shape = shapes.most_common(1)[0][0] if shapes else (MECHANISM, ITERATIONS, SALT_LENGTH)

    def __call__(self, name: str) -> ScramKeys:
        mechanism, iterations, salt_length = self._shape
        key_length = _KEY_LENGTHS[mechanism]
        salt, stored_key, server_key = (self._bytes(use, name) for use in (b"salt", b"stored", b"server"))
        return ScramKeys(mechanism, salt[:salt_length], iterations, stored_key[:key_length], server_key[:key_length])

    def _bytes(self, use: bytes, name: str) -> bytes:
        return hmac.digest(self._secret, use + b"\0" + name.encode(errors="surrogatepass"), "sha512")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError("the salt or a key is not base64") from error
    if _encode(data) != text:
        raise ValueError("the salt or a key is not base64 in its one canonical form")
    return data
