"""What FTP servers list: facts (MLSD and MLST, RFC 3659 section 7), and LIST as Unix and DOS servers write it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class EntryKind(enum.Enum):
    """What stands in a folder."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """A file or folder on a server, as far as the server tells; None where it does not."""

    name: str
    """As the server says it. It may hold anything: see `is_safe_name`."""
    kind: EntryKind
    size: int | None = None
    """In bytes."""
    modified: float | None = None
    """Seconds since 1970."""
    is_exact: bool = False
    """Whether `modified` is to the second and in UTC, which of LIST it is not."""
    mode: int | None = None
    """Permission bits."""
    target: str | None = None
    """What a symlink leads to."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """The facts of MLSD and MLST, their names in small letters; empty with LIST."""

    @property
    def is_folder(self) -> bool:
        return self.kind is EntryKind.FOLDER


def is_safe_name(name: str) -> bool:
    """Whether a name that a server chose can be a name in a folder here: no slash, no `..`, no control character."""
    raise NotImplementedError
