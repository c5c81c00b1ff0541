"""The client as its servers see it: in memory, in virtual time."""

from __future__ import annotations

import base64
import gzip
import ssl
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import brotli
import pytest
import trio
import trio.testing
import trustme
import zstandard

from asyncnet import LocalProtocolError
from asyncnet.errors import EndOfStream, RemoteProtocolError
from asyncnet.http import FileBody, Headers
from asyncnet.http.client import RedirectError, ResponseError, StatusError, UpgradeRefused
from asyncnet.http.client_limits import ClientLimits, ClientTimeouts, Phase, PhaseTimeout
from asyncnet.http.decoding import decode, decoders_for
from asyncnet.testing import ScriptedPeer, cancel_at_each_checkpoint
from tests.http.scripted import Answers, client_of, ok, read_request

URL = "http://example.org/path?query"


def field(request: bytes, name: str) -> str | None:
    """The value of a field of a request as it was sent."""
    for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        key, _, value = line.partition(b": ")
        if key.decode().lower() == name:
            return value.decode()
    return None


# One request


async def test_a_page_is_fetched_with_one_request_line_and_one_host() -> None:
    server = Answers(ok(b"hello", "Content-Type: text/plain; charset=utf-8"))
    async with client_of(server) as (client, network):
        response = await client.get(URL + "#fragment")
    assert (response.status, response.reason, response.content, response.text()) == (200, "OK", b"hello", "hello")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert str(response.url) == URL
    assert network.origins == ["http://example.org:80"]
    assert server.heads() == ["GET /path?query HTTP/1.1"]
    assert server.requests[0].count(b"host: example.org\r\n") == 1


