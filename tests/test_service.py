"""What a service does with connections, as peers and the log see it: accept, guard, limit, refuse, drain."""

from __future__ import annotations

import errno
import logging
import math
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
import trio
import trio.testing
import trustme

from asyncnet import (
    ConfigurationError,
    EndpointError,
    Limits,
    Listener,
    ServerTLS,
    Service,
    Stream,
    Timeouts,
    connect,
    draining,
    idle,
    is_draining,
    serve,
)
from asyncnet.connection import busy
from asyncnet.echo import EchoHandler
from asyncnet.middleware import Middleware, NetworkRules, TimeLimit
from asyncnet.testing import MemoryListener, ScriptedPeer
from asyncnet.transports.address import Address
from asyncnet.transports.base import Transport
from asyncnet.transports.proxy_header import format_v1, format_v2

CLIENT = Address("192.0.2.1", 40000)
OTHER = Address("192.0.2.2", 40000)
PROXY = Address("10.0.0.1", 1234)


@asynccontextmanager
async def serving(handler, *endpoints, **options) -> AsyncIterator[Service]:  # type: ignore[no-untyped-def]
    """A service for the length of the block."""
    async with trio.open_nursery() as nursery:
        yield await nursery.start(lambda task_status: serve(handler, *endpoints, task_status=task_status, **options))
        nursery.cancel_scope.cancel()


async def visit(listener: MemoryListener, peer: Address = CLIENT) -> ScriptedPeer:
    return ScriptedPeer(await listener.connect(peer))


class Polite:
    """Answers each line; says goodbye when drained; refuses in its own words."""

    name = "polite"
    refusal = b"421 come back later\r\n"

    async def __call__(self, stream: trio.abc.Stream) -> None:
        stream = Stream.of(stream)
        await stream.send_all(b"220 hello\r\n")
        while True:
            async with idle() as turn:
                line = await stream.receive_until(b"\r\n", limit=100)
            if turn.draining:
                await stream.send_all(b"421 bye\r\n")
                return
            if line == b"slow\r\n":
                await trio.sleep(5)
            if line == b"crash\r\n":
                raise RuntimeError("it crashed")
            await stream.send_all(b"250 last\r\n" if is_draining() else b"250 ok\r\n")


# Serving and ending


async def test_it_serves_where_it_says_that_it_listens() -> None:
    async with serving(EchoHandler(), "tcp://127.0.0.1:0", "tcp://[::1]:0") as service:
        for endpoint in service.endpoints:
            stream = await connect(endpoint)
            async with stream:
                await stream.send_all(b"hello")
                assert await stream.receive_exactly(5) == b"hello"
        assert service.counters.accepted == 2


async def test_a_star_listens_on_both_families_on_one_port() -> None:
    async with serving(EchoHandler(), "tcp://*:0") as service:
        ports = {endpoint.rpartition(":")[2] for endpoint in service.endpoints}
        assert len(service.endpoints) == 2
        assert len(ports) == 1
        for host in ("127.0.0.1", "[::1]"):
            async with await connect(f"tcp://{host}:{ports.copy().pop()}") as stream:
                assert stream.peer.host == host.strip("[]")


async def test_a_port_in_use_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match="port is in use") as caught:
            await serve(EchoHandler(), f"tcp://127.0.0.1:{port}")
    assert "\n" not in str(caught.value)


async def test_no_endpoint_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one endpoint"):
        await serve(EchoHandler())


async def test_a_wrong_endpoint_leaves_nothing_listening() -> None:
    with pytest.raises(EndpointError):
        await serve(EchoHandler(), "tcp://127.0.0.1:0", "tcp://127.0.0.1")


async def test_cancelling_is_prompt(autojump_clock: trio.testing.MockClock) -> None:
    listener = MemoryListener()
    async with serving(Polite(), listener):
        peer = await visit(listener)
        await peer.expect(b"220 hello\r\n")
        await peer.send(b"slow\r\n")
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
    assert trio.current_time() == before
    await peer.expect_reset()


async def test_a_handler_is_entered_before_listening_and_left_after_the_drain() -> None:
    events: list[str] = []
    listener = MemoryListener()

    class Resource(Polite):
        async def __aenter__(self) -> Resource:
            events.append(f"entered with {listener.waiting} waiting")
            return self

        async def __aexit__(self, *exc_info: object) -> None:
            events.append("left")

        async def __call__(self, stream: trio.abc.Stream) -> None:
            await super().__call__(stream)
            events.append("served")

    async with serving(Resource(), listener) as service:
        peer = await visit(listener)
        await peer.expect(b"220 hello\r\n")
        await service.drain()
        await peer.expect(b"421 bye\r\n")
    assert events == ["entered with 0 waiting", "served", "left"]


