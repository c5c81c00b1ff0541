"""One HTTP/1.x connection on the server's side, without I/O: the interface that the server drives, and h11 behind it.

An engine takes one message at a time and gives back what lies behind it, so that read-ahead bytes stay in the one
buffer that `Stream` is. What every engine shares is in `http.wire`: `HeadReader` accepts a head before the engine's
parser sees a byte of it, and the body decoders take the framing off request bodies. So no parser decides where a
message ends, and engines cannot disagree about it. What an engine has of its own is the reading of an accepted head
and the writing of a response.

Used by `http.server`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

import h11

from asyncnet.errors import LocalProtocolError
from asyncnet.http.limits import HTTPLimits
from asyncnet.http.messages import Headers, reason
from asyncnet.http.wire import BodyDecoder, HeadReader, LengthDecoder, RequestError, body_decoder

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestHead(NamedTuple):
    """A request without its body."""

    method: str
    target: str
    http_version: str
    headers: Headers


class Engine(Protocol):
    """What the server needs of an HTTP/1.x engine. One serves a connection, message after message."""

    def receive_head(self, data: bytes) -> tuple[RequestHead, bytes] | None:
        """Take what arrived of a request's head: the head and what lies behind it, or None while more is needed.

        Raises RequestError; the connection is good for one error answer then.
        """

    @property
    def body_ended(self) -> bool:
        """Whether the whole body of the current request has been taken."""

    @property
    def body_left(self) -> int | None:
        """How many bytes of the body are still to come; None where nobody knows."""

    def receive_body(self, data: bytes) -> tuple[bytes, bytes]:
        """Take what arrived of the request's body: the content in it, and what lies behind the body."""

    def send_head(self, status: int, headers: Headers) -> bytes:
        """The bytes of a final response's head; framing is added where `headers` has none.

        Raises LocalProtocolError, here and below, for what would break the protocol.
        """

    def send_data(self, data: bytes) -> bytes:
        """The bytes of a piece of the response's body, framed."""

    def pass_data(self, count: int) -> None:
        """`count` bytes of the body go past the engine; the response has a Content-Length."""

    def send_end(self) -> bytes:
        """The bytes that end the response."""

    def next_message(self) -> bool:
        """Make ready for the next request. False if the connection must close after this response."""


class _Passing:
    """Stands for bytes that are sent without being in memory: h11 asks only how many there are."""

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


class H11Engine:
    """`Engine` with h11 as its parser and its writer.

    h11 never sees a request's body, so that each message gets an h11 connection of its own, from its head to the end
    of its response. It still keeps the rules of the response: which framing, how many bytes, whether the connection
    can go on.
    """

    __slots__ = ("_body", "_h11", "_head", "_limits")
    _h11: h11.Connection  # there while a message is at hand: idle connections are many

    def __init__(self, limits: HTTPLimits) -> None:
        self._limits = limits
        self._head = HeadReader(limits)
        self._body: BodyDecoder = LengthDecoder(0)

    def receive_head(self, data: bytes) -> tuple[RequestHead, bytes] | None:
        result = self._head.feed(data)
        if result is None:
            return None
        head, rest = result
        self._h11 = h11.Connection(h11.SERVER, self._limits.head)
        try:
            self._h11.receive_data(head.raw)
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise RequestError(error.error_status_hint, str(error)) from None
        if not isinstance(event, h11.Request):
            raise RequestError(400, "the parser found no request in the head")
        self._body = body_decoder(head, self._limits)
        request = RequestHead(
            event.method.decode("ascii"),
            event.target.decode("ascii"),
            event.http_version.decode("ascii"),
            Headers.checked(list(event.headers)),
        )
        return request, rest

    @property
    def body_ended(self) -> bool:
        return self._body.ended

    @property
    def body_left(self) -> int | None:
        return self._body.remaining if isinstance(self._body, LengthDecoder) else None

    def receive_body(self, data: bytes) -> tuple[bytes, bytes]:
        return self._body.feed(data)

    def send_head(self, status: int, headers: Headers) -> bytes:
        try:
            return self._send(h11.Response(status_code=status, headers=headers.raw, reason=reason(status)))
        except h11.LocalProtocolError as error:
            raise LocalProtocolError(str(error)) from None

    def send_data(self, data: bytes) -> bytes:
        return self._send(h11.Data(data=data))

    def pass_data(self, count: int) -> None:
        self._send_pieces(h11.Data(data=cast(bytes, _Passing(count))))

    def send_end(self) -> bytes:
        return self._send(h11.EndOfMessage())

    def _send(self, event: h11.Event) -> bytes:
        return b"".join(self._send_pieces(event))

    def _send_pieces(self, event: h11.Event) -> list[bytes]:
        try:
            return self._h11.send_with_data_passthrough(event) or []
        except h11.LocalProtocolError as error:
            raise LocalProtocolError(str(error)) from None

    def next_message(self) -> bool:
        if self._h11.our_state is not h11.DONE or not self._body.ended:
            return False
        del self._h11
        self._head = HeadReader(self._limits)
        return True
