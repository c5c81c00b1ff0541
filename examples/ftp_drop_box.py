"""A drop box: everybody may upload files, nobody sees them, and each that is whole is handed to a coroutine.

    python examples/ftp_drop_box.py [FOLDER [ENDPOINT]]

Here the coroutine tells the file's SHA-256; what a scanner or a camera sends would go on from there. It is awaited
before the client hears that its file has come. Try it with `asyncnet put README.md ftp://127.0.0.1:2121/`. Ctrl-C ends
it.
"""

from __future__ import annotations

import sys

from asyncnet import run
from asyncnet.auth import Identity
from asyncnet.ftp import FTPHandler, HashAlgorithm, Moved


class Anybody:
    """Lets everybody in, to store files and no more."""

    async def verify(self, name: str, password: str, *, peer: object) -> Identity:
        return Identity("anybody", {"permissions": ["write"], "quota": "1G", "connections": 20})

    async def scram_keys(self, name: str) -> None:
        """FTP has no SCRAM."""


async def handle(event: Moved) -> None:
    digest = await event.files.hash(event.path, HashAlgorithm.SHA256)
    print(f"{'/'.join(event.path)!a} from {event.peer.host}: {event.size} bytes, {digest}", flush=True)


def main(folder: str = ".", endpoint: str = "tcp://127.0.0.1:2121") -> None:
    run(FTPHandler(folder, users=Anybody(), on_stored=handle), endpoint)


if __name__ == "__main__":
    main(*sys.argv[1:])
