"""asyncnet: network services for Trio. A server is a handler, a client a context manager; both speak through Stream.

The public names are imported when they are first asked for, so that `asyncnet --help` is there at once.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from asyncnet.connection import draining as draining
    from asyncnet.connection import idle as idle
    from asyncnet.connection import is_draining as is_draining
    from asyncnet.endpoints import connect as connect
    from asyncnet.endpoints import listen as listen
    from asyncnet.errors import AsyncnetError as AsyncnetError
    from asyncnet.errors import ConfigurationError as ConfigurationError
    from asyncnet.errors import EndOfStream as EndOfStream
    from asyncnet.errors import EndpointError as EndpointError
    from asyncnet.errors import FileShrankError as FileShrankError
    from asyncnet.errors import IncompleteRead as IncompleteRead
    from asyncnet.errors import LimitExceeded as LimitExceeded
    from asyncnet.errors import LocalProtocolError as LocalProtocolError
    from asyncnet.errors import PlaintextAfterUpgrade as PlaintextAfterUpgrade
    from asyncnet.errors import ReceiveTimeout as ReceiveTimeout
    from asyncnet.errors import RemoteProtocolError as RemoteProtocolError
    from asyncnet.errors import TunnelError as TunnelError
    from asyncnet.limits import Limits as Limits
    from asyncnet.limits import Timeouts as Timeouts
    from asyncnet.service import Handler as Handler
    from asyncnet.service import Service as Service
    from asyncnet.service import serve as serve
    from asyncnet.signals import drain_on_signal as drain_on_signal
    from asyncnet.signals import run as run
    from asyncnet.stream import Stream as Stream
    from asyncnet.transports.address import Address as Address
    from asyncnet.transports.base import Listener as Listener
    from asyncnet.transports.base import TLSInfo as TLSInfo
    from asyncnet.transports.base import TruncatedError as TruncatedError
    from asyncnet.transports.certificates import ServerTLS as ServerTLS
else:
    from asyncnet.lazy import lazy_names

    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "endpoints": ("connect", "listen"),
            "errors": (
                "AsyncnetError",
                "ConfigurationError",
                "EndOfStream",
                "EndpointError",
                "FileShrankError",
                "IncompleteRead",
                "LimitExceeded",
                "LocalProtocolError",
                "PlaintextAfterUpgrade",
                "ReceiveTimeout",
                "RemoteProtocolError",
                "TunnelError",
            ),
            "limits": ("Limits", "Timeouts"),
            "connection": ("draining", "idle", "is_draining"),
            "service": ("Handler", "Service", "serve"),
            "signals": ("drain_on_signal", "run"),
            "stream": ("Stream",),
            "transports.address": ("Address",),
            "transports.base": ("Listener", "TLSInfo", "TruncatedError"),
            "transports.certificates": ("ServerTLS",),
        },
    )
