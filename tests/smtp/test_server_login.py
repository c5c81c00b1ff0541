"""STARTTLS and AUTH, and what an attacker does with them. RFC 3207, RFC 4954."""

from __future__ import annotations

import base64
import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock

from asyncnet.auth.guard import LoginGuard
from asyncnet.auth.sasl import client_mechanisms, encode_initial, encode_response
from asyncnet.auth.scram import ScramKeys
from asyncnet.errors import PlaintextAfterUpgrade, RemoteProtocolError
from asyncnet.middleware import ConversationLog
from asyncnet.service import serve
from asyncnet.smtp.extensions import Extensions
from asyncnet.smtp.server import SMTPHandler
from asyncnet.testing import MemoryListener, ScriptedPeer
from asyncnet.transports.address import Address
from asyncnet.transports.certificates import ServerTLS
from tests.smtp.recorder import Peer, Recorder, Users, connected

CA = trustme.CA()
CERT = CA.issue_cert("localhost")
ANNA = "AGFubmEAYW5uYQ=="  # PLAIN, her password is her name
LOOPBACK = {"peer": Address("127.0.0.1", 40000), "local": Address("127.0.0.1", 25)}


@pytest.fixture
def tls(tmp_path: Path) -> ServerTLS:
    path = tmp_path / "server.pem"
    CERT.private_key_and_cert_chain_pem.write_to_path(str(path))
    return ServerTLS(path)


@pytest.fixture
def context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


async def offers(peer: Peer) -> Extensions:
    return Extensions.parse((await peer.expect("250", "EHLO client.example")).lines[1:])


