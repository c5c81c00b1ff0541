"""HTTP/1.1 for Trio: RFC 9110 (semantics), RFC 9112 (HTTP/1.1), RFC 9111 as far as files need it.

A server is `HTTPHandler(app)`, where `app` is `async def app(request: Request) -> Response`, an object with the same
call, such as `Files(root)`, or another kind of application: `ASGI(app)`, `WSGI(app)`, `Mounts(...)`. A client is
`async with HTTPClient() as client`. WebSockets are in `asyncnet.http.websocket`.

The names are imported when they are first asked for, so that a client loads no server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncnet.http.access_log import AccessLog as AccessLog
    from asyncnet.http.access_log import LogFormat as LogFormat
    from asyncnet.http.asgi import ASGI as ASGI
    from asyncnet.http.basic_auth import BasicAuth as BasicAuth
    from asyncnet.http.client import ClientResponse as ClientResponse
    from asyncnet.http.client import HTTPClient as HTTPClient
    from asyncnet.http.client import RedirectError as RedirectError
    from asyncnet.http.client import ResponseError as ResponseError
    from asyncnet.http.client import StatusError as StatusError
    from asyncnet.http.client import UpgradeRefused as UpgradeRefused
    from asyncnet.http.client import URLError as URLError
    from asyncnet.http.client_limits import ClientLimits as ClientLimits
    from asyncnet.http.client_limits import ClientTimeouts as ClientTimeouts
    from asyncnet.http.client_limits import PhaseTimeout as PhaseTimeout
    from asyncnet.http.cookies import delete_cookie as delete_cookie
    from asyncnet.http.cookies import read_cookies as read_cookies
    from asyncnet.http.cookies import set_cookie as set_cookie
    from asyncnet.http.exchange import ClientGone as ClientGone
    from asyncnet.http.files import Files as Files
    from asyncnet.http.forms import Form as Form
    from asyncnet.http.forms import FormFile as FormFile
    from asyncnet.http.forms import FormLimits as FormLimits
    from asyncnet.http.forms import read_form as read_form
    from asyncnet.http.forms import safe_name as safe_name
    from asyncnet.http.limits import HTTPLimits as HTTPLimits
    from asyncnet.http.limits import HTTPTimeouts as HTTPTimeouts
    from asyncnet.http.messages import FileBody as FileBody
    from asyncnet.http.messages import Headers as Headers
    from asyncnet.http.messages import Request as Request
    from asyncnet.http.messages import Response as Response
    from asyncnet.http.messages import Upgrade as Upgrade
    from asyncnet.http.mounts import Mounts as Mounts
    from asyncnet.http.server import HTTPHandler as HTTPHandler
    from asyncnet.http.wire import RequestError as RequestError
    from asyncnet.http.wsgi import WSGI as WSGI
else:
    from asyncnet.lazy import lazy_names

    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "access_log": ("AccessLog", "LogFormat"),
            "asgi": ("ASGI",),
            "basic_auth": ("BasicAuth",),
            "client": (
                "ClientResponse",
                "HTTPClient",
                "RedirectError",
                "ResponseError",
                "StatusError",
                "URLError",
                "UpgradeRefused",
            ),
            "client_limits": ("ClientLimits", "ClientTimeouts", "PhaseTimeout"),
            "cookies": ("delete_cookie", "read_cookies", "set_cookie"),
            "exchange": ("ClientGone",),
            "files": ("Files",),
            "forms": ("Form", "FormFile", "FormLimits", "read_form", "safe_name"),
            "limits": ("HTTPLimits", "HTTPTimeouts"),
            "messages": ("FileBody", "Headers", "Request", "Response", "Upgrade"),
            "mounts": ("Mounts",),
            "server": ("HTTPHandler",),
            "wire": ("RequestError",),
            "wsgi": ("WSGI",),
        },
    )
