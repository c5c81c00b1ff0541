from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import scramp
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.auth import Identity, LoginGuard, Logins, ScramKeys, scram_exchange
from asyncnet.auth.sasl import (
    MECHANISMS,
    ClientMechanism,
    ExchangeCancelled,
    client_mechanisms,
    decode_base64,
    decode_initial,
    decode_response,
    encode_initial,
    encode_response,
    log_in,
    offered_mechanisms,
)
from asyncnet.auth.scram import NobodysKeys
from asyncnet.auth.scram_exchange import ScramClient, ScramServer
from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.transports.address import Address

PEER = Address("192.0.2.1", 40000)
ANNA = Identity("anna")


def keys_of(password: str, identity: Identity | None = ANNA) -> ScramKeys:
    """Keys with as few iterations as may be."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt" * 4, 4096)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return ScramKeys("SCRAM-SHA-256", b"salt" * 4, 4096, stored_key, server_key, identity)


@dataclass
class Users:
    """An authenticator of one user, anna, whose password is "geheim"."""

    keys: ScramKeys | None = field(default_factory=lambda: keys_of("geheim"))
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def verify(self, name: str, password: str, *, peer: Address) -> Identity | None:
        assert peer == PEER
        self.asked.append((name, password))
        await trio.lowlevel.checkpoint()
        return ANNA if (name, password) == ("anna", "geheim") else None

    async def scram_keys(self, name: str) -> ScramKeys | None:
        await trio.lowlevel.checkpoint()
        if self.keys is None or name == "anna":
            return self.keys
        return NobodysKeys(b"secret", [self.keys])(name)


@pytest.fixture
def logins() -> Logins:
    return LoginGuard().connection(PEER)


async def attempt(mechanism: ClientMechanism, users: Users, logins: Logins) -> Identity | None:
    """Our client logs in at our server, with an initial response where there is one."""
    initial = await mechanism.respond(b"") if mechanism.is_client_first else None
    return await log_in(
        mechanism.name, users=users, logins=logins, peer=PEER, challenge=mechanism.respond, initial=initial
    )


def client(name: str, user: str = "anna", password: str = "geheim") -> ClientMechanism:
    [mechanism] = client_mechanisms([name], user, password, passwords=True)
    return mechanism


@pytest.mark.parametrize("name", MECHANISMS)
async def test_the_right_password_logs_in(name: str, logins: Logins) -> None:
    mechanism = client(name)
    assert await attempt(mechanism, Users(), logins) == ANNA
    mechanism.finish()


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize(("user", "password"), [("anna", "other"), ("bert", "geheim")])
async def test_another_name_or_password_does_not_and_counts_as_a_failed_login(
    name: str, user: str, password: str, logins: Logins, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(3):
        assert not logins.exhausted
        assert await attempt(client(name, user, password), Users(), logins) is None
    assert logins.exhausted


@pytest.mark.parametrize("name", MECHANISMS)
async def test_the_exchange_may_begin_with_a_challenge(name: str, logins: Logins) -> None:
    mechanism = client(name)
    assert await log_in(name, users=Users(), logins=logins, peer=PEER, challenge=mechanism.respond) == ANNA


async def test_a_name_may_come_as_logins_initial_response(logins: Logins) -> None:
    asked = []

    async def challenge(text: bytes) -> bytes:
        asked.append(text)
        return b"geheim"

    identity = await log_in("LOGIN", users=Users(), logins=logins, peer=PEER, challenge=challenge, initial=b"anna")
    assert (identity, asked) == (ANNA, [b"Password:"])


async def silence(challenge: bytes) -> bytes:
    raise AssertionError(f"nothing should be asked: {challenge!r}")


@pytest.mark.parametrize(
    ("initial", "let_in"),
    [(b"anna\0anna\0geheim", True), (b"\0anna\0geheim", True), (b"root\0anna\0geheim", False)],
)
async def test_plain_lets_nobody_act_for_another(
    initial: bytes, let_in: bool, logins: Logins, autojump_clock: trio.testing.MockClock
) -> None:
    identity = await log_in("PLAIN", users=Users(), logins=logins, peer=PEER, challenge=silence, initial=initial)
    assert (identity is not None) is let_in


@pytest.mark.parametrize(
    "initial", [b"", b"anna", b"anna\0geheim", b"\0\0geheim", b"\0anna\0", b"\0anna\0geheim\0", b"\0anna\0\xff"]
)
async def test_a_malformed_plain_message_is_no_attempt(initial: bytes, logins: Logins) -> None:
    users = Users()
    with pytest.raises(RemoteProtocolError):
        await log_in("PLAIN", users=users, logins=logins, peer=PEER, challenge=silence, initial=initial)
    assert users.asked == []


async def test_an_exchange_that_the_client_cancels_is_no_attempt(logins: Logins) -> None:
    users = Users()

    async def challenge(text: bytes) -> bytes:
        return decode_response(b"*")

    for name in MECHANISMS:
        with pytest.raises(ExchangeCancelled):
            await log_in(name, users=users, logins=logins, peer=PEER, challenge=challenge)
    assert users.asked == []


@pytest.mark.parametrize("name", MECHANISMS)
async def test_exchanges_that_stand_still_keep_nobody_waiting(name: str) -> None:
    guard = LoginGuard()

    async def stand_still(text: bytes) -> bytes:
        return await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(
                lambda: log_in(name, users=Users(), logins=guard.connection(PEER), peer=PEER, challenge=stand_still)
            )
        await trio.testing.wait_all_tasks_blocked()
        assert await attempt(client(name), Users(), guard.connection(PEER)) == ANNA
        nursery.cancel_scope.cancel()


async def test_a_mechanism_that_is_none_of_ours_is_the_callers_mistake(logins: Logins) -> None:
    with pytest.raises(LocalProtocolError, match="CRAM-MD5 is none of"):
        await log_in("CRAM-MD5", users=Users(), logins=logins, peer=PEER, challenge=silence)


@pytest.mark.parametrize(
    ("keys", "passwords", "names"),
    [
        (keys_of("x"), True, ("SCRAM-SHA-256", "PLAIN", "LOGIN")),
        (keys_of("x"), False, ("SCRAM-SHA-256",)),
        (None, True, ("PLAIN", "LOGIN")),
        (None, False, ()),
    ],
)
async def test_offered_is_scram_where_there_are_keys_and_the_others_where_passwords_may_pass(
    keys: ScramKeys | None, passwords: bool, names: tuple[str, ...]
) -> None:
    assert await offered_mechanisms(Users(keys), passwords=passwords) == names


# SCRAM


async def scram_challenges(users: Users, logins: Logins, name: str) -> bytes:
    """The server's first message for a name, with its nonce taken out."""
    first = f"n,,n={name},r=abc".encode()
    challenged = b""

    async def challenge(text: bytes) -> bytes:
        nonlocal challenged
        challenged = text
        raise ExchangeCancelled("enough seen")

    with pytest.raises(ExchangeCancelled):
        await log_in("SCRAM-SHA-256", users=users, logins=logins, peer=PEER, challenge=challenge, initial=first)
    return challenged.partition(b",")[2]


