from __future__ import annotations

import argon2
import pytest
from argon2.profiles import CHEAPEST

from asyncnet.auth.passwords import MAX_BYTES, check_password, dummy_hash, hash_password, is_acceptable, is_hash

CHEAP = argon2.PasswordHasher.from_parameters(CHEAPEST)


def test_a_password_is_kept_as_argon2id_with_the_costs_that_argon2_cffi_recommends() -> None:
    encoded = hash_password("correct horse")
    assert encoded.startswith("$argon2id$v=19$")
    assert is_hash(encoded)
    assert not argon2.PasswordHasher().check_needs_rehash(encoded)
    assert check_password(encoded, "correct horse")
    assert not check_password(encoded, "wrong horse")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$aGFzaA",
        "$argon2id$m=8,t=1,p=1$c29tZXNhbHQ$aGFzaA",
        "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$aGFzaA\n",
        "$argon2id$v=19$m=8,t=0,p=1$c29tZXNhbHQ$aGFzaA",
        "$2b$12$abcdefghijklmnopqrstuv",
    ],
)
def test_anything_but_argon2id_is_no_hash(text: str) -> None:
    assert not is_hash(text)


def test_a_damaged_hash_is_a_wrong_password_and_an_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    damaged = "$argon2id$v=19$m=1,t=1,p=1$c29tZXNhbHQ$aGFzaA"  # argon2 wants 8 KiB at least
    assert is_hash(damaged)
    assert not check_password(damaged, "secret")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "secret" not in caplog.text
    assert damaged not in caplog.text


def test_the_dummy_costs_what_most_hashes_cost_and_opens_to_nothing() -> None:
    cheap = [CHEAP.hash("a"), CHEAP.hash("b")]
    dummy = dummy_hash([*cheap, "$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ$aGFzaA"])
    assert is_hash(dummy)
    assert argon2.extract_parameters(dummy) == argon2.extract_parameters(cheap[0])
    assert dummy not in cheap
    assert dummy != dummy_hash(cheap)
    assert not check_password(dummy, "a")


def test_without_any_hash_the_dummy_costs_what_a_new_one_costs() -> None:
    assert not argon2.PasswordHasher().check_needs_rehash(dummy_hash([]))


def test_names_and_passwords_have_1_to_1024_bytes_of_utf_8_without_nul() -> None:
    assert is_acceptable("a" * MAX_BYTES)
    assert is_acceptable("é" * (MAX_BYTES // 2))
    for refused in ("", "a" * (MAX_BYTES + 1), "é" * (MAX_BYTES // 2 + 1), "a\0b", "\udcff"):
        assert not is_acceptable(refused)
