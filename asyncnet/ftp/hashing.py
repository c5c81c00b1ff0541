"""The hashes of the HASH command, for storages that compute them from the bytes."""

from __future__ import annotations

import hashlib
import zlib
from typing import Protocol

from asyncnet.ftp.storage import HashAlgorithm


class Hasher(Protocol):
    """What all of them can do, as `hashlib` has it."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class _CRC32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def new_hasher(algorithm: HashAlgorithm) -> Hasher:
    """One that has seen nothing yet."""
    if algorithm is HashAlgorithm.CRC32:
        return _CRC32()
    return hashlib.new(algorithm.value.replace("-", ""), usedforsecurity=False)