async def test_unknown_names_get_the_same_salt_each_time_and_it_looks_like_others(logins: Logins) -> None:
    users = Users()
    anna, eve, mallory = [await scram_challenges(users, logins, name) for name in ("anna", "eve", "mallory")]
    assert eve == await scram_challenges(users, logins, "eve")
    assert len({anna, eve, mallory}) == 3
    assert len({len(anna), len(eve), len(mallory)}) == 1


async def test_keys_of_another_mechanism_are_as_good_as_none(
    logins: Logins, autojump_clock: trio.testing.MockClock
) -> None:
    users = Users(replace(keys_of("geheim"), mechanism="SCRAM-SHA-512"))
    assert await scram_challenges(users, logins, "anna") == await scram_challenges(users, logins, "anna")


async def test_a_right_proof_for_keys_of_nobody_is_a_failed_login(
    logins: Logins, autojump_clock: trio.testing.MockClock
) -> None:
    users = Users(keys_of("geheim", identity=None))
    assert await attempt(client("SCRAM-SHA-256"), users, logins) is None


async def test_scram_lets_nobody_act_for_another(logins: Logins, autojump_clock: trio.testing.MockClock) -> None:
    for authorized, let_in in [("anna", True), ("root", False)]:
        exchange = ScramClient("anna", "geheim")
        header = f"n,a={authorized},"

        async def challenge(text: bytes, header: str = header, exchange: ScramClient = exchange) -> bytes:
            if text.startswith(b"v="):
                return b""
            return acting_for(exchange, header, text)

        identity = await log_in(
            "SCRAM-SHA-256",
            users=Users(),
            logins=logins,
            peer=PEER,
            challenge=challenge,
            initial=header.encode() + exchange.first.removeprefix(b"n,,"),
        )
        assert (identity is not None) is let_in


