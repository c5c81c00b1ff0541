"""What a TLS client asks for, read from its ClientHello before the handshake begins.

The `ssl` module does not tell a server that ALPN was offered without a match, nor lets it refuse a name before it
answers; so the TLS transport peeks at the hello, asks this module, and either starts the handshake on the untouched
bytes or sends one of the alerts below. Follows RFC 8446 sections 4.1.2 and 5.1 (5246 alike), RFC 6066 section 3
(server_name) and RFC 7301 section 3.1 (ALPN). Pure.

The bytes are the peer's, unauthenticated and perhaps hostile: every length is checked against what encloses it, and
the whole hello is bounded by `MAX_CLIENT_HELLO`.
"""

from __future__ import annotations

from dataclasses import dataclass

from asyncnet.errors import RemoteProtocolError

MAX_CLIENT_HELLO = 16 * 1024
"""Bytes, record headers included. Browsers' hellos with post-quantum keys take about 2 KiB."""
MAX_RECORDS = 64
"""Real hellos take one or two; without a bound, thousands of one-byte records would cost more than a handshake."""

UNRECOGNIZED_NAME = b"\x15\x03\x03\x00\x02\x02\x70"
"""The record that refuses the server name: fatal, 112 (RFC 6066 section 3)."""
NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"
"""The record that refuses every protocol offered: fatal, 120 (RFC 7301 section 3.2)."""

_HANDSHAKE = 22
_MAJOR_VERSION = 3
_CLIENT_HELLO = 1
_BEGINNING = {0: _HANDSHAKE, 1: _MAJOR_VERSION, 5: _CLIENT_HELLO}
"""The bytes by which a hello is known, at their places in its first record."""
_RECORD_HEADER = 5
_MAX_FRAGMENT = 1 << 14
_SERVER_NAME = 0
_ALPN = 16
_SUPPORTED_VERSIONS = 43


@dataclass(frozen=True, slots=True)
class ClientHello:
    """The part of a hello that a server decides by.

    `server_name` is in lower case, None if the client named none. `alpn` holds the protocols in the client's order,
    None if it did not send the extension. `versions` are those offered, as numbers (0x0304 is TLS 1.3).
    """

    server_name: str | None
    alpn: tuple[bytes, ...] | None
    versions: tuple[int, ...]


def parse_client_hello(data: bytes) -> ClientHello | int:
    """Read the hello that `data` begins with, or tell how many bytes to have in all, at least, before asking again.

    For b"" it tells the count to begin with. Whole records are asked for, as the handshake needs them too. Raises
    RemoteProtocolError as soon as `data` cannot become a hello of at most MAX_CLIENT_HELLO bytes and MAX_RECORDS
    records.
    """
    if any(data[at] != byte for at, byte in _BEGINNING.items() if at < len(data)):
        raise RemoteProtocolError("the connection does not begin with a TLS ClientHello")
    message = bytearray()
    position = records = 0
    while (missing := _missing(message)) > 0:
        records += 1
        if records > MAX_RECORDS:
            raise RemoteProtocolError(f"a TLS ClientHello is in more than {MAX_RECORDS} records")
        # What is missing needs one more record at least, with its header.
        start = position + _RECORD_HEADER
        least = _bounded(start + missing)
        if len(data) < start:
            return least
        if data[position] != _HANDSHAKE or data[position + 1] != _MAJOR_VERSION:
            raise RemoteProtocolError("something else interrupts the TLS ClientHello")
        length = int.from_bytes(data[position + 3 : start])
        if not 1 <= length <= _MAX_FRAGMENT:
            raise RemoteProtocolError("a record of the TLS ClientHello has an impossible length")
        position = _bounded(start + length)
        if len(data) < position:
            return position if length >= missing else _bounded(position + _RECORD_HEADER + missing - length)
        message += data[start:position]
    size = 4 + int.from_bytes(message[1:4])
    return _parse_body(_Reader(bytes(message[4:size])))


def _missing(message: bytearray) -> int:
    """How many bytes of the handshake message are still to come, as far as its beginning tells."""
    return 4 + (int.from_bytes(message[1:4]) if len(message) >= 4 else 0) - len(message)


def _bounded(size: int) -> int:
    if size > MAX_CLIENT_HELLO:
        raise RemoteProtocolError(f"a TLS ClientHello is longer than {MAX_CLIENT_HELLO} bytes")
    return size


class _Reader:
    """The fields of a TLS structure one after the other (RFC 8446 section 3); it never reads past its end."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._position < len(self._data)

    def take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise RemoteProtocolError("a field of the TLS ClientHello reaches past its end")
        piece = self._data[self._position : end]
        self._position = end
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, length_size: int, least: int = 1) -> _Reader:
        """The vector whose length stands in `length_size` bytes before it."""
        length = self.number(length_size)
        if length < least:
            raise RemoteProtocolError("a list in the TLS ClientHello is too short")
        return _Reader(self.take(length))

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._position)

    def end(self) -> None:
        if self:
            raise RemoteProtocolError("a field of the TLS ClientHello is longer than what it holds")


def _parse_body(body: _Reader) -> ClientHello:
    legacy_version = body.number(2)
    body.take(32)  # random
    body.vector(1, least=0)  # session id
    body.vector(2, least=2)  # cipher suites
    body.vector(1)  # compression methods
    extensions = _parse_extensions(body.vector(2, least=0)) if body else {}
    body.end()
    server_name = extensions.get(_SERVER_NAME)
    alpn = extensions.get(_ALPN)
    versions = extensions.get(_SUPPORTED_VERSIONS)
    return ClientHello(
        None if server_name is None else _parse_server_name(server_name),
        None if alpn is None else _parse_alpn(alpn),
        (legacy_version,) if versions is None else _parse_versions(versions),
    )


def _parse_extensions(reader: _Reader) -> dict[int, _Reader]:
    extensions: dict[int, _Reader] = {}
    while reader:
        kind = reader.number(2)
        if kind in extensions:
            raise RemoteProtocolError("the TLS ClientHello has an extension twice")
        extensions[kind] = reader.vector(2, least=0)
    return extensions


def _parse_server_name(extension: _Reader) -> str:
    """The one name of the list: RFC 6066 has defined no other kind, and no list with two of a kind."""
    names = extension.vector(2)
    extension.end()
    kind = names.number(1)
    name = names.vector(2).rest()
    names.end()
    if kind != 0 or len(name) > 255 or not all(0x21 <= byte <= 0x7E for byte in name):
        raise RemoteProtocolError("the server name in the TLS ClientHello is no host name")
    return name.decode("ascii").lower()


def _parse_alpn(extension: _Reader) -> tuple[bytes, ...]:
    names = extension.vector(2)
    extension.end()
    protocols = []
    while names:
        protocols.append(names.vector(1).rest())
    return tuple(protocols)


def _parse_versions(extension: _Reader) -> tuple[int, ...]:
    numbers = extension.vector(1, least=2)
    extension.end()
    versions = []
    while numbers:
        versions.append(numbers.number(2))
    return tuple(versions)
