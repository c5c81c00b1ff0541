"""The web servers among the examples, as a person runs and uses them: by curl, and by our own client."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from asyncnet.http import HTTPClient
from asyncnet.http.websocket import connect_websocket
from tests.examples.running import ANYWHERE, DEADLINE, serving


def curl(*options: str | Path) -> str:
    """What curl prints; it must succeed."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    return subprocess.run(
        ["curl", "--silent", "--show-error", "--noproxy", "*", *options],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    ).stdout


def test_a_static_site_has_cache_rules_compressed_twins_and_a_page_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "style.1a2b.css").write_text("p { color: red }")
    (tmp_path / "index.html").write_text("<!DOCTYPE html><title>home</title>")
    (tmp_path / "index.html.gz").write_bytes(gzip.compress(b"<!DOCTYPE html><title>home, gzipped</title>"))
    (tmp_path / "data.csv").write_text("1,2\n")
    with serving("static_site.py", tmp_path, ANYWHERE) as url:
        assert curl(f"{url}/") == "<!DOCTYPE html><title>home</title>"
        assert curl("--compressed", f"{url}/") == "<!DOCTYPE html><title>home, gzipped</title>"
        assert "\ncache-control: no-cache\n" in curl("--head", f"{url}/")
        assert "immutable" in curl("--head", f"{url}/assets/style.1a2b.css")
        assert "max-age=3600" in curl("--head", f"{url}/data.csv")
        assert "<p>You are &lt;b&gt;me, from 127.0.0.1:" in curl("--location", "--user-agent", "<b>me", f"{url}/you")


def test_the_guest_book_shows_what_was_written_and_escapes_it(tmp_path: Path) -> None:
    picture = tmp_path / "a picture.png"
    picture.write_bytes(bytes(1000))
    with serving("form.py", ANYWHERE) as url:
        assert '<form method="post"' in curl(f"{url}/")
        form = ["--form-string", "name=<b>Anna</b>", "--form-string", "words=1 < 2 & 3", "--form", f"file=@{picture}"]
        page = curl("--location", *form, f"{url}/")
        assert "<dt>&lt;b&gt;Anna&lt;/b&gt;</dt><dd>1 &lt; 2 &amp; 3\n[a picture.png, 1000 bytes]</dd>" in page
        assert "&lt;b&gt;Anna" in curl(f"{url}/"), "it is there for those who come later"
        assert "<dt>Ben</dt><dd>hello</dd>" in curl("--location", "--data", "name=Ben&words=hello", f"{url}/")


def test_the_guest_book_refuses_what_is_no_entry_of_its_own_page() -> None:
    with serving("form.py", ANYWHERE) as url:
        entry, status = ["--data", "name=x&words=y"], ["--output", "/dev/null", "--write-out", "%{http_code}"]
        assert curl("--header", "Sec-Fetch-Site: cross-site", *entry, *status, f"{url}/") == "403"
        assert curl("--data", "name=x", *status, f"{url}/") == "400"
        assert curl("--data", f"name=x&words={'y' * 20_000}", *status, f"{url}/") == "413"
        assert curl("--header", "Content-Type: text/xml", *entry, *status, f"{url}/") == "415"
        assert curl("--request", "DELETE", *status, f"{url}/") == "405"
        assert curl(*status, f"{url}/elsewhere") == "404"
        assert "<dt>" not in curl(f"{url}/")


async def test_people_in_the_chat_read_what_each_of_them_says() -> None:
    with serving("chat_starlette.py", ANYWHERE) as url, trio.fail_after(DEADLINE):
        room = url.replace("http", "ws", 1) + "/room"
        async with connect_websocket(f"{room}?name=Anna") as anna:
            assert await anna.receive() == "Anna has come"
            async with connect_websocket(f"{room}?name=Ben") as ben:
                assert [await anna.receive(), await ben.receive()] == ["Ben has come"] * 2
                await ben.send("hello")
                await anna.send("<b>hello</b>")
                for person in (anna, ben):
                    assert {await person.receive(), await person.receive()} == {"Ben: hello", "Anna: <b>hello</b>"}
            assert await anna.receive() == "Ben has gone"


async def test_ctrl_c_ends_the_chat_for_those_who_are_in_it() -> None:
    running = ExitStack()
    url = running.enter_context(serving("chat_starlette.py", ANYWHERE))
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery, connect_websocket(f"{url.replace('http', 'ws', 1)}/room") as ws:
            assert await ws.receive() == "guest 1 has come"
            nursery.start_soon(trio.to_thread.run_sync, running.close)
            assert [message async for message in ws] == []
    assert ws.close_code == 1001


def test_the_flask_application_greets_counts_visits_and_streams(tmp_path: Path) -> None:
    cookies = ("--cookie", tmp_path / "cookies", "--cookie-jar", tmp_path / "cookies")
    with serving("flask_app.py", ANYWHERE) as url:
        assert "<h1>Hello World</h1>\n<p>This is your visit number 1." in curl(*cookies, f"{url}/")
        assert "Hello &lt;i&gt;</h1>\n<p>This is your visit number 2." in curl(*cookies, f"{url}/?name=%3Ci%3E")
        lines = curl(f"{url}/count").splitlines()
        assert (len(lines), lines[0], lines[-1]) == (1_000_000, "1", "1000000")


async def test_the_player_shows_a_folder_s_media_and_serves_them_in_ranges(tmp_path: Path) -> None:
    media = bytes(range(256)) * 1000
    (tmp_path / 'a "film" & more.webm').write_bytes(media)
    (tmp_path / "notes.txt").write_text("not to be played")
    with serving("video.py", tmp_path, ANYWHERE) as url:
        async with HTTPClient() as client:
            page = (await client.get(f"{url}/")).text()
            assert "<h2>a &quot;film&quot; &amp; more.webm</h2>" in page
            assert "notes.txt" not in page
            found = re.search(r'src="(media/[^"]+)"', page)
            assert found
            part = await client.get(f"{url}/{found[1]}", headers={"range": "bytes=1000-1999"})
            assert (part.status, part.content) == (206, media[1000:2000])
            assert (await client.get(f"{url}/media/")).status == 404
            assert (await client.get(f"{url}/media")).status == 404


async def test_without_a_folder_the_player_has_music_of_its_own() -> None:
    with serving("video.py") as url:
        async with HTTPClient() as client:
            response = await client.head(f"{url}/media/three%20chords.wav")
            assert response.headers["content-type"] == "audio/wav"
            assert response.headers["accept-ranges"] == "bytes"
            assert int(response.headers["content-length"]) > 10_000_000
