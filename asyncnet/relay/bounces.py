"""What a sender is told of a message's fate: delivery status notifications. RFC 3464, RFC 3461, RFC 6533. No I/O.

    multipart/report
      text/plain                what has happened, for people
      message/delivery-status   the same, for programs
      text/rfc822-headers       what the message was, or all of it as message/rfc822

What could go wrong, and why it does not:

- *A storm*: reports about reports. A report has no sender, and about a message without a sender there is none; others'
  programs see by `Auto-Submitted` that no person has written it (RFC 3834).
- *Backscatter*: whoever sends in somebody else's name has us carry their words to that person. Only headers go back,
  unless the sender asks for more, and of those not many.
- *Words of others*: what a host has said stands in a report as one line of printable characters.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import formatdate

from asyncnet.smtp.address import MailAddress, ascii_domain
from asyncnet.smtp.content import with_line_ends
from asyncnet.smtp.envelope import Body, Envelope, Notify, Recipient, Returned
from asyncnet.smtp.xtext import encode_unitext

MAX_HEADERS = 64 * 1024
"""How much of a message's headers goes back, in bytes."""

MAX_WHOLE = 1 << 20
"""How long a message may be that goes back whole, in bytes, where its sender has asked for that."""

_WIDTH = 76


class Action(enum.Enum):
    """What has become of a message for one recipient: RFC 3464 section 2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    """It went on to a host that sends no notifications of success."""


@dataclass(frozen=True, slots=True)
class Fate:
    """One recipient of a report."""

    recipient: Recipient
    action: Action
    status: str
    """The code of RFC 3463, such as "5.1.1"."""
    text: str = ""
    """What to tell people: a reply of the other host, or our own words."""
    host: str | None = None
    """The host that said so; None: we did."""
    attempted: float | None = None
    """When it was tried last, in seconds since 1970."""
    retried_until: float | None = None
    """Until when it will be tried again; only of what is delayed."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The message that a report is about."""

    envelope: Envelope
    arrived: float
    """In seconds since 1970."""
    content: bytes = field(repr=False)
    """What goes back of it, as `returned_part` says: its headers, or all of it."""
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """A message to the sender of another one."""

    envelope: Envelope
    recipient: Recipient
    content: bytes = field(repr=False)


def is_wanted(envelope: Envelope, recipient: Recipient, action: Action) -> bool:
    """Whether the sender is to hear of this: RFC 3461 sections 4.1 and 5.2. Delays are told unless refused."""
    if envelope.sender is None:
        return False
    match action:
        case Action.FAILED:
            return not recipient.notify or Notify.FAILURE in recipient.notify
        case Action.DELAYED:
            return not recipient.notify or Notify.DELAY in recipient.notify
        case Action.DELIVERED | Action.RELAYED:
            return Notify.SUCCESS in recipient.notify


def returned_part(envelope: Envelope, size: int, fates: Sequence[Fate]) -> Returned:
    """How much of a message of `size` bytes goes back. All of it only if asked for, and if it has failed."""
    failed = any(fate.action is Action.FAILED for fate in fates)
    is_whole = envelope.returned is Returned.FULL and failed and size <= MAX_WHOLE and envelope.body is not Body.BINARY
    return Returned.FULL if is_whole else Returned.HEADERS


def make_report(subject: Subject, fates: Sequence[Fate], *, host: str, now: float, token: str) -> Report:
    """The report about `subject` to its sender, which has to have one; about those of `fates` who are all its concern.

    `host` is our name, `now` the time in seconds since 1970, `token` some 20 random letters and digits: the report is
    known by them, and its parts are held apart.
    """
    sender = subject.envelope.sender
    assert sender is not None, "is_wanted tells"
    writer = _Writer(subject, fates, host, now, token)
    is_ascii = writer.content.isascii()
    envelope = Envelope(
        None,
        Body.SEVEN_BIT if is_ascii else Body.EIGHT_BIT,
        international=writer.is_international,
        size=len(writer.content),
    )
    return Report(envelope, Recipient(sender), writer.content)


