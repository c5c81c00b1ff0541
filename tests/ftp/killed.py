"""Run by a test in a process of its own: an upload that writes, says so, and waits to be killed."""

from __future__ import annotations

import sys

import trio

from asyncnet.ftp.local_files import BUFFER, LocalFiles


async def main(root: str, name: str) -> None:
    upload = await LocalFiles(root).store((name,), offset=None)
    await upload.write(b"x" * BUFFER)
    print("written", flush=True)
    await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
