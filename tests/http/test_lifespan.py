"""Lifespans of ASGI applications that do not go as they should: the service still starts, stops or says why not."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.abc import Clock

from asyncnet.errors import ConfigurationError
from asyncnet.http import ASGI
from asyncnet.http.lifespan import GRACE, SHUTDOWN_TIME, Receive, Scope, Send
from asyncnet.testing import cancel_at_each_checkpoint


class Recorder:
    """An application whose lifespan is ordinary, and which tells how far it came."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            for part in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{part}"
                self.events.append(part)
                await send({"type": f"lifespan.{part}.complete"})
        finally:
            self.events.append("end")


async def test_cancelled_at_any_moment_it_leaves_no_task_behind(autojump_clock: Clock) -> None:
    for attempt in cancel_at_each_checkpoint():
        app = Recorder()
        with attempt:
            async with ASGI(app):
                await trio.sleep(1)
        assert app.events in ([], ["end"], ["startup", "end"], ["startup", "shutdown", "end"])
        assert attempt.cancelled or len(app.events) == 3


async def test_one_that_never_stops_is_cancelled_and_said_so(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep_forever()

    async with ASGI(app):
        began = trio.current_time()
    assert trio.current_time() - began == SHUTDOWN_TIME
    assert "not stopped" in caplog.text


async def test_one_that_goes_on_after_it_has_stopped_has_a_little_time(autojump_clock: Clock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})

    async with ASGI(app):
        began = trio.current_time()
    assert trio.current_time() - began == GRACE


async def test_cancelled_while_it_stops_it_is_prompt(autojump_clock: Clock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep_forever()

    with trio.move_on_after(1) as scope:
        async with ASGI(app):
            pass
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(scope.deadline)


async def test_one_that_must_have_a_lifespan_and_says_nothing_does_not_start(autojump_clock: Clock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    with pytest.raises(ConfigurationError, match="returned before"):
        async with ASGI(app, lifespan="on"):
            pass
    async with ASGI(app):
        pass


async def refuses_the_scope(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotImplementedError(scope["type"])


async def fails_while_it_starts(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise ValueError("no database")


async def test_one_that_knows_no_lifespan_is_served_and_told_of(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with ASGI(refuses_the_scope):
        pass
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage() == "the application has no lifespan: NotImplementedError('lifespan')"


async def test_one_that_fails_while_it_starts_is_served_and_logged_with_its_traceback(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with ASGI(fails_while_it_starts):
        pass
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "no database" in caplog.text
    assert "Traceback" in caplog.text


async def test_one_that_must_start_and_fails_leaves_its_traceback_in_the_log(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match="did not start"):
        async with ASGI(fails_while_it_starts, lifespan="on"):
            pass
    assert "Traceback" in caplog.text
