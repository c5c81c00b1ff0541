"""What hostile peers meet at a service: floods, slowness, injection. docs/security.md names each of these tests."""

from __future__ import annotations

import json
import math
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from asyncnet import Limits, ServerTLS, Stream, Timeouts, connect
from asyncnet.echo import ChargenHandler, EchoHandler
from asyncnet.http import HTTPHandler, HTTPLimits, Request, Response
from asyncnet.http.limits import HTTPTimeouts
from asyncnet.testing import MemoryListener, ScriptedPeer
from asyncnet.transports.proxy_header import format_v1
from tests import no_descriptors
from tests.test_service import CLIENT, OTHER, PROXY, serving, visit
from tests.transports.test_proxy_header import V1_FAULTS, V2_FAULTS

CA = trustme.CA()
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    CA.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    return path


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


async def hello(request: Request) -> Response:
    return Response.text("hello")


def endpoints(place: str, certificate: Path, *, tls: bool) -> tuple[str, ssl.SSLContext | None]:
    """The endpoint to serve on, in the clear or by TLS, and the client's context for it."""
    if not tls:
        return place, None
    secured = place.replace("tcp://", "tls://").replace("unix:", "tls+unix:")
    return f"{secured}?cert={certificate}", client_context()


# Peers that do not read


@pytest.mark.parametrize("tls", [False, True])
async def test_a_peer_that_never_reads_is_cut_off(
    tls: bool, tmp_path: Path, certificate: Path, mock_clock: trio.testing.MockClock
) -> None:
    endpoint, context = endpoints(f"unix:{tmp_path}/socket", certificate, tls=tls)
    timeouts = Timeouts(send=60, idle=math.inf)
    async with serving(ChargenHandler(), endpoint, timeouts=timeouts) as service:
        name = f"{service.endpoints[0].partition('?')[0]}{'?server_name=localhost' if tls else ''}"
        async with await connect(name, tls=context):
            await trio.testing.wait_all_tasks_blocked(0.01)
            mock_clock.jump(59)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert service.open == 1
            mock_clock.jump(2)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert service.open == 0
    assert service.counters.bytes_out < 1 << 21  # what the kernel holds, and no more


async def test_a_client_that_reads_no_answer_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    async def app(request: Request) -> Response:
        return Response(body=bytes(1 << 20))

    listener = MemoryListener()
    async with serving(HTTPHandler(app), listener, timeouts=Timeouts(send=60)) as service:
        peer = await visit(listener)
        await peer.send(GET)
        await trio.sleep(59)
        assert service.open == 1
        await trio.sleep(2)
        assert service.open == 0


@pytest.mark.parametrize("tls", [False, True])
async def test_an_error_answer_survives_what_the_peer_still_sends(tls: bool, certificate: Path) -> None:
    endpoint, context = endpoints("tcp://localhost:0", certificate, tls=tls)
    async with serving(HTTPHandler(hello, limits=HTTPLimits(body=1000)), endpoint) as service:
        place = f"{'tls' if tls else 'tcp'}://localhost:{service.endpoints[0].rpartition(':')[2]}"
        async with await connect(place, tls=context) as stream:
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000))
            head = await stream.receive_until(b"\r\n\r\n", limit=1000)
            assert head.startswith(b"HTTP/1.1 413 ")
            assert (await stream.receive_until(b"\n", limit=100)).startswith(b"413 ")
            assert await stream.receive_some() == b""


# Floods


def test_a_process_out_of_descriptors_keeps_its_listener_and_rests() -> None:
    command = [sys.executable, "-m", no_descriptors.__name__]
    printed = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, stdout=subprocess.PIPE).stdout
    result = json.loads(printed)
    assert result["answered at first"] == no_descriptors.ROOM
    assert result["answered meanwhile"] == 0
    assert result["steps for each pause"] < 10
    assert result["records"] == 1
    assert result["answered when others had left"] >= no_descriptors.ROOM


async def test_half_done_handshakes_end_at_their_deadline_and_keep_nobody_out(
    certificate: Path, mock_clock: trio.testing.MockClock
) -> None:
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    client_hello = outgoing.read()
    limits = Limits(per_address=1000)
    async with serving(EchoHandler(), f"tls://127.0.0.1:0?cert={certificate}", limits=limits) as service:
        port = service.endpoints[0].rpartition(":")[2]
        crowd = [await connect(f"tcp://127.0.0.1:{port}") for _ in range(120)]
        silent, dripping, halfway = crowd[:40], crowd[40:80], crowd[80:]
        for stream in halfway:
            await stream.send_all(client_hello)  # and never an answer to the server's own
        name = f"tls://127.0.0.1:{port}?server_name=localhost"
        async with await connect(name, tls=client_context()) as honest:
            for second in range(9):
                for stream in dripping:
                    await stream.send_all(client_hello[second : second + 1])
                await trio.testing.wait_all_tasks_blocked(0.01)
                mock_clock.jump(1)
            await honest.send_all(b"hello")
            assert await honest.receive_exactly(5) == b"hello"
            assert (service.open, service.counters.handshakes_failed) == (121, 0)
            mock_clock.jump(2)
            for stream in [*silent, *dripping]:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert (service.open, service.counters.handshakes_failed) == (1, 120)
            await honest.send_all(b"hello")
            assert await honest.receive_exactly(5) == b"hello"
        for stream in crowd:
            await stream.abort()


