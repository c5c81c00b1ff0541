"""FTP in TLS: AUTH TLS, PROT, implicit TLS, sessions, and what an attacker puts before the handshake. RFC 4217."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from asyncnet.endpoints import connect
from asyncnet.ftp.memory_files import MemoryFiles
from asyncnet.ftp.server import FTPHandler
from asyncnet.transports.certificates import ServerTLS
from tests.ftp.peer import Peer, connected, served

CA = trustme.CA()
CERT = CA.issue_cert("localhost", "127.0.0.1")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "server.pem"
    CERT.private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


@pytest.fixture
def tls(certificate: Path) -> ServerTLS:
    return ServerTLS(certificate)


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def context(request: pytest.FixtureRequest) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.maximum_version = context.minimum_version = request.param
    CA.configure_trust(context)
    return context


@asynccontextmanager
async def secured(handler: FTPHandler, context: ssl.SSLContext) -> AsyncIterator[Peer]:
    async with connected(handler) as peer:
        await begin_tls(peer, context)
        yield peer


async def begin_tls(peer: Peer, context: ssl.SSLContext) -> None:
    await peer.expect(234, "AUTH TLS")
    await peer.stream.start_tls(context, server_hostname="localhost")
    await peer.expect_all((200, "PBSZ 0"), (200, "PROT P"))
    peer.tls = context


def handler(tls: ServerTLS, **options: Any) -> FTPHandler:
    return FTPHandler(MemoryFiles({"a": b"hello"}), anonymous=True, anonymous_writes=True, tls=tls, **options)


async def test_control_and_data_connections_are_protected(tls: ServerTLS, context: ssl.SSLContext) -> None:
    async with secured(handler(tls), context) as peer:
        await peer.log_in()
        assert await peer.fetch("RETR a") == b"hello"
        await peer.send("STOR b", b"new" * 100_000)
        assert await peer.fetch("RETR b") == b"new" * 100_000
        assert b"a\r\n" in await peer.fetch("NLST")


async def test_the_session_begins_anew_with_tls(tls: ServerTLS, context: ssl.SSLContext) -> None:
    async with connected(handler(tls)) as peer:
        await peer.log_in()
        await begin_tls(peer, context)
        await peer.expect(530, "PWD")
        await peer.expect(503, "AUTH TLS")


async def test_commands_put_before_the_handshake_are_never_heard(tls: ServerTLS) -> None:
    async with connected(handler(tls)) as peer:
        await peer.stream.send_all(b"AUTH TLS\r\nUSER anonymous\r\nPASS x\r\n")
        with pytest.raises(trio.BrokenResourceError):
            while (await peer.reply()).code == 234:
                pass


async def test_a_handshake_that_fails_is_no_failure_of_the_service(tls: ServerTLS) -> None:
    async with connected(handler(tls)) as peer:
        await peer.expect(234, "AUTH TLS")
        await peer.stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError):
            await peer.reply()
        assert not peer.service.counters.failed


async def test_prot_needs_pbsz_and_knows_two_levels(tls: ServerTLS, context: ssl.SSLContext) -> None:
    async with connected(handler(tls)) as peer:
        await peer.expect_all((503, "PBSZ 0"), (503, "PROT P"), (234, "AUTH TLS"))
        await peer.stream.start_tls(context, server_hostname="localhost")
        await peer.expect_all((503, "PROT P"), (501, "PBSZ x"), (200, "PBSZ 0"), (536, "PROT S"), (536, "PROT E"))
        await peer.expect_all((504, "PROT X"), (200, "PROT C"), (534, "CCC"))
        await peer.log_in()
        assert await peer.fetch("RETR a") == b"hello"


async def test_auth_tls_p_protects_data_connections_too(tls: ServerTLS, context: ssl.SSLContext) -> None:
    async with connected(handler(tls)) as peer:
        await peer.expect(234, "AUTH TLS-P")
        await peer.stream.start_tls(context, server_hostname="localhost")
        peer.tls = context
        await peer.log_in()
        assert await peer.fetch("RETR a") == b"hello"


async def test_tls_is_offered_where_there_is_a_certificate(tls: ServerTLS) -> None:
    async with connected(handler(tls)) as peer:
        lines = {line.strip() for line in (await peer.expect(211, "FEAT")).lines}
        assert {"AUTH TLS", "PBSZ", "PROT"} <= lines
        await peer.expect(504, "AUTH KERBEROS")


async def test_tls_can_be_demanded_for_logins_and_data(tls: ServerTLS, context: ssl.SSLContext) -> None:
    async with connected(handler(tls, tls_for_login=True, tls_for_data=True)) as peer:
        await peer.expect(530, "USER anonymous")
        await begin_tls(peer, context)
        await peer.log_in()
        assert await peer.fetch("RETR a") == b"hello"
        await peer.expect(534, "PROT C")


async def test_data_in_the_clear_is_refused_where_tls_is_demanded(tls: ServerTLS) -> None:
    async with connected(handler(tls, tls_for_data=True)) as peer:
        await peer.log_in()
        await peer.passive_port()
        await peer.expect(522, "RETR a")


async def test_on_a_tls_endpoint_all_is_in_tls_from_the_start(certificate: Path, context: ssl.SSLContext) -> None:
    files = MemoryFiles({"a": b"hello"})
    endpoint = f"tls://127.0.0.1:0?cert={certificate}"
    async with trio.open_nursery() as nursery:
        from asyncnet.service import serve

        service = await nursery.start(serve, FTPHandler(files, anonymous=True), endpoint)
        async with await connect(f"{service.endpoints[0]}?server_name=localhost", tls=context) as stream:
            peer = Peer(stream, service)
            assert (await peer.reply()).code == 220
            peer.tls = context
            await peer.log_in()
            assert await peer.fetch("RETR a") == b"hello"
        nursery.cancel_scope.cancel()


async def test_clients_that_speak_of_ftp_in_the_handshake_are_served(tls: ServerTLS, context: ssl.SSLContext) -> None:
    context.set_alpn_protocols(["x-filezilla-ftp", "ftp"])
    async with secured(handler(tls), context) as peer:
        await peer.log_in()
        assert await peer.fetch("RETR a") == b"hello"


async def test_browsers_are_not(tls: ServerTLS, context: ssl.SSLContext) -> None:
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with connected(handler(tls)) as peer:
        await peer.expect(234, "AUTH TLS")
        with pytest.raises(ssl.SSLError):
            await peer.stream.start_tls(context, server_hostname="localhost")


class TestSessions:
    async def test_data_connections_resume_the_control_connections(
        self, tls: ServerTLS, context: ssl.SSLContext
    ) -> None:
        async with secured(handler(tls, session_required=True), context) as peer:
            await peer.log_in()
            assert await peer.fetch("RETR a") == b"hello"
            await peer.send("STOR b", b"new")

    async def test_one_that_does_not_is_refused(self, tls: ServerTLS, context: ssl.SSLContext) -> None:
        async with secured(handler(tls, session_required=True), context) as peer:
            await peer.log_in()
            data = await peer.open_data()
            await peer.expect(150, "RETR a")
            await data.start_tls(context, server_hostname="localhost")
            assert (await peer.reply()).code == 522
            await data.aclose()

    async def test_the_session_of_another_control_connection_is_not_enough(
        self, tls: ServerTLS, context: ssl.SSLContext
    ) -> None:
        async with served(handler(tls, session_required=True)) as service:
            async with await connect(service.endpoints[0]) as first, await connect(service.endpoints[0]) as second:
                one, two = Peer(first, service), Peer(second, service)
                for peer in (one, two):
                    await peer.reply()
                    await begin_tls(peer, context)
                    await peer.log_in()
                data = await one.open_data()
                await one.expect(150, "RETR a")
                assert two.stream.tls is not None
                await data.start_tls(context, server_hostname="localhost", session=two.stream.tls.session)
                assert (await one.reply()).code == 522
                await data.aclose()

    async def test_nor_is_it_on_a_tls_endpoint(self, certificate: Path, context: ssl.SSLContext) -> None:
        from asyncnet.service import serve

        server = FTPHandler(MemoryFiles({"a": b"hello"}), anonymous=True, session_required=True)
        async with trio.open_nursery() as nursery:
            service = await nursery.start(serve, server, f"tls://127.0.0.1:0?cert={certificate}")
            place = f"{service.endpoints[0]}?server_name=localhost"
            async with await connect(place, tls=context) as first, await connect(place, tls=context) as second:
                one, two = Peer(first, service), Peer(second, service)
                for peer in (one, two):
                    await peer.reply()
                    peer.tls = context
                    await peer.log_in()
                assert await one.fetch("RETR a") == b"hello"
                data = await one.open_data()
                await one.expect(150, "RETR a")
                assert two.stream.tls is not None
                await data.start_tls(context, server_hostname="localhost", session=two.stream.tls.session)
                assert (await one.reply()).code == 522
                await data.aclose()
            nursery.cancel_scope.cancel()


async def test_an_upload_without_tlss_closing_message_is_not_whole(tls: ServerTLS, context: ssl.SSLContext) -> None:
    server = handler(tls)
    async with secured(server, context) as peer:
        await peer.log_in()
        data = await peer.open_data()
        await peer.expect(150, "STOR a")
        await peer.protect(data)
        await data.send_all(b"cut off")
        data._transport._socket.shutdown(1)  # type: ignore[attr-defined]  # TCP ends, TLS does not
        assert (await peer.reply()).code == 426
        await data.aclose()
        assert await peer.fetch("RETR a") == b"hello"


async def test_a_data_connection_without_a_handshake_is_told(tls: ServerTLS, context: ssl.SSLContext) -> None:
    async with secured(handler(tls), context) as peer:
        await peer.log_in()
        async with await peer.open_data() as data:
            await peer.expect(150, "RETR a")
            await data.send_all(b"GET / HTTP/1.1\r\n\r\n")
            assert (await peer.reply()).code == 425
        await peer.expect(257, "PWD")


async def test_a_new_certificate_is_taken_up(certificate: Path, context: ssl.SSLContext) -> None:
    server = handler(ServerTLS(certificate))
    async with served(server) as service:
        assert server.tls is not None
        before = server.tls.context
        await service.reload_certificates()
        assert server.tls.context is not before
