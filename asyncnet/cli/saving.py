"""What a fetcher receives, written down: into a partial file in big pieces, or onto a descriptor at once."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Awaitable, Callable
from pathlib import Path

import trio

from asyncnet.cli.descriptors import write_all
from asyncnet.cli.download import Partial, open_device
from asyncnet.cli.progress import Report

BATCH = 512 * 1024
"""How much is gathered before a thread writes it, in bytes."""


async def save(partial: Partial, pieces: AsyncIterable[bytes], report: Report) -> None:
    """Append `pieces` to `partial`. What has come is in it also when it breaks off."""
    batch: list[bytes] = []
    gathered = 0
    try:
        async for piece in pieces:
            batch.append(piece)
            gathered += len(piece)
            report.advance(len(piece))
            if gathered >= BATCH:
                data, batch, gathered = b"".join(batch), [], 0
                try:
                    await trio.to_thread.run_sync(partial.write, data)
                except trio.Cancelled:
                    partial.write(data)  # the thread had not begun
                    raise
    finally:
        partial.write(b"".join(batch))  # also after Ctrl-C: what has come need not come again


async def pass_on(pieces: AsyncIterable[bytes], sink: int, report: Report) -> None:
    """Write `pieces` to the descriptor `sink`, which may be waited for as long as it likes."""
    async for piece in pieces:
        await trio.to_thread.run_sync(write_all, sink, piece, abandon_on_cancel=True)
        report.advance(len(piece))


async def pass_on_to_device(target: Path | None, send: Callable[[int], Awaitable[None]]) -> bool:
    """Have `send` write to standard output (None), or to what `target` is if that is no file; false if it is one."""
    if target is None:
        await send(1)
        return True
    device = await trio.to_thread.run_sync(open_device, target, abandon_on_cancel=True)  # a pipe waits for a reader
    if device is None:
        return False
    await send(device)
    os.close(device)  # else it stays open: a thread may still be writing to it
    return True
