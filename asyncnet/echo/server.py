"""The handlers of the echo family: RFC 862, 863, 864, 867 and 868."""

from __future__ import annotations

import trio

from asyncnet.service import idle
from asyncnet.stream import Stream


class EchoHandler:
    """Sends back whatever arrives, until the peer ends its side (RFC 862)."""

    name = "echo"

    async def __call__(self, stream: trio.abc.Stream) -> None:
        stream = Stream.of(stream)
        async with idle():
            while data := await stream.receive_some():
                stream.write(data)  # leaves with the next receive
