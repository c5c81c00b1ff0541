"""The commands about files and folders that need no data connection.

RFC 959 section 4.1.3, RFC 3659 (MDTM, SIZE, MLST), draft-somers-ftp-mfxx (MFMT), draft-bryan-ftpext-hash (HASH, RANG),
and the X... spellings of RFC 775 and of other servers.
"""

from __future__ import annotations

import dataclasses
import errno
import re
import time
from contextlib import aclosing

from asyncnet.ftp import listing
from asyncnet.ftp.commands_access import facts_feature, session_status
from asyncnet.ftp.control import Control
from asyncnet.ftp.declarations import SITE_COMMANDS, Argument, Permission, command
from asyncnet.ftp.events import Changed, tell
from asyncnet.ftp.storage import Entry, HashAlgorithm, Path
from asyncnet.ftp.transfer import network_size_of
from asyncnet.ftp.wire import format_time, parse_time, quote, show
from asyncnet.replies import Reply


@command("PWD", "XPWD", argument=Argument.NONE, help="(the working folder)")
async def print_folder(control: Control, argument: str) -> Reply:
    return Reply.of(257, f"{quote(show(control.session.folder))} is the working folder.")


@command("CWD", "XCWD", argument=Argument.REQUIRED, permission=Permission.LIST, help="path")
async def change_folder(control: Control, argument: str) -> Reply:
    return await _change(control, argument)


@command("CDUP", "XCUP", argument=Argument.NONE, permission=Permission.LIST, help="(to the folder above)")
async def change_up(control: Control, argument: str) -> Reply:
    return await _change(control, "..")


async def _change(control: Control, argument: str) -> Reply:
    path = control.resolve(argument)
    if not (await control.files.stat(path)).is_folder:
        raise NotADirectoryError(errno.ENOTDIR, "no folder")
    control.session.folder = path
    return Reply.of(250, f"{quote(show(path))} is the working folder.")


@command("MKD", "XMKD", argument=Argument.REQUIRED, permission=Permission.MKDIR, help="path")
async def make_folder(control: Control, argument: str) -> Reply:
    path = control.resolve(argument)
    await control.files.make_folder(path)
    await tell(control.server.events.on_folder_made, _changed(control, path))
    return Reply.of(257, f"{quote(show(path))} is there.")


@command("RMD", "XRMD", argument=Argument.REQUIRED, permission=Permission.DELETE, help="path")
async def remove_folder(control: Control, argument: str) -> Reply:
    path = control.resolve(argument)
    await control.files.remove_folder(path)
    await tell(control.server.events.on_folder_removed, _changed(control, path))
    return Reply.of(250, "The folder is gone.")


@command("DELE", argument=Argument.REQUIRED, permission=Permission.DELETE, help="path")
async def delete(control: Control, argument: str) -> Reply:
    path = control.resolve(argument)
    await control.files.remove(path)
    control.server.log_removal(control, path)
    await tell(control.server.events.on_removed, _changed(control, path))
    return Reply.of(250, "The file is gone.")


@command("RNFR", argument=Argument.REQUIRED, permission=Permission.RENAME, help="path")
async def rename_from(control: Control, argument: str) -> Reply:
    path = control.resolve(argument)
    await control.files.stat(path)
    control.session.rename_from = path
    return Reply.of(350, "RNTO comes next.")


@command("RNTO", argument=Argument.REQUIRED, permission=Permission.RENAME, help="path")
async def rename_to(control: Control, argument: str) -> Reply:
    source, control.session.rename_from = control.session.rename_from, None
    assert source is not None, "the session has seen to it"
    target = control.resolve(argument)
    if not control.may(Permission.WRITE) and not control.may(Permission.DELETE):
        await _check_free(control, source, target)
    await control.files.rename(source, target)
    changed = dataclasses.replace(_changed(control, target), old_path=source)
    await tell(control.server.events.on_renamed, changed)
    return Reply.of(250, "It has its new name.")


async def _check_free(control: Control, source: Path, target: Path) -> None:
    """Who may neither store nor remove may not have a file replace another."""
    try:
        await control.files.stat(target)
    except FileNotFoundError:
        return
    if target != source:
        raise FileExistsError(errno.EEXIST, "the name is taken")


def _changed(control: Control, path: Path) -> Changed:
    return Changed(control.user, control.stream.peer, path, control.files)


