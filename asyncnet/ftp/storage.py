"""What an FTP server keeps its files in: the interface, and what is atomic in it.

`LocalFiles` (a folder), `MemoryFiles` (for tests and for programs that keep nothing), `MountedFiles` (several of them
under one root) and `LimitedFiles` (a quota) implement it; a program that keeps its files elsewhere writes its own.

A path is a tuple of names from the root, `()` the root itself. A name is a `str` in which bytes that are no UTF-8 are
surrogates (PEP 383); it is never "", "." or "..", and holds no slash, NUL, CR or LF: the server has seen to that. What
else a path may be (too long, leading out) is for the storage to refuse.

Every method may be cancelled, and may be called by many tasks at once. What goes wrong is an `OSError` whose `errno`
the server turns into a reply: ENOENT, EEXIST, ENOTEMPTY, EACCES, EISDIR, ENOTDIR and the like are 550, ENOSPC is 452,
EDQUOT and EFBIG are 552, anything else is 451.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import BinaryIO, Protocol, TypeAlias, runtime_checkable

Path: TypeAlias = tuple[str, ...]
"""Names from the root."""


class HashAlgorithm(enum.Enum):
    """How a file's content is hashed: the names of the HASH command (draft-bryan-ftpext-hash section 3)."""

    SHA256 = "SHA-256"
    SHA512 = "SHA-512"
    SHA1 = "SHA-1"
    MD5 = "MD5"
    CRC32 = "CRC32"


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a file or a folder. What a symlink leads to counts, not the link."""

    is_folder: bool
    size: int
    """In bytes; of no meaning for a folder."""
    modified: float
    """Seconds since 1970."""
    mode: int = 0o644
    """Permission bits."""
    unique: str = ""
    """The same for two names of one file, and for no others; "" where that is not known (RFC 3659 section 7.5.2)."""
    owner: str = "ftp"
    group: str = "ftp"
    links: int = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a folder."""

    name: str
    status: Status


class Download(Protocol):
    """A file that was opened for reading. It goes on existing for its reader when its name is removed or replaced."""

    @property
    def status(self) -> Status:
        """As it was when the file was opened."""
        ...

    @property
    def file(self) -> BinaryIO | None:
        """A regular file with a descriptor that holds the same bytes, for `Stream.send_file`; None: there is none."""
        ...

    async def read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset` on; fewer, or b"", only at the end of the file."""
        ...

    async def aclose(self) -> None:
        """Nothing more is read. Does its work also when cancelled."""
        ...


class Upload(Protocol):
    """A file on its way in. Nobody sees it, and what has its name stays as it is, until `commit`.

    Exactly one of `commit` and `abandon` ends it.
    """

    @property
    def size(self) -> int:
        """How many bytes there are: what it began with, and what was written."""
        ...

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`, all of it. When it raises or is cancelled, any part of `data` may have been written."""
        ...

    async def commit(self) -> Status:
        """Have the file take its name, in one step and in the place of what has that name.

        Durable when it returns, if the storage promises that. Not to be cancelled in the middle: it shields itself
        where that would leave anything undecided. When it raises, the upload was abandoned.
        """
        ...

    async def abandon(self, *, keep: bool) -> None:
        """The file will not be whole. With `keep`, what has come stays for an upload that resumes, where nothing else
        has the name and the storage can; else it goes. Does its work also when cancelled."""
        ...


@runtime_checkable
class DirectUpload(Protocol):
    """What an upload may offer besides, so that the kernel can move large ones into their file."""

    @property
    def descriptor(self) -> int | None:
        """A regular file that holds the bytes so far, to which more may be written at `size`, as long as `moved` is
        told; None: there is none at the moment."""
        ...

    def moved(self, count: int) -> None:
        """So many bytes were written to `descriptor`."""
        ...


class Storage(Protocol):
    """Files and folders below one root."""

    async def stat(self, path: Path) -> Status:
        """What is at `path`."""
        ...

    async def partial_size(self, path: Path) -> int | None:
        """How much of a broken-off upload to `path` could be resumed, where nothing has that name; else None."""
        ...

    def scan(self, path: Path) -> AsyncGenerator[list[Entry], None]:
        """What is in the folder `path`, in no order, some entries at a time: the whole is never held.

        What vanishes meanwhile, and what leads out of the root, is left out. Raises at the first step if `path` is no
        folder. Whoever does not iterate to the end calls `aclose`.
        """
        ...

    async def open(self, path: Path) -> Download:
        """Open a file. Raises `IsADirectoryError` for a folder."""
        ...

    async def store(self, path: Path, *, offset: int | None = 0, exclusive: bool = False) -> Upload:
        """Begin a file that is to have the name `path`.

        `offset` 0: from nothing. Other numbers: behind so many bytes of what is there, which is the file of that
        name, or where there is none, what a broken-off upload has left; `OSError` with EINVAL if that is shorter.
        None: behind all that is there. `exclusive`: raises `FileExistsError` if something has the name, now or at
        `commit`.
        """
        ...

    async def remove(self, path: Path) -> None:
        """Remove a file. Raises `IsADirectoryError` for a folder. Who is reading it reads on."""
        ...

    async def rename(self, source: Path, target: Path) -> None:
        """Give the file or folder another name, in one step; a file takes the place of a file of that name.

        A folder takes nobody's place: `FileExistsError`. EXDEV where the two lie in different storages.
        """
        ...

    async def make_folder(self, path: Path) -> None:
        """Make a folder. Raises `FileExistsError` if something has the name."""
        ...

    async def remove_folder(self, path: Path) -> None:
        """Remove an empty folder; partial uploads in it do not count, and go. ENOTEMPTY if there is anything else."""
        ...

    async def set_modified(self, path: Path, modified: float) -> None:
        """Set the time of the last change, in seconds since 1970."""
        ...

    async def set_mode(self, path: Path, mode: int) -> None:
        """Set the permission bits (0 to 0o777)."""
        ...

    async def hash(self, path: Path, algorithm: HashAlgorithm, start: int = 0, end: int | None = None) -> str:
        """The hash of the bytes from `start` up to `end` (None: to the end), in lower-case hexadecimal digits.

        Raises `OSError` with EINVAL if the range is not within the file. Cancelled, it stops reading.
        """
        ...

    async def free_space(self) -> int | None:
        """How many bytes more can be stored, as far as that is known; None: nobody knows."""
        ...
