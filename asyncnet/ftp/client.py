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
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, Self, TypeAlias

import trio

from asyncnet.endpoints import Endpoint, Scheme, connect
from asyncnet.errors import EndOfStream, IncompleteRead, LimitExceeded, LocalProtocolError, RemoteProtocolError
from asyncnet.ftp import client_files
from asyncnet.ftp.client_commands import (
    QUIT_TIME,
    TIMEOUT,
    UNKNOWN,
    Commands,
    check,
    check_login,
    check_way,
    parse_size,
)
from asyncnet.ftp.client_control import Control, NotSupported
from asyncnet.ftp.client_data import transfer
from asyncnet.ftp.client_files import HashMismatch, Progress
from asyncnet.ftp.client_listing import (
    EntryKind,
    RemoteEntry,
    is_safe_name,
    is_self_or_parent,
    parse_facts,
    parse_list_line,
)
from asyncnet.ftp.url import FTPURL, parse_url
from asyncnet.ftp.wire import MAX_LINE, parse_time, unquote
from asyncnet.limits import Timeouts
from asyncnet.replies import PermanentReplyError, ReplyError, ServiceClosing, TransientReplyError, error_for
from asyncnet.stream import Stream
from asyncnet.transports.authority import format_authority
from asyncnet.transports.certificates import client_context
from asyncnet.urls import URLError

if TYPE_CHECKING:
    import ssl

__all__ = [
    "FTPURL",
    "EntryKind",
    "FTPClient",
    "HashMismatch",
    "NotSupported",
    "PermanentReplyError",
    "Progress",
    "RemoteEntry",
    "ReplyError",
    "ServiceClosing",
    "TransientReplyError",
    "URLError",
    "is_safe_name",
    "parse_url",
]

Entries: TypeAlias = list[RemoteEntry]


