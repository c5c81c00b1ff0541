"""The file server of the textbooks' chapter on sockets: a client sends a name on a line and gets the file's bytes.

    python examples/getfile_server.py [FOLDER [ENDPOINT]]

Try it with `echo README.md | nc 127.0.0.1 8070`, or with getfile_client.py. Ctrl-C ends it.
"""

import logging
import os
import sys
from functools import partial

import trio

from asyncnet import RemoteProtocolError, Stream, drain_on_signal, serve
from asyncnet.beneath import Beneath


async def main(folder: str = ".", endpoint: str = "tcp://127.0.0.1:8070") -> None:
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

    async with trio.open_nursery() as nursery:
        service = await nursery.start(serve, getfile, endpoint)
        await nursery.start(drain_on_signal, service)
        print(f"listening on {service.endpoints[0]}: the files below {files.root}", flush=True)


logging.basicConfig(level=logging.INFO, format="%(message)s")
trio.run(partial(main, *sys.argv[1:]))
