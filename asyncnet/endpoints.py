"""Endpoints: one notation for where to listen and where to connect.

    tcp://HOST:PORT     tls://HOST:PORT     tcp://[::1]:8080     tcp://*:8080 (both families)
    unix:PATH           fd:N                systemd:NAME (socket activation: FileDescriptorName=)
    tls+unix:PATH       tls+fd:N            tls+systemd:NAME

Options follow a question mark, `name=value` each, with `&` between them; values and paths are percent-encoded.

    reuse_port          tcp, tls    several processes listen on the port (a flag)
    backlog=N           tcp, tls, unix: what the kernel queues for accept
    mode=660            unix        permissions of the socket file, in octal
    cert=PATH           with TLS    certificate chain in PEM; the private key too, unless `key` names it
    key=PATH            with TLS    private key in PEM
    ca=PATH             with TLS    the peer's certificate is demanded and verified against these (PEM)
    alpn=h2,http/1.1    with TLS    application protocols, best first (RFC 7301)
    server_name=NAME    with TLS    the name to ask for and to verify when it is not the host (RFC 6066 section 3)

No option turns verification off: whoever needs that passes an `ssl.SSLContext`.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import trio

from asyncnet.errors import EndpointError
from asyncnet.limits import Limits, Timeouts
from asyncnet.stream import Stream
from asyncnet.transports.address import Address
from asyncnet.transports.authority import (
    format_authority,
    name_problem,
    parse_authority,
    percent_decode,
    percent_encode,
    refuse_unprintable,
)
from asyncnet.transports.base import Listener
from asyncnet.transports.certificates import ServerTLS, client_context
from asyncnet.transports.connecting import connect_tcp, connect_unix
from asyncnet.transports.listening import SocketListener, listen_descriptor, listen_systemd, listen_tcp, listen_unix
from asyncnet.transports.proxy_header import format_v1, format_v2
from asyncnet.transports.tunnels import open_tunnel, parse_proxy

if TYPE_CHECKING:
    import ssl

    from asyncnet.transports.tls import TLSContext


class Scheme(enum.Enum):
    """What carries the bytes; whether TLS runs over it is `Endpoint.tls`."""

    TCP = "tcp"
    UNIX = "unix"
    FD = "fd"
    SYSTEMD = "systemd"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint, as `parse` makes it; `str()` gives a text that parses to an equal one.

    `host` and `port` belong to TCP ("*" stands for every interface, an IPv6 address has no brackets), `path` to
    UNIX, `fd` to FD and `name` to SYSTEMD. An option that is not given is None, False or ().
    """

    scheme: Scheme
    tls: bool = False
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1
    name: str = ""
    reuse_port: bool = False
    backlog: int | None = None
    mode: int | None = None
    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    alpn: tuple[str, ...] = ()
    server_name: str | None = None

    def __str__(self) -> str:
        match self.scheme:
            case Scheme.TCP:
                place = format_authority(self.host, self.port)
            case Scheme.UNIX:
                place = percent_encode(self.path)
            case Scheme.FD:
                place = str(self.fd)
            case Scheme.SYSTEMD:
                place = percent_encode(self.name)
        given = {name: getattr(self, name) for name in _options_of(self.scheme, self.tls)}
        options = "&".join(
            f"{name}={percent_encode(_OPTIONS[name].write(value))}"
            for name, value in given.items()
            if value is not None and value is not False and value != ()
        )
        prefix = next(text for text, meaning in _PREFIXES.items() if meaning == (self.scheme, self.tls))
        return f"{prefix}{place}?{options}" if options else f"{prefix}{place}"


