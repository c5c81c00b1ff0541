"""The PROXY protocol, versions 1 and 2: who really connected, told by the proxy in front of us.

Follows HAProxy's `doc/proxy-protocol.txt`, sections 2.1 (version 1, a line) and 2.2 (version 2, binary). Pure: the
socket transport reads what `parse_proxy_header` asks for, and not a byte more, because what follows the header
belongs to TLS or to the protocol above. Whether a peer is trusted to send a header at all is the service's business.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.transports.address import Address

FIRST_READ = 15
"""The length of the shortest header, "PROXY UNKNOWN\\r\\n"."""
MAX_V1 = 107
"""The longest line, CRLF included (section 2.1)."""
MAX_V2 = 4096
"""Ours: with room for certificates' names and unique ids in TLVs, where the length field would allow 64 KiB."""

_V1_START = b"PROXY "
_V2_START = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = struct.Struct("!12sBBH")  # signature; version and command; family and transport; length of the rest
_V2_INET = struct.Struct("!4s4sHH")
_V2_INET6 = struct.Struct("!16s16sHH")
_V2_UNIX = struct.Struct("!108s108s")
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A whole header. Both ends are None where the real peer counts: UNKNOWN, LOCAL and UNSPEC.

    `size` is how many bytes the header takes.
    """

    source: Address | None
    destination: Address | None
    size: int


def parse_proxy_header(data: bytes) -> ProxyHeader | int:
    """Read the header that `data` begins with, or tell how many bytes of it to have in all before asking again.

    Reading up to that count never takes a byte of what follows the header. Raises RemoteProtocolError as soon as
    `data` cannot become a header.
    """
    if data[:12] == _V2_START[: len(data)]:
        return _parse_v2(data) if len(data) >= FIRST_READ else FIRST_READ
    if data[:6] == _V1_START[: len(data)]:
        return _parse_v1(data) if len(data) >= FIRST_READ else FIRST_READ
    raise RemoteProtocolError("the connection does not begin with a PROXY header")


def _parse_v1(data: bytes) -> ProxyHeader | int:
    line, crlf, _ = data[:MAX_V1].partition(b"\r\n")
    if b"\n" in line or b"\r" in line.removesuffix(b"\r") or (crlf and line.endswith(b"\r")):
        raise RemoteProtocolError("a PROXY line ends in CRLF, with no other CR or LF in it")
    if not crlf:
        if len(data) >= MAX_V1:
            raise RemoteProtocolError(f"a PROXY line is longer than {MAX_V1} bytes")
        return len(data) + 1
    size = len(line) + 2
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return ProxyHeader(None, None, size)
    try:
        _, family, source, destination, source_port, destination_port = line.decode("ascii").split(" ")
        ip = {"TCP4": ipaddress.IPv4Address, "TCP6": _ipv6}[family]
        return ProxyHeader(
            Address.of_ip(str(ip(source)), _port(source_port)),
            Address.of_ip(str(ip(destination)), _port(destination_port)),
            size,
        )
    except (ValueError, KeyError):
        raise RemoteProtocolError("a PROXY line is malformed") from None


def _ipv6(text: str) -> ipaddress.IPv6Address:
    if "%" in text:
        raise ValueError("a scope means nothing on another machine")
    return ipaddress.IPv6Address(text)


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise ValueError("not a port")
    return int(text)


def _parse_v2(data: bytes) -> ProxyHeader | int:
    version, command = data[12] >> 4, data[12] & 15
    family, transport = data[13] >> 4, data[13] & 15
    if version != 2 or command > 1:
        raise RemoteProtocolError("a PROXY header has an unknown version or command")
    if len(data) < _V2_FIXED.size:
        return _V2_FIXED.size
    size = _V2_FIXED.size + int.from_bytes(data[14:16])
    if size > MAX_V2:
        raise RemoteProtocolError(f"a PROXY header is longer than {MAX_V2} bytes")
    if len(data) < size:
        return size
    if command == 0:  # LOCAL: the proxy itself connected, for a health check. The family counts for nothing.
        return ProxyHeader(None, None, size)
    if family > 3 or transport > 2:
        raise RemoteProtocolError("a PROXY header has an unknown address family or transport")
    if family == 0 or transport == 0:
        return ProxyHeader(None, None, size)
    # A datagram's addresses count too: proxies that speak QUIC to their clients send them over TCP to us. What
    # stands behind the addresses is TLVs, which may be skipped.
    layout = (_V2_INET, _V2_INET6, _V2_UNIX)[family - 1]
    block = data[_V2_FIXED.size : size]
    if len(block) < layout.size:
        raise RemoteProtocolError("a PROXY header is too short for its addresses")
    if family == 3:
        paths = layout.unpack_from(block)
        return ProxyHeader(_unix_address(paths[0]), _unix_address(paths[1]), size)
    source, destination, source_port, destination_port = layout.unpack_from(block)
    return ProxyHeader(
        Address.of_ip(str(ipaddress.ip_address(source)), source_port),
        Address.of_ip(str(ipaddress.ip_address(destination)), destination_port),
        size,
    )


def _unix_address(field: bytes) -> Address:
    """The address in a field padded with NUL; "" for an unnamed or abstract socket."""
    return Address(path=field.partition(b"\0")[0].decode("utf-8", "surrogateescape"))


def format_v1(source: Address, destination: Address) -> bytes:
    """The line to send. It says UNKNOWN where the ends are not on an IP network.

    An IPv4 end whose other end is IPv6 is written as a mapped IPv6 address, since a header has one family for both.
    Raises LocalProtocolError for one end on an IP network and the other not.
    """
    ends = _ip_ends(source, destination)
    if ends is None:
        return b"PROXY UNKNOWN\r\n"
    family = f"TCP{ends[0].version}"
    return f"PROXY {family} {_text(ends[0])} {_text(ends[1])} {source.port} {destination.port}\r\n".encode("ascii")


def format_v2(source: Address, destination: Address) -> bytes:
    """The binary header to send, with no TLVs. Ends with no network at all (a memory pair) are sent as UNSPEC.

    Mixed families are treated as in `format_v1`. Raises LocalProtocolError too for a path above 108 bytes.
    """
    ends = _ip_ends(source, destination)
    if ends is not None:
        layout = _V2_INET if ends[0].version == 4 else _V2_INET6
        block = layout.pack(ends[0].packed, ends[1].packed, source.port, destination.port)
        return _v2(0x11 if ends[0].version == 4 else 0x21, block)
    if source.path is None or destination.path is None:
        return _v2(0x00, b"")
    paths = [path.encode("utf-8", "surrogateescape") for path in (source.path, destination.path)]
    if any(len(path) > 108 for path in paths):
        raise LocalProtocolError("the path of a Unix socket is too long for a PROXY header")
    return _v2(0x31, _V2_UNIX.pack(*paths))


def _v2(family: int, block: bytes) -> bytes:
    return _V2_FIXED.pack(_V2_START, 0x21, family, len(block)) + block


_IPEnd = ipaddress.IPv4Address | ipaddress.IPv6Address


def _ip_ends(source: Address, destination: Address) -> tuple[_IPEnd, _IPEnd] | None:
    """Both ends in one family; None if neither is on an IP network."""
    if source.host is None and destination.host is None:
        return None
    if source.host is None or destination.host is None:
        raise LocalProtocolError(f"a PROXY header cannot say that {source} connected to {destination}")
    ends = ipaddress.ip_address(source.host), ipaddress.ip_address(destination.host)
    if ends[0].version == ends[1].version:
        return ends
    return _mapped(ends[0]), _mapped(ends[1])


def _text(end: _IPEnd) -> str:
    """`end` in groups of hexadecimal digits alone if it is IPv6: the header knows no other way to write that."""
    text = str(end)
    if end.version == 6 and "." in text:  # Python from 3.13 on writes a mapped address so
        high, low = struct.unpack("!HH", end.packed[12:])
        text = f"::ffff:{high:x}:{low:x}"
    return text


def _mapped(end: _IPEnd) -> ipaddress.IPv6Address:
    return end if end.version == 6 else ipaddress.IPv6Address(bytes(10) + b"\xff\xff" + end.packed)
