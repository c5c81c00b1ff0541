"""The parsers of request heads: h11, which is always there, and httptools (llhttp), used where it is installed.

An engine is given a head only after `http.wire` has accepted every byte of it, and sees nothing else: `http.wire`
frames bodies and `http.framing` writes responses for all engines alike. So no parser decides where a message ends, and
engines cannot disagree about it. Used by `http.server`.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import h11

from asyncnet.http.wire import RequestError

RequestHead: TypeAlias = tuple[str, bytes, str, list[tuple[bytes, bytes]]]
"""Method, target, HTTP version ("1.1") and headers, their names in small letters and no blanks around their values."""


class Engine(Protocol):
    """What the server needs of a parser. One serves all connections of a handler: it keeps nothing between calls."""

    def parse_head(self, raw: bytes) -> RequestHead:
        """Read a head that `http.wire` has accepted. Raises RequestError for what the parser refuses nevertheless."""

    def parse_ordinary_head(self, raw: bytes) -> RequestHead:
        """The same for one of which `wire.ordinary_head` is sure: the hot path."""


class H11Engine:
    """`Engine` with h11 as its parser."""

    def parse_head(self, raw: bytes) -> RequestHead:
        connection = h11.Connection(h11.SERVER, len(raw) + 1)
        try:
            connection.receive_data(raw)
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise RequestError(error.error_status_hint, str(error)) from None
        if not isinstance(event, h11.Request):
            raise RequestError(400, "the parser found no request in the head")
        return event.method.decode("ascii"), event.target, event.http_version.decode("ascii"), list(event.headers)

    parse_ordinary_head = parse_head


def default_engine() -> Engine:
    """The fastest engine that is installed."""
    try:
        from asyncnet.http.httptools_engine import HttptoolsEngine
    except ImportError:
        return H11Engine()
    return HttptoolsEngine()
