"""Ranges: one, several, and those that ask for more than is good for anybody."""

from __future__ import annotations

import os
import re
from email import message_from_bytes, policy
from email.message import Message
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.http.files import SMALL, Files
from asyncnet.http.messages import FileBody, Headers, Request, Response
from asyncnet.http.ranges import CLOSE, MAX_RANGES, ByteRanges, Span, coalesce, parse_ranges
from tests.http.client import served
from tests.http.folder import TEN, WAYS, ask, make_root, use_way


@pytest.fixture(params=WAYS)
def root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    use_way(request.param, monkeypatch)
    return make_root(tmp_path)


NO_RANGE = ["lines=1-2", "bytes=4-2", "bytes=a-b", "bytes=", "bytes=-", "0-1", "bytes=,", "bytes=0-0 2-2", "bytes 0-0"]
NO_RANGE += ["bytes=1-2-3", "bytes=--1", "bytes=+1-2", "bytes=\xb2-3", "bytes=" + "9" * 30 + "-", "bytes=0-0,x"]
NO_RANGE += ["bytes=0-0,4-2", "bytes=0-0;2-2", "bytes=0x1-2", "bytes=0-1_0"]


class TestSingle:
    @pytest.mark.parametrize(
        ("field", "body", "content_range"),
        [
            ("bytes=0-0", b"0", "bytes 0-0/10"),
            ("bytes=2-4", b"234", "bytes 2-4/10"),
            ("bytes=7-", b"789", "bytes 7-9/10"),
            ("bytes=8-99", b"89", "bytes 8-9/10"),
            ("bytes=-3", b"789", "bytes 7-9/10"),
            ("bytes=-99", TEN, "bytes 0-9/10"),
            ("Bytes= 1-1 ", b"1", "bytes 1-1/10"),
        ],
    )
    async def test_a_single_range(self, root: Path, field: str, body: bytes, content_range: str) -> None:
        response = await ask(Files(root), range=field)
        assert (response.status, response.body) == (206, body)
        assert response.headers["content-range"] == content_range
        assert response.headers["etag"]

    @pytest.mark.parametrize("field", NO_RANGE)
    async def test_what_is_no_range_gets_the_whole(self, root: Path, field: str) -> None:
        response = await ask(Files(root), range=field)
        assert (response.status, response.body) == (200, TEN)

    @pytest.mark.parametrize("field", ["bytes=10-", "bytes=10-20", "bytes=999999999999-", "bytes=-0"])
    async def test_a_range_behind_the_end_cannot_be_satisfied(self, root: Path, field: str) -> None:
        response = await ask(Files(root), range=field)
        assert (response.status, response.headers["content-range"]) == (416, "bytes */10")

    async def test_an_empty_file_has_no_first_byte(self, root: Path) -> None:
        assert (await ask(Files(root), "/empty", range="bytes=0-")).status == 416
        assert (await ask(Files(root), "/empty", range="bytes=-5")).status == 200
        assert (await ask(Files(root), "/empty")).body == b""

    async def test_head_has_no_ranges(self, root: Path) -> None:
        assert (await ask(Files(root), method="HEAD", range="bytes=0-0")).status == 200


LARGE = bytes(range(256)) * 1024


