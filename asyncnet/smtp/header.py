"""A message's header, looked at as it passes: how long it is, how often it was received, which fields it has.

RFC 5322 section 2.2, as far as one must know it to find where the header ends. What is no header at all (a content that
begins with its body) has an empty one. Nothing is decoded and nothing changed. No I/O.
"""

from __future__ import annotations

import re

_FIELD = rb"[!-9;-~]+[ \t]*:[^\n]*\n"
_FOLDED = rb"[ \t][^\n]*\n"
_match_fields = re.compile(rb"(?:%s(?:%s)*)*" % (_FIELD, _FOLDED)).match
_match_rest = re.compile(rb"(?:%s)*(?:%s(?:%s)*)*" % (_FOLDED, _FIELD, _FOLDED)).match  # of fields that have begun
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
        self.is_missing = False
        """Whether the content begins with its body, without the empty line that comes before one."""
        self._limit = limit
        self._held = b""
        self._read = 0  # up to the end of the last line that belongs to the header

    def feed(self, data: bytes) -> bytes:
        """The next piece. Returns b"" until the header is whole, and then all that was fed since the beginning.

        Raises `HeaderTooLong`.
        """
        held = self._held = self._held + data if self._held else data
        if b"\n" in data:
            self._read_on(held)
            end = held.find(b"\n", self._read)
            if 0 <= end < self._limit:
                return self._end()
        if len(held) > self._limit:
            raise HeaderTooLong
        return b""

    def finish(self) -> bytes:
        """That was all: the header is what there was. Returns what is held."""
        if self._held and not self._held.endswith(b"\n"):
            self._read_on(self._held + b"\n")  # a last line counts without its end, too
        return self._end()

    def _read_on(self, held: bytes) -> None:
        fields = (_match_rest if self._read else _match_fields)(held, self._read)
        assert fields is not None, "the pattern matches nothing at all"
        self._read = fields.end()

    def _end(self) -> bytes:
        self.is_whole = True
        self.is_missing = not self._read and self._held[:2] not in (b"", b"\r\n")
        self.names = [name.lower() for name in _find_names(self._held[: self._read])]
        held, self._held = self._held, b""
        return held
