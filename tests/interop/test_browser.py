"""Headless Chromium in front of our servers: what a person sees and does."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from asyncnet import Service, serve
from asyncnet.http import ASGI, Files, HTTPHandler, Mounts, Request, Response
from asyncnet.http.application import AnyApplication
from asyncnet.http.server import Answered
from examples import form, video
from tests.interop.browser import Tab, chromium, driving
from tests.interop.webm import film


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One browser for all tests of this file: the URL of its DevTools."""
    with chromium(tmp_path_factory.mktemp("browser") / "profile") as url:
        yield url


class Site:
    """A service, and what it has answered."""

    service: Service

    def __init__(self) -> None:
        self.answers: list[tuple[str, int, str]] = []
        """Target, status, Range; noted when the answer has been sent, or the browser has had enough of it."""
        self._another = trio.Event()

    @property
    def url(self) -> str:
        return self.service.endpoints[0].replace("tcp", "http", 1).replace("tls", "https", 1)

    def note(self, answered: Answered) -> None:
        assert answered.exchange is not None
        sent_range = dict(answered.exchange.headers).get(b"range", b"")
        self.answers.append((answered.exchange.target.decode(), answered.status, sent_range.decode()))
        self._another.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the answer that makes it true."""
        while not condition():
            self._another = trio.Event()
            await self._another.wait()


@asynccontextmanager
async def serving(app: AnyApplication, endpoint: str = "tcp://127.0.0.1:0") -> AsyncIterator[Site]:
    site = Site()
    async with trio.open_nursery() as nursery:
        site.service = await nursery.start(serve, HTTPHandler(app, access_log=site.note), endpoint)
        yield site
        nursery.cancel_scope.cancel()


# A folder


async def is_as_wide_as_the_screen(tab: Tab, width: int) -> bool:
    return bool(await tab.run("document.documentElement.scrollWidth") == width == await tab.run("innerWidth"))


@pytest.mark.parametrize("width", [390, 1200])
async def test_a_folder_s_listing_leads_to_its_files_and_fits_the_screen(
    browser: str, tmp_path: Path, width: int
) -> None:
    (tmp_path / "a folder & more").mkdir()
    (tmp_path / "a folder & more" / "größe <1>?#.txt").write_text("the text of the file")
    (tmp_path / f"{'a_long_name_' * 16}.tar.gz").write_bytes(bytes(123_456))
    async with serving(Files(tmp_path)) as site, driving(browser) as devtools:
        tab = await devtools.open_tab(width)
        await tab.go(f"{site.url}/")
        assert await is_as_wide_as_the_screen(tab, width)
        assert "120.6 KiB" in await tab.text()
        async with tab.loading():
            await tab.click("a[href^='./a%20folder']")
        assert "/a folder & more/" in await tab.text()
        assert await is_as_wide_as_the_screen(tab, width)
        async with tab.loading():
            await tab.click("a[href$=txt]")
        assert await tab.text() == "the text of the file"


async def test_a_page_in_a_folder_brings_its_style_and_pictures_and_is_not_fetched_twice(
    browser: str, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text(
        '<!DOCTYPE html><link rel="stylesheet" href="style.css"><script src="page.mjs" type="module"></script>'
        '<link rel="icon" href="data:,"><p>hello</p>' + "".join(f'<img src="{n}.svg">' for n in range(30))
    )
    (tmp_path / "style.css").write_text("p { color: rgb(1, 2, 3) }")
    (tmp_path / "page.mjs").write_text("document.querySelector('p').title = 'from the script'")
    for n in range(30):
        (tmp_path / f"{n}.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="7" height="7"/>')
    async with serving(Files(tmp_path)) as site, driving(browser) as devtools:
        tab = await devtools.open_tab()
        await tab.go(f"{site.url}/")
        assert await tab.run("getComputedStyle(document.querySelector('p')).color") == "rgb(1, 2, 3)"
        assert await tab.run("document.querySelector('p').title") == "from the script"
        assert await tab.run("[...document.images].every(image => image.width === 7)")
        assert len(site.answers) == 33
        assert site.service.counters.accepted <= 7, "six connections and one to spare: they are kept alive"
        async with tab.loading():
            await tab.call("Page.reload")
        assert ("/", 304, "") in site.answers[33:]


# A form


async def test_a_form_is_filled_in_and_what_it_brings_is_shown_and_harms_nobody(browser: str, tmp_path: Path) -> None:
    form.entries.clear()
    picture = tmp_path / "größe.png"
    picture.write_bytes(bytes(200_000))
    async with serving(form.guest_book) as site, driving(browser) as devtools:
        tab = await devtools.open_tab(390)
        await tab.go(f"{site.url}/")
        await tab.type("input[name=name]", "Änna <script>document.title = 'harmed'</script>")
        await tab.type("textarea", "1 < 2 & 3\nsecond line")
        await tab.choose_file("input[type=file]", picture)
        async with tab.loading():
            await tab.click("button")
        assert await tab.run("document.querySelector('dt').innerText") == (
            "Änna <script>document.title = 'harmed'</script>"
        )
        written = await tab.run("document.querySelector('dd').innerText")
        assert written.splitlines() == ["1 < 2 & 3", "second line", "[größe.png, 200000 bytes]"]
        assert await tab.run("document.title") == "Guest book"
        assert await is_as_wide_as_the_screen(tab, 390)
        assert [answer[:2] for answer in site.answers if answer[0] == "/"] == [("/", 200), ("/", 303), ("/", 200)]


async def test_a_page_elsewhere_cannot_have_its_visitors_write(browser: str) -> None:
    async def elsewhere(request: Request) -> Response:
        return Response.html(f'<form method="post" action="{book.url}/"><input name="name"><button>go</button></form>')

    form.entries.clear()
    async with serving(form.guest_book) as book, serving(elsewhere) as site, driving(browser) as devtools:
        tab = await devtools.open_tab()
        await tab.go(f"{site.url.replace('127.0.0.1', 'localhost')}/")
        async with tab.loading():
            await tab.click("button")
        assert "403 Forbidden" in await tab.text()
        assert not form.entries


# A chat


async def test_two_people_in_two_tabs_talk_to_each_other(browser: str) -> None:
    chat = pytest.importorskip("examples.chat_starlette")
    async with serving(ASGI(chat.app)) as site, driving(browser) as devtools:
        anna, ben = await devtools.open_tab(390), await devtools.open_tab()
        await anna.go(f"{site.url}/?name=Anna")
        await anna.wait("said.children.length === 1")
        await ben.go(f"{site.url}/?name=Ben")
        await ben.wait("said.children.length === 1")
        await anna.type("#line", "hello Ben, <i>how are you?</i>")
        await anna.click("button")
        await ben.wait("said.children.length === 2")
        await ben.type("#line", "fine")
        await ben.click("button")
        await anna.wait("said.children.length === 4")
        await ben.wait("said.children.length === 3")
        said = "[...said.children].map(item => item.innerText)"
        assert await anna.run(said) == [
            "Ben: fine",
            "Anna: hello Ben, <i>how are you?</i>",
            "Ben has come",
            "Anna has come",
        ]
        assert await anna.run(said + ".slice(0, 3)") == await ben.run(said)
        await ben.go("about:blank")
        await anna.wait("said.children[0].innerText === 'Ben has gone'")


async def test_a_drain_tells_the_page_that_the_server_goes_away(browser: str) -> None:
    chat = pytest.importorskip("examples.chat_starlette")
    async with serving(ASGI(chat.app)) as site, driving(browser) as devtools:
        tab = await devtools.open_tab()
        await tab.go(f"{site.url}/")
        await tab.wait("said.children.length === 1")
        await tab.run("void socket.addEventListener('close', event => document.title = event.code)")
        await site.service.drain()
        await tab.wait("document.title === '1001'")
        assert "(the chat has ended)" in await tab.text()


# A film, and music

PAINT = """
(() => {
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d"), pictures = []
    canvas.width = 640, canvas.height = 360
    const noise = context.createImageData(640, 360)  // it can hardly be compressed: the file becomes large
    for (let at = 0; at < noise.data.length; at++) noise.data[at] = at % 4 < 3 ? Math.random() * 256 : 255
    for (let shade = 0; shade < 10; shade++) {
        context.putImageData(noise, 0, 0)
        context.fillStyle = `rgb(0, ${20 * shade}, 0)`
        context.fillRect(0, 0, 320, 360)
        pictures.push(canvas.toDataURL("image/webp", 0.95).split(",")[1])
    }
    return pictures
})()
"""

SEEK = """
(async second => {
    const player = document.querySelector("video")
    const sought = new Promise((done, failed) => { player.onseeked = done; player.onerror = failed })
    player.currentTime = second
    await sought
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d")
    context.drawImage(player, 0, 0)
    return [player.currentTime, player.videoWidth && context.getImageData(100, 100, 1, 1).data[1]]
})
"""


async def was_sought(site: Site, tab: Tab, at: int) -> None:
    """Wait until it shows that the browser has asked for a range that begins behind byte `at`, and was given it."""
    await tab.go("about:blank")  # it takes no more of what it is being sent

    def was_sent() -> bool:
        sent = [asked.removeprefix("bytes=") for _, status, asked in site.answers if status == 206]
        return any(int(asked.partition("-")[0]) > at for asked in sent)

    await site.until(was_sent)
    assert {status for target, status, _ in site.answers if "/media/" in target} <= {206, 304}


async def test_a_film_is_sought_to_any_second_and_shows_the_picture_that_is_there(browser: str, tmp_path: Path) -> None:
    async with serving(video.player(str(tmp_path))) as site, driving(browser) as devtools:
        tab = await devtools.open_tab()
        pictures = [base64.b64decode(picture) for picture in await tab.run(PAINT)]
        data = film(pictures * 12, 640, 360)
        (tmp_path / "a film.webm").write_bytes(data)
        await tab.go(f"{site.url}/")
        await tab.wait("document.querySelector('video').readyState >= 1")
        assert await tab.run("document.querySelector('video').duration") == 120
        for second in (117, 3, 64):
            at, green = await tab.run(f"{SEEK}({second}.5)")
            assert at == second + 0.5
            assert abs(green - 20 * (second % 10)) < 8
        await was_sought(site, tab, len(data) // 2)


async def test_music_is_sought_and_plays_on_from_there(browser: str, tmp_path: Path) -> None:
    video.compose(str(tmp_path / "three chords.wav"))
    async with serving(video.player(str(tmp_path))) as site, driving(browser) as devtools:
        tab = await devtools.open_tab(390)
        await tab.go(f"{site.url}/")
        await tab.wait("document.querySelector('video').readyState >= 1")
        assert (await tab.run(f"{SEEK}(150)"))[0] == 150
        await tab.run("document.querySelector('video').play()")
        await tab.wait("document.querySelector('video').currentTime > 150")
        await was_sought(site, tab, 12_000_000)


# Over TLS


async def test_pages_and_a_websocket_come_over_tls(browser: str, tmp_path: Path) -> None:
    chat = pytest.importorskip("examples.chat_starlette")
    certificate = tmp_path / "server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "large.bin").write_bytes(bytes(3_000_000))
    app = Mounts({"/": ASGI(chat.app), "/files": Files(tmp_path / "site")})
    async with serving(app, f"tls://127.0.0.1:0?cert={certificate}") as site, driving(browser) as devtools:
        tab = await devtools.open_tab()
        await tab.go(f"{site.url}/?name=Anna")
        await tab.wait("said.innerText.includes('Anna has come')")
        assert await tab.run("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "http/1.1"
        assert await tab.run("fetch('files/large.bin').then(r => r.arrayBuffer()).then(b => b.byteLength)") == 3_000_000
        await tab.run("void socket.close()")
        await tab.wait("said.innerText.includes('(the chat has ended)')")
