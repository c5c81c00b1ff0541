"""`asyncnet passwd FILE NAME [--scram]`: makes or changes an entry of a users file (docs/users.md).

The password is asked for twice on a terminal, and is one line of standard input otherwise: never an argument, which
every user of the machine could read in the process list. `add_parser` mounts the command, `run` executes it.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import tempfile
from contextlib import suppress

from asyncnet.auth.passwords import MAX_BYTES, hash_password, is_acceptable
from asyncnet.auth.scram import ScramKeys
from asyncnet.auth.usertext import decode, set_keys
from asyncnet.errors import ConfigurationError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Mount `passwd` under the command; `run` is left in the parsed arguments as `run`."""
    parser = subparsers.add_parser(
        "passwd",
        description="Make or change an entry of a users file. The password is asked for on a terminal, and read as one"
        " line of standard input otherwise. Everything else in the file stays as it is.",
    )
    parser.add_argument("file", metavar="FILE", help="the users file, made if it is not there (TOML)")
    parser.add_argument("name", metavar="NAME", help="the user")
    parser.add_argument(
        "--scram", action="store_true", help="keep SCRAM-SHA-256 keys as well, for protocols that offer SCRAM"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Set the password. Returns the exit status: 0, or 2 after one line on standard error."""
    try:
        made = _set_password(args.file, args.name, scram=args.scram)
    except ConfigurationError as error:
        print(f"asyncnet passwd: {error}", file=sys.stderr)
        return 2
    print(f"{args.file}: user {args.name!r} {'added' if made else 'changed'}")
    return 0


def _set_password(path: str, name: str, *, scram: bool) -> bool:
    """Ask, hash, write. Returns whether the entry is new."""
    if not is_acceptable(name):
        raise ConfigurationError(f"a name has 1 to {MAX_BYTES} bytes of UTF-8, and no NUL")
    _read(path)  # whoever types a password twice has heard of a broken file before
    password = _ask(name)
    if not is_acceptable(password):
        raise ConfigurationError(f"a password has 1 to {MAX_BYTES} bytes of UTF-8, and no NUL")
    values = {"password": hash_password(password)}

    text, users = _read(path)
    entry = users.get(name)
    if scram or (isinstance(entry, dict) and "scram" in entry):  # old keys would let the old password in
        try:
            values["scram"] = ScramKeys.of_password(password).format()
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
    try:
        changed = set_keys(text, name, values)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}; the file was left as it is") from error
    _replace_file(path, changed.encode())
    return entry is None


def _ask(name: str) -> str:
    if sys.stdin is None:
        raise ConfigurationError("standard input is closed, and the password comes from there")
    if not sys.stdin.isatty():
        line = sys.stdin.buffer.readline()
        try:
            return line.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise ConfigurationError("the password is not UTF-8") from error
    try:
        password = getpass.getpass(f"Password for {name}: ")
        again = getpass.getpass("The same again: ")
    except EOFError as error:
        raise ConfigurationError("no password was given; nothing was changed") from error
    if password != again:
        raise ConfigurationError("the two passwords differ; nothing was changed")
    return password


def _read(path: str) -> tuple[str, dict[str, object]]:
    """The file's text and its users; both empty where there is no file yet."""
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for, and a device replaced
        raise ConfigurationError(f"{path}: not a file")
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return "", {}
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    text, document = decode(data, path)
    users = document.get("users", {})
    if not isinstance(users, dict):
        raise ConfigurationError(f"{path}: users are tables [users.NAME]")
    return text, users


def _replace_file(path: str, data: bytes) -> None:
    """Put `data` in the place of the file, all at once and for good: a crash leaves the old file or the new one.

    The new file has mode 0600. A symlink stays, and its target is replaced.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(target)}.", dir=folder)  # mode 0600
        try:
            with open(descriptor, "wb") as file:
                _keep_owner(target, descriptor)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, target)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        _sync_folder(folder)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from error


def _keep_owner(target: str, descriptor: int) -> None:
    """Root changes a service's file and the service still owns it. Others could not give a file away."""
    if os.name != "posix" or os.geteuid() != 0:
        return
    with suppress(FileNotFoundError):
        status = os.stat(target)
        os.fchown(descriptor, status.st_uid, status.st_gid)


def _sync_folder(folder: str) -> None:
    """Make the new name outlive a power cut. Only POSIX opens folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
