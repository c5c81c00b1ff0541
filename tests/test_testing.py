"""The aids for testing do what they say: a test must not pass because its tool was broken."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from asyncnet.connection import idle
from asyncnet.errors import LimitExceeded, RemoteProtocolError
from asyncnet.service import serve
from asyncnet.stream import Stream
from asyncnet.testing import (
    FailingStream,
    MemoryListener,
    OneByteStream,
    ScriptedPeer,
    StallingStream,
    cancel_at_each_checkpoint,
    run_handler,
    stream_pair,
    tls_stream_pair,
)
from asyncnet.transports.address import Address

CLIENT = Address("192.0.2.1", 40000)
SERVER = Address("198.51.100.1", 25)


async def greet(stream: trio.abc.Stream) -> None:
    """Says hello to whoever tells a name."""
    stream = Stream.of(stream)
    name = await stream.receive_until(b"\r\n", limit=32)
    await stream.send_all(b"hello " + name)


# Pairs


async def test_each_end_of_a_pair_shows_the_addresses_that_were_given() -> None:
    client, server = stream_pair(client=CLIENT, server=SERVER)
    assert (client.local, client.peer) == (CLIENT, SERVER)
    assert (server.local, server.peer) == (SERVER, CLIENT)


async def test_a_pair_holds_no_more_than_its_capacity(autojump_clock: object) -> None:
    client, server = stream_pair(capacity=4)
    with trio.move_on_after(1) as scope:
        await client.send_all(b"12345")
    assert scope.cancelled_caught
    assert await server.receive_some() == b"1234"


async def test_a_tls_pair_has_shaken_hands() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("server.example").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    client, server = await tls_stream_pair(
        client_context, server_context, server_hostname="server.example", client=CLIENT
    )
    assert client.tls is not None
    assert server.tls is not None
    assert server.peer == CLIENT
    await client.send_all(b"x")
    assert await server.receive_some() == b"x"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.aclose)
        nursery.start_soon(server.aclose)


# The listener


async def test_a_whole_service_runs_on_a_memory_listener(nursery: trio.Nursery) -> None:
    listener = MemoryListener(address=SERVER)
    service = await nursery.start(serve, greet, listener)
    assert service.endpoints == ["memory:"]
    peer = ScriptedPeer(await listener.connect(CLIENT))
    assert peer.stream.peer == SERVER
    await peer.send(b"Ada\r\n")
    await peer.expect(b"hello Ada\r\n")
    await peer.expect_end()
    await service.drain()
    assert service.counters.accepted == 1


async def test_a_drain_reaches_handlers_on_a_memory_listener(nursery: trio.Nursery) -> None:
    async def handler(stream: trio.abc.Stream) -> None:
        async with idle() as turn:
            await Stream.of(stream).receive_some()
        if turn.draining:
            await stream.send_all(b"bye")

    listener = MemoryListener()
    service = await nursery.start(serve, handler, listener)
    peer = ScriptedPeer(await listener.connect())
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(service.drain)
    await peer.expect(b"bye")
    await peer.expect_end()


async def test_a_closed_memory_listener_refuses_and_resets_what_waits() -> None:
    listener = MemoryListener()
    waiting = ScriptedPeer(await listener.connect())
    assert listener.waiting == 1
    await listener.aclose()
    await waiting.expect_reset()
    with pytest.raises(ConnectionRefusedError):
        await listener.connect()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_closing_a_memory_listener_wakes_who_waits_on_it(nursery: trio.Nursery) -> None:
    listener = MemoryListener()

    async def accept() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    nursery.start_soon(accept)
    await trio.testing.wait_all_tasks_blocked()
    await listener.aclose()


# The scripted peer


async def test_expect_takes_its_bytes_however_they_are_cut_and_leaves_the_rest() -> None:
    client, server = stream_pair()
    peer = ScriptedPeer(OneByteStream(client))
    await server.send_all(b"one two three")
    await peer.expect(b"one ")
    await peer.expect(b"two ")
    assert await peer.expect_until(b"e") == b"thre"
    await peer.expect(b"e")


async def test_a_wrong_answer_fails_at_once_and_shows_where() -> None:
    client, server = stream_pair()
    await server.send_all(b"250 no")
    with pytest.raises(AssertionError) as caught:
        await ScriptedPeer(client).expect(b"250 yes, a much longer answer")
    assert "expected b'250 yes" in str(caught.value)
    assert "had b'250 no'" in str(caught.value)
    assert "from byte 4 on" in str(caught.value)


async def test_an_answer_that_is_cut_short_fails_and_says_how() -> None:
    for close, words in ((Stream.aclose, "then the end"), (Stream.abort, "broken connection")):
        client, server = stream_pair()
        await server.send_all(b"25")
        await close(server)
        with pytest.raises(AssertionError, match=words):
            await ScriptedPeer(client).expect(b"250")


async def test_an_answer_that_does_not_come_fails_when_patience_ends(autojump_clock: object) -> None:
    client, server = stream_pair()
    peer = ScriptedPeer(client, timeout=2)
    await server.send_all(b"25")
    with pytest.raises(AssertionError, match="had b'25', and then nothing, for 2 s"):
        await peer.expect(b"250")
    with pytest.raises(AssertionError, match="for 2 s"):
        await peer.expect_end()
    with pytest.raises(AssertionError, match="for 2 s"):
        await peer.expect_reset()
    with pytest.raises(AssertionError, match="for 2 s"):
        await peer.expect_until()
    assert trio.current_time() == pytest.approx(8)


async def test_a_side_that_does_not_read_fails_a_send(autojump_clock: object) -> None:
    client, _server = stream_pair(capacity=1)
    with pytest.raises(AssertionError, match="does not read"):
        await ScriptedPeer(client).send(b"12")


async def test_an_end_and_a_reset_are_told_apart() -> None:
    client, server = stream_pair()
    await server.aclose()
    with pytest.raises(AssertionError, match="had the end"):
        await ScriptedPeer(client).expect_reset()
    client, server = stream_pair()
    await server.abort()
    with pytest.raises(AssertionError, match="broken connection"):
        await ScriptedPeer(client).expect_end()


async def test_data_is_neither_an_end_nor_a_reset_nor_silence() -> None:
    for expectation in (ScriptedPeer.expect_end, ScriptedPeer.expect_reset):
        client, server = stream_pair()
        await server.send_all(b"more")
        with pytest.raises(AssertionError, match="had b'more'"):
            await expectation(ScriptedPeer(client))
    client, server = stream_pair()
    await server.send_all(b"more")
    with pytest.raises(AssertionError, match="had b'more'"):
        await ScriptedPeer(client).expect_silence(1)


async def test_silence_costs_virtual_time_only(autojump_clock: object) -> None:
    client, _server = stream_pair()
    await ScriptedPeer(client).expect_silence(3600)
    assert trio.current_time() == pytest.approx(3600)


async def test_an_item_without_its_delimiter_is_shown() -> None:
    client, server = stream_pair()
    await server.send_all(b"no end of line")
    await server.aclose()
    with pytest.raises(AssertionError, match="no end of line"):
        await ScriptedPeer(client).expect_until()


# Running a handler


async def test_a_handler_talks_to_the_scripted_peer() -> None:
    async with run_handler(greet, client=CLIENT) as peer:
        assert peer.stream.local == CLIENT
        await peer.send(b"Ada\r\n")
        await peer.expect(b"hello Ada\r\n")
        await peer.expect_end()


async def test_what_the_handler_raises_is_raised_after_the_block_has_seen_its_reset() -> None:
    with pytest.raises(LimitExceeded):
        async with run_handler(greet) as peer:
            await peer.send(b"x" * 100)
            await peer.expect_reset()


async def test_a_failed_expectation_is_explained_by_the_handlers_failure() -> None:
    with pytest.raises(AssertionError) as caught:
        async with run_handler(greet) as peer:
            await peer.send(b"x" * 100)
            await peer.expect(b"hello")
    assert isinstance(caught.value.__cause__, LimitExceeded)


async def test_a_failed_expectation_ends_the_handler() -> None:
    with pytest.raises(AssertionError, match="no way"):
        async with run_handler(greet):
            raise AssertionError("no way")


async def test_a_handler_that_outlives_its_peer_fails_the_test(autojump_clock: object) -> None:
    async def stubborn(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    with pytest.raises(AssertionError, match="still runs 5 s"):
        async with run_handler(stubborn):
            pass


async def test_a_peer_that_leaves_early_is_no_failure() -> None:
    async def sender(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"x" * 100)

    async with run_handler(sender, capacity=10):
        pass


async def test_a_handlers_group_keeps_what_is_no_broken_connection() -> None:
    async def handler(stream: trio.abc.Stream) -> None:
        raise ExceptionGroup("", [trio.BrokenResourceError(), RemoteProtocolError("bad")])

    with pytest.RaisesGroup(RemoteProtocolError):
        async with run_handler(handler):
            pass


# Spoiled streams


async def test_a_failing_stream_fails_at_its_nth_operation_and_ever_after() -> None:
    client, server = stream_pair()
    failing = FailingStream(client, at=3)
    await failing.send_all(b"1")
    await failing.send_all(b"2")
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await failing.send_all(b"3")
    assert await server.receive_some() == b"12"
    await failing.aclose()
    assert await server.receive_some() == b""


async def test_every_kind_of_operation_counts() -> None:
    client, server = stream_pair()
    failing = FailingStream(client, at=5)
    await server.send_all(b"x")
    await failing.receive_some()
    await failing.send_all(b"y")
    await failing.wait_send_all_might_not_block()
    await failing.send_eof()
    assert failing.operations == 4
    with pytest.raises(trio.BrokenResourceError):
        await failing.receive_some()


async def test_a_stalling_stream_waits_until_it_is_cancelled(autojump_clock: object) -> None:
    client, server = stream_pair()
    await server.send_all(b"x")
    stalling = StallingStream(client, at=2)
    assert await stalling.receive_some() == b"x"
    await server.send_all(b"x")
    with trio.move_on_after(60) as scope:
        await stalling.receive_some()
    assert scope.cancelled_caught


# Cancelling at each checkpoint


async def test_each_checkpoint_is_cancelled_while_it_waits_and_after_it_was_woken() -> None:
    reached = []
    for attempt in cancel_at_each_checkpoint():
        steps = 0
        with attempt:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                steps += 1
        reached.append((steps, attempt.cancelled))
    assert reached == [(0, True), (0, True), (0, True), (1, True), (1, True), (2, True), (2, True), (3, False)]


async def test_the_tasks_that_the_block_starts_are_counted_and_others_are_not(nursery: trio.Nursery) -> None:
    async def busy() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    async def child() -> None:
        nonlocal steps
        for _ in range(2):
            await trio.lowlevel.checkpoint()
            steps += 1

    nursery.start_soon(busy)
    rounds, seen = 0, set()
    for attempt in cancel_at_each_checkpoint(most=50):
        steps = 0
        with attempt:
            async with trio.open_nursery() as inner:
                inner.start_soon(child)
        rounds += 1
        seen.add(steps)
    assert seen == {0, 1, 2}
    assert rounds < 20
    nursery.cancel_scope.cancel()


async def test_a_shielded_checkpoint_is_not_cut_short() -> None:
    outcomes = []
    for attempt in cancel_at_each_checkpoint():
        with attempt:
            await trio.lowlevel.cancel_shielded_checkpoint()
        outcomes.append(attempt.cancelled)
    assert not any(outcomes)
    assert len(outcomes) > 1


async def test_a_block_that_never_completes_is_told() -> None:
    with pytest.raises(AssertionError, match="after 5 moments"):
        for attempt in cancel_at_each_checkpoint(most=5):
            with attempt:
                while True:
                    await trio.lowlevel.checkpoint()


async def test_a_round_without_a_block_is_a_mistake() -> None:
    with pytest.raises(RuntimeError, match="with attempt"):
        for _ in cancel_at_each_checkpoint():
            pass


# The page about it


def test_the_examples_of_the_page_pass(tmp_path: Path) -> None:
    page = Path(__file__).parent.parent / "docs" / "testing.md"
    handler, tests, *more = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    imports = "from asyncnet import Address\nfrom asyncnet.testing import *\nfrom shout import shout\n"
    (tmp_path / "shout.py").write_text(handler)
    (tmp_path / "test_shout.py").write_text(tests)
    (tmp_path / "test_more.py").write_text(imports + "\n".join(more))
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\npythonpath = .\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(page.parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout
