"""How the SMTP client gets to a server and into it: URLs, TLS, logins. Over loopback."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from asyncnet.errors import LocalProtocolError, PlaintextAfterUpgrade, RemoteProtocolError
from asyncnet.service import serve
from asyncnet.smtp import client as client_module
from asyncnet.smtp.client import (
    NotSupported,
    PermanentReplyError,
    ServiceClosing,
    SMTPClient,
    StartTLS,
    TransientReplyError,
    URLError,
)
from asyncnet.smtp.url import SMTPURL
from asyncnet.stream import Stream
from asyncnet.testing import ScriptedPeer, cancel_at_each_checkpoint, stream_pair
from asyncnet.transports.address import Address
from tests.smtp.scripted import offering

AUTHORITY = trustme.CA()
BYE = (b"QUIT\r\n", b"221 bye\r\n")
AUTH = b"AUTH PLAIN " + base64.b64encode(b"\0joe\0secret") + b"\r\n"


class Server:
    """A server that follows a script for each connection, and tells what it was for."""

    def __init__(self, *scripts: Callable[[Server, ScriptedPeer], Awaitable[None]]) -> None:
        self.scripts = list(scripts)
        self.url = ""
        self.names: list[str | None] = []
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        AUTHORITY.issue_cert("localhost", "127.0.0.1").configure_cert(self.tls)
        self.tls.sni_callback = lambda _, name, __: self.names.append(name)

    async def __call__(self, stream: trio.abc.Stream) -> None:
        await self.scripts.pop(0)(self, ScriptedPeer(stream, timeout=30))


async def ehlo(peer: ScriptedPeer, *offered: str) -> None:
    await peer.expect(b"EHLO [127.0.0.1]\r\n")
    await peer.send(offering(*offered))


async def follow(peer: ScriptedPeer, *pairs: tuple[bytes, bytes]) -> None:
    for line, answer in pairs:
        await peer.expect(line)
        await peer.send(answer)


def greeting(
    *offered: str, then: tuple[tuple[bytes, bytes], ...] = (BYE,)
) -> Callable[[Server, ScriptedPeer], Awaitable[None]]:
    """A server without TLS."""

    async def script(server: Server, peer: ScriptedPeer) -> None:
        await peer.send(b"220 ready\r\n")
        await ehlo(peer, *offered)
        await follow(peer, *then)

    return script


def starting_tls(
    *offered: str, then: tuple[tuple[bytes, bytes], ...] = (BYE,)
) -> Callable[[Server, ScriptedPeer], Awaitable[None]]:
    """A server with STARTTLS, which offers the rest behind it."""

    async def script(server: Server, peer: ScriptedPeer) -> None:
        await peer.send(b"220 ready\r\n")
        await ehlo(peer, "STARTTLS")
        await follow(peer, (b"STARTTLS\r\n", b"220 go\r\n"))
        await peer.stream.start_tls(server.tls, server_side=True)
        await ehlo(peer, *offered)
        await follow(peer, *then)

    return script


@asynccontextmanager
async def running(server: Server, endpoint: str = "tcp://127.0.0.1:0", scheme: str = "smtp") -> AsyncIterator[str]:
    """The server's URL; its scripts have to be through at the end."""
    async with trio.open_nursery() as nursery:
        tls = server.tls if scheme == "smtps" else None
        service = await nursery.start(lambda task_status: serve(server, endpoint, tls=tls, task_status=task_status))
        yield f"{scheme}://127.0.0.1:{service.endpoints[0].rpartition(':')[2]}"
        await service.drain()
        nursery.cancel_scope.cancel()
    assert server.scripts == []


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


@pytest.fixture
def system_trusts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the system's trust store had our authority."""
    make = client_module.client_context

    def with_authority(*args: Any, **options: Any) -> ssl.SSLContext:
        context = make(*args, **options)
        AUTHORITY.configure_trust(context)
        return context

    monkeypatch.setattr(client_module, "client_context", with_authority)


async def test_a_connection_begins_with_ehlo_and_ends_with_quit() -> None:
    async with running(Server(greeting("SIZE 10"))) as url:
        async with SMTPClient.connect(url) as smtp:
            assert smtp.extensions.size == 10
            assert smtp.tls is None
    assert smtp.is_closed


async def test_an_exception_in_the_block_closes_without_a_goodbye() -> None:
    async def script(server: Server, peer: ScriptedPeer) -> None:
        await greeting(then=())(server, peer)
        await peer.expect_reset()

    async with running(Server(script)) as url:
        with pytest.raises(RuntimeError):
            async with SMTPClient.connect(url) as smtp:
                raise RuntimeError
        assert smtp.is_closed


async def test_lmtp_goes_over_a_unix_socket(tmp_path: Path) -> None:
    async def script(server: Server, peer: ScriptedPeer) -> None:
        await peer.send(b"220 ready\r\n")
        await peer.expect(b"LHLO localhost\r\n")
        await peer.send(offering("AUTH PLAIN"))
        await follow(peer, (AUTH, b"235 in\r\n"), BYE)

    path = tmp_path / "a socket?"
    async with running(Server(script), f"unix:{str(path).replace('?', '%3F')}"):
        url = f"lmtp+unix:{str(path).replace(' ', '%20').replace('?', '%3F')}"
        async with SMTPClient.connect(url, user="joe", password="secret"):
            pass


@pytest.mark.parametrize("code", [b"554 no\r\n", b"421 later\r\n"])
async def test_a_server_that_does_not_want_us_is_heard(code: bytes) -> None:
    async def script(server: Server, peer: ScriptedPeer) -> None:
        await peer.send(code)
        await peer.expect_reset()

    async with running(Server(script)) as url:
        with pytest.raises((PermanentReplyError, TransientReplyError)):
            async with SMTPClient.connect(url):
                raise AssertionError


# TLS


async def test_smtps_begins_with_tls_and_verifies_the_server(system_trusts: None) -> None:
    async with running(Server(greeting()), scheme="smtps") as url:
        async with SMTPClient.connect(url.replace("127.0.0.1", "localhost"), address="127.0.0.1") as smtp:
            assert smtp.tls is not None


async def test_smtps_with_a_server_that_nobody_vouches_for_fails() -> None:
    async with running(Server(), scheme="smtps") as url:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with SMTPClient.connect(url):
                raise AssertionError


async def test_tls_that_is_required_is_begun_and_verified(system_trusts: None) -> None:
    server = Server(starting_tls("SIZE 10"))
    async with running(server) as url:
        where = SMTPURL("smtp", "localhost", int(url.rpartition(":")[2]))
        async with SMTPClient.connect(where, address="127.0.0.1", starttls=StartTLS.REQUIRED) as smtp:
            assert smtp.tls is not None
            assert smtp.tls.context.verify_mode is ssl.CERT_REQUIRED
            assert smtp.extensions.size == 10
    assert server.names == ["localhost"]


async def test_a_context_of_ones_own_requires_tls() -> None:
    async with running(Server(starting_tls())) as url:
        async with SMTPClient.connect(url, tls=trusting()) as smtp:
            assert smtp.tls is not None

    async def script(server: Server, peer: ScriptedPeer) -> None:
        await greeting(then=())(server, peer)
        await peer.expect_reset()

    async with running(Server(script)) as url:
        with pytest.raises(NotSupported, match="does not offer TLS"):
            async with SMTPClient.connect(url, tls=trusting()):
                raise AssertionError


async def test_tls_that_is_required_and_fails_is_no_connection() -> None:
    async def script(server: Server, peer: ScriptedPeer) -> None:
        with pytest.raises((OSError, trio.BrokenResourceError)):
            await starting_tls()(server, peer)

    async with running(Server(script)) as url:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with SMTPClient.connect(url, starttls=StartTLS.REQUIRED):
                raise AssertionError


