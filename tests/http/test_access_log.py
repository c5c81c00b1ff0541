"""The access log: one line a request, whatever its client wrote."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import trio
from trio.abc import Clock

from asyncnet.http import AccessLog, BasicAuth, HTTPHandler, LogFormat, Request, Response
from asyncnet.http.application import as_application
from asyncnet.http.exchange import Exchange
from asyncnet.testing import stream_pair
from asyncnet.transports.address import Address
from tests.http.client import GET, Client, hello, served
from tests.http.test_basic_auth import Users, basic

PEER = Address("192.0.2.7", 40000)


async def logged(
    data: bytes, format: LogFormat = LogFormat.COMBINED, app: object = hello, peer: Address = PEER
) -> list[str]:
    """What is written about the requests in `data`."""
    lines: list[str] = []
    ours, theirs = stream_pair(client=peer)
    handler = HTTPHandler(app, access_log=AccessLog(format, lines.append))  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handler, theirs)
        await ours.send_all(data)
        await ours.send_eof()
        await Client(ours).rest()
        await ours.aclose()
    return lines


async def test_the_combined_form(autojump_clock: Clock) -> None:
    head = b"GET /x?y HTTP/1.1\r\nHost: a\r\nReferer: http://b/\r\nUser-Agent: test/1 (x)\r\n\r\n"
    (line,) = await logged(head)
    assert re.fullmatch(
        r"192\.0\.2\.7 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "
        r'"GET /x\?y HTTP/1\.1" 200 5 "http://b/" "test/1 \(x\)"',
        line,
    )


async def test_the_json_form(autojump_clock: Clock) -> None:
    (line,) = await logged(b"HEAD /x HTTP/1.0\r\nHost: B:1\r\nUser-Agent: \xe4\x22\r\n\r\n", LogFormat.JSON)
    record = json.loads(line)
    assert record.pop("time")
    assert record.pop("seconds") >= 0
    assert record == {
        "peer": "192.0.2.7",
        "status": 200,
        "bytes": 0,
        "user": None,
        "method": "HEAD",
        "host": "b",
        "target": "/x",
        "version": "1.0",
        "referer": "-",
        "user_agent": 'ä"',
    }


async def test_each_request_has_its_line_and_so_has_what_was_refused(autojump_clock: Clock) -> None:
    lines = await logged(GET + GET + b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n")
    assert [re.findall(r'" (\d+) ', line)[0] for line in lines] == ["200", "200", "417"]
    (line,) = await logged(b"GET / HTTP/1.1\nHost: a\n\n")
    assert '"-" 400 ' in line


async def test_an_error_answer_is_logged_with_its_size_and_the_time_it_took(autojump_clock: Clock) -> None:
    async def fails(request: Request) -> Response:
        await trio.sleep(2)
        raise ValueError

    for method, size in ((b"GET", len("500 Internal Server Error\n")), (b"HEAD", 0)):
        (line,) = await logged(GET.replace(b"GET", method), LogFormat.JSON, app=fails)
        record = json.loads(line)
        assert (record["status"], record["bytes"], record["seconds"]) == (500, size, 2)
    (line,) = await logged(b"GET / HTTP/1.1\nHost: a\n\n", LogFormat.JSON)
    record = json.loads(line)
    assert (record["status"], record["bytes"], record["seconds"]) == (400, len("400 Bad Request\n"), 0)


async def test_a_client_forges_no_line(autojump_clock: Clock) -> None:
    head = b'GET /"\\ HTTP/1.1\r\nHost: a\r\nUser-Agent: "\\\xff\xc2\x9b\t\r\n\r\n'
    (line,) = await logged(head.replace(b'/"', b"/?'"))
    assert r'"\x22\x5c\xff\xc2\x9b\x09"' not in line  # the blanks around a value are no part of it
    assert line.endswith(r'"\x22\x5c\xff\xc2\x9b"')
    assert r"/?'\x5c" in line


async def test_a_response_that_broke_off_is_logged_with_what_was_sent(autojump_clock: Clock) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"hello"
        raise OSError

    async def app(request: Request) -> Response:
        return Response(body=pieces())

    lines: list[str] = []
    async with served(app, access_log=AccessLog(write=lines.append)) as client:
        await client.send(GET)
        await client.head()
    assert '" 200 5 "' in lines[0]


async def test_a_user_who_proved_it_is_named(autojump_clock: Clock) -> None:
    lines: list[str] = []
    head = f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {basic('anna', 'pass:wörd')}\r\n\r\n".encode()
    options = {"access_log": AccessLog(write=lines.append)}
    async with served(BasicAuth(hello, Users(), insecure_auth=True), **options) as client:  # type: ignore[arg-type]
        await client.ask(head)
    assert " - anna [" in lines[0]


async def test_a_users_name_is_one_column(autojump_clock: Clock) -> None:
    async def app(request: Request) -> Response:
        return Response()

    class Named:
        async def respond(self, exchange: Exchange) -> None:
            exchange.user = 'anna [x] "'
            await as_application(app).respond(exchange)

    (line,) = await logged(GET, app=Named())
    assert line.startswith(r"192.0.2.7 - anna\x20[x]\x20\x22 [")


async def test_a_peer_on_a_unix_socket_is_one_column_whatever_it_has_bound(autojump_clock: Clock) -> None:
    (line,) = await logged(GET, peer=Address(path="", uid=0))
    assert line.startswith(r"unix:\x20(uid\x200) - - [")
    (line,) = await logged(GET, peer=Address(path='/x - - [y] "GET /" 200\n', uid=0))
    assert line.startswith(r"unix:/x\x20-\x20-\x20[y]\x20\x22GET\x20/\x22\x20200\x5cn\x20(uid\x200) - - [")