# The guard


async def test_a_handler_that_fails_ends_its_own_connection_alone(caplog: pytest.LogCaptureFixture) -> None:
    listener = MemoryListener()
    async with serving(Polite(), listener) as service:
        failing, other = await visit(listener), await visit(listener)
        for peer in (failing, other):
            await peer.expect(b"220 hello\r\n")
        await failing.send(b"crash\r\n")
        await failing.expect_reset()
        await other.send(b"hello\r\n")
        await other.expect(b"250 ok\r\n")
        assert service.counters.failed == 1
    record = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.exc_info is not None
    assert "it crashed" in caplog.text
    assert "192.0.2.1:40000" in record.getMessage()


async def test_an_error_beside_a_cancellation_is_logged_and_the_service_lives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(stream: trio.abc.Stream) -> None:
        async def fail_when_cancelled() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while it was being cancelled")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)

    listener = MemoryListener()
    async with serving(handler, listener, middleware=[TimeLimit(0.001)]) as service:
        peer = await visit(listener)
        await peer.expect_reset()
        assert service.counters.failed == 1
        await (await visit(listener)).expect_reset()
    assert "while it was being cancelled" in caplog.text


async def test_a_peer_that_resets_makes_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    listener = MemoryListener()
    async with serving(Polite(), listener) as service:
        peer = await visit(listener)
        await peer.expect(b"220 hello\r\n")
        await peer.reset()
        await trio.testing.wait_all_tasks_blocked()
        assert service.open == 0
        assert service.counters.failed == 0
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_each_connection_leaves_one_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asyncnet.service")
    listener = MemoryListener()
    async with serving(EchoHandler(), listener) as service:
        peer = await visit(listener)
        await peer.send(b"hello")
        await peer.expect(b"hello")
        await peer.send_eof()
        await peer.expect_end()
        await trio.testing.wait_all_tasks_blocked()
        assert service.counters.bytes_in == service.counters.bytes_out == 5
    (record,) = caplog.records
    assert record.getMessage().startswith("echo: 192.0.2.1:40000, ")
    assert record.getMessage().endswith("5 bytes in, 5 bytes out: done")


async def test_where_the_handler_logs_requests_only_connections_that_ended_badly_leave_a_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Telling(EchoHandler):
        logs_requests = True

    caplog.set_level(logging.INFO, "asyncnet.service")
    listener = MemoryListener()
    async with serving(Telling(), listener):
        good, bad = await visit(listener), await visit(listener, OTHER)
        await good.send_eof()
        await good.expect_end()
        await bad.send(b"hello")
        await bad.reset()
        await trio.testing.wait_all_tasks_blocked()
    (record,) = caplog.records
    assert record.getMessage().startswith("echo: 192.0.2.2:40000, ")


async def test_a_tls_handshake_that_fails_is_no_failure_of_the_handler(caplog: pytest.LogCaptureFixture) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    listener = MemoryListener(tls=context)
    async with serving(Polite(), listener) as service:
        peer = await visit(listener)
        await peer.send(b"EHLO example.org\r\n")
        await peer.expect_reset()
        await trio.testing.wait_all_tasks_blocked()
        assert (service.counters.handshakes_failed, service.counters.failed) == (1, 0)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


# Caps and refusals


async def test_over_the_cap_a_peer_is_refused_in_the_protocols_words() -> None:
    listener = MemoryListener()
    async with serving(Polite(), listener, limits=Limits(connections=1)) as service:
        first = await visit(listener)
        await first.expect(b"220 hello\r\n")
        second = await visit(listener)
        await second.expect(b"421 come back later\r\n")
        await second.expect_end()
        assert service.counters.refused == 1
        await first.close()
        await second.close()
        await trio.testing.wait_all_tasks_blocked()
        third = await visit(listener)
        await third.expect(b"220 hello\r\n")


