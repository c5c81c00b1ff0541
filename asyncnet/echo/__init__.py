"""The simplest services: echo and its kin (RFC 862 to 868), and a program's stdin and stdout on a stream.

`ExecHandler` is in `asyncnet.echo.exec`.
"""

from asyncnet.echo.client import ChargenClient as ChargenClient
from asyncnet.echo.client import EchoClient as EchoClient
from asyncnet.echo.client import daytime as daytime
from asyncnet.echo.client import discard as discard
from asyncnet.echo.client import network_time as network_time
from asyncnet.echo.server import ChargenHandler as ChargenHandler
from asyncnet.echo.server import DaytimeHandler as DaytimeHandler
from asyncnet.echo.server import DiscardHandler as DiscardHandler
from asyncnet.echo.server import EchoHandler as EchoHandler
from asyncnet.echo.server import TimeHandler as TimeHandler