class TestTLS:
    async def test_it_begins_and_all_begins_anew(
        self, tls: ServerTLS, context: ssl.SSLContext, autojump_clock: MockClock
    ) -> None:
        recorder = Recorder()
        async with connected(recorder, tls=tls, users=Users("anna"), **LOOPBACK) as peer:
            assert (await offers(peer)).starttls
            await peer.expect("235", f"AUTH PLAIN {ANNA}")
            await peer.begin()
            await peer.expect("220 2.0.0", "STARTTLS")
            await peer.stream.start_tls(context, server_hostname="localhost")
            assert recorder.ends == [["abort"]]
            await peer.expect("503 5.5.1 A greeting", "MAIL FROM:<anna@example.org>")
            offered = await offers(peer)
            assert not offered.starttls
            assert offered.auth == ("PLAIN", "LOGIN")  # nobody is logged in
            await peer.expect("503 5.5.1 TLS", "STARTTLS")
            await peer.expect("235", f"AUTH PLAIN {ANNA}")
            await peer.send(b"A: b\r\n")
        taken = recorder.taken[1]
        assert taken.client.secure
        assert taken.client.protocol == "ESMTPSA"
        assert b"(using TLSv1.3 with TLS_" in taken.content

    async def test_it_may_be_the_last_of_commands_that_come_together(
        self, tls: ServerTLS, context: ssl.SSLContext, autojump_clock: MockClock
    ) -> None:
        async with connected(tls=tls, hello="") as peer:
            await peer.scripted.send(b"EHLO client.example\r\nMAIL FROM:<a@example.org>\r\nSTARTTLS\r\n")
            assert [(await peer.reply()).code for _ in range(3)] == [250, 250, 220]
            await peer.stream.start_tls(context, server_hostname="localhost")
            await peer.expect("503", "RCPT TO:<b@example.org>")
            await peer.expect("250", "EHLO client.example")

    @pytest.mark.parametrize("behind", [b"RSET\r\n", b"\n", b"x"])
    async def test_plaintext_behind_starttls_closes_the_connection(
        self, tls: ServerTLS, behind: bytes, autojump_clock: MockClock
    ) -> None:
        with pytest.raises(PlaintextAfterUpgrade):
            async with connected(tls=tls) as peer:
                await peer.scripted.send(b"STARTTLS\r\n" + behind)
                await peer.scripted.expect_reset()

    async def test_nothing_is_done_before_it_where_it_is_required(
        self, tls: ServerTLS, context: ssl.SSLContext, autojump_clock: MockClock
    ) -> None:
        async with connected(tls=tls, tls_required=True, users=Users("anna"), insecure_auth=True) as peer:
            for command in (
                "MAIL FROM:<a@example.org>",
                f"AUTH PLAIN {ANNA}",
                "VRFY a",
                "HELP",
                "RSET",
                "HELO a.example",
            ):
                await peer.expect("530 5.7.0", command)
            assert str(await peer.raw(b"BDAT 6\r\nQUIT\r\n")).startswith("530 5.7.0")
            await peer.expect("250", "NOOP")
            await peer.expect("220", "STARTTLS")
            await peer.stream.start_tls(context, server_hostname="localhost")
            await peer.expect("250", "EHLO client.example")
            await peer.expect("250", "MAIL FROM:<a@example.org>")

    async def test_a_client_of_another_protocol_is_turned_away(
        self, tls: ServerTLS, context: ssl.SSLContext, autojump_clock: MockClock
    ) -> None:
        context.set_alpn_protocols(["http/1.1"])
        recorder = Recorder()
        with pytest.raises(RemoteProtocolError):
            async with connected(recorder, tls=tls) as peer:
                await peer.expect("220", "STARTTLS")
                with pytest.raises(ssl.SSLError):
                    await peer.stream.start_tls(context, server_hostname="localhost")
        assert recorder.taken == []

    async def test_a_handshake_that_fails_ends_the_connection(self, tls: ServerTLS, autojump_clock: MockClock) -> None:
        async with connected(tls=tls) as peer:
            await peer.expect("220", "STARTTLS")
            with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
                await peer.stream.start_tls(ssl.create_default_context(), server_hostname="localhost")

    async def test_what_is_no_handshake_ends_the_connection(self, tls: ServerTLS, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        with pytest.raises(RemoteProtocolError, match="ClientHello"):
            async with connected(recorder, tls=tls) as peer:
                await peer.begin()
                await peer.expect("220", "STARTTLS")
                await peer.scripted.send(b"EHLO client.example\r\n")
                with pytest.raises(trio.BrokenResourceError):
                    await peer.stream.receive_some()
        assert recorder.ends == [["abort"]]


class TestLogin:
    async def test_no_mechanism_is_there_in_the_clear(self, tls: ServerTLS, autojump_clock: MockClock) -> None:
        async with connected(tls=tls, users=Users("anna", scram=True)) as peer:
            assert (await offers(peer)).auth == ()
            for mechanism in ("PLAIN", "LOGIN", "SCRAM-SHA-256"):
                await peer.expect("538 5.7.11", f"AUTH {mechanism}")

    @pytest.mark.parametrize("options", [LOOPBACK, {"insecure_auth": True}])
    async def test_where_they_may_pass_they_are_offered(
        self, options: dict[str, Any], autojump_clock: MockClock
    ) -> None:
        async with connected(users=Users("anna"), **options) as peer:
            assert (await offers(peer)).auth == ("PLAIN", "LOGIN")
            await peer.expect("504 5.5.4 The mechanisms are PLAIN, LOGIN.", "AUTH SCRAM-SHA-256")
            await peer.expect("504 5.5.4", "AUTH CRAM-MD5")

    @pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
    @pytest.mark.parametrize("at_once", [True, False])
    async def test_every_mechanism_leads_in(self, mechanism: str, at_once: bool) -> None:
        recorder = Recorder()
        async with connected(recorder, users=Users("anna", scram=True), **LOOPBACK) as peer:
            [client] = client_mechanisms([mechanism], "anna", "anna", passwords=True)
            if at_once and client.is_client_first:
                reply = await peer.do(f"AUTH {mechanism} {encode_initial(await client.respond(b''))}")
            else:
                reply = await peer.do(f"AUTH {mechanism}")
            while reply.code == 334:
                response = await client.respond(base64.b64decode(reply.text))
                reply = await peer.raw(encode_response(response) + b"\r\n")
            assert str(reply) == "235 2.7.0 Logged in."
            client.finish()
            assert (await offers(peer)).auth == ()
            await peer.expect("503 5.5.1", f"AUTH PLAIN {ANNA}")
            await peer.send(b"A: b\r\n")
        assert recorder.taken[0].client.identity is not None
        assert recorder.taken[0].client.identity.name == "anna"
        assert recorder.taken[0].client.protocol == "ESMTPA"

    async def test_wrong_passwords_are_slow_and_end(self, autojump_clock: MockClock) -> None:
        wrong = base64.b64encode(b"\0anna\0wrong").decode()
        async with connected(users=Users("anna"), guard=LoginGuard(tries=3), **LOOPBACK) as peer:
            begin = trio.current_time()
            await peer.expect("535 5.7.8", f"AUTH PLAIN {wrong}")
            await peer.expect("535 5.7.8", f"AUTH PLAIN {wrong}")
            assert trio.current_time() - begin == pytest.approx(3)
            await peer.expect("421 4.7.0", f"AUTH PLAIN {wrong}")
            await peer.scripted.expect_end()

    async def test_what_is_malformed_is_no_attempt(self, autojump_clock: MockClock) -> None:
        async with connected(users=Users("anna", scram=True), **LOOPBACK) as peer:
            await peer.expect_all(
                ("501 5.5.4", "AUTH"),
                ("501 5.5.4", "AUTH PLAIN a b"),
                ("501 5.5.2", "AUTH PLAIN abc"),
                ("501 5.5.2", "AUTH PLAIN AAAA"),
                ("501 5.5.2", "AUTH PLAIN ="),
                ("501 5.5.2", "AUTH SCRAM-SHA-256 AAAA"),
                ("334", "AUTH PLAIN"),
                ("501 5.5.2", "not base64!"),
                ("334 ", "AUTH LOGIN"),
                ("501 5.7.0", "*"),
                ("334 VXNlcm5hbWU6", "AUTH LOGIN"),
                ("334 UGFzc3dvcmQ6", "YW5uYQ=="),
                ("235", "YW5uYQ=="),
            )

    @pytest.mark.parametrize("scram", [True, False])
    async def test_where_users_cannot_be_asked_nobody_hears_that_a_password_is_wrong(
        self, scram: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Gone(Users):
            async def verify(self, name: str, password: str, *, peer: object) -> None:
                raise OSError("no directory")

            async def scram_keys(self, name: str) -> ScramKeys | None:
                if scram:
                    raise OSError("no directory")
                return await super().scram_keys(name)

        async with connected(users=Gone("anna"), guard=LoginGuard(tries=1), **LOOPBACK) as peer:
            assert (await offers(peer)).auth == ("PLAIN", "LOGIN")
            for _ in range(3):
                await peer.expect("454 4.7.0", f"AUTH PLAIN {ANNA}")
            await peer.expect("250", "NOOP")
        assert "no directory" in caplog.text

    async def test_a_response_without_end_is_refused(self, autojump_clock: MockClock) -> None:
        async with connected(users=Users("anna"), **LOOPBACK) as peer:
            await peer.expect("334", "AUTH PLAIN")
            await peer.expect("500 5.5.6", "A" * 20_000)
            await peer.expect("250", "NOOP")

    async def test_a_response_ends_as_commands_do(self, autojump_clock: MockClock) -> None:
        for end in (b"\r\r\n", b"\0\r\n", b" \r\n"):
            async with connected(users=Users("anna"), **LOOPBACK) as peer:
                await peer.expect("334", "AUTH PLAIN")
                assert (await peer.raw(ANNA.encode() + end)).code == 501
                await peer.expect("334", "AUTH LOGIN")
                assert (await peer.raw(b"*" + end)).code == 501
                await peer.expect("250", "NOOP")
        for response in (ANNA.encode(), b"*"):
            async with connected(users=Users("anna"), **LOOPBACK) as peer:
                await peer.expect("334", "AUTH PLAIN")
                assert (await peer.raw(response + b"\nMAIL FROM:<a@example.org>\r\n")).code == 500
                await peer.scripted.expect_end()
        async with connected(users=Users("anna"), normalise_from=["127.0.0.1"], **LOOPBACK) as peer:
            await peer.expect("334", "AUTH PLAIN")
            assert (await peer.raw(ANNA.encode() + b"\n")).code == 235

    async def test_a_client_that_leaves_in_the_middle_is_let_go(self, autojump_clock: MockClock) -> None:
        async with connected(users=Users("anna"), **LOOPBACK) as peer:
            await peer.expect("334", "AUTH PLAIN")
            await peer.scripted.send(b"AAA")

    async def test_nobody_logs_in_within_a_message(self, autojump_clock: MockClock) -> None:
        async with connected(users=Users("anna"), **LOOPBACK) as peer:
            await peer.begin()
            await peer.expect("503 5.5.1", f"AUTH PLAIN {ANNA}")


@pytest.mark.parametrize(
    "said",
    [
        f"AUTH PLAIN {ANNA}\r\n",
        f"AUTH PLAIN\r\n{ANNA}\r\n",
        "AUTH LOGIN\r\nYW5uYQ==\r\nYW5uYQ==\r\n",
        f"NOOP\r\nAUTH PLAIN {ANNA}\r\n",
        f"AUTH FOO {ANNA}\r\nAUTH PLAIN {ANNA}\r\n",
        f"AUTH PLAIN AGFubmEAd3Jvbmc=\r\nAUTH PLAIN {ANNA}\r\n",
    ],
)
@pytest.mark.parametrize("way", ["at once", "line by line"])
async def test_no_password_reaches_the_log_of_the_conversation(
    said: str, way: str, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.DEBUG)
    pieces = [said] if way == "at once" else said.splitlines(keepends=True)
    async with trio.open_nursery() as nursery:
        listener = MemoryListener(address=LOOPBACK["local"])
        handler = SMTPHandler(Recorder(), users=Users("anna"))
        await nursery.start(
            lambda task_status: serve(handler, listener, task_status=task_status, middleware=[ConversationLog()])
        )
        peer = Peer(ScriptedPeer(await listener.connect(LOOPBACK["peer"]), timeout=100))
        await peer.reply()
        await peer.expect("250", "EHLO client.example")
        for piece in pieces:
            await peer.scripted.send(piece.encode())
        while (await peer.reply()).code != 235:
            pass
        await peer.expect("250", "MAIL FROM:<anna@example.org>")
        nursery.cancel_scope.cancel()
    assert "250 2.1.0 Sender ok." in caplog.text
    assert "MAIL FROM:<anna@example.org>" in caplog.text  # who is in has no secrets any more
    for secret in (ANNA, "YW5uYQ==", "AGFubmEAd3Jvbmc="):
        assert secret not in caplog.text
