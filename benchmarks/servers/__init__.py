"""The servers that the benchmarks compare, one file each, written as each library's documentation writes it.

Each listens on a free port of 127.0.0.1, says so in one line, and serves until it is killed. None is tuned; access logs
are off.
"""

from __future__ import annotations

import argparse
import socket
import ssl


def command_line(*names: str) -> argparse.Namespace:
    """The arguments of these names, all of them required, and `certificate`: a PEM file with the key in it, or None."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate")
    for name in names:
        parser.add_argument(name)
    return parser.parse_args()


def tls_from_command_line() -> ssl.SSLContext | None:
    """The context for `--certificate FILE`; None without the option."""
    return tls_context(command_line().certificate)


def tls_context(certificate: str | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def free_port() -> int:
    """A port for a server that does not tell which one it was given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def announce(port: int) -> None:
    """Says where the server listens, or is just about to: the line that the harness waits for."""
    settle_allocator()
    print(f"listening on tcp://127.0.0.1:{port}", flush=True)


def settle_allocator() -> None:
    """Brings glibc's allocator into the state of a program that has run for a while.

    Until a block of more than 128 KiB has been freed once, the kernel maps and unmaps each further one. asyncio
    allocates 256 KiB for every `recv`, which in a script as small as these makes it several times slower than it is in
    a real program. All servers do this, asyncnet's too.
    """
    block = bytes(1 << 20)
    del block
