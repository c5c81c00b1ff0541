"""What `asyncnet queue` does. What peers have chosen (addresses, names, replies) is escaped where it is not JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from itertools import islice

from asyncnet.cli.descriptors import write_all
from asyncnet.cli.progress import print_line
from asyncnet.errors import ConfigurationError
from asyncnet.printable import printable
from asyncnet.relay.admin import AT_ONCE, Listed, QueueAdmin, Selection, open_admin
from asyncnet.relay.messages import QueuedMessage, QueuedRecipient, State, format_id, parse_id

BATCH = 32 * 1024
"""How much is gathered before it is printed, in characters."""


class _OutputFailed(Exception):
    """Standard output takes nothing more, which is no fault of the queue's."""


def run(args: argparse.Namespace) -> int:
    """Do what the arguments say. Returns the exit status."""
    if sys.stdout is None:
        raise ConfigurationError("standard output is closed")
    selection = _selection(args)
    try:
        with open_admin(args.spool) as queue:
            if args.action in ("list", "show"):
                return _tell(queue, selection, args)
            return _change(queue, selection, args)
    except BrokenPipeError:
        return 0  # whoever reads our output has enough
    except _OutputFailed as error:
        print_line(f"asyncnet queue: standard output: {error}")
        return 1
    except OSError as error:
        raise ConfigurationError(f"{args.spool}: {error.strerror}") from error


def _selection(args: argparse.Namespace) -> Selection:
    """Which messages are meant."""
    ids, everything, destination = getattr(args, "ids", []), getattr(args, "all", False), getattr(args, "to", None)
    if args.action == "list":
        return Selection(destination=destination)
    if bool(ids) + everything + (destination is not None) != 1:
        choice = "ID ..." if args.action == "show" else "ID ..., --to DOMAIN or --all"
        raise ConfigurationError(f"which messages? {args.action} takes {choice}")
    try:
        keys = [parse_id(text) for text in ids]
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return Selection(keys if ids else None, destination)


def _tell(queue: QueueAdmin, selection: Selection, args: argparse.Namespace) -> int:
    form = _as_json if args.json else _as_line if args.action == "list" else _as_text
    missing = set(selection.keys or ())

    def lines() -> Iterable[str]:
        for listed in islice(queue.find(selection), getattr(args, "limit", None)):
            missing.discard(listed[0].key)
            yield form(listed)

    _print(lines())
    return _complain(missing)


def _change(queue: QueueAdmin, selection: Selection, args: argparse.Namespace) -> int:
    actions: dict[str, tuple[Callable[[Selection], list[int]], str, str]] = {
        "retry": (queue.retry, "to be tried now", "held: release it, and it is tried"),
        "hold": (queue.hold, "held", ""),
        "release": (queue.release, "released", ""),
        "remove": (queue.remove, "removed", ""),
    }
    action, done, why_not = actions[args.action]
    changed = action(selection)
    _print([f"{len(changed)} {'message' if len(changed) == 1 else 'messages'} {done}"])
    missing = set(selection.keys or ()).difference(changed)
    there = {message.key for message, _ in queue.find(Selection(sorted(missing)))}
    return _complain(missing - there) | (_complain(there, why_not) if why_not else 0)


def _complain(keys: set[int], problem: str = "no such message") -> int:
    for key in sorted(keys):
        print_line(f"asyncnet queue: {format_id(key)}: {problem}")
    return 1 if keys else 0


def _print(lines: Iterable[str]) -> None:
    gathered: list[str] = []
    size = 0
    for line in lines:
        gathered.append(f"{line}\n")
        size += len(line)
        if size >= BATCH:
            _write("".join(gathered))
            gathered, size = [], 0
    _write("".join(gathered))


def _write(text: str) -> None:
    try:
        write_all(1, text.encode("utf-8", "backslashreplace"))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _OutputFailed(error.strerror) from error


def _as_line(listed: Listed) -> str:
    message, recipients = listed
    pending = [recipient for recipient in recipients if recipient.state is State.PENDING]
    shown = [str(one.recipient.address) for one in pending or recipients]
    whom = f"{shown[0] if shown else '?'}{f' and {len(shown) - 1} more' if len(shown) > 1 else ''}"
    when = _state(message) or f"next {_due(_next(recipients))}"
    line = f"{message.id:<15} {message.size:>10} {_time(message.arrived)} {_sender(message)} -> {whom}; {when}"
    return printable(line)


def _as_text(listed: Listed) -> str:
    message, recipients = listed
    client, envelope = message.client, message.envelope
    whom = f" as {client.identity.name}" if client.identity else ""
    lines = [
        f"{message.id}: {_state(message) or 'in the queue'}",
        f"  from     {_sender(message)}",
        f"  content  {message.size} bytes, {envelope.body.value}{', SMTPUTF8' if envelope.international else ''}",
        f"  arrived  {_time(message.arrived)} from {client.name} ({client.peer}){whom} by {client.protocol}",
        f"  expires  {_time(message.expires)}",
    ]
    if envelope.envelope_id is not None:
        lines.append(f"  ENVID    {envelope.envelope_id}")
    for recipient in recipients:
        lines.append(f"  to       {recipient.recipient.address}: {recipient.state.value}{_plan(recipient)}")
        lines.append(f"           by {recipient.destination}")
        if recipient.reply is not None:
            lines.append(f"           {recipient.remote or 'this relay'} said: {recipient.reply}")
    return "\n".join(printable(line) for line in lines)


def _plan(recipient: QueuedRecipient) -> str:
    count = recipient.attempts
    attempts = f", {count} attempt{'' if count == 1 else 's'}" if count else ""
    when = f", next {_due(recipient.next_attempt)}" if recipient.next_attempt is not None else ""
    return f"{attempts}{when}"


def _as_json(listed: Listed) -> str:
    message, recipients = listed
    told = {
        "id": message.id,
        "sender": None if message.envelope.sender is None else str(message.envelope.sender),
        "size": message.size,
        "arrived": message.arrived,
        "expires": message.expires,
        "held": message.held,
        "damage": message.damage,
        "envelope_id": message.envelope.envelope_id,
        "client": {
            "address": str(message.client.peer),
            "name": message.client.name,
            "protocol": message.client.protocol,
            "user": message.client.identity and message.client.identity.name,
        },
        "recipients": [
            {
                "address": str(recipient.recipient.address),
                "destination": recipient.destination,
                "state": recipient.state.value,
                "attempts": recipient.attempts,
                "next_attempt": recipient.next_attempt,
                "last_attempt": recipient.last_attempt,
                "reply": None if recipient.reply is None else str(recipient.reply),
                "remote": recipient.remote,
            }
            for recipient in recipients
        ],
    }
    return json.dumps(told)


def _sender(message: QueuedMessage) -> str:
    return "<>" if message.envelope.sender is None else str(message.envelope.sender)


def _state(message: QueuedMessage) -> str:
    if message.damage is not None:
        return f"set aside: {message.damage}"
    return "held" if message.held else ""


def _next(recipients: list[QueuedRecipient]) -> float | None:
    return min((one.next_attempt for one in recipients if one.next_attempt is not None), default=None)


def _due(when: float | None) -> str:
    """When an attempt is made: never, at once, or then."""
    return "-" if when is None else "now" if when == AT_ONCE else _time(when)


def _time(when: float) -> str:
    """In UTC."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(when))
    except (OverflowError, ValueError, OSError):
        return "?"  # of a year that no calendar has
