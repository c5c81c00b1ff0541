"""`asyncnet put` for ftp, ftps and ftpes: a file, what comes through a pipe, or a whole tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import trio

from asyncnet.cli.descriptors import read_some
from asyncnet.cli.ftp_clients import FTPClients, Way
from asyncnet.cli.mirroring import OnMoved, OnStep, Tree, mirror_all
from asyncnet.cli.progress import Display, Report, shown
from asyncnet.cli.put import PutOptions
from asyncnet.errors import AsyncnetError, ConfigurationError
from asyncnet.ftp.client import FTPClient, PermanentReplyError
from asyncnet.ftp.mirror import Report as MirrorReport
from asyncnet.ftp.mirror import mirror_up
from asyncnet.ftp.url import FTPURL, parse_url

_REFUSED = (550, 553)
"""What servers say when there is no such folder, among much else."""


_MKDIR = "; --mkdir makes folders that are missing"


class UploadError(AsyncnetError):
    """The server refuses the file: the message says what may help."""


class FTPPutter:
    """Puts files by FTP, over connections that are used again and again."""

    def __init__(self, options: PutOptions) -> None:
        self._options = options
        self._clients = FTPClients(Way(options.proxy, options.timeout, options.ca, options.verify, options.active))
        self._making = trio.Lock()
        self._made: set[str] = set()

    def prepare(self, text: str) -> None:
        """Ask for the password if there is none. Raises ConfigurationError."""
        self._clients.prepare(parse_url(text))

    @staticmethod
    def target(text: str, file: str, *, is_tree: bool) -> FTPURL:
        """The URL that `file` gets. Raises URLError and ConfigurationError."""
        url = parse_url(text)
        if url.type == "a":
            raise ConfigurationError(f"{shown(text)}: files are put as they are: leave out ;type=a")
        is_folder = url.path.endswith("/") or (not url.path and (not is_tree or text.endswith("/")))
        if not is_folder:
            return url
        if file == "-":
            raise ConfigurationError(f"{shown(text)} is a folder: the URL names the file that standard input becomes")
        name = os.path.basename(os.path.realpath(file) if is_tree else file)
        if "\n" in name or "\r" in name:
            raise ConfigurationError(f"{name!a}: FTP cannot send a line end: the URL may name the file otherwise")
        return replace(url, path=f"{url.path}{name}")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._clients.aclose()

    async def put(self, file: str, url: FTPURL, report: Report) -> None:
        """Put `file` ("-": standard input) to `url`. Raises whatever goes wrong."""
        async with self._clients.borrow(url) as ftp:
            await self._make_folders(ftp, url.path)
            try:
                if file == "-":
                    await _put_stream(ftp, 0, url, report)
                elif stat.S_ISREG((status := await trio.to_thread.run_sync(os.stat, file)).st_mode):
                    await self._put_file(ftp, file, status, url, report)
                else:
                    await self._put_device(ftp, file, url, report)
            except PermanentReplyError as error:
                if error.code in _REFUSED and "/" in url.path and not self._options.make_folders:
                    raise UploadError(f"{error}{_MKDIR}") from error
                raise
        report.saved = shown(str(url))

    async def _put_file(self, ftp: FTPClient, file: str, status: os.stat_result, url: FTPURL, report: Report) -> None:
        done: int | None = None

        def progress(size: int, total: int | None) -> None:
            nonlocal done
            if done is None:
                report.begin(size, total)
            else:
                report.advance(size - done)
                report.is_resumable = True
            done = size

        resume = self._options.resume and await _may_be_part(ftp, status, url.path)
        moved = await ftp.upload(file, url.path, resume=resume, progress=progress, verify=self._options.verify_hash)
        report.was_there = resume and not moved and status.st_size > 0

    async def _put_device(self, ftp: FTPClient, file: str, url: FTPURL, report: Report) -> None:
        """A pipe, or a device: it may have to be waited for, and comes but once."""
        if self._options.resume or self._options.verify_hash:
            raise UploadError("it is no file: it can be put but once, without --continue and --verify")
        source = await trio.to_thread.run_sync(os.open, file, os.O_RDONLY | os.O_CLOEXEC, abandon_on_cancel=True)
        await _put_stream(ftp, source, url, report)
        os.close(source)  # else it stays open: a thread may still be reading from it

    async def _make_folders(self, ftp: FTPClient, path: str) -> None:
        """Make the folders that `path` leads through, once for all files."""
        folder = path.rpartition("/")[0]
        if not self._options.make_folders or not folder:
            return
        async with self._making:
            if folder not in self._made:
                for place in _steps(folder):
                    try:
                        await ftp.mkdir(place)
                    except PermanentReplyError:
                        pass  # it is there; or it is not to be, as the upload will say
                self._made.add(folder)

    async def mirror(self, trees: Sequence[tuple[str, FTPURL]], screen: Display) -> int:
        """Put whole folders. Returns how many failures there were."""
        return await mirror_all(
            [
                Tree(
                    shown(str(url)),
                    shown(str(url)),
                    partial(self._mirror_one, folder, url),
                    "" if self._options.make_folders or "/" not in url.path else _MKDIR,
                )
                for folder, url in trees
            ],
            screen,
        )

    async def _mirror_one(self, folder: str, url: FTPURL, *, progress: OnStep, moved: OnMoved) -> MirrorReport:
        if self._options.make_folders:
            async with self._clients.borrow(url) as ftp:
                await self._make_folders(ftp, url.path)
        return await mirror_up(
            partial(self._clients.connect, url),
            folder,
            url.path,
            connections=self._options.jobs,
            delete=self._options.delete,
            progress=progress,
            moved=moved,
        )


async def _put_stream(ftp: FTPClient, source: int, url: FTPURL, report: Report) -> None:
    """Put what the descriptor `source` has to say, which may be waited for as long as it likes."""
    report.begin(0, None)
    async with ftp.store(url.path) as stream:
        while data := await trio.to_thread.run_sync(read_some, source, abandon_on_cancel=True):
            await stream.send_all(data)
            report.advance(len(data))


async def _may_be_part(ftp: FTPClient, here: os.stat_result, path: str) -> bool:
    """Whether what the server has can be a part of the file here: it is no older. Where it does not tell, it may be."""
    try:
        there = await ftp.modified(path)
    except PermanentReplyError:
        return True
    return there >= int(here.st_mtime)


def _steps(folder: str) -> list[str]:
    """The folders on the way to `folder`, the outermost first: "/a/b" is "/a", "/a/b"."""
    names = folder.split("/")
    steps = ["/".join(names[:end]) for end in range(1, len(names) + 1)]
    return [step for step in steps if step.strip("/")]
