"""An FTP server for the tests of `fetch`, `put` and `ls`, whose files break off or stand still where told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import argon2
import trio
import trustme
from argon2.profiles import CHEAPEST

from asyncnet import ServerTLS, serve
from asyncnet.auth import UserFile
from asyncnet.embed import in_thread
from asyncnet.ftp import Download, FTPHandler, LocalFiles, LoggedIn, Moved, Status, Upload
from asyncnet.ftp import storage as interface
from asyncnet.stream import Stream

LARGE = bytes(range(256)) * 8000


@dataclass
class Fault:
    """What goes wrong, and whether it has."""

    after: int | None = None
    """Behind so many bytes of a file."""
    stands_still: bool = False
    """Whether nothing comes or goes then, until `goes_on`; else it breaks off."""
    happened: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event = field(default_factory=threading.Event)

    async def happen(self) -> None:
        self.happened.set()
        if self.stands_still:
            await trio.to_thread.run_sync(self.goes_on.wait, abandon_on_cancel=True)
        else:
            raise OSError(5, "told to")


class FaultyDownload:
    def __init__(self, inner: Download, fault: Fault) -> None:
        self._inner, self._fault = inner, fault
        self.file: BinaryIO | None = None  # so that every byte passes `read`

    @property
    def status(self) -> Status:
        return self._inner.status

    async def read(self, offset: int, count: int) -> bytes:
        assert self._fault.after is not None
        if offset >= self._fault.after:
            await self._fault.happen()
            return await self._inner.read(offset, count)
        return await self._inner.read(offset, min(count, self._fault.after - offset))

    async def aclose(self) -> None:
        await self._inner.aclose()


class FaultyUpload:
    def __init__(self, inner: Upload, fault: Fault) -> None:
        self._inner, self._fault = inner, fault

    @property
    def size(self) -> int:
        return self._inner.size

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        assert self._fault.after is not None
        if self.size + len(data) > self._fault.after and not self._fault.happened.is_set():
            await self._fault.happen()
        await self._inner.write(data)

    async def commit(self) -> Status:
        return await self._inner.commit()

    async def abandon(self, *, keep: bool) -> None:
        await self._inner.abandon(keep=keep)


class FaultyFiles(LocalFiles):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fault = Fault()

    async def open(self, path: interface.Path) -> Any:
        download = await super().open(path)
        return download if self.fault.after is None else FaultyDownload(download, self.fault)

    async def store(self, path: interface.Path, *, offset: int | None = 0, exclusive: bool = False) -> Any:
        upload = await super().store(path, offset=offset, exclusive=exclusive)
        return upload if self.fault.after is None else FaultyUpload(upload, self.fault)


class Yard:
    """A folder that is served, and what was done with it."""

    def __init__(self, root: Path, url: str, files: FaultyFiles) -> None:
        self.root, self.url, self.files = root, url, files
        self.secure_url = ""
        """With TLS from the start, where there is a certificate."""
        self.logins: list[str] = []
        self.passed: list[tuple[str, int]] = []
        """Of each file that was moved whole: its path, and how many bytes passed."""

    async def on_login(self, event: LoggedIn) -> None:
        self.logins.append(event.user)

    async def on_moved(self, event: Moved) -> None:
        self.passed.append(("/".join(event.path), event.size))


@contextmanager
def yard(folder: Path, **options: Any) -> Iterator[Yard]:
    """Serve `folder`/root to everybody; with `users`, to anna and bert, whose password is "secret", and nobody else."""
    root = folder / "root"
    root.mkdir(exist_ok=True)
    files = FaultyFiles(root)
    here = Yard(root, "", files)
    if options.pop("users", False):
        options["users"] = UserFile(users_file(folder))
    else:
        options |= {"anonymous": True, "anonymous_writes": True}
    handler = FTPHandler(files, on_login=here.on_login, on_stored=here.on_moved, on_retrieved=here.on_moved, **options)
    with in_thread() as portal:
        service = portal.start(partial(serve, handler, "tcp://127.0.0.1:0"))
        here.url = service.urls[0]
        if handler.tls is not None:
            secure = portal.start(partial(serve, handler, "tcp://127.0.0.1:0", tls=handler.tls))
            here.secure_url = secure.urls[0]
        yield here
        files.fault.goes_on.set()


def users_file(folder: Path) -> Path:
    path = folder / "users.toml"
    hashed = argon2.PasswordHasher.from_parameters(CHEAPEST).hash("secret")
    path.write_text(f'[users.anna]\npassword = "{hashed}"\n[users.bert]\npassword = "{hashed}"\nconnections = 1\n')
    path.chmod(0o600)
    return path


def server_tls(folder: Path) -> ServerTLS:
    """A certificate for 127.0.0.1, which `folder`/ca.pem vouches for."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "cert.pem")
    return ServerTLS(folder / "cert.pem", alpn=["ftp"])


@contextmanager
def liar(**replies: str) -> Iterator[tuple[str, list[str]]]:
    """A server that answers each command by the reply given for it, "502 No" else: its URL, and what it was told."""
    told: list[str] = []
    answers = {"USER": "230 In", "TYPE": "200 OK", "QUIT": "221 Bye", **replies}

    async def answer(transport: trio.abc.Stream) -> None:
        stream = Stream.of(transport)
        await stream.send_all(b"220 Hello\r\n")
        while True:
            line = (await stream.receive_until(b"\n", limit=65536)).decode().strip()
            told.append(line)
            await stream.send_all(answers.get(line.partition(" ")[0], "502 No").encode() + b"\r\n")

    with in_thread() as portal:
        service = portal.start(partial(serve, answer, "tcp://127.0.0.1:0"))
        yield service.endpoints[0].replace("tcp", "ftp"), told
