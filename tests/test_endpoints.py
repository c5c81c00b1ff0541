"""listen() and connect(): every kind of endpoint, from both ends."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from asyncnet import ConfigurationError, EndpointError, Service, Stream, TunnelError, connect, serve
from asyncnet.echo import EchoHandler
from asyncnet.transports import listening


@asynccontextmanager
async def echoing(*endpoints: str) -> AsyncIterator[Service]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve, EchoHandler(), *endpoints)
        nursery.cancel_scope.cancel()


async def echo_works(endpoint: str, **options: object) -> None:
    async with await connect(endpoint, **options) as stream:  # type: ignore[arg-type]
        await stream.send_all(b"hello")
        assert await stream.receive_exactly(5) == b"hello"


# TCP


async def test_a_name_is_listened_on_and_connected_to() -> None:
    async with echoing("tcp://localhost:0") as service:
        await echo_works(f"tcp://localhost:{service.endpoints[0].rpartition(':')[2]}")


async def test_several_processes_may_share_a_port() -> None:
    async with echoing("tcp://127.0.0.1:0?reuse_port") as service:
        async with echoing(f"{service.endpoints[0]}?reuse_port") as other:
            assert service.endpoints == other.endpoints
            await echo_works(service.endpoints[0])
        with pytest.raises(ConfigurationError, match="port is in use"):
            await serve(EchoHandler(), service.endpoints[0])


async def test_nobody_listens_is_told_with_the_place() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ConnectionRefusedError, match=rf"cannot connect to 127\.0\.0\.1:{port}: Connection refused"):
            await connect(f"tcp://127.0.0.1:{port}")


async def test_an_unknown_name_is_told() -> None:
    with pytest.raises(OSError, match=r"the name nowhere\.invalid is not known"):
        await connect("tcp://nowhere.invalid:7")


@pytest.mark.parametrize("endpoint", ["tcp://*:7", "fd:3", "systemd:echo"])
async def test_what_is_for_listening_cannot_be_connected_to(endpoint: str) -> None:
    with pytest.raises(EndpointError, match="for listening"):
        await connect(endpoint)


async def test_one_timeout_is_for_the_handshake_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(TimeoutError, match=r"no connection after 0\.05 seconds"):
            await connect(f"tls://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)


async def test_a_cancelled_connect_leaves_nothing_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with trio.move_on_after(0.05) as scope:
            await connect(f"tls://127.0.0.1:{silent.getsockname()[1]}")
        assert scope.cancelled_caught
        accepted, _ = silent.accept()
        with accepted:
            accepted.settimeout(10)
            while True:  # the hello, and then the end of it all
                try:
                    if not accepted.recv(65536):
                        break
                except ConnectionResetError:
                    break


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    authority.issue_cert("me@example.org").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    return tmp_path / "server.pem"


async def test_an_endpoint_names_its_certificates(certificate: Path) -> None:
    ca, client = certificate.with_name("ca.pem"), certificate.with_name("client.pem")
    async with echoing(f"tls://127.0.0.1:0?cert={certificate}&ca={ca}") as service:
        endpoint = service.endpoints[0]
        assert endpoint.startswith("tls://127.0.0.1:")
        await echo_works(f"{endpoint}?ca={ca}&cert={client}&server_name=localhost")
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(f"{endpoint}?server_name=localhost")
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(f"{endpoint}?ca={ca}&server_name=example.org")


async def test_tls_runs_over_unix_sockets_too(certificate: Path, tmp_path: Path) -> None:
    path = tmp_path / "echo"
    async with echoing(f"tls+unix:{path}?cert={certificate}") as service:
        assert service.endpoints == [f"tls+unix:{path}"]
        await echo_works(f"tls+unix:{path}?ca={certificate.with_name('ca.pem')}&server_name=localhost")


# Unix sockets


async def test_a_unix_socket_has_its_mode_from_the_beginning_and_goes_with_its_service(tmp_path: Path) -> None:
    path = tmp_path / "echo"
    async with echoing(f"unix:{path}?mode=600"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await echo_works(f"unix:{path}")
        assert os.listdir(tmp_path) == ["echo"]
    assert os.listdir(tmp_path) == []


async def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "echo"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    async with echoing(f"unix:{path}"):
        await echo_works(f"unix:{path}")


async def test_a_live_unix_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "echo"
    async with echoing(f"unix:{path}"):
        with pytest.raises(ConfigurationError, match="another program listens there"):
            await serve(EchoHandler(), f"unix:{path}")
        await echo_works(f"unix:{path}")


async def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "echo"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="something that is no socket"):
        await serve(EchoHandler(), f"unix:{path}")
    assert path.read_text() == "precious"


async def test_a_socket_that_took_our_place_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "echo"
    async with echoing(f"unix:{path}"):
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


async def test_a_unix_peer_shows_its_user(tmp_path: Path) -> None:
    users: list[int | None] = []

    async def handler(stream: trio.abc.Stream) -> None:
        users.append(Stream.of(stream).peer.uid)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve, handler, f"unix:{tmp_path / 'who'}")
        async with await connect(f"unix:{tmp_path / 'who'}") as stream:
            assert await stream.receive_some() == b""
        nursery.cancel_scope.cancel()
    assert users == [os.getuid()]


# Descriptors that were opened by somebody else


async def test_a_descriptor_is_taken_over() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    async with echoing(f"fd:{sock.detach()}") as service:
        assert service.endpoints == [f"tcp://127.0.0.1:{port}"]
        await echo_works(service.endpoints[0])


async def test_a_descriptor_that_is_no_listening_socket_is_told_and_left_open(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, socket.socket() as sock:
        with pytest.raises(ConfigurationError, match="is no socket"):
            await serve(EchoHandler(), f"fd:{file.fileno()}")
        with pytest.raises(ConfigurationError, match="no listening stream socket"):
            await serve(EchoHandler(), f"fd:{sock.fileno()}")
        file.write(b"still open")
        assert sock.getsockname()


async def test_sockets_that_systemd_passes_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    monkeypatch.setattr(listening, "FIRST_PASSED", sock.detach())
    for name, value in {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "echo"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="no socket of that name; the names passed are: echo"):
        await serve(EchoHandler(), "systemd:http")
    async with echoing("systemd:echo"):
        await echo_works(f"tcp://127.0.0.1:{port}")


async def test_what_systemd_passed_to_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    with pytest.raises(ConfigurationError, match="passed no sockets to this process"):
        await serve(EchoHandler(), "systemd:echo")


# Proxies


async def socks5(stream: trio.abc.Stream) -> None:
    """A proxy that knows one place: it connects to whatever port is asked for, on this machine (RFC 1928)."""
    client = Stream.of(stream)
    _, count = await client.receive_exactly(2)
    await client.receive_exactly(count)
    await client.send_all(b"\x05\x00")
    _, _, _, kind = await client.receive_exactly(4)
    assert kind == 3  # a name: it comes unresolved
    assert await client.receive_exactly((await client.receive_exactly(1))[0]) == b"echo.example"
    port = int.from_bytes(await client.receive_exactly(2))
    await join(client, port, b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x07")


async def http_connect(stream: trio.abc.Stream) -> None:
    client = Stream.of(stream)
    head = await client.receive_until(b"\r\n\r\n", limit=4096)
    target = head.split(b" ")[1]
    if not target.startswith(b"echo.example:"):
        await client.send_all(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        return
    await join(client, int(target.partition(b":")[2]), b"HTTP/1.1 200 OK\r\n\r\n")


async def join(client: Stream, port: int, answer: bytes) -> None:
    async with await connect(f"tcp://127.0.0.1:{port}") as server:
        # In one piece with the answer, as from a server that speaks first: not a byte of it may be lost.
        await client.send_all(answer + b"220 hello\r\n")

        async def forward(source: Stream, sink: Stream) -> None:
            while data := await source.receive_some():
                await sink.send_all(data)
            await sink.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(forward, client, server)
            nursery.start_soon(forward, server, client)


@pytest.mark.parametrize(("handler", "scheme"), [(socks5, "socks5"), (http_connect, "http")])
async def test_connecting_through_a_proxy_loses_not_a_byte(handler, scheme: str) -> None:  # type: ignore[no-untyped-def]
    async with echoing("tcp://127.0.0.1:0") as service, trio.open_nursery() as nursery:
        port = service.endpoints[0].rpartition(":")[2]
        proxy: Service = await nursery.start(serve, handler, "tcp://127.0.0.1:0")
        url = proxy.endpoints[0].replace("tcp", scheme)
        async with await connect(f"tcp://echo.example:{port}", proxy=url) as stream:
            assert await stream.receive_until(b"\r\n", limit=100) == b"220 hello\r\n"
            await stream.send_all(b"hello")
            assert await stream.receive_exactly(5) == b"hello"
        nursery.cancel_scope.cancel()


async def test_a_proxy_that_refuses_is_told_in_its_words() -> None:
    async with trio.open_nursery() as nursery:
        proxy: Service = await nursery.start(serve, http_connect, "tcp://127.0.0.1:0")
        with pytest.raises(TunnelError, match="403 Forbidden"):
            await connect("tcp://other.example:7", proxy=proxy.endpoints[0].replace("tcp", "http"))
        nursery.cancel_scope.cancel()


async def test_a_unix_socket_is_not_reached_through_a_proxy(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="TCP endpoints only"):
        await connect(f"unix:{tmp_path / 'x'}", proxy="socks5://127.0.0.1:1080")
