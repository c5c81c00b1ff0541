"""Sockets straight on the descriptor: what the kernel does is passed on, and nothing else."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from asyncnet.transports.address import NOWHERE, Address
from asyncnet.transports.base import Transport
from asyncnet.transports.socket import SocketTransport, address_of, peer_address, prepare
from tests.pairs import Maker, close_sockets, socket_pair, sockets_over_tcp, tcp_pair

pytestmark = pytest.mark.usefixtures("crowd")

BOTH = pytest.mark.parametrize("maker", [socket_pair, tcp_pair])


@pytest.fixture(autouse=True)
def _no_socket_stays_open() -> Iterator[None]:
    yield
    close_sockets()


async def test_the_addresses_are_the_sockets_own() -> None:
    left, right = sockets_over_tcp()
    near, far = SocketTransport(left), SocketTransport(right)
    assert near.local == far.peer == Address("127.0.0.1", left.getsockname()[1])
    assert near.peer == far.local == Address("127.0.0.1", right.getsockname()[1])


async def test_a_unix_peer_is_known_by_its_user() -> None:
    left, _right = await socket_pair()
    assert left.peer == Address(path="", uid=os.getuid())
    assert left.local == Address(path="")


async def test_a_peer_that_has_gone_is_nowhere() -> None:
    left, right = sockets_over_tcp()
    await SocketTransport(right).abort()
    await SocketTransport(left).wait_receivable(1)
    assert left.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert peer_address(left) == NOWHERE


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("192.0.2.1", 80), Address("192.0.2.1", 80)),
        (("::ffff:192.0.2.1", 80, 0, 0), Address("192.0.2.1", 80)),
        (("2001:db8::1", 80, 0, 0), Address("2001:db8::1", 80)),
        (("fe80::1", 80, 0, 7), Address("fe80::1", 80, scope="7")),
        (("fe80::1%eth0", 80, 0, 7), Address("fe80::1", 80, scope="eth0")),
        ("/run/socket", Address(path="/run/socket")),
        ("", Address(path="")),
        (b"\0abstract", Address(path="@abstract")),
    ],
)
def test_the_kernels_names_become_addresses(name: tuple[object, ...] | str | bytes, address: Address) -> None:
    assert address_of(name) == address


async def test_an_abort_is_seen_as_a_reset_over_tcp() -> None:
    left, right = await tcp_pair()
    await left.abort()
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await right.receive_some()


async def test_closing_with_unread_bytes_is_a_reset_and_lingering_avoids_it() -> None:
    for lingers in (False, True):
        left, right = await tcp_pair()
        await left.send_all(b"unread")
        await right.wait_receivable(1)
        await right.send_all(b"answer")
        if lingers:
            assert isinstance(right, SocketTransport)
            right.finish_sending()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(right.discard, 65536)
                assert await left.receive_some() == b"answer"
                assert await left.receive_some() == b""
                await left.aclose()
            await right.aclose()
        else:
            await right.aclose()
            with pytest.raises(trio.BrokenResourceError):
                while await left.receive_some():
                    pass


async def test_what_is_discarded_has_a_limit() -> None:
    left, right = await socket_pair()
    await left.send_all(b"x" * 1000)
    assert isinstance(right, SocketTransport)
    await right.discard(1)
    left.send_now(b"y")
    assert await right.receive_some() == b"y"


@BOTH
async def test_closing_ends_whoever_waits(maker: Maker) -> None:
    for close in ("aclose", "abort"):
        left, _right = await maker()
        while left.send_now(b"x" * 65536):
            pass

        async def send(left: Transport = left) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await left.send_all(bytes(8 << 20))

        async def receive(left: Transport = left) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await left.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await getattr(left, close)()
        assert not left.is_open


async def test_a_wake_ends_the_receive_and_leaves_the_sender_waiting() -> None:
    left, right = await socket_pair()
    while left.send_now(b"x" * 65536):
        pass
    while left.send_now(b"x"):
        pass
    woken = trio.Event()

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await left.wait_receivable(1)
        assert left.is_open
        woken.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(left.send_all, b"the rest")
        await trio.testing.wait_all_tasks_blocked(0.01)
        left.wake()
        await woken.wait()
        received = b""
        while not received.endswith(b"the rest"):
            received = received[-8:] + await right.receive_some()
    left.wake()
    await left.abort()
    left.wake()


@BOTH
async def test_a_released_socket_is_no_longer_the_transports(maker: Maker) -> None:
    left, _right = await maker()
    assert isinstance(left, SocketTransport)
    sock = left.release()
    await left.aclose()
    assert sock.fileno() != -1
    with pytest.raises(trio.ClosedResourceError):
        await left.receive_some()


async def test_a_file_that_ends_is_told_from_a_socket_that_is_full(tmp_path: Path) -> None:
    left, _right = await socket_pair()
    assert isinstance(left, SocketTransport)
    (tmp_path / "file").write_bytes(b"x" * 10)
    with (tmp_path / "file").open("rb") as file:
        assert left.send_file_now(file, 4, 100) == 6
        assert left.send_file_now(file, 10, 100) == 0
        while left.send_now(b"x" * 65536):
            pass
        while left.send_now(b"x"):
            pass
        assert left.send_file_now(file, 0, 10) is None
        await left.abort()
        with pytest.raises(trio.ClosedResourceError):
            left.send_file_now(file, 0, 10)


def test_prepare_leaves_unix_sockets_their_options_and_sends_small_segments_at_once() -> None:
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        prepare(tcp)
        prepare(unix)
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not tcp.getblocking()
        assert not unix.getblocking()
