"""Every transport, and Stream over every transport, is a stream as Trio understands it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
import trio.testing

from asyncnet.stream import Stream
from asyncnet.transports.base import Transport
from tests.pairs import MAKERS, Maker, close_sockets, memory_pair, one_byte_pair, over, socket_pair

pytestmark = pytest.mark.usefixtures("crowd")


@pytest.fixture(autouse=True)
def _no_socket_stays_open() -> Iterator[None]:
    yield
    close_sockets()


def clogged(maker: Callable[[], Awaitable[tuple[trio.abc.Stream, trio.abc.Stream]]]):
    async def make() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        left, right = await maker()
        for end in (left, right):
            transport = end._transport if isinstance(end, Stream) else end
            assert isinstance(transport, Transport)
            for size in (65536, 1):
                while transport.send_now(b"x" * size):
                    pass
        return left, right

    return make


CLOGGABLE = [socket_pair, memory_pair]  # over TCP the kernel goes on moving bytes: nothing stays clogged


@pytest.mark.parametrize("maker", MAKERS)
async def test_a_transport_passes_trios_stream_checks(maker: Maker) -> None:
    clog = clogged(maker) if maker in CLOGGABLE else None
    await trio.testing.check_half_closeable_stream(maker, clog)


@pytest.mark.parametrize("maker", MAKERS)
async def test_a_stream_passes_trios_stream_checks(maker: Maker) -> None:
    clog = clogged(over(maker)) if maker in CLOGGABLE else None
    await trio.testing.check_half_closeable_stream(over(maker), clog)


async def test_a_stream_byte_by_byte_passes_trios_checks_in_one_direction() -> None:
    """The checks of both directions send megabytes."""
    await trio.testing.check_one_way_stream(one_byte_pair, None)
    await trio.testing.check_one_way_stream(over(one_byte_pair), None)
