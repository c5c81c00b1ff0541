"""Messages of the standard library's `email`, as they are sent: whom they go to, and their bytes. RFC 5322. No I/O.

Used by `SMTPClient.send_message` and by `asyncnet send`.
"""

from __future__ import annotations

import base64
import copy
import email.policy
import io
import re
from collections.abc import Iterable, Iterator
from email.errors import MessageError
from email.generator import BytesGenerator
from email.headerregistry import Address, AddressHeader, Group
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import EmailPolicy
from email.utils import getaddresses
from typing import Any, cast

from asyncnet.errors import LocalProtocolError
from asyncnet.smtp.address import MailAddress, ascii_domain, parse_domain

DAMAGED = (ValueError, LookupError, AttributeError, TypeError, RecursionError, MessageError)
"""What `email` raises for headers and bodies that are damaged."""

_ADDRESS_HEADERS = ("From", "Sender", "Reply-To", "To", "Cc")

_find_second = re.compile(rb"\r\n(?![ \t]|\Z)|\r(?!\n)|(?<!\r)\n").search
# A header ends before the first empty line. Line ends are CR LF here.
_find_end = re.compile(rb"\r\n\r\n|\A\r\n").search
_match_mbox_line = re.compile(rb"From [^\r\n]*\r\n").match
_begins_as_message = re.compile(rb"[!-9;-~]+[ \t]*:|\r\n").match
_replace_bcc = re.compile(
    rb"^(?:resent-)?bcc[ \t]*:[^\r\n]*\r?\n?(?:[ \t][^\r\n]*\r?\n?)*", re.IGNORECASE | re.MULTILINE
).sub


def parse_message(data: bytes) -> EmailMessage:
    """Read a whole message. Raises LocalProtocolError for what `email` cannot read."""
    return _read(data)


def parse_header(data: bytes) -> EmailMessage:
    """Read the header of a message, whose line ends are CR LF. Raises the same."""
    return _read(split(data)[0], is_header=True)


def _read(data: bytes, *, is_header: bool = False) -> EmailMessage:
    try:
        message = BytesParser(policy=email.policy.default).parsebytes(data, headersonly=is_header)
    except DAMAGED as exc:
        raise LocalProtocolError(f"the message cannot be read: {exc}") from exc
    return _with_unicode(message)


def _with_unicode(message: EmailMessage) -> EmailMessage:
    """A message that was read, with what its header has in UTF-8 (RFC 6532), of which `email` knows nothing."""
    items = list(message.raw_items())
    for name, _ in items:
        del message[name]
    for name, raw in items:
        message.set_raw(name, raw if raw.isascii() else _unicode(name, raw))
    return message


def _unicode(name: str, raw: str) -> object:
    """The value of a field, parsed, since `email` would write a text that it has read as it is."""
    try:
        return email.policy.default.header_fetch_parse(name, raw.encode("ascii", "surrogateescape").decode())
    except DAMAGED:  # or bytes of who knows what charset
        return raw


def split(data: bytes) -> tuple[bytes, bytes]:
    """The header, and all that comes behind its last line: the empty line, and the body. Line ends are CR LF."""
    end = _find_end(data)
    if end is None:
        return data, b""
    place = end.start() + (2 if end[0] == b"\r\n\r\n" else 0)
    return data[:place], data[place:]


def checked(data: bytes) -> bytes:
    """A message, without the line that mbox files and `git format-patch` put in front ("From …", RFC 4155).

    Raises LocalProtocolError for what begins with no header: it would become one, whatever it is.
    """
    line = _match_mbox_line(data)
    message = data[line.end() :] if line else data
    if not _begins_as_message(message):
        raise LocalProtocolError("this is no message: it does not begin with a header")
    return message


def is_utf8(header: bytes) -> bool:
    """Whether a header is what SMTPUTF8 lets it be (RFC 6532)."""
    try:
        header.decode()
    except UnicodeDecodeError:
        return False
    return True