async def test_a_body_is_streamed_as_it_comes() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await read_request(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await go_on.wait()
        await peer.send(b"5;x=y\r\nworld\r\n0\r\nDigest: abc\r\n\r\n")
        await trio.sleep_forever()

    go_on = trio.Event()
    async with client_of(script) as (client, _):
        async with client.request("GET", URL) as response:
            pieces = []
            async for piece in response.body:
                pieces.append(piece)
                go_on.set()
            assert pieces == [b"hello", b"world"]
            assert response.trailers["digest"] == "abc"
            assert "digest" not in response.headers
        assert client.pool.idle == 1


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"hello"),
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok(b"hello"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n4;a\r\nello\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("step", [1, 10_000])
async def test_every_kind_of_body_is_read_whole(answer: bytes, step: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await read_request(peer)
        for at in range(0, len(answer), step):
            await peer.send(answer[at : at + step])
            await trio.testing.wait_all_tasks_blocked()

    async with client_of(script) as (client, _):
        assert (await client.get(URL)).content == b"hello"


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 X")])
async def test_an_answer_that_has_no_body_keeps_its_connection(method: str, status: str) -> None:
    server = Answers(f"HTTP/1.1 {status}\r\nContent-Length: 100\r\n\r\n".encode(), ok(b"next"))
    async with client_of(server) as (client, network):
        assert (await client.fetch(method, URL)).content == b""
        assert (await client.get(URL)).content == b"next"
    assert len(network.origins) == 1


async def test_more_than_the_limit_is_not_read_into_memory() -> None:
    async with client_of(Answers(ok(b"x" * 101))) as (client, _):
        with pytest.raises(ResponseError, match="more than 100 bytes"):
            await client.get(URL, limit=100)
        assert client.pool.connections == client.pool.idle == 1  # all of it had come
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"40\r\n" + b"x" * 64 + b"\r\n"
    async with client_of(Answers(chunked + b"40\r\n" + b"x" * 64 + b"\r\n", stays=True)) as (client, _):
        with pytest.raises(ResponseError, match="more than 100 bytes"):
            await client.get(URL, limit=100)


async def test_a_body_that_ends_early_is_an_error() -> None:
    async with client_of(Answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")) as (client, _):
        with pytest.raises(ResponseError, match="4 bytes before the end"):
            await client.get(URL)
        assert client.pool.connections == 0


async def test_interim_responses_cannot_go_on_for_ever() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await read_request(peer)
        while True:
            await peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")

    async with client_of(script) as (client, _):
        with pytest.raises(ResponseError, match="interim"):
            await client.get(URL)


async def test_a_switch_of_protocols_that_nobody_asked_for_is_an_error() -> None:
    async with client_of(Answers(b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n")) as (client, _):
        with pytest.raises(ResponseError, match="switched protocols"):
            await client.get(URL)


async def test_an_error_status_is_an_exception_only_if_that_is_wanted() -> None:
    async with client_of(Answers(ok(b"gone", status="404 Not Found"))) as (client, _):
        response = await client.get(URL)
    assert not response.is_success
    with pytest.raises(StatusError, match="404 Not Found"):
        response.raise_for_status()


async def test_text_and_json_are_read_as_their_headers_say() -> None:
    server = Answers(
        ok("é".encode("latin-1"), "Content-Type: text/plain; charset=iso-8859-1"),
        ok("é".encode(), "Content-Type: text/plain; charset=nonsense"),
        ok(b'{"a": 1}'),
    )
    async with client_of(server) as (client, _):
        assert (await client.get(URL)).text() == "é"
        assert (await client.get(URL)).text() == "é"
        assert (await client.get(URL)).json() == {"a": 1}


@pytest.mark.parametrize("charset", ["punycode", "IDNA", "unicode-escape", "raw_unicode_escape", "undefined", "zlib"])
async def test_codecs_that_are_no_charsets_decode_no_text(charset: str) -> None:
    # Punycode takes quadratic time: a megabyte would hold the event loop for minutes.
    server = Answers(ok(b"a-\\u0041", f"Content-Type: text/plain; charset={charset}"))
    async with client_of(server) as (client, _):
        assert (await client.get(URL)).text() == "a-\\u0041"


async def test_json_of_endless_depth_is_no_json() -> None:
    async with client_of(Answers(ok(b"[" * 1_000_000))) as (client, _):
        response = await client.get(URL)
        with pytest.raises(ValueError, match="nested"):
            response.json()


# What must not be sent


@pytest.mark.parametrize(
    ("method", "url", "headers"),
    [
        ("GET\r\nX: y", URL, {}),
        ("G ET", URL, {}),
        ("GET", "http://example.org/a\r\nX: y", {}),
        ("GET", "http://example.org/\0", {}),
        ("GET", "http://exa mple.org/", {}),
        ("GET", "http://example.org\r\n/", {}),
        ("GET", URL, {"X": "a\r\nY: b"}),
        ("GET", URL, {"X": "a\nb"}),
        ("GET", URL, {"X": "a\0b"}),
        ("GET", URL, {"X\r\n": "a"}),
        ("GET", URL, {"X:": "a"}),
        ("GET", URL, {"Transfer-Encoding": "chunked"}),
        ("POST", URL, {"Content-Length": "7"}),
        ("POST", URL, {"Content-Length": "5, 5"}),
    ],
)
async def test_line_breaks_and_controls_are_refused_before_a_byte_is_sent(
    method: str, url: str, headers: dict[str, str]
) -> None:
    async with client_of(Answers(ok())) as (client, network):
        with pytest.raises(LocalProtocolError):
            await client.fetch(method, url, headers=headers, body=b"hello" if method == "POST" else b"")
        assert network.origins == []


# The pool


async def test_a_connection_carries_one_request_after_the_other() -> None:
    server = Answers(ok(b"1"), ok(b"2"), ok(b"3"))
    async with client_of(server) as (client, network):
        for expected in (b"1", b"2", b"3"):
            assert (await client.get(URL)).content == expected
        assert (client.pool.connections, client.pool.idle) == (1, 1)
    assert len(network.origins) == 1


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"1", "Connection: close"),
        ok(b"1") + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\n1",
        b"HTTP/1.1 103 Early Hints\nLink: x\r\n\r\n" + ok(b"1"),
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n1",
    ],
)
async def test_a_connection_of_which_something_is_odd_is_not_used_again(answer: bytes) -> None:
    async with client_of(Answers(answer, stays=True), Answers(ok(b"2"))) as (client, network):
        assert (await client.get(URL)).content == b"1"
        assert client.pool.connections == 0
        assert (await client.get(URL)).content == b"2"
    assert len(network.origins) == 2


async def test_an_answer_that_comes_before_its_request_is_nobody_s(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await read_request(peer)
        await peer.send(ok(b"1"))
        await trio.sleep(1)
        await peer.send(ok(b"poison"))
        await trio.sleep_forever()

    async with client_of(script, Answers(ok(b"2"))) as (client, _):
        assert (await client.get(URL)).content == b"1"
        await trio.sleep(2)
        assert (await client.get(URL)).content == b"2"


async def test_a_connection_is_not_used_again_while_a_request_still_leaves() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_until(b"\r\n")
        await peer.send(ok(b"early"))
        await trio.sleep_forever()

    async with client_of(script, Answers(ok(b"2")), capacity=1000) as (client, _):
        assert (await client.post(URL, body=b"x" * 60_000)).content == b"early"
        assert client.pool.connections == 0
        assert (await client.get(URL)).content == b"2"


async def test_an_idle_connection_is_not_kept_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    async with client_of(Answers(ok(b"1"), stays=True), Answers(ok(b"2"))) as (client, network):
        await client.get(URL)
        await trio.sleep(client.timeouts.idle + 1)
        assert (await client.get("http://example.com/")).content == b"2"
        assert (client.pool.connections, client.pool.idle) == (1, 1)
        assert len(network.origins) == 2


async def test_a_request_waits_for_a_connection_where_there_are_as_many_as_may_be(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(peer: ScriptedPeer) -> None:
        while True:
            await read_request(peer)
            await trio.sleep(1)
            await peer.send(ok())

    limits = ClientLimits(connections=3, per_origin=2)
    async with client_of(slow, limits=limits) as (client, network):
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(client.get, URL)
        assert trio.current_time() == pytest.approx(3)
        assert len(network.origins) == 2
        for name in "abcde":  # idle ones make room for others
            await client.get(f"http://{name}/")
            assert client.pool.connections <= 3
        with pytest.raises(PhaseTimeout, match="no connection became free") as caught:
            async with client.request("GET", "http://x/"), client.request("GET", "http://x/"):
                await client.get("http://x/", timeouts=ClientTimeouts(pool=5))
        assert caught.value.phase is Phase.POOL


async def test_a_request_that_is_given_up_while_it_waits_takes_nothing_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = ClientLimits(connections=1)
    async with client_of(Answers(ok(b"x" * 200_000), ok(b"2")), limits=limits) as (client, _):
        async with client.request("GET", URL) as response:
            with trio.move_on_after(1):
                await client.get(URL)
            await response.read()
        assert (client.pool.connections, client.pool.idle) == (1, 1)
        assert (await client.get(URL)).content == b"2"


async def test_a_body_that_is_left_closes_its_connection() -> None:
    async with client_of(Answers(ok(b"x" * 1_000_000)), Answers(ok(b"2"))) as (client, _):
        async with client.request("GET", URL) as response:
            async for _ in response.body:
                break
        assert client.pool.connections == 0
        assert (await client.get(URL)).content == b"2"


async def test_closing_the_client_closes_what_is_idle_and_later_what_is_in_use() -> None:
    closed = trio.Event()

    async def script(peer: ScriptedPeer) -> None:
        await read_request(peer)
        await peer.send(ok(b"x"))
        with pytest.raises((EndOfStream, trio.BrokenResourceError)):
            await read_request(peer)
        closed.set()

    async with client_of(script) as (client, _):
        async with client.request("GET", URL) as response:
            await client.aclose()
            assert await response.read() == b"x"
        await closed.wait()
        with pytest.raises(trio.ClosedResourceError):
            await client.get(URL)


# Cancelling


async def test_cancelled_anywhere_a_request_leaves_the_pool_as_it_was() -> None:
    async def script(peer: ScriptedPeer) -> None:
        while True:
            request = await read_request(peer)
            path = request.split()[1]
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(path), path))

    rounds = 0
    for attempt in cancel_at_each_checkpoint():
        rounds += 1
        async with client_of(script, limits=ClientLimits(connections=2)) as (client, _):
            await client.get("http://example.org/warm")
            with attempt:
                assert (await client.get("http://example.org/one")).content == b"/one"
                async with client.request("POST", "http://example.org/two", body=pieces(b"abc")) as response:
                    assert await response.read() == b"/two"
            assert client.pool.connections == client.pool.idle
            for path in (b"/three", b"/four"):
                assert (await client.get(f"http://example.org{path.decode()}")).content == path
    assert rounds > 10


async def test_cancelled_anywhere_a_wait_for_a_connection_gives_on_what_it_got() -> None:
    for attempt in cancel_at_each_checkpoint():
        server = Answers(*[ok(b"x")] * 10)
        async with client_of(server, limits=ClientLimits(connections=1)) as (client, _):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.get, URL)
                await trio.lowlevel.checkpoint()
                with attempt:
                    await client.get("http://elsewhere/")
                    await client.get(URL)
            with trio.fail_after(5):
                assert (await client.get(URL)).status == 200
            assert client.pool.connections == client.pool.idle == 1


async def test_a_cancelled_receive_loses_nothing_of_the_body(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await read_request(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await trio.sleep(10)
        await peer.send(b"world")

    async with client_of(script) as (client, _):
        async with client.request("GET", URL) as response:
            got = await response.receive_piece()
            with trio.move_on_after(1):
                await response.receive_piece()
            assert got + await response.read() == b"helloworld"


# Retries


async def closing_after(peer: ScriptedPeer, answers: int) -> None:
    """Answers so often, then takes one more request and closes without an answer."""
    for _ in range(answers):
        await read_request(peer)
        await peer.send(ok(b"x"))
    await read_request(peer)


async def one_then_close(peer: ScriptedPeer) -> None:
    await closing_after(peer, 1)


async def reset_at_second(peer: ScriptedPeer) -> None:
    await closing_after(peer, 1)
    await peer.reset()


@pytest.mark.parametrize("script", [one_then_close, reset_at_second])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_a_request_to_a_server_that_closed_meanwhile_is_sent_again_where_that_is_safe(
    script: object, method: str
) -> None:
    second = Answers(ok())
    async with client_of(script, second) as (client, _):  # type: ignore[arg-type]
        await client.get(URL)
        assert (await client.fetch(method, URL, body=b"abc" if method == "PUT" else b"")).status == 200
    assert len(second.requests) == 1


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_what_may_have_had_an_effect_is_not_sent_again(method: str) -> None:
    second = Answers(ok())
    async with client_of(one_then_close, second) as (client, _):
        await client.get(URL)
        with pytest.raises(trio.BrokenResourceError, match="may not be sent twice"):
            await client.fetch(method, URL, body=b"abc")
        assert client.pool.connections == 0
    assert second.requests == []


async def test_a_post_is_sent_over_a_new_connection_if_the_old_one_was_closed_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    second = Answers(ok(b"2"))
    async with client_of(Answers(ok(b"1")), second) as (client, _):
        await client.get(URL)
        await trio.sleep(1)
        assert (await client.post(URL, body=b"abc")).content == b"2"
    assert len(second.requests) == 1


async def test_nothing_is_sent_again_after_a_byte_of_the_answer() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await read_request(peer)
        await peer.send(ok())
        await read_request(peer)
        await peer.send(b"H")

    second = Answers(ok())
    async with client_of(script, second) as (client, _):
        await client.get(URL)
        with pytest.raises(ResponseError, match="within the head"):
            await client.get(URL)
    assert second.requests == []


async def test_a_connection_of_its_own_is_not_tried_twice() -> None:
    async with client_of(Answers(b"")) as (client, network):
        with pytest.raises(ResponseError, match="without an answer"):
            await client.get(URL)
    assert len(network.origins) == 1


async def test_a_body_that_was_begun_is_not_sent_again_unless_a_function_makes_it() -> None:
    for body, works in ((pieces(b"abc"), False), (lambda: pieces(b"abc"), True)):
        second = Answers(ok(b"2"))
        async with client_of(one_then_close, second) as (client, _):
            await client.get(URL)
            if works:
                assert (await client.put(URL, body=body)).content == b"2"
            else:
                with pytest.raises(trio.BrokenResourceError, match="cannot be sent again"):
                    await client.put(URL, body=body)
        assert len(second.requests) == works


# Time


@pytest.mark.parametrize("after", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_head_that_does_not_come_ends_by_a_timeout(
    after: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await read_request(peer)
        await peer.send(after)
        await trio.sleep_forever()

    async with client_of(script) as (client, _):
        with pytest.raises(PhaseTimeout, match="no response within 7 seconds") as caught:
            await client.get(URL, timeouts=ClientTimeouts(head=7))
        assert caught.value.phase is Phase.HEAD
        assert trio.current_time() == pytest.approx(7)
        assert client.pool.connections == 0


async def test_a_head_that_drips_has_no_more_time(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await read_request(peer)
        for byte in ok(b"x" * 50):
            await peer.send(bytes([byte]))
            await trio.sleep(1)

    async with client_of(script) as (client, _):
        with pytest.raises(PhaseTimeout):
            await client.get(URL, timeouts=ClientTimeouts(head=7))
        assert trio.current_time() == pytest.approx(7)


async def test_a_body_may_take_long_but_not_stand_still(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await read_request(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
        for _ in range(10):
            await trio.sleep(3)
            await peer.send(b"x")
        await trio.sleep_forever()

    async with client_of(script) as (client, _):
        with pytest.raises(PhaseTimeout, match="nothing more of the body") as caught:
            await client.get(URL, timeouts=ClientTimeouts(body=4))
        assert caught.value.phase is Phase.BODY
        assert trio.current_time() == pytest.approx(34)


async def test_a_request_s_own_limits_hold_on_a_connection_that_was_opened_with_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with client_of(Answers(ok(), stays=True)) as (client, network):
        await client.get(URL)
        with pytest.raises(PhaseTimeout):
            await client.post(URL, body=b"x" * 10_000_000, timeouts=ClientTimeouts(send=5, head=3))
        assert trio.current_time() == pytest.approx(8)
        assert len(network.origins) == 1


async def test_a_server_that_does_not_read_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await trio.sleep_forever()

    async with client_of(script) as (client, _):
        with pytest.raises(PhaseTimeout):
            await client.post(URL, body=b"x" * 10_000_000, timeouts=ClientTimeouts(send=5, head=3))
        assert trio.current_time() == pytest.approx(8)


async def test_connecting_has_its_time(autojump_clock: trio.testing.MockClock) -> None:
    from asyncnet.http import HTTPClient

    async def never(origin: object) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    async with HTTPClient(connect=never, timeouts=ClientTimeouts(connect=3)) as client:
        with pytest.raises(PhaseTimeout) as caught:
            await client.get(URL)
        assert caught.value.phase is Phase.CONNECT
        assert client.pool.connections == 0


# Uploads


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        await trio.lowlevel.checkpoint()
        yield piece


async def test_a_stream_goes_out_in_chunks_or_with_the_length_that_it_was_given() -> None:
    server = Answers(ok(), ok(), ok(), ok())
    async with client_of(server) as (client, _):
        await client.post(URL, body=pieces(b"hello", b"", b"world"))
        await client.post(URL, body=pieces(b"hello", b"world"), headers={"Content-Length": "10"})
        await client.post(URL, body="é")
        await client.post(URL, json={"a": "é"})
    assert server.requests[0].endswith(b"\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n")
    assert server.requests[1].endswith(b"\r\n\r\nhelloworld")
    assert server.requests[2].endswith("content-length: 2\r\n\r\né".encode())
    assert field(server.requests[3], "content-type") == "application/json"


@pytest.mark.parametrize("data", [(b"hell",), (b"hello", b"!")])
async def test_a_body_of_another_length_than_announced_breaks_its_request(data: tuple[bytes, ...]) -> None:
    async with client_of(Answers(ok())) as (client, _):
        with pytest.raises(LocalProtocolError, match="Content-Length"):
            await client.post(URL, body=pieces(*data), headers={"Content-Length": "5"})
        assert client.pool.connections == 0


async def test_a_file_is_sent_from_where_it_was_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    server = Answers(ok())
    async with client_of(server) as (client, _):
        with path.open("rb") as file:
            await client.put(URL, body=FileBody(file, 2, 5))
    assert server.requests[0].endswith(b"content-length: 5\r\n\r\n23456")


@pytest.mark.parametrize("leaves", [True, False])
async def test_an_upload_that_the_server_refuses_in_the_middle_ends_there(
    leaves: bool, autojump_clock: trio.testing.MockClock
) -> None:
    made = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield b"x" * 10_000

    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_until(b"\r\n\r\n")
        await peer.send(ok(b"too much", status="413 Content Too Large"))
        if leaves:
            await peer.stream.receive_exactly(20_000)
            await peer.send_eof()
        await trio.sleep(100)

    async with client_of(script) as (client, _):
        response = await client.post(URL, body=endless())
        assert (response.status, response.content) == (413, b"too much")
        assert client.pool.connections == 0
        assert made < 50
        assert trio.current_time() < 10


async def test_an_early_success_waits_for_the_rest_of_the_upload() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_until(b"\r\n\r\n")
        await peer.send(ok(b"fine"))
        got.append(await peer.expect_until(b"0\r\n\r\n", limit=10_000_000))
        await trio.sleep_forever()

    got: list[bytes] = []
    async with client_of(script) as (client, _):
        assert (await client.post(URL, body=pieces(*[b"x" * 1000] * 1000))).content == b"fine"
        assert client.pool.idle == 1
    assert got[0].count(b"x" * 1000) == 1000


@pytest.mark.parametrize("body", [b"hello", b"x" * 100_000])
async def test_a_body_waits_for_the_server_s_word_where_the_request_expects_one(
    body: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async def wants(peer: ScriptedPeer) -> None:
        await peer.expect_until(b"\r\n\r\n")
        await peer.expect_silence(0.5)
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.expect(body)
        assert trio.current_time() == pytest.approx(0.5)
        await peer.send(ok(b"thanks"))
        await trio.sleep_forever()

    async def refuses(peer: ScriptedPeer) -> None:
        await peer.expect_until(b"\r\n\r\n")
        await peer.send(ok(b"no", status="401 Unauthorized"))
        await peer.expect_reset()

    async def knows_nothing(peer: ScriptedPeer) -> None:
        await peer.expect_until(b"\r\n\r\n")
        await peer.expect(body)
        await peer.send(ok(b"thanks"))
        await trio.sleep_forever()

    for script, status, is_kept in ((wants, 200, True), (refuses, 401, False), (knows_nothing, 200, True)):
        async with client_of(script) as (client, _):
            response = await client.put(URL, body=body, headers={"Expect": "100-continue"})
            assert response.status == status
            assert client.pool.connections == is_kept


async def test_nonsense_in_the_middle_of_an_upload_ends_it() -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_until(b"\r\n\r\n")
        await peer.send(b"SSH-2.0-x\r\n")
        await trio.sleep_forever()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000

    async with client_of(script) as (client, _):
        with pytest.raises(ResponseError, match="no HTTP/1 server"):
            await client.post(URL, body=endless())
        assert client.pool.connections == 0


async def test_what_the_body_s_source_raises_is_raised_as_it_is() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise KeyError("source")

    async with client_of(Answers(ok())) as (client, _):
        with pytest.raises(KeyError, match="source"):
            await client.post(URL, body=broken())
        assert client.pool.connections == 0


# Redirects


def to(location: str, status: int = 302) -> bytes:
    return ok(b"elsewhere", f"Location: {location}", status=f"{status} Found")


@pytest.mark.parametrize(
    ("status", "method", "becomes"),
    [
        (301, "GET", "GET"),
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (302, "PUT", "PUT"),
        (302, "HEAD", "HEAD"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (307, "POST", "POST"),
        (308, "PUT", "PUT"),
    ],
)
async def test_the_method_after_a_redirect_is_rfc_9110_s(
    status: int, method: str, becomes: str, autojump_clock: trio.testing.MockClock
) -> None:
    answer = to("/next?x", status)
    if method == "HEAD":
        answer = answer.removesuffix(b"elsewhere")
    server = Answers(answer, ok())
    body = b"abc" if method in ("POST", "PUT") else b""
    of_bodies = {"Content-Type": "x/y", "Expect": "100-continue"} if body else {}
    async with client_of(server) as (client, network):
        response = await client.fetch(method, URL, body=body, headers=of_bodies)
        assert [str(one.url) for one in response.history] == [URL]
        assert str(response.url) == "http://example.org/next?x"
    assert len(network.origins) == 1  # the redirect's body was read, and its connection kept
    assert server.heads()[1] == f"{becomes} /next?x HTTP/1.1"
    kept = bool(body) and becomes == method
    assert server.requests[1].endswith(b"abc") is kept
    assert field(server.requests[1], "content-type") == ("x/y" if kept else None)
    assert field(server.requests[1], "expect") == ("100-continue" if kept else None)
    assert (field(server.requests[1], "content-length") is not None) is kept


@pytest.mark.parametrize(
    ("location", "stays"),
    [
        ("/next", True),
        ("http://example.org:80/next", True),
        ("http://EXAMPLE.org/next", True),
        ("http://example.com/", False),
        ("http://www.example.org/", False),
        ("http://example.org:8080/", False),
        ("//example.com/", False),
    ],
)
async def test_credentials_stay_with_their_origin(location: str, stays: bool) -> None:
    secrets = {"Authorization": "Basic eDp5", "Cookie": "a=b", "Proxy-Authorization": "x"}
    first, second = Answers(to(location), ok()), Answers(ok())
    async with client_of(first, second) as (client, _):
        await client.get(URL, headers={**secrets, "X-Other": "kept"})
    last = (first.requests if stays else second.requests)[-1]
    for name in ("authorization", "cookie", "proxy-authorization"):
        assert (field(last, name) is not None) is stays
    assert field(last, "x-other") == "kept"


async def test_credentials_do_not_come_back_with_the_first_origin() -> None:
    first, second = Answers(to("http://example.com/"), ok()), Answers(to(URL))
    async with client_of(first, second) as (client, _):
        await client.get(URL, headers={"Authorization": "Basic eDp5"})
    assert field(first.requests[1], "authorization") is None


async def test_a_user_in_a_url_becomes_basic_credentials_and_a_redirect_s_user_does_not() -> None:
    first, second = Answers(to("http://evil:pw@example.com/")), Answers(ok())
    async with client_of(first, second) as (client, _):
        response = await client.get("http://us%65r:p%40ss@example.org/")
    assert field(first.requests[0], "authorization") == "Basic " + base64.b64encode(b"user:p@ss").decode()
    assert field(second.requests[0], "authorization") is None
    assert "ss" not in str(response.history[0].url)


async def test_redirects_have_an_end() -> None:
    async with client_of(Answers(*[to("/again")] * 20)) as (client, _):
        with pytest.raises(RedirectError, match="more than 3 redirects"):
            await client.get(URL, redirects=3)
        assert client.pool.connections == client.pool.idle == 1
        assert (await client.get(URL, redirects=0)).status == 302


@pytest.mark.parametrize("rest", [b"drip", b"end", b"silence"])
async def test_a_redirect_is_followed_whatever_becomes_of_its_body(
    rest: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async def redirects(peer: ScriptedPeer) -> None:
        await read_request(peer)
        await peer.send(b"HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 1000\r\n\r\n")
        while rest == b"drip":
            await trio.sleep(20)
            await peer.send(b".")
        if rest == b"silence":
            await trio.sleep_forever()

    async with client_of(redirects, Answers(ok(b"next"))) as (client, _):
        assert (await client.get(URL)).content == b"next"
    assert trio.current_time() < 30


@pytest.mark.parametrize(
    "location", ["ftp://example.org/", "file:///etc/passwd", "http://", "http://a b/", "javascript:x"]
)
async def test_a_redirect_to_what_is_no_web_page_is_an_error(location: str) -> None:
    async with client_of(Answers(to(location))) as (client, _):
        with pytest.raises(RedirectError):
            await client.get(URL)


@pytest.mark.parametrize(
    ("location", "target"),
    [("/a b", "/a%20b"), ("/\xc3\xa9", "/%C3%A9"), ("/\xe9", "/%C3%A9"), ("?x#y", "/path?x"), ("../z", "/z")],
)
async def test_sloppy_locations_are_understood(location: str, target: str) -> None:
    server = Answers(to(location), ok())
    async with client_of(server) as (client, _):
        await client.get(URL)
    assert server.heads()[1] == f"GET {target} HTTP/1.1"


async def test_a_stream_cannot_follow_a_redirect_but_a_function_can() -> None:
    async with client_of(Answers(to("/next", 307))) as (client, _):
        with pytest.raises(RedirectError, match="cannot be sent again"):
            await client.post(URL, body=pieces(b"abc"))
    server = Answers(to("/next", 307), ok())
    async with client_of(server) as (client, _):
        await client.post(URL, body=lambda: pieces(b"abc"))
    assert server.requests[1].endswith(b"3\r\nabc\r\n0\r\n\r\n")


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA, name: str = "example.org") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For the client and for a server called `name`."""
    client, server = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(client)
    authority.issue_cert(name).configure_cert(server)
    return client, server


async def test_a_redirect_from_https_to_http_takes_no_credentials_and_no_body_along(authority: trustme.CA) -> None:
    ours, its = contexts(authority)
    secrets = {"Authorization": "Basic eDp5", "Cookie": "a=b"}
    plain = Answers(ok())
    async with client_of(Answers(to(URL)), plain, tls=ours, server_tls=its) as (client, network):
        assert (await client.get("https://example.org/", headers=secrets)).status == 200
        assert network.origins == ["https://example.org:443", "http://example.org:80"]
    assert field(plain.requests[0], "authorization") is None
    assert field(plain.requests[0], "cookie") is None
    async with client_of(Answers(to(URL, 307)), plain, tls=ours, server_tls=its) as (client, _):
        with pytest.raises(RedirectError, match="in the clear"):
            await client.post("https://example.org/", body=b"secret")
    assert len(plain.requests) == 1


async def test_a_server_with_another_s_certificate_gets_no_request(authority: trustme.CA) -> None:
    ours, its = contexts(authority, "example.com")
    server = Answers(ok())
    async with client_of(server, tls=ours, server_tls=its) as (client, _):
        with pytest.raises((ssl.SSLError, trio.BrokenResourceError)):
            await client.get("https://example.org/")
        assert client.pool.connections == 0
    assert server.requests == []


async def test_a_body_that_ends_with_its_connection_needs_tls_s_closing_message(authority: trustme.CA) -> None:
    async def cut_off(peer: ScriptedPeer) -> None:
        await read_request(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await peer.reset()

    ours, its = contexts(authority)
    async with client_of(cut_off, tls=ours, server_tls=its) as (client, _):
        with pytest.raises(trio.BrokenResourceError):
            await client.get("https://example.org/")


# Content codings

CODINGS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.compress}
PLAIN = bytes(range(256)) * 1000


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_coded_body_is_decoded_and_a_bomb_is_refused(coding: str) -> None:
    coded, bomb = CODINGS[coding](PLAIN), CODINGS[coding](bytes(60_000_000))
    name = f"Content-Encoding: {coding.upper()}"
    server = Answers(ok(coded, name), ok(coded, name), ok(b"", name), ok(bomb, name))
    limits = ClientLimits(inflated=50_000_000)
    async with client_of(server, Answers(ok(bomb, name)), limits=limits) as (client, _):
        assert (await client.get(URL)).content == PLAIN
        async with client.request("GET", URL, decode=False) as response:
            assert await response.read() == coded
        assert (await client.get(URL)).content == b""
        tracemalloc.start()
        try:
            with pytest.raises(ResponseError, match="more than 1000000 bytes"):
                await client.get(URL, limit=1_000_000)
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()
        with pytest.raises(ResponseError, match="inflates to more than"):
            async with client.request("GET", URL) as response:
                async for _ in response.body:
                    pass
    assert field(server.requests[0], "accept-encoding") == "gzip, deflate, br, zstd"


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("step", [1, 1000])
def test_codings_are_taken_off_however_the_body_is_cut(coding: str, step: int) -> None:
    coded = CODINGS[coding](PLAIN)
    decoders = decoders_for(coding, 1)
    assert decoders is not None
    got = [piece for at in range(0, len(coded), step) for piece in decode(decoders, coded[at : at + step])]
    decoders[0].finish()
    assert b"".join(got) == PLAIN
    for wrong in (coded[:-1], b"nonsense" * 10):
        decoders = decoders_for(coding, 1)
        assert decoders is not None
        with pytest.raises(ResponseError):
            list(decode(decoders, wrong))
            decoders[0].finish()


def test_raw_deflate_members_of_gzip_and_frames_of_zstd_are_understood() -> None:
    raw = zlib.compressobj(wbits=-15)
    for coding, coded, plain in (
        ("deflate", raw.compress(PLAIN) + raw.flush(), PLAIN),
        ("gzip", gzip.compress(b"a") + gzip.compress(b"b") + bytes(10), b"ab"),
        ("zstd", zstandard.compress(b"a") + zstandard.compress(b"b"), b"ab"),
        ("gzip, br", brotli.compress(gzip.compress(PLAIN)), PLAIN),
    ):
        decoders = decoders_for(coding, 2)
        assert decoders is not None
        assert b"".join(decode(decoders, coded)) == plain


NOTHINGS = {
    "gzip": gzip.compress(b""),
    "deflate": b"\0\0\0\xff\xff",
    "zstd": b"\x50\x2a\x4d\x18\0\0\0\0",
}
"""What stands for nothing and can come again and again: an empty member, block, frame."""


@pytest.mark.parametrize("coding", NOTHINGS)
async def test_a_coded_body_that_goes_on_and_stands_for_nothing_is_refused(coding: str) -> None:
    async def endless(peer: ScriptedPeer) -> None:
        await read_request(peer)
        await peer.send(f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n\r\n".encode())
        while True:
            await peer.send(NOTHINGS[coding] * 1000)

    async with client_of(endless) as (client, _):
        with pytest.raises(ResponseError, match="stand for nothing"):
            await client.get(URL, limit=1000)


@pytest.mark.parametrize("inner", NOTHINGS)
async def test_a_bomb_of_nothing_in_two_codings_keeps_nobody_waiting(inner: str) -> None:
    body = zstandard.compress(NOTHINGS[inner] * (8_000_000 // len(NOTHINGS[inner])))
    assert len(body) < 5000
    async with client_of(Answers(ok(body, f"Content-Encoding: {inner}, zstd"))) as (client, _):
        with pytest.raises(ResponseError, match="stand for nothing"):
            await client.get(URL)


@pytest.mark.parametrize("coding", CODINGS)
async def test_others_have_their_turn_while_a_bomb_is_read(coding: str) -> None:
    bomb = CODINGS[coding](bytes(60_000_000))
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with client_of(Answers(ok(bomb, f"Content-Encoding: {coding}"))) as (client, _):
        async with client.request("GET", URL) as response, trio.open_nursery() as nursery:
            size = len(await response.receive_piece())
            nursery.start_soon(count_turns)
            pieces = 0
            async for piece in response.body:
                size += len(piece)
                pieces += 1
            nursery.cancel_scope.cancel()
    assert size == 60_000_000
    assert turns >= pieces // 20 > 0


async def test_unknown_codings_stay_on_and_towers_of_them_are_refused() -> None:
    server = Answers(ok(b"xyz", "Content-Encoding: compress"), ok(b"xyz", "Content-Encoding: gzip, gzip, gzip"))
    async with client_of(server) as (client, _):
        assert (await client.get(URL)).content == b"xyz"
        with pytest.raises(ResponseError, match="content codings"):
            await client.get(URL)


# Upgrades


async def test_an_upgrade_hands_over_the_stream_with_what_came_behind_the_head() -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await read_request(peer)
        assert field(request, "upgrade") == "websocket"
        assert field(request, "connection") == "Upgrade"
        assert field(request, "x-key") == "k"
        await peer.send(b"HTTP/1.1 101 Fine\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\nfirst")
        await peer.expect(b"hello")
        await peer.send(b"bye")

    async with client_of(script) as (client, network):
        head, stream = await client.open_upgrade("ws://example.org/chat", "websocket", {"X-Key": "k"})
        assert client.pool.connections == 0
        async with stream:
            assert head.status == 101
            assert await stream.receive_exactly(5) == b"first"
            await stream.send_all(b"hello")
            assert await stream.receive_exactly(3) == b"bye"
    assert network.origins == ["ws://example.org:80"]


async def test_an_upgrade_that_is_refused_tells_the_answer() -> None:
    async with client_of(Answers(ok(b"no", status="403 Forbidden"))) as (client, _):
        with pytest.raises(UpgradeRefused, match="403 Forbidden") as caught:
            await client.open_upgrade("ws://example.org/", "websocket")
        assert caught.value.response.content == b"no"


@pytest.mark.parametrize("length", [3, 1_000_000])
async def test_an_upgrade_is_refused_whatever_becomes_of_the_answer_s_body(
    length: int, autojump_clock: trio.testing.MockClock
) -> None:
    answer = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {length}\r\n\r\nno".encode()
    async with client_of(Answers(answer), Answers(answer, stays=True)) as (client, _):
        for _ in range(2):  # the body breaks off, and it stands still
            with pytest.raises(UpgradeRefused, match="403 Forbidden"):
                await client.open_upgrade("ws://example.org/", "websocket")
            assert client.pool.connections == 0


@pytest.mark.parametrize("fields", ["Upgrade: h2c\r\nConnection: upgrade", "Upgrade: websocket", "Connection: upgrade"])
async def test_an_upgrade_to_something_else_is_an_error(fields: str) -> None:
    answer = f"HTTP/1.1 101 X\r\n{fields}\r\n\r\n".encode()
    async with client_of(Answers(answer)) as (client, _):
        with pytest.raises(ResponseError, match="another protocol"):
            await client.open_upgrade("ws://example.org/", "websocket")
        assert client.pool.connections == 0


async def test_an_upgrade_never_takes_an_idle_connection() -> None:
    upgrade = Answers(b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", stays=True)
    limits = ClientLimits(connections=1)
    async with client_of(Answers(ok()), upgrade, limits=limits) as (client, network):
        await client.get(URL)
        _, stream = await client.open_upgrade(URL, "x")
        await stream.aclose()
        assert len(network.origins) == 2


async def test_cancelled_anywhere_an_upgrade_leaves_nothing() -> None:
    for attempt in cancel_at_each_checkpoint():
        upgrade = Answers(b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", stays=True)
        async with client_of(upgrade) as (client, _):
            with attempt:
                _, stream = await client.open_upgrade(URL, "x")
                await stream.aclose()
            assert client.pool.connections == 0


# Headers of the client


async def test_a_request_s_headers_stand_in_for_the_client_s() -> None:
    server = Answers(ok(), ok())
    async with client_of(server, headers={"User-Agent": "ours", "X-All": "1"}) as (client, _):
        await client.get(URL, headers=Headers([("X-All", "2"), ("X-All", "3"), ("Host", "other")]))
        await client.get(URL)
    assert server.requests[0].count(b"x-all: ") == 2
    assert field(server.requests[0], "user-agent") == "ours"
    assert (field(server.requests[0], "host"), server.requests[0].lower().count(b"\r\nhost:")) == ("other", 1)
    assert field(server.requests[1], "x-all") == "1"


def test_a_client_loads_no_server_and_no_command() -> None:
    program = "import sys, asyncnet.http.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "asyncnet.http.client" in loaded
    assert not {"asyncnet.http.server", "asyncnet.http.files", "asyncnet.service", "asyncnet.cli"} & set(loaded)
    assert not {"httpx2", "brotli", "zstandard", "rich"} & set(loaded)


def test_errors_are_of_the_family() -> None:
    assert issubclass(ResponseError, RemoteProtocolError)
    assert issubclass(PhaseTimeout, TimeoutError)
