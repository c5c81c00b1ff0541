"""`asyncnet fetch` for ftp, ftps and ftpes: one URL into a file, resumed where that is possible, or a whole tree."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial as bind
from pathlib import Path

import trio

from asyncnet.cli.download import DownloadError, Partial, Validators, safe_name, status_of
from asyncnet.cli.fetch import FetchOptions
from asyncnet.cli.ftp_clients import FTPClients, Way
from asyncnet.cli.jobs import finish
from asyncnet.cli.mirroring import Tree, mirror_all
from asyncnet.cli.progress import Display, Report, shown
from asyncnet.cli.saving import pass_on, pass_on_to_device, save
from asyncnet.errors import ConfigurationError
from asyncnet.ftp.client import FTPClient, HashMismatch, PermanentReplyError, ReplyError, ServiceClosing
from asyncnet.ftp.client_files import local_hash
from asyncnet.ftp.mirror import mirror_down
from asyncnet.ftp.url import FTPURL, parse_url
from asyncnet.stream import Stream

NO_RESUME = (500, 501, 502, 503, 504, 554)
"""What servers say to REST that do not have it, or not for this."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a server says of a file; None where it does not."""

    url: FTPURL
    size: int | None
    modified: float | None

    @property
    def validators(self) -> Validators:
        """What tells whether a part still belongs to it: both, or nothing does. The URL keeps its password out."""
        if self.size is None or self.modified is None:
            return Validators(str(self.url))
        return Validators(str(self.url), modified=f"{self.size} bytes, {self.modified:.3f}")


class FTPFetcher:
    """Fetches by FTP, over connections that are used again and again."""

    def __init__(self, options: FetchOptions) -> None:
        self._options = options
        self._clients = FTPClients(_way(options))

    @staticmethod
    def file_name(url: str) -> str:
        """The name to save `url` under. Raises URLError, and ConfigurationError for a folder."""
        return safe_name(_file(url).path, default="download")

    def prepare(self, url: str) -> None:
        """Ask for the password if there is none. Raises ConfigurationError."""
        self._clients.prepare(_file(url))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._clients.aclose()

    async def fetch(self, url: str, target: Path | None, report: Report) -> None:
        """Fetch `url` into `target` (None: onto standard output). Raises whatever goes wrong."""
        where = _file(url)
        async with self._clients.borrow(where) as ftp:
            if await pass_on_to_device(target, lambda sink: self._pass_on(ftp, where, sink, report)) or target is None:
                return
            content = await _content(ftp, where)
            if self._options.resume and not self._options.force and await _is_there(content, target, report):
                return
            partial = await trio.to_thread.run_sync(lambda: Partial(target, replace=self._options.force))
            try:
                await self._fetch_into(partial, ftp, where, content, report)
                report.saved = await trio.to_thread.run_sync(partial.finish)
            except BaseException:
                report.is_resumable = partial.abandon()
                raise

    async def _pass_on(self, ftp: FTPClient, url: FTPURL, sink: int, report: Report) -> None:
        """Write what comes to the descriptor `sink`, which cannot be resumed."""
        size = (await _content(ftp, url)).size
        report.begin(0, size)
        async with ftp.retrieve(url.path, size=size, ascii=url.type == "a") as stream:
            await pass_on(_Pieces(stream, ftp.timeout, is_text=url.type == "a"), sink, report)

    async def _fetch_into(
        self, partial: Partial, ftp: FTPClient, url: FTPURL, content: Content, report: Report
    ) -> None:
        """Bring `partial` to its end."""
        known = partial.known() if self._options.resume else None
        if known is None or known != content.validators or not known.condition or partial.size > (content.size or 0):
            await trio.to_thread.run_sync(partial.begin, content.validators)
        else:
            partial.go_on()
        if partial.size == 0 or partial.size != content.size:
            try:
                await self._receive(partial, ftp, url, content, report)
            except PermanentReplyError as error:
                if not partial.size or error.code not in NO_RESUME:
                    raise
                await trio.to_thread.run_sync(partial.begin, content.validators)
                await self._receive(partial, ftp, url, content, report)
        if content.size is not None and partial.size != content.size:
            raise DownloadError(f"the server spoke of {content.size} bytes, and there are {partial.size} now")
        if self._options.verify_hash:
            await _verify(ftp, url, partial)

    async def _receive(self, partial: Partial, ftp: FTPClient, url: FTPURL, content: Content, report: Report) -> None:
        report.begin(partial.size, content.size)
        async with ftp.retrieve(url.path, offset=partial.size, size=content.size, ascii=url.type == "a") as stream:
            await save(partial, _Pieces(stream, ftp.timeout, is_text=url.type == "a"), report)