def acting_for(exchange: ScramClient, header: str, server_first: bytes) -> bytes:
    """A last message with the right proof behind another header than our client's."""
    nonce, salt, iterations = [part[2:] for part in server_first.decode().split(",")]
    salted = hashlib.pbkdf2_hmac("sha256", b"geheim", base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    without_proof = f"c={base64.b64encode(header.encode()).decode()},r={nonce}"
    bare = exchange.first.decode().removeprefix("n,,")
    authenticated = f"{bare},{server_first.decode()},{without_proof}".encode()
    signature = hmac.digest(hashlib.sha256(client_key).digest(), authenticated, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()


def test_the_exchange_of_rfc_7677_section_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scram_exchange, "_new_nonce", lambda: "rOprNGfwEbeRWgbNEkqO")
    exchange = ScramClient("user", "pencil")
    assert exchange.first == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    monkeypatch.setattr(scram_exchange, "_new_nonce", lambda: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    keys = ScramKeys.parse(
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
        "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    server = ScramServer(exchange.first)
    challenge = server.challenge(keys)
    assert challenge == b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    final = exchange.final(challenge)
    assert final == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    signature = server.check(final)
    assert signature == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    exchange.verify(signature)
    assert exchange.is_verified


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_names_with_commas_and_equals_signs_come_through(name: str) -> None:
    assert ScramServer(ScramClient(name, "x").first).name == name


def test_our_client_gets_into_scramps_server_and_scramps_client_into_ours() -> None:
    keys = keys_of("geheim")
    server = scramp.ScramMechanism().make_server(
        lambda name: (keys.salt, keys.stored_key, keys.server_key, keys.iterations)
    )
    ours = ScramClient("a,n=na", "geheim")
    server.set_client_first(ours.first.decode())
    server.set_client_final(ours.final(server.get_server_first().encode()).decode())
    ours.verify(server.get_server_final().encode())
    assert ours.is_verified

    theirs = scramp.ScramClient(["SCRAM-SHA-256"], "a,n=na", "geheim")
    our_server = ScramServer(theirs.get_client_first().encode())
    assert our_server.name == "a,n=na"
    theirs.set_server_first(our_server.challenge(keys).decode())
    signature = our_server.check(theirs.get_client_final().encode())
    assert signature is not None
    theirs.set_server_final(signature.decode())


def test_a_password_is_the_same_however_unicode_writes_it() -> None:
    server = ScramServer(b"n,,n=I\xc2\xadX,r=abc")
    assert server.name == "IX"  # RFC 4013 section 3: the soft hyphen counts as nothing
    exchange = ScramClient("anna", "I\u00adX")
    server = ScramServer(exchange.first)
    assert server.check(exchange.final(server.challenge(keys_of("IX")))) is not None


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n,,",
        b"n=anna,r=abc",
        b"n,,n=anna",
        b"n,,n=,r=abc",
        b"n,,r=abc,n=anna",
        b"n,,m=x,n=anna,r=abc",
        b"n,,n=an=na,r=abc",
        b"n,,n=anna,r=a b",
        b"n,,n=an\0na,r=abc",
        b"n,,n=an\x07na,r=abc",
        b"n,,n=\xff,r=abc",
        b"p=tls-unique,,n=anna,r=abc",
        b"x,,n=anna,r=abc",
        b"n,root,n=anna,r=abc",
        b"n,,n=" + "\ufdfa".encode() * 342 + b",r=abc",
    ],
)
def test_a_first_message_that_is_none_is_refused(first: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ScramServer(first)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda final: b"",
        lambda final: final.replace(b"c=biws", b"c=eSws"),
        lambda final: final.replace(b",r=", b",r=x"),
        lambda final: final.partition(b",p=")[0],
        lambda final: final + b"=",
        lambda final: final + b"\xff",
    ],
)
def test_a_last_message_of_another_exchange_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    exchange = ScramClient("anna", "geheim")
    server = ScramServer(exchange.first)
    final = exchange.final(server.challenge(keys_of("geheim")))
    with pytest.raises(RemoteProtocolError):
        server.check(spoil(final))
    assert server.check(final) is not None


