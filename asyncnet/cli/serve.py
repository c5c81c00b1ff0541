"""`asyncnet serve KIND ENDPOINT…`: a service until a signal drains it."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from functools import partial

import trio

from asyncnet.cli.kinds import KINDS
from asyncnet.cli.log import log_to_stderr
from asyncnet.cli.options import count, duration, network, size
from asyncnet.endpoints import parse
from asyncnet.errors import ConfigurationError
from asyncnet.limits import Limits, Timeouts
from asyncnet.middleware import Bandwidth, ConversationLog, Middleware, NetworkRules
from asyncnet.service import Handler, Service, serve
from asyncnet.signals import drain_on_signal
from asyncnet.transports.systemd import notify

_EPILOG = """\
Prints a line for each endpoint that it listens on. SIGTERM and SIGINT (Ctrl-C) drain: nobody new is let in, and
connections may finish. A second one ends everything at once. SIGHUP has the certificates loaded again.

examples:
  asyncnet serve http tcp://127.0.0.1:8080 --root public
  asyncnet serve http 'tcp://*:80' 'tls://*:443' --cert chain.pem --key key.pem --root /srv/www
  asyncnet serve ftp tcp://127.0.0.1:2121 --root public --anonymous
  asyncnet serve echo unix:/run/echo.sock?mode=660
  asyncnet serve exec tcp://127.0.0.1:7000 -- /bin/cat -u
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Mount `serve` under the command."""
    parser = commands.add_parser(
        "serve",
        description="Serve a protocol on one or more endpoints. `asyncnet serve KIND --help` lists the options.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(metavar="KIND", dest="kind", required=True)
    for name, kind in KINDS.items():
        one = kinds.add_parser(
            name,
            help=kind.help,
            description=f"{kind.help[0].upper()}{kind.help[1:]}.",
            usage=f"asyncnet serve {name} ENDPOINT [ENDPOINT ...] [options]"
            f"{' -- PROGRAM [ARGUMENT ...]' if kind.takes_program else ''}",
            epilog=kind.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        one.add_argument(
            "endpoints", metavar="ENDPOINT", nargs="+", help="where to listen, such as tcp://127.0.0.1:8080"
        )
        kind.add_options(one)
        _add_common_options(one, begins_tls=kind.begins_tls)
        one.set_defaults(run=run)


def _add_common_options(parser: argparse.ArgumentParser, *, begins_tls: bool) -> None:
    limits, timeouts = Limits(), Timeouts()

    also = ", and for clients that ask for TLS" if begins_tls else ""
    tls = parser.add_argument_group(f"TLS, for endpoints that begin with tls and do not say otherwise themselves{also}")
    tls.add_argument("--cert", metavar="FILE", help="the certificate and its chain (PEM)")
    tls.add_argument("--key", metavar="FILE", help="the private key, if it is not in the certificate's file (PEM)")
    tls.add_argument("--client-ca", metavar="FILE", help="clients must show a certificate that this one vouches for")

    access = parser.add_argument_group("who may come; NET is 192.0.2.0/24, an address, or unix; repeat for several")
    for name, help in {
        "--allow": "let in these networks alone",
        "--deny": "keep out this network",
        "--proxy-from": "take connections from this proxy's network alone, each with a PROXY header in front",
    }.items():
        access.add_argument(name, metavar="NET", action="append", type=network, help=help)

    bounds = parser.add_argument_group("limits; SIZE is 1000, 64K, 10M or 1G, TIME is 90, 90s, 5m, 1h or off")
    bounds.add_argument(
        "--max-connections", metavar="N", type=count, default=limits.connections, help="in all (default: %(default)s)"
    )
    bounds.add_argument(
        "--max-per-address",
        metavar="N",
        type=count,
        default=limits.per_address,
        help="from one IPv4 address or IPv6 /64 (default: %(default)s)",
    )
    bounds.add_argument(
        "--idle-timeout",
        metavar="TIME",
        type=duration,
        default=timeouts.idle,
        help="without a byte in either direction (default: %(default)g s)",
    )
    bounds.add_argument(
        "--drain-timeout",
        metavar="TIME",
        type=duration,
        default=timeouts.drain,
        help="for what is open when a signal comes (default: %(default)g s)",
    )
    bounds.add_argument("--bandwidth", metavar="SIZE", type=size, help="a second, for each connection and direction")
    bounds.add_argument("--total-bandwidth", metavar="SIZE", type=size, help="a second, for all connections together")

    log = parser.add_argument_group("the log, on standard error")
    log.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        help="the least that is written; a connection is an info (default: %(default)s)",
    )
    log.add_argument(
        "--log-conversation", action="store_true", help="write what passes, secrets masked: for finding faults alone"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal. Raises ConfigurationError and EndpointError, in a group or by themselves."""
    log_to_stderr(args.log_level)
    # Here, and not within trio.run: an application may run an event loop of its own while it is imported.
    handler = KINDS[args.kind].make_handler(args)
    trio.run(_serve_until_signal, args, handler)
    return 0


async def _serve_until_signal(args: argparse.Namespace, handler: Handler) -> None:
    start = partial(
        serve,
        handler,
        *_with_certificates(args),
        limits=Limits(connections=args.max_connections, per_address=args.max_per_address),
        timeouts=Timeouts(idle=args.idle_timeout, drain=args.drain_timeout),
        proxy_from=args.proxy_from or (),
        middleware=_middleware(args),
    )
    async with trio.open_nursery() as nursery:
        service: Service = await nursery.start(start)
        await nursery.start(drain_on_signal, service)
        _tell("\n".join(f"listening on {endpoint} ({args.kind})" for endpoint in service.endpoints))
        notify("READY=1")
        await service.drain_begun.wait()
        notify("STOPPING=1")


def _with_certificates(args: argparse.Namespace) -> list[str]:
    """The endpoints, with the certificates of the options on those that want one."""
    if args.key is not None and args.cert is None:
        raise ConfigurationError("--key needs --cert")
    endpoints = []
    for text in args.endpoints:
        where = parse(text)
        if where.tls and where.cert is None and args.cert is not None:
            where = dataclasses.replace(where, cert=args.cert, key=args.key)
        if where.tls and where.ca is None:
            where = dataclasses.replace(where, ca=args.client_ca)
        endpoints.append(str(where) if where.tls else text)
    has_tls = (KINDS[args.kind].begins_tls and args.cert) or any(parse(text).tls for text in endpoints)
    if (args.cert or args.client_ca) and not has_tls:
        raise ConfigurationError("--cert and --client-ca are for endpoints with TLS, and none begins with tls")
    return endpoints


def _middleware(args: argparse.Namespace) -> list[Middleware]:
    worn: list[Middleware] = []
    if args.allow or args.deny:
        worn.append(NetworkRules(allow=args.allow, deny=args.deny or ()))
    if args.bandwidth or args.total_bandwidth:
        worn.append(Bandwidth(each=args.bandwidth, total=args.total_bandwidth))
    if args.log_conversation:
        logging.getLogger("asyncnet.conversation").setLevel(logging.DEBUG)
        worn.append(ConversationLog())
    return worn


def _tell(text: str) -> None:
    """Print at once. That nobody reads it any more, or that a disk is full, is no reason to stop serving."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit fails again
