"""`HttptoolsEngine`: request heads parsed by httptools, which is llhttp, the parser of Node.js.

One parser serves all connections of a handler, since heads are parsed whole and at once. After most heads llhttp wants
something that it does not get: a body, or after `Connection: close` nothing at all. So it is used again only after
ordinary heads; every other head gets a parser of its own.

llhttp knows a fixed list of methods, some of them for other protocols alone, and calls the rest invalid. They are not
(RFC 9110 section 9.1): what it refuses although `http.wire` has accepted it, h11 reads instead. So both engines give
the same verdict.
"""

from __future__ import annotations

import httptools

from asyncnet.http.engine import H11Engine, RequestHead


class HttptoolsEngine:
    """`Engine` with httptools as its parser."""

    def __init__(self) -> None:
        self._h11 = H11Engine()
        self._collector = _Collector()
        self._parser = httptools.HttpRequestParser(self._collector)

    def parse_ordinary_head(self, raw: bytes) -> RequestHead:
        collector, parser = self._collector, self._parser
        headers: list[tuple[bytes, bytes]] = []
        collector.headers = headers
        try:
            parser.feed_data(raw)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._parser = httptools.HttpRequestParser(collector)
            return self.parse_head(raw)
        return parser.get_method().decode("ascii"), collector.target, "1.1", headers

    def parse_head(self, raw: bytes) -> RequestHead:
        collector = _Collector()
        parser = httptools.HttpRequestParser(collector)
        try:
            parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass  # whether the protocol changes, the application says
        except httptools.HttpParserError:
            return self._h11.parse_head(raw)
        # h11 writes the one coding that there is in small letters.
        fields = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in collector.headers]
        return parser.get_method().decode("ascii"), collector.target, parser.get_http_version(), fields


class _Collector:
    """What httptools calls while it parses."""

    __slots__ = ("headers", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.target = url  # whole: heads are fed whole

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))
