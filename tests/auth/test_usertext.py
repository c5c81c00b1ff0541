from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.auth.usertext import decode, find_entry, set_keys
from asyncnet.errors import ConfigurationError

FILE = """\
# Who may come in.
[users.anna]  # the boss
  password = "old"   # changed in May
root = '/srv/anna'

# bert has no password yet
[ users . "bert the 2nd" ]
quota = 1

[users.carla.limits]
rate = 10
[users.carla]
'password' = 'old'
scram = "old"
"""


def test_only_the_value_changes() -> None:
    assert set_keys(FILE, "anna", {"password": "NEW"}) == FILE.replace('"old"   #', '"NEW"   #')
    assert set_keys(FILE, "carla", {"password": "P", "scram": "S"}) == FILE.replace("'old'", '"P"').replace(
        'scram = "old"', 'scram = "S"'
    )


def test_a_missing_key_comes_right_under_the_header() -> None:
    header = '[ users . "bert the 2nd" ]\n'
    assert set_keys(FILE, "bert the 2nd", {"password": "P", "scram": "S"}) == FILE.replace(
        header, header + 'password = "P"\nscram = "S"\n'
    )


def test_a_new_user_is_appended_behind_an_empty_line() -> None:
    assert set_keys(FILE, "dora", {"password": "P"}) == FILE + '\n[users.dora]\npassword = "P"\n'


def test_an_empty_file_becomes_one_entry() -> None:
    assert set_keys("", "anna", {"password": "P"}) == '[users.anna]\npassword = "P"\n'


def test_a_last_line_without_a_newline_gets_one() -> None:
    assert set_keys("# none", "anna", {"password": "P"}) == '# none\n\n[users.anna]\npassword = "P"\n'
    assert set_keys("[users.anna]", "anna", {"password": "P"}) == '[users.anna]\npassword = "P"\n'
    assert set_keys("[users.anna]\npassword='o'", "anna", {"password": "P"}) == '[users.anna]\npassword="P"'


def test_windows_line_ends_stay() -> None:
    text = FILE.replace("\n", "\r\n")
    for name in ("anna", "bert the 2nd", "dora"):
        changed = set_keys(text, name, {"password": "P"})
        assert changed.count("\n") == changed.count("\r\n")
        assert tomllib.loads(changed)["users"][name]["password"] == "P"


def test_the_table_may_stand_above_or_below_its_own_sub_tables() -> None:
    text = "[users.carla.limits]\nrate = 10\n"
    assert set_keys(text, "carla", {"password": "P"}) == text + '\n[users.carla]\npassword = "P"\n'


@pytest.mark.parametrize(
    "text",
    [
        'users = { anna = { password = "old" } }\n',
        '[users]\nanna = { password = "old" }\n',
        'users.anna.password = "old"\n',
        '[users]\nanna.password = "old"\n',
        '[users.anna]\npassword = """old"""\n',
        '[users.anna]\nnote = """\npassword = "old"\n"""\n',
        "[users.anna]\npassword = 5\n",
        "users.anna = 5\n",
    ],
)
def test_what_cannot_be_changed_line_by_line_is_left_to_its_owner(text: str) -> None:
    with pytest.raises(ValueError, match=r"'anna' is not written as a table \[users.anna\]"):
        set_keys(text, "anna", {"password": "P"})


def test_a_multi_line_string_that_looks_like_the_entry_is_not_touched() -> None:
    text = "[users.bert]\nnote = '''\n[users.anna]\npassword = \"x\"\n'''\n"
    with pytest.raises(ValueError, match="'anna'"):
        set_keys(text, "anna", {"password": "P"})


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(st.lists(names, unique=True, min_size=1, max_size=4), names)
def test_any_name_can_be_added_and_changed_and_the_others_stay(others: list[str], name: str) -> None:
    text = ""
    for other in others:
        text = set_keys(text, other, {"password": "old"})
    text = set_keys(text, name, {"password": "first"})
    text = set_keys(text, name, {"password": "second", "scram": "keys"})
    expected = {other: {"password": "old"} for other in others} | {name: {"password": "second", "scram": "keys"}}
    assert tomllib.loads(text) == {"users": expected}


def test_the_line_of_an_entry_is_found_however_its_header_is_spelled() -> None:
    assert find_entry(FILE, "anna") == 1
    assert find_entry(FILE, "bert the 2nd") == 6
    assert find_entry(FILE, "carla") == 11
    assert find_entry(FILE, "limits") is None


def test_errors_name_the_file_and_the_line() -> None:
    with pytest.raises(ConfigurationError, match=r"^users\.toml: .* \(at line 2, column 3\)$"):
        decode(b"[users.anna]\na b\n", "users.toml")
    with pytest.raises(ConfigurationError, match=r"^users\.toml: not UTF-8 \(at line 2\)$"):
        decode(b"[users.anna]\nroot = '\xff'\n", "users.toml")
