"""A server in memory that says what it is told to, for the tests of the client."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from asyncnet.errors import EndOfStream, IncompleteRead
from asyncnet.http.client import HTTPClient
from asyncnet.http.url import Origin
from asyncnet.stream import Stream
from asyncnet.testing import ScriptedPeer, stream_pair

Script = Callable[[ScriptedPeer], Awaitable[object]]


class Network:
    """Every connection of the client is met by the next of `scripts`, the last one again and again."""

    def __init__(
        self, nursery: trio.Nursery, scripts: tuple[Script, ...], server_tls: ssl.SSLContext | None, capacity: int
    ) -> None:
        self._nursery = nursery
        self._tls = server_tls
        self._capacity = capacity
        self._scripts = scripts
        self.origins: list[str] = []
        """Where the client has connected to."""

    async def connect(self, origin: Origin) -> Stream:
        script = self._scripts[min(len(self.origins), len(self._scripts) - 1)]
        self.origins.append(str(origin))
        ours, its = stream_pair(capacity=self._capacity)
        await trio.lowlevel.checkpoint()
        self._nursery.start_soon(self._run, script, its, origin.scheme in ("https", "wss"))
        return ours

    async def _run(self, script: Script, stream: Stream, begins_with_tls: bool) -> None:
        peer = ScriptedPeer(stream, timeout=1000)
        try:
            if begins_with_tls:
                assert self._tls is not None
                await stream.start_tls(self._tls, server_side=True)
            await script(peer)
        except (trio.BrokenResourceError, EndOfStream, IncompleteRead, ssl.SSLError):
            pass  # the client has left, which is its good right
        await peer.close()


@asynccontextmanager
async def client_of(
    *scripts: Script, server_tls: ssl.SSLContext | None = None, capacity: int = 65536, **options: Any
) -> AsyncIterator[tuple[HTTPClient, Network]]:
    """A client, and the network that it is in. At the end of the block the scripts are cancelled."""
    async with trio.open_nursery() as nursery:
        network = Network(nursery, scripts, server_tls, capacity)
        async with HTTPClient(connect=network.connect, **options) as client:
            yield client, network
        nursery.cancel_scope.cancel()


class Answers:
    """A script: one of `answers` to each request on its connection, then the end. `requests` is what came."""

    def __init__(self, *answers: bytes, stays: bool = False) -> None:
        self._answers = answers
        self._stays = stays
        self.requests: list[bytes] = []

    async def __call__(self, peer: ScriptedPeer) -> None:
        for answer in self._answers:
            self.requests.append(await read_request(peer))
            await peer.send(answer)
        if self._stays:
            await trio.sleep_forever()

    def heads(self) -> list[str]:
        """The request lines."""
        return [request.partition(b"\r\n")[0].decode() for request in self.requests]


async def read_request(peer: ScriptedPeer) -> bytes:
    """One request with its body."""
    head = await peer.stream.receive_until(b"\r\n\r\n", limit=65536)
    if length := re.search(rb"\r\ncontent-length: (\d+)", head):
        return head + await peer.stream.receive_exactly(int(length[1]))
    if b"\r\ntransfer-encoding: chunked" in head:
        return head + await peer.stream.receive_until(b"0\r\n\r\n", limit=1 << 20)
    return head


def ok(body: bytes = b"", *fields: str, status: str = "200 OK") -> bytes:
    """A response with a length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body