async def listen(
    endpoint: str,
    *,
    tls: TLSContext | None = None,
    alpn: Sequence[str] = (),
    backlog: int = Limits().backlog,
) -> list[Listener]:
    """Listen on `endpoint`; more than one listener where a name or "*" stands for several addresses.

    With `tls`, or on an endpoint that begins with tls and names a certificate, connections are to begin with a
    handshake, which `serve` sees to. `alpn` names the protocols spoken where the endpoint names none. A
    `server_name` is the only one answered to.

    Raises EndpointError for a wrong string and ConfigurationError where listening is not possible.
    """
    where = parse(endpoint)
    if where.tls:
        tls = _server_tls(where, endpoint, tls, alpn)
    size = where.backlog or backlog
    listeners: Sequence[SocketListener]
    match where.scheme:
        case Scheme.TCP:
            listeners = await listen_tcp(where.host, where.port, reuse_port=where.reuse_port, backlog=size)
        case Scheme.UNIX:
            listeners = [listen_unix(where.path, mode=where.mode, backlog=size)]
        case Scheme.FD:
            listeners = [listen_descriptor(where.fd)]
        case Scheme.SYSTEMD:
            listeners = listen_systemd(where.name)
    for listener in listeners:
        listener.lay_tls(tls)
    return list(listeners)


def _server_tls(where: Endpoint, text: str, given: TLSContext | None, alpn: Sequence[str]) -> TLSContext:
    if where.cert is not None:
        names = () if where.server_name is None else (where.server_name,)
        return ServerTLS(where.cert, where.key, client_ca=where.ca, alpn=where.alpn or alpn, names=names)
    if given is None:
        raise EndpointError(
            text, len(text), "a certificate is missing: ?cert=FILE, with &key=FILE if the key is elsewhere"
        )
    return given


async def connect(
    endpoint: str,
    *,
    tls: ssl.SSLContext | None = None,
    session: ssl.SSLSession | None = None,
    proxy: str | None = None,
    proxy_header: tuple[Address, Address] | None = None,
    proxy_version: Literal[1, 2] = 2,
    timeout: float = 30.0,
    timeouts: Timeouts = Timeouts(),
) -> Stream:
    """Connect to `endpoint` and return the stream; `timeout` in seconds is for name, connection, proxy and handshake.

    Several addresses of a name are tried as Happy Eyeballs has it (RFC 8305). On an endpoint that begins with tls the
    server's certificate is verified against the system's trust store (`ca=` names another), unless `tls` brings a
    context of its own; `session` offers to resume an earlier connection's. `proxy` is the URL of a SOCKS5 or HTTP
    proxy. `proxy_header`, a source and a destination, sends a PROXY header before anything else, by default the binary
    one of version 2.

    Raises EndpointError for a wrong string, `ConnectionError` or another `OSError` if it does not succeed
    (`ssl.SSLError` in the handshake, `TunnelError` at the proxy), `TimeoutError` if it takes too long.
    """
    where = parse(endpoint)
    stream: Stream | None = None
    try:
        with trio.fail_after(timeout):
            stream = await _open(where, endpoint, proxy, timeouts)
            if proxy_header is not None:
                await stream.send_all((format_v1 if proxy_version == 1 else format_v2)(*proxy_header))
            if where.tls or tls is not None:
                name = where.server_name or where.host or None
                await stream.start_tls(
                    tls or client_context(where), server_hostname=name, session=session, timeout=math.inf
                )
            return stream
    except trio.TooSlowError:
        raise TimeoutError(f"{endpoint}: no connection after {timeout:g} seconds") from None
    except BaseException:
        if stream is not None:
            await stream.abort()
        raise


async def _open(where: Endpoint, text: str, proxy: str | None, timeouts: Timeouts) -> Stream:
    """The connection in the clear."""
    match where.scheme:
        case Scheme.TCP if where.host == "*":
            raise EndpointError(text, text.index("*"), "a host to connect to belongs here; * is for listening")
        case Scheme.TCP if proxy is not None:
            way = parse_proxy(proxy)
            stream = Stream(await connect_tcp(way.host, way.port), timeouts)
            try:
                await open_tunnel(stream, way, where.host, where.port)
            except BaseException:
                await stream.abort()
                raise
            return stream
        case Scheme.TCP:
            return Stream(await connect_tcp(where.host, where.port), timeouts)
        case Scheme.UNIX if proxy is None:
            return Stream(await connect_unix(where.path), timeouts)
        case Scheme.UNIX:
            raise EndpointError(text, 0, "a proxy leads to TCP endpoints only")
        case _:
            raise EndpointError(text, 0, "this is for listening: connect to tcp://, tls:// or unix:")


