"""Tunnels through proxies: what the proxy is sent, what becomes of its answers, what is left to read."""

import contextlib

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import EndpointError, LocalProtocolError, TunnelError
from asyncnet.stream import Stream
from asyncnet.transports.memory import memory_transports
from asyncnet.transports.tunnels import MAX_HEAD, ProxyKind, ProxyURL, open_tunnel, parse_proxy


class SentLog:
    """A tap that keeps what is sent, and of that what a log of the conversation would mask."""

    def __init__(self):
        self.sent_bytes, self.masked_bytes = b"", b""

    async def receiving(self):
        pass

    def received(self, data, *, secret):
        pass

    async def sending(self, count):
        return count

    def sent(self, data, *, secret):
        self.sent_bytes += data
        if secret:
            self.masked_bytes += data

    def note(self, event):
        pass


async def tunnel(url, host, port, *exchange, at_once=True):
    """Open a tunnel through a proxy that plays `exchange`: bytes it expects, bytes it answers, and so on, then ends.

    Returns what was left to read behind the proxy's answer, and a log of what was sent.
    """
    stream, proxy = (Stream(transport) for transport in memory_transports())
    log = SentLog()
    stream.add_tap(log)

    async def play_proxy():
        for expected, answer in zip(exchange[::2], exchange[1::2], strict=True):
            assert await proxy.receive_exactly(len(expected)) == expected
            for piece in [answer] if at_once else [answer[n : n + 1] for n in range(len(answer))]:
                await proxy.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()
        await proxy.send_eof()

    rest, refusal = b"", None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(play_proxy)
        try:
            await open_tunnel(stream, parse_proxy(url), host, port)
            while data := await stream.receive_some():
                rest += data
        except TunnelError as error:
            refusal = error
            nursery.cancel_scope.cancel()
    if refusal is not None:
        raise refusal
    return rest, log


SOCKS, HTTP = "socks5://127.0.0.1:1080", "http://127.0.0.1:3128"
GREETING, NO_PASSWORD = b"\x05\x01\x00", b"\x05\x00"
REQUEST = b"\x05\x01\x00\x03\x0bexample.org\x00\x19"
CONNECTED = b"\x05\x00\x00\x01" + bytes(6)
BANNER = b"220 mail.example ESMTP\r\n"
CONNECT = b"CONNECT example.org:25 HTTP/1.1\r\nHost: example.org:25\r\n\r\n"


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "bound",
    [b"\x01" + bytes(6), b"\x04" + bytes(18), b"\x03\x04host\x12\x34", b"\x03\x00\x12\x34", b"\x03\xff" + bytes(257)],
)
async def test_a_socks5_tunnel_leaves_what_the_server_says_first(bound, at_once):
    answer = b"\x05\x00\x00" + bound + BANNER
    rest, _ = await tunnel(SOCKS, "example.org", 25, GREETING, NO_PASSWORD, REQUEST, answer, at_once=at_once)
    assert rest == BANNER


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nVia: 1.0 proxy\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 204 \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nA: b\r\n\r\nHTTP/1.1 200 \xe4\r\n\r\n",
    ],
)
async def test_an_http_tunnel_leaves_what_the_server_says_first(answer, at_once):
    rest, _ = await tunnel(HTTP, "example.org", 25, CONNECT, answer + BANNER, at_once=at_once)
    assert rest == BANNER


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", b"\x01\xc0\x00\x02\x01"),
        ("2001:db8::1", b"\x04" + bytes.fromhex("20010db8000000000000000000000001")),
        ("localhost", b"\x03\x09localhost"),
        ("a." * 126 + "a", b"\x03\xfd" + b"a." * 126 + b"a"),
    ],
)
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_socks5_is_sent_names_as_they_are_and_addresses_in_binary(scheme, host, address):
    request = b"\x05\x01\x00" + address + b"\xff\xff"
    await tunnel(f"{scheme}://127.0.0.1:1080", host, 65535, GREETING, NO_PASSWORD, request, CONNECTED)


async def test_an_http_proxy_is_sent_ipv6_in_brackets():
    request = b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n"
    await tunnel(HTTP, "2001:db8::1", 443, request, b"HTTP/1.1 200 OK\r\n\r\n")


