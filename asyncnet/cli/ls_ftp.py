"""What `asyncnet ls` does: asks an FTP server, and prints entries as they come."""

from __future__ import annotations

import argparse
import json
import stat
import time
from collections.abc import Callable

import trio

from asyncnet.cli.descriptors import write_all
from asyncnet.cli.ftp_clients import FTPClients, Way
from asyncnet.cli.jobs import Job, finish, move_all
from asyncnet.cli.progress import Display, Report, shown
from asyncnet.ftp.client import FTPClient, PermanentReplyError
from asyncnet.ftp.client_listing import EntryKind, RemoteEntry
from asyncnet.ftp.url import parse_url
from asyncnet.printable import printable

BATCH = 32 * 1024
"""How much is gathered before it is printed, in characters; but never for longer than `PATIENCE`."""

PATIENCE = 0.1
"""In seconds."""

_KINDS = {EntryKind.FILE: "-", EntryKind.FOLDER: "d", EntryKind.LINK: "l", EntryKind.OTHER: "?"}


def run(args: argparse.Namespace) -> int:
    """List what the URL names. Returns the exit status."""
    url = parse_url(args.url)
    clients = FTPClients(Way(args.proxy, args.timeout, args.ca, not args.insecure, args.active))
    clients.prepare(url)
    form = as_name if args.names else as_json if args.json else as_line

    async def list_it(report: Report) -> None:
        async with clients.borrow(url) as ftp:
            await _list(ftp, url.path, form)

    async def work(screen: Display) -> int:
        job = Job(shown(args.url), "listing", list_it, onto_stdout=True, plain="ftp:// or ftpes://")
        return await move_all([job], 1, screen)

    return finish(work, clients.aclose, command="ls", quiet=True)  # a bar would stand between the lines


async def _list(ftp: FTPClient, path: str, form: Callable[[RemoteEntry], str]) -> None:
    if path and not path.endswith("/"):
        try:
            entry = await ftp.stat(path)
        except PermanentReplyError:
            pass  # the listing says what is wrong
        else:
            if entry.kind is not EntryKind.FOLDER:
                await _print([form(entry)])
                return
    lines: list[str] = []
    gathered = 0
    printed = trio.current_time()
    async with ftp.scan(path) as entries:
        async for entry in entries:
            lines.append(form(entry))
            gathered += len(lines[-1])
            if gathered >= BATCH or trio.current_time() > printed + PATIENCE:
                await _print(lines)
                lines, gathered, printed = [], 0, trio.current_time()
        await _print(lines)


async def _print(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    data = text.encode("utf-8", "backslashreplace")
    await trio.to_thread.run_sync(write_all, 1, data, abandon_on_cancel=True)


def as_name(entry: RemoteEntry) -> str:
    return printable(entry.name) + ("/" if entry.is_folder else "")


def as_line(entry: RemoteEntry) -> str:
    kind = _KINDS[entry.kind]
    mode = "---------" if entry.mode is None else stat.filemode(entry.mode)[1:]
    size = "-" if entry.size is None or entry.is_folder else str(entry.size)
    target = "" if entry.target is None else f" -> {printable(entry.target)}"
    return f"{kind}{mode} {size:>13} {_time(entry, ' ') or '-':<19} {as_name(entry)}{target}"


def as_json(entry: RemoteEntry) -> str:
    told = {
        "name": entry.name,
        "kind": entry.kind.value,
        "size": entry.size,
        "modified": _time(entry, "T", "Z"),
        "mode": None if entry.mode is None else f"{entry.mode:04o}",
        "target": entry.target,
    }
    return json.dumps({name: value for name, value in told.items() if value is not None})


def _time(entry: RemoteEntry, between: str, behind: str = "") -> str | None:
    """When the entry was changed, in UTC, as far as it is known: of LIST it is the minute at best."""
    clock = "%H:%M:%S" if entry.is_exact else "%H:%M"
    try:
        when = None if entry.modified is None else time.gmtime(entry.modified)
    except (OverflowError, ValueError, OSError):
        return None  # of a year that no calendar has
    return when and time.strftime(f"%Y-%m-%d{between}{clock}{behind}", when)
