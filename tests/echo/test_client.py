"""The clients of the echo family: against our own servers, and against hostile ones."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
import trustme

from asyncnet import (
    EndOfStream,
    Handler,
    IncompleteRead,
    LimitExceeded,
    ReceiveTimeout,
    RemoteProtocolError,
    TruncatedError,
    serve,
)
from asyncnet.echo import (
    ChargenClient,
    ChargenHandler,
    DaytimeHandler,
    DiscardHandler,
    EchoClient,
    EchoHandler,
    TimeHandler,
    daytime,
    discard,
    network_time,
)
from asyncnet.echo.wire import CHARGEN_LINES
from asyncnet.stream import Stream
from asyncnet.testing import stream_pair

MOMENT = datetime.datetime(2038, 1, 19, 3, 14, 8, tzinfo=datetime.UTC)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        service = await nursery.start(serve, handler, "tcp://127.0.0.1:0")
        yield service.endpoints[0]
        nursery.cancel_scope.cancel()


def saying(data: bytes, *, then: Callable[[Stream], Awaitable[object]] = Stream.linger) -> Handler:
    """A server that says just this."""

    async def handler(stream: trio.abc.Stream) -> None:
        stream = Stream.of(stream)
        await stream.send_all(data)
        await then(stream)

    return handler


async def silence(stream: Stream) -> None:
    await trio.sleep_forever()


async def test_an_echo_client_hears_its_words_again_and_again() -> None:
    async with serving(EchoHandler()) as endpoint, EchoClient.connect(endpoint) as client:
        for data in (b"hello", b"", b"\0\r\n", bytes(range(256)) * 40_000):
            assert await client.echo(data) == data
    assert client.stream.is_closed


async def test_an_echo_that_is_none_is_found() -> None:
    async with serving(saying(b"HELLO")) as endpoint, EchoClient.connect(endpoint) as client:
        with pytest.raises(RemoteProtocolError, match="not what was sent"):
            await client.echo(b"hello")


async def test_an_echo_that_ends_early_is_found() -> None:
    async with serving(saying(b"hel")) as endpoint, EchoClient.connect(endpoint) as client:
        with pytest.raises(IncompleteRead):
            await client.echo(b"hello")


async def test_an_echo_is_waited_for_so_long_and_no_longer(autojump_clock: trio.testing.MockClock) -> None:
    left, right = stream_pair()
    with pytest.raises(ReceiveTimeout):
        await EchoClient(left, timeout=7).echo(b"hello")
    assert trio.current_time() == 7
    await right.aclose()


async def test_a_server_that_echoes_a_byte_a_second_is_given_up_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = stream_pair()

    async def dawdle() -> None:
        while True:
            await trio.sleep(1)
            await right.send_all(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dawdle)
        with pytest.raises(ReceiveTimeout):
            await EchoClient(left, timeout=7.5).echo(b"x" * 100)
        nursery.cancel_scope.cancel()


async def test_chargen_lines_are_read_one_by_one() -> None:
    async with serving(ChargenHandler()) as endpoint, ChargenClient.connect(endpoint) as lines:
        number = 0
        async for line in lines:
            assert line + b"\r\n" == CHARGEN_LINES[number % 95]
            number += 1
            if number == 1000:
                break


async def test_chargen_may_begin_anywhere_and_ends_with_the_server() -> None:
    async with serving(saying(CHARGEN_LINES[94] + CHARGEN_LINES[0])) as endpoint:
        async with ChargenClient.connect(endpoint) as lines:
            assert [line[:1] async for line in lines] == [b"~", b" "]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (CHARGEN_LINES[0] + CHARGEN_LINES[2], RemoteProtocolError),
        (CHARGEN_LINES[0].replace(b"a", b"b"), RemoteProtocolError),
        (b"\r\n", RemoteProtocolError),
        (b"x" * 1000, LimitExceeded),
        (CHARGEN_LINES[0][:-1], IncompleteRead),
    ],
)
async def test_what_is_no_chargen_is_found(data: bytes, error: type[Exception]) -> None:
    async with serving(saying(data)) as endpoint, ChargenClient.connect(endpoint) as lines:
        with pytest.raises(error):
            async for _ in lines:
                pass


async def test_a_chargen_that_stops_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    left, right = stream_pair()
    await right.send_all(CHARGEN_LINES[5] + CHARGEN_LINES[6][:10])
    lines = ChargenClient(left, timeout=7)
    assert await anext(lines) == CHARGEN_LINES[5][:-2]
    with pytest.raises(ReceiveTimeout):
        await anext(lines)


async def test_discard_returns_when_the_server_has_taken_all() -> None:
    taken = 0

    async def count(stream: trio.abc.Stream) -> None:
        nonlocal taken
        stream = Stream.of(stream)
        await DiscardHandler()(stream)
        taken = stream.bytes_in

    async with serving(count) as endpoint:
        await discard(endpoint, b"x" * 1_000_000)
        assert taken == 1_000_000


async def test_a_discard_server_that_answers_is_none() -> None:
    async with serving(EchoHandler()) as endpoint:
        with pytest.raises(RemoteProtocolError, match="has answered"):
            await discard(endpoint, b"x")


async def test_daytime_is_the_servers_line() -> None:
    async with serving(DaytimeHandler(lambda: MOMENT)) as endpoint:
        assert await daytime(endpoint) == "2038-01-19T03:14:08+00:00"


@pytest.mark.parametrize("data", [b"", b"x" * 100_000, b"\x1b]0;title\x07"])
async def test_a_daytime_that_is_none_is_refused(data: bytes) -> None:
    async with serving(saying(data)) as endpoint:
        with pytest.raises(RemoteProtocolError):
            await daytime(endpoint)


async def test_a_daytime_that_never_ends_is_given_up() -> None:
    async with serving(saying(b"noon", then=silence)) as endpoint:
        with pytest.raises(ReceiveTimeout):
            await daytime(endpoint, timeout=0.05)


async def test_the_time_is_understood_past_2036() -> None:
    async with serving(TimeHandler(lambda: MOMENT)) as endpoint:
        assert await network_time(endpoint) == MOMENT


async def test_a_time_server_that_does_not_know_the_time_says_nothing() -> None:
    async with serving(saying(b"")) as endpoint:
        with pytest.raises(EndOfStream):
            await network_time(endpoint)


async def test_half_a_time_is_none() -> None:
    async with serving(saying(b"\x83\xaa")) as endpoint:
        with pytest.raises(IncompleteRead):
            await network_time(endpoint)


async def test_the_time_of_a_silent_server_is_not_waited_for() -> None:
    async with serving(saying(b"", then=silence)) as endpoint:
        with pytest.raises(ReceiveTimeout):
            await network_time(endpoint, timeout=0.05)


async def test_all_of_it_works_over_tls(tmp_path) -> None:
    authority = trustme.CA()
    certificate = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    async def truncate(stream: Stream) -> None:
        await stream.abort()

    async with trio.open_nursery() as nursery:

        async def start(handler: Handler) -> str:
            service = await nursery.start(serve, handler, f"tls://127.0.0.1:0?cert={certificate}")
            return service.endpoints[0].partition("?")[0] + f"?ca={tmp_path / 'ca.pem'}"

        async with EchoClient.connect(await start(EchoHandler())) as client:
            assert await client.echo(b"x" * 200_000) == b"x" * 200_000
        async with ChargenClient.connect(await start(ChargenHandler())) as lines:
            assert await anext(lines) == CHARGEN_LINES[0][:-2]
        await discard(await start(DiscardHandler()), b"x" * 200_000)
        assert await daytime(await start(DaytimeHandler(lambda: MOMENT))) == "2038-01-19T03:14:08+00:00"
        assert await network_time(await start(TimeHandler(lambda: MOMENT))) == MOMENT
        # The end of a daytime is the end of the stream: one that was cut off must not pass for whole.
        with pytest.raises((TruncatedError, trio.BrokenResourceError)):
            await daytime(await start(saying(b"no", then=truncate)))
        nursery.cancel_scope.cancel()
