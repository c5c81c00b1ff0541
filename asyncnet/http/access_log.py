"""`AccessLog`: a line for each request, in the "combined" form that log analysers read, or as JSON.

`HTTPHandler(app, access_log=AccessLog())` writes to the logger `asyncnet.http.access`; the command sends that to
standard error. What a client has chosen (target, Referer, User-Agent) is escaped: it can forge no line and drive no
terminal.
"""

from __future__ import annotations

import enum
import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from asyncnet.http.exchange import Exchange
from asyncnet.http.server import Answered

access_logger = logging.getLogger("asyncnet.http.access")


class LogFormat(enum.Enum):
    """How a request is written."""

    COMBINED = "combined"
    """As Apache and nginx write it: peer, user, time, request line, status, bytes of the body, Referer, User-Agent."""
    JSON = "json"
    """An object a line, with the seconds that the request took, and the host."""


class AccessLog:
    """Writes each answer to `write`, by default to the logger `asyncnet.http.access` as an info."""

    def __init__(
        self, format: LogFormat = LogFormat.COMBINED, write: Callable[[str], object] = access_logger.info
    ) -> None:
        self._format = _combined if format is LogFormat.COMBINED else _json
        self._write = write

    def __call__(self, answered: Answered) -> None:
        self._write(self._format(answered))


def _combined(answered: Answered) -> str:
    exchange = answered.exchange
    moment = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
    user = (exchange.user if exchange is not None else None) or "-"
    line, referer, agent = "-", "-", "-"
    if exchange is not None:
        line = f"{exchange.method} {exchange.target.decode('ascii')} HTTP/{exchange.http_version}"
        referer, agent = _field(exchange, b"referer"), _field(exchange, b"user-agent")
    return (
        f"{_column(answered.peer_host)} - {_column(user)} [{moment}] "
        f'"{_escape(line)}" {answered.status} {answered.body_bytes} "{_escape(referer)}" "{_escape(agent)}"'
    )


def _json(answered: Answered) -> str:
    exchange = answered.exchange
    record: dict[str, object] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "peer": answered.peer_host,
        "status": answered.status,
        "bytes": answered.body_bytes,
        "seconds": round(answered.seconds, 6),
    }
    if exchange is not None:
        record |= {
            "user": exchange.user,
            "method": exchange.method,
            "host": exchange.host,
            "target": exchange.target.decode("ascii"),
            "version": exchange.http_version,
            "referer": _field(exchange, b"referer"),
            "user_agent": _field(exchange, b"user-agent"),
        }
    return json.dumps(record)


def _field(exchange: Exchange, name: bytes) -> str:
    return next((value.decode("latin-1") for field, value in exchange.headers if field == name), "-")


def _column(text: str) -> str:
    """Outside of quotes a blank would begin the next column; the name of a Unix peer has some."""
    return _escape(text).replace(" ", "\\x20")


def _escape(text: str) -> str:
    """Within double quotes: everything but printable ASCII as \\xhh, as Apache writes it."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(
        char if " " <= char <= "~" and char not in '"\\' else f"\\x{byte:02x}"
        for char in text
        for byte in char.encode("latin-1", "replace")
    )
