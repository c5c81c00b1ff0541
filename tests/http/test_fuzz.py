"""Random damage to valid requests: whatever comes, a peer gets HTTP's answers or an end, and both engines agree."""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncnet.http import HTTPHandler, Request, Response, framing, wire
from asyncnet.http.engine import Engine, H11Engine, RequestHead
from asyncnet.http.httptools_engine import HttptoolsEngine
from asyncnet.http.limits import HTTPLimits
from asyncnet.http.wire import Head, HeadReader, RequestError, ordinary_head
from asyncnet.testing import stream_pair
from tests.http.attacks import CHUNKS, FRAMING, HARMLESS, HEADS
from tests.http.test_attacks import responses_in

LIMITS = HTTPLimits()
SMALL = [row.data for row in FRAMING + CHUNKS + HEADS + HARMLESS if len(row.data) < 300]
LINES = [b"GET / HTTP/1.1\r\n", b"POST /x?y HTTP/1.1\r\n", b"GET http://b/ HTTP/1.1\r\n", b"HEAD /%41 HTTP/1.0\r\n"]
FIELDS = [
    b"Host: a\r\n",
    b"host:[::1]:80 \r\n",
    b"X: y\r\n",
    b"Connection: keep-alive\r\n",
    b"connection: close\r\n",
    b"Connection: upgrade\r\n",
    b"Upgrade: h2c\r\n",
    b"Proxy-Connection: close\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
]
BODIES = [b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n"]
SPICES = [
    *(bytes([code]) for code in b'\r\n\0\t :;,"\\/?#%[]@+-0aX\x0b\x7f\x80\xff'),
    *(b"\r\n", b"\r\n\r\n", b"\r\n ", b"\n\n", b"chunked", b"identity", b", ", b"HTTP/1.1", b"HTTP/1.0", b"http://"),
    *FIELDS,
]

well_formed = st.builds(
    lambda line, fields, body: line + b"".join(fields) + b"\r\n" + body,
    st.sampled_from(LINES),
    st.lists(st.sampled_from(FIELDS), min_size=1, max_size=5),
    st.sampled_from(BODIES),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A request with up to three places cut out, doubled, or replaced by what parsers stumble over."""
    data = draw(well_formed | st.sampled_from(SMALL))
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.sampled_from([0, 0, 1, 1, 2, 5, 20])))
        kept = data[begin:end] * 2 if draw(st.booleans()) else draw(st.sampled_from(SPICES) | st.binary(max_size=2))
        data = data[:begin] + kept + data[end:]
    return data


def read(engine: Engine, raw: bytes) -> RequestHead | int:
    try:
        return engine.parse_head(raw)
    except RequestError as error:
        return error.status


def judge(data: bytes) -> tuple[Head, bytes] | int | None:
    try:
        return HeadReader(LIMITS).feed(data)
    except RequestError as error:
        return error.status


SHARED: list[Engine] = [H11Engine(), HttptoolsEngine()]  # as a handler's connections share theirs


@settings(max_examples=400, deadline=None)
@given(damaged())
def test_both_engines_read_the_same_from_every_head_that_passes(data: bytes) -> None:
    verdict = judge(data)
    if not isinstance(verdict, tuple):
        return
    raw = verdict[0].raw
    first, second = [read(engine, raw) for engine in SHARED]
    assert first == second
    assert not isinstance(first, int)  # what has passed, no parser has to refuse
    method, target, version, headers = first
    line, *fields = raw[:-4].split(b"\r\n")
    assert b" ".join([method.encode(), target, b"HTTP/" + version.encode()]) == line
    expected = [(name.lower(), value.strip(b" \t")) for name, _, value in (field.partition(b":") for field in fields)]
    assert headers == [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in expected]


@settings(max_examples=400, deadline=None)
@given(damaged(), st.binary(max_size=5))
def test_what_is_ordinary_is_what_the_careful_reader_finds_ordinary(data: bytes, behind: bytes) -> None:
    data += behind
    end = ordinary_head(data, LIMITS)
    if not end:
        return
    verdict = judge(data)
    assert isinstance(verdict, tuple)
    head, rest = verdict
    assert (head.raw, head.length, rest) == (data[:end], 0, data[end:])
    for engine in SHARED:
        request = engine.parse_ordinary_head(data[:end])
        assert request == read(engine, data[:end])
        assert request[2] == "1.1"
        fields = dict(request[3])
        assert not fields.keys() & {b"expect", b"upgrade", b"content-length", b"transfer-encoding"}
        assert fields.get(b"connection", b"keep-alive").lower() == b"keep-alive"


async def converse(engine: Engine, data: bytes, cuts: Iterable[int]) -> tuple[bytes, list[tuple[str, str, bytes]]]:
    """What comes back for `data` sent in pieces, dates left out, and what the application got. Raises what escapes."""
    served: list[tuple[str, str, bytes]] = []

    async def app(request: Request) -> Response:
        body = await request.read()
        served.append((request.method, request.target, body))
        return Response.text(f"{len(served)}")

    ours, theirs = stream_pair(capacity=1 << 16)
    output = b""
    async with trio.open_nursery() as nursery, ours:
        nursery.start_soon(HTTPHandler(app, engine=engine), theirs)
        at = 0
        for cut in (*sorted(cuts), len(data)):
            if at < cut:
                await ours.send_all(data[at:cut])
                await trio.testing.wait_all_tasks_blocked()
                at = cut
        await ours.send_eof()
        while piece := await ours.receive_some():  # a reset would raise
            output += piece
    return re.sub(rb"date: [^\r]*\r\n", b"", output), served


@settings(max_examples=120, deadline=None)
@given(st.lists(damaged(), min_size=1, max_size=3), st.lists(st.integers(0, 400), max_size=4))
def test_a_connection_is_answered_alike_by_both_engines_however_it_is_cut(
    requests: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(requests)

    async def main() -> None:
        whole = await converse(SHARED[0], data, ())
        for engine in SHARED:
            cut_output, cut_served = await converse(engine, data, cuts)
            # Whether a client that waits for it is told 100 Continue depends on what has come by then.
            assert cut_output.replace(CONTINUE, b"") == whole[0].replace(CONTINUE, b"")
            assert cut_served == whole[1]
            assert await converse(engine, data, ()) == whole
        statuses = responses_in(without_lengths_of_head(whole[0]))
        for status, closes in statuses[:-1]:
            assert (status, closes) == (200, False)  # nothing comes behind a refusal, or behind what said that it ends
        if statuses and statuses[-1][0] != 200:
            assert statuses[-1][1]
        assert len(whole[1]) <= len(statuses)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def without_lengths_of_head(output: bytes) -> bytes:
    """The answers to HEAD tell the length of a body that is not there."""
    answers = re.split(rb"(?=HTTP/1\.1 )", output.replace(CONTINUE, b""))[1:]
    return b"".join(
        re.sub(rb"content-length: [0-9]+", b"content-length: 0", answer) if answer.endswith(b"\r\n\r\n") else answer
        for answer in answers
    )


UNBOUNDED = 64
"""How often something may be repeated by a repeat that can go back."""


def repeats_that_can_go_back(pattern: Any) -> list[int]:
    """The upper bounds of the repeats in a parsed pattern that a matcher may take back, one by one."""
    found = []
    for operation, argument in pattern:
        if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            found.append(int(argument[1]))
        for part in argument if isinstance(argument, (tuple, list)) else (argument,):
            for inner in part if isinstance(part, list) else (part,):
                if isinstance(inner, parser.SubPattern):
                    found += repeats_that_can_go_back(inner)
    return found


@pytest.mark.parametrize(
    "match",
    [
        wire._is_request_line,
        wire._is_field,
        wire._is_head,
        wire._is_chunk_line,
        wire._is_token,
        framing._are_fields,
        framing._are_ordinary_fields,
    ],
)
def test_no_pattern_that_meets_whole_messages_can_go_back_over_them(match: Any) -> None:
    """So the time it takes grows with the length and no faster, whatever the bytes."""
    assert all(bound <= UNBOUNDED for bound in repeats_that_can_go_back(parser.parse(match.__self__.pattern)))


def test_the_pattern_of_ordinary_heads_goes_back_over_blanks_alone() -> None:
    """Those of a Connection field, once: a lookahead has no repeat around it that could be taken back."""
    pattern = wire._match_ordinary_head.__self__.pattern
    blanks = pattern.count(rb"[ \t]*keep-alive[ \t]*")
    assert blanks == 2
    rest = pattern.replace(rb"[ \t]*keep-alive[ \t]*", b"")
    assert all(bound <= UNBOUNDED for bound in repeats_that_can_go_back(parser.parse(rest)))


def test_the_check_above_would_find_one() -> None:
    assert max(repeats_that_can_go_back(parser.parse(rb"(?:a|(?:b++c*)x)?"))) > UNBOUNDED