_PREFIXES = {
    "tcp://": (Scheme.TCP, False),
    "tls://": (Scheme.TCP, True),
    "unix:": (Scheme.UNIX, False),
    "fd:": (Scheme.FD, False),
    "systemd:": (Scheme.SYSTEMD, False),
    "tls+unix:": (Scheme.UNIX, True),
    "tls+fd:": (Scheme.FD, True),
    "tls+systemd:": (Scheme.SYSTEMD, True),
}
_HABITS = {"http": "tcp", "https": "tls", "ssl": "tls", "tls+tcp": "tls", "ws": "tcp", "wss": "tls", "file": "unix"}
"""Schemes of other tools, and ours for the same thing."""


def parse(text: str) -> Endpoint:
    """Read an endpoint. Raises EndpointError, which points at the fault, for every string that is not one."""
    refuse_unprintable(text)
    prefix = next((prefix for prefix in _PREFIXES if text.startswith(prefix)), None)
    if prefix is None:
        raise EndpointError(text, 0, _what_was_meant(text))
    scheme, tls = _PREFIXES[prefix]
    start = len(prefix)
    mark = text.find("?", start)
    end = mark if mark >= 0 else len(text)
    match scheme:
        case Scheme.TCP:
            host, port = parse_authority(text, start, end, wildcard=True)
            endpoint = Endpoint(scheme, tls, host=host, port=port)
        case Scheme.UNIX:
            endpoint = Endpoint(scheme, tls, path=_path(text, start, end))
        case Scheme.FD:
            endpoint = Endpoint(scheme, tls, fd=_fd(text, start, end))
        case Scheme.SYSTEMD:
            endpoint = Endpoint(scheme, tls, name=_systemd_name(text, start, end))
    return endpoint if mark < 0 else _with_options(endpoint, text, mark + 1)


def as_url(endpoint: str, schemes: tuple[str, str] | None) -> str:
    """`endpoint` with the one of `schemes` that is for connections in the clear, or for those over TLS."""
    transport, _, rest = endpoint.partition("://")
    if schemes is None or transport not in ("tcp", "tls"):
        return endpoint
    return f"{schemes[transport == 'tls']}://{rest}"


def _what_was_meant(text: str) -> str:
    """The message for a text that begins with none of the prefixes."""
    schemes = [prefix.partition(":")[0] for prefix in _PREFIXES]
    word, colon, rest = text.partition(":")
    if re.fullmatch(r":?[0-9]+", text):
        return f"the scheme is missing: tcp://*:{text.removeprefix(':')}"
    if re.fullmatch(r"(\[[^/?]+\]|[^/?:]+):[0-9]+", text) and word not in schemes:
        return f"the scheme is missing: tcp://{text}"
    if text.startswith(("/", "./", "../")):
        return f"the scheme is missing: unix:{text}"
    guess = (_HABITS.get(word.lower()) or _nearest(word.lower(), schemes)) if colon else None
    if guess is None:
        return f"an endpoint begins with one of {', '.join(_PREFIXES)}"
    slashes = "//" if guess in ("tcp", "tls") else ""
    return f"no endpoint begins like this: did you mean {guess}:{slashes}{rest.removeprefix('//')}"


def _nearest(word: str, words: list[str]) -> str | None:
    from difflib import get_close_matches  # Only an error needs it.

    return next(iter(get_close_matches(word, words, 1)), None)


def _path(text: str, start: int, end: int) -> str:
    path = percent_decode(text, start, end)
    if not path:
        raise EndpointError(text, start, "the path of the socket is missing")
    if path.startswith("//"):
        raise EndpointError(text, start, "a path begins with one slash, or with none if it is relative")
    return path


def _fd(text: str, start: int, end: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text[start:end]):
        raise EndpointError(text, start, "the number of an open descriptor belongs here, as in fd:3")
    return int(text[start:end])


