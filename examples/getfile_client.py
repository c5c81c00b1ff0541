"""Gets a file from getfile_server.py and writes it to standard output.

python examples/getfile_client.py [NAME [ENDPOINT]] > copy
"""

import os
import sys
from functools import partial

import trio

from asyncnet import connect


async def main(name: str = "README.md", endpoint: str = "tcp://127.0.0.1:8070") -> None:
    if "\n" in name:
        sys.exit("a name that is sent on a line has no line end in it")
    try:
        async with await connect(endpoint) as stream:
            await stream.send_all(os.fsencode(name) + b"\n")
            output = trio.wrap_file(sys.stdout.buffer)
            while True:
                stream.deadline = trio.current_time() + 30
                data = await stream.receive_some()
                if not data:
                    break
                await output.write(data)
            await output.flush()
    except trio.BrokenResourceError:
        sys.exit(f"{name}: the server has no such file, or has broken off in the middle")
    except OSError as exc:
        sys.exit(f"{name}: {exc}")


trio.run(partial(main, *sys.argv[1:]))
