"""Crawls one site: heeds its robots.txt, has four requests open at most, never leaves it. Prints the pages' titles.

python examples/crawler.py URL [PAGES]          (at most so many pages, 100 by default)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from urllib.parse import urljoin
from urllib.robotparser import RobotFileParser

import trio

from asyncnet import AsyncnetError
from asyncnet.http import HTTPClient
from asyncnet.http.url import parse_url
from asyncnet.printable import printable

try:
    from lxml import etree, html
except ImportError:
    sys.exit("this example needs lxml: pip install lxml")

AGENT = "asyncnet-crawler"
LARGEST = 2 << 20
"""Bytes of a page."""


async def read_robots(client: HTTPClient, site: str) -> RobotFileParser:
    """What the site asks of crawlers (RFC 9309): no such file permits all, a server in trouble permits nothing."""
    answer = await client.get(urljoin(site, "/robots.txt"), limit=LARGEST)
    robots, nothing = RobotFileParser(), RobotFileParser()
    nothing.parse(["User-agent: *", "Disallow: /"])
    try:
        robots.parse(answer.text().splitlines() if answer.is_success else [])
    except ValueError:  # numbers of nonsense
        return nothing
    return nothing if answer.status >= 500 else robots


async def read_page(client: HTTPClient, url: str) -> list[str]:
    """Print a line about a page, and return what it links to, as it stands there."""
    try:
        async with client.request("GET", url) as response:
            kind = response.headers.get("content-type", "of no type")
            about, links = f"({kind})", [response.headers.get("location", "")]
            if "html" in kind and await response.read(limit=LARGEST):
                tree = html.document_fromstring(response.text().encode(), parser=html.HTMLParser(encoding="utf-8"))
                about = " ".join((tree.findtext(".//title") or "").split())
                links = [
                    a.get("href") for a in tree.iterfind(".//a[@href]") if "nofollow" not in a.get("rel", "").split()
                ]
            print(printable(f"{response.status} {url}  {about}"))
            return links
    except (OSError, AsyncnetError, trio.BrokenResourceError, etree.LxmlError) as error:
        print(printable(f"--- {url}  {error}"))
        return []


def same_site(url: str, references: list[str]) -> Iterator[str]:
    """Those that lead to the scheme, host and port of `url`, made whole, without fragments and passwords."""
    for reference in references:
        try:
            link = parse_url(urljoin(url, reference.strip()))
        except ValueError:
            continue  # "mailto:", "javascript:", or a slip of the pen
        if link.origin == parse_url(url).origin:
            yield str(link)


async def crawl(start: str, pages: int) -> None:
    # Redirects are links like any others: they may lead away.
    async with HTTPClient(headers={"user-agent": AGENT}, redirects=0) as client, trio.open_nursery() as nursery:
        robots = await read_robots(client, start)
        turns = trio.CapacityLimiter(4)
        seen: set[str] = set()

        async def visit(url: str) -> None:
            async with turns:
                references = await read_page(client, url)
            follow(url, references)

        def follow(url: str, references: list[str]) -> None:
            for link in same_site(url, references):
                if link not in seen and len(seen) < pages and robots.can_fetch(AGENT, link):
                    seen.add(link)
                    nursery.start_soon(visit, link)

        follow(start, [start])


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or not all(word.isdecimal() for word in sys.argv[2:]):
        sys.exit("usage: python examples/crawler.py URL [PAGES]")
    try:
        trio.run(crawl, sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100)
    except* (OSError, AsyncnetError, trio.BrokenResourceError) as errors:
        sys.exit(printable(f"{sys.argv[1]} cannot be crawled: {errors.exceptions[0]}"))
