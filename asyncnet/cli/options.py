"""How the values of the command's options are read: durations, sizes, counts, networks."""

from __future__ import annotations

import argparse
import math
import re

from asyncnet.transports.address import Networks

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_BYTES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def duration(text: str) -> float:
    """Seconds from "90", "90s", "1.5m", "1h"; "off" is infinity."""
    if text == "off":
        return math.inf
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text)
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 90, 90s, 1.5m or 1h, or off for none")
    return seconds


def size(text: str) -> int:
    """Bytes from "1000", "64K", "10M", "1G"; K is 1024."""
    found = re.fullmatch(r"([0-9]+)([kmg]?)", text, re.IGNORECASE | re.ASCII)
    count = int(found[1]) * _BYTES[found[2].lower()] if found else 0
    if not count:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes: write 1000, 64K, 10M or 1G")
    return count


def count(text: str) -> int:
    """A number from 1 on."""
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 999999999")
    return int(text)


def network(text: str) -> str:
    """A network such as "192.0.2.0/24", a single address, or "unix"."""
    try:
        Networks([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; a network is 192.0.2.0/24, 2001:db8::/32 or unix") from None
    return text


def add_way(
    parser: argparse.ArgumentParser, *, timeout: float | None = 30.0, default: str = "for each wait (default: 30 s)"
) -> None:
    """Add the options of commands that connect to a URL: how they get there, and whom they believe."""
    way = parser.add_argument_group("the way there")
    way.add_argument("--proxy", metavar="URL", help="http://... or socks5://[user:password@]host:port")
    way.add_argument("--timeout", metavar="TIME", type=duration, default=timeout, help=default)
    way.add_argument("--ca", metavar="FILE", help="who vouches for servers, instead of the system's authorities (PEM)")
    way.add_argument("--insecure", action="store_true", help="do not verify who the server is")