def _systemd_name(text: str, start: int, end: int) -> str:
    name = percent_decode(text, start, end)
    if not re.fullmatch(r"[ -9;-~]{1,255}", name):
        raise EndpointError(text, start, "a FileDescriptorName= is 1 to 255 ASCII characters without a colon")
    return name


def _with_options(endpoint: Endpoint, text: str, start: int) -> Endpoint:
    known = _options_of(endpoint.scheme, endpoint.tls)
    values: dict[str, Any] = {}
    places: dict[str, int] = {}
    for item in text[start:].split("&"):
        name, equals, _ = item.partition("=")
        if name not in known:
            raise EndpointError(text, start, _unknown_option(name, known))
        if name in places:
            raise EndpointError(text, start, f"{name} is given twice")
        at = start + len(name) + len(equals)
        value = percent_decode(text, at, start + len(item))
        if not equals and name != "reuse_port":
            raise EndpointError(text, at, f"{name} needs a value: {name}=…")
        try:
            values[name] = _OPTIONS[name].read(value if equals else "1")
        except ValueError as error:
            raise EndpointError(text, at, str(error)) from None
        places[name] = start
        start += len(item) + 1
    if "key" in values and "cert" not in values:
        raise EndpointError(text, places["key"], "a key needs its certificate: cert=…")
    return dataclasses.replace(endpoint, **values)


def _unknown_option(name: str, known: tuple[str, ...]) -> str:
    takes = f"the options here are {', '.join(known)}" if known else "there are no options here"
    if not name:
        return f"an option is missing: {takes}"
    if name not in _OPTIONS:
        guess = _nearest(name, list(known))
        return f"unknown option {name!r}: {f'did you mean {guess}? ' if guess else ''}{takes}"
    owners = [prefix for prefix, meaning in _PREFIXES.items() if name in _options_of(*meaning)]
    return f"{name} is an option of {' and '.join(owners)} alone; {takes}"


def _options_of(scheme: Scheme, tls: bool) -> tuple[str, ...]:
    own = {
        Scheme.TCP: ("reuse_port", "backlog"),
        Scheme.UNIX: ("mode", "backlog"),
        Scheme.FD: (),
        Scheme.SYSTEMD: (),
    }[scheme]
    return (*own, "cert", "key", "ca", "alpn", "server_name") if tls else own


# The readers of the options' values. They raise ValueError with what is to be done.


def _flag(value: str) -> bool:
    if value not in ("1", "true", "yes"):
        raise ValueError("a flag has no value, or 1, true, yes: leave it out to switch it off")
    return True


def _backlog(value: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,4}", value):
        raise ValueError("backlog is a number from 1 to 99999")
    return int(value)


def _mode(value: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError("mode is three octal digits, as in mode=660")
    return int(value, 8)


def _file(value: str) -> str:
    if not value:
        raise ValueError("the path of a PEM file is missing")
    return value


def _protocols(value: str) -> tuple[str, ...]:
    protocols = tuple(value.split(","))
    if not all(protocol.isascii() and 1 <= len(protocol) <= 255 for protocol in protocols):
        raise ValueError("alpn is a list of names in ASCII with commas between them, as in alpn=h2,http/1.1")
    if len(set(protocols)) < len(protocols):
        raise ValueError("alpn names a protocol twice")
    return protocols


def _server_name(value: str) -> str:
    problem = name_problem(value)
    if problem is not None:
        raise ValueError(problem)
    return value


@dataclass(frozen=True, slots=True)
class _Option:
    read: Callable[[str], Any]
    write: Callable[[Any], str]


_OPTIONS = {
    "reuse_port": _Option(_flag, lambda _: "1"),
    "backlog": _Option(_backlog, str),
    "mode": _Option(_mode, "{:03o}".format),
    "cert": _Option(_file, str),
    "key": _Option(_file, str),
    "ca": _Option(_file, str),
    "alpn": _Option(_protocols, ",".join),
    "server_name": _Option(_server_name, str),
}
