"""Trio: `serve_tcp` or `serve_ssl_over_tcp`, with the echo function of Trio's tutorial."""

from __future__ import annotations

from functools import partial

import trio

from benchmarks.servers import announce, tls_from_command_line


async def echo(stream: trio.abc.Stream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def main() -> None:
    tls = tls_from_command_line()
    async with trio.open_nursery() as nursery:
        if tls is None:
            listeners = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
            port = listeners[0].socket.getsockname()[1]
        else:
            listeners = await nursery.start(partial(trio.serve_ssl_over_tcp, echo, 0, tls, host="127.0.0.1"))
            port = listeners[0].transport_listener.socket.getsockname()[1]
        announce(port)


if __name__ == "__main__":
    trio.run(main)
