"""Forms: what a browser sends for an HTML form, with files or without (RFC 7578, WHATWG URL section 5).

    async def app(request: Request) -> Response:
        async with read_form(request) as form:
            greeting = f"Hello {form['name']}"
            for photo in form.files("photo"):
                await photo.save(folder / photo.safe_name)
        return Response.text(greeting)

Fields are kept in memory, and so are small files; larger ones are on disk while they come. `http.multipart` takes
forms with files apart.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import tempfile
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO, TypeVar, cast
from urllib.parse import unquote_to_bytes

import trio

from asyncnet.http.messages import Request
from asyncnet.http.multipart import MultipartDecoder, PartBegin, PartEnd, is_boundary, parse_parameters, utf8
from asyncnet.http.wire import RequestError
from asyncnet.limits import check_sizes

T = TypeVar("T")

DISK_PIECE = 256 * 1024
"""Bytes that are written to disk, or read from it, at once."""

CLOSE_GRACE = 5.0
"""Seconds that a thread is waited for to remove the files, when the form is left by a cancellation."""


@dataclass(frozen=True, slots=True)
class FormLimits:
    """How much a form may hold; sizes are bytes. Past any of these it is refused by 413."""

    total: int = 128 << 20
    """The whole body."""
    fields: int = 1000
    """Fields that are no files: generated forms have hundreds."""
    files: int = 20
    """Files, those not chosen not counted."""
    file_size: int = 64 << 20
    """A file."""
    field_size: int = 256 * 1024
    """A field's text: that of a long article."""
    fields_size: int = 1 << 20
    """The text and the names of all fields together, which are in memory."""
    name_size: int = 256
    """A field's name."""
    headers: int = 8
    """Lines in the head of a part; browsers send two."""
    head_size: int = 4096
    """The head of a part, with a file's name in it."""
    in_memory: int = 64 * 1024
    """A file, before it goes to disk."""

    def __post_init__(self) -> None:
        check_sizes(self, may_be_zero=self.__slots__)


class MissingField(RequestError, KeyError):
    """The form lacks a field that the application asked for: the client's fault, and answered by 400."""

    def __init__(self, name: str) -> None:
        super().__init__(400, f"the form has no field {name!r}")

    __str__ = Exception.__str__  # KeyError's would quote the sentence


class FormFile:
    """A file out of a form. It is there until the form is left.

    `name` is the field's. `filename` is what the client says the file is called there: it may be anything, "../" too;
    `safe_name` is made for use. `content_type` is the client's word as well. `size` is in bytes.

    `file` is for blocking code, in a thread: a binary file, at its beginning.
    """

    __slots__ = ("_pending", "content_type", "file", "filename", "is_on_disk", "name", "size")

    def __init__(self, name: str, filename: str, content_type: str) -> None:
        self.name = name
        self.filename = filename
        self.content_type = content_type
        self.size = 0
        self.file: BinaryIO = io.BytesIO()
        self.is_on_disk = False
        """Whether it is on disk, and not in memory."""
        self._pending = bytearray()  # what is to be written to disk

    @property
    def safe_name(self) -> str:
        """`filename` made safe by the function of that name."""
        return safe_name(self.filename)

    async def read(self) -> bytes:
        """All of it, in memory: the limits bound it."""
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it, piece by piece."""
        at = 0
        while piece := await self._do(_read_at, self.file, at):
            at += len(piece)
            yield piece

    async def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a new file, which appears when it is whole.

        Raises FileExistsError rather than replace one, and OSError as files do. Cancelling waits for the disk.
        """
        await trio.to_thread.run_sync(_save, self.file, os.fspath(path))

    async def _do(self, function: Callable[..., T], *args: object) -> T:
        """Call a function that uses the file, in a thread if it is on disk."""
        if self.is_on_disk:
            return await trio.to_thread.run_sync(function, *args)
        return function(*args)

    # For the reader of the form

    def add(self, data: bytes) -> None:
        """Take a piece; it is not written to disk before `flush`."""
        self.size += len(data)
        if self.is_on_disk:
            self._pending += data
        else:
            self.file.write(data)

    async def flush(self, in_memory: int, *, ended: bool) -> None:
        """Write to disk what has come together, if it is much or all; what was in memory too, if that was too much."""
        if not self.is_on_disk:
            if self.size > in_memory:
                self.is_on_disk = True
                self.file = await trio.to_thread.run_sync(_move_to_disk, self.file)
        elif self._pending and (ended or len(self._pending) >= DISK_PIECE):
            data, self._pending = self._pending, bytearray()
            await trio.to_thread.run_sync(_write_all, self.file, data)
        if ended:
            await self._do(self.file.seek, 0)

    def __repr__(self) -> str:
        return f"<FormFile {self.name!r}: {self.filename!r}, {self.size} bytes>"


