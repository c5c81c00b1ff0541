"""What leaves: heads, framing, and what is refused before a byte of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import LocalProtocolError
from asyncnet.http import framing as framing_module
from asyncnet.http.framing import ResponseFraming

DATE = b"date: now\r\n"


def framing(method: str = "GET", version: str = "1.1", keeps_alive: bool = True) -> ResponseFraming:
    return ResponseFraming(method, version, keeps_alive)


def head(fields: list[Any], status: int = 200, length: int | None = None, **options: Any) -> list[bytes]:
    """The lines of a head without the status line and the blank one."""
    raw = framing(**options).frame_head(status, fields, DATE, length=length)
    assert raw.endswith(b"\r\n\r\n")
    return raw[:-4].split(b"\r\n")[1:]


class TestHeads:
    def test_the_status_line_has_the_registered_phrase(self) -> None:
        assert framing().frame_head(404, (), DATE, length=0).startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert framing().frame_head(299, (), DATE, length=0).startswith(b"HTTP/1.1 299 \r\n")

    def test_a_length_that_is_known_is_told(self) -> None:
        assert head([], length=5) == [b"date: now", b"content-length: 5"]
        assert head([(b"Content-Length", b"5")], length=5) == [b"date: now", b"Content-Length: 5"]
        assert head([(b"content-length", b"5")]) == [b"date: now", b"content-length: 5"]

    def test_without_a_length_it_goes_in_chunks_or_ends_with_the_connection(self) -> None:
        assert head([]) == [b"date: now", b"transfer-encoding: chunked"]
        assert head([], version="1.0") == [b"date: now", b"connection: close"]

    def test_a_date_of_the_applications_stays(self) -> None:
        assert head([(b"Date", b"then")], length=0) == [b"date: then", b"content-length: 0"]

    @pytest.mark.parametrize("pair", [tuple, list])
    def test_each_response_has_its_own_fields_however_like_the_last_ones(self, pair: Any) -> None:
        assert head([pair((b"x-name", b"one"))], length=0)[1] == b"x-name: one"
        assert head([pair((b"x-name", b"two"))], length=0)[1] == b"x-name: two"
        assert head([pair((b"X-Name", b"two"))], length=0)[1] == b"X-Name: two"
        value = bytearray(b"one")
        fields = [pair((b"x-name", value))]
        assert head(fields, length=0)[1] == b"x-name: one"
        value[:] = b"two"
        assert head(fields, length=0)[1] == b"x-name: two"

    def test_what_is_remembered_of_heads_has_a_bound(self) -> None:
        for number in range(3 * framing_module.KNOWN):
            head([(b"etag", b"%d" % number)], length=0)
            assert len(framing_module._known_blocks) <= framing_module.KNOWN
        before = len(framing_module._known_blocks)
        assert head([(b"x", b"y" * framing_module.KNOWN_SIZE)], length=0)
        assert len(framing_module._known_blocks) == before

    def test_framing_and_keeping_alive_are_the_servers(self) -> None:
        fields = [
            (b"transfer-encoding", b"gzip, chunked"),
            (b"Keep-Alive", b"timeout=5"),
            (b"connection", b"keep-alive"),
        ]
        assert head(fields, length=0) == [b"date: now", b"content-length: 0"]

    def test_an_application_may_end_the_connection(self) -> None:
        fields = [(b"connection", b"Close, Upgrade"), (b"upgrade", b"h2c")]
        assert head(fields, length=0)[1:] == [
            b"connection: upgrade",
            b"upgrade: h2c",
            b"content-length: 0",
            b"connection: close",
        ]

    @pytest.mark.parametrize("extra", [b"x", b"date", b"connection"])
    def test_fields_may_be_had_only_once(self, extra: bytes) -> None:
        """As from the generators that ASGI allows."""
        fields = [(b"content-type", b"text/plain"), (extra, b"y")]
        for status in (200, 204):
            assert framing().frame_head(status, iter(fields), DATE) == framing().frame_head(status, fields, DATE)
            whole = framing().frame_whole(status, iter(fields), DATE, b"x")
            assert whole == framing().frame_whole(status, fields, DATE, b"x")
            assert b"content-type: text/plain\r\n" in whole

    @pytest.mark.parametrize(("status", "lines"), [(204, []), (304, [b"content-length: 5"])])
    def test_statuses_without_content(self, status: int, lines: list[bytes]) -> None:
        assert head([(b"content-length", b"5")], status)[1:] == lines
        assert head([], status, length=5)[1:] == []

    @pytest.mark.parametrize("fields", [[], [(b"content-length", b"5")], [(b"Content-Length", b"0")]])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("length", [None, 5])
    def test_reset_content_has_none_and_says_so(
        self, method: str, fields: list[tuple[bytes, bytes]], length: int | None
    ) -> None:
        """RFC 9110 section 15.3.6. Clients that know it would take what follows for the next response."""
        made = framing(method)
        lines = made.frame_head(205, fields, DATE, length=length).split(b"\r\n")
        assert [line for line in lines if b":" in line and line + b"\r\n" != DATE] == [b"content-length: 0"]
        assert made.frame_data(b"hello") + made.frame_last() == b""

    def test_an_answer_to_head_tells_the_length_and_has_no_body(self) -> None:
        made = framing("HEAD")
        assert b"content-length: 5\r\n" in made.frame_head(200, (), DATE, length=5)
        assert made.frame_data(b"hello") + made.frame_last() == b""
        assert made.body_bytes == 0

    @pytest.mark.parametrize(
        "fields",
        [
            [(b"x", b"a\r\nb: c")],
            [(b"x", b"a\nb: c")],
            [(b"x", b"a\rb")],
            [(b"x", b"a\x00")],
            [(b"x y", b"a")],
            [(b"", b"a")],
            [(b"x:", b"a")],
            [(b"x: y", b"a")],
            [(b"content-length: 5", b"")],
            [(b"transfer-encoding: chunked", b"")],
            [(b"x\0y", b"a")],
            [(b"x\0y\r\nz", b"a")],
            [(b"x\r\ny", b"a")],
            [(b"content-length", b"five")],
            [(b"content-length", b"-5")],
            [(b"content-length", b"5\r\nx: y")],
            [(b"content-length", b"5"), (b"Content-Length", b"5")],
            [(b"date", b"a\r\nb: c")],
            [(b"connection", b"x\r\ny: z")],
        ],
    )
    def test_what_would_break_the_message_is_refused(self, fields: list[tuple[bytes, bytes]]) -> None:
        for method in ("GET", "HEAD"):
            for status in (200, 204, 304):
                with pytest.raises(LocalProtocolError):
                    framing(method).frame_head(status, fields, DATE)
        with pytest.raises(LocalProtocolError):
            framing().frame_whole(200, fields, DATE, b"12345")
        if fields[0][0] != b"content-length":
            with pytest.raises(LocalProtocolError):
                framing().frame_switching(fields)

    @pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 1000])
    def test_what_is_no_final_status_is_refused(self, status: int) -> None:
        with pytest.raises(LocalProtocolError):
            framing().frame_head(status, (), DATE)
        with pytest.raises(LocalProtocolError):
            framing().frame_whole(status, (), DATE, b"")


names = st.sampled_from([b"x-a", b"Content-Length", b"connection", b"date", b"transfer-encoding", b"x", b"dat", b"b@d"])
values = st.one_of(st.sampled_from([b"5", b"close", b"keep-alive", b"chunked", b""]), st.binary(max_size=4))


@given(
    st.sampled_from(["GET", "HEAD"]),
    st.sampled_from(["1.0", "1.1"]),
    st.booleans(),
    st.sampled_from([200, 204, 205, 304, 404, 299, 101]),
    st.lists(st.tuples(names, values), max_size=4),
    st.sampled_from([b"", b"hello"]),
)
def test_a_whole_response_is_what_its_parts_are(
    method: str, version: str, keeps_alive: bool, status: int, fields: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """The quick way says the same as the three steps, and refuses the same."""
    whole, parts = framing(method, version, keeps_alive), framing(method, version, keeps_alive)
    try:
        expected = parts.frame_head(status, fields, DATE, length=len(body)) + parts.frame_last(body)
    except LocalProtocolError:
        with pytest.raises(LocalProtocolError):
            whole.frame_whole(status, fields, DATE, body)
    else:
        assert whole.frame_whole(status, fields, DATE, body) == expected
        for name in ("status", "ended", "keeps_alive", "body_bytes"):
            assert getattr(whole, name) == getattr(parts, name)


class TestBodies:
    def test_chunks(self) -> None:
        made = framing()
        made.frame_head(200, (), DATE)
        assert made.frame_data(b"hello") == b"5\r\nhello\r\n"
        assert made.frame_data(b"") == b""
        assert made.frame_passing(16) == (b"10\r\n", b"\r\n")
        assert made.frame_last(b"", [(b"X-A", b"1")]) == b"0\r\nx-a: 1\r\n\r\n"
        assert (made.ended, made.body_bytes, made.keeps_alive) == (True, 21, True)

    def test_trailers_that_would_break_the_message_are_refused(self) -> None:
        made = framing()
        made.frame_head(200, (), DATE)
        with pytest.raises(LocalProtocolError):
            made.frame_last(b"", [(b"x", b"a\r\n\r\nHTTP/1.1 200 OK")])

    @pytest.mark.parametrize(
        "name",
        [b"Content-Length", b"transfer-encoding", b"HOST", b"Connection", b"Set-Cookie", b"trailer", b"If-Match"],
    )
    def test_fields_that_have_no_place_in_trailers_are_refused(self, name: bytes) -> None:
        made = framing()
        made.frame_head(200, (), DATE)
        with pytest.raises(LocalProtocolError, match="forbidden in trailers"):
            made.frame_last(b"x", [(b"x-a", b"1"), (name, b"5")])
        assert not made.ended
        assert made.frame_last(b"", [(b"X-Content-Length", b"5")]) == b"0\r\nx-content-length: 5\r\n\r\n"

    def test_an_end_that_was_refused_has_not_happened(self) -> None:
        """An application that goes on after the exception must not leave the client with half a message."""
        made = framing()
        made.frame_head(200, (), DATE)
        with pytest.raises(LocalProtocolError):
            made.frame_last(b"x", [(b"x", b"\n")])
        assert (made.ended, made.body_bytes) == (False, 0)
        assert made.frame_last(b"x") == b"1\r\nx\r\n0\r\n\r\n"
        made = framing()
        made.frame_head(200, (), DATE, length=10)
        with pytest.raises(LocalProtocolError, match="5 bytes fewer"):
            made.frame_last(b"12345")
        with pytest.raises(LocalProtocolError, match="1 bytes more"):
            made.frame_data(b"x" * 11)
        assert (made.ended, made.body_bytes) == (False, 0)
        assert made.frame_last(b"x" * 10) == b"x" * 10

    def test_a_body_that_is_no_bytes_has_not_begun(self) -> None:
        made = framing()
        body: Any = "text"
        with pytest.raises(TypeError):
            made.frame_whole(200, (), DATE, body)
        assert (made.status, made.ended, made.body_bytes) == (0, False, 0)

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    @pytest.mark.parametrize("length", [None, 5])
    def test_whatever_holds_bytes_is_a_piece(self, kind: Any, length: int | None) -> None:
        made = framing()
        made.frame_head(200, (), DATE, length=length)
        pieces = made.frame_data(kind(b"he")) + made.frame_last(kind(b"llo"))
        assert pieces == (b"hello" if length else b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
        assert framing().frame_whole(200, (), DATE, kind(b"hello")).endswith(b"\r\n\r\nhello")

    def test_trailers_have_no_place_behind_a_length(self) -> None:
        made = framing()
        made.frame_head(200, (), DATE, length=0)
        assert made.frame_last(b"", [(b"x", b"y")]) == b""

    def test_exactly_as_much_as_promised(self) -> None:
        made = framing()
        made.frame_head(200, [(b"content-length", b"8")], DATE)
        assert made.frame_data(b"hello") == b"hello"
        with pytest.raises(LocalProtocolError, match="fewer"):
            made.frame_last()
        with pytest.raises(LocalProtocolError, match="more"):
            made.frame_data(b"four")
        assert made.frame_passing(3) == (b"", b"")
        assert made.frame_last() == b""

    def test_one_response_a_request(self) -> None:
        made = framing()
        made.frame_head(200, (), DATE)
        for again in (made.frame_head, made.frame_whole):
            with pytest.raises(LocalProtocolError, match="begun"):
                again(200, (), DATE, **({"body": b""} if again == made.frame_whole else {}))  # type: ignore[operator]


class TestInterimResponses:
    def test_early_hints(self) -> None:
        assert (
            framing().frame_informational(103, [(b"Link", b"</a>")])
            == b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
        )

    def test_http_1_0_knows_none(self) -> None:
        assert framing(version="1.0").frame_informational(103, ()) == b""

    @pytest.mark.parametrize("status", [99, 101, 200])
    def test_other_statuses_are_refused(self, status: int) -> None:
        with pytest.raises(LocalProtocolError):
            framing().frame_informational(status, ())

    def test_none_after_the_final_one(self) -> None:
        made = framing()
        made.frame_head(200, (), DATE)
        with pytest.raises(LocalProtocolError):
            made.frame_informational(103, ())

    def test_switching_protocols_is_the_last_of_http(self) -> None:
        made = framing()
        raw = made.frame_switching([(b"Upgrade", b"x"), (b"connection", b"upgrade")])
        assert raw == b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
        assert (made.status, made.ended, made.keeps_alive) == (101, True, False)
