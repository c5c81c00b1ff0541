from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio
import trustme

from asyncnet import Service, drain_on_signal, serve
from asyncnet.echo import EchoHandler


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
