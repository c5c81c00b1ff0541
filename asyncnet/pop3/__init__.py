"""POP3: mail fetched from where it was delivered (RFC 1939, and what came after it), with TLS (RFC 2595).

A server is `POP3Handler(mailboxes, users)`, a client `async with POP3Client.connect(url) as pop3`. The names are
imported when they are first asked for, so that a client loads no server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncnet.pop3.client import Pieces as Pieces
    from asyncnet.pop3.client import POP3Client as POP3Client
    from asyncnet.pop3.client import ReplyError as ReplyError
    from asyncnet.pop3.client import URLError as URLError
    from asyncnet.pop3.limits import POP3Limits as POP3Limits
    from asyncnet.pop3.limits import POP3Timeouts as POP3Timeouts
    from asyncnet.pop3.server import POP3Handler as POP3Handler
    from asyncnet.pop3.url import POP3URL as POP3URL
else:
    from asyncnet.lazy import lazy_names

    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "client": ("POP3Client", "Pieces", "ReplyError", "URLError"),
            "limits": ("POP3Limits", "POP3Timeouts"),
            "server": ("POP3Handler",),
            "url": ("POP3URL",),
        },
    )
