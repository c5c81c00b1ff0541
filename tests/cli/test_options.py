from __future__ import annotations

import argparse
import math

import pytest

from asyncnet.cli.options import count, duration, network, size


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("0.25", 0.25), ("off", math.inf)]
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(("text", "number"), [("1000", 1000), ("64K", 65536), ("10m", 10 * 1024**2), ("1G", 1024**3)])
def test_a_size_is_read_in_bytes(text: str, number: int) -> None:
    assert size(text) == number


@pytest.mark.parametrize("text", ["192.0.2.0/24", "192.0.2.1", "2001:db8::/32", "unix"])
def test_a_network_stays_as_it_is(text: str) -> None:
    assert network(text) == text


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((duration, text) for text in ["", "0", "-1", "1d", "1 s", "s", "inf", "nan", "1e3", "\u0661"]),
        *((size, text) for text in ["", "0", "-1", "1T", "1.5K", "K", "10MB", "\u0661"]),
        *((count, text) for text in ["", "0", "-1", "1K", "1.0", "9999999999", "\u0661"]),
        *((network, text) for text in ["", "192.0.2.1/24", "example.org", "UNIX"]),
    ],
)
def test_anything_else_is_refused(read: type, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        read(text)
