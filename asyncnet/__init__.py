"""asyncnet: network services for Trio. A server is a handler, a client a context manager; both speak through Stream."""

from asyncnet.endpoints import connect as connect
from asyncnet.endpoints import listen as listen
from asyncnet.errors import AsyncnetError as AsyncnetError
from asyncnet.errors import ConfigurationError as ConfigurationError
from asyncnet.errors import EndOfStream as EndOfStream
from asyncnet.errors import EndpointError as EndpointError
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
from asyncnet.service import draining as draining
from asyncnet.service import idle as idle
from asyncnet.service import is_draining as is_draining
from asyncnet.service import serve as serve
from asyncnet.stream import Stream as Stream
from asyncnet.transports.address import Address as Address
from asyncnet.transports.base import Listener as Listener
from asyncnet.transports.base import TLSInfo as TLSInfo
from asyncnet.transports.base import TruncatedError as TruncatedError
from asyncnet.transports.certificates import ServerTLS as ServerTLS

__version__ = "0.1.0"
