"""A whole relay that is killed at any instant, between real connections: what got its 250 arrives, and is whole.

What arrives twice is counted: a message may that was handed over when its relay was killed, and was not crossed off
yet (RFC 5321 section 6.1), and no other.
"""

from __future__ import annotations

import base64
import random
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from asyncnet import Service, serve
from asyncnet.errors import AsyncnetError
from asyncnet.relay.runner import RelayLimits
from asyncnet.relay.spool import checksum_of
from asyncnet.smtp.client import SMTPClient
from asyncnet.smtp.delivery import Client
from asyncnet.smtp.envelope import Envelope, Recipient
from asyncnet.smtp.server import SMTPHandler
from tests.cli.command import COMMAND, environment
from tests.faults.checking import what_is_in

CLIENTS = 5
SIZES = [0, 2_000, 2_000, 40_000, 100_000]


class Sink:
    """The next host: notes what it takes."""

    def __init__(self) -> None:
        self.arrived: Counter[str] = Counter()
        self.by_relay: Counter[tuple[str, int]] = Counter()
        self.relays = 0
        """How many have been started: a transaction is that of the last."""
        self.digests: dict[str, str] = {}
        self.changed = trio.Event()

    async def start(self, envelope: Envelope, client: Client) -> SinkTransaction:
        return SinkTransaction(self, self.relays)

    async def has(self, names: set[str]) -> None:
        """Wait until all these have come."""
        while not names <= self.arrived.keys():
            self.changed = trio.Event()
            await self.changed.wait()


class SinkTransaction:
    def __init__(self, sink: Sink, relay: int) -> None:
        self._sink = sink
        self._relay = relay
        self._data = bytearray()

    async def add(self, recipient: Recipient) -> None: ...

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        self._data += data

    async def commit(self) -> str:
        header, _, body = bytes(self._data).partition(b"\r\n\r\n")
        name = header.rpartition(b"Subject: ")[2].decode()
        self._sink.arrived[name] += 1
        self._sink.by_relay[name, self._relay] += 1
        assert self._sink.digests.setdefault(name, checksum_of(body)) == checksum_of(body)
        self._sink.changed.set()
        return ""

    async def abort(self) -> None: ...


@asynccontextmanager
async def relay(spool: Path, next_host: str) -> AsyncIterator[tuple[trio.Process, str]]:
    """A relay in a process of its own, and its URL."""
    options = ("--spool", spool, "--trust", "127.0.0.0/8", "--relay-to", next_host, "--hostname", "relay.example")
    command = [*COMMAND, "serve", "smtp", "tcp://127.0.0.1:0", *map(str, options)]
    process = await trio.lowlevel.open_process(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            some = await process.stdout.receive_some()
            assert some, "the relay has ended"
            line += some
        yield process, f"smtp://127.0.0.1:{line.split()[-2].rpartition(b':')[2].decode()}"
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.mark.timeout(600)
async def test_what_a_relay_has_acknowledged_arrives_however_often_it_is_killed(tmp_path: Path, thorough: bool) -> None:
    kills = 100 if thorough else 6
    chance = random.Random(3461)
    sink = Sink()
    digests: dict[str, str] = {}
    acknowledged: set[str] = set()
    enough, is_killed = trio.Event(), False

    async def send(url: str, client: int, round: int, until: int) -> None:
        try:
            async with SMTPClient.connect(url) as smtp:
                number = 0
                while True:
                    name = f"{round}-{client}-{number}"
                    body = base64.encodebytes(chance.randbytes(chance.choice(SIZES))).replace(b"\n", b"\r\n")
                    digests[name] = checksum_of(body)
                    message = b"Subject: %b\r\n\r\n%b" % (name.encode(), body)
                    await smtp.send("ann@example.org", ["bob@example.net"], message)
                    acknowledged.add(name)
                    if len(acknowledged) >= until:
                        enough.set()
                    number += 1
        except* (AsyncnetError, OSError, trio.BrokenResourceError):
            if not is_killed:
                raise

    async with trio.open_nursery() as nursery:
        service: Service = await nursery.start(serve, SMTPHandler(sink, hostname="sink.example"), "tcp://127.0.0.1:0")
        next_host = f"smtp://{service.endpoints[0].removeprefix('tcp://')}"
        for round in range(kills):
            enough, is_killed = trio.Event(), False
            sink.relays += 1
            async with relay(tmp_path / "spool", next_host) as (process, url), trio.open_nursery() as clients:
                for client in range(CLIENTS):
                    clients.start_soon(send, url, client, round, len(acknowledged) + chance.randrange(1, 40))
                await enough.wait()
                for _ in range(chance.randrange(20)):
                    await trio.lowlevel.checkpoint()
                is_killed = True
                process.send_signal(signal.SIGKILL)
        sink.relays += 1
        async with relay(tmp_path / "spool", next_host) as (process, _):
            await sink.has(acknowledged)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        nursery.cancel_scope.cancel()

    assert len(acknowledged) > kills
    assert {name for name, digest in sink.digests.items() if digest != digests[name]} == set()
    assert set(sink.by_relay.values()) == {1}  # without a kill nothing is sent twice
    repeated = sum(times - 1 for times in sink.arrived.values())
    assert repeated <= kills * RelayLimits().per_destination
    assert len(await what_is_in(tmp_path / "spool")) <= kills * CLIENTS  # what came in and could not be acknowledged
