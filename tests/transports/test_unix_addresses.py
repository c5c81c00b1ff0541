"""A Unix socket is known by the name that it is found under, at both ends."""

from __future__ import annotations

import os
from pathlib import Path

from asyncnet import connect, listen


async def test_both_ends_show_the_path_of_the_endpoint(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    [listener] = await listen(f"unix:{path}")
    async with listener, await connect(f"unix:{path}") as client, await listener.accept() as server:
        assert (server.local.path, server.peer.uid) == (path, os.geteuid())
        assert (client.peer.path, client.peer.uid) == (path, os.geteuid())
