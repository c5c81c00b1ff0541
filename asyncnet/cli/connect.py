"""`asyncnet connect ENDPOINT`: netcat, with TLS.

Standard input goes to the peer, and what the peer sends goes to standard output.

Standard input may be a terminal, a pipe, a file or closed, so it is read in a thread, a piece at a time: epoll takes no
files, and making a terminal non-blocking would do so to the shell as well, which shares it. Trio's threads are daemons:
one that still waits for a key does not keep the process from ending.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import sys
from typing import TextIO

import trio

from asyncnet.cli.descriptors import read_some, write_all
from asyncnet.cli.groups import leaves
from asyncnet.cli.options import duration
from asyncnet.endpoints import connect, parse
from asyncnet.errors import ConfigurationError, ReceiveTimeout, RemoteProtocolError
from asyncnet.limits import Timeouts
from asyncnet.stream import Stream
from asyncnet.transports.certificates import client_context

_EPILOG = """\
At the end of standard input this side of the connection is closed, and what the peer still sends is printed until it
closes its side. TLS has no such half-close: there the peer is not told, and --wait bounds how long it may be silent.
When the peer closes, the command ends, whatever standard input does.

Exit status: 0 when the peer has closed, 1 when the connection failed or broke, 2 for wrong options.

examples:
  echo hello | asyncnet connect tcp://127.0.0.1:7000
  asyncnet connect tls://example.org:443 --alpn http/1.1 --crlf
  asyncnet connect tls://127.0.0.1:8443 --ca ca.pem --server-name www.example.org
  asyncnet connect tcp://example.org:25 --proxy socks5://127.0.0.1:1080
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Mount `connect` under the command."""
    parser = commands.add_parser(
        "connect",
        usage="asyncnet connect ENDPOINT [options]",
        description="Send standard input to a peer, and print what the peer sends.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("endpoint", metavar="ENDPOINT", help="tcp://host:port, tls://host:port or unix:/path")
    parser.add_argument("--crlf", action="store_true", help="end the lines that are sent by CR LF")
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        type=duration,
        default=30.0,
        help="for connecting, with name and handshake: 90, 90s, 5m, off (default: %(default)g s)",
    )
    parser.add_argument(
        "--wait",
        metavar="TIME",
        type=duration,
        default=math.inf,
        help="how long the peer may be silent after the end of standard input (default: off)",
    )
    parser.add_argument("--proxy", metavar="URL", help="socks5://[user:password@]host:port or http://...")
    tls = parser.add_argument_group("TLS, for endpoints that begin with tls")
    tls.add_argument("--ca", metavar="FILE", help="who vouches for the peer, instead of the system's authorities (PEM)")
    tls.add_argument("--cert", metavar="FILE", help="the certificate to show (PEM)")
    tls.add_argument("--key", metavar="FILE", help="its private key, if that is not in the certificate's file (PEM)")
    tls.add_argument("--server-name", metavar="NAME", help="the name to ask for and verify, if it is not the host")
    tls.add_argument("--alpn", metavar="NAMES", help="protocols to offer, best first, such as h2,http/1.1")
    tls.add_argument("--insecure", action="store_true", help="do not verify who the peer is")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Converse until the peer ends. Returns the exit status; raises ConfigurationError and EndpointError."""
    status = 0
    try:
        trio.run(_converse, args)
    except* (OSError, trio.BrokenResourceError, RemoteProtocolError) as group:
        for error in leaves(group):
            print(f"asyncnet connect: {_explain(error)}", file=sys.stderr)
        status = 1
    return status


async def _converse(args: argparse.Namespace) -> None:
    source, sink = _descriptor(sys.stdin), _descriptor(sys.stdout)
    if sink is None:
        raise ConfigurationError("standard output is closed")
    endpoint = _with_options(args)
    where = parse(endpoint)
    stream = await connect(
        endpoint,
        tls=client_context(where, verify=not args.insecure) if where.tls else None,
        proxy=args.proxy,
        timeout=args.timeout,
        timeouts=Timeouts(send=math.inf),  # a peer may be as slow as its user
    )
    async with stream, trio.open_nursery() as nursery:
        conversation = _Conversation(stream, args.wait)
        nursery.start_soon(conversation.send, source, args.crlf)
        await conversation.show(sink)
        nursery.cancel_scope.cancel()


def _descriptor(file: TextIO | None) -> int | None:
    """The descriptor of a standard stream; None if it is closed, when the number may be anybody's."""
    return None if file is None else file.fileno()


def _with_options(args: argparse.Namespace) -> str:
    """The endpoint, with the options for TLS in it."""
    where = parse(args.endpoint)
    alpn = None if args.alpn is None else tuple(args.alpn.split(","))
    options = {"ca": args.ca, "cert": args.cert, "key": args.key, "server_name": args.server_name, "alpn": alpn}
    given = {name: value for name, value in options.items() if value is not None}
    if (given or args.insecure) and not where.tls:
        raise ConfigurationError("the options for TLS need an endpoint that begins with tls")
    if args.insecure:
        print("asyncnet connect: --insecure: anybody may be at the other end", file=sys.stderr)
    return str(dataclasses.replace(where, **given)) if given else args.endpoint


class _Conversation:
    """Both directions of one connection."""

    def __init__(self, stream: Stream, wait: float) -> None:
        self._stream = stream
        self._wait = wait
        self._input_ended = False
        self._failure: trio.BrokenResourceError | None = None

    async def send(self, source: int | None, crlf: bool) -> None:
        """Send what comes from `source` (None: nothing), then end this side as far as that is possible."""
        try:
            last = b""
            while data := await self._read(source):
                await self._stream.send_all(to_crlf(data, last) if crlf else data)
                last = data[-1:]
            if self._stream.can_half_close:
                await self._stream.send_eof()
        except trio.BrokenResourceError as exc:
            self._failure = exc  # what the peer sent before can still be read
        self._input_ended = True
        self._limit_silence()

    async def _read(self, source: int | None) -> bytes:
        if source is None:
            return b""
        return await trio.to_thread.run_sync(read_some, source, abandon_on_cancel=True)

    async def show(self, sink: int) -> None:
        """Write what the peer sends to `sink` until it ends, or is silent for too long after our end.

        Raises the error that stopped `send`, if there was one: not all of the input has arrived.
        """
        try:
            while data := await self._stream.receive_some():
                try:
                    await trio.to_thread.run_sync(write_all, sink, data, abandon_on_cancel=True)
                except BrokenPipeError:
                    return  # whoever reads has enough, as in `asyncnet connect ... | head`
                if self._input_ended:
                    self._limit_silence()
        except ReceiveTimeout:
            pass
        if self._failure is not None:
            raise self._failure

    def _limit_silence(self) -> None:
        self._stream.deadline = trio.current_time() + self._wait


def to_crlf(data: bytes, last: bytes) -> bytes:
    """`data` with every bare LF as CR LF; `last` is the byte before it."""
    begun = last == b"\r" and data.startswith(b"\n")
    return data[:begun] + re.sub(rb"(?<!\r)\n", b"\r\n", data[begun:])


def _explain(exc: Exception) -> str:
    """One line about why a connection failed."""
    unverified = getattr(exc, "verify_message", None)  # ssl.SSLCertVerificationError
    if unverified:
        return f"the peer's certificate does not verify: {unverified}; --ca FILE names who vouches for it"
    return str(getattr(exc, "strerror", None) or exc)
