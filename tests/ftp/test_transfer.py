"""Where a byte of TYPE A lies in a file."""

from __future__ import annotations

import itertools

import pytest

from asyncnet.ftp import transfer
from asyncnet.ftp.ascii import to_network
from asyncnet.ftp.memory_files import MemoryFiles


@pytest.mark.parametrize("piece", [1, 2, 3, 100])
async def test_a_place_between_lines_is_what_has_so_many_bytes_before_it(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PIECE", piece)
    for content in map(bytes, itertools.product(b"a\r\n", repeat=4)):
        download = await MemoryFiles({"a": content}).open(("a",))
        places = {len(to_network(content[:place])): place for place in range(len(content) + 1)}
        for offset in range(len(to_network(content)) + 2):
            assert await transfer.place_of(download, offset) == places.get(offset), (content, offset)
        await download.aclose()
