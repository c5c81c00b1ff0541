"""Headers, requests and responses as an application meets them."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator

import pytest

from asyncnet.errors import LocalProtocolError
from asyncnet.http.messages import Headers, Request, Response
from asyncnet.http.wire import RequestError


class TestHeaders:
    def test_names_are_found_in_any_case(self) -> None:
        headers = Headers({"Content-Type": "text/plain"})
        assert headers["content-TYPE"] == "text/plain"
        assert "CONTENT-TYPE" in headers
        assert "accept" not in headers
        with pytest.raises(KeyError):
            headers["accept"]

    def test_fields_keep_their_order_and_may_repeat(self) -> None:
        headers = Headers([("Set-Cookie", "a=1"), ("X", "y"), (b"set-cookie", b"b=2")])
        assert headers.get_all("Set-Cookie") == ["a=1", "b=2"]
        assert list(headers) == [("set-cookie", "a=1"), ("x", "y"), ("set-cookie", "b=2")]
        assert len(headers) == 3

    def test_repeated_fields_read_as_one_list(self) -> None:
        assert Headers([("Accept", "a"), ("Accept", "b")]).get("accept") == "a, b"
        assert Headers().get("accept", "none") == "none"

    def test_setting_replaces_and_deleting_removes_every_field_of_the_name(self) -> None:
        headers = Headers([("A", "1"), ("B", "2"), ("a", "3")])
        headers["A"] = "4"
        assert list(headers) == [("b", "2"), ("a", "4")]
        del headers["B"]
        del headers["missing"]
        headers.setdefault("a", "5")
        headers.setdefault("c", "6")
        assert headers == Headers({"a": "4", "c": "6"})

    @pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\rb", "a\0b", "\x1b[1m", "\x7f", "€"])
    def test_a_value_that_would_split_the_message_is_refused(self, value: str) -> None:
        headers = Headers({"X": "before"})
        with pytest.raises(LocalProtocolError):
            headers.add("X", value)
        with pytest.raises(LocalProtocolError):
            headers["X"] = value
        assert list(headers) == [("x", "before")]

    @pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "ä", "a\0"])
    def test_a_name_that_is_no_token_is_refused(self, name: str) -> None:
        with pytest.raises(LocalProtocolError):
            Headers({name: "value"})

    def test_bytes_go_through_as_they_are(self) -> None:
        headers = Headers([("X", b"caf\xc3\xa9"), ("Y", "é")])
        assert headers.raw == [(b"x", b"caf\xc3\xa9"), (b"y", b"\xe9")]


class TestRequest:
    def test_the_target_is_taken_apart(self) -> None:
        request = Request("GET", "/a%20b/%C3%A4%2f?x=%31?", Headers({"Host": "example.com:80"}))
        assert request.raw_path == "/a%20b/%C3%A4%2f"
        assert request.path == "/a b/ä/"
        assert request.query == "x=%31?"
        assert request.host == "example.com:80"

    def test_the_path_is_decoded_once(self) -> None:
        assert Request("GET", "/%2541", Headers()).path == "/%41"

    def test_bytes_that_are_no_utf_8_survive_in_the_path(self) -> None:
        assert Request("GET", "/%ff", Headers()).path.encode("utf-8", "surrogateescape") == b"/\xff"

    @pytest.mark.parametrize(
        ("target", "host", "path", "query"),
        [
            ("http://other.example:81/x/y?z", "other.example:81", "/x/y", "z"),
            ("HTTPS://[::1]?q=/", "[::1]", "/", "q=/"),
            ("http://other.example", "other.example", "/", ""),
        ],
    )
    def test_an_absolute_target_names_the_host(self, target: str, host: str, path: str, query: str) -> None:
        request = Request("GET", target, Headers({"Host": "example.com"}))
        assert (request.host, request.path, request.query) == (host, path, query)

    def test_an_asterisk_is_its_own_path(self) -> None:
        assert Request("OPTIONS", "*", Headers()).path == "*"

    async def test_a_body_is_read_up_to_a_limit(self) -> None:
        async def body() -> AsyncIterator[bytes]:
            yield b"hello"
            yield b", world"

        assert await Request("POST", "/", Headers(), body=body()).read() == b"hello, world"
        assert await Request("POST", "/", Headers(), body=body()).read(limit=12) == b"hello, world"
        with pytest.raises(RequestError) as caught:
            await Request("POST", "/", Headers(), body=body()).read(limit=11)
        assert caught.value.status == 413

    async def test_a_body_that_comes_in_tiny_pieces_costs_no_more_memory(self) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(50_000):
                yield number.to_bytes(2, "big")

        request = Request("POST", "/", Headers(), body=pieces())
        tracemalloc.start()
        try:
            assert len(await request.read()) == 100_000
            assert tracemalloc.get_traced_memory()[1] < 300_000
        finally:
            tracemalloc.stop()

    async def test_a_request_made_by_hand_has_no_body(self) -> None:
        assert await Request("GET", "/", Headers()).read() == b""


class TestResponse:
    def test_text_html_and_json_say_what_they_are(self) -> None:
        assert Response.text("ä").body == "ä".encode()
        assert Response.text("x").headers["content-type"] == "text/plain; charset=utf-8"
        assert Response.html("x").headers["content-type"] == "text/html; charset=utf-8"
        assert Response.json({"ä": 1}).body == '{"ä": 1}'.encode()
        assert Response.json(1).headers["content-type"] == "application/json"

    def test_a_type_that_was_given_stays(self) -> None:
        response = Response.json({}, 422, {"Content-Type": "application/problem+json"})
        assert response.headers["content-type"] == "application/problem+json"
        assert response.status == 422

    def test_a_redirect_has_a_location(self) -> None:
        response = Response.redirect("/elsewhere", 303)
        assert (response.status, response.headers["location"]) == (303, "/elsewhere")
        with pytest.raises(LocalProtocolError):
            Response.redirect("/x\r\nSet-Cookie: a=b")

    @pytest.mark.parametrize("status", [100, 101, 199, 0, 600])
    def test_a_status_that_ends_no_exchange_is_refused(self, status: int) -> None:
        with pytest.raises(LocalProtocolError):
            Response(status)
