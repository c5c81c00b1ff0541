"""What a server offers: the keywords of its reply to EHLO or LHLO, from and to lines. RFC 5321 section 4.1.1.1. No I/O.

The first line of that reply is the server's name, each other one a keyword and its parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a server offers. `Extensions()` is what one offers that knows only HELO."""

    pipelining: bool = False
    """RFC 2920: commands may be sent before their predecessors are answered."""
    size: int | None = None
    """RFC 1870: the largest message, in bytes; 0: there is a limit that is not told, or none; None: no SIZE."""
    eight_bit_mime: bool = False
    """RFC 6152."""
    smtputf8: bool = False
    """RFC 6531."""
    enhanced_status_codes: bool = False
    """RFC 2034."""
    starttls: bool = False
    """RFC 3207."""
    auth: tuple[str, ...] = ()
    """RFC 4954: the mechanisms, in capitals."""
    chunking: bool = False
    """RFC 3030: BDAT."""
    binarymime: bool = False
    """RFC 3030: BODY=BINARYMIME."""
    dsn: bool = False
    """RFC 3461."""
    most_mails: int | None = None
    """RFC 9422's MAILMAX: how many messages one connection may send."""
    most_recipients: int | None = None
    """RCPTMAX: how many recipients one message may have."""
    most_domains: int | None = None
    """RCPTDOMAINMAX: of how many domains these may be."""
    others: tuple[str, ...] = ()
    """The lines of all other keywords: "HELP", "DELIVERBY 240"."""

    @classmethod
    def parse(cls, lines: Iterable[str]) -> Extensions:
        """Read the lines behind the first. What nobody can make sense of is left out, as if it was not offered."""
        found: dict[str, object] = {}
        auth: list[str] = []
        others = []
        for line in lines:
            keyword, _, rest = line.strip().partition(" ")
            words = rest.split()
            name = _FLAGS.get(keyword.upper())
            if name is not None:
                found[name] = True
            elif keyword.upper() == "SIZE":
                found["size"] = int(words[0]) if words and _match_number(words[0]) else 0
            elif keyword.upper() == "AUTH" or keyword.upper().startswith("AUTH="):  # the form of before RFC 2554
                auth += [word.upper() for word in (keyword[5:], *words) if word]
            elif keyword.upper() == "LIMITS":
                found |= _parse_limits(words)
            elif _match_keyword(keyword):
                others.append(line.strip())
        return cls(**found, auth=tuple(dict.fromkeys(auth)), others=tuple(others))  # type: ignore[arg-type]

    def format(self) -> list[str]:
        """The lines behind the first, which `parse` reads."""
        lines = [keyword for keyword, name in _FLAGS.items() if getattr(self, name)]
        if self.size is not None:
            lines.append(f"SIZE {self.size}")
        if self.auth:
            lines.append(f"AUTH {' '.join(self.auth)}")
        told = {word: getattr(self, name) for word, name in _LIMITS.items()}
        limits = [f"{word}={limit}" for word, limit in told.items() if limit is not None and limit <= _MOST_TOLD]
        if limits:
            lines.append(f"LIMITS {' '.join(limits)}")
        return [*lines, *self.others]


_FLAGS = {
    "PIPELINING": "pipelining",
    "8BITMIME": "eight_bit_mime",
    "SMTPUTF8": "smtputf8",
    "ENHANCEDSTATUSCODES": "enhanced_status_codes",
    "STARTTLS": "starttls",
    "CHUNKING": "chunking",
    "BINARYMIME": "binarymime",
    "DSN": "dsn",
}
_MOST_TOLD = 999_999  # in six digits (RFC 9422 section 4): whatever is above that is no limit to anybody
_LIMITS = {"MAILMAX": "most_mails", "RCPTMAX": "most_recipients", "RCPTDOMAINMAX": "most_domains"}
assert {*_FLAGS.values(), *_LIMITS.values(), "size", "auth", "others"} == {field.name for field in fields(Extensions)}

_match_number = re.compile("[0-9]{1,20}").fullmatch
_match_keyword = re.compile("[A-Za-z0-9][A-Za-z0-9-]*").fullmatch


def _parse_limits(words: Iterable[str]) -> dict[str, int]:
    """LIMITS: RFC 9422 section 3. A limit that is none, or of which nobody knows, is ignored (section 3.1)."""
    found = {}
    for word in words:
        keyword, _, value = word.partition("=")
        name = _LIMITS.get(keyword.upper())
        if name is not None and re.fullmatch("[1-9][0-9]{0,5}", value):
            found[name] = int(value)
    return found
