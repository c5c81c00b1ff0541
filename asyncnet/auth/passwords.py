"""Passwords as argon2id hashes (RFC 9106), in the encoded form `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.

Everything here computes, some of it for a tenth of a second and in 64 MiB: `UserFile` calls it in a thread, the
`asyncnet passwd` command has nothing better to do.
"""

from __future__ import annotations

import base64
import logging
import re
import secrets
from collections import Counter
from collections.abc import Iterable

from asyncnet.auth.extra import auth_extra

logger = logging.getLogger(__name__)

MAX_BYTES = 1024
"""The longest name or password, in bytes of UTF-8: nobody's is longer, and a megabyte of it would only cost time."""

_ENCODED = re.compile(
    r"\$argon2id\$v=19\$(?P<costs>m=[1-9]\d*,t=[1-9]\d*,p=[1-9]\d*)\$(?P<salt>[A-Za-z0-9+/]+)\$(?P<hash>[A-Za-z0-9+/]+)"
)


def is_acceptable(text: str) -> bool:
    """Whether `text` can be a name or a password at all: 1 to 1024 bytes of UTF-8, no NUL, no lone surrogate."""
    if "\0" in text:
        return False
    try:
        return 0 < len(text.encode()) <= MAX_BYTES
    except UnicodeEncodeError:
        return False


def is_hash(encoded: str) -> bool:
    """Whether `encoded` is an argon2id hash as this module makes them, with whatever costs."""
    return _ENCODED.fullmatch(encoded) is not None


def hash_password(password: str) -> str:
    """The encoded hash of `password`, with a random salt and the costs that argon2-cffi recommends."""
    hashed: str = auth_extra("argon2").PasswordHasher().hash(password)
    return hashed


def check_password(encoded: str, password: str) -> bool:
    """Whether `encoded` is a hash of `password`. Argon2 compares in constant time.

    A hash that cannot be computed (damaged, or more memory than there is) is a wrong password to the peer and an
    error in the log.
    """
    argon2 = auth_extra("argon2")
    try:
        argon2.PasswordHasher().verify(encoded, password)
    except argon2.exceptions.VerifyMismatchError:
        return False
    except argon2.exceptions.VerificationError as error:
        logger.error("a password could not be checked: %s", error)
        return False
    return True


def dummy_hash(hashes: Iterable[str]) -> str:
    """A hash of no password, which costs as much to check as most of `hashes` do (as a new one, if there are none)."""
    shapes = Counter(
        (match["costs"], len(match["salt"]), len(match["hash"])) for match in map(_ENCODED.fullmatch, hashes) if match
    )
    if not shapes:
        return dummy_hash([hash_password(secrets.token_hex())])
    [((costs, salt_length, hash_length), _)] = shapes.most_common(1)
    return f"$argon2id$v=19${costs}${_random_base64(salt_length)}${_random_base64(hash_length)}"


def _random_base64(length: int) -> str:
    """`length` characters of unpadded base64 that decode to random bytes."""
    encoded = base64.b64encode(secrets.token_bytes(length * 3 // 4)).decode()
    return encoded.rstrip("=")