class Form:
    """The fields of a form, in their order; a name may come more than once.

    `items` has all of them: a string, or a `FormFile`. The rest looks by name.
    """

    __slots__ = ("items",)

    def __init__(self, items: list[tuple[str, str | FormFile]]) -> None:
        self.items = items

    def __getitem__(self, name: str) -> str:
        """The text of the first field of that name. Raises `MissingField`, which the server answers by 400."""
        value = self.get(name)
        if value is None:
            raise MissingField(name)
        return value

    def get(self, name: str, default: str | None = None) -> str | None:
        """The text of the first field of that name."""
        return next(self._texts(name), default)

    def get_all(self, name: str) -> list[str]:
        """The texts of all fields of that name, in their order."""
        return list(self._texts(name))

    def _texts(self, name: str) -> Iterator[str]:
        return (value for key, value in self.items if key == name and isinstance(value, str))

    def file(self, name: str) -> FormFile | None:
        """The first file of that name, or None: none was chosen."""
        return next(iter(self.files(name)), None)

    def files(self, name: str) -> list[FormFile]:
        """The files of that name, in their order."""
        return [value for key, value in self.items if key == name and isinstance(value, FormFile)]

    def __contains__(self, name: object) -> bool:
        return any(key == name for key, _ in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"Form({self.items!r})"


_LIMITS = FormLimits()


@asynccontextmanager
async def read_form(request: Request, *, limits: FormLimits = _LIMITS) -> AsyncGenerator[Form, None]:
    """The form in a request's body, until the block is left: then its files are closed and gone.

    Names and text are UTF-8. A file field that was left empty is not there. Raises `RequestError`, which the server
    answers if the application lets it pass: 415 if the body is no form, 400 if it is malformed, 413 if it is more than
    `limits` allow.
    """
    kind, parameters = parse_parameters(request.headers.get("content-type") or "")
    if kind not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        raise RequestError(415, f"not a form: {kind or 'no Content-Type'}")
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise RequestError(415, f"a form in {parameters['charset']!r}")
    length = request.headers.get("content-length")
    if length is not None and int(length) > limits.total:
        raise RequestError(413, f"a form of {length} bytes")
    if kind == "application/x-www-form-urlencoded":
        # Percent-encoded it is three times as long.
        data = await request.read(limit=min(limits.total, 3 * limits.fields_size))
        yield Form(list(parse_urlencoded(data, limits)))
        return
    boundary = parameters.get("boundary", "")
    if is_boundary(boundary) is None:
        raise RequestError(400, "a form without a boundary that is one")
    reader = _MultipartReader(boundary, limits)
    try:
        yield Form(await reader.read(request.body))
    finally:
        await _close(reader.files)


def parse_urlencoded(data: bytes, limits: FormLimits = _LIMITS) -> Iterator[tuple[str, str]]:
    """The fields of application/x-www-form-urlencoded (WHATWG URL section 5.1); for a query, too.

    They are separated by "&" alone: a ";" that separates for one reader and not for another poisons caches
    (CVE-2021-23336). A "%" without two digits stands for itself. Raises `RequestError`.
    """
    if data.count(b"&") >= limits.fields:
        raise RequestError(413, f"a form of more than {limits.fields} fields")
    total = 0
    for field in data.split(b"&"):
        if not field:
            continue
        raw_name, _, raw_value = field.replace(b"+", b" ").partition(b"=")
        # What is too long however it is encoded is not decoded: that takes a hundred times its size for a while.
        _check_field(len(raw_name) // 3, len(raw_value) // 3, total, limits)
        name, value = unquote_to_bytes(raw_name), unquote_to_bytes(raw_value)
        total += len(name) + len(value)
        _check_field(len(name), len(value), total, limits)
        yield utf8(name, "a field's name"), utf8(value, "a field")


def _check_field(name: int, value: int, total: int, limits: FormLimits) -> None:
    if name > limits.name_size:
        raise RequestError(413, f"a field's name of more than {limits.name_size} bytes")
    if value > limits.field_size:
        raise RequestError(413, f"a field of more than {limits.field_size} bytes")
    if total > limits.fields_size:
        raise RequestError(413, f"fields of more than {limits.fields_size} bytes in all")


class _MultipartReader:
    """Puts the parts of a form together. `files` has every file that was opened, whatever became of the form."""

    def __init__(self, boundary: str, limits: FormLimits) -> None:
        self.files: list[FormFile] = []
        self._limits = limits
        self._decoder = MultipartDecoder(boundary, limits)
        self._items: list[tuple[str, str | FormFile]] = []
        self._begin = PartBegin("", None, "")
        self._text: bytearray = bytearray()
        self._texts = 0  # fields so far
        self._texts_size = 0

    async def read(self, body: AsyncIterable[bytes]) -> list[tuple[str, str | FormFile]]:
        total = 0
        async for piece in body:
            total += len(piece)
            if total > self._limits.total:
                raise RequestError(413, f"a form of more than {self._limits.total} bytes")
            for event in self._decoder.feed(piece):
                if isinstance(event, PartBegin):
                    self._begin_part(event)
                elif isinstance(event, PartEnd):
                    await self._end_part()
                elif self._begin.filename is not None:
                    await self._add_to_file(event)
                else:
                    self._add_to_text(event)
        self._decoder.end()
        return self._items

    def _begin_part(self, begin: PartBegin) -> None:
        self._begin = begin
        if begin.filename is not None:
            self.files.append(FormFile(begin.name, begin.filename, begin.content_type))
            return
        _, parameters = parse_parameters(begin.content_type)
        if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
            raise RequestError(400, f"a field in {parameters['charset']!r}")
        self._text = bytearray()
        self._texts += 1
        if self._texts > self._limits.fields:
            raise RequestError(413, f"a form of more than {self._limits.fields} fields")
        self._texts_size += len(begin.name.encode())
        _check_field(0, 0, self._texts_size, self._limits)

    def _add_to_text(self, data: bytes) -> None:
        self._text += data
        self._texts_size += len(data)
        _check_field(0, len(self._text), self._texts_size, self._limits)

    async def _add_to_file(self, data: bytes) -> None:
        file = self._file()
        file.add(data)
        if file.size > self._limits.file_size:
            raise RequestError(413, f"a file of more than {self._limits.file_size} bytes")
        await file.flush(self._limits.in_memory, ended=False)

    def _file(self) -> FormFile:
        if len(self.files) > self._limits.files:
            raise RequestError(413, f"a form of more than {self._limits.files} files")
        return self.files[-1]

    async def _end_part(self) -> None:
        name = self._begin.name
        if self._begin.filename is None:
            self._items.append((name, utf8(bytes(self._text), "a field")))
            return
        if not self._begin.filename and not self.files[-1].size:
            self.files.pop()  # what browsers send where no file was chosen
            return
        file = self._file()
        await file.flush(self._limits.in_memory, ended=True)
        self._items.append((name, file))


async def _close(files: list[FormFile]) -> None:
    """Close and remove the files; in a thread if any is on disk, since to remove a large one takes its time."""

    def close() -> None:
        for file in files:
            file.file.close()

    if any(file.is_on_disk for file in files):
        with trio.move_on_after(CLOSE_GRACE, shield=True):
            await trio.to_thread.run_sync(close)
    close()


# In a thread


def _move_to_disk(memory: BinaryIO) -> BinaryIO:
    """A file without a name, which is gone when it is closed, or when the process ends."""
    file = cast(BinaryIO, tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - the form closes it
    try:
        _write_all(file, cast(io.BytesIO, memory).getbuffer())
    except BaseException:
        file.close()
        raise
    return file


def _write_all(file: BinaryIO, data: memoryview | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _read_at(file: BinaryIO, at: int) -> bytes:
    file.seek(at)
    return file.read(DISK_PIECE)


def _save(file: BinaryIO, path: str) -> None:
    partial = os.path.join(os.path.dirname(path), f".{secrets.token_hex(8)}.part")
    try:
        with open(partial, "xb") as copy:
            file.seek(0)
            shutil.copyfileobj(file, copy, DISK_PIECE)
            copy.flush()
            os.fsync(copy.fileno())  # else the name may outlive a power failure, and what is in the file may not
        os.link(partial, path)  # unlike a rename, it replaces nothing
    finally:
        try:
            os.unlink(partial)
        except FileNotFoundError:
            pass
        file.seek(0)


# Names

LONGEST_NAME = 200
"""Bytes of a safe name: file systems take 255, and applications like to put something before it."""

_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\.|$)", re.IGNORECASE).match


def safe_name(filename: str) -> str:
    """`filename`, which a client has chosen, as the name of a file in a folder of one's own.

    It is one component of a path: what stands before the last slash or backslash is gone. It has no control and no
    invisible characters, and none that Windows forbids; it begins neither with a dot (it would be hidden) nor with a
    hyphen or a tilde (it would be an option or a home), ends neither with a dot nor with a blank, is no device, and
    200 bytes of UTF-8 long at most, its ending kept. Where nothing is left, it is "file". Two names may become one:
    `FormFile.save` replaces nothing.
    """
    name = unicodedata.normalize("NFC", re.split(r"[/\\]", filename)[-1])
    name = "".join("_" if char in '<>:"|?*' else char for char in name if unicodedata.category(char)[0] != "C")
    name = " ".join(name.split()).lstrip(". -~").rstrip(". ")
    stem, dot, ending = name.rpartition(".")
    if not dot or len(ending.encode()) > 20:
        stem, dot, ending = name, "", ""
    room = LONGEST_NAME - len((dot + ending).encode())
    stem = stem.encode()[:room].decode("utf-8", "ignore").rstrip(". ")
    name = f"{stem}{dot}{ending}" if stem else "file"
    return f"_{name}" if _DEVICES(name) else name
