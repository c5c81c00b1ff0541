"""`HTTPClient`: HTTP/1.1 requests over pooled connections (RFC 9110, RFC 9112), on the same streams as the servers.

    async with HTTPClient() as client:
        response = await client.get("https://example.org/")          # read into memory, to a limit
        print(response.status, response.text())
        async with client.request("GET", url) as response:            # streamed
            async for piece in response.body:
                ...

Redirects, retries and proxies are decided here; `http.pool` keeps the connections, `http.client_exchange` sends a
request and receives a head, `http.client_response` reads the body. Cookies, multipart forms and authentication schemes
beyond Basic are httpx's affair: `http.httpx` is this client as its transport.

What goes where, when a server redirects: credentials (Authorization, Cookie, Proxy-Authorization) stay with the origin
that they were given for, so that neither another host nor the same host without TLS gets them. A body is sent on where
the status says so (307, 308), but never from https to http.
"""

from __future__ import annotations

import base64
import json as jsonlib
import math
import os
from collections.abc import Awaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import trio

from asyncnet import __version__
from asyncnet.errors import AsyncnetError, LocalProtocolError, RemoteProtocolError
from asyncnet.http.client_dialing import Connect, Dialer, stream_timeouts
from asyncnet.http.client_exchange import ClientRequest, RequestBody, Stale, exchange
from asyncnet.http.client_limits import ClientLimits, ClientTimeouts, Phase, PhaseTimeout
from asyncnet.http.client_response import ClientResponse, StatusError
from asyncnet.http.client_wire import ResponseError, ResponseHead, read_framing, request_head
from asyncnet.http.decoding import accepted_codings
from asyncnet.http.messages import FileBody, HeaderItems, Headers
from asyncnet.http.pool import Pool
from asyncnet.http.proxies import Proxies
from asyncnet.http.url import URL, parse_url
from asyncnet.printable import printable
from asyncnet.stream import Stream
from asyncnet.transports.tunnels import ProxyKind
from asyncnet.urls import URLError

if TYPE_CHECKING:
    import ssl

