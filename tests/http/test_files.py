"""Files: what a folder answers, byte for byte where it matters."""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

import pytest
import trio

from asyncnet.beneath import Beneath
from asyncnet.errors import ConfigurationError
from asyncnet.http.files import IMMUTABLE, SMALL, Files, split_path
from asyncnet.http.messages import FileBody, Headers, Request
from asyncnet.transports.files import read_now
from tests.http.folder import LAST_MODIFIED, TEN, WAYS, ask, make_root, use_way


@pytest.fixture(params=WAYS)
def root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    use_way(request.param, monkeypatch)
    return make_root(tmp_path)


class TestFiles:
    async def test_a_file_comes_with_what_a_client_wants_to_know(self, root: Path) -> None:
        response = await ask(Files(root))
        assert (response.status, response.body) == (200, TEN)
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["last-modified"] == LAST_MODIFIED
        assert re.fullmatch('"[^"]+"', response.headers["etag"])
        assert response.headers["accept-ranges"] == "bytes"
        assert response.headers["x-content-type-options"] == "nosniff"

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.EAGAIN])
    async def test_what_cannot_be_opened_for_want_of_anything_is_not_said_to_be_absent(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
    ) -> None:
        def fail(self: Beneath, names: object) -> None:
            raise OSError(number, os.strerror(number))

        files = Files(root)
        monkeypatch.setattr(Beneath, "open_now", fail)
        monkeypatch.setattr(Beneath, "open_with_stat", fail)
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

    async def test_well_known_names_are_for_everybody_at_the_top_of_the_root(self, root: Path) -> None:
        for folder in (root / ".well-known", root / "sub" / ".well-known"):
            folder.mkdir()
            (folder / "security.txt").write_text("contact")
            (folder / ".hidden").write_text("hidden")
        assert (await ask(Files(root), "/.well-known/security.txt")).body == b"contact"
        assert (await ask(Files(root), "/.well-known/.hidden")).status == 404
        assert (await ask(Files(root), "/sub/.well-known/security.txt")).status == 404


class TestCacheControl:
    async def test_a_cache_asks_each_time_unless_told_otherwise(self, root: Path) -> None:
        response = await ask(Files(root))
        assert response.headers["cache-control"] == "no-cache"
        again = await ask(Files(root), if_none_match=response.headers["etag"])
        assert (again.status, again.headers["cache-control"]) == (304, "no-cache")

    async def test_one_value_is_for_all_and_none_for_none(self, root: Path) -> None:
        assert (await ask(Files(root, cache="max-age=60"))).headers["cache-control"] == "max-age=60"
        assert "cache-control" not in (await ask(Files(root, cache=None))).headers

    async def test_the_first_pattern_that_fits_counts(self, root: Path) -> None:
        (root / "app.3f2a.js").write_text("")
        (root / "sub" / "index.html").write_text("")
        (root / "sub" / "deep" / "a.js").write_text("")
        rules = {
            "sub/*.js": "max-age=1",
            "*.*.js": IMMUTABLE,
            "*.html": "max-age=2",
            "/ten.txt": "max-age=3",
            "e*": None,
        }
        files = Files(root, cache=rules)
        for target, value in (
            ("/sub/deep/a.js", "max-age=1"),
            ("/app.3f2a.js", IMMUTABLE),
            ("/sub/", "max-age=2"),
            ("/ten.txt", "max-age=3"),
            ("/large.bin", "no-cache"),
            ("/empty", None),
        ):
            assert (await ask(files, target)).headers.get("cache-control") == value

    async def test_what_is_not_there_is_not_kept(self, root: Path) -> None:
        assert "cache-control" not in (await ask(Files(root, cache=IMMUTABLE), "/missing")).headers

    async def test_what_one_request_has_asked_for_wrongly_no_cache_keeps_for_others(self, root: Path) -> None:
        files = Files(root, cache=IMMUTABLE)
        assert (await ask(files)).headers["cache-control"] == IMMUTABLE
        for status, response in (
            (416, await ask(files, range="bytes=99-")),
            (412, await ask(files, if_match='"x"')),
        ):
            assert response.status == status
            assert response.headers["cache-control"] == "no-store"

    def test_what_cannot_be_a_field_is_a_configuration_error(self, root: Path) -> None:
        with pytest.raises(ConfigurationError, match="Cache-Control"):
            Files(root, cache={"*": "no-cache\r\nset-cookie: a=b"})


