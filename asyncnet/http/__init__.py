"""HTTP/1.1 for Trio: RFC 9110 (semantics), RFC 9112 (HTTP/1.1), RFC 9111 as far as files need it.

A server is `HTTPHandler(app)`, where `app` is `async def app(request: Request) -> Response`, an object with the same
call, such as `Files(root)`, or another kind of application: `ASGI(app)`.
"""

from __future__ import annotations

from asyncnet.http.access_log import AccessLog, LogFormat
from asyncnet.http.asgi import ASGI
from asyncnet.http.basic_auth import BasicAuth
from asyncnet.http.exchange import ClientGone
from asyncnet.http.files import Files
from asyncnet.http.limits import HTTPLimits, HTTPTimeouts
from asyncnet.http.messages import FileBody, Headers, Request, Response, Upgrade
from asyncnet.http.mounts import Mounts
from asyncnet.http.server import HTTPHandler
from asyncnet.http.wire import RequestError

__all__ = [
    "ASGI",
    "AccessLog",
    "BasicAuth",
    "ClientGone",
    "FileBody",
    "Files",
    "HTTPHandler",
    "HTTPLimits",
    "HTTPTimeouts",
    "Headers",
    "LogFormat",
    "Mounts",
    "Request",
    "RequestError",
    "Response",
    "Upgrade",
]
