from __future__ import annotations

import pytest

from asyncnet import EndpointError


@pytest.mark.parametrize("character", ["\x1b", "\n", "\r", "\x07", "\x9b", "\u2028", "\u202e", "\udcff"])
def test_an_endpoint_is_shown_without_what_a_terminal_would_obey(character: str) -> None:
    error = EndpointError(f"tcp://{character}[31mhost", 6, "no")
    assert str(error) == "no\n  tcp://\N{REPLACEMENT CHARACTER}[31mhost\n        ^"
    assert error.text == f"tcp://{character}[31mhost"


def test_printable_characters_of_any_script_are_shown_as_they_are() -> None:
    assert str(EndpointError("unix:/run/\u00fc\u6f22", 11, "no")).splitlines()[1:] == [
        "  unix:/run/\u00fc\u6f22",
        "             ^",
    ]
