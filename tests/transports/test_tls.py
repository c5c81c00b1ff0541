"""TLS on sockets and over other streams: what both ends see, and what an attacker gets."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from asyncnet import (
    ConfigurationError,
    EndOfStream,
    LocalProtocolError,
    PlaintextAfterUpgrade,
    RemoteProtocolError,
    ServerTLS,
    Stream,
    TruncatedError,
)
from asyncnet.transports.client_hello import ClientHello
from asyncnet.transports.memory import memory_transports
from asyncnet.transports.socket import DescriptorTransport, SocketTransport
from asyncnet.transports.tls import TLSTransport

pytestmark = pytest.mark.usefixtures("crowd")

CA = trustme.CA()
CERTIFICATE = CA.issue_cert("localhost", "127.0.0.1")


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATE.configure_cert(context)
    return context


def client_context(*alpn: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    CERTIFICATE.cert_chain_pems[0].write_to_path(certificate)
    CERTIFICATE.private_key_pem.write_to_path(key)
    return certificate, key


opened: list[Stream] = []


@pytest.fixture(autouse=True)
def _close_all() -> Iterator[None]:
    yield
    for stream in opened:
        assert isinstance(stream._transport, DescriptorTransport)
        stream._transport._socket.close()
    opened.clear()


def over_sockets(left: socket.socket, right: socket.socket) -> tuple[Stream, Stream]:
    left.setblocking(False)
    right.setblocking(False)
    pair = Stream(SocketTransport(left)), Stream(SocketTransport(right))
    opened.extend(pair)
    return pair


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def sockets() -> tuple[Stream, Stream]:
    return over_sockets(*socket.socketpair())


def memory() -> tuple[Stream, Stream]:
    left, right = memory_transports()
    return Stream(left), Stream(right)


Plain = Callable[[], tuple[Stream, Stream]]
CARRIERS = pytest.mark.parametrize("plain", [sockets, memory])


async def secured(
    plain: Plain = sockets,
    *,
    server: ssl.SSLContext | ServerTLS | None = None,
    client: ssl.SSLContext | None = None,
    session: ssl.SSLSession | None = None,
) -> tuple[Stream, Stream]:
    """A client and a server that have shaken hands."""
    near, far = plain()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await far.start_tls(server or server_context(), server_side=True)

        nursery.start_soon(serve)
        await near.start_tls(client or client_context(), server_hostname="localhost", session=session)
    return near, far


async def tls_transports() -> tuple[TLSTransport, TLSTransport]:
    near, far = await secured()
    assert isinstance(near._transport, TLSTransport)
    assert isinstance(far._transport, TLSTransport)
    return near._transport, far._transport


async def clogged_tls_transports() -> tuple[TLSTransport, TLSTransport]:
    near, far = await tls_transports()
    for end in (near, far):
        while end.send_now(b"123"):  # what waits then must be offered again, and not less: the checks send as much
            pass
    return near, far


async def test_a_tls_transport_passes_trios_stream_checks() -> None:
    await trio.testing.check_two_way_stream(tls_transports, clogged_tls_transports)


@CARRIERS
async def test_a_stream_over_tls_passes_trios_stream_checks(plain: Plain) -> None:
    async def pair() -> tuple[Stream, Stream]:
        return await secured(plain)

    await trio.testing.check_two_way_stream(pair, None)


@CARRIERS
async def test_bytes_pass_in_both_directions_at_once(plain: Plain) -> None:
    near, far = await secured(plain)
    load = bytes(range(256)) * 8192
    received: dict[Stream, bytes] = {}

    async def send(stream: Stream) -> None:
        await stream.send_all(load)

    async def receive(stream: Stream) -> None:
        received[stream] = await stream.receive_exactly(len(load))

    async with trio.open_nursery() as nursery:
        for stream in (near, far):
            nursery.start_soon(send, stream)
            nursery.start_soon(receive, stream)
    assert received[near] == received[far] == load
    await near.aclose()
    assert await far.receive_some() == b""


async def test_the_handshake_tells_version_cipher_name_and_protocol(files: tuple[Path, Path]) -> None:
    near, far = await secured(server=ServerTLS(*files, alpn=["h2", "http/1.1"]), client=client_context("http/1.1"))
    assert near.tls is not None
    assert far.tls is not None
    assert near.tls.version == far.tls.version == "TLSv1.3"
    assert near.tls.cipher == far.tls.cipher != ""
    assert near.tls.alpn == far.tls.alpn == "http/1.1"
    assert far.tls.server_name == "localhost"
    assert near.tls.peer_certificate is not None
    assert far.tls.peer_certificate is None


async def test_a_session_is_resumed() -> None:
    server = server_context()
    client = client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    first, other = await secured(server=server, client=client)
    assert first.tls is not None
    session = first.tls.session
    assert session is not None
    await first.aclose()
    await other.aclose()
    second, _ = await secured(server=server, client=client, session=session)
    assert second.tls is not None
    assert second.tls.session_reused


@CARRIERS
async def test_plaintext_that_waits_at_the_upgrade_closes_the_connection(plain: Plain) -> None:
    near, far = plain()
    await near.send_all(b"STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n")
    assert await far.receive_until(b"\r\n", limit=512) == b"STARTTLS\r\n"
    with pytest.raises(PlaintextAfterUpgrade):
        await far.start_tls(server_context(), server_side=True)
    assert far.is_closed


@CARRIERS
async def test_a_response_injected_before_the_clients_handshake_closes_the_connection(plain: Plain) -> None:
    near, far = plain()
    await far.send_all(b"220 go ahead\r\n250 injected\r\n")
    assert await near.receive_until(b"\r\n", limit=512) == b"220 go ahead\r\n"
    with pytest.raises(PlaintextAfterUpgrade):
        await near.start_tls(client_context(), server_hostname="localhost")
    assert near.is_closed


@CARRIERS
async def test_an_end_without_the_closing_message_is_no_end(plain: Plain) -> None:
    near, far = await secured(plain)
    await near.send_all(b"half an answer")
    assert await far.receive_exactly(14) == b"half an answer"
    await cut_off(near)
    with pytest.raises(TruncatedError):
        await far.receive_some()


@CARRIERS
async def test_a_protocol_with_its_own_end_may_ignore_truncation(plain: Plain) -> None:
    near, far = await secured(plain)
    far.end_unannounced = True
    await cut_off(near)
    assert await far.receive_some() == b""


async def cut_off(stream: Stream) -> None:
    """End the connection beneath TLS, as somebody on the way would, cleanly for TCP."""
    transport = stream._transport
    if isinstance(transport, TLSTransport):
        socket.socket.shutdown(transport._socket, socket.SHUT_WR)
    else:
        await transport._stream.transport_stream._transport.send_eof()


async def test_half_a_record_makes_nobody_spin() -> None:
    near, far = await tls_transports()
    await near.send_all(b"whole")
    assert await far.receive_some() == b"whole"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(far.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        os.write(near._descriptor, b"\x17\x03\x03\x00\x20")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


@CARRIERS
async def test_there_is_no_half_close(plain: Plain) -> None:
    near, far = await secured(plain)
    assert not near.can_half_close
    with pytest.raises(LocalProtocolError, match="half-close"):
        await near.send_eof()
    await near.send_all(b"and nothing is broken by asking")
    assert await far.receive_exactly(31) == b"and nothing is broken by asking"


async def test_a_second_handshake_is_refused() -> None:
    near, _ = await secured()
    with pytest.raises(LocalProtocolError):
        await near.start_tls(client_context(), server_hostname="localhost")


@CARRIERS
async def test_a_server_with_a_strangers_certificate_is_not_trusted(plain: Plain) -> None:
    near, far = plain()

    async def serve() -> None:
        with pytest.raises((ssl.SSLError, trio.BrokenResourceError)):
            await far.start_tls(server_context(), server_side=True)
            await far.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(ssl.SSLCertVerificationError):
            await near.start_tls(ssl.create_default_context(), server_hostname="localhost")
    assert near.is_closed


async def test_a_certificate_for_another_name_is_not_trusted() -> None:
    near, far = sockets()

    async def serve() -> None:
        with pytest.raises((ssl.SSLError, trio.BrokenResourceError)):
            await far.start_tls(server_context(), server_side=True)
            await far.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(ssl.SSLCertVerificationError):
            await near.start_tls(client_context(), server_hostname="example.org")


async def test_clients_show_a_certificate_where_it_is_demanded(tmp_path: Path, files: tuple[Path, Path]) -> None:
    ca = tmp_path / "ca.pem"
    CA.cert_pem.write_to_path(ca)
    server = ServerTLS(*files, client_ca=ca)
    client = client_context()
    CA.issue_cert("somebody@example.org").configure_cert(client)
    near, far = await secured(server=server, client=client)
    assert far.tls is not None
    assert far.tls.peer_certificate is not None
    await near.send_all(b"hello")
    assert await far.receive_exactly(5) == b"hello"


async def test_clients_without_a_certificate_are_refused_where_it_is_demanded(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    ca = tmp_path / "ca.pem"
    CA.cert_pem.write_to_path(ca)
    near, far = sockets()

    async def serve() -> None:
        with pytest.raises(ssl.SSLError):
            await far.start_tls(ServerTLS(*files, client_ca=ca), server_side=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises((ssl.SSLError, trio.BrokenResourceError)):
            await near.start_tls(client_context(), server_hostname="localhost")
            await near.receive_some()


async def test_a_handshake_that_takes_too_long_closes_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    near, far = memory()
    with pytest.raises(TimeoutError, match="10 seconds"):
        await far.start_tls(server_context(), server_side=True, timeout=10)
    assert far.is_closed
    with pytest.raises(trio.BrokenResourceError):
        await near.receive_some()


async def refused(near: Stream, far: Stream, tls: ServerTLS, client: ssl.SSLContext) -> tuple[str, str]:
    """What the client and the server are told about a handshake that fails."""
    told: list[str] = []

    async def serve() -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            await far.start_tls(tls, server_side=True)
        told.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(ssl.SSLError) as caught:
            await near.start_tls(client, server_hostname="localhost")
    return str(caught.value), told[0]


@CARRIERS
@pytest.mark.parametrize("ours", [[], ["smtp"]])
async def test_a_client_of_another_protocol_is_refused_by_alpn(
    plain: Plain, ours: list[str], files: tuple[Path, Path]
) -> None:
    near, far = plain()
    client, server = await refused(near, far, ServerTLS(*files, alpn=ours), client_context("h2", "http/1.1"))
    assert "NO APPLICATION PROTOCOL" in client.upper().replace("_", " ")
    assert "h2, http/1.1" in server


def test_what_a_client_offers_cannot_write_lines_into_the_log(files: tuple[Path, Path]) -> None:
    alert = ServerTLS(*files).refusal(ClientHello(None, (b"h2\nERROR all is lost\x1b[31m\xff",), (0x0304,)))
    assert alert is not None
    assert alert.reason.isprintable()


@CARRIERS
async def test_a_client_that_offers_no_protocol_is_served(plain: Plain, files: tuple[Path, Path]) -> None:
    near, _ = await secured(plain, server=ServerTLS(*files, alpn=["ftp"]))
    assert near.tls is not None
    assert near.tls.alpn is None


@CARRIERS
async def test_a_client_that_asks_for_another_name_is_refused(plain: Plain, files: tuple[Path, Path]) -> None:
    near, far = plain()
    client, server = await refused(near, far, ServerTLS(*files, names=["mail.example.org"]), client_context())
    assert "UNRECOGNIZED NAME" in client.upper().replace("_", " ")
    assert "localhost" in server


async def test_the_name_that_is_served_is_compared_without_case(files: tuple[Path, Path]) -> None:
    near, _ = await secured(server=ServerTLS(*files, names=["LOCALHOST."]))
    assert near.tls is not None


async def test_a_hello_in_one_byte_segments_is_read_without_spinning(files: tuple[Path, Path]) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    near, far = tcp()
    waits = 0

    class Counting(SocketTransport):
        __slots__ = ()

        def wait_receivable(self, max_bytes: int) -> object:
            nonlocal waits
            waits += 1
            return super().wait_receivable(max_bytes)

    far._transport.__class__ = Counting
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_end, far, ServerTLS(*files))
        for byte in outgoing.read():
            await near.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        await near.aclose()
    assert waits < 20


async def expect_end(far: Stream, tls: ServerTLS) -> None:
    with pytest.raises((EndOfStream, ssl.SSLError, OSError, trio.BrokenResourceError)):
        await far.start_tls(tls, server_side=True)


def tcp() -> tuple[Stream, Stream]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for one in (near, far):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return over_sockets(near, far)


@pytest.mark.parametrize("carrier", [tcp, sockets, memory])
async def test_a_hello_may_come_in_two_pieces_over_whatever_carries_it(
    carrier: Plain, files: tuple[Path, Path]
) -> None:
    hello = client_hello()
    near, far = carrier()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(far.start_tls, ServerTLS(*files), server_side=True))
        await near.send_all(hello[:100])
        await trio.testing.wait_all_tasks_blocked()
        await near.send_all(hello[100:])
        assert (await near.receive_exactly(1)) == b"\x16"  # the handshake's answer
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("carrier", [tcp, sockets, memory])
@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 70000, b"\x16\x03\x01\x00\x05\x02\0\0\0\0", b""],
)
async def test_what_is_no_hello_ends_the_connection(carrier: Plain, garbage: bytes, files: tuple[Path, Path]) -> None:
    near, far = carrier()

    async def attack() -> None:
        try:
            await near.send_all(garbage)
            await near.send_eof()
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attack)
        with pytest.raises((RemoteProtocolError, ssl.SSLError)):
            await far.start_tls(ServerTLS(*files), server_side=True)
        assert far.is_closed


async def test_a_cancelled_handshake_closes_the_connection() -> None:
    near, far = sockets()
    with trio.move_on_after(0):
        await far.start_tls(server_context(), server_side=True)
    assert far.is_closed
    with pytest.raises((trio.BrokenResourceError, EndOfStream)):
        await near.receive_exactly(1)


@CARRIERS
async def test_a_send_that_has_to_wait_goes_on_with_the_same_bytes(plain: Plain) -> None:
    near, far = await secured(plain)
    load = bytes(range(256)) * 16384
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, load)
        await trio.testing.wait_all_tasks_blocked()
        assert await far.receive_exactly(len(load)) == load


@CARRIERS
async def test_peers_that_both_write_before_they_read_do_not_lock_each_other(plain: Plain) -> None:
    near, far = await secured(plain)
    load = bytes(range(256)) * 2048

    async def talk(stream: Stream) -> bytes:
        received = b""
        for start in range(0, len(load), 32768):
            while stream.pending > 32768 and len(received) < len(load):
                received += await stream.receive_some()  # which sends, too
            if len(received) == len(load):  # nothing more will come that could keep the peer from reading
                await stream.flush()
            stream.write(load[start : start + 32768])
        while len(received) < len(load):
            received += await stream.receive_some()
        await stream.flush()
        return received

    answers: list[bytes] = []

    async def run(stream: Stream) -> None:
        answers.append(await talk(stream))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, near)
        nursery.start_soon(run, far)
    assert answers == [load, load]


@CARRIERS
async def test_neither_end_negotiates_anew(plain: Plain) -> None:
    server, client = server_context(), client_context()
    await secured(plain, server=server, client=client)
    assert server.options & ssl.OP_NO_RENEGOTIATION
    assert client.options & ssl.OP_NO_RENEGOTIATION


# Certificates on disk


def test_a_missing_certificate_says_which_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.pem does not exist"):
        ServerTLS(tmp_path / "nowhere.pem")


def test_a_certificate_that_cannot_even_be_looked_for_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: File name too long"):
        ServerTLS(tmp_path / ("a" * 300))


def test_a_key_of_another_certificate_is_told(tmp_path: Path, files: tuple[Path, Path]) -> None:
    other = tmp_path / "other.pem"
    CA.issue_cert("other.example").private_key_pem.write_to_path(other)
    with pytest.raises(ConfigurationError, match="the key does not belong to the certificate"):
        ServerTLS(files[0], other)


def test_a_file_that_is_no_certificate_is_told(tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("hello")
    with pytest.raises(ConfigurationError, match=r"does not load: there is no certificate in .*nonsense\.pem"):
        ServerTLS(nonsense)


def test_a_key_that_is_missing_is_told(files: tuple[Path, Path]) -> None:
    certificate, _ = files
    with pytest.raises(ConfigurationError, match=r"there is no private key in .*, and no file was named for it"):
        ServerTLS(certificate)
    with pytest.raises(ConfigurationError, match=rf"there is no private key in {certificate} \(PEM\)$"):
        ServerTLS(certificate, certificate)


async def test_a_renewed_certificate_is_used_for_the_next_connection(files: tuple[Path, Path]) -> None:
    tls = ServerTLS(*files)
    first, _ = await secured(server=tls)
    assert not tls.reload()
    renewed = CA.issue_cert("localhost")
    renewed.cert_chain_pems[0].write_to_path(files[0])
    renewed.private_key_pem.write_to_path(files[1])
    assert tls.reload()
    second, _ = await secured(server=tls)
    assert first.tls is not None
    assert second.tls is not None
    assert first.tls.peer_certificate != second.tls.peer_certificate


async def test_a_broken_renewal_leaves_the_old_certificate_in_use(
    files: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    tls = ServerTLS(*files)
    files[0].write_text("half written")
    assert not tls.reload()
    assert not tls.reload()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    near, _ = await secured(server=tls)
    assert near.tls is not None


def test_a_certificate_that_has_gone_out_of_reach_leaves_the_old_one_in_use(
    files: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    tls = ServerTLS(*files)
    files[0].unlink()
    files[0].symlink_to("a" * 300)  # looking for it fails by more than "not there", as below a closed folder
    assert not tls.reload()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_renewal_that_could_not_be_read_for_a_moment_is_tried_again(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a descriptor to spare, for one: else the old certificate stays in use until it has expired."""
    tls = ServerTLS(*files)
    files[0].write_bytes(files[0].read_bytes() + b"\n")
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda path, mode: False)
        assert not tls.reload()
        assert not tls.reload()
    assert tls.reload()
    assert not tls.reload()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_many_records_are_received_at_once_and_the_end_behind_them_is_found() -> None:
    near, far = await secured()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await near.send_all(b"a" * 50_000)
            await near.aclose()

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        buffer = memoryview(bytearray(100_000))
        with trio.fail_after(5):
            assert await far.receive_into(buffer) == 50_000
            assert await far.receive_into(buffer) == 0
            assert await far.receive_into(buffer) == 0
        assert buffer[:50_001].tobytes() == b"a" * 50_000 + b"\0"
        await far.aclose()
