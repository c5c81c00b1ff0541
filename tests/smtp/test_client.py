"""What the SMTP client says besides messages, as its servers see it: in memory, in virtual time."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
import trustme

from asyncnet.errors import LocalProtocolError, PlaintextAfterUpgrade, RemoteProtocolError
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.client import (
    NotSupported,
    PermanentReplyError,
    ReplyError,
    ServiceClosing,
    SMTPClient,
    SMTPClientTimeouts,
    TransientReplyError,
)
from asyncnet.smtp.envelope import Envelope, Recipient
from asyncnet.smtp.extensions import Extensions
from asyncnet.testing import ScriptedPeer, cancel_at_each_checkpoint, stream_pair
from asyncnet.transports.address import Address
from tests.smtp.scripted import (
    EHLO,
    GREETING,
    PLAIN,
    SERVER,
    Script,
    answering,
    client_of,
    greeted,
    offering,
)

ANNA, CARL = MailAddress("anna", "example.org"), MailAddress("carl", "example.net")


def saying(*pieces: bytes) -> Script:
    async def script(peer: ScriptedPeer) -> None:
        for piece in pieces:
            await peer.send(piece)
            await trio.testing.wait_all_tasks_blocked()

    return script


# The greeting


@pytest.mark.parametrize(
    "pieces",
    [
        (b"220 ready\r\n",),
        (b"220-one\r\n220 two\r\n",),
        (b"2", b"2", b"0", b" ", b"ready", b"\r", b"\n"),
        (b"220\r\n",),
        (b"220 ready\n",),
    ],
)
async def test_a_greeting_may_have_many_forms(pieces: tuple[bytes, ...]) -> None:
    async with client_of(saying(*pieces)) as smtp:
        assert (await smtp.greet()).code == 220
        assert smtp.greeting.code == 220


@pytest.mark.parametrize(
    ("greeting", "error"),
    [
        (b"421 too many\r\n", ServiceClosing),
        (b"554 no mail here\r\n", PermanentReplyError),
        (b"120 in a minute\r\n", RemoteProtocolError),
        (b"354 go on\r\n", ReplyError),
        (b"250 hello\r\n", ReplyError),
        (b"* OK IMAP4rev1\r\n", RemoteProtocolError),
        (b"HTTP/1.1 400 Bad Request\r\n", RemoteProtocolError),
        (b"220-one\r\n221 two\r\n", RemoteProtocolError),
        (b"220-one\r\ntwo\r\n", RemoteProtocolError),
        (b"x" * 10_000, RemoteProtocolError),
        (b"220-" + b"x" * 3000 + b"\r\n", RemoteProtocolError),
        (b"220-x\r\n" * 20_000, RemoteProtocolError),
    ],
)
async def test_a_greeting_that_is_none_closes_the_client(greeting: bytes, error: type[Exception]) -> None:
    async def script(peer: ScriptedPeer) -> None:
        try:
            await peer.stream.send_all(greeting)
        except trio.BrokenResourceError:
            pass  # it has heard enough

    async with client_of(script) as smtp:
        with pytest.raises(error):
            await smtp.greet()
        assert smtp.is_closed
        assert not smtp.is_usable
        with pytest.raises(trio.ClosedResourceError):
            await smtp.noop()


async def test_a_server_that_leaves_closes_the_client() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.send(b"220-hal")
        await peer.close()

    async with client_of(script) as smtp:
        with pytest.raises(RemoteProtocolError):
            await smtp.greet()
        assert smtp.is_closed


# EHLO


async def test_the_server_tells_its_name_and_what_it_offers() -> None:
    offered = (
        b"250-mx.example.org hi\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-AUTH PLAIN LOGIN\r\n250 XCLIENT NAME\r\n"
    )
    async with client_of(answering((b"", GREETING), (EHLO, offered))) as smtp:
        await smtp.greet()
        extensions = await smtp.hello()
        assert extensions == Extensions(pipelining=True, size=1000, auth=("PLAIN", "LOGIN"), others=("XCLIENT NAME",))
        assert smtp.extensions is extensions
        assert smtp.server_name == "mx.example.org"
        assert smtp.is_usable


async def test_a_server_that_knows_no_ehlo_gets_helo() -> None:
    script = answering((EHLO, b"502 what?\r\n"), (b"HELO [192.0.2.1]\r\n", b"250 old.example.org\r\n"))
    async with client_of(script) as smtp:
        assert await smtp.hello() == Extensions()
        assert smtp.server_name == "old.example.org"


async def test_a_server_that_refuses_ehlo_for_another_reason_gets_no_helo() -> None:
    async with client_of(answering((EHLO, b"550 you are nobody\r\n"))) as smtp:
        with pytest.raises(PermanentReplyError, match=r"^EHLO: the server says 550 you are nobody$"):
            await smtp.hello()
        assert not smtp.is_closed


async def test_lmtp_says_lhlo_and_nothing_else() -> None:
    async with client_of(answering((b"LHLO [192.0.2.1]\r\n", b"500 what?\r\n")), lmtp=True) as smtp:
        with pytest.raises(PermanentReplyError):
            await smtp.hello()


@pytest.mark.parametrize(
    ("client", "name", "said"),
    [
        (Address("2001:db8::1", 4), None, b"EHLO [IPv6:2001:db8::1]\r\n"),
        (Address(path=""), None, b"EHLO localhost\r\n"),
        (SERVER, "relay.example.org", b"EHLO relay.example.org\r\n"),
    ],
)
async def test_a_client_has_a_name_or_its_address(client: Address, name: str | None, said: bytes) -> None:
    async with client_of(answering((said, PLAIN)), client=client, name=name) as smtp:
        await smtp.hello()


@pytest.mark.parametrize("name", ["", "a b", "a\r\nMAIL", "a\0", "b\u00fccher.example"])
def test_a_name_that_could_be_another_command_is_refused(name: str) -> None:
    with pytest.raises(LocalProtocolError, match="no name for EHLO"):
        SMTPClient(stream_pair()[0], name=name)


# Replies in the wrong place, or none


async def test_a_reply_before_its_command_closes_the_client() -> None:
    async with client_of(answering((b"", GREETING + PLAIN))) as smtp:
        await smtp.greet()
        with pytest.raises(RemoteProtocolError, match="nobody asked for"):
            await smtp.hello()
        assert smtp.is_closed


async def test_the_beginning_of_a_reply_that_nobody_asked_for_closes_the_client() -> None:
    async with client_of(answering((b"", GREETING + b"25"))) as smtp:
        await smtp.greet()
        assert not smtp.is_usable
        with pytest.raises(RemoteProtocolError, match="nobody asked for"):
            await smtp.hello()
        assert smtp.is_closed


async def test_a_server_that_closes_while_nothing_is_asked_is_heard() -> None:
    async with client_of(answering((b"", GREETING + b"421 4.4.2 idle too long\r\n"))) as smtp:
        await smtp.greet()
        assert not smtp.is_usable
        with pytest.raises(ServiceClosing, match="idle too long") as caught:
            await smtp.noop()
        assert caught.value.enhanced == "4.4.2"
        assert smtp.is_closed


async def test_a_server_that_has_left_makes_the_client_unusable() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.close()

    async with greeted(script) as smtp:
        await trio.testing.wait_all_tasks_blocked()
        assert not smtp.is_usable


async def test_a_421_in_place_of_a_reply_closes_the_client() -> None:
    async with greeted(answering((b"NOOP\r\n", b"421 shutting down\r\n"))) as smtp:
        with pytest.raises(ServiceClosing):
            await smtp.noop()
        assert smtp.is_closed


async def test_a_server_that_says_nothing_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async with greeted(answering((b"NOOP\r\n", b"")), timeouts=SMTPClientTimeouts(command=7)) as smtp:
        start = trio.current_time()
        with pytest.raises(TimeoutError, match="has not answered NOOP for 7 seconds"):
            await smtp.noop()
        assert trio.current_time() - start == 7
        assert smtp.is_closed


async def test_a_server_that_never_ends_its_reply_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(b"NOOP\r\n")
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await peer.stream.send_all(b"250-x\r\n")
                await trio.sleep(1)

    async with greeted(script, timeouts=SMTPClientTimeouts(command=7)) as smtp:
        with pytest.raises(TimeoutError):
            await smtp.noop()
        assert smtp.is_closed


async def test_one_task_uses_a_client_at_a_time() -> None:
    release = trio.Event()

    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(b"NOOP\r\n")
        await release.wait()
        await peer.send(b"250 ok\r\n")

    async with greeted(script) as smtp:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(smtp.noop)
            await trio.testing.wait_all_tasks_blocked()
            assert not smtp.is_usable
            with pytest.raises(trio.BusyResourceError, match="in use"):
                await smtp.noop()
            release.set()
        assert smtp.is_usable


async def test_a_refusal_says_which_command_and_what_the_server_said_made_printable() -> None:
    async with greeted(answering((b"RSET\r\n", b"451-4.3.0 not \x1b[31m\r\n451 4.3.0 now\r\n"))) as smtp:
        with pytest.raises(TransientReplyError) as caught:
            await smtp.reset()
        error = caught.value
        assert str(error) == "RSET: the server says 451 4.3.0 not \\x1b[31m / 4.3.0 now"
        assert (error.code, error.enhanced) == (451, "4.3.0")
        assert smtp.is_usable


@pytest.mark.parametrize("answer", [b"221 bye\r\n", b"500 what?\r\n", b"421 bye\r\n", b"nonsense\r\n", b""])
async def test_quit_never_raises_and_closes(answer: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async with greeted(answering((b"QUIT\r\n", answer))) as smtp:
        await smtp.quit()
        assert smtp.is_closed
        await smtp.quit()


async def test_cancelling_anything_closes_the_client_or_leaves_it_in_step() -> None:
    async def script(peer: ScriptedPeer) -> None:
        try:
            await peer.stream.send_all(GREETING)
            for command, answer in ((EHLO, PLAIN), (b"NOOP\r\n", b"250 ok\r\n"), (b"RSET\r\n", b"250 2.0.0 reset\r\n")):
                if await peer.stream.receive_until(b"\r\n", limit=100) != command:
                    raise AssertionError("out of step")
                await peer.stream.send_all(answer)
        except (RemoteProtocolError, trio.BrokenResourceError):
            pass

    for attempt in cancel_at_each_checkpoint():
        async with client_of(script) as smtp:
            with attempt:
                await smtp.greet()
                await smtp.hello()
                await smtp.noop()
                await smtp.reset()
            assert smtp.is_closed or smtp.is_usable
            await smtp.aclose()


# Nothing that could be another command leaves

INJECTING: dict[str, Callable[[SMTPClient], Awaitable[object]]] = {
    "login's user": lambda smtp: smtp.login("joe\r\nNOOP", "p", insecure_auth=True),
    "login's password": lambda smtp: smtp.login("joe", "p\0q", insecure_auth=True),
    "sender": lambda smtp: smtp.send("anna@example.org>\r\nNOOP", ["carl@example.org"], b""),
    "quoted sender": lambda smtp: smtp.send('"a\r\nNOOP"@example.org', ["carl@example.org"], b""),
    "a sender that is made": lambda smtp: smtp.send(MailAddress("a\r\nNOOP", "b.example"), ["c@example.org"], b""),
    "recipient": lambda smtp: smtp.send("anna@example.org", ["carl@example.org\n"], b""),
    "a recipient that is made": lambda smtp: smtp.send("a@example.org", [MailAddress("x", "y>\r\nNOOP")], b""),
    "second recipient": lambda smtp: smtp.send("anna@example.org", ["carl@example.org", "x\0@example.org"], b""),
    "envelope id": lambda smtp: smtp.send(Envelope(ANNA, envelope_id="x\r\nNOOP"), [CARL], b""),
    "original recipient": lambda smtp: smtp.send(ANNA, [Recipient(CARL, original="rfc822;x\r\nNOOP")], b""),
    "type of original recipient": lambda smtp: smtp.send(ANNA, [Recipient(CARL, original="x\r\n;y")], b""),
    "nobody": lambda smtp: smtp.send(ANNA, [], b"hello"),
    "nobody for a message": lambda smtp: smtp.send_message(b"From: a@example.org\r\n\r\n", recipients=[]),
    "no sender": lambda smtp: smtp.send_message(b"To: a@example.org\r\n\r\n"),
    "no recipients": lambda smtp: smtp.send_message(b"From: a@example.org\r\n\r\n"),
    "a From that is none": lambda smtp: smtp.send_message(b"From: anna\r\nTo: a@example.org\r\n\r\n"),
}


@pytest.mark.parametrize("what", INJECTING)
async def test_what_cannot_be_sent_is_refused_before_a_byte_is(what: str) -> None:
    async with greeted(answering(), offering("AUTH PLAIN", "DSN")) as smtp:
        had = smtp.stream.bytes_out
        with pytest.raises(LocalProtocolError):
            await INJECTING[what](smtp)
        assert (smtp.stream.bytes_out, smtp.stream.pending) == (had, 0)
        assert smtp.is_usable


# STARTTLS


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client's context and a server's."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mx.example.org").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return client, server


async def test_behind_starttls_all_that_was_learnt_before_is_forgotten(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(b"STARTTLS\r\n")
        await peer.send(b"220 go\r\n")
        await peer.stream.start_tls(contexts[1], server_side=True)
        await answering((EHLO, offering("AUTH PLAIN")), (b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n", b"235 in\r\n"))(peer)

    async with greeted(script, offering("STARTTLS", "AUTH LOGIN", "SIZE 5")) as smtp:
        assert smtp.tls is None
        await smtp.start_tls(contexts[0], server_hostname="mx.example.org")
        assert smtp.tls is not None
        assert smtp.extensions == Extensions(auth=("PLAIN",))
        await smtp.login("joe", "secret")  # the server was verified


async def test_what_was_learnt_in_the_clear_does_not_count_where_nothing_is_learnt_behind_starttls(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(b"STARTTLS\r\n")
        await peer.send(b"220 go\r\n")
        await peer.stream.start_tls(contexts[1], server_side=True)
        await answering((EHLO, b"550 no\r\n"))(peer)

    async with greeted(script, offering("STARTTLS", "AUTH LOGIN", "SIZE 5")) as smtp:
        with pytest.raises(PermanentReplyError):
            await smtp.start_tls(contexts[0], server_hostname="mx.example.org")
        assert (smtp.extensions, smtp.server_name) == (Extensions(), "")


@pytest.mark.parametrize("injected", [b"250 ok\r\n", b"250", PLAIN, b"x"])
async def test_a_reply_injected_before_the_handshake_is_never_heard(
    injected: bytes, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async with greeted(answering((b"STARTTLS\r\n", b"220 go\r\n" + injected)), offering("STARTTLS")) as smtp:
        with pytest.raises(PlaintextAfterUpgrade):
            await smtp.start_tls(contexts[0], server_hostname="mx.example.org")
        assert smtp.is_closed


async def test_tls_that_is_refused_or_not_offered_is_an_error_and_the_client_stays(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with greeted(answering((b"STARTTLS\r\n", b"454 4.7.0 no entropy\r\n")), offering("STARTTLS")) as smtp:
        with pytest.raises(TransientReplyError, match="STARTTLS: the server says 454"):
            await smtp.start_tls(contexts[0], server_hostname="mx.example.org")
        assert smtp.is_usable
        smtp.extensions = Extensions()
        with pytest.raises(NotSupported, match="does not offer TLS"):
            await smtp.start_tls(contexts[0], server_hostname="mx.example.org")


async def test_a_server_with_another_name_is_not_talked_to(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(b"STARTTLS\r\n")
        await peer.send(b"220 go\r\n")
        with pytest.raises((ssl.SSLError, trio.BrokenResourceError)):
            await peer.stream.start_tls(contexts[1], server_side=True)

    async with greeted(script, offering("STARTTLS")) as smtp:
        with pytest.raises(ssl.SSLCertVerificationError):
            await smtp.start_tls(contexts[0], server_hostname="other.example.org")
        assert smtp.is_closed
