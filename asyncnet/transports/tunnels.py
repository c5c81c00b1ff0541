"""The client's side of proxies: a stream to the proxy becomes a stream to the host behind it.

SOCKS5 (RFC 1928, with the passwords of RFC 1929) and HTTP CONNECT (RFC 9110 section 9.3.6, with Basic credentials,
RFC 7617). `asyncnet.endpoints.connect` uses it. Names go to the proxy as they are, for socks5:// as for socks5h://:
looking them up here would tell the local network where one connects.

Each answer is read exactly to its end. What the host says first (an SMTP greeting, say) may arrive in the same
segment, and stays in the stream for whoever reads next.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from asyncnet.errors import EndOfStream, EndpointError, IncompleteRead, LimitExceeded, LocalProtocolError, TunnelError
from asyncnet.printable import printable
from asyncnet.transports.authority import (
    format_authority,
    name_problem,
    parse_authority,
    percent_decode,
    refuse_unprintable,
)

if TYPE_CHECKING:
    from asyncnet.stream import Stream

MAX_HEAD = 16 * 1024
"""Bytes of an HTTP proxy's answers in all, up to the end of the last head."""

_Target: TypeAlias = str | ipaddress.IPv4Address | ipaddress.IPv6Address


class ProxyKind(enum.Enum):
    SOCKS5 = "socks5"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class ProxyURL:
    """Where a proxy is and who we are to it. Made by `parse_proxy`; its text and its repr keep the password out.

    Raises LocalProtocolError for a user or a password that the proxy's protocol cannot carry.
    """

    kind: ProxyKind
    host: str
    port: int
    user: str | None = None
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.user is None:
            return
        if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", self.user + self.password):
            raise LocalProtocolError("a control character or lone surrogate stands in the proxy's user or password")
        if self.kind is ProxyKind.SOCKS5:
            if not all(1 <= len(text.encode()) <= 255 for text in (self.user, self.password)):
                raise LocalProtocolError("user and password for SOCKS5 have 1 to 255 bytes each")
        elif ":" in self.user:
            raise LocalProtocolError("a user for an HTTP proxy has no colon")

    def __str__(self) -> str:
        return f"{self.kind.value}://{format_authority(self.host, self.port)}"


_PREFIXES = {"socks5://": ProxyKind.SOCKS5, "socks5h://": ProxyKind.SOCKS5, "http://": ProxyKind.HTTP}


def parse_proxy(text: str) -> ProxyURL:
    """Read `socks5://[user:password@]host:port`, `socks5h://…` or `http://…`; user and password percent-encoded.

    One slash behind the port passes, as it stands in many `http_proxy` variables. Raises EndpointError for every
    other string; it shows asterisks instead of user and password.
    """
    try:
        return _parse_proxy(text)
    except EndpointError as error:
        scheme = text.find("://")
        start, end = (scheme + 3 if scheme >= 0 else 0), text.rfind("@")
        if end <= start:
            raise
        position = error.position - (end - start) + 3 if error.position >= end else min(error.position, start)
        raise EndpointError(f"{text[:start]}***{text[end:]}", position, error.problem) from None


def _parse_proxy(text: str) -> ProxyURL:
    refuse_unprintable(text)
    prefix = next((prefix for prefix in _PREFIXES if text.startswith(prefix)), None)
    if prefix is None:
        raise EndpointError(text, 0, f"a proxy begins with one of {', '.join(_PREFIXES)}")
    start, end, at = len(prefix), len(text.removesuffix("/")), text.rfind("@")
    if at < 0:
        return ProxyURL(_PREFIXES[prefix], *parse_authority(text, start, end))
    colon = text.find(":", start, at)
    if colon <= start:
        raise EndpointError(text, start, "user:password stands before the @")
    user, password = percent_decode(text, start, colon), percent_decode(text, colon + 1, at)
    host, port = parse_authority(text, at + 1, end)
    try:
        return ProxyURL(_PREFIXES[prefix], host, port, user, password)
    except LocalProtocolError as error:
        raise EndpointError(text, start, str(error)) from None


async def open_tunnel(stream: Stream, proxy: ProxyURL, host: str, port: int) -> None:
    """Ask the proxy at the other end of `stream` for a connection to `host`; afterwards the stream is that connection.

    `host` is a name or a numeric address without brackets. The caller sets the time limit, and closes the stream if
    this raises or is cancelled: the stream is then good for nothing. Raises LocalProtocolError, with nothing sent,
    for a host or port that cannot be asked for; TunnelError if the proxy refuses or does not speak its protocol.
    """
    target = _target(host, port)
    try:
        match proxy.kind:
            case ProxyKind.SOCKS5:
                await _open_socks5(stream, proxy, target, port)
            case ProxyKind.HTTP:
                await _open_http(stream, proxy, format_authority(str(target), port))
    except (EndOfStream, IncompleteRead) as error:
        raise TunnelError("the proxy closed the connection before the tunnel was open") from error
    except LimitExceeded as error:
        raise TunnelError(f"the proxy's answer has no end within {MAX_HEAD} bytes") from error


