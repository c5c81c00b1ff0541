"""What every transport offers to `Stream`, on top of what Trio asks of a stream.

A transport is a complete `trio.abc.HalfCloseableStream` of its own, and passes Trio's stream checks. What it adds:

- it says what it is: `local`, `peer`, `tls`, `can_half_close`, and by its type whether it has `sendfile`;
- a synchronous half, `receive_now` and `send_now`, with the waits that belong to it: so `Stream` always knows which
  bytes have left, pays for a schedule only when it must wait, and waits in its own frame;
- `wake`, which ends the wait of a receive, without a cancel scope for each receive;
- `abort`, which closes so that the peer sees a reset and never a clean end.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from asyncnet.transports.address import NOWHERE, Address

if TYPE_CHECKING:
    import ssl

    from asyncnet.transports.certificates import ServerTLS

Data: TypeAlias = bytes | bytearray | memoryview

RECEIVE_SIZE = 65536
"""The most that one receive asks for, in bytes, unless it is told otherwise."""


class Woken(Exception):
    """`Transport.wake` ended a receive; no byte was taken. Never leaves asyncnet."""


class TruncatedError(trio.BrokenResourceError):
    """The connection ended without TLS's closing message: somebody on the way may have cut it off."""


class TLSInfo:
    """What a finished handshake settled. It lives as long as the connection."""

    __slots__ = ("_object", "alpn", "server_name", "version")

    def __init__(self, object: ssl.SSLSocket | trio.SSLStream[Any], server_name: str | None = None) -> None:
        self._object = object
        self.version: str = object.version() or ""
        """The protocol, such as "TLSv1.3"."""
        self.alpn: str | None = object.selected_alpn_protocol()
        """The application protocol that both sides agreed on, or None."""
        self.server_name = server_name
        """The name that the client asked for (SNI), or None; a server knows it where it has a `ServerTLS`."""

    @property
    def cipher(self) -> str:
        """The cipher suite's name."""
        cipher = self._object.cipher()
        return cipher[0] if cipher else ""

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session, to be offered again by a client's next connection."""
        return self._object.session

    @property
    def context(self) -> ssl.SSLContext:
        """What it was made in: another connection can go on with the session there."""
        return self._object.context

    @property
    def session_reused(self) -> bool:
        return bool(self._object.session_reused)

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's certificate in DER form, or None if it showed none."""
        return self._object.getpeercert(True)

    @property
    def peer_certificate_pem(self) -> str | None:
        """The same in PEM form."""
        import ssl

        certificate = self.peer_certificate
        return None if certificate is None else ssl.DER_cert_to_PEM_cert(certificate)


class Transport(trio.abc.HalfCloseableStream):
    """A byte stream beneath a `Stream`. See the module's docstring."""

    __slots__ = ("__weakref__", "_hop", "_local", "_peer", "tls")

    can_half_close: bool = False
    """Whether `send_eof` works. False over TLS."""

    can_batch: bool = False
    """Whether `send_now` concerns the kernel alone, so that sends may be batched: see `asyncnet.batching`."""

    can_cancel_send: bool = False
    """Whether a cancelled `send_some` has certainly sent nothing."""

    def __init__(self, local: Address | None, peer: Address | None, tls: TLSInfo | None = None) -> None:
        self._local = local
        self._peer = peer
        self._hop: tuple[Address, Address] | None = None  # where others stand in for it
        self.tls = tls

    @property
    def local(self) -> Address:
        """This end."""
        return self._local or NOWHERE

    @property
    def peer(self) -> Address:
        """The other end."""
        return self._peer or NOWHERE

    @property
    def hop(self) -> tuple[Address, Address]:
        """This end and the other one as the network sees them, whatever a proxy has told."""
        return self._hop or (self.local, self.peer)

    def undelivered(self) -> int:
        """How many bytes the peer's side has not confirmed yet, as far as the system tells; else 0."""
        return 0

    def cork(self, on: bool) -> None:
        """With it on, what is sent leaves in full segments; off again, the rest leaves. Where there is such a thing."""

    def take_urgent_inline(self) -> None:
        """Receive TCP's urgent data in its place among the others, where there is such a thing."""

    def stand_in(self, local: Address, peer: Address) -> None:
        """From now on these are the ends: a trusted proxy has told."""
        self._hop = self.hop
        self._local = local
        self._peer = peer

    @abstractmethod
    def wait_receivable(self, max_bytes: int) -> Coroutine[Any, Any, None]:
        """Wait until `receive_now(max_bytes)` is worth a try; always a checkpoint; cancelled, no byte is lost.

        Raises `trio.ClosedResourceError` also when `wake` ended the wait: `is_open` tells the two apart.
        """

    @abstractmethod
    def receive_now(self, max_bytes: int) -> bytes | None:
        """What has arrived, at most `max_bytes`; b"" is the end; None: nothing yet, wait again. Not a checkpoint."""

    def receive_into_now(self, buffer: memoryview) -> int | None:
        """The same into `buffer`, as much as is there; returns how many bytes: 0 is the end."""
        data = self.receive_now(len(buffer))
        if data is None:
            return None
        buffer[: len(data)] = data
        return len(data)

    @abstractmethod
    def wake(self) -> None:
        """End the wait for something to receive, if there is one at this moment."""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether it has not been closed on this side."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As in `trio.abc.ReceiveStream`. Raises `Woken` when `wake` ends the wait."""
        size = checked_size(max_bytes)
        while True:
            try:
                await self.wait_receivable(size)
            except trio.ClosedResourceError:
                if self.is_open:
                    raise Woken from None
                raise
            data = self.receive_now(size)
            if data is not None:
                return data

    @abstractmethod
    def send_now(self, data: Data) -> int:
        """Send what can be sent without waiting, and return how many bytes that was; 0 means that it must wait.

        After 0 the next send has to begin with the same bytes, and must not be shorter. Not a checkpoint.
        """

    @abstractmethod
    async def send_some(self, data: Data) -> int:
        """Wait until some of `data` has been sent, and return how many bytes, at least 1.

        Cancelled, it has sent nothing if `can_cancel_send`; else nobody knows.
        """

    @abstractmethod
    async def abort(self) -> None:
        """Close without waiting for anything; over a socket the peer sees a reset. Does its work even if cancelled."""


def checked_size(max_bytes: int | None) -> int:
    """The `max_bytes` of a receive, checked as Trio's stream contract asks."""
    if max_bytes is None:
        return RECEIVE_SIZE
    if not isinstance(max_bytes, int):
        raise TypeError(f"max_bytes must be an integer, not {type(max_bytes).__name__}")
    if max_bytes < 1:
        raise ValueError("max_bytes must be at least 1")
    return max_bytes


class Listener(trio.abc.Listener[Transport]):
    """Where connections come from. `accept` is Trio's; a service takes them in bursts by `accept_now`."""

    __slots__ = ()

    endpoint: str
    """Where it listens, with the port that it really has."""
    tls: ssl.SSLContext | ServerTLS | None = None
    """What each connection begins with, before its handler; None: in the clear."""

    @abstractmethod
    def accept_now(self) -> Transport | None:
        """A connection that waits to be accepted, or None. Raises OSError when the system has no room for it."""

    @abstractmethod
    async def wait(self) -> None:
        """Wait until a connection may be there."""

    async def accept(self) -> Transport:
        while True:
            await self.wait()
            transport = self.accept_now()
            if transport is not None:
                return transport