def without_bcc(data: bytes) -> bytes:
    """A message without the fields that name those of whom the others are not to know; all else is as it was."""
    header, body = split(data)
    return _replace_bcc(b"", header) + body


def sender_of(message: EmailMessage) -> MailAddress:
    """The reverse-path that a message's header asks for: its Sender, else the first of From (RFC 5322 section 3.6.2).

    Of a message that was sent on, it is that of the Resent- fields (section 3.6.6). Raises LocalProtocolError where
    there is none, and for more than one block of Resent- fields: nobody knows which one is meant.
    """
    prefix = _prefix(message)
    for name in ("Sender", "From"):
        found = _addresses(message, prefix + name)
        if found:
            return found[0]
    raise LocalProtocolError(f"the message has no {prefix}From: say who sends it")


def recipients_of(message: EmailMessage) -> tuple[MailAddress, ...]:
    """Those in To, Cc and Bcc, or in their Resent- kin, each once. Raises LocalProtocolError where there is nobody."""
    prefix = _prefix(message)
    found = [address for name in ("To", "Cc", "Bcc") for address in _addresses(message, prefix + name)]
    if not found:
        raise LocalProtocolError(f"the message has no {prefix}To, Cc or Bcc: say who gets it")
    return tuple(dict.fromkeys(found))


def _prefix(message: EmailMessage) -> str:
    blocks = [name.lower() for name in message].count("resent-date")
    if blocks > 1:
        raise LocalProtocolError("the message was sent on more than once: say who sends it now, and to whom")
    return "Resent-" if blocks else ""


def _addresses(message: EmailMessage, name: str) -> list[MailAddress]:
    return [_parse(spec, name) for value in _values(message, name) for spec in _specs(value, name)]


def _values(message: EmailMessage, name: str) -> list[object]:
    """The values of all headers with a name. Raises LocalProtocolError where `email` cannot make sense of one."""
    try:
        return list(message.get_all(name, []))
    except DAMAGED as exc:
        raise LocalProtocolError(f"{name} cannot be read: {exc}") from exc


def _specs(value: object, name: str) -> Iterator[str]:
    if isinstance(value, AddressHeader):
        yield from (address.addr_spec for address in value.addresses)
        return
    try:
        yield from (spec for _, spec in getaddresses([str(value)]))
    except RecursionError as exc:  # comments within comments
        raise LocalProtocolError(f"{name} cannot be read: {exc}") from exc


def _parse(spec: str, name: str) -> MailAddress:
    try:
        return MailAddress.parse(spec)
    except ValueError as exc:
        raise LocalProtocolError(f"{name} holds {spec!a}, which is no address: {exc}") from exc


def needs_international(message: EmailMessage, envelope: Iterable[MailAddress]) -> bool:
    """Whether only SMTPUTF8 can carry it: a local part, on the envelope or in the header, is beyond ASCII.

    Domains and texts are not in the way: they have forms in ASCII.
    """
    if any(not address.local.isascii() for address in envelope):
        return True
    specs = (spec for name in _ADDRESS_HEADERS for value in _both(message, name) for spec in _specs(value, name))
    return any(not spec.rpartition("@")[0].isascii() for spec in specs)


def _both(message: EmailMessage, name: str) -> list[object]:
    return [*_values(message, name), *_values(message, f"Resent-{name}")]


def serialize(message: EmailMessage, international: bool = False, eight_bit: bool = False) -> bytes:
    """The bytes of a message, with CR LF at line ends and without Bcc; the message itself stays as it is.

    `international`: its header may be in UTF-8. `eight_bit`: its bodies may have bytes above 127. What has them
    otherwise is encoded anew, and so is binary content, which has no lines. Raises LocalProtocolError for a header that
    would become two.
    """
    message = copy.copy(message)
    del message["Bcc"], message["Resent-Bcc"]
    data = io.BytesIO()
    try:
        if not international:
            message = _with_ascii_domains(message)
        policy = _policy_for(message, international, eight_bit)
        message = _without_bytes(message, seven_bit=policy.cte_type == "7bit")
        BytesGenerator(data, mangle_from_=False, policy=policy).flatten(message)
    except DAMAGED as exc:
        raise LocalProtocolError(f"the message cannot be encoded: {exc}") from exc
    return data.getvalue()


