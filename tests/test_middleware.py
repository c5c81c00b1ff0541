"""Rules about who may come, and what a stream shows or slows."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from asyncnet.errors import Draining, ReceiveTimeout
from asyncnet.limits import Timeouts
from asyncnet.middleware import (
    SHOWN,
    Bandwidth,
    ConnectionRate,
    ConnectionsPerAddress,
    ConversationLog,
    Middleware,
    NetworkRules,
    TimeLimit,
)
from asyncnet.service import serve
from asyncnet.stream import Stream
from asyncnet.testing import MemoryListener, ScriptedPeer, stream_pair
from asyncnet.transports.address import Address

ADA = Address("192.0.2.1", 1)
BOB = Address("192.0.2.2", 1)
UNIX = Address(path="/run/x", uid=0)

# Who may come


def test_a_middleware_that_says_nothing_lets_everybody_in() -> None:
    assert Middleware().admit(ADA) is None
    assert Middleware().time_limit == math.inf


def test_deny_refuses_and_the_rest_comes_in() -> None:
    rules = NetworkRules(deny=["192.0.2.1", "2001:db8::/32"])
    assert rules.admit(ADA)
    assert rules.admit(Address("2001:db8::1", 1))
    assert rules.admit(BOB) is None
    assert rules.admit(UNIX) is None


def test_allow_admits_only_what_is_listed_and_deny_comes_first() -> None:
    rules = NetworkRules(allow=["192.0.2.0/24", "unix"], deny=["192.0.2.1"])
    assert rules.admit(ADA)
    assert rules.admit(BOB) is None
    assert rules.admit(UNIX) is None
    assert rules.admit(Address("198.51.100.1", 1))


def test_an_empty_allow_list_admits_nobody() -> None:
    assert NetworkRules(allow=[]).admit(ADA)


def test_connections_of_one_address_are_counted_until_they_end() -> None:
    cap = ConnectionsPerAddress(2)
    assert cap.admit(ADA) is None
    assert cap.admit(Address("192.0.2.1", 2)) is None
    assert cap.admit(ADA)
    assert cap.admit(BOB) is None
    cap.release(ADA)
    assert cap.admit(ADA) is None
    for _ in range(2):
        cap.release(ADA)
    cap.release(BOB)
    assert cap._counts == {}


def test_one_ipv6_network_is_one_client_and_unix_peers_are_not_counted() -> None:
    cap = ConnectionsPerAddress(1)
    assert cap.admit(Address("2001:db8::1", 1)) is None
    assert cap.admit(Address("2001:db8::ffff:2", 1))
    assert cap.admit(Address("2001:db8:0:1::1", 1)) is None
    for _ in range(3):
        assert cap.admit(UNIX) is None
        cap.release(UNIX)


async def test_a_rate_lets_a_burst_in_and_then_one_at_a_time(mock_clock: trio.testing.MockClock) -> None:
    rate = ConnectionRate(3, 60)
    assert [rate.admit(ADA) is None for _ in range(5)] == [True, True, True, False, False]
    assert rate.admit(BOB) is None
    mock_clock.jump(20)
    assert [rate.admit(ADA) is None for _ in range(2)] == [True, False]
    mock_clock.jump(3600)
    assert [rate.admit(ADA) is None for _ in range(4)] == [True, True, True, False]


async def test_a_rate_holds_in_the_long_run(mock_clock: trio.testing.MockClock) -> None:
    rate = ConnectionRate(10, 60)
    admitted = 0
    for _ in range(3600):
        admitted += rate.admit(ADA) is None
        mock_clock.jump(1)
    assert 600 <= admitted <= 611


async def test_a_rate_remembers_no_more_addresses_than_it_may(mock_clock: trio.testing.MockClock) -> None:
    rate = ConnectionRate(1, 60, memory=100)
    for i in range(1000):
        rate.admit(Address(f"10.0.{i // 256}.{i % 256}", 1))
    assert len(rate._full_until) == 100
    assert all(rate.admit(UNIX) is None for _ in range(5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConnectionRate(0, 1),
        lambda: ConnectionRate(1, 0),
        lambda: ConnectionRate(1, 1, memory=0),
        lambda: TimeLimit(0),
        lambda: TimeLimit(math.nan),
        lambda: Bandwidth(),
        lambda: Bandwidth(each=0),
        lambda: Bandwidth(total=math.nan),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_at_once(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"a |at least"):
        make()


async def test_a_service_sends_away_whom_the_rules_deny(nursery: trio.Nursery) -> None:
    async def handler(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"welcome")

    listener = MemoryListener()
    await nursery.start(
        lambda task_status: serve(
            handler, listener, middleware=[NetworkRules(deny=["192.0.2.1"])], task_status=task_status
        )
    )
    await ScriptedPeer(await listener.connect(ADA)).expect_reset()
    await ScriptedPeer(await listener.connect(BOB)).expect(b"welcome")
    nursery.cancel_scope.cancel()


# Bandwidth


async def test_what_is_sent_takes_its_time(autojump_clock: trio.testing.MockClock) -> None:
    client, server = stream_pair()
    Bandwidth(each=1000).dress(server)

    async def send() -> None:
        await server.send_all(b"x" * 10_000)
        await server.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert await client.receive_exactly(10_000) == b"x" * 10_000
    assert trio.current_time() == pytest.approx(10, abs=0.3)
    assert server.bytes_out == 10_000


async def test_what_is_received_takes_its_time(autojump_clock: trio.testing.MockClock) -> None:
    client, server = stream_pair(capacity=100)
    Bandwidth(each=1000).dress(server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"x" * 10_000)
        assert await server.receive_exactly(10_000) == b"x" * 10_000
    assert trio.current_time() == pytest.approx(10, abs=0.3)
    assert server.bytes_in == 10_000


async def test_the_directions_do_not_slow_each_other(autojump_clock: trio.testing.MockClock) -> None:
    client, server = stream_pair(capacity=100)
    Bandwidth(each=1000).dress(server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"x" * 5000)
        nursery.start_soon(server.send_all, b"x" * 5000)
        nursery.start_soon(client.receive_exactly, 5000)
        nursery.start_soon(server.receive_exactly, 5000)
    assert trio.current_time() == pytest.approx(5, abs=0.3)


async def test_connections_share_the_total(autojump_clock: trio.testing.MockClock) -> None:
    bandwidth = Bandwidth(total=1000)

    async def one() -> None:
        client, server = stream_pair()
        bandwidth.dress(server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.send_all, b"x" * 2500)
            await client.receive_exactly(2500)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)
    assert trio.current_time() == pytest.approx(10, abs=1)


async def test_a_throttle_is_no_reason_to_cut_a_peer_off(autojump_clock: trio.testing.MockClock) -> None:
    client, server = stream_pair(timeouts=Timeouts(send=0.05))
    Bandwidth(each=10).dress(server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, b"x" * 50)
        assert await client.receive_exactly(50) == b"x" * 50


async def test_a_throttled_stream_cuts_off_a_peer_that_does_not_read(autojump_clock: trio.testing.MockClock) -> None:
    _client, server = stream_pair(capacity=10, timeouts=Timeouts(send=7))
    Bandwidth(each=1000).dress(server)
    with pytest.raises(trio.BrokenResourceError, match="read nothing"):
        await server.send_all(b"x" * 50)


async def test_deadlines_and_drains_reach_a_receive_that_is_throttled(autojump_clock: trio.testing.MockClock) -> None:
    client, server = stream_pair()
    Bandwidth(each=10).dress(server)
    await client.send_all(b"x" * 10_000)
    await server.receive_some()
    server.take(server.buffered)
    server.deadline = trio.current_time() + 5
    with pytest.raises(ReceiveTimeout):
        await server.receive_some()
    assert trio.current_time() == pytest.approx(5)
    server.deadline = math.inf

    async def drain() -> None:
        await trio.sleep(2)
        server.interrupt()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        with pytest.raises(Draining):
            await server.receive_some()
    assert trio.current_time() == pytest.approx(7)


async def test_a_question_that_is_queued_leaves_a_throttled_stream_with_the_receive(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, server = stream_pair()
    Bandwidth(each=100).dress(client)
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            assert await server.receive_exactly(200) == b"?" * 200
            await server.send_all(b"!")

        nursery.start_soon(answer)
        client.write(b"?" * 200)
        assert await client.receive_some() == b"!"


# The log of the conversation


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "asyncnet.conversation"]


async def test_the_log_shows_both_directions_and_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "asyncnet.conversation")
    client, server = stream_pair(client=ADA)
    ConversationLog().dress(server)
    await client.send_all(b"hello\r\n")
    assert await server.receive_until(b"\r\n", limit=99) == b"hello\r\n"
    server.write(b"250 ")
    server.write(b"ok\r\n")
    await server.flush()
    await server.send_eof()
    await client.receive_exactly(8)
    await client.aclose()
    assert await server.receive_some() == b""
    assert logged(caplog) == [
        "192.0.2.1:1 -> 'hello\\r\\n'",
        "192.0.2.1:1 <- '250 ok\\r\\n'",
        "192.0.2.1:1 -- ended this side",
        "192.0.2.1:1 -> (end)",
    ]


async def test_secrets_are_counted_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "asyncnet.conversation")
    client, server = stream_pair()
    for stream in (client, server):
        ConversationLog().dress(stream)
    with client.secret(), server.secret():
        await client.send_all(b"hunter2\r\n")
        await server.receive_until(b"\r\n", limit=99)
    await client.send_all(b"open")
    await server.receive_some()
    text = "\n".join(logged(caplog))
    assert "hunter2" not in text
    assert text.count("(9 secret bytes)") == 2
    assert text.count("'open'") == 2


async def test_a_secret_that_is_queued_stays_secret(caplog: pytest.LogCaptureFixture) -> None:
    """What is written within `secret` may leave only later, with the next receive."""
    caplog.set_level(logging.DEBUG, "asyncnet.conversation")
    client, server = stream_pair()
    ConversationLog().dress(client)
    with client.secret():
        client.write(b"PASS hunter2\r\n")
    client.write(b"NOOP\r\n")
    await server.send_all(b"230 ok\r\n")
    await client.receive_until(b"\r\n", limit=99)
    await client.flush()
    assert "hunter2" not in "\n".join(logged(caplog))


async def test_long_pieces_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "asyncnet.conversation")
    client, _server = stream_pair()
    ConversationLog().dress(client)
    await client.send_all(b"x" * (SHOWN + 10))
    assert logged(caplog)[0].endswith("x' and 10 bytes more")
    assert len(logged(caplog)[0]) < SHOWN + 100


async def test_without_debug_a_stream_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asyncnet.conversation")
    client, _server = stream_pair()
    ConversationLog().dress(client)
    assert client._taps == ()


async def test_a_file_passes_the_taps_too(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.DEBUG, "asyncnet.conversation")
    (tmp_path / "file").write_bytes(b"content")
    client, server = stream_pair()
    ConversationLog().dress(client)
    with (tmp_path / "file").open("rb") as file:
        await client.send_file(file)
    assert logged(caplog) == ["memory <- 'content'"]
    assert await Stream.of(server).receive_some() == b"content"
