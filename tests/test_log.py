"""What a peer chooses reaches no log as it is: a line feed would forge a record, an escape would drive a terminal."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio.abc import Clock

from asyncnet import Handler, Listener, RemoteProtocolError, ServerTLS, Stream, serve
from asyncnet.echo import EchoHandler
from asyncnet.http import Files, HTTPHandler, Request, Response
from asyncnet.middleware import ConversationLog
from asyncnet.printable import printable
from asyncnet.testing import MemoryListener
from asyncnet.transports.address import Address
from asyncnet.transports.proxy_header import format_v2

FORGED = "x\r\n\x1b[2Jforged\x9b\u202e\udcff"
PROXY = Address("10.0.0.1", 1234)


def shown(caplog: pytest.LogCaptureFixture) -> str:
    """Everything that was logged by now, once it is certain that no character of it can do any harm."""
    messages = [record.getMessage() for record in caplog.records]
    assert messages
    for message in messages:
        assert message.isprintable(), message
    return "\n".join(messages)


async def end_of(
    attack: Callable[[], Awaitable[object]], handler: Handler, *endpoints: str | Listener, **options: Any
) -> None:
    """Serve while `attack` runs, and until its connections have ended."""
    async with trio.open_nursery() as nursery:
        service = await nursery.start(
            lambda task_status: serve(handler, *endpoints, task_status=task_status, **options)
        )
        await attack()
        await service.drain()


def test_text_is_printed_as_it_is_and_the_rest_as_python_escapes_it() -> None:
    assert printable("Grüße, 世界 \\") == "Grüße, 世界 \\"
    assert printable(FORGED) == "x\\r\\n\\x1b[2Jforged\\x9b\\u202e\\udcff"


async def test_the_path_that_a_client_has_bound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def attack() -> None:
        with trio.socket.socket(socket.AF_UNIX) as client:
            await client.bind(bytes(tmp_path) + b"/c\n\x1b[2J\xff")
            await client.connect(str(tmp_path / "s"))
            await client.send(b"x")
            assert await client.recv(1) == b"x"

    await end_of(attack, EchoHandler(), f"unix:{tmp_path}/s")
    assert "/c\\n\\x1b[2J\\udcff" in shown(caplog)


async def test_the_path_that_a_proxy_tells(caplog: pytest.LogCaptureFixture, autojump_clock: Clock) -> None:
    caplog.set_level(logging.DEBUG)
    listener = MemoryListener()

    async def attack() -> None:
        async with await listener.connect(PROXY) as stream:
            await stream.send_all(format_v2(Address(path=FORGED[:-2]), Address(path="/s")))
            await stream.send_eof()
            assert await stream.receive_some() == b""

    await end_of(attack, EchoHandler(), listener, proxy_from=["10.0.0.1"])
    assert "forged" in shown(caplog)


async def test_the_protocols_that_a_client_offers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "asyncnet")
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "c.pem")
    listener = MemoryListener(tls=ServerTLS(tmp_path / "c.pem", alpn=["echo"]))

    async def attack() -> None:
        client = ssl.create_default_context()
        client.set_alpn_protocols([FORGED[:-3], "a" * 255, *(f"{n:0255}" for n in range(30))])
        async with await listener.connect() as stream:
            with pytest.raises(ssl.SSLError):
                await stream.start_tls(client, server_hostname="localhost")

    await end_of(attack, EchoHandler(), listener)
    assert "forged" in shown(caplog)
    assert len(shown(caplog)) < 1000  # a hello has room for 16 KiB of names


async def test_what_an_error_of_a_handler_quotes(caplog: pytest.LogCaptureFixture, autojump_clock: Clock) -> None:
    caplog.set_level(logging.DEBUG)
    listener = MemoryListener()

    async def handler(stream: trio.abc.Stream) -> None:
        line = await Stream.of(stream).receive_until(b"!", limit=100)
        raise RemoteProtocolError(f"no such command: {line.decode('latin-1')}")

    async def attack() -> None:
        async with await listener.connect() as stream:
            await stream.send_all(b"\x1b[2J\nforged!")
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()

    await end_of(attack, handler, listener)
    assert "forged" in shown(caplog)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /\x1b[2J HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x1b[2J",
        b"G\x9bT / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\x9b: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nExpect: \x9b\r\n\r\n",
        b"GET /%1b%0a HTTP/1.1\r\nHost: a\r\nX: \x9b\xff\r\n\r\n",
    ],
)
async def test_what_a_request_holds(request_bytes: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    listener = MemoryListener()

    async def attack() -> None:
        async with await listener.connect() as stream:
            await stream.send_all(request_bytes)
            await stream.receive_until(b"\r\n\r\n", limit=1000)

    await end_of(attack, HTTPHandler(Files(tmp_path)), listener, middleware=[ConversationLog()])
    shown(caplog)


async def test_the_target_of_a_request_that_an_application_failed_on(
    caplog: pytest.LogCaptureFixture, autojump_clock: Clock
) -> None:
    caplog.set_level(logging.DEBUG)
    listener = MemoryListener()

    async def attack() -> None:
        async with await listener.connect() as stream:
            await stream.send_all(b"GET /%1b%0aforged HTTP/1.1\r\nHost: a\r\n\r\n")
            await stream.receive_until(b"\r\n\r\n", limit=1000)

    async def app(request: Request) -> Response:
        raise ValueError

    await end_of(attack, HTTPHandler(app), listener)
    assert "forged" in shown(caplog)
