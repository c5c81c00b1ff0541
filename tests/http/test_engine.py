"""What the server asks of an engine: every engine that there is has to pass these."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import LocalProtocolError
from asyncnet.http.engine import Engine, H11Engine, RequestHead
from asyncnet.http.limits import HTTPLimits
from asyncnet.http.messages import Headers
from asyncnet.http.wire import RequestError

MakeEngine = Callable[..., Engine]


@pytest.fixture(params=[H11Engine])
def make_engine(request: pytest.FixtureRequest) -> MakeEngine:
    make: Callable[[HTTPLimits], Engine] = request.param
    return lambda **limits: make(HTTPLimits(**limits))


def receive(engine: Engine, data: bytes, size: int) -> tuple[RequestHead, bytes, bytes]:
    """One whole request: its head, its body and what lies behind it."""
    waiting = [data[at : at + size] for at in range(0, len(data), size)]
    while (result := engine.receive_head(waiting.pop(0))) is None:
        pass
    head, rest = result
    body = b""
    while not engine.body_ended:
        content, rest = engine.receive_body(rest or waiting.pop(0))
        body += content
    return head, body, rest + b"".join(waiting)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("trailing", [b"", b"GET /next HTTP/1.1\r\n"])
class TestReceiving:
    def test_a_request_without_a_body(self, make_engine: MakeEngine, size: int, trailing: bytes) -> None:
        data = b"GET /x?y HTTP/1.1\r\nHost: a\r\nX-Y:  z \r\n\r\n"
        head, body, rest = receive(make_engine(), data + trailing, size)
        assert head == RequestHead("GET", "/x?y", "1.1", Headers([("host", "a"), ("x-y", "z")]))
        assert (body, rest) == (b"", trailing)

    def test_a_request_with_a_length(self, make_engine: MakeEngine, size: int, trailing: bytes) -> None:
        data = b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello"
        head, body, rest = receive(make_engine(), data + trailing, size)
        assert (head.method, head.http_version, body, rest) == ("POST", "1.0", b"hello", trailing)

    def test_a_request_in_chunks(self, make_engine: MakeEngine, size: int, trailing: bytes) -> None:
        data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        data += b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-Check: 1\r\n\r\n"
        assert receive(make_engine(), data + trailing, size)[1:] == (b"hello!", trailing)


def begun(engine: Engine, line: bytes = b"GET / HTTP/1.1") -> Engine:
    assert engine.receive_head(line + b"\r\nHost: a\r\n\r\n") is not None
    return engine


class TestRefusing:
    def test_the_strict_check_stands_before_the_parser(self, make_engine: MakeEngine) -> None:
        for head in (b"GET / HTTP/1.1\nHost: a\n\n", b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n"):
            with pytest.raises(RequestError) as caught:
                make_engine().receive_head(head)
            assert caught.value.status == 400

    def test_a_body_announced_too_large_is_refused_with_its_head(self, make_engine: MakeEngine) -> None:
        with pytest.raises(RequestError) as caught:
            make_engine(body=4).receive_head(b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n")
        assert caught.value.status == 413


names = st.sampled_from(["X-A", "accept", "Cookie", "upgrade", "connection", "expect", "keep-alive"])
values = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20)


@given(
    st.sampled_from(["GET", "HEAD", "OPTIONS", "X!#$%&'*+-.^_`|~1"]),
    st.sampled_from(["/", "/a?b=[]{}|^`\\", "http://a", "http://[::1]:1/x?"]),
    st.sampled_from(["1.0", "1.1"]),
    st.lists(st.tuples(names, values), max_size=5),
)
def test_what_the_strict_check_accepts_the_parser_understands_alike(
    method: str, target: str, version: str, fields: list[tuple[str, str]]
) -> None:
    lines = [f"{method} {target} HTTP/{version}", "Host: a", *(f"{name}:{value}" for name, value in fields), "", ""]
    result = H11Engine(HTTPLimits()).receive_head("\r\n".join(lines).encode("latin-1"))
    assert result == (RequestHead(method, target, version, Headers([("host", "a"), *fields])), b"")


class TestSending:
    def test_a_response_with_a_length(self, make_engine: MakeEngine) -> None:
        engine = begun(make_engine())
        head = engine.send_head(200, Headers({"Content-Length": "5"}))
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"content-length: 5\r\n" in head.lower()
        assert engine.send_data(b"hello") + engine.send_end() == b"hello"
        assert engine.next_message()

    def test_a_response_of_unknown_length_goes_in_chunks(self, make_engine: MakeEngine) -> None:
        engine = begun(make_engine())
        assert b"transfer-encoding: chunked\r\n" in engine.send_head(200, Headers()).lower()
        assert engine.send_data(b"hello") == b"5\r\nhello\r\n"
        assert engine.send_data(b"") == b""
        assert engine.send_end() == b"0\r\n\r\n"
        assert engine.next_message()

    def test_to_http_1_0_it_ends_with_the_connection(self, make_engine: MakeEngine) -> None:
        engine = begun(make_engine(), b"GET / HTTP/1.0")
        head = engine.send_head(200, Headers()).lower()
        assert b"connection: close\r\n" in head
        assert b"transfer-encoding" not in head
        assert engine.send_data(b"hello") + engine.send_end() == b"hello"
        assert not engine.next_message()

    def test_bytes_may_pass_by(self, make_engine: MakeEngine) -> None:
        engine = begun(make_engine())
        engine.send_head(200, Headers({"Content-Length": str(1 << 40)}))
        engine.pass_data(1 << 40)
        assert engine.send_end() == b""
        assert engine.next_message()

    def test_an_answer_to_head_has_no_body(self, make_engine: MakeEngine) -> None:
        engine = begun(make_engine(), b"HEAD / HTTP/1.1")
        assert b"content-length: 5\r\n" in engine.send_head(200, Headers({"Content-Length": "5"})).lower()
        assert engine.send_end() == b""
        assert engine.next_message()

    @pytest.mark.parametrize("length", [4, 6])
    def test_a_body_that_is_not_as_long_as_promised_is_refused(self, make_engine: MakeEngine, length: int) -> None:
        engine = begun(make_engine())
        engine.send_head(200, Headers({"Content-Length": str(length)}))
        with pytest.raises(LocalProtocolError):
            engine.send_data(b"hello") + engine.send_end()

    def test_a_length_that_is_no_number_is_refused(self, make_engine: MakeEngine) -> None:
        with pytest.raises(LocalProtocolError):
            begun(make_engine()).send_head(200, Headers({"Content-Length": "five"}))


class TestKeepingAlive:
    def test_a_close_from_either_side_is_the_last_word(self, make_engine: MakeEngine) -> None:
        engine = make_engine()
        engine.receive_head(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"connection: close" in engine.send_head(200, Headers({"Content-Length": "0"})).lower()
        engine.send_end()
        assert not engine.next_message()
        engine = begun(make_engine())
        engine.send_head(200, Headers({"Content-Length": "0", "Connection": "close"}))
        engine.send_end()
        assert not engine.next_message()

    def test_the_next_message_begins_only_behind_the_body_of_the_last(self, make_engine: MakeEngine) -> None:
        engine = make_engine()
        engine.receive_head(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
        assert engine.body_left == 1
        engine.send_head(200, Headers({"Content-Length": "0"}))
        engine.send_end()
        assert not engine.next_message()
        assert engine.receive_body(b"xGET") == (b"x", b"GET")
        assert engine.next_message()

    def test_an_offered_upgrade_is_passed_over(self, make_engine: MakeEngine) -> None:
        engine = make_engine()
        engine.receive_head(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        engine.send_head(200, Headers({"Content-Length": "0"}))
        engine.send_end()
        assert engine.next_message()
