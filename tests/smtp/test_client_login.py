"""How the SMTP client logs in (RFC 4954), as its servers see it: in memory, in virtual time."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import trio
import trio.testing

from asyncnet.auth.scram import ScramKeys
from asyncnet.auth.scram_exchange import ScramServer
from asyncnet.errors import RemoteProtocolError
from asyncnet.smtp.client import (
    NotSupported,
    PermanentReplyError,
    TransientReplyError,
)
from asyncnet.testing import ScriptedPeer
from asyncnet.transports.address import Address
from tests.smtp.scripted import (
    LOOPBACK,
    answering,
    client_of,
    greeted,
    offering,
)


def b64(data: bytes) -> bytes:
    return base64.b64encode(data)


@pytest.mark.parametrize(
    ("mechanisms", "pairs"),
    [
        ("LOGIN PLAIN", [(b"AUTH PLAIN " + b64(b"\0joe\0secret") + b"\r\n", b"235 in\r\n")]),
        (
            "LOGIN CRAM-MD5",
            [
                (b"AUTH LOGIN\r\n", b"334 VXNlcm5hbWU6\r\n"),
                (b64(b"joe") + b"\r\n", b"334 UGFzc3dvcmQ6\r\n"),
                (b64(b"secret") + b"\r\n", b"235 2.7.0 in\r\n"),
            ],
        ),
        (
            "PLAIN SCRAM-SHA-256",
            [
                (b"AUTH SCRAM-SHA-256 ", b""),
            ],
        ),
    ],
)
async def test_a_client_logs_in_by_the_best_that_the_server_has(
    mechanisms: str, pairs: list[tuple[bytes, bytes]]
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answering(*pairs)(peer)
        if "SCRAM" in mechanisms:
            await let_in_by_scram(peer)

    async with greeted(script, offering(f"AUTH {mechanisms}")) as smtp:
        await smtp.login("joe", "secret", insecure_auth=True)
        assert smtp.is_usable


async def let_in_by_scram(peer: ScriptedPeer, *, password: str = "secret", proof: bool = True) -> None:
    keys = ScramKeys.of_password(password)
    server = ScramServer(base64.b64decode(await peer.expect_until()))
    await peer.send(b"334 " + b64(server.challenge(keys)) + b"\r\n")
    signature = server.check(base64.b64decode(await peer.expect_until()))
    if proof:
        assert signature is not None
        await peer.send(b"334 " + b64(signature) + b"\r\n")
        await peer.expect(b"\r\n")
    await peer.send(b"235 in\r\n")


async def test_a_server_that_lets_scram_in_without_its_proof_is_left() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(b"AUTH SCRAM-SHA-256 ")
        await let_in_by_scram(peer, password="another", proof=False)

    async with greeted(script, offering("AUTH SCRAM-SHA-256 PLAIN")) as smtp:
        with pytest.raises(RemoteProtocolError, match="without a proof"):
            await smtp.login("joe", "secret", insecure_auth=True)
        assert smtp.is_closed


@pytest.mark.parametrize("challenge", [b"334 !\r\n", b"334 aGVsbG8=\r\n", b"334 " + b64(b"r=x,s=x,i=1") + b"\r\n"])
async def test_a_challenge_that_is_none_closes_the_client(challenge: bytes) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_until()
        await peer.send(challenge)
        await peer.expect_reset()

    async with greeted(script, offering("AUTH SCRAM-SHA-256")) as smtp:
        with pytest.raises(RemoteProtocolError):
            await smtp.login("joe", "secret")
        assert smtp.is_closed


async def test_challenges_without_end_close_the_client() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_until()
        await peer.send(b"334 \r\n")
        await peer.expect_reset()

    async with greeted(script, offering("AUTH PLAIN")) as smtp:
        with pytest.raises(RemoteProtocolError, match="beyond the end"):
            await smtp.login("joe", "secret", insecure_auth=True)
        assert smtp.is_closed


async def test_an_initial_response_that_makes_the_command_too_long_waits_for_its_challenge() -> None:
    response = b64(b"\0joe\0" + b"x" * 500)
    pairs = (b"AUTH PLAIN\r\n", b"334 \r\n"), (response + b"\r\n", b"235 in\r\n")
    async with greeted(answering(*pairs), offering("AUTH PLAIN")) as smtp:
        await smtp.login("joe", "x" * 500, insecure_auth=True)


async def test_where_one_way_is_refused_the_next_one_is_tried() -> None:
    script = answering(
        (b"AUTH PLAIN " + b64(b"\0joe\0secret") + b"\r\n", b"504 5.5.4 not that one\r\n"),
        (b"AUTH LOGIN\r\n", b"535 5.7.8 nor this one\r\n"),
        (b"NOOP\r\n", b"250 ok\r\n"),
    )
    async with greeted(script, offering("AUTH PLAIN LOGIN")) as smtp:
        with pytest.raises(
            PermanentReplyError, match=r"^AUTH LOGIN: the server says 535 5.7.8 nor this one$"
        ) as caught:
            await smtp.login("joe", "secret", insecure_auth=True)
        assert "secret" not in repr(caught.value) + repr(smtp)
        await smtp.noop()


async def test_a_password_that_is_wrong_is_told_once() -> None:
    script = answering(
        (b"AUTH PLAIN " + b64(b"\0joe\0wrong") + b"\r\n", b"535 5.7.8 no\r\n"),
        (b"NOOP\r\n", b"250 ok\r\n"),
    )
    async with greeted(script, offering("AUTH PLAIN LOGIN")) as smtp:
        with pytest.raises(PermanentReplyError, match=r"^AUTH PLAIN: the server says 535 5.7.8 no$"):
            await smtp.login("joe", "wrong", insecure_auth=True)
        await smtp.noop()


async def test_a_login_that_cannot_be_checked_now_is_a_transient_failure() -> None:
    script = answering((b"AUTH PLAIN " + b64(b"\0joe\0secret") + b"\r\n", b"454 4.7.0 later\r\n"))
    async with greeted(script, offering("AUTH PLAIN LOGIN")) as smtp:
        with pytest.raises(TransientReplyError):
            await smtp.login("joe", "secret", insecure_auth=True)


@pytest.mark.parametrize(
    ("ends", "tells"),
    [
        ({}, False),
        ({"client": LOOPBACK}, False),
        ({"client": LOOPBACK, "server": LOOPBACK}, True),
        ({"client": LOOPBACK, "server": LOOPBACK, "proxied": True}, False),
        ({"client": Address(path=""), "server": Address(path="/run/lmtp")}, True),
    ],
)
async def test_a_password_is_told_only_where_nobody_can_listen(
    ends: dict[str, Any], tells: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_until()
        await peer.send(offering("AUTH PLAIN LOGIN"))
        if tells:
            await peer.expect(b"AUTH PLAIN " + b64(b"\0joe\0secret") + b"\r\n")
            await peer.send(b"235 in\r\n")
        else:
            await peer.expect_silence(1000)

    async with client_of(script, **ends) as smtp:
        await smtp.hello()
        if tells:
            await smtp.login("joe", "secret")
        else:
            with pytest.raises(NotSupported, match="not secure"):
                await smtp.login("joe", "secret")
            await trio.sleep(1000)


async def test_a_server_without_a_way_to_log_in_is_named() -> None:
    async with greeted(answering(), offering("AUTH GSSAPI")) as smtp:
        with pytest.raises(NotSupported, match="it offers GSSAPI") as caught:
            await smtp.login("joe", "secret", insecure_auth=True)
        assert caught.value.enhanced == "5.7.4"


async def test_passwords_are_hidden_from_the_log_of_the_conversation() -> None:
    seen: list[tuple[bytes, bool]] = []

    class Tap:
        async def receiving(self) -> None: ...

        def received(self, data: bytes, *, secret: bool) -> None: ...

        async def sending(self, count: int) -> int:
            return count

        def sent(self, data: bytes, *, secret: bool) -> None:
            seen.append((bytes(data), secret))

        def note(self, event: str) -> None: ...

    script = answering(
        (b"AUTH LOGIN\r\n", b"334 VXNlcm5hbWU6\r\n"),
        (b64(b"joe") + b"\r\n", b"334 UGFzc3dvcmQ6\r\n"),
        (b64(b"secret") + b"\r\n", b"235 2.7.0 in\r\n"),
        (b"NOOP\r\n", b"250 ok\r\n"),
    )
    async with greeted(script, offering("AUTH LOGIN")) as smtp:
        smtp.stream.add_tap(Tap())  # type: ignore[arg-type]
        await smtp.login("joe", "secret", insecure_auth=True)
        await smtp.noop()
    assert [data for data, secret in seen if not secret] == [b"NOOP\r\n"]
