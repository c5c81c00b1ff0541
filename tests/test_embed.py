from __future__ import annotations

import asyncio
import contextvars
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
import sniffio
import trio

from asyncnet import ConfigurationError, Service, serve
from asyncnet.echo import EchoHandler
from asyncnet.embed import AsyncioPortal, in_asyncio, in_thread

DEADLINE = 20


def in_loop(body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run `body` under asyncio, bounded."""
    return asyncio.run(asyncio.wait_for(body(), DEADLINE))


def port_of(service: Service) -> int:
    return int(service.endpoints[0].rpartition(":")[2])


async def add(a: int, b: int) -> int:
    await trio.lowlevel.checkpoint()
    return a + b


async def fail() -> None:
    await trio.lowlevel.checkpoint()
    raise KeyError("inside")


class Background:
    """Something that is started, and fails when it is told to."""

    def __init__(self) -> None:
        self.ended = False

    async def __call__(self, *, task_status: trio.TaskStatus[trio.Event]) -> None:
        failing = trio.Event()
        try:
            task_status.started(failing)
            await failing.wait()
            raise KeyError("background")
        finally:
            self.ended = True


# In asyncio


def test_asyncio_calls_trio_and_gets_what_it_returns_and_raises() -> None:
    async def body() -> None:
        async with in_asyncio() as portal:
            assert await portal.run(add, 1, 2) == 3
            with pytest.raises(KeyError, match="inside"):
                await portal.run(fail)
            assert await asyncio.gather(*(portal.run(add, i, i) for i in range(50))) == [2 * i for i in range(50)]

    in_loop(body)


def test_a_service_in_asyncio_answers_clients_of_asyncio() -> None:
    async def body() -> None:
        async with in_asyncio() as portal:
            service = await portal.start(serve, EchoHandler(), "tcp://127.0.0.1:0")
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(service))
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await writer.wait_closed()
            await portal.run(service.drain)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port_of(service))

    in_loop(body)


def test_leaving_the_block_in_asyncio_ends_what_runs() -> None:
    background = Background()

    async def body() -> None:
        async with in_asyncio() as portal:
            await portal.start(background)
        assert background.ended
        with pytest.raises(trio.RunFinishedError):
            await portal.run(add, 1, 2)

    in_loop(body)


def test_a_block_can_follow_another_in_the_same_loop() -> None:
    async def body() -> None:
        for _ in range(3):
            async with in_asyncio() as portal:
                assert await portal.run(add, 1, 2) == 3

    in_loop(body)


def test_an_error_of_the_asyncio_block_passes_as_it_is() -> None:
    background = Background()

    async def body() -> None:
        async with in_asyncio() as portal:
            await portal.start(background)
            raise LookupError("the block's own")

    with pytest.raises(LookupError, match="the block's own"):
        in_loop(body)
    assert background.ended


def test_what_fails_before_it_has_started_is_the_caller_s_to_handle() -> None:
    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            async with in_asyncio() as portal:
                with pytest.raises(ConfigurationError, match="in use"):
                    await portal.start(serve, EchoHandler(), endpoint)
                assert await portal.run(add, 1, 2) == 3

    in_loop(body)


def test_a_failure_in_the_background_ends_the_asyncio_block() -> None:
    reached = False

    async def body() -> None:
        nonlocal reached
        with pytest.raises(ExceptionGroup) as caught:
            async with in_asyncio() as portal:
                failing = await portal.start(Background())
                await portal.run(trio.to_thread.run_sync, lambda: None)
                asyncio.get_running_loop().call_soon(failing.set)
                await asyncio.Event().wait()
        assert repr(caught.value.exceptions) == "(KeyError('background'),)"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)
        reached = True

    in_loop(body)
    assert reached


async def trigger(event: trio.Event) -> None:
    event.set()
    await trio.sleep_forever()


def test_a_call_in_flight_when_the_run_fails_does_not_hide_the_failure() -> None:
    async def body() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with in_asyncio() as portal:
                await portal.run(trigger, await portal.start(Background()))
        assert repr(caught.value.exceptions) == "(KeyError('background'),)"
        await asyncio.sleep(0)

    in_loop(body)


def test_a_failure_that_meets_the_end_of_the_block_leaves_no_cancelling_behind() -> None:
    async def body() -> None:
        for steps in range(12):
            with pytest.raises(ExceptionGroup):
                async with in_asyncio() as portal:
                    failing = await portal.start(Background())
                    await portal.run(set_soon, failing)
                    try:
                        for _ in range(steps):
                            await asyncio.sleep(0)
                    except asyncio.CancelledError:
                        pass  # a block that swallows it
            await asyncio.sleep(0)

    in_loop(body)


async def set_soon(event: trio.Event) -> None:
    event.set()


def test_errors_of_the_block_and_of_the_run_come_together() -> None:
    async def body() -> None:
        async with in_asyncio() as portal:
            failing = await portal.start(Background())
            try:
                await portal.run(trigger, failing)
            finally:
                raise LookupError("the block's own")

    with pytest.raises(ExceptionGroup) as caught:
        in_loop(body)
    assert repr(caught.value.exceptions) == """(LookupError("the block's own"), KeyError('background'))"""


def test_cancelling_an_asyncio_call_cancels_the_trio_function_and_waits_for_it() -> None:
    events = []

    async def slow(loop: asyncio.AbstractEventLoop, begun: asyncio.Event) -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + DEADLINE):
                await trio.to_thread.run_sync(lambda: None)
            events.append("cleaned up")

    async def body() -> None:
        async with in_asyncio() as portal:
            begun = asyncio.Event()
            task = asyncio.create_task(portal.run(slow, asyncio.get_running_loop(), begun))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            events.append("task ended")
            assert await portal.run(add, 1, 2) == 3

    in_loop(body)
    assert events == ["cleaned up", "task ended"]


def test_cancelling_the_asyncio_task_ends_the_trio_run() -> None:
    background = Background()

    async def body() -> None:
        begun = asyncio.Event()

        async def host() -> None:
            async with in_asyncio() as portal:
                await portal.start(background)
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(host())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert background.ended

    in_loop(body)


def test_a_task_that_is_cancelled_at_the_door_leaves_nothing_behind() -> None:
    async def enter() -> None:
        async with in_asyncio():
            raise AssertionError("the block was entered")

    async def body() -> None:
        task = asyncio.create_task(enter())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with in_asyncio() as portal:
            assert await portal.run(add, 1, 2) == 3

    in_loop(body)


def test_cleaning_up_that_fails_is_told_to_whoever_cancelled() -> None:
    async def spiteful(begun: asyncio.Event) -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("cleaning up")

    async def body() -> None:
        async with in_asyncio() as portal:
            begun = asyncio.Event()
            task = asyncio.create_task(portal.run(spiteful, begun))
            await begun.wait()
            task.cancel()
            with pytest.raises(KeyError, match="cleaning up"):
                await task

    in_loop(body)


def test_each_side_knows_its_own_library_and_the_caller_s_context() -> None:
    name = contextvars.ContextVar("name", default="nobody")

    async def ask() -> tuple[str, str]:
        return sniffio.current_async_library(), name.get()

    async def body() -> None:
        async with in_asyncio() as portal:
            name.set("anna")
            assert await portal.run(ask) == ("trio", "anna")
            assert sniffio.current_async_library() == "asyncio"

    in_loop(body)


def test_asyncio_s_own_signal_handlers_work_while_trio_is_there() -> None:
    async def body() -> None:
        got = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, got.set)
        async with in_asyncio() as portal:
            await portal.run(add, 1, 2)
            signal.raise_signal(signal.SIGUSR1)
            await got.wait()
        loop.remove_signal_handler(signal.SIGUSR1)

    in_loop(body)


def test_a_portal_serves_several_asyncio_tasks() -> None:
    async def one(portal: AsyncioPortal, number: int) -> int:
        return await portal.run(add, number, 1)

    async def body() -> list[int]:
        async with in_asyncio() as portal, asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(portal, number)) for number in range(10)]
        return [task.result() for task in tasks]

    assert in_loop(body) == list(range(1, 11))


# In a thread


def test_synchronous_code_calls_trio_and_gets_what_it_returns_and_raises() -> None:
    with in_thread() as portal:
        assert portal.run(add, 1, 2) == 3
        with pytest.raises(KeyError, match="inside"):
            portal.run(fail)


def test_a_service_in_a_thread_answers_clients_with_plain_sockets() -> None:
    with in_thread() as portal:
        service = portal.start(partial(serve, EchoHandler(), "tcp://127.0.0.1:0"))
        with socket.create_connection(("127.0.0.1", port_of(service)), timeout=DEADLINE) as sock:
            sock.sendall(b"hello")
            assert sock.recv(5, socket.MSG_WAITALL) == b"hello"
        portal.run(service.drain)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(service)), timeout=DEADLINE)


def test_leaving_the_block_of_a_thread_ends_what_runs_and_the_thread() -> None:
    background = Background()
    threads = set(threading.enumerate())
    with in_thread() as portal:
        portal.start(background)
    assert background.ended
    assert not [thread for thread in set(threading.enumerate()) - threads if thread.name == "asyncnet"]
    with pytest.raises(trio.RunFinishedError):
        portal.run(add, 1, 2)


def test_an_error_of_the_thread_s_block_passes_as_it_is() -> None:
    background = Background()
    with pytest.raises(LookupError), in_thread() as portal:
        portal.start(background)
        raise LookupError("the block's own")
    assert background.ended


def test_a_failure_in_the_background_is_told_to_the_call_in_flight_and_raised_by_the_block() -> None:
    with pytest.raises(ExceptionGroup) as caught, in_thread() as portal:
        failing = portal.start(Background())
        with pytest.raises(trio.RunFinishedError):
            portal.run(trigger, failing)
        while True:
            portal.run(add, 1, 2)
    assert repr(caught.value.exceptions) == "(KeyError('background'),)"


def test_a_call_from_the_portal_s_own_thread_is_refused_instead_of_waiting_for_itself() -> None:
    with in_thread() as portal:

        async def call() -> None:
            portal.run(add, 1, 2)

        with pytest.raises(RuntimeError, match="await the function instead"):
            portal.run(call)


def test_many_threads_may_call_at_once() -> None:
    results: list[int] = []
    with in_thread() as portal:
        threads = [threading.Thread(target=lambda: results.append(portal.run(add, 1, 2))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
    assert results == [3] * 20


def test_an_interrupt_cancels_the_call_and_the_block_ends() -> None:
    cancelled = threading.Event()

    async def interrupt_the_main_thread() -> None:
        try:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            await trio.sleep_forever()
        finally:
            cancelled.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with in_thread() as portal:
            with pytest.raises(KeyboardInterrupt):
                portal.run(interrupt_the_main_thread)
            assert cancelled.wait(DEADLINE)
            assert portal.run(add, 1, 2) == 3
    finally:
        signal.signal(signal.SIGINT, before)
