"""`FTPClient`: files from and to FTP servers, on the same stream and the same wire as the server.

    async with FTPClient.connect("ftp://ftp.example.org/pub") as ftp:
        for entry in await ftp.list("pub"):
            print(entry.name, entry.size)
        await ftp.download("pub/file.iso", "file.iso", resume=True)

RFC 959, 2228 and 4217 (TLS), 2389 (FEAT), 2428 (EPSV, EPRT), 3659 (MLSD, MLST, SIZE, MDTM, REST). The control
connection is in `client_control.py`, data connections are in `client_data.py`, whole files in `client_files.py`, the
reading of listings in `client_listing.py`, whole trees in `mirror.py`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO, Self, TypeAlias

from asyncnet.ftp.client_listing import RemoteEntry
from asyncnet.ftp.url import FTPURL
from asyncnet.replies import Reply
from asyncnet.stream import Stream

if TYPE_CHECKING:
    import ssl

TIMEOUT = 30.0
"""How many seconds a client waits, unless told otherwise: for the connection, and then for each reply."""

Progress: TypeAlias = Callable[[int, int | None], object]
"""Called with how many bytes of a file have been moved (those that were there before a resume count), and how many it
has, None where nobody knows."""


class FTPClient:
    """One connection to an FTP server, logged in: `async with FTPClient.connect(url) as ftp`.

    One task uses it at a time, and while a transfer runs (`retrieve`, `store`, `append`, `scan`) nothing else:
    `trio.BusyResourceError`. For more at once there are more clients.

    Paths are the server's: relative to its working folder, `/` between names. CR, LF and NUL in any argument are
    `LocalProtocolError`, with nothing sent. A refusal is a `ReplyError` (`TransientReplyError` for 4xx,
    `PermanentReplyError` for 5xx) and leaves the client usable. What breaks the connection closes the client:
    `trio.BrokenResourceError`, `RemoteProtocolError` for what is no FTP, `TimeoutError` after `timeout` seconds
    without a reply, `ServiceClosing` for a 421.

    Every method may be cancelled. The client is usable then: a reply that was still owed is dropped before the next
    command. Only `connect`, `login` and `quit` close it.
    """

    timeout: float
    """How many seconds each wait may last: for a reply, for a data connection. May be changed at any time."""
    keep_alive: float | None
    """After how many seconds of a transfer, and then again, a NOOP is sent; None: none is."""
    url: FTPURL | None
    """What it was connected by."""
    welcome: Reply
    """The server's greeting."""
    stream: Stream
    """The control connection: its addresses, and `stream.tls`."""

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str | FTPURL,
        *,
        user: str | None = None,
        password: str | None = None,
        account: str | None = None,
        login: bool = True,
        tls: ssl.SSLContext | None = None,
        try_tls: bool = False,
        active: bool = False,
        proxy: str | None = None,
        timeout: float = TIMEOUT,
        keep_alive: float | None = None,
    ) -> AsyncIterator[Self]:
        """Connect, secure, log in; at the end of the block QUIT, or at an exception close.

        `url` is `ftp://`, `ftps://` (TLS from the first byte, port 990) or `ftpes://` (AUTH TLS demanded); over `ftp://`
        `try_tls` asks for TLS and goes on in the clear where the server has none. `user` and `password` go before
        those of the URL; without either it is anonymous. The URL's path is nothing but told: `ftp.url.path`.

        `tls` is a context of the caller's; without it the server is verified against the system's trust store.
        `active` has the server connect to us for data. `proxy` is as in `asyncnet.connect`, and data goes through it
        too. `keep_alive` is off because some servers take a command in the middle of a transfer for its end.

        Raises URLError, what `asyncnet.connect` raises, and `ReplyError` where the server refuses TLS or the login.
        """
        raise NotImplementedError
        yield  # type: ignore[unreachable]

    # Session

    async def login(self, user: str | None = None, password: str | None = None, account: str | None = None) -> None:
        """Log in; without a `user`, as anonymous. Closes the client when it is cancelled."""
        raise NotImplementedError

    async def features(self) -> Mapping[str, str]:
        """What the server says to FEAT: names in capitals, and what stands behind each. Asked once.

        Empty where it does not know the command.
        """
        raise NotImplementedError

    async def command(self, verb: str, argument: str | None = None) -> Reply:
        """Send any command that opens no data connection, and return its final reply, whatever that says."""
        raise NotImplementedError

    async def noop(self) -> None:
        """Ask for nothing, so that the server stays."""
        raise NotImplementedError

    async def quit(self) -> None:
        """Say goodbye and close. Never raises for what the server says to it."""
        raise NotImplementedError

    @property
    def is_closed(self) -> bool:
        """Whether it is of no more use."""
        raise NotImplementedError

    # Folders and files

    async def cwd(self, path: str) -> None:
        """Change the working folder."""
        raise NotImplementedError

    async def pwd(self) -> str:
        """The working folder."""
        raise NotImplementedError

    def scan(self, path: str = "") -> AbstractAsyncContextManager[AsyncIterator[RemoteEntry]]:
        """What is in a folder ("": the working folder), entry by entry, however many they are:

            async with ftp.scan("pub") as entries:
                async for entry in entries: …

        By MLSD; where the server lacks it by LIST, from whose form the times, to the minute or the day and in the
        server's own time zone, are taken for UTC. `.` and `..` are left out. A name is what the server says: ask
        `is_safe_name` before it becomes a path here.
        """
        raise NotImplementedError

    async def list(self, path: str = "", *, limit: int = 100_000) -> list[RemoteEntry]:
        """The same as a list. Raises `RemoteProtocolError` for more than `limit` entries."""
        raise NotImplementedError

    async def stat(self, path: str) -> RemoteEntry:
        """What is known of a file or folder: by MLST, else by SIZE and MDTM, else (for a folder) by CWD."""
        raise NotImplementedError

    async def size(self, path: str) -> int:
        """How many bytes a file has."""
        raise NotImplementedError

    async def modified(self, path: str) -> float:
        """When it was last changed, in seconds since 1970."""
        raise NotImplementedError

    async def set_modified(self, path: str, modified: float) -> None:
        """Set that time, by MFMT; to the second."""
        raise NotImplementedError

    async def rename(self, source: str, target: str) -> None:
        """Give a file or folder another name."""
        raise NotImplementedError

    async def delete(self, path: str) -> None:
        """Remove a file."""
        raise NotImplementedError

    async def mkdir(self, path: str) -> str:
        """Make a folder; returns its path as the server names it, or `path` where it does not."""
        raise NotImplementedError

    async def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        raise NotImplementedError

    async def chmod(self, path: str, mode: int) -> None:
        """Set permission bits, by SITE CHMOD."""
        raise NotImplementedError

    async def hash(self, path: str, algorithm: str = "SHA-256") -> str:
        """A file's hash in lower-case hexadecimal digits, made by the server.

        `algorithm` is SHA-256, SHA-512, SHA-1, MD5 or CRC32; by HASH, or the X… command of old that has it. Raises
        `NotSupported` where the server has none for it.
        """
        raise NotImplementedError

    # Transfers

    def retrieve(
        self, path: str, *, offset: int = 0, size: int | None = None, ascii: bool = False
    ) -> AbstractAsyncContextManager[Stream]:
        """Receive a file from `offset` on: `async with ftp.retrieve(path) as stream`, which ends where the file does.

        Left at the end, it waits for the server's word that this was the whole, and raises `ReplyError` if it was
        not; `RemoteProtocolError` where fewer bytes came than the server had said, or than `size`, which is what the
        whole file is known to have. Left before the end, or by an exception, it resets the data connection, and the
        client stays usable.
        """
        raise NotImplementedError

    def store(self, path: str, *, offset: int = 0, ascii: bool = False) -> AbstractAsyncContextManager[Stream]:
        """Send a file, behind the first `offset` bytes of what is there: `async with ftp.store(path) as stream`.

        Left normally, it ends the data connection and waits for the server's word that all has come; raises
        `ReplyError` if not. Left by an exception or cancelled, it resets the data connection, so that the server does
        not take a part for the whole; the client stays usable.
        """
        raise NotImplementedError

    def append(self, path: str, *, ascii: bool = False) -> AbstractAsyncContextManager[Stream]:
        """Send what is to stand behind all that is there; otherwise like `store`."""
        raise NotImplementedError

    async def download(
        self,
        path: str,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        resume: bool = False,
        progress: Progress | None = None,
        verify: bool = False,
        keep_time: bool = False,
    ) -> int:
        """Receive a file into `target`, a path or a file opened for writing; returns how many bytes were moved.

        A path appears only when the file is whole: until then its name has `.part` behind it, which stays when it
        breaks off, and with `resume` is where it goes on. With a file `resume` goes on at its end. `verify` compares
        hashes (`HashMismatch`, `NotSupported`), `keep_time` sets the time of the last change here.
        """
        raise NotImplementedError

    async def upload(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        path: str,
        *,
        resume: bool = False,
        progress: Progress | None = None,
        verify: bool = False,
        keep_time: bool = False,
    ) -> int:
        """Send `source`, a path or a file opened for reading, to `path`; returns how many bytes were moved.

        With `resume` it goes on behind what the server has, by SIZE and REST. `verify` compares hashes, `keep_time`
        sets the time of the last change there, by MFMT.
        """
        raise NotImplementedError
