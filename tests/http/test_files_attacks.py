"""What must never come out of a folder, whoever asks and however (the HTTP files rows of the attacks)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncnet.http.files import SMALL, Files
from asyncnet.http.messages import Headers, Request
from tests.http.client import served
from tests.http.folder import WAYS, ask, make_root, use_way


@pytest.fixture(params=WAYS)
def root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    use_way(request.param, monkeypatch)
    return make_root(tmp_path)


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

    @pytest.mark.parametrize("target", ["/a%2525", "/%25252e%25252e/secret", "/%25", "/%", "/%2", "/%zz"])
    async def test_a_path_is_decoded_once_and_no_more(self, root: Path, target: str) -> None:
        assert (await ask(Files(root), target)).status == 404
        (root / "%").write_text("percent")
        response = await ask(Files(root), target)
        assert response.status == (200 if target in ("/%25", "/%") else 404)

    @pytest.mark.parametrize("target", ["/socket", "/sub/pipe/", "/pipe/x"])
    async def test_what_is_no_file_is_not_found(self, root: Path, target: str) -> None:
        os.mkfifo(root / "sub" / "pipe")
        os.mkfifo(root / "pipe")
        os.mknod(root / "socket", 0o140600)
        assert (await ask(Files(root), target)).status == 404

    async def test_a_device_is_not_found(self, root: Path) -> None:
        try:
            os.mknod(root / "zero", 0o020600, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("only root makes devices")
        assert (await ask(Files(root), "/zero")).status == 404

    async def test_links_that_go_in_a_circle_are_not_found(self, root: Path) -> None:
        (root / "a").symlink_to("b")
        (root / "b").symlink_to("a")
        for target in ("/a", "/a/", "/a/x"):
            assert (await ask(Files(root), target)).status == 404

    async def test_an_absolute_link_into_the_root_is_followed(self, root: Path) -> None:
        (root / "absolute").symlink_to(root / "ten.txt")
        (root / "loop").symlink_to(root)
        assert (await ask(Files(root), "/absolute")).status == 200
        assert (await ask(Files(root), "/loop/sub/deep/../../ten.txt")).status == 404
        assert (await ask(Files(root), "/loop/ten.txt")).status == 200

    async def test_names_of_255_bytes_are_found_and_longer_ones_are_not(self, root: Path) -> None:
        (root / ("a" * 255)).write_text("long")
        (root / ("ä" * 127)).write_text("long")
        assert (await ask(Files(root), "/" + "a" * 255)).status == 200
        assert (await ask(Files(root), "/" + "%C3%A4" * 127)).status == 200
        assert (await ask(Files(root), "/" + "%C3%A4" * 128)).status == 404
        assert (await ask(Files(root), "/" + "a/" * 4000)).status == 404


class TestOverTheWire:
    """The same through the server, as a peer sees it."""

    async def test_a_file_that_shrinks_while_it_is_sent_breaks_the_connection(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = root / "large.bin"

        async def shrinking(request: Request) -> object:
            response = await Files(root)(request)
            os.truncate(path, SMALL - 1000)
            return response

        async with served(shrinking) as client:  # type: ignore[arg-type]
            await client.send(b"GET /large.bin HTTP/1.1\r\nhost: a\r\n\r\n")
            status, headers = await client.head()
            assert (status, headers["content-length"]) == (200, str(SMALL + 1))
            received = b""
            with pytest.raises(trio.BrokenResourceError):
                while piece := await client.stream.receive_some():
                    received += piece
            assert len(received) <= SMALL - 1000

    async def test_a_file_that_vanishes_while_it_is_sent_is_sent_to_its_end(self, root: Path) -> None:
        content = (root / "large.bin").read_bytes()

        async def vanishing(request: Request) -> object:
            response = await Files(root)(request)
            (root / "large.bin").unlink()
            return response

        async with served(vanishing) as client:  # type: ignore[arg-type]
            assert (await client.ask(b"GET /large.bin HTTP/1.1\r\nhost: a\r\n\r\n"))[2] == content

    async def test_head_and_get_say_the_same(self, root: Path) -> None:
        (root / "ten.txt.gz").write_bytes(bytes(100))
        async with served(Files(root, precompressed=True)) as client:
            for target in ("/ten.txt", "/large.bin", "/sub/", "/sub", "/missing"):
                lines = f" {target} HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n".encode()
                status, headers, body = await client.ask(b"GET" + lines)
                to_head = await client.ask(b"HEAD" + lines, to_head=True)
                del headers["date"], to_head[1]["date"]
                assert (status, headers) == to_head[:2]
                assert headers["content-length"] == str(len(body))

    async def test_a_condition_that_fails_leaves_the_connection_in_order(self, root: Path) -> None:
        async with served(Files(root)) as client:
            get = b"GET /large.bin HTTP/1.1\r\nhost: a\r\n"
            assert (await client.ask(get + b"if-none-match: *\r\n\r\n"))[0] == 304
            assert (await client.ask(get + b'if-match: "x"\r\n\r\n'))[0] == 412
            assert (await client.ask(get + b"range: bytes=999999-\r\n\r\n"))[0] == 416
            assert (await client.ask(get + b"range: bytes=0-2\r\n\r\n"))[2] == b"\x00\x01\x02"
            assert len((await client.ask(get + b"\r\n"))[2]) == SMALL + 1