class FTPClient(Commands):
    """One connection to an FTP server, logged in: `async with FTPClient.connect(url) as ftp`.

    One task uses it at a time, and while a transfer runs (`retrieve`, `store`, `append`, `scan`) nothing else:
    `trio.BusyResourceError`. For more at once there are more clients.

    Paths are the server's: relative to its working folder, `/` between names. CR, LF and NUL in any argument are
    `LocalProtocolError`, with nothing sent. A refusal is a `ReplyError` (`TransientReplyError` for 4xx,
    `PermanentReplyError` for 5xx) and leaves the client usable. What breaks the connection closes the client:
    `trio.BrokenResourceError`, `RemoteProtocolError` for what is no FTP, `TimeoutError` after `timeout` seconds
    without a reply, `ServiceClosing` for a 421.

    Every method may be cancelled. The client is usable then: a reply that was still owed is dropped before the next
    command. Only `connect`, `start_tls`, `login` and `quit` close it, and `stat` and `scan` at the place they name.
    """

    url: FTPURL | None = None
    """What it was connected by."""

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

        `url` is `ftp://`, `ftps://` (TLS from the first byte, port 990) or `ftpes://` (AUTH TLS demanded); over
        `ftp://` `try_tls` asks for TLS and goes on in the clear where the server has none. `user` and `password` go
        before those of the URL, whose password is for its own user alone; without either it is anonymous. The URL's
        path is nothing but told: `ftp.url.path`.

        `tls` is a context of the caller's, refused where no TLS would be spoken; without it the server is verified
        against the system's trust store.
        `active` has the server connect to us for data. `proxy` is as in `asyncnet.connect`, and data goes through it
        too. `keep_alive` is off because some servers take a command in the middle of a transfer for its end.

        Raises URLError, what `asyncnet.connect` raises, and `ReplyError` where the server refuses TLS or the login.
        """
        where = parse_url(url) if isinstance(url, str) else url
        if user is None or user == where.user:
            user, password = where.user, where.password if password is None else password
        check_login(user, password, account)
        check_way(active, proxy)
        is_clear = where.scheme == "ftp" and not try_tls
        if is_clear and tls is not None:
            raise LocalProtocolError("tls on an ftp:// URL: write ftpes:// to demand it, or have try_tls ask for it")
        waits = Timeouts(send=timeout, close=min(timeout, QUIT_TIME))
        if tls is None and not is_clear:
            tls = await trio.to_thread.run_sync(client_context, Endpoint(Scheme.TCP, tls=True))
        is_implicit = where.scheme == "ftps"
        stream = await connect(
            f"{'tls' if is_implicit else 'tcp'}://{format_authority(where.host, where.port)}",
            tls=tls if is_implicit else None,
            proxy=proxy,
            timeout=timeout,
            timeouts=waits,
        )
        ftp = cls(stream, active=active, proxy=proxy, host=where.host, timeout=timeout, keep_alive=keep_alive)
        ftp.url = where
        try:
            await ftp.greet()
            if tls is not None:
                await ftp._protect(tls, where.host, demanded=where.scheme != "ftp")
            if login:
                await ftp.login(user, password, account)
            yield ftp
            await ftp.quit()
        finally:
            if not ftp.is_closed:
                await ftp._control.abort()

    # Listings

    @asynccontextmanager
    async def scan(self, path: str = "") -> AsyncIterator[AsyncIterator[RemoteEntry]]:
        """What is in a folder ("": the working folder), entry by entry, however many they are:

            async with ftp.scan("pub") as entries:
                async for entry in entries: …

        By MLSD; where the server lacks it by LIST, from whose form the times, to the minute or the day and in the
        server's own time zone, are taken for UTC. `.` and `..` are left out. A name is what the server says: ask
        `is_safe_name` before it becomes a path here. Raises `RemoteProtocolError` for a line that it cannot read.

        Nothing else runs on this client meanwhile. Left before the end, it breaks the listing off. (Where LIST has
        listed nothing, CWD tells whether there is a folder; cancelled between that and the way back, the client is
        closed.)
        """
        check(path)
        with self._control.claim():
            async with AsyncExitStack() as stack:
                stream = await self._open_listing(stack, path)
                reader = _EntryReader(stream, self._control, facts=not self._no_facts)
                yield reader
            if reader.is_blank and self._no_facts and path:
                await self._check_folder(path)  # vsftpd lists what is not there, as nothing

    async def _open_listing(self, stack: AsyncExitStack, path: str) -> Stream:
        await self._set_type("I")
        if self._features and not {"MLST", "MLSD"} & self._features.keys():
            self._no_facts = True
        if not self._no_facts:
            try:
                return await stack.enter_async_context(self._transfer("MLSD", path or None, counts=False))
            except PermanentReplyError as exc:
                if exc.code not in UNKNOWN:
                    raise
                self._no_facts = True
        # A dash in front would be taken for the options of ls.
        place = f"./{path}" if path.startswith("-") else path or None
        return await stack.enter_async_context(self._transfer("LIST", place, counts=False))

    async def list(self, path: str = "", *, limit: int = 100_000) -> Entries:
        """The same as a list. Raises `RemoteProtocolError` for more than `limit` entries."""
        found = []
        async with self.scan(path) as entries:
            async for entry in entries:
                found.append(entry)
                if len(found) > limit:
                    raise RemoteProtocolError(f"more than {limit} entries in a folder: iterate over `scan` instead")
        return found

    async def stat(self, path: str) -> RemoteEntry:
        """What is known of a file or folder: by MLST, else by SIZE and MDTM, else (for a folder) by CWD.

        Cancelled between the CWD there and the one back, the client is closed.
        """
        check(path)
        with self._control.claim():
            reply = await self._control.ask("MLST", path or None)
            if reply.is_success:
                if len(reply.lines) < 2:
                    raise RemoteProtocolError("a reply to MLST without an entry")
                return _named(
                    parse_facts(reply.lines[1].removeprefix(" ") if reply.lines[1][:2] != "  " else reply.lines[1][1:])
                )
            if reply.code not in UNKNOWN:
                raise error_for(reply, f"MLST {path}")
            return await self._stat_by_parts(path)

    async def _stat_by_parts(self, path: str) -> RemoteEntry:
        name = path.rstrip("/").rpartition("/")[2]
        await self._set_type("I")
        reply = await self._control.ask("SIZE", path)
        if reply.is_success:
            size = parse_size(reply)
            reply = await self._control.ask("MDTM", path)
            modified = parse_time(reply.text.strip()) if reply.is_success else None
            return RemoteEntry(name, EntryKind.FILE, size=size, modified=modified, is_exact=modified is not None)
        refusal = error_for(reply, f"SIZE {path}")
        try:
            await self._check_folder(path)
        except PermanentReplyError:
            raise refusal from None
        return RemoteEntry(name, EntryKind.FOLDER)

    async def _check_folder(self, path: str) -> None:
        """Enter a folder and leave it again. Raises ReplyError if that is not possible."""
        here = unquote((await self._control.expect("PWD")).text)
        if not {"\r", "\n", "\0"}.isdisjoint(here):
            raise RemoteProtocolError(f"a folder that nobody can go back to: {here[:200]!a}")
        is_away = True
        try:
            reply = await self._control.ask("CWD", path)
            is_away = reply.is_success
            if not is_away:
                raise error_for(reply, f"CWD {path}")
            await self._control.expect("CWD", here)
            is_away = False
        finally:
            if is_away:
                await self._control.abort()  # nobody knows where we are

    # Transfers

    def _transfer(
        self,
        verb: str,
        argument: str | None,
        *,
        offset: int = 0,
        sends: bool = False,
        size: int | None = None,
        counts: bool = True,
    ) -> AbstractAsyncContextManager[Stream]:
        return transfer(
            self._control,
            self._rules,
            verb,
            argument,
            offset=offset,
            sends=sends,
            size=size,
            counts=counts,
            keep_alive=self.keep_alive,
        )

    @asynccontextmanager
    async def retrieve(
        self, path: str, *, offset: int = 0, size: int | None = None, ascii: bool = False
    ) -> AsyncIterator[Stream]:
        """Receive a file from `offset` on: `async with ftp.retrieve(path) as stream`, which ends where the file does.

        Left at the end, it waits for the server's word that this was the whole, and raises `ReplyError` if it was
        not; `RemoteProtocolError` where fewer bytes came than the server had said, or than `size`, which is what the
        whole file is known to have, and behind an `offset` also where more came (the server began again). Left before
        the end, or by an exception, it resets the data connection, and the client stays usable. A receive that waits
        too long ends by `ReceiveTimeout`, after `timeout` to twice that.

        With `ascii` lines end by CR LF as they are sent, and nothing is counted.
        """
        check(path)
        with self._control.claim():
            await self._set_type("A" if ascii else "I")
            async with self._transfer("RETR", path, offset=offset, size=size, counts=not ascii) as stream:
                yield stream

    @asynccontextmanager
    async def store(self, path: str, *, offset: int = 0, ascii: bool = False) -> AsyncIterator[Stream]:
        """Send a file, behind the first `offset` bytes of what is there: `async with ftp.store(path) as stream`.

        Left normally, it ends the data connection and waits for the server's word that all has come; raises
        `ReplyError` if not. Left by an exception or cancelled, it resets the data connection, so that the server does
        not take a part for the whole; the client stays usable.
        """
        check(path)
        with self._control.claim():
            await self._set_type("A" if ascii else "I")
            async with self._transfer("STOR", path, offset=offset, sends=True) as stream:
                yield stream

    @asynccontextmanager
    async def append(self, path: str, *, ascii: bool = False) -> AsyncIterator[Stream]:
        """Send what is to stand behind all that is there; otherwise like `store`."""
        check(path)
        with self._control.claim():
            await self._set_type("A" if ascii else "I")
            async with self._transfer("APPE", path, sends=True) as stream:
                yield stream

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
        check(path)
        if isinstance(target, (str, os.PathLike)):
            moved = await client_files.download(self, path, target, resume, progress, verify)
            if keep_time:
                seconds = await self.modified(path)
                await trio.to_thread.run_sync(os.utime, target, (seconds, seconds))
            return moved
        if keep_time:
            raise LocalProtocolError("keep_time sets the time of a file by its path, and this is an open one")
        return await client_files.download_into(self, path, target, resume, progress, verify)

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
        check(path)
        if isinstance(source, (str, os.PathLike)):
            moved, modified = await client_files.upload(self, source, path, resume, progress, verify)
            if keep_time:
                await self.set_modified(path, modified)
            return moved
        if keep_time:
            raise LocalProtocolError("keep_time takes the time of a file by its path, and this is an open one")
        return await client_files.upload_from(self, source, path, resume, progress, verify)


class _EntryReader:
    """The entries of a listing as they come."""

    def __init__(self, stream: Stream, control: Control, *, facts: bool) -> None:
        self._stream = stream
        self._control = control
        self._facts = facts
        self._now = time.time()
        self.is_blank = False
        """Whether it has come to the end without a single line."""

    def __aiter__(self) -> AsyncIterator[RemoteEntry]:
        return self

    async def __anext__(self) -> RemoteEntry:
        while True:
            self._stream.deadline = trio.current_time() + self._control.timeout
            try:
                data = await self._stream.receive_until(b"\n", limit=MAX_LINE)
            except EndOfStream:
                self.is_blank = not self._stream.bytes_in
                raise StopAsyncIteration from None
            except IncompleteRead as exc:  # some leave the last line end out
                data = self._stream.take(len(exc.partial))
            except LimitExceeded:
                raise RemoteProtocolError(f"a line of more than {MAX_LINE} bytes in a listing") from None
            entry = self._read(data.decode("utf-8", "surrogateescape").rstrip("\r\n"))
            if entry is not None and not is_self_or_parent(entry):
                return entry

    def _read(self, line: str) -> RemoteEntry | None:
        if not self._facts:
            return parse_list_line(line, self._now)
        return parse_facts(line) if line else None


def _named(entry: RemoteEntry) -> RemoteEntry:
    """An entry of MLST, which has the whole path where MLSD has a name."""
    return replace(entry, name=entry.name.rstrip("/").rpartition("/")[2])