CREDENTIALS = ("authorization", "cookie", "proxy-authorization")
"""What belongs to the origin that it was given for."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OF_BODIES = ("content-type", "content-encoding", "content-language", "content-location", "content-length", "expect")


class RedirectError(RemoteProtocolError):
    """A redirect that is not followed: one too many, to where we do not go, or of a body that cannot be sent again."""


class UpgradeRefused(AsyncnetError):
    """The server has answered a request for an upgrade otherwise than by 101. `response` is the answer.

    Its body is in `content` if it is whole and has `ClientLimits.unread` bytes at most.
    """

    def __init__(self, response: ClientResponse) -> None:
        self.response = response
        super().__init__(f"{response.url} refused the upgrade: {response.status} {printable(response.reason)}".rstrip())


class Upgraded(NamedTuple):
    """A connection after 101 Switching Protocols: the answer's head, and the stream, which now is the caller's."""

    head: ResponseHead
    stream: Stream


class HTTPClient:
    """A client: `async with HTTPClient() as client`. Any number of tasks may use it at a time.

    `headers` go out with every request. `redirects` is how many are followed, 0: none, they are answers then. `tls`
    is the context for https; without one, servers are verified against the system's trust store. `proxy` is the URL
    of a SOCKS5 or HTTP proxy for everything; with `environment` the variables http_proxy, https_proxy, all_proxy and
    no_proxy are followed instead. `connect` opens connections in the place of the client, in the clear: over a Unix
    socket (`lambda origin: asyncnet.connect("unix:/run/app.sock")`), in memory for a test; the scheme of its origin
    is http or https, and ws or wss for an upgrade.

    Raises EndpointError for a proxy's URL that is none.
    """

    def __init__(
        self,
        *,
        headers: Headers | HeaderItems = (),
        redirects: int = 10,
        limits: ClientLimits = ClientLimits(),
        timeouts: ClientTimeouts = ClientTimeouts(),
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        environment: bool = False,
        connect: Connect | None = None,
    ) -> None:
        self.limits = limits
        self.timeouts = timeouts
        self.redirects = redirects
        self.headers = Headers({"user-agent": f"asyncnet/{__version__}", "accept": "*/*"})
        self.headers["accept-encoding"] = accepted_codings()
        for name, value in headers if isinstance(headers, Headers) else Headers(headers):
            self.headers[name] = value
        self._proxies = Proxies.from_environment(os.environ) if environment else Proxies(proxy, proxy)
        self._pool = Pool(Dialer(self._proxies, tls, connect).open, limits, timeouts.idle)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; those in use are closed at their response's end."""
        await self._pool.aclose()

    @property
    def pool(self) -> Pool:
        """The connections: how many there are, and how many of them are idle."""
        return self._pool

    # Requests

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Headers | HeaderItems = (),
        body: RequestBody | str = b"",
        json: object = None,
        redirects: int | None = None,
        timeouts: ClientTimeouts | None = None,
        decode: bool = True,
    ) -> Requesting:
        """A request, sent on entering: `async with client.request("GET", url) as response`.

        `body` is bytes, `str` (sent as UTF-8), a `FileBody`, an async iterable of bytes, or a function that returns
        one; `json` is sent as JSON instead. An iterable goes out in chunks unless `headers` have a Content-Length; it
        can be sent once, so that a redirect or a lost connection that wants it again is an error; a function is called
        again. With `decode` false content codings stay on.

        Entering raises LocalProtocolError for what must not be sent (a URL that is none, control characters), with
        nothing sent; OSError if connecting fails (`ssl.SSLError`, `TunnelError`), `PhaseTimeout`, which is a
        TimeoutError, `ResponseError`, `RedirectError`, and `trio.BrokenResourceError` when the connection breaks.
        Cancelled at any point, its connection is closed and the pool is as before.
        """
        request = self._prepare(method, url, headers, body, json, timeouts or self.timeouts)
        return Requesting(self, request, self.redirects if redirects is None else redirects, decode)

    async def fetch(self, method: str, url: str, *, limit: int | None = None, **options: Any) -> ClientResponse:
        """Send a request and read the response: at most `limit` bytes (None: `ClientLimits.content`).

        `options` are those of `request`. Raises what `request` and `ClientResponse.read` raise. An error status is
        no exception: `response.raise_for_status()` makes it one.
        """
        async with self.request(method, url, **options) as response:
            await response.read(limit=limit)
            return response

    def get(self, url: str, **options: Any) -> Awaitable[ClientResponse]:
        """`fetch` by GET: `response = await client.get(url)`."""
        return self.fetch("GET", url, **options)

    def head(self, url: str, **options: Any) -> Awaitable[ClientResponse]:
        """`fetch` by HEAD: no body comes."""
        return self.fetch("HEAD", url, **options)

    def post(self, url: str, **options: Any) -> Awaitable[ClientResponse]:
        """`fetch` by POST, with `body=` or `json=`."""
        return self.fetch("POST", url, **options)

    def put(self, url: str, **options: Any) -> Awaitable[ClientResponse]:
        """`fetch` by PUT."""
        return self.fetch("PUT", url, **options)

    def patch(self, url: str, **options: Any) -> Awaitable[ClientResponse]:
        """`fetch` by PATCH."""
        return self.fetch("PATCH", url, **options)

    def delete(self, url: str, **options: Any) -> Awaitable[ClientResponse]:
        """`fetch` by DELETE."""
        return self.fetch("DELETE", url, **options)

    async def open_upgrade(
        self,
        url: str,
        protocol: str,
        headers: Headers | HeaderItems = (),
        *,
        timeouts: ClientTimeouts | None = None,
    ) -> Upgraded:
        """Ask for `protocol` over a connection of its own (RFC 9110 section 7.8), and return it after the 101.

        `url` is of http or ws, https or wss. `headers` are sent besides Connection and Upgrade; of the client's own
        headers all but Accept and Accept-Encoding are. A proxy is asked for a tunnel in any case (RFC 6455 section
        4.1). The stream is the caller's to close; bytes that came behind the head are in its buffer, and it has no
        deadline. The client's limits no longer count it.

        Raises UpgradeRefused for another answer (redirects are not followed), ResponseError for a 101 that does not
        name `protocol`, and what `request` raises. Cancelled, the connection is closed.
        """
        target = parse_url(url)
        fields = Headers((name, value) for name, value in self.headers if not name.startswith("accept"))
        for name, value in Headers(headers):
            fields[name] = value
        fields["connection"] = "Upgrade"
        fields["upgrade"] = protocol
        request = self._finish("GET", target, fields, b"", timeouts or self.timeouts, tunnels=True)
        # An origin of its own, to which no connection is ever idle.
        origin = target.origin._replace(scheme="ws" if target.origin.scheme == "http" else "wss")
        connection = await self._pool.take(origin, request.timeouts)
        try:
            head, rest, _ = await exchange(connection.stream, request, is_used=False)
            framing = read_framing(head, "GET", self.limits)
            if head.status == 101 and not _agrees(head, protocol):
                raise ResponseError(f"{target} switched to another protocol than {protocol}")
        except BaseException:
            await self._pool.discard(connection)
            raise
        if head.status != 101:
            response = ClientResponse(head, framing._replace(is_reusable=False), rest, request, connection, self._pool)
            try:
                await response.read(limit=self.limits.unread)
            except (AsyncnetError, trio.BrokenResourceError):
                pass  # that it was refused says more than what is wrong with the body
            finally:
                await response.aclose()
            raise UpgradeRefused(response)
        self._pool.let_go(connection)
        connection.stream.deadline = math.inf
        connection.stream.unread(rest)
        return Upgraded(head, connection.stream)

    # How a request is made

    def _prepare(
        self,
        method: str,
        url: str,
        headers: Headers | HeaderItems,
        body: RequestBody | str,
        json: object,
        timeouts: ClientTimeouts,
    ) -> ClientRequest:
        target = parse_url(url)
        if target.scheme not in ("http", "https"):
            raise URLError(f"{target}: a request goes to http or https; open_upgrade is for {target.scheme}")
        if not headers and json is None and not body and target.user is None:
            return self._finish(method, target, self.headers, b"", timeouts)
        fields = Headers.checked(list(self.headers.raw))
        own = headers if isinstance(headers, Headers) else Headers(headers)
        for name in {name for name, _ in own.raw}:
            del fields[name.decode()]
        fields.raw.extend(own.raw)
        if json is not None:
            if body:
                raise LocalProtocolError("a request has a body or json, not both")
            body = jsonlib.dumps(json, ensure_ascii=False)
            fields.setdefault("content-type", "application/json")
        if isinstance(body, str):
            body = body.encode()
        if target.user is not None:
            fields.setdefault("authorization", basic(target.user, target.password))
        return self._finish(method, target, fields, body, timeouts)

    def _finish(
        self,
        method: str,
        url: URL,
        headers: Headers,
        body: RequestBody,
        timeouts: ClientTimeouts,
        *,
        tunnels: bool = False,
    ) -> ClientRequest:
        """The request with its framing and, behind an HTTP proxy, what it wants. `headers` are kept as they are."""
        fields = headers.raw
        names = {name for name, _ in fields}
        if b"transfer-encoding" in names:
            raise LocalProtocolError("Transfer-Encoding is the client's own: leave it out")
        length = _body_length(body)
        if length != 0 or method in ("POST", "PUT", "PATCH") or b"content-length" in names:
            length, fields = _frame(fields, length)
        target = url.target
        proxy = self._proxies.choose(url.origin)
        if proxy is not None and proxy.kind is ProxyKind.HTTP and url.origin.scheme == "http" and not tunnels:
            # RFC 9112 section 3.2.2. A tunnel would do, but most proxies dig none to port 80.
            target = str(url)
            if proxy.user is not None:
                fields = [*fields, (b"proxy-authorization", basic(proxy.user, proxy.password).encode())]
        if b"host" not in names:
            fields = [(b"host", url.authority.encode()), *fields]
        head = request_head(method, target, fields)
        return ClientRequest(method, url, headers, body, head, length, timeouts, self.limits)

    # How it is sent

    async def _send(self, request: ClientRequest, redirects: int, decode: bool) -> ClientResponse:
        """Send `request`, follow redirects, and return the last response, its body to come."""
        history: tuple[ClientResponse, ...] = ()
        while True:
            response = await self._attempt(request)
            try:
                response.history = history
                location = response.headers.get("location")
                if response.status not in REDIRECTS or location is None or redirects == 0:
                    if decode:
                        response.decode_body()
                    return response
                if len(history) == redirects:
                    raise RedirectError(f"{request.url}: more than {redirects} redirects")
                request = self._redirected(request, response.status, location)
                await response.skip()
            except BaseException:
                await response.aclose()
                raise
            history = (*history, response)

    async def _attempt(self, request: ClientRequest) -> ClientResponse:
        """Send `request` once, or again where its connection had been closed meanwhile and that is safe."""
        origin = request.url.origin
        while True:
            connection = await self._pool.take(origin, request.timeouts)
            if connection.stream.timeouts.send != request.timeouts.send:
                connection.stream.timeouts = stream_timeouts(request.timeouts)
            try:
                head, rest, whole = await exchange(connection.stream, request, is_used=connection.requests > 0)
                if head.status == 101:
                    raise ResponseError(f"{origin} switched protocols, and nobody had asked for it")
                framing = read_framing(head, request.method, request.limits)
            except Stale as stale:
                await self._pool.discard(connection)
                if not stale.is_harmless:
                    raise trio.BrokenResourceError(
                        f"{origin} closed the connection before it answered, and {request.method} may not be sent twice"
                    ) from stale.__cause__
                if not request.is_replayable:
                    raise trio.BrokenResourceError(
                        f"{origin} closed the connection before it answered, and the body cannot be sent again: "
                        "give a function that returns the iterable"
                    ) from stale.__cause__
            except BaseException:
                await self._pool.discard(connection)
                raise
            else:
                if not whole:
                    framing = framing._replace(is_reusable=False)
                return ClientResponse(head, framing, rest, request, connection, self._pool)

    def _redirected(self, request: ClientRequest, status: int, location: str) -> ClientRequest:
        """The request that a redirect asks for (RFC 9110 sections 15.4.2 to 15.4.9)."""
        try:
            url = request.url.join(location)
        except RemoteProtocolError as error:
            raise RedirectError(str(error)) from None
        if url.scheme not in ("http", "https"):
            raise RedirectError(f"{request.url} redirects to {url}, which is no web page")
        method, body = request.method, request.body
        headers = Headers.checked(list(request.headers.raw))
        if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
            method, body = "GET" if method != "HEAD" else method, b""
            for name in _OF_BODIES:
                del headers[name]
        if url.origin != request.url.origin:
            for name in (*CREDENTIALS, "host"):
                del headers[name]
            if not (isinstance(body, bytes) and not body) and (request.url.origin.scheme, url.scheme) == (
                "https",
                "http",
            ):
                raise RedirectError(f"{request.url} redirects the request's body to {url}, in the clear")
        if body is request.body and not request.is_replayable:
            raise RedirectError(
                f"{request.url} redirects the request's body to {url}, and it cannot be sent again: "
                "give a function that returns the iterable"
            )
        return self._finish(method, url, headers, body, request.timeouts)


