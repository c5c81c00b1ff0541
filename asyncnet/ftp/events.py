"""What an embedding program is told of: logins, and files that came, went and changed.

`FTPHandler(files, on_stored=mail_it)` awaits `mail_it(Stored(…))` when the file has its name and before the client is
told so: an event that raises ends the connection without the 226, and the file stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from asyncnet.ftp.storage import Path, Storage
from asyncnet.transports.address import Address


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """Somebody has logged in."""

    user: str
    peer: Address
    is_anonymous: bool


@dataclass(frozen=True, slots=True)
class Moved:
    """A file has come or gone, whole."""

    user: str
    peer: Address
    path: Path
    """Its names from the root of `files`."""
    size: int
    """Bytes that passed."""
    seconds: float
    files: Storage
    """Where it is: `await event.files.open(event.path)`."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A file or folder was removed, made or given another name."""

    user: str
    peer: Address
    path: Path
    files: Storage
    old_path: Path | None = None
    """Of a rename: what it was."""


E = TypeVar("E")
Listener = Callable[[E], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Events:
    """Whom to tell; None: nobody."""

    on_login: Listener[LoggedIn] | None = None
    on_stored: Listener[Moved] | None = None
    on_retrieved: Listener[Moved] | None = None
    on_removed: Listener[Changed] | None = None
    on_renamed: Listener[Changed] | None = None
    on_folder_made: Listener[Changed] | None = None
    on_folder_removed: Listener[Changed] | None = None


async def tell(listener: Listener[E] | None, event: E) -> None:
    """Await the listener, if there is one."""
    if listener is not None:
        await listener(event)
