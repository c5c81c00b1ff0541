from __future__ import annotations

import contextlib
import io
import re
import signal
import socket
from pathlib import Path

import pytest
import trio
import trustme

from asyncnet import ConfigurationError, Limits, Service, drain_on_signal, run, serve
from asyncnet.echo import EchoHandler
from asyncnet.http import Files, HTTPHandler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_all_services_of_a_nursery(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    async with trio.open_nursery() as nursery:
        services: list[Service] = [await nursery.start(serve, EchoHandler(), "tcp://127.0.0.1:0") for _ in range(3)]
        await nursery.start(drain_on_signal, *services)
        assert not any(service.is_draining for service in services)
        signal.raise_signal(number)
    assert all(service.is_draining for service in services)
    assert signal.getsignal(number) is before


async def test_cancelling_brings_the_old_handlers_back_and_drains_nothing() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    async with trio.open_nursery() as nursery:
        service: Service = await nursery.start(serve, EchoHandler(), "tcp://127.0.0.1:0")
        await nursery.start(drain_on_signal, service)
        assert [signal.getsignal(number) for number in numbers] != before
        nursery.cancel_scope.cancel()
    assert not service.is_draining
    assert [signal.getsignal(number) for number in numbers] == before


async def test_sighup_loads_the_certificates_again_and_serving_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    caplog.set_level("INFO", "asyncnet.tls")
    async with trio.open_nursery() as nursery:
        service: Service = await nursery.start(serve, EchoHandler(), f"tls://127.0.0.1:0?cert={path}")
        await nursery.start(drain_on_signal, service)
        signal.raise_signal(signal.SIGHUP)
        while "loaded the certificate" not in caplog.text:
            await trio.lowlevel.checkpoint()
        assert not service.is_draining
        signal.raise_signal(signal.SIGTERM)


async def test_outside_the_main_thread_it_is_refused() -> None:
    with pytest.raises(ValueError, match="main thread"):
        await trio.to_thread.run_sync(trio.run, drain_on_signal)


class Ending(io.StringIO):
    """Ends the program as soon as it has said something."""

    def flush(self) -> None:
        signal.raise_signal(signal.SIGTERM)


class TestRun:
    """Not async: `run` makes a Trio run of its own."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_serves_until_a_signal_drains_it(self, number: signal.Signals) -> None:
        before = signal.getsignal(number)
        services = []

        def ready(service: Service) -> None:
            with socket.create_connection(("127.0.0.1", int(service.endpoints[0].rpartition(":")[2]))):
                services.append(service)
            signal.raise_signal(number)

        run(EchoHandler(), "tcp://127.0.0.1:0", ready=ready, limits=Limits(connections=7))
        assert (services[0].is_draining, services[0].limits.connections) == (True, 7)
        assert signal.getsignal(number) is before

    def test_it_says_where_in_the_terms_of_the_protocol(self, tmp_path: Path) -> None:
        certificate = tmp_path / "server.pem"
        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        names = "tcp://127.0.0.1:0", f"tls://127.0.0.1:0?cert={certificate}", f"unix:{tmp_path}/a.sock"
        for handler, where in [
            (EchoHandler(), r"echo on tcp://127\.0\.0\.1:\d+ and tls://127\.0\.0\.1:\d+ and unix:\S+; .*\n"),
            (
                HTTPHandler(Files(".")),
                r"http on http://127\.0\.0\.1:\d+ and https://127\.0\.0\.1:\d+ and unix:\S+; .*\n",
            ),
        ]:
            with contextlib.redirect_stdout(Ending()) as said:
                run(handler, *names)
            assert re.fullmatch(where, said.getvalue())

    def test_what_keeps_it_from_serving_is_raised_as_it_is(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="in use"):
            run(EchoHandler(), f"tcp://127.0.0.1:{taken.getsockname()[1]}")
