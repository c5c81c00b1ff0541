"""A bare FTP client on blocking sockets, that costs as little as Python can: the load of the FTP benchmarks.

As a program it runs one kind of load and prints what it found: `python -m benchmarks.ftp.client KIND PORT PID COUNT`.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.harness import Sample, processor_seconds

PIECE = 1 << 20
SMALL = 4096
PARALLEL = 8
"""Logins at the same moment."""


class LoadError(Exception):
    """The server does not do what the load needs."""


class Client:
    """A logged-in control connection, in TYPE I."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.socket: socket.socket = connect(port)
        self.tls = None
        self._buffer = b""
        self.reply(b"220")
        if tls is not None:
            self.command(b"AUTH TLS", b"234")
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
            self.tls = tls
        self.command(b"USER anonymous", b"331")
        self.command(b"PASS x", b"230")
        if tls is not None:
            self.command(b"PBSZ 0", b"200")
            self.command(b"PROT P", b"200")
        self.command(b"TYPE I", b"200")
        self.command(b"CWD all", b"250")

    def reply(self, code: bytes) -> bytes:
        while True:
            line, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                data = self.socket.recv(65536)
                if not data:
                    raise LoadError("the server has ended the control connection")
                self._buffer += data
                continue
            self._buffer = rest
            if line[3:4] == b" ":
                if not line.startswith(code):
                    raise LoadError(f"expected {code.decode()}, had {line.decode()}")
                return line

    def command(self, line: bytes, code: bytes) -> bytes:
        self.socket.sendall(line + b"\r\n")
        return self.reply(code)

    def begin(self, line: bytes) -> None:
        """A command that a data connection is there for: 150, or 125."""
        self.command(line, b"1")

    def data(self) -> socket.socket:
        line = self.command(b"EPSV", b"229")
        return connect(int(line.rpartition(b"|||")[2].partition(b"|")[0]))

    def secured(self, data: socket.socket) -> socket.socket:
        if self.tls is None:
            return data
        assert isinstance(self.socket, ssl.SSLSocket)
        return self.tls.wrap_socket(data, server_hostname="localhost", session=self.socket.session)

    def retrieve(self, name: bytes) -> int:
        data = self.data()
        self.begin(b"RETR " + name)
        data = self.secured(data)
        buffer, received = bytearray(PIECE), 0
        while count := data.recv_into(buffer):
            received += count
        data.close()
        self.reply(b"226")
        return received

    def store(self, name: bytes, piece: bytes, times: int = 1) -> None:
        data = self.data()
        self.begin(b"STOR " + name)
        data = self.secured(data)
        for _ in range(times):
            data.sendall(piece)
        if isinstance(data, ssl.SSLSocket):
            data = data.unwrap()
        data.close()
        self.reply(b"226")


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def retrieve_one(port: int, count: int, tls: ssl.SSLContext | None = None) -> Sample:
    client = Client(port, tls)
    client.retrieve(b"file")
    began = time.perf_counter()
    size = sum(client.retrieve(b"file") for _ in range(count))
    return {"rate": size / (time.perf_counter() - began) / 1e9}


def store_one(port: int, count: int, tls: ssl.SSLContext | None = None) -> Sample:
    """Files that are new, each removed before the next one: the memory of a second one is not what is measured."""
    client = Client(port, tls)
    piece = os.urandom(PIECE)
    seconds = 0.0
    for number in range(1 + count):
        began = time.perf_counter()
        client.store(b"stored", piece, 1 << 10)
        seconds += time.perf_counter() - began if number else 0  # the first one finds memory that nobody has touched
        client.command(b"DELE stored", b"250")
    return {"rate": count * PIECE * (1 << 10) / seconds / 1e9}


def store_small(port: int, count: int) -> Sample:
    client = Client(port)
    piece = os.urandom(SMALL)
    began = time.perf_counter()
    for number in range(count):
        client.store(b"small%d" % number, piece)
    return {"rate": count / (time.perf_counter() - began)}