def _policy_for(message: EmailMessage, international: bool, eight_bit: bool) -> EmailPolicy[Any]:
    """How to write the message. Where bodies may have bytes above 127, `email` leaves them in headers, too.

    Refuses a header that would be written as two: `email` does not look at all of them (CVE-2024-6923).
    """
    base = message.policy if isinstance(message.policy, EmailPolicy) else email.policy.default
    policy = base.clone(linesep="\r\n", utf8=international, cte_type="8bit" if eight_bit else "7bit")
    is_ascii = True
    for part in message.walk():
        for name, value in part.raw_items():
            header = policy.fold_binary(name, value)
            if _find_second(header):
                raise LocalProtocolError(f"the header {name!a} holds a line end, and would become two")
            is_ascii = is_ascii and header.isascii()
    return policy if is_ascii or international or not eight_bit else _policy_for(message, False, False)


def _with_ascii_domains(message: EmailMessage) -> EmailMessage:
    """The message with A-labels in its addresses (RFC 5890), for who knows no SMTPUTF8."""
    if not any(_has_foreign_domain(value) for name in _ADDRESS_HEADERS for value in _both(message, name)):
        return message
    items = list(message.raw_items())
    for name, _ in items:
        del message[name]
    for name, raw in items:
        value: object = message.policy.header_fetch_parse(name, raw)
        if isinstance(value, AddressHeader) and _has_foreign_domain(value):
            raw = email.policy.default.header_factory(name, _with_ascii_domain(value))
        message.set_raw(name, raw)  # what came twice stays so
    return message


def _has_foreign_domain(value: object) -> bool:
    return isinstance(value, AddressHeader) and not all(address.domain.isascii() for address in value.addresses)


def _with_ascii_domain(value: AddressHeader) -> tuple[Group, ...]:
    try:
        return tuple(
            Group(
                group.display_name,
                [
                    Address(address.display_name, address.username, ascii_domain(parse_domain(address.domain)))
                    for address in group.addresses
                ],
            )
            for group in value.groups
        )
    except ValueError as exc:
        raise LocalProtocolError(f"a domain in the header cannot be encoded: {exc}") from exc


def _without_bytes(message: EmailMessage, *, seven_bit: bool) -> EmailMessage:
    """The message with base64 in the place of what is no text, where `email` would change it, or fail."""
    if not any(_is_binary(part) or (seven_bit and _has_bytes(part)) for part in message.walk()):
        return message
    message = copy.deepcopy(message)
    for part in message.walk():
        if part.is_multipart() and _is_binary(part):
            del part["Content-Transfer-Encoding"]
            part["Content-Transfer-Encoding"] = "8bit"
        elif _is_binary(part) or (seven_bit and _has_bytes(part)):
            del part["Content-Transfer-Encoding"]
            content = cast("bytes | None", part.get_payload(decode=True)) or b""
            part["Content-Transfer-Encoding"] = "base64"
            part.set_payload(base64.encodebytes(content).decode("ascii"))
    if "MIME-Version" not in message:
        message["MIME-Version"] = "1.0"
    return message


def _is_binary(part: EmailMessage) -> bool:
    """RFC 3030: it has no lines, and its line ends are bytes like others."""
    return str(part.get("Content-Transfer-Encoding", "")).strip().lower() == "binary"


def _has_bytes(part: EmailMessage) -> bool:
    """Whether it has bytes above 127 of no charset, in which `email` could encode them."""
    content = part.get_payload()
    if not isinstance(content, str) or content.isascii():
        return False
    return part.get_content_maintype() != "text" or part.get_param("charset") is None
