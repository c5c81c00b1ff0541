"""POP3 in TLS: STLS, implicit TLS, and what an attacker puts before the handshake. RFC 2595."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from asyncnet.endpoints import connect
from asyncnet.errors import PlaintextAfterUpgrade, RemoteProtocolError
from asyncnet.pop3.server import POP3Handler
from asyncnet.service import serve
from asyncnet.testing import ScriptedPeer
from asyncnet.transports.certificates import ServerTLS
from tests.pop3.peer import FAR, MAILS, Peer, Users, boxes, connected

CA = trustme.CA()
CERT = CA.issue_cert("localhost", "127.0.0.1")


@pytest.fixture
def tls(tmp_path: Path) -> ServerTLS:
    path = tmp_path / "server.pem"
    CERT.private_key_and_cert_chain_pem.write_to_path(str(path))
    return ServerTLS(path)


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def context(request: pytest.FixtureRequest) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.maximum_version = context.minimum_version = request.param
    CA.configure_trust(context)
    return context


@asynccontextmanager
async def served(handler: POP3Handler, endpoint: str, tls: ServerTLS | None = None) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        service = await nursery.start(lambda task_status: serve(handler, endpoint, tls=tls, task_status=task_status))
        yield service.endpoints[0]
        nursery.cancel_scope.cancel()


async def test_stls_lets_passwords_pass(tls: ServerTLS, context: ssl.SSLContext) -> None:
    async with connected(POP3Handler(boxes(*MAILS), Users(), tls=tls), client=FAR) as peer:
        assert b"STLS\r\n" in await peer.lines("CAPA")
        await peer.err("USER anna", "STLS comes first")
        await peer.ok("STLS")
        await peer.stream.start_tls(context, server_hostname="localhost")
        capabilities = await peer.lines("CAPA")
        assert b"STLS" not in capabilities
        assert b"USER\r\nSASL PLAIN LOGIN\r\n" in capabilities
        await peer.err("STLS", "already")
        await peer.log_in()
        assert await peer.lines("RETR 1") == MAILS[0]
        await peer.ok("QUIT")


async def test_what_was_said_before_is_forgotten(tls: ServerTLS, context: ssl.SSLContext) -> None:
    async with connected(POP3Handler(boxes(*MAILS), Users(), tls=tls)) as peer:
        await peer.ok("USER anna")
        await peer.ok("STLS")
        await peer.stream.start_tls(context, server_hostname="localhost")
        await peer.err("PASS anna", "USER comes first")


@pytest.mark.parametrize("behind", [b"USER anna\r\n", b"NOOP", b"\n"])
async def test_plaintext_behind_stls_closes_the_connection(tls: ServerTLS, behind: bytes) -> None:
    users = Users()
    with pytest.raises(PlaintextAfterUpgrade):  # which a service counts among its peers' faults
        async with connected(POP3Handler(boxes(*MAILS), users, tls=tls)) as peer:
            await peer.script.send(b"STLS\r\n" + behind)
            await peer.script.expect_reset()
    assert users.asked == 0


async def test_a_handshake_that_fails_ends_the_connection(tls: ServerTLS) -> None:
    with pytest.raises(RemoteProtocolError):  # as above
        async with connected(POP3Handler(boxes(), Users(), tls=tls)) as peer:
            await peer.ok("STLS")
            await peer.script.send(b"USER anna\r\n" * 100)
            await peer.script.expect_reset()


async def test_without_a_certificate_there_is_no_stls() -> None:
    async with connected(POP3Handler(boxes(), Users())) as peer:
        await peer.err("STLS", "no TLS here")


@pytest.mark.parametrize("command", ["STLS x", "STLS 1 2"])
async def test_stls_takes_no_argument(tls: ServerTLS, command: str) -> None:
    async with connected(POP3Handler(boxes(), Users(), tls=tls)) as peer:
        await peer.err(command, "no argument")


async def test_tls_from_the_first_byte(tls: ServerTLS, context: ssl.SSLContext) -> None:
    async with served(POP3Handler(boxes(*MAILS), Users()), "tls://127.0.0.1:0", tls) as endpoint:
        async with await connect(endpoint, tls=context) as stream:
            peer = Peer(ScriptedPeer(stream))
            assert (await peer.line()).startswith("+OK")
            assert b"STLS" not in await peer.lines("CAPA")
            await peer.log_in()


async def test_another_protocols_client_is_turned_away(tls: ServerTLS, context: ssl.SSLContext) -> None:
    context.set_alpn_protocols(["http/1.1"])
    async with served(POP3Handler(boxes(), Users(), tls=tls), "tcp://127.0.0.1:0") as endpoint:
        async with await connect(endpoint) as stream:
            peer = Peer(ScriptedPeer(stream))
            await peer.line()
            await peer.ok("STLS")
            with pytest.raises(ssl.SSLError):
                await stream.start_tls(context, server_hostname="localhost")