class Requesting:
    """A request as a context manager: sent on entering, its connection let go on leaving."""

    __slots__ = ("_client", "_decode", "_redirects", "_request", "_response")

    def __init__(self, client: HTTPClient, request: ClientRequest, redirects: int, decode: bool) -> None:
        self._client = client
        self._request = request
        self._redirects = redirects
        self._decode = decode

    async def __aenter__(self) -> ClientResponse:
        self._response = await self._client._send(self._request, self._redirects, self._decode)
        return self._response

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._response.aclose()


def _agrees(head: ResponseHead, protocol: str) -> bool:
    """Whether a 101 switches to `protocol`."""
    options = [option.strip() for option in (head.headers.get("connection") or "").lower().split(",")]
    return (head.headers.get("upgrade") or "").lower() == protocol.lower() and "upgrade" in options


def basic(user: str, password: str) -> str:
    """The value of Authorization for the Basic scheme (RFC 7617), in UTF-8. Raises LocalProtocolError."""
    if ":" in user:
        raise LocalProtocolError("a user for Basic authentication has no colon")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _body_length(body: RequestBody) -> int | None:
    if isinstance(body, bytes):
        return len(body)
    return body.count if isinstance(body, FileBody) else None


def _frame(fields: list[tuple[bytes, bytes]], length: int | None) -> tuple[int | None, list[tuple[bytes, bytes]]]:
    """The body's length, and the fields with its framing: a length where it is known, else chunks."""
    given = [value for name, value in fields if name == b"content-length"]
    if len(given) > 1 or (given and not (given[0].isdigit() and len(given[0]) < 20)):
        raise LocalProtocolError("Content-Length is one number")
    if given and length is None:
        return int(given[0]), fields
    if given and int(given[0]) != length:
        raise LocalProtocolError(f"Content-Length is {given[0].decode()}, and the body has {length} bytes")
    if given:
        return length, fields
    if length is None:
        return None, [*fields, (b"transfer-encoding", b"chunked")]
    return length, [*fields, (b"content-length", b"%d" % length)]


__all__ = [
    "ClientLimits",
    "ClientResponse",
    "ClientTimeouts",
    "HTTPClient",
    "Phase",
    "PhaseTimeout",
    "RedirectError",
    "ResponseError",
    "StatusError",
    "URLError",
    "UpgradeRefused",
    "Upgraded",
]
