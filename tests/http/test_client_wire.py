"""Responses, byte by byte: what is read, what is forgiven and what is refused, by both readers of heads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.http.client_limits import ClientLimits, ClientTimeouts
from asyncnet.http.client_wire import (
    ChunkedReader,
    LengthReader,
    ResponseError,
    ResponseHead,
    ResponseReader,
    UntilEndReader,
    read_framing,
    request_head,
)

LIMITS = ClientLimits(head=1000, fields=10, chunk_line=100, chunk_extensions=200, trailers=200)


@pytest.fixture(params=[False, True], ids=["shortcut", "h11"])
def by_h11(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def read(data: bytes, *, by_h11: bool = False, step: int | None = None) -> tuple[ResponseHead, bytes] | None:
    """What a reader makes of `data`, fed in pieces of `step` bytes."""
    reader = ResponseReader(LIMITS, without_shortcut=by_h11)
    size = step or len(data)
    for at in range(0, len(data), size):
        result = reader.feed(data[at : at + size])
        if result is not None:
            return result[0], result[1] + data[at + size :]
    return None


PLAIN = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 \r\nX:\r\nY: a \t\r\n\r\n",
    b"HTTP/1.1 404\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n",
    b"HTTP/1.1 200 Tr\xe8s bien\r\nX-Latin: \xe9\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
]


@pytest.mark.parametrize("data", PLAIN)
@pytest.mark.parametrize("step", [None, 1, 7])
def test_both_readers_read_a_plain_head_alike_however_it_is_cut(data: bytes, step: int | None) -> None:
    ours, its = (read(data + b"behind", by_h11=by_h11, step=step) for by_h11 in (False, True))
    assert ours == its
    assert ours is not None
    assert ours[0].is_plain
    assert ours[1] == b"behind"


FORGIVEN = [
    b"HTTP/1.1 200 OK\nContent-Length: 5\n\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\n",
    b"HTTP/1.1 200 OK\r\nX: folded\r\n  line\r\nContent-Length: 5\r\n\r\n",
]


@pytest.mark.parametrize("data", FORGIVEN)
@pytest.mark.parametrize("step", [None, 1])
def test_a_head_that_is_not_plain_is_read_but_its_connection_is_not_used_again(
    data: bytes, step: int | None, by_h11: bool
) -> None:
    result = read(data + b"hello", by_h11=by_h11, step=step)
    assert result is not None
    head, rest = result
    assert (head.status, head.headers["content-length"], rest) == (200, "5", b"hello")
    assert not head.is_plain
    assert not read_framing(head, "GET", LIMITS).is_reusable


REFUSED = [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\x15\x03\x01\x00\x02\x02F",
    b"<html>hello</html>",
    b"HTTP/2 200 OK\r\n\r\n",
    b"HTTP/1.1 099 No\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nname : value\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n: value\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n folded: first\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 11 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1000 + b"\r\n\r\n",
    b"HTTP/1.1 " + b"2" * 1000,
]


@pytest.mark.parametrize("data", REFUSED)
@pytest.mark.parametrize("step", [None, 1])
def test_a_head_that_nobody_can_be_sure_of_is_refused(data: bytes, step: int | None, by_h11: bool) -> None:
    with pytest.raises(ResponseError):
        result = read(data, by_h11=by_h11, step=step)
        assert result is not None
        read_framing(result[0], "GET", LIMITS)


FRAMINGS = [
    (b"Content-Length: 5", LengthReader, True),
    (b"Transfer-Encoding: chunked", ChunkedReader, True),
    (b"Transfer-Encoding: Chunked", ChunkedReader, True),
    (b"X: none", UntilEndReader, False),
    (b"Content-Length: 5\r\nConnection: keep-alive, Close", LengthReader, False),
    (b"Content-Length: 5\r\nConnection: x\r\nConnection: close", LengthReader, False),
    (b"Content-Length: 5\r\nContent-Length: 5", LengthReader, False),
    (b"Content-Length: 5, 5", LengthReader, False),
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked", ChunkedReader, False),
]


@pytest.mark.parametrize(("fields", "kind", "is_reusable"), FRAMINGS)
def test_the_framing_follows_rfc_9112_section_6_3(fields: bytes, kind: type, is_reusable: bool) -> None:
    result = read(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n")
    assert result is not None
    framing = read_framing(result[0], "GET", LIMITS)
    assert type(framing.body) is kind
    assert framing.is_reusable is is_reusable


@pytest.mark.parametrize(("status", "method"), [(204, "GET"), (304, "GET"), (200, "HEAD"), (100, "GET")])
def test_what_has_no_body_has_none_whatever_its_fields_say(status: int, method: str) -> None:
    result = read(f"HTTP/1.1 {status} X\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    assert result is not None
    assert read_framing(result[0], method, LIMITS).body.ended


def test_http_1_0_is_never_kept_alive() -> None:
    result = read(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n")
    assert result is not None
    assert read_framing(result[0], "GET", LIMITS).is_reusable is False


@pytest.mark.parametrize("line", [b"X" * 300, b"X" * 300 + b": a\0", b"\x1b[2J" * 100])
def test_the_error_of_a_head_quotes_little_of_it(line: bytes) -> None:
    with pytest.raises(ResponseError) as caught:
        ResponseReader(ClientLimits()).feed(b"HTTP/1.1 200 OK\r\n" + line * 100 + b"\r\n\r\n")
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


# Bodies

CHUNKS = [
    (b"0\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"5;a=b;c=\"d;e\"\r\nhello\r\n00\r\n\r\n", b"hello"),
    (b"5  \r\nhello\r\nA\r\n" + b"x" * 10 + b"\r\n0\r\nX: y\r\n\r\n", b"hello" + b"x" * 10),
]  # fmt: skip


@pytest.mark.parametrize(("data", "content"), CHUNKS)
@pytest.mark.parametrize("step", [100, 1, 3])
def test_chunks_are_read_however_they_are_cut(data: bytes, content: bytes, step: int) -> None:
    reader = ChunkedReader(LIMITS)
    got, rest = b"", b""
    data += b"behind"
    for at in range(0, len(data), step):
        if reader.ended:
            rest += data[at : at + step]
        else:
            piece, rest = reader.feed(data[at : at + step])
            got += piece
    assert reader.ended
    assert (got, rest) == (content, b"behind")


BAD_CHUNKS = [
    b"x\r\n",
    b"\r\n",
    b"-5\r\nhello\r\n",
    b"0x5\r\nhello\r\n",
    b" 5\r\nhello\r\n",
    b"5\nhello\n0\n\n",
    b"5\r\nhelloXX0\r\n\r\n",
    b"5\r\nhello\n",
    b"5;a\rb\r\nhello\r\n",
    b"5;a\0\r\nhello\r\n",
    b"5 5\r\nhello\r\n",
    b"11111111111111111\r\n",
    b"ffffffffffffffff\r\n",
    b"5;" + b"x" * 200,
    (b"1;" + b"x" * 90 + b"\r\ny\r\n") * 3,
    b"1" + b" " * 17 + b"\r\ny\r\n",
    b"0\r\nno colon\r\n\r\n",
    b"0\r\n folded: x\r\n\r\n",
    b"0\r\nX: y\n\r\n",
    b"0\r\n" + b"X: y\r\n" * 11,
    b"0\r\nX: " + b"y" * 300,
]


@pytest.mark.parametrize("data", BAD_CHUNKS)
@pytest.mark.parametrize("step", [1000, 1])
def test_malformed_and_endless_chunks_are_refused(data: bytes, step: int) -> None:
    reader = ChunkedReader(LIMITS)
    with pytest.raises(ResponseError):
        for at in range(0, len(data), step):
            reader.feed(data[at : at + step])


def test_trailers_are_kept_apart() -> None:
    reader = ChunkedReader(LIMITS)
    reader.feed(b"0\r\nDigest: x \r\nContent-Length: 7\r\n\r\n")
    assert reader.trailers == [(b"digest", b"x"), (b"content-length", b"7")]


@pytest.mark.parametrize("reader", [LengthReader(1), ChunkedReader(LIMITS)])
def test_an_end_before_the_body_s_own_is_an_error(reader: LengthReader | ChunkedReader) -> None:
    with pytest.raises(ResponseError, match="connection ended"):
        reader.feed_eof()


@given(st.binary(max_size=200), st.integers(1, 20))
def test_no_input_raises_anything_but_a_remote_protocol_error(data: bytes, step: int) -> None:
    for beginning in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        try:
            result = read(beginning + data, step=step)
            if result is not None:
                read_framing(result[0], "GET", LIMITS).body.feed(result[1])
        except RemoteProtocolError:
            pass


@given(st.binary(max_size=60))
def test_what_the_shortcut_accepts_h11_reads_alike(data: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\nX:" + data + b"\r\n\r\n"
    try:
        ours = read(data)
    except ResponseError:
        return
    if ours is not None and ours[0].is_plain:
        try:
            its = read(data, by_h11=True)
        except ResponseError:
            return  # h11 is stricter with some bytes in values; we then have no second opinion
        assert ours == its


# Requests


@pytest.mark.parametrize("method", ["", "GET ", "G\r\nX", "G\0T", "GÉT", "G:T"])
def test_a_method_that_is_no_token_is_never_sent(method: str) -> None:
    with pytest.raises(LocalProtocolError):
        request_head(method, "/", [])


@pytest.mark.parametrize("target", ["", "/a b", "/a\r\nX: y", "/\0", "/é", "/\t"])
def test_a_target_with_blanks_or_controls_is_never_sent(target: str) -> None:
    with pytest.raises(LocalProtocolError):
        request_head("GET", target, [])


def test_a_request_s_head_is_its_line_and_its_fields() -> None:
    assert request_head("GET", "/a?b", [(b"host", b"x"), (b"y", b"z")]) == (
        b"GET /a?b HTTP/1.1\r\nhost: x\r\ny: z\r\n\r\n"
    )


@pytest.mark.parametrize("values", [{"head": 0}, {"connections": 0}, {"content": -1}])
def test_limits_of_nothing_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"ClientLimits\.[a-z]+ must be at least [01], not -?[01]"):
        ClientLimits(**values)


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_timeouts_of_nothing_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ClientTimeouts(head=value)