async def test_a_handler_without_words_leaves_those_over_the_cap_waiting() -> None:
    listener = MemoryListener()
    async with serving(EchoHandler(), listener, limits=Limits(connections=1)):
        first = await visit(listener)
        await first.send(b"1")
        await first.expect(b"1")
        second = await visit(listener)
        await second.send(b"2")
        await trio.testing.wait_all_tasks_blocked()
        assert listener.waiting == 1
        await first.close()
        await second.expect(b"2")


async def test_refusals_are_bounded_and_then_accepting_stops() -> None:
    listener = MemoryListener()
    async with serving(Polite(), listener, limits=Limits(connections=1, refusals=2)):
        await (await visit(listener)).expect(b"220 hello\r\n")
        refused = [await visit(listener) for _ in range(5)]
        await trio.testing.wait_all_tasks_blocked()
        assert listener.waiting == 3
        await refused[0].expect(b"421 come back later\r\n")
        await refused[0].close()
        await trio.testing.wait_all_tasks_blocked()
        assert listener.waiting == 2


async def test_one_address_cannot_take_all_connections() -> None:
    listener = MemoryListener()
    async with serving(Polite(), listener, limits=Limits(per_address=2)) as service:
        for _ in range(2):
            await (await visit(listener)).expect(b"220 hello\r\n")
        await (await visit(listener)).expect(b"421 come back later\r\n")
        await (await visit(listener, OTHER)).expect(b"220 hello\r\n")
        assert service.counters.refused == 1


async def test_an_ipv6_network_counts_as_one_address() -> None:
    listener = MemoryListener()
    async with serving(Polite(), listener, limits=Limits(per_address=1)):
        await (await visit(listener, Address("2001:db8::1", 1))).expect(b"220 hello\r\n")
        await (await visit(listener, Address("2001:db8::ffff:1", 2))).expect(b"421 come back later\r\n")
        await (await visit(listener, Address("2001:db8:0:1::1", 3))).expect(b"220 hello\r\n")


async def test_unix_peers_are_not_counted_by_address() -> None:
    listener = MemoryListener()
    async with serving(Polite(), listener, limits=Limits(per_address=1)):
        for _ in range(3):
            await (await visit(listener, Address(path="", uid=1000))).expect(b"220 hello\r\n")


async def test_a_connection_that_ended_makes_room() -> None:
    listener = MemoryListener()
    async with serving(Polite(), listener, limits=Limits(per_address=1)):
        for _ in range(3):
            peer = await visit(listener)
            await peer.expect(b"220 hello\r\n")
            await peer.close()
            await trio.testing.wait_all_tasks_blocked()


async def test_when_one_rule_refuses_the_others_forget_the_connection() -> None:
    listener = MemoryListener()
    limits = Limits(per_address=1)
    async with serving(Polite(), listener, limits=limits, middleware=[NetworkRules(deny=["192.0.2.0/24"])]) as service:
        for _ in range(3):
            await (await visit(listener)).expect(b"421 come back later\r\n")
        assert service.open == 0


