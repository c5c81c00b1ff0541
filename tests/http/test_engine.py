"""The parsers of heads: what `http.wire` accepts, every engine reads alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.http.engine import Engine, H11Engine, default_engine
from asyncnet.http.httptools_engine import HttptoolsEngine
from asyncnet.http.limits import HTTPLimits
from asyncnet.http.wire import HeadReader, ordinary_head

ENGINES = [H11Engine, HttptoolsEngine]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    made: Engine = request.param()
    return made


def test_httptools_is_used_where_it_is_installed() -> None:
    assert isinstance(default_engine(), HttptoolsEngine)


def test_a_head_is_read(engine: Engine) -> None:
    head = engine.parse_head(b"POST /x?y HTTP/1.1\r\nHost: a\r\nX-Y:  z \r\nCONTENT-LENGTH: 5\r\n\r\n")
    assert head == ("POST", b"/x?y", "1.1", [(b"host", b"a"), (b"x-y", b"z"), (b"content-length", b"5")])


LINES = [
    b"GET / HTTP/1.1",
    b"GET / HTTP/1.0",
    b"FROBNICATE / HTTP/1.1",
    b"PRI / HTTP/1.1",
    b"DESCRIBE / HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"CONNECT a:443 HTTP/1.1",
    b"GET http://a/b HTTP/1.1",
    b"M-SEARCH /?[]{}|^`\\ HTTP/1.1",
]
FIELDS = [
    b"",
    b"Connection: close\r\n",
    b"Connection: Upgrade, keep-alive\r\nUpgrade: h2c\r\n",
    b"Content-Length: 1000000\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: Chunked\r\n",
    b"Transfer-Encoding:\tCHUNKED\t\r\n",
    b"X-Empty:\r\nX: \xe4\xff\r\n",
    b"Keep-Alive: 5\r\nProxy-Connection: x\r\nExpect: 100-continue\r\n",
]


def test_no_head_gets_in_the_way_of_the_next(engine: Engine) -> None:
    """One parser serves all connections, whatever their heads announced or asked for."""
    for before in LINES:
        for fields in FIELDS:
            for line in LINES:
                for raw in (
                    before + b"\r\nHost: a\r\n" + fields + b"\r\n",
                    line + b"\r\nHost: a\r\nX: y\r\n\r\n",
                ):
                    assert engine.parse_head(raw) == H11Engine().parse_head(raw)


names = st.sampled_from(
    ["X-A", "accept", "Cookie", "upgrade", "connection", "expect", "keep-alive", "proxy-connection"]
)
values = st.one_of(
    st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20),
    st.sampled_from(["close", "keep-alive", "Upgrade", "h2c", "websocket", "close, upgrade", "100-continue"]),
)


@given(
    st.sampled_from(["GET", "HEAD", "OPTIONS", "POST", "X!#$%&'*+-.^_`|~1"]),
    st.sampled_from(["/", "/a?b=[]{}|^`\\", "http://a", "http://[::1]:1/x?"]),
    st.sampled_from(["1.0", "1.1"]),
    st.lists(st.tuples(names, values), max_size=5),
    st.sampled_from(["", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"]),
)
def test_what_the_strict_check_accepts_all_engines_understand_alike(
    method: str, target: str, version: str, fields: list[tuple[str, str]], framing: str
) -> None:
    if version == "1.0" and "chunked" in framing:
        framing = ""
    lines = [f"{method} {target} HTTP/{version}", "Host: a", *(f"{name}:{value}" for name, value in fields)]
    raw = ("\r\n".join(lines) + "\r\n" + framing + "\r\n").encode("latin-1")
    assert HeadReader(HTTPLimits()).feed(raw) is not None
    expected = [(name.lower().encode(), value.encode("latin-1").strip(b" \t")) for name, value in fields]
    for make in ENGINES:
        got_method, got_target, got_version, headers = make().parse_head(raw)
        assert (got_method, got_target, got_version) == (method, target.encode(), version)
        assert headers[1 : len(fields) + 1] == expected


class TestOrdinaryHeads:
    """The quick answer agrees with the careful one, and is only given where nothing more is to be looked at."""

    @pytest.mark.parametrize(
        "fields",
        [
            b"Host: a\r\n",
            b"X: y\r\nhost:a:80\r\nZ: \r\n",
            b"Host: a\r\nConnection: keep-alive\r\n",
            b"Host: [::1]:80 \r\nconnection:\tKeep-Alive \r\n",
        ],
    )
    def test_an_ordinary_head_ends_where_it_ends(self, fields: bytes) -> None:
        raw = b"GET /x HTTP/1.1\r\n" + fields + b"\r\n"
        for trailing in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x00"):
            assert ordinary_head(raw + trailing, HTTPLimits()) == len(raw)
        assert all(ordinary_head(raw[:end], HTTPLimits()) == 0 for end in range(len(raw)))

    @pytest.mark.parametrize(
        "raw",
        [
            b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 0\r\n\r\n",
            b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n x\r\n\r\n",
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
            b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    )
    def test_everything_else_is_left_to_the_careful_reader(self, raw: bytes) -> None:
        assert ordinary_head(raw, HTTPLimits()) == 0

    def test_limits_hold(self) -> None:
        raw = b"GET /1234567890 HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
        assert ordinary_head(raw, HTTPLimits(fields=2, head=len(raw), request_line=26)) == len(raw)
        for limits in (HTTPLimits(fields=1), HTTPLimits(head=len(raw) - 1), HTTPLimits(request_line=25)):
            assert ordinary_head(raw, limits) == 0

    @given(st.binary(max_size=30), st.sampled_from([b"Host: a\r\n", b"hOsT:a\r\nX: y\r\n"]), st.binary(max_size=30))
    def test_what_passes_here_passes_there(self, one: bytes, fields: bytes, other: bytes) -> None:
        raw = b"GET / HTTP/1.1\r\n" + one + fields + other + b"\r\n\r\n"
        end = ordinary_head(raw, HTTPLimits())
        if end:
            result = HeadReader(HTTPLimits()).feed(raw)
            assert result is not None
            assert (result[0].raw, result[0].length, result[1]) == (raw[:end], 0, raw[end:])
