"""A network of its own for a test, with whatever addresses and ports it wants, and dnsmasq for a name server."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

CLONE_NEWNET = 0x40000000  # <sched.h>


@contextmanager
def own_network(*addresses: str) -> Iterator[None]:
    """Within the block this thread, and each process that it starts, is in a new network namespace.

    That has a loopback interface alone, which has `addresses`, too; it reaches nothing else, and nothing reaches it.
    It goes away with the last of its processes. Skips the test where there can be none.
    """
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    if shutil.which("ip") is None:
        pytest.skip("ip is not there: .ci/mail-servers puts it there")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        try:
            _call("unshare", CLONE_NEWNET)
        except PermissionError:
            pytest.skip("root may make no network namespaces here")
        try:
            _ip("link", "set", "lo", "up")
            for address in addresses:
                _ip("address", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
            yield
        finally:
            _call("setns", before, CLONE_NEWNET)
    finally:
        os.close(before)


def _call(name: str, *arguments: int) -> None:
    """A function of the C library that Python has no name for yet."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def dnsmasq(records: Sequence[str], address: str, port: int = 53) -> Iterator[None]:
    """dnsmasq, authoritative for "test" by `records`, which are options of its; it refuses all other names."""
    if shutil.which("dnsmasq") is None:
        pytest.skip("dnsmasq is not installed")
    options = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--no-poll",
        "--local=/test/",
    ]
    listen = [f"--listen-address={address}", "--bind-interfaces", f"--port={port}", "--pid-file=", "--log-facility=-"]
    with subprocess.Popen(["dnsmasq", *options, *listen, *records], stderr=subprocess.PIPE) as server:
        try:
            assert server.stderr is not None
            if not any(b"started" in line for line in server.stderr):
                pytest.fail("dnsmasq has not started")
            yield
        finally:
            server.terminate()
