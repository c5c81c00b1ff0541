"""A message's header, looked at as it passes: how long it is, how often it was received, which fields it has.

RFC 5322 section 2.2, as far as one must know it to find where the header ends. What is no header at all (a content that
begins with its body) has an empty one. Nothing is decoded and nothing changed. No I/O.
"""

from __future__ import annotations

import re

_FIELD = rb"[!-9;-~]+[ \t]*:[^\n]*\n"
_FOLDED = rb"[ \t][^\n]*\n"
_match_fields = re.compile(rb"(?:%s)*(?:%s(?:%s)*)*" % (_FOLDED, _FIELD, _FOLDED)).match
_find_names = re.compile(rb"^([!-9;-~]+)[ \t]*:", re.MULTILINE).findall


class HeaderTooLong(Exception):
    """The header has more bytes than it may have."""


class HeaderWatch:
    """Holds a message's header back until it is whole: `feed` what comes, `finish` at the end.

    `limit` in bytes is for all of it with the line behind it, which tells that it has ended.
    """

    def __init__(self, limit: int) -> None:
        self.is_whole = False
        """Whether the header has ended. Then `names` is there, and nothing more is to be fed."""
        self.names: list[bytes] = []
        """The names of its fields in small letters, in their order."""
        self._limit = limit
        self._held = b""
        self._read = 0  # up to the end of the last line that belongs to the header

    def feed(self, data: bytes) -> bytes:
        """The next piece. Returns b"" until the header is whole, and then all that was fed since the beginning.

        Raises `HeaderTooLong`.
        """
        held = self._held = self._held + data if self._held else data
        if b"\n" in data:
            fields = _match_fields(held, self._read)
            assert fields is not None, "the pattern matches nothing at all"
            self._read = fields.end()
            end = held.find(b"\n", self._read)
            if 0 <= end < self._limit:
                return self._end()
        if len(held) > self._limit:
            raise HeaderTooLong
        return b""

    def finish(self) -> bytes:
        """That was all: the header is what there was. Returns what is held."""
        return self._end()

    def _end(self) -> bytes:
        self.is_whole = True
        self.names = [name.lower() for name in _find_names(self._held[: self._read])]
        held, self._held = self._held, b""
        return held
