"""Content on its way out: its line ends, its size, its chunks."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator

import trio
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.smtp.client_content import Content, LineEnds, chunked
from asyncnet.smtp.content import with_line_ends

TRICKY = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"\xff"]), max_size=30).map(b"".join)
PIECES = st.lists(TRICKY, max_size=6)


def by_lines(data: bytes) -> bytes:
    """The same by another way."""
    return b"\r\n".join(re.split(rb"\r\n|\r|\n", data))


async def as_they_come(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@given(PIECES)
def test_line_ends_are_the_same_however_the_content_is_cut(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    ends = LineEnds()
    assert b"".join(map(ends.feed, pieces)) + ends.finish() == by_lines(whole) == with_line_ends(whole)
    assert with_line_ends(with_line_ends(whole)) == with_line_ends(whole)


@given(PIECES)
def test_bytes_files_and_pieces_are_the_same_content(pieces: list[bytes]) -> None:
    async def main() -> None:
        data = b"".join(pieces)
        for is_binary in (False, True):
            wanted = data if is_binary else by_lines(data)
            for source in (data, memoryview(data), io.BytesIO(data), as_they_come(pieces)):
                content = await Content.of(source, is_binary=is_binary)
                assert b"".join([piece async for piece in content.pieces()]) == wanted
                if not isinstance(source, AsyncIterator):
                    assert (content.size, content.is_ascii) == (len(wanted), data.isascii())

    trio.run(main)


@given(PIECES, st.integers(1, 7))
def test_chunks_are_whole_and_the_last_one_is_told(pieces: list[bytes], size: int) -> None:
    async def main() -> None:
        chunks = [chunk async for chunk in chunked(as_they_come(pieces), size)]
        assert b"".join(data for data, _ in chunks) == b"".join(pieces)
        assert [is_last for _, is_last in chunks] == [False] * (len(chunks) - 1) + [True]
        assert all(len(data) == size for data, _ in chunks[:-1])
        assert len(chunks[-1][0]) <= size

    trio.run(main)
