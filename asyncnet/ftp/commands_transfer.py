"""The commands that move data, and those that say how: RFC 959 sections 4.1.2 and 4.1.3, RFC 2428, RFC 3659."""

from __future__ import annotations

import errno
import fnmatch
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import trio

from asyncnet.bulk import SMALL_FILE
from asyncnet.errors import RemoteProtocolError
from asyncnet.ftp import listing
from asyncnet.ftp.commands_files import perm
from asyncnet.ftp.control import Control
from asyncnet.ftp.data import Active, Passive
from asyncnet.ftp.declarations import Argument, Permission, command
from asyncnet.ftp.events import Listener, Moved
from asyncnet.ftp.storage import Entry, Path, Upload
from asyncnet.ftp.transfer import Transfer, place_of, receive_content, send_content, send_lines
from asyncnet.ftp.wire import (
    UnknownNetworkProtocol,
    format_port,
    parse_extended_port,
    parse_port,
    show,
)
from asyncnet.replies import Reply
from asyncnet.stream import Stream

# How


@command("TYPE", argument=Argument.REQUIRED, help="I | A | L 8")
async def representation(control: Control, argument: str) -> Reply:
    match re.sub(r"\s+", " ", argument.upper().strip()):
        case "I" | "L8" | "L 8":
            control.session.is_ascii = False
            return Reply.of(200, "Bytes as they are.")
        case "A" | "A N":
            control.session.is_ascii = True
            return Reply.of(200, "Lines that end with CR LF.")
    return Reply.of(504, "TYPE takes I or A.")


@command("MODE", argument=Argument.REQUIRED, help="S")
async def mode(control: Control, argument: str) -> Reply:
    return Reply.of(200, "A stream.") if argument.upper() == "S" else Reply.of(504, "MODE takes S alone.")


@command("STRU", argument=Argument.REQUIRED, help="F")
async def structure(control: Control, argument: str) -> Reply:
    return Reply.of(200, "Files.") if argument.upper() == "F" else Reply.of(504, "STRU takes F alone.")


@command("REST", argument=Argument.REQUIRED, help="offset", feature="REST STREAM")
async def restart(control: Control, argument: str) -> Reply:
    if not re.fullmatch("[0-9]{1,18}", argument):
        return Reply.of(501, "REST takes a number of bytes.")
    control.session.offset = int(argument)
    return Reply.of(350, f"The next transfer begins at {argument}.")


@command("PASV", argument=Argument.NONE, help="(the client connects, by IPv4)")
async def passive(control: Control, argument: str) -> Reply:
    host = control.stream.hop[0].host
    if host is None:
        return Reply.of(425, "There is no network here.")
    if ":" in host and control.server.masquerade is None:
        return Reply.of(425, "This connection has no IPv4 address: EPSV is for it.")
    source = await _listen(control)
    return Reply.of(227, f"Entering Passive Mode ({format_port(control.server.masquerade or host, source.port)}).")


@command("EPSV", argument=Argument.OPTIONAL, help="[1 | 2 | ALL]", feature="EPSV")
async def extended_passive(control: Control, argument: str) -> Reply:
    if argument.upper() == "ALL":
        control.session.only_extended_passive = True
        return Reply.of(200, "From now on EPSV alone.")
    host = control.stream.hop[0].host
    if host is None:
        return Reply.of(425, "There is no network here.")
    own = "2" if ":" in host else "1"
    if argument not in ("", own):
        return Reply.of(522, f"Network protocol not supported, use ({own}).")
    source = await _listen(control)
    return Reply.of(229, f"Entering Extended Passive Mode (|||{source.port}|).")


async def _listen(control: Control) -> Passive:
    """Where the next data connection comes from. Raises OSError with EAGAIN if no port is free: reply 451."""
    control.drop_source()
    try:
        source = Passive(control.stream, control.server.passive_ports)
    except OSError as exc:
        raise OSError(errno.EAGAIN, f"no passive port: {exc.strerror}") from exc
    control.source = source
    return source


@command("PORT", argument=Argument.REQUIRED, help="h1,h2,h3,h4,p1,p2")
async def port(control: Control, argument: str) -> Reply:
    return await _go_active(control, *parse_port(argument))


@command("EPRT", argument=Argument.REQUIRED, help="|1|address|port| or |2|address|port|", feature="EPRT")
async def extended_port(control: Control, argument: str) -> Reply:
    try:
        host, number = parse_extended_port(argument)
    except UnknownNetworkProtocol:
        return Reply.of(522, "Network protocol not supported, use (1,2).")
    return await _go_active(control, host, number)


LOWEST_PORT = 1024
"""Below it services listen that an attacker would have us talk to (RFC 2577 section 3)."""


