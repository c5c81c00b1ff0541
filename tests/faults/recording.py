"""What a program has done to its files, step by step, and what of it a machine that crashes may have on its disk.

`recorder.c` notes it. A disk that crashes has at least what was synced: of a file, what had been written to it when it
was synced; of a folder, the names that it had when *it* was synced. Of everything else any part may be there: no
promise of a file system beyond POSIX's is counted on.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).with_name("recorder.c")
REPOSITORY = Path(__file__).parents[2]
SECTOR = 512
"""What a disk writes whole or not at all, in bytes."""

_header = struct.Struct("=ciqi")


def build(folder: Path) -> Path:
    """Compile the recorder; returns the library for LD_PRELOAD."""
    library = folder / "recorder.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return library


def recorded(library: Path, root: Path, log: Path, *command: object) -> subprocess.CompletedProcess[bytes]:
    """Run a Python program that works below `root`, with what it does noted in `log`."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "LD_PRELOAD": str(library),
        "RECORDER_ROOT": str(root),
        "RECORDER_LOG": str(log),
    }
    done = subprocess.run([sys.executable, *map(str, command)], env=environment, capture_output=True, timeout=50)
    assert done.returncode == 0, done.stderr.decode()
    return done


@dataclass(frozen=True, slots=True)
class Step:
    """Something that the program has done."""

    kind: str
    """c: a file was made. o: a file or folder was opened. w: written. t: cut. s: synced. u: a name was removed. m: a
    folder was made. r: a reply has left."""
    file: int = 0
    offset: int = 0
    data: bytes = b""
    """What was written, or the name below the root, or the reply."""


def read_steps(log: Path) -> list[Step]:
    """All steps that are noted. The last one may have been cut by a kill, and is not counted then."""
    data = log.read_bytes()
    steps, place = [], 0
    while place + _header.size <= len(data):
        kind, file, offset, length = _header.unpack_from(data, place)
        place += _header.size
        if place + length > len(data):
            break
        steps.append(Step(kind.decode(), file, offset, data[place : place + length]))
        place += length
    return steps


@dataclass
class File:
    """A file: what is on the disk for sure, and what has been done to it since, in order."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[Step] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Naming:
    """A change of a folder: a name means a file now, or a folder (-1), or nothing (None)."""

    name: str
    file: int | None


class Disk:
    """What is on a disk for sure after some steps, and what may be."""

    def __init__(self) -> None:
        self.files: dict[int, File] = {}
        self.folders = {0: ""}
        """The names of the folders that were opened, by their numbers."""
        self.names: dict[str, int] = {}
        """Those on the disk for sure."""
        self.namings: dict[str, list[Naming]] = {}
        """By folder: what has been done to its names since it was synced."""
        self.replies: list[bytes] = []

    def take(self, step: Step) -> bool:
        """The program has done it. Whether what may be on the disk has changed."""
        name = os.fsdecode(step.data) if step.kind in "comu" else ""
        match step.kind:
            case "c":
                self.files[step.file] = File()
                self._rename(name, step.file)
            case "o":
                if step.file not in self.files:
                    self.folders[step.file] = name
                return False
            case "m":
                self._rename(name, -1)
            case "u":
                self._rename(name, None)
            case "w" | "t":
                self.files[step.file].pending.append(step)
            case "s":
                return self._sync(step.file)
            case "r":
                self.replies.append(step.data)
                return False
        return True

    def _rename(self, name: str, file: int | None) -> None:
        self.namings.setdefault(os.path.dirname(name), []).append(Naming(name, file))

    def _sync(self, number: int) -> bool:
        if number in self.files:
            file = self.files[number]
            changed = bool(file.pending)
            for step in file.pending:
                _apply(file.synced, step)
            file.pending.clear()
            return changed
        namings = self.namings.pop(self.folders[number], [])
        for naming in namings:
            _name(self.names, naming)
        return bool(namings)

    def crash(self, folder: Path, chance: random.Random | None, kept: float) -> None:
        """Put into `folder` what a crash may leave: what is there for sure, and of the rest the part `kept`, as chance
        has it."""
        names = dict(self.names)
        for namings in self.namings.values():
            for naming in namings:
                if _is_kept(chance, kept):
                    _name(names, naming)
        folder.mkdir()
        for name in sorted(names):
            path = folder / name
            if name and not path.parent.is_dir():
                continue  # its folder is lost
            if names[name] == -1:
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(self._content(self.files[names[name]], chance, kept))

    def _content(self, file: File, chance: random.Random | None, kept: float) -> bytes:
        content = bytearray(file.synced)
        for step in file.pending:
            if not _is_kept(chance, kept):
                continue
            if step.kind == "w" and chance is not None and chance.random() < 0.2:  # it was torn
                sectors = (len(step.data) + SECTOR - 1) // SECTOR
                step = Step("w", step.file, step.offset, step.data[: chance.randrange(sectors + 1) * SECTOR])
            _apply(content, step)
        return bytes(content)


def _is_kept(chance: random.Random | None, kept: float) -> bool:
    return kept == 1 if chance is None else chance.random() < kept


def _name(names: dict[str, int], naming: Naming) -> None:
    if naming.file is None:
        names.pop(naming.name, None)
    else:
        names[naming.name] = naming.file


def _apply(content: bytearray, step: Step) -> None:
    if step.kind == "t":
        del content[step.offset :]
        content.extend(bytes(step.offset - len(content)))
    else:
        content.extend(bytes(max(0, step.offset - len(content))))
        content[step.offset : step.offset + len(step.data)] = step.data


def disks(steps: Sequence[Step]) -> Iterator[tuple[int, Disk]]:
    """The same disk after each step that may have changed what is on it, with the step's number."""
    disk = Disk()
    for number, step in enumerate(steps):
        if disk.take(step):
            yield number, disk
