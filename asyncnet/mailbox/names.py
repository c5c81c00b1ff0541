"""What the file names of a Maildir say. Pure: names in, names out.

    unique[,S=size][,W=size][,…][:2,flags]

`unique` tells a message from all others, for ever. S is the file's size and W what it has with CR LF at line ends, as
Dovecot and Courier write them, so that nobody needs to count. Behind the colon stands what may change: letters in the
order of ASCII. A name that others gave may be anything else; what it does not say is not known.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from asyncnet.mailbox.storage import Flag

LETTERS = {
    Flag.DRAFT: "D",
    Flag.FLAGGED: "F",
    Flag.ANSWERED: "R",
    Flag.SEEN: "S",
    Flag.DELETED: "T",
}
"""The letter of each flag. There are others (P of mutt, small ones of Dovecot), which are kept as they are."""

_FLAGS = {letter: flag for flag, letter in LETTERS.items()}
_find_sizes = re.compile(r",([SW])=([0-9]{1,18})(?=,|$)").findall
_match_size = re.compile(r"[^:]*?,S=([0-9]{1,18})(?=[,:]|\Z)").match
_is_uid = re.compile(r"[!-~]{1,70}").fullmatch


def said_size(text: str) -> int | None:
    """The size in bytes that a file's name says, which needs no look at the file: a folder has many."""
    match = _match_size(text)
    return None if match is None else int(match[1])


@dataclass(frozen=True, slots=True)
class MaildirName:
    """The name of a file in `new` or `cur`, taken apart."""

    base: str
    """What stands before the colon: it stays as it is for as long as the message lives."""
    letters: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> MaildirName:
        """Any name that a file can have."""
        base, _, info = text.partition(":")
        return cls(base, frozenset(info[2:]) if info.startswith("2,") else frozenset())

    @classmethod
    def make(cls, unique: str, *, size: int, wire_size: int) -> MaildirName:
        """The name of a new message, which has no flags. Sizes are bytes: of the file, and with CR LF at line ends."""
        return cls(f"{unique},S={size},W={wire_size}")

    def __str__(self) -> str:
        """As it stands in `cur`."""
        return f"{self.base}:2,{''.join(sorted(self.letters))}"

    @property
    def uid(self) -> str:
        """What POP3 and others call the message: the same however it is renamed, 1 to 70 characters from ! to ~."""
        unique = self.base.partition(",")[0]
        return unique if _is_uid(unique) else hashlib.sha256(os.fsencode(unique)).hexdigest()

    def wire_size(self, size: int) -> int | None:
        """How long the message is with CR LF at line ends, if the name says so of a file of this `size`, in bytes."""
        said = dict(_find_sizes(self.base))
        if "W" not in said or int(said.get("S", size)) != size or not size <= int(said["W"]) <= 2 * size:
            return None
        return int(said["W"])

    @property
    def flags(self) -> frozenset[Flag]:
        return frozenset(_FLAGS[letter] for letter in self.letters & _FLAGS.keys())

    def with_flags(self, flags: Iterable[Flag]) -> MaildirName:
        """With exactly these of the flags that we know."""
        return MaildirName(self.base, self.letters - _FLAGS.keys() | {LETTERS[flag] for flag in flags})
