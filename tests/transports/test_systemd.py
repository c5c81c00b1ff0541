from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncnet.transports.systemd import notify


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        yield sock


def test_the_state_reaches_the_socket_of_the_service_manager(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    notify("READY=1")
    assert manager.recv(100) == b"READY=1"


def test_an_abstract_socket_is_written_with_an_at(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    manager.bind("")  # Linux chooses an abstract name
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname().replace(b"\0", b"@", 1).decode())
    notify("STOPPING=1")
    assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("value", ["", "/nobody/listens/here", "vsock:2:1234"])
def test_nobody_to_tell_is_no_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", value)
    notify("READY=1")