def test_a_proof_of_another_length_is_a_wrong_one() -> None:
    exchange = ScramClient("anna", "geheim")
    server = ScramServer(exchange.first)
    final = exchange.final(server.challenge(keys_of("geheim")))
    assert server.check(final.partition(b",p=")[0] + b",p=AAAA") is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda first, nonce: b"",
        lambda first, nonce: b"e=other-error",
        lambda first, nonce: first.replace(nonce, b"x" + nonce),
        lambda first, nonce: b"r=" + nonce + first[first.index(b",s=") :],
        lambda first, nonce: first.replace(b"i=4096", b"i=4095"),
        lambda first, nonce: first.replace(b"i=4096", b"i=10000001"),
        lambda first, nonce: first.replace(b"i=4096", b"i=04096"),
        lambda first, nonce: first.replace(b",s=", b",s=" + b"AAAA" * 400),
        lambda first, nonce: first.replace(b",s=", b",s=="),
        lambda first, nonce: b"m=x," + first,
    ],
)
def test_a_client_refuses_challenges_that_are_wrong_or_weaken_the_password(
    spoil: Callable[[bytes, bytes], bytes],
) -> None:
    exchange = ScramClient("anna", "geheim")
    first = ScramServer(exchange.first).challenge(keys_of("geheim"))
    nonce = exchange.first.rpartition(b"r=")[2]
    with pytest.raises(RemoteProtocolError):
        exchange.final(spoil(first, nonce))


async def test_a_client_that_goes_on_behind_the_end_is_malformed(logins: Logins) -> None:
    mechanism = client("SCRAM-SHA-256")

    async def challenge(text: bytes) -> bytes:
        return await mechanism.respond(text) or b"more"

    with pytest.raises(RemoteProtocolError, match="nothing more"):
        await log_in("SCRAM-SHA-256", users=Users(), logins=logins, peer=PEER, challenge=challenge)


@pytest.mark.parametrize("text", ["\u00ad", "bell\x07", "\u0627\u0031", ""])
def test_a_name_or_password_that_saslprep_leaves_nothing_of_is_refused(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="RFC 4013"):
        ScramClient(text, "geheim")
    with pytest.raises(LocalProtocolError, match="RFC 4013"):
        ScramClient("anna", text)


async def test_challenges_behind_the_servers_proof_are_refused() -> None:
    exchange = client("SCRAM-SHA-256")
    server = ScramServer(await exchange.respond(b""))
    signature = server.check(await exchange.respond(server.challenge(keys_of("geheim"))))
    assert signature is not None
    assert await exchange.respond(signature) == b""
    exchange.finish()
    with pytest.raises(RemoteProtocolError, match="beyond the end"):
        await exchange.respond(b"")


async def test_a_server_that_does_not_know_the_password_is_found_out() -> None:
    exchange = client("SCRAM-SHA-256")
    server = ScramServer(await exchange.respond(b""))
    await exchange.respond(server.challenge(keys_of("guessed")))
    with pytest.raises(RemoteProtocolError, match="has not proved"):
        await exchange.respond(b"v=" + base64.b64encode(bytes(32)))


