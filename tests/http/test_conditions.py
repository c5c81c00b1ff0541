"""Preconditions and dates: what a client may ask to be spared, and when."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.http.conditions import failed_precondition, format_date, parse_date
from asyncnet.http.files import Files
from asyncnet.http.messages import Headers
from tests.http.folder import LAST_MODIFIED, MODIFIED, TEN, WAYS, ask, make_root, use_way


@pytest.fixture(params=WAYS)
def root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    use_way(request.param, monkeypatch)
    return make_root(tmp_path)


class TestConditions:
    @pytest.fixture
    async def etag(self, root: Path) -> str:
        return (await ask(Files(root))).headers["etag"]

    async def test_the_tag_changes_with_the_file(self, root: Path, etag: str) -> None:
        (root / "ten.txt").write_bytes(TEN[::-1])
        os.utime(root / "ten.txt", (MODIFIED, MODIFIED))
        assert (await ask(Files(root))).headers["etag"] != etag

    @pytest.mark.parametrize("pattern", ["{}", "W/{}", '"x", {}', "{} , W/{}", "*"])
    async def test_if_none_match_saves_the_body(self, root: Path, etag: str, pattern: str) -> None:
        for method in ("GET", "HEAD"):
            response = await ask(Files(root), method=method, if_none_match=pattern.format(etag, etag))
            assert (response.status, response.body) == (304, b"")
            assert response.headers["etag"] == etag
            assert "content-type" not in response.headers

    async def test_if_none_match_counts_more_than_a_date(self, root: Path) -> None:
        response = await ask(Files(root), if_none_match='"x"', if_modified_since=LAST_MODIFIED)
        assert response.status == 200

    @pytest.mark.parametrize(
        ("date", "status"),
        [
            (LAST_MODIFIED, 304),
            (formatdate(MODIFIED + 1, usegmt=True), 304),
            (formatdate(MODIFIED - 1, usegmt=True), 200),
            ("Tuesday, 14-Nov-23 22:13:20 GMT", 304),
            ("Tue Nov 14 22:13:20 2023", 304),
            ("yesterday", 200),
            ("", 200),
        ],
    )
    async def test_if_modified_since(self, root: Path, date: str, status: int) -> None:
        assert (await ask(Files(root), if_modified_since=date)).status == status

    async def test_if_match(self, root: Path, etag: str) -> None:
        assert (await ask(Files(root), if_match=etag)).status == 200
        assert (await ask(Files(root), if_match="*")).status == 200
        assert (await ask(Files(root), if_match='"x"')).status == 412
        assert (await ask(Files(root), if_match=f"W/{etag}")).status == 412

    async def test_if_unmodified_since(self, root: Path, etag: str) -> None:
        assert (await ask(Files(root), if_unmodified_since=LAST_MODIFIED)).status == 200
        before = formatdate(MODIFIED - 1, usegmt=True)
        assert (await ask(Files(root), if_unmodified_since=before)).status == 412
        assert (await ask(Files(root), if_unmodified_since=before, if_match=etag)).status == 200
        assert (await ask(Files(root), if_unmodified_since="never")).status == 200

    async def test_a_file_from_the_future_is_not_dated_there(self, root: Path) -> None:
        os.utime(root / "ten.txt", (2**33, 2**33))
        assert not (await ask(Files(root))).headers["last-modified"].endswith("2242 GMT")

    async def test_if_range_lets_only_the_same_file_through(self, root: Path) -> None:
        etag = (await ask(Files(root))).headers["etag"]
        for value, status in ((etag, 206), (f"W/{etag}", 200), ('"x"', 200), (LAST_MODIFIED, 206), ("x", 200)):
            assert (await ask(Files(root), range="bytes=0-0", if_range=value)).status == status
        earlier = formatdate(MODIFIED - 1, usegmt=True)
        assert (await ask(Files(root), range="bytes=0-0", if_range=earlier)).status == 200

    @pytest.mark.parametrize(("age", "status"), [(0.5, 200), (1, 200), (1.5, 206)])
    async def test_the_date_of_a_file_that_has_just_changed_is_too_weak(
        self, root: Path, age: float, status: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("asyncnet.http.files.time", SimpleNamespace(time=lambda: MODIFIED + age))
        assert (await ask(Files(root), range="bytes=0-0", if_range=LAST_MODIFIED)).status == status

    async def test_conditions_come_before_ranges(self, root: Path) -> None:
        assert (await ask(Files(root), range="bytes=0-0", if_none_match="*")).status == 304
        assert (await ask(Files(root), range="bytes=99-", if_match='"x"')).status == 412


class TestIfRangeTricks:
    """What looks like the file's tag or date, but is not exactly it, gets the whole file (RFC 9110 section 13.1.5)."""

    @pytest.mark.parametrize(
        "pattern",
        [
            "W/{etag}",
            '"x", {etag}',
            '{etag}, "x"',
            "{etag}, {etag}",
            "{bare}",
            '{bare}"',
            "*",
            '"*"',
            "",
            '""',
            "Tuesday, 14-Nov-23 22:13:20 GMT",
            "Tue Nov 14 22:13:20 2023",
            "Tue, 14 Nov 2023 22:13:20 +0000",
            "Tue, 14 Nov 2023 22:13:21 GMT",
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "W/" + LAST_MODIFIED,
        ],
    )
    async def test_what_is_not_exactly_the_files_gets_the_whole(self, root: Path, pattern: str) -> None:
        etag = (await ask(Files(root))).headers["etag"]
        if_range = pattern.format(etag=etag, bare=etag.strip('"'))
        for field in ("bytes=0-0", "bytes=0-0,5-5", "bytes=99-"):
            response = await ask(Files(root), range=field, if_range=if_range)
            assert (response.status, response.body) == (200, TEN)

    async def test_without_a_range_it_means_nothing(self, root: Path) -> None:
        assert (await ask(Files(root), if_range='"x"')).status == 200


class TestDates:
    @pytest.mark.parametrize(
        "text",
        ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
    )
    def test_all_three_forms_are_read(self, text: str) -> None:
        assert parse_date(text, MODIFIED) == 784111777

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "784111777",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 +0100",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 23:60:00 GMT",
            "Sun, 06 Nov 1994 23:59:61 GMT",
            "Sun, 06 Nov 0000 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 0\xb2 Nov 1994 08:49:37 GMT",
        ],
    )
    def test_what_is_no_date_is_none(self, text: str) -> None:
        assert parse_date(text, MODIFIED) is None

    @pytest.mark.parametrize(("digits", "year"), [("23", 2023), ("73", 2073), ("74", 1974), ("00", 2000)])
    def test_a_year_of_two_digits_is_at_most_fifty_years_ahead(self, digits: str, year: int) -> None:
        moment = parse_date(f"Monday, 01-Jan-{digits} 00:00:00 GMT", MODIFIED)
        assert moment == datetime(year, 1, 1, tzinfo=UTC).timestamp()

    @given(st.integers(0, 253402300799))
    def test_what_is_formatted_is_parsed_again(self, second: int) -> None:
        assert parse_date(format_date(second).decode(), MODIFIED) == second

    @given(st.text(st.characters(max_codepoint=255)))
    def test_no_text_is_an_error(self, text: str) -> None:
        fields = [("if-none-match", text), ("if-match", text), ("if-modified-since", text), ("if-range", text)]
        headers = Headers.checked([(name.encode(), value.encode("latin-1")) for name, value in fields])
        assert failed_precondition(headers, '"x"', MODIFIED, MODIFIED) in (None, 304, 412)
        parse_date(text, MODIFIED)
