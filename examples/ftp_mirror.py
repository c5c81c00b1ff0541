"""Makes a folder here what a folder on an FTP server is, over four connections; or the other way around.

    python examples/ftp_mirror.py ftp://example.org/pub copy
    python examples/ftp_mirror.py copy ftpes://anna:secret@example.org/pub

What is the same already, by size and time, is not moved again; what broke off is resumed.
"""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager

import trio

from asyncnet.ftp import FTPClient, Outcome, Step, mirror_down, mirror_up
from asyncnet.ftp.url import parse_url
from asyncnet.printable import printable


def tell(step: Step) -> None:
    if step.outcome is not Outcome.SAME:
        print(printable(f"{step.outcome.value:11} {step.path or '.'} {step.error or ''}".rstrip()), flush=True)


async def main(source: str, target: str) -> int:
    is_download = "://" in source
    url = parse_url(source if is_download else target)

    def connect() -> AbstractAsyncContextManager[FTPClient]:
        return FTPClient.connect(url)

    if is_download:
        report = await mirror_down(connect, url.path, target, progress=tell)
    else:
        report = await mirror_up(connect, source, url.path, progress=tell)
    print(f"{report.transferred} files moved, {report.same} were the same, {report.bytes} bytes")
    return 1 if report.failures else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(trio.run(main, sys.argv[1], sys.argv[2]))
