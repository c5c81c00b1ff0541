"""Where a fetched file goes: its name, the hidden partial file beside it, and what is known of an earlier attempt.

The content is written to `.NAME.part` and takes its name when it is whole; `.NAME.part.info` holds the validators of
what has come (RFC 9110 section 8.8), by which a later run can tell whether the rest still belongs to it. The partial is
locked while it is written, so that two runs do not write one file. Everything here blocks: it runs in threads.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from asyncnet.errors import AsyncnetError

MAX_NAME = 200
"""The longest name that is taken from a URL or a server, in bytes: file systems take 255, and ours get a suffix."""


class DownloadError(AsyncnetError):
    """The file cannot be kept: the message says what to do."""


@dataclass(frozen=True, slots=True)
class Validators:
    """What a server said of the content that it sent."""

    url: str
    etag: str = ""
    modified: str = ""

    @property
    def condition(self) -> str:
        """The value of If-Range (RFC 9110 section 13.1.5), or "": a weak ETag does not vouch for each byte."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.modified


def safe_name(text: str, *, default: str = "index.html") -> str:
    """A name for a file in the current folder, from the path of a URL or from what a server proposes.

    Only what stands behind the last slash or backslash counts, percent-decoded; what is not printable goes, and so do
    dots, dashes and blanks at its beginning: the file is neither hidden nor an option of somebody's command.
    """
    name = unquote(text, errors="replace").replace("\\", "/").rpartition("/")[2]
    name = "".join(character for character in name if character.isprintable()).lstrip(".- ").rstrip()
    while len(name.encode()) > MAX_NAME:
        name = name[:-1]
    return name or default


def open_device(target: Path) -> int | None:
    """A descriptor for what is there already and is neither file nor folder: /dev/null, a pipe. None for all else."""
    if not target.exists() or target.is_file() or target.is_dir():
        return None
    return os.open(target, os.O_WRONLY | os.O_CLOEXEC)


def status_of(target: Path) -> os.stat_result | None:
    """Size and times of the file `target`; None if there is none, or a partial one beside it is to take its name."""
    if not target.is_file() or target.with_name(f".{target.name}.part").exists():
        return None
    return target.stat()


class Partial:
    """The hidden file beside `target`. Opened and locked by the constructor; `size` bytes of it are good.

    Raises DownloadError if `target` exists and is not to be replaced, or another run is at work on the partial, and
    OSError.
    """

    def __init__(self, target: Path, *, replace: bool) -> None:
        self.target = target
        self._replace = replace
        self._check_target()
        self._path = target.with_name(f".{target.name}.part")
        self._info = target.with_name(f".{target.name}.part.info")
        if not target.parent.is_dir():
            raise DownloadError(f"there is no folder {target.parent}")
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if not self._lock():
            os.close(self._descriptor)
            raise DownloadError(f"{target}: another fetch is at work on it: wait, or name another file by -o")
        self.size = os.fstat(self._descriptor).st_size
        self._is_resumable = self.known() is not None  # an earlier run's, until `begin` has taken its place

    def _lock(self) -> bool:
        """Whether the partial is this run's alone. What was opened can have taken its name before it was locked."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path))
        except (BlockingIOError, FileNotFoundError):
            return False

    def _check_target(self) -> None:
        if self.target.is_dir():
            raise DownloadError(f"{self.target} is a folder: name a file by -o")
        if not self._replace and os.path.lexists(self.target):
            raise DownloadError(f"{self.target} exists already: --force replaces it, -o FILE names another")

    def known(self) -> Validators | None:
        """What an earlier run noted of the bytes that are there; None if there is nothing to go on with."""
        if not self.size:
            return None
        try:
            noted = json.loads(self._info.read_text())
            return Validators(str(noted["url"]), str(noted["etag"]), str(noted["modified"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, validators: Validators) -> None:
        """Start anew, with content of which `validators` hold."""
        os.ftruncate(self._descriptor, 0)
        self.size = 0
        self._is_resumable = bool(validators.condition)
        self._info.unlink(missing_ok=True)
        if self._is_resumable:
            with open(self._info, "x") as file:  # a new one: where others may write, the name could be a link
                file.write(json.dumps(asdict(validators)))

    def open(self) -> BinaryIO:
        """What is there, for reading."""
        return os.fdopen(os.dup(self._descriptor), "rb")

    def go_on(self) -> None:
        """Write behind what is there."""
        self._is_resumable = True

    def write(self, data: bytes) -> None:
        """Append `data`."""
        rest = memoryview(data)
        while rest:
            count = os.pwrite(self._descriptor, rest, self.size)
            self.size += count
            rest = rest[count:]

    def finish(self, target: Path | None = None) -> Path:
        """The content is whole: give it its name, `target` if that is another by now. Returns the name."""
        if target is not None:
            self.target = target
            self._check_target()
        if self._replace:
            os.replace(self._path, self.target)
        else:
            self._take_name()
        self._info.unlink(missing_ok=True)
        os.close(self._descriptor)
        return self.target

    def _take_name(self) -> None:
        """Take the name only if nobody has it by now."""
        try:
            os.link(self._path, self.target)
        except FileExistsError:
            raise DownloadError(f"{self.target} has come to exist meanwhile: --force replaces it") from None
        except OSError as exc:
            if exc.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            os.rename(self._path, self.target)  # a file system without hard links
        else:
            os.unlink(self._path)

    def abandon(self) -> bool:
        """Leave what has come for a later run, if that can go on with it; else remove it. True if it was left."""
        keep = self._is_resumable and self.size > 0
        if not keep:
            self._path.unlink(missing_ok=True)
            self._info.unlink(missing_ok=True)
        os.close(self._descriptor)
        return keep