class TestWithoutAThread:
    """What the kernel has in memory is answered on the event loop, at once."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = make_root(tmp_path)
        (root / "index.html").write_text("index")
        if Beneath(root)._open_cached is None:
            pytest.skip("this kernel or this file system cannot open files without waiting")
        with (root / "ten.txt").open("rb") as file:
            if read_now(file, 0, 10) is None:
                pytest.skip("this file system cannot read without waiting")
        return root

    @pytest.mark.parametrize(
        ("target", "status", "content"),
        [
            ("/ten.txt", 200, TEN),
            ("/", 200, b"index"),
            ("/empty", 200, b""),
            ("/link", 200, TEN),
            ("/sub", 301, None),
            ("/missing", 404, None),
            ("/.hidden", 404, None),
            ("/large.bin", 200, None),
        ],
    )
    async def test_what_was_asked_for_before_needs_none(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, target: str, status: int, content: bytes | None
    ) -> None:
        (root / "link").symlink_to("ten.txt")
        files = Files(root, precompressed=True)
        await ask(files, target)

        async def refuse(*args: object, **options: object) -> None:
            raise AssertionError("a thread was asked")

        monkeypatch.setattr(trio.to_thread, "run_sync", refuse)
        response = await ask(files, target)
        assert response.status == status
        if content is not None:
            assert response.body == content

    async def test_no_descriptor_is_left_open(self, root: Path) -> None:
        files = Files(root, precompressed=True)
        before = set(os.listdir("/proc/self/fd"))
        for target in ("/ten.txt", "/", "/sub", "/sub/", "/missing", "/large.bin", "/ten.txt/", "/pipe"):
            await ask(files, target, accept_encoding="br, gzip", range="bytes=0-0,9-9")
            await ask(files, target, "HEAD")
        assert set(os.listdir("/proc/self/fd")) == before

    async def test_a_root_that_was_replaced_is_the_new_one_at_once(self, root: Path) -> None:
        files = Files(root)
        assert (await ask(files)).body == TEN
        root.rename(root.parent / "old")
        assert (await ask(files)).status == 404
        root.mkdir()
        (root / "ten.txt").write_bytes(b"new")
        assert (await ask(files)).body == b"new"


class TestCancelling:
    async def test_a_file_that_waits_for_a_thread_is_closed_when_the_request_is_cancelled(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("asyncnet.http.files.read_now", lambda file, offset, count: None)
        before = set(os.listdir("/proc/self/fd"))
        files = Files(root)
        await ask(files)
        with trio.CancelScope() as scope:
            scope.cancel()
            await files(Request("GET", "/ten.txt", Headers()))
        assert scope.cancelled_caught
        assert set(os.listdir("/proc/self/fd")) == before


class TestChangingFiles:
    """A file that changes between the moment it was described and the one it is read."""

    def open_and_then(self, monkeypatch: pytest.MonkeyPatch, change: str, path: Path) -> None:
        for name in ("open_now", "open_with_stat"):
            real = getattr(Beneath, name)

            def opened(self: Beneath, names: Sequence[str], real: object = real) -> tuple[FileIO, os.stat_result]:
                found: tuple[FileIO, os.stat_result] = real(self, names)  # type: ignore[operator]
                os.truncate(path, 5) if change == "shrinks" else path.unlink()
                return found

            monkeypatch.setattr(Beneath, name, opened)

    async def test_a_small_one_that_shrinks_is_asked_for_again_later(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.open_and_then(monkeypatch, "shrinks", root / "ten.txt")
        response = await ask(Files(root))
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert "shorter" in caplog.text

    async def test_one_that_is_removed_is_sent_to_its_end(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open_and_then(monkeypatch, "vanishes", root / "ten.txt")
        assert (await ask(Files(root))).body == TEN


def test_a_path_is_split_into_its_names() -> None:
    assert split_path("/") == ([], True)
    assert split_path("/a/b%20c") == (["a", "b c"], False)
    assert split_path("/a/b/") == (["a", "b"], True)
    assert split_path("/a%20/b/") == (["a ", "b"], True)