async def _go_active(control: Control, host: str, port: int) -> Reply:
    control.drop_source()
    if not control.server.active:
        return Reply.of(502, "Data connections are passive here: EPSV or PASV.")
    peer = control.stream.hop[1].host
    if host != peer or port < LOWEST_PORT:
        return Reply.of(500, f"Only this connection's own address will do, and a port from {LOWEST_PORT} on.")
    control.source = Active(control.stream, port)
    return Reply.of(200, "The next data connection goes there.")


@command("ABOR", argument=Argument.NONE, help="(end the transfer)", before_login=True)
async def abort(control: Control, argument: str) -> Reply:
    control.drop_source()
    return Reply.of(225, "No transfer is running.")


# Files


@command("RETR", argument=Argument.REQUIRED, permission=Permission.READ, help="path", is_transfer=True)
async def retrieve(control: Control, argument: str) -> Reply:
    path, offset, is_ascii = control.resolve(argument), control.session.offset, control.session.is_ascii
    download = await control.files.open(path)
    try:
        size = download.status.size
        if offset > size and not is_ascii:
            return Reply.of(554, f"The file has {size} bytes.")

        async def send(data: Stream, transfer: Transfer) -> str:
            await send_content(data, download, offset, is_ascii=is_ascii, report=transfer.advance)
            await data.deliver()
            transfer.is_settled = True
            await _tell_moved(control, transfer, control.server.events.on_retrieved)
            return f"{transfer.moved} bytes were sent."

        # Clients take the number in parentheses for the size. In TYPE A nobody knows it without reading the file.
        size_told = "" if is_ascii else f" ({size - offset} bytes)"
        opening = f"{'Lines' if is_ascii else 'Bytes'} of {_for_people(argument)} follow{size_told}."
        return await control.run_transfer("RETR", path, opening, send, is_short=size - offset <= SMALL_FILE)
    finally:
        await download.aclose()


def _for_people(argument: str) -> str:
    """A path in a reply, without what clients look for in it."""
    return re.sub(r"[()]", "_", argument)


@command("STOR", argument=Argument.REQUIRED, permission=Permission.WRITE, help="path", is_transfer=True)
async def store(control: Control, argument: str) -> Reply:
    path, offset = control.resolve(argument), control.session.offset
    if offset and not control.may(Permission.APPEND):
        return Reply.of(550, "Permission denied: an upload that resumes needs the permission to append.")
    if offset and control.session.is_ascii:
        place = await _place_in_lines(control, path, offset)
        if place is None:
            return Reply.of(554, "No line of TYPE A begins or goes on there.")
        offset = place
    try:
        upload = await control.files.store(path, offset=offset)
    except OSError as exc:
        if offset and exc.errno == errno.EINVAL:
            return Reply.of(554, "There are not so many bytes to go on behind.")
        raise
    return await _receive(control, "STOR", path, upload)


async def _place_in_lines(control: Control, path: Path, offset: int) -> int | None:
    download = await control.files.open(path)
    try:
        return await place_of(download, offset)
    finally:
        await download.aclose()


@command("APPE", argument=Argument.REQUIRED, permission=Permission.APPEND, help="path", is_transfer=True)
async def append(control: Control, argument: str) -> Reply:
    path = control.resolve(argument)
    return await _receive(control, "APPE", path, await control.files.store(path, offset=None))


@command("STOU", argument=Argument.OPTIONAL, permission=Permission.WRITE, help="[path]", is_transfer=True)
async def store_unique(control: Control, argument: str) -> Reply:
    path = control.resolve(argument)
    folder, stem = (path[:-1], path[-1]) if argument and path else (control.session.folder, "file")
    for attempt in range(10):
        name = stem if argument and not attempt else f"{_cut(stem)}.{secrets.token_hex(8)}"
        try:
            upload = await control.files.store((*folder, name), exclusive=True)
        except FileExistsError:
            continue
        # RFC 1123 section 4.1.2.9 says how the name is told.
        return await _receive(control, "STOU", (*folder, name), upload, opening=f"FILE: {listing.sayable(name)}")
    return Reply.of(450, "No name is free.")


def _cut(name: str) -> str:
    """So much of a name that there is room for more behind it: file systems count bytes."""
    return name.encode("utf-8", "surrogateescape")[:200].decode("utf-8", "surrogateescape")