async def test_opportunistic_tls_takes_any_certificate() -> None:
    async with running(Server(starting_tls())) as url:
        async with SMTPClient.connect(url) as smtp:
            assert smtp.tls is not None
            assert smtp.tls.context.verify_mode is ssl.CERT_NONE


async def test_opportunistic_tls_that_is_refused_or_fails_goes_on_in_the_clear() -> None:
    refused = greeting("STARTTLS", then=((b"STARTTLS\r\n", b"454 not now\r\n"), BYE))

    async def fails(server: Server, peer: ScriptedPeer) -> None:
        await greeting("STARTTLS", then=((b"STARTTLS\r\n", b"220 go\r\n"),))(server, peer)
        await peer.stream.receive_some()  # the handshake's first words
        await peer.send(b"\0" * 100)

    async with running(Server(refused, fails, greeting("STARTTLS"))) as url:
        for _ in range(2):
            async with SMTPClient.connect(url, starttls=StartTLS.OPPORTUNISTIC) as smtp:
                assert smtp.tls is None


async def test_a_server_that_closes_at_starttls_is_heard() -> None:
    closing = greeting("STARTTLS", then=((b"STARTTLS\r\n", b"421 4.3.2 bye\r\n"),))
    async with running(Server(closing)) as url:
        with pytest.raises(ServiceClosing):
            async with SMTPClient.connect(url):
                raise AssertionError


async def test_an_injection_behind_starttls_is_an_error_and_no_reason_to_go_on_in_the_clear() -> None:
    async def script(server: Server, peer: ScriptedPeer) -> None:
        await greeting("STARTTLS", then=((b"STARTTLS\r\n", b"220 go\r\n250 injected\r\n"),))(server, peer)
        await peer.expect_reset()

    async with running(Server(script)) as url:
        with pytest.raises(PlaintextAfterUpgrade):
            async with SMTPClient.connect(url):
                raise AssertionError


async def test_tls_that_is_not_wanted_is_not_begun() -> None:
    async with running(Server(greeting("STARTTLS"))) as url:
        async with SMTPClient.connect(url, starttls=StartTLS.NEVER) as smtp:
            assert smtp.tls is None


# Logins


async def test_user_and_password_come_from_the_url_or_the_caller() -> None:
    login = greeting("AUTH PLAIN", then=((AUTH, b"235 in\r\n"), BYE))
    async with running(Server(login, login, login)) as url:
        for given, options in (
            ("joe:secret@", {}),
            ("", {"user": "joe", "password": "secret"}),
            ("joe@", {"password": "secret"}),
        ):
            async with SMTPClient.connect(url.replace("//", f"//{given}"), **options):
                pass


async def test_the_urls_password_is_for_its_own_user_alone() -> None:
    async with running(Server()) as url:
        with pytest.raises(LocalProtocolError, match="no password"):
            async with SMTPClient.connect(url.replace("//", "//joe:secret@"), user="anna"):
                raise AssertionError


async def test_a_login_to_another_machine_requires_tls(monkeypatch: pytest.MonkeyPatch, system_trusts: None) -> None:
    monkeypatch.setattr(SMTPClient, "stays_here", False)  # this one is played by loopback
    with_tls = starting_tls("AUTH PLAIN", then=((AUTH, b"235 in\r\n"), BYE))
    async with running(Server(with_tls, greeting("AUTH PLAIN", then=()))) as url:
        async with SMTPClient.connect(url, user="joe", password="secret") as smtp:
            assert smtp.tls is not None
        with pytest.raises(NotSupported, match="does not offer TLS"):
            async with SMTPClient.connect(url, user="joe", password="secret"):
                raise AssertionError


