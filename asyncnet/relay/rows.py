"""Messages and recipients as rows of the database, and back. No I/O.

What is asked for in queries has columns of its own; the rest of an envelope is JSON, which holds any string that Python
can (a client may have called itself anything).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import NoneType
from typing import Any

from asyncnet.auth.identity import Identity
from asyncnet.relay.messages import Arrival, QueuedMessage, QueuedRecipient, State
from asyncnet.replies import Reply
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.delivery import Client, Role
from asyncnet.smtp.envelope import Body, Envelope, Notify, Recipient, Returned
from asyncnet.transports.address import NOWHERE, Address

NONSENSE = (ValueError, TypeError, LookupError, AttributeError)
"""What `message_of` and `recipient_of` raise for rows that nobody can have written: the disk has."""

UNREADABLE = "its row in the database makes no sense"
"""Why a message with such a row is set aside."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


def message_row(message: QueuedMessage) -> dict[str, object]:
    """The row of the table `messages`."""
    sender = message.envelope.sender
    return {
        "key": message.key,
        "sender_local": None if sender is None else sender.local,
        "sender_domain": None if sender is None else sender.domain,
        "envelope": _encode_envelope(message.envelope),
        "client": _encode_client(message.client),
        "arrived": message.arrived,
        "expires": message.expires,
        "size": message.size,
        "checksum": message.checksum,
        "in_file": message.in_file,
        "held": message.held,
        "damage": message.damage,
    }


def message_of(row: Mapping[Any, Any]) -> QueuedMessage:
    """The message that has this row."""
    _check(row, arrived=(int, float), expires=(int, float), size=(int,), checksum=(str,))
    local = row["sender_local"]
    sender = None if local is None else MailAddress(local, row["sender_domain"])
    return QueuedMessage(
        key=row["key"],
        envelope=_decode_envelope(row["envelope"], sender),
        client=_decode_client(row["client"]),
        arrived=row["arrived"],
        expires=row["expires"],
        size=row["size"],
        checksum=row["checksum"],
        in_file=row["in_file"],
        held=row["held"],
        damage=row["damage"],
    )


def stand_in(row: Mapping[Any, Any]) -> QueuedMessage:
    """What can be told of a message whose row makes no sense."""
    return QueuedMessage(row["key"], Envelope(None), Client(NOWHERE, ""), 0, 0, 0, "", False, damage=UNREADABLE)


def _encode_envelope(envelope: Envelope) -> str:
    returned = envelope.returned and envelope.returned.value
    return _encode([envelope.body.value, envelope.international, envelope.size, returned, envelope.envelope_id])


def _decode_envelope(text: str, sender: MailAddress | None) -> Envelope:
    body, international, size, returned, envelope_id = json.loads(text)
    return Envelope(sender, Body(body), international, size, returned and Returned(returned), envelope_id)


def _encode_client(client: Client) -> str:
    peer = client.peer
    return _encode(
        {
            "peer": [peer.host, peer.port, peer.scope, peer.path, peer.uid],
            "name": client.name,
            "role": client.role.value,
            "protocol": client.protocol,
            "identity": client.identity and client.identity.name,
            "secure": client.secure,
        }
    )


def _decode_client(text: str) -> Client:
    facts = json.loads(text)
    identity = facts["identity"]
    return Client(
        Address(*facts["peer"]),
        facts["name"],
        Role(facts["role"]),
        facts["protocol"],
        None if identity is None else Identity(identity),
        facts["secure"],
    )


def recipient_rows(arrival: Arrival) -> list[dict[str, object]]:
    """The rows of the table `recipients` of a message that comes in."""
    return [_recipient_row(arrival.message.key, recipient) for recipient in arrival.recipients]


def _recipient_row(key: int, queued: QueuedRecipient) -> dict[str, object]:
    recipient = queued.recipient
    return {
        "message": key,
        "position": queued.position,
        "local": recipient.address.local,
        "domain": recipient.address.domain,
        "notify": ",".join(sorted(one.value for one in recipient.notify)),
        "original": encode_text(recipient.original),
        "destination": queued.destination,
        "state": queued.state.value,
        "attempts": queued.attempts,
        "next_attempt": queued.next_attempt,
        "last_attempt": queued.last_attempt,
        "reply": None if queued.reply is None else encode_reply(queued.reply),
        "remote": encode_text(queued.remote),
        "warned": queued.warned,
    }


def recipient_of(row: Mapping[Any, Any]) -> QueuedRecipient:
    """The recipient who has this row."""
    time = (int, float, NoneType)
    _check(row, position=(int,), attempts=(int,), next_attempt=time, last_attempt=time, local=(str,), domain=(str,))
    recipient = Recipient(
        MailAddress(row["local"], row["domain"]),
        frozenset(Notify(value) for value in row["notify"].split(",") if value),
        _decode_text(row["original"]),
    )
    reply = row["reply"]
    return QueuedRecipient(
        position=row["position"],
        recipient=recipient,
        destination=row["destination"],
        state=State(row["state"]),
        attempts=row["attempts"],
        next_attempt=row["next_attempt"],
        last_attempt=row["last_attempt"],
        reply=None if reply is None else _decode_reply(reply),
        remote=_decode_text(row["remote"]),
        warned=row["warned"],
    )


def _check(row: Mapping[Any, Any], **kinds: tuple[type, ...]) -> None:
    """Refuse values that no row of ours has: there may be any bytes in a text, and anything in any column."""
    for name, kind in kinds.items():
        if not isinstance(row[name], kind):
            raise TypeError(f"{name} is {row[name]!r}")
    for name, value in row.items():
        if isinstance(value, str) and not is_utf8(value):
            raise ValueError(f"{name} is no text: {value!r}")


def is_utf8(text: str) -> bool:
    """Whether a text from the database was text there: see `database`."""
    return text.isascii() or all(not "\ud800" <= letter <= "\udfff" for letter in text)


def encode_text(text: str | None) -> str | None:
    """A column of text that a peer has chosen."""
    return None if text is None else _encode(text)


def _decode_text(text: str | None) -> str | None:
    found: str | None = None if text is None else json.loads(text)
    return found


def encode_reply(reply: Reply) -> str:
    """The column `reply`."""
    return _encode([reply.code, *reply.lines])


def _decode_reply(text: str) -> Reply:
    code, *lines = json.loads(text)
    return Reply(code, tuple(lines))
