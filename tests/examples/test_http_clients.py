"""The clients among the examples, as a person runs them, against sites of our own on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from subprocess import CompletedProcess

import pytest
import trio
import trio.testing

from asyncnet import serve
from asyncnet.http import HTTPHandler, Request, Response
from tests.examples.running import run


class Site:
    """A web site out of a table, which knows what it was asked for."""

    def __init__(self, pages: dict[str, Callable[[], Response]]) -> None:
        self.pages = pages
        self.asked: list[str] = []
        self.url = ""
        self.busy = self.busiest = 0

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request.target)
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        await trio.testing.wait_all_tasks_blocked()
        self.busy -= 1
        page = self.pages.get(request.target)
        return Response.problem(404) if page is None else page()


@asynccontextmanager
async def serving(pages: dict[str, Callable[[], Response]]) -> AsyncIterator[Site]:
    site = Site(pages)
    async with trio.open_nursery() as nursery:
        service = await nursery.start(serve, HTTPHandler(site), "tcp://127.0.0.1:0")
        site.url = service.endpoints[0].replace("tcp", "http", 1)
        yield site
        nursery.cancel_scope.cancel()


async def run_beside(name: str, *arguments: object, stdin: str = "") -> CompletedProcess[str]:
    return await trio.to_thread.run_sync(partial(run, name, *arguments, stdin=stdin))


def page(title: str, *links: str) -> Callable[[], Response]:
    body = "".join(f'<a href="{link}">there</a>\n' for link in links)
    return lambda: Response.html(f"<!DOCTYPE html><title>{title}</title>{body}")


# The crawler


async def test_the_crawler_goes_everywhere_on_its_site_once_and_nowhere_else() -> None:
    async with serving({}) as other, serving({}) as site:
        port = site.url.rpartition(":")[2]
        site.pages |= {
            "/": page(
                "home\x1b[31m\n page",
                *("a", "/b?x=1#part", "a", "mailto:me@example.org", "javascript:go()", "http://[", "/moved", "/away"),
                *(f"{other.url}/elsewhere", f"//127.0.0.2:{port}/", f"http://localhost:{port}/", "picture.png"),
                f"https://127.0.0.1:{port}/",
            ),
            "/a": page("first", "/", "b?x=1", "none"),
            "/b?x=1": page("second", "./a#top"),
            "/moved": lambda: Response.redirect("/c"),
            "/c": page("third"),
            "/away": lambda: Response.redirect(f"{other.url}/elsewhere"),
            "/picture.png": lambda: Response(200, {"content-type": "image/png"}, b"\x89PNG"),
        }
        done = await run_beside("crawler.py", site.url)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(site.asked) == sorted({"/robots.txt", "/none", *site.pages})
        assert other.asked == []
        lines = done.stdout.splitlines()
        assert lines[0] == f"200 {site.url}/  home\\x1b[31m page"
        assert f"200 {site.url}/b?x=1  second" in lines
        assert f"404 {site.url}/none  (text/plain; charset=utf-8)" in lines
        assert f"200 {site.url}/picture.png  (image/png)" in lines
        assert len(lines) == len(site.asked) - 1
        assert site.busiest <= 4


async def test_the_crawler_heeds_robots_txt_and_nofollow() -> None:
    rules = "User-agent: *\nDisallow: /private\nCrawl-delay: 0\n"
    async with serving({"/robots.txt": lambda: Response.text(rules), "/open": page("open")}) as site:
        links = '<a href="/open">1</a> <a href="/private/x">2</a> <a rel="ugc nofollow" href="/spam">3</a>'
        site.pages["/"] = lambda: Response.html(links)
        assert (await run_beside("crawler.py", site.url)).returncode == 0
        assert site.asked == ["/robots.txt", "/", "/open"]


async def test_the_crawler_leaves_a_site_in_trouble_alone() -> None:
    async with serving({"/robots.txt": lambda: Response.problem(503), "/": page("home")}) as site:
        assert (await run_beside("crawler.py", site.url)).stdout == ""
        assert site.asked == ["/robots.txt"]


async def test_the_crawler_is_not_held_by_html_nested_without_end() -> None:
    pages = {"/": page("home", "/deep", "/last"), "/deep": lambda: Response.html("<div>" * 400_000)}
    async with serving({**pages, "/last": page("last")}) as site:
        done = await run_beside("crawler.py", site.url)
    assert f"200 {site.url}/deep  " in done.stdout
    assert f"200 {site.url}/last  last" in done.stdout


@pytest.mark.parametrize("number", ["\xb2", "9" * 5000])
async def test_the_crawler_leaves_a_site_alone_whose_rules_are_nonsense(number: str) -> None:
    robots = f"User-agent: *\nCrawl-delay: {number}\n"
    async with serving({"/": page("home"), "/robots.txt": partial(Response.text, robots)}) as site:
        done = await run_beside("crawler.py", site.url)
        assert (done.returncode, done.stdout) == (0, "")
        assert "Traceback" not in done.stderr
        assert site.asked == ["/robots.txt"]


@pytest.mark.parametrize("arguments", [(), ("http://127.0.0.1/", "many"), ("nonsense",), ("http://127.0.0.1:1/",)])
async def test_the_crawler_says_in_a_line_what_it_cannot_do(arguments: tuple[str, ...]) -> None:
    done = await run_beside("crawler.py", *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)


async def test_the_crawler_stops_at_so_many_pages_and_passes_over_what_is_too_large() -> None:
    links = [f"/{number}" for number in range(50)]
    async with serving({"/": page("home", *links), "/0": lambda: Response.html("x" * (3 << 20))}) as site:
        done = await run_beside("crawler.py", site.url, 10)
        assert len(site.asked) == 1 + 10
        assert f"--- {site.url}/0  " in done.stdout


# The reader of news

RSS = """<?xml version="1.0"?><rss version="2.0"><channel><title>News</title>
<item><title>One &amp; only</title><link>https://example.org/1</link></item>
<item><title>\u202etwo</title><link> https://example.org/2 </link></item><item/></channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>News</title>
<entry><title>Atomic</title><link rel="alternate" href="https://example.org/3"/></entry></feed>"""
BOMB = """<?xml version="1.0"?><!DOCTYPE bomb [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><rss><channel><item><title>&c;</title></item></channel></rss>"""
THIEF = """<?xml version="1.0"?><!DOCTYPE thief [<!ENTITY secret SYSTEM "file:///etc/hostname">]>
<rss><channel><item><title>&secret;</title></item></channel></rss>"""


def xml(text: str) -> Callable[[], Response]:
    return lambda: Response(200, {"content-type": "application/xml"}, text)


async def test_the_reader_reads_rss_and_atom() -> None:
    async with serving({"/rss": xml(RSS), "/atom": xml(ATOM)}) as site:
        done = await run_beside("rss_reader.py", f"{site.url}/rss", f"{site.url}/atom")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{site.url}/rss\n* One & only\n  https://example.org/1\n* \\u202etwo\n" in done.stdout
    assert "  https://example.org/2\n* (no title)\n  \n" in done.stdout
    assert f"{site.url}/atom\n* Atomic\n  https://example.org/3\n" in done.stdout


async def test_the_reader_refuses_bombs_and_thieves_and_reads_on() -> None:
    pages = {
        "/bomb": xml(BOMB),
        "/thief": xml(THIEF),
        "/broken": xml("<rss><item>"),
        "/unknown": xml(RSS.replace("?>", " encoding='nonsense'?>", 1)),
        "/wide": xml(RSS.replace("?>", " encoding='gb2312'?>", 1)),
        "/rss": xml(RSS),
    }
    async with serving(pages) as site:
        done = await run_beside("rss_reader.py", *(f"{site.url}{path}" for path in [*pages, "/none"]))
    assert done.returncode == 1
    assert "One & only" in done.stdout
    errors = sorted(done.stderr.splitlines())
    assert [line.partition(": ")[0] for line in errors] == [
        f"{site.url}/bomb is refused, since it is made to do harm",
        f"{site.url}/broken cannot be read",
        f"{site.url}/none cannot be read",
        f"{site.url}/thief is refused, since it is made to do harm",
        f"{site.url}/unknown cannot be read",
        f"{site.url}/wide cannot be read",
    ]


# Many pages at once


async def test_many_pages_are_fetched_at_once_and_each_has_its_line() -> None:
    async with serving({f"/{n}": partial(Response.text, "x" * n) for n in range(100)}) as site:
        urls = [f"{site.url}/{n}" for n in range(100)]
        done = await run_beside("fetch_many.py", stdin="\n".join(urls))
        assert (done.returncode, done.stderr) == (0, "")
        lines = [line.split() for line in done.stdout.splitlines()]
        assert sorted(int(line[1]) for line in lines) == list(range(100))
        assert {line[0] for line in lines} == {"200"}
        assert {line[-1] for line in lines} == set(urls)
        assert 1 < site.busiest <= 20


async def test_a_page_that_does_not_come_is_told_and_the_others_come() -> None:
    async with serving({"/": page("home")}) as site:
        done = await run_beside("fetch_many.py", f"{site.url}/", f"{site.url}/none", "tcp://x", "http://127.0.0.1:1/")
    assert done.returncode == 1
    assert done.stderr == ""
    assert sorted(line[:3] for line in done.stdout.splitlines()) == ["---", "---", "200", "404"]
    assert "--- tcp://x: tcp://x: the scheme tcp is not known here" in done.stdout