async def test_a_password_goes_to_a_server_that_is_not_verified_only_if_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SMTPClient, "stays_here", False)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    told = starting_tls("AUTH PLAIN", then=((AUTH, b"235 in\r\n"), BYE))
    clear = greeting("AUTH PLAIN", then=((AUTH, b"235 in\r\n"), BYE))
    async with running(Server(starting_tls("AUTH PLAIN", then=()), told, clear)) as url:
        with pytest.raises(NotSupported, match="not secure"):
            async with SMTPClient.connect(url, user="joe", password="secret", tls=context):
                raise AssertionError
        async with SMTPClient.connect(url, user="joe", password="secret", tls=context, insecure_auth=True):
            pass
        async with SMTPClient.connect(url, user="joe", password="secret", insecure_auth=True):
            pass


async def test_a_login_that_is_refused_closes_the_connection() -> None:
    async def script(server: Server, peer: ScriptedPeer) -> None:
        await greeting("AUTH PLAIN", then=((AUTH, b"535 no\r\n"),))(server, peer)
        await peer.expect_reset()

    async with running(Server(script)) as url:
        with pytest.raises(PermanentReplyError, match="AUTH PLAIN: the server says 535 no"):
            async with SMTPClient.connect(url, user="joe", password="secret"):
                raise AssertionError


@pytest.mark.parametrize(
    ("url", "options", "problem"),
    [
        ("smtps://localhost", {"starttls": StartTLS.REQUIRED}, "smtps:// begins with TLS"),
        ("smtp://localhost", {"starttls": StartTLS.NEVER, "tls": ssl.create_default_context()}, "leave one of them"),
        ("lmtp+unix:/x", {"address": "127.0.0.1"}, "Unix socket"),
        ("lmtp+unix:/x", {"starttls": StartTLS.REQUIRED}, "Unix socket"),
        ("smtp://localhost", {"name": "a b"}, "no name for EHLO"),
        ("smtp://localhost", {"user": "joe"}, "no password"),
        ("smtp://localhost", {"user": "joe\r\n", "password": "x"}, "control characters"),
        ("smtp://localhost", {"user": "joe", "password": "x\0"}, "NUL"),
        ("http://localhost", {}, "begins with smtp://"),
    ],
)
async def test_what_does_not_go_together_is_refused_before_anything_is_done(
    url: str, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(LocalProtocolError, match=problem) as caught:
        async with SMTPClient.connect(url, **options):
            raise AssertionError
    assert isinstance(caught.value, URLError) is (url.startswith("http"))


async def test_wherever_connecting_is_cancelled_the_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    script = starting_tls("AUTH PLAIN", then=((AUTH, b"235 in\r\n"), BYE))
    waiting: list[Stream] = []

    async def connect(endpoint: str, **options: Any) -> Stream:
        await trio.lowlevel.checkpoint()
        return waiting.pop()

    async def follow_to_the_end(peer: ScriptedPeer) -> None:
        try:
            await script(server, peer)
        except (AssertionError, OSError, trio.BrokenResourceError, RemoteProtocolError):
            await peer.reset()  # the client has left

    monkeypatch.setattr(client_module, "connect", connect)
    server, context = Server(), trusting()
    for attempt in cancel_at_each_checkpoint():
        ours, its = stream_pair(client=Address("127.0.0.1", 4), server=Address("127.0.0.1", 25))
        waiting[:] = [ours]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow_to_the_end, ScriptedPeer(its))
            with attempt:
                async with SMTPClient.connect("smtp://joe:secret@127.0.0.1", tls=context) as smtp:
                    assert smtp.tls is not None
            assert ours.is_closed or waiting == [ours]
            await ours.abort()


async def test_nobody_there_is_an_os_error() -> None:
    with pytest.raises(OSError, match="refused"):
        async with SMTPClient.connect("smtp://127.0.0.1:1"):
            raise AssertionError


async def test_something_else_than_smtp_is_an_error() -> None:
    async def script(server: Server, peer: ScriptedPeer) -> None:
        await peer.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        await peer.expect_reset()

    async with running(Server(script)) as url:
        with pytest.raises(RemoteProtocolError, match="no reply"):
            async with SMTPClient.connect(url):
                raise AssertionError
