"""`HTTPClient`'s connections as a transport for httpx2, which brings a cookie jar, authentication and multipart forms.

    async with httpx2.AsyncClient(transport=AsyncnetTransport()) as client:
        response = await client.get("https://example.org/")

It is for httpx2 alone: that is what is kept up, while httpx stays at 0.28. What httpx2 does above its transports
(redirects, cookies, decoding) it does here too; what lies below is ours: pool, retries, framing, TLS, the proxy given
to the transport, the time limits of each phase.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from asyncnet.errors import ConfigurationError, LocalProtocolError, RemoteProtocolError, TunnelError
from asyncnet.http.client import HTTPClient
from asyncnet.http.client_exchange import RequestBody
from asyncnet.http.client_limits import ClientTimeouts, Phase, PhaseTimeout
from asyncnet.http.client_response import ClientResponse
from asyncnet.http.messages import Headers

try:
    import httpx2
except ImportError as error:
    raise ConfigurationError(f"this transport needs httpx2: pip install httpx2 ({error})") from error

_NEVER = float("inf")
_TIMEOUTS = {
    Phase.POOL: httpx2.PoolTimeout,
    Phase.CONNECT: httpx2.ConnectTimeout,
    Phase.HEAD: httpx2.ReadTimeout,
    Phase.BODY: httpx2.ReadTimeout,
}


class AsyncnetTransport(httpx2.AsyncBaseTransport):
    """A transport with connections of its own; `options` are those of `HTTPClient`: tls, proxy, limits, connect.

    httpx2's time limits count: its `read` is for the head and for each gap in the body. Works on Trio only.
    """

    def __init__(self, **options: Any) -> None:
        self.client = HTTPClient(**options)
        self.client.headers = Headers()  # httpx2 has its own

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request`, once, and return its response with the body to come. Raises httpx2's exceptions."""
        url = request.url
        target = f"{url.scheme}://{url.netloc.decode('ascii')}{url.raw_path.decode('ascii')}"
        fields = [(name, value) for name, value in request.headers.raw if name.lower() != b"transfer-encoding"]
        with _translated():
            asking = self.client.request(
                request.method,
                target,
                headers=fields,
                body=_body(request),
                redirects=0,
                decode=False,
                timeouts=_timeouts(request, self.client.timeouts),
            )
            response = await asking.__aenter__()
        return httpx2.Response(
            response.status,
            headers=response.headers.raw,
            stream=_Body(response),
            extensions={
                "http_version": f"HTTP/{response.http_version}".encode(),
                "reason_phrase": response.reason.encode("latin-1"),
            },
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self.client.aclose()


class _Body(httpx2.AsyncByteStream):
    """The body of a response; closing it lets the connection go."""

    def __init__(self, response: ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            while piece := await self._response.receive_piece():
                yield piece

    async def aclose(self) -> None:
        await self._response.aclose()


def _body(request: httpx2.Request) -> RequestBody:
    try:
        return request.content
    except httpx2.RequestNotRead:
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        return request.stream


def _timeouts(request: httpx2.Request, ours: ClientTimeouts) -> ClientTimeouts:
    """httpx2's limits for this request; None is none."""
    given = request.extensions.get("timeout")
    if not given:
        return ours
    pool, connect, read, write = (
        _NEVER if given.get(name) is None else float(given[name]) for name in ("pool", "connect", "read", "write")
    )
    return dataclasses.replace(ours, pool=pool, connect=connect, send=write, head=read, body=read)


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what goes wrong as the exception that httpx2 has for it."""
    try:
        yield
    except PhaseTimeout as error:
        raise _TIMEOUTS[error.phase](str(error)) from error
    except TunnelError as error:
        raise httpx2.ProxyError(str(error)) from error
    except LocalProtocolError as error:
        raise httpx2.LocalProtocolError(str(error)) from error
    except RemoteProtocolError as error:
        raise httpx2.RemoteProtocolError(str(error)) from error
    except trio.BrokenResourceError as error:
        raise httpx2.ReadError(str(error)) from error
    except OSError as error:
        raise httpx2.ConnectError(str(error)) from error