class TestSeveral:
    @pytest.fixture
    def root(self, root: Path) -> Path:
        (root / "video.mp4").write_bytes(LARGE)
        return root

    async def parts(self, root: Path, field: str, target: str = "/video.mp4") -> list[Message]:
        """The parts of the answer, which has to be a 206 of several, as it comes over the wire."""
        async with served(Files(root)) as client:
            request = f"GET {target} HTTP/1.1\r\nhost: a\r\nrange: {field}\r\n\r\n".encode()
            status, headers, body = await client.ask(request)
            assert status == 206
            assert "content-range" not in headers
            assert "transfer-encoding" not in headers
            # The connection goes on: the length was right.
            assert (await client.ask(b"GET /ten.txt HTTP/1.1\r\nhost: a\r\n\r\n"))[2] == TEN
        assert re.fullmatch(r"multipart/byteranges; boundary=[0-9a-f]{32}", headers["content-type"])
        message = message_from_bytes(
            b"content-type: " + headers["content-type"].encode() + b"\r\n\r\n" + body, policy=policy.HTTP
        )
        assert not message.defects
        parts = message.get_payload()
        assert isinstance(parts, list)
        return parts  # type: ignore[return-value]

    async def test_they_come_as_parts_in_the_order_asked_for(self, root: Path) -> None:
        parts = await self.parts(root, "bytes=100000-100999, 0-9,-5")
        size = len(LARGE)
        assert [part["content-range"] for part in parts] == [
            f"bytes 100000-100999/{size}",
            f"bytes 0-9/{size}",
            f"bytes {size - 5}-{size - 1}/{size}",
        ]
        assert {part["content-type"] for part in parts} == {"video/mp4"}
        contents = [part.get_payload(decode=True) for part in parts]
        assert contents == [LARGE[100000:101000], LARGE[:10], LARGE[-5:]]

    async def test_what_cannot_be_satisfied_is_left_out(self, root: Path) -> None:
        parts = await self.parts(root, "bytes=0-0,999999999-,1000-1000")
        assert [part.get_payload(decode=True) for part in parts] == [LARGE[:1], LARGE[1000:1001]]

    async def test_of_which_one_is_left_is_no_multipart(self, root: Path) -> None:
        response = await ask(Files(root), range="bytes=20-30,2-4")
        assert (response.status, response.body) == (206, b"234")
        assert response.headers["content-range"] == "bytes 2-4/10"
        assert response.headers["content-type"] == "text/plain; charset=utf-8"

    async def test_of_which_none_is_left_cannot_be_satisfied(self, root: Path) -> None:
        response = await ask(Files(root), range="bytes=20-30,40-")
        assert (response.status, response.headers["content-range"]) == (416, "bytes */10")

    @pytest.mark.parametrize(
        "field", ["bytes=0-0,1-1", "bytes=0-0,9-9", "bytes=5-,0-4", "bytes=0-,0-,0-", "bytes=-10,0-9"]
    )
    async def test_ranges_that_touch_overlap_or_nearly_touch_become_one(self, root: Path, field: str) -> None:
        response = await ask(Files(root), range=field)
        assert response.status == 206
        assert isinstance(response.body, bytes)
        assert response.body in (TEN, TEN[:2])
        assert response.headers["content-range"] == f"bytes 0-{len(response.body) - 1}/10"

    async def test_the_boundary_is_another_each_time(self, root: Path) -> None:
        kinds = {
            (await ask(Files(root), "/video.mp4", range="bytes=0-0,1000-1000")).headers["content-type"]
            for _ in range(5)
        }
        assert len(kinds) == 5

    async def test_head_has_none(self, root: Path) -> None:
        response = await ask(Files(root), "/video.mp4", "HEAD", range="bytes=0-0,1000-1000")
        assert response.status == 200

    async def test_the_file_is_closed_whether_the_body_was_sent_or_not(self, root: Path) -> None:
        request = Request("GET", "/video.mp4", Headers({"range": "bytes=0-0,1000-1000"}))
        for pieces in (0, 1, 2, 99):
            response = await Files(root)(request)
            body = response.body
            assert isinstance(body, ByteRanges)
            held = None
            for _ in range(pieces):
                piece = await anext(body, None)
                held = piece if isinstance(piece, FileBody) else held
            await body.aclose()
            assert held is None or held.file.closed
            assert await anext(body, None) is None
            assert body._file.closed

    async def test_an_exception_thrown_into_the_body_closes_the_file(self, root: Path) -> None:
        response = await Files(root)(Request("GET", "/video.mp4", Headers({"range": "bytes=0-0,1000-1000"})))
        assert isinstance(response.body, ByteRanges)
        with pytest.raises(ZeroDivisionError):
            await response.body.athrow(ZeroDivisionError())
        assert response.body._file.closed


