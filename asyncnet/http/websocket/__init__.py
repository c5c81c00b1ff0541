"""WebSocket (RFC 6455) with permessage-deflate (RFC 7692): native handlers, and a client.

A server's application returns `websocket(request, handler)`; a client is `async with connect_websocket(url) as ws`.
Both ends hold a `WebSocket`.
"""

from __future__ import annotations

from asyncnet.http.websocket.client import connect_websocket, open_websocket
from asyncnet.http.websocket.connection import WebSocket, WebSocketClosed
from asyncnet.http.websocket.deflate import DeflateSettings
from asyncnet.http.websocket.handshake import (
    ANY_ORIGIN,
    SAME_ORIGIN,
    Agreement,
    HandshakeRefused,
    Opening,
    OpeningError,
    is_upgrade,
    read_opening,
)
from asyncnet.http.websocket.limits import WebSocketLimits, WebSocketTimeouts
from asyncnet.http.websocket.server import WebSocketHandler, attended, websocket
from asyncnet.http.websocket.wire import CloseCode

__all__ = [
    "ANY_ORIGIN",
    "SAME_ORIGIN",
    "Agreement",
    "CloseCode",
    "DeflateSettings",
    "HandshakeRefused",
    "Opening",
    "OpeningError",
    "WebSocket",
    "WebSocketClosed",
    "WebSocketHandler",
    "WebSocketLimits",
    "WebSocketTimeouts",
    "attended",
    "connect_websocket",
    "is_upgrade",
    "open_websocket",
    "read_opening",
    "websocket",
]
