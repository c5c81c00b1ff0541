"""Moving bytes between a data connection and the storage, and what a transfer looks like while it runs."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from asyncnet.errors import FileShrankError, ReceiveTimeout
from asyncnet.ftp.ascii import FromNetwork, to_network
from asyncnet.ftp.storage import DirectUpload, Download, Path, Upload
from asyncnet.replies import Reply
from asyncnet.stream import Stream

PIECE = 512 * 1024
"""How much is read from a storage, or gathered for it, at a time, in bytes."""

FEW = 4
"""In how few receives a piece has to come for the kernel to be asked to move more of them."""

FIRST_PIECE = 16 * 1024
"""How much is gathered of an upload that may be a small one."""

Report: TypeAlias = Callable[[int], object]
"""Called with the number of bytes of each step."""


@dataclass(slots=True, eq=False)
class Hearing:
    """The task that hears commands while a transfer runs."""

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    is_over: trio.Event = field(default_factory=trio.Event)


@dataclass(slots=True, eq=False)
class Transfer:
    """A transfer that runs."""

    verb: str
    path: Path
    moved: int = 0
    """Bytes that have passed on the data connection."""
    started: float = field(default_factory=trio.current_time)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    """Cancelled, the transfer ends where it is."""
    is_settled: bool = False
    """All of it has passed: whoever wants to end it comes too late."""
    is_aborted: bool = False
    """ABOR has come, and is answered together with the transfer."""
    gone: Exception | None = None
    """How the control connection has ended meanwhile."""
    hearing: Hearing | None = None
    """Who hears commands meanwhile; None: nobody yet."""
    reply: Reply | None = None
    """How it ended; None as long as it runs, and when it was cancelled."""

    def advance(self, count: int) -> None:
        """So many bytes more have passed."""
        self.moved += count

    def end(self) -> None:
        """The transfer ends where it is, unless it is settled."""
        if not self.is_settled:
            self.scope.cancel()


async def send_content(data: Stream, download: Download, offset: int, *, is_ascii: bool, report: Report) -> None:
    """Send what is behind `offset`, which in TYPE A counts the bytes on the way (RFC 3659 section 5.3).

    Raises `FileShrankError` if the file gets shorter meanwhile, and what `Stream.send_all` raises.
    """
    if is_ascii:
        await _send_lines_of(data, download, offset, report)
        return
    count = download.status.size - offset
    if download.file is not None:
        await data.send_file(download.file, offset, count, progress=report)
        return
    while count:
        piece = await download.read(offset, min(count, PIECE))
        if not piece:
            raise FileShrankError(f"the file ended {count} bytes before its time")
        await data.send_all(piece)
        report(len(piece))
        offset += len(piece)
        count -= len(piece)


async def _send_lines_of(data: Stream, download: Download, skipped: int, report: Report) -> None:
    place = 0
    while piece := await download.read(place, PIECE):
        place += len(piece)
        sent = to_network(piece)[skipped:] if skipped else to_network(piece)
        skipped -= len(to_network(piece)) - len(sent)
        if sent:
            await data.send_all(sent)
            report(len(sent))
    if place < download.status.size:
        raise FileShrankError(f"the file ended {download.status.size - place} bytes before its time")


async def receive_content(data: Stream, upload: Upload, *, is_ascii: bool, report: Report, timeout: float) -> None:
    """Receive to the end, which has to be a clean one, and give it all to `upload`; also what came before a failure.

    Raises `ReceiveTimeout` if nothing comes for `timeout` seconds, `trio.BrokenResourceError` if the connection breaks
    (`TruncatedError` without TLS's closing message), and the OSErrors of the storage.
    """
    lines = FromNetwork() if is_ascii else None
    buffer, filled, receives = memoryview(bytearray(FIRST_PIECE)), 0, 0

    async def pass_on() -> None:
        nonlocal filled
        piece, filled = buffer[:filled], 0
        await upload.write(piece if lines is None else lines.feed(bytes(piece)))

    try:
        while True:
            data.deadline = trio.current_time() + timeout
            try:
                count = await data.receive_into(buffer[filled:])
            except ReceiveTimeout:
                if data.read_ahead_now(1) or data.buffered:
                    continue  # it has come, but the bandwidth did not let it be received
                raise
            if not count:
                break
            report(count)
            filled += count
            receives += 1
            if receives == 1 and filled < FIRST_PIECE and data.read_ahead_now(1) and not data.buffered:
                break  # a small file, whose end has come along with it
            if filled == len(buffer):
                await pass_on()
                is_fast = receives <= FEW
                receives = 0
                if len(buffer) < PIECE:
                    buffer = memoryview(bytearray(PIECE))  # it is no small one
                elif is_fast and lines is None and await _receive_by_the_kernel(data, upload, report, timeout):
                    break
    except (trio.BrokenResourceError, ReceiveTimeout, trio.Cancelled):
        with trio.CancelScope(shield=True):  # it waits for a disk alone
            await pass_on()
        raise
    data.deadline = math.inf
    await pass_on()
    if lines is not None and (rest := lines.end()):
        await upload.write(rest)


async def _receive_by_the_kernel(data: Stream, upload: Upload, report: Report, timeout: float) -> bool:
    """Receive without bytes passing through this process, as long as much comes at a time; whether this is the end.

    Each time costs a thread: where little comes, it is better gathered.
    """
    count = PIECE
    while count >= PIECE // FEW:
        if not isinstance(upload, DirectUpload) or not data.can_receive_to_file:
            return False
        descriptor = upload.descriptor
        if descriptor is None:
            return False
        data.deadline = trio.current_time() + timeout
        count = await data.receive_to_file(descriptor, upload.size)
        upload.moved(count)
        report(count)
    return not count


async def send_lines(data: Stream, batches: AsyncIterator[Iterable[bytes]], report: Report) -> None:
    """Send the lines of a listing, batch by batch."""
    async for batch in batches:
        piece = b"".join(batch)
        if piece:
            await data.send_all(piece)
            report(len(piece))


async def network_size_of(download: Download) -> int:
    """How many bytes the whole file has in TYPE A: all of it is read for that."""
    size = place = 0
    while piece := await download.read(place, PIECE):
        place += len(piece)
        size += len(piece) + piece.count(b"\n")
    return size


async def place_of(download: Download, network_offset: int) -> int | None:
    """Where in the file the byte is that has `network_offset` bytes of TYPE A before it; None: there is none.

    Between a CR and its LF there is no such place.
    """
    passed = place = 0
    while passed < network_offset and (piece := await download.read(place, PIECE)):
        sent = to_network(piece)
        within = network_offset - passed
        if within < len(sent):
            # Each LF on the way has a CR in front that is not in the file.
            return None if sent[within : within + 1] == b"\n" else place + within - sent.count(b"\n", 0, within)
        passed += len(sent)
        place += len(piece)
    return place if passed == network_offset else None