@command("SIZE", argument=Argument.REQUIRED, permission=Permission.LIST, help="path", feature="SIZE")
async def size(control: Control, argument: str) -> Reply:
    path = control.resolve(argument)
    try:
        status = await control.files.stat(path)
    except FileNotFoundError:
        partial = None if control.session.is_ascii else await control.files.partial_size(path)
        if partial is None or not control.may(Permission.APPEND):
            raise
        return Reply.of(213, str(partial))  # where an upload that was broken off goes on (RFC 3659 section 5)
    if status.is_folder:
        return Reply.of(550, "That is a folder.")
    if not control.session.is_ascii:
        return Reply.of(213, str(status.size))
    if status.size > control.server.ftp_limits.ascii_size:
        return Reply.of(550, "The file is too large to be counted in TYPE A: TYPE I knows its size.")
    download = await control.files.open(path)
    try:
        return Reply.of(213, str(await network_size_of(download)))
    finally:
        await download.aclose()


@command("MDTM", argument=Argument.REQUIRED, permission=Permission.LIST, help="path", feature="MDTM")
async def modified(control: Control, argument: str) -> Reply:
    given, _, name = argument.partition(" ")
    if name and re.fullmatch("[0-9]{14}", given):
        # Clients of before MFMT set a time by this, unless there is a file of that name.
        try:
            status = await control.files.stat(control.resolve(argument))
        except FileNotFoundError:
            return await _set_modified(control, given, name, 253)
    else:
        status = await control.files.stat(control.resolve(argument))
    return Reply.of(213, format_time(status.modified))


@command("MFMT", argument=Argument.REQUIRED, permission=Permission.CHMOD, help="YYYYMMDDHHMMSS path", feature="MFMT")
async def set_modified(control: Control, argument: str) -> Reply:
    given, _, name = argument.partition(" ")
    if not name:
        return Reply.of(501, "MFMT takes a time and a path.")
    return await _set_modified(control, given, name, 213)


async def _set_modified(control: Control, given: str, name: str, code: int) -> Reply:
    if not control.may(Permission.CHMOD):
        return Reply.of(550, "Permission denied.")
    moment = parse_time(given)
    await control.files.set_modified(control.resolve(name), moment)
    return Reply.of(code, f"Modify={format_time(moment)}; {name}")


@command("CHMOD", argument=Argument.REQUIRED, permission=Permission.CHMOD, help="mode path", table=SITE_COMMANDS)
async def change_mode(control: Control, argument: str) -> Reply:
    match = re.fullmatch(r"0?([0-7]{3}) (.+)", argument, re.DOTALL)
    if match is None:
        return Reply.of(501, "SITE CHMOD takes three octal digits and a path.")
    await control.files.set_mode(control.resolve(match[2]), int(match[1], 8))
    return Reply.of(200, "It has these permissions.")


@command("MLST", argument=Argument.OPTIONAL, permission=Permission.LIST, help="[path]", feature=facts_feature)
async def facts_of_one(control: Control, argument: str) -> Reply:
    path = control.resolve(argument)
    status = await control.files.stat(path)
    line = f"{listing.facts(status, control.session.facts, perm(control, is_folder=status.is_folder))} {show(path)}"
    return Reply.of(250, "The facts:", line, "End")


def perm(control: Control, *, is_folder: bool) -> str:
    """The value of the fact `perm` (RFC 3659 section 7.5.5): what this user may do with a folder or a file."""
    letters = _FOLDER_LETTERS if is_folder else _FILE_LETTERS
    return "".join(letter for letter, permission in letters if control.may(permission))


_FILE_LETTERS = (
    ("a", Permission.APPEND),
    ("d", Permission.DELETE),
    ("f", Permission.RENAME),
    ("r", Permission.READ),
    ("w", Permission.WRITE),
)
_FOLDER_LETTERS = (
    ("c", Permission.WRITE),
    ("d", Permission.DELETE),
    ("e", Permission.LIST),
    ("f", Permission.RENAME),
    ("l", Permission.LIST),
    ("m", Permission.MKDIR),
    ("p", Permission.DELETE),
)


_MOST_SHOWN = 32 * 1024
"""How many bytes STAT tells of a folder: what is longer is no reply that a client takes."""


