"""The echo service, used by the programs that people have: nc, socat and openssl."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme

from asyncnet import Service, serve
from asyncnet.echo import EchoHandler

DATA = b"".join(b"line %d\n" % number for number in range(20_000))


@asynccontextmanager
async def echo_service(endpoint: str) -> AsyncIterator[Service]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve, EchoHandler(), endpoint)
        nursery.cancel_scope.cancel()


async def run(*command: str, data: bytes) -> bytes:
    """What the program prints when it is given `data`; it has 30 seconds."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with trio.fail_after(30):
        result = await trio.run_process(command, stdin=data, capture_stdout=True, stderr=subprocess.DEVNULL)
    return result.stdout


def port_of(service: Service) -> str:
    return service.endpoints[0].partition("?")[0].rpartition(":")[2]


async def test_nc_gets_back_what_it_sends() -> None:
    async with echo_service("tcp://127.0.0.1:0") as service:
        assert await run("nc", "-N", "127.0.0.1", port_of(service), data=DATA) == DATA


async def test_nc_gets_back_what_it_sends_over_a_unix_socket(tmp_path: Path) -> None:
    async with echo_service(f"unix:{tmp_path / 'echo'}"):
        assert await run("nc", "-N", "-U", str(tmp_path / "echo"), data=DATA) == DATA


async def test_socat_gets_back_what_it_sends() -> None:
    async with echo_service("tcp://127.0.0.1:0") as service:
        assert await run("socat", "-t", "20", "-", f"TCP:127.0.0.1:{port_of(service)}", data=DATA) == DATA


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The certificate of an authority; `server.pem` beside it is one that it has issued."""
    issuer = trustme.CA()
    issuer.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "server.pem")
    )
    issuer.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


async def converse(*command: str, data: bytes) -> bytes:
    """What the program prints until there is as much as `data`, which it is given; then it is ended.

    TLS has no half-close: these programs end the whole connection when their input ends.
    """
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    received = b""
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
            process: trio.Process = await nursery.start(
                partial(trio.run_process, command, stdin=pipe, stdout=pipe, stderr=quiet, check=False)
            )
            assert process.stdin is not None
            assert process.stdout is not None
            nursery.start_soon(process.stdin.send_all, data)
            while len(received) < len(data) and (more := await process.stdout.receive_some()):
                received += more
            nursery.cancel_scope.cancel()
    return received


async def test_socat_gets_back_what_it_sends_over_tls(authority: Path) -> None:
    async with echo_service(f"tls://127.0.0.1:0?cert={authority.with_name('server.pem')}") as service:
        place = f"OPENSSL:localhost:{port_of(service)},cafile={authority},pf=ip4"
        assert await converse("socat", "-", place, data=DATA) == DATA


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_openssl_gets_back_what_it_sends(authority: Path, version: str) -> None:
    async with echo_service(f"tls://127.0.0.1:0?cert={authority.with_name('server.pem')}") as service:
        place = ("-connect", f"127.0.0.1:{port_of(service)}", "-servername", "localhost", "-CAfile", str(authority))
        command = ("openssl", "s_client", "-quiet", "-verify_return_error", version)
        assert await converse(*command, *place, data=DATA) == DATA


async def test_openssl_may_not_negotiate_anew(authority: Path) -> None:
    """A renegotiation costs the server far more than the client (TLS 1.2; 1.3 has none)."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    async with echo_service(f"tls://127.0.0.1:0?cert={authority.with_name('server.pem')}") as service:
        command = ("openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{port_of(service)}")
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                pipe, together = subprocess.PIPE, subprocess.STDOUT
                process: trio.Process = await nursery.start(
                    partial(trio.run_process, command, stdin=pipe, stdout=pipe, stderr=together, check=False)
                )
                assert process.stdin is not None
                assert process.stdout is not None
                printed = b""
                await process.stdin.send_all(b"hello\n")
                while b"\nhello\n" not in printed:
                    printed += await process.stdout.receive_some()
                await process.stdin.send_all(b"R\n")  # a line with an R alone is a command of s_client
                while more := await process.stdout.receive_some():
                    printed += more
    assert b"RENEGOTIATING" in printed
    assert b"no renegotiation" in printed
