"""The text of a users file: reading it, finding an entry's line, changing single keys of an entry.

TOML 1.0. `UserFile` reads with it; `asyncnet passwd` changes with it, and then every other byte of the file, comments
and order included, stays what its owner wrote. Pure: text in, text out.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from asyncnet.errors import ConfigurationError

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
# key = "value", with whatever stands around it; a multi-line string is none of these and is left to its owner
_ASSIGNMENT: Final = re.compile(
    r"""(?P<before>[ \t]*(?P<quote>["']?)(?P<key>[A-Za-z0-9_-]+)(?P=quote)[ \t]*=[ \t]*)"""
    r"""("(?!"")(?:[^"\\]|\\.)*"|'(?!'')[^']*')(?P<after>[ \t]*(?:\#.*)?\r?)"""
)


def decode(data: bytes, source: str) -> tuple[str, dict[str, Any]]:
    """The text of a TOML file and what it says. Raises ConfigurationError with `source` and the line at fault."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{source}: not UTF-8 (at line {line})") from error
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source}: {error}") from error


def find_entry(text: str, name: str) -> int | None:
    """The index of the line `[users.NAME]`, however it is spelled; None where the entry is written another way."""
    for index, line in enumerate(text.split("\n")):
        if _table_of(line) == {"users": {name: {}}}:
            return index
    return None


def set_keys(text: str, name: str, values: Mapping[str, str]) -> str:
    """`text` with the string keys `values` in the table `[users.NAME]`, which is appended if there is none.

    Raises ValueError where that cannot be done by changing whole lines: the entry is an inline table, or its keys are
    dotted, or one of the values to replace is a multi-line string.
    """
    expected = tomllib.loads(text)
    entry = expected.setdefault("users", {}).setdefault(name, {})
    if isinstance(entry, dict):
        entry.update(values)
        header = find_entry(text, name)
        changed = _append(text, name, values) if header is None else _replace(text, header, values)
        if _says(changed, expected):
            return changed
    raise ValueError(f"{name!r} is not written as a table [users.{_quoted(name)}] with one key on each line")


def _says(text: str, expected: dict[str, Any]) -> bool:
    """The proof of an edit: line by line is not how TOML is read, so what came out is read the proper way."""
    try:
        return tomllib.loads(text) == expected
    except tomllib.TOMLDecodeError:
        return False


def _table_of(line: str) -> dict[str, Any] | None:
    """What a table header by itself says, or None if `line` is none."""
    if not line.lstrip(" \t").startswith("["):
        return None
    try:
        return tomllib.loads(line + "\n")  # so that a carriage return at the end is part of it
    except tomllib.TOMLDecodeError:
        return None


def _replace(text: str, header: int, values: Mapping[str, str]) -> str:
    lines = text.split("\n")
    end = next((i for i in range(header + 1, len(lines)) if _table_of(lines[i]) is not None), len(lines))
    missing = dict(values)
    for index in range(header + 1, end):
        match = _ASSIGNMENT.fullmatch(lines[index])
        if match is not None and match["key"] in missing:
            lines[index] = f'{match["before"]}"{missing.pop(match["key"])}"{match["after"]}'
    if header == len(lines) - 1:
        lines.append("")  # the header was the last line and had no newline
    carriage_return = "\r" if lines[header].endswith("\r") else ""
    lines[header + 1 : header + 1] = [f'{key} = "{value}"{carriage_return}' for key, value in missing.items()]
    return "\n".join(lines)


def _append(text: str, name: str, values: Mapping[str, str]) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    if text and not text.endswith("\n"):
        text += newline
    lines = [f"[users.{_quoted(name)}]", *(f'{key} = "{value}"' for key, value in values.items())]
    return text + (newline if text else "") + newline.join(lines) + newline


def _quoted(key: str) -> str:
    """`key` as TOML writes it: bare where that is allowed, else a basic string (JSON's escapes, and DEL)."""
    if _BARE_KEY.fullmatch(key):
        return key
    return json.dumps(key, ensure_ascii=False).replace("\x7f", "\\u007F")