@command("STAT", argument=Argument.OPTIONAL, help="[path]", before_login=True, during_transfer=True)
async def status(control: Control, argument: str) -> Reply:
    if not argument:
        return session_status(control)
    if not control.may(Permission.LIST):
        return Reply.of(550 if control.account else 530, "Permission denied.")
    path = control.resolve(argument)
    found = await control.files.stat(path)
    now = time.time()
    if not found.is_folder:
        return Reply.of(213, "The file:", _shown(Entry(path[-1], found), now), "End")
    lines: list[str] = []
    room = _MOST_SHOWN
    async with aclosing(control.files.scan(path)) as batches:
        async for batch in batches:
            for entry in batch:
                line = _shown(entry, now)
                room -= len(line.encode("utf-8", "surrogateescape"))
                if room < 0 or len(lines) >= control.server.ftp_limits.reply_entries:
                    return Reply.of(212, "The folder:", *lines, "(there is more: LIST has all of it)", "End")
                lines.append(line)
    return Reply.of(212, "The folder:", *lines, "End")


def _shown(entry: Entry, now: float) -> str:
    return listing.long_line(entry, now).removesuffix(b"\r\n").decode("utf-8", "surrogateescape")


@command("ALLO", argument=Argument.REQUIRED, help="bytes [R bytes]")
async def allocate(control: Control, argument: str) -> Reply:
    match = re.fullmatch(r"([0-9]{1,18})( R [0-9]{1,18})?", argument, re.IGNORECASE)
    if match is None:
        return Reply.of(501, "ALLO takes a number of bytes.")
    wanted = int(match[1])
    free = await control.files.free_space()
    if free is not None and wanted > free:
        return Reply.of(452, "There is not so much space left.")
    control.session.allocated = wanted
    return Reply.of(200, "There is space for it at the moment.")


# Hashes


def _hash_feature(control: Control) -> str:
    chosen = control.session.hash_algorithm
    names = [f"{one.value}*" if one is chosen else one.value for one in HashAlgorithm]
    return "HASH " + ";".join(names) + ";"


@command("HASH", argument=Argument.REQUIRED, permission=Permission.READ, help="path", feature=_hash_feature)
async def hash(control: Control, argument: str) -> Reply:
    algorithm, (start, end) = control.session.hash_algorithm, control.session.hash_range
    control.session.hash_range = (0, None)
    path = control.resolve(argument)
    if end is None:
        end = (await control.files.stat(path)).size
    value = await _hash(control, path, algorithm, start, end)
    return Reply.of(213, f"{algorithm.value} {start}-{max(end - 1, 0)} {value} {argument}")


async def _hash(control: Control, path: Path, algorithm: HashAlgorithm, start: int, end: int | None) -> str:
    """It may take long: nobody hashes for a client that has left."""
    return await control.while_client_is_there(lambda: control.files.hash(path, algorithm, start, end))


@command("RANG", argument=Argument.REQUIRED, help="first last", feature="RANG STREAM")
async def hash_range(control: Control, argument: str) -> Reply:
    match = re.fullmatch(r"([0-9]{1,18}) ([0-9]{1,18})", argument)
    if match is None:
        return Reply.of(501, "RANG takes the numbers of the first and the last byte.")
    first, last = int(match[1]), int(match[2])
    if first > last:
        control.session.hash_range = (0, None)  # how a client takes it back
        return Reply.of(350, "The whole file is meant again.")
    control.session.hash_range = (first, last + 1)
    return Reply.of(350, f"The bytes from {first} to {last} are meant by the next HASH.")


def _declare_old_hash(verb: str, algorithm: HashAlgorithm) -> None:
    @command(verb, argument=Argument.REQUIRED, permission=Permission.READ, help="path [first [end]]", feature=verb)
    async def old_hash(control: Control, argument: str) -> Reply:
        name, start, end = argument, 0, None
        match = re.fullmatch(r'"(.+)"(?: ([0-9]{1,18})(?: ([0-9]{1,18}))?)?', argument, re.DOTALL)
        if match is None:
            match = re.fullmatch(r"(.+?) ([0-9]{1,18})(?: ([0-9]{1,18}))", argument, re.DOTALL)
        if match is not None:
            name, start, end = match[1], int(match[2] or 0), int(match[3]) if match[3] else None
        value = await _hash(control, control.resolve(name), algorithm, start, end)
        return Reply.of(250, value.upper())


for _verb, _algorithm in {
    "XCRC": HashAlgorithm.CRC32,
    "XMD5": HashAlgorithm.MD5,
    "XSHA1": HashAlgorithm.SHA1,
    "XSHA256": HashAlgorithm.SHA256,
    "XSHA512": HashAlgorithm.SHA512,
}.items():
    _declare_old_hash(_verb, _algorithm)