async def test_handshakes_are_bounded_and_time_out(autojump_clock: trio.testing.MockClock) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    listener = MemoryListener(tls=context)
    async with serving(Polite(), listener, limits=Limits(handshakes=2), timeouts=Timeouts(handshake=10)) as service:
        silent = [await visit(listener) for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        assert listener.waiting == 1
        await silent[0].expect_silence(4)
        await trio.sleep(7)
        assert listener.waiting == 0
        assert service.counters.handshakes_failed == 2


async def test_without_descriptors_accepting_rests_and_then_goes_on(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    class Exhausted(MemoryListener):
        __slots__ = ()

        def accept_now(self) -> Transport | None:
            nonlocal tries
            tries += 1
            if trio.current_time() < until:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept_now()

    until = trio.current_time() + 10
    listener = Exhausted()
    async with serving(EchoHandler(), listener):
        peer = await visit(listener)
        await peer.send(b"still here")
        peer.timeout = 60
        await peer.expect(b"still here")
    assert tries < 30
    assert "ulimit -n" in caplog.text
    assert len(caplog.records) <= 2


async def test_an_unexpected_error_of_accept_ends_the_service() -> None:
    class Broken(MemoryListener):
        __slots__ = ()

        def accept_now(self) -> Transport | None:
            raise OSError(errno.EINVAL, "Invalid argument")

    listener = Broken()
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        async with serving(EchoHandler(), listener):
            await listener.connect()
            await trio.sleep_forever()


# Time


async def test_idle_connections_end(autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    listener = MemoryListener()
    async with serving(EchoHandler(), listener, timeouts=Timeouts(idle=80)):
        idler, talker = await visit(listener), await visit(listener)
        for _ in range(10):
            await trio.sleep(15)
            await talker.send(b"x")
            await talker.expect(b"x")
        await idler.expect_end()
        await talker.expect_silence(60)
        await talker.send(b"x")
        await talker.expect(b"x")
    assert "idle for 80 s" in caplog.text


async def test_a_still_connection_whose_work_moves_elsewhere_is_not_idle(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handler(stream: trio.abc.Stream) -> None:
        with busy():
            await trio.sleep(1000)
        await Stream.of(stream).send_all(b"done")
        await trio.sleep_forever()

    listener = MemoryListener()
    async with serving(handler, listener, timeouts=Timeouts(idle=80)):
        peer = await visit(listener)
        peer.timeout = 2000
        await peer.expect(b"done")
        began = trio.current_time()
        await peer.expect_end()
        assert 80 <= trio.current_time() - began <= 100


async def test_a_time_limit_ends_a_busy_connection_by_a_reset(autojump_clock: trio.testing.MockClock) -> None:
    listener = MemoryListener()
    async with serving(EchoHandler(), listener, middleware=[TimeLimit(30)]):
        peer = await visit(listener)
        for _ in range(29):
            await trio.sleep(1)
            await peer.send(b"x")
            await peer.expect(b"x")
        await peer.expect_reset()


async def test_slow_clients_do_not_keep_others_waiting(autojump_clock: trio.testing.MockClock) -> None:
    listener = MemoryListener()
    limits = Limits(per_address=5000)
    async with serving(Polite(), listener, limits=limits) as service:
        slow = [await listener.connect(OTHER) for _ in range(2000)]
        for second in range(3):
            for stream in slow:
                await stream.send_all(b"slow"[second : second + 1])
            await trio.sleep(1)
        peer = await visit(listener)
        await peer.expect(b"220 hello\r\n")
        await peer.send(b"hello\r\n")
        await peer.expect(b"250 ok\r\n")
        assert service.open == 2001


# Draining


async def test_draining_says_goodbye_to_idle_connections_and_lets_busy_ones_finish(
    autojump_clock: trio.testing.MockClock,
) -> None:
    listener = MemoryListener()
    async with serving(Polite(), listener) as service:
        quiet, busy = await visit(listener), await visit(listener)
        for peer in (quiet, busy):
            await peer.expect(b"220 hello\r\n")
        await busy.send(b"slow\r\n")
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.drain)
            await quiet.expect(b"421 bye\r\n")
            assert trio.current_time() == before
            with pytest.raises(ConnectionRefusedError):
                await listener.connect()
            busy.timeout = 10
            await busy.expect(b"250 last\r\n421 bye\r\n")
            await busy.expect_end()
        assert trio.current_time() - before == 5


async def test_what_does_not_finish_is_cut_off_at_the_drains_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async def stubborn(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    listener = MemoryListener()
    async with serving(stubborn, listener, timeouts=Timeouts(drain=7)) as service:
        peer = await visit(listener)
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        await service.drain()
        assert trio.current_time() - before == 7
        await peer.expect_reset()


async def test_serve_returns_when_it_has_been_drained() -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        service = await nursery.start(serve, Polite(), listener)
        await service.drain()
        await service.drain()


async def test_a_request_that_has_arrived_is_answered_before_the_goodbye() -> None:
    listener = MemoryListener()
    async with serving(Polite(), listener) as service:
        peer = await visit(listener)
        await peer.expect(b"220 hello\r\n")
        await peer.send(b"one\r\ntwo\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.drain)
            answers = await peer.expect_until(b"421 bye\r\n")
        assert answers.count(b"250") == 2


async def test_a_handler_of_several_tasks_waits_for_the_drain() -> None:
    async def handler(stream: trio.abc.Stream) -> None:
        stream = Stream.of(stream)
        await draining()
        await stream.send_all(b"bye")

    listener = MemoryListener()
    async with serving(handler, listener) as service:
        peer = await visit(listener)
        await trio.testing.wait_all_tasks_blocked()
        await service.drain()
        await peer.expect(b"bye")
        await peer.expect_end()


async def test_an_echo_in_flight_survives_the_drain() -> None:
    listener = MemoryListener()
    async with serving(EchoHandler(), listener) as service:
        peer = await visit(listener)
        await peer.send(b"hello")
        await trio.testing.wait_all_tasks_blocked()
        await service.drain()
        await peer.expect(b"hello")
        await peer.expect_end()


async def test_without_a_service_idle_and_draining_do_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with idle() as turn:
        pass
    assert not turn.draining
    assert not is_draining()
    with trio.move_on_after(1000) as scope:
        await draining()
    assert scope.cancelled_caught


# The PROXY protocol

HEADERS: list[Callable[[Address, Address], bytes]] = [format_v1, format_v2]


@pytest.mark.parametrize("header", HEADERS)
async def test_a_trusted_proxy_tells_who_the_peer_is(header: Callable[[Address, Address], bytes]) -> None:
    async def handler(stream: trio.abc.Stream) -> None:
        stream = Stream.of(stream)
        await stream.send_all(f"{stream.peer} {stream.local}".encode())

    listener = MemoryListener()
    async with serving(handler, listener, proxy_from=["10.0.0.0/8"]):
        peer = await visit(listener, PROXY)
        for byte in header(CLIENT, Address("198.51.100.7", 25)):
            await peer.send(bytes([byte]))
        await peer.expect(b"192.0.2.1:40000 198.51.100.7:25")


@pytest.mark.parametrize("header", HEADERS)
async def test_not_a_byte_behind_the_proxy_header_is_lost(header: Callable[[Address, Address], bytes]) -> None:
    listener = MemoryListener()
    async with serving(EchoHandler(), listener, proxy_from=["10.0.0.1"]):
        peer = await visit(listener, PROXY)
        await peer.send(header(CLIENT, OTHER) + b"PROXY is no header here\r\n")
        await peer.expect(b"PROXY is no header here\r\n")


async def test_a_proxy_that_is_not_trusted_is_refused() -> None:
    listener = MemoryListener()
    async with serving(EchoHandler(), listener, proxy_from=["10.0.0.1"]) as service:
        peer = await visit(listener)
        await peer.expect_reset()
        assert service.counters.refused == 1


async def test_a_trusted_proxy_without_a_header_is_cut_off() -> None:
    listener = MemoryListener()
    async with serving(EchoHandler(), listener, proxy_from=["10.0.0.1"]):
        peer = await visit(listener, PROXY)
        await peer.send(b"GET / HTTP/1.1\r\n\r\n")
        await peer.expect_reset()


async def test_a_proxy_header_that_does_not_come_times_out(autojump_clock: trio.testing.MockClock) -> None:
    listener = MemoryListener()
    timeouts = Timeouts(proxy_header=3)
    async with serving(EchoHandler(), listener, proxy_from=["10.0.0.1"], timeouts=timeouts) as service:
        peer = await visit(listener, PROXY)
        await peer.send(b"PROXY TCP4 192.0.2.1 ")
        before = trio.current_time()
        await peer.expect_reset()
        assert trio.current_time() - before == 3
        assert service.counters.refused == 1


async def test_a_drain_does_not_wait_for_a_peer_that_has_not_finished_its_handshake(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing was asked for yet; and whoever says nothing would hold it up to its deadline."""
    listener = MemoryListener()
    async with serving(EchoHandler(), listener, proxy_from=["10.0.0.1"]) as service:
        peer = await visit(listener, PROXY)
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        await service.drain()
        assert trio.current_time() == before
        await peer.expect_reset()


async def test_a_drain_does_not_wait_for_a_tls_handshake(tmp_path: Path) -> None:
    certificate = tmp_path / "server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    timeouts = Timeouts(drain=math.inf, handshake=math.inf)
    async with serving(EchoHandler(), f"tls://127.0.0.1:0?cert={certificate}", timeouts=timeouts) as service:
        async with await connect(service.endpoints[0].replace("tls:", "tcp:")) as silent:
            while not service.open:
                await trio.lowlevel.checkpoint()
            with trio.fail_after(10):
                await service.drain()
            with pytest.raises(trio.BrokenResourceError):
                await silent.receive_some()


@pytest.mark.parametrize("header", [b"", b"PROXY TCP4 192.0.2.1", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_connection_without_a_proxy_header_counts_as_refused(header: bytes) -> None:
    listener = MemoryListener()
    async with serving(EchoHandler(), listener, proxy_from=["10.0.0.1"]) as service:
        peer = await visit(listener, PROXY)
        await peer.send(header)
        await peer.send_eof()
        await peer.expect_reset()
        assert (service.counters.refused, service.counters.failed) == (1, 0)


async def test_without_trust_a_proxy_header_is_just_data() -> None:
    listener = MemoryListener()
    async with serving(EchoHandler(), listener):
        peer = await visit(listener, PROXY)
        header = format_v1(CLIENT, OTHER)
        await peer.send(header)
        await peer.expect(header)


async def test_the_address_that_the_proxy_tells_counts_in_caps_and_rules() -> None:
    listener = MemoryListener()
    options = {"proxy_from": ["10.0.0.1"], "limits": Limits(per_address=1)}
    async with serving(Polite(), listener, middleware=[NetworkRules(deny=["203.0.113.0/24"])], **options) as service:
        for client, welcome in ((CLIENT, True), (CLIENT, False), (OTHER, True), (Address("203.0.113.9", 1), False)):
            peer = await visit(listener, PROXY)
            await peer.send(format_v2(client, OTHER))
            if welcome:
                await peer.expect(b"220 hello\r\n")
            else:
                await peer.expect_reset()
        await trio.testing.wait_all_tasks_blocked()
        assert service.counters.refused == 2
        assert service.open == 2


async def test_unix_proxies_are_trusted_by_their_keyword() -> None:
    listener = MemoryListener()
    async with serving(EchoHandler(), listener, proxy_from=["unix"]):
        peer = await visit(listener, Address(path="", uid=33))
        await peer.send(format_v1(CLIENT, OTHER) + b"hello")
        await peer.expect(b"hello")


@pytest.mark.parametrize("version", [1, 2])
async def test_the_proxy_header_comes_before_tls(version: Literal[1, 2]) -> None:
    ca = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("localhost").configure_cert(server)
    ca.configure_trust(client)

    async def handler(stream: trio.abc.Stream) -> None:
        stream = Stream.of(stream)
        await stream.send_all(str(stream.peer).encode())

    async with serving(handler, "tcp://127.0.0.1:0", tls=server, proxy_from=["127.0.0.1"]) as service:
        endpoint = service.endpoints[0].replace("tls://127.0.0.1", "tls://localhost")
        async with await connect(endpoint, tls=client, proxy_header=(CLIENT, OTHER), proxy_version=version) as stream:
            assert await stream.receive_exactly(15) == b"192.0.2.1:40000"


# Certificates


async def test_certificates_are_loaded_again_while_it_serves(tmp_path: Path) -> None:
    ca = trustme.CA()
    trust = ssl.create_default_context()
    ca.configure_trust(trust)
    certificate = tmp_path / "certificate.pem"

    def renew() -> None:
        issued = ca.issue_cert("localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(certificate)

    async def shown(endpoint: str) -> bytes | None:
        async with await connect(endpoint, tls=trust) as stream:
            assert stream.tls is not None
            return stream.tls.peer_certificate

    renew()
    async with serving(EchoHandler(), f"tls://localhost:0?cert={certificate}") as service:
        endpoint = service.endpoints[0].replace("127.0.0.1", "localhost").replace("[::1]", "localhost")
        first = await shown(endpoint)
        renew()
        await service.reload_certificates()
        second = await shown(endpoint)
        assert first != second
        certificate.write_text("half written")
        await service.reload_certificates()
        assert await shown(endpoint) == second


async def test_a_tls_endpoint_without_a_certificate_is_told() -> None:
    with pytest.raises(EndpointError, match="a certificate is missing"):
        await serve(EchoHandler(), "tls://127.0.0.1:0")


# Middleware that a user writes


async def test_a_users_own_middleware_is_asked_and_told() -> None:
    events: list[str] = []

    class Diary(Middleware):
        def admit(self, peer: Address) -> str | None:
            events.append(f"admit {peer}")
            return "no" if peer == OTHER else None

        def release(self, peer: Address) -> None:
            events.append(f"release {peer}")

        def dress(self, stream: Stream) -> None:
            events.append(f"dress {stream.peer}")

    listener = MemoryListener()
    async with serving(EchoHandler(), listener, middleware=[Diary()]):
        peer = await visit(listener)
        await peer.close()
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        await (await visit(listener, OTHER)).expect_reset()
    assert events == [f"admit {CLIENT}", f"dress {CLIENT}", f"release {CLIENT}", f"admit {OTHER}"]


def test_listeners_are_what_serve_takes() -> None:
    assert issubclass(MemoryListener, Listener)
    assert ServerTLS is not None
