"""The strict check: what passes, what is refused and with which status, and that cutting the bytes changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.http.limits import HTTPLimits
from asyncnet.http.wire import BodyDecoder, ChunkedDecoder, Head, HeadReader, LengthDecoder, RequestError, body_decoder

LIMITS = HTTPLimits()
HOST = b"Host: example.com\r\n"


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def read_head(parts: list[bytes], limits: HTTPLimits = LIMITS) -> tuple[Head, bytes] | int | None:
    """The head and what is left, the status it was refused with, or None while it has not ended."""
    reader = HeadReader(limits)
    for index, part in enumerate(parts):
        try:
            result = reader.feed(part)
        except RequestError as error:
            return error.status
        if result is not None:
            head, rest = result
            return head, rest + b"".join(parts[index + 1 :])
    return None


def verdict(data: bytes, limits: HTTPLimits = LIMITS) -> tuple[Head, bytes] | int | None:
    """The verdict on `data`, after making sure that it comes whole, by the byte and by threes to the same."""
    whole = read_head([data], limits)
    assert read_head(pieces(data, 1), limits) == whole
    assert read_head(pieces(data, 3), limits) == whole
    return whole


def decode(decoder: BodyDecoder, parts: list[bytes]) -> tuple[bytes, bytes, bool] | int:
    content, rest = b"", b""
    try:
        for index, part in enumerate(parts):
            piece, rest = decoder.feed(part)
            content += piece
            if decoder.ended:
                rest += b"".join(parts[index + 1 :])
                break
    except RequestError as error:
        return error.status
    return content, rest, decoder.ended


def chunked(data: bytes, limits: HTTPLimits = LIMITS) -> tuple[bytes, bytes, bool] | int:
    whole = decode(ChunkedDecoder(limits), [data])
    assert decode(ChunkedDecoder(limits), pieces(data, 1)) == whole
    assert decode(ChunkedDecoder(limits), pieces(data, 3)) == whole
    return whole


def head(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = HOST) -> bytes:
    return line + b"\r\n" + host + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


class TestHeadsThatPass:
    @pytest.mark.parametrize("trailing", [b"", b"GET /next HTTP/1.1\r\n", b"\x00\xff"])
    def test_a_head_ends_at_its_blank_line_and_what_follows_is_left_alone(self, trailing: bytes) -> None:
        data = head(b"Accept: */*", b"X-Odd_name!: \tvalue with\ttab \xe4")
        assert verdict(data + trailing) == (Head(data, 0), trailing)

    def test_an_unfinished_head_asks_for_more(self) -> None:
        for end in range(len(head())):
            assert read_head([head()[:end]]) is None

    def test_one_empty_line_before_the_request_line_is_forgiven(self) -> None:
        assert verdict(b"\r\n" + head()) == (Head(head(), 0), b"")
        assert verdict(b"\r\n\r\n" + head()) == 400

    def test_an_empty_field_value_passes(self) -> None:
        assert verdict(head(b"X-Empty:")) == (Head(head(b"X-Empty:"), 0), b"")

    @pytest.mark.parametrize("value", [b"0", b"5", b" 5 ", b"\t007", b"9223372036854775807"])
    def test_the_length_is_read(self, value: bytes) -> None:
        data = head(b"content-length:" + value)
        assert verdict(data) == (Head(data, int(value)), b"")

    @pytest.mark.parametrize("value", [b"chunked", b" Chunked ", b"\tCHUNKED"])
    def test_chunked_is_recognised_in_any_case(self, value: bytes) -> None:
        data = head(b"Transfer-Encoding:" + value)
        assert verdict(data) == (Head(data, None), b"")

    @pytest.mark.parametrize(
        "line",
        [
            b"GET /a/b;c=1/%20~?q=[1]&x=100%|{}`^\\' HTTP/1.1",
            b"GET http://example.com HTTP/1.1",
            b"GET HTTP://example.com:80?q HTTP/1.1",
            b"GET https://[2001:db8::1]:443/x?y HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"OPTIONS / HTTP/1.1",
            b"CONNECT example.com:443 HTTP/1.1",
            b"CONNECTED / HTTP/1.1",
            b"M-SEARCH / HTTP/1.1",
        ],
    )
    def test_each_form_of_target_passes(self, line: bytes) -> None:
        assert verdict(head(line=line)) == (Head(head(line=line), 0), b"")

    @pytest.mark.parametrize(
        "value", [b"a", b"a:", b"a:8080", b"[::1]", b"[::1]:80", b"1.2.3.4:5", b"xn--a_b.example."]
    )
    def test_each_form_of_host_passes(self, value: bytes) -> None:
        assert isinstance(verdict(head(host=b"HOST:\t" + value + b" \r\n")), tuple)

    def test_http_1_0_needs_no_host(self) -> None:
        data = head(host=b"", line=b"GET / HTTP/1.0")
        assert verdict(data) == (Head(data, 0), b"")


class TestHeadsThatAreRefused:
    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\nX: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            b"GET / HTTP/1.1\rHost: a\r\n\r\n",
            b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    )
    def test_a_bare_lf_or_cr(self, data: bytes) -> None:
        assert verdict(data) == 400

    @pytest.mark.parametrize("code", [*range(0x09), *range(0x0B, 0x0D), *range(0x0E, 0x20), 0x7F])
    def test_a_control_character_anywhere(self, code: int) -> None:
        control = bytes([code])
        assert verdict(head(b"X: a" + control + b"b")) == 400
        assert verdict(head(b"X" + control + b": b")) == 400
        assert verdict(head(line=b"GET /" + control + b" HTTP/1.1")) == 400
        assert verdict(control) == 400

    @pytest.mark.parametrize(
        "field",
        [
            b" folded",
            b"\tfolded",
            b" X: folded",
            b"X : space",
            b"X\t: tab",
            b": no name",
            b"no colon",
            b"X(: y",
            b"X[0]: y",
            b'"X": y',
            b"X/Y: z",
            b"\xe4: y",
            b"X Y: z",
        ],
    )
    def test_a_folded_or_misnamed_header_line(self, field: bytes) -> None:
        assert verdict(head(b"A: b", field)) == 400
        assert verdict(b"GET / HTTP/1.1\r\n" + field + b"\r\n" + HOST + b"\r\n") == 400

    @pytest.mark.parametrize("value", [b"", b"+5", b"-5", b"5 5", b"5,5", b"5, 5", b"0x5", b"5.", b"1_0", b"\xb2"])
    def test_a_length_that_is_not_digits_alone(self, value: bytes) -> None:
        assert verdict(head(b"Content-Length: " + value)) == 400

    @pytest.mark.parametrize("value", [b"9223372036854775808", b"18446744073709551621", b"0" * 20, b"9" * 5000])
    def test_a_length_past_63_bits_or_19_digits(self, value: bytes) -> None:
        assert verdict(head(b"Content-Length: " + value)) == 400

    def test_a_repeated_length_even_when_equal(self) -> None:
        assert verdict(head(b"Content-Length: 5", b"content-length: 5")) == 400

    def test_a_length_beside_a_transfer_coding(self) -> None:
        assert verdict(head(b"Content-Length: 5", b"Transfer-Encoding: chunked")) == 400
        assert verdict(head(b"Transfer-Encoding: chunked", b"Content-Length: 5")) == 400

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"identity",
            b"gzip",
            b"chunked, identity",
            b"chunked, gzip",
            b"chunked, chunked",
            b"chunked,",
            b",chunked",
            b"xchunked",
            b"chunked;q=1",
            b'"chunked"',
            b"chunked gzip",
            b"chu nked",
            b"\xa0chunked",
            b"gzip, chunked, chunked",
            b"gzip;q=1, chunked",
            b"g zip, chunked",
            b", chunked",
            b"chunked " * 1000 + b", chunked",
        ],
    )
    def test_an_odd_transfer_coding(self, value: bytes) -> None:
        assert verdict(head(b"Transfer-Encoding: " + value)) == 400

    @pytest.mark.parametrize("value", [b"gzip, chunked", b"gzip,deflate ,\tchunked"])
    def test_a_coding_before_chunked_is_not_implemented(self, value: bytes) -> None:
        assert verdict(head(b"Transfer-Encoding: " + value)) == 501

    def test_two_transfer_encoding_fields(self) -> None:
        assert verdict(head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")) == 400
        assert verdict(head(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked")) == 400

    def test_a_transfer_coding_in_http_1_0(self) -> None:
        assert verdict(head(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0")) == 400

    @pytest.mark.parametrize(
        "host",
        [
            b"",
            b"Host: a\r\nHost: a\r\n",
            b"Host: a\r\nHost: b\r\n",
            b"Host:\r\n",
            b"Host: a b\r\n",
            b"Host: a,b\r\n",
            b"Host: a@b\r\n",
            b"Host: a/b\r\n",
            b"Host: a:b\r\n",
            b"Host: ::1\r\n",
            b"Host: [::1\r\n",
            b"Host: a:123456\r\n",
            b"Host: http://a\r\n",
            b"Host: \xe4\r\n",
        ],
    )
    def test_a_missing_repeated_or_malformed_host(self, host: bytes) -> None:
        assert verdict(head(host=host)) == 400

    def test_a_repeated_or_malformed_host_in_http_1_0(self) -> None:
        assert verdict(head(host=HOST + HOST, line=b"GET / HTTP/1.0")) == 400
        assert verdict(head(host=b"Host: a b\r\n", line=b"GET / HTTP/1.0")) == 400

    @pytest.mark.parametrize(
        "line",
        [
            b"GET /",
            b"GET",
            b"",
            b"GET  / HTTP/1.1",
            b"GET /  HTTP/1.1",
            b" GET / HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"GET\t/ HTTP/1.1",
            b"GET / http/1.1",
            b"GET / HTTP/1.10",
            b"GET / HTTP/11",
            b"GET / HTTPS/1.1",
            b"GET / /x HTTP/1.1",
            b"G(T / HTTP/1.1",
            b"GET x HTTP/1.1",
            b"GET * HTTP/1.1",
            b"GET ?x HTTP/1.1",
            b"GET /#fragment HTTP/1.1",
            b"GET /\xe4 HTTP/1.1",
            b"GET /a\\b HTTP/1.1",
            b'GET /"a" HTTP/1.1',
            b"GET /<a> HTTP/1.1",
            b"GET /%zz HTTP/1.1",
            b"GET /% HTTP/1.1",
            b"GET ftp://a/ HTTP/1.1",
            b"GET http:///x HTTP/1.1",
            b"GET http://user@a/ HTTP/1.1",
            b"GET example.com:443 HTTP/1.1",
            b"CONNECT / HTTP/1.1",
            b"CONNECT example.com HTTP/1.1",
            b"CONNECT http://a:1/ HTTP/1.1",
            b"OPTIONS *x HTTP/1.1",
        ],
    )
    def test_a_malformed_request_line(self, line: bytes) -> None:
        if line:
            assert verdict(head(line=line)) == 400

    @pytest.mark.parametrize("version", [b"0.9", b"2.0", b"1.2", b"3.0"])
    def test_another_version(self, version: bytes) -> None:
        assert verdict(head(line=b"GET / HTTP/" + version)) == 505

    def test_a_request_line_is_refused_before_the_rest_has_come(self) -> None:
        assert verdict(b"GET /\r\n") == 400
        assert verdict(b"\x16\x03\x01") == 400

    def test_a_method_longer_than_any(self) -> None:
        assert verdict(head(line=b"A" * 33 + b" / HTTP/1.1")) == 501


class TestLimits:
    def test_the_request_line(self) -> None:
        limits = HTTPLimits(request_line=40)
        line = b"GET /" + b"a" * 24 + b" HTTP/1.1"  # 38 bytes, and CRLF
        assert isinstance(verdict(head(line=line), limits), tuple)
        assert verdict(head(line=line.replace(b"a", b"aa", 1)), limits) == 414
        assert verdict(b"GET /" + b"a" * 36, limits) == 414

    def test_the_head(self) -> None:
        data = head(b"X: " + b"y" * 100)
        assert isinstance(verdict(data, HTTPLimits(head=len(data))), tuple)
        assert verdict(data, HTTPLimits(head=len(data) - 1)) == 431
        assert verdict(head()[:-2] + b"X: " + b"y" * 1000, HTTPLimits(head=500)) == 431

    def test_the_number_of_fields(self) -> None:
        fields = [b"X: y"] * 9
        assert isinstance(verdict(head(*fields), HTTPLimits(fields=10)), tuple)
        assert verdict(head(*fields, b"X: y"), HTTPLimits(fields=10)) == 431

    def test_a_body_announced_too_large(self) -> None:
        limits = HTTPLimits(body=10)
        assert isinstance(body_decoder(Head(b"", 10), limits), LengthDecoder)
        with pytest.raises(RequestError) as caught:
            body_decoder(Head(b"", 11), limits)
        assert caught.value.status == 413


class TestBodies:
    @pytest.mark.parametrize("size", [1, 2, 3, 100])
    def test_a_length_takes_exactly_its_bytes(self, size: int) -> None:
        assert decode(LengthDecoder(5), pieces(b"helloGET /", size)) == (b"hello", b"GET /", True)
        assert decode(LengthDecoder(5), pieces(b"hell", size)) == (b"hell", b"", False)

    def test_no_length_is_no_body(self) -> None:
        assert LengthDecoder(0).ended

    @pytest.mark.parametrize(
        ("data", "content"),
        [
            (b"0\r\n\r\n", b""),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
            (b"5\r\nhello\r\nA\r\n, wonderfu\r\n1\r\nl\r\n000\r\n\r\n", b"hello, wonderful"),
            (b'5;a;b=c;d="e\\"f;\xe4"\r\nhello\r\n0;x=y\r\n\r\n', b"hello"),
            (b"2\r\n\r\n\r\n0\r\nX-Check: 1\r\nY:\r\n\r\n", b"\r\n"),
        ],
    )
    @pytest.mark.parametrize("trailing", [b"", b"GET / HTTP/1.1\r\n"])
    def test_chunks_are_joined(self, data: bytes, content: bytes, trailing: bytes) -> None:
        assert chunked(data + trailing) == (content, trailing, True)

    @pytest.mark.parametrize(
        "line",
        [
            b"",
            b"0x5",
            b"+5",
            b"-5",
            b" 5",
            b"5 ",
            b"5\t",
            b"g",
            b"5_0",
            b"5;",
            b"5 ;a",
            b"5; a",
            b"5;a =b",
            b"5;a= b",
            b"5;a=",
            b'5;a="',
            b"5;a\n",
            b"5;a\rb",
            b"5;\x00",
            b'5;a="\x01"',
            b"5\r",
            b"00000000000000005",
            b"FFFFFFFFFFFFFFFF",
            b"8000000000000000",
        ],
    )
    def test_a_malformed_chunk_size_line_is_refused(self, line: bytes) -> None:
        assert chunked(line + b"\r\nhello\r\n0\r\n\r\n") == 400

    @pytest.mark.parametrize(
        "data",
        [
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhelloXX0\r\n\r\n",
            b"5\r\nhello\rX0\r\n\r\n",
            b"5\r\nhello!\r\n0\r\n\r\n",
            b"0\n\r\n",
            b"0\r\n\n",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        ],
    )
    def test_every_line_of_a_chunk_ends_in_crlf(self, data: bytes) -> None:
        assert chunked(data) == 400

    @pytest.mark.parametrize(
        "field", [b"X : y", b" folded", b"nocolon", b"X: \x00", b"X: a\rb", b"X: a\nY: b", b": y", b"X: \x7f"]
    )
    def test_a_malformed_trailer_is_refused(self, field: bytes) -> None:
        assert chunked(b"0\r\nA: b\r\n" + field + b"\r\n\r\n") == 400

    @pytest.mark.parametrize(
        "name", [b"Content-Length", b"transfer-encoding", b"Host", b"TRAILER", b"Authorization", b"Cookie", b"If-Match"]
    )
    def test_a_forbidden_trailer_is_refused(self, name: bytes) -> None:
        assert chunked(b"0\r\n" + name + b": 1\r\n\r\n") == 400

    def test_the_limits_of_chunks(self) -> None:
        assert chunked(b"5;" + b"a" * 300) == 400
        assert chunked(b"5;" + b"a" * 300 + b"\r\n") == 400
        assert chunked(b"1;abc\r\nx\r\n" * 3, HTTPLimits(chunk_extensions=11)) == 400
        assert chunked(b"6\r\nhello!\r\n6\r\n", HTTPLimits(body=11)) == 413
        assert chunked(b"0\r\n" + b"X: y\r\n" * 3 + b"\r\n", HTTPLimits(fields=2)) == 431
        assert chunked(b"0\r\n" + b"X: y\r\n" * 3 + b"\r\n", HTTPLimits(trailers=19)) == 431
        assert chunked(b"0\r\n" + b"X: y\r\n" * 3 + b"\r\n", HTTPLimits(trailers=20)) == (b"", b"", True)


# Bytes that heads are made of, with the ones that attacks are made of among them.
FRAGMENTS = [b"GET", b" ", b"/", b"HTTP/1.1", b"\r\n", b"\r", b"\n", b"Host:", b"a", b":", b"\t", b"\x00", b"5", b"0"]
FRAGMENTS += [b"Content-Length: 1", b"Transfer-Encoding: chunked", b"http://", b"*", b"%41", b";", b"=", b'"', b"\xff"]
LINES = [b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", HOST, b"X: y\r\n", b"\r\n", b"Content-Length: 5\r\n"]
soup = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.sampled_from(LINES)), max_size=12).map(b"".join)


@given(soup, st.integers(1, 7))
def test_the_verdict_on_a_head_does_not_depend_on_how_it_was_cut(data: bytes, size: int) -> None:
    limits = HTTPLimits(request_line=30, head=80, fields=3)
    assert read_head(pieces(data, size), limits) == read_head([data] if data else [], limits)


@given(soup, st.integers(1, 7))
def test_the_verdict_on_chunks_does_not_depend_on_how_they_were_cut(data: bytes, size: int) -> None:
    limits = HTTPLimits(chunk_line=12, chunk_extensions=20, trailers=30, fields=2, body=1000)
    assert decode(ChunkedDecoder(limits), pieces(data, size)) == decode(ChunkedDecoder(limits), [data] if data else [])


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.binary(max_size=20), st.integers(1, 60))
def test_what_was_chunked_comes_out_again(chunks: list[bytes], trailing: bytes, size: int) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n" + trailing
    assert decode(ChunkedDecoder(LIMITS), pieces(data, size)) == (b"".join(chunks), trailing, True)
