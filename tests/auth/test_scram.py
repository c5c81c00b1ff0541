from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest
import scramp
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.auth import Identity, ScramKeys
from asyncnet.auth.scram import NobodysKeys

lengths = {"SCRAM-SHA-1": 20, "SCRAM-SHA-256": 32, "SCRAM-SHA-512": 64}


@st.composite
def scram_keys(draw: st.DrawFn) -> ScramKeys:
    mechanism = draw(st.sampled_from(sorted(lengths)))
    key = st.binary(min_size=lengths[mechanism], max_size=lengths[mechanism])
    return ScramKeys(
        mechanism,
        draw(st.binary(min_size=12, max_size=64)),
        draw(st.integers(4096, 10_000_000)),
        draw(key),
        draw(key),
    )


@given(scram_keys())
def test_what_is_stored_is_read_back(keys: ScramKeys) -> None:
    assert ScramKeys.parse(keys.format()) == keys


@given(st.text())
def test_anything_else_raises_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        ScramKeys.parse(text)


def test_the_keys_of_rfc_7677_section_3_are_those_of_its_password() -> None:
    # The exchange in the RFC: user "user", password "pencil"; the server signature below is its last line.
    stored = (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
        "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    keys = ScramKeys.parse(stored)
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", keys.salt, keys.iterations)
    assert keys.server_key == hmac.digest(salted, b"Server Key", "sha256")
    assert keys.stored_key == hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    assert keys.format() == stored


SALT = "W22ZaJ0SNY7soEsUEjb6gQ=="
KEY = "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"SCRAM-SHA-256$4096:{SALT}${KEY}", "not of the form"),
        (f"SCRAM-SHA-256$4096:{SALT}${KEY}:{KEY}\n", "base64"),
        (f"SCRAM-MD5$4096:{SALT}${KEY}:{KEY}", "SCRAM-MD5 is none of"),
        (f"SCRAM-SHA-256$4095:{SALT}${KEY}:{KEY}", "4095 iterations"),
        (f"SCRAM-SHA-256$10000001:{SALT}${KEY}:{KEY}", "10000001 iterations"),
        (f"SCRAM-SHA-256$04096:{SALT}${KEY}:{KEY}", "not of the form"),
        (f"SCRAM-SHA-256$4096:W22ZaA==${KEY}:{KEY}", "a salt of 4 bytes"),
        (f"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gR==${KEY}:{KEY}", "canonical"),
        (f"SCRAM-SHA-256$4096:{SALT}${KEY}:é{KEY}", "not base64"),
        (f"SCRAM-SHA-512$4096:{SALT}${KEY}:{KEY}", "64 bytes"),
    ],
)
def test_wrong_keys_are_refused_with_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        ScramKeys.parse(text)
    assert KEY not in str(caught.value)


def exchange(keys: ScramKeys, name: str, password: str) -> None:
    """A SCRAM exchange between scramp's client and scramp's server with `keys`; raises ScramException if it fails."""
    server = scramp.ScramMechanism(keys.mechanism).make_server(
        lambda _: (keys.salt, keys.stored_key, keys.server_key, keys.iterations)
    )
    client = scramp.ScramClient([keys.mechanism], name, password)
    server.set_client_first(client.get_client_first())
    client.set_server_first(server.get_server_first())
    server.set_client_final(client.get_client_final())
    client.set_server_final(server.get_server_final())


def test_new_keys_let_in_their_password_and_no_other() -> None:
    keys = ScramKeys.of_password("I\u00adX")  # RFC 4013 section 3: the soft hyphen counts as nothing
    assert (keys.mechanism, len(keys.salt), keys.identity) == ("SCRAM-SHA-256", 16, None)
    exchange(keys, "anna", "IX")
    with pytest.raises(scramp.ScramException):
        exchange(keys, "anna", "ix")


@pytest.mark.parametrize("password", ["\u00ad", "bell\x07", "\u0627\u0031"])
def test_a_password_that_saslprep_forbids_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="RFC 4013"):
        ScramKeys.of_password(password)


def test_keys_do_not_show_in_their_repr() -> None:
    keys = ScramKeys("SCRAM-SHA-256", b"s" * 16, 4096, b"STORED" * 6, b"SERVER" * 6)
    assert "STORED" not in repr(keys)
    assert "SERVER" not in repr(keys)


def test_nobodys_keys_are_stable_for_a_name_and_differ_between_names_and_secrets() -> None:
    nobodys = NobodysKeys(b"secret", [])
    assert nobodys("eve") == NobodysKeys(b"secret", [])("eve")
    assert nobodys("eve").identity is None
    assert len({keys.salt for keys in (nobodys("eve"), nobodys("mallory"), NobodysKeys(b"other", [])("eve"))}) == 3
    assert nobodys("\udcff").salt


@given(scram_keys())
def test_nobodys_keys_look_like_those_of_most_users(keys: ScramKeys) -> None:
    other = replace(keys, iterations=5000, salt=b"12 bytes long")
    made_up = NobodysKeys(b"secret", [keys, replace(keys, identity=Identity("anna")), other])("eve")
    assert (made_up.mechanism, made_up.iterations) == (keys.mechanism, keys.iterations)
    assert [len(part) for part in (made_up.salt, made_up.stored_key, made_up.server_key)] == [
        len(part) for part in (keys.salt, keys.stored_key, keys.server_key)
    ]
    assert ScramKeys.parse(made_up.format()) == made_up


def test_nobodys_keys_let_nobody_in() -> None:
    with pytest.raises(scramp.ScramException):
        exchange(replace(NobodysKeys(b"secret", [])("eve"), iterations=4096), "eve", "")