class _Writer:
    """Puts a report together: `content` is all of it."""

    def __init__(self, subject: Subject, fates: Sequence[Fate], host: str, now: float, token: str) -> None:
        self._subject = subject
        self._fates = fates
        self._host = ascii_domain(host)
        self._now = now
        addresses = [self._sender, *(fate.recipient.address for fate in fates)]
        self.is_international = any(address.is_international for address in addresses) or (
            subject.envelope.international and not subject.content.isascii()
        )
        beyond_ascii = not subject.content.isascii() or any(not _explained(fate).isascii() for fate in fates)
        self._is_eight_bit = self.is_international or beyond_ascii
        self._boundary = f"=_{token}"
        parts = [self._words(), self._status(), self._returned()]
        self.content = b"\r\n".join(
            (
                self._headers(token).encode(),
                *(b"--%b\r\n%b" % (self._boundary.encode(), part) for part in parts),
                f"--{self._boundary}--\r\n".encode(),
            )
        )

    @property
    def _sender(self) -> MailAddress:
        assert self._subject.envelope.sender is not None, "there is somebody to tell"
        return self._subject.envelope.sender

    @property
    def _actions(self) -> set[Action]:
        return {fate.action for fate in self._fates}

    def _headers(self, token: str) -> str:
        return _lines(
            f"From: Mail Delivery System <MAILER-DAEMON@{self._host}>",
            f"To: <{self._sender}>",
            f"Subject: {self._title()}",
            f"Date: {formatdate(self._now)}",
            f"Message-ID: <{token}@{self._host}>",
            *self._references(),
            "Auto-Submitted: auto-replied",
            "MIME-Version: 1.0",
            f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{self._boundary}"',
            *(("Content-Transfer-Encoding: 8bit",) if self._is_eight_bit else ()),
        )

    def _title(self) -> str:
        if Action.FAILED in self._actions:
            return "Undelivered mail"
        return "Delayed mail: no need to send it again" if Action.DELAYED in self._actions else "Delivered mail"

    def _references(self) -> list[str]:
        """RFC 3834 section 3.1.5: a program that files mail finds what it belongs to."""
        found = _find_message_id(headers_of(self._subject.content))
        return [f"{name}: {found[1].decode()}" for name in ("In-Reply-To", "References")] if found else []

    def _words(self) -> bytes:
        said = [f"This is the mail system at {self._host}.", ""]
        for action, words in _WORDS.items():
            concerned = [fate for fate in self._fates if fate.action is action]
            if concerned:
                said += [*words, ""]
                for fate in concerned:
                    said += [*_folded(f"<{fate.recipient.address}>: {_explained(fate)}", "    "), ""]
        encoding = ("Content-Transfer-Encoding: 8bit",) if self._is_eight_bit else ()
        head = _lines("Content-Type: text/plain; charset=utf-8", *encoding, "Content-Description: Notification")
        return f"{head}\r\n{_lines(*said[:-1])}".encode(errors="replace")

    def _status(self) -> bytes:
        about = [f"Reporting-MTA: dns; {self._host}", f"Arrival-Date: {formatdate(self._subject.arrived)}"]
        if self._subject.envelope.envelope_id:
            about.insert(0, f"Original-Envelope-Id: {self._subject.envelope.envelope_id}")
        subtype = "global-delivery-status" if self.is_international else "delivery-status"
        encoding = ("Content-Transfer-Encoding: 8bit",) if self.is_international else ()
        head = _lines(f"Content-Type: message/{subtype}", *encoding, "Content-Description: Delivery report")
        groups = (_lines(*about), *(_lines(*self._fields(fate)) for fate in self._fates))
        return f"{head}\r\n{(chr(13) + chr(10)).join(groups)}".encode(errors="replace")

    def _fields(self, fate: Fate) -> list[str]:
        """RFC 3464 section 2.3."""
        address = fate.recipient.address
        fields = [*([f"Original-Recipient: {self._original(fate)}"] if fate.recipient.original else [])]
        fields.append(f"Final-Recipient: {'utf-8' if address.is_international else 'rfc822'}; {address}")
        fields += [f"Action: {fate.action.value}", f"Status: {fate.status}"]
        if fate.host is not None:
            fields.append(f"Remote-MTA: dns; {_printable(fate.host, ascii_only=True)}")
        if fate.text:
            kind = "smtp" if fate.host is not None else "x-asyncnet"
            text = _printable(fate.text, ascii_only=not self.is_international)
            fields += ["\r\n".join(_folded(f"Diagnostic-Code: {kind}; {text}", " "))]
        if fate.attempted is not None:
            fields.append(f"Last-Attempt-Date: {formatdate(fate.attempted)}")
        if fate.retried_until is not None:
            fields.append(f"Will-Retry-Until: {formatdate(fate.retried_until)}")
        return fields

    def _original(self, fate: Fate) -> str:
        kind, _, address = (fate.recipient.original or "").partition(";")
        if kind.lower() == "utf-8" and not self.is_international:
            address = encode_unitext(address, international=False)
        return f"{kind}; {address}"

    def _returned(self) -> bytes:
        if self._subject.is_whole:
            kind, said = f"message/{'global' if self.is_international else 'rfc822'}", "Message"
        else:
            kind, said = "message/global-headers" if self.is_international else "text/rfc822-headers", "Message headers"
        encoding = ("Content-Transfer-Encoding: 8bit",) if not self._subject.content.isascii() else ()
        head = _lines(f"Content-Type: {kind}", *encoding, f"Content-Description: {said}")
        content = self._subject.content if self._subject.is_whole else headers_of(self._subject.content)
        content = with_line_ends(content)  # of a message that was BINARYMIME, which a report is not
        return b"%b\r\n%b%b" % (head.encode(), content, b"" if content.endswith(b"\r\n") else b"\r\n")