class TestAmplification:
    """CVE-2011-3192: ranges that ask for more than there is."""

    def sent(self, response: Response) -> int:
        if isinstance(response.body, ByteRanges):
            return response.body.length
        assert isinstance(response.body, (bytes, FileBody))
        return len(response.body) if isinstance(response.body, bytes) else response.body.count

    @pytest.mark.parametrize(
        ("name", "field"),
        [
            ("a thousand times the first byte", "bytes=" + ",".join(["0-0"] * 1000)),
            ("a thousand overlapping tails", "bytes=" + ",".join(f"{start}-" for start in range(1000))),
            ("the whole, a hundred times", "bytes=" + ",".join(["0-"] * 100)),
            ("every other byte", "bytes=" + ",".join(f"{start}-{start}" for start in range(0, 200, 2))),
            ("far apart, backwards", "bytes=" + ",".join(f"{at}-{at}" for at in range(32000, 0, -2000))),
            ("all of it, in a hundred parts", "bytes=" + ",".join(f"{at * 300}-{at * 300 + 150}" for at in range(100))),
            ("suffixes", "bytes=" + ",".join(f"-{count}" for count in range(1, 101))),
        ],
    )
    async def test_no_ranges_are_worth_more_than_the_file_and_some_heads(
        self, root: Path, name: str, field: str
    ) -> None:
        response = await ask(Files(root), "/large.bin", range=field)
        assert response.status in (200, 206)
        assert self.sent(response) <= SMALL + 1 + MAX_RANGES * 200

    async def test_too_many_ranges_get_the_whole_once(self, root: Path) -> None:
        for count, status in ((MAX_RANGES, 206), (MAX_RANGES + 1, 200)):
            field = "bytes=" + ",".join(f"{at * 300}-{at * 300}" for at in range(count))
            assert (await ask(Files(root), "/large.bin", range=field)).status == status

    async def test_many_ranges_of_a_huge_file_are_as_many_bytes(self, root: Path) -> None:
        with (root / "huge").open("wb") as file:
            os.truncate(file.fileno(), 1 << 40)
        field = "bytes=" + ",".join(f"{at << 32}-{at << 32}" for at in range(MAX_RANGES))
        response = await ask(Files(root), "/huge", range=field)
        assert response.status == 206
        assert self.sent(response) < MAX_RANGES * 200


class TestCoalescing:
    spans = st.builds(Span, st.integers(0, 5000), st.integers(1, 1000))

    @given(st.lists(spans, max_size=20))
    def test_nothing_is_lost_and_nothing_comes_twice(self, spans: list[Span]) -> None:
        merged = coalesce(spans)
        wanted = {at for span in spans for at in range(span.offset, span.end)}
        sent = [at for span in merged for at in range(span.offset, span.end)]
        assert len(sent) == len(set(sent))
        assert wanted <= set(sent)
        assert len(sent) <= len(wanted) + CLOSE * len(spans)
        ordered = sorted(merged, key=lambda span: span.offset)
        for before, after in pairwise(ordered):
            assert after.offset > before.end + CLOSE

    def test_a_span_takes_the_place_of_the_first_that_went_into_it(self) -> None:
        assert coalesce([Span(5000, 10), Span(0, 10), Span(5010, 10)]) == [Span(5000, 20), Span(0, 10)]

    @given(st.text("bytes=0123456789-, ", max_size=40), st.integers(0, 1000))
    def test_no_range_reaches_outside_the_file(self, field: str, size: int) -> None:
        for span in parse_ranges("bytes=" + field, size) or []:
            assert span.count >= 1
            assert 0 <= span.offset < span.end <= size
