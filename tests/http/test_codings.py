"""Accept-Encoding, and the compressed twins of files that it chooses from."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import ConfigurationError
from asyncnet.http.codings import REMEMBERED, acceptable
from asyncnet.http.files import SMALL, Files
from asyncnet.http.messages import FileBody, Headers, Request
from tests.http.folder import MODIFIED, TEN, WAYS, ask, make_root, use_way

ALL = ("br", "zstd", "gzip")
CHROME = "gzip, deflate, br, zstd"


class TestPreference:
    @pytest.mark.parametrize(
        ("field", "codings"),
        [
            (None, []),
            ("", []),
            (CHROME, ["br", "zstd", "gzip"]),
            ("gzip", ["gzip"]),
            ("GZIP;Q=1", ["gzip"]),
            ("x-gzip", ["gzip"]),
            ("deflate", []),
            ("identity", []),
            ("gzip;q=0", []),
            ("gzip;q=0.000", []),
            ("gzip;q=0.001", ["gzip"]),
            ("gzip;q=1.0, br;q=0.5", ["gzip", "br"]),
            ("gzip ; q=0.2 ,\tbr ;q=0.4", ["br", "gzip"]),
            ("*", ["br", "zstd", "gzip"]),
            ("*;q=0", []),
            ("br;q=0, *", ["zstd", "gzip"]),
            ("gzip, *;q=0", ["gzip"]),
            ("gzip;q=0.5, *;q=0.8", ["br", "zstd", "gzip"]),
            ("identity;q=1, gzip;q=0.5", []),
            ("identity;q=0.5, gzip;q=0.5", ["gzip"]),
            ("identity;q=0, gzip;q=0.1", ["gzip"]),
            ("gzip;q=2", []),
            ("gzip;q=-1", []),
            ("gzip;q=0.1234", []),
            ("gzip;level=9", []),
            ("gzip br", []),
            (",,gzip,", ["gzip"]),
            ("gzip;q=0, gzip", []),
            ("br" + "," * REMEMBERED, ["br"]),
        ],
    )
    def test_the_best_liked_comes_first(self, field: str | None, codings: list[str]) -> None:
        assert list(acceptable(field, ALL)) == codings

    def test_what_is_liked_equally_comes_as_the_server_has_it(self) -> None:
        assert acceptable(CHROME, ("gzip", "br")) == ("gzip", "br")

    @given(st.text(st.characters(max_codepoint=255)))
    def test_no_field_is_an_error(self, field: str) -> None:
        assert set(acceptable(field, ALL)) <= set(ALL)


class TestTwins:
    @pytest.fixture(params=WAYS)
    def root(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        use_way(request.param, monkeypatch)
        root = make_root(tmp_path)
        for suffix in (".br", ".zst", ".gz"):
            self.write(root / f"ten.txt{suffix}", suffix.encode())
        return root

    def write(self, path: Path, content: bytes, modified: float = MODIFIED) -> None:
        path.write_bytes(content)
        os.utime(path, (modified, modified))

    async def test_the_best_liked_twin_is_sent_as_what_it_stands_for(self, root: Path) -> None:
        files = Files(root, precompressed=True)
        for accepted, coding, content in (
            (CHROME, "br", b".br"),
            ("zstd, gzip;q=0.5", "zstd", b".zst"),
            ("gzip", "gzip", b".gz"),
        ):
            response = await ask(files, accept_encoding=accepted)
            assert (response.status, response.body) == (200, content)
            assert response.headers["content-encoding"] == coding
            assert response.headers["content-type"] == "text/plain; charset=utf-8"
            assert response.headers["vary"] == "accept-encoding"

    async def test_who_takes_none_gets_the_file(self, root: Path) -> None:
        files = Files(root, precompressed=True)
        for headers in (
            {},
            {"accept_encoding": "deflate"},
            {"accept_encoding": "br;q=0"},
            {"accept_encoding": "*;q=0"},
        ):
            response = await ask(files, **headers)
            assert (response.status, response.body) == (200, TEN)
            assert "content-encoding" not in response.headers
            assert response.headers["vary"] == "accept-encoding"

    async def test_none_is_looked_for_unless_asked(self, root: Path) -> None:
        response = await ask(Files(root), accept_encoding=CHROME)
        assert response.body == TEN
        assert "vary" not in response.headers

    async def test_only_those_that_are_named_are_looked_for_and_in_that_order(self, root: Path) -> None:
        files = Files(root, precompressed=["gzip", "br"])
        assert (await ask(files, accept_encoding=CHROME)).body == b".gz"
        assert (await ask(files, accept_encoding="zstd")).body == TEN

    def test_a_coding_without_an_ending_is_a_configuration_error(self, root: Path) -> None:
        with pytest.raises(ConfigurationError, match="deflate"):
            Files(root, precompressed=["deflate"])

    async def test_the_next_best_stands_in_for_one_that_is_not_there(self, root: Path) -> None:
        (root / "ten.txt.br").unlink()
        assert (await ask(Files(root, precompressed=True), accept_encoding=CHROME)).body == b".zst"

    async def test_a_twin_that_is_older_than_its_file_is_not_sent(self, root: Path) -> None:
        self.write(root / "ten.txt.br", b"old", MODIFIED - 1)
        assert (await ask(Files(root, precompressed=True), accept_encoding="br")).body == TEN

    async def test_a_twin_whose_time_was_copied_to_the_second_is_sent(self, root: Path) -> None:
        os.utime(root / "ten.txt", (MODIFIED + 0.75, MODIFIED + 0.75))
        assert (await ask(Files(root, precompressed=True), accept_encoding="br")).body == b".br"

    async def test_a_twin_without_its_file_is_not_there(self, root: Path) -> None:
        (root / "ten.txt").unlink()
        assert (await ask(Files(root, precompressed=True), accept_encoding="br")).status == 404

    async def test_a_twin_by_its_own_name_is_a_file_like_others(self, root: Path) -> None:
        response = await ask(Files(root, precompressed=True), "/ten.txt.gz", accept_encoding="gzip")
        assert response.body == b".gz"
        assert response.headers["content-type"] == "application/gzip"
        assert "content-encoding" not in response.headers

    async def test_each_has_a_tag_of_its_own_for_all_conditions(self, root: Path) -> None:
        files = Files(root, precompressed=True)
        tags = {}
        for coding in ("identity", "br", "zstd", "gzip"):
            tags[coding] = (await ask(files, accept_encoding=coding)).headers["etag"]
        assert len(set(tags.values())) == 4
        response = await ask(files, accept_encoding="br", if_none_match=tags["br"])
        assert (response.status, response.headers["vary"]) == (304, "accept-encoding")
        assert "content-encoding" not in response.headers
        assert (await ask(files, accept_encoding="br", if_none_match=tags["identity"])).status == 200
        assert (await ask(files, accept_encoding="br", if_match=tags["gzip"])).status == 412
        assert (await ask(files, accept_encoding="br", if_range=tags["identity"], range="bytes=0-0")).status == 200

    async def test_a_twin_has_a_tag_of_its_own_even_if_it_is_the_same_file(self, root: Path) -> None:
        (root / "ten.txt.br").unlink()
        os.link(root / "ten.txt", root / "ten.txt.br")
        files = Files(root, precompressed=True)
        coded, plain = await ask(files, accept_encoding="br"), await ask(files)
        assert coded.headers["content-encoding"] == "br"
        assert coded.headers["etag"] != plain.headers["etag"]

    async def test_a_range_is_one_of_the_coded_bytes(self, root: Path) -> None:
        response = await ask(Files(root, precompressed=True), accept_encoding="br", range="bytes=1-1")
        assert (response.status, response.body) == (206, b"b")
        assert response.headers["content-encoding"] == "br"
        assert response.headers["content-range"] == "bytes 1-1/3"

    async def test_several_ranges_of_a_coded_file_get_the_whole(self, root: Path) -> None:
        self.write(root / "ten.txt.br", bytes(1000))
        response = await ask(Files(root, precompressed=True), accept_encoding="br", range="bytes=0-0,900-900")
        assert (response.status, response.body) == (200, bytes(1000))

    async def test_an_index_has_twins_too(self, root: Path) -> None:
        self.write(root / "sub" / "index.html", b"plain")
        self.write(root / "sub" / "index.html.gz", gzip.compress(b"plain"))
        response = await ask(Files(root, precompressed=True), "/sub/", accept_encoding="gzip")
        assert isinstance(response.body, bytes)
        assert gzip.decompress(response.body) == b"plain"
        assert response.headers["content-type"] == "text/html; charset=utf-8"

    async def test_head_tells_of_the_twin_and_a_large_one_is_left_to_the_kernel(self, root: Path) -> None:
        self.write(root / "ten.txt.gz", bytes(SMALL + 1))
        files = Files(root, precompressed=True)
        for method in ("HEAD", "GET"):
            response = await files(Request(method, "/ten.txt", Headers({"accept-encoding": "gzip"})))
            assert isinstance(response.body, FileBody)
            assert response.body.count == SMALL + 1
            assert response.body.file.closed == (method == "HEAD")
            assert response.headers["content-encoding"] == "gzip"
            response.close()

    @pytest.mark.parametrize("target", ["../secret", "/etc/hostname", "../root/../secret", "nowhere", "ten.txt.br"])
    async def test_a_twin_that_is_a_link_out_of_the_root_is_never_sent(self, root: Path, target: str) -> None:
        """CVE-2024-42367."""
        (root / "ten.txt.br").unlink()
        (root / "ten.txt.br").symlink_to(target)
        response = await ask(Files(root, precompressed=["br"]), accept_encoding="br")
        assert (response.status, response.body) == (200, TEN)
        assert "content-encoding" not in response.headers
        assert (await ask(Files(root, precompressed=["br"]), "/ten.txt.br")).status == 404

    async def test_a_twin_that_is_a_link_within_the_root_is_sent(self, root: Path) -> None:
        (root / "ten.txt.br").unlink()
        (root / "ten.txt.br").symlink_to("ten.txt.zst")
        assert (await ask(Files(root, precompressed=["br"]), accept_encoding="br")).body == b".zst"

    async def test_a_twin_that_is_no_file_is_not_sent(self, root: Path) -> None:
        (root / "ten.txt.br").unlink()
        (root / "ten.txt.br").mkdir()
        (root / "ten.txt.zst").unlink()
        os.mkfifo(root / "ten.txt.zst")
        (root / "ten.txt.gz").unlink()
        assert (await ask(Files(root, precompressed=True), accept_encoding=CHROME)).body == TEN

    async def test_a_name_too_long_for_a_twin_has_none(self, root: Path) -> None:
        name = "a" * 255
        (root / name).write_bytes(TEN)
        assert (await ask(Files(root, precompressed=True), "/" + name, accept_encoding=CHROME)).body == TEN