_find_message_id = re.compile(rb"^message-id:[ \t\r\n]*(<[!-;=?-~]{1,900}>)", re.IGNORECASE | re.MULTILINE).search


def headers_of(content: bytes) -> bytes:
    """The headers of a message that begins with `content`, with the line end of the last; whole lines, not too many."""
    end = content.find(b"\r\n\r\n", 0, MAX_HEADERS)
    if content.startswith(b"\r\n"):
        return b""
    return content[: end + 2] if end >= 0 else content[: content.rfind(b"\r\n", 0, MAX_HEADERS) + 2]


_WORDS = {
    Action.FAILED: (
        "The message that is described below could not be delivered to these recipients,",
        "and will not be tried again:",
    ),
    Action.DELAYED: (
        "The message that is described below has not been delivered to these recipients yet.",
        "It will be tried again; you need not do anything:",
    ),
    Action.DELIVERED: ("The message that is described below was delivered to these recipients:",),
    Action.RELAYED: (
        "The message that is described below was passed on for these recipients, to a host",
        "that sends no notifications of success:",
    ),
}


def _explained(fate: Fate) -> str:
    text = _printable(fate.text, ascii_only=False) or fate.status
    return f"host {_printable(fate.host, ascii_only=True)} said: {text}" if fate.host is not None else text


def _printable(text: str, *, ascii_only: bool) -> str:
    """One line without control characters; with `ascii_only` others are question marks."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() and (letter.isascii() or not ascii_only) else "?" for letter in line)


def _folded(text: str, indent: str) -> list[str]:
    """Lines of at most `_WIDTH` characters where there are spaces, of at most 400 elsewhere; others are indented."""
    lines: list[str] = []
    while text:
        prefix = indent if lines else ""
        room = _WIDTH - len(prefix)
        cut = len(text) if len(text) <= room else text.rfind(" ", 1, room + 1)
        if cut <= 0:
            cut = text.find(" ", room)
            cut = min(cut if cut > 0 else len(text), 400)
        lines.append(prefix + text[:cut])
        text = text[cut:].lstrip(" ")
    return lines


def _lines(*lines: str) -> str:
    return "".join(f"{line}\r\n" for line in lines)
