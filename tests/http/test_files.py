"""Files: what a folder answers, byte for byte where it matters, and that nothing outside it ever does."""

from __future__ import annotations

import errno
import os
import re
import resource
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncnet.beneath import Beneath, Entry
from asyncnet.errors import ConfigurationError
from asyncnet.http.files import SMALL, Files, content_type, listing_page, parse_range, readable_size, split_path
from asyncnet.http.messages import FileBody, Headers, Request, Response

TEN = b"0123456789"
MODIFIED = 1_700_000_000
LAST_MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "ten.txt").write_bytes(TEN)
    os.utime(folder / "ten.txt", (MODIFIED, MODIFIED))
    (folder / "empty").write_bytes(b"")
    (folder / "large.bin").write_bytes(bytes(SMALL + 1))
    (folder / ".hidden").write_text("hidden")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("hidden")
    (tmp_path / "secret").write_text("secret")
    return folder


async def ask(files: Files, target: str = "/ten.txt", method: str = "GET", **headers: str) -> Response:
    fields = {"host": "a", **{name.replace("_", "-"): value for name, value in headers.items()}}
    response = await files(Request(method, target, Headers(fields)))
    response.close()
    return response


class TestFiles:
    async def test_a_file_comes_with_what_a_client_wants_to_know(self, root: Path) -> None:
        response = await ask(Files(root))
        assert (response.status, response.body) == (200, TEN)
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["last-modified"] == LAST_MODIFIED
        assert re.fullmatch('"[^"]+"', response.headers["etag"])
        assert response.headers["accept-ranges"] == "bytes"
        assert response.headers["x-content-type-options"] == "nosniff"

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO])
    async def test_what_cannot_be_opened_for_want_of_anything_is_not_said_to_be_absent(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
    ) -> None:
        def fail(self: Beneath, names: object) -> None:
            raise OSError(number, os.strerror(number))

        files = Files(root)
        monkeypatch.setattr(Beneath, "stat", fail)
        response = await ask(files)
        assert response.status == 503
        assert response.headers["retry-after"] == "1"
        assert os.strerror(number) in caplog.text

    async def test_a_large_file_is_left_to_the_kernel(self, root: Path) -> None:
        response = await Files(root)(Request("GET", "/large.bin", Headers()))
        assert isinstance(response.body, FileBody)
        assert (response.body.offset, response.body.count) == (0, SMALL + 1)
        assert not response.body.file.closed
        response.close()
        assert response.body.file.closed

    async def test_head_opens_nothing_for_long(self, root: Path) -> None:
        for name, size in (("/ten.txt", 10), ("/large.bin", SMALL + 1)):
            response = await Files(root)(Request("HEAD", name, Headers()))
            assert isinstance(response.body, FileBody)
            assert (response.body.count, response.body.file.closed) == (size, True)

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"])
    async def test_other_methods_are_not_allowed(self, root: Path, method: str) -> None:
        response = await ask(Files(root), method=method)
        assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")

    async def test_a_folder_without_its_slash_is_sent_to_it(self, root: Path) -> None:
        response = await ask(Files(root), "/sub?x=y")
        assert (response.status, response.headers["location"]) == (301, "./sub/?x=y")
        (root / "a:b c").mkdir()
        assert (await ask(Files(root), "/a:b%20c")).headers["location"] == "./a%3Ab%20c/"

    @pytest.mark.parametrize("target", ["//sub", "///sub", "//evil.example/..", "/sub//deep", "//"])
    async def test_no_redirect_leads_to_another_host(self, root: Path, target: str) -> None:
        response = await ask(Files(root), target)
        assert response.status == 404
        assert "location" not in response.headers

    async def test_an_index_stands_for_its_folder(self, root: Path) -> None:
        (root / "sub" / "index.html").write_text("<p>index")
        response = await ask(Files(root), "/sub/")
        assert (response.body, response.headers["content-type"]) == (b"<p>index", "text/html; charset=utf-8")
        assert (await ask(Files(root, index=None), "/sub/")).body != b"<p>index"
        assert (await ask(Files(root, index="other"), "/sub/")).body != b"<p>index"

    async def test_without_index_and_listing_a_folder_is_not_found(self, root: Path) -> None:
        assert (await ask(Files(root, listing=False), "/sub/")).status == 404

    @pytest.mark.parametrize("target", ["/missing", "/ten.txt/", "/ten.txt/x", "/missing/", "*"])
    async def test_what_is_not_there_is_not_found(self, root: Path, target: str) -> None:
        assert (await ask(Files(root), target)).status == 404

    @pytest.mark.parametrize("target", ["/ten.txt", "/sub/", "/missing"])
    async def test_out_of_descriptors_nobody_is_told_that_a_file_is_not_there(self, root: Path, target: str) -> None:
        files = Files(root)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            response = await ask(files, target)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (response.status, response.headers["retry-after"]) == (503, "1")

    async def test_names_are_decoded_once_and_may_be_any_bytes(self, root: Path) -> None:
        (root / "ä b%20.txt").write_text("found")
        Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")).write_text("latin")
        assert (await ask(Files(root), "/%C3%A4%20b%2520.txt")).body == b"found"
        assert (await ask(Files(root), "/caf%E9")).body == b"latin"

    def test_a_root_that_is_no_folder_is_a_configuration_error(self, root: Path) -> None:
        with pytest.raises(ConfigurationError):
            Files(root / "ten.txt")


