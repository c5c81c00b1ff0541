"""A client that does what a test says, right or wrong: what a peer of `FTPHandler` sees."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from asyncnet.endpoints import connect
from asyncnet.ftp.memory_files import MemoryFiles
from asyncnet.ftp.server import FTPHandler
from asyncnet.replies import Reply, ReplyParser
from asyncnet.service import Service, serve
from asyncnet.stream import Stream

PATIENCE = 10


class Peer:
    """The control connection to a server, and its data connections."""

    def __init__(self, stream: Stream, service: Service) -> None:
        self.stream = stream
        self.service = service
        self.tls: Any = None  # a context, for data connections too

    async def reply(self) -> Reply:
        """The next reply."""
        parser = ReplyParser(every_line_coded=False)
        with trio.fail_after(PATIENCE):
            while True:
                reply = parser.feed(await self.stream.receive_until(b"\n", limit=65536))
                if reply is not None:
                    return reply

    async def raw(self, data: bytes) -> Reply:
        """Send bytes, and return the reply."""
        await self.stream.send_all(data)
        return await self.reply()

    async def do(self, command: str) -> Reply:
        """Send a command, and return the reply."""
        return await self.raw(command.encode("utf-8", "surrogateescape") + b"\r\n")

    async def expect(self, code: int, command: str) -> Reply:
        """The same, where the reply is to have this code."""
        reply = await self.do(command)
        assert reply.code == code, f"{command}: {reply}"
        return reply

    async def expect_all(self, *steps: tuple[int, str]) -> None:
        for code, command in steps:
            await self.expect(code, command)

    async def log_in(self, name: str = "anonymous", password: str = "x") -> None:
        await self.expect(331, f"USER {name}")
        await self.expect(230, f"PASS {password}")
        await self.expect(200, "TYPE I")

    async def passive_port(self) -> int:
        reply = await self.expect(229, "EPSV")
        match = re.search(r"\(\|\|\|(\d+)\|\)", reply.text)
        assert match is not None, reply
        return int(match[1])

    async def open_data(self, port: int | None = None) -> Stream:
        """A passive data connection, in the clear as yet."""
        return await connect(f"tcp://127.0.0.1:{port or await self.passive_port()}")

    async def protect(self, data: Stream) -> None:
        """Begin TLS on a data connection, with the session of the control connection."""
        session = self.stream.tls.session if self.stream.tls else None
        await data.start_tls(self.tls, server_hostname="localhost", session=session)

    async def fetch(self, command: str, *, code: int = 226) -> bytes:
        """What a command that sends has to send."""
        data = await self.open_data()
        await self.expect(150, command)
        if self.tls is not None:
            await self.protect(data)
        content = b""
        async with data:
            while piece := await data.receive_some():
                content += piece
        reply = await self.reply()
        assert reply.code == code, reply
        return content

    async def send(self, command: str, content: bytes, *, code: int = 226) -> Reply:
        """Have a command that receives receive this."""
        data = await self.open_data()
        await self.expect(150, command)
        if self.tls is not None:
            await self.protect(data)
        await data.send_all(content)
        await data.aclose()
        reply = await self.reply()
        assert reply.code == code, reply
        return reply

    async def expect_end(self) -> None:
        """The server ends the connection."""
        with trio.fail_after(PATIENCE):
            assert await self.stream.receive_some() == b""


@asynccontextmanager
async def connected(handler: FTPHandler, *, greeted: bool = True, **options: Any) -> AsyncIterator[Peer]:
    """A peer of `handler`, which serves on loopback."""
    async with served(handler, **options) as service:
        async with await connect(service.endpoints[0]) as stream:
            peer = Peer(stream, service)
            if greeted:
                assert (await peer.reply()).code == 220
            yield peer


@asynccontextmanager
async def served(handler: FTPHandler, **options: Any) -> AsyncIterator[Service]:
    async with trio.open_nursery() as nursery:

        async def start(task_status: trio.TaskStatus[Service]) -> None:
            await serve(handler, "tcp://127.0.0.1:0", task_status=task_status, **options)

        yield await nursery.start(start)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def logged_in(files: Any = None, **options: Any) -> AsyncIterator[Peer]:
    """An anonymous peer of a server of `files` (memory, if none are given), where it may do everything."""
    handler = FTPHandler(MemoryFiles() if files is None else files, anonymous=True, anonymous_writes=True, **options)
    async with connected(handler) as peer:
        await peer.log_in()
        yield peer
