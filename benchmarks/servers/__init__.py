"""The servers that the benchmarks compare, one file each, written as each library's documentation writes it.

Each listens on a free port of 127.0.0.1, says so in one line, and serves until it is killed. None is tuned.
"""

from __future__ import annotations

import argparse
import ssl


def tls_from_command_line() -> ssl.SSLContext | None:
    """The context for `--certificate FILE`, a PEM file with the key in it; None without the option."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate")
    certificate = parser.parse_args().certificate
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def announce(port: int) -> None:
    """Says that the server listens: the line that the harness waits for."""
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
