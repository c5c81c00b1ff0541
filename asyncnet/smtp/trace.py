"""What a server writes into a message: Received (RFC 5321 section 4.4), Date and Message-ID (RFC 6409 section 8).

No I/O. What time it is, and what is random, is told.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache

from asyncnet.smtp.address import parse_literal
from asyncnet.smtp.delivery import Client, Role
from asyncnet.smtp.envelope import Envelope, Recipient


def protocol_name(role: Role, *, is_extended: bool, secure: bool, logged_in: bool, international: bool) -> str:
    """How a message came: RFC 3848, RFC 6531 section 4.3. What is not extended is "SMTP", whatever else there is."""
    if role is not Role.LMTP and not is_extended:
        return "SMTP"
    flags = f"{'S' if secure else ''}{'A' if logged_in else ''}"
    if international:
        return f"UTF8{'LMTP' if role is Role.LMTP else 'SMTP'}{flags}"
    return f"{'LMTP' if role is Role.LMTP else 'ESMTP'}{flags}"


def received_field(
    client: Client,
    envelope: Envelope,
    recipients: list[Recipient],
    *,
    hostname: str,
    message_id: str,
    now: int,
    tls: str = "",
) -> bytes:
    """The Received field, with its line end.

    "for" names a recipient only where there is no other, so that nobody learns of others by it. `message_id` is what
    this server calls the message, `tls` the version and cipher in a few words, `now` seconds since 1970.
    """
    by = f"by {hostname} with {client.protocol} id {message_id}"
    lines = [f"Received: from {_from(client.name, client.peer.host)}", f"({tls})" if tls else "", by]
    if len(recipients) == 1 and (envelope.international or not recipients[0].address.is_international):
        lines.append(f"for <{recipients[0].address}>")
    return ("\r\n\t".join(filter(None, lines)) + f";\r\n\t{date(now)}\r\n").encode()


@lru_cache(maxsize=256)
def _from(name: str, host: str | None) -> str:
    """Extended-Domain: what it called itself, and where it really is. Anybody can call themselves anything."""
    if parse_literal(name) is None:  # a literal of another kind may hold brackets and semicolons
        name = re.sub(r"[^A-Za-z0-9.:_-]", "?", name)
    if host is None:
        return name or "unknown"
    return f"{name or 'unknown'} ([{'IPv6:' if ':' in host else ''}{host}])"


@lru_cache(maxsize=16)
def date(now: int) -> str:
    """Seconds since 1970 as RFC 5322 section 3.3 has a date, in UTC."""
    return formatdate(now).replace("-0000", "+0000")  # which would mean that nobody knows where this was


def missing_fields(names: list[bytes], *, hostname: str, message_id: str, now: int) -> bytes:
    """The fields that a submission server adds to a header with these `names`."""
    added = b""
    if b"message-id" not in names:
        added += f"Message-ID: <{message_id}@{hostname}>\r\n".encode()
    if b"date" not in names:
        added += f"Date: {date(now)}\r\n".encode()
    return added
