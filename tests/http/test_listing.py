"""Listings: what is in a folder, on a page that harms nobody."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from asyncnet.beneath import Beneath, Entry
from asyncnet.http.files import Files
from asyncnet.http.listing import listing_page, readable_size
from asyncnet.http.messages import Headers, Request
from tests.http.folder import WAYS, ask, make_root, use_way


@pytest.fixture(params=WAYS)
def root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    use_way(request.param, monkeypatch)
    return make_root(tmp_path)


class TestListing:
    async def page(self, root: Path, target: str = "/", **options: Any) -> str:
        response = await ask(Files(root, **options), target)
        assert (response.status, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert isinstance(response.body, bytes)
        return response.body.decode()

    async def test_folders_come_first_and_names_in_order(self, root: Path) -> None:
        (root / "B.txt").write_text("")
        (root / "a.txt").write_text("")
        links = re.findall('href="([^"]*)"', await self.page(root))
        assert links == ["./sub/", "./a.txt", "./B.txt", "./empty", "./large.bin", "./ten.txt"]

    async def test_a_folder_below_the_root_links_to_its_parent(self, root: Path) -> None:
        page = await self.page(root, "/sub/")
        assert re.findall('href="([^"]*)"', page) == ["../", "./deep/"]
        assert "<h1>/sub/</h1>" in page

    async def test_an_empty_folder_says_so(self, root: Path) -> None:
        assert "There is nothing here" in await self.page(root, "/sub/deep/")
        assert "There is nothing here" not in await self.page(root)

    async def test_sizes_and_dates_are_shown(self, root: Path) -> None:
        page = await self.page(root)
        assert "<td>10 B</td><td>2023-11-14 22:13</td>" in page
        assert "<td>32.0 KiB</td>" in page

    async def test_names_are_escaped_and_encoded(self, root: Path) -> None:
        (root / "<b>\"&'?#%").write_text("")
        (root / "a:b").write_text("")
        page = await self.page(root)
        assert '<a href="./%3Cb%3E%22%26%27%3F%23%25">&lt;b&gt;&quot;&amp;&#x27;?#%</a>' in page
        assert 'href="./a%3Ab"' in page

    async def test_bytes_that_are_no_utf_8_are_marked_and_linked(self, root: Path) -> None:
        Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")).write_text("")
        assert '<a href="./caf%E9">caf\ufffd</a>' in await self.page(root)

    async def test_hidden_names_and_links_that_lead_out_are_not_shown(self, root: Path) -> None:
        (root / "out").symlink_to("../secret")
        page = await self.page(root)
        for name in ("hidden", "git", "out"):
            assert f">{name}" not in page
            assert f">.{name}" not in page

    def test_a_date_past_all_calendars_is_no_error(self) -> None:
        for modified, shown in ((1 << 50, "9999-12-31 23:59"), (-(1 << 50), "1970-01-01 00:00")):
            status = os.stat_result((0o100644, 1, 1, 1, 0, 0, 0, modified, modified, modified))
            assert shown in listing_page([], [Entry("old", status)])

    def test_a_page_says_when_it_is_not_complete(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asyncnet.http.listing.MAX_LISTED", 2)
        entries = Beneath(root).scan([])
        assert "Only 2 names are shown" in listing_page([], entries)
        assert "Only" not in listing_page([], entries[:2])

    @pytest.mark.parametrize(
        ("size", "text"),
        [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            (1 << 41, "2.0 TiB"),
        ],
    )
    def test_sizes_are_readable(self, size: int, text: str) -> None:
        assert readable_size(size) == text

    async def test_a_mounted_folder_is_called_by_its_whole_path(self, root: Path) -> None:
        request = Request("GET", "/sub/", Headers())
        request.mounted_at = "/a%20<b"
        body = (await Files(root)(request)).body
        assert isinstance(body, bytes)
        assert b"<h1>/a &lt;b/sub/</h1>" in body


async def test_however_many_listings_are_asked_for_they_leave_threads_for_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_root(tmp_path)
    use_way("in a thread", monkeypatch)
    go = threading.Event()

    def slow_scan(*args: object, **options: object) -> list[Entry]:
        go.wait(30)
        return []

    monkeypatch.setattr(Beneath, "scan", slow_scan)
    files = Files(root)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask, files, "/")
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert (await ask(files, "/ten.txt")).status == 200
            go.set()