def _target(host: str, port: int) -> _Target:
    if not 1 <= port <= 65535:
        raise LocalProtocolError(f"a port to connect to is from 1 to 65535, not {port}")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        problem = name_problem(host)
        if problem is not None:
            raise LocalProtocolError(f"{host!a}: {problem}") from None
        return host
    if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id is not None:
        raise LocalProtocolError(f"{host}: an interface of this machine means nothing to a proxy")
    return ip


# SOCKS5. RFC 1928 sections 3 (greeting), 4 (request), 6 (reply); RFC 1929 section 2 (user and password).

_VERSION = 5
_CONNECT = 1
_NO_AUTHENTICATION, _USER_PASSWORD, _NONE_ACCEPTABLE = 0, 2, 0xFF
_IPV4, _NAME, _IPV6 = 1, 3, 4
_REPLIES = {
    1: "general failure of the proxy",
    2: "not allowed by the proxy's rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "command not supported",
    8: "address type not supported",
}


async def _open_socks5(stream: Stream, proxy: ProxyURL, target: _Target, port: int) -> None:
    methods = [_NO_AUTHENTICATION] if proxy.user is None else [_NO_AUTHENTICATION, _USER_PASSWORD]
    await stream.send_all(bytes([_VERSION, len(methods), *methods]))
    version, method = await stream.receive_exactly(2)
    _check_version(version)
    if method == _NONE_ACCEPTABLE:
        wants = "another way to log in" if proxy.user is not None else "a user and a password"
        raise TunnelError(f"the proxy wants {wants}")
    if method not in methods:
        raise TunnelError(f"the proxy chose a way to log in that was not offered, {method}")
    if method == _USER_PASSWORD and proxy.user is not None:
        await _log_in(stream, proxy.user, proxy.password)
    await stream.send_all(bytes([_VERSION, _CONNECT, 0]) + _socks5_address(target) + port.to_bytes(2, "big"))
    version, reply, _, kind = await stream.receive_exactly(4)
    _check_version(version)
    if reply != 0:
        words = _REPLIES.get(reply, "a reason unknown to RFC 1928")
        raise TunnelError(f"the proxy did not connect to {format_authority(str(target), port)}: {words} ({reply})")
    # The address that the proxy connects from follows. It is of no use here, but has to be read to its end.
    if kind == _NAME:
        size = (await stream.receive_exactly(1))[0]
    elif kind in (_IPV4, _IPV6):
        size = 4 if kind == _IPV4 else 16
    else:
        raise TunnelError(f"the proxy's reply has an unknown address type, {kind}")
    await stream.receive_exactly(size + 2)


async def _log_in(stream: Stream, user: str, password: str) -> None:
    name, secret = user.encode(), password.encode()
    with stream.secret():
        await stream.send_all(bytes([1, len(name)]) + name + bytes([len(secret)]) + secret)
    version, status = await stream.receive_exactly(2)
    if version != 1:
        raise TunnelError(f"the proxy answered the password in version {version} instead of 1")
    if status != 0:
        raise TunnelError("the proxy refused the user or the password")


def _check_version(version: int) -> None:
    if version != _VERSION:
        raise TunnelError(f"this is no SOCKS5 proxy: it answered with version {version}")


def _socks5_address(target: _Target) -> bytes:
    if isinstance(target, str):
        name = target.encode("ascii")
        return bytes([_NAME, len(name)]) + name
    return bytes([_IPV4 if target.version == 4 else _IPV6]) + target.packed


# HTTP CONNECT. RFC 9110 section 9.3.6: a 2xx answer has no body, whatever its fields say; the tunnel begins right
# behind its head. RFC 9112 section 4: the status line.

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: .*)?")


async def _open_http(stream: Stream, proxy: ProxyURL, authority: str) -> None:
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.user is not None:
        credentials = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {credentials}")
    with stream.secret() if proxy.user is not None else contextlib.nullcontext():
        await stream.send_all("\r\n".join([*lines, "", ""]).encode("ascii"))
    left = MAX_HEAD
    while left > 0:
        head = await stream.receive_until(b"\r\n\r\n", limit=left)
        left -= len(head)
        line = head.partition(b"\r\n")[0]
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise TunnelError(f"this is no HTTP proxy: it answered {printable(line[:200].decode('latin-1'))}")
        status = int(match[1])
        if 200 <= status < 300:
            return
        if status >= 300 or status == 101:
            raise TunnelError(f"the proxy did not connect to {authority}: {printable(line[:200].decode('latin-1'))}")
    raise LimitExceeded(MAX_HEAD)