class TestNothingElse:
    @pytest.mark.parametrize(
        "target",
        [
            "/../secret",
            "/sub/../../secret",
            "/%2e%2e/secret",
            "/%2e%2e%2fsecret",
            "/..%2fsecret",
            "/sub/..%2f..%2fsecret",
            "/..%5csecret",
            "/..\\secret",
            "/sub/%2e%2e/ten.txt",
            "/./ten.txt",
            "/%2e/ten.txt",
            "/ten.txt%00",
            "/ten.txt%00.html",
            "/sub%2f..%2ften.txt",
            "/sub%2fdeep",
            "/%2fetc/passwd",
            "//etc/passwd",
            "/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
            "/%252e%252e/secret",
            "/%c0%ae%c0%ae/secret",
            "/" + "a" * 256,
            "/.hidden",
            "/%2ehidden",
            "/.git/config",
            "/sub/.hidden",
            "/link",
            "/link/secret",
            "/out",
            "/absolute",
        ],
    )
    async def test_traversal_of_every_kind_is_not_found(self, root: Path, target: str) -> None:
        (root / "link").symlink_to("..")
        (root / "out").symlink_to("../secret")
        (root / "absolute").symlink_to("/etc/hostname")
        response = await ask(Files(root), target)
        assert response.status == 404
        assert b"secret" not in (response.body if isinstance(response.body, bytes) else b"")

    async def test_an_index_that_leads_out_is_not_found(self, root: Path) -> None:
        (root / "sub" / "index.html").symlink_to("../../secret")
        assert (await ask(Files(root), "/sub/")).status == 404

    async def test_a_compressed_twin_is_never_looked_for(self, root: Path) -> None:
        (root / "ten.txt.gz").symlink_to("../secret")
        assert (await ask(Files(root), accept_encoding="gzip, br")).body == TEN
        assert (await ask(Files(root), "/ten.txt.gz")).status == 404

    async def test_a_pipe_is_not_found(self, root: Path) -> None:
        os.mkfifo(root / "pipe")
        assert (await ask(Files(root), "/pipe")).status == 404

    @given(
        st.lists(st.sampled_from(["/", "..", ".", "%2e", "%2f", "%5c", "%00", "secret", "sub", "out", "%"]), max_size=8)
    )
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
    def test_no_target_shows_the_secret(self, root: Path, parts: list[str]) -> None:
        if not (root / "out").is_symlink():
            (root / "out").symlink_to("..")
        response = trio.run(Files(root), Request("GET", "/" + "".join(parts), Headers()))
        assert response.status in (200, 301, 404)
        assert response.body != b"secret"


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


NO_SINGLE_RANGE = ["bytes=0-0,2-2", "bytes=0-,0-,0-", "lines=1-2", "bytes=4-2", "bytes=a-b", "bytes=", "bytes=-", "0-1"]
NO_SINGLE_RANGE += ["bytes=1-2-3", "bytes=--1", "bytes=+1-2", "bytes=\xb2-3", "bytes=" + "9" * 30 + "-"]


class TestRanges:
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

    @pytest.mark.parametrize("field", NO_SINGLE_RANGE)
    async def test_what_is_no_single_range_gets_the_whole(self, root: Path, field: str) -> None:
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

    @given(st.text("bytes=0123456789-, ", max_size=20), st.integers(0, 30))
    def test_no_range_reaches_outside_the_file(self, field: str, size: int) -> None:
        span = parse_range("bytes=" + field, size)
        if span is not None:
            offset, count = span
            assert count >= 0
            assert not count or 0 <= offset < offset + count <= size


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
        monkeypatch.setattr("asyncnet.http.files.MAX_LISTED", 2)
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


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.CSS", "text/css; charset=utf-8"),
        ("a.png", "image/png"),
        ("a.json", "application/json"),
        ("a.tar.gz", "application/gzip"),
        ("a.txt.Z", "application/octet-stream"),
        ("a", "application/octet-stream"),
        ("data:text", "application/octet-stream"),
    ],
)
def test_the_type_follows_the_name(name: str, kind: str) -> None:
    assert content_type(name) == kind


def test_a_path_is_split_into_its_names() -> None:
    assert split_path("/") == ([], True)
    assert split_path("/a/b%20c") == (["a", "b c"], False)
    assert split_path("/a/b/") == (["a", "b"], True)