class _Pieces:
    """What comes, each piece within `timeout` seconds; of a text with the line ends that there are here."""

    def __init__(self, stream: Stream, timeout: float, *, is_text: bool) -> None:
        self._stream = stream
        self._timeout = timeout
        self._is_text = is_text
        self._held = b""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._stream.deadline = trio.current_time() + self._timeout
        data = self._held + (received := await self._stream.receive_some())
        self._held = b""
        if not data:
            raise StopAsyncIteration
        if not self._is_text:
            return data
        if received and data.endswith(b"\r"):  # half a line end, perhaps
            data, self._held = data[:-1], b"\r"
        return data.replace(b"\r\n", b"\n")


async def _content(ftp: FTPClient, url: FTPURL) -> Content:
    """Ask for size and time. What is wrong with the file itself, the transfer will say."""
    size: int | None = None
    modified: float | None = None
    try:
        if url.type != "a":  # the size of a text on its way is another one
            size = await ftp.size(url.path)
        modified = await ftp.modified(url.path)
    except ServiceClosing:
        raise
    except ReplyError:
        pass
    return Content(url, size, modified)


async def _is_there(content: Content, target: Path, report: Report) -> bool:
    """Whether `target` is there, as long as what the server has, and no older: going on means to do nothing."""
    status = await trio.to_thread.run_sync(status_of, target)
    if status is None or status.st_size != content.size or (content.modified or 0) > status.st_mtime:
        return False
    report.begin(status.st_size, status.st_size)
    report.saved, report.was_there = target, True
    return True


async def _verify(ftp: FTPClient, url: FTPURL, partial: Partial) -> None:
    """Compare the hashes at both ends. What differs is thrown away: nobody knows where it does."""
    algorithm = await ftp.best_hash()
    theirs = await ftp.hash(url.path, algorithm)
    with partial.open() as file:
        ours = await trio.to_thread.run_sync(local_hash, file, algorithm)
    if ours != theirs:
        await trio.to_thread.run_sync(partial.begin, Validators(str(url)))
        raise HashMismatch(f"{algorithm} of the file is {theirs} there, and {ours} of what has come")


def _file(text: str) -> FTPURL:
    """The URL of a file. Raises URLError, and ConfigurationError if it is that of a folder."""
    url = parse_url(text)
    if not url.path or url.path.endswith("/"):
        raise ConfigurationError(f"{shown(text)} is a folder: --mirror fetches all that is in it, asyncnet ls lists it")
    return url


def _way(options: FetchOptions) -> Way:
    return Way(options.proxy, options.timeout, options.ca, options.verify, options.active)


# Whole trees


def mirror(urls: Sequence[str], output: str | None, options: FetchOptions, *, quiet: bool) -> int:
    """Fetch the folders `urls`, each into a folder here. Returns the exit status."""
    clients = FTPClients(_way(options))
    trees: list[Tree] = []
    for text in urls:
        url = parse_url(text)
        target = output or safe_name(url.path.rstrip("/"), default=url.host)
        if any(target == tree.target for tree in trees):
            raise ConfigurationError(f"two of the URLs would be saved as {target}: fetch them one by one, with -o")
        if Path(target).exists() and not Path(target).is_dir():
            raise ConfigurationError(f"{target} is no folder: name another by -o")
        run = bind(
            mirror_down, bind(clients.connect, url), url.path, target, connections=options.jobs, delete=options.delete
        )
        trees.append(Tree(shown(text), target, run))
    for text in urls:
        clients.prepare(parse_url(text))

    async def work(screen: Display) -> int:
        return await mirror_all(trees, screen)

    return finish(work, clients.aclose, command="fetch", quiet=quiet)
