"""The file server of the textbooks' chapter on sockets: a client sends a name on a line and gets the file's bytes.

    python examples/getfile_server.py [FOLDER [ENDPOINT]]

Try it with `echo README.md | nc 127.0.0.1 8070`, or with getfile_client.py. Ctrl-C ends it.
"""

import logging
import os
import sys

import trio

from asyncnet import RemoteProtocolError, Stream, run
from asyncnet.beneath import Beneath


def main(folder: str = ".", endpoint: str = "tcp://127.0.0.1:8070") -> None:
    files = Beneath(folder)

    async def getfile(stream: trio.abc.Stream) -> None:
        stream = Stream.of(stream)
        stream.deadline = trio.current_time() + 30
        name = os.fsdecode((await stream.receive_until(b"\n", limit=1024)).rstrip(b"\r\n"))
        try:
            file = await trio.to_thread.run_sync(files.open, name.split("/"))
        except OSError as exc:  # the client is to see a broken connection: an end would be an empty file
            raise RemoteProtocolError(f"no file {name!r}: {exc.strerror}") from exc
        with file:
            await stream.send_file(file)

    run(getfile, endpoint)


logging.basicConfig(level=logging.INFO, format="%(message)s")
main(*sys.argv[1:])