async def test_a_server_that_lets_us_in_without_its_proof_is_found_out() -> None:
    exchange = client("SCRAM-SHA-256")
    server = ScramServer(await exchange.respond(b""))
    with pytest.raises(RemoteProtocolError, match="without a proof"):
        exchange.finish()
    await exchange.respond(server.challenge(keys_of("geheim")))
    assert await exchange.respond(b"e=invalid-proof") == b""
    with pytest.raises(RemoteProtocolError, match="without a proof"):
        exchange.finish()


@given(st.binary(max_size=200))
def test_nothing_that_a_peer_says_raises_anything_else(data: bytes) -> None:
    for prefix in (b"", b"n,,", b"n,,n=anna,r="):
        try:
            ScramServer(prefix + data)
        except RemoteProtocolError:
            pass
    exchange = ScramClient("anna", "geheim")
    server = ScramServer(exchange.first)
    server.challenge(keys_of("geheim"))
    for method in (exchange.final, exchange.verify, server.check):
        try:
            method(data)
        except RemoteProtocolError:
            pass
    assert not exchange.is_verified


# What a client picks


@pytest.mark.parametrize(
    ("offered", "passwords", "names"),
    [
        (["login", "plain", "scram-sha-256", "GSSAPI"], True, ["SCRAM-SHA-256", "PLAIN", "LOGIN"]),
        (["LOGIN", "PLAIN", "SCRAM-SHA-256"], False, ["SCRAM-SHA-256"]),
        (["LOGIN", "PLAIN"], False, []),
        (["CRAM-MD5"], True, []),
        ([], True, []),
    ],
)
def test_a_client_tries_the_best_first_and_tells_its_password_only_where_it_may(
    offered: list[str], passwords: bool, names: list[str]
) -> None:
    assert [way.name for way in client_mechanisms(offered, "anna", "geheim", passwords=passwords)] == names


def test_a_password_that_scram_cannot_have_is_told_where_it_may_be() -> None:
    assert [way.name for way in client_mechanisms(MECHANISMS, "anna", "bell\x07", passwords=True)] == ["PLAIN", "LOGIN"]


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("", "x"),
        ("an\0na", "x"),
        ("an\r\nna", "x"),
        ("an\x9bna", "x"),
        ("\udcff", "x"),
        ("x", ""),
        ("x", "a\0b"),
        ("x", "\udcff"),
    ],
)
def test_what_could_not_be_sent_is_refused_before_a_byte_is(user: str, password: str) -> None:
    with pytest.raises(LocalProtocolError):
        client_mechanisms(MECHANISMS, user, password, passwords=True)


@pytest.mark.parametrize("name", MECHANISMS)
async def test_challenges_without_end_are_refused(name: str) -> None:
    mechanism = client(name)
    with pytest.raises(RemoteProtocolError):
        for _ in range(4):
            await mechanism.respond(b"")


# Base64


@given(st.binary())
def test_what_is_encoded_is_decoded(data: bytes) -> None:
    assert decode_initial(encode_initial(data)) == data
    assert decode_response(encode_response(data)) == data


@given(st.binary() | st.text())
def test_what_is_not_base64_raises_nothing_else(line: bytes | str) -> None:
    for decode in (decode_base64, decode_initial, decode_response):
        try:
            data = decode(line)
        except RemoteProtocolError:
            continue
        assert (base64.b64encode(data) or b"=") == ((line.encode() if isinstance(line, str) else line) or b"=")


@pytest.mark.parametrize("line", [b"=", b"YQ", b"YQ=", b"YR==", b"Y Q==", b"YQ==\r", b"YQ==YQ==", b"\xff", "é"])
def test_loose_base64_is_refused(line: bytes | str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_response(line)


def test_an_empty_initial_response_is_an_equals_sign_and_an_empty_response_an_empty_line() -> None:
    assert decode_initial("=") == decode_response("") == b""
    assert encode_initial(b"") == "="
    with pytest.raises(RemoteProtocolError):
        decode_initial("")
