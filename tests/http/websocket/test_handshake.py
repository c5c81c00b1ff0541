"""The opening handshake, from both sides: RFC 6455 section 4."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.http.messages import Headers, Request
from asyncnet.http.websocket.deflate import DeflateSettings, Extension
from asyncnet.http.websocket.handshake import (
    ANY_ORIGIN,
    SAME_ORIGIN,
    Offer,
    Opening,
    OpeningError,
    accept_key,
    is_upgrade,
    read_extensions,
    read_opening,
    read_tokens,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
FIELDS = {
    "host": "example.com",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": KEY,
    "sec-websocket-version": "13",
}


def request(method: str = "GET", http_version: str = "1.1", **changes: str | None) -> Request:
    fields = {**FIELDS, **{name.replace("_", "-"): value for name, value in changes.items()}}
    pairs = [(name, value) for name, value in fields.items() if value is not None]
    return Request(method, "/chat", Headers(pairs), http_version=http_version)


def opening(**changes: str | None) -> Opening:
    return read_opening(request(**changes))


def test_the_key_is_answered_as_in_the_rfc() -> None:
    assert accept_key(KEY) == ACCEPT
    fields, agreed = opening().accept()
    assert list(fields) == [("sec-websocket-accept", ACCEPT)]
    assert (agreed.subprotocol, agreed.deflate) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"connection": "keep-alive, Upgrade"},  # as Firefox has it
        {"upgrade": "WebSocket"},
        {"upgrade": "h2c, websocket"},
        {"content_length": "0"},
        {"origin": "https://example.com"},
    ],
)
def test_what_opens_a_websocket(changes: dict[str, str]) -> None:
    assert opening(**changes).key == KEY


REFUSED = [
    ("a plain request", {"upgrade": None, "connection": None}, 426),
    ("no Upgrade", {"upgrade": None}, 426),
    ("another protocol", {"upgrade": "h2c"}, 426),
    ("no Connection", {"connection": None}, 426),
    ("Connection without the option", {"connection": "keep-alive"}, 426),
    ("POST", {"method": "POST"}, 405),
    ("HEAD", {"method": "HEAD"}, 405),
    ("HTTP/1.0", {"http_version": "1.0"}, 400),
    ("a body", {"content_length": "5"}, 400),
    ("a body in chunks", {"transfer_encoding": "chunked"}, 400),
    ("no version", {"sec_websocket_version": None}, 426),
    ("an old version", {"sec_websocket_version": "8"}, 426),
    ("two versions", {"sec_websocket_version": "13, 8"}, 426),
    ("the version in another form", {"sec_websocket_version": "013"}, 426),
    ("no key", {"sec_websocket_key": None}, 400),
    ("an empty key", {"sec_websocket_key": ""}, 400),
    ("a short key", {"sec_websocket_key": "aGVsbG8="}, 400),
    ("a key of 17 bytes", {"sec_websocket_key": base64.b64encode(bytes(17)).decode()}, 400),
    ("a key that is no base64", {"sec_websocket_key": "!" * 22 + "=="}, 400),
    ("a key that is no ASCII", {"sec_websocket_key": "ü" * 22 + "=="}, 400),
    ("two keys", {"sec_websocket_key": f"{KEY}, {KEY}"}, 400),
    ("a subprotocol with a space", {"sec_websocket_protocol": "chat v2"}, 400),
    ("a subprotocol with a quote", {"sec_websocket_protocol": 'chat, "x"'}, 400),
    ("a subprotocol twice", {"sec_websocket_protocol": "chat, chat"}, 400),
    ("an extension without a name", {"sec_websocket_extensions": "; x"}, 400),
    ("an extension that is garbage", {"sec_websocket_extensions": "permessage-deflate; =1"}, 400),
    ("a parameter with two values", {"sec_websocket_extensions": "a; b=1=2"}, 400),
    ("a quoted value that is no token", {"sec_websocket_extensions": 'a; b="1 2"'}, 400),
    ("an open quote", {"sec_websocket_extensions": 'a; b="1'}, 400),
    ("another site", {"origin": "https://evil.example"}, 403),
    ("another port", {"origin": "https://example.com:8443"}, 403),
    ("a page without an origin", {"origin": "null"}, 403),
    ("two origins", {"origin": "https://example.com, https://evil.example"}, 403),
    ("a name before ours", {"origin": "https://evil.example.com"}, 403),
    ("a name behind ours", {"origin": "https://example.com.evil.example"}, 403),
    ("a user that looks like us", {"origin": "https://example.com@evil.example"}, 403),
]


@pytest.mark.parametrize(("changes", "status"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_opens_none(changes: dict[str, str | None], status: int) -> None:
    with pytest.raises(OpeningError) as caught:
        read_opening(request(**changes))  # type: ignore[arg-type]
    assert caught.value.status == status
    if status == 426:
        assert caught.value.headers["upgrade"] == "websocket"


def test_the_version_that_would_be_right_is_told() -> None:
    with pytest.raises(OpeningError) as caught:
        opening(sec_websocket_version="8")
    assert caught.value.headers["sec-websocket-version"] == "13"


def test_fields_that_come_twice_are_refused() -> None:
    for name in ("sec-websocket-key", "sec-websocket-version", "origin"):
        twice = request(origin="https://example.com")
        twice.headers.add(name, twice.headers[name])
        with pytest.raises(OpeningError):
            read_opening(twice)


class TestOrigins:
    @pytest.mark.parametrize(
        ("origin", "host"),
        [
            ("http://example.com", "example.com"),
            ("http://EXAMPLE.com", "example.COM:80"),
            ("https://example.com", "example.com:443"),
            ("http://localhost:8000", "localhost:8000"),
            ("http://[::1]:8000", "[::1]:8000"),
        ],
    )
    def test_the_host_that_is_asked_is_welcome(self, origin: str, host: str) -> None:
        assert read_opening(request(origin=origin, host=host), origins=SAME_ORIGIN)

    def test_origins_that_are_named_are_welcome_and_no_others(self) -> None:
        origins = ["https://app.example", "https://other.example/"]
        for origin in ("https://app.example", "https://OTHER.example"):
            assert read_opening(request(origin=origin), origins=origins)
        for origin in ("https://example.com", "http://app.example", "null"):
            with pytest.raises(OpeningError):
                read_opening(request(origin=origin), origins=origins)

    def test_the_same_origin_may_stand_beside_others_and_a_list_may_be_empty(self) -> None:
        for origin in ("https://example.com", "https://app.example"):
            assert read_opening(request(origin=origin), origins={*SAME_ORIGIN, "https://app.example"})
            with pytest.raises(OpeningError):
                read_opening(request(origin=origin), origins=[])
        with pytest.raises(OpeningError):
            read_opening(request(origin="same-origin"), origins=SAME_ORIGIN)

    def test_one_name_instead_of_a_list_is_an_error(self) -> None:
        with pytest.raises(TypeError, match="origins is a list"):
            read_opening(request(origin="https://a.example"), origins="https://a.example")
        with pytest.raises(TypeError, match="subprotocols is a list"):
            opening(sec_websocket_protocol="chat").choose("chat")

    def test_all_origins_are_welcome_where_that_is_said(self) -> None:
        for origin in ("https://evil.example", "null"):
            assert read_opening(request(origin=origin), origins=ANY_ORIGIN)

    def test_a_program_names_none(self) -> None:
        assert read_opening(request(), origins=["https://app.example"])


class TestAnswer:
    def test_the_first_subprotocol_that_both_speak_is_chosen_in_the_servers_order(self) -> None:
        asked = opening(sec_websocket_protocol="a, b,c")
        assert asked.subprotocols == ("a", "b", "c")
        assert asked.choose(["x", "c", "a"]) == "c"
        assert asked.choose(["x"]) is None
        fields, agreed = asked.accept("c")
        assert fields["sec-websocket-protocol"] == agreed.subprotocol == "c"

    @pytest.mark.parametrize("name", ["d", "a\r\nset-cookie: x=1", "", "a, b"])
    def test_a_subprotocol_that_was_not_offered_is_not_sent(self, name: str) -> None:
        with pytest.raises(LocalProtocolError):
            opening(sec_websocket_protocol="a, b").accept(name)

    def test_headers_come_on_top_but_not_those_of_the_handshake(self) -> None:
        fields, _ = opening().accept(headers={"set-cookie": "a=1"})
        assert fields["set-cookie"] == "a=1"
        for name in ("sec-websocket-accept", "Sec-WebSocket-Protocol", "Upgrade", "content-length"):
            with pytest.raises(LocalProtocolError, match="for the handshake itself"):
                opening().accept(headers={name: "x"})
        with pytest.raises(LocalProtocolError, match="control character"):
            opening().accept(headers={"x": "a\r\nb: c"})

    def test_compression_is_agreed_unless_it_is_switched_off(self) -> None:
        asked = opening(sec_websocket_extensions="x-other, permessage-deflate; client_max_window_bits")
        fields, agreed = asked.accept()
        assert agreed.deflate is not None
        assert fields["sec-websocket-extensions"] == agreed.deflate.header
        fields, agreed = asked.accept(deflate=None)
        assert (agreed.deflate, "sec-websocket-extensions" in fields) == (None, False)


def test_is_upgrade_tells_what_asks_for_a_websocket() -> None:
    assert is_upgrade(request(sec_websocket_version="8"))
    assert not is_upgrade(request(upgrade=None))


# The grammars


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        (" , ,", []),
        ("a", [Extension("a", ())]),
        ("a , b;c", [Extension("a", ()), Extension("b", (("c", None),))]),
        ('a; b=1 ;c="2" , d', [Extension("a", (("b", "1"), ("c", "2"))), Extension("d", ())]),
        ("a b", None),
        ("a;", None),
        ("a;b=", None),
        ('a;b=""', None),
        ("=1", None),
    ],
)
def test_extensions_are_read(value: str, expected: list[Extension] | None) -> None:
    assert read_extensions(value) == expected


names = st.text("abcXYZ019-_.", min_size=1, max_size=8)
extensions = st.builds(Extension, names, st.lists(st.tuples(names, st.one_of(st.none(), names)), max_size=4).map(tuple))


@given(st.lists(extensions, max_size=4), st.booleans())
def test_extensions_that_are_written_are_read_again(found: list[Extension], quoted: bool) -> None:
    def write(name: str, value: str | None) -> str:
        return name if value is None else f'{name}="{value}"' if quoted else f"{name}={value}"

    text = ", ".join("; ".join([name, *(write(*pair) for pair in pairs)]) for name, pairs in found)
    assert read_extensions(text) == found


@given(st.text(max_size=100))
def test_no_field_raises_anything(value: str) -> None:
    read_extensions(value)
    read_tokens(value)


@pytest.mark.parametrize("value", ["a;" * 20_000, "a;b=1" * 10_000, "a," * 20_000, 'a;b="' * 10_000, " " * 50_000])
def test_hostile_fields_cost_no_more_than_their_length(value: str) -> None:
    read_extensions(value)
    read_tokens(value)


# The client's side


def offer(**options: object) -> Offer:
    return Offer(base64.b64decode(KEY), host="example.com", **options)  # type: ignore[arg-type]


ANSWER = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": ACCEPT}


class TestClient:
    def test_what_it_asks_opens_a_websocket(self) -> None:
        asked = offer(subprotocols=["a", "b"], origin="https://example.com", headers={"cookie": "x=1"})
        opened = read_opening(Request("GET", "/", asked.headers))
        assert (opened.key, opened.subprotocols) == (KEY, ("a", "b"))
        fields, ours = opened.accept("b")
        theirs = asked.read_answer(Headers({**ANSWER, **dict(fields)}))
        assert theirs.subprotocol == ours.subprotocol == "b"
        assert theirs.deflate is not None
        assert ours.deflate is not None
        assert (theirs.deflate.own_bits, theirs.deflate.peer_bits) == (ours.deflate.peer_bits, ours.deflate.own_bits)

    @pytest.mark.parametrize(
        "changes",
        [
            {"sec-websocket-accept": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="},
            {"sec-websocket-accept": ""},
            {"upgrade": "h2c"},
            {"upgrade": "websocket, h2c"},
            {"connection": "close"},
            {"sec-websocket-protocol": "other"},
            {"sec-websocket-protocol": "a, b"},
            {"sec-websocket-protocol": ""},
            {"sec-websocket-extensions": "x-unasked"},
            {"sec-websocket-extensions": "permessage-deflate, permessage-deflate"},
            {"sec-websocket-extensions": "permessage-deflate; server_max_window_bits=99"},
            {"sec-websocket-extensions": "permessage-deflate;;"},
        ],
    )
    def test_answers_that_are_none_are_refused(self, changes: dict[str, str]) -> None:
        with pytest.raises(RemoteProtocolError):
            offer(subprotocols=["a", "b"]).read_answer(Headers({**ANSWER, **changes}))

    def test_an_extension_that_was_not_offered_is_refused(self) -> None:
        answer = Headers({**ANSWER, "sec-websocket-extensions": "permessage-deflate"})
        assert offer().read_answer(answer).deflate is not None
        with pytest.raises(RemoteProtocolError, match="not offered"):
            offer(deflate=None).read_answer(answer)
        with pytest.raises(RemoteProtocolError, match="not offered"):
            offer(deflate=DeflateSettings(context_takeover=False)).read_answer(answer)

    @pytest.mark.parametrize(
        "options",
        [
            {"subprotocols": ["a b"]},
            {"subprotocols": ["a", "a"]},
            {"subprotocols": ["a\r\nx: y"]},
            {"headers": {"Host": "other"}},
            {"headers": {"sec-websocket-key": KEY}},
            {"headers": {"x": "a\r\nb: c"}},
            {"origin": "a\nb"},
        ],
    )
    def test_what_would_spoil_the_request_is_refused(self, options: dict[str, object]) -> None:
        with pytest.raises(LocalProtocolError):
            offer(**options)

    def test_one_name_instead_of_a_list_is_an_error(self) -> None:
        with pytest.raises(TypeError, match=r"\['chat'\]"):
            offer(subprotocols="chat")