async def test_a_socks5_password_is_sent_when_asked_for_and_masked():
    login = b"\x01\x04us\xc3\xa9\x06p@ss:!"
    rest, log = await tunnel(
        "socks5://us%C3%A9:p%40ss%3A!@127.0.0.1:1080", "example.org", 25,
        b"\x05\x02\x00\x02", b"\x05\x02", login, b"\x01\x00", REQUEST, CONNECTED + BANNER,
    )  # fmt: skip
    assert log.masked_bytes == login
    assert rest == BANNER


async def test_a_socks5_password_stays_here_when_the_proxy_does_not_ask():
    url = "socks5://user:secret@127.0.0.1:1080"
    _, log = await tunnel(url, "example.org", 25, b"\x05\x02\x00\x02", NO_PASSWORD, REQUEST, CONNECTED)
    assert b"secret" not in log.sent_bytes


async def test_an_http_password_is_sent_and_masked():
    request = CONNECT[:-2] + b"Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
    _, log = await tunnel(
        "http://Aladdin:open sesame@127.0.0.1:3128", "example.org", 25, request, b"HTTP/1.1 200 OK\r\n\r\n"
    )
    assert log.masked_bytes == request


REFUSALS = {
    "wants a user and a password": (SOCKS, GREETING, b"\x05\xff"),
    "wants another way to log in": ("socks5://u:p@h:1", b"\x05\x02\x00\x02", b"\x05\xff"),
    "not offered, 2": (SOCKS, GREETING, b"\x05\x02"),
    "not offered, 1": ("socks5://u:p@h:1", b"\x05\x02\x00\x02", b"\x05\x01"),
    "refused the user or the password": (
        *("socks5://u:p@h:1", b"\x05\x02\x00\x02", b"\x05\x02", b"\x01\x01u\x01p", b"\x01\x01"),
    ),
    "in version 5 instead of 1": (
        *("socks5://u:p@h:1", b"\x05\x02\x00\x02", b"\x05\x02", b"\x01\x01u\x01p", b"\x05\x00"),
    ),
    "no SOCKS5 proxy: it answered with version 4": (SOCKS, GREETING, b"\x04\x5a"),
    "no SOCKS5 proxy: it answered with version 72": (SOCKS, GREETING, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "no SOCKS5 proxy: it answered with version 0": (SOCKS, GREETING, NO_PASSWORD, REQUEST, bytes(10)),
    "did not connect to example.org:25: general failure": (SOCKS, GREETING, NO_PASSWORD, REQUEST, b"\5\1\0\1"),
    "not allowed by the proxy's rules (2)": (SOCKS, GREETING, NO_PASSWORD, REQUEST, b"\5\2\0\1" + bytes(6)),
    "network unreachable (3)": (SOCKS, GREETING, NO_PASSWORD, REQUEST, b"\5\3\0\1"),
    "host unreachable (4)": (SOCKS, GREETING, NO_PASSWORD, REQUEST, b"\5\4\0\1"),
    "connection refused (5)": (SOCKS, GREETING, NO_PASSWORD, REQUEST, b"\5\5\0\1"),
    "a reason unknown to RFC 1928 (99)": (SOCKS, GREETING, NO_PASSWORD, REQUEST, b"\5\x63\0\1"),
    "unknown address type, 2": (SOCKS, GREETING, NO_PASSWORD, REQUEST, b"\5\0\0\2" + bytes(6)),
    "did not connect to example.org:25: HTTP/1.1 407 Log In": (HTTP, CONNECT, b"HTTP/1.1 407 Log In\r\n\r\nbody"),
    "HTTP/1.0 503": (HTTP, CONNECT, b"HTTP/1.0 503\r\n\r\n"),
    "HTTP/1.1 302 Found": (HTTP, CONNECT, b"HTTP/1.1 302 Found\r\nLocation: http://a.example\r\n\r\n"),
    "HTTP/1.1 101 Switching": (HTTP, CONNECT, b"HTTP/1.1 101 Switching\r\n\r\n"),
    "HTTP/1.1 403 \\x1b[31m\\nred": (HTTP, CONNECT, b"HTTP/1.1 403 \x1b[31m\nred\r\n\r\n"),
    "no HTTP proxy: it answered HTTP/2 200 OK": (HTTP, CONNECT, b"HTTP/2 200 OK\r\n\r\n"),
    "no HTTP proxy: it answered HTTP/1.1 2000 OK": (HTTP, CONNECT, b"HTTP/1.1 2000 OK\r\n\r\n"),
    "no HTTP proxy: it answered HTTP/1.1  200": (HTTP, CONNECT, b"HTTP/1.1  200\r\n\r\n"),
    "no HTTP proxy: it answered SSH-2.0": (HTTP, CONNECT, b"SSH-2.0\r\n\r\n"),
    "no HTTP proxy: it answered ": (HTTP, CONNECT, b"\r\n\r\n\r\n"),
    "no end within": (HTTP, CONNECT, b"HTTP/1.1 200 OK\r\nA: " + b"a" * MAX_HEAD),
    "no end within 16384 bytes": (HTTP, CONNECT, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "the proxy's answer has no end": (HTTP, CONNECT, (b"HTTP/1.1 103 ".ljust(MAX_HEAD // 2 - 4) + b"\r\n\r\n") * 2),
}


@pytest.mark.parametrize("words", REFUSALS)
async def test_a_refusal_is_told_in_words(words):
    url, *exchange = REFUSALS[words]
    with pytest.raises(TunnelError) as caught:
        await tunnel(url, "example.org", 25, *exchange)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


async def test_a_refusal_is_told_in_few_words():
    with pytest.raises(TunnelError) as caught:
        await tunnel(HTTP, "example.org", 25, CONNECT, b"HTTP/1.1 500 " + b"x" * 10_000 + b"\r\n\r\n")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "exchange",
    [
        *([GREETING, NO_PASSWORD[:cut]] for cut in range(2)),
        *([GREETING, NO_PASSWORD, REQUEST, CONNECTED[:cut]] for cut in range(10)),
        *([GREETING, NO_PASSWORD, REQUEST, b"\x05\x00\x00\x03\x04host\0\0"[:cut]] for cut in range(4, 11)),
        *([CONNECT, b"HTTP/1.1 200 OK\r\n\r\n"[:cut]] for cut in range(19)),
    ],
)
async def test_a_proxy_that_closes_early_is_told_from_a_tunnel(exchange):
    with pytest.raises(TunnelError, match="closed the connection before"):
        await tunnel(HTTP if CONNECT in exchange else SOCKS, "example.org", 25, *exchange)


@given(
    st.sampled_from([SOCKS, HTTP, "socks5://u:p@h:1"]),
    st.sampled_from([b"", b"\x05\x00", b"\x05\x02\x01\x00\x05\x00", b"HTTP/1.1 ", b"HTTP/1.1 100 \r\n\r\n"]),
    st.binary(),
)
def test_whatever_a_proxy_answers_is_a_tunnel_or_a_tunnel_error(url, start, data):
    async def main():
        stream, proxy = (Stream(transport) for transport in memory_transports())
        await proxy.send_all(start + data)
        await proxy.send_eof()
        with contextlib.suppress(TunnelError):
            await open_tunnel(stream, parse_proxy(url), "example.org", 25)

    trio.run(main)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("example.org\r\nX: y", 25),
        ("example.org\n", 25),
        ("example.org\0", 25),
        ("exa mple.org", 25),
        ("example.org:25", 25),
        ("user@example.org", 25),
        ("[::1]", 25),
        ("fe80::1%eth0", 25),
        ("bücher.example", 25),
        ("", 25),
        ("127.1", 25),
        ("a" * 64, 25),
        ("a." * 127 + "a", 25),
        ("example.org", 0),
        ("example.org", 65536),
        ("example.org", -1),
    ],
)
@pytest.mark.parametrize("url", [SOCKS, HTTP])
async def test_a_host_that_cannot_be_asked_for_is_refused_before_a_byte_is_sent(url, host, port):
    stream, proxy = (Stream(transport) for transport in memory_transports())
    with pytest.raises(LocalProtocolError):
        await open_tunnel(stream, parse_proxy(url), host, port)
    await stream.aclose()
    assert await proxy.receive_some() == b""


async def test_a_tunnel_can_be_cancelled_while_the_proxy_is_silent(autojump_clock):
    stream, _proxy = (Stream(transport) for transport in memory_transports())
    with trio.move_on_after(5) as scope:
        await open_tunnel(stream, parse_proxy(SOCKS), "example.org", 25)
    assert scope.cancelled_caught


@pytest.mark.parametrize("kind", ProxyKind)
@pytest.mark.parametrize("bad", ["a\r\nb", "a\0", "\x7f", "\x85", "\ud800"])
def test_credentials_with_control_characters_are_no_proxy(kind, bad):
    for credentials in [(bad, "password"), ("user", bad)]:
        with pytest.raises(LocalProtocolError):
            ProxyURL(kind, "localhost", 1, *credentials)


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("socks5://127.0.0.1:1080", ProxyURL(ProxyKind.SOCKS5, "127.0.0.1", 1080)),
        ("socks5h://[::1]:1080/", ProxyURL(ProxyKind.SOCKS5, "::1", 1080)),
        ("http://proxy.example:3128/", ProxyURL(ProxyKind.HTTP, "proxy.example", 3128)),
        ("http://token:@proxy.example:3128", ProxyURL(ProxyKind.HTTP, "proxy.example", 3128, "token", "")),
        ("socks5://u%3A:a:b/?%25@h:1", ProxyURL(ProxyKind.SOCKS5, "h", 1, "u:", "a:b/?%")),
        (f"socks5://{'u' * 255}:{'ü' * 127}p@h:1", ProxyURL(ProxyKind.SOCKS5, "h", 1, "u" * 255, "ü" * 127 + "p")),
    ],
)
def test_a_proxy_string_means_what_it_says(text, proxy):
    assert parse_proxy(text) == proxy