async def test_heads_that_come_byte_by_byte_keep_nobody_waiting_and_are_cut_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    listener = MemoryListener()
    async with serving(HTTPHandler(hello), listener, limits=Limits(per_address=5000)) as service:
        slow = [await listener.connect(OTHER) for _ in range(2000)]
        for second in range(8):
            for stream in slow:
                await stream.send_all(GET[second : second + 1])
            await trio.sleep(1)
        peer = await visit(listener)
        before = trio.current_time()
        await peer.send(GET)
        assert (await peer.expect_until(b"hello")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert trio.current_time() == before
        assert service.open == 2001
        await trio.sleep(HTTPTimeouts().head - 8)
        for stream in slow[::100]:
            assert await stream.receive_until(b"\r\n", limit=100) == b"HTTP/1.1 408 Request Timeout\r\n"
        await trio.sleep(3)  # the lingering close
        assert service.open == 1


# The PROXY protocol


@pytest.mark.parametrize("header", [*V1_FAULTS, *V2_FAULTS, format_v1(CLIENT, OTHER)[:-2], b"\x16\x03\x01\x02\x00\x01"])
async def test_a_hostile_header_from_a_trusted_proxy_reaches_no_handler(
    header: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async def handler(stream: trio.abc.Stream) -> None:
        raise AssertionError("the handler was called")

    listener = MemoryListener()
    async with serving(handler, listener, proxy_from=["10.0.0.1"]) as service:
        peer = await visit(listener, PROXY)
        try:
            await peer.stream.send_all(header)
        except trio.BrokenResourceError:
            pass  # it did not have to read all of that to know
        peer.timeout = 10
        await peer.expect_reset()
        await trio.testing.wait_all_tasks_blocked()
        assert (service.counters.refused, service.counters.failed) == (1, 0)


# STARTTLS


class Upgrading:
    """A small protocol with STARTTLS, as mail has it."""

    def __init__(self, certificate: Path) -> None:
        self._tls = ServerTLS(certificate)
        self.heard: list[tuple[bytes, bool]] = []

    async def __call__(self, stream: trio.abc.Stream) -> None:
        stream = Stream.of(stream)
        while True:
            line = await stream.receive_until(b"\r\n", limit=100)
            self.heard.append((line, stream.tls is not None))
            if line == b"STARTTLS\r\n":
                await stream.send_all(b"220 go ahead\r\n")
                await stream.start_tls(self._tls, server_side=True)
            else:
                await stream.send_all(b"250 ok\r\n")


async def test_an_upgraded_connection_goes_on_under_tls(certificate: Path) -> None:
    handler = Upgrading(certificate)
    async with serving(handler, "tcp://127.0.0.1:0") as service:
        async with await connect(service.endpoints[0]) as stream:
            await stream.send_all(b"STARTTLS\r\n")
            await stream.receive_until(b"\r\n", limit=100)
            await stream.start_tls(client_context(), server_hostname="localhost")
            await stream.send_all(b"MAIL\r\n")
            assert await stream.receive_until(b"\r\n", limit=100) == b"250 ok\r\n"
    assert handler.heard == [(b"STARTTLS\r\n", False), (b"MAIL\r\n", True)]


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_command_injected_before_the_handshake_is_never_heard(
    at_once: bool, in_memory: bool, certificate: Path
) -> None:
    handler = Upgrading(certificate)
    listener = MemoryListener() if in_memory else "tcp://127.0.0.1:0"
    async with serving(handler, listener) as service:
        if isinstance(listener, MemoryListener):
            peer = await visit(listener)
        else:
            peer = ScriptedPeer(await connect(service.endpoints[0]))
        await peer.send(b"STARTTLS\r\nMAIL\r\n" if at_once else b"STARTTLS\r\n")
        await peer.expect(b"220 go ahead\r\n")
        if not at_once:  # it waits in the kernel then, and not in the stream
            await peer.send(b"MAIL\r\n")
        await peer.expect_reset()
        await peer.reset()
    assert handler.heard == [(b"STARTTLS\r\n", False)]
    assert service.counters.failed == 0
