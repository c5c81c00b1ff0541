"""A folder to serve, both ways to serve it, and a way to ask for what is in it. For the tests of `Files`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncnet.http.files import SMALL, Files
from asyncnet.http.messages import Headers, Request, Response
from asyncnet.http.ranges import ByteRanges

TEN = b"0123456789"
MODIFIED = 1_700_000_000
LAST_MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"

WAYS = ["at once", "in a thread"]
"""What the kernel can do without waiting, and the walk in a thread: no answer depends on which it was."""


def use_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "in a thread":
        monkeypatch.setattr("asyncnet.beneath.open_cached_below", lambda path, *, follow: None)
        monkeypatch.setattr("asyncnet.http.files.read_now", lambda file, offset, count: None)


def make_root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "ten.txt").write_bytes(TEN)
    os.utime(folder / "ten.txt", (MODIFIED, MODIFIED))
    (folder / "empty").write_bytes(b"")
    (folder / "large.bin").write_bytes(bytes(range(256)) * (SMALL // 256) + b"!")
    (folder / ".hidden").write_text("hidden")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("hidden")
    (tmp_path / "secret").write_text("secret")
    return folder


async def ask(files: Files, target: str = "/ten.txt", method: str = "GET", **headers: str) -> Response:
    fields = {"host": "a", **{name.replace("_", "-"): value for name, value in headers.items()}}
    response = await files(Request(method, target, Headers(fields)))
    response.close()
    if isinstance(response.body, ByteRanges):
        await response.body.aclose()
    return response