# Where the ^ stands is where the caret must point, in the text as the message shows it.
@pytest.mark.parametrize(
    ("text", "marked", "problem"),
    [
        ("", "^", "begins with one of socks5://"),
        ("127.0.0.1:1080", "^127.0.0.1:1080", "begins with one of socks5://"),
        ("socks4://h:1", "^socks4://h:1", "begins with one of socks5://"),
        ("https://user:secret@h:1", "^https://***@h:1", "begins with one of socks5://"),
        ("user:secret@h:1", "^***@h:1", "begins with one of socks5://"),
        ("socks5://h", "socks5://h^", "the port is missing"),
        ("socks5://user:secret@h", "socks5://***@h^", "the port is missing"),
        ("http://user:secret@h:99999", "http://***@h:^99999", "from 0 to 65535"),
        ("http://user:secret@:1", "http://***@^:1", "the host is missing"),
        ("http://user:secret@b\\h:1", "http://***@b^\\h:1", "may not stand in a host name"),
        ("http://h:1//", "http://h:1^//", "nothing may follow the port"),
        ("http://h:1/path", "http://h:1^/path", "nothing may follow the port"),
        ("http://*:1", "http://^*:1", "may not stand in a host name"),
        ("http://::1:1", "http://^::1:1", "[::1]:1"),
        ("http://secret@h:1", "http://^***@h:1", "user:password"),
        ("http://:secret@h:1", "http://^***@h:1", "user:password"),
        ("http://@h:1", "http://^@h:1", "user:password"),
        ("http://user:secret%0D%0A@h:1", "http://^***@h:1", "control character"),
        ("http://user:secret%0g@h:1", "http://^***@h:1", "two hexadecimal digits"),
        ("http://user:secret\n@h:1", "http://^***@h:1", "control character"),
        ("http://user:secret\ud800@h:1", "http://^***@h:1", "not printable"),
        ("http://us%3Aer:secret@h:1", "http://^***@h:1", "no colon"),
        ("socks5://user:@h:1", "socks5://^***@h:1", "1 to 255 bytes"),
        ("socks5://user:secret" + "s" * 250 + "@h:1", "socks5://^***@h:1", "1 to 255 bytes"),
        ("socks5://user" + "ü" * 127 + ":secret@h:1", "socks5://^***@h:1", "1 to 255 bytes"),
    ],
)
def test_a_wrong_proxy_string_is_pointed_at_and_its_password_hidden(text, marked, problem):
    with pytest.raises(EndpointError) as caught:
        parse_proxy(text)
    assert problem in caught.value.problem
    position, shown = caught.value.position, caught.value.text
    assert f"{shown[:position]}^{shown[position:]}" == marked
    assert "secret" not in str(caught.value)


@given(st.text() | st.tuples(st.sampled_from(["http://", "socks5://", "socks5://u:p@", ""]), st.text()).map("".join))
def test_any_string_is_a_proxy_or_an_endpoint_error(text):
    fault = None
    try:
        parse_proxy(text)
    except EndpointError as error:
        fault = error
    assert fault is None or 0 <= fault.position <= len(fault.text)


def test_a_proxy_does_not_print_its_password():
    proxy = parse_proxy("socks5://user:secret@[::1]:1080")
    assert str(proxy) == "socks5://[::1]:1080"
    assert "secret" not in repr(proxy)