async def _receive(control: Control, verb: str, path: Path, upload: Upload, *, opening: str = "") -> Reply:
    """Receive the rest of `upload`, and have it take its name if all of it has come."""
    allocated, is_ascii = control.session.allocated, control.session.is_ascii
    is_over = False

    async def receive(data: Stream, transfer: Transfer) -> str:
        nonlocal is_over
        await receive_content(
            data, upload, is_ascii=is_ascii, report=transfer.advance, timeout=control.server.ftp_timeouts.data
        )
        if allocated is not None and transfer.moved < allocated:
            raise RemoteProtocolError(
                f"Only {transfer.moved} of the {allocated} bytes have come that ALLO has promised"
            )
        control.check_client_is_there()
        await data.aclose()
        await trio.lowlevel.checkpoint_if_cancelled()
        is_over = transfer.is_settled = True
        await upload.commit()
        await _tell_moved(control, transfer, control.server.events.on_stored)
        return f"{transfer.moved} bytes were stored."

    try:
        return await control.run_transfer(verb, path, opening or "Ready for it.", receive)
    finally:
        if not is_over:
            with trio.CancelScope(shield=True):  # it waits for a disk alone
                await upload.abandon(keep=True)


async def _tell_moved(control: Control, transfer: Transfer, listener: Listener[Moved] | None) -> None:
    if listener is not None:
        seconds = trio.current_time() - transfer.started
        event = Moved(control.user, control.stream.peer, transfer.path, transfer.moved, seconds, control.files)
        await listener(event)


# Listings


@command("LIST", argument=Argument.OPTIONAL, permission=Permission.LIST, help="[path]", is_transfer=True)
async def list_long(control: Control, argument: str) -> Reply:
    now = time.time()
    return await _list(control, "LIST", argument, lambda entry, prefix: listing.long_line(entry, now))


@command("NLST", argument=Argument.OPTIONAL, permission=Permission.LIST, help="[path]", is_transfer=True)
async def list_names(control: Control, argument: str) -> Reply:
    return await _list(control, "NLST", argument, lambda entry, prefix: listing.name_line(f"{prefix}{entry.name}"))


@command("MLSD", argument=Argument.OPTIONAL, permission=Permission.LIST, help="[path]", is_transfer=True)
async def list_facts(control: Control, argument: str) -> Reply:
    path, wanted = control.resolve(argument), control.session.facts
    if not (await control.files.stat(path)).is_folder:
        return Reply.of(501, "MLSD is for folders: MLST tells of a file.")
    folder_perm, file_perm = _perms(control)

    async def lines() -> AsyncGenerator[list[bytes], None]:
        async with aclosing(control.files.scan(path)) as batches:
            async for batch in batches:
                yield [
                    listing.fact_line(entry, wanted, folder_perm if entry.status.is_folder else file_perm)
                    for entry in batch
                ]

    return await _send_listing(control, "MLSD", path, lines())


def _perms(control: Control) -> tuple[str, str]:
    """The fact `perm` of folders and of files: the same for all of them."""
    return perm(control, is_folder=True), perm(control, is_folder=False)


async def _list(control: Control, verb: str, argument: str, line: Callable[[Entry, str], bytes]) -> Reply:
    """LIST and NLST: of a folder, of one file, or of what matches a pattern in the last part of the path.

    `line` makes one of an entry and of what stands before its name in the argument.
    """
    argument = re.sub(r"^(-[A-Za-z0-9]+( +|$))+", "", argument)  # the options of `ls`, which clients send
    path = control.resolve(argument)
    try:
        status = await control.files.stat(path)
    except FileNotFoundError:
        if not path or not re.search(r"[*?\[]", path[-1]):
            raise
        folder, pattern, prefix = path[:-1], path[-1], argument[: argument.rfind("/") + 1]
        if not (await control.files.stat(folder)).is_folder:
            raise
    else:
        if not status.is_folder:
            entry = Entry(argument, status)
            return await _send_listing(control, verb, path, _once([line(entry, "")]))
        folder, pattern, prefix = path, "*", argument and argument.rstrip("/") + "/"

    async def lines() -> AsyncGenerator[list[bytes], None]:
        async with aclosing(control.files.scan(folder)) as batches:
            async for batch in batches:
                if pattern != "*":
                    batch = [entry for entry in batch if fnmatch.fnmatchcase(entry.name, pattern)]
                yield [line(entry, prefix) for entry in batch]

    return await _send_listing(control, verb, path, lines())


async def _once(lines: list[bytes]) -> AsyncGenerator[list[bytes], None]:
    yield lines


async def _send_listing(control: Control, verb: str, path: Path, batches: AsyncGenerator[list[bytes], None]) -> Reply:
    async def send(data: Stream, transfer: Transfer) -> str:
        await send_lines(data, batches, transfer.advance)
        await data.deliver()
        await data.aclose()
        return "That is all."

    async with aclosing(batches):
        return await control.run_transfer(
            verb, path, f"The list of {_for_people(show(path))} follows.", send, is_short=True
        )
