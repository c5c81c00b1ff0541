"""Which coding a client likes best (RFC 9110 section 12.5.3): pure, for `http.files`."""

from __future__ import annotations

import re
from functools import lru_cache

SUFFIXES = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
"""The ending of a file's compressed twin, for each coding (RFC 7932, RFC 8878, RFC 1952)."""

_is_preference = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?", re.ASCII | re.IGNORECASE
).fullmatch

_ALIASES = {"x-gzip": "gzip"}  # section 8.4.1.3


REMEMBERED = 256
"""Fields up to this length are remembered; browsers have a handful of short ones."""


def acceptable(field: str | None, offered: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the codings `offered` that an Accept-Encoding field likes better than none, the best one first.

    What is liked equally comes in the order of `offered`. None: no field, and nothing is known about the
    client: it gets no coding. Neither does one that names no coding; one that refuses even the identity gets it where
    nothing else is there, since an answer is of more use than a 406.
    """
    if not field:
        return ()
    return _remembered(field, offered) if len(field) <= REMEMBERED else _acceptable(field, offered)


def _acceptable(field: str, offered: tuple[str, ...]) -> tuple[str, ...]:
    weights: dict[str, float] = {}
    for item in field.lower().split(","):
        match = _is_preference(item.strip(" \t"))
        if match is not None:
            weights.setdefault(_ALIASES.get(match[1], match[1]), float(match[2] or 1))
    others = weights.get("*", 0.0)
    # Unless named, the identity is acceptable, and liked less than whatever is named.
    plain = weights.get("identity", 0.0)
    liked = [(weights.get(coding, others), coding) for coding in offered]
    return tuple(
        coding for weight, coding in sorted(liked, key=lambda item: -item[0]) if weight > 0 and weight >= plain
    )


_remembered = lru_cache(maxsize=256)(_acceptable)
