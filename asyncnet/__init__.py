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
    from asyncnet.stream import Stream as Stream
    from asyncnet.transports.address import Address as Address
    from asyncnet.transports.base import Listener as Listener
    from asyncnet.transports.base import TLSInfo as TLSInfo
    from asyncnet.transports.base import TruncatedError as TruncatedError
    from asyncnet.transports.certificates import ServerTLS as ServerTLS
else:
    _NAMES = {
        "asyncnet.endpoints": ("connect", "listen"),
        "asyncnet.errors": (
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
        "asyncnet.limits": ("Limits", "Timeouts"),
        "asyncnet.connection": ("draining", "idle", "is_draining"),
        "asyncnet.service": ("Handler", "Service", "serve"),
        "asyncnet.signals": ("drain_on_signal",),
        "asyncnet.stream": ("Stream",),
        "asyncnet.transports.address": ("Address",),
        "asyncnet.transports.base": ("Listener", "TLSInfo", "TruncatedError"),
        "asyncnet.transports.certificates": ("ServerTLS",),
    }
    _HOMES = {name: module for module, names in _NAMES.items() for name in names}
    __all__ = list(_HOMES)

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})
