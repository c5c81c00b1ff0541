"""Where one can listen, and what is said where one cannot."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest
import trio

from asyncnet import ConfigurationError, connect, listen
from asyncnet.endpoints import parse
from asyncnet.transports.listening import SocketListener

NOT_HERE = "192.0.2.1"


class Names(trio.abc.HostnameResolver):
    """Knows one name, which has these addresses."""

    def __init__(self, *hosts: str) -> None:
        self._hosts = hosts

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, int(port))) for each in self._hosts]

    async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def]
        raise NotImplementedError


async def test_an_address_of_a_name_that_this_machine_lacks_is_left_out() -> None:
    """Containers without IPv6 still say that localhost is ::1 as well."""
    trio.socket.set_custom_hostname_resolver(Names(NOT_HERE, "127.0.0.1"))
    [listener] = await listen("tcp://localhost:0")
    async with listener:
        assert listener.endpoint.startswith("tcp://127.0.0.1:")


async def test_a_name_of_which_this_machine_has_no_address_is_told() -> None:
    trio.socket.set_custom_hostname_resolver(Names(NOT_HERE))
    with pytest.raises(ConfigurationError, match="does not have that address"):
        await listen("tcp://elsewhere:0")


async def test_a_unix_path_may_be_as_long_as_the_system_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = "s" * 107
    [listener] = await listen(f"unix:{path}")
    async with listener, await connect(f"unix:{path}") as client:
        assert client.peer.path == path
    assert os.listdir(tmp_path) == []


async def test_a_listener_s_endpoint_can_be_connected_to_whatever_its_path(tmp_path: Path) -> None:
    [listener] = await listen(f"unix:{tmp_path}/a%3Fb%25c%26d")
    async with listener:
        assert parse(listener.endpoint).path == f"{tmp_path}/a?b%c&d"
        await (await connect(listener.endpoint)).aclose()


async def test_a_descriptor_is_listened_on_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        [listener] = await listen(f"fd:{sock.fileno()}")
        sock.detach()
        async with listener:
            with pytest.raises(ConfigurationError, match="twice"):
                await listen(f"fd:{listener._socket.fileno()}")  # type: ignore[attr-defined]


async def test_a_connection_that_broke_in_the_queue_gives_the_others_a_turn() -> None:
    """A security module can refuse every accept: trying again at once would hold up the whole program for ever."""

    class Refused(socket.socket):
        def accept(self):  # type: ignore[no-untyped-def]
            errors.append(PermissionError(errno.EPERM, os.strerror(errno.EPERM)))
            assert len(errors) == 1, "it was tried again at once"
            raise errors[0]

    errors: list[OSError] = []
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = SocketListener(Refused(fileno=sock.detach()))
    async with listener:
        assert listener.accept_now() is None
