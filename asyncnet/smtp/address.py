"""A mail address as SMTP has it: RFC 5321 section 4.1.2, with RFC 6531 section 3.3 for those beyond ASCII. No I/O.

    Mailbox         = Local-part "@" ( Domain / address-literal )
    Local-part      = Dot-string / Quoted-string
    Dot-string      = Atom *("." Atom)
    Quoted-string   = DQUOTE *( qtextSMTP / quoted-pairSMTP ) DQUOTE
    Domain          = sub-domain *("." sub-domain)
    address-literal = "[" ( IPv4 / "IPv6:" IPv6 / tag ":" content ) "]"

What is kept is what an address means: "joe" and "j\\oe" in quotes are the same local part. So whoever decides on an
address (is it ours, is it this user's) cannot be led past by another spelling.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TypeAlias

import idna

MAX_LOCAL_PART = 64
MAX_DOMAIN = 255
"""In bytes: RFC 5321 section 4.5.3.1."""

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_ATOM = r"""[^\x00-\x20\x7f-\x9f\s"(),.:;<>@\[\\\]]+"""  # atext, and all that is printed beyond ASCII
_match_dot_string = re.compile(rf"{_ATOM}(?:\.{_ATOM})*").fullmatch
_match_quoted = re.compile(r'"((?:[^\x00-\x1f"\\\x7f-\x9f]|\\[ -~])*)"').fullmatch
_find_quoted = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL).match
# "_" is none of RFC 5321's, and stands in the names of many a mail host.
_match_label = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?").fullmatch
_match_literal = re.compile(r"\[([^\[\]\\\x00-\x20\x7f-\U0010ffff]+)\]").fullmatch
_match_general_literal = re.compile(r"[A-Za-z0-9-]*[A-Za-z0-9]:[!-Z^-~]+").fullmatch
_has_surrogate = re.compile("[\ud800-\udfff]").search


@dataclass(frozen=True, slots=True)
class MailAddress:
    """An address: `str()` gives it as SMTP writes it, `parse` reads that. Equal are those that mean the same."""

    local: str
    """The local part, free of quotes and backslashes. Its capital letters may matter to its own host alone."""
    domain: str
    """In small letters; an address literal with its brackets, in its shortest form. Beyond ASCII it is as idna (UTS 46)
    maps it. "" only in "postmaster", which RFC 5321 section 4.1.1.3 lets stand alone."""

    @classmethod
    def parse(cls, text: str) -> MailAddress:
        """Raises ValueError, which says what is wrong, for what is no address."""
        local, domain = _split(text)
        return cls(_parse_local_part(local), parse_domain(domain))

    def __str__(self) -> str:
        local = self.local if _match_dot_string(self.local) else '"' + re.sub(r'(["\\])', r"\\\1", self.local) + '"'
        return f"{local}@{self.domain}" if self.domain else local

    @property
    def is_international(self) -> bool:
        """Whether it can stand only where SMTPUTF8 was said."""
        return not (self.local.isascii() and self.domain.isascii())

    @property
    def ascii_domain(self) -> str:
        """The domain as the DNS knows it, in A-labels: what domains are compared by. A literal is as it is."""
        return ascii_domain(self.domain)

    @property
    def literal(self) -> IPAddress | None:
        """The address of a host that an address literal names; None where there is none, or of another kind."""
        return parse_literal(self.domain)

    def downgraded(self) -> MailAddress | None:
        """The same address in ASCII, for who knows no SMTPUTF8; None: there is none, as the local part is not."""
        return MailAddress(self.local, self.ascii_domain) if self.local.isascii() else None


def _split(text: str) -> tuple[str, str]:
    """Local part and domain, as they are written."""
    if text.startswith('"'):
        quoted = _find_quoted(text)
        if quoted is None:
            raise ValueError("a quoted local part that does not end")
        local, rest = quoted[0], text[quoted.end() :]
        if not rest.startswith("@"):
            raise ValueError("no @ behind the quoted local part")
        return local, rest[1:]
    local, at, domain = text.partition("@")
    if not at:
        raise ValueError("no @ in the address")
    return local, domain


def _parse_local_part(text: str) -> str:
    if _has_surrogate(text):
        raise ValueError("bytes that are no UTF-8")
    if len(text.encode()) > MAX_LOCAL_PART:
        raise ValueError(f"a local part has at most {MAX_LOCAL_PART} bytes")
    if text.startswith('"'):
        quoted = _match_quoted(text)
        if quoted is None:
            raise ValueError("a quoted local part with characters that cannot stand there")
        return re.sub(r"\\(.)", r"\1", quoted[1])
    if _match_dot_string(text) is None:
        raise ValueError("no local part" if not text else "a local part with characters that need quotes")
    return text


def parse_domain(text: str) -> str:
    """A domain or an address literal, in the form that `MailAddress.domain` has. Raises ValueError for what is none."""
    if _has_surrogate(text) or len(text.encode()) > MAX_DOMAIN:
        raise ValueError(f"a domain has at most {MAX_DOMAIN} bytes of UTF-8")
    if text.startswith("["):
        return _parse_address_literal(text)
    if text.isascii():
        domain = text.lower()
    else:
        try:
            domain = idna.decode(idna.encode(text, uts46=True))
        except UnicodeError as exc:  # IDNAError is one
            raise ValueError("a domain with characters that cannot stand there") from exc
    for label in domain.split("."):
        if not label:
            raise ValueError("no domain" if not text else "a domain with an empty label")
        if label.isascii() and (_match_label(label) is None or len(label) > 63):
            raise ValueError("a domain with characters that cannot stand there, or a label of more than 63")
    return domain


def ascii_domain(domain: str) -> str:
    """A domain that `parse_domain` has returned, in A-labels."""
    return domain if domain.isascii() else idna.encode(domain, uts46=True).decode("ascii")


def _parse_address_literal(text: str) -> str:
    match = _match_literal(text)
    if match is None:
        raise ValueError("an address literal with characters that cannot stand there")
    ip = parse_literal(text)
    if ip is not None:
        return f"[{'IPv6:' if ip.version == 6 else ''}{ip}]"
    if not match[1].lower().startswith("ipv6:") and _match_general_literal(match[1]):
        return text.lower()
    raise ValueError("an address literal that holds no address")


def parse_literal(domain: str) -> IPAddress | None:
    """What host "[192.0.2.1]" or "[IPv6:2001:db8::1]" names; None for a domain, and for a literal of another kind."""
    if not (domain.startswith("[") and domain.endswith("]")):
        return None
    inner = domain[1:-1]
    try:
        if inner.lower().startswith("ipv6:"):
            return ipaddress.IPv6Address(inner[5:]) if "%" not in inner else None
        return ipaddress.IPv4Address(inner)
    except ValueError:
        return None
