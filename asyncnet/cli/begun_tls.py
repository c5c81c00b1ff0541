"""The certificate of services on whose plain endpoints clients begin TLS themselves: FTP, SMTP, POP3."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from asyncnet.endpoints import parse

if TYPE_CHECKING:
    from asyncnet.transports.certificates import ServerTLS


def begun_tls(args: argparse.Namespace, protocol: str) -> ServerTLS | None:
    """What AUTH TLS, STARTTLS or STLS needs, if it can come to that. `protocol` is its name in ALPN."""
    if args.cert is None or all(parse(text).tls for text in args.endpoints):
        return None
    from asyncnet.transports.certificates import ServerTLS

    return ServerTLS(args.cert, args.key, client_ca=args.client_ca, alpn=(protocol,))