def retrieve_small(port: int, count: int) -> Sample:
    client = Client(port)
    began = time.perf_counter()
    for number in range(count):
        if client.retrieve(b"small%d" % number) != SMALL:
            raise LoadError("a file has not come whole")
    return {"rate": count / (time.perf_counter() - began)}


def log_in(port: int, count: int) -> Sample:
    def some(_: int) -> None:
        for _ in range(count // PARALLEL):
            client = Client(port)
            client.command(b"QUIT", b"221")
            client.socket.close()

    began = time.perf_counter()
    at_once(some, PARALLEL)
    return {"rate": count // PARALLEL * PARALLEL / (time.perf_counter() - began)}


def at_once(one: Callable[[int], None], count: int) -> None:
    """Have so many threads do something; what goes wrong in any of them goes wrong here."""
    with ThreadPoolExecutor(count) as threads:
        list(threads.map(one, range(count)))


def sessions(port: int, count: int) -> Sample:
    """So many sessions that fetch a file of 10 MB at the same moment: the fastest, the slowest."""
    clients = [Client(port) for _ in range(count)]
    reading = selectors.DefaultSelector()
    for number, client in enumerate(clients):
        data = client.data()
        data.setblocking(False)
        reading.register(data, selectors.EVENT_READ, number)
    seconds, sizes, buffer = [0.0] * count, [0] * count, bytearray(1 << 16)
    began = time.perf_counter()
    for client in clients:
        client.socket.sendall(b"RETR ten\r\n")
    while reading.get_map():
        for key, _ in reading.select():
            got = key.fileobj.recv_into(buffer)  # type: ignore[union-attr]
            sizes[key.data] += got
            if not got:
                seconds[key.data] = time.perf_counter() - began
                reading.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
    for client in clients:
        client.reply(b"1")
        client.reply(b"226")
    if set(sizes) != {10**7}:
        raise LoadError("a file has not come whole")
    return {"spread": max(seconds) / min(seconds), "rate": count / max(seconds) / 100}


def list_entries(port: int, count: int) -> Sample:
    """MLSD of a folder with so many entries: when the first comes, and how long another session waits at most."""
    client, other = Client(port), Client(port)
    client.command(b"CWD many", b"250")
    over = threading.Event()
    longest = 0.0

    def watch() -> None:
        nonlocal longest
        while not over.is_set():
            began = time.perf_counter()
            other.command(b"NOOP", b"200")
            longest = max(longest, time.perf_counter() - began)

    watching = threading.Thread(target=watch)
    watching.start()
    data = client.data()
    began = time.perf_counter()
    client.socket.sendall(b"MLSD\r\n")
    first, lines = 0.0, 0
    while piece := data.recv(PIECE):
        first = first or time.perf_counter() - began
        lines += piece.count(b"\n")
    seconds = time.perf_counter() - began
    data.close()
    over.set()
    watching.join()
    client.reply(b"1")
    client.reply(b"226")
    if lines < count:
        raise LoadError(f"{lines} entries of {count}")
    return {"first": 1e3 * first, "held": 1e3 * longest, "rate": lines / seconds}


KINDS: dict[str, Callable[[int, int], Sample]] = {
    "retr": retrieve_one,
    "stor": store_one,
    "retr-tls": lambda port, count: retrieve_one(port, count, trusting()),
    "stor-tls": lambda port, count: store_one(port, count, trusting()),
    "small-up": store_small,
    "small-down": retrieve_small,
    "login": log_in,
    "sessions": sessions,
    "list": list_entries,
}


def peak_bytes(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    kind, port, pid, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    began, busy = time.perf_counter(), processor_seconds(pid)
    try:
        sample = KINDS[kind](port, count)
    except LoadError as error:
        sys.exit(str(error))
    busy = processor_seconds(pid) - busy
    sample["busy"] = busy / (time.perf_counter() - began)
    sample["cost"] = 1e6 * busy / count
    sample["peak"] = peak_bytes(pid) / 2**20
    print(json.dumps(sample))


if __name__ == "__main__":
    main()
