"""An FTP server on loopback that answers by a table, for the tests of the client. Data connections are real."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import trio

from asyncnet.beside import connect_beside, listen_beside
from asyncnet.errors import EndOfStream, IncompleteRead
from asyncnet.ftp.client import FTPClient
from asyncnet.ftp.wire import Command, parse_command, parse_extended_port, parse_port
from asyncnet.service import serve
from asyncnet.stream import Stream
from asyncnet.transports.listening import SocketListener

Answer: TypeAlias = "bytes | Callable[[Session, str], Awaitable[object]]"

FEATURES = (
    b"211-Features:\r\n MDTM\r\n MFMT\r\n MLST type*;size*;modify*;\r\n REST STREAM\r\n SIZE\r\n UTF8\r\n211 End\r\n"
)


class Session:
    """One control connection, and what belongs to it."""

    def __init__(self, server: ScriptedFTP, stream: Stream) -> None:
        self.server = server
        self.stream = stream
        self.commands: list[str] = []
        self.listener: SocketListener | None = None
        self.active_port: int | None = None
        self.data_tls: ssl.SSLContext | None = None
        self.last_data: Stream | None = None

    async def listen(self) -> int:
        """Listen for a data connection, and for an earlier one no longer; returns the port."""
        await self.close_listener()
        self.listener = listen_beside(self.stream)
        return self.listener.address.port or 0

    async def close_listener(self) -> None:
        if self.listener is not None:
            await trio.aclose_forcefully(self.listener)
            self.listener = None

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def open_data(self, first: bytes = b"150 here it comes\r\n") -> Stream:
        """Say that data comes, and return its connection."""
        if self.active_port is not None:
            data = await connect_beside(self.stream, self.active_port)
            await self.say(first)
        else:
            assert self.listener is not None
            await self.say(first)
            data = Stream(await self.listener.accept())
            await self.close_listener()
        self.active_port = None
        if self.last_data is not None:
            await self.last_data.abort()
        self.last_data = data
        if self.data_tls is not None:
            await data.start_tls(self.data_tls, server_side=True)
        return data

    async def run(self) -> None:
        await self.say(self.server.greeting)
        while True:
            try:
                command = parse_command(await self.stream.receive_until(b"\r\n", limit=10_000))
            except (EndOfStream, IncompleteRead):
                return
            shown = f"{command.verb} {command.argument}".rstrip()
            self.commands.append(shown)
            self.server.commands.append(shown)
            answers = self.server.answers
            answer = answers.get(shown, answers.get(command.verb, b"502 not here\r\n"))
            if isinstance(answer, bytes):
                await self.say(answer)
            else:
                try:
                    await answer(self, command.argument)
                except OSError:
                    await self.say(b"425 cannot connect\r\n")
            if command == Command("QUIT"):
                return


class ScriptedFTP:
    """The server: what it answers to each verb, or to a whole command. Tests change `answers` and `files`."""

    def __init__(self) -> None:
        self.greeting = b"220 ready\r\n"
        self.files: dict[str, bytes] = {"hello": b"hello world\n"}
        self.listing = b"type=cdir; .\r\ntype=file;size=12; hello\r\n"
        self.stored: dict[str, bytes | None] = {}
        """What came by STOR and APPE; None where the connection broke."""
        self.stored_event = trio.Event()
        self.commands: list[str] = []
        self.sessions: list[Session] = []
        self.host = "127.0.0.1"
        self.port = 0
        self.answers: dict[str, Answer] = {
            "USER": b"331 password\r\n",
            "PASS": b"230 in\r\n",
            "FEAT": FEATURES,
            "OPTS": b"200 ok\r\n",
            "TYPE": b"200 ok\r\n",
            "NOOP": b"200 ok\r\n",
            "CWD": b"250 ok\r\n",
            "PWD": b'257 "/" is here\r\n',
            "ABOR": b"226 aborted\r\n",
            "REST": b"350 go on\r\n",
            "QUIT": b"221 bye\r\n",
            "EPSV": listen_extended,
            "PASV": listen_passive,
            "EPRT": remember_extended,
            "PORT": remember_port,
            "RETR": retrieve,
            "SIZE": tell_size,
            "STOR": store,
            "APPE": store,
            "MLSD": give_listing,
            "LIST": give_listing,
        }

    @property
    def url(self) -> str:
        return f"ftp://{self.host}:{self.port}/"

    async def __call__(self, stream: trio.abc.Stream) -> None:
        session = Session(self, Stream.of(stream))
        self.sessions.append(session)
        try:
            await session.run()
        except trio.BrokenResourceError:
            pass
        finally:
            await session.close_listener()
            if session.last_data is not None:
                await session.last_data.abort()


async def listen_extended(session: Session, argument: str) -> None:
    await session.say(f"229 Extended (|||{await session.listen()}|)\r\n".encode())


async def listen_passive(session: Session, argument: str) -> None:
    port = await session.listen()
    await session.say(f"227 Passive (192,0,2,1,{port // 256},{port % 256})\r\n".encode())


async def remember_extended(session: Session, argument: str) -> None:
    session.active_port = parse_extended_port(argument)[1]
    await session.say(b"200 ok\r\n")


async def remember_port(session: Session, argument: str) -> None:
    session.active_port = parse_port(argument)[1]
    await session.say(b"200 ok\r\n")


async def retrieve(session: Session, path: str) -> None:
    content = session.server.files.get(path)
    if content is None:
        await session.say(b"550 no such file\r\n")
        return
    rests = [command for command in session.commands[-2:-1] if command.startswith("REST ")]
    data = await session.open_data()
    try:
        await data.send_all(content[int(rests[0][5:]) if rests else 0 :])
        await data.aclose()
    except trio.BrokenResourceError:
        await session.say(b"426 broken off\r\n")
    else:
        await session.say(b"226 done\r\n")


async def store(session: Session, path: str) -> None:
    rests = [command for command in session.commands[-2:-1] if command.startswith("REST ")]
    data = await session.open_data()
    received = b""
    try:
        while piece := await data.receive_some():
            received += piece
        await data.aclose()
    except trio.BrokenResourceError:
        session.server.stored[path] = None
        session.server.stored_event.set()
        await session.say(b"426 broken off\r\n")
    else:
        session.server.stored[path] = received
        if rests:
            files = session.server.files
            files[path] = files[path][: int(rests[0][5:])] + received
        session.server.stored_event.set()
        await session.say(b"226 stored\r\n")


async def tell_size(session: Session, path: str) -> None:
    content = session.server.files.get(path)
    await session.say(b"550 no such file\r\n" if content is None else f"213 {len(content)}\r\n".encode())


async def give_listing(session: Session, path: str) -> None:
    data = await session.open_data()
    try:
        await data.send_all(session.server.listing)
        await data.aclose()
    except trio.BrokenResourceError:
        await session.say(b"426 broken off\r\n")
    else:
        await session.say(b"226 done\r\n")


@asynccontextmanager
async def running(
    server: ScriptedFTP | None = None, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[ScriptedFTP]:
    """The server, on a port of its own."""
    server = server or ScriptedFTP()
    server.host = host
    async with trio.open_nursery() as nursery:
        endpoint = f"{'tcp' if tls is None else 'tls'}://{host}:0"
        service = await nursery.start(lambda task_status: serve(server, endpoint, tls=tls, task_status=task_status))
        server.port = int(service.endpoints[0].rpartition(":")[2])
        yield server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(server: ScriptedFTP | None = None, **options: Any) -> AsyncIterator[tuple[FTPClient, ScriptedFTP]]:
    """A client of such a server."""
    async with running(server) as its:
        async with FTPClient.connect(its.url, **options) as ftp:
            yield ftp, its
